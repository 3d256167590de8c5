//! Drives a terminal in software through its activation, one call after the other.

use tonic::Code;

use super::ClientError;
use super::line::{Line, Message, Reply};
use crate::activation::payload::{CardData, Outcome, TestTransactionAnswer};
use crate::activation::{ActivationCode, Parameters, Step};
use crate::crypto::rng::Rng;
use crate::pin::Pin;
use crate::terminal::{
    LoadedKey, ReportRequest, Terminal, TerminalError, Test, TransactionRequest,
};

/// The test card: a PAN and PIN that everybody may know.
const TEST_PAN: &str = "4111111111111111";
/// Its expiry, YYMM.
const TEST_EXPIRY: &str = "4912";
/// Its PIN.
const TEST_PIN: &str = "1234";
/// The amount of a test transaction, in minor units.
const TEST_AMOUNT_MINOR: u64 = 100;

/// What a step of the activation came to.
#[derive(Debug, Clone)]
pub enum Told {
    /// The service proved itself and named the activation.
    Begun {
        /// `terminals/{terminal}/activations/{n}`.
        activation: String,
    },
    /// The keys arrived and are loaded.
    Keys(Vec<LoadedKey>),
    /// Both sides hold the same keys.
    Confirmed,
    /// The parameters were verified and applied.
    Parameters(Box<Parameters>),
    /// The service took the report.
    Reported,
    /// A test transaction was judged.
    Tested(TestTransactionAnswer),
}

/// A terminal, the service it talks to, and where its memory is written before each message.
pub struct Driver<'a> {
    /// The line to the service.
    pub line: &'a mut dyn Line,
    /// The terminal.
    pub terminal: &'a mut Terminal,
    /// Randomness for the terminal.
    pub rng: &'a dyn Rng,
    /// The time, in seconds since 1970.
    pub now: &'a (dyn Fn() -> u64 + Send + Sync),
    /// Keeps the terminal's memory, as a device does before it sends and after it received.
    pub save: &'a mut (dyn FnMut(&Terminal) -> Result<(), String> + Send),
    /// Hears what each step came to.
    pub tell: &'a mut (dyn FnMut(Told) + Send),
}

impl Driver<'_> {
    /// Goes on from wherever the terminal stands until its tests have passed, or it is in service.
    ///
    /// `renew` asks for new keys although there are some: in a re-key, or with another code after
    /// an activation was cancelled. Parameters are taken anew with them.
    pub async fn activate(
        &mut self,
        code: Option<ActivationCode>,
        renew: bool,
    ) -> Result<(), ClientError> {
        if !self.terminal.has_keys() || renew {
            self.take_keys(code).await?;
            self.parameters().await?;
        } else {
            self.finish_exchange().await?;
            if self.terminal.parameters().is_none() {
                self.parameters().await?;
            }
        }
        let mut has_caught_up = false;
        loop {
            let verdict = match self.test().await {
                Ok(verdict) => verdict,
                Err(error) if is_in_service(&error) => return Ok(()),
                Err(error) if !has_caught_up && is_behind(&error) => {
                    self.parameters().await?;
                    has_caught_up = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !verdict.passed() {
                return Err(ClientError::TestFailed);
            }
            if verdict.tests_passed >= verdict.tests_required {
                return Ok(());
            }
        }
    }

    /// Takes new keys: from the session that there is, or from a new one.
    pub async fn take_keys(&mut self, code: Option<ActivationCode>) -> Result<(), ClientError> {
        if self.terminal.confirm().is_err() {
            if self.terminal.deliver().is_err() {
                self.begin(code).await?;
            }
            self.deliver().await?;
        }
        self.confirm().await
    }

    /// Takes new keys in a re-key, under the update key of the AES keys that serve.
    pub async fn update_keys(&mut self) -> Result<(), ClientError> {
        if self.terminal.confirm().is_err() {
            if self.terminal.unanswered_step() == Some(Step::Test) {
                // Answered again or refused, it is over: the terminal is past its tests.
                let answered = self.test().await;
                if self.terminal.unanswered_step().is_some() {
                    answered?;
                }
            }
            self.finish_exchange().await?;
            self.update().await?;
        }
        self.confirm().await
    }

    /// Steps 3 and 4 in one: asks for the keys and loads them.
    pub async fn update(&mut self) -> Result<(), ClientError> {
        let request = self.terminal.request_update(self.rng)?;
        let reply = self.exchange(Step::Update, request).await?;
        let loaded = match self.terminal.accept_update(reply.answer()) {
            Ok(loaded) => loaded,
            Err(error) => return Err(self.report_fault(Step::Update, error).await),
        };
        self.keep()?;
        (self.tell)(Told::Keys(loaded));
        Ok(())
    }

    /// Step 3; the Begin that waits for its answer goes out again as it is.
    pub async fn begin(&mut self, code: Option<ActivationCode>) -> Result<(), ClientError> {
        let request = match self.terminal.begin_again() {
            Some(request) => request,
            None => self.terminal.begin(code, self.rng, (self.now)())?,
        };
        self.keep()?;
        let reply = self.line.send(Message::signed(Step::Begin, "", request)).await?;
        let activation = self.terminal.accept_begin(reply.answer(), (self.now)())?;
        self.keep()?;
        (self.tell)(Told::Begun { activation: activation.as_str().to_owned() });
        Ok(())
    }

    /// Step 4. A fault that the terminal finds is reported before it is told.
    pub async fn deliver(&mut self) -> Result<(), ClientError> {
        let request = self.terminal.deliver()?;
        self.keep()?;
        let message = Message::signed(Step::Deliver, &self.activation()?, request);
        let reply = self.line.send(message).await?;
        let loaded = match self.terminal.accept_keys(reply.answer()) {
            Ok(loaded) => loaded,
            Err(error) => return Err(self.report_fault(Step::Deliver, error).await),
        };
        self.keep()?;
        (self.tell)(Told::Keys(loaded));
        Ok(())
    }

    /// Step 5.
    pub async fn confirm(&mut self) -> Result<(), ClientError> {
        let request = self.terminal.confirm()?;
        let reply = self.line.send(Message::confirm(&self.activation()?, request)).await?;
        self.terminal.accept_confirmation(reply.answer())?;
        self.keep()?;
        (self.tell)(Told::Confirmed);
        Ok(())
    }

    /// Step 6: asks, applies, reports.
    pub async fn parameters(&mut self) -> Result<(), ClientError> {
        self.take_parameters().await?;
        self.report_applied().await
    }

    /// Step 6 without its report: asks and applies.
    pub async fn take_parameters(&mut self) -> Result<(), ClientError> {
        let request = self.terminal.request_parameters(self.rng)?;
        let reply = self.exchange(Step::Parameters, request).await?;
        if let Err(error) = self.terminal.apply_parameters(reply.answer()) {
            return Err(self.report_fault(Step::Parameters, error).await);
        }
        self.keep()?;
        if let Some(parameters) = self.terminal.parameters() {
            (self.tell)(Told::Parameters(Box::new(parameters.clone())));
        }
        Ok(())
    }

    /// Step 7: one test transaction with the test card.
    pub async fn test(&mut self) -> Result<TestTransactionAnswer, ClientError> {
        let parameters = self.terminal.parameters().ok_or(TerminalError::OutOfStep)?;
        let test = Test {
            card: CardData::new(TEST_PAN, TEST_EXPIRY).expect("the test card has a PAN"),
            pin: &Pin::parse(TEST_PIN).expect("the test card has a PIN"),
            amount_minor: TEST_AMOUNT_MINOR.min(parameters.limits.single_minor()),
            currency: parameters.currency,
        };
        let request = self.terminal.test_transaction(test, self.rng)?;
        let reply = self.exchange(Step::Test, request).await?;
        let verdict = self.terminal.accept_verdict(reply.answer())?;
        self.keep()?;
        (self.tell)(Told::Tested(verdict.clone()));
        Ok(verdict)
    }

    /// Sends a message under a transaction key; the reply is still to be verified.
    async fn exchange(
        &mut self,
        step: Step,
        request: TransactionRequest,
    ) -> Result<Reply, ClientError> {
        self.keep()?;
        match self.line.send(Message::exchange(step, request)).await {
            Ok(reply) => Ok(reply),
            Err(status) => Err(self.give_up(status)?),
        }
    }

    /// One exchange is under way at a time: one that was cut off is finished before another. A test
    /// transaction goes out again by itself.
    async fn finish_exchange(&mut self) -> Result<(), ClientError> {
        if self.terminal.unanswered_step() == Some(Step::Parameters) {
            return self.parameters().await;
        }
        match self.terminal.report_again() {
            Some(report) => self.send_report(report).await,
            None => Ok(()),
        }
    }

    /// The report that ends step 6: which file was applied.
    pub async fn report_applied(&mut self) -> Result<(), ClientError> {
        let parameters = self.terminal.parameters().ok_or(TerminalError::OutOfStep)?;
        let outcome = Outcome::Applied(parameters.digest());
        self.report(Step::Parameters, outcome).await?;
        (self.tell)(Told::Reported);
        Ok(())
    }

    /// Reports what the service is to blame for; the fault itself is what is returned.
    async fn report_fault(&mut self, step: Step, error: TerminalError) -> ClientError {
        if let Some(fault) = error.fault() {
            // That the report did not arrive either is no news beside the fault.
            let _ = self.report(step, Outcome::Fault(fault)).await;
        }
        error.into()
    }

    async fn report(&mut self, step: Step, outcome: Outcome) -> Result<(), ClientError> {
        let report = self.terminal.report(step, outcome)?;
        self.send_report(report).await
    }

    async fn send_report(&mut self, report: ReportRequest) -> Result<(), ClientError> {
        self.keep()?;
        let message = Message::report(&self.activation()?, report);
        if let Err(status) = self.line.send(message).await {
            return Err(self.give_up(status)?);
        }
        self.terminal.report_taken();
        self.keep()
    }

    /// An exchange that the service refused for good is over; one that it did not answer is not.
    fn give_up(&mut self, status: tonic::Status) -> Result<ClientError, ClientError> {
        let for_good = matches!(
            status.code(),
            Code::AlreadyExists
                | Code::FailedPrecondition
                | Code::InvalidArgument
                | Code::NotFound
                | Code::PermissionDenied
        );
        let error = ClientError::from(status);
        if for_good {
            self.terminal.abandon_exchange();
            self.keep()?;
        }
        Ok(error)
    }

    fn activation(&self) -> Result<String, ClientError> {
        let name = self.terminal.activation().ok_or(TerminalError::OutOfStep)?;
        Ok(name.as_str().to_owned())
    }

    fn keep(&mut self) -> Result<(), ClientError> {
        (self.save)(self.terminal).map_err(ClientError::Memory)
    }
}

/// Whether the service says that the terminal is past its tests.
fn is_in_service(error: &ClientError) -> bool {
    let ClientError::Refused(refusal) = error else { return false };
    let state = refusal.metadata.iter().find(|(name, _)| name == "state");
    state.is_some_and(|(_, state)| state == "ACTIVE" || state == "REKEYING")
}

/// Whether a test can not be made before the terminal has the parameters of now and said so.
fn is_behind(error: &ClientError) -> bool {
    error.reason() == Some("ACTIVATION_STATE")
}
