//! The service as a process: its health, its end, its settings, its logs, its descriptors.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use firstkey::activation::ActivationCode;
use firstkey::agreement::Suite;
use firstkey::crypto::certificate::authority::Authority;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::{Client, Driver, request_id};
use firstkey::grpc::proto::{
    CreateKeyRequest, CreateKeyResponse, EnableTerminalRequest, GetKeyRequest,
    IssueActivationCodeRequest, KeyAlgorithm, KeyUsage, WatchTerminalsRequest,
};
use firstkey::grpc::{DESCRIPTORS, SERVICE_NAMES};
use firstkey::pin::{Pan, Pin};
use firstkey::server::dev::{self, Pki};
use firstkey::server::simulation::{simulated_device, translate_request, verify_request};
use firstkey::server::{Limits, Listener, Operations, Settings, run_self_tests, serve};
use firstkey::terminal::{Purchase, Terminal};
use firstkey::vault::store::SqliteStore;
use firstkey::vault::{AuditSettings, Gate, Opening, Vault};
use prost::Message as _;
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};

use crate::firstkeyd::Firstkeyd;
use crate::harness::{
    Service, TempFolder, TestClock, answer, create_terminal_request, development_keys, everybody,
};
use crate::known::{dev, expect_reason, import_request, random, status_of, wrap_d};

async fn channel(url: &str) -> Channel {
    Endpoint::from_shared(url.to_owned()).unwrap().connect().await.unwrap()
}

fn of_service(name: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: name.to_owned() }
}

#[tokio::test]
async fn health_is_told_of_the_whole_and_of_each_service_and_watchers_hear_the_end() {
    let service = Service::start().await;
    let mut health = HealthClient::new(channel(&service.url).await);
    for name in SERVICE_NAMES.iter().chain(&[""]) {
        let told = health.check(of_service(name)).await.unwrap().into_inner();
        assert_eq!(told.status(), ServingStatus::Serving, "{name}");
    }
    let unknown = status_of(health.check(of_service("firstkey.v1.DataService")).await);
    assert_eq!(unknown.code(), Code::NotFound);
    let mut watched = health.watch(of_service("")).await.unwrap().into_inner();
    let first = watched.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    // A stream that somebody watches does not hold up the end.
    let ended = tokio::spawn(service.stop());
    let last = watched.message().await.unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    assert!(watched.message().await.unwrap().is_none());
    ended.await.expect("it ends before the drain time is over");
}

async fn listed_services(url: &str) -> Result<BTreeSet<String>, tonic::Status> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel(url).await);
    let answers = reflection.server_reflection_info(tokio_stream::iter([request])).await?;
    let answer = answers.into_inner().message().await?.unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("reflection answered another question");
    };
    Ok(list.service.into_iter().map(|service| service.name).collect())
}

#[tokio::test]
async fn reflection_is_answered_only_when_it_is_asked_for() {
    let service = Service::start().await;
    let listed = listed_services(&service.url).await.expect("a development service");
    for name in SERVICE_NAMES {
        assert!(listed.contains(name), "{name}");
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let listener = Listener::plain_for_dev_only(listener).unwrap();
    let settings = Settings {
        listeners: vec![listener],
        trust: everybody(),
        reflection: false,
        drain: Duration::from_secs(5),
        limits: Limits::default(),
        operations: Operations::default(),
        token: None,
    };
    let stop = CancellationToken::new();
    let gate = Gate::open(Arc::clone(&service.vault));
    let signal = stop.clone().cancelled_owned();
    let serving = tokio::spawn(serve(gate, run_self_tests().unwrap(), settings, signal));
    let refused = status_of(listed_services(&url).await);
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    let client = Client::connect(&url).await.unwrap();
    let request = GetKeyRequest { name: "keys/dev-mac".into() };
    answer(client.keys().get_key(request).await);
    drop(client);
    stop.cancel();
    serving.await.unwrap().expect("it ends in order");
}

fn firstkeyd(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firstkeyd"));
    command
        .args(["serve", "--data"])
        .arg(folder.join("data"))
        .args(["--dev-keys", concat!(env!("CARGO_MANIFEST_DIR"), "/keys-dev")])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Starts it for development and waits until it serves; with where it does.
fn start(folder: &Path, arguments: &[&str]) -> (Firstkeyd, String) {
    let mut command = firstkeyd(folder);
    let dev = command.args(["--dev", "--listen", "127.0.0.1:0"]).args(arguments);
    let (process, address) = Firstkeyd::serving(dev);
    (process, format!("http://{address}"))
}

/// Waits until it has ended after SIGTERM, while this side of its connections goes on.
async fn ended(mut process: Firstkeyd) -> (ExitStatus, String) {
    tokio::task::spawn_blocking(move || process.ended()).await.unwrap()
}

/// Opens in this process the vault that the program left behind.
async fn vault_of(folder: &Path) -> Vault {
    let opening = Opening {
        store: Arc::new(SqliteStore::open(&folder.join("data/store")).unwrap()),
        master_key: development_keys().seal().unwrap(),
        realm: dev::REALM,
        clock: TestClock::begin(),
        rng: Arc::new(SystemRng::new()),
        node: "dev".to_owned(),
        audit: AuditSettings::default(),
    };
    Vault::open(opening).await.unwrap()
}

#[tokio::test]
async fn a_signal_lets_what_is_in_flight_end_and_nothing_more_begin() {
    let folder = TempFolder::new();
    let (process, url) = start(folder.path(), &[]);
    let client = Client::connect(&url).await.unwrap();
    let watched = client.terminals().watch_terminals(WatchTerminalsRequest::default()).await;
    let mut watched = watched.unwrap().into_inner();

    // A call whose message is still on its way when the signal comes.
    let (message, messages) = mpsc::channel::<CreateKeyRequest>(1);
    let on_its_way = channel(&url).await;
    let mut probe = HealthClient::new(on_its_way.clone());
    let in_flight = tokio::spawn(async move {
        let mut grpc = tonic::client::Grpc::new(on_its_way);
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<CreateKeyRequest, CreateKeyResponse>::default();
        let path = "/firstkey.v1.KeyService/CreateKey".parse().unwrap();
        let request = tonic::Request::new(ReceiverStream::new(messages));
        grpc.client_streaming(request, path, codec).await
    });
    // On the same connection, so that what was sent before it has arrived when it is answered.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        probe.check(of_service("")).await.unwrap();
    }
    process.signal(Signal::TERM);
    assert!(watched.message().await.unwrap().is_none(), "streams end with the service");
    let request = CreateKeyRequest {
        request_id: request_id(),
        key_id: "in-flight".to_owned(),
        usage: KeyUsage::MacCmac.into(),
        algorithm: KeyAlgorithm::Aes128.into(),
        ..CreateKeyRequest::default()
    };
    message.send(request).await.unwrap();
    drop(message);
    let made = answer(in_flight.await.unwrap()).key.unwrap();
    drop((client, probe));
    let (status, log) = ended(process).await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("every acknowledged call is durable"));
    let vault = vault_of(folder.path()).await;
    let kept = vault.key_record("in-flight").await.expect("what was answered is durable").record;
    assert_eq!(HEXUPPER.encode(&made.check_value), kept.check_value);
    vault.verify_chain().await.expect("the chain verifies");
}

#[test]
fn it_does_not_start_when_it_is_not_safe_or_not_understood() {
    let folder = TempFolder::new();
    let file = |name: &str, text: &str| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let unknown = file("unknown.toml", "dev = true\nlisten = \"127.0.0.1:0\"\nlissten = \"x\"\n");
    let broken = file("broken.toml", "dev = maybe\n");
    let live = file("live.toml", "dev = false\nlisten = \"127.0.0.1:0\"\n");
    let dev = ["--dev", "--listen", "127.0.0.1:0"];
    let refused = |arguments: &[&str], variable: Option<(&str, &str)>, told: &str| {
        let mut command = firstkeyd(folder.path());
        command.args(arguments).envs(variable);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{arguments:?}: {text}");
        assert!(text.contains(told), "{arguments:?}: {text}");
    };
    refused(&["--listen", "127.0.0.1:0"], None, "no means to authenticate");
    refused(
        &["--listen", "127.0.0.1:0"],
        Some(("FIRSTKEY_DEV", "false")),
        "no means to authenticate",
    );
    refused(&["--dev", "--listen", "0.0.0.0:0"], None, "loopback only");
    refused(&["--dev", "--listen", "[::]:0"], None, "loopback only");
    refused(&["--dev"], Some(("FIRSTKEY_LISTEN", "192.0.2.1:7443")), "loopback only");
    refused(&dev, Some(("FIRSTKEY_LISTEM", "127.0.0.1:0")), "FIRSTKEY_LISTEM");
    refused(&["--dev", "--listne", "127.0.0.1:0"], None, "--listne");
    refused(&["--config", unknown.to_str().unwrap()], None, "lissten");
    refused(&["--config", broken.to_str().unwrap()], None, "broken.toml");
    refused(&["--config", live.to_str().unwrap()], None, "no means to authenticate");
    refused(&["--config", "/nowhere.toml"], None, "/nowhere.toml");
    refused(&["--dev", "--drain-seconds", "601"], None, "600");
    refused(&["--dev", "--log", "[[[", "--listen", "127.0.0.1:0"], None, "[[[");
    assert!(!folder.path().join("data").exists(), "nothing was made");
}

#[tokio::test]
async fn two_services_do_not_share_a_store() {
    let folder = TempFolder::new();
    let _first = start(folder.path(), &[]);
    let mut second = firstkeyd(folder.path());
    second.args(["--dev", "--listen", "127.0.0.1:0"]);
    let output = tokio::task::spawn_blocking(move || second.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("can not open the store"), "{text}");
}

/// A PIN of twelve digits: shorter ones stand in any log by chance.
const PIN: &str = "739515284073";
const PAN: &str = "4929123456781234567";

/// What must stand nowhere, in every form in which it might.
struct Secrets(Vec<(&'static str, Vec<u8>)>);

impl Secrets {
    fn text(&mut self, what: &'static str, text: &str) {
        self.0.push((what, text.as_bytes().to_vec()));
        self.bytes(what, text.as_bytes());
    }

    fn bytes(&mut self, what: &'static str, bytes: &[u8]) {
        let listed = format!("{bytes:?}");
        for form in [
            bytes.to_vec(),
            HEXUPPER.encode(bytes).into_bytes(),
            HEXLOWER.encode(bytes).into_bytes(),
            BASE64.encode(bytes).into_bytes(),
            listed.trim_matches(['[', ']']).as_bytes().to_vec(),
        ] {
            self.0.push((what, form));
        }
    }

    fn found_in(&self, haystack: &[u8]) -> Vec<&'static str> {
        let is_in = |needle: &[u8]| haystack.windows(needle.len()).any(|part| part == needle);
        self.0.iter().filter(|(_, form)| is_in(form)).map(|(what, _)| *what).collect()
    }
}

/// Takes a terminal through its activation and a purchase, with refusals of every kind between.
async fn use_the_service(client: &Client, pki: &Pki, secrets: &mut Secrets) {
    let (rng, now) = (SystemRng::new(), firstkey_now());
    let device = simulated_device(pki, "SN-LOGGED", &rng, now).unwrap();
    let mut terminal = Terminal::new(device, Suite::P256Aes128);
    let request = create_terminal_request("logged", "SN-LOGGED", dev::PROFILE_AES);
    answer(client.terminals().create_terminal(request).await);
    let name = "terminals/logged".to_owned();
    let request = IssueActivationCodeRequest { request_id: request_id(), name: name.clone() };
    let code = answer(client.terminals().issue_activation_code(request).await).activation_code;
    secrets.text("activation code", &code);
    secrets.text("activation code", &code.replace(['-', ' '], ""));
    let mut driver = Driver {
        line: &mut client.clone(),
        terminal: &mut terminal,
        rng: &rng,
        now: &firstkey_now,
        save: &mut |_| Ok(()),
        tell: &mut |_| (),
    };
    driver.activate(Some(ActivationCode::parse(&code).unwrap()), false).await.unwrap();
    let request = EnableTerminalRequest { request_id: request_id(), name };
    answer(client.terminals().enable_terminal(request).await);

    let (pan, pin) = (Pan::parse(PAN).unwrap(), Pin::parse(PIN).unwrap());
    let purchase = Purchase { amount_minor: 1, pan: &pan, pin: &pin };
    let payment = terminal.purchase(purchase, &rng, now).unwrap();
    let block = payment.pin_block.bytes().to_vec();
    secrets.bytes("PIN block", &block);
    answer(client.macs().verify_mac(verify_request(&payment)).await);
    let mut request = translate_request(&payment, block);
    PAN.clone_into(&mut request.pan);
    let out = answer(client.pins().translate_pin(request.clone()).await).pin_block;
    secrets.bytes("PIN block", &out);
    let wrong = random(16);
    secrets.bytes("PIN block", &wrong);
    request.pin_block = wrong;
    let refused = status_of(client.pins().translate_pin(request.clone()).await);
    expect_reason(&refused, "KSN_REPLAYED");
    request.pan.push('7');
    expect_reason(&status_of(client.pins().translate_pin(request).await), "FIELD_INVALID");

    let key = random(16);
    secrets.bytes("key", &key);
    let key_block = wrap_d(&dev().kek, "P0AB00E0000", &key);
    secrets.text("key block", &key_block[16..]);
    let request = import_request("logged", &key_block, "keys/dev-kek");
    answer(client.keys().import_key(request).await);
    let key_block = wrap_d(&random(32), "P0AB00E0000", &key);
    secrets.text("key block", &key_block[16..]);
    let request = import_request("refused", &key_block, "keys/dev-kek");
    expect_reason(&status_of(client.keys().import_key(request).await), "KEY_BLOCK_REJECTED");
}

/// The time, which the program reads for itself: its certificates are of now.
fn firstkey_now() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "a terminal beside a real service has its time")]
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs()
}

#[tokio::test]
async fn what_the_service_was_told_in_confidence_stands_in_no_log_and_no_file() {
    let folder = TempFolder::new();
    let (process, url) = start(folder.path(), &["--log", "trace"]);
    let pki = folder.path().join("data/dev-pki");
    let read = |name: &str| std::fs::read(pki.join(name)).unwrap();
    let authority = |name: &str| {
        let (certificate, key) = (read(&format!("{name}.crt")), read(&format!("{name}.key")));
        Authority::from_parts(&certificate, &key).unwrap()
    };
    let pki = Pki { acquirer: authority("acquirer"), vendor: authority("vendor") };
    let mut secrets = Secrets(Vec::new());
    secrets.text("PAN", PAN);
    secrets.text("PIN", PIN);
    secrets.bytes("master key", &dev().master);
    secrets.bytes("key encryption key", &dev().kek);
    let client = Client::connect(&url).await.unwrap();
    use_the_service(&client, &pki, &mut secrets).await;
    drop(client);
    process.signal(Signal::TERM);
    let (status, log) = ended(process).await;
    assert_eq!(status.code(), Some(0), "{log}");

    for line in log.lines() {
        let parsed: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        for member in ["timestamp", "level", "target"] {
            assert!(parsed[member].is_string(), "{member}: {line}");
        }
        assert_eq!(secrets.found_in(line.as_bytes()), [""; 0], "{line}");
    }
    let told = |what: &str| log.contains(what);
    assert!(told("KSN_REPLAYED") && told("KEY_BLOCK_REJECTED") && told("FIELD_INVALID"));
    let mut files = 0;
    for file in std::fs::read_dir(folder.path().join("data/store")).unwrap() {
        let file = file.unwrap().path();
        files += 1;
        let content = std::fs::read(&file).unwrap();
        assert_eq!(secrets.found_in(&content), [""; 0], "{}", file.display());
    }
    assert!(files > 0);
    // The search finds what is there.
    assert_eq!(secrets.found_in(format!("a log with {PAN} in it").as_bytes()), ["PAN", "PAN"]);

    let vault = vault_of(folder.path()).await;
    let report = vault.verify_chain().await.expect("the chain verifies");
    let events = vault.events_after(0, 1_000).await.unwrap();
    assert_eq!(report.last, events.last().unwrap().seq);
    assert!(events.iter().any(|event| event.action == "TranslatePin" && event.is_done()));
    for event in events {
        assert_eq!(secrets.found_in(&event.encode()), [""; 0], "event {}", event.seq);
    }
}

/// Every field of text or bytes that the service ever answers with, and what it is. A field that
/// is not here makes the test fail: whoever adds one says what it may hold.
const ANSWERED: &[(&str, &str)] = &[
    ("Distribution.fingerprint", "digest"),
    ("Distribution.id", "random"),
    ("Distribution.public_key", "public key"),
    ("DistributionKeeper.name", "name"),
    ("SealStatus.fault", "words of this program"),
    ("ShareSet.id", "random"),
    ("TakeShareResponse.sealed", "a share in an envelope, to its custodian alone"),
    ("UnsealAttempt.fingerprint", "digest"),
    ("UnsealAttempt.given_by", "name"),
    ("UnsealAttempt.id", "random"),
    ("UnsealAttempt.public_key", "public key"),
    ("Approval.cause", "text of an officer"),
    ("Approval.method", "name"),
    ("Approval.name", "name"),
    ("Approval.rejected_by", "name"),
    ("Approval.request", "a request as it came: key blocks, nothing secret"),
    ("Approval.request_digest", "digest"),
    ("Approval.requester", "name"),
    ("Approval.requester_person", "name"),
    ("Approval.resource", "name"),
    ("ApprovalVote.caller", "name"),
    ("ApprovalVote.person", "name"),
    ("BeginActivationResponse.payload", "public: signed"),
    ("BeginActivationResponse.proof", "signature or MAC"),
    ("Ceremony.check_value", "check value"),
    ("Ceremony.envelope_key", "public: key"),
    ("Ceremony.envelope_key_signature", "signature or MAC"),
    ("Ceremony.name", "name"),
    ("Ceremony.plan", "public: what was read aloud"),
    ("Ceremony.plan_digest", "digest"),
    ("Ceremony.product", "key block"),
    ("Ceremony.transcript", "public: signed"),
    ("CeremonyStep.name", "name"),
    ("CheckPolicyResponse.because", "text: rules and their answers"),
    ("ConfirmKeysResponse.mac", "MAC"),
    ("ConfirmKeysResponse.payload", "public: MACed"),
    ("CreateCertificateRequestResponse.certificate_request", "public: certificate request"),
    ("DeliverKeysResponse.payload", "key blocks, signed"),
    ("DeliverKeysResponse.proof", "signature or MAC"),
    ("DeniedDevice.cause", "text of an officer"),
    ("DeniedDevice.serial", "name"),
    ("DeviceAuthority.certificate", "public: certificate"),
    ("DeviceAuthority.model", "name"),
    ("DeviceAuthority.name", "name"),
    ("DeviceAuthority.vendor", "name"),
    ("ExportEventsResponse.checkpoint", "public: signed"),
    ("ExportEventsResponse.events", "audit events"),
    ("ExportEventsResponse.verifier_key", "public: key"),
    ("ExportInitialKeyResponse.check_value", "check value"),
    ("ExportInitialKeyResponse.initial_key_id", "name"),
    ("ExportInitialKeyResponse.key_block", "key block"),
    ("ExportKeyResponse.check_value", "check value"),
    ("ExportKeyResponse.dropped_attributes", "name"),
    ("ExportKeyResponse.key_block", "key block"),
    ("FieldViolation.description", "name"),
    ("FieldViolation.field", "name"),
    ("GenerateMacResponse.mac", "MAC"),
    ("GetCheckpointResponse.checkpoint", "public: signed"),
    ("GetCheckpointResponse.verifier_key", "public: key"),
    ("GetDestructionCertificateResponse.certificate", "public: signed"),
    ("GetDestructionCertificateResponse.verifier_key", "public: key"),
    ("GetParametersResponse.mac", "MAC"),
    ("GetParametersResponse.payload", "public: MACed"),
    ("GetStatusResponse.node", "name"),
    ("GetStatusResponse.program_digest", "digest"),
    ("GetStatusResponse.realm", "name"),
    ("GetStatusResponse.version", "name"),
    ("Grant.calls", "name"),
    ("Grant.key", "name"),
    ("Grant.partner_keys", "name"),
    ("Grant.principals", "name"),
    ("HeaderField.field", "name"),
    ("HeaderField.meaning", "name"),
    ("HeaderField.value", "public: header of a key block"),
    ("HealthCheck.detail", "text for people"),
    ("HealthCheck.name", "name"),
    ("Identity.acquirer_id", "name"),
    ("Identity.certificate_chain", "public: certificates"),
    ("Identity.public_key", "public: key"),
    ("IssueActivationCodeResponse.activation_code", "code, told this once"),
    ("Key.check_value", "check value"),
    ("Key.compromised_through", "name"),
    ("Key.name", "name"),
    ("KeyAttributes.key_set_id", "name"),
    ("LabelsEntry.key", "name"),
    ("LabelsEntry.value", "name"),
    ("Limits.currency", "name"),
    ("ListApprovalsResponse.next_page_token", "name"),
    ("ListCeremoniesResponse.next_page_token", "name"),
    ("ListDeniedDevicesResponse.next_page_token", "name"),
    ("ListDeviceAuthoritiesResponse.next_page_token", "name"),
    ("ListEventsResponse.events", "audit events"),
    ("ListKeyVersionsResponse.next_page_token", "name"),
    ("ListKeysResponse.next_page_token", "name"),
    ("ListProfilesResponse.next_page_token", "name"),
    ("ListTerminalsResponse.next_page_token", "name"),
    ("LookupKsnResponse.base_derivation_key", "name"),
    ("LookupKsnResponse.initial_key_id", "name"),
    ("LookupKsnResponse.reason", "name"),
    ("LookupKsnResponse.remedy", "text of the service"),
    ("LookupKsnResponse.terminal", "name"),
    ("Merchant.display_name", "name"),
    ("Merchant.merchant_id", "name"),
    ("Merchant.terminal_id", "name"),
    ("MetadataEntry.key", "name"),
    ("MetadataEntry.value", "name"),
    ("Principal.name", "name"),
    ("Principal.person", "name"),
    ("Principal.profiles", "name"),
    ("Profile.base_derivation_key", "name"),
    ("Profile.name", "name"),
    ("ProfileKey.derivation_key", "name"),
    ("Protection.detail", "text for people"),
    ("Protection.name", "name"),
    ("ProveConsistencyResponse.first_root", "digest"),
    ("ProveConsistencyResponse.hashes", "digest"),
    ("ProveConsistencyResponse.second_root", "digest"),
    ("ProveInclusionResponse.hashes", "digest"),
    ("ProveInclusionResponse.leaf_hash", "digest"),
    ("ProveInclusionResponse.root", "digest"),
    ("Refusal.message", "name"),
    ("Refusal.reason", "name"),
    ("ReissueActivationCodeResponse.activation_code", "code, told this once"),
    ("RunTestTransactionResponse.mac", "MAC"),
    ("RunTestTransactionResponse.payload", "public: MACed"),
    ("TakeComponentResponse.envelope", "ciphertext"),
    ("Terminal.activation", "name"),
    ("Terminal.check_value", "check value"),
    ("Terminal.device_authority", "name"),
    ("Terminal.hold_cause", "text of an officer"),
    ("Terminal.initial_key_id", "name"),
    ("Terminal.master_key", "name"),
    ("Terminal.model", "name"),
    ("Terminal.name", "name"),
    ("Terminal.profile", "name"),
    ("Terminal.serial", "name"),
    ("TerminalKey.check_value", "check value"),
    ("TimelineEntry.note", "text of the service"),
    ("TimelineEntry.reason", "name"),
    ("TimelineEntry.remedy", "text of the service"),
    ("TimelineEntry.step", "name"),
    ("TranslatePinResponse.pin_block", "ciphertext"),
    ("UpdateKeysResponse.mac", "MAC"),
    ("UpdateKeysResponse.payload", "key blocks, MACed"),
    ("VerifyMacAndTranslatePinResponse.pin_block", "ciphertext"),
    ("WatchTerminalsResponse.terminal", "name"),
];

#[test]
fn every_answered_field_is_of_a_known_class_and_there_is_one_pan() {
    use prost_types::MethodDescriptorProto;
    use prost_types::field_descriptor_proto::Type;
    let files = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let ours: Vec<_> = files.iter().filter(|file| file.package() == "firstkey.v1").collect();
    let message = |name: &str| {
        let mut path = name.strip_prefix(".firstkey.v1.")?.split('.');
        let first = path.next()?;
        let mut messages = ours.iter().flat_map(|file| &file.message_type);
        let outer = messages.find(|found| found.name() == first)?;
        // The entries of a map are a message within the one that has the map.
        path.try_fold(outer, |outer, name| {
            outer.nested_type.iter().find(|found| found.name() == name)
        })
    };
    let rpcs = ours.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
    let mut waiting: Vec<&str> = rpcs.map(MethodDescriptorProto::output_type).collect();
    let mut seen = BTreeSet::new();
    let mut found = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        let Some(answered) = message(name).filter(|_| seen.insert(name)) else { continue };
        for field in &answered.field {
            match field.r#type() {
                Type::String | Type::Bytes => {
                    found.insert(format!("{}.{}", answered.name(), field.name()));
                }
                Type::Message => waiting.push(field.type_name()),
                _ => {}
            }
        }
    }
    let listed: BTreeSet<String> = ANSWERED.iter().map(|(field, _)| (*field).to_owned()).collect();
    assert_eq!(listed.len(), ANSWERED.len());
    assert_eq!(found, listed);
    assert!(ANSWERED.iter().all(|(_, class)| !class.is_empty()));

    // Each call that translates has one place for a PAN, and no other message has any.
    let is_pan = |name: &str| name.split('_').any(|word| word == "pan" || word == "pans");
    let messages = ours.iter().flat_map(|file| &file.message_type);
    let pans = messages.flat_map(|message| {
        let of_pan = message.field.iter().filter(|field| is_pan(field.name()));
        let of_pan = of_pan.filter(|field| field.r#type() != Type::Enum);
        of_pan.map(|field| (message.name(), field.name(), field.r#type()))
    });
    let expected = ["TranslatePinRequest", "VerifyMacAndTranslatePinRequest"];
    let expected = expected.map(|message| (message, "pan", Type::String));
    assert_eq!(pans.collect::<Vec<_>>(), expected);
}
