//! A self-test that fails while the service serves: nothing is served any more, and nothing is kept.

use std::sync::Arc;
use std::time::Duration;

use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::DESCRIPTORS;
use firstkey::grpc::client::Client;
use firstkey::grpc::proto::{GetKeyRequest, WatchTerminalsRequest};
use firstkey::server::dev::{self, Pki};
use firstkey::server::{
    Limits, Listener, Operations, Settings, run_self_tests, self_test_names, serve,
};
use firstkey::vault::store::MemoryStore;
use firstkey::vault::{Gate, Opening, Reason, Vault};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{BEGIN_SECONDS, TestClock, answer, development_keys, everybody};
use crate::known::{random, reason_of};

/// A service of which nobody but its gate holds the vault.
pub(crate) struct Gated {
    pub(crate) gate: Arc<Gate>,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) url: String,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Gated {
    pub(crate) async fn start(operations: Operations) -> Self {
        let (keys, clock) = (development_keys(), TestClock::begin());
        let store = Arc::new(MemoryStore::new());
        let opening = Opening {
            store: Arc::<MemoryStore>::clone(&store),
            master_key: keys.seal().unwrap(),
            realm: dev::REALM,
            clock: clock.clone(),
            rng: Arc::new(SystemRng::new()),
            node: "test".to_owned(),
            audit: firstkey::vault::AuditSettings::default(),
        };
        let vault = Arc::new(Vault::open(opening).await.unwrap());
        dev::prepare(&vault, &keys, &Pki::generate(BEGIN_SECONDS).unwrap()).await.unwrap();
        let socket = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let settings = Settings {
            listeners: vec![Listener::plain_for_dev_only(socket).unwrap()],
            trust: everybody(),
            reflection: true,
            drain: Duration::from_secs(5),
            limits: Limits::default(),
            operations,
            token: None,
        };
        let (gate, stop) = (Gate::open(vault), CancellationToken::new());
        let signal = stop.clone().cancelled_owned();
        let served = serve(Arc::clone(&gate), run_self_tests().unwrap(), settings, signal);
        let serving = tokio::spawn(async move { served.await.unwrap() });
        Self { gate, store, clock, url, stop, serving }
    }

    pub(crate) async fn channel(&self) -> Channel {
        Endpoint::from_shared(self.url.clone()).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }
}

/// The path of every call, as the protocol files have them.
pub(crate) fn every_path() -> Vec<String> {
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let services = files.iter().filter(|file| file.package() == "firstkey.v1");
    let services = services.flat_map(|file| &file.service);
    let path = |service: &str, method: &str| format!("/firstkey.v1.{service}/{method}");
    let of_one = |service: &prost_types::ServiceDescriptorProto| {
        let name = service.name().to_owned();
        service.method.iter().map(move |method| path(&name, method.name())).collect::<Vec<_>>()
    };
    services.flat_map(of_one).collect()
}

/// Calls a path with any octets for a message.
pub(crate) async fn call(channel: &Channel, path: &str, message: Vec<u8>) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<Octets, Octets>::default();
    let request = tonic::Request::new(Octets(message));
    let answer = grpc.server_streaming(request, path.parse().unwrap(), codec).await;
    answer?.into_inner().message().await.map(|_| ())
}

/// A message of octets as they stand.
#[derive(Debug, Default, Clone)]
struct Octets(Vec<u8>);

impl prost::Message for Octets {
    fn encode_raw(&self, buffer: &mut impl prost::bytes::BufMut) {
        buffer.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: prost::encoding::WireType,
        buffer: &mut impl prost::bytes::Buf,
        context: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        prost::encoding::skip_field(wire_type, tag, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

#[tokio::test]
async fn after_a_failure_no_call_succeeds_and_the_vault_is_let_go() {
    let service = Gated::start(Operations::default()).await;
    let client = Client::connect(&service.url).await.unwrap();
    let key = GetKeyRequest { name: "keys/dev-mac".into() };
    answer(client.keys().get_key(key.clone()).await);
    let watched = client.terminals().watch_terminals(WatchTerminalsRequest::default()).await;
    let mut watched = watched.unwrap().into_inner();
    assert!(Arc::strong_count(&service.store) > 1, "the vault holds its store");

    drop(service.gate.fail("AES-CMAC").expect("it was open"));

    while watched.message().await.unwrap().is_some() {}
    let channel = service.channel().await;
    let paths = every_path();
    assert!(paths.len() > 40, "{}", paths.len());
    for path in &paths {
        for message in [Vec::new(), random(40), client_message()] {
            let refused = call(&channel, path, message).await.expect_err(path);
            // A call of the protocol that this release does not serve is not served now either.
            if refused.code() != tonic::Code::Unimplemented {
                assert_eq!(reason_of(&refused), Reason::SelfTestFailed.as_str(), "{path}");
            }
        }
    }
    // With the vault went its committer, its sealer and the page of its master key: they are one
    // value's fields, and the store is another of them.
    for _ in 0..200 {
        if Arc::strong_count(&service.store) == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(Arc::strong_count(&service.store), 1, "somebody still holds the vault");
    // It stays so: there is no way back but another start.
    assert!(service.gate.fail("another").is_none());
    assert_eq!(service.gate.failed(), Some("AES-CMAC"));
    assert!(client.keys().get_key(key).await.is_err());
    service.end().await;
}

/// A message that a service would take.
fn client_message() -> Vec<u8> {
    GetKeyRequest { name: "keys/dev-mac".into() }.encode_to_vec()
}

#[tokio::test]
async fn health_tells_that_the_gate_closed() {
    let service = Gated::start(Operations::default()).await;
    let mut health = HealthClient::new(service.channel().await);
    let of = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let mut watched = health.watch(of("firstkey.v1.PinService")).await.unwrap().into_inner();
    let first = watched.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    drop(service.gate.fail("AES-CMAC"));
    let next = watched.message().await.unwrap().unwrap();
    assert_eq!(next.status(), ServingStatus::NotServing);
    for (name, expected) in [
        ("", ServingStatus::NotServing),
        ("firstkey.v1.KeyService", ServingStatus::NotServing),
        ("firstkey.v1.StatusService", ServingStatus::NotServing),
    ] {
        // All are told one after the other.
        let mut told = ServingStatus::Unknown;
        for _ in 0..100 {
            told = health.check(of(name)).await.unwrap().into_inner().status();
            if told == expected {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(told, expected, "{name}");
    }
    service.end().await;
}

#[tokio::test]
async fn the_self_tests_run_again_and_again_and_each_run_is_audited() {
    let operations =
        Operations { self_test_period: Duration::from_millis(100), ..Operations::default() };
    let service = Gated::start(operations).await;
    let first = service.gate.tested();
    service.clock.advance(60);
    let vault = service.gate.enter().unwrap();
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let events = vault.events_after(0, 1_000).await.unwrap();
        let runs = events.iter().filter(|event| event.action == "RunSelfTests");
        if runs.filter(|event| event.is_done() && event.caller == "service").count() >= 2 {
            let start = events.iter().find(|event| event.action == "StartService").unwrap();
            assert_eq!(start.detail["self_tests"], "passed");
            assert!(service.gate.tested() > first);
            return;
        }
    }
    panic!("they did not run twice");
}

#[test]
fn every_algorithm_on_the_service_s_path_is_tested_by_name() {
    let names: Vec<_> = self_test_names().collect();
    let mut once = names.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), names.len(), "each has a name of its own");
    for needed in [
        "AES-128",
        "AES-192",
        "AES-256",
        "AES-CBC",
        "AES-CMAC",
        "AES-GCM",
        "CBC-MAC",
        "DES",
        "DUKPT with AES-128",
        "DUKPT with AES-256",
        "DUKPT with TDES",
        "ECDH",
        "ECDSA",
        "Ed25519",
        "HKDF",
        "HMAC",
        "KBKDF",
        "KBKDF with TDES",
        "PIN block format 0",
        "PIN block format 1",
        "PIN block format 3",
        "PIN block format 4",
        "SHA-256",
        "TDES",
        "TDES-CBC",
        "TDES-CMAC",
        "a key pair for ECDH",
        "a key pair for ECDSA",
        "key block version B",
        "key block version D",
        "random numbers",
        "retail MAC",
    ] {
        assert!(names.contains(&needed), "{needed}");
    }
}
