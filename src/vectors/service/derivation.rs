//! Working keys of DUKPT, which never leave the service: told by what they do.
//!
//! A MAC key makes the MAC of a message, which is compared with that under the expected key; a PIN
//! key makes a PIN block, which is opened with the expected key.

use super::super::dukpt_aes::kind_or_usual;
use super::super::{Answer, Outcome, Stop, Vector};
use super::DukptInputs;
use super::keys::{Keys, New, expect};
use super::pin_block::{ANY_PAN, attributes, from_ours};
use crate::command::Direction;
use crate::grpc::client::{KeyCall, MacCall};
use crate::key::Algorithm;
use crate::mac::MacAlgorithm;
use crate::mac::for_vectors::{VectorMacAlgorithm, generate};
use crate::pin::PinBlockFormat;
use crate::pin::for_vectors::Subject;
use crate::vault::{KeyAttributes, KeyUsage};

/// Runs `derive_working_key` for keys of PINs and MACs.
pub(super) async fn run(keys: &mut Keys<'_>, vector: &Vector) -> Outcome {
    let name = vector.text("derivation_type")?;
    let does = Does::named(name).ok_or_else(|| {
        Stop::Unexpressed(format!("of the {name} key, which the API does not use"))
    })?;
    let inputs = DukptInputs::of(vector)?;
    let algorithm = if inputs.is_aes {
        kind_or_usual(vector, None, inputs.bdk.len())?.algorithm()
    } else {
        Algorithm::Tdes2
    };
    let format = if algorithm.is_aes() { PinBlockFormat::Iso4 } else { PinBlockFormat::Iso3 };
    let new = New {
        usage: KeyUsage::BaseDerivation,
        letter: inputs.letter(),
        key: &inputs.bdk,
        attributes: KeyAttributes { open: true, ..attributes(format) },
    };
    let bdk = keys.import(new).await?;
    let key = KeyCall::Dukpt {
        base_derivation_key: &bdk.id,
        ksn: &inputs.ksn,
        algorithm: inputs.is_aes.then_some(algorithm),
    };
    // None where the vector is to be refused.
    let expected = vector.expected()?;
    let expected_key = expected.as_str().map(str::as_bytes).unwrap_or_default();
    let expected_key = data_encoding::HEXUPPER_PERMISSIVE.decode(expected_key).ok();
    let is_it = match does {
        Does::Mac(direction) => {
            mac(keys, key, algorithm, direction, expected_key.as_deref()).await?
        }
        Does::Pin => pin(keys, key, format, expected_key.as_deref()).await?,
    };
    let answer = if is_it { expected.clone() } else { "another key".into() };
    Ok(Answer::value(answer))
}

/// What a working key does.
#[derive(Clone, Copy)]
enum Does {
    Mac(Direction),
    Pin,
}

impl Does {
    fn named(derivation_type: &str) -> Option<Self> {
        Some(match derivation_type {
            "mac_both" => Self::Mac(Direction::Both),
            "mac_generation" | "mac_request" => Self::Mac(Direction::Request),
            "mac_response" | "mac_verification" => Self::Mac(Direction::Response),
            "pin" | "pin_encryption" => Self::Pin,
            _ => return None,
        })
    }
}

async fn mac(
    keys: &Keys<'_>,
    key: KeyCall<'_>,
    algorithm: Algorithm,
    direction: Direction,
    expected_key: Option<&[u8]>,
) -> Result<bool, Stop> {
    const MESSAGE: &[u8] = b"which key is this";
    let algorithm = if algorithm.is_aes() {
        MacAlgorithm::AesCmac
    } else if algorithm.is_tdes() {
        MacAlgorithm::TdesCmac
    } else {
        MacAlgorithm::HmacSha256
    };
    let len_bytes = algorithm.len_bytes();
    let call = MacCall { key, direction: Some(direction), algorithm, message: MESSAGE };
    let made = keys.service.client.generate_mac(call, u32::try_from(len_bytes)?).await;
    let made = expect(None, made)?;
    let of_expected = expected_key
        .map(|key| generate(VectorMacAlgorithm::Service(algorithm), key, MESSAGE, len_bytes));
    Ok(of_expected.is_some_and(|mac| mac.is_ok_and(|mac| mac == made)))
}

async fn pin(
    keys: &mut Keys<'_>,
    key: KeyCall<'_>,
    format: PinBlockFormat,
    expected_key: Option<&[u8]>,
) -> Result<bool, Stop> {
    const PIN: &str = "739518264207";
    let subject = Subject { format, pan: Some(ANY_PAN) };
    let block = from_ours(keys, subject, PIN, key).await?;
    let opened = expected_key.map(|key| subject.decipher(key, &block));
    Ok(opened.is_some_and(|pin| pin.is_ok_and(|pin| *pin == PIN)))
}
