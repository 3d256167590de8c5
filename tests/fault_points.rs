//! A build whose self-tests can be made to fail, one at a time: each of them bites.
//!
//! `cargo test --features fault-points --test fault_points`; never in a release.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

#[path = "setup/firstkeyd.rs"]
mod firstkeyd;
#[path = "setup/memory.rs"]
mod memory;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use firstkey::grpc::client::{Client, ClientError, request_id};
use firstkey::grpc::proto::{
    CreateKeyRequest, Direction, DukptKey, GenerateMacRequest, GetKeyRequest, GetStatusRequest,
    KeyAlgorithm, KeyUsage, ListKeysRequest, ListTerminalsRequest, MacAlgorithm, PinBlockFormat,
    TranslatePinRequest, VerifyMacRequest, WorkingKey, working_key,
};
use firstkey::server::self_test_names;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::firstkeyd::Firstkeyd;
use crate::memory::Memory;

/// What the exit code of a failed self-test is.
const SELF_TEST_FAILED: i32 = 3;

struct Process {
    process: Firstkeyd,
    folder: Folder,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let folder = Folder::new();
        Self { process: Firstkeyd::spawn(&mut serve(&folder, arguments)), folder }
    }

    /// Kills it, and starts it again with the same store.
    fn restart(&mut self) {
        self.process.kill();
        self.process = Firstkeyd::spawn(&mut serve(&self.folder, &[]));
    }

    fn url(&self) -> String {
        format!("http://{}", self.process.address("serving"))
    }

    /// What `/readyz` answers.
    async fn readiness(&self) -> serde_json::Value {
        let address = self.process.address("operations");
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let request =
            format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    fn memory(&self) -> Memory {
        Memory(self.process.id())
    }
}

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("firstkey-fault-{}", request_id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind lies in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn serve(folder: &Folder, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firstkeyd"));
    command
        .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--operations", "127.0.0.1:0"])
        .arg("--data")
        .arg(folder.path("data"))
        .args(["--dev-keys", concat!(env!("CARGO_MANIFEST_DIR"), "/keys-dev")])
        .args(arguments)
        .stdin(Stdio::null());
    command
}

#[test]
fn each_failure_at_the_start_ends_the_program_with_nothing_served() {
    let names: Vec<_> = self_test_names().collect();
    assert!(names.len() >= 32, "{names:?}");
    for name in names {
        let folder = Folder::new();
        let ended = serve(&folder, &["--fault", name]).output().unwrap();
        let log = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(SELF_TEST_FAILED), "{name}: {log}");
        assert!(!log.contains("\"serving\""), "{name}: {log}");
        assert!(ended.stdout.is_empty(), "{name}");
        // The tests of new key pairs come with the first key pair; by then the store is there.
        if !name.starts_with("a key pair") {
            assert!(log.contains("self-test of"), "{name}: {log}");
            assert!(!folder.path("data").exists(), "{name}: nothing was written");
        }
    }
}

#[tokio::test]
async fn a_failure_while_it_serves_latches_and_wipes_the_master_key() {
    for name in [
        "AES-CMAC",
        "DUKPT with TDES",
        "PIN block format 4",
        "a key pair for ECDSA",
        "random numbers",
    ] {
        let mut process = Process::start(&["--fault-on-signal", name, "--self-test-seconds", "1"]);
        let client = Client::connect(&process.url()).await.unwrap();
        use_keys(&client).await;
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        client.macs().generate_mac(mac_request()).await.expect("and after a run without a fault");
        let secret_pages = process.memory().secret_pages();
        process.process.signal(Signal::USR1);
        expect_latched(&mut process, name, secret_pages).await;
    }
}

#[tokio::test]
async fn a_new_key_pair_that_is_none_latches_at_once() {
    let name = "a key pair for ECDH";
    let mut process = Process::start(&["--fault-on-signal", name]);
    let url = process.url();
    let client = Client::connect(&url).await.unwrap();
    tool(&url, &["terminal", "register", "till", "--serial", "SN-1", "--profile", "dev-aes"]);
    let code = tool(&url, &["terminal", "code", "till"]);
    let secret_pages = process.memory().secret_pages();
    process.process.signal(Signal::USR1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    // The tests of today are over; it is the delivery of this terminal's keys that finds it.
    use_keys(&client).await;
    let state = process.folder.path("till.json");
    let (state, pki) = (state.to_str().unwrap(), process.folder.path("data/dev-pki"));
    let pki = pki.to_str().unwrap();
    let simulate = ["terminal", "simulate", "--state", state, "--pki", pki, "--serial", "SN-1"];
    let refused = run(&url, &[&simulate[..], &["--code", code.trim()]].concat());
    assert!(!refused.status.success());
    // The call that found it is refused as those after it are.
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("SELF_TEST_FAILED"), "{said}");
    assert!(client.keys().get_key(key_request()).await.is_err(), "nothing is served any more");
    expect_latched(&mut process, name, secret_pages).await;
}

#[tokio::test]
async fn a_run_that_ends_or_panics_leaves_no_secret_behind() {
    for (how, signal) in [("SIGTERM", Signal::TERM), ("a panic", Signal::USR2)] {
        let process = Process::start(&["--hold", "--panic-on-signal"]);
        let client = Client::connect(&process.url()).await.unwrap();
        use_keys(&client).await;
        let secret_pages = process.memory().secret_pages();
        process.process.signal(signal);
        process.process.told("held at its end");
        let panicked = process.process.logged().contains("panicked");
        assert_eq!(panicked, how == "a panic");
        expect_wiped(&process, how, secret_pages);
    }
}

/// Nothing is served; health, status and log tell what failed; no secret is left; the next start,
/// and nothing else, serves again and finds the event.
async fn expect_latched(process: &mut Process, name: &str, secret_pages: usize) {
    let failure = "a self-test failed: nothing is served until the next start";
    assert_eq!(process.process.told(failure)["algorithm"], name);
    let url = process.url();
    let client = Client::connect(&url).await.unwrap();
    refuses_everything(&client).await;
    let status = run(&url, &["status"]);
    assert!(!status.status.success());
    let told = String::from_utf8(status.stderr).unwrap();
    assert!(told.contains("SELF_TEST_FAILED") && told.contains("/readyz"), "{told}");
    let told = process.readiness().await;
    let check = told["checks"].as_array().unwrap().iter().find(|one| one["name"] == "self_test");
    let check = check.unwrap();
    assert_eq!((&told["ready"], &check["healthy"]), (&false.into(), &false.into()));
    assert!(check["detail"].as_str().unwrap().contains(name), "{check}");
    let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel);
    for service in ["", "firstkey.v1.PinService"] {
        let asked = HealthCheckRequest { service: service.to_owned() };
        let told = health.check(asked).await.unwrap().into_inner().status();
        assert_eq!(told, ServingStatus::NotServing, "{name}: {service:?}");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    expect_wiped(process, name, secret_pages);

    process.restart();
    let url = process.url();
    let events = tool(&url, &["audit", "list", "--count", "1000", "--output", "json"]);
    let mut events = events.lines().map(|line| serde_json::from_str(line).unwrap());
    let is_told = |event: &serde_json::Value| {
        let tested = event["action"] == "RunSelfTests" && event["reason"] == "SELF_TEST_FAILED";
        tested && event["detail"]["failed"] == name
    };
    assert!(events.any(|event| is_told(&event)), "{name}: the event is missing");
    use_keys(&Client::connect(&url).await.unwrap()).await;
}

/// No secret is left in the memory of a process that has used them.
fn expect_wiped(process: &Process, how: &str, secret_pages: usize) {
    if secret_pages > 0 {
        assert_eq!(process.memory().secret_pages(), 0, "{how}: the page of the master key is gone");
    }
    let (key, digits) = master_key();
    assert!(!process.memory().holds(&key), "{how}: the master key is still there");
    assert!(!process.memory().holds(digits.as_bytes()), "{how}: the master key is still there");
    for (secret, digits) in SECRETS {
        let octets = data_encoding::HEXUPPER.decode(digits.as_bytes()).unwrap();
        assert!(!process.memory().holds(&octets), "{how}: the {secret} is still there");
    }
    // The control: the search finds what is there, such as the folder of the store.
    assert!(process.memory().holds(process.folder.path("data").as_os_str().as_encoded_bytes()));
}

/// What [`use_keys`] lets the service compute with: ANSI X9.24-3:2017, supplement.
const SECRETS: [(&str, &str); 5] = [
    ("base derivation key", "FEDCBA9876543210F1F1F1F1F1F1F1F1"),
    ("initial key", "1273671EA26AC29AFA4D1084127652A1"),
    ("PIN key", "AF8CB133A78F8DC2D1359F18527593FB"),
    ("MAC key", "A2DC23DE6FDE0824A2BC321E08E4B8B7"),
    ("PIN, as its field of format 4 has it,", "441234AAAAAAAAAA"),
];

/// Lets the service use a static key, and those of a terminal's transaction.
async fn use_keys(client: &Client) {
    client.macs().generate_mac(mac_request()).await.expect("it serves");
    let bytes = |digits: &str| data_encoding::HEXUPPER.decode(digits.as_bytes()).unwrap();
    let ksn = bytes("123456789012345600000001");
    let dukpt = || {
        let dukpt = DukptKey { ksn: ksn.clone(), ..DukptKey::default() };
        Some(WorkingKey { key: Some(working_key::Key::Dukpt(dukpt)) })
    };
    let wrong = VerifyMacRequest {
        key: dukpt(),
        direction: Direction::Request.into(),
        algorithm: MacAlgorithm::AesCmac.into(),
        message: b"message".to_vec(),
        mac: vec![0; 8],
        ..VerifyMacRequest::default()
    };
    let refused = client.macs().verify_mac(wrong).await.map(|_| ()).unwrap_err();
    assert_eq!(reason(refused), "MAC_MISMATCH");
    let zone = working_key::Key::StaticKey("keys/dev-zone-pin-aes".to_owned());
    let translate = TranslatePinRequest {
        source: dukpt(),
        source_format: PinBlockFormat::Iso4.into(),
        pin_block: bytes("A912150391AB65A67E52883D81CE2D15"),
        destination: Some(WorkingKey { key: Some(zone) }),
        destination_format: PinBlockFormat::Iso4.into(),
        pan: "4111111111111111".to_owned(),
        ..TranslatePinRequest::default()
    };
    client.pins().translate_pin(translate).await.expect("the same input is computed again");
}

fn run(url: &str, arguments: &[&str]) -> Output {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_firstkey"));
    tool.args(arguments).env("FIRSTKEY_SERVER", url).output().unwrap()
}

/// What the tool prints.
fn tool(url: &str, arguments: &[&str]) -> String {
    let done = run(url, arguments);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Calls of each kind; `tests/api/self_tests.rs` tries every one.
async fn refuses_everything(client: &Client) {
    let create = CreateKeyRequest {
        request_id: request_id(),
        key_id: "late".to_owned(),
        usage: KeyUsage::MacCmac.into(),
        algorithm: KeyAlgorithm::Aes128.into(),
        ..CreateKeyRequest::default()
    };
    for refused in [
        client.keys().get_key(key_request()).await.map(|_| ()),
        client.keys().list_keys(ListKeysRequest::default()).await.map(|_| ()),
        client.keys().create_key(create).await.map(|_| ()),
        client.macs().generate_mac(mac_request()).await.map(|_| ()),
        client.terminals().list_terminals(ListTerminalsRequest::default()).await.map(|_| ()),
        client.status().get_status(GetStatusRequest {}).await.map(|_| ()),
    ] {
        assert_eq!(reason(refused.unwrap_err()), "SELF_TEST_FAILED");
    }
}

fn reason(status: tonic::Status) -> String {
    ClientError::from(status).reason().unwrap_or_default().to_owned()
}

fn key_request() -> GetKeyRequest {
    GetKeyRequest { name: "keys/dev-mac".into() }
}

fn mac_request() -> GenerateMacRequest {
    let key = working_key::Key::StaticKey("keys/dev-mac".to_owned());
    GenerateMacRequest {
        key: Some(WorkingKey { key: Some(key) }),
        algorithm: MacAlgorithm::AesCmac.into(),
        message: b"message".to_vec(),
        mac_length_bytes: 16,
        ..GenerateMacRequest::default()
    }
}

/// The published master key, as octets and as the file has it.
fn master_key() -> (Vec<u8>, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("keys-dev/keys.toml");
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with("master_key")).unwrap();
    let digits = line.split('"').nth(1).unwrap().to_owned();
    (data_encoding::HEXUPPER.decode(digits.as_bytes()).unwrap(), digits)
}
