//! `AuditService`: who reads what, and what a reader holds in hand afterwards.

use std::sync::{Arc, Mutex};

use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::Plane;
use firstkey::grpc::client::{Client, Refusal, request_id};
use firstkey::grpc::proto;
use firstkey::server::dev;
use firstkey::vault::store::SqliteStore;
use firstkey::vault::{
    Action, AuditSettings, Caller, Checkpoint, CheckpointAt, Event, OpenError, Opening, Vault,
    VerifierKey, Witness, WitnessFailed, verify_export,
};

use crate::harness::{
    Service, TempFolder, TestClock, TlsService, answer, development_keys, refusal,
};
use crate::known::stored;

async fn listed(client: &Client, after: u64, resource: &str, page_size: u32) -> (Vec<String>, u64) {
    let request = proto::ListEventsRequest { page_size, after, resource: resource.to_owned() };
    let page = answer(client.audit().list_events(request).await);
    (page.events, page.last)
}

/// The events of an export, and the checkpoint over them.
async fn exported(client: &Client) -> (Vec<Vec<u8>>, Checkpoint) {
    let request = proto::ExportEventsRequest { after: 0 };
    let mut stream = answer(client.audit().export_events(request).await);
    let mut lines = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        lines.extend(message.events.into_iter().map(String::into_bytes));
        if !message.checkpoint.is_empty() {
            assert!(stream.message().await.unwrap().is_none(), "the checkpoint comes last");
            let key = VerifierKey::parse(&message.verifier_key).unwrap();
            return (lines, Checkpoint::open(&message.checkpoint, &key).unwrap());
        }
    }
    panic!("no checkpoint");
}

fn hashes(hashes: &[Vec<u8>]) -> Vec<[u8; 32]> {
    hashes.iter().map(|hash| hash.as_slice().try_into().unwrap()).collect()
}

#[tokio::test]
async fn an_auditor_reads_exports_and_proves_the_log_over_tls() {
    let service = TlsService::start_durable().await;
    let auditor = service.client("auditor-1", Plane::Admin).await;
    let (first, last) = listed(&auditor, 0, "", 3).await;
    assert_eq!((first.len(), last), (3, 3));
    let stored = service.plain.vault.events_after(0, 3).await.unwrap();
    let stored: Vec<Vec<u8>> = stored.iter().map(Event::encode).collect();
    assert_eq!(first.iter().map(String::as_bytes).collect::<Vec<_>>(), stored);
    let (about, last) = listed(&auditor, 0, "keys/dev-bdk-aes", 100).await;
    assert!(!about.is_empty());
    assert!(about.iter().all(|event| event.contains("\"resource\":\"keys/dev-bdk-aes\"")));
    assert!(last > 3, "what was passed over was looked at");

    let (lines, checkpoint) = exported(&auditor).await;
    let report = verify_export(lines.iter().cloned(), Some(&checkpoint), None).unwrap();
    assert_eq!((report.events, report.covered), (checkpoint.root.size, checkpoint.root.size));
    // Who read what stands at the end of what was read.
    let readings: Vec<Event> =
        lines[lines.len() - 3..].iter().map(|line| Event::parse(line).unwrap()).collect();
    let calls: Vec<&str> = readings.iter().map(|event| event.action.as_str()).collect();
    assert_eq!(calls, ["ListEvents", "ListEvents", "ExportEvents"]);
    assert!(readings.iter().all(|event| event.role == "auditor" && !event.certificate.is_empty()));

    let size = checkpoint.root.size;
    for sequence in [1, 2, size / 2, size] {
        let request = proto::ProveInclusionRequest { sequence, size };
        let proof = answer(auditor.audit().prove_inclusion(request).await);
        assert_eq!(proof.root, checkpoint.root.hash);
        let event = &lines[usize::try_from(sequence - 1).unwrap()];
        let event = std::str::from_utf8(event).unwrap();
        let held = checkpoint.verify_event(sequence, event, &hashes(&proof.hashes));
        assert_eq!(held, Ok(()));
        let request = proto::ProveConsistencyRequest { first: sequence, second: size };
        let proof = answer(auditor.audit().prove_consistency(request).await);
        let root = proof.first_root.as_slice().try_into().unwrap();
        let mut older = checkpoint.clone();
        (older.root.size, older.root.hash) = (sequence, root);
        assert_eq!(checkpoint.verify_continues(&older, &hashes(&proof.hashes)), Ok(()));
    }
    service.stop().await;
}

#[tokio::test]
async fn the_log_is_an_auditors_alone() {
    let service = TlsService::start().await;
    for holder in ["officer-1", "operator-1", "custodian-1"] {
        let client = service.client(holder, Plane::Admin).await;
        let refused = refusal(client.audit().get_checkpoint(proto::GetCheckpointRequest {}).await);
        assert_eq!(refused.reason, "POLICY_DENIED", "{holder}");
        let request = proto::ListEventsRequest::default();
        let refused = refusal(client.audit().list_events(request).await);
        assert_eq!(refused.reason, "POLICY_DENIED", "{holder}");
    }
    // And an auditor has nothing else to do with keys.
    let auditor = service.client("auditor-1", Plane::Admin).await;
    let refused = refusal(auditor.keys().list_keys(proto::ListKeysRequest::default()).await);
    assert_eq!(refused.reason, "POLICY_DENIED");
    service.stop().await;
}

#[tokio::test]
async fn what_can_not_be_proven_is_refused_with_the_field() {
    let service = Service::start().await;
    let size = service.vault.log_size().await.unwrap();
    let fields = |refused: Refusal| -> Vec<String> {
        assert_eq!(refused.reason, "FIELD_INVALID");
        refused.fields.into_iter().map(|(field, _)| field).collect()
    };
    let audit = || service.client.audit();
    for (sequence, of, field) in [
        (0, 1, "sequence"),
        (2, 1, "sequence"),
        (1, 0, "sequence"),
        (1, size + 100, "size"),
        (u64::MAX, u64::MAX, "size"),
    ] {
        let request = proto::ProveInclusionRequest { sequence, size: of };
        assert_eq!(fields(refusal(audit().prove_inclusion(request).await)), [field]);
    }
    for (first, second, field) in
        [(0, 1, "first"), (2, 1, "first"), (1, size + 100, "second"), (0, 0, "first")]
    {
        let request = proto::ProveConsistencyRequest { first, second };
        assert_eq!(fields(refusal(audit().prove_consistency(request).await)), [field]);
    }
    let request = proto::ExportEventsRequest { after: u64::MAX };
    assert_eq!(fields(refusal(audit().export_events(request).await)), ["after"]);
    let request = proto::ListEventsRequest { page_size: 101, ..Default::default() };
    assert_eq!(fields(refusal(audit().list_events(request).await)), ["page_size"]);
    let request = proto::ListEventsRequest { resource: "\n".into(), ..Default::default() };
    assert_eq!(fields(refusal(audit().list_events(request).await)), ["resource"]);
    // After the last event there is nothing, and the next page begins where this one ended.
    let (events, last) = listed(&service.client, u64::MAX - 1, "", 10).await;
    assert_eq!((events.len(), last), (0, u64::MAX - 1));
    service.stop().await;
}

/// What the event of the newest call tells of legacy algorithms.
async fn legacy(service: &Service) -> Option<String> {
    let events = service.vault.events_after(0, 1_000).await.unwrap();
    let calls = ["CreateKey", "GenerateMac", "VerifyMac"];
    let mut told = events.iter().rev().filter(|event| !event.detail.contains_key("repeated"));
    let event = told.find(|event| calls.contains(&event.action.as_str())).unwrap();
    event.detail.get("legacy").cloned()
}

fn told(is_legacy: bool) -> Option<String> {
    is_legacy.then(|| "TDES".to_owned())
}

#[tokio::test]
async fn a_call_with_a_key_of_tdes_is_told_as_one_with_a_legacy_algorithm() {
    use proto::KeyAlgorithm::{
        Aes128, Aes192, Aes256, Hmac128, Hmac192, Hmac256, Hmac384, Hmac512, Tdes2, Tdes3,
    };
    let service = Service::start().await;
    for algorithm in
        [Tdes2, Tdes3, Aes128, Aes192, Aes256, Hmac128, Hmac192, Hmac256, Hmac384, Hmac512]
    {
        let name = algorithm.as_str_name();
        let (usage, mac) = match name.strip_prefix("KEY_ALGORITHM_").unwrap().get(..3) {
            Some("TDE") => (proto::KeyUsage::MacCmac, proto::MacAlgorithm::TdesCmac),
            Some("AES") => (proto::KeyUsage::MacCmac, proto::MacAlgorithm::AesCmac),
            _ => (proto::KeyUsage::MacHmac, proto::MacAlgorithm::HmacSha256),
        };
        let is_legacy = matches!(algorithm, Tdes2 | Tdes3);
        let key_id = name.to_lowercase().replace('_', "-");
        let create = proto::CreateKeyRequest {
            request_id: request_id(),
            key_id: key_id.clone(),
            usage: usage.into(),
            algorithm: algorithm.into(),
            ..Default::default()
        };
        answer(service.client.keys().create_key(create).await);
        assert_eq!(legacy(&service).await, told(is_legacy), "CreateKey, {name}");
        let generate = proto::GenerateMacRequest {
            key: stored(&key_id),
            algorithm: mac.into(),
            message: b"message".to_vec(),
            mac_length_bytes: 8,
            ..Default::default()
        };
        answer(service.client.macs().generate_mac(generate).await);
        assert_eq!(legacy(&service).await, told(is_legacy), "GenerateMac, {name}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_call_with_a_working_key_of_tdes_is_told_as_one_with_a_legacy_algorithm() {
    use proto::KeyAlgorithm::{Aes128, Tdes2, Tdes3, Unspecified};
    // A base derivation key of AES, and each kind of working key below it; one of TDES.
    let of_aes = b"\x12\x34\x56\x78\x90\x12\x34\x56\0\0\0\x01".as_slice();
    let of_tdes = b"\xff\xff\x98\x76\x54\x32\x10\xe0\0\x01".as_slice();
    for (ksn, algorithm, is_legacy) in [
        (of_aes, Unspecified, false),
        (of_aes, Aes128, false),
        (of_aes, Tdes2, true),
        (of_aes, Tdes3, true),
        (of_tdes, Unspecified, true),
    ] {
        let key = proto::DukptKey {
            ksn: ksn.to_vec(),
            algorithm: algorithm.into(),
            ..Default::default()
        };
        // Refusals that follow each other are counted together: each has a service of its own.
        let service = Service::start().await;
        let tdes = is_legacy.then_some(proto::MacAlgorithm::TdesCmac);
        let verify = proto::VerifyMacRequest {
            key: Some(proto::WorkingKey { key: Some(proto::working_key::Key::Dukpt(key)) }),
            direction: proto::Direction::Request.into(),
            algorithm: tdes.unwrap_or(proto::MacAlgorithm::AesCmac).into(),
            message: b"message".to_vec(),
            mac: vec![0; 8],
            ..Default::default()
        };
        let refused = refusal(service.client.macs().verify_mac(verify).await);
        assert_eq!(refused.reason, "MAC_MISMATCH");
        assert_eq!(
            legacy(&service).await,
            told(is_legacy),
            "VerifyMac, {}",
            algorithm.as_str_name()
        );
        service.stop().await;
    }
}

#[tokio::test]
async fn a_run_begins_and_ends_in_the_log() {
    let service = Service::start_durable().await;
    let start = service.vault.events_after(0, 1_000).await.unwrap();
    let start = start.iter().find(|event| event.action == "StartService").unwrap();
    assert_eq!((start.caller.as_str(), start.role.as_str()), ("service", "service"));
    assert_eq!(start.detail["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(start.detail["realm"], "dev");
    let (folder, ..) = service.stop().await;
    let folder = folder.unwrap();
    let vault = open(&folder.path().join("store"), "test", None).await.unwrap();
    let size = vault.log_size().await.unwrap();
    let last = vault.events_after(size - 1, 1).await.unwrap();
    assert_eq!(last[0].action, "StopService");
    vault.close().await;
}

/// A witness in memory.
#[derive(Debug, Default)]
struct Outside(Mutex<Option<String>>);

impl Witness for Outside {
    fn last(&self) -> Result<Option<String>, WitnessFailed> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn keep(&self, note: &str) -> Result<(), WitnessFailed> {
        *self.0.lock().unwrap() = Some(note.to_owned());
        Ok(())
    }
}

async fn open(
    folder: &std::path::Path,
    node: &str,
    outside: Option<&Arc<Outside>>,
) -> Result<Vault, OpenError> {
    let witness = outside.cloned().map(|outside| -> Arc<dyn Witness> { outside });
    Vault::open(Opening {
        store: Arc::new(SqliteStore::open(folder).unwrap()),
        master_key: development_keys().seal().unwrap(),
        realm: dev::REALM,
        clock: TestClock::begin(),
        rng: Arc::new(SystemRng::new()),
        node: node.to_owned(),
        audit: AuditSettings { witness, ..AuditSettings::default() },
    })
    .await
}

async fn write(vault: &Vault, caller: &str, count: usize) {
    let caller = Caller::for_dev_only(caller);
    for _ in 0..count {
        let work = vault.begin(&caller, Action::GetKey, "keys/x").await.unwrap();
        work.commit().await.unwrap();
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn a_store_that_was_set_back_or_forked_is_found_at_start_against_the_checkpoint_outside() {
    let folder = TempFolder::new();
    let (store, old) = (folder.path().join("store"), folder.path().join("old"));
    let outside = Arc::new(Outside::default());
    let vault = open(&store, "n", Some(&outside)).await.unwrap();
    write(&vault, "test", 10).await;
    vault.close().await;
    copy(&store, &old);
    let vault = open(&store, "n", Some(&outside)).await.unwrap();
    write(&vault, "test", 10).await;
    vault.close().await;
    let at = CheckpointAt::Outside;
    // The store as it is opens; as it was it does not, unless nothing outside tells.
    open(&store, "n", Some(&outside)).await.unwrap().close().await;
    let error = open(&old, "n", Some(&outside)).await.err();
    assert_eq!(error, Some(OpenError::RolledBack { at, kept: 20, found: 10 }));
    let vault = open(&old, "n", None).await.unwrap();
    write(&vault, "somebody else", 15).await;
    vault.close().await;
    // Written on from there it is as long, and another.
    let error = open(&old, "n", Some(&outside)).await.err();
    assert_eq!(error, Some(OpenError::Forked { at, size: 20 }));
    open(&store, "n", Some(&outside)).await.unwrap().close().await;
}
