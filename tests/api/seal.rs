//! A service that starts sealed, over TLS: custodians make its master key, open it, and it is sealed
//! again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use firstkey::command::envelope::{Context, Purpose};
use firstkey::command::seal::KEM;
use firstkey::component::{Heading, Share};
use firstkey::crypto::certificate::key_from_pem;
use firstkey::crypto::ec::SigningKey;
use firstkey::crypto::hpke::RecipientKey;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::{
    Client, ClientError, Credentials, ShareHolder, create_master_key, request_id,
};
use firstkey::grpc::proto::create_master_key_request::Keepers;
use firstkey::grpc::proto::{
    AbandonMasterKeyRequest, CreateKeyRequest, KeyAlgorithm, KeyUsage, ListEventsRequest,
    ListKeysRequest, SealRequest, SealState, SealStatus, ShareKeepers, TakeShareRequest,
    UnsealRequest,
};
use firstkey::grpc::{DenyList, Plane, SEAL_SERVICE, SERVICE_NAMES, Trust};
use firstkey::server::access::{Access, policy};
use firstkey::server::{Limits, Listener, Operations, Settings, Tls, run_self_tests, serve};
use firstkey::vault::store::{MemoryStore, Store};
use firstkey::vault::{AuditSettings, Gate, Opener, Policy, Principal, Realm, Role};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use zeroize::Zeroizing;

use crate::approvals::approve;
use crate::harness::{DECADES, MINUTE, TestClock, material};
use crate::self_tests::{call, every_path};

/// How long calls in flight may take when the vault is sealed.
const DRAIN: Duration = Duration::from_secs(1);

/// A live service before a store in memory; it starts sealed.
pub(crate) struct Sealed {
    pub(crate) access: Access,
    issued: Mutex<BTreeMap<(String, &'static str), Credentials>>,
    store: Arc<dyn Store>,
    pub(crate) clock: Arc<TestClock>,
    gate: Arc<Gate>,
    pub(crate) url: String,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

pub(crate) fn name(who: &str) -> String {
    let role = who.split('-').next().unwrap();
    format!("spiffe://test/{role}/{who}")
}

/// The policy of a new service, with five custodians and a second certificate of the first.
fn first_policy() -> Policy {
    let mut policy = policy("test", 1, Vec::new());
    for (who, person) in [
        ("custodian-4", "custodian-4"),
        ("custodian-5", "custodian-5"),
        ("custodian-twin", "custodian-1"),
    ] {
        policy.principals.push(Principal {
            name: name(who),
            person: person.to_owned(),
            role: Role::Custodian,
            profiles: Vec::new(),
            calls_per_minute_max: 0,
        });
    }
    policy
}

impl Sealed {
    pub(crate) async fn start() -> Self {
        let access = Access::generate("TEST", DECADES).unwrap();
        Self::over(Arc::new(MemoryStore::new()), access, TestClock::begin()).await
    }

    async fn over(store: Arc<dyn Store>, access: Access, clock: Arc<TestClock>) -> Self {
        let gate = Gate::sealed(Opener {
            store: Arc::clone(&store),
            realm: Realm::Live,
            clock: clock.clone(),
            rng: Arc::new(SystemRng::new()),
            node: "test".to_owned(),
            audit: AuditSettings::default(),
            first_policy: Some(first_policy()),
        });
        let tls = Tls::new(Plane::ALL.to_vec(), &material(&access), clock.clone()).unwrap();
        let socket = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("https://localhost:{}", socket.local_addr().unwrap().port());
        let settings = Settings {
            listeners: vec![Listener::tls(socket, Arc::new(tls))],
            trust: Trust::Certificates(DenyList::default()),
            reflection: false,
            drain: DRAIN,
            limits: Limits::default(),
            operations: Operations::default(),
            token: None,
        };
        let stop = CancellationToken::new();
        let proof = run_self_tests().unwrap();
        let served = serve(Arc::clone(&gate), proof, settings, stop.clone().cancelled_owned());
        let serving = tokio::spawn(async move { served.await.unwrap() });
        Self { access, issued: Mutex::default(), store, clock, gate, url, stop, serving }
    }

    /// Ends it and starts it again, as it was left.
    pub(crate) async fn restart(self) -> Self {
        let Self { access, issued, store, clock, gate, stop, serving, .. } = self;
        drop(gate);
        stop.cancel();
        serving.await.unwrap();
        Self { issued, ..Self::over(store, access, clock).await }
    }

    /// What somebody shows at a plane, who has one key there.
    pub(crate) fn credentials(&self, who: &str, plane: Plane) -> Credentials {
        let mut issued = self.issued.lock().unwrap();
        let shown = (who.to_owned(), plane.as_str());
        issued.entry(shown).or_insert_with(|| self.issue(who, plane)).clone()
    }

    fn issue(&self, who: &str, plane: Plane) -> Credentials {
        let issued = self.access.issue_client(plane, &name(who), DECADES).unwrap();
        let authority = self.access.server.root_der();
        let authority = firstkey::crypto::certificate::certificate_to_pem(authority).into_bytes();
        let key = Zeroizing::new(issued.key.as_bytes().to_vec());
        Credentials { authority, identity: Some((issued.certificate.into_bytes(), key)) }
    }

    pub(crate) async fn client(&self, who: &str) -> Client {
        Client::connect_with(&self.url, &self.credentials(who, Plane::Admin)).await.unwrap()
    }

    async fn channel(&self, who: &str, plane: Plane) -> Channel {
        let Credentials { authority, identity } = self.credentials(who, plane);
        let (certificate, key) = identity.unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(authority))
            .identity(Identity::from_pem(certificate, key.as_slice()));
        let endpoint = Endpoint::from_shared(self.url.clone()).unwrap().tls_config(tls).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub(crate) async fn status(&self) -> SealStatus {
        self.client("operator-1").await.seal_status().await.unwrap()
    }

    /// A master key for five custodians, three of whom open the vault together.
    async fn initialise(&self) -> Vec<Share> {
        let officer = self.client("officer-1").await;
        create_master_key(&officer, three_of_five()).await.unwrap();
        self.distribute().await
    }

    /// Each custodian takes a share and confirms it.
    async fn distribute(&self) -> Vec<Share> {
        let mut shares = Vec::new();
        for number in 1..=5 {
            let own = self.credentials(&format!("custodian-{number}"), Plane::Admin);
            let client = Client::connect_with(&self.url, &own).await.unwrap();
            let rng = SystemRng::new();
            let holder = ShareHolder::new(&client, &own, &rng).unwrap();
            let share = holder.take().await.unwrap();
            assert_eq!(share.heading().index(), number);
            holder.confirm(&share).await.unwrap();
            shares.push(share);
        }
        shares
    }

    /// Gives a share as somebody.
    pub(crate) async fn give(&self, who: &str, share: &Share) -> Result<SealStatus, ClientError> {
        let own = self.credentials(who, Plane::Admin);
        let client = Client::connect_with(&self.url, &own).await.unwrap();
        ShareHolder::new(&client, &own, &SystemRng::new()).unwrap().give(share).await
    }

    /// Gives the shares of these custodians, by their numbers.
    pub(crate) async fn open_by(&self, shares: &[Share], numbers: &[usize]) -> &'static str {
        let mut state = SealState::Unspecified.as_str_name();
        for number in numbers {
            let given = self.give(&format!("custodian-{number}"), &shares[number - 1]).await;
            state = given.unwrap().state().as_str_name();
        }
        state
    }

    pub(crate) async fn seal(&self) {
        let sealed = self.client("operator-1").await.seals().seal(SealRequest {}).await.unwrap();
        assert_eq!(
            sealed.into_inner().status.unwrap().state().as_str_name(),
            SealState::Sealed.as_str_name()
        );
    }

    pub(crate) async fn events(&self) -> Vec<serde_json::Value> {
        let mut audit = self.client("auditor-1").await.audit();
        // Each page is itself an event: the end is that of the first.
        let (mut events, mut after, mut size) = (Vec::new(), 0, None);
        loop {
            let asked = ListEventsRequest { after, ..ListEventsRequest::default() };
            let page = audit.list_events(asked).await.unwrap().into_inner();
            let read = page.events.iter().map(|event| serde_json::from_str(event).unwrap());
            events.extend(read);
            after = page.last;
            if after >= *size.get_or_insert(page.size) {
                return events;
            }
        }
    }
}

fn three_of_five() -> Keepers {
    let names = (1..=5).map(|number| name(&format!("custodian-{number}"))).collect();
    Keepers::Custodians(ShareKeepers { threshold: 3, names })
}

/// The reason of a refusal, with the word that goes with it.
pub(crate) fn refused<T>(done: Result<T, ClientError>) -> (String, String) {
    let ClientError::Refused(refusal) = done.err().unwrap() else { panic!("it is no refusal") };
    let word = ["cause", "remedy", "token"].into_iter().find_map(|name| refusal.told(name));
    (refusal.reason.clone(), word.unwrap_or_default().to_owned())
}

/// The same share with another secret.
pub(crate) fn spoilt(share: &Share) -> Share {
    let lines: Vec<String> = share.write().lines().map(|line| line.text.to_owned()).collect();
    let mut octets = Vec::new();
    for line in &lines {
        let groups: Vec<&str> = line.split(' ').take(4).collect();
        octets.extend(data_encoding::HEXUPPER.decode(groups.concat().as_bytes()).unwrap());
    }
    octets[Heading::LEN_BYTES] ^= 1;
    Share::from_bytes(&octets).unwrap()
}

#[tokio::test]
async fn a_sealed_service_answers_its_seal_and_health_alone() {
    let service = Sealed::start().await;
    let status = service.status().await;
    assert_eq!(
        (status.state().as_str_name(), status.generation),
        (SealState::Uninitialised.as_str_name(), 0)
    );
    for (who, plane) in [
        ("officer-1", Plane::Admin),
        ("backend-1", Plane::Data),
        ("backend-1", Plane::Terminals),
        ("relay-1", Plane::Activation),
    ] {
        let channel = service.channel(who, plane).await;
        for path in every_path() {
            let is_of_seal = path.starts_with(&format!("/{SEAL_SERVICE}/"));
            let answer = call(&channel, &path, Vec::new()).await;
            let reason = answer.map_err(ClientError::from);
            let reason = reason.err().and_then(|error| error.reason().map(str::to_owned));
            match (is_of_seal, plane) {
                (false, _) => assert_eq!(reason.as_deref(), Some("VAULT_SEALED"), "{path}"),
                (true, Plane::Admin) => assert_ne!(reason.as_deref(), Some("VAULT_SEALED")),
                (true, _) => assert_eq!(reason.as_deref(), Some("POLICY_DENIED"), "{path}"),
            }
        }
        let mut health = HealthClient::new(channel);
        for name in SERVICE_NAMES.iter().chain(&[""]) {
            let asked = HealthCheckRequest { service: (*name).to_owned() };
            let told = health.check(asked).await.unwrap().into_inner().status();
            let serves = *name == SEAL_SERVICE;
            let expected = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
            assert_eq!(told, expected, "{name}");
        }
    }
}

#[tokio::test]
async fn any_three_of_five_custodians_open_it_and_fewer_do_not() {
    let service = Sealed::start().await;
    let shares = service.initialise().await;
    assert_eq!(service.status().await.state().as_str_name(), SealState::Open.as_str_name());
    let orders = [[1, 2, 3], [5, 4, 3], [2, 5, 1], [4, 1, 5], [3, 2, 4]];
    for order in orders {
        service.seal().await;
        assert_eq!(service.open_by(&shares, &order[..2]).await, SealState::Sealed.as_str_name());
        let attempt = service.status().await.attempt.unwrap();
        let givers: Vec<_> =
            order[..2].iter().map(|number| name(&format!("custodian-{number}"))).collect();
        assert_eq!((attempt.given_by, attempt.failed_attempts), (givers, 0));
        assert_eq!(service.open_by(&shares, &order[2..]).await, SealState::Open.as_str_name());
    }
    let service = service.restart().await;
    assert_eq!(service.status().await.state().as_str_name(), SealState::Sealed.as_str_name());
    assert_eq!(service.open_by(&shares, &[1, 3, 5]).await, SealState::Open.as_str_name());
    let opened = service.events().await;
    let opened: Vec<_> = opened.iter().filter(|event| event["action"] == "OpenVault").collect();
    assert_eq!(opened.len(), orders.len() + 2);
    let last = opened.last().unwrap();
    let givers = [1, 3, 5].map(|number| name(&format!("custodian-{number}"))).join(" ");
    assert_eq!(
        (last["detail"]["given_by"].as_str(), &last["caller"]),
        (Some(&*givers), &"service".into())
    );
    let all = service.events().await;
    for pair in all.windows(2).filter(|pair| pair[0]["action"] == "OpenVault") {
        assert_eq!(pair[1]["action"], "StartService", "each opening is told");
    }
}

#[tokio::test]
async fn a_wrong_share_is_told_from_no_other_until_there_are_enough_and_then_not_which() {
    let service = Sealed::start().await;
    let shares = service.initialise().await;
    service.seal().await;
    for (place, order) in [(1, [1, 2, 3]), (2, [2, 1, 3]), (3, [3, 4, 1])] {
        for (count, number) in order.into_iter().enumerate() {
            let wrong = spoilt(&shares[number - 1]);
            let share = if count + 1 == place { &wrong } else { &shares[number - 1] };
            let given = service.give(&format!("custodian-{number}"), share).await;
            if count < 2 {
                assert_eq!(given.unwrap().state().as_str_name(), SealState::Sealed.as_str_name());
            } else {
                assert_eq!(refused(given), ("UNSEAL_FAILED".to_owned(), String::new()));
            }
        }
        let attempt = service.status().await.attempt.unwrap();
        assert_eq!(
            (attempt.given_by.len(), attempt.failed_attempts),
            (0, u32::try_from(place).unwrap())
        );
    }
    assert_eq!(service.open_by(&shares, &[1, 2, 3]).await, SealState::Open.as_str_name());
    let opened = service.events().await;
    let opened = opened.iter().rfind(|event| event["action"] == "OpenVault").unwrap();
    assert_eq!(opened["detail"]["failed_attempts"], "3");
}

#[tokio::test]
async fn what_can_be_seen_of_a_share_is_told_at_once() {
    let other = Sealed::start().await;
    let others = other.initialise().await;
    let service = Sealed::start().await;
    let shares = service.initialise().await;
    service.seal().await;
    let of = |cause: &str| ("SHARE_REFUSED".to_owned(), cause.to_owned());
    let foreign = service.give("custodian-1", &others[0]).await;
    assert_eq!(refused(foreign), of("it is of another set"));
    service.give("custodian-1", &shares[0]).await.unwrap();
    let twice = service.give("custodian-1", &shares[1]).await;
    assert_eq!(refused(twice), of("this caller gave one before"));
    let again = service.give("custodian-2", &shares[0]).await;
    assert_eq!(refused(again), of("it was given before"));
    // An envelope of another attempt, of another sender, and one that was changed.
    let own = service.credentials("custodian-2", Plane::Admin);
    let client = Client::connect_with(&service.url, &own).await.unwrap();
    let unseal = async |request: UnsealRequest| {
        client.seals().unseal(request).await.map_err(ClientError::from).map(drop)
    };
    let sent = |attempt: Vec<u8>, sealed: Vec<u8>, signature: Vec<u8>| UnsealRequest {
        attempt,
        share: Some(firstkey::grpc::proto::ShareEnvelope { sealed, signature }),
    };
    let attempt = service.status().await.attempt.unwrap();
    let gone = unseal(sent(vec![7; 16], vec![4; 189], vec![1; 64])).await;
    assert_eq!(refused(gone).0, "SEAL_STATE");
    let none = unseal(sent(attempt.id.clone(), vec![4; 189], vec![1; 64])).await;
    assert_eq!(refused(none), of("its envelope does not open, or is not its sender's"));
    for (sealed, signature) in [(188, 64), (190, 64), (189, 63)] {
        let short = sent(attempt.id.clone(), vec![4; sealed], vec![1; signature]);
        assert_eq!(refused(unseal(short).await).0, "FIELD_INVALID");
    }
    assert_eq!(service.status().await.attempt.unwrap().given_by.len(), 1, "nothing else counts");
}

#[tokio::test]
async fn an_attempt_is_over_when_nobody_goes_on_with_it() {
    let service = Sealed::start().await;
    let shares = service.initialise().await;
    service.seal().await;
    service.open_by(&shares, &[1, 2]).await;
    let before = service.status().await.attempt.unwrap();
    service.clock.advance(15 * MINUTE);
    let after = service.status().await.attempt.unwrap();
    assert_ne!((&before.id, &before.public_key), (&after.id, &after.public_key));
    assert_eq!((before.given_by.len(), after.given_by.len()), (2, 0));
    assert_eq!(service.open_by(&shares, &[3]).await, SealState::Sealed.as_str_name());
    assert_eq!(service.open_by(&shares, &[1, 2]).await, SealState::Open.as_str_name());
}

#[tokio::test]
async fn who_gave_shares_is_judged_by_the_policy_that_they_open() {
    let service = Sealed::start().await;
    let shares = service.initialise().await;
    service.seal().await;
    for givers in [
        // Not a custodian; nobody; one person with two certificates.
        ["custodian-1", "custodian-2", "operator-1"],
        ["custodian-1", "custodian-2", "nobody-1"],
        ["custodian-1", "custodian-twin", "custodian-3"],
    ] {
        let mut last = None;
        for (who, share) in givers.iter().zip(&shares) {
            last = Some(service.give(who, share).await);
        }
        assert_eq!(refused(last.unwrap()).0, "POLICY_DENIED", "{givers:?}");
        let status = service.status().await;
        assert_eq!(status.state().as_str_name(), SealState::Sealed.as_str_name());
        let officer = service.client("officer-1").await;
        let keys = officer.keys().list_keys(ListKeysRequest::default()).await;
        assert_eq!(refused(keys.map_err(ClientError::from)).0, "VAULT_SEALED");
    }
    assert_eq!(service.open_by(&shares, &[1, 2, 3]).await, SealState::Open.as_str_name());
    let events = service.events().await;
    let denied = events.iter().filter(|event| event["reason"] == "POLICY_DENIED");
    let denied: Vec<_> =
        denied.map(|event| event["detail"]["given_by"].as_str().unwrap()).collect();
    assert!(denied[0].contains("operator-1"), "{denied:?}");
}

#[tokio::test]
async fn a_share_whose_answer_was_lost_is_given_again_to_the_same_key_alone() {
    let service = Sealed::start().await;
    let officer = service.client("officer-1").await;
    create_master_key(&officer, three_of_five()).await.unwrap();
    let (rng, own) = (SystemRng::new(), service.credentials("custodian-1", Plane::Admin));
    let client = Client::connect_with(&service.url, &own).await.unwrap();
    let signer = key_from_pem(&own.identity.as_ref().unwrap().1).unwrap();
    let signer = SigningKey::from_pkcs8(&signer).unwrap();
    let distribution = service.status().await.distribution.unwrap().id;
    let id: [u8; 16] = distribution.clone().try_into().unwrap();
    let holder = signer.public();
    let context = Context { kem: KEM, id: &id, purpose: Purpose::Take, holder: &holder };
    let ask = |key: &RecipientKey| TakeShareRequest {
        distribution: distribution.clone(),
        public_key: key.public().to_vec(),
        signature: context.sign(&signer, key.public()).unwrap().to_vec(),
        plan_digest: Vec::new(),
    };
    let keys = [(); 2].map(|()| RecipientKey::generate(KEM, &rng).unwrap());
    let first = client.seals().take_share(ask(&keys[0])).await.unwrap().into_inner().sealed;
    let again = client.seals().take_share(ask(&keys[0])).await.unwrap().into_inner().sealed;
    assert_eq!(first, again);
    let share = Share::from_bytes(&context.open(&keys[0], &again).unwrap()).unwrap();
    // No other key, nobody else with this one, and not the same with another's signature.
    let other = client.seals().take_share(ask(&keys[1])).await;
    assert_eq!(refused(other.map_err(ClientError::from)).1, "it was taken before");
    let mut unsigned = ask(&keys[0]);
    unsigned.signature[5] ^= 1;
    let unsigned = client.seals().take_share(unsigned).await;
    let cause = refused(unsigned.map_err(ClientError::from)).1;
    assert_eq!(cause, "the key is not signed by the certificate's");
    let second = service.client("custodian-2").await.seals().take_share(ask(&keys[0])).await;
    let cause = refused(second.map_err(ClientError::from)).1;
    assert_eq!(cause, "the key is not signed by the certificate's");
    // Read back, it is given no more.
    ShareHolder::new(&client, &own, &rng).unwrap().confirm(&share).await.unwrap();
    let late = client.seals().take_share(ask(&keys[0])).await;
    assert_eq!(refused(late.map_err(ClientError::from)).1, "it was taken before");
}

#[tokio::test]
async fn a_master_key_is_in_force_when_every_custodian_has_read_the_share_back() {
    let service = Sealed::start().await;
    let rng = SystemRng::new();
    // Only officers begin it, and only for custodians, each another person.
    let operator = service.client("operator-1").await;
    assert_eq!(refused(create_master_key(&operator, three_of_five()).await).0, "POLICY_DENIED");
    let nobody = service.client("nobody-1").await;
    assert_eq!(refused(create_master_key(&nobody, three_of_five()).await).0, "CALLER_UNKNOWN");
    let officer = service.client("officer-1").await;
    let custodians = |threshold, names: &[&str]| {
        let names = names.iter().map(|who| name(who)).collect();
        Keepers::Custodians(ShareKeepers { threshold, names })
    };
    for keepers in [
        custodians(1, &["custodian-1", "custodian-2"]),
        custodians(3, &["custodian-1", "custodian-2"]),
        custodians(2, &["custodian-1"]),
        custodians(2, &["custodian-1", "officer-2"]),
        custodians(2, &["custodian-1", "custodian-twin"]),
        custodians(2, &["custodian-1", "custodian-1"]),
        Keepers::Token(false),
    ] {
        assert_eq!(refused(create_master_key(&officer, keepers).await).0, "FIELD_INVALID");
    }
    assert_eq!(refused(create_master_key(&officer, Keepers::Token(true)).await).0, "SEAL_STATE");
    create_master_key(&officer, three_of_five()).await.unwrap();
    assert_eq!(refused(create_master_key(&officer, three_of_five()).await).0, "SEAL_STATE");
    // A share is taken once, by whom it is for, and is read back right.
    let own = service.credentials("custodian-1", Plane::Admin);
    let client = Client::connect_with(&service.url, &own).await.unwrap();
    let holder = ShareHolder::new(&client, &own, &rng).unwrap();
    let share = holder.take().await.unwrap();
    assert_eq!(refused(holder.take().await).1, "it was taken before");
    assert_eq!(refused(holder.confirm(&spoilt(&share)).await).1, "it is not what was taken");
    let stranger = service.credentials("custodian-twin", Plane::Admin);
    let stranger_client = Client::connect_with(&service.url, &stranger).await.unwrap();
    let stranger = ShareHolder::new(&stranger_client, &stranger, &rng).unwrap();
    assert_eq!(refused(stranger.take().await).0, "POLICY_DENIED");
    assert_eq!(refused(stranger.confirm(&share).await).0, "POLICY_DENIED");
    holder.confirm(&share).await.unwrap();
    assert_eq!(
        service.status().await.state().as_str_name(),
        SealState::Uninitialised.as_str_name(),
        "nothing is stored yet"
    );
    // Abandoned, it is worth nothing; so it is when nobody goes on with it, or the service ends.
    let distribution = service.status().await.distribution.unwrap().id;
    let abandon = AbandonMasterKeyRequest { distribution };
    let denied = stranger_client.seals().abandon_master_key(abandon.clone()).await;
    assert_eq!(refused(denied.map_err(ClientError::from)).0, "POLICY_DENIED");
    client.seals().abandon_master_key(abandon).await.unwrap();
    create_master_key(&officer, three_of_five()).await.unwrap();
    service.clock.advance(15 * MINUTE);
    assert!(service.status().await.distribution.is_none());
    create_master_key(&officer, three_of_five()).await.unwrap();
    let service = service.restart().await;
    assert_eq!(
        service.status().await.state().as_str_name(),
        SealState::Uninitialised.as_str_name()
    );
    let shares = service.initialise().await;
    service.seal().await;
    assert_eq!(service.open_by(&shares, &[2, 3, 4]).await, SealState::Open.as_str_name());
}

#[tokio::test(flavor = "multi_thread")]
async fn sealing_under_load_ends_in_time_and_leaves_nothing_half_done() {
    let service = Sealed::start().await;
    let shares = service.initialise().await;
    let ended = CancellationToken::new();
    let calling: Vec<_> = (0..4)
        .map(|caller| {
            let (ended, url) = (ended.clone(), service.url.clone());
            let own = service.credentials("officer-2", Plane::Admin);
            tokio::spawn(async move {
                let client = Client::connect_with(&url, &own).await.unwrap();
                let mut made = Vec::new();
                for number in 0.. {
                    let key_id = format!("key-{caller}-{number}");
                    let request = CreateKeyRequest {
                        request_id: request_id(),
                        key_id: key_id.clone(),
                        usage: KeyUsage::MacCmac.into(),
                        algorithm: KeyAlgorithm::Aes128.into(),
                        ..CreateKeyRequest::default()
                    };
                    match client.keys().create_key(request).await.map_err(ClientError::from) {
                        Ok(_) => made.push(format!("keys/{key_id}")),
                        Err(error) => {
                            assert_eq!(error.reason(), Some("VAULT_SEALED"), "{error}");
                            break;
                        }
                    }
                    if ended.is_cancelled() {
                        break;
                    }
                }
                made
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let sealing = tokio::time::timeout(DRAIN + Duration::from_secs(5), service.seal());
    sealing.await.expect("sealing is bounded");
    assert!(service.gate.enter().is_err());
    ended.cancel();
    let mut made = Vec::new();
    for one in calling {
        made.extend(one.await.unwrap());
    }
    assert!(!made.is_empty(), "there was a load");
    assert_eq!(service.open_by(&shares, &[1, 2, 3]).await, SealState::Open.as_str_name());
    let officer = service.client("officer-1").await;
    for key in made {
        let asked = firstkey::grpc::proto::GetKeyRequest { name: key.clone() };
        assert!(officer.keys().get_key(asked).await.is_ok(), "{key} was acknowledged");
    }
}

#[tokio::test]
async fn new_shares_mean_a_new_master_key_and_wait_for_approval() {
    let service = Sealed::start().await;
    let shares = service.initialise().await;
    let officer = service.client("officer-1").await;
    let asked = create_master_key(&officer, three_of_five()).await;
    let ClientError::Refused(refusal) = asked.err().unwrap() else { panic!("it is no refusal") };
    assert_eq!(refusal.reason, "APPROVAL_REQUIRED");
    let name = refusal.told("approval").unwrap();
    approve(&service.client("officer-2").await, name).await.unwrap();
    let begun = create_master_key(&officer, three_of_five()).await.unwrap();
    assert_eq!((begun.generation, begun.distribution.is_some()), (1, true));
    let renewed = service.distribute().await;
    let status = service.status().await;
    assert_eq!(
        (status.generation, status.state().as_str_name()),
        (2, SealState::Open.as_str_name())
    );
    service.seal().await;
    let old = service.give("custodian-1", &shares[0]).await;
    assert_eq!(refused(old).1, "it is of another set");
    assert_eq!(service.open_by(&renewed, &[1, 4, 5]).await, SealState::Open.as_str_name());
}
