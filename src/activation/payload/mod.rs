//! The signed messages: bytes that travel, parsed once into types that are valid by construction.
//!
//! The wire form is `proto/firstkey/payload/v1/payload.proto`. The generated types stay in here and
//! have no `Debug`; what leaves this module prints no code, PAN or PIN block.

mod keys;
mod session;
mod transaction;
mod update;

pub use keys::{Confirm, ConfirmAnswer, ConfirmedKey, Deliver, DeliverAnswer, DeliveredKey};
pub use session::{
    ActivationName, Begin, BeginAnswer, CertificateChain, Network, Readiness, Serial, Shown,
};
pub use transaction::{
    CardData, Fault, Outcome, ParametersAnswer, ParametersRequest, PinBlockFormat, Report,
    TestTransaction, TestTransactionAnswer,
};
pub use update::{Update, UpdateAnswer};

use prost::Message;

/// The generated types.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::as_conversions,
    missing_docs,
    unreachable_pub,
    reason = "generated"
)]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/firstkey.payload.v1.rs"));
}

/// The longest Begin in bytes: it carries a certificate chain.
pub const BEGIN_LEN_BYTES_MAX: usize = 24 * 1024;

/// The longest of the other messages from a terminal, in bytes.
pub const PAYLOAD_LEN_BYTES_MAX: usize = 4 * 1024;

/// The longest answer in bytes: up to eight key blocks, or a certificate chain.
pub const ANSWER_LEN_BYTES_MAX: usize = 24 * 1024;

/// A field of a payload is missing, out of bounds or of an unknown value.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("payload field {field} is missing or invalid")]
pub struct PayloadInvalid {
    /// The path of the field, as in the proto; `payload` where the bytes are no message at all.
    pub field: &'static str,
}

/// A message that travels signed or under a MAC.
pub trait Payload: Sized {
    /// The serialized message. It is made once, and those very bytes are signed, sent and kept.
    fn encode(&self) -> Vec<u8>;

    /// Parses bytes; every field is checked here and nowhere else.
    fn parse(bytes: &[u8]) -> Result<Self, PayloadInvalid>;
}

/// Decodes a generated message of at most `len_bytes_max` bytes.
fn decode<M: Message + Default>(bytes: &[u8], len_bytes_max: usize) -> Result<M, PayloadInvalid> {
    let invalid = PayloadInvalid { field: "payload" };
    if bytes.is_empty() || bytes.len() > len_bytes_max {
        return Err(invalid);
    }
    M::decode(bytes).map_err(|_| invalid)
}

/// Takes exactly `N` bytes.
fn exactly<const N: usize>(bytes: &[u8], field: &'static str) -> Result<[u8; N], PayloadInvalid> {
    bytes.try_into().map_err(|_| PayloadInvalid { field })
}

/// What is there, or the field's error.
fn required<T>(value: Option<T>, field: &'static str) -> Result<T, PayloadInvalid> {
    value.ok_or(PayloadInvalid { field })
}

/// Whether the text has at most `len_max` characters, all printable ASCII.
fn printable(text: &str, len_max: usize) -> bool {
    text.len() <= len_max && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests;
