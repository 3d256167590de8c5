//! `TerminalService`: the bounds of each field, request ids, pages.

use firstkey::activation::Call;
use firstkey::agreement::Suite;
use firstkey::grpc::client::{Refusal, request_id};
use firstkey::grpc::proto;
use firstkey::server::dev;
use firstkey::vault::store::SqliteStore;
use prost_types::Duration;
use tonic::Code;

use crate::backend::{CALLS, Given, create_profile_request};
use crate::harness::{
    HOUR, Service, answer, create_terminal_request, everybody, refusal, serial_of, state_name,
};

const AES: Suite = Suite::P256Aes128;

/// Which field a refusal is about.
#[track_caller]
fn field(refusal: &Refusal) -> &str {
    assert_eq!(refusal.reason, "FIELD_INVALID", "{refusal}");
    assert_eq!(refusal.code, Code::InvalidArgument);
    assert_eq!(refusal.fields.len(), 1, "{refusal}");
    &refusal.fields[0].0
}

/// What is no request id.
fn no_request_ids() -> [String; 6] {
    let id = request_id();
    [
        String::new(),
        "1".to_owned(),
        id.replace('-', ""),
        format!("{{{id}}}"),
        format!("urn:uuid:{id}"),
        id.replace('-', "_"),
    ]
}

/// What is no id of a resource.
fn no_ids() -> [String; 9] {
    ["", "1a", "-a", "a-", "A", "a_b", "a/b", "ä"]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("a{}", "b".repeat(63))])
        .collect::<Vec<_>>()
        .try_into()
        .expect("nine")
}

/// A change of a registration.
type Registering = fn(&mut proto::CreateTerminalRequest);

fn merchant(request: &mut proto::CreateTerminalRequest) -> &mut proto::Merchant {
    request.merchant.as_mut().expect("a merchant")
}

/// What is wrong in a registration, and the field that is to be named.
const REGISTRATION_FAULTS: [(&str, Registering); 36] = [
    ("serial", |request| request.serial.clear()),
    ("serial", |request| request.serial = "SN1".into()),
    ("serial", |request| request.serial = "S".repeat(33)),
    ("serial", |request| request.serial = "SN 01".into()),
    ("serial", |request| request.serial = "SN/01".into()),
    ("model", |request| request.model.clear()),
    ("model", |request| request.model = "m".repeat(65)),
    ("model", |request| request.model = "sim\u{e9}".into()),
    ("model", |request| request.model = "sim\n".into()),
    ("model", |request| request.model = "another".into()),
    ("merchant", |request| request.merchant = None),
    ("merchant.merchant_id", |request| merchant(request).merchant_id.clear()),
    ("merchant.merchant_id", |request| merchant(request).merchant_id = "1".repeat(16)),
    ("merchant.merchant_id", |request| merchant(request).merchant_id = "1-2".into()),
    ("merchant.merchant_id", |request| merchant(request).merchant_id = "\u{e9}".into()),
    ("merchant.terminal_id", |request| merchant(request).terminal_id.clear()),
    ("merchant.terminal_id", |request| merchant(request).terminal_id = "1".repeat(7)),
    ("merchant.terminal_id", |request| merchant(request).terminal_id = "1".repeat(9)),
    ("merchant.terminal_id", |request| merchant(request).terminal_id = "1234567 ".into()),
    ("merchant.display_name", |request| merchant(request).display_name.clear()),
    ("merchant.display_name", |request| merchant(request).display_name = "n".repeat(41)),
    ("merchant.display_name", |request| merchant(request).display_name = "a\nb".into()),
    ("merchant_standing", |request| request.merchant_standing = 0),
    ("merchant_standing", |request| request.merchant_standing = 4),
    ("merchant_standing", |request| request.merchant_standing = -1),
    ("profile", |request| request.profile.clear()),
    ("profile", |request| request.profile = "dev-aes".into()),
    ("profile", |request| request.profile = "keys/dev-aes".into()),
    ("profile", |request| request.profile = "profiles/dev-aes/x".into()),
    ("kind", |request| request.kind = 0),
    ("kind", |request| request.kind = 3),
    ("kind", |request| request.kind = i32::MAX),
    ("device_authority", |request| request.device_authority.clear()),
    ("device_authority", |request| request.device_authority = "dev-vendor".into()),
    ("device_authority", |request| request.device_authority.push(' ')),
    ("terminal_id", |request| request.terminal_id.push('!')),
];

#[tokio::test]
async fn each_field_of_a_registration_is_bounded() {
    let service = Service::start().await;
    let create = async |change: &dyn Fn(&mut proto::CreateTerminalRequest)| {
        let mut request = create_terminal_request("till", "SN-TILL", "dev-aes");
        change(&mut request);
        service.client.terminals().create_terminal(request).await
    };
    for (path, change) in REGISTRATION_FAULTS {
        assert_eq!(field(&refusal(create(&change).await)), path);
    }
    for id in no_ids() {
        let refused = refusal(create(&|request| request.terminal_id.clone_from(&id)).await);
        assert_eq!(field(&refused), "terminal_id", "{id}");
    }
    for id in no_request_ids() {
        let refused = refusal(create(&|request| request.request_id.clone_from(&id)).await);
        assert_eq!(field(&refused), "request_id", "{id}");
    }
    let missing: [Registering; 2] =
        [|request| request.profile.push('x'), |request| request.device_authority.push('x')];
    for change in missing {
        assert_eq!(refusal(create(&change).await).reason, "RESOURCE_NOT_FOUND");
    }
    let listed = answer(service.client.terminals().list_terminals(list(0, "", 0)).await);
    assert!(listed.terminals.is_empty(), "a refused registration left a terminal");

    // The longest and shortest of everything.
    let longest = |request: &mut proto::CreateTerminalRequest| {
        request.terminal_id = format!("a{}", "b".repeat(62));
        request.serial = "S".repeat(32);
        *merchant(request) = proto::Merchant {
            merchant_id: "M".repeat(15),
            terminal_id: "T".repeat(8),
            display_name: "~".repeat(40),
        };
    };
    answer(create(&longest).await);
    let shortest = |request: &mut proto::CreateTerminalRequest| {
        request.terminal_id = "a".to_owned();
        request.serial = "S._-".to_owned();
        merchant(request).merchant_id = "1".to_owned();
        merchant(request).display_name = "x".to_owned();
    };
    answer(create(&shortest).await);
}

#[tokio::test]
async fn a_registration_comes_back_as_it_was_given() {
    let service = Service::start().await;
    let request = create_terminal_request("till", "SN-TILL", "dev-tdes");
    answer(service.client.terminals().create_terminal(request.clone()).await);
    let terminal = service.get("till").await;
    assert_eq!(terminal.name, "terminals/till");
    assert_eq!((terminal.serial, terminal.model), (request.serial.clone(), request.model));
    assert!(terminal.merchant == request.merchant);
    assert_eq!((terminal.profile, terminal.kind), (request.profile, request.kind));
    assert_eq!(terminal.device_authority, request.device_authority);
    assert_eq!(terminal.merchant_standing, request.merchant_standing);
    assert_eq!((terminal.generation, terminal.activation.as_str()), (1, ""));
    assert_eq!(terminal.create_time, terminal.update_time);
    // The same serial, or the same id, again.
    for (id, serial) in [("till", "SN-OTHER"), ("other", "SN-TILL")] {
        let request = create_terminal_request(id, serial, "dev-aes");
        let refused = refusal(service.client.terminals().create_terminal(request).await);
        assert_eq!(refused.reason, "TERMINAL_ALREADY_EXISTS");
        assert_eq!(refused.code, Code::AlreadyExists);
    }
}

/// A change of a profile.
type Profiling = fn(&mut proto::Profile);

fn limits(profile: &mut proto::Profile) -> &mut proto::Limits {
    profile.limits.as_mut().expect("limits")
}

const fn lasting(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

/// What is wrong in a profile, and the field that is to be named.
const PROFILE_FAULTS: [(&str, Profiling); 27] = [
    ("profile.suite", |profile| profile.suite = 0),
    ("profile.suite", |profile| profile.suite = 6),
    ("profile.base_derivation_key", |profile| profile.base_derivation_key.clear()),
    ("profile.base_derivation_key", |profile| {
        profile.base_derivation_key = "dev-bdk-aes".into();
    }),
    ("profile.code_lifetime", |profile| profile.code_lifetime = Some(lasting(59))),
    ("profile.code_lifetime", |profile| profile.code_lifetime = Some(lasting(0))),
    ("profile.code_lifetime", |profile| profile.code_lifetime = Some(lasting(-1))),
    ("profile.code_lifetime", |profile| profile.code_lifetime = Some(lasting(72 * 3_600 + 1))),
    ("profile.code_lifetime", |profile| profile.code_lifetime = Some(lasting(i64::MAX))),
    ("profile.code_lifetime", |profile| {
        profile.code_lifetime = Some(Duration { seconds: 100, nanos: -1 });
    }),
    ("profile.test_transactions", |profile| profile.test_transactions = 11),
    ("profile.test_transactions", |profile| profile.test_transactions = u32::MAX),
    ("profile.limits", |profile| profile.limits = None),
    ("profile.limits.currency", |profile| limits(profile).currency.clear()),
    ("profile.limits.currency", |profile| limits(profile).currency = "eur".into()),
    ("profile.limits.currency", |profile| limits(profile).currency = "EURO".into()),
    ("profile.limits.currency", |profile| limits(profile).currency = "978".into()),
    ("profile.limits.single_amount_minor", |profile| limits(profile).single_amount_minor = 0),
    ("profile.limits.daily_amount_minor", |profile| limits(profile).single_amount_minor = 500_001),
    ("profile.limits.single_amount_minor", |profile| {
        limits(profile).single_amount_minor = u64::MAX;
    }),
    ("profile.limits.daily_amount_minor", |profile| limits(profile).daily_amount_minor = 0),
    ("profile.limits.daily_amount_minor", |profile| limits(profile).daily_amount_minor = 49_999),
    ("profile.limits.daily_amount_minor", |profile| {
        limits(profile).daily_amount_minor = 1_000_000_000_000;
    }),
    ("profile.rekey_grace", |profile| profile.rekey_grace = Some(lasting(72 * 3_600 + 1))),
    ("profile.rekey_grace", |profile| profile.rekey_grace = Some(lasting(-1))),
    ("profile.rekey_grace", |profile| profile.rekey_grace = Some(lasting(i64::MAX))),
    ("profile.rekey_grace", |profile| {
        profile.rekey_grace = Some(Duration { seconds: 0, nanos: i32::MIN });
    }),
];

#[tokio::test]
async fn each_field_of_a_profile_is_bounded() {
    let service = Service::start().await;
    let create = async |request| service.client.terminals().create_profile(request).await;
    for (path, change) in PROFILE_FAULTS {
        let mut request = create_profile_request("bounded");
        change(request.profile.as_mut().expect("a profile"));
        assert_eq!(field(&refusal(create(request).await)), path);
    }
    let none = proto::CreateProfileRequest { profile: None, ..create_profile_request("bounded") };
    assert_eq!(field(&refusal(create(none).await)), "profile");
    for id in no_ids() {
        assert_eq!(
            field(&refusal(create(create_profile_request(&id)).await)),
            "profile_id",
            "{id}"
        );
    }
    for request_id in no_request_ids() {
        let request =
            proto::CreateProfileRequest { request_id, ..create_profile_request("bounded") };
        assert_eq!(field(&refusal(create(request).await)), "request_id");
    }
    for (reason, key) in [
        ("KEY_NOT_FOUND", "keys/nobody"),
        ("KEY_USAGE_MISMATCH", "keys/dev-bdk-tdes"),
        ("KEY_USAGE_MISMATCH", "keys/dev-mac"),
        ("KEY_USAGE_MISMATCH", "keys/dev-zone-pin-aes"),
    ] {
        let mut request = create_profile_request("bounded");
        request.profile.as_mut().expect("a profile").base_derivation_key = key.to_owned();
        assert_eq!(refusal(create(request).await).reason, reason, "{key}");
    }
    let name = proto::GetProfileRequest { name: "profiles/bounded".to_owned() };
    let missing = refusal(service.client.terminals().get_profile(name.clone()).await);
    assert_eq!((missing.reason.as_str(), missing.code), ("RESOURCE_NOT_FOUND", Code::NotFound));

    // The ends of each range; what is not said has its default.
    let mut request = create_profile_request("bounded");
    let profile = request.profile.as_mut().expect("a profile");
    profile.code_lifetime = Some(lasting(72 * 3_600));
    profile.test_transactions = 10;
    (limits(profile).single_amount_minor, limits(profile).daily_amount_minor) =
        (999_999_999_999, 999_999_999_999);
    answer(create(request.clone()).await);
    let got = answer(service.client.terminals().get_profile(name).await).profile.unwrap();
    assert!(got.limits == request.profile.unwrap().limits);
    assert!(
        got.code_lifetime == Some(lasting(72 * 3_600)) && got.rekey_grace == Some(lasting(3_600))
    );
    assert_eq!((got.test_transactions, got.parameters_version), (10, 1));
    let again = refusal(create(create_profile_request("bounded")).await);
    assert_eq!(
        (again.reason.as_str(), again.code),
        ("RESOURCE_ALREADY_EXISTS", Code::AlreadyExists)
    );
}

#[tokio::test]
async fn each_field_of_a_call_upon_a_terminal_is_bounded() {
    let service = Service::start().await;
    service.register("till", AES).await;
    let before = service.get("till").await;
    let with_cause = |call: &Call| {
        matches!(
            call,
            Call::HoldTerminal
                | Call::CancelActivation
                | Call::SuspendTerminal
                | Call::RetireTerminal
                | Call::MarkTerminalCompromised
                | Call::StartRekey
        )
    };
    for call in CALLS {
        let refuse =
            async |given: Given| service.call_with(call, given).await.err().expect("a refusal");
        let given = Given::to("till");
        for name in no_ids().map(|id| format!("terminals/{id}")).into_iter().chain([
            String::new(),
            "till".to_owned(),
            "keys/till".to_owned(),
            "terminals/till/activations/1".to_owned(),
        ]) {
            let refused = refuse(Given { name: name.clone(), ..given.clone() }).await;
            assert_eq!(field(&refused), "name", "{call:?} {name}");
        }
        for request_id in no_request_ids() {
            let refused = refuse(Given { request_id, ..given.clone() }).await;
            assert_eq!(field(&refused), "request_id", "{call:?}");
        }
        if with_cause(&call) {
            for cause in ["", "\n", "caf\u{e9}", "\u{7f}", &"c".repeat(201)] {
                let refused = refuse(Given { cause: cause.to_owned(), ..given.clone() }).await;
                assert_eq!(field(&refused), "cause", "{call:?}");
            }
        }
        let refused = refuse(Given { name: "terminals/nobody".to_owned(), ..given }).await;
        assert_eq!(refused.reason, "TERMINAL_NOT_FOUND", "{call:?}");
        assert_eq!(refused.code, Code::NotFound, "{call:?}");
    }
    for standing in [0, 4, -1, i32::MAX] {
        let given = Given { standing, ..Given::to("till") };
        let refused = service.call_with(Call::SetMerchantStanding, given).await;
        assert_eq!(field(&refused.err().expect("a refusal")), "standing");
    }
    for len in [0, 20, 31, 33, 64] {
        let given = Given { digest: vec![1; len], ..Given::to("till") };
        let refused = service.call_with(Call::SetSettlementDigest, given).await;
        assert_eq!(field(&refused.err().expect("a refusal")), "digest");
    }
    assert!(service.get("till").await == before);
    let given = Given { cause: "c".repeat(200), ..Given::to("till") };
    let held = service.call_with(Call::HoldTerminal, given).await.expect("the longest cause");
    assert_eq!(held.hold_cause.len(), 200);
}

#[tokio::test]
async fn what_only_reads_is_bounded_too() {
    let service = Service::start().await;
    let mut terminals = service.client.terminals();
    for name in ["", "till", "terminals/", "terminals/Till", "profiles/till"] {
        let request = proto::GetTerminalRequest { name: name.to_owned() };
        assert_eq!(field(&refusal(terminals.get_terminal(request).await)), "name");
        let request = proto::GetProfileRequest { name: name.replace("profiles", "keys") };
        assert_eq!(field(&refusal(terminals.get_profile(request).await)), "name");
    }
    let request = proto::GetTerminalRequest { name: "terminals/nobody".to_owned() };
    assert_eq!(refusal(terminals.get_terminal(request).await).reason, "TERMINAL_NOT_FOUND");
    for (request, path) in [
        (list(101, "", 0), "page_size"),
        (list(u32::MAX, "", 0), "page_size"),
        (list(1, "***", 0), "page_token"),
        (list(1, "_w", 0), "page_token"),
        (list(1, &"QUFB".repeat(43), 0), "page_token"),
        (list(1, "", 16), "state"),
        (list(1, "", -1), "state"),
    ] {
        assert_eq!(field(&refusal(terminals.list_terminals(request).await)), path);
    }
    let request = proto::ListProfilesRequest { page_size: 101, page_token: String::new() };
    assert_eq!(field(&refusal(terminals.list_profiles(request).await)), "page_size");
    let request = proto::WatchTerminalsRequest { after_sequence: 0, terminal: "till".to_owned() };
    assert_eq!(field(&refusal(terminals.watch_terminals(request).await)), "terminal");
}

fn list(page_size: u32, page_token: &str, state: i32) -> proto::ListTerminalsRequest {
    proto::ListTerminalsRequest {
        page_size,
        page_token: page_token.to_owned(),
        state,
        ..Default::default()
    }
}

#[tokio::test]
async fn pages_come_in_order_each_once_and_without_timelines() {
    let service = Service::start().await;
    let ids = ["delta", "alpha", "golf", "bravo", "foxtrot", "charlie", "echo"];
    for id in ids {
        service.register(id, AES).await;
    }
    for id in ["bravo", "echo", "golf"] {
        service.must(Call::HoldTerminal, id).await;
    }
    let held = i32::from(proto::TerminalState::Held);
    let sorted = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf"];
    for (page_size, state, expected, pages) in [
        (3, 0, sorted.as_slice(), 3),
        (1, 0, &sorted, 7),
        (7, 0, &sorted, 1),
        (100, 0, &sorted, 1),
        (0, 0, &sorted, 1),
        (2, held, &["bravo", "echo", "golf"], 2),
        (3, held, &["bravo", "echo", "golf"], 1),
        (5, i32::from(proto::TerminalState::Active), &[], 1),
    ] {
        let (mut token, mut names, mut count) = (String::new(), Vec::new(), 0);
        loop {
            let request = list(page_size, &token, state);
            let page = answer(service.client.terminals().list_terminals(request).await);
            count += 1;
            for terminal in &page.terminals {
                assert!(terminal.timeline.is_empty(), "a list has timelines");
                assert!(state == 0 || terminal.state == state);
                names.push(terminal.name.clone());
            }
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        let expected: Vec<String> = expected.iter().map(|id| format!("terminals/{id}")).collect();
        assert_eq!((names, count), (expected, pages), "{page_size} {state}");
    }
    service.profile("another", |_| ()).await;
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = proto::ListProfilesRequest { page_size: 1, page_token };
        let page = answer(service.client.terminals().list_profiles(request).await);
        names.extend(page.profiles.into_iter().map(|profile| profile.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let mut all = Suite::ALL.map(dev::profile_of).to_vec();
    all.push("another");
    all.sort_unstable();
    let all: Vec<String> = all.iter().map(|id| format!("profiles/{id}")).collect();
    assert_eq!(names, all);
}

#[tokio::test]
async fn more_than_a_page_holds_by_itself_is_told_by_its_token() {
    let service = Service::start().await;
    for number in 0..51 {
        let id = format!("till-{number:02}");
        let request = create_terminal_request(&id, &serial_of(&id), "dev-aes");
        answer(service.client.terminals().create_terminal(request).await);
    }
    let first = answer(service.client.terminals().list_terminals(list(0, "", 0)).await);
    assert_eq!(first.terminals.len(), 50);
    let token = first.next_page_token;
    let second = answer(service.client.terminals().list_terminals(list(0, &token, 0)).await);
    assert_eq!(second.terminals.len(), 1);
    assert_eq!(second.terminals[0].name, "terminals/till-50");
    assert_eq!(second.next_page_token, "");
}

/// The calls in an order in which each is allowed, with the state that each leads to.
const WALK: [(Call, &str); 13] = [
    (Call::IssueActivationCode, "CODE_ISSUED"),
    (Call::ReissueActivationCode, "CODE_ISSUED"),
    (Call::HoldTerminal, "HELD"),
    (Call::ReleaseTerminal, "CODE_ISSUED"),
    (Call::CancelActivation, "REGISTERED"),
    (Call::SetMerchantStanding, "TESTED"),
    (Call::SetSettlementDigest, "TESTED"),
    (Call::EnableTerminal, "ACTIVE"),
    (Call::SuspendTerminal, "SUSPENDED"),
    (Call::ResumeTerminal, "ACTIVE"),
    (Call::StartRekey, "REKEYING"),
    (Call::MarkTerminalCompromised, "COMPROMISED"),
    (Call::RetireTerminal, "RETIRED"),
];

#[tokio::test]
async fn the_same_request_again_is_answered_the_same_and_done_once() {
    let service = Service::start_durable().await;
    let mut till = service.register("till", AES).await;
    service.register("other", AES).await;
    for (call, state) in WALK {
        if call == Call::SetMerchantStanding {
            let code = service.issue_code("till").await;
            till.activate(&service, Some(code)).await.unwrap();
        }
        let given = Given::to("till");
        let first = service.call_with(call, given.clone()).await.expect("the first");
        assert_eq!(state_name(&first), state, "{call:?}");
        let after = service.get("till").await;
        service.clock.advance(60);
        let again = service.call_with(call, given.clone()).await.expect("the second");
        assert!(again == first, "{call:?} is answered otherwise");
        // Written in other letters it is the same id, and bodies are compared to the letter.
        let upper = Given { request_id: given.request_id.to_uppercase(), ..given.clone() };
        let refusal = service.call_with(call, upper).await.err().expect("a refusal");
        assert_eq!(refusal.reason, "REQUEST_ID_REUSED", "{call:?}");
        assert!(service.get("till").await == after, "{call:?} was done twice");

        // Any other body under the id is refused, before anything else is looked at.
        let other = Given { name: "terminals/other".to_owned(), ..given };
        let refusal = service.call_with(call, other).await.err().expect("a refusal");
        assert_eq!(refusal.reason, "REQUEST_ID_REUSED", "{call:?}");
        assert_eq!(refusal.code, Code::InvalidArgument, "{call:?}");
    }
    let other = service.get("other").await;
    assert_eq!(other.timeline.len(), 1, "a refused request changed another terminal");
}

#[tokio::test]
async fn creations_are_answered_the_same_too() {
    let service = Service::start_durable().await;
    let mut terminals = service.client.terminals();
    let profile = create_profile_request("again");
    let first = answer(terminals.create_profile(profile.clone()).await);
    service.clock.advance(60);
    assert!(answer(terminals.create_profile(profile.clone()).await) == first);
    let mut other = profile;
    other.profile_id = "other".to_owned();
    assert_eq!(refusal(terminals.create_profile(other).await).reason, "REQUEST_ID_REUSED");

    let request = create_terminal_request("till", "SN-TILL", "again");
    let first = answer(terminals.create_terminal(request.clone()).await);
    service.clock.advance(60);
    assert!(answer(terminals.create_terminal(request.clone()).await) == first);
    let mut other = request.clone();
    other.merchant.as_mut().unwrap().display_name.push('!');
    assert_eq!(refusal(terminals.create_terminal(other).await).reason, "REQUEST_ID_REUSED");
    // The id of one call is not that of another.
    let given = Given { request_id: request.request_id.clone(), ..Given::to("till") };
    service.call_with(Call::HoldTerminal, given).await.expect("another call");
    // A day later the id says nothing any more.
    service.clock.advance(24 * HOUR);
    let refused = refusal(terminals.create_terminal(request).await);
    assert_eq!(refused.reason, "TERMINAL_ALREADY_EXISTS");
}

#[tokio::test]
async fn a_refusal_is_not_remembered() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let given = Given::to("till");
    let refused = service.call_with(Call::EnableTerminal, given.clone()).await;
    assert_eq!(refused.err().expect("a refusal").reason, "ACTIVATION_STATE");
    let code = service.issue_code("till").await;
    till.activate(&service, Some(code)).await.unwrap();
    let enabled = service.call_with(Call::EnableTerminal, given).await.expect("the same request");
    assert_eq!(state_name(&enabled), "ACTIVE");
}

#[tokio::test]
async fn the_same_request_gets_the_same_code_even_of_a_service_that_was_started_anew() {
    let service = Service::start_durable().await;
    let mut till = service.register("till", AES).await;
    let name = "terminals/till".to_owned();
    let request = proto::IssueActivationCodeRequest { request_id: request_id(), name };
    let issue = async |service: &Service, request: &proto::IssueActivationCodeRequest| {
        answer(service.client.terminals().issue_activation_code(request.clone()).await)
    };
    let first = issue(&service, &request).await;
    let groups: Vec<usize> = first.activation_code.split('-').map(str::len).collect();
    assert_eq!(groups, [4, 4, 4]);
    let expires = u64::try_from(first.expire_time.unwrap().seconds).unwrap();
    assert_eq!(expires, service.now() + 24 * HOUR);
    service.clock.advance(60);
    assert!(issue(&service, &request).await == first);

    let (folder, pki, clock) = service.stop().await;
    let store = SqliteStore::open(&folder.as_ref().unwrap().path().join("store")).unwrap();
    let service =
        Service::start_with(std::sync::Arc::new(store), folder, clock, pki, everybody()).await;
    assert!(issue(&service, &request).await == first);
    // Another request is another code; and the first one's still opens.
    let reissue = proto::ReissueActivationCodeRequest {
        request_id: request.request_id.clone(),
        name: request.name.clone(),
    };
    let code = firstkey::activation::ActivationCode::parse(&first.activation_code).unwrap();
    till.begin(&service, Some(code)).await.unwrap();
    let again = answer(service.client.terminals().reissue_activation_code(reissue).await);
    assert_ne!(again.activation_code, first.activation_code);
}
