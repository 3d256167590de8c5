//! A terminal whose memory outlives its power, and who drives it.

use firstkey::activation::ActivationCode;
use firstkey::agreement::Suite;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::{Client, ClientError, Driver, Told};
use firstkey::grpc::proto::TerminalState;
use firstkey::server::dev::Pki;
use firstkey::server::simulation::{self, simulated_device};
use firstkey::terminal::{Payment, Terminal};

use crate::lane::now;

/// What a terminal does next in its activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Begin,
    Deliver,
    Confirm,
    Parameters,
    Test,
}

impl Step {
    /// Where the service is once it has answered.
    pub(crate) const fn state(self) -> TerminalState {
        match self {
            Self::Begin => TerminalState::CodeVerified,
            Self::Deliver => TerminalState::KeysDelivered,
            Self::Confirm => TerminalState::KeysConfirmed,
            Self::Parameters => TerminalState::ParametersDelivered,
            Self::Test => TerminalState::Tested,
        }
    }
}

/// A terminal with its memory.
pub(crate) struct Device {
    /// Its id at the service.
    pub(crate) id: String,
    /// Its code, as the merchant has it on paper: there is never another one.
    pub(crate) code: String,
    /// The most that the service acknowledged.
    pub(crate) acknowledged: TerminalState,
    /// The initial key id that it received.
    pub(crate) initial_key_id: Option<Vec<u8>>,
    terminal: Terminal,
    /// What it last wrote down.
    memory: String,
}

impl Device {
    /// A new device of the vendor.
    pub(crate) fn new(pki: &Pki, id: &str, suite: Suite) -> Self {
        let serial = format!("SN-{id}");
        let device = simulated_device(pki, &serial, &SystemRng::new(), now())
            .expect("the vendor makes devices");
        let terminal = Terminal::new(device, suite);
        let memory = terminal.save().to_string();
        Self {
            id: id.to_owned(),
            code: String::new(),
            acknowledged: TerminalState::CodeIssued,
            initial_key_id: None,
            terminal,
            memory,
        }
    }

    /// Its resource name.
    pub(crate) fn name(&self) -> String {
        format!("terminals/{}", self.id)
    }

    /// Loses its power and has it again: only what it wrote down is left.
    pub(crate) fn power_cycle(&mut self) {
        self.terminal = Terminal::restore(&self.memory).expect("it reads what it wrote");
    }

    /// The next step, none when its tests have passed.
    pub(crate) fn next(&mut self) -> Option<Step> {
        if self.acknowledged == TerminalState::Tested {
            None
        } else if self.terminal.parameters().is_some() {
            Some(Step::Test)
        } else if self.terminal.has_keys() {
            Some(Step::Parameters)
        } else if self.terminal.confirm().is_ok() {
            Some(Step::Confirm)
        } else if self.terminal.deliver().is_ok() {
            Some(Step::Deliver)
        } else {
            Some(Step::Begin)
        }
    }

    /// Makes one step. Where the reply is lost the device is left with what it had written down
    /// before that reply came.
    pub(crate) async fn step(
        &mut self,
        client: &Client,
        step: Step,
        lose_reply: bool,
    ) -> Result<(), ClientError> {
        let mut memories = vec![self.memory.clone()];
        let before = (self.acknowledged, self.initial_key_id.clone());
        let made = self.drive(client, Some(step), &mut memories).await;
        let kept = memories.len() - 1;
        if made.is_ok() && lose_reply {
            assert!(kept > 0, "a reply is written down");
            self.memory = memories.swap_remove(kept - 1);
            (self.acknowledged, self.initial_key_id) = before;
            self.power_cycle();
        } else {
            self.memory = memories.swap_remove(kept);
        }
        made
    }

    /// Goes on from wherever it stands until its tests have passed.
    pub(crate) async fn activate(&mut self, client: &Client) -> Result<(), ClientError> {
        let mut memories = vec![self.memory.clone()];
        let made = self.drive(client, None, &mut memories).await;
        self.memory = memories.pop().expect("the first memory is always there");
        made
    }

    async fn drive(
        &mut self,
        client: &Client,
        step: Option<Step>,
        memories: &mut Vec<String>,
    ) -> Result<(), ClientError> {
        let code = Some(ActivationCode::parse(&self.code).expect("the service's code is one"));
        let (acknowledged, initial_key_id) = (&mut self.acknowledged, &mut self.initial_key_id);
        let mut tell = |told: Told| {
            let step = match told {
                Told::Begun { .. } => Step::Begin,
                Told::Keys(keys) => {
                    let id = keys.first().expect("a key arrived").initial_key_id.clone();
                    assert!(initial_key_id.as_ref().is_none_or(|first| *first == id));
                    *initial_key_id = Some(id);
                    Step::Deliver
                }
                Told::Confirmed => Step::Confirm,
                Told::Parameters(_) | Told::Reported => Step::Parameters,
                Told::Tested(verdict) => {
                    assert!(verdict.passed(), "{verdict:?}");
                    Step::Test
                }
            };
            *acknowledged = step.state();
        };
        let mut save = |terminal: &Terminal| {
            memories.push(terminal.save().to_string());
            Ok(())
        };
        let mut driver = Driver {
            line: &mut client.clone(),
            terminal: &mut self.terminal,
            rng: &SystemRng::new(),
            now: &now,
            save: &mut save,
            tell: &mut tell,
        };
        match step {
            Some(Step::Begin) => driver.begin(code).await,
            Some(Step::Deliver) => driver.deliver().await,
            Some(Step::Confirm) => driver.confirm().await,
            Some(Step::Parameters) => driver.parameters().await,
            Some(Step::Test) | None => driver.activate(code, false).await,
        }
    }

    /// Two purchases under one KSN, as only a cloned device could make them; the device goes on
    /// after the first.
    pub(crate) fn purchase_and_clone(&mut self) -> [Payment; 2] {
        let [mut original, mut clone] =
            [(), ()].map(|()| Terminal::restore(&self.memory).expect("it reads what it wrote"));
        let payments = [purchase(&mut original, 100), purchase(&mut clone, 200)];
        assert_eq!(payments[0].ksn.bytes(), payments[1].ksn.bytes());
        self.memory = original.save().to_string();
        self.terminal = original;
        payments
    }
}

fn purchase(terminal: &mut Terminal, amount_minor: u64) -> Payment {
    simulation::purchase(terminal, amount_minor, &SystemRng::new(), now())
        .expect("it is within the limits")
}
