//! What a backend may not know of looks to it as if it were not there.
//!
//! Two backends share a service. Each call of the one with a name of the other's is answered as it
//! is with a name that nobody has: code, message and details, octet by octet.

#![allow(clippy::needless_update, reason = "a macro fills in what a request has beyond its name")]

use firstkey::agreement::Suite;
use firstkey::grpc::Plane;
use firstkey::grpc::client::{Client, request_id};
use firstkey::grpc::proto::{
    BatchCreateTerminalsRequest, CancelActivationRequest, CreateKeyRequest, Direction,
    EnableTerminalRequest, GenerateMacRequest, GetProfileRequest, GetTerminalRequest,
    HoldTerminalRequest, IssueActivationCodeRequest, KeyAlgorithm, KeyUsage, ListProfilesRequest,
    ListTerminalsRequest, ListTerminalsResponse, LookupKsnRequest, MacAlgorithm,
    MarkTerminalCompromisedRequest, MerchantStanding, PinBlockFormat, ReissueActivationCodeRequest,
    ReleaseTerminalRequest, ResumeTerminalRequest, RetireTerminalRequest,
    SetMerchantStandingRequest, SetSettlementDigestRequest, StartRekeyRequest,
    SuspendTerminalRequest, TranslatePinRequest, VerifyMacAndTranslatePinRequest, VerifyMacRequest,
    WatchTerminalsRequest, WorkingKey,
};
use firstkey::server::dev;
use firstkey::vault::{Grant, Policy, Principal, Role};
use tokio_stream::StreamExt as _;
use tonic::{Code, Response, Status};

use crate::harness::{Service, TlsService, answer, create_terminal_request, with_master_key};
use crate::known::{PAN, dukpt, dukpt_of, expect_field, random, slot_of, status_of, stored};

const ONE: &str = "spiffe://dev.firstkey.internal/backend/one";
const TWO: &str = "spiffe://dev.firstkey.internal/backend/two";

const CALLS: [&str; 6] = [
    "CreateTerminal",
    "GenerateMac",
    "LookupKsn",
    "TranslatePin",
    "VerifyMac",
    "VerifyMacAndTranslatePin",
];

/// Two backends, each with its profile and its keys.
fn policy() -> Policy {
    let backend = |name: &str, profile: &str| Principal {
        name: name.to_owned(),
        person: String::new(),
        role: Role::Backend,
        profiles: vec![profile.to_owned()],
        calls_per_minute_max: 0,
    };
    let grant = |name: &str, key: &str| Grant {
        key: key.to_owned(),
        principals: vec![name.to_owned()],
        calls: CALLS.map(str::to_owned).to_vec(),
        pin_formats_in: Vec::new(),
        pin_formats_out: Vec::new(),
        partner_keys: Vec::new(),
        calls_per_minute_max: 0,
        not_before: None,
        not_after: None,
    };
    let mut policy = dev::policy();
    policy.principals.push(backend(ONE, "profiles/dev-tdes"));
    policy.principals.push(backend(TWO, "profiles/dev-aes*"));
    policy.grants = vec![
        grant(ONE, "keys/one-*"),
        grant(ONE, "keys/dev-bdk-tdes"),
        grant(TWO, "keys/two-*"),
        grant(TWO, "keys/dev-bdk-aes"),
    ];
    policy
}

/// Names of the same sort: another's, or nobody's.
struct Names {
    mac: &'static str,
    pin: &'static str,
    bdk: &'static str,
    master: &'static str,
    terminal: &'static str,
    profile: &'static str,
    ksn: Vec<u8>,
}

/// A status, whole: code, message, details.
type Whole = (Code, String, Vec<u8>);

fn whole<T>(result: Result<Response<T>, Status>) -> Whole {
    match result {
        Ok(_) => (Code::Ok, String::new(), Vec::new()),
        Err(status) => (status.code(), status.message().to_owned(), status.details().to_vec()),
    }
}

/// Every call of the data plane that names a key, a terminal or a KSN.
#[allow(clippy::too_many_lines, reason = "a table: a line or two for each call")]
async fn of_data(client: &Client, names: &Names) -> Vec<(&'static str, Whole)> {
    let ksn = &names.ksn;
    let make = |key: Option<WorkingKey>, terminal: &str| GenerateMacRequest {
        key,
        algorithm: MacAlgorithm::AesCmac.into(),
        message: b"message".to_vec(),
        mac_length_bytes: 8,
        terminal: if terminal.is_empty() { String::new() } else { format!("terminals/{terminal}") },
        ..GenerateMacRequest::default()
    };
    let verify = |key: Option<WorkingKey>, direction: Direction| VerifyMacRequest {
        key,
        direction: direction.into(),
        algorithm: MacAlgorithm::AesCmac.into(),
        message: b"message".to_vec(),
        mac: vec![7; 8],
        ..VerifyMacRequest::default()
    };
    let iso_4: i32 = PinBlockFormat::Iso4.into();
    let translate =
        |source: Option<WorkingKey>, destination: Option<WorkingKey>| TranslatePinRequest {
            source,
            source_format: iso_4,
            pin_block: vec![7; 16],
            destination,
            destination_format: iso_4,
            pan: PAN.to_owned(),
            ..TranslatePinRequest::default()
        };
    let both = |mac: Option<WorkingKey>, source, destination| VerifyMacAndTranslatePinRequest {
        mac_key: mac,
        algorithm: MacAlgorithm::AesCmac.into(),
        message: b"message".to_vec(),
        mac: vec![7; 8],
        source,
        source_format: iso_4,
        pin_block: vec![7; 16],
        destination,
        destination_format: iso_4,
        pan: PAN.to_owned(),
        ..VerifyMacAndTranslatePinRequest::default()
    };
    let (mut macs, mut pins) = (client.macs(), client.pins());
    let (mac, pin) = (stored(names.mac), stored(names.pin));
    let (own_mac, own_pin) = (stored("one-mac"), stored("one-pin"));
    let bdk = format!("keys/{}", names.bdk);
    let response =
        GenerateMacRequest { direction: Direction::Response.into(), ..make(dukpt(ksn), "") };
    vec![
        ("GenerateMac static", whole(macs.generate_mac(make(mac.clone(), "")).await)),
        (
            "GenerateMac terminal",
            whole(macs.generate_mac(make(own_mac.clone(), names.terminal)).await),
        ),
        ("GenerateMac ksn", whole(macs.generate_mac(response).await)),
        ("GenerateMac slot", whole(macs.generate_mac(make(slot_of(names.terminal, 1), "")).await)),
        (
            "VerifyMac static",
            whole(macs.verify_mac(verify(mac.clone(), Direction::Unspecified)).await),
        ),
        ("VerifyMac ksn", whole(macs.verify_mac(verify(dukpt(ksn), Direction::Request)).await)),
        (
            "VerifyMac bdk",
            whole(macs.verify_mac(verify(dukpt_of(&bdk, ksn), Direction::Request)).await),
        ),
        (
            "VerifyMac slot",
            whole(
                macs.verify_mac(verify(slot_of(names.terminal, 1), Direction::Unspecified)).await,
            ),
        ),
        (
            "TranslatePin source",
            whole(pins.translate_pin(translate(pin.clone(), own_pin.clone())).await),
        ),
        (
            "TranslatePin destination",
            whole(pins.translate_pin(translate(own_pin.clone(), pin.clone())).await),
        ),
        (
            // Of the wrong usage beside it: whichever is told first, it is the same.
            "TranslatePin beside",
            whole(pins.translate_pin(translate(pin.clone(), own_mac.clone())).await),
        ),
        (
            "TranslatePin ksn",
            whole(pins.translate_pin(translate(dukpt(ksn), own_pin.clone())).await),
        ),
        (
            "TranslatePin slot",
            whole(pins.translate_pin(translate(slot_of(names.terminal, 1), own_pin.clone())).await),
        ),
        (
            "Both mac",
            whole(
                pins.verify_mac_and_translate_pin(both(mac, own_pin.clone(), own_pin.clone()))
                    .await,
            ),
        ),
        (
            "Both source",
            whole(
                pins.verify_mac_and_translate_pin(both(
                    own_mac.clone(),
                    pin.clone(),
                    own_pin.clone(),
                ))
                .await,
            ),
        ),
        (
            "Both destination",
            whole(pins.verify_mac_and_translate_pin(both(own_mac, own_pin, pin)).await),
        ),
    ]
}

/// Every call of the terminals' plane that names a terminal, a profile, a key or a KSN.
async fn of_terminals(client: &Client, names: &Names) -> Vec<(&'static str, Whole)> {
    let mut terminals = client.terminals();
    let mut told = Vec::new();
    /// A call that names a terminal.
    macro_rules! named {
        ($method:ident, $request:ident { $($field:ident: $value:expr),* }) => {{
            let name = format!("terminals/{}", names.terminal);
            let request = $request { name, $($field: $value,)* ..$request::default() };
            told.push((stringify!($method), whole(terminals.$method(request).await)));
        }};
    }
    named!(get_terminal, GetTerminalRequest {});
    named!(cancel_activation, CancelActivationRequest { request_id: request_id(), cause: why() });
    named!(enable_terminal, EnableTerminalRequest { request_id: request_id() });
    named!(hold_terminal, HoldTerminalRequest { request_id: request_id(), cause: why() });
    named!(issue_activation_code, IssueActivationCodeRequest { request_id: request_id() });
    named!(
        mark_terminal_compromised,
        MarkTerminalCompromisedRequest { request_id: request_id(), cause: why() }
    );
    named!(reissue_activation_code, ReissueActivationCodeRequest { request_id: request_id() });
    named!(release_terminal, ReleaseTerminalRequest { request_id: request_id() });
    named!(resume_terminal, ResumeTerminalRequest { request_id: request_id() });
    named!(retire_terminal, RetireTerminalRequest { request_id: request_id(), cause: why() });
    named!(
        set_merchant_standing,
        SetMerchantStandingRequest {
            request_id: request_id(),
            standing: MerchantStanding::Rejected.into()
        }
    );
    named!(
        set_settlement_digest,
        SetSettlementDigestRequest { request_id: request_id(), digest: vec![7; 32] }
    );
    named!(start_rekey, StartRekeyRequest { request_id: request_id(), cause: why() });
    named!(suspend_terminal, SuspendTerminalRequest { request_id: request_id(), cause: why() });
    let request = GetProfileRequest { name: format!("profiles/{}", names.profile) };
    told.push(("get_profile", whole(terminals.get_profile(request).await)));
    let register = create_terminal_request("new", "SN-NEW", names.profile);
    told.push(("create_terminal", whole(terminals.create_terminal(register).await)));
    let register = create_terminal_request("new", "SN-NEW", "dev-tdes");
    let register = with_master_key(register, names.master);
    told.push(("create_terminal key", whole(terminals.create_terminal(register).await)));
    let request = LookupKsnRequest { ksn: names.ksn.clone() };
    told.push(("lookup_ksn", whole(terminals.lookup_ksn(request).await)));
    told
}

fn why() -> String {
    "a test".to_owned()
}

/// The keys of both, and a terminal in service that is the second one's.
async fn prepare(service: &Service) -> Vec<u8> {
    for owner in ["one", "two"] {
        for (what, usage) in [
            ("mac", KeyUsage::MacCmac),
            ("pin", KeyUsage::PinEncryption),
            ("master", KeyUsage::KeyDerivation),
        ] {
            let request = CreateKeyRequest {
                request_id: request_id(),
                key_id: format!("{owner}-{what}"),
                usage: usage.into(),
                algorithm: KeyAlgorithm::Aes128.into(),
                ..CreateKeyRequest::default()
            };
            answer(service.client.keys().create_key(request).await);
        }
    }
    service.active_till("two-till", Suite::P256Aes128).await;
    let terminal = service.get("two-till").await;
    [terminal.initial_key_id, vec![0, 0, 1, 0]].concat()
}

#[tokio::test]
async fn what_is_anothers_looks_like_nothing() {
    let service = TlsService::start_with(policy()).await;
    let ksn = prepare(&service.plain).await;
    let foreign = Names {
        mac: "two-mac",
        pin: "two-pin",
        bdk: "dev-bdk-aes",
        master: "two-master",
        terminal: "two-till",
        profile: "dev-aes",
        ksn,
    };
    let random = Names {
        mac: "no-mac",
        pin: "no-pin",
        bdk: "no-bdk",
        master: "no-master",
        terminal: "no-till",
        profile: "no-profile",
        ksn: [random(8), vec![0, 0, 1, 0]].concat(),
    };
    let data = service.connect(Some(&service.issue(ONE, Plane::Data))).await.unwrap();
    let terminals = service.connect(Some(&service.issue(ONE, Plane::Terminals))).await.unwrap();
    let of_foreign = [of_data(&data, &foreign).await, of_terminals(&terminals, &foreign).await];
    let of_random = [of_data(&data, &random).await, of_terminals(&terminals, &random).await];
    for (foreign, random) in of_foreign.concat().iter().zip(of_random.concat()) {
        assert_eq!(foreign.1.0, Code::NotFound, "{}", foreign.0);
        assert_eq!(*foreign, random);
    }
    // The calls are sound: who may know of these names is told otherwise.
    let theirs = service.connect(Some(&service.issue(TWO, Plane::Terminals))).await.unwrap();
    for (call, (code, ..)) in of_terminals(&theirs, &foreign).await {
        assert!(code != Code::NotFound || call == "create_terminal key", "{call}");
    }
    // The audit log tells what the caller was not told.
    let events = service.plain.vault.events_after(0, 1_000).await.unwrap();
    let rules = |action: &str, resource: &str| {
        let one = events.iter().filter(|event| event.caller == ONE && event.action == action);
        let about = one.filter(|event| event.resource == resource);
        about.filter_map(|event| event.detail.get("rule").cloned()).collect::<Vec<_>>()
    };
    assert_eq!(rules("GenerateMac", "keys/two-mac"), ["grant"]);
    assert_eq!(rules("GetTerminal", "terminals/two-till"), ["profile"]);
    assert_eq!(rules("GetTerminal", "terminals/no-till"), [""; 0]);
    assert_eq!(rules("GetProfile", "profiles/dev-aes"), ["profile"]);
    assert!(rules("VerifyMac", "keys/dev-bdk-aes").contains(&"grant".to_owned()));
    drop((data, terminals, theirs));
    service.stop().await;
}

#[tokio::test]
async fn anothers_terminal_is_refused_as_fast_as_none() {
    let service = TlsService::start_with(policy()).await;
    prepare(&service.plain).await;
    for id in ["two-a", "two-b"] {
        let request = create_terminal_request(id, &format!("SN-{id}"), "dev-aes");
        answer(service.plain.client.terminals().create_terminal(request).await);
    }
    let data = service.connect(Some(&service.issue(ONE, Plane::Data))).await.unwrap();
    for id in ["two-till", "no-1", "two-a", "no-2", "two-b"] {
        let request = GenerateMacRequest {
            key: stored("one-mac"),
            algorithm: MacAlgorithm::AesCmac.into(),
            message: b"message".to_vec(),
            mac_length_bytes: 8,
            terminal: format!("terminals/{id}"),
            ..GenerateMacRequest::default()
        };
        assert_eq!(whole(data.macs().generate_mac(request).await).0, Code::NotFound, "{id}");
    }
    // None but the first waited for an event of its own.
    let events = service.plain.vault.events_after(0, 1_000).await.unwrap();
    let written = events.iter().filter(|event| {
        event.caller == ONE && event.action == "GenerateMac" && event.reason.is_some()
    });
    let written: Vec<_> = written.collect();
    assert_eq!(written.len(), 1, "{written:?}");
    assert_eq!(written[0].detail["terminal_hidden"], "terminals/two-till");
    drop(data);
    service.stop().await;
}

#[tokio::test]
async fn only_who_knows_a_retired_terminal_registers_its_device_anew() {
    let service = TlsService::start_with(policy()).await;
    let plain = &service.plain.client;
    for id in ["gone", "here"] {
        let request = create_terminal_request(id, &format!("SN-{id}"), "dev-aes");
        answer(plain.terminals().create_terminal(request).await);
    }
    let request = RetireTerminalRequest {
        name: "terminals/gone".to_owned(),
        request_id: request_id(),
        cause: why(),
    };
    answer(plain.terminals().retire_terminal(request).await);
    let one = service.connect(Some(&service.issue(ONE, Plane::Terminals))).await.unwrap();
    let two = service.connect(Some(&service.issue(TWO, Plane::Terminals))).await.unwrap();
    let register = async |client: &Client, serial: &str, profile: &str| {
        let request = create_terminal_request("anew", serial, profile);
        whole(client.terminals().create_terminal(request).await)
    };
    let of_retired = register(&one, "SN-gone", "dev-tdes").await;
    assert_eq!(of_retired.0, Code::AlreadyExists);
    assert_eq!(of_retired, register(&one, "SN-here", "dev-tdes").await);
    assert_eq!(register(&two, "SN-gone", "dev-aes").await.0, Code::Ok);
    drop((one, two));
    service.stop().await;
}

#[tokio::test]
async fn a_list_looks_at_so_many_and_no_token_tells_what_it_looked_at() {
    let service = TlsService::start_with(policy()).await;
    prepare(&service.plain).await;
    let mut plain = service.plain.client.terminals();
    for batch in 0..3 {
        let entry = |number: usize| {
            let id = format!("a-two-{batch}-{number:03}");
            create_terminal_request(&id, &format!("SN-{id}"), "dev-aes")
        };
        let entries = (0..200).map(entry).collect();
        answer(plain.batch_create_terminals(BatchCreateTerminalsRequest { entries }).await);
    }
    let request = create_terminal_request("b-one", "SN-b-one", "dev-tdes");
    answer(plain.create_terminal(request).await);
    let one = service.connect(Some(&service.issue(ONE, Plane::Terminals))).await.unwrap();
    let two = service.connect(Some(&service.issue(TWO, Plane::Terminals))).await.unwrap();
    let list = async |client: &Client, page_token: &str| {
        let page_token = page_token.to_owned();
        let request = ListTerminalsRequest { page_size: 100, page_token, ..Default::default() };
        client.terminals().list_terminals(request).await
    };
    // 600 of another's come first: the page ends without a row, and says that there may be more.
    let first = answer(list(&one, "").await);
    assert!(first.terminals.is_empty());
    let token = first.next_page_token;
    assert!((1..=208).contains(&token.len()));
    let octets = data_encoding::BASE64URL_NOPAD.decode(token.as_bytes()).unwrap();
    assert!(!octets.windows(4).any(|part| part == b"-two"));
    let second = answer(list(&one, &token).await);
    let names: Vec<_> = second.terminals.iter().map(|one| one.name.as_str()).collect();
    assert_eq!((names, second.next_page_token.as_str()), (vec!["terminals/b-one"], ""));
    // It leads on for whom it was given, in the call that gave it.
    expect_field(&status_of(list(&two, &token).await), "page_token");
    let profiles = ListProfilesRequest { page_token: token, ..ListProfilesRequest::default() };
    expect_field(&status_of(one.terminals().list_profiles(profiles).await), "page_token");
    let all = answer(list(&two, "").await);
    assert_eq!(all.terminals.len(), 100);
    drop((one, two));
    service.stop().await;
}

#[tokio::test]
async fn lists_and_streams_show_what_is_the_callers_own() {
    let service = TlsService::start_with(policy()).await;
    prepare(&service.plain).await;
    for (id, profile) in
        [("a-two", "dev-aes"), ("b-one", "dev-tdes"), ("c-two", "dev-aes"), ("d-one", "dev-tdes")]
    {
        let request = create_terminal_request(id, &format!("SN-{id}"), profile);
        answer(service.plain.client.terminals().create_terminal(request).await);
    }
    let client = service.connect(Some(&service.issue(ONE, Plane::Terminals))).await.unwrap();
    let mut terminals = client.terminals();
    let list = |key: &str, page_size, page_token: &str| ListTerminalsRequest {
        page_size,
        page_token: page_token.to_owned(),
        base_derivation_key: key.to_owned(),
        ..ListTerminalsRequest::default()
    };
    // Page by page: nothing of what lies between is shown, nor that it is there.
    let first = answer(terminals.list_terminals(list("", 1, "")).await);
    let names = |page: &ListTerminalsResponse| {
        page.terminals.iter().map(|one| one.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&first), ["terminals/b-one"]);
    let second = answer(terminals.list_terminals(list("", 1, &first.next_page_token)).await);
    assert_eq!(
        (names(&second), second.next_page_token.as_str()),
        (vec!["terminals/d-one".to_owned()], "")
    );
    let all = answer(terminals.list_terminals(list("", 100, "")).await);
    assert_eq!(names(&all), ["terminals/b-one", "terminals/d-one"]);
    let foreign = answer(terminals.list_terminals(list("keys/dev-bdk-aes", 100, "")).await);
    let random = answer(terminals.list_terminals(list("keys/no-bdk", 100, "")).await);
    assert!(foreign.terminals.is_empty() && foreign == random);
    let profiles = answer(terminals.list_profiles(ListProfilesRequest::default()).await);
    let profiles: Vec<_> = profiles.profiles.into_iter().map(|one| one.name).collect();
    assert_eq!(profiles, ["profiles/dev-tdes"]);

    let watch = WatchTerminalsRequest::default();
    let mut stream = answer(terminals.watch_terminals(watch).await);
    for expected in ["terminals/b-one", "terminals/d-one"] {
        assert_eq!(stream.next().await.unwrap().unwrap().terminal, expected);
    }
    let mut foreign = answer(
        terminals
            .watch_terminals(WatchTerminalsRequest {
                terminal: "terminals/two-till".to_owned(),
                ..WatchTerminalsRequest::default()
            })
            .await,
    );
    // Who is nobody any more is shown nothing more, on a stream that is open.
    let mut without = service.plain.client.get_policy().await.unwrap();
    without.principals.retain(|principal| principal.name != ONE);
    without.grants.retain(|grant| grant.principals != [ONE]);
    service.plain.client.set_policy(request_id(), &without).await.unwrap();
    for stream in [&mut stream, &mut foreign] {
        let end = stream.next().await.unwrap().err().map(|status| status.code());
        assert_eq!(end, Some(Code::Unauthenticated));
    }
    drop((client, stream, foreign));
    service.stop().await;
}
