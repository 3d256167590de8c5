//! A build whose self-tests can be made to fail, one at a time: each of them bites.
//!
//! `cargo test --features fault-points --test fault_points`; never in a release.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use firstkey::grpc::client::{Client, ClientError, request_id};
use firstkey::grpc::proto::{
    CreateKeyRequest, GenerateMacRequest, GetKeyRequest, GetStatusRequest, KeyAlgorithm, KeyUsage,
    ListKeysRequest, ListTerminalsRequest, MacAlgorithm, WorkingKey, working_key,
};
use firstkey::server::self_test_names;
use rustix::process::{Pid, Signal, kill_process};

/// What the exit code of a failed self-test is.
const SELF_TEST_FAILED: i32 = 3;

struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    folder: PathBuf,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("firstkey-fault-{}", request_id()));
        fs::create_dir(&folder).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_firstkeyd"))
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.join("data"))
            .args(["--dev-keys", concat!(env!("CARGO_MANIFEST_DIR"), "/keys-dev")])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (Arc::clone(&log), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Self { child, log, folder }
    }

    fn logged(&self, message: &str) -> Option<serde_json::Value> {
        let lines = self.log.lock().unwrap();
        let entries = lines.iter().filter_map(|line| serde_json::from_str(line).ok());
        entries.into_iter().find(|entry: &serde_json::Value| entry["message"] == message)
    }

    async fn url(&self) -> String {
        for _ in 0..3_000 {
            if let Some(entry) = self.logged("serving") {
                return format!("http://{}", entry["address"].as_str().unwrap());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it does not serve: {:#?}", self.log.lock().unwrap());
    }

    /// Whether the memory that the process writes to holds some octets.
    fn holds(&self, wanted: &[u8]) -> bool {
        let folder = PathBuf::from(format!("/proc/{}", self.child.id()));
        let memory = File::open(folder.join("mem")).unwrap();
        let maps = fs::read_to_string(folder.join("maps")).unwrap();
        maps.lines().filter(|line| line.contains(" rw")).any(|line| {
            let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            let from = u64::from_str_radix(from, 16).unwrap();
            let len = u64::from_str_radix(to, 16).unwrap() - from;
            let mut bytes = vec![0; usize::try_from(len).unwrap()];
            // What can not be read, such as a secret page, is nobody's to find.
            memory.read_exact_at(&mut bytes, from).is_ok()
                && bytes.windows(wanted.len()).any(|window| window == wanted)
        })
    }

    /// The lines of its map that name secret memory.
    fn secret_pages(&self) -> usize {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.child.id())).unwrap();
        maps.lines().filter(|line| line.contains("secretmem")).count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn each_failure_at_the_start_ends_the_program_with_nothing_served() {
    let names: Vec<_> = self_test_names().collect();
    assert!(names.len() >= 32, "{names:?}");
    for name in names {
        let mut process = Process::start(&["--fault", name]);
        let status = process.child.wait().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let log = process.log.lock().unwrap().join("\n");
        assert_eq!(status.code(), Some(SELF_TEST_FAILED), "{name}: {log}");
        assert!(!log.contains("\"serving\""), "{name}: {log}");
        let said = std::io::read_to_string(process.child.stdout.take().unwrap()).unwrap();
        assert_eq!(said, "", "{name}");
        // The tests of new key pairs come with the first key pair; by then the store is there.
        if !name.starts_with("a key pair") {
            assert!(log.contains("self-test of"), "{name}: {log}");
            assert!(!process.folder.join("data").exists(), "{name}: nothing was written");
        }
    }
}

#[tokio::test]
async fn a_failure_while_it_serves_latches_and_wipes_the_master_key() {
    for name in ["AES-CMAC", "DUKPT with TDES", "PIN block format 4", "random numbers"] {
        let process = Process::start(&["--fault-on-signal", name, "--self-test-seconds", "1"]);
        let client = Client::connect(&process.url().await).await.unwrap();
        client.macs().generate_mac(mac_request()).await.expect("it serves before the fault");
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        client.macs().generate_mac(mac_request()).await.expect("and after a run without a fault");
        let secret_pages = process.secret_pages();

        kill_process(Pid::from_child(&process.child), Signal::USR1).unwrap();
        wait_for_latch(&client).await;
        refuses_everything(&client).await;
        let failure = "a self-test failed: nothing is served until the next start";
        assert_eq!(process.logged(failure).unwrap()["algorithm"], name);
        let status = run(&process.url().await, &["status"]);
        assert!(!status.status.success());
        let told = String::from_utf8(status.stderr).unwrap();
        assert!(told.contains("SELF_TEST_FAILED") && told.contains("/readyz"), "{told}");

        tokio::time::sleep(Duration::from_millis(500)).await;
        if secret_pages > 0 {
            assert_eq!(process.secret_pages(), 0, "the page of the master key is gone");
        }
        let (key, digits) = master_key();
        assert!(!process.holds(&key), "{name}: the master key is still there");
        assert!(!process.holds(digits.as_bytes()), "{name}: the master key is still there");
        // The control: the search finds what is there, such as the folder of the store.
        assert!(process.holds(process.folder.join("data").as_os_str().as_encoded_bytes()));
    }
}

#[tokio::test]
async fn a_new_key_pair_that_is_none_latches_too() {
    let process = Process::start(&["--fault-on-signal", "a key pair for ECDH"]);
    let url = process.url().await;
    let client = Client::connect(&url).await.unwrap();
    tool(&url, &["terminal", "register", "till", "--serial", "SN-1", "--profile", "dev-aes"]);
    let code = tool(&url, &["terminal", "code", "till"]);
    kill_process(Pid::from_child(&process.child), Signal::USR1).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    // The tests of today are over; it is the delivery of this terminal's keys that finds it.
    client.keys().get_key(key_request()).await.expect("it serves before");
    let state = process.folder.join("till.json");
    let (state, pki) = (state.to_str().unwrap(), process.folder.join("data/dev-pki"));
    let pki = pki.to_str().unwrap();
    let simulate = ["terminal", "simulate", "--state", state, "--pki", pki, "--serial", "SN-1"];
    let refused = run(&url, &[&simulate[..], &["--code", code.trim()]].concat());
    assert!(!refused.status.success());
    wait_for_latch(&client).await;
    refuses_everything(&client).await;
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

async fn wait_for_latch(client: &Client) {
    for _ in 0..500 {
        if client.keys().get_key(key_request()).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it still serves");
}

/// Calls of each kind; `tests/api/self_tests.rs` tries every one.
async fn refuses_everything(client: &Client) {
    let reason = |status: tonic::Status| {
        let error = ClientError::from(status);
        error.reason().unwrap_or_default().to_owned()
    };
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
