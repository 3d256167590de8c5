//! First activation, pure: what host and terminal must agree on to the byte.
//!
//! The host's state machine (`command`) and the terminal in software (`terminal`) both stand on
//! this room and share nothing else. It does no I/O, reads no clock and draws no randomness.

pub mod checks;
pub mod code;
pub mod confirmation;
pub mod parameters;
pub mod payload;
pub mod states;
pub mod terminal_key;
pub mod transcript;
pub mod update;

pub use code::ActivationCode;
pub use parameters::Parameters;
pub use payload::PayloadInvalid;
pub use states::{Call, Refusal, Rule, State};
pub use transcript::{Role, Step, Transcript};
