//! The policy over the API: replaced with the consent of others, in force at once, asked for reasons.

use firstkey::agreement::Suite;
use firstkey::grpc::Plane;
use firstkey::grpc::client::{Client, ClientError, request_id};
use firstkey::grpc::proto::{
    ApproveRequest, CheckPolicyRequest, CheckPolicyResponse, GenerateMacRequest,
    GetApprovalRequest, LookupKsnRequest, MacAlgorithm, PinBlockFormat, SetPolicyRequest,
    WatchTerminalsRequest,
};
use firstkey::server::dev;
use firstkey::vault::{Grant, Policy, Principal};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::harness::{
    TlsService, answer, create_terminal_request, refusal, refused, told, with_master_key,
};
use crate::known::{expect_path, reason_of, status_of, stored};

const BACKEND: &str = "spiffe://dev.firstkey.internal/backend/backend-1";

fn mac(key: &str) -> GenerateMacRequest {
    GenerateMacRequest {
        key: stored(key),
        algorithm: MacAlgorithm::AesCmac.into(),
        message: b"message".to_vec(),
        mac_length_bytes: 16,
        ..GenerateMacRequest::default()
    }
}

fn grant(key: &str, calls: &[&str]) -> Grant {
    Grant {
        key: key.to_owned(),
        principals: vec![BACKEND.to_owned()],
        calls: calls.iter().map(|call| (*call).to_owned()).collect(),
        pin_formats_in: Vec::new(),
        pin_formats_out: Vec::new(),
        partner_keys: Vec::new(),
        calls_per_minute_max: 0,
        not_before: None,
        not_after: None,
    }
}

fn policy(grants: Vec<Grant>) -> Policy {
    Policy { grants, ..dev::policy() }
}

/// What a backend is told that makes a MAC; empty for the MAC.
async fn told_of(client: &Client, key: &str) -> String {
    match client.macs().generate_mac(mac(key)).await {
        Ok(_) => String::new(),
        Err(status) => reason_of(&status),
    }
}

#[tokio::test]
async fn a_policy_is_in_force_from_the_next_call_on() {
    let service = TlsService::start_with(policy(vec![grant("keys/dev-*", &["GenerateMac"])])).await;
    let backend = service.client("backend-1", Plane::Data).await;
    let plain = &service.plain.client;
    assert_eq!(told_of(&backend, "dev-mac").await, "");
    let first = plain.get_policy().await.unwrap();
    assert_eq!(first.version, 1);

    // The key is known, and not for this call; then it is not known; then nobody is.
    let steps = [
        (vec![grant("keys/dev-*", &["VerifyMac"])], "POLICY_DENIED"),
        (vec![grant("keys/other", &["GenerateMac"])], "KEY_NOT_FOUND"),
        (vec![grant("keys/dev-mac", &["GenerateMac"])], ""),
    ];
    for (version, (grants, expected)) in (1..).zip(steps) {
        let next = Policy { version, grants, ..first.clone() };
        let set = plain.set_policy(request_id(), &next).await.unwrap();
        assert_eq!(set, Policy { version: version + 1, ..next });
        assert_eq!(told_of(&backend, "dev-mac").await, expected);
    }
    let without = Policy {
        version: 4,
        grants: Vec::new(),
        principals: first.principals.iter().filter(|one| one.name != BACKEND).cloned().collect(),
        ..first.clone()
    };
    let id = request_id();
    let set = plain.set_policy(id.clone(), &without).await.unwrap();
    assert_eq!(told_of(&backend, "dev-mac").await, "CALLER_UNKNOWN");
    // The same request is answered the same; what another one replaced is not replaced again.
    assert_eq!(plain.set_policy(id, &without).await.unwrap(), set);
    let late = refused(plain.set_policy(request_id(), &without).await);
    assert_eq!((late.reason.as_str(), late.code), ("STORE_CONFLICT", Code::Aborted));
    drop(backend);
    service.stop().await;
}

#[tokio::test]
async fn policies_change_under_load_and_only_who_is_removed_is_refused() {
    let leaver = "spiffe://dev.firstkey.internal/backend/leaver";
    let mut begin = policy(vec![grant("keys/dev-mac", &["GenerateMac"])]);
    let known = begin.principals.iter().find(|one| one.name == BACKEND).unwrap().clone();
    begin.principals.push(Principal { name: leaver.to_owned(), ..known });
    begin.grants[0].principals.push(leaver.to_owned());
    let service = TlsService::start_with(begin).await;
    let plain = &service.plain.client;
    let backend = service.client("backend-1", Plane::Data).await;
    let watcher = service.client("backend-1", Plane::Terminals).await;
    let removed = service.connect(Some(&service.issue(leaver, Plane::Data))).await.unwrap();
    let watch = || WatchTerminalsRequest::default();
    let mut stream = answer(watcher.terminals().watch_terminals(watch()).await);
    let stop = tokio_util::sync::CancellationToken::new();
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let (backend, stop) = (backend.clone(), stop.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while !stop.is_cancelled() {
                    answer(backend.macs().generate_mac(mac("dev-mac")).await);
                    count += 1;
                }
                count
            })
        })
        .collect();
    for number in 0..8 {
        let mut next = plain.get_policy().await.unwrap();
        next.grants.push(grant(&format!("keys/other-{number}"), &["VerifyMac"]));
        if number == 5 {
            answer(removed.macs().generate_mac(mac("dev-mac")).await);
            next.principals.retain(|one| one.name != leaver);
            next.grants[0].principals.retain(|one| one != leaver);
        }
        plain.set_policy(request_id(), &next).await.unwrap();
        let expected = if number < 5 { "" } else { "CALLER_UNKNOWN" };
        assert_eq!(told_of(&removed, "dev-mac").await, expected, "{number}");
        let id = format!("till-{number}");
        service.plain.register(&id, Suite::P256Aes128).await;
        let told = stream.message().await.unwrap().expect("the stream goes on");
        assert_eq!(told.terminal, format!("terminals/{id}"));
    }
    stop.cancel();
    for calling in calls {
        let count: u32 = calling.await.expect("no call failed");
        assert!(count > 8, "{count}");
    }
    assert_eq!(plain.get_policy().await.unwrap().version, 9);
    drop((backend, watcher, removed, stream));
    service.stop().await;
}

#[tokio::test]
async fn a_policy_waits_for_another_officer() {
    let service = TlsService::start().await;
    let one = service.client("officer-1", Plane::Admin).await;
    let other = service.client("officer-2", Plane::Admin).await;
    let next = Policy { approval_seconds: 600, ..one.get_policy().await.unwrap() };
    let id = request_id();
    let asked = refused(one.set_policy(id.clone(), &next).await);
    assert_eq!(asked.reason, "APPROVAL_REQUIRED");
    let name = told(&asked, "approval").to_owned();
    let found =
        answer(other.approvals().get_approval(GetApprovalRequest { name: name.clone() }).await);
    let request_digest = found.approval.unwrap().request_digest;
    let approve = ApproveRequest { request_id: request_id(), name, request_digest };
    answer(other.approvals().approve(approve).await);
    assert_eq!(one.set_policy(id, &next).await.unwrap().version, 2);
    let events = service.plain.vault.events_after(0, 1_000).await.unwrap();
    let done = events.iter().rfind(|event| event.action == "SetPolicy" && event.is_done()).unwrap();
    assert_eq!(done.approvers, ["officer-2"]);
    assert_eq!(done.detail["sha256"], service.plain.vault.policy().digest());
    drop((one, other));
    service.stop().await;
}

#[tokio::test]
async fn a_document_that_is_no_policy_is_refused_by_its_field() {
    let service = TlsService::start().await;
    let plain = &service.plain.client;
    let sound = plain.get_policy().await.unwrap();
    let bad = Policy { grants: vec![grant("zone", &["VerifyMac"])], ..sound.clone() };
    let wrong = refused(plain.set_policy(request_id(), &bad).await);
    assert_eq!(
        (wrong.reason.as_str(), wrong.fields[0].0.as_str()),
        ("FIELD_INVALID", "policy.grants[0].key")
    );
    let request = SetPolicyRequest { request_id: request_id(), policy: None };
    expect_path(&status_of(plain.policy().set_policy(request).await), "FIELD_INVALID", "policy");
    // More than fits in another message, and less than in this.
    let many = |count: usize| {
        let one = |number: usize| {
            grant(
                &format!("keys/a-rather-long-name-of-a-key-that-stands-in-a-policy-{number}"),
                &["VerifyMac"],
            )
        };
        Policy { grants: (0..count).map(one).collect(), ..sound.clone() }
    };
    assert_eq!(plain.set_policy(request_id(), &many(2_000)).await.unwrap().version, 2);
    let long = plain.set_policy(request_id(), &Policy { version: 2, ..many(5_000) }).await;
    assert!(
        matches!(long, Err(ClientError::Refused(refusal)) if refusal.reason == "MESSAGE_INVALID")
    );
    service.stop().await;
}

#[tokio::test]
async fn the_development_backend_registers_terminals_with_their_master_keys() {
    let service = TlsService::start().await;
    let backend = service.client("backend-1", Plane::Terminals).await;
    for (place, key) in ["dev-master-aes", "dev-master-tdes"].into_iter().enumerate() {
        let request = create_terminal_request(&format!("t{place}"), &format!("SN-{place}"), key);
        answer(backend.terminals().create_terminal(with_master_key(request, key)).await);
    }
    let request =
        with_master_key(create_terminal_request("t9", "SN-9", "dev-master-aes"), "dev-mac");
    let refused = refusal(backend.terminals().create_terminal(request).await);
    assert_eq!(refused.reason, "POLICY_DENIED");
    drop(backend);
    service.stop().await;
}

#[tokio::test]
async fn a_key_serves_as_often_as_its_grant_says() {
    let limited = Grant { calls_per_minute_max: 2, ..grant("keys/dev-m*", &["GenerateMac"]) };
    let service = TlsService::start_with(policy(vec![limited])).await;
    let backend = service.client("backend-1", Plane::Data).await;
    for _ in 0..2 {
        answer(backend.macs().generate_mac(mac("dev-mac")).await);
    }
    let status = status_of(backend.macs().generate_mac(mac("dev-mac")).await);
    assert_eq!(
        (status.code(), reason_of(&status).as_str()),
        (Code::ResourceExhausted, "RATE_LIMITED")
    );
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap();
    assert!((1..=30).contains(&retry.as_secs()), "{retry:?}");
    // Another key has a rate of its own.
    let other = refusal(backend.macs().generate_mac(mac("dev-master-aes")).await);
    assert_eq!(other.reason, "KEY_USAGE_MISMATCH");
    for _ in 0..3 {
        refusal(backend.macs().generate_mac(mac("dev-mac")).await);
    }
    service.plain.vault.flush().await.unwrap();
    let events = service.plain.vault.events_after(0, 1_000).await.unwrap();
    let limited: Vec<_> =
        events.iter().filter(|event| event.reason.as_deref() == Some("RATE_LIMITED")).collect();
    // The first at once, its repetitions together.
    assert_eq!((limited.len(), limited[1].detail["repeated"].as_str()), (2, "3"));
    assert_eq!(limited[0].detail["rule"], "grant.calls_per_minute_max");
    assert_eq!(
        (limited[0].caller.as_str(), limited[0].resource.as_str()),
        (BACKEND, "keys/dev-mac")
    );
    drop(backend);
    service.stop().await;
}

#[tokio::test]
async fn a_key_is_looked_up_as_often_as_its_grant_says() {
    let limited = Grant { calls_per_minute_max: 2, ..grant("keys/dev-bdk-*", &["LookupKsn"]) };
    let service = TlsService::start_with(policy(vec![limited])).await;
    let backend = service.client("backend-1", Plane::Terminals).await;
    let look = async || {
        // Of the development key set, and of no terminal.
        let ksn = vec![0xDE, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1];
        backend.terminals().lookup_ksn(LookupKsnRequest { ksn }).await
    };
    for _ in 0..2 {
        assert_eq!(answer(look().await).base_derivation_key, "keys/dev-bdk-aes/versions/1");
    }
    let status = status_of(look().await);
    assert_eq!(reason_of(&status), "RATE_LIMITED");
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap();
    assert!((1..=30).contains(&retry.as_secs()), "{retry:?}");
    let events = service.plain.vault.events_after(0, 1_000).await.unwrap();
    let last = events.last().unwrap();
    assert_eq!((last.action.as_str(), last.reason.as_deref()), ("LookupKsn", Some("RATE_LIMITED")));
    assert_eq!(last.detail["rule"], "grant.calls_per_minute_max");
    drop(backend);
    service.stop().await;
}

#[tokio::test]
async fn an_officer_is_told_whether_a_grant_approves_an_export() {
    let officer = "spiffe://dev.firstkey.internal/officer/officer-1";
    let once = Grant {
        principals: vec![officer.to_owned()],
        partner_keys: vec!["keys/kek".to_owned()],
        ..grant("keys/bdk", &["ExportInitialKey"])
    };
    let service = TlsService::start_with(policy(vec![once.clone()])).await;
    let auditor = service.client("auditor-1", Plane::Admin).await;
    for (partner_key, approval_required, last) in [
        ("keys/kek", false, "grants[0], for keys/bdk: approves it beforehand"),
        (
            "keys/other",
            true,
            "no grant that holds names the caller, keys/bdk and keys/other, each in full: other \
             officers approve each such call",
        ),
        ("", true, "a grant can approve it beforehand: ask with both keys whether one does"),
    ] {
        let request = CheckPolicyRequest {
            principal: officer.to_owned(),
            call: "ExportInitialKey".to_owned(),
            resource: "keys/bdk".to_owned(),
            partner_key: partner_key.to_owned(),
            ..CheckPolicyRequest::default()
        };
        let told = answer(auditor.policy().check_policy(request).await);
        assert!(told.allowed && told.approval_required == approval_required, "{partner_key}");
        assert_eq!(told.because.last().unwrap(), last);
    }
    // One that would approve nothing is no grant.
    let plain = &service.plain.client;
    let vague = Grant { partner_keys: Vec::new(), ..once };
    let next = Policy { grants: vec![vague], ..plain.get_policy().await.unwrap() };
    let wrong = refused(plain.set_policy(request_id(), &next).await);
    assert_eq!(wrong.fields[0].0, "policy.grants[0].partner_keys");
    drop(auditor);
    service.stop().await;
}

#[tokio::test]
async fn the_policy_says_why() {
    let pins = Grant {
        pin_formats_in: vec!["ISO_0".to_owned()],
        partner_keys: vec!["keys/zone".to_owned()],
        ..grant("keys/bdk", &["TranslatePin"])
    };
    let zone = grant("keys/zone", &["TranslatePin", "VerifyMac"]);
    let service = TlsService::start_with(policy(vec![pins, zone])).await;
    let auditor = service.client("auditor-1", Plane::Admin).await;
    let ask = async |principal: &str, call: &str, resource: &str, format, partner: &str| {
        let request = CheckPolicyRequest {
            principal: principal.to_owned(),
            call: call.to_owned(),
            resource: resource.to_owned(),
            pin_format_in: PinBlockFormat::into(format),
            pin_format_out: PinBlockFormat::Iso4.into(),
            partner_key: partner.to_owned(),
        };
        answer(auditor.policy().check_policy(request).await)
    };
    let last = |answer: &CheckPolicyResponse| answer.because.last().unwrap().clone();
    let (iso_0, iso_3) = (PinBlockFormat::Iso0, PinBlockFormat::Iso3);

    let allowed = ask(BACKEND, "TranslatePin", "keys/bdk", iso_0, "keys/zone").await;
    assert_eq!(
        (allowed.allowed, allowed.approval_required, allowed.policy_version),
        (true, false, 1)
    );
    assert_eq!(allowed.because.len(), 4, "{:?}", allowed.because);
    let no_key = "no grant names the caller and keys/other: it is told that there is no such key";
    for (resource, format, partner, expected) in [
        (
            "keys/bdk",
            iso_3,
            "keys/zone",
            "grants[0], for keys/bdk: lets in ISO_0, and lets out all",
        ),
        ("keys/bdk", iso_0, "keys/other", no_key),
        ("keys/other", iso_0, "keys/zone", no_key),
    ] {
        let denied = ask(BACKEND, "TranslatePin", resource, format, partner).await;
        assert_eq!((denied.allowed, last(&denied).as_str()), (false, expected));
    }
    let call = ask(BACKEND, "GenerateMac", "keys/zone", iso_0, "").await;
    assert_eq!(last(&call), "grants[1], for keys/zone: is for TranslatePin, VerifyMac alone");
    let role = ask(BACKEND, "ExportKey", "keys/zone", iso_0, "").await;
    assert_eq!((role.allowed, last(&role).as_str()), (false, "ExportKey is for officer alone"));
    let nobody = ask("spiffe://x/y", "ExportKey", "", iso_0, "").await;
    assert_eq!(last(&nobody), "no principal is named spiffe://x/y: the caller is nobody");
    let officer = "spiffe://dev.firstkey.internal/officer/officer-1";
    let officer = ask(officer, "SetPolicy", "", iso_0, "").await;
    assert_eq!((officer.allowed, officer.approval_required), (true, true));
    let profile = ask(BACKEND, "GetTerminal", "profiles/dev-aes", iso_0, "").await;
    assert!(profile.allowed, "{:?}", profile.because);
    let request = CheckPolicyRequest {
        principal: "a:b".to_owned(),
        call: "Sign".to_owned(),
        ..CheckPolicyRequest::default()
    };
    let status = status_of(auditor.policy().check_policy(request).await);
    expect_path(&status, "FIELD_INVALID", "call");
    drop(auditor);
    service.stop().await;
}
