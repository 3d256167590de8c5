//! The limits of calls over the API: messages that are none, and callers that make too many.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use firstkey::agreement::Suite;
use firstkey::crypto::certificate::certificate_to_pem;
use firstkey::grpc::client::Client;
use firstkey::grpc::proto::{
    BatchCreateTerminalsRequest, BeginActivationRequest, GenerateMacRequest, GetKeyRequest,
    GetTerminalRequest, InspectKeyBlockRequest, ListKeysRequest, ListTerminalsRequest,
    MacAlgorithm, WatchTerminalsRequest,
};
use firstkey::grpc::{BATCH_LEN_BYTES_MAX, DOMAIN, MESSAGE_LEN_BYTES_MAX, Plane, Trust};
use firstkey::server::dev::{self, Pki};
use firstkey::server::{ConnectionLimits, Limits};
use firstkey::vault::store::MemoryStore;
use firstkey::vault::{Action, Caller, Policy, Reason, Role};
use prost::Message as _;
use tokio_stream::StreamExt as _;
use tonic::client::GrpcService as _;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::harness::{
    BEGIN_SECONDS, Service, TestClock, TlsService, answer, create_terminal_request,
};
use crate::known::{expect_reason, status_of, stored};

const GET_KEY: &str = "/firstkey.v1.KeyService/GetKey";
const BATCH: &str = "/firstkey.v1.TerminalService/BatchCreateTerminals";

async fn channel(service: &Service) -> Channel {
    let endpoint = Endpoint::from_shared(service.url.clone()).expect("an address");
    endpoint.connect().await.expect("it serves")
}

/// Sends octets as they are, and reads the status of an answer that has no message.
async fn send(
    channel: &Channel,
    path: &str,
    encoding: Option<&str>,
    body: impl Into<axum::body::Body>,
) -> Status {
    let mut request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(body.into()))
        .expect("a request");
    if let Some(encoding) = encoding {
        let value = encoding.parse().expect("a header's value");
        request.headers_mut().insert("grpc-encoding", value);
    }
    let mut channel = channel.clone();
    poll_fn(|context| channel.poll_ready(context)).await.expect("the connection serves");
    let response = channel.call(request).await.expect("an answer");
    Status::from_header_map(response.headers()).expect("a status without a message")
}

/// A message as it goes over the wire: whether it is compressed, its length, its octets.
fn framed(flag: u8, len: usize, octets: &[u8]) -> Vec<u8> {
    let len = u32::try_from(len).expect("a length in four octets");
    [&[flag], &len.to_be_bytes()[..], octets].concat()
}

fn whole(octets: &[u8]) -> Vec<u8> {
    framed(0, octets.len(), octets)
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().expect("a refusal tells its reason");
    assert_eq!((info.domain.as_str(), info.metadata.len()), (DOMAIN, 0));
    info.reason
}

#[tokio::test]
async fn a_message_that_is_none_is_refused_with_its_reason() {
    let service = Service::start().await;
    let channel = channel(&service).await;
    let name = GetKeyRequest { name: "keys/dev-mac".to_owned() }.encode_to_vec();
    let long = vec![b'D'; BATCH_LEN_BYTES_MAX + 1];
    let truncated = whole(&name)[..10].to_vec();
    let twice = [whole(&name), vec![0; MESSAGE_LEN_BYTES_MAX]].concat();
    for (what, path, body) in [
        ("no message", GET_KEY, Vec::new()),
        ("no whole prefix", GET_KEY, vec![0, 0, 0]),
        ("cut short", GET_KEY, truncated),
        ("not of its type", GET_KEY, whole(&[0xFF; 40])),
        ("a text that is none", GET_KEY, whole(&[0x0A, 0x02, 0xC3, 0x28])),
        ("an unknown flag", GET_KEY, framed(2, name.len(), &name)),
        ("compressed, and not said how", GET_KEY, framed(1, name.len(), &name)),
        ("too long", GET_KEY, whole(&long[..=MESSAGE_LEN_BYTES_MAX])),
        ("too long by what it says", GET_KEY, framed(0, MESSAGE_LEN_BYTES_MAX + 1, &[])),
        ("four gibibytes by what it says", BATCH, framed(0, 0xFFFF_FFFF, &[])),
        ("too long a batch", BATCH, whole(&long)),
        ("a message and more after it", GET_KEY, twice),
    ] {
        let status = send(&channel, path, None, body).await;
        expect_reason(&status, "MESSAGE_INVALID");
        assert_eq!(status.code(), Code::InvalidArgument, "{what}");
    }
    // The connection and the service go on, and nothing was done.
    let request = GetKeyRequest { name: "keys/dev-mac".into() };
    answer(service.client.keys().get_key(request).await);
    service.vault.verify_chain().await.expect("the chain verifies");
}

#[tokio::test]
async fn what_grpc_calls_unimplemented_stays_so_and_tells_its_reason() {
    let service = Service::start().await;
    let channel = channel(&service).await;
    let name = GetKeyRequest { name: "keys/dev-mac".to_owned() }.encode_to_vec();
    for encoding in ["gzip", "deflate", "zstd", "snappy"] {
        let compressed = framed(1, name.len(), &name);
        let status = send(&channel, GET_KEY, Some(encoding), compressed).await;
        let told = (status.code(), reason(&status));
        assert_eq!(told, (Code::Unimplemented, "MESSAGE_INVALID".to_owned()), "{encoding}");
        // What the client may send instead, as gRPC wants it told.
        let accepted = status.metadata().get("grpc-accept-encoding");
        assert_eq!(accepted.map(|value| value.to_str().unwrap()), Some("identity"), "{encoding}");
    }
    for path in [
        "/firstkey.v1.KeyService/TellKey",
        "/firstkey.v1.DataService/Encrypt",
        "/firstkey.v2.KeyService/GetKey",
        "/firstkey.v1.KeyService/GetKey/",
        "/",
    ] {
        let status = send(&channel, path, None, whole(&name)).await;
        let told = (status.code(), reason(&status));
        assert_eq!(told, (Code::Unimplemented, "MESSAGE_INVALID".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn a_message_that_takes_too_long_is_given_up() {
    let service = Service::start().await;
    let channel = channel(&service).await;
    let name = GetKeyRequest { name: "keys/dev-mac".to_owned() }.encode_to_vec();
    // An octet in each second: the whole would take longer than the service waits.
    let octets: Vec<Vec<u8>> = whole(&name).into_iter().map(|octet| vec![octet]).collect();
    assert!(octets.len() > 12);
    let slow = tokio_stream::iter(octets).throttle(Duration::from_secs(1));
    let body = axum::body::Body::from_stream(slow.map(Ok::<_, Status>));
    let began = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let status = send(&channel, GET_KEY, None, body).await;
    let took = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().saturating_sub(began);
    expect_reason(&status, "MESSAGE_INVALID");
    assert!((9..=14).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn who_shows_no_certificate_makes_so_many_calls_and_the_refusals_are_counted() {
    let clock = TestClock::begin();
    let pki = Pki::generate(BEGIN_SECONDS).expect("authorities");
    let stranger = Trust::ForDevOnly(Caller::stranger("spiffe://elsewhere/nobody", ""));
    let store = Arc::new(MemoryStore::new());
    let service = Service::start_with(store, None, clock, pki, stranger).await;
    let mut keys = service.client.keys();
    let mut calls = 0_u64;
    let limited = loop {
        calls += 1;
        let status = status_of(keys.list_keys(ListKeysRequest::default()).await);
        if status.code() == Code::ResourceExhausted {
            break status;
        }
        expect_reason(&status, "CALLER_UNKNOWN");
        assert!(calls < 20_000, "it is never too many");
    };
    // A minute's worth at once, and what the bucket gained meanwhile.
    assert!(calls > 1_200, "{calls}");
    expect_reason(&limited, "RATE_LIMITED");
    let retry = limited.get_details_retry_info().expect("when to come back").retry_delay;
    let retry = retry.expect("a time");
    assert!(retry > Duration::ZERO && retry <= Duration::from_mins(1), "{retry:?}");
    // Before the message is read: an invalid one is refused alike.
    let invalid = InspectKeyBlockRequest { key_block: "?".into() };
    let mut limited = 0;
    for _ in 0..200 {
        let status = status_of(keys.inspect_key_block(invalid.clone()).await);
        // The bucket gains a call now and then.
        match status.code() {
            Code::ResourceExhausted => limited += 1,
            _ => expect_reason(&status, "CALLER_UNKNOWN"),
        }
    }
    assert!(limited > 0);
    service.vault.flush().await.expect("the counts are written");
    let mut counted = 0;
    let mut sequence = 0;
    loop {
        let events = service.vault.events_after(sequence, 1_000).await.expect("events");
        let Some(last) = events.last() else { break };
        sequence = last.seq;
        for event in events.iter().filter(|event| {
            event.action == Action::InspectKeyBlock.as_str()
                && event.reason.as_deref() == Some(Reason::RateLimited.as_str())
        }) {
            let repeated = event.detail.get("repeated").map_or(1, |count| count.parse().unwrap());
            counted += repeated;
        }
    }
    assert_eq!(counted, limited, "each refusal is in the audit log, in few events");
    // One that may come back does: after the time it was told.
    tokio::time::sleep(retry + Duration::from_millis(200)).await;
    let status = status_of(keys.inspect_key_block(invalid).await);
    expect_reason(&status, "CALLER_UNKNOWN");
}

#[tokio::test]
async fn a_terminal_that_runs_wild_is_limited_and_no_other_is() {
    let service = Service::start().await;
    for id in ["wild", "calm"] {
        service.register(id, Suite::P256Aes128).await;
    }
    let of = |id: &str| GenerateMacRequest {
        key: stored("dev-mac"),
        algorithm: MacAlgorithm::AesCmac.into(),
        message: b"message".to_vec(),
        mac_length_bytes: 16,
        terminal: format!("terminals/{id}"),
        ..GenerateMacRequest::default()
    };
    let mut macs = service.client.macs();
    let mut calls = 0;
    let limited = loop {
        calls += 1;
        let status = status_of(macs.generate_mac(of("wild")).await);
        if status.code() == Code::ResourceExhausted {
            break status;
        }
        expect_reason(&status, "TERMINAL_NOT_ACTIVE");
        assert!(calls < 60_000, "it is never too many");
    };
    assert!(calls > 6_000, "{calls}");
    expect_reason(&limited, "RATE_LIMITED");
    assert!(limited.get_details_retry_info().is_some());
    expect_reason(&status_of(macs.generate_mac(of("calm")).await), "TERMINAL_NOT_ACTIVE");
}

/// A connection over TLS without a certificate, as a terminal has it.
async fn terminal_channel(service: &TlsService) -> Channel {
    let authority = certificate_to_pem(service.access.server.root_der());
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
    let endpoint = Endpoint::from_shared(service.url().to_owned()).expect("an address");
    endpoint.tls_config(tls).expect("TLS").connect().await.expect("it serves")
}

#[tokio::test]
async fn terminals_of_one_address_hold_so_many_calls_at_once_and_keep_nobody_else_out() {
    let service = TlsService::start().await;
    let channel = terminal_channel(&service).await;
    let begin = "/firstkey.v1.ActivationService/BeginActivation";
    let mut slow = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let channel = channel.clone();
        slow.spawn(async move {
            let silent = tokio_stream::pending::<Result<Vec<u8>, Status>>();
            send(&channel, begin, None, axum::body::Body::from_stream(silent)).await
        });
    }
    // Until all of them hold their places, a quick call may be quicker.
    let mut limited = None;
    for _ in 0..100 {
        let status = send(&channel, begin, None, whole(&[])).await;
        if status.code() == Code::ResourceExhausted {
            limited = Some(status);
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let limited = limited.expect("there is no place left");
    expect_reason(&limited, "RATE_LIMITED");
    assert!(limited.get_details_retry_info().is_some());
    // Who shows a certificate has places of its own, on the same plane and from the same address.
    let relay = service.client("relay-1", Plane::Activation).await;
    let status =
        status_of(relay.activation().begin_activation(BeginActivationRequest::default()).await);
    assert_ne!(status.code(), Code::ResourceExhausted, "{status}");
    while let Some(given_up) = slow.join_next().await {
        expect_reason(&given_up.expect("an answer"), "MESSAGE_INVALID");
    }
    let status = send(&channel, begin, None, whole(&[])).await;
    assert_ne!(status.code(), Code::ResourceExhausted, "a place is free again: {status}");
    service.stop().await;
}

#[tokio::test]
async fn the_policy_sets_the_rate_of_a_caller_and_no_other_caller_pays_for_it() {
    let mut policy = dev::policy();
    for principal in &mut policy.principals {
        if principal.role == Role::Operator {
            principal.calls_per_minute_max = 5;
        }
    }
    let service = TlsService::start_with(policy).await;
    let operator = service.client("operator-1", Plane::Admin).await;
    let officer = service.client("officer-1", Plane::Admin).await;
    for _ in 0..5 {
        answer(operator.keys().list_keys(ListKeysRequest::default()).await);
    }
    let limited = status_of(operator.keys().list_keys(ListKeysRequest::default()).await);
    expect_reason(&limited, "RATE_LIMITED");
    let retry = limited.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(retry.is_some_and(|retry| retry <= Duration::from_secs(12)), "{retry:?}");
    for _ in 0..20 {
        answer(officer.keys().list_keys(ListKeysRequest::default()).await);
    }
    let events = service.plain.vault.events_after(0, 1_000).await.expect("events");
    let told = events.iter().find(|event| {
        event.reason.as_deref() == Some(Reason::RateLimited.as_str())
            && event.role == Role::Operator.as_str()
    });
    assert_eq!(told.expect("an event").action, Action::ListKeys.as_str());
    service.stop().await;
}

/// A development policy where each backend has a rate.
fn with_backends_at(calls_per_minute_max: u32) -> Policy {
    let mut policy = dev::policy();
    for principal in &mut policy.principals {
        if principal.role == Role::Backend {
            principal.calls_per_minute_max = calls_per_minute_max;
        }
    }
    policy
}

#[tokio::test]
async fn a_batch_costs_as_many_calls_as_it_has_entries() {
    let service = TlsService::start_with(with_backends_at(20)).await;
    let client = service.client("backend-1", Plane::Terminals).await;
    let batch = async |client: &Client, prefix: &str, count: usize| {
        let entry = |number: usize| {
            let id = format!("{prefix}-{number}");
            create_terminal_request(&id, &format!("SN-{id}"), "dev-aes")
        };
        let entries = (0..count).map(entry).collect();
        let request = BatchCreateTerminalsRequest { entries };
        client.terminals().batch_create_terminals(request).await
    };
    answer(batch(&client, "a", 15).await);
    let limited = status_of(batch(&client, "b", 15).await);
    expect_reason(&limited, "RATE_LIMITED");
    let retry = limited.get_details_retry_info().and_then(|info| info.retry_delay);
    // Four are left of 20 after the first of this one: ten more at three seconds each, and one.
    let retry = retry.expect("a time");
    assert!(retry > Duration::from_secs(28) && retry <= Duration::from_secs(33), "{retry:?}");
    // None of its entries was done, and the refusal is one event.
    let of_b = GetTerminalRequest { name: "terminals/b-0".to_owned() };
    let gone = status_of(service.plain.client.terminals().get_terminal(of_b).await);
    expect_reason(&gone, "TERMINAL_NOT_FOUND");
    let events = service.plain.vault.events_after(0, 1_000).await.expect("events");
    let told = events.iter().filter(|event| event.reason.as_deref() == Some("RATE_LIMITED"));
    let told: Vec<_> = told.map(|event| (event.action.as_str(), event.role.as_str())).collect();
    assert_eq!(told, [(Action::CreateTerminal.as_str(), Role::Backend.as_str())]);
    // One call more is still made.
    answer(batch(&client, "c", 1).await);
    drop(client);
    service.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_more_than_a_minutes_calls_takes_all_of_them() {
    let service = TlsService::start_with(with_backends_at(4)).await;
    let client = service.client("backend-1", Plane::Terminals).await;
    let entries = (0..40).map(|number| {
        let id = format!("a-{number}");
        create_terminal_request(&id, &format!("SN-{id}"), "dev-aes")
    });
    let request = BatchCreateTerminalsRequest { entries: entries.collect() };
    let made = answer(client.terminals().batch_create_terminals(request).await);
    assert_eq!(made.results.len(), 40);
    let next = client.terminals().list_terminals(ListTerminalsRequest::default()).await;
    expect_reason(&status_of(next), "RATE_LIMITED");
    drop(client);
    service.stop().await;
}

#[tokio::test]
async fn a_caller_has_so_many_streams_at_once_and_calls_beside_them() {
    let service = TlsService::start().await;
    let client = service.client("backend-1", Plane::Terminals).await;
    let watch = async || {
        let request = WatchTerminalsRequest { after_sequence: u64::MAX, ..Default::default() };
        client.terminals().watch_terminals(request).await
    };
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(answer(watch().await));
    }
    let limited = status_of(watch().await);
    expect_reason(&limited, "RATE_LIMITED");
    assert!(limited.get_details_retry_info().is_some());
    answer(client.terminals().list_terminals(ListTerminalsRequest::default()).await);
    // Who ends one may begin another.
    open.pop();
    let mut again = watch().await;
    for _ in 0..100 {
        if again.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        again = watch().await;
    }
    assert!(again.is_ok(), "its place is free again");
    drop((open, again, client));
    service.stop().await;
}

#[tokio::test]
async fn strangers_who_connect_keep_no_backend_out() {
    let limits = Limits {
        connections: ConnectionLimits {
            arriving: 10,
            uncertified: 6,
            uncertified_per_address: 6,
            step_seconds: 600,
            ..ConnectionLimits::default()
        },
        ..Limits::default()
    };
    let service = TlsService::start_within(limits).await;
    let address = service.url().replace("https://localhost", "127.0.0.1");
    // Every place for those who show nothing is taken, through the handshake and before it.
    let mut terminals = Vec::new();
    for _ in 0..6 {
        terminals.push(terminal_channel(&service).await);
    }
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(tokio::net::TcpStream::connect(&address).await.expect("a connection"));
    }
    // There is no place left for one more: no call of it is answered by the service itself.
    if let Ok(late) = service.connect(None).await {
        let request = BeginActivationRequest::default();
        let status = status_of(late.activation().begin_activation(request).await);
        assert!(status.get_error_details().error_info().is_none(), "{status}");
    }
    // From the same address, as behind a balancer of loads.
    for holder in ["backend-1", "officer-1"] {
        let plane = if holder == "backend-1" { Plane::Terminals } else { Plane::Admin };
        let client = service.client(holder, plane).await;
        match plane {
            Plane::Terminals => {
                let request = ListTerminalsRequest::default();
                answer(client.terminals().list_terminals(request).await);
            }
            _ => {
                answer(client.keys().list_keys(ListKeysRequest::default()).await);
            }
        }
    }
    // Of those who said nothing, all but the last gave way.
    let mut open = 0;
    for stream in &silent {
        if matches!(stream.try_read(&mut [0; 8]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        {
            open += 1;
        }
    }
    assert!(open <= 10, "{open}");
    drop((terminals, silent));
    service.stop().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut() {
    let service = TlsService::start().await;
    let address = service.url().replace("https://localhost", "127.0.0.1");
    // Nothing at all, and the begin of a ClientHello.
    for begun in [&[][..], &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]] {
        let stream = tokio::net::TcpStream::connect(&address).await.expect("a connection");
        stream.writable().await.expect("it is open");
        assert_eq!(stream.try_write(begun).expect("sent"), begun.len());
        let closed = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                stream.readable().await.expect("it becomes readable");
                match stream.try_read(&mut [0; 64]) {
                    Ok(0) => return,
                    Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return,
                    Ok(_) | Err(_) => {}
                }
            }
        });
        closed.await.expect("the service closes it");
    }
    answer(
        service
            .client("officer-1", Plane::Admin)
            .await
            .keys()
            .list_keys(ListKeysRequest::default())
            .await,
    );
    service.stop().await;
}

#[tokio::test]
async fn who_asks_for_the_health_keeps_to_the_limits_of_strangers() {
    let service = TlsService::start().await;
    let channel = terminal_channel(&service).await;
    let check = "/grpc.health.v1.Health/Check";
    let long = HealthCheckRequest { service: "x".repeat(2_000) }.encode_to_vec();
    expect_reason(&send(&channel, check, None, whole(&long)).await, "MESSAGE_INVALID");
    // A length that is announced makes no room before the octets come.
    expect_reason(&send(&channel, check, None, framed(0, 4 << 20, b"x")).await, "MESSAGE_INVALID");

    let mut health = HealthClient::new(channel.clone());
    let whole_service = || HealthCheckRequest::default();
    let mut watchers = Vec::new();
    for _ in 0..32 {
        watchers.push(health.watch(whole_service()).await.expect("a place").into_inner());
    }
    expect_reason(&status_of(health.watch(whole_service()).await), "RATE_LIMITED");
    expect_reason(&status_of(health.check(whole_service()).await), "RATE_LIMITED");
    // A caller with a certificate has places of its own.
    let relay = service.client("relay-1", Plane::Activation).await;
    let status =
        status_of(relay.activation().begin_activation(BeginActivationRequest::default()).await);
    assert_ne!(status.code(), Code::ResourceExhausted, "{status}");
    drop(watchers);
    let mut told = Err(Status::cancelled(""));
    for _ in 0..100 {
        told = health.check(whole_service()).await;
        if told.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(answer(told).status(), ServingStatus::Serving);
    service.stop().await;
}
