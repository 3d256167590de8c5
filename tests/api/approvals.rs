//! Dual control, in a live realm over real TLS: what is asked by one, agreed to by others, and done
//! once. `marks.rs` has each call that waits.

use std::time::Duration;

use firstkey::crypto::digest;
use firstkey::grpc::Plane;
use firstkey::grpc::client::{Client, Refusal, request_id};
use firstkey::grpc::proto::{
    self, AllowDeviceRequest, Approval, ApprovalState, ApproveRequest, CreateIdentityKeyRequest,
    CreateKeyRequest, CreateKeyResponse, GetApprovalRequest, GetKeyRequest, ListApprovalsRequest,
    RejectRequest,
};
use firstkey::server::access;
use firstkey::server::dev;
use firstkey::vault::{Action, Caller, Event, Grant, Policy, Principal, Realm, Role, Versioned};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::harness::{HOUR, Service, TlsService, answer, everybody, refusal, told};
use crate::known::{expect_field, expect_reason, status_of};

/// The digest that officers compare, computed as the proto describes it.
fn request_digest(method: &str, request: &[u8]) -> Vec<u8> {
    digest::sha256(&[method.as_bytes(), &[0], request]).to_vec()
}

/// A live service with three officers, of whom so many have to approve what another asks for.
pub(crate) async fn live(votes_required: u32, grants: Vec<Grant>) -> TlsService {
    let policy = access::policy(dev::TRUST_DOMAIN, votes_required, grants);
    let plain = Service::start_live(policy.clone()).await;
    TlsService::start_over(plain, &[&Plane::ALL], policy).await
}

/// An officer's connection.
pub(crate) async fn officer(service: &TlsService, number: u8) -> Client {
    service.client(&format!("officer-{number}"), Plane::Admin).await
}

/// A key whose PIN block formats are chosen, which waits for approval.
fn marked(id: &str) -> CreateKeyRequest {
    CreateKeyRequest {
        request_id: request_id(),
        key_id: id.to_owned(),
        usage: proto::KeyUsage::PinEncryption.into(),
        algorithm: proto::KeyAlgorithm::Aes128.into(),
        attributes: Some(proto::KeyAttributes {
            pin_formats_out: vec![proto::PinBlockFormat::Iso4.into()],
            ..proto::KeyAttributes::default()
        }),
        ..CreateKeyRequest::default()
    }
}

async fn create(
    client: &Client,
    request: &CreateKeyRequest,
) -> Result<Response<CreateKeyResponse>, Status> {
    client.keys().create_key(request.clone()).await
}

/// The name of the approval that a call waits for.
#[track_caller]
pub(crate) fn waits<A>(result: Result<Response<A>, Status>) -> String {
    let refused = refusal(result);
    assert_eq!(refused.reason, "APPROVAL_REQUIRED", "{refused}");
    assert_eq!(told(&refused, "state"), "PENDING");
    told(&refused, "approval").to_owned()
}

pub(crate) async fn get(client: &Client, name: &str) -> Approval {
    let request = GetApprovalRequest { name: name.to_owned() };
    answer(client.approvals().get_approval(request).await).approval.unwrap()
}

/// Where an approval stands, by its word.
pub(crate) async fn state(client: &Client, name: &str) -> &'static str {
    Seen::of(get(client, name).await).state
}

/// What came of a vote or a rejection.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    state: &'static str,
    persons: Vec<String>,
    rejected_by: String,
    cause: String,
}

impl Seen {
    fn of(approval: Approval) -> Self {
        Self {
            state: approval.state().as_str_name().trim_start_matches("APPROVAL_STATE_"),
            persons: approval.votes.into_iter().map(|vote| vote.person).collect(),
            method: approval.method,
            rejected_by: approval.rejected_by,
            cause: approval.cause,
        }
    }
}

/// Looks at an approval, and approves what it shows.
pub(crate) async fn approve(client: &Client, name: &str) -> Result<Seen, Refusal> {
    let shown = get(client, name).await;
    let digest = request_digest(&shown.method, &shown.request);
    assert_eq!(digest, shown.request_digest);
    let name = name.to_owned();
    let vote = ApproveRequest { request_id: request_id(), name, request_digest: digest };
    let voted = client.approvals().approve(vote).await.map_err(Refusal::from)?;
    Ok(Seen::of(voted.into_inner().approval.unwrap()))
}

async fn reject(client: &Client, name: &str) -> Result<Seen, Refusal> {
    let (request_id, name) = (request_id(), name.to_owned());
    let request = RejectRequest { request_id, name, cause: "not today".into() };
    let ended = client.approvals().reject(request).await.map_err(Refusal::from)?;
    Ok(Seen::of(ended.into_inner().approval.unwrap()))
}

/// A refusal that says where the approval stands.
#[track_caller]
fn expect_state(refused: &Refusal, state: &str) {
    assert_eq!(refused.reason, "APPROVAL_STATE", "{refused}");
    assert_eq!(told(refused, "state"), state);
    assert!(!told(refused, "remedy").is_empty());
}

/// Puts another policy in the place of the one that is in force, as another replica would: this
/// one's memory is not told.
pub(crate) async fn change_policy(service: &TlsService, change: impl FnOnce(&mut Policy)) {
    let vault = &service.plain.vault;
    let mut policy: Versioned<Policy> = vault.get("current").await.unwrap().unwrap();
    policy.record.version += 1;
    change(&mut policy.record);
    let caller = Caller::for_dev_only("test");
    let mut work = vault.begin(&caller, Action::SetPolicy, "policy").await.unwrap();
    work.put(&policy).unwrap();
    work.commit().await.unwrap();
}

/// What becomes of a policy.
type Change = fn(&mut Policy);

fn uri_name(officer: u8) -> String {
    format!("spiffe://{}/officer/officer-{officer}", dev::TRUST_DOMAIN)
}

fn principal(policy: &mut Policy, officer: u8) -> &mut Principal {
    let name = uri_name(officer);
    policy.principals.iter_mut().find(|one| one.name == name).unwrap()
}

/// The events of calls that were done, not counting repetitions.
pub(crate) async fn done(service: &TlsService, action: &str) -> Vec<Event> {
    let events = service.plain.vault.events_after(0, 1_000).await.unwrap();
    let wanted = |event: &Event| {
        event.is_done() && event.action == action && !event.detail.contains_key("repeated")
    };
    events.into_iter().filter(wanted).collect()
}

#[tokio::test]
async fn what_one_asks_others_approve_and_it_is_done_once() {
    let service = live(2, Vec::new()).await;
    let (one, two, three) =
        (officer(&service, 1).await, officer(&service, 2).await, officer(&service, 3).await);
    let request = marked("zone");
    let refused = refusal(create(&one, &request).await);
    // Who asks tells the others the digest of what it sent.
    let sent = request_digest("CreateKey", &prost::Message::encode_to_vec(&request));
    assert_eq!(told(&refused, "request_digest"), data_encoding::HEXLOWER.encode(&sent));
    let name = told(&refused, "approval").to_owned();
    assert_eq!(waits(create(&one, &request).await), name, "asked again, it is the same");
    let shown = get(&two, &name).await;
    assert_eq!((shown.method.as_str(), shown.resource.as_str()), ("CreateKey", "keys/zone"));
    assert_eq!(shown.request, prost::Message::encode_to_vec(&request));
    assert_eq!((shown.requester.as_str(), shown.votes_required), (uri_name(1).as_str(), 2));
    assert_eq!(shown.requester_person, "officer-1");
    let wait = shown.expire_time.unwrap().seconds - shown.create_time.unwrap().seconds;
    assert_eq!(wait, 86_400);
    assert_eq!(approve(&two, &name).await.unwrap().state, "PENDING");
    let refused = refusal(create(&one, &request).await);
    assert_eq!((told(&refused, "votes"), told(&refused, "votes_required")), ("1", "2"));
    let approved = approve(&three, &name).await.unwrap();
    assert_eq!(approved.state, "APPROVED");
    assert_eq!(approved.persons, ["officer-2", "officer-3"]);
    let nothing = GetKeyRequest { name: "keys/zone".into() };
    assert_eq!(refusal(one.keys().get_key(nothing).await).reason, "KEY_NOT_FOUND");

    let made = answer(create(&one, &request).await);
    assert!(answer(create(&one, &request).await) == made, "the same request, the same answer");
    assert_eq!(state(&two, &name).await, "EXECUTED");
    let events = done(&service, "CreateKey").await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].approvers, ["officer-2", "officer-3"]);
    assert_eq!(events[0].detail["approval"], name);
    // It is over: for votes, for rejections, and a day later for the request too.
    expect_state(&approve(&two, &name).await.unwrap_err(), "EXECUTED");
    expect_state(&reject(&one, &name).await.unwrap_err(), "EXECUTED");
    service.plain.clock.advance(25 * HOUR);
    let late = refusal(create(&one, &request).await);
    assert_eq!(late.reason, "KEY_ALREADY_EXISTS");
    service.stop().await;
}

#[tokio::test]
async fn an_approval_serves_no_other_request() {
    let service = live(1, Vec::new()).await;
    let (one, two, three) =
        (officer(&service, 1).await, officer(&service, 2).await, officer(&service, 3).await);
    let deny = |serial: &str| proto::DenyDeviceRequest {
        request_id: request_id(),
        serial: serial.to_owned(),
        cause: "lost".to_owned(),
    };
    answer(one.trust().deny_device(deny("SN-1A")).await);
    // Two calls whose requests are the same bytes.
    let id = CreateIdentityKeyRequest { request_id: request_id(), acquirer_id: "SN-1A".into() };
    let allow = AllowDeviceRequest { request_id: id.request_id.clone(), serial: "SN-1A".into() };
    assert_eq!(prost::Message::encode_to_vec(&id), prost::Message::encode_to_vec(&allow));
    let first = waits(one.trust().allow_device(allow.clone()).await);
    approve(&two, &first).await.unwrap();
    let mut others = vec![first.clone()];
    let mut new = |name: String| {
        assert!(!others.contains(&name), "another request has another approval");
        others.push(name);
    };
    new(waits(one.trust().create_identity_key(id).await));
    new(waits(three.trust().allow_device(allow.clone()).await));
    let other = AllowDeviceRequest { request_id: request_id(), ..allow.clone() };
    new(waits(one.trust().allow_device(other).await));
    answer(one.trust().deny_device(deny("SN-1B")).await);
    let other = AllowDeviceRequest { serial: "SN-1B".into(), ..allow.clone() };
    new(waits(one.trust().allow_device(other).await));
    answer(one.trust().allow_device(allow).await);
    assert_eq!(done(&service, "AllowDevice").await.len(), 1);

    // Of a longer request, each octet counts.
    let request = marked("zone");
    let name = waits(create(&one, &request).await);
    approve(&two, &name).await.unwrap();
    let id = request_id();
    for changed in [
        CreateKeyRequest { key_id: "zone-2".into(), ..request.clone() },
        CreateKeyRequest { algorithm: proto::KeyAlgorithm::Aes256.into(), ..request.clone() },
        CreateKeyRequest {
            exportability: proto::Exportability::Exportable.into(),
            ..request.clone()
        },
        CreateKeyRequest { mode_of_use: proto::ModeOfUse::Encrypt.into(), ..request.clone() },
        CreateKeyRequest { request_id: id, ..request.clone() },
    ] {
        assert_ne!(waits(create(&one, &changed).await), name);
    }
    answer(create(&one, &request).await);
    service.stop().await;
}

#[tokio::test]
async fn a_person_has_one_vote_and_none_for_an_own_request() {
    let service = live(2, Vec::new()).await;
    let (one, two) = (officer(&service, 1).await, officer(&service, 2).await);
    // The same persons under further names, as the policy knows them.
    let second_name = |officer: u8| format!("{}/laptop", uri_name(officer));
    change_policy(&service, |policy| {
        for officer in [1, 2] {
            let known = principal(policy, officer).clone();
            policy.principals.push(Principal { name: second_name(officer), ..known });
        }
    })
    .await;
    let service = restarted(service).await;
    drop((one, two));
    let (one, two) = (officer(&service, 1).await, officer(&service, 2).await);
    let under = async |name: String| {
        service.connect(Some(&service.issue(&name, Plane::Admin))).await.unwrap()
    };
    let name = waits(create(&one, &marked("zone")).await);
    let (one_more, two_more) = (under(second_name(1)).await, under(second_name(2)).await);
    expect_state(&approve(&one, &name).await.unwrap_err(), "PENDING");
    expect_state(&approve(&one_more, &name).await.unwrap_err(), "PENDING");
    approve(&two, &name).await.unwrap();
    expect_state(&approve(&two, &name).await.unwrap_err(), "PENDING");
    expect_state(&approve(&two_more, &name).await.unwrap_err(), "PENDING");
    // Another certificate of the same name is the same caller.
    let renewed = under(uri_name(2)).await;
    expect_state(&approve(&renewed, &name).await.unwrap_err(), "PENDING");
    assert_eq!(get(&one, &name).await.votes.len(), 1);
    service.stop().await;
}

#[tokio::test]
async fn the_quorum_is_judged_again_when_the_call_is_done() {
    let service = live(1, Vec::new()).await;
    let (one, two, three) =
        (officer(&service, 1).await, officer(&service, 2).await, officer(&service, 3).await);
    let request = marked("zone");
    let name = waits(create(&one, &request).await);
    approve(&two, &name).await.unwrap();
    assert_eq!(state(&one, &name).await, "APPROVED");
    // Gone; no officer any more; another person's; and one vote is no more enough.
    let changes: [(&str, Change); 4] = [
        ("removed", |policy| policy.principals.retain(|one| one.name != uri_name(2))),
        ("demoted", |policy| principal(policy, 2).role = Role::Auditor),
        ("given on", |policy| principal(policy, 2).person = "officer-3".to_owned()),
        ("more votes", |policy| policy.votes_required = 2),
    ];
    let voted = async || {
        let shown = get(&one, &name).await;
        assert_eq!(shown.votes.len(), 1);
        (shown.votes[0].counts, shown.votes_required)
    };
    assert_eq!(voted().await, (true, 1));
    for (why, change) in changes {
        let before = service.plain.vault.get::<Policy>("current").await.unwrap().unwrap().record;
        change_policy(&service, change).await;
        assert_eq!(waits(create(&one, &request).await), name, "{why}");
        assert_eq!(state(&one, &name).await, "PENDING", "{why}");
        let expected = if why == "more votes" { (true, 2) } else { (false, 1) };
        assert_eq!(voted().await, expected, "{why}");
        change_policy(&service, |policy| {
            (policy.principals, policy.votes_required) = (before.principals, before.votes_required);
        })
        .await;
        assert_eq!(state(&one, &name).await, "APPROVED", "{why}");
    }
    // The requester has become one with who approved.
    change_policy(&service, |policy| principal(policy, 1).person = "officer-2".to_owned()).await;
    assert_eq!(waits(create(&one, &request).await), name);
    approve(&three, &name).await.unwrap();
    // What one person asked another does not do, whoever approved.
    assert_eq!(waits(create(&one, &request).await), name);
    change_policy(&service, |policy| principal(policy, 1).person = "officer-1".to_owned()).await;
    answer(create(&one, &request).await);
    let events = done(&service, "CreateKey").await;
    assert_eq!(events[0].approvers, ["officer-2", "officer-3"]);
    // Of what was done it stays told who approved it.
    change_policy(&service, |policy| policy.principals.retain(|one| one.name != uri_name(2))).await;
    assert!(get(&one, &name).await.votes.iter().all(|vote| vote.counts));
    service.stop().await;
}

/// A policy of nearly the size that one message may have.
fn long_policy(before: &Policy, number: usize) -> Policy {
    let grant = |place: usize| Grant {
        key: format!("keys/a-rather-long-name-of-a-key-that-stands-in-a-policy-{place}"),
        principals: vec![format!("spiffe://{}/backend/backend-1", dev::TRUST_DOMAIN)],
        calls: vec!["VerifyMac".to_owned()],
        pin_formats_in: Vec::new(),
        pin_formats_out: Vec::new(),
        partner_keys: Vec::new(),
        calls_per_minute_max: u32::try_from(number).unwrap(),
        not_before: None,
        not_after: None,
    };
    Policy { grants: (0..3_500).map(grant).collect(), ..before.clone() }
}

#[tokio::test]
async fn however_long_the_requests_are_their_approvals_are_listed() {
    let service = live(1, Vec::new()).await;
    let (one, two) = (officer(&service, 1).await, officer(&service, 2).await);
    let before = one.get_policy().await.unwrap();
    let (mut len, mut last) = (0, String::new());
    for number in 1..=12 {
        let policy = long_policy(&before, number);
        let error = one.set_policy(request_id(), &policy).await.unwrap_err();
        assert_eq!(error.reason(), Some("APPROVAL_REQUIRED"), "{error}");
        let firstkey::grpc::client::ClientError::Refused(refused) = error else { panic!() };
        told(&refused, "approval").clone_into(&mut last);
        len += get(&two, &last).await.request.len();
    }
    assert!(len > 4 * 1024 * 1024, "more than a client reads at once: {len}");
    let request = ListApprovalsRequest { page_size: 100, ..Default::default() };
    let listed = answer(two.approvals().list_approvals(request).await).approvals;
    assert_eq!(listed.len(), 12);
    assert!(listed.iter().all(|one| one.request.is_empty() && one.request_digest.len() == 32));
    // Nor does an answer that is kept hold what was asked.
    let name = last.clone();
    let digest = request_digest("SetPolicy", &get(&two, &name).await.request);
    let vote = ApproveRequest { request_id: request_id(), name, request_digest: digest };
    assert!(answer(two.approvals().approve(vote).await).approval.unwrap().request.is_empty());
    let (request_id, name) = (request_id(), last);
    let end = RejectRequest { request_id, name, cause: "too long".into() };
    assert!(answer(one.approvals().reject(end).await).approval.unwrap().request.is_empty());
    drop((one, two));
    service.stop().await;
}

#[tokio::test]
async fn the_event_of_what_was_asked_tells_what_was_found() {
    let service = live(1, Vec::new()).await;
    let (one, two) = (officer(&service, 1).await, officer(&service, 2).await);
    for id in ["kek", "other"] {
        let request = CreateKeyRequest {
            usage: proto::KeyUsage::KeyEncryption.into(),
            exportability: proto::Exportability::Exportable.into(),
            attributes: None,
            ..marked(id)
        };
        answer(create(&one, &request).await);
    }
    let leave = proto::ExportKeyRequest {
        request_id: request_id(),
        name: "keys/other".to_owned(),
        wrapping_key: "keys/kek".to_owned(),
        ..Default::default()
    };
    let name = waits(one.keys().export_key(leave.clone()).await);
    let vault = &service.plain.vault;
    let asked = vault.events_after(0, 1_000).await.unwrap().pop().unwrap();
    assert_eq!(asked.reason.as_deref(), Some("APPROVAL_REQUIRED"));
    assert_eq!((asked.detail["approval"].as_str(), asked.detail.len()), (name.as_str(), 3));
    assert_eq!(asked.detail["wrapping_key"], "keys/kek");
    assert_eq!(asked.detail["request_digest"].len(), 64);
    approve(&two, &name).await.unwrap();
    answer(one.keys().export_key(leave).await);
    let left = done(&service, "ExportKey").await.pop().unwrap();
    let keys: Vec<_> = asked.keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(keys, ["keys/other/versions/1", "keys/kek/versions/1"]);
    assert_eq!(asked.keys, left.keys, "with their check values, as when it was done");
    drop((one, two));
    service.stop().await;
}

#[tokio::test]
async fn what_is_expired_or_rejected_has_no_way_back() {
    let service = live(1, Vec::new()).await;
    let (one, two, three) =
        (officer(&service, 1).await, officer(&service, 2).await, officer(&service, 3).await);
    let (approved, rejected) = (marked("a"), marked("b"));
    let name = waits(create(&one, &approved).await);
    approve(&two, &name).await.unwrap();
    let other = waits(create(&one, &rejected).await);
    approve(&two, &other).await.unwrap();
    let ended = reject(&three, &other).await.unwrap();
    assert_eq!((ended.rejected_by, ended.cause), (uri_name(3), "not today".to_owned()));
    expect_state(&refusal(create(&one, &rejected).await), "REJECTED");
    expect_state(&approve(&two, &other).await.unwrap_err(), "REJECTED");
    // By the requester too, who then asks anew under another id.
    let anew = CreateKeyRequest { request_id: request_id(), ..rejected };
    let third = waits(create(&one, &anew).await);
    reject(&one, &third).await.unwrap();
    expect_state(&refusal(create(&one, &anew).await), "REJECTED");

    service.plain.clock.advance(24 * HOUR - 1);
    assert_eq!(state(&one, &name).await, "APPROVED");
    service.plain.clock.advance(1);
    expect_state(&refusal(create(&one, &approved).await), "EXPIRED");
    expect_state(&approve(&three, &name).await.unwrap_err(), "EXPIRED");
    expect_state(&reject(&three, &name).await.unwrap_err(), "EXPIRED");
    assert!(done(&service, "CreateKey").await.is_empty());
    // The policy says how long; whatever it says, it is a day at most.
    for (seconds, wait) in [(60, 60), (1_000_000, 86_400)] {
        change_policy(&service, |policy| policy.approval_seconds = seconds).await;
        let shown = get(&one, &waits(create(&one, &marked("c")).await)).await;
        let waited = shown.expire_time.unwrap().seconds - shown.create_time.unwrap().seconds;
        assert_eq!(waited, wait);
    }
    service.stop().await;
}

#[tokio::test]
async fn nobody_waives_it_outside_development() {
    let service = live(1, Vec::new()).await;
    // No call puts such a policy in force; this one was written past all of them.
    change_policy(&service, |policy| policy.votes_required = 0).await;
    let (one, two) = (officer(&service, 1).await, officer(&service, 2).await);
    let request = marked("zone");
    let name = waits(create(&one, &request).await);
    assert_eq!(get(&two, &name).await.votes_required, 1);
    approve(&two, &name).await.unwrap();
    answer(create(&one, &request).await);
    // Nor does it help to come by the door of development.
    let plain = waits(create(&service.plain.client, &marked("other")).await);
    let refused = approve(&service.plain.client, &plain).await.unwrap_err();
    expect_state(&refused, "PENDING");
    // Nobody whom the policy knows as an officer asks there, so no vote is enough.
    assert_eq!(approve(&one, &plain).await.unwrap().state, "PENDING");
    service.stop().await;
}

#[tokio::test]
async fn in_development_its_one_caller_waits_for_nobody_and_others_as_the_policy_says() {
    let service = TlsService::start().await;
    answer(create(&service.plain.client, &marked("plain")).await);
    let one = officer(&service, 1).await;
    let request = marked("zone");
    waits(create(&one, &request).await);
    change_policy(&service, |policy| policy.votes_required = 0).await;
    answer(create(&one, &request).await);
    assert!(done(&service, "CreateKey").await.iter().all(|event| event.approvers.is_empty()));
    service.stop().await;
}

#[tokio::test]
async fn only_officers_approve_and_a_digest_must_be_the_one_that_was_asked() {
    let service = live(1, Vec::new()).await;
    let (one, two) = (officer(&service, 1).await, officer(&service, 2).await);
    let name = waits(create(&one, &marked("zone")).await);
    let shown = get(&two, &name).await;
    let vote = |request_digest: Vec<u8>| ApproveRequest {
        request_id: request_id(),
        name: name.clone(),
        request_digest,
    };
    for holder in ["operator-1", "auditor-1"] {
        let other = service.client(holder, Plane::Admin).await;
        assert!(get(&other, &name).await == shown, "{holder} may look");
        let refused = refusal(other.approvals().approve(vote(shown.request_digest.clone())).await);
        assert_eq!(refused.reason, "POLICY_DENIED", "{holder}");
        assert_eq!(reject(&other, &name).await.unwrap_err().reason, "POLICY_DENIED", "{holder}");
    }
    let custodian = service.client("custodian-1", Plane::Admin).await;
    let request = GetApprovalRequest { name: name.clone() };
    let refused = refusal(custodian.approvals().get_approval(request).await);
    assert_eq!(refused.reason, "POLICY_DENIED");
    let mut other = shown.request_digest.clone();
    other[31] ^= 1;
    expect_state(&refusal(two.approvals().approve(vote(other)).await), "PENDING");
    assert_eq!(state(&one, &name).await, "PENDING");
    // One request of a vote, one vote, one answer.
    let counted = vote(shown.request_digest.clone());
    let first = answer(two.approvals().approve(counted.clone()).await);
    assert!(answer(two.approvals().approve(counted).await) == first);
    let events = done(&service, "Approve").await;
    assert_eq!(events.len(), 1);
    let digest = data_encoding::HEXLOWER.encode(&shown.request_digest);
    assert_eq!(events[0].detail["request_digest"], digest);
    service.stop().await;
}

#[tokio::test]
async fn what_was_asked_and_agreed_outlives_the_service() {
    let service = live(1, Vec::new()).await;
    let one = officer(&service, 1).await;
    let request = marked("zone");
    let name = waits(create(&one, &request).await);
    drop(one);
    let service = restarted(service).await;
    let two = officer(&service, 2).await;
    approve(&two, &name).await.unwrap();
    drop(two);
    let service = restarted(service).await;
    let one = officer(&service, 1).await;
    let made = answer(create(&one, &request).await);
    drop(one);
    let service = restarted(service).await;
    let one = officer(&service, 1).await;
    assert_eq!(state(&one, &name).await, "EXECUTED");
    assert!(answer(create(&one, &request).await) == made);
    assert_eq!(done(&service, "CreateKey").await.len(), 1);
    service.stop().await;
}

/// The same service again, over the same store.
pub(crate) async fn restarted(service: TlsService) -> TlsService {
    let (folder, pki, clock) = service.stop().await;
    let folder = folder.expect("a durable service");
    let store = folder.store_again().await;
    let opened = (store, Some(folder), clock, pki);
    let plain = Service::start_in((Realm::Live, None), opened, everybody()).await;
    // The store has a policy by now, which stays.
    let policy = access::policy(dev::TRUST_DOMAIN, 1, Vec::new());
    TlsService::start_over(plain, &[&Plane::ALL], policy).await
}

#[tokio::test]
async fn of_many_at_once_one_has_the_effect() {
    let service = live(1, Vec::new()).await;
    let (one, two, three) =
        (officer(&service, 1).await, officer(&service, 2).await, officer(&service, 3).await);
    let kek = |id: &str| CreateKeyRequest {
        usage: proto::KeyUsage::KeyEncryption.into(),
        exportability: proto::Exportability::Exportable.into(),
        attributes: None,
        ..marked(id)
    };
    answer(create(&one, &kek("kek")).await);
    answer(create(&one, &kek("kek-2")).await);
    let export = || proto::ExportKeyRequest {
        request_id: request_id(),
        name: "keys/kek-2".to_owned(),
        wrapping_key: "keys/kek".to_owned(),
        ..proto::ExportKeyRequest::default()
    };
    let leave =
        async |request: &proto::ExportKeyRequest| one.keys().export_key(request.clone()).await;
    // Asked at once, it is one approval.
    let request = export();
    let asked = join(8, || leave(&request)).await;
    let names: std::collections::BTreeSet<_> = asked.into_iter().map(waits).collect();
    assert_eq!(names.len(), 1);
    approve(&two, names.first().unwrap()).await.unwrap();
    // Done at once, it is done once, and every answer is the same.
    let left: Vec<_> = join(8, || leave(&request)).await.into_iter().map(answer).collect();
    assert!(left.iter().all(|one| *one == left[0]));
    assert_eq!(done(&service, "ExportKey").await.len(), 1);
    // Rejected while it is done: one of the two comes first, and the other is told.
    for _ in 0..10 {
        let request = export();
        let name = waits(leave(&request).await);
        approve(&two, &name).await.unwrap();
        let (left, ended) = tokio::join!(leave(&request), reject(&three, &name));
        let expected = if left.is_ok() { "EXECUTED" } else { "REJECTED" };
        assert_eq!(state(&one, &name).await, expected);
        assert_eq!(ended.is_ok(), left.is_err());
    }
    service.stop().await;
}

/// So many futures at once, each with its result.
async fn join<F: Future<Output = T>, T>(count: usize, call: impl Fn() -> F) -> Vec<T> {
    let mut calls: Vec<_> = (0..count).map(|_| Box::pin(call())).collect();
    let mut results = Vec::new();
    std::future::poll_fn(|context| {
        calls.retain_mut(|call| match call.as_mut().poll(context) {
            std::task::Poll::Ready(result) => {
                results.push(result);
                false
            }
            std::task::Poll::Pending => true,
        });
        if calls.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    results
}

#[tokio::test]
async fn approvals_are_listed_newest_first_page_by_page_and_by_state() {
    let service = live(1, Vec::new()).await;
    let (one, two) = (officer(&service, 1).await, officer(&service, 2).await);
    let mut names = Vec::new();
    for id in ["a", "b", "c", "d"] {
        let request = marked(id);
        names.insert(0, waits(create(&one, &request).await));
        if id == "b" {
            approve(&two, &names[0]).await.unwrap();
        }
        if id == "c" {
            reject(&two, &names[0]).await.unwrap();
        }
        service.plain.clock.advance(1);
    }
    let list = async |state: ApprovalState, page_size| {
        let (mut found, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListApprovalsRequest { page_size, page_token, state: state.into() };
            let page = answer(one.approvals().list_approvals(request).await);
            found.extend(page.approvals.into_iter().map(|approval| approval.name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return found;
            }
        }
    };
    for page_size in [0, 1, 2, 3, 4, 100] {
        assert_eq!(list(ApprovalState::Unspecified, page_size).await, names);
        let pending = [names[0].clone(), names[3].clone()];
        assert_eq!(list(ApprovalState::Pending, page_size).await, pending);
        assert_eq!(list(ApprovalState::Approved, page_size).await, [names[2].clone()]);
        assert_eq!(list(ApprovalState::Rejected, page_size).await, [names[1].clone()]);
        assert!(list(ApprovalState::Executed, page_size).await.is_empty());
    }
    service.stop().await;
}

#[tokio::test]
async fn so_many_approvals_of_one_requester_are_open_at_once() {
    let service = live(1, Vec::new()).await;
    let (one, two) = (officer(&service, 1).await, officer(&service, 2).await);
    let requests: Vec<_> = (0..100).map(|number| marked(&format!("key-{number}"))).collect();
    let mut names = Vec::new();
    for request in &requests {
        names.push(waits(create(&one, request).await));
    }
    let late = marked("late");
    let refused = status_of(create(&one, &late).await);
    expect_reason(&refused, "RATE_LIMITED");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let retry = refused.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(retry.is_some_and(|retry| retry > Duration::ZERO), "{retry:?}");
    let events = service.plain.vault.events_after(0, 1_000).await.unwrap();
    let told = events.iter().filter(|event| event.reason.as_deref() == Some("RATE_LIMITED"));
    assert_eq!(told.count(), 1);
    // Another asks as before, what was asked is answered as before, and what ends leaves room.
    waits(create(&two, &marked("of-two")).await);
    assert_eq!(waits(create(&one, &requests[0]).await), names[0]);
    reject(&two, &names[50]).await.unwrap();
    approve(&two, &names[51]).await.unwrap();
    waits(create(&one, &late).await);
    expect_reason(&status_of(create(&one, &marked("later")).await), "RATE_LIMITED");
    // Those that are over in time hold no place.
    service.plain.clock.advance(retry.unwrap().as_secs() + 1);
    waits(create(&one, &marked("much-later")).await);
    drop((one, two));
    service.stop().await;
}

#[tokio::test]
async fn each_field_of_an_approval_is_bounded_and_named() {
    let service = live(1, Vec::new()).await;
    let one = officer(&service, 1).await;
    let mut calls = one.approvals();
    for name in ["", "approvals/", "keys/a", "approvals/A", "approvals/a/b"] {
        let request = GetApprovalRequest { name: name.to_owned() };
        expect_field(&status_of(calls.get_approval(request).await), "name");
    }
    let good = || ApproveRequest {
        request_id: request_id(),
        name: "approvals/nobody".to_owned(),
        request_digest: vec![0; 32],
    };
    expect_reason(&status_of(calls.approve(good()).await), "RESOURCE_NOT_FOUND");
    for (path, request) in [
        ("request_id", ApproveRequest { request_id: "1".into(), ..good() }),
        ("name", ApproveRequest { name: "nobody".into(), ..good() }),
        ("request_digest", ApproveRequest { request_digest: vec![0; 31], ..good() }),
        ("request_digest", ApproveRequest { request_digest: Vec::new(), ..good() }),
    ] {
        expect_field(&status_of(calls.approve(request).await), path);
    }
    let good = || RejectRequest {
        request_id: request_id(),
        name: "approvals/nobody".to_owned(),
        cause: "wrong".to_owned(),
    };
    expect_reason(&status_of(calls.reject(good()).await), "RESOURCE_NOT_FOUND");
    for (path, request) in [
        ("request_id", RejectRequest { request_id: String::new(), ..good() }),
        ("name", RejectRequest { name: String::new(), ..good() }),
        ("cause", RejectRequest { cause: String::new(), ..good() }),
        ("cause", RejectRequest { cause: "c".repeat(201), ..good() }),
        ("cause", RejectRequest { cause: "line\nbreak".into(), ..good() }),
    ] {
        expect_field(&status_of(calls.reject(request).await), path);
    }
    for (path, request) in [
        ("page_size", ListApprovalsRequest { page_size: 101, ..Default::default() }),
        ("page_token", ListApprovalsRequest { page_token: "?".into(), ..Default::default() }),
        ("state", ListApprovalsRequest { state: 6, ..Default::default() }),
    ] {
        expect_field(&status_of(calls.list_approvals(request).await), path);
    }
    drop((calls, one));
    service.stop().await;
}
