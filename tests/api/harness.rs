//! A real service in this process, and terminals in software that talk to it.
//!
//! The clock alone is the test's: it stands still until it is told to go on.

#![allow(dead_code, reason = "each module of tests takes what it needs")]

#[path = "harness/tls.rs"]
mod tls;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use firstkey::activation::ActivationCode;
use firstkey::activation::payload::TestTransactionAnswer;
use firstkey::agreement::Suite;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::Trust;
use firstkey::grpc::client::{Client, ClientError, Driver, Refusal, Told, request_id};
use firstkey::grpc::proto;
use firstkey::key::usage::KeyDerivation;
use firstkey::key::{Algorithm, Key};
use firstkey::pin::{Pan, Pin};
use firstkey::server::dev::{self, Keys, Pki};
use firstkey::server::simulation::{self, simulated_device, simulated_device_with};
pub(crate) use firstkey::server::simulation::{
    registration as create_terminal_request, with_master_key,
};
use firstkey::server::{Limits, Listener, Operations, Settings, run_self_tests, serve};
use firstkey::terminal::{
    Certified, Credential, Device, Payment, Purchase, Terminal, TerminalError,
};
use firstkey::vault::store::{MemoryStore, SqliteStore, Store};
use firstkey::vault::{
    AuditSettings, Beginning, Caller, Clock, Gate, MasterKey, Opening, Policy, Realm, Seal,
    UnixMillis, Vault,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

pub(crate) use self::tls::{DAY, DECADES, TlsService, material};

/// When every test begins: in the spring of 2030.
pub(crate) const BEGIN_SECONDS: u64 = 1_900_000_000;
/// The cardholder: a test PAN and its PIN.
pub(crate) const CARD_PAN: &str = "4111111111111111";
/// The cardholder's PIN.
pub(crate) const CARD_PIN: &str = "1234";

/// A minute, in seconds.
pub(crate) const MINUTE: u64 = 60;
/// An hour, in seconds.
pub(crate) const HOUR: u64 = 60 * MINUTE;

/// A clock that goes on when it is told to.
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn begin() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(BEGIN_SECONDS * 1_000)))
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}

/// A folder of its own, gone with the test.
pub(crate) struct TempFolder(PathBuf);

impl TempFolder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("firstkey-test-{}", request_id()));
        std::fs::create_dir(&path).expect("a folder for the test");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The store of a service that has stopped, which lets go of it a moment after its end.
    pub(crate) async fn store_again(&self) -> Arc<dyn Store> {
        loop {
            match SqliteStore::open(&self.path().join("store")) {
                Ok(store) => return Arc::new(store),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The one caller of a development service.
pub(crate) fn everybody() -> Trust {
    Trust::ForDevOnly(Caller::for_dev_only("test"))
}

/// A service that serves on a port of its own.
pub(crate) struct Service {
    pub(crate) client: Client,
    pub(crate) vault: Arc<Vault>,
    pub(crate) url: String,
    pub(crate) pki: Pki,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) rng: SystemRng,
    looks: AtomicU64,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
    folder: Option<TempFolder>,
}

impl Service {
    /// Over a store in memory: for whatever is not about durability.
    pub(crate) async fn start() -> Self {
        Self::start_over(Arc::new(MemoryStore::new()), None).await
    }

    /// Over `SQLite` in a folder of its own.
    pub(crate) async fn start_durable() -> Self {
        let folder = TempFolder::new();
        let store = SqliteStore::open(&folder.path().join("store")).expect("a store");
        Self::start_over(Arc::new(store), Some(folder)).await
    }

    async fn start_over(store: Arc<dyn Store>, folder: Option<TempFolder>) -> Self {
        let clock = TestClock::begin();
        let pki = Pki::generate(BEGIN_SECONDS).expect("authorities");
        Self::start_with(store, folder, clock, pki, everybody()).await
    }

    /// An empty service of realm live with its first policy, over `SQLite` in a folder of its own. Here the caller of
    /// plain text is one who may ask for everything, and waits for approval like everybody.
    pub(crate) async fn start_live(policy: Policy) -> Self {
        let folder = TempFolder::new();
        let store = SqliteStore::open(&folder.path().join("store")).expect("a store");
        let pki = Pki::generate(BEGIN_SECONDS).expect("authorities");
        let store: Arc<dyn Store> = Arc::new(store);
        let opened = (store, Some(folder), TestClock::begin(), pki);
        Self::start_in((Realm::Live, Some(policy)), opened, everybody()).await
    }

    /// Over a given store, at a given time, with given authorities, telling callers apart
    /// in a given way.
    pub(crate) async fn start_with(
        store: Arc<dyn Store>,
        folder: Option<TempFolder>,
        clock: Arc<TestClock>,
        pki: Pki,
        trust: Trust,
    ) -> Self {
        Self::start_in((dev::REALM, None), (store, folder, clock, pki), trust).await
    }

    /// The same in a given realm, with a first policy where it is live; only a development service
    /// is prepared.
    pub(crate) async fn start_in(
        (realm, first_policy): (Realm, Option<Policy>),
        (store, folder, clock, pki): (Arc<dyn Store>, Option<TempFolder>, Arc<TestClock>, Pki),
        trust: Trust,
    ) -> Self {
        let keys = development_keys();
        // What was published is no master key of a live service.
        let master_key = if realm == dev::REALM {
            keys.seal().expect("the development master key")
        } else {
            MasterKey::taken_from(&mut [0x17; MasterKey::LEN_BYTES]).expect("a page")
        };
        let opening = Opening {
            store,
            master_key,
            realm,
            clock: clock.clone(),
            rng: Arc::new(SystemRng::new()),
            node: "test".to_owned(),
            audit: AuditSettings::default(),
        };
        // Outside development a store is begun with its policy, and never gets another first one.
        let seal = Seal::Shamir { set_id: [1; 4], threshold: 2, shares: 3 };
        let beginning = Beginning { policy: first_policy, seal };
        let vault = Vault::open_with(opening, beginning).await.expect("the vault opens");
        let vault = Arc::new(vault);
        if realm == dev::REALM {
            dev::prepare(&vault, &keys, &pki).await.expect("the service is prepared");
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let proof = run_self_tests().expect("the self-tests pass");
        let shutdown = CancellationToken::new();
        let drain = Duration::from_secs(5);
        let operations = Operations::default();
        let listeners =
            vec![Listener::plain_for_dev_only(listener).expect("a listener on loopback")];
        let limits = Limits::default();
        let settings =
            Settings { listeners, trust, reflection: true, drain, limits, operations, token: None };
        let signal = shutdown.clone().cancelled_owned();
        let gate = Gate::open(Arc::clone(&vault));
        let before = vault.log_size().await.expect("the log is read");
        let served = serve(gate, proof, settings, signal);
        let serving = tokio::spawn(async move { served.await.expect("it serves to its end") });
        let client = Client::connect(&url).await.expect("the service answers");
        has_begun(&vault, before).await;
        let rng = SystemRng::new();
        let looks = AtomicU64::new(0);
        Self { client, vault, url, pki, clock, rng, looks, shutdown, serving, folder }
    }

    /// Ends the service, as a signal does, and gives back the folder that it served from.
    pub(crate) async fn stop(self) -> (Option<TempFolder>, Pki, Arc<TestClock>) {
        let Self { client, vault, shutdown, serving, folder, pki, clock, .. } = self;
        drop((client, vault));
        shutdown.cancel();
        serving.await.expect("it served to its end");
        (folder, pki, clock)
    }

    /// The folder of a durable service.
    pub(crate) fn folder_path(&self) -> &Path {
        self.folder.as_ref().expect("a durable service").path()
    }

    /// The time, in seconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now().seconds()
    }

    /// The time of a device's clock, which goes on by a second at each look: whatever memory a
    /// device lost, its next Begin is later than its last.
    pub(crate) fn device_time(&self) -> u64 {
        self.now() + self.looks.fetch_add(1, Ordering::Relaxed)
    }

    /// A device as the vendor of the development authority makes it.
    pub(crate) fn device(&self, serial: &str) -> Device {
        simulated_device(&self.pki, serial, &self.rng, self.now()).expect("a device")
    }

    /// Registers a terminal under a development profile and makes its device.
    pub(crate) async fn register(&self, id: &str, suite: Suite) -> Till {
        self.register_under(id, suite, dev::profile_of(suite)).await
    }

    /// Registers a terminal under any profile of a suite.
    pub(crate) async fn register_under(&self, id: &str, suite: Suite, profile: &str) -> Till {
        let serial = serial_of(id);
        let request = create_terminal_request(id, &serial, profile);
        let family = Algorithm::ALL.into_iter().find(|one| suite.takes_master_key(*one));
        let (request, device) = match family {
            None => (request, self.device(&serial)),
            Some(algorithm) => {
                let name = format!("master-{id}");
                let key = self.master_key(&name, algorithm).await;
                let device = simulated_device_with(key, &serial).expect("a device");
                (with_master_key(request, &name), device)
            }
        };
        answer(self.client.terminals().create_terminal(request).await);
        Till { id: id.to_owned(), terminal: Terminal::new(device, suite) }
    }

    /// A master key of a terminal that the service holds too, under a name.
    pub(crate) async fn master_key(&self, name: &str, algorithm: Algorithm) -> Key<KeyDerivation> {
        let kek = development_keys().key_encryption_key().expect("the development KEK");
        let key = simulation::master_key(&self.client, &kek, (name, algorithm), &self.rng).await;
        key.expect("a master key")
    }

    /// Issues a code.
    pub(crate) async fn issue_code(&self, id: &str) -> ActivationCode {
        let request =
            proto::IssueActivationCodeRequest { request_id: request_id(), name: terminal_name(id) };
        let issued = answer(self.client.terminals().issue_activation_code(request).await);
        ActivationCode::parse(&issued.activation_code).expect("a code")
    }

    /// Reissues a code.
    pub(crate) async fn reissue_code(&self, id: &str) -> ActivationCode {
        let request = proto::ReissueActivationCodeRequest {
            request_id: request_id(),
            name: terminal_name(id),
        };
        let issued = answer(self.client.terminals().reissue_activation_code(request).await);
        ActivationCode::parse(&issued.activation_code).expect("a code")
    }

    /// Enables a terminal.
    pub(crate) async fn enable(&self, id: &str) -> Result<proto::Terminal, Refusal> {
        let name = terminal_name(id);
        let request = proto::EnableTerminalRequest { request_id: request_id(), name };
        let enabled = self.client.terminals().enable_terminal(request).await;
        let enabled = enabled.map_err(Refusal::from)?.into_inner();
        Ok(enabled.terminal.expect("a terminal"))
    }

    /// A terminal after the whole of its first activation: ACTIVE.
    pub(crate) async fn active_till(&self, id: &str, suite: Suite) -> Till {
        let mut till = self.register(id, suite).await;
        let code = self.issue_code(id).await;
        till.driver(self, |driver| Box::pin(driver.activate(Some(code), false)))
            .await
            .expect("the activation succeeds");
        self.enable(id).await.expect("the terminal is enabled");
        till
    }

    /// A terminal as the service knows it.
    pub(crate) async fn get(&self, id: &str) -> proto::Terminal {
        let request = proto::GetTerminalRequest { name: terminal_name(id) };
        let found = answer(self.client.terminals().get_terminal(request).await);
        found.terminal.expect("a terminal")
    }

    /// The state of a terminal, as the API writes it, less its prefix.
    pub(crate) async fn state(&self, id: &str) -> String {
        state_name(&self.get(id).await)
    }
}

/// Waits until the log tells that a service has begun over this vault.
pub(crate) async fn has_begun(vault: &Vault, before: u64) {
    let mut committed = vault.committed();
    let begun = committed.wait_for(|sequence| *sequence > before);
    tokio::time::timeout(Duration::from_mins(1), begun)
        .await
        .expect("the service begins")
        .expect("the vault is open");
}

/// A future of the driver's, with the driver's life.
type Driving<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T, ClientError>> + Send + 'a>>;

/// A terminal in software, and its id at the service.
pub(crate) struct Till {
    pub(crate) id: String,
    pub(crate) terminal: Terminal,
}

impl Till {
    /// Drives the terminal: `till.driver(&service, |driver| Box::pin(driver.confirm())).await`.
    pub(crate) async fn driver<T>(
        &mut self,
        service: &Service,
        drive: impl for<'a, 'b> FnOnce(&'a mut Driver<'b>) -> Driving<'a, T>,
    ) -> Result<T, ClientError> {
        let now = || service.device_time();
        let mut save = |_: &Terminal| Ok(());
        let mut tell = |_: Told| ();
        let mut driver = Driver {
            line: &mut service.client.clone(),
            terminal: &mut self.terminal,
            rng: &service.rng,
            now: &now,
            save: &mut save,
            tell: &mut tell,
        };
        drive(&mut driver).await
    }

    /// Step 3, with a code.
    pub(crate) async fn begin(
        &mut self,
        service: &Service,
        code: Option<ActivationCode>,
    ) -> Result<(), ClientError> {
        self.driver(service, |driver| Box::pin(driver.begin(code))).await
    }

    /// Step 4.
    pub(crate) async fn deliver(&mut self, service: &Service) -> Result<(), ClientError> {
        self.driver(service, |driver| Box::pin(driver.deliver())).await
    }

    /// Step 5.
    pub(crate) async fn confirm(&mut self, service: &Service) -> Result<(), ClientError> {
        self.driver(service, |driver| Box::pin(driver.confirm())).await
    }

    /// Steps 3 to 5.
    pub(crate) async fn take_keys(
        &mut self,
        service: &Service,
        code: Option<ActivationCode>,
    ) -> Result<(), ClientError> {
        self.driver(service, |driver| Box::pin(driver.take_keys(code))).await
    }

    /// Steps 3 and 4 of a re-key in one, under the update key.
    pub(crate) async fn update(&mut self, service: &Service) -> Result<(), ClientError> {
        self.driver(service, |driver| Box::pin(driver.update())).await
    }

    /// Step 6, with its report.
    pub(crate) async fn parameters(&mut self, service: &Service) -> Result<(), ClientError> {
        self.driver(service, |driver| Box::pin(driver.parameters())).await
    }

    /// Step 7, once.
    pub(crate) async fn test(
        &mut self,
        service: &Service,
    ) -> Result<TestTransactionAnswer, ClientError> {
        self.driver(service, |driver| Box::pin(driver.test())).await
    }

    /// Steps 3 to 7.
    pub(crate) async fn activate(
        &mut self,
        service: &Service,
        code: Option<ActivationCode>,
    ) -> Result<(), ClientError> {
        self.driver(service, |driver| Box::pin(driver.activate(code, false))).await
    }

    /// A purchase of 12.50 with the test card.
    pub(crate) fn purchase(&mut self, service: &Service) -> Payment {
        self.try_purchase(service).expect("a payment")
    }

    /// The same, where the terminal may not be able to make one.
    pub(crate) fn try_purchase(&mut self, service: &Service) -> Result<Payment, TerminalError> {
        let pan = Pan::parse(CARD_PAN).expect("a PAN");
        let pin = Pin::parse(CARD_PIN).expect("a PIN");
        let purchase = Purchase { amount_minor: 1_250, pan: &pan, pin: &pin };
        self.terminal.purchase(purchase, &service.rng, service.now())
    }

    /// The terminal as it stands, as its memory keeps it: to let two of it do different things.
    pub(crate) fn twin(&self) -> Self {
        let terminal = Terminal::restore(&self.terminal.save()).expect("its own memory");
        Self { id: self.id.clone(), terminal }
    }
}

/// The published development keys.
pub(crate) fn development_keys() -> Keys {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("keys-dev/keys.toml");
    let text = std::fs::read_to_string(path).expect("the development keys");
    Keys::parse(&text).expect("they parse")
}

/// The key of a device, its certificates, and whom it trusts.
pub(crate) fn certified(device: &mut Device) -> &mut Certified {
    match &mut device.credential {
        Credential::Certificate(certified) => certified,
        Credential::MasterKey(_) => panic!("the device has a master key"),
    }
}

/// The certificate of a device.
pub(crate) fn certificate_of(device: &Device) -> Vec<u8> {
    match &device.credential {
        Credential::Certificate(certified) => certified.chain.as_der()[0].clone(),
        Credential::MasterKey(_) => panic!("the device has a master key"),
    }
}

/// A signature of a device over whatever bytes.
pub(crate) fn signature_of(device: &Device, input: &[u8]) -> Vec<u8> {
    match &device.credential {
        Credential::Certificate(certified) => {
            certified.key.sign(input).expect("randomness").to_vec()
        }
        Credential::MasterKey(_) => panic!("the device has a master key"),
    }
}

/// The serial of the device that is registered under an id.
pub(crate) fn serial_of(id: &str) -> String {
    format!("SN-{}", id.to_uppercase())
}

/// `terminals/{id}`.
pub(crate) fn terminal_name(id: &str) -> String {
    format!("terminals/{id}")
}

/// A code as it is typed in once more: the type itself is not copied.
pub(crate) fn retyped(code: &ActivationCode) -> ActivationCode {
    ActivationCode::parse(&code.expose_text()).expect("a code")
}

/// A state as the API writes it, less its prefix.
pub(crate) fn state_name(terminal: &proto::Terminal) -> String {
    terminal.state().as_str_name().trim_start_matches("TERMINAL_STATE_").to_owned()
}

/// The answer of a call that must succeed.
#[track_caller]
pub(crate) fn answer<T>(result: Result<Response<T>, Status>) -> T {
    match result {
        Ok(response) => response.into_inner(),
        Err(status) => panic!("the call was refused: {}", Refusal::from(status)),
    }
}

/// The refusal of a call that must be refused.
#[track_caller]
pub(crate) fn refusal<T>(result: Result<Response<T>, Status>) -> Refusal {
    match result {
        Ok(_) => panic!("the call was not refused"),
        Err(status) => Refusal::from(status),
    }
}

/// The refusal of a driven call that the service must refuse.
#[track_caller]
pub(crate) fn refused<T>(result: Result<T, ClientError>) -> Refusal {
    match result {
        Ok(_) => panic!("the call was not refused"),
        Err(ClientError::Refused(refusal)) => refusal,
        Err(other) => panic!("the call failed otherwise: {other}"),
    }
}

/// What a refusal tells under a name; empty where it does not.
pub(crate) fn told<'a>(refusal: &'a Refusal, name: &str) -> &'a str {
    refusal.metadata.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}
