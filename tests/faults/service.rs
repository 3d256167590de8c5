//! The service as a process, its disk and its system calls, and callers who note what came of it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use firstkey::grpc::DESCRIPTORS;
use firstkey::grpc::client::{Client, Refusal, request_id};
use firstkey::grpc::proto;
use prost::Message as _;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::firstkeyd::Firstkeyd;

/// How long a start may take.
const START_MAX: Duration = Duration::from_mins(1);
/// How long it may take until it serves again.
const RECOVERY_MAX: Duration = Duration::from_secs(90);

/// What came of a call.
pub(crate) struct Outcome {
    pub(crate) call: String,
    /// The reason of its refusal; none if it succeeded.
    pub(crate) reason: Option<String>,
    pub(crate) took: Duration,
}

/// A running `firstkeyd`.
pub(crate) struct Service {
    process: Firstkeyd,
    data: PathBuf,
    flags: Vec<String>,
    url: String,
    /// Where it tells how it is.
    operations: String,
}

impl Service {
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn start(data: &Path, flags: &[&str]) -> Self {
        let (process, address) = Firstkeyd::serving(&mut serve(data, flags));
        let (url, operations) = (format!("http://{address}"), process.address("operations"));
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        Self { process, data: data.to_owned(), flags, url, operations }
    }

    /// What it says when it does not come to serve, which it must not.
    pub(crate) fn refuses_to_start(data: &Path, flags: &[&str]) -> String {
        let began = Instant::now();
        let done = serve(data, flags).output().expect("firstkeyd starts");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(!said.contains("\"serving\""), "{said}");
        assert!(began.elapsed() < START_MAX, "{:?}", began.elapsed());
        said
    }

    /// What `/readyz` answers: the code, and of a check whether it is well and what is wrong.
    pub(crate) fn ready(&self, check: &str) -> (u16, bool, String) {
        let mut stream = TcpStream::connect(&self.operations).expect("it tells how it is");
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
        let told: serde_json::Value = serde_json::from_str(body.trim()).expect("JSON");
        let checks = told["checks"].as_array().expect("checks");
        let one = checks.iter().find(|one| one["name"] == check).expect("the check");
        let detail = one["detail"].as_str().expect("a text").to_owned();
        (code, one["healthy"] == true, detail)
    }

    /// Waits until `/readyz` says that a check is well, or is not, and tells its code and detail.
    pub(crate) async fn comes_to_be(&self, check: &str, well: bool) -> (u16, String) {
        let began = Instant::now();
        loop {
            let (code, is_well, detail) = self.ready(check);
            if is_well == well {
                return (code, detail);
            }
            assert!(began.elapsed() < RECOVERY_MAX, "{check} is still {is_well}: {detail}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Runs the tool.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Output {
        let mut tool = Command::new(env!("CARGO_BIN_EXE_firstkey"));
        tool.args(arguments).env("FIRSTKEY_SERVER", &self.url).output().expect("the tool runs")
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }

    /// Kills it and starts it over the same folder.
    pub(crate) fn restart(mut self) -> Self {
        self.process.kill();
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        Self::start(&self.data, &flags)
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.url).await.expect("it accepts connections")
    }

    /// A static MAC key.
    pub(crate) async fn make_key(&self) {
        let request = proto::CreateKeyRequest {
            request_id: request_id(),
            key_id: "mac".to_owned(),
            usage: proto::KeyUsage::MacCmac.into(),
            algorithm: proto::KeyAlgorithm::Aes128.into(),
            ..proto::CreateKeyRequest::default()
        };
        self.client().await.keys().create_key(request).await.expect("a key");
    }

    /// Uses the key so many times, at once.
    pub(crate) async fn use_key(&self, times: usize) -> Vec<Outcome> {
        let client = self.client().await;
        let calls: Vec<_> = (0..times)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move {
                    let static_key = proto::working_key::Key::StaticKey("keys/mac".to_owned());
                    let request = proto::GenerateMacRequest {
                        key: Some(proto::WorkingKey { key: Some(static_key) }),
                        algorithm: proto::MacAlgorithm::AesCmac.into(),
                        message: number.to_string().into_bytes(),
                        mac_length_bytes: 8,
                        ..proto::GenerateMacRequest::default()
                    };
                    timed("GenerateMac", client.macs().generate_mac(request)).await
                })
            })
            .collect();
        let mut outcomes = Vec::new();
        for call in calls {
            outcomes.push(call.await.expect("the call comes to an end"));
        }
        outcomes
    }

    pub(crate) async fn list_keys(&self) -> Outcome {
        let client = self.client().await;
        let request = proto::ListKeysRequest::default();
        timed("ListKeys", client.keys().list_keys(request)).await
    }

    /// Whether calls come to be refused with a reason: what is free is looked at each second.
    pub(crate) async fn refused_with(&self, first: &[Outcome], reason: &str) -> bool {
        let is = |outcomes: &[Outcome]| {
            outcomes.iter().any(|outcome| outcome.reason.as_deref() == Some(reason))
        };
        let mut found = is(first);
        let began = Instant::now();
        while !found && began.elapsed() < RECOVERY_MAX {
            tokio::time::sleep(Duration::from_millis(200)).await;
            found = is(&self.use_key(1).await);
        }
        found
    }

    /// Calls until what the store has in its file for itself is used up.
    pub(crate) async fn exhaust(&self) {
        let began = Instant::now();
        while self.list_keys().await.reason.is_none() && began.elapsed() < RECOVERY_MAX {}
    }

    /// Whether it comes to serve again.
    pub(crate) async fn recovers(&self) -> bool {
        let began = Instant::now();
        while began.elapsed() < RECOVERY_MAX {
            if self.use_key(1).await.iter().all(|outcome| outcome.reason.is_none()) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        false
    }

    /// Makes every call of the API at once, each with an empty body; of a stream the first message
    /// counts.
    pub(crate) async fn call_everything(&self) -> Vec<Outcome> {
        let endpoint = Endpoint::from_shared(self.url.clone()).expect("an address");
        let channel = endpoint.connect().await.expect("it accepts connections");
        let calls: Vec<_> = every_path()
            .into_iter()
            .map(|path| tokio::spawn(call_empty(channel.clone(), path)))
            .collect();
        let mut outcomes = Vec::new();
        for call in calls {
            outcomes.push(call.await.expect("the call comes to an end"));
        }
        outcomes
    }

    /// The whole log, verified by the tool against its checkpoint.
    pub(crate) fn verified_export(&self, folder: &Path) -> Vec<serde_json::Value> {
        let out = folder.join(format!("{}.jsonl", request_id()));
        let tool = |arguments: &[&str]| {
            let done = Command::new(env!("CARGO_BIN_EXE_firstkey"))
                .args(["--output", "json", "audit"])
                .args(arguments)
                .env("FIRSTKEY_SERVER", &self.url)
                .output()
                .expect("the tool runs");
            let said = String::from_utf8_lossy(&done.stdout).into_owned();
            assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
            serde_json::from_str::<serde_json::Value>(&said).expect("JSON")
        };
        let path = out.to_string_lossy().into_owned();
        let exported = tool(&["export", "--out", &path]);
        let key = exported["key"].as_str().expect("a key");
        let note = format!("{path}.checkpoint");
        let verified = tool(&["verify", &path, "--checkpoint", &note, "--key", key]);
        assert_eq!(verified["verified"], true);
        assert_eq!(verified["covered"], exported["events"]);
        let text = std::fs::read_to_string(&out).expect("the export");
        text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
    }
}

/// The command that serves for development over a folder.
fn serve(data: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firstkeyd"));
    command
        .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--operations", "127.0.0.1:0"])
        .args(["--drain-seconds", "1", "--dev-keys"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("keys-dev"))
        .arg("--data")
        .arg(data)
        .args(flags);
    command
}

pub(crate) async fn timed<T>(
    call: &str,
    answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Outcome {
    let began = Instant::now();
    let reason = answer.await.err().map(|status| {
        let refusal = Refusal::from(status);
        if refusal.reason.is_empty() { refusal.code.to_string() } else { refusal.reason }
    });
    Outcome { call: call.to_owned(), reason, took: began.elapsed() }
}

async fn call_empty(channel: Channel, path: String) -> Outcome {
    let mut grpc = tonic::client::Grpc::new(channel);
    let at = path.parse().expect("a path");
    timed(&path, async {
        grpc.ready().await.map_err(|error| tonic::Status::unknown(error.to_string()))?;
        let codec = ProstCodec::<(), ()>::default();
        let answer = grpc.server_streaming(tonic::Request::new(()), at, codec).await?;
        // A stream that begins has its event already: it counts as done.
        let mut stream = answer.into_inner();
        if path.ends_with("/WatchTerminals") {
            return Ok(tonic::Response::new(()));
        }
        stream.message().await.map(|_| tonic::Response::new(()))
    })
    .await
}

/// The paths of all calls of the API.
fn every_path() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).expect("the descriptors");
    let mut paths = Vec::new();
    for file in set.file {
        for service in file.service {
            for method in service.method {
                let package = file.package.clone().unwrap_or_default();
                let name = method.name.unwrap_or_default();
                let service = service.name.clone().unwrap_or_default();
                paths.push(format!("/{package}.{service}/{name}"));
            }
        }
    }
    assert!(paths.len() > 50, "{} calls", paths.len());
    paths
}
