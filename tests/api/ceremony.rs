//! Ceremonies over real TLS, in a live realm: people with certificates of their own, officers who
//! approve, and a service that combines what nobody has.

use data_encoding::HEXUPPER;
use firstkey::command::ceremony::plan::{Plan, Planned};
use firstkey::command::ceremony::record::CeremonyState;
use firstkey::component::Component;
use firstkey::crypto::certificate::key_from_pem;
use firstkey::crypto::ec::SigningKey;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::Plane;
use firstkey::grpc::client::{CeremonyView, Client, ClientError, Committed, Refusal, request_id};
use firstkey::grpc::proto::{
    GetKeyRequest, Key, KeyOrigin, KeyState, ListApprovalsRequest, ListCeremoniesRequest,
};
use firstkey::key::Algorithm;
use firstkey::server::access::HOLDERS;
use firstkey::server::dev;
use firstkey::vault::{Event, Policy};

use crate::approvals::{approve, change_policy, done, live, officer, restarted};
use crate::harness::{TlsService, answer};

/// Somebody at the table, with the connection and the key of one certificate.
pub(crate) struct Person {
    pub(crate) client: Client,
    pub(crate) signer: SigningKey,
}

impl Person {
    pub(crate) async fn come(service: &TlsService, holder: &str) -> Self {
        let holder = HOLDERS.iter().find(|one| one.name == holder).expect("a holder");
        let issued = service.issue(&holder.uri_name(dev::TRUST_DOMAIN), Plane::Admin);
        let client = service.connect(Some(&issued)).await.expect("the service answers");
        let key = key_from_pem(issued.key.as_bytes()).expect("a key");
        Self { client, signer: SigningKey::from_pkcs8(&key).expect("a key of P-256") }
    }
}

/// Two custodians and a witness.
pub(crate) struct Table {
    pub(crate) service: TlsService,
    pub(crate) people: Vec<Person>,
    pub(crate) view: CeremonyView,
}

const CUSTODIANS: usize = 2;
pub(crate) const WITNESS: usize = 2;

pub(crate) fn plan(table: &str) -> Planned {
    let name = |role: &str, name: &str| format!("spiffe://{}/{role}/{name}", dev::TRUST_DOMAIN);
    let custodians = [name("custodian", "custodian-1"), name("custodian", "custodian-2")];
    let witness = name("auditor", "auditor-1");
    let people = format!("custodians = {custodians:?}\nwitness = {witness:?}\n");
    let plan: Plan = toml::from_str(&format!("title = \"Test\"\n{people}{table}")).unwrap();
    plan.check().unwrap()
}

pub(crate) const GENERATE: &str = "[generate]\nid = \"bdk\"\nusage = \"B0\"\nalgorithm = \"AES256\"\n\
    key_set_id = \"12345678\"\n";

impl Table {
    pub(crate) async fn set(table: &str) -> Self {
        let service = live(1, Vec::new()).await;
        let view = Self::create(&service, table).await;
        let mut people = Vec::new();
        for holder in ["custodian-1", "custodian-2", "auditor-1"] {
            people.push(Person::come(&service, holder).await);
        }
        Self { service, people, view }
    }

    pub(crate) async fn create(service: &TlsService, table: &str) -> CeremonyView {
        let (planned, id) = (plan(table), request_id());
        let (one, two) = (officer(service, 1).await, officer(service, 2).await);
        let asked = refused(one.create_ceremony(id.clone(), &planned).await);
        assert_eq!(asked.reason, "APPROVAL_REQUIRED");
        approve(&two, asked.told("approval").unwrap()).await.unwrap();
        let made = one.create_ceremony(id.clone(), &planned).await.unwrap();
        let again = one.create_ceremony(id, &planned).await.unwrap();
        assert_eq!(again.name, made.name, "the same request is answered the same");
        made
    }

    pub(crate) async fn join(&mut self) {
        for who in 0..=WITNESS {
            let joined = self.people[who].client.join_ceremony(&self.view).await;
            self.view = joined.unwrap();
        }
    }

    pub(crate) async fn take(&mut self, who: usize) -> Component {
        let Person { client, signer } = &self.people[who];
        let by = (u8::try_from(who + 1).unwrap(), signer);
        let (view, component) =
            client.take_component(&self.view, by, &SystemRng::new()).await.unwrap();
        self.view = view;
        component
    }

    pub(crate) async fn read_back(
        &mut self,
        who: usize,
        slip: &Component,
    ) -> Result<(), ClientError> {
        let Person { client, signer } = &self.people[who];
        let by = (u8::try_from(who + 1).unwrap(), signer);
        let rng = SystemRng::new();
        self.view = client.read_back_component(&self.view, by, slip, &rng).await?;
        Ok(())
    }

    pub(crate) async fn enter(&mut self, who: usize, component: Component) -> Committed {
        let Person { client, signer } = &self.people[who];
        let by = (u8::try_from(who + 1).unwrap(), signer);
        let rng = SystemRng::new();
        let entered = client.enter_component(&self.view, by, component, &rng).await;
        let (view, committed) = entered.unwrap();
        self.view = view;
        committed
    }

    pub(crate) async fn reveal(
        &mut self,
        who: usize,
        sealed: &Committed,
    ) -> Result<(), ClientError> {
        self.view = self.people[who].client.reveal_component(&self.view, sealed).await?;
        Ok(())
    }

    pub(crate) async fn confirm(&mut self) -> Result<(), ClientError> {
        for who in 0..=WITNESS {
            let value = self.view.check_value.clone();
            self.view = self.people[who].client.confirm_ceremony(&self.view, &value).await?;
        }
        Ok(())
    }

    pub(crate) async fn sign(&mut self) {
        for who in 0..=WITNESS {
            let Person { client, signer } = &self.people[who];
            self.view = client.sign_ceremony(&self.view, signer).await.unwrap();
        }
    }
}

/// What the audit log has of each call, made once at least.
pub(crate) async fn events_of_every_call() -> Vec<Event> {
    let mut table = Table::set(&import(&shown(&component(3)))).await;
    table.join().await;
    let lost = table.enter(0, component(1)).await;
    table.view = table.people[1].client.restart_entry(&table.view).await.unwrap();
    drop(lost);
    let one = table.enter(0, component(1)).await;
    let two = table.enter(1, component(2)).await;
    table.reveal(0, &one).await.unwrap();
    table.reveal(1, &two).await.unwrap();
    table.confirm().await.unwrap();
    table.sign().await;
    table.service.plain.clock.advance(1);
    table.view = Table::create(&table.service, GENERATE).await;
    table.join().await;
    let slip = table.take(0).await;
    table.read_back(0, &slip).await.unwrap();
    let auditor = &table.people[WITNESS].client;
    auditor.ceremony(&table.view.name).await.unwrap();
    let listed =
        answer(auditor.ceremonies().list_ceremonies(ListCeremoniesRequest::default()).await);
    assert_eq!(listed.ceremonies.len(), 2);
    assert_eq!(listed.ceremonies[0].name, table.view.name, "the newest comes first");
    auditor.abort_ceremony(&table.view.name, "it is late").await.unwrap();
    let mut found = Vec::new();
    for (call, times) in [
        ("AbortCeremony", 1),
        ("ConfirmCeremony", 3),
        ("CreateCeremony", 2),
        ("EnterComponent", 3),
        ("GetCeremony", 1),
        ("JoinCeremony", 6),
        ("ListCeremonies", 1),
        ("ReadBackComponent", 1),
        ("RestartEntry", 1),
        ("RevealComponent", 2),
        ("SignCeremony", 3),
        ("TakeComponent", 1),
    ] {
        let events = done(&table.service, call).await;
        assert_eq!(events.len(), times, "{call}");
        found.extend(events);
    }
    found
}

#[track_caller]
pub(crate) fn refused<T>(result: Result<T, ClientError>) -> Refusal {
    match result {
        Err(ClientError::Refused(refusal)) => refusal,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was not refused"),
    }
}

pub(crate) async fn key(service: &TlsService, id: &str) -> Option<Key> {
    let request = GetKeyRequest { name: format!("keys/{id}") };
    let officer = officer(service, 1).await;
    officer.keys().get_key(request).await.ok().and_then(|found| found.into_inner().key)
}

#[tokio::test]
async fn a_base_derivation_key_is_made_and_given_out_in_components() {
    let mut table = Table::set(GENERATE).await;
    table.join().await;
    let mut slips = Vec::new();
    for who in 0..CUSTODIANS {
        let slip = table.take(who).await;
        table.read_back(who, &slip).await.unwrap();
        slips.push(slip);
    }
    assert!(key(&table.service, "bdk").await.is_none(), "nothing before the last confirmation");
    table.confirm().await.unwrap();
    let made = key(&table.service, "bdk").await.expect("the key is there");
    assert_eq!(HEXUPPER.encode(&made.check_value), table.view.check_value);
    assert!(made.origin() == KeyOrigin::Ceremony && made.state() == KeyState::Active);
    table.sign().await;
    assert_eq!(table.view.state, CeremonyState::Closed);
    // Each step is told in the audit log, by whoever did it; the key with the last confirmation.
    let confirmed = done(&table.service, "ConfirmCeremony").await;
    assert_eq!(confirmed.len(), 3);
    assert_eq!(confirmed[2].keys[0].name, "keys/bdk/versions/1");
    assert_eq!(done(&table.service, "CreateCeremony").await[0].approvers, ["officer-2"]);
    // What was done is done once.
    let again = refused(table.confirm().await);
    assert_eq!((again.reason.as_str(), again.told("state")), ("CEREMONY_STATE", Some("CLOSED")));
}

pub(crate) fn component(octet: u8) -> Component {
    Component::from_bytes(Algorithm::Aes256, &[octet; 32]).unwrap()
}

pub(crate) fn shown(component: &Component) -> String {
    HEXUPPER.encode(component.check_value().bytes())
}

pub(crate) fn import(check_value: &str) -> String {
    let values = [1, 2].map(|octet| shown(&component(octet)));
    format!(
        "[import]\ncheck_value = \"{check_value}\"\ncomponent_check_values = {values:?}\n\
         [import.key]\nid = \"kek\"\nusage = \"K0\"\nalgorithm = \"AES256\"\n"
    )
}

#[tokio::test]
async fn a_key_is_brought_in_components() {
    let mut table = Table::set(&import(&shown(&component(3)))).await;
    table.join().await;
    let one = table.enter(0, component(1)).await;
    let early = refused(table.reveal(0, &one).await);
    assert_eq!(early.told("actor"), Some("custodian 2"), "all commit before the first reveals");
    let two = table.enter(1, component(2)).await;
    let other = refused(table.people[1].client.reveal_component(&table.view, &one).await);
    assert_eq!(other.reason, "CEREMONY_STATE");
    table.reveal(0, &one).await.unwrap();
    table.reveal(1, &two).await.unwrap();
    table.confirm().await.unwrap();
    let made = key(&table.service, "kek").await.expect("the key is there");
    assert_eq!(HEXUPPER.encode(&made.check_value), shown(&component(3)));
}

#[tokio::test]
async fn a_key_of_another_check_value_ends_the_ceremony_and_nothing_has_happened() {
    let mut table = Table::set(&import("0011223344")).await;
    table.join().await;
    let one = table.enter(0, component(1)).await;
    let two = table.enter(1, component(2)).await;
    table.reveal(0, &one).await.unwrap();
    let ended = refused(table.reveal(1, &two).await);
    assert_eq!(
        (ended.reason.as_str(), ended.told("cause")),
        ("CEREMONY_ABORTED", Some("check value differs"))
    );
    let view = table.people[0].client.ceremony(&table.view.name).await.unwrap();
    assert_eq!(view.state, CeremonyState::Aborted);
    assert!(key(&table.service, "kek").await.is_none());
    let closed = view.transcript.lines().last().unwrap();
    assert!(closed.contains("\"closed\"") && closed.contains("signature"), "{closed}");
}

#[tokio::test]
async fn who_has_no_part_does_nothing_and_officers_may_only_end_it() {
    let mut table = Table::set(GENERATE).await;
    let officer = officer(&table.service, 2).await;
    let denied = refused(officer.join_ceremony(&table.view).await);
    assert_eq!(denied.reason, "POLICY_DENIED");
    let late = refused(table.people[1].client.join_ceremony(&table.view).await);
    assert_eq!(late.reason, "CEREMONY_STATE");
    table.join().await;
    let slip = table.take(0).await;
    let ended = officer.abort_ceremony(&table.view.name, "somebody fell ill").await.unwrap();
    assert_eq!(ended.state, CeremonyState::Aborted);
    let gone = refused(table.read_back(0, &slip).await);
    assert_eq!(gone.told("state"), Some("ABORTED"));
    assert!(key(&table.service, "bdk").await.is_none());
}

#[tokio::test]
async fn a_plan_names_people_as_the_policy_knows_them() {
    let service = live(1, Vec::new()).await;
    let one = officer(&service, 1).await;
    let good = plan(GENERATE);
    for (from, to) in [
        ("custodian/custodian-2", "officer/officer-2"),
        ("custodian/custodian-2", "custodian/nobody"),
        ("auditor/auditor-1", "operator/operator-1"),
    ] {
        let text = String::from_utf8(good.canonical()).unwrap().replace(from, to);
        let plan: Plan = serde_json::from_str(&text).unwrap();
        let wrong = one.create_ceremony(request_id(), &plan.check().unwrap()).await;
        let wrong = refused(wrong);
        assert_eq!(wrong.reason, "FIELD_INVALID", "{to}");
        assert_eq!(wrong.fields[0].0, "plan");
    }
    let approvals = ListApprovalsRequest::default();
    let none = answer(one.approvals().list_approvals(approvals).await);
    assert!(none.approvals.is_empty(), "officers are asked for nothing that would be refused");
}

#[tokio::test]
async fn a_person_with_two_certificates_has_one_part() {
    let second = |policy: &mut Policy| {
        let ann = policy.principals.iter().find(|one| one.name.ends_with("custodian-1"));
        let person = ann.unwrap().person.clone();
        let ben = policy.principals.iter_mut().find(|one| one.name.ends_with("custodian-2"));
        ben.unwrap().person = person;
    };
    // One who was another person when the ceremony began: judged anew at each step.
    let mut table = Table::set(GENERATE).await;
    table.view = table.people[0].client.join_ceremony(&table.view).await.unwrap();
    change_policy(&table.service, second).await;
    let service = restarted(table.service).await;
    let ben = Person::come(&service, "custodian-2").await;
    let refusal = refused(ben.client.join_ceremony(&table.view).await);
    assert_eq!(refusal.reason, "POLICY_DENIED");
    // And one whom the policy knows as the same person before it.
    let one = officer(&service, 1).await;
    let refusal = refused(one.create_ceremony(request_id(), &plan(GENERATE)).await);
    assert_eq!((refusal.reason.as_str(), refusal.fields[0].0.as_str()), ("FIELD_INVALID", "plan"));
    assert!(key(&service, "bdk").await.is_none());
}
