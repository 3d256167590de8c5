//! Keys of DUKPT, which never leave the service: told by what they do.
//!
//! A MAC key makes the MAC of a message, which is compared with that under the expected key; a PIN
//! key makes a PIN block, which is opened with the expected key. An initial key and a transaction
//! key are told by a MAC key that comes from them.

use super::super::dukpt_aes::{initial_key_id, kind_or_usual};
use super::super::{Answer, Outcome, Stop, Vector};
use super::keys::{Keys, New, expect};
use super::pin_block::{ANY_PAN, attributes, from_ours};
use super::{DukptInputs, is_aes_dukpt};
use crate::command::Direction;
use crate::dukpt::for_vectors::{
    aes_key_of_transaction, aes_transaction_key, tdes_initial_key_id, tdes_transaction_key,
    tdes_variant,
};
use crate::dukpt::{AesKsn, TdesKsn};
use crate::grpc::client::{KeyCall, MacCall};
use crate::key::Algorithm;
use crate::key::usage::{MacGeneration, WorkingUsage as _};
use crate::mac::MacAlgorithm;
use crate::mac::for_vectors::{VectorMacAlgorithm, generate};
use crate::pin::PinBlockFormat;
use crate::pin::for_vectors::Subject;
use crate::vault::{KeyAttributes, KeyUsage};

/// Runs `derive_initial_key`, and `derive_transaction_key` with the type of the same name: does
/// the MAC key of requests come from the key that is expected?
pub(super) async fn run_ancestor(keys: &mut Keys<'_>, vector: &Vector) -> Outcome {
    let is_initial = vector.operation()? == "derive_initial_key";
    let ksn = if is_initial { first_ksn(vector)? } else { vector.bytes("ksn")? };
    let inputs = DukptInputs::at(vector, ksn)?;
    let expected = vector.expected()?;
    let ancestor = expected.as_str().map(str::as_bytes).unwrap_or_default();
    let ancestor = data_encoding::HEXUPPER_PERMISSIVE.decode(ancestor).ok();
    let algorithm = if inputs.is_aes {
        kind_or_usual(vector, None, inputs.bdk.len())?.algorithm()
    } else {
        Algorithm::Tdes2
    };
    let key =
        ancestor.map(|ancestor| mac_key(vector, &inputs, &ancestor, is_initial)).transpose()?;
    let bdk = bring(keys, &inputs, algorithm).await?;
    let call = inputs.key(&bdk, algorithm);
    let is_it = mac(keys, call, algorithm, Direction::Request, key.as_deref()).await?;
    let answer = if is_it { expected.clone() } else { "another key".into() };
    Ok(Answer::value(answer))
}

/// The KSN of an initial key's first transaction.
fn first_ksn(vector: &Vector) -> Result<Vec<u8>, Stop> {
    if is_aes_dukpt(vector) {
        return Ok([initial_key_id(vector)?.bytes().as_slice(), &[0, 0, 0, 1]].concat());
    }
    let mut ksn = tdes_initial_key_id(&vector.bytes("ksn")?)?.bytes().to_vec();
    // The counter is zero, so its lowest bit is free.
    ksn[TdesKsn::LEN_BYTES - 1] |= 1;
    Ok(ksn)
}

/// The MAC key of requests that comes from an expected initial or transaction key.
fn mac_key(
    vector: &Vector,
    inputs: &DukptInputs,
    ancestor: &[u8],
    is_initial: bool,
) -> Result<Vec<u8>, Stop> {
    if !inputs.is_aes {
        let key = if is_initial {
            tdes_transaction_key(ancestor, &TdesKsn::parse(&inputs.ksn)?)?.to_vec()
        } else {
            ancestor.to_vec()
        };
        return Ok(tdes_variant::<MacGeneration>(&key)?.to_vec());
    }
    let ksn = AesKsn::parse(&inputs.ksn)?;
    let (id, counter) = (ksn.initial_key_id(), ksn.counter());
    let key = if is_initial {
        aes_transaction_key(ancestor, id, counter)?.to_vec()
    } else {
        ancestor.to_vec()
    };
    let kind = kind_or_usual(vector, None, inputs.bdk.len())?;
    Ok(aes_key_of_transaction(&key, id, counter, MacGeneration::INDICATOR, kind)?.to_vec())
}

/// Imports the base derivation key of a vector.
async fn bring(
    keys: &mut Keys<'_>,
    inputs: &DukptInputs,
    algorithm: Algorithm,
) -> Result<String, Stop> {
    let format = format_of(algorithm);
    let new = New {
        usage: KeyUsage::BaseDerivation,
        letter: inputs.letter(),
        key: &inputs.bdk,
        attributes: KeyAttributes { open: true, ..attributes(format) },
    };
    Ok(keys.import(new).await?.id)
}

const fn format_of(algorithm: Algorithm) -> PinBlockFormat {
    if algorithm.is_aes() { PinBlockFormat::Iso4 } else { PinBlockFormat::Iso3 }
}

/// Runs `derive_working_key` for keys of PINs and MACs.
pub(super) async fn run(keys: &mut Keys<'_>, vector: &Vector) -> Outcome {
    let name = vector.text("derivation_type")?;
    if name == "transaction_key" {
        return run_ancestor(keys, vector).await;
    }
    let does = Does::named(name).ok_or_else(|| {
        Stop::Unexpressed(format!("of the {name} key, which the API does not use"))
    })?;
    let inputs = DukptInputs::of(vector)?;
    let algorithm = if inputs.is_aes {
        kind_or_usual(vector, None, inputs.bdk.len())?.algorithm()
    } else {
        Algorithm::Tdes2
    };
    let bdk = bring(keys, &inputs, algorithm).await?;
    let key = inputs.key(&bdk, algorithm);
    // None where the vector is to be refused.
    let expected = vector.expected()?;
    let expected_key = expected.as_str().map(str::as_bytes).unwrap_or_default();
    let expected_key = data_encoding::HEXUPPER_PERMISSIVE.decode(expected_key).ok();
    let is_it = match does {
        Does::Mac(direction) => {
            mac(keys, key, algorithm, direction, expected_key.as_deref()).await?
        }
        Does::Pin => pin(keys, key, format_of(algorithm), expected_key.as_deref()).await?,
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
