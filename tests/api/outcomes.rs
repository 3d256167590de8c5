//! No call without its event: each one of the API, made once, leaves exactly one outcome in the log,
//! in the form of an event and with nothing secret in it.

use std::collections::BTreeSet;

use firstkey::agreement::Suite;
use firstkey::crypto::certificate::authority::Authority;
use firstkey::grpc::client::request_id;
use firstkey::grpc::{DESCRIPTORS, SERVICE_NAMES, proto};
use firstkey::server::dev::{self, validity};
use firstkey::server::simulation::{registration, translate_request, verify_request};
use firstkey::vault::{Action, Event, EventDecision, Reason};
use prost::Message as _;
use serde_json::Value;
use tonic::{Response, Status};

use crate::approvals::{live, officer, waits};
use crate::ceremony;
use crate::harness::{BEGIN_SECONDS, CARD_PAN, Service, Till, answer, serial_of, terminal_name};
use crate::profiles::update;
use crate::switch::both;

/// Calls that are made elsewhere, with what holds their events against them.
const ELSEWHERE: &[(&str, &str)] = &[
    ("CreateIdentityKey", "made when a development service is prepared; looked up below"),
    ("AbandonMasterKey", "sealing has tests of its own: a service in earnest, and its log"),
    ("ConfirmShare", "sealing has tests of its own: a service in earnest, and its log"),
    ("CreateMasterKey", "sealing has tests of its own: a service in earnest, and its log"),
    ("GetSealStatus", "sealing has tests of its own: a service in earnest, and its log"),
    ("Seal", "sealing has tests of its own: a service in earnest, and its log"),
    ("TakeShare", "sealing has tests of its own: a service in earnest, and its log"),
    ("Unseal", "sealing has tests of its own: a service in earnest, and its log"),
];

/// A service, and the calls that were made of it.
struct Tally {
    service: Service,
    made: BTreeSet<String>,
    /// What must not stand in any event.
    secrets: Vec<String>,
}

impl Tally {
    /// Makes one call, which leaves one event.
    async fn one<T>(
        &mut self,
        rpc: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> T {
        let before = self.size().await;
        let answered = answer(call.await);
        self.expect(before, &[rpc]).await;
        answered
    }

    async fn size(&self) -> u64 {
        self.service.vault.log_size().await.unwrap()
    }

    /// Since then there is one event of each of these calls, done, and no other.
    async fn expect(&mut self, before: u64, rpcs: &[&str]) {
        let events = self.service.vault.events_after(before, 100).await.unwrap();
        let told: Vec<&str> = events.iter().map(|event| event.action.as_str()).collect();
        let actions: Vec<&str> =
            rpcs.iter().map(|rpc| Action::of_rpc(rpc).expect("an action").as_str()).collect();
        assert_eq!(told, actions);
        assert!(events.iter().all(Event::is_done), "{rpcs:?}");
        self.made.extend(rpcs.iter().map(|&rpc| rpc.to_owned()));
    }
}

#[tokio::test]
async fn each_call_leaves_one_event_of_the_one_form_and_nothing_secret() {
    let service = Service::start_durable().await;
    let mut tally = Tally { service, made: BTreeSet::new(), secrets: vec![CARD_PAN.to_owned()] };
    keys(&mut tally).await;
    trust(&mut tally).await;
    profiles(&mut tally).await;
    registered(&mut tally).await;
    let till = activated(&mut tally).await;
    transactions(&mut tally, till).await;
    audited(&mut tally).await;
    policy(&mut tally).await;
    let of_approvals = agreed(&mut tally.made).await;
    let of_ceremonies = ceremony::events_of_every_call().await;
    for event in &of_ceremonies {
        tally.made.insert(event.action.clone());
    }
    let events = tally.service.vault.events_after(0, 1_000).await.unwrap();
    let identity = events.iter().filter(|event| event.action == "CreateIdentityKey");
    assert_eq!(identity.count(), 1);
    for (call, _) in ELSEWHERE {
        tally.made.insert((*call).to_owned());
    }
    let every = every_call();
    let missing: Vec<&String> = every.difference(&tally.made).collect();
    assert!(missing.is_empty(), "calls that were not made: {missing:?}");
    for event in events.iter().chain(&of_approvals).chain(&of_ceremonies) {
        has_the_form(event);
        for secret in &tally.secrets {
            assert!(!text(event).contains(secret), "{}", text(event));
        }
        assert!(!holds_a_pan(event), "{}", text(event));
    }
    tally.service.stop().await;
}

fn text(event: &Event) -> String {
    String::from_utf8(event.encode()).unwrap()
}

/// The calls of the services that are served.
fn every_call() -> BTreeSet<String> {
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let mut calls = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            if SERVICE_NAMES.contains(&name.as_str()) {
                calls.extend(service.method.iter().map(|method| method.name().to_owned()));
            }
        }
    }
    assert!(calls.len() > 50);
    calls
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn has_the_form(event: &Event) {
    let said = text(event);
    assert_eq!(Event::parse(said.as_bytes()).as_ref(), Some(event), "{said}");
    let json: Value = serde_json::from_str(&said).unwrap();
    let members: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(members.len(), 16, "{said}");
    assert!(Action::ALL.iter().any(|action| action.as_str() == event.action), "{said}");
    assert!(is_hex(&event.prev, 64) && event.time.0 >= BEGIN_SECONDS * 1_000, "{said}");
    assert!(event.certificate.is_empty() || is_hex(&event.certificate, 64), "{said}");
    assert!(event.request.as_ref().is_none_or(|hash| is_hex(hash, 64)), "{said}");
    assert!(!event.caller.is_empty() && !event.role.is_empty(), "{said}");
    let refused = event.decision == EventDecision::Refused;
    assert_eq!(event.reason.is_some(), refused, "{said}");
    let known = |reason: &String| Reason::ALL.iter().any(|one| one.as_str() == reason);
    assert!(event.reason.as_ref().is_none_or(known), "{said}");
    for key in &event.keys {
        assert!(key.name.starts_with("keys/") && key.name.contains("/versions/"), "{said}");
        let octets = key.check_value.len() / 2;
        assert!((3..=5).contains(&octets), "{said}");
    }
}

/// Whether a string of an event holds 13 to 19 digits by themselves with a right check digit.
fn holds_a_pan(event: &Event) -> bool {
    let json: Value = serde_json::from_str(&text(event)).unwrap();
    let mut strings: Vec<&str> = Vec::new();
    gather(&json, &mut strings);
    strings.into_iter().flat_map(|one| one.split(|c: char| !c.is_ascii_alphanumeric())).any(
        |word| {
            (13..=19).contains(&word.len())
                && word.bytes().all(|b| b.is_ascii_digit())
                && luhn(word)
        },
    )
}

fn gather<'a>(json: &'a Value, strings: &mut Vec<&'a str>) {
    match json {
        Value::String(text) => strings.push(text),
        Value::Array(items) => items.iter().for_each(|item| gather(item, strings)),
        Value::Object(members) => members.values().for_each(|item| gather(item, strings)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// ISO/IEC 7812-1, annex B.
fn luhn(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let value = u32::from(digit - b'0') * if place % 2 == 1 { 2 } else { 1 };
            value / 10 + value % 10
        })
        .sum();
    sum.is_multiple_of(10)
}

#[test]
fn a_pan_would_be_found() {
    assert!(luhn(CARD_PAN) && !luhn("4111111111111112"));
}

async fn keys(tally: &mut Tally) {
    let client = tally.service.client.clone();
    let create = proto::CreateKeyRequest {
        request_id: request_id(),
        key_id: "mac".to_owned(),
        usage: proto::KeyUsage::MacCmac.into(),
        algorithm: proto::KeyAlgorithm::Aes128.into(),
        exportability: proto::Exportability::Exportable.into(),
        ..proto::CreateKeyRequest::default()
    };
    tally.one("CreateKey", client.keys().create_key(create)).await;
    let name = || "keys/mac".to_owned();
    tally.one("GetKey", client.keys().get_key(proto::GetKeyRequest { name: name() })).await;
    let list = proto::ListKeysRequest::default();
    tally.one("ListKeys", client.keys().list_keys(list)).await;
    let list = proto::ListKeyVersionsRequest { name: name(), ..Default::default() };
    tally.one("ListKeyVersions", client.keys().list_key_versions(list)).await;
    let export = proto::ExportKeyRequest {
        request_id: request_id(),
        name: name(),
        wrapping_key: "keys/dev-kek".to_owned(),
        ..proto::ExportKeyRequest::default()
    };
    let key_block = tally.one("ExportKey", client.keys().export_key(export)).await.key_block;
    tally.secrets.push(key_block.clone());
    let inspect = proto::InspectKeyBlockRequest { key_block: key_block.clone() };
    tally.one("InspectKeyBlock", client.keys().inspect_key_block(inspect)).await;
    let import = proto::ImportKeyRequest {
        request_id: request_id(),
        key_id: "mac-again".to_owned(),
        key_block,
        wrapping_key: "keys/dev-kek".to_owned(),
        ..proto::ImportKeyRequest::default()
    };
    tally.one("ImportKey", client.keys().import_key(import)).await;
    let initial = proto::ExportInitialKeyRequest {
        request_id: request_id(),
        base_derivation_key: "keys/dev-bdk-x924-aes".to_owned(),
        wrapping_key: "keys/dev-kek".to_owned(),
    };
    let block = tally.one("ExportInitialKey", client.keys().export_initial_key(initial)).await;
    tally.secrets.push(block.key_block);
    let state = proto::SetKeyStateRequest {
        request_id: request_id(),
        name: "keys/mac-again".to_owned(),
        state: proto::KeyState::Suspended.into(),
        serve_until: None,
    };
    tally.one("SetKeyState", client.keys().set_key_state(state)).await;
    life_of_a_key(tally).await;
    let key = proto::working_key::Key::StaticKey(name());
    let generate = proto::GenerateMacRequest {
        key: Some(proto::WorkingKey { key: Some(key) }),
        algorithm: proto::MacAlgorithm::AesCmac.into(),
        message: b"message".to_vec(),
        mac_length_bytes: 8,
        ..proto::GenerateMacRequest::default()
    };
    tally.one("GenerateMac", client.macs().generate_mac(generate)).await;
}

async fn life_of_a_key(tally: &mut Tally) {
    let client = tally.service.client.clone();
    let create = proto::CreateKeyRequest {
        request_id: request_id(),
        key_id: "short".to_owned(),
        usage: proto::KeyUsage::MacCmac.into(),
        algorithm: proto::KeyAlgorithm::Aes128.into(),
        pre_active: true,
        ..proto::CreateKeyRequest::default()
    };
    client.keys().create_key(create).await.expect("a key that is not in use");
    let name = || "keys/short".to_owned();
    let destroy = proto::SetKeyStateRequest {
        request_id: request_id(),
        name: name(),
        state: proto::KeyState::Destroyed.into(),
        serve_until: None,
    };
    client.keys().set_key_state(destroy).await.expect("it never was");
    let ask = proto::GetDestructionCertificateRequest { name: name() };
    let mut keys = client.keys();
    tally.one("GetDestructionCertificate", keys.get_destruction_certificate(ask)).await;
    let rotate = proto::RotateKeyRequest {
        request_id: request_id(),
        name: name(),
        keep_primary: true,
        ..proto::RotateKeyRequest::default()
    };
    tally.one("RotateKey", client.keys().rotate_key(rotate)).await;
    let version = format!("{}/versions/2", name());
    let set = proto::SetPrimaryVersionRequest { request_id: request_id(), name: version };
    tally.one("SetPrimaryVersion", client.keys().set_primary_version(set)).await;
    let paths = vec!["labels".to_owned()];
    let update = proto::UpdateKeyRequest {
        request_id: request_id(),
        key: Some(proto::Key { name: name(), ..proto::Key::default() }),
        update_mask: Some(prost_types::FieldMask { paths }),
    };
    tally.one("UpdateKey", client.keys().update_key(update)).await;
}

async fn trust(tally: &mut Tally) {
    let client = tally.service.client.clone();
    let get = proto::GetIdentityRequest {};
    tally.one("GetIdentity", client.trust().get_identity(get)).await;
    let ask = proto::CreateCertificateRequestRequest { common_name: "firstkey 2".to_owned() };
    let mut trust = client.trust();
    let call = trust.create_certificate_request(ask);
    let asked = tally.one("CreateCertificateRequest", call).await.certificate_request;
    let authority = Authority::new("another root", validity(BEGIN_SECONDS)).unwrap();
    // The terminals of this test trust the acquirer's own root, so its own certificate stays.
    let acquirer = &tally.service.pki.acquirer;
    let valid = validity(BEGIN_SECONDS);
    let own = acquirer.issue_service_from_request(&asked, dev::ACQUIRER_ID, valid).unwrap();
    let certificate_chain = vec![own, acquirer.root_der().to_vec()];
    let import = proto::ImportCertificateRequest { request_id: request_id(), certificate_chain };
    tally.one("ImportCertificate", client.trust().import_certificate(import)).await;
    let create = proto::CreateDeviceAuthorityRequest {
        request_id: request_id(),
        device_authority_id: "other-vendor".to_owned(),
        vendor: "other".to_owned(),
        model: "other".to_owned(),
        certificate: authority.root_der().to_vec(),
    };
    tally.one("CreateDeviceAuthority", client.trust().create_device_authority(create)).await;
    let name = "deviceAuthorities/other-vendor".to_owned();
    let get = proto::GetDeviceAuthorityRequest { name };
    tally.one("GetDeviceAuthority", client.trust().get_device_authority(get)).await;
    let list = proto::ListDeviceAuthoritiesRequest::default();
    tally.one("ListDeviceAuthorities", client.trust().list_device_authorities(list)).await;
    let serial = || "SN-LOST".to_owned();
    let cause = "lost".to_owned();
    let deny = proto::DenyDeviceRequest { request_id: request_id(), serial: serial(), cause };
    tally.one("DenyDevice", client.trust().deny_device(deny)).await;
    let list = proto::ListDeniedDevicesRequest::default();
    tally.one("ListDeniedDevices", client.trust().list_denied_devices(list)).await;
    let allow = proto::AllowDeviceRequest { request_id: request_id(), serial: serial() };
    tally.one("AllowDevice", client.trust().allow_device(allow)).await;
    let list = proto::ListApprovalsRequest::default();
    tally.one("ListApprovals", client.approvals().list_approvals(list)).await;
}

async fn profiles(tally: &mut Tally) {
    let client = tally.service.client.clone();
    let get = proto::GetProfileRequest { name: format!("profiles/{}", dev::PROFILE_AES) };
    let found = tally.one("GetProfile", client.terminals().get_profile(get)).await;
    let list = proto::ListProfilesRequest::default();
    tally.one("ListProfiles", client.terminals().list_profiles(list)).await;
    let create = proto::CreateProfileRequest {
        request_id: request_id(),
        profile_id: "another".to_owned(),
        profile: found.profile.map(|profile| proto::Profile { name: String::new(), ..profile }),
    };
    tally.one("CreateProfile", client.terminals().create_profile(create)).await;
    let change = update("another", &["no_code"]);
    tally.one("UpdateProfile", client.terminals().update_profile(change)).await;
}

/// Calls about terminals that are not activated.
async fn registered(tally: &mut Tally) {
    let client = tally.service.client.clone();
    let of = |id: &str| registration(id, &serial_of(id), dev::PROFILE_AES);
    tally.one("CreateTerminal", client.terminals().create_terminal(of("till-1"))).await;
    let batch = proto::BatchCreateTerminalsRequest { entries: vec![of("till-2")] };
    tally.one("BatchCreateTerminals", client.terminals().batch_create_terminals(batch)).await;
    let name = || terminal_name("till-1");
    let cause = || "a test".to_owned();
    let get = proto::GetTerminalRequest { name: name() };
    tally.one("GetTerminal", client.terminals().get_terminal(get)).await;
    let list = proto::ListTerminalsRequest::default();
    tally.one("ListTerminals", client.terminals().list_terminals(list)).await;
    /// A call that changes the first terminal.
    macro_rules! change {
        ($rpc:literal, $method:ident, $request:ident { $($field:ident: $value:expr),* }) => {{
                let mut client = client.terminals();
                let request =
                    proto::$request { request_id: request_id(), name: name(), $($field: $value),* };
                tally.one($rpc, client.$method(request)).await
        }};
    }
    let standing = proto::MerchantStanding::Approved.into();
    change!(
        "SetMerchantStanding",
        set_merchant_standing,
        SetMerchantStandingRequest { standing: standing }
    );
    change!("HoldTerminal", hold_terminal, HoldTerminalRequest { cause: cause() });
    change!("ReleaseTerminal", release_terminal, ReleaseTerminalRequest {});
    change!(
        "SetSettlementDigest",
        set_settlement_digest,
        SetSettlementDigestRequest { digest: vec![7; 32] }
    );
    let issued =
        change!("IssueActivationCode", issue_activation_code, IssueActivationCodeRequest {});
    tally.secrets.push(issued.activation_code);
    let issued =
        change!("ReissueActivationCode", reissue_activation_code, ReissueActivationCodeRequest {});
    tally.secrets.push(issued.activation_code);
    change!("CancelActivation", cancel_activation, CancelActivationRequest { cause: cause() });
    change!(
        "MarkTerminalCompromised",
        mark_terminal_compromised,
        MarkTerminalCompromisedRequest { cause: cause() }
    );
    let watch = proto::WatchTerminalsRequest::default();
    let stream = tally.one("WatchTerminals", client.terminals().watch_terminals(watch)).await;
    drop(stream);
}

/// Every step of an activation.
async fn activated(tally: &mut Tally) -> Till {
    let mut till = tally.service.register("till-3", Suite::P256Aes128).await;
    let code = tally.service.issue_code("till-3").await;
    tally.secrets.push(code.expose_text().to_string());
    let before = tally.size().await;
    till.begin(&tally.service, Some(code)).await.unwrap();
    till.deliver(&tally.service).await.unwrap();
    till.confirm(&tally.service).await.unwrap();
    till.parameters(&tally.service).await.unwrap();
    till.test(&tally.service).await.unwrap();
    let steps = ["BeginActivation", "DeliverKeys", "ConfirmKeys", "GetParameters", "ReportStep"];
    tally.expect(before, &[steps.as_slice(), &["RunTestTransaction"]].concat()).await;
    let before = tally.size().await;
    tally.service.enable("till-3").await.unwrap();
    tally.expect(before, &["EnableTerminal"]).await;
    till
}

/// Transactions, new keys by the update key, and the end of the terminal.
async fn transactions(tally: &mut Tally, mut till: Till) {
    let client = tally.service.client.clone();
    let payment = till.purchase(&tally.service);
    let ksn = payment.ksn.bytes().to_vec();
    tally.secrets.push(data_encoding::HEXUPPER.encode(payment.pin_block.bytes()));
    let verify = verify_request(&payment);
    tally.one("VerifyMac", client.macs().verify_mac(verify)).await;
    let translate = translate_request(&payment, payment.pin_block.bytes().to_vec());
    tally.one("TranslatePin", client.pins().translate_pin(translate)).await;
    let payment = till.purchase(&tally.service);
    let translate = translate_request(&payment, payment.pin_block.bytes().to_vec());
    let message = both(verify_request(&payment), translate);
    let mut pins = client.pins();
    let call = pins.verify_mac_and_translate_pin(message);
    tally.one("VerifyMacAndTranslatePin", call).await;
    let look = proto::LookupKsnRequest { ksn };
    tally.one("LookupKsn", client.terminals().lookup_ksn(look)).await;
    let name = || terminal_name("till-3");
    let cause = || "a test".to_owned();
    let suspend =
        proto::SuspendTerminalRequest { request_id: request_id(), name: name(), cause: cause() };
    tally.one("SuspendTerminal", client.terminals().suspend_terminal(suspend)).await;
    let resume = proto::ResumeTerminalRequest { request_id: request_id(), name: name() };
    tally.one("ResumeTerminal", client.terminals().resume_terminal(resume)).await;
    let rekey = proto::StartRekeyRequest {
        request_id: request_id(),
        name: name(),
        cause: cause(),
        update_key_allowed: true,
    };
    tally.one("StartRekey", client.terminals().start_rekey(rekey)).await;
    let before = tally.size().await;
    till.update(&tally.service).await.unwrap();
    tally.expect(before, &["UpdateKeys"]).await;
    let retire =
        proto::RetireTerminalRequest { request_id: request_id(), name: name(), cause: cause() };
    tally.one("RetireTerminal", client.terminals().retire_terminal(retire)).await;
}

/// The policy, which decides nothing for the one caller of this test.
async fn policy(tally: &mut Tally) {
    let client = tally.service.client.clone();
    let get = proto::GetPolicyRequest {};
    let policy = tally.one("GetPolicy", client.policy().get_policy(get)).await.policy;
    let set = proto::SetPolicyRequest { request_id: request_id(), policy };
    tally.one("SetPolicy", client.policy().set_policy(set)).await;
    let check = proto::CheckPolicyRequest {
        principal: "spiffe://test/backend".to_owned(),
        call: "VerifyMac".to_owned(),
        ..proto::CheckPolicyRequest::default()
    };
    tally.one("CheckPolicy", client.policy().check_policy(check)).await;
}

/// Calls about approvals: they take two officers, so a service of their own. Its events.
async fn agreed(made: &mut BTreeSet<String>) -> Vec<Event> {
    let service = live(1, Vec::new()).await;
    let (one, two) = (officer(&service, 1).await, officer(&service, 2).await);
    let vault = &service.plain.vault;
    let asked = proto::CreateIdentityKeyRequest {
        request_id: request_id(),
        acquirer_id: dev::ACQUIRER_ID.to_owned(),
    };
    let name = waits(one.trust().create_identity_key(asked).await);
    let before = vault.log_size().await.unwrap();
    let get = proto::GetApprovalRequest { name: name.clone() };
    let found = answer(two.approvals().get_approval(get).await).approval.unwrap();
    let approve = proto::ApproveRequest {
        request_id: request_id(),
        name: name.clone(),
        request_digest: found.request_digest,
    };
    answer(two.approvals().approve(approve).await);
    let (request_id, cause) = (request_id(), "a test".to_owned());
    let reject = proto::RejectRequest { request_id, name: name.clone(), cause };
    answer(one.approvals().reject(reject).await);
    let events = vault.events_after(before, 100).await.unwrap();
    let told: Vec<&str> = events.iter().map(|event| event.action.as_str()).collect();
    assert_eq!(told, ["GetApproval", "Approve", "Reject"]);
    for (event, person) in events.iter().zip(["officer-2", "officer-2", "officer-1"]) {
        assert!(event.is_done() && event.caller.ends_with(person), "{}", text(event));
        assert_eq!(event.resource, name);
        made.insert(event.action.clone());
    }
    let events = vault.events_after(0, 1_000).await.unwrap();
    drop((one, two));
    service.stop().await;
    events
}

async fn audited(tally: &mut Tally) {
    let client = tally.service.client.clone();
    let list = proto::ListEventsRequest::default();
    tally.one("ListEvents", client.audit().list_events(list)).await;
    let get = proto::GetCheckpointRequest {};
    tally.one("GetCheckpoint", client.audit().get_checkpoint(get)).await;
    let prove = proto::ProveInclusionRequest { sequence: 1, size: 2 };
    tally.one("ProveInclusion", client.audit().prove_inclusion(prove)).await;
    let prove = proto::ProveConsistencyRequest { first: 1, second: 2 };
    tally.one("ProveConsistency", client.audit().prove_consistency(prove)).await;
    let export = proto::ExportEventsRequest { after: 0 };
    let mut stream = tally.one("ExportEvents", client.audit().export_events(export)).await;
    while stream.message().await.unwrap().is_some() {}
    tally.one("GetStatus", client.status().get_status(proto::GetStatusRequest {})).await;
}
