//! The steps under transaction keys: parameters, reports and test transactions.

use super::payment::{Entry, PinEntry};
use super::{Answer, Terminal, TerminalError, TransactionKeys};
use crate::activation::parameters::Currency;
use crate::activation::payload::{
    CardData, Outcome, ParametersAnswer, ParametersRequest, Payload, Report, TestTransaction,
    TestTransactionAnswer,
};
use crate::activation::{Role, Step, Transcript};
use crate::agreement::{Dukpt, Suite};
use crate::crypto::rng::Rng;
use crate::key::Key;
use crate::key::usage::{MacUsage, MacVerification, WorkingKeyDerivation};
use crate::mac::MacAlgorithm;
use crate::pin::Pin;

/// A message to the service under a transaction key.
#[derive(Clone, Eq, PartialEq)]
pub struct TransactionRequest {
    /// The key serial number.
    pub ksn: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
    /// The MAC under the request key, in full length.
    pub mac: Vec<u8>,
}

/// A report, with what vouches for it.
pub enum ReportRequest {
    /// Before keys serve: the device itself.
    Signed(super::SignedRequest),
    /// After: a transaction key.
    Transaction(TransactionRequest),
}

/// An exchange that waits for its answer.
pub(super) struct Exchange {
    pub(super) step: Step,
    pub(super) request: TransactionRequest,
    pub(super) response_key: Key<MacVerification>,
    /// Of an Update: derives the keys that confirm what comes.
    pub(super) derivation_key: Option<Key<WorkingKeyDerivation>>,
}

/// What became of a parameter file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Applied {
    /// Its version.
    pub version: u32,
    /// Its digest, to be reported.
    pub digest: [u8; 32],
}

/// A test transaction to be made.
pub struct Test<'a> {
    /// What was read from the test card.
    pub card: CardData,
    /// The test card's PIN.
    pub pin: &'a Pin,
    /// The amount, in minor units. The terminal does not hold it against its limits: that the
    /// service does so is one of the things that are tested.
    pub amount_minor: u64,
    /// The currency.
    pub currency: Currency,
}

impl Terminal {
    /// Asks for parameters. Asked again before the answer came, the same bytes.
    pub fn request_parameters(
        &mut self,
        rng: &dyn Rng,
    ) -> Result<TransactionRequest, TerminalError> {
        if let Some(request) = self.unanswered(Step::Parameters)? {
            return Ok(request);
        }
        let mut nonce = [0; 32];
        rng.fill(&mut nonce)?;
        let applied = self.parameters.as_ref();
        let known_version = applied.map_or(0, |parameters| parameters.version.number());
        let payload = ParametersRequest { known_version, nonce }.encode();
        let keys = self.serving_engine()?.next_transaction()?;
        Ok(self.open_exchange(Step::Parameters, payload, keys))
    }

    /// Takes the answer and applies the file: verified, of this acquirer, and not older than the
    /// one applied.
    ///
    /// An answer that verifies ends the exchange, whatever its file is worth: the service answers
    /// the same request with the same file.
    pub fn apply_parameters(&mut self, answer: Answer<'_>) -> Result<Applied, TerminalError> {
        self.verify_answer(Step::Parameters, answer)?;
        self.exchange = None;
        let ParametersAnswer { parameters } = ParametersAnswer::parse(answer.payload)?;
        if parameters.acquirer_id != self.device.acquirer_id {
            return Err(TerminalError::ParametersOther);
        }
        if let Some(applied) = &self.parameters {
            parameters.check_against(applied)?;
        }
        let applied = Applied { version: parameters.version.number(), digest: parameters.digest() };
        self.parameters = Some(parameters);
        self.parameters_of = self.activation.as_ref().map(|name| name.terminal_id().to_owned());
        Ok(applied)
    }

    /// Reports what became of a step: under a transaction key where keys serve, else proven by the
    /// device. Asked again with a report under way, the same bytes.
    pub fn report(&mut self, step: Step, outcome: Outcome) -> Result<ReportRequest, TerminalError> {
        if let Some(request) = self.unanswered(Step::Report)? {
            return Ok(ReportRequest::Transaction(request));
        }
        let activation = self.activation().cloned().ok_or(TerminalError::OutOfStep)?;
        let payload = Report { activation, step, outcome }.encode();
        if self.engine.is_none() {
            let before = Transcript::new();
            let (_, request) = self.device.prove(self.suite, &before, payload, Step::Report)?;
            return Ok(ReportRequest::Signed(request));
        }
        let keys = self.serving_engine()?.next_transaction()?;
        Ok(ReportRequest::Transaction(self.open_exchange(Step::Report, payload, keys)))
    }

    /// Notes that the service took the report; its answer has no content.
    pub fn report_taken(&mut self) {
        if self.exchange.as_ref().is_some_and(|exchange| exchange.step == Step::Report) {
            self.exchange = None;
        }
    }

    /// Makes a test transaction. Asked again before the answer came, the same bytes.
    ///
    /// A card whose PAN no PIN block can be bound to is sent all the same, its block bound to the
    /// PAN brought to a valid length: the service is to judge the card, not the terminal.
    pub fn test_transaction(
        &mut self,
        test: Test<'_>,
        rng: &dyn Rng,
    ) -> Result<TransactionRequest, TerminalError> {
        if let Some(request) = self.unanswered(Step::Test)? {
            return Ok(request);
        }
        let suite = self.suite;
        let keys = self.serving_engine()?.next_transaction()?;
        let entry = PinEntry { suite, key: &keys.pin, pin: test.pin };
        let Entry { block, format } = entry.encipher_for_test(&test.card, rng)?;
        self.tests_made += 1;
        let payload = TestTransaction {
            number: self.tests_made,
            amount_minor: test.amount_minor,
            currency: test.currency,
            card: test.card,
            pin_block: block.bytes().to_vec(),
            pin_block_format: format,
        }
        .encode();
        Ok(self.open_exchange(Step::Test, payload, keys))
    }

    /// Takes the verdicts.
    pub fn accept_verdict(
        &mut self,
        answer: Answer<'_>,
    ) -> Result<TestTransactionAnswer, TerminalError> {
        self.verify_answer(Step::Test, answer)?;
        let verdict = TestTransactionAnswer::parse(answer.payload)?;
        self.exchange = None;
        Ok(verdict)
    }

    /// Gives up the exchange that waits for its answer, where the service refused it for good. Its
    /// counter is spent.
    pub fn abandon_exchange(&mut self) {
        self.exchange = None;
    }

    /// The step whose exchange waits for its answer: no other can be made before.
    #[must_use]
    pub fn unanswered_step(&self) -> Option<Step> {
        self.exchange.as_ref().map(|exchange| exchange.step)
    }

    /// The report under a transaction key that waits for its answer, to be sent again as it is.
    #[must_use]
    pub fn report_again(&self) -> Option<ReportRequest> {
        let report = self.exchange.as_ref().filter(|exchange| exchange.step == Step::Report);
        report.map(|exchange| ReportRequest::Transaction(exchange.request.clone()))
    }

    /// The request of a step that waits for its answer; an error where another step's does.
    pub(super) fn unanswered(
        &self,
        step: Step,
    ) -> Result<Option<TransactionRequest>, TerminalError> {
        match &self.exchange {
            None => Ok(None),
            Some(exchange) if exchange.step == step => Ok(Some(exchange.request.clone())),
            Some(_) => Err(TerminalError::Unanswered),
        }
    }

    pub(super) fn open_exchange(
        &mut self,
        step: Step,
        payload: Vec<u8>,
        keys: TransactionKeys,
    ) -> TransactionRequest {
        let transcript = Transcript::new().with(&payload);
        let input = transcript.authenticated_input(Role::Terminal, step);
        let mac = make_mac(self.suite, &keys.mac_request, &input);
        let request = TransactionRequest { ksn: keys.ksn.bytes().to_vec(), payload, mac };
        let response_key = keys.mac_response;
        let (derivation_key, sent) = (None, request.clone());
        self.exchange = Some(Exchange { step, request: sent, response_key, derivation_key });
        request
    }

    pub(super) fn verify_answer(
        &self,
        step: Step,
        answer: Answer<'_>,
    ) -> Result<(), TerminalError> {
        let exchange = self.exchange.as_ref().filter(|exchange| exchange.step == step);
        let exchange = exchange.ok_or(TerminalError::OutOfStep)?;
        let transcript = Transcript::new().with(&exchange.request.payload).with(answer.payload);
        let input = transcript.authenticated_input(Role::Service, step);
        // In full length: a truncated MAC is not what the service sends.
        let algorithm = mac_algorithm(self.suite);
        if answer.proof.len() != algorithm.len_bytes() {
            return Err(TerminalError::Authentication);
        }
        let verified = exchange.response_key.verify_mac(algorithm, &input, answer.proof);
        verified.map_err(|_| TerminalError::Authentication)
    }

    pub(super) fn serving_engine(&mut self) -> Result<&mut super::Engine, TerminalError> {
        self.engine.as_mut().ok_or(TerminalError::OutOfStep)
    }
}

impl Applied {
    /// What is reported of it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome::Applied(self.digest)
    }
}

/// The MAC algorithm of a suite: NIST SP 800-38B.
pub(super) fn mac_algorithm(suite: Suite) -> MacAlgorithm {
    match suite.dukpt() {
        Dukpt::Aes128 => MacAlgorithm::AesCmac,
        Dukpt::Tdes2 => MacAlgorithm::TdesCmac,
    }
}

/// Makes a MAC in full length. The message is never empty.
pub(super) fn make_mac<U: MacUsage>(suite: Suite, key: &Key<U>, message: &[u8]) -> Vec<u8> {
    let algorithm = mac_algorithm(suite);
    let mac = key.generate_mac(algorithm, message, algorithm.len_bytes());
    mac.expect("the suite fixes the key's algorithm and the MAC's length").bytes().to_vec()
}
