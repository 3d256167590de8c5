//! A POS terminal in software: its DUKPT engine, its side of activation, its payments.
//!
//! Pure: what it sends and receives are values, randomness and time are handed in, and what a
//! device would keep in its memory goes to a text and comes back. It stands on `activation` as
//! the host does, and shares no DUKPT derivation with it.
//!
//! ```text
//! begin -> accept_begin -> deliver -> accept_keys -> confirm -> accept_confirmation
//!       -> request_parameters -> apply_parameters -> report -> report_taken
//!       -> test_transaction -> accept_verdict -> purchase ...
//! ```

mod device;
mod engine;
mod error;
mod exchange;
mod payment;
mod registers;
mod saved;
mod session;
mod slots;
mod update;

use std::fmt;

use crate::activation::Parameters;
use crate::activation::payload::ActivationName;
use crate::agreement::Suite;

pub use device::{Certified, Credential, Device};
pub use engine::{Engine, Ksn, TransactionKeys};
pub use error::TerminalError;
pub use exchange::{Applied, ReportRequest, Test, TransactionRequest};
pub use payment::{Payment, Purchase};
pub use registers::CountersExhausted;
pub use saved::{DEVICE_MEMORY_WARNING, SavedInvalid};
pub use session::{ConfirmRequest, LoadedKey, SignedRequest};

use exchange::Exchange;
use payment::Moved;
use session::Session;
use slots::SlotKey;

/// A terminal.
pub struct Terminal {
    device: Device,
    suite: Suite,
    session: Session,
    /// The activation that the service last named.
    activation: Option<ActivationName>,
    /// The registers of the initial key that serves.
    engine: Option<Engine>,
    /// The static keys that serve.
    slots: Vec<SlotKey>,
    exchange: Option<Exchange>,
    parameters: Option<Parameters>,
    /// The registration, `{terminal}`, that they are of: versions count within it.
    parameters_of: Option<String>,
    moved: Moved,
    purchases_made: u64,
    tests_made: u32,
    /// The sequence of the last Begin.
    last_begin: u64,
}

impl Terminal {
    /// A terminal as it leaves the factory: no keys.
    #[must_use]
    pub fn new(device: Device, suite: Suite) -> Self {
        Self {
            device,
            suite,
            session: Session::Idle,
            activation: None,
            engine: None,
            slots: Vec::new(),
            exchange: None,
            parameters: None,
            parameters_of: None,
            moved: Moved::default(),
            purchases_made: 0,
            tests_made: 0,
            last_begin: 0,
        }
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The registered suite.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The parameters that it applied.
    #[must_use]
    pub fn parameters(&self) -> Option<&Parameters> {
        self.parameters.as_ref()
    }

    /// Whether it has keys that serve.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.engine.is_some()
    }

    /// The KSN of the next transaction.
    pub fn next_ksn(&self) -> Result<Ksn, TerminalError> {
        let engine = self.engine.as_ref().ok_or(TerminalError::OutOfStep)?;
        Ok(engine.next_ksn()?)
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Terminal({})", self.device.serial.as_str())
    }
}

/// An answer of the service.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    /// The payload.
    pub payload: &'a [u8],
    /// Its signature or MAC.
    pub proof: &'a [u8],
}

#[cfg(test)]
mod tests;
