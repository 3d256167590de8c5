//! Every state of a terminal and every call that acts upon one, over the real API.
//!
//! Each cell of [`EXPECTED`] is tried: a terminal is brought to the state by real activations, the
//! call is made with a proof that is valid wherever one can be made, and what comes back is held
//! against the cell, and against the library's own table.

use firstkey::activation::parameters::Currency;
use firstkey::activation::payload::{CardData, Fault};
use firstkey::activation::states::TABLE;
use firstkey::activation::{ActivationCode, Call, Rule, State, Step};
use firstkey::agreement::Suite;
use firstkey::grpc::client::Refusal;
use firstkey::grpc::proto;
use firstkey::pin::Pin;
use firstkey::terminal::{
    ConfirmRequest, ReportRequest, SignedRequest, Terminal, Test, TransactionRequest,
};
use tonic::Code;

use crate::harness::{CARD_PAN, CARD_PIN, Service, Till, retyped, told};

/// What is expected of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    /// It is done.
    Yes,
    /// The same bytes as before get the same answer as before.
    Again,
    /// `ACTIVATION_REFUSED`: nothing is there that a proof could be held against, and whoever can
    /// not prove anything does not learn the state.
    Proof,
    /// `ACTIVATION_STATE`.
    State,
    /// `TERMINAL_ALREADY_ACTIVATED`.
    Activ,
    /// `TERMINAL_LOCKED`.
    Lock,
    /// `MERCHANT_NOT_APPROVED`.
    Merch,
    /// `TERMINAL_NOT_ACTIVE`.
    Inact,
}

use Cell::{Activ, Again, Inact, Lock, Merch, Proof, Yes};

/// A row: a state, and where there are two ways into it, which.
type Row = (State, Way);

/// How a terminal came into its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The only one.
    Only,
    /// Held for a stated risk.
    Risk,
    /// Held because the merchant was rejected.
    Merchant,
    /// Under a profile that asks for no code.
    NoCode,
}

const STA: Cell = Cell::State;

/// What each state answers to each call; written out, and not derived from the library.
#[rustfmt::skip]
const EXPECTED: [(Row, [Cell; Call::ALL.len()]); 17] = [
    // issue, reissue, begin, deliver, confirm, parameters, report, test, update, enable, standing,
    // settlement, hold, release, cancel, suspend, resume, retire, compromised, rekey, PIN or MAC
    ((State::Registered, Way::Only), [
        Yes, STA, STA, Proof, Proof, Proof, STA, Proof, Proof, STA, Yes,
        Yes, Yes, STA, STA, STA, STA, Yes, Yes, STA, Inact,
    ]),
    ((State::Registered, Way::NoCode), [
        STA, STA, Yes, Proof, Proof, Proof, STA, Proof, Proof, STA, Yes,
        Yes, Yes, STA, STA, STA, STA, Yes, Yes, STA, Inact,
    ]),
    ((State::CodeIssued, Way::Only), [
        STA, Yes, Yes, STA, STA, Proof, STA, Proof, Proof, STA, Yes,
        Yes, Yes, STA, Yes, STA, STA, Yes, Yes, STA, Inact,
    ]),
    ((State::CodeVerified, Way::Only), [
        STA, Yes, Yes, Yes, Proof, Proof, Yes, Proof, Proof, STA, Yes,
        Yes, Yes, STA, Yes, STA, STA, Yes, Yes, STA, Inact,
    ]),
    ((State::KeysDelivered, Way::Only), [
        STA, Yes, Yes, Again, Yes, Proof, Yes, Proof, Proof, STA, Yes,
        Yes, Yes, STA, Yes, STA, STA, Yes, Yes, STA, Inact,
    ]),
    ((State::KeysConfirmed, Way::Only), [
        STA, STA, Activ, Proof, Again, Yes, Yes, STA, Activ, STA, Yes,
        Yes, Yes, STA, Yes, STA, STA, Yes, Yes, STA, Inact,
    ]),
    ((State::ParametersDelivered, Way::Only), [
        STA, STA, Activ, Proof, Again, Yes, Yes, Yes, Activ, STA, Yes,
        Yes, Yes, STA, Yes, STA, STA, Yes, Yes, STA, Inact,
    ]),
    ((State::Tested, Way::Only), [
        STA, STA, Activ, Proof, Again, Yes, Yes, Yes, Activ, Yes, Yes,
        Yes, Yes, STA, Yes, STA, STA, Yes, Yes, STA, Inact,
    ]),
    ((State::Active, Way::Only), [
        STA, STA, Activ, Proof, Again, Yes, Yes, STA, Activ, STA, Yes,
        Yes, STA, STA, STA, Yes, STA, Yes, Yes, Yes, Yes,
    ]),
    ((State::Held, Way::Risk), [
        STA, STA, STA, STA, STA, STA, STA, STA, STA, STA, Yes,
        Yes, STA, Yes, Yes, STA, STA, Yes, Yes, STA, Inact,
    ]),
    ((State::Held, Way::Merchant), [
        Merch, Merch, Merch, Merch, Merch, Merch, Merch, Merch, Merch, Merch, Yes,
        Yes, Merch, Merch, Yes, STA, STA, Yes, Yes, STA, Inact,
    ]),
    ((State::CodeExpired, Way::Only), [
        STA, Yes, STA, STA, STA, Proof, STA, Proof, Proof, STA, Yes,
        Yes, Yes, STA, Yes, STA, STA, Yes, Yes, STA, Inact,
    ]),
    ((State::Locked, Way::Only), [
        Lock, Yes, Lock, Lock, Lock, Proof, Lock, Proof, Proof, Lock, Yes,
        Yes, Yes, STA, Yes, STA, STA, Yes, Yes, STA, Inact,
    ]),
    ((State::Rekeying, Way::Only), [
        STA, STA, Yes, Yes, Yes, Yes, Yes, STA, Yes, STA, Yes,
        Yes, STA, STA, Yes, Yes, STA, Yes, Yes, STA, Yes,
    ]),
    ((State::Suspended, Way::Only), [
        STA, STA, STA, STA, STA, STA, STA, STA, STA, STA, Yes,
        Yes, STA, STA, STA, STA, Yes, Yes, Yes, STA, Inact,
    ]),
    ((State::Retired, Way::Only), [
        STA, STA, STA, Proof, Proof, STA, STA, STA, STA, STA, STA,
        STA, STA, STA, STA, STA, STA, STA, Yes, STA, Inact,
    ]),
    ((State::Compromised, Way::Only), [
        STA, STA, STA, Proof, Proof, STA, STA, STA, STA, STA, STA,
        STA, STA, STA, STA, STA, STA, Yes, STA, STA, Inact,
    ]),
];

impl Cell {
    /// The reason and the gRPC code of a refusal.
    fn refusal(self) -> Option<(&'static str, Code)> {
        match self {
            Self::Yes | Self::Again => None,
            Self::Proof => Some(("ACTIVATION_REFUSED", Code::FailedPrecondition)),
            Self::State => Some(("ACTIVATION_STATE", Code::FailedPrecondition)),
            Self::Activ => Some(("TERMINAL_ALREADY_ACTIVATED", Code::AlreadyExists)),
            Self::Lock => Some(("TERMINAL_LOCKED", Code::FailedPrecondition)),
            Self::Merch => Some(("MERCHANT_NOT_APPROVED", Code::FailedPrecondition)),
            Self::Inact => Some(("TERMINAL_NOT_ACTIVE", Code::FailedPrecondition)),
        }
    }

    /// The letters of the printed table.
    fn letters(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Again => "again",
            Self::Proof => "proof",
            Self::State => "state",
            Self::Activ => "activ",
            Self::Lock => "lock",
            Self::Merch => "merch",
            Self::Inact => "inact",
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_state_answers_every_call_as_the_table_says() {
    let mut rows = tokio::task::JoinSet::new();
    for (row, cells) in EXPECTED {
        rows.spawn(async move {
            let service = Service::start().await;
            service.profile("brief", brief).await;
            service.profile("no-code", |profile| profile.no_code = true).await;
            try_row(&service, row, cells).await;
        });
    }
    while let Some(row) = rows.join_next().await {
        if let Err(failed) = row {
            std::panic::resume_unwind(failed.into_panic());
        }
    }
    print_table();
}

#[test]
fn the_table_and_the_library_agree_on_what_is_allowed() {
    for ((state, way), cells) in EXPECTED {
        let (_, rules) = TABLE.iter().find(|(one, _)| *one == state).expect("a row");
        for ((call, cell), rule) in Call::ALL.iter().zip(cells).zip(rules) {
            let here = format!("{state:?} {way:?} {call:?}");
            let beyond = beyond_the_state(way, *call);
            match cell {
                Yes | Again => {
                    let without = *rule == Rule::AllowedWithoutCode && way == Way::NoCode;
                    assert!(*rule == Rule::Allowed || without, "{here}");
                }
                // That no proof can be made says nothing of the state.
                Proof => {}
                Activ | Inact | Lock | Merch | Cell::State => {
                    assert!(*rule != Rule::Allowed || beyond.is_some(), "{here}");
                }
            }
        }
    }
}

/// Refused not by the state: the remedy, where one is told.
fn beyond_the_state(way: Way, call: Call) -> Option<&'static str> {
    match (way, call) {
        (Way::Merchant, Call::ReleaseTerminal) => Some(""),
        (Way::NoCode, Call::IssueActivationCode) => {
            Some("the profile asks for no code: begin the activation")
        }
        _ => None,
    }
}

/// A code lives as short as it may, so that it can run out while its session lives.
fn brief(profile: &mut proto::Profile) {
    profile.code_lifetime = Some(prost_types::Duration { seconds: 60, nanos: 0 });
}

/// Tries all calls in one state: those that are refused one after the other on the same terminal,
/// for they change nothing; those that are allowed each on a terminal of its own.
async fn try_row(service: &Service, row: Row, cells: [Cell; Call::ALL.len()]) {
    let mut number = 0;
    for depth in Depth::ALL {
        let mut shared = None;
        for (call, cell) in Call::ALL.into_iter().zip(cells) {
            if Depth::of(row, call) != depth {
                continue;
            }
            number += 1;
            let id = format!("till-{number}");
            let mut own = None;
            let standing = match &mut shared {
                Some(standing) if cell.refusal().is_some() => standing,
                shared => {
                    let reached = Standing::reach(service, &id, row, depth).await;
                    let place = if cell.refusal().is_some() { shared } else { &mut own };
                    place.insert(reached)
                }
            };
            try_cell(service, standing, row, call, cell).await;
        }
    }
}

async fn try_cell(
    service: &Service,
    standing: &mut Standing,
    row: Row,
    call: Call,
    expected: Cell,
) {
    let here = format!("{:?} {:?} {call:?}", row.0, row.1);
    let id = standing.till.id.clone();
    let before = service.get(&id).await;
    assert_eq!(crate::harness::state_name(&before), row.0.as_str(), "{here}");
    let results = standing.make(service, call).await;
    let after = service.get(&id).await;
    assert!(!results.is_empty(), "{here}");
    for result in results {
        let Some((reason, code)) = expected.refusal() else {
            assert_eq!(result, Ok(()), "{here}");
            // Of PIN and MAC calls only the first leaves a mark.
            assert!(call == Call::PinOrMac || (before == after) == (expected == Again), "{here}");
            continue;
        };
        let refusal = result.expect_err(&here);
        assert_eq!((refusal.reason.as_str(), refusal.code), (reason, code), "{here}: {refusal}");
        assert!(before == after, "{here}: a refused call changed the terminal");
        if expected == Proof {
            assert_eq!(refusal.metadata, [], "{here}");
        } else if let Some(remedy) = beyond_the_state(row.1, call) {
            assert_eq!(told(&refusal, "remedy"), remedy, "{here}");
        } else {
            assert_eq!(told(&refusal, "state"), row.0.as_str(), "{here}");
            let rule = row.0.check(call, row.1 != Way::NoCode);
            let remedy = rule.expect_err(&here).remedy();
            assert_eq!(told(&refusal, "remedy"), remedy, "{here}");
        }
    }
}

/// How far the terminal had come when it entered its state: it decides of which calls a proof can
/// be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Depth {
    /// A session has begun.
    Begun,
    /// Keys were delivered in it.
    Delivered,
    /// Keys were confirmed; in a state before that, the keys of an activation that was cancelled.
    Confirmed,
}

impl Depth {
    const ALL: [Self; 3] = [Self::Begun, Self::Delivered, Self::Confirmed];

    /// The depth at which a call can be proven.
    fn of((state, way): Row, call: Call) -> Self {
        let on_the_way =
            way == Way::Only && state >= State::KeysDelivered && state <= State::Active;
        match call {
            _ if on_the_way => Self::Confirmed,
            Call::DeliverKeys => Self::Begun,
            Call::ConfirmKeys => Self::Delivered,
            _ => Self::Confirmed,
        }
    }
}

/// A terminal in a state, with what it needs to make each call.
struct Standing {
    till: Till,
    code: Option<ActivationCode>,
    delivered: Option<SignedRequest>,
    confirmed: Option<ConfirmRequest>,
}

impl Standing {
    /// Brings a new terminal to a state.
    async fn reach(service: &Service, id: &str, (state, way): Row, depth: Depth) -> Self {
        let profile = match (state, way) {
            (State::CodeExpired, _) => "brief",
            (_, Way::NoCode) => "no-code",
            _ => "dev-aes",
        };
        let till = service.register_under(id, Suite::P256Aes128, profile).await;
        let mut standing = Self { till, code: None, delivered: None, confirmed: None };
        match state {
            State::Registered
            | State::CodeIssued
            | State::CodeVerified
            | State::KeysDelivered
            | State::CodeExpired
            | State::Locked => standing.before_keys(service, state, depth).await,
            State::KeysConfirmed | State::ParametersDelivered | State::Tested | State::Active => {
                standing.go(service, state).await;
            }
            State::Held | State::Retired | State::Compromised => {
                standing.go(service, depth.state()).await;
                standing.leave(service, state, way).await;
            }
            State::Rekeying | State::Suspended => {
                standing.go(service, State::Active).await;
                service.start_update(id).await;
                standing.begin_rekey(service, depth).await;
                if state == State::Suspended {
                    service.must(Call::SuspendTerminal, id).await;
                }
            }
        }
        standing
    }

    /// The states before keys are confirmed, where the terminal holds keys of a cancelled activation.
    async fn before_keys(&mut self, service: &Service, state: State, depth: Depth) {
        let id = self.till.id.clone();
        self.go(
            service,
            if depth == Depth::Confirmed { State::KeysConfirmed } else { depth.state() },
        )
        .await;
        match state {
            State::CodeIssued if depth != Depth::Confirmed => {
                self.code = Some(service.reissue_code(&id).await);
                return;
            }
            State::CodeVerified if depth == Depth::Begun => return,
            State::CodeVerified if depth == Depth::Delivered => {
                // Another session begins; this terminal still holds the keys of the one before.
                let code = self.code();
                return self.till.twin().begin(service, code).await.expect("it begins again");
            }
            State::KeysDelivered if depth == Depth::Delivered => return,
            State::CodeExpired | State::Locked if depth != Depth::Confirmed => {}
            _ => {
                service.must(Call::CancelActivation, &id).await;
                match state {
                    State::CodeVerified => self.go(service, State::CodeVerified).await,
                    State::KeysDelivered => self.go(service, State::KeysDelivered).await,
                    State::Registered => {}
                    _ => self.go(service, State::CodeIssued).await,
                }
            }
        }
        match state {
            State::CodeExpired => {
                service.clock.advance(61);
                let code = self.code();
                let refused = self.till.twin().begin(service, code).await;
                assert_eq!(crate::harness::refused(refused).reason, "CODE_REFUSED");
            }
            State::Locked => {
                for _ in 0..5 {
                    let wrong = Some(ActivationCode::from_random_bits(&[0x5A; 7]));
                    crate::harness::refused(self.till.twin().begin(service, wrong).await);
                }
            }
            _ => {}
        }
    }

    /// Goes the ordinary way, from wherever the terminal stands on it, up to a state.
    async fn go(&mut self, service: &Service, to: State) {
        let id = self.till.id.clone();
        loop {
            let at = State::from_name(&service.state(&id).await).expect("a state");
            if at == to {
                return;
            }
            match at {
                State::Registered if self.till_needs_code(service).await => {
                    self.code = Some(service.issue_code(&id).await);
                }
                State::Registered | State::CodeIssued => {
                    let code = self.code();
                    self.till.begin(service, code).await.expect("it begins");
                }
                State::CodeVerified => {
                    self.delivered = Some(self.till.terminal.deliver().expect("a session"));
                    self.till.deliver(service).await.expect("keys are delivered");
                }
                State::KeysDelivered => {
                    self.confirmed = Some(self.till.terminal.confirm().expect("keys"));
                    self.till.confirm(service).await.expect("keys are confirmed");
                }
                State::KeysConfirmed => {
                    self.till.parameters(service).await.expect("parameters are delivered");
                }
                State::ParametersDelivered => {
                    assert!(self.till.test(service).await.expect("a verdict").passed());
                }
                State::Tested => {
                    service.enable(&id).await.expect("it is enabled");
                }
                other => panic!("{other:?} is not on the way"),
            }
        }
    }

    fn code(&self) -> Option<ActivationCode> {
        self.code.as_ref().map(retyped)
    }

    async fn till_needs_code(&self, service: &Service) -> bool {
        service.get(&self.till.id).await.profile != "profiles/no-code"
    }

    async fn leave(&self, service: &Service, state: State, way: Way) {
        let id = &self.till.id;
        match (state, way) {
            (State::Held, Way::Merchant) => {
                let rejected = proto::MerchantStanding::Rejected;
                service.stand(id, rejected).await.expect("the merchant is rejected");
            }
            (State::Held, _) => drop(service.must(Call::HoldTerminal, id).await),
            (State::Retired, _) => drop(service.must(Call::RetireTerminal, id).await),
            _ => drop(service.must(Call::MarkTerminalCompromised, id).await),
        }
    }

    async fn begin_rekey(&mut self, service: &Service, depth: Depth) {
        if depth == Depth::Confirmed {
            return;
        }
        self.till.begin(service, None).await.expect("it begins");
        if depth == Depth::Delivered {
            self.till.deliver(service).await.expect("keys are delivered");
        }
    }

    /// Makes a call, with a valid proof where one can be made; all the results that there are.
    async fn make(&mut self, service: &Service, call: Call) -> Vec<Result<(), Refusal>> {
        let id = self.till.id.clone();
        let name = service.get(&id).await.activation;
        match call {
            Call::BeginActivation => {
                let code = self.code();
                let begin = self
                    .till
                    .twin()
                    .terminal
                    .begin(code, &service.rng, service.now())
                    .expect("a begin");
                vec![service.send_begin(&begin).await.map(drop)]
            }
            Call::DeliverKeys => {
                let kept = self.delivered.clone();
                let made = self.till.terminal.deliver().ok();
                let deliver = made.or(kept).expect("a deliver");
                vec![service.send_deliver(&name, &deliver).await.map(drop)]
            }
            Call::ConfirmKeys => {
                let kept = self.confirmed.clone();
                let confirm = self.till.terminal.confirm().ok().or(kept).expect("a confirm");
                vec![service.send_confirm(&name, &confirm).await.map(drop)]
            }
            Call::GetParameters => {
                let request = self.parameters_request(service);
                vec![service.send_parameters(&request).await.map(drop)]
            }
            Call::ReportStep => self.report(service, &name).await,
            Call::RunTestTransaction => {
                let request = test_request(service, &mut self.till.terminal);
                self.till.terminal.abandon_exchange();
                vec![service.send_test(&request).await.map(drop)]
            }
            Call::UpdateKeys => {
                let request = self.till.terminal.request_update(&service.rng).expect("keys");
                self.till.terminal.abandon_exchange();
                vec![service.send_update(&request).await.map(drop)]
            }
            Call::PinOrMac => self.verify_macs(service).await,
            other => vec![service.call(other, &id).await.map(drop)],
        }
    }

    fn parameters_request(&mut self, service: &Service) -> TransactionRequest {
        let request = self.till.terminal.request_parameters(&service.rng).expect("keys");
        self.till.terminal.abandon_exchange();
        request
    }

    /// By the device's key; where keys serve, also by a transaction key.
    async fn report(&mut self, service: &Service, name: &str) -> Vec<Result<(), Refusal>> {
        let signed = ReportRequest::Signed(self.till.device_report(name, Fault::KeyBlock));
        let mut results = vec![service.send_report(name, &signed).await];
        if !service.get(&self.till.id).await.initial_key_id.is_empty() {
            let outcome = firstkey::activation::payload::Outcome::Fault(Fault::Parameters);
            let report = self.till.terminal.report(Step::Parameters, outcome).expect("keys");
            self.till.terminal.abandon_exchange();
            results.push(service.send_report(name, &report).await);
        }
        results
    }

    /// Under a static key, for the terminal by its name; and under its own transaction key.
    async fn verify_macs(&mut self, service: &Service) -> Vec<Result<(), Refusal>> {
        let key = || {
            let name = "keys/dev-mac".to_owned();
            Some(proto::WorkingKey { key: Some(proto::working_key::Key::StaticKey(name)) })
        };
        let algorithm = proto::MacAlgorithm::AesCmac.into();
        let message = b"a message".to_vec();
        let generate = proto::GenerateMacRequest {
            key: key(),
            algorithm,
            message: message.clone(),
            mac_length_bytes: 16,
            ..proto::GenerateMacRequest::default()
        };
        let mac = crate::harness::answer(service.client.macs().generate_mac(generate).await).mac;
        let by_name = proto::VerifyMacRequest {
            key: key(),
            algorithm,
            message,
            mac,
            terminal: format!("terminals/{}", self.till.id),
            ..proto::VerifyMacRequest::default()
        };
        let mut results = Vec::new();
        // A terminal that has no parameters yet makes no purchase, and its KSN is refused as such.
        let by_ksn = if let Ok(payment) = self.till.try_purchase(service) {
            let message = as_message(&payment);
            let served = service.client.pins().verify_mac_and_translate_pin(message).await;
            results.push(served.map(drop).map_err(Refusal::from));
            firstkey::server::simulation::verify_request(&payment)
        } else {
            let request = self.parameters_request(service);
            let dukpt = proto::DukptKey { ksn: request.ksn, ..proto::DukptKey::default() };
            let key = proto::working_key::Key::Dukpt(dukpt);
            proto::VerifyMacRequest {
                key: Some(proto::WorkingKey { key: Some(key) }),
                direction: proto::Direction::Request.into(),
                algorithm,
                message: b"a message".to_vec(),
                mac: request.mac,
                ..proto::VerifyMacRequest::default()
            }
        };
        for request in [by_name, by_ksn] {
            let verified = service.client.macs().verify_mac(request).await;
            results.push(verified.map(drop).map_err(Refusal::from));
        }
        results
    }
}

/// A purchase as a switch has it served, MAC and PIN block at once.
fn as_message(payment: &firstkey::terminal::Payment) -> proto::VerifyMacAndTranslatePinRequest {
    let mac = firstkey::server::simulation::verify_request(payment);
    let pin_block = payment.pin_block.bytes().to_vec();
    let pin = firstkey::server::simulation::translate_request(payment, pin_block);
    crate::switch::both(mac, pin)
}

/// A test transaction as the terminal makes it.
pub(crate) fn test_request(service: &Service, terminal: &mut Terminal) -> TransactionRequest {
    let test = Test {
        card: CardData::new(CARD_PAN, "4912").expect("a card"),
        pin: &Pin::parse(CARD_PIN).expect("a PIN"),
        amount_minor: 100,
        currency: Currency::new("EUR").expect("a currency"),
    };
    terminal.test_transaction(test, &service.rng).expect("keys")
}

impl Depth {
    /// The state in which a terminal of this depth stands.
    fn state(self) -> State {
        match self {
            Self::Begun => State::CodeVerified,
            Self::Delivered => State::KeysDelivered,
            Self::Confirmed => State::Tested,
        }
    }
}

/// Shows the table to whoever runs the tests with `--nocapture`.
#[allow(clippy::print_stdout, reason = "a test's output is for whoever runs it")]
fn print_table() {
    for (index, call) in Call::ALL.iter().enumerate() {
        println!("{:>2} {call:?}", index + 1);
    }
    for ((state, way), cells) in EXPECTED {
        let way = if way == Way::Only { String::new() } else { format!(" ({way:?})") };
        let cells = cells.map(|cell| format!("{:>6}", cell.letters())).concat();
        println!("{:<20}{cells}", format!("{}{way}", state.as_str()));
    }
}
