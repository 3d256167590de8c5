//! MACs under static keys and under transaction keys.

use super::super::dukpt_aes::kind_or_usual;
use super::super::file::hex;
use super::super::{Answer, Outcome, Stop, Vector, mac};
use super::DukptInputs;
use super::keys::{Keys, New, expect};
use crate::command::Direction;
use crate::grpc::client::{KeyCall, MacCall};
use crate::mac::MacAlgorithm;
use crate::mac::for_vectors::VectorMacAlgorithm;
use crate::vault::{KeyAttributes, KeyUsage};

/// Runs `mac_generate` and `mac_verify` under the vector's own key.
pub(super) async fn run(keys: &mut Keys<'_>, vector: &Vector) -> Outcome {
    let asked = Asked::of(vector)?;
    let (usage, letter) = match asked.algorithm {
        MacAlgorithm::AesCmac => (KeyUsage::MacCmac, b'A'),
        MacAlgorithm::HmacSha256 | MacAlgorithm::HmacSha384 | MacAlgorithm::HmacSha512 => {
            (KeyUsage::MacHmac, b'H')
        }
        MacAlgorithm::Iso9797Alg1(_) => (KeyUsage::MacAlgorithm1, b'T'),
        MacAlgorithm::Iso9797Alg3(_) => (KeyUsage::MacAlgorithm3, b'T'),
        MacAlgorithm::TdesCmac => (KeyUsage::MacCmac, b'T'),
    };
    let key = vector.bytes("key")?;
    let attributes = asked.attributes()?;
    let imported = keys.import(New { usage, letter, key: &key, attributes }).await?;
    asked.of_service(keys, KeyCall::Static(&imported.id), None).await
}

/// Runs `mac_generate` and `mac_verify` under a transaction key.
pub(super) async fn run_dukpt(keys: &mut Keys<'_>, vector: &Vector) -> Outcome {
    let asked = Asked::of(vector)?;
    let inputs = DukptInputs::of(vector)?;
    let direction = match vector.text("derivation_type")? {
        "mac_both" => Direction::Both,
        "mac_generation" | "mac_request" => Direction::Request,
        "mac_response" | "mac_verification" => Direction::Response,
        other => return Err(Stop::Unexpressed(format!("of MACs under the {other} key"))),
    };
    let algorithm = if inputs.is_aes {
        let algorithm = VectorMacAlgorithm::Service(asked.algorithm);
        Some(kind_or_usual(vector, Some(algorithm), inputs.bdk.len())?.algorithm())
    } else {
        None
    };
    let attributes = KeyAttributes { open: true, ..asked.attributes()? };
    let new = New {
        usage: KeyUsage::BaseDerivation,
        letter: inputs.letter(),
        key: &inputs.bdk,
        attributes,
    };
    let imported = keys.import(new).await?;
    let key = KeyCall::Dukpt { base_derivation_key: &imported.id, ksn: &inputs.ksn, algorithm };
    asked.of_service(keys, key, Some(direction)).await
}

/// What a vector asks of a key.
struct Asked {
    algorithm: MacAlgorithm,
    message: Vec<u8>,
    /// The MAC to be verified; none to make one.
    mac: Option<Vec<u8>>,
    /// How many octets the MAC is said to have.
    len_bytes: usize,
}

impl Asked {
    fn of(vector: &Vector) -> Result<Self, Stop> {
        let VectorMacAlgorithm::Service(algorithm) = mac::algorithm(vector)? else {
            let name = vector.text("mac_algorithm")?;
            return Err(Stop::Unexpressed(format!("of {name}, which the API does not offer")));
        };
        let is_verify = vector.operation()? == "mac_verify";
        let mac = if is_verify { Some(vector.bytes("mac")?) } else { None };
        let whole = mac.as_ref().map_or(algorithm.len_bytes(), Vec::len);
        let len_bytes = vector.optional_number("mac_length")?.unwrap_or(whole);
        if mac.as_ref().is_some_and(|mac| mac.len() > len_bytes) {
            let why = "with a MAC longer than its stated length, which the API does not have";
            return Err(Stop::Unexpressed(why.to_owned()));
        }
        Ok(Self { algorithm, message: vector.bytes("message")?, mac, len_bytes })
    }

    /// The attributes of a key that serves this vector, as far as the policy lets it: MACs of the
    /// length that is said and no shorter, messages of this length where one must be fixed.
    fn attributes(&self) -> Result<KeyAttributes, Stop> {
        let too_long = |_| Stop::Unexpressed("with a message that no request can hold".to_owned());
        let fixed = if self.algorithm.needs_fixed_length() { self.message.len() } else { 0 };
        let shortest = self.len_bytes.clamp(SHORTEST, LONGEST);
        Ok(KeyAttributes {
            mac_length_min_bytes: u8::try_from(shortest).map_err(too_long)?,
            mac_message_length_bytes: u32::try_from(fixed).map_err(too_long)?,
            ..KeyAttributes::default()
        })
    }

    async fn of_service(
        &self,
        keys: &Keys<'_>,
        key: KeyCall<'_>,
        direction: Option<Direction>,
    ) -> Outcome {
        let client = keys.service.client;
        let message = &self.message;
        let call = MacCall { key, direction, algorithm: self.algorithm, message };
        let forbidden = self.forbidden();
        if let Some(mac) = &self.mac {
            expect(forbidden, client.verify_mac(call, mac).await)?;
            return Ok(Answer::verified());
        }
        let len_bytes = u32::try_from(self.len_bytes)?;
        let made = expect(forbidden, client.generate_mac(call, len_bytes).await)?;
        Ok(Answer::text(&hex(&made)))
    }

    /// Empty messages and MACs of fewer than four octets prove too little.
    fn forbidden(&self) -> Option<&'static str> {
        if self.message.is_empty() || self.len_bytes == 0 {
            Some("FIELD_INVALID")
        } else if self.mac.as_ref().map_or(self.len_bytes, Vec::len) < SHORTEST {
            Some("KEY_USAGE_MISMATCH")
        } else {
            None
        }
    }
}

/// The shortest MAC that a key can be told to accept, and the longest that there is.
const SHORTEST: usize = 4;
const LONGEST: usize = 64;
