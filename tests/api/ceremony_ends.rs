//! How ceremonies end other than by making a key: nobody goes on, everybody knows the key that is
//! brought, or a key is destroyed.

use std::time::Duration;

use data_encoding::HEXUPPER;
use firstkey::command::ceremony::record::CeremonyState;
use firstkey::component::Component;
use firstkey::grpc::client::{CeremonyView, ClientError, request_id};
use firstkey::grpc::proto::{
    GetDestructionCertificateRequest, KeyState, ListCeremoniesRequest, SetKeyStateRequest,
};
use firstkey::key::Algorithm;
use firstkey::vault::{DestructionCertificate, VerifierKey};

use crate::approvals::{approve, done, live, officer};
use crate::ceremony::{GENERATE, Table, key, plan, refused};
use crate::harness::{MINUTE, TlsService, answer, refusal};

/// What the plan of [`GENERATE`] allows between two steps.
const IDLE_SECONDS: u64 = 15 * MINUTE;

/// Waits until the service has ended a ceremony by itself.
async fn aborted_by_itself(table: &Table) -> CeremonyView {
    let officer = officer(&table.service, 1).await;
    for _ in 0..600 {
        let view = officer.ceremony(&table.view.name).await.unwrap();
        if view.state == CeremonyState::Aborted {
            return view;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} is still open", table.view.name);
}

#[tokio::test]
async fn a_ceremony_in_which_nothing_is_done_for_too_long_ends_by_itself() {
    let mut table = Table::set(GENERATE).await;
    table.join().await;
    let slip = table.take(0).await;
    let clock = table.service.plain.clock.clone();
    // A step in time gives it all of the time again.
    clock.advance(IDLE_SECONDS);
    table.read_back(0, &slip).await.unwrap();
    clock.advance(IDLE_SECONDS);
    // The service looks each second, and it is not yet over.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let still = table.people[0].client.ceremony(&table.view.name).await.unwrap();
    assert_eq!(still.state, CeremonyState::Open);
    clock.advance(1);
    let ended = aborted_by_itself(&table).await;
    let [.., aborted, closed] = ended.transcript.lines() else { panic!("two lines") };
    assert!(aborted.contains("no step was done in time"), "{aborted}");
    assert!(closed.contains("\"closed\"") && closed.contains("signature"), "{closed}");
    assert_eq!(done(&table.service, "AbortIdleCeremony").await.len(), 1);
    assert!(ended.envelope_key.is_empty() && key(&table.service, "bdk").await.is_none());
    let late = refused(table.read_back(0, &slip).await);
    assert_eq!((late.reason.as_str(), late.told("state")), ("CEREMONY_STATE", Some("ABORTED")));
}

#[tokio::test]
async fn what_has_happened_waits_for_its_signatures_as_long_as_it_takes() {
    let mut table = Table::set(GENERATE).await;
    table.join().await;
    for who in 0..2 {
        let slip = table.take(who).await;
        table.read_back(who, &slip).await.unwrap();
    }
    table.confirm().await.unwrap();
    // Another one, which is left alone, tells when the service has looked.
    let closing = std::mem::replace(
        &mut table.view,
        Table::create(&table.service, &GENERATE.replace("bdk", "bdl").replace("123", "223")).await,
    );
    table.service.plain.clock.advance(10 * IDLE_SECONDS);
    aborted_by_itself(&table).await;
    table.view = closing;
    table.sign().await;
    assert_eq!(table.view.state, CeremonyState::Closed);
}

/// The development KEK as it would be brought: a published key in published components.
const PUBLISHED: [&str; 3] = ["6361D330E5", "6C9C9711C4", "D4BA600F4E"];

fn import(first: &str, second: &str, made: &str) -> String {
    format!(
        "[import]\ncheck_value = \"{made}\"\ncomponent_check_values = [\"{first}\", \"{second}\"]\n\
         [import.key]\nid = \"kek\"\nusage = \"K0\"\nalgorithm = \"AES256\"\n"
    )
}

#[tokio::test]
async fn a_live_service_takes_no_plan_for_keys_that_were_published() {
    let service = live(1, Vec::new()).await;
    let officer = officer(&service, 1).await;
    let [one, two, made] = PUBLISHED;
    let other = "0011223344";
    for table in [import(one, other, other), import(other, two, other), import(other, other, made)]
    {
        let wrong = refused(officer.create_ceremony(request_id(), &plan(&table)).await);
        assert_eq!((wrong.reason.as_str(), wrong.fields[0].0.as_str()), ("FIELD_INVALID", "plan"));
    }
    let none = officer.ceremonies().list_ceremonies(ListCeremoniesRequest::default()).await;
    assert!(answer(none).ceremonies.is_empty());
}

/// The first component of the development KEK.
fn published() -> Component {
    let file: toml::Table = include_str!("../../keys-dev/components.toml").parse().unwrap();
    let rows = file["key"][0]["component"][0]["rows"].as_array().unwrap().iter();
    let rows: Vec<_> = rows.map(|row| row.as_str().unwrap()[..19].replace(' ', "")).collect();
    let octets = data_encoding::HEXUPPER.decode(rows.concat().as_bytes()).unwrap();
    Component::from_bytes(Algorithm::Aes256, &octets).unwrap()
}

#[tokio::test]
async fn a_component_that_was_published_ends_the_ceremony_where_it_is_handed_over() {
    // Three octets of a check value say less than five, and are as right.
    let mut table = Table::set(&import(&PUBLISHED[0][..6], "001122", "001122")).await;
    table.join().await;
    let one = table.enter(0, published()).await;
    let two = Component::from_bytes(Algorithm::Aes256, &[2; 32]).unwrap();
    table.enter(1, two).await;
    let ended = refused(table.reveal(0, &one).await);
    let cause = "a component or the key is one that was published";
    assert_eq!((ended.reason.as_str(), ended.told("cause")), ("CEREMONY_ABORTED", Some(cause)));
    assert!(key(&table.service, "kek").await.is_none());
    let view = table.people[0].client.ceremony(&table.view.name).await.unwrap();
    assert_eq!(view.state, CeremonyState::Aborted);
}

/// Brings a base derivation key for a key set, in the components 1 and 2.
fn bring_bdk(id: &str, key_set_id: &str) -> String {
    let values = [1, 2, 3].map(|octet| {
        let component = Component::from_bytes(Algorithm::Aes256, &[octet; 32]).unwrap();
        HEXUPPER.encode(component.check_value().bytes())
    });
    import(&values[0], &values[1], &values[2])
        .replace("kek", id)
        .replace("K0", "B0")
        .replace("AES256\"", &format!("AES256\"\nkey_set_id = \"{key_set_id}\""))
}

async fn bring(table: &mut Table) -> Result<(), ClientError> {
    table.join().await;
    let mut sealed = Vec::new();
    for (who, octet) in [(0, 1), (1, 2)] {
        let component = Component::from_bytes(Algorithm::Aes256, &[octet; 32]).unwrap();
        sealed.push(table.enter(who, component).await);
    }
    for (who, one) in sealed.iter().enumerate() {
        table.reveal(who, one).await.unwrap();
    }
    table.confirm().await
}

#[tokio::test]
async fn a_key_that_is_there_already_ends_the_ceremony_and_takes_no_key_set_with_it() {
    let mut table = Table::set(&bring_bdk("bdk", "12345678")).await;
    bring(&mut table).await.unwrap();
    table.view = Table::create(&table.service, &bring_bdk("bdl", "22345678")).await;
    let ended = refused(bring(&mut table).await);
    assert_eq!(
        (ended.reason.as_str(), ended.told("cause")),
        ("KEY_DUPLICATE", Some("KEY_DUPLICATE"))
    );
    assert!(key(&table.service, "bdl").await.is_none());
    // The key set id is as free as it was.
    let other = GENERATE.replace("bdk", "bdm").replace("12345678", "22345678");
    table.view = Table::create(&table.service, &other).await;
    table.join().await;
    for who in 0..2 {
        let slip = table.take(who).await;
        table.read_back(who, &slip).await.unwrap();
    }
    table.confirm().await.unwrap();
    assert!(key(&table.service, "bdm").await.is_some());
}

/// Makes a key in a ceremony of its own, and takes it out of use.
pub(crate) async fn deactivated(table: &mut Table) -> String {
    table.join().await;
    for who in 0..2 {
        let slip = table.take(who).await;
        table.read_back(who, &slip).await.unwrap();
    }
    table.confirm().await.unwrap();
    let value = table.view.check_value.clone();
    let (one, two) = (officer(&table.service, 1).await, officer(&table.service, 2).await);
    let name = "keys/bdk/versions/1".to_owned();
    let (request_id, state) = (request_id(), KeyState::Deactivated.into());
    let request = SetKeyStateRequest { request_id, name, state, ..SetKeyStateRequest::default() };
    let asked = refusal(one.keys().set_key_state(request.clone()).await);
    approve(&two, asked.told("approval").unwrap()).await.unwrap();
    answer(one.keys().set_key_state(request).await);
    value
}

pub(crate) async fn verifier_key(service: &TlsService) -> VerifierKey {
    let checkpoint = service.plain.vault.checkpoint().await.unwrap();
    VerifierKey::parse(&checkpoint.verifier_key).unwrap()
}

#[tokio::test]
async fn a_key_is_destroyed_before_witnesses_and_there_is_a_certificate_of_it() {
    let mut table = Table::set(GENERATE).await;
    let value = deactivated(&mut table).await;
    let destroy = format!("[destroy]\nkey = \"keys/bdk/versions/1\"\ncheck_value = \"{value}\"\n");
    table.view = Table::create(&table.service, &destroy).await;
    table.join().await;
    assert_eq!(table.view.product, "");
    table.confirm().await.unwrap();
    let certificate = table.view.product.clone();
    let log_key = verifier_key(&table.service).await;
    let lines = DestructionCertificate::open(&certificate, &log_key).unwrap();
    let line = |name: &str| {
        let found = lines.iter().find(|(one, _)| one == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    assert_eq!(line("key"), "keys/bdk/versions/1");
    assert_eq!((line("check_value"), line("ceremony")), (value, table.view.name.clone()));
    // It is the same whoever asks for it, and when.
    table.sign().await;
    assert_eq!(table.view.product, certificate);
    let again = table.people[0].client.ceremony(&table.view.name).await.unwrap();
    assert_eq!(again.product, certificate);
    let request = GetDestructionCertificateRequest { name: "keys/bdk/versions/1".to_owned() };
    let officer = officer(&table.service, 1).await;
    let written = answer(officer.keys().get_destruction_certificate(request).await);
    assert_eq!(written.certificate, certificate);
    assert!(key(&table.service, "bdk").await.unwrap().state() == KeyState::Destroyed);
}
