//! What those who run the service see: readiness, metrics, the status.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use firstkey::grpc::Check;
use firstkey::grpc::client::Client;
use firstkey::grpc::proto::{
    GenerateMacRequest, GetStatusRequest, Key, KeyState, KeyUsage, ListKeysRequest, MacAlgorithm,
    VerifyMacRequest,
};
use firstkey::server::Operations;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::answer;
use crate::known::{random, status_of, stored};
use crate::self_tests::{Gated, call};

async fn start() -> (Gated, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let operations = Operations { listener: Some(listener), ..Operations::default() };
    (Gated::start(operations).await, address)
}

/// The status code and the body of a plain HTTP request.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn readiness_names_each_check_and_what_is_wrong() {
    let (service, address) = start().await;
    assert_eq!(get(address, "/livez").await, (200, "alive\n".to_owned()));
    let (code, body) = get(address, "/readyz").await;
    assert_eq!(code, 200, "{body}");
    let told: serde_json::Value = serde_json::from_str(&body).unwrap();
    let names: Vec<_> = told["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, Check::ALL.map(Check::as_str));
    assert_eq!(get(address, "/nothing").await.0, 404);

    drop(service.gate.fail("SHA-256"));
    let (code, body) = get(address, "/readyz").await;
    assert_eq!(code, 503);
    assert!(body.contains("SHA-256 failed"), "{body}");
    assert_eq!(get(address, "/livez").await.0, 200, "the process lives, for its status");
    let (code, metrics) = get(address, "/metrics").await;
    assert_eq!(code, 200);
    assert!(metrics.contains("firstkey_self_test_failed 1"), "{metrics}");
    service.end().await;
}

/// Each metric that is published: its type, and its labels.
const PUBLISHED: [(&str, &str, &[&str]); 15] = [
    ("firstkey_audit_last_checkpoint_timestamp_seconds", "gauge", &[]),
    ("firstkey_audit_entries", "counter", &[]),
    ("firstkey_build", "info", &["version"]),
    ("firstkey_grpc_request_duration_seconds", "histogram", &["le", "method", "service"]),
    ("firstkey_grpc_requests", "counter", &["code", "method", "service"]),
    ("firstkey_healthy", "gauge", &["check"]),
    ("firstkey_keys", "gauge", &["state", "usage"]),
    ("firstkey_mac_verifications", "counter", &["algorithm", "result"]),
    ("firstkey_pin_translations", "counter", &["from", "result", "to"]),
    ("firstkey_sealed", "gauge", &[]),
    ("firstkey_self_test_failed", "gauge", &[]),
    ("firstkey_store_errors", "counter", &[]),
    ("firstkey_terminal_activations", "counter", &["result", "stage"]),
    ("firstkey_terminals", "gauge", &["state"]),
    ("firstkey_tls_cert_expiry_timestamp_seconds", "gauge", &[]),
];

/// The series of each metric, less their values.
fn series(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    let mut metric = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let published = PUBLISHED.iter().find(|(published, ..)| *published == name);
            assert_eq!(published.map(|(_, kind, _)| *kind), Some(kind), "{name} is not published");
            name.clone_into(&mut metric);
        } else if !line.starts_with('#') {
            let (series, _) = line.rsplit_once(' ').unwrap();
            found.entry(metric.clone()).or_default().insert(series.to_owned());
        }
    }
    found
}

fn labels_of(series: &str) -> BTreeSet<&str> {
    let inside = series.split_once('{').map_or("", |(_, rest)| rest.trim_end_matches('}'));
    inside.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name).collect()
}

#[tokio::test]
async fn what_is_counted_is_what_is_published_and_made_up_names_count_nothing() {
    let (service, address) = start().await;
    let client = Client::connect(&service.url).await.unwrap();
    let made = GenerateMacRequest {
        key: stored("dev-mac"),
        algorithm: MacAlgorithm::AesCmac.into(),
        message: b"message".to_vec(),
        mac_length_bytes: 16,
        ..GenerateMacRequest::default()
    };
    let mac = answer(client.macs().generate_mac(made.clone()).await).mac;
    let verify = |mac: Vec<u8>, algorithm: i32| VerifyMacRequest {
        key: made.key.clone(),
        algorithm,
        message: made.message.clone(),
        mac,
        ..VerifyMacRequest::default()
    };
    let cmac = MacAlgorithm::AesCmac.into();
    answer(client.macs().verify_mac(verify(mac, cmac)).await);
    status_of(client.macs().verify_mac(verify(random(16), cmac)).await);
    status_of(client.macs().verify_mac(verify(random(16), 4_711)).await);

    let text = get(address, "/metrics").await.1;
    for line in [
        "firstkey_mac_verifications_total{algorithm=\"AES_CMAC\",result=\"OK\"} 1",
        "firstkey_mac_verifications_total{algorithm=\"AES_CMAC\",result=\"MAC_MISMATCH\"} 1",
        "firstkey_mac_verifications_total{algorithm=\"OTHER\",result=\"FIELD_INVALID\"} 1",
        "firstkey_self_test_failed 0",
        "firstkey_healthy{check=\"store\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let requests = "firstkey_grpc_requests_total{service=\"firstkey.v1.MacService\",\
                    method=\"VerifyMac\",code=\"FAILED_PRECONDITION\"} 1";
    assert!(text.contains(requests), "{text}");
    let before = series(&text);
    for (name, of_one) in &before {
        let (.., labels) = PUBLISHED.iter().find(|(published, ..)| published == name).unwrap();
        let allowed: BTreeSet<_> = labels.iter().copied().collect();
        for series in of_one {
            assert!(labels_of(series).is_subset(&allowed), "{series}");
        }
    }

    // Whatever somebody makes up is counted together.
    let channel = service.channel().await;
    for number in 0..200 {
        for path in [
            format!("/made.up.Service{number}/Call"),
            format!("/firstkey.v1.MacService/Call{number}"),
            format!("/firstkey.v1.Service{number}/VerifyMac"),
            "/firstkey.v1.PinService/GetKey".to_owned(),
        ] {
            assert!(call(&channel, &path, Vec::new()).await.is_err());
        }
        let till = VerifyMacRequest {
            terminal: format!("terminals/till-{number}"),
            ..verify(random(16), cmac)
        };
        status_of(client.macs().verify_mac(till).await);
    }
    let after = series(&get(address, "/metrics").await.1);
    let grown = |name: &str| after[name].len() - before[name].len();
    // One series for what was made up, one for terminals that are not there.
    assert!(grown("firstkey_grpc_requests") <= 2, "{:?}", after["firstkey_grpc_requests"]);
    assert!(grown("firstkey_mac_verifications") <= 2, "{:?}", after["firstkey_mac_verifications"]);
    let all: usize = after.values().map(BTreeSet::len).sum();
    assert!(all < 300, "{all} series");
    service.end().await;
}

#[tokio::test]
async fn keys_and_terminals_are_counted_by_their_states() {
    let (service, address) = start().await;
    let client = Client::connect(&service.url).await.unwrap();
    let all = ListKeysRequest { page_size: 100, ..ListKeysRequest::default() };
    let keys = answer(client.keys().list_keys(all).await).keys;
    let is_counted =
        |key: &&Key| (key.usage(), key.state()) == (KeyUsage::PinEncryption, KeyState::Active);
    let active = keys.iter().filter(is_counted).count();
    assert!(active > 0 && active < keys.len());
    let mut text = String::new();
    for _ in 0..500 {
        text = get(address, "/metrics").await.1;
        if text.contains("firstkey_terminals{") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for line in [
        format!("firstkey_keys{{usage=\"P0\",state=\"ACTIVE\"}} {active}"),
        "firstkey_keys{usage=\"P0\",state=\"DESTROYED\"} 0".to_owned(),
        "firstkey_terminals{state=\"ACTIVE\"} 0".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    service.end().await;
}

#[test]
fn every_check_stands_in_the_protocol_and_in_the_handbook() {
    let read = |file: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        std::fs::read_to_string(path).unwrap()
    };
    let names = Check::ALL.map(|check| format!("`{}`", check.as_str()));
    // The comment goes over two lines.
    let lines = read("proto/firstkey/v1/status_service.proto");
    let comment = lines.split_whitespace().filter(|word| *word != "//").collect::<Vec<_>>();
    assert!(comment.join(" ").contains(&format!("What: {}.", names.join(", "))));
    let (last, others) = names.split_last().unwrap();
    let sentence = format!("{} and {last} are examined every three seconds", others.join(", "));
    let readme = read("deploy/README.md").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(readme.contains(&sentence), "{sentence}");
}

#[tokio::test]
async fn every_metric_stands_in_the_handbook() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    for (name, kind, labels) in PUBLISHED {
        let labels: Vec<_> = labels.iter().filter(|label| **label != "le").copied().collect();
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let row = format!("| `{name}{suffix}` | {kind} | {} |", labels.join(", "));
        assert!(readme.contains(&row), "{row}");
    }
}

#[tokio::test]
async fn the_status_tells_the_release_the_checks_and_each_protection() {
    let (service, _) = start().await;
    let client = Client::connect(&service.url).await.unwrap();
    let status = answer(client.status().get_status(GetStatusRequest {}).await);
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    assert_eq!((status.realm.as_str(), status.node.as_str()), ("dev", "test"));
    assert!(status.audit_sequence > 0);
    assert_eq!(status.checks.len(), Check::ALL.len());
    for check in &status.checks {
        assert!(check.healthy, "{}: {}", check.name, check.detail);
    }
    let names: Vec<_> = status.protections.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "callers_certified",
            "capabilities_dropped",
            "core_files_off",
            "core_pattern_plain",
            "dumpable_off",
            "executable_memory_off",
            "locked_memory",
            "memory_secret",
            "no_new_privileges",
            "speculation_limited",
            "swap_off",
            "system_calls_filtered",
            "umask_private",
        ]
    );
    let certified = &status.protections[0];
    assert!(!certified.in_force, "a development service has none");
    service.end().await;
}

#[tokio::test]
async fn who_asks_and_says_nothing_keeps_nobody_out_for_long() {
    let (_service, address) = start().await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // All that came before have to be cut first, sixteen at a time.
    let told = tokio::time::timeout(Duration::from_secs(30), get(address, "/livez")).await;
    assert_eq!(told.expect("an answer in time").0, 200);
    let mut first = silent.swap_remove(0);
    let mut rest = Vec::new();
    let cut = first.read_to_end(&mut rest).await;
    assert!(cut.is_err() || rest.is_empty(), "{rest:?}");
}
