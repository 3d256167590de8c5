//! Terminals that prove themselves by a master key: who may have one, and what it proves.

use firstkey::activation::payload::{
    Begin, CertificateChain, Deliver, DeliverAnswer, Payload as _,
};
use firstkey::activation::{ActivationCode, Call, Step, Transcript};
use firstkey::agreement::{MasterKey, Suite};
use firstkey::crypto::ec::EphemeralKey;
use firstkey::grpc::client::{Refusal, request_id};
use firstkey::grpc::proto;
use firstkey::key::Algorithm;
use firstkey::keyblock::{self, Header, Version};
use firstkey::server::dev;
use firstkey::server::simulation::simulated_device_with;
use firstkey::terminal::{Answer, Credential, SignedRequest, Terminal};
use firstkey::vault::Event;
use tonic::Code;

use crate::harness::{
    Service, Till, answer, create_terminal_request, development_keys, refusal, refused, retyped,
    serial_of, told, with_master_key,
};

const AES: Suite = Suite::MasterAesAes128;
const TDES: Suite = Suite::MasterTdesTdes2;
const NAME: &str = "terminals/till/activations/1";

async fn set_state(service: &Service, key: &str, state: proto::KeyState) {
    let name = format!("keys/{key}");
    let request = proto::SetKeyStateRequest {
        request_id: request_id(),
        name,
        state: state.into(),
        serve_until: None,
    };
    answer(service.client.keys().set_key_state(request).await);
}

/// A registration with nothing wrong in it, by a master key.
fn registration(id: &str, key: &str) -> proto::CreateTerminalRequest {
    with_master_key(create_terminal_request(id, &serial_of(id), dev::PROFILE_MASTER_AES), key)
}

async fn create(service: &Service, request: proto::CreateTerminalRequest) -> proto::Terminal {
    let made = answer(service.client.terminals().create_terminal(request).await);
    made.terminal.expect("a terminal")
}

async fn refuse(service: &Service, request: proto::CreateTerminalRequest) -> Refusal {
    refusal(service.client.terminals().create_terminal(request).await)
}

/// A change of a registration.
type Registering = fn(&mut proto::CreateTerminalRequest);

#[tokio::test]
async fn kind_master_key_and_suite_go_together() {
    let service = Service::start().await;
    service.master_key("aes", Algorithm::Aes128).await;
    service.master_key("tdes", Algorithm::Tdes2).await;
    let faults: [(&str, Registering); 8] = [
        ("kind", |request| request.profile = "profiles/dev-aes".into()),
        ("kind", |request| request.profile = "profiles/dev-tdes".into()),
        ("kind", |request| {
            request.kind = proto::TerminalKind::DeviceCertificate.into();
            request.master_key.clear();
            request.device_authority = format!("deviceAuthorities/{}", dev::DEVICE_AUTHORITY);
        }),
        ("master_key", |request| {
            request.kind = proto::TerminalKind::DeviceCertificate.into();
            request.device_authority = format!("deviceAuthorities/{}", dev::DEVICE_AUTHORITY);
        }),
        ("master_key", |request| request.master_key.clear()),
        ("master_key", |request| request.master_key = "aes".into()),
        ("master_key", |request| request.master_key.push('!')),
        ("device_authority", |request| request.device_authority = "deviceAuthorities/x".into()),
    ];
    for (path, change) in faults {
        let mut request = registration("till", "aes");
        change(&mut request);
        let refused = refuse(&service, request).await;
        assert_eq!(
            (refused.reason.as_str(), refused.fields[0].0.as_str()),
            ("FIELD_INVALID", path)
        );
    }
    set_state(&service, "aes", proto::KeyState::Suspended).await;
    for (key, reason) in [
        ("aes", "KEY_NOT_ACTIVE"),
        ("nobody", "KEY_NOT_FOUND"),
        ("dev-kek", "KEY_USAGE_MISMATCH"),
        ("dev-bdk-aes", "KEY_USAGE_MISMATCH"),
        ("tdes", "KEY_USAGE_MISMATCH"),
    ] {
        let refused = refuse(&service, registration("till", key)).await;
        assert_eq!(refused.reason, reason, "{key}");
    }
    set_state(&service, "aes", proto::KeyState::Active).await;
    let made = create(&service, registration("till", "aes")).await;
    assert!(made.kind() == proto::TerminalKind::MasterKey);
    assert_eq!(
        (made.master_key.as_str(), made.device_authority.as_str()),
        ("keys/aes/versions/1", "")
    );
    assert!(!made.forward_secrecy);
    service.register("other", Suite::P256Aes128).await;
    let other = service.get("other").await;
    assert!(other.forward_secrecy && other.master_key.is_empty());
}

#[tokio::test]
async fn a_master_key_is_of_one_device_for_good() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    till.activate(&service, Some(code)).await.unwrap();
    let first = service.get("till").await;
    // Another name for the key is no way out.
    let Credential::MasterKey(key) = &till.terminal.device().credential else { panic!("a key") };
    let kek = development_keys().key_encryption_key().unwrap();
    let header = Header::new(Version::D, *b"B3", b'A', b'X');
    let block = keyblock::wrap_key(&kek, &header, key, &service.rng).unwrap();
    let request = proto::ImportKeyRequest {
        request_id: request_id(),
        key_id: "alias".to_owned(),
        key_block: block.to_string(),
        wrapping_key: format!("keys/{}", dev::KEK),
        ..proto::ImportKeyRequest::default()
    };
    answer(service.client.keys().import_key(request).await);
    for retired in [false, true] {
        if retired {
            service.must(Call::RetireTerminal, "till").await;
        }
        for name in ["master-till", "alias"] {
            let refused = refuse(&service, registration("thief", name)).await;
            assert_eq!(refused.reason, "RESOURCE_ALREADY_EXISTS");
            assert_eq!(refused.code, Code::AlreadyExists);
        }
    }
    // The same device comes back with its key: a new generation with another initial key.
    let again = registration("again", "master-till");
    let again = proto::CreateTerminalRequest { serial: serial_of("till"), ..again };
    let made = create(&service, again).await;
    assert_eq!(made.generation, 2);
    let mut till = Till { id: "again".to_owned(), ..till };
    let code = service.issue_code("again").await;
    till.driver(&service, |driver| Box::pin(driver.activate(Some(code), true))).await.unwrap();
    let second = service.get("again").await;
    assert_ne!(second.initial_key_id, first.initial_key_id);
}

/// The terminal of another key, under the same serial.
async fn impostor(service: &Service, suite: Suite, algorithm: Algorithm) -> Till {
    let key = service.master_key(&format!("stolen-{}", request_id()), algorithm).await;
    let device = simulated_device_with(key, &serial_of("till")).unwrap();
    Till { id: "till".to_owned(), terminal: Terminal::new(device, suite) }
}

#[tokio::test]
async fn whoever_has_not_the_key_learns_one_thing_and_spends_nothing() {
    let service = Service::start().await;
    for (suite, algorithm) in [(AES, Algorithm::Aes128), (TDES, Algorithm::Tdes2)] {
        let id = if suite == AES { "till" } else { "till-tdes" };
        let mut till = service.register(id, suite).await;
        let code = service.issue_code(id).await;
        let before = service.get(id).await;
        let device_time = || service.device_time();
        let begin = till.terminal.begin(Some(retyped(&code)), &service.rng, device_time()).unwrap();
        let mut other = impostor(&service, suite, algorithm).await;
        other.id = id.to_owned();
        // Another key over the same bytes, a proof of the other kind, a proof of another step.
        let payload = || begin.payload.clone();
        let of_other = other.signed(&Transcript::new(), payload(), Step::Begin);
        let of_report = till.signed(&Transcript::new(), payload(), Step::Report);
        let signature = SignedRequest { payload: payload(), proof: vec![1; 64] };
        // Its own key, and certificates beside it.
        let mut sent = Begin::parse(&begin.payload).unwrap();
        sent.certificate_chain = CertificateChain::new(vec![vec![0x30; 100]]);
        let with_chain = till.signed(&Transcript::new(), sent.encode(), Step::Begin);
        let mut refusals = Vec::new();
        for attempt in [of_other, of_report, signature, with_chain] {
            refusals.push(service.send_begin(&attempt).await.unwrap_err());
        }
        assert_eq!(refusals[0].reason, "ACTIVATION_REFUSED");
        assert_eq!((refusals[0].metadata.len(), refusals[0].fields.len()), (0, 0));
        assert!(refusals.iter().all(|refusal| *refusal == refusals[0]));
        assert!(service.get(id).await == before);
        // Not a try was spent.
        let wrong = Some(ActivationCode::from_random_bits(&[1; 7]));
        let wrong = till.terminal.begin(wrong, &service.rng, device_time()).unwrap();
        let refusal = service.send_begin(&wrong).await.unwrap_err();
        assert_eq!((refusal.reason.as_str(), told(&refusal, "tries_left")), ("CODE_REFUSED", "4"));
    }
}

#[tokio::test]
async fn a_certificate_does_not_stand_in_for_a_master_key_nor_the_reverse() {
    let service = Service::start().await;
    let till = service.register("till", AES).await;
    let other = service.register("other", Suite::P256Aes128).await;
    // Each says that it is the other.
    let swap = |till: &Till, id: &str| {
        let memory = till.terminal.save().replace(&serial_of(&till.id), &serial_of(id));
        Till { id: id.to_owned(), terminal: Terminal::restore(&memory).unwrap() }
    };
    for mut swapped in [swap(&till, "other"), swap(&other, "till")] {
        let refusal = refused(swapped.begin(&service, None).await);
        assert_eq!(refusal.reason, "ACTIVATION_REFUSED");
    }
}

#[tokio::test]
async fn keys_travel_in_the_version_of_the_master_key() {
    let service = Service::start().await;
    for (suite, version) in
        [(AES, 'D'), (Suite::MasterAesTdes2, 'D'), (TDES, 'B'), (Suite::P256Tdes2, 'D')]
    {
        let id = format!("till-{}", suite.name().to_lowercase().replace('_', "-"));
        let mut till = service.register(&id, suite).await;
        let code = service.issue_code(&id).await;
        let begin = till.terminal.begin(Some(code), &service.rng, service.device_time()).unwrap();
        let answered = service.send_begin(&begin).await.unwrap();
        let reply = Answer { payload: &answered.payload, proof: &answered.proof };
        let name = till.terminal.accept_begin(reply, service.now()).unwrap();
        let deliver = till.terminal.deliver().unwrap();
        let sent = service.send_deliver(name.as_str(), &deliver).await.unwrap();
        let delivered = DeliverAnswer::parse(&sent.payload).unwrap();
        assert!(delivered.keys[0].key_block.starts_with(version), "{suite:?}");
        let note = service.get(&id).await.timeline.pop().unwrap().note;
        assert!(note.contains(&format!("version {version} key block")), "{note}");
        assert_eq!(answered.proof.len(), if suite.has_master_key() { 32 } else { 64 });
        assert_eq!(delivered.service_ephemeral.is_none(), suite.has_master_key());
        let Credential::MasterKey(key) = &till.terminal.device().credential else { continue };
        // Opened by hand, and by no other session's key.
        let transcript = Transcript::new().with(&begin.payload).with(&answered.payload);
        let master = MasterKey::new(key, suite).unwrap();
        let opens = |begun: &[u8; 32]| {
            let protection = master.session_keys(begun).key_block_protection;
            keyblock::unwrap(&protection, &delivered.keys[0].key_block)
        };
        let opened = opens(&transcript.hash()).expect("it opens");
        assert_eq!(opened.algorithm, suite.initial_key_algorithm());
        assert!(opens(&Transcript::new().hash()).is_err());
    }
}

/// The newest audit event of an action.
async fn event_of(service: &Service, action: &str) -> Event {
    let events = service.vault.events_after(0, 1_000).await.unwrap();
    let mut found = events.into_iter().filter(|event| event.action == action);
    found.next_back().expect("an event")
}

#[tokio::test]
async fn a_master_key_out_of_use_proves_nothing_at_any_step() {
    for suite in [AES, TDES] {
        let service = Service::start().await;
        let mut till = service.register("till", suite).await;
        let mut code = Some(service.issue_code("till").await);
        for action in ["BeginActivation", "DeliverKeys", "ConfirmKeys"] {
            set_state(&service, "master-till", proto::KeyState::Suspended).await;
            let before = service.get("till").await;
            let again = code.as_ref().map(retyped);
            let mut twin = till.twin();
            let refusal = match action {
                "BeginActivation" => refused(twin.begin(&service, again).await),
                "DeliverKeys" => refused(twin.deliver(&service).await),
                _ => refused(twin.confirm(&service).await),
            };
            assert_eq!(refusal.reason, "ACTIVATION_REFUSED");
            assert!(refusal.metadata.is_empty());
            assert!(service.get("till").await == before, "nothing has changed");
            // Why, the audit log tells and nobody else.
            let event = event_of(&service, action).await;
            assert_eq!(event.detail["master_key"], "KEY_NOT_ACTIVE");
            set_state(&service, "master-till", proto::KeyState::Active).await;
            match action {
                "BeginActivation" => till.begin(&service, code.take()).await.unwrap(),
                "DeliverKeys" => till.deliver(&service).await.unwrap(),
                _ => till.confirm(&service).await.unwrap(),
            }
            let event = event_of(&service, action).await;
            assert!(event.keys.iter().any(|key| key.name.starts_with("keys/master-till")));
        }
        // Once they are confirmed, the keys serve without the master key.
        set_state(&service, "master-till", proto::KeyState::Suspended).await;
        till.parameters(&service).await.unwrap();
        assert!(till.test(&service).await.unwrap().passed());
    }
}

#[tokio::test]
async fn what_was_answered_is_told_again_under_a_master_key_in_use_alone() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    /// Sends once, once more without the key, and once more with it.
    macro_rules! without_the_key {
        ($send:expr) => {{
            let first = $send.await.expect("the first");
            set_state(&service, "master-till", proto::KeyState::Suspended).await;
            let refusal = $send.await.expect_err("suspended");
            assert_eq!(refusal.reason, "ACTIVATION_REFUSED");
            set_state(&service, "master-till", proto::KeyState::Active).await;
            assert_eq!($send.await.expect("active"), first);
            first
        }};
    }
    let begin = till.terminal.begin(Some(code), &service.rng, service.device_time()).unwrap();
    let sent = without_the_key!(service.send_begin(&begin));
    let reply = Answer { payload: &sent.payload, proof: &sent.proof };
    till.terminal.accept_begin(reply, service.now()).unwrap();
    let deliver = till.terminal.deliver().unwrap();
    let sent = without_the_key!(service.send_deliver(NAME, &deliver));
    // A device that was switched off meanwhile makes the same Deliver: nothing of it is random.
    assert!(till.twin().terminal.deliver().unwrap() == deliver);
    let reply = Answer { payload: &sent.payload, proof: &sent.proof };
    till.terminal.accept_keys(reply).unwrap();
    let confirm = till.terminal.confirm().unwrap();
    let sent = without_the_key!(service.send_confirm(NAME, &confirm));
    let reply = Answer { payload: &sent.payload, proof: &sent.proof };
    till.terminal.accept_confirmation(reply).unwrap();
}

#[tokio::test]
async fn an_ephemeral_key_and_a_session_before_are_refused() {
    let service = Service::start().await;
    let mut till = service.register("till", TDES).await;
    let code = service.issue_code("till").await;
    let begin =
        till.terminal.begin(Some(retyped(&code)), &service.rng, service.device_time()).unwrap();
    let answered = service.send_begin(&begin).await.unwrap();
    let reply = Answer { payload: &answered.payload, proof: &answered.proof };
    let activation = till.terminal.accept_begin(reply, service.now()).unwrap();
    let before = service.get("till").await;
    // The device itself proves it: what is refused is the field.
    let transcript = Transcript::new().with(&begin.payload).with(&answered.payload);
    let device_ephemeral = Some(EphemeralKey::generate().unwrap().public());
    let message = Deliver { activation, device_ephemeral }.encode();
    let message = till.signed(&transcript, message, Step::Deliver);
    let refusal = service.send_deliver(NAME, &message).await.unwrap_err();
    assert_eq!(refusal.reason, "FIELD_INVALID");
    assert_eq!(refusal.fields[0].0, "payload.device_ephemeral");
    // The device key proves no Deliver, only the key of its session does.
    let mut deliver = till.terminal.deliver().unwrap();
    let genuine = deliver.proof.clone();
    let Credential::MasterKey(key) = &till.terminal.device().credential else { panic!("a key") };
    let device_key = MasterKey::new(key, TDES).unwrap().device_key(&serial_of("till"));
    let message = (firstkey::activation::Role::Terminal, Step::Deliver);
    let whole = transcript.with(&deliver.payload);
    deliver.proof = firstkey::activation::confirmation::mac(&device_key, message, &whole).to_vec();
    let refusal = service.send_deliver(NAME, &deliver).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED");
    assert!(service.get("till").await == before);
    deliver.proof = genuine;
    // Another session ends this one.
    till.begin(&service, Some(code)).await.unwrap();
    let refusal = service.send_deliver(NAME, &deliver).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED");
    till.activate(&service, None).await.unwrap();
}

#[tokio::test]
async fn codes_hold_for_master_keys_too() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    service.issue_code("till").await;
    for (tries_left, reason) in [
        ("4", "CODE_REFUSED"),
        ("3", "CODE_REFUSED"),
        ("2", "CODE_REFUSED"),
        ("1", "CODE_REFUSED"),
        ("0", "TERMINAL_LOCKED"),
    ] {
        let wrong = Some(ActivationCode::from_random_bits(&[1; 7]));
        let refusal = refused(till.twin().begin(&service, wrong).await);
        assert_eq!((refusal.reason.as_str(), told(&refusal, "tries_left")), (reason, tries_left));
    }
    let code = service.reissue_code("till").await;
    till.activate(&service, Some(code)).await.unwrap();
    // New keys in a new activation need no code, and have another id.
    service.enable("till").await.unwrap();
    let first = service.get("till").await.initial_key_id;
    service.must(Call::StartRekey, "till").await;
    till.driver(&service, |driver| Box::pin(driver.activate(None, true))).await.unwrap();
    assert_ne!(service.get("till").await.initial_key_id, first);
    assert_eq!(service.state("till").await, "ACTIVE");
}

#[tokio::test]
async fn a_device_reports_under_its_master_key_before_it_has_others() {
    use firstkey::activation::payload::Fault;
    use firstkey::terminal::ReportRequest;
    let service = Service::start().await;
    let mut till = service.register("till", TDES).await;
    let code = service.issue_code("till").await;
    till.begin(&service, Some(code)).await.unwrap();
    let report = till.device_report(NAME, Fault::KeyBlock);
    let other = impostor(&service, TDES, Algorithm::Tdes3).await;
    let foreign = ReportRequest::Signed(other.device_report(NAME, Fault::KeyBlock));
    let refusal = service.send_report(NAME, &foreign).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED");
    service.send_report(NAME, &ReportRequest::Signed(report)).await.unwrap();
    let last = service.get("till").await.timeline.pop().unwrap();
    assert_eq!((last.step.as_str(), last.reason.as_str()), ("ReportStep", "KEY_BLOCK"));
    set_state(&service, "master-till", proto::KeyState::Suspended).await;
    let report = ReportRequest::Signed(till.device_report(NAME, Fault::CheckValue));
    let refusal = service.send_report(NAME, &report).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED");
}

#[tokio::test]
async fn the_development_master_keys_play_a_terminal_each() {
    let service = Service::start().await;
    let keys = development_keys();
    for (id, key, suite) in
        [("till-aes", "dev-master-aes", AES), ("till-tdes", "dev-master-tdes", TDES)]
    {
        let request = create_terminal_request(id, &serial_of(id), dev::profile_of(suite));
        let request = with_master_key(request, key);
        create(&service, request).await;
        let device = simulated_device_with(keys.terminal_master_key(key).unwrap(), &serial_of(id));
        let terminal = Terminal::new(device.unwrap(), suite);
        let mut till = Till { id: id.to_owned(), terminal };
        let code = service.issue_code(id).await;
        till.activate(&service, Some(code)).await.unwrap();
        service.enable(id).await.unwrap();
        let payment = till.purchase(&service);
        crate::transactions::verify(&service, &payment).await.unwrap();
    }
}
