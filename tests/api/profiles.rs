//! Profiles that change: each field by its name, limits that reach terminals in service.

use firstkey::activation::payload::{Outcome, ParametersAnswer, Payload as _};
use firstkey::activation::{Parameters, Step};
use firstkey::agreement::Suite;
use firstkey::grpc::client::{Refusal, request_id};
use firstkey::grpc::proto;
use firstkey::terminal::Answer;
use prost_types::{Duration, FieldMask};

use crate::backend::create_profile_request;
use crate::harness::{HOUR, MINUTE, Service, Till, answer, refusal, refused, state_name, told};
use crate::transactions::verify;

const AES: Suite = Suite::P256Aes128;

/// An update of fields of a profile; those of the mask count, the others are filled otherwise.
pub(crate) fn update(id: &str, paths: &[&str]) -> proto::UpdateProfileRequest {
    let profile = proto::Profile {
        name: format!("profiles/{id}"),
        suite: proto::Suite::P256Tdes2.into(),
        base_derivation_key: "keys/bdk-2".to_owned(),
        no_code: true,
        code_lifetime: Some(Duration { seconds: 60, nanos: 0 }),
        test_transactions: 3,
        automatic_enabling: true,
        settlement_digest_required: true,
        limits: Some(proto::Limits {
            currency: "CHF".to_owned(),
            single_amount_minor: 70,
            daily_amount_minor: 700,
        }),
        parameters_version: 77,
        rekey_grace: Some(Duration { seconds: 7, nanos: 0 }),
        create_time: None,
        update_time: None,
        keys: Vec::new(),
    };
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    proto::UpdateProfileRequest {
        request_id: request_id(),
        profile: Some(profile),
        update_mask: Some(FieldMask { paths }),
    }
}

/// An update of the limits alone.
fn limits(id: &str, single_amount_minor: u64) -> proto::UpdateProfileRequest {
    let mut request = update(id, &["limits"]);
    request.profile.as_mut().unwrap().limits = Some(proto::Limits {
        currency: "EUR".to_owned(),
        single_amount_minor,
        daily_amount_minor: 500_000,
    });
    request
}

impl Service {
    pub(crate) async fn update(
        &self,
        request: proto::UpdateProfileRequest,
    ) -> Result<proto::Profile, Refusal> {
        let updated = self.client.terminals().update_profile(request).await?.into_inner();
        Ok(updated.profile.expect("a profile"))
    }

    async fn refuse_update(&self, request: proto::UpdateProfileRequest) -> Refusal {
        refusal(self.client.terminals().update_profile(request).await)
    }

    /// Has a profile's terminals take their next keys from another base derivation key.
    pub(crate) async fn change_bdk(&self, profile: &str, key: &str) {
        let mut request = update(profile, &["base_derivation_key"]);
        request.profile.as_mut().unwrap().base_derivation_key = format!("keys/{key}");
        assert!(self.update(request).await.is_ok(), "{profile} takes {key}");
    }

    pub(crate) async fn get_profile(&self, id: &str) -> proto::Profile {
        let request = proto::GetProfileRequest { name: format!("profiles/{id}") };
        answer(self.client.terminals().get_profile(request).await).profile.expect("a profile")
    }

    /// Another base derivation key of AES terminals.
    pub(crate) async fn second_bdk(&self) {
        let request = proto::CreateKeyRequest {
            request_id: request_id(),
            key_id: "bdk-2".to_owned(),
            usage: proto::KeyUsage::BaseDerivation.into(),
            algorithm: proto::KeyAlgorithm::Aes128.into(),
            attributes: Some(proto::KeyAttributes {
                key_set_id: vec![0xB2; 4],
                ..proto::KeyAttributes::default()
            }),
            ..proto::CreateKeyRequest::default()
        };
        answer(self.client.keys().create_key(request).await);
    }
}

/// Takes one field of a profile over into another.
type Take = fn(&mut proto::Profile, &proto::Profile);

/// Each field that may change.
const FIELDS: [(&str, Take); 8] = [
    ("base_derivation_key", |to, from| {
        to.base_derivation_key.clone_from(&from.base_derivation_key);
    }),
    ("no_code", |to, from| to.no_code = from.no_code),
    ("code_lifetime", |to, from| to.code_lifetime = from.code_lifetime),
    ("test_transactions", |to, from| to.test_transactions = from.test_transactions),
    ("automatic_enabling", |to, from| to.automatic_enabling = from.automatic_enabling),
    ("settlement_digest_required", |to, from| {
        to.settlement_digest_required = from.settlement_digest_required;
    }),
    ("limits", |to, from| {
        to.limits.clone_from(&from.limits);
        to.parameters_version += 1;
    }),
    ("rekey_grace", |to, from| to.rekey_grace = from.rekey_grace),
];

#[tokio::test]
async fn an_update_changes_the_fields_of_its_mask_and_no_others() {
    let service = Service::start().await;
    service.second_bdk().await;
    for (number, (path, take)) in FIELDS.into_iter().enumerate() {
        let id = format!("one-{number}");
        service.profile(&id, |_| ()).await;
        let mut expected = service.get_profile(&id).await;
        assert_eq!(expected.create_time, expected.update_time);
        service.clock.advance(MINUTE);
        let request = update(&id, &[path]);
        let updated = service.update(request.clone()).await.unwrap();
        take(&mut expected, request.profile.as_ref().unwrap());
        assert_ne!(updated.update_time, updated.create_time);
        expected.update_time = updated.update_time;
        assert!(updated == expected, "{path}");
        assert!(service.get_profile(&id).await == expected, "{path} is not kept");
    }
    // All at once; then back to what an absent field stands for.
    service.profile("all", |_| ()).await;
    let mut expected = service.get_profile("all").await;
    let request = update("all", &FIELDS.map(|(path, _)| path));
    let updated = service.update(request.clone()).await.unwrap();
    for (_, take) in FIELDS {
        take(&mut expected, request.profile.as_ref().unwrap());
    }
    assert!(updated == expected);
    let mut request = update("all", &["code_lifetime", "rekey_grace"]);
    let profile = request.profile.as_mut().unwrap();
    (profile.code_lifetime, profile.rekey_grace) = (None, None);
    let updated = service.update(request).await.unwrap();
    let hours = |hours: i64| Some(Duration { seconds: hours * 3_600, nanos: 0 });
    assert_eq!((updated.code_lifetime, updated.rekey_grace), (hours(24), hours(1)));
    assert_eq!(updated.parameters_version, 2);

    let events = service.vault.events_after(0, 1_000).await.unwrap();
    let event = events.last().unwrap();
    assert_eq!((event.action.as_str(), event.resource.as_str()), ("UpdateProfile", "profiles/all"));
    assert_eq!(event.detail["fields"], "code_lifetime, rekey_grace");
    assert_eq!(event.detail["parameters_version"], "2");
}

#[tokio::test]
async fn only_other_limits_are_a_higher_version() {
    let service = Service::start().await;
    service.profile("retail", |_| ()).await;
    for (single, version) in [(50_000, 1), (49_999, 2), (49_999, 2), (50_000, 3)] {
        let updated = service.update(limits("retail", single)).await.unwrap();
        assert_eq!(updated.parameters_version, version, "{single}");
    }
    let mut request = limits("retail", 50_000);
    request.profile.as_mut().unwrap().limits.as_mut().unwrap().currency = "CHF".to_owned();
    assert_eq!(service.update(request).await.unwrap().parameters_version, 4);
}

/// A change of an update.
type Spoil = fn(&mut proto::UpdateProfileRequest);

fn profile(request: &mut proto::UpdateProfileRequest) -> &mut proto::Profile {
    request.profile.as_mut().expect("a profile")
}

fn mask(request: &mut proto::UpdateProfileRequest, path: &str) {
    request.update_mask = Some(FieldMask { paths: vec!["no_code".into(), path.into()] });
}

/// What is wrong in an update of everything, and the field that is to be named.
const FAULTS: [(&str, Spoil); 24] = [
    ("request_id", |request| request.request_id.clear()),
    ("profile", |request| request.profile = None),
    ("profile.name", |request| profile(request).name.clear()),
    ("profile.name", |request| profile(request).name = "retail".into()),
    ("update_mask", |request| request.update_mask = None),
    ("update_mask", |request| request.update_mask = Some(FieldMask { paths: Vec::new() })),
    ("update_mask", |request| mask(request, "")),
    ("update_mask", |request| mask(request, "*")),
    // Beside the one that the fixture names.
    ("update_mask", |request| mask(request, "no_code")),
    ("update_mask", |request| mask(request, "noCode")),
    ("update_mask", |request| mask(request, "limits.currency")),
    ("update_mask", |request| mask(request, "profile.no_code")),
    ("profile.name", |request| mask(request, "name")),
    ("profile.suite", |request| mask(request, "suite")),
    ("profile.parameters_version", |request| mask(request, "parameters_version")),
    ("profile.create_time", |request| mask(request, "create_time")),
    ("profile.update_time", |request| mask(request, "update_time")),
    ("profile.keys", |request| mask(request, "keys")),
    ("profile.base_derivation_key", |request| profile(request).base_derivation_key.clear()),
    ("profile.code_lifetime", |request| {
        profile(request).code_lifetime = Some(Duration { seconds: 59, nanos: 0 });
    }),
    ("profile.test_transactions", |request| profile(request).test_transactions = 11),
    ("profile.limits", |request| profile(request).limits = None),
    ("profile.limits.currency", |request| {
        profile(request).limits.as_mut().unwrap().currency = "chf".into();
    }),
    ("profile.rekey_grace", |request| {
        profile(request).rekey_grace = Some(Duration { seconds: 72 * 3_600 + 1, nanos: 0 });
    }),
];

#[tokio::test]
async fn an_update_that_is_refused_changes_nothing() {
    let service = Service::start().await;
    service.second_bdk().await;
    service.profile("retail", |_| ()).await;
    let before = service.get_profile("retail").await;
    for (path, spoil) in FAULTS {
        let mut request = update("retail", &FIELDS.map(|(path, _)| path));
        spoil(&mut request);
        let refused = service.refuse_update(request).await;
        assert_eq!(
            (refused.reason.as_str(), refused.fields[0].0.as_str()),
            ("FIELD_INVALID", path)
        );
    }
    for (reason, key) in [
        ("KEY_NOT_FOUND", "keys/nobody"),
        ("KEY_USAGE_MISMATCH", "keys/dev-bdk-tdes"),
        ("KEY_USAGE_MISMATCH", "keys/dev-mac"),
    ] {
        let mut request = update("retail", &["no_code", "base_derivation_key"]);
        profile(&mut request).base_derivation_key = key.to_owned();
        assert_eq!(service.refuse_update(request).await.reason, reason, "{key}");
    }
    let unknown = service.refuse_update(update("nobody", &["no_code"])).await;
    assert_eq!(unknown.reason, "RESOURCE_NOT_FOUND");
    assert!(service.get_profile("retail").await == before);
}

#[tokio::test]
async fn an_update_is_done_once() {
    let service = Service::start_durable().await;
    service.profile("retail", |_| ()).await;
    let request = limits("retail", 10);
    let first = service.update(request.clone()).await.unwrap();
    service.update(limits("retail", 20)).await.unwrap();
    service.clock.advance(MINUTE);
    assert!(service.update(request.clone()).await.unwrap() == first);
    assert_eq!(service.get_profile("retail").await.parameters_version, 3);
    let other =
        proto::UpdateProfileRequest { request_id: request.request_id, ..limits("retail", 1) };
    assert_eq!(service.refuse_update(other).await.reason, "REQUEST_ID_REUSED");
    // The id of one call is not that of another.
    let mut created = create_profile_request("other");
    created.request_id.clone_from(&request_id());
    let mut again = update("retail", &["no_code"]);
    again.request_id.clone_from(&created.request_id);
    answer(service.client.terminals().create_profile(created).await);
    assert!(service.update(again).await.unwrap().no_code);
}

#[tokio::test]
async fn terminals_in_service_get_the_new_limits_and_never_go_back() {
    let service = Service::start_durable().await;
    for (id, suite) in [("till-aes", AES), ("till-tdes", Suite::P256Tdes2)] {
        let mut till = service.active_till(id, suite).await;
        let profile = firstkey::server::dev::profile_of(suite);
        let asked = till.terminal.request_parameters(&service.rng).unwrap();
        let old = service.send_parameters(&asked).await.unwrap();
        let answered = Answer { payload: &old.payload, proof: &old.proof };
        till.terminal.apply_parameters(answered).expect("the same file once more");

        let updated = service.update(limits(profile, 900)).await.unwrap();
        assert_eq!(updated.parameters_version, 2);
        assert_eq!(service.get(id).await.parameters_version, 1, "nobody has applied it");
        verify(&service, &till.purchase(&service)).await.expect("it serves as it did");
        till.parameters(&service).await.unwrap();
        let applied = till.terminal.parameters().unwrap();
        assert_eq!((applied.version.number(), applied.limits.single_minor()), (2, 900));
        let terminal = service.get(id).await;
        assert_eq!((state_name(&terminal).as_str(), terminal.parameters_version), ("ACTIVE", 2));
        let notes: Vec<&str> =
            terminal.timeline.iter().rev().take(2).map(|entry| entry.note.as_str()).collect();
        assert_eq!(notes[0], "parameters version 2 applied");
        assert!(notes[1].starts_with("version 2, known version 1; single limit 900 EUR"));

        // A purchase of 12.50 is over the limit now, and the file of before is refused.
        assert!(till.try_purchase(&service).is_err());
        let old = ParametersAnswer::parse(&old.payload).unwrap().parameters;
        let ahead: &Parameters = till.terminal.parameters().unwrap();
        assert!(old.check_against(ahead).is_err());
    }
}

/// A terminal that was sent its parameters and applied them; its test transactions are to come.
async fn ready_for_tests(service: &Service, id: &str) -> Till {
    let mut till = service.register_under(id, AES, "retail").await;
    let code = service.issue_code(id).await;
    till.take_keys(service, Some(code)).await.unwrap();
    till.parameters(service).await.unwrap();
    till
}

#[tokio::test]
async fn a_test_transaction_is_judged_by_the_limits_that_the_terminal_was_sent() {
    let service = Service::start().await;
    service.profile("retail", |_| ()).await;
    let mut till = ready_for_tests(&service, "till").await;
    service.update(limits("retail", 60_000)).await.unwrap();
    let refusal = refused(till.test(&service).await);
    assert_eq!(refusal.reason, "ACTIVATION_STATE");
    assert_eq!(told(&refusal, "state"), "PARAMETERS_DELIVERED");
    assert_eq!(told(&refusal, "remedy"), "the limits changed: get the parameters again");
    // Sent, and not yet said to be applied.
    let asked = till.terminal.request_parameters(&service.rng).unwrap();
    let sent = service.send_parameters(&asked).await.unwrap();
    let sent = Answer { payload: &sent.payload, proof: &sent.proof };
    let applied = till.terminal.apply_parameters(sent).unwrap();
    let refusal = refused(till.test(&service).await);
    assert!(told(&refusal, "remedy").contains("has not reported"), "{refusal}");
    let report = till.terminal.report(Step::Parameters, applied.outcome()).unwrap();
    let name = till.terminal.activation().unwrap().as_str().to_owned();
    service.send_report(&name, &report).await.unwrap();
    till.terminal.report_taken();
    assert!(till.test(&service).await.unwrap().passed());
    assert_eq!(service.state("till").await, "TESTED");

    // A terminal that goes on by itself gets the parameters of now and goes on.
    let mut other = ready_for_tests(&service, "other").await;
    service.update(limits("retail", 70_000)).await.unwrap();
    other.activate(&service, None).await.unwrap();
    assert_eq!(service.get("other").await.parameters_version, 3);
    assert_eq!(service.state("other").await, "TESTED");
}

#[tokio::test]
async fn a_report_of_a_file_that_is_no_longer_the_last_is_refused() {
    let service = Service::start().await;
    service.profile("retail", |_| ()).await;
    let mut till = ready_for_tests(&service, "till").await;
    let first = till.terminal.parameters().unwrap().digest();
    service.update(limits("retail", 60_000)).await.unwrap();
    till.parameters(&service).await.unwrap();
    let report = till.terminal.report(Step::Parameters, Outcome::Applied(first)).unwrap();
    let name = till.terminal.activation().unwrap().as_str().to_owned();
    let refusal = service.send_report(&name, &report).await.unwrap_err();
    assert_eq!(refusal.fields[0].0, "payload.applied_digest");
    assert_eq!(service.get("till").await.parameters_version, 2);
}

#[tokio::test]
async fn fewer_tests_and_automatic_enabling_count_at_the_next_step() {
    let service = Service::start().await;
    service.profile("retail", |profile| profile.test_transactions = 10).await;
    let mut till = ready_for_tests(&service, "till").await;
    till.test(&service).await.unwrap();
    let mut request = update("retail", &["test_transactions", "automatic_enabling"]);
    profile(&mut request).test_transactions = 2;
    service.update(request).await.unwrap();
    assert_eq!(service.state("till").await, "PARAMETERS_DELIVERED");
    till.test(&service).await.unwrap();
    assert_eq!(service.state("till").await, "ACTIVE");
}

#[tokio::test]
async fn another_base_derivation_key_serves_the_activations_that_begin_from_then_on() {
    let service = Service::start_durable().await;
    service.second_bdk().await;
    service.profile("retail", |_| ()).await;
    let mut under_way = service.register_under("under-way", AES, "retail").await;
    let code = service.issue_code("under-way").await;
    under_way.begin(&service, Some(code)).await.unwrap();
    let mut before = service.register_under("before", AES, "retail").await;
    let code = service.issue_code("before").await;
    before.activate(&service, Some(code)).await.unwrap();
    service.enable("before").await.unwrap();

    service.update(update("retail", &["base_derivation_key"])).await.unwrap();
    under_way.activate(&service, None).await.unwrap();
    assert!(!service.get("under-way").await.initial_key_id.starts_with(&[0xB2; 4]));
    verify(&service, &before.purchase(&service)).await.expect("keys given out stay as they are");
    let mut after = service.register_under("after", AES, "retail").await;
    let code = service.issue_code("after").await;
    after.activate(&service, Some(code)).await.unwrap();
    assert!(service.get("after").await.initial_key_id.starts_with(&[0xB2; 4]));
    // A re-key takes a terminal over.
    service.must(firstkey::activation::Call::StartRekey, "before").await;
    before.take_keys(&service, None).await.unwrap();
    assert!(service.get("before").await.initial_key_id.starts_with(&[0xB2; 4]));
    service.clock.advance(2 * HOUR);
    verify(&service, &before.purchase(&service)).await.expect("the new keys serve");
}

#[tokio::test]
async fn a_key_that_gives_out_no_keys_is_not_taken() {
    let service = Service::start().await;
    service.second_bdk().await;
    service.profile("retail", |_| ()).await;
    let suspend = proto::SetKeyStateRequest {
        request_id: request_id(),
        name: "keys/bdk-2".to_owned(),
        state: proto::KeyState::Suspended.into(),
        ..proto::SetKeyStateRequest::default()
    };
    answer(service.client.keys().set_key_state(suspend).await);
    let request = update("retail", &["base_derivation_key"]);
    assert_eq!(service.refuse_update(request).await.reason, "KEY_NOT_ACTIVE");
}

#[tokio::test]
async fn an_open_key_is_none_for_registered_terminals() {
    let service = Service::start().await;
    service.profile("retail", |_| ()).await;
    let request = proto::CreateKeyRequest {
        request_id: request_id(),
        key_id: "bdk-2".to_owned(),
        usage: proto::KeyUsage::BaseDerivation.into(),
        algorithm: proto::KeyAlgorithm::Aes128.into(),
        attributes: Some(proto::KeyAttributes {
            key_set_id: vec![0xB2; 4],
            open: true,
            ..proto::KeyAttributes::default()
        }),
        ..proto::CreateKeyRequest::default()
    };
    answer(service.client.keys().create_key(request).await);
    let mut create = create_profile_request("other");
    create.profile.as_mut().unwrap().base_derivation_key = "keys/bdk-2".to_owned();
    let refused = refusal(service.client.terminals().create_profile(create).await);
    assert_eq!(refused.reason, "KEY_USAGE_MISMATCH");
    let before = service.get_profile("retail").await;
    let request = update("retail", &["base_derivation_key"]);
    assert_eq!(service.refuse_update(request).await.reason, "KEY_USAGE_MISMATCH");
    assert!(service.get_profile("retail").await == before);
}
