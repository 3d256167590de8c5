//! One service, its terminals, and what is counted of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXUPPER;
use firstkey::agreement::Suite;
use firstkey::crypto::certificate::authority::Authority;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::{Client, ClientError, request_id};
use firstkey::grpc::proto::{self, TerminalState};
use firstkey::server::dev::{self, DEVICE_AUTHORITY, DEVICE_MODEL, Keys, Pki};
use firstkey::server::simulation::{translate_request, verify_request};
use firstkey::terminal::Payment;
use firstkey::vault::store::SqliteStore;
use firstkey::vault::{AuditSettings, Clock, Event, Opening, UnixMillis, Vault};

use crate::device::Device;
use crate::service::{Service, project};

/// What was done to a lane.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Kills after a reply came.
    pub(crate) after_reply: usize,
    /// Of these, how often the device lost the reply.
    pub(crate) replies_lost: usize,
    /// Kills that tore a request in flight.
    pub(crate) in_flight: usize,
    /// Kills at random moments at which everything had been answered.
    pub(crate) idle: usize,
    /// Answered counters that were refused to another input after a restart.
    pub(crate) replays_refused: usize,
    /// Terminals that were activated, each with its first code.
    pub(crate) terminals: usize,
    /// Audit events in the chain at the end.
    pub(crate) events: u64,
}

impl Tally {
    /// How often the service was killed.
    pub(crate) const fn kills(&self) -> usize {
        self.after_reply + self.in_flight + self.idle
    }

    /// The sum of two.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            after_reply: self.after_reply + other.after_reply,
            replies_lost: self.replies_lost + other.replies_lost,
            in_flight: self.in_flight + other.in_flight,
            idle: self.idle + other.idle,
            replays_refused: self.replays_refused + other.replays_refused,
            terminals: self.terminals + other.terminals,
            events: self.events + other.events,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills: {} after a reply ({} of these lost), {} in flight, {} idle; \
             {} terminals activated, {} replays refused, {} audit events verified",
            self.kills(),
            self.after_reply,
            self.replies_lost,
            self.in_flight,
            self.idle,
            self.terminals,
            self.replays_refused,
            self.events
        )
    }
}

/// A lane.
pub(crate) struct Lane {
    name: &'static str,
    address: &'static str,
    profile: &'static str,
    suite: Suite,
    data: PathBuf,
    pki: Pki,
    service: Service,
    random: Random,
    tally: Tally,
    registered: usize,
    /// Every terminal by the initial key id, in hexadecimals, that was issued for it.
    initial_key_ids: BTreeMap<String, String>,
    /// The KSNs, in hexadecimals, whose PIN block and MAC were answered.
    answered: BTreeSet<String>,
}

impl Lane {
    /// Starts a service over an empty store. Each lane has an address of its own, so that a port
    /// that one service lost is not met by the client of the other.
    pub(crate) fn begin(
        name: &'static str,
        address: &'static str,
        profile: &'static str,
        suite: Suite,
        seed: u64,
    ) -> Self {
        let data =
            std::env::temp_dir().join(format!("firstkey-kills-{name}-{}", std::process::id()));
        let service = Service::start(&data, address);
        let pki = read_pki(&data.join("dev-pki"));
        Self {
            name,
            address,
            profile,
            suite,
            data,
            pki,
            service,
            random: Random(seed),
            tally: Tally::default(),
            registered: 0,
            initial_key_ids: BTreeMap::new(),
            answered: BTreeSet::new(),
        }
    }

    /// Takes a terminal from registration to its first purchase and kills the service after each
    /// reply. With `lose_replies` each comes once in vain and has to be asked for again.
    pub(crate) async fn kill_after_each_reply(&mut self, lose_replies: bool) {
        let mut device = self.registered(true).await;
        let mut steps_lost = BTreeSet::new();
        while let Some(step) = device.next() {
            let lose = lose_replies && steps_lost.insert(format!("{step:?}"));
            let client = self.service.connect().await;
            device.step(&client, step, lose).await.unwrap_or_else(|error| {
                panic!("{} {step:?} of {}: {error}", self.name, device.id);
            });
            self.killed_after_reply(lose);
            self.check(&device, step.state()).await;
        }
        self.enable(&device, true).await;
        let [payment, other] = device.purchase_and_clone();
        for call in [Call::VerifyMac, Call::TranslatePin] {
            let client = self.service.connect().await;
            self.ask(&client, call, &payment).await.expect("a purchase is served");
            self.killed_after_reply(false);
            let client = self.service.connect().await;
            self.refuses_replay(&client, call, &other).await;
            self.ask(&client, call, &payment).await.expect("the same call is computed again");
        }
        self.note_answered(&payment);
    }

    /// Activates terminals and kills the service so many times, a random time after a request set
    /// out.
    pub(crate) async fn kill_at_random_while_activating(&mut self, kills: usize) {
        let until = self.tally.kills() + kills;
        while self.tally.kills() < until {
            let mut device = self.registered(false).await;
            let mut window = WINDOW;
            while device.next().is_some() {
                let client = self.service.connect().await;
                let before = device.acknowledged;
                let killer = self.service.kill_after(self.random.up_to(window));
                let outcome = device.activate(&client).await;
                killer.join().expect("the killer does not fail");
                self.count_random(&outcome);
                self.restart();
                if self.random.one_in(2) {
                    device.power_cycle();
                }
                self.check(&device, device.acknowledged).await;
                // On a slow machine the kills come later, so that a device always gets on.
                window = if device.acknowledged == before { window * 2 } else { WINDOW };
            }
            self.enable(&device, false).await;
        }
    }

    /// Kills the service so many times while it serves one terminal's purchases.
    pub(crate) async fn kill_at_random_in_traffic(&mut self, kills: usize) {
        let mut device = self.registered(false).await;
        let client = self.service.connect().await;
        device.activate(&client).await.expect("nothing kills it");
        self.enable(&device, false).await;
        for _ in 0..kills {
            let payments = device.purchase_and_clone();
            let client = self.service.connect().await;
            let killer = self.service.kill_after(self.random.up_to(WINDOW));
            let calls = [Call::VerifyMac, Call::TranslatePin];
            let mut outcomes = Vec::new();
            for call in calls {
                outcomes.push(self.ask(&client, call, &payments[0]).await);
            }
            killer.join().expect("the killer does not fail");
            let torn = outcomes.iter().find(|outcome| outcome.is_err());
            self.count_random(torn.unwrap_or(&Ok(())));
            self.restart();
            let client = self.service.connect().await;
            for (call, outcome) in calls.into_iter().zip(outcomes) {
                self.accepts_one(&client, call, &payments, outcome.is_ok()).await;
            }
            self.note_answered(&payments[0]);
        }
    }

    /// Opens the store without a service: the chain holds, and knows all that was acknowledged.
    pub(crate) async fn audit(mut self) -> Tally {
        self.service.kill();
        let vault = self.open_vault().await;
        let report = vault.verify_chain().await.expect("the chain of events verifies");
        let mut events: Vec<Event> = Vec::new();
        while let Some(more) =
            Some(vault.events_after(last(&events), 1000).await.expect("it reads"))
                .filter(|more| !more.is_empty())
        {
            events.extend(more);
        }
        assert_eq!((report.first, report.last), (1, last(&events)));
        for ksn in &self.answered {
            self.audited_once(&events, ksn);
        }
        for id in self.initial_key_ids.values() {
            let name = format!("terminals/{id}");
            let done = |action| {
                events.iter().any(|event| {
                    event.is_done() && event.action == action && event.resource == name
                })
            };
            for action in [
                "CreateTerminal",
                "BeginActivation",
                "DeliverKeys",
                "ConfirmKeys",
                "EnableTerminal",
            ] {
                assert!(done(action), "{action} of {name} is in the chain");
            }
        }
        vault.close().await;
        fs::remove_dir_all(&self.data).expect("the lane's folder is removed");
        assert_eq!(self.tally.terminals, self.registered);
        assert_eq!(self.initial_key_ids.len(), self.registered);
        self.tally.events = report.last;
        self.tally
    }

    /// A counter that was answered stands in the chain, and with one input only.
    fn audited_once(&self, events: &[Event], ksn: &str) {
        let done = |action: &str| -> Vec<&Event> {
            let of_ksn = |event: &&Event| {
                event.action == action
                    && event.is_done()
                    && event.detail.get("ksn").is_some_and(|shown| shown == ksn)
            };
            events.iter().filter(of_ksn).collect()
        };
        assert!(!done("VerifyMac").is_empty(), "{}: MAC of {ksn} is in the chain", self.name);
        let translated = done("TranslatePin");
        let inputs: BTreeSet<_> = translated.iter().map(|event| event.request.clone()).collect();
        assert_eq!(inputs.len(), 1, "{}: PIN of {ksn} was translated for one input", self.name);
    }

    async fn open_vault(&self) -> Vault {
        let keys = fs::read_to_string(project().join("keys-dev/keys.toml")).expect("keys-dev");
        let opening = Opening {
            store: Arc::new(SqliteStore::open(&self.data.join("store")).expect("it opens")),
            master_key: Keys::parse(&keys).and_then(|keys| keys.seal()).expect("keys-dev"),
            realm: dev::REALM,
            clock: Arc::new(SystemClock),
            rng: Arc::new(SystemRng::new()),
            node: "dev".to_owned(),
            audit: AuditSettings::default(),
        };
        Vault::open(opening).await.expect("a killed service leaves a store that opens")
    }

    /// A registered terminal with its code; killed after each of both replies where asked for.
    async fn registered(&mut self, kill: bool) -> Device {
        let id = format!("{}-{:03}", self.name, self.registered);
        self.registered += 1;
        let mut device = Device::new(&self.pki, &id, self.suite);
        let create = proto::CreateTerminalRequest {
            request_id: request_id(),
            terminal_id: id.clone(),
            serial: format!("SN-{id}"),
            model: DEVICE_MODEL.to_owned(),
            merchant: Some(proto::Merchant {
                merchant_id: "000000000000001".to_owned(),
                terminal_id: "00000001".to_owned(),
                display_name: "Corner Shop".to_owned(),
            }),
            merchant_standing: proto::MerchantStanding::Approved.into(),
            profile: format!("profiles/{}", self.profile),
            kind: proto::TerminalKind::DeviceCertificate.into(),
            device_authority: format!("deviceAuthorities/{DEVICE_AUTHORITY}"),
            master_key: String::new(),
        };
        let client = self.service.connect().await;
        let made =
            client.terminals().create_terminal(create.clone()).await.expect("a new terminal");
        if kill {
            self.killed_after_reply(true);
            // The backend did not see the reply, asks again, and is told the same.
            let client = self.service.connect().await;
            let again = client.terminals().create_terminal(create).await.expect("the same again");
            assert!(made.into_inner() == again.into_inner());
        }
        let issue =
            proto::IssueActivationCodeRequest { request_id: request_id(), name: device.name() };
        let client = self.service.connect().await;
        let issued = client.terminals().issue_activation_code(issue).await.expect("a code");
        device.code = issued.into_inner().activation_code;
        if kill {
            self.killed_after_reply(false);
        }
        device
    }

    /// Opens PIN and MAC calls, where asked for with a kill after the reply and the same call again.
    async fn enable(&mut self, device: &Device, kill: bool) {
        let request_id = request_id();
        for last in [!kill, true] {
            let request = proto::EnableTerminalRequest {
                request_id: request_id.clone(),
                name: device.name(),
            };
            let client = self.service.connect().await;
            let enabled = client.terminals().enable_terminal(request).await;
            let enabled = enabled.unwrap_or_else(|error| panic!("{}: {error}", device.id));
            let enabled = enabled.into_inner().terminal.expect("a terminal");
            assert!(enabled.state() == TerminalState::Active, "{}", device.id);
            if last {
                break;
            }
            self.killed_after_reply(true);
        }
        self.check(device, TerminalState::Active).await;
        self.tally.terminals += 1;
    }

    /// Nothing acknowledged is lost: the terminal is there, stands where it was told or, for
    /// requests in flight, further, and has the one key id and the one activation of its code.
    async fn check(&mut self, device: &Device, acknowledged: TerminalState) {
        let client = self.service.connect().await;
        let request = proto::GetTerminalRequest { name: device.name() };
        let found = client.terminals().get_terminal(request).await.expect("it is there");
        let found = found.into_inner().terminal.expect("a terminal");
        // The order of the proto's values is the order of the steps.
        assert!(found.state >= i32::from(acknowledged), "{}: {}", device.id, found.state);
        assert!(found.state <= i32::from(TerminalState::Active), "{}", device.id);
        if found.state() == TerminalState::CodeIssued {
            return;
        }
        assert_eq!(found.activation, format!("{}/activations/1", device.name()));
        let issued = issued_ids(&found);
        assert_eq!(issued.len(), 1, "{}: one id, however often it began: {issued:?}", device.id);
        for id in &issued {
            let owner = self.initial_key_ids.entry(id.clone()).or_insert(device.id.clone());
            assert_eq!(*owner, device.id, "the key id {id} was issued twice");
        }
        let received = device.initial_key_id.as_ref().map(|id| HEXUPPER.encode(id));
        assert!(received.is_none_or(|id| issued.contains(&id)), "{}", device.id);
        let confirmed = found.state >= i32::from(TerminalState::KeysConfirmed);
        assert_eq!(confirmed, !found.initial_key_id.is_empty(), "{}", device.id);
        assert!(!confirmed || issued.contains(&HEXUPPER.encode(&found.initial_key_id)));
    }

    /// Of two messages under one counter exactly one is ever accepted; one that was answered stays.
    async fn accepts_one(
        &mut self,
        client: &Client,
        call: Call,
        payments: &[Payment; 2],
        answered: bool,
    ) {
        let [payment, other] = payments;
        if answered {
            self.refuses_replay(client, call, other).await;
        }
        if answered || self.random.one_in(2) {
            self.ask(client, call, payment).await.expect("what was sent is served after all");
            self.refuses_replay(client, call, other).await;
            return;
        }
        match self.ask(client, call, other).await {
            // The torn request never became durable, so the other one is the first.
            Ok(()) => self.refuses_replay(client, call, payment).await,
            Err(error) => {
                assert_eq!(error.reason(), Some("KSN_REPLAYED"), "{error}");
                self.tally.replays_refused += 1;
                self.ask(client, call, payment).await.expect("the durable one is served again");
            }
        }
    }

    async fn refuses_replay(&mut self, client: &Client, call: Call, other: &Payment) {
        let refused = self.ask(client, call, other).await;
        let reason = refused.as_ref().map_err(ClientError::reason);
        assert_eq!(reason, Err(Some("KSN_REPLAYED")), "{}: {call:?} of {}", self.name, other.ksn);
        self.tally.replays_refused += 1;
    }

    async fn ask(&self, client: &Client, call: Call, payment: &Payment) -> Result<(), ClientError> {
        match call {
            Call::TranslatePin => {
                let request = translate_request(payment, payment.pin_block.bytes().to_vec());
                client.pins().translate_pin(request).await?;
            }
            Call::VerifyMac => {
                client.macs().verify_mac(verify_request(payment)).await?;
            }
        }
        Ok(())
    }

    fn note_answered(&mut self, payment: &Payment) {
        self.answered.insert(HEXUPPER.encode(payment.ksn.bytes()));
    }

    fn killed_after_reply(&mut self, lost: bool) {
        self.service.kill();
        self.tally.after_reply += 1;
        self.tally.replies_lost += usize::from(lost);
        self.restart();
    }

    fn restart(&mut self) {
        self.service = Service::start(&self.data, self.address);
    }

    /// A request that fails beside a kill fails for want of a service, never with a refusal.
    fn count_random(&mut self, outcome: &Result<(), ClientError>) {
        match outcome {
            Ok(()) => self.tally.idle += 1,
            Err(ClientError::Refused(refusal)) if refusal.reason.is_empty() => {
                self.tally.in_flight += 1;
            }
            Err(error) => panic!("{}: not for the kill: {error}", self.name),
        }
    }
}

/// What a backend asks for a purchase.
#[derive(Clone, Copy, Debug)]
enum Call {
    TranslatePin,
    VerifyMac,
}

/// Within what time of a request's setting out a random kill comes.
const WINDOW: Duration = Duration::from_millis(30);

/// A small generator with a seed (xorshift64), so that the moments drawn are the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        let most_us = u64::try_from(most.as_micros()).expect("a moment").max(1);
        Duration::from_micros(self.next() % most_us)
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.next().is_multiple_of(of)
    }
}

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(now() * 1000)
    }
}

/// The time, in seconds since 1970.
#[allow(clippy::disallowed_methods, reason = "a device has a clock of its own")]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs()
}

/// The initial key ids that the timeline of a terminal tells of.
fn issued_ids(terminal: &proto::Terminal) -> BTreeSet<String> {
    let begun = terminal.timeline.iter().filter(|entry| entry.step == "BeginActivation");
    begun
        .map(|entry| {
            let (_, told) = entry.note.split_once("initial key id ").expect("it tells the id");
            told.split(';').next().expect("a text has a first part").to_owned()
        })
        .collect()
}

fn last(events: &[Event]) -> u64 {
    events.last().map_or(0, |event| event.seq)
}

fn read_pki(folder: &std::path::Path) -> Pki {
    let authority = |name: &str| {
        let read = |ending| fs::read(folder.join(format!("{name}.{ending}"))).expect("a PKI file");
        Authority::from_parts(&read("crt"), &read("key")).expect("an authority")
    };
    Pki { acquirer: authority("acquirer"), vendor: authority("vendor") }
}
