//! The state machine of a terminal, one file per step.
//!
//! Which call each state allows stands in one table, [`crate::activation::states::TABLE`]. Every
//! step is one commit: the terminal, its activation, the answer that a lost reply will ask for
//! again, and the audit event.

pub mod begin;
pub mod code;
pub mod confirm;
pub mod deliver;
mod exchange;
pub mod index;
pub mod lifecycle;
pub mod parameters;
pub mod profile;
mod proof;
pub mod read;
pub mod record;
pub mod register;
pub mod report;
mod step;
mod terminal_keys;
pub mod test_transaction;
pub mod update;
pub mod watch;

use crate::activation::PayloadInvalid;
use crate::command::Error;

pub(super) use self::begin::broken;
pub use self::exchange::{Exchange, terminal_of};
pub(super) use self::step::first_transaction;
pub(super) use self::terminal_keys::derive_again;

/// A message of a terminal and what vouches for it.
#[derive(Clone)]
pub struct Signed {
    /// The serialized payload.
    pub payload: Vec<u8>,
    /// A signature or a MAC.
    pub proof: Vec<u8>,
}

/// The path of a payload's field in its request.
fn payload_field(invalid: PayloadInvalid) -> Error {
    let path = match invalid.field {
        "payload" => "payload".to_owned(),
        field => format!("payload.{field}"),
    };
    Error::field(path, "is missing or invalid")
}
