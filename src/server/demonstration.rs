//! A terminal's first activation over real gRPC, told step by step to whoever watches.

use serde::Serialize;

use super::dev::{self, Pki};
use super::simulation::{self, DeviceFailed, simulated_device, translate_request, verify_request};
use crate::activation::{ActivationCode, Parameters};
use crate::agreement::Suite;
use crate::crypto::rng::Rng;
use crate::grpc::client::{Client, ClientError, Driver, Told, request_id};
use crate::grpc::proto;
use crate::terminal::{Payment, Terminal, TerminalError};

/// What is bought, in minor units.
const AMOUNT_MINOR: u64 = 1_250;

/// One thing that happened, as it is printed.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// The step of the activation, or none for what is around it.
    pub step: Option<u8>,
    /// Who speaks.
    pub from: &'static str,
    /// To whom.
    pub to: &'static str,
    /// The call.
    pub call: &'static str,
    /// What came of it.
    pub outcome: String,
    /// Why it is done, for whoever sees it for the first time.
    pub because: &'static str,
    /// How long the call took, in microseconds.
    pub took_us: u64,
}

/// Why the demonstration ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum DemonstrationError {
    /// A call failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is no randomness.
    #[error("there is no randomness")]
    Randomness,
    /// Something went otherwise than it must.
    #[error("the demonstration went wrong: {0}")]
    Otherwise(String),
    /// The simulated device could not be made.
    #[error(transparent)]
    Device(#[from] DeviceFailed),
}

impl From<TerminalError> for DemonstrationError {
    fn from(error: TerminalError) -> Self {
        Self::Client(error.into())
    }
}

impl From<tonic::Status> for DemonstrationError {
    fn from(status: tonic::Status) -> Self {
        Self::Client(status.into())
    }
}

/// A step that the terminal drives.
enum Move {
    Begin(ActivationCode),
    Deliver,
    Confirm,
    Parameters,
    Test,
}

/// What the demonstration stands on.
pub struct Demonstration<'a> {
    /// The service.
    pub client: &'a Client,
    /// The authorities around it.
    pub pki: &'a Pki,
    /// Randomness for the terminals.
    pub rng: &'a dyn Rng,
    /// The time, in seconds since 1970.
    pub now: &'a (dyn Fn() -> u64 + Send + Sync),
    /// A stopwatch: microseconds since anything.
    pub stopwatch: &'a (dyn Fn() -> u64 + Send + Sync),
    /// Hears each line as it happens.
    pub tell: &'a mut (dyn FnMut(Line) + Send),
}

impl Demonstration<'_> {
    /// Takes an AES terminal from no keys to its first purchase; then shows a PIN translation from
    /// TDES-DUKPT to AES format 4, a MAC verification, and a replay that is refused.
    pub async fn run(&mut self) -> Result<(), DemonstrationError> {
        let mut id = [0; 3];
        self.rng.fill(&mut id).map_err(|_| DemonstrationError::Randomness)?;
        let id = data_encoding::HEXLOWER.encode(&id);
        let (till, tdes_till) = (format!("till-{id}-a"), format!("till-{id}-b"));
        let mut terminal = self.first_activation(&till).await?;
        self.first_purchase(&till, &mut terminal).await?;
        let mut tdes = self.tdes_terminal(&tdes_till).await?;
        self.tdes_purchase(&tdes_till, &mut tdes).await
    }

    async fn first_activation(&mut self, till: &str) -> Result<Terminal, DemonstrationError> {
        let serial = till.to_uppercase().replace("TILL", "SN");
        let device = simulated_device(self.pki, &serial, self.rng, (self.now)())?;
        let mut terminal = Terminal::new(device, Suite::P256Aes128);
        self.around(
            "vendor",
            "terminal",
            "factory",
            format!("device key and certificate for {serial}; the acquirer's root and id inside"),
            "the terminal believes only a service that this root certifies for this acquirer",
        );
        self.register(till, &serial, dev::PROFILE_AES).await?;
        let code = self.issue_code(till).await?;
        self.take_through(till, &mut terminal, code).await?;
        self.enable(till).await?;
        Ok(terminal)
    }

    async fn register(
        &mut self,
        till: &str,
        serial: &str,
        profile: &str,
    ) -> Result<(), DemonstrationError> {
        let begin = (self.stopwatch)();
        let request = simulation::registration(till, serial, profile);
        let made = self.client.terminals().create_terminal(request).await?.into_inner();
        let state = state_of(made.terminal.as_ref());
        let outcome = format!("{till}, serial {serial}, profile {profile}: {state}");
        let because =
            "serial, merchant, keys and limits are fixed now; nothing is negotiated later";
        self.step(1, ("backend", "service"), "CreateTerminal", outcome, because, begin);
        Ok(())
    }

    async fn issue_code(&mut self, till: &str) -> Result<ActivationCode, DemonstrationError> {
        let begin = (self.stopwatch)();
        let request = proto::IssueActivationCodeRequest {
            request_id: request_id(),
            name: format!("terminals/{till}"),
        };
        let issued = self.client.terminals().issue_activation_code(request).await?.into_inner();
        let code = ActivationCode::parse(&issued.activation_code)
            .map_err(|_| DemonstrationError::Otherwise("the code is none".to_owned()))?;
        let outcome = format!(
            "code {} for the merchant to type: {}",
            issued.activation_code,
            state_of(issued.terminal.as_ref())
        );
        let because = "told once, kept as a keyed hash; five tries, and useless without the device";
        self.step(2, ("backend", "service"), "IssueActivationCode", outcome, because, begin);
        Ok(code)
    }

    /// Steps 3 to 7, driven by the terminal; after each the service is asked where it stands.
    async fn take_through(
        &mut self,
        till: &str,
        terminal: &mut Terminal,
        code: ActivationCode,
    ) -> Result<(), DemonstrationError> {
        self.drive(till, terminal, Move::Begin(code)).await?;
        self.drive(till, terminal, Move::Deliver).await?;
        self.drive(till, terminal, Move::Confirm).await?;
        self.drive(till, terminal, Move::Parameters).await?;
        self.drive(till, terminal, Move::Test).await
    }

    async fn drive(
        &mut self,
        till: &str,
        terminal: &mut Terminal,
        step: Move,
    ) -> Result<(), DemonstrationError> {
        let begin = (self.stopwatch)();
        let mut heard = Vec::new();
        let mut driver = Driver {
            line: &mut self.client.clone(),
            terminal,
            rng: self.rng,
            now: self.now,
            save: &mut |_| Ok(()),
            tell: &mut |told| heard.push(told),
        };
        match step {
            Move::Begin(code) => driver.begin(Some(code)).await?,
            Move::Deliver => driver.deliver().await?,
            Move::Confirm => driver.confirm().await?,
            Move::Parameters => driver.parameters().await?,
            Move::Test => driver.test().await.map(|_| ())?,
        }
        let took_us = (self.stopwatch)().saturating_sub(begin);
        let state = state_of(self.terminal(till).await?.as_ref());
        for told in &heard {
            let (step, call, outcome, because) = words(told);
            let (from, to, outcome) = ("terminal", "service", format!("{outcome}: {state}"));
            (self.tell)(Line { step: Some(step), from, to, call, outcome, because, took_us });
        }
        Ok(())
    }

    async fn terminal(&self, till: &str) -> Result<Option<proto::Terminal>, DemonstrationError> {
        let request = proto::GetTerminalRequest { name: format!("terminals/{till}") };
        Ok(self.client.terminals().get_terminal(request).await?.into_inner().terminal)
    }

    async fn enable(&mut self, till: &str) -> Result<(), DemonstrationError> {
        let begin = (self.stopwatch)();
        let name = format!("terminals/{till}");
        let request = proto::EnableTerminalRequest { request_id: request_id(), name };
        let enabled = self.client.terminals().enable_terminal(request).await?.into_inner();
        let outcome =
            format!("PIN and MAC calls are open: {}", state_of(enabled.terminal.as_ref()));
        let because = "the acquirer has the last word before money moves";
        self.step(8, ("backend", "service"), "EnableTerminal", outcome, because, begin);
        Ok(())
    }

    async fn first_purchase(
        &mut self,
        till: &str,
        terminal: &mut Terminal,
    ) -> Result<(), DemonstrationError> {
        let payment = self.purchase(terminal)?;
        self.around(
            "terminal",
            "backend",
            "first purchase",
            format!("{AMOUNT_MINOR} minor units, KSN {}, MAC and PIN block", payment.ksn),
            "every transaction has its own keys, erased on the terminal as soon as they are used",
        );
        self.verify_mac(&payment).await?;
        self.translate(&payment).await?;
        let found = self.terminal(till).await?;
        if found.is_none_or(|terminal| terminal.first_transaction_time.is_none()) {
            let what = "the first transaction was not recorded".to_owned();
            return Err(DemonstrationError::Otherwise(what));
        }
        Ok(())
    }

    /// A second terminal, of the older kind, told in one line.
    async fn tdes_terminal(&mut self, till: &str) -> Result<Terminal, DemonstrationError> {
        let begin = (self.stopwatch)();
        let serial = till.to_uppercase().replace("TILL", "SN");
        let device = simulated_device(self.pki, &serial, self.rng, (self.now)())?;
        let mut terminal = Terminal::new(device, Suite::P256Tdes2);
        let told: &mut (dyn FnMut(Line) + Send) = &mut |_| {};
        let mut quiet = Demonstration {
            client: self.client,
            pki: self.pki,
            rng: self.rng,
            now: self.now,
            stopwatch: self.stopwatch,
            tell: told,
        };
        quiet.register(till, &serial, dev::PROFILE_TDES).await?;
        let code = quiet.issue_code(till).await?;
        quiet.take_through(till, &mut terminal, code).await?;
        quiet.enable(till).await?;
        let took_us = (self.stopwatch)().saturating_sub(begin);
        (self.tell)(Line {
            step: None,
            from: "terminal",
            to: "service",
            call: "steps 1 to 8 again",
            outcome: format!("{till}, a TDES-DUKPT terminal: ACTIVE"),
            because: "most terminals in the field are of this kind",
            took_us,
        });
        Ok(terminal)
    }

    async fn tdes_purchase(
        &mut self,
        till: &str,
        terminal: &mut Terminal,
    ) -> Result<(), DemonstrationError> {
        let payment = self.purchase(terminal)?;
        self.translate(&payment).await?;
        self.verify_mac(&payment).await?;
        self.replay(till, &payment).await
    }

    fn purchase(&self, terminal: &mut Terminal) -> Result<Payment, DemonstrationError> {
        Ok(simulation::purchase(terminal, AMOUNT_MINOR, self.rng, (self.now)())?)
    }

    async fn verify_mac(&mut self, payment: &Payment) -> Result<(), DemonstrationError> {
        let begin = (self.stopwatch)();
        let request = verify_request(payment);
        self.client.macs().verify_mac(request).await?;
        let outcome = format!("the MAC under KSN {} verifies", payment.ksn);
        let because = "nobody changed the message between the terminal and here";
        self.call(("backend", "service"), "VerifyMac", outcome, because, begin);
        Ok(())
    }

    async fn translate(&mut self, payment: &Payment) -> Result<(), DemonstrationError> {
        let begin = (self.stopwatch)();
        let request = translate_request(payment, payment.pin_block.bytes().to_vec());
        let answer = self.client.pins().translate_pin(request).await?.into_inner();
        let outcome = format!(
            "KSN {}, {} -> format 4 under keys/dev-zone-pin-aes: {}",
            payment.ksn,
            format_name(payment),
            data_encoding::HEXUPPER.encode(&answer.pin_block)
        );
        let because =
            "the PIN goes on to its issuer under another key; it was clear in one function";
        self.call(("backend", "service"), "TranslatePin", outcome, because, begin);
        Ok(())
    }

    async fn replay(&mut self, till: &str, payment: &Payment) -> Result<(), DemonstrationError> {
        let begin = (self.stopwatch)();
        let mut other = payment.pin_block.bytes().to_vec();
        if let Some(first) = other.first_mut() {
            *first ^= 1;
        }
        let request = translate_request(payment, other);
        let refused = self.client.pins().translate_pin(request).await;
        let reason = match refused {
            Ok(_) => "it was accepted".to_owned(),
            Err(status) => ClientError::from(status).reason().unwrap_or_default().to_owned(),
        };
        if reason != "KSN_REPLAYED" {
            let what = format!("a replay for {till} was not refused as one: {reason}");
            return Err(DemonstrationError::Otherwise(what));
        }
        let outcome = format!("another PIN block under KSN {}: refused, {reason}", payment.ksn);
        let because = "one look per counter: nobody guesses a PIN by trying blocks";
        self.call(("attacker", "service"), "TranslatePin", outcome, because, begin);
        Ok(())
    }

    fn step(
        &mut self,
        step: u8,
        (from, to): (&'static str, &'static str),
        call: &'static str,
        outcome: String,
        because: &'static str,
        begin: u64,
    ) {
        let took_us = (self.stopwatch)().saturating_sub(begin);
        (self.tell)(Line { step: Some(step), from, to, call, outcome, because, took_us });
    }

    fn call(
        &mut self,
        (from, to): (&'static str, &'static str),
        call: &'static str,
        outcome: String,
        because: &'static str,
        begin: u64,
    ) {
        let took_us = (self.stopwatch)().saturating_sub(begin);
        (self.tell)(Line { step: None, from, to, call, outcome, because, took_us });
    }

    fn around(
        &mut self,
        from: &'static str,
        to: &'static str,
        call: &'static str,
        outcome: String,
        because: &'static str,
    ) {
        (self.tell)(Line { step: None, from, to, call, outcome, because, took_us: 0 });
    }
}

/// What a step of the terminal means, in words.
fn words(told: &Told) -> (u8, &'static str, String, &'static str) {
    match told {
        Told::Begun { activation } => (
            3,
            "BeginActivation",
            format!("code and device signature accepted, {activation}"),
            "the device proved its key, the service its own; the key's id is allocated for good",
        ),
        Told::Keys(keys) => {
            let keys: Vec<String> = keys
                .iter()
                .map(|key| {
                    let id = data_encoding::HEXUPPER.encode(&key.initial_key_id);
                    format!("initial key {id}, check value {}", key.check_value)
                })
                .collect();
            let outcome = keys.join("; ");
            let because = "one key block under a key that both just agreed on and nobody ever saw";
            (4, "DeliverKeys", outcome, because)
        }
        Told::Confirmed => (
            5,
            "ConfirmKeys",
            "both sides MACed the whole conversation".to_owned(),
            "before this the keys served on neither side; after it they are never sent again",
        ),
        Told::Parameters(parameters) => {
            (6, "GetParameters", limits(parameters), "MACed; an older version would be refused")
        }
        Told::Reported => (
            6,
            "ReportStep",
            "told which digest it applied".to_owned(),
            "the service knows what limits the terminal really has",
        ),
        Told::Tested(verdict) => {
            let checks: Vec<&str> =
                verdict.verdicts.iter().map(|verdict| verdict.check.as_str()).collect();
            let outcome = format!(
                "{} of {} passed ({})",
                verdict.tests_passed,
                verdict.tests_required,
                checks.join(", ")
            );
            (7, "RunTestTransaction", outcome, "the first real transaction is not the first one")
        }
    }
}

fn limits(parameters: &Parameters) -> String {
    format!(
        "version {}: {} at most {} at once and {} a day, {}",
        parameters.version.number(),
        parameters.currency.as_str(),
        parameters.limits.single_minor(),
        parameters.limits.daily_minor(),
        parameters.merchant_name.as_str(),
    )
}

fn state_of(terminal: Option<&proto::Terminal>) -> String {
    let state = terminal.map(proto::Terminal::state).unwrap_or_default();
    state.as_str_name().trim_start_matches("TERMINAL_STATE_").to_owned()
}

fn format_name(payment: &Payment) -> &'static str {
    match payment.pin_block_format.len_bytes() {
        16 => "AES-DUKPT format 4",
        _ => "TDES-DUKPT format 3",
    }
}
