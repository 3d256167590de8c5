//! The service around a terminal that something happens to, and the honest way through its steps.

use super::{At, memory};
use crate::activation::ActivationCode;
use crate::agreement::Suite;
use crate::crypto::rng::Rng;
use crate::grpc::client::{Client, ClientError, Driver, Line, request_id};
use crate::grpc::proto;
use crate::key::Key;
use crate::key::usage::KeyEncryption;
use crate::server::dev::Pki;
use crate::server::simulation::{self, DeviceFailed, Factory, MasterKeyFailed};
use crate::terminal::{Payment, SavedInvalid, Terminal, TerminalError};

/// What a purchase costs, in minor units.
const AMOUNT_MINOR: u64 = 1_250;

/// Why a fault could not be played to its end.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// A step that must succeed did not.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The simulated device could not be made.
    #[error(transparent)]
    Device(#[from] DeviceFailed),
    /// A master key did not come to both sides.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyFailed),
    /// The changed memory of a device is none.
    #[error(transparent)]
    Memory(SavedInvalid),
    /// Something went otherwise than it must.
    #[error("the play went wrong: {0}")]
    Otherwise(&'static str),
}

impl From<TerminalError> for PlayError {
    fn from(error: TerminalError) -> Self {
        Self::Client(error.into())
    }
}

impl From<tonic::Status> for PlayError {
    fn from(status: tonic::Status) -> Self {
        Self::Client(status.into())
    }
}

/// What faults are played before.
pub struct Scene<'a> {
    /// A development service.
    pub client: &'a Client,
    /// The authorities around it.
    pub pki: &'a Pki,
    /// The development key encryption key, below which facilities bring master keys.
    pub kek: &'a Key<KeyEncryption>,
    /// Randomness for the terminals.
    pub rng: &'a dyn Rng,
    /// The time, in seconds since 1970; it goes on between two calls of a device.
    pub now: &'a (dyn Fn() -> u64 + Send + Sync),
}

/// A terminal that was registered for one play.
pub(super) struct Till {
    /// `terminals/{terminal}`.
    pub(super) name: String,
    pub(super) serial: String,
    /// The code as it was told.
    pub(super) code: String,
    pub(super) terminal: Terminal,
}

impl Till {
    pub(super) fn code(&self) -> Result<ActivationCode, PlayError> {
        ActivationCode::parse(&self.code).map_err(|_| PlayError::Otherwise("the code is none"))
    }

    /// The same device once more, as its memory has it.
    pub(super) fn copy(&self) -> Result<Self, PlayError> {
        Ok(Self {
            name: self.name.clone(),
            serial: self.serial.clone(),
            code: self.code.clone(),
            terminal: memory::copied(&self.terminal)?,
        })
    }

    /// The activation that the terminal is in; empty before its first.
    pub(super) fn activation(&self) -> &str {
        self.terminal.activation().map_or("", |name| name.as_str())
    }
}

impl Scene<'_> {
    /// Registers a new terminal with a device of its own, and issues its code.
    pub(super) async fn enter(&self, suite: Suite) -> Result<Till, PlayError> {
        let mut random = [0; 6];
        let drawn = self.rng.fill(&mut random);
        drawn.map_err(|_| PlayError::Otherwise("there is no randomness"))?;
        let id = format!("fault-{}", data_encoding::HEXLOWER.encode(&random));
        let serial = id.to_uppercase();
        let factory = Factory {
            client: self.client,
            pki: self.pki,
            kek: self.kek,
            rng: self.rng,
            now: (self.now)(),
        };
        let (device, registration) = factory.make(&id, &serial, suite).await?;
        self.client.terminals().create_terminal(registration).await?;
        let terminal = Terminal::new(device, suite);
        let mut till =
            Till { name: format!("terminals/{id}"), serial, code: String::new(), terminal };
        self.issue_code(&mut till).await?;
        Ok(till)
    }

    pub(super) async fn issue_code(&self, till: &mut Till) -> Result<(), PlayError> {
        let name = till.name.clone();
        let request = proto::IssueActivationCodeRequest { request_id: request_id(), name };
        let issued = self.client.terminals().issue_activation_code(request).await?;
        till.code = issued.into_inner().activation_code;
        Ok(())
    }

    /// Takes a terminal through all steps before one.
    pub(super) async fn bring(&self, till: &mut Till, at: At) -> Result<(), PlayError> {
        for step in At::ALL {
            match step {
                At::Purchase => self.enable(till).await?,
                At::Update => self.start_rekey(till, true).await?,
                At::Begin | At::Deliver | At::Confirm | At::Parameters | At::Report | At::Test => {}
            }
            if *step == at {
                break;
            }
            self.step(till, &mut self.client.clone(), *step).await?;
        }
        Ok(())
    }

    /// Makes one step over a line; a purchase goes to its backend and knows no line.
    pub(super) async fn step(
        &self,
        till: &mut Till,
        line: &mut dyn Line,
        step: At,
    ) -> Result<(), ClientError> {
        let code = ActivationCode::parse(&till.code).ok();
        let mut driver = Driver {
            line,
            terminal: &mut till.terminal,
            rng: self.rng,
            now: self.now,
            save: &mut |_| Ok(()),
            tell: &mut |_| (),
        };
        match step {
            At::Begin => driver.begin(code).await,
            At::Deliver => driver.deliver().await,
            At::Confirm => driver.confirm().await,
            At::Parameters => driver.take_parameters().await,
            At::Report => driver.report_applied().await,
            At::Test => driver.test().await.map(|_| ()),
            At::Purchase => self.purchase(till).await,
            At::Update => driver.update().await,
        }
    }

    /// Goes on from wherever the terminal stands to a purchase; `renew` takes new keys for it.
    pub(super) async fn finish(&self, till: &mut Till, renew: bool) -> Result<(), PlayError> {
        let code = till.code()?;
        let is_updating = self.state(till).await? == proto::TerminalState::Rekeying && !renew;
        let mut driver = Driver {
            line: &mut self.client.clone(),
            terminal: &mut till.terminal,
            rng: self.rng,
            now: self.now,
            save: &mut |_| Ok(()),
            tell: &mut |_| (),
        };
        if is_updating && driver.terminal.has_keys() {
            driver.update_keys().await?;
        }
        driver.activate(Some(code), renew).await?;
        if self.state(till).await? != proto::TerminalState::Active {
            self.enable(till).await?;
        }
        Ok(self.purchase(till).await?)
    }

    async fn state(&self, till: &Till) -> Result<proto::TerminalState, PlayError> {
        Ok(self.get(till).await?.state())
    }

    /// The terminal as the service knows it.
    pub(super) async fn get(&self, till: &Till) -> Result<proto::Terminal, PlayError> {
        let request = proto::GetTerminalRequest { name: till.name.clone() };
        let found = self.client.terminals().get_terminal(request).await?.into_inner();
        found.terminal.ok_or(PlayError::Otherwise("the answer has no terminal"))
    }

    async fn enable(&self, till: &Till) -> Result<(), PlayError> {
        let name = till.name.clone();
        let request = proto::EnableTerminalRequest { request_id: request_id(), name };
        self.client.terminals().enable_terminal(request).await?;
        Ok(())
    }

    pub(super) async fn start_rekey(
        &self,
        till: &Till,
        update_key_allowed: bool,
    ) -> Result<(), PlayError> {
        let cause = "the keys are to be renewed".to_owned();
        let name = till.name.clone();
        let request_id = request_id();
        let request = proto::StartRekeyRequest { request_id, name, cause, update_key_allowed };
        self.client.terminals().start_rekey(request).await?;
        Ok(())
    }

    /// A purchase, as the backend has it verified and translated.
    pub(super) async fn purchase(&self, till: &mut Till) -> Result<(), ClientError> {
        let payment = self.pay(till)?;
        self.settle(&payment).await
    }

    /// Makes a payment that nobody has seen yet.
    pub(super) fn pay(&self, till: &mut Till) -> Result<Payment, TerminalError> {
        simulation::purchase(&mut till.terminal, AMOUNT_MINOR, self.rng, (self.now)())
    }

    /// Has a payment's MAC verified and its PIN block translated.
    pub(super) async fn settle(&self, payment: &Payment) -> Result<(), ClientError> {
        self.client.macs().verify_mac(simulation::verify_request(payment)).await?;
        let block = payment.pin_block.bytes().to_vec();
        self.client.pins().translate_pin(simulation::translate_request(payment, block)).await?;
        Ok(())
    }
}
