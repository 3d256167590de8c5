//! Kills at every step of every kind of ceremony, while it is under way and once it is answered.

#![allow(clippy::disallowed_methods, reason = "kills come within the time that steps take")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use firstkey::command::ceremony::record::CeremonyState;
use firstkey::command::ceremony::step::Act;
use firstkey::component::{Component, Parity, combine};
use firstkey::grpc::client::{ClientError, Refusal, request_id};
use firstkey::grpc::proto::{
    CreateKeyRequest, Exportability, KeyAlgorithm, KeyState, KeyUsage, SetKeyStateRequest,
};
use firstkey::key::Algorithm;
use firstkey::key::usage::KeyEncryption;
use firstkey::keyblock;
use firstkey::vault::{DestructionCertificate, VerifierKey};

use crate::service::Service;
use crate::table::{Table, approve, import, octets_of, sum};

pub(crate) const GENERATE: &str = "[generate]\nid = \"made\"\nusage = \"B0\"\nalgorithm = \"AES256\"\n\
    key_set_id = \"A1000001\"\n";

/// What must have happened exactly when a ceremony is done.
pub(crate) enum Effect {
    Destroyed(&'static str),
    Exported,
    Made(&'static str),
}

impl Effect {
    pub(crate) async fn is_whole(&self, table: &Table) {
        let view = &table.view;
        let is_done = matches!(view.state, CeremonyState::Done | CeremonyState::Closed);
        let has_product = !view.product.is_empty();
        let happened = match self {
            Self::Destroyed(name) => {
                assert_eq!(has_product, is_done);
                table.key(name).await.expect("it is told of").state() == KeyState::Destroyed
            }
            Self::Exported => has_product,
            Self::Made(name) => table.key(name).await.is_some(),
        };
        assert_eq!(happened, is_done, "{} steps", view.steps_done);
    }
}

/// Kills, how long steps take, and how many were done although nobody was told.
#[derive(Default)]
struct Kills {
    count: u32,
    took: Duration,
    unanswered: u32,
}

impl Kills {
    /// A moment within the step that comes: another one each time, most of them late.
    fn moment(&mut self) -> Duration {
        self.count += 1;
        let took = self.took.max(Duration::from_millis(8));
        took * [3, 5, 6, 7, 8, 9, 10, 11][usize::try_from(self.count).unwrap() % 8] / 10
    }

    /// Holds a ceremony to its end. Each step is killed while it is under way, until that was too
    /// late or three times; then when it was answered. Whatever is not done then is done again.
    async fn at_every_step(&mut self, table: &mut Table, effect: &Effect) {
        let (mut under_way, mut answered) = (BTreeMap::<usize, u32>::new(), BTreeSet::new());
        while let Some(step) = table.awaited() {
            let before = table.view.steps_done;
            let entered = table.view.planned.steps().iter().position(|one| one.act == Act::Enter);
            let after = if table.types_again() { entered.unwrap() } else { before + 1 };
            let tries = under_way.entry(before).or_default();
            // What is lost is entered again twice; with a third time the ceremony ends.
            let most = if step.act == Act::Enter { 2 } else { 3 };
            if *tries < most {
                *tries += 1;
                table.kill_after = Some(self.moment());
                let told = table.step().await.is_ok();
                table.restart().await;
                let done = table.view.steps_done;
                assert!(done == after || !told && done == before, "{step:?}: {before}, {done}");
                self.unanswered += u32::from(!told && done == after);
            } else if answered.insert(before) {
                let begun = Instant::now();
                table.step().await.unwrap();
                self.took = begun.elapsed();
                self.count += 1;
                table.restart().await;
                assert_eq!(table.view.steps_done, after, "{step:?} was answered");
            } else {
                table.step().await.unwrap();
            }
            effect.is_whole(table).await;
        }
        assert_eq!(table.view.state, CeremonyState::Closed);
        assert!(!table.verified().await.aborted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_key_is_made_or_not_whenever_the_service_is_killed() {
    let mut table = Table::set(Service::start("info"), GENERATE).await;
    let mut kills = Kills::default();
    kills.at_every_step(&mut table, &Effect::Made("keys/made")).await;
    // The slips that people have are the key that the service has.
    let slips: Vec<Vec<u8>> =
        table.slips.iter().map(|slip| octets_of(slip.as_ref().unwrap())).collect();
    let made = table.key("keys/made").await.unwrap();
    assert_eq!(sum(&slips).check_value().bytes(), made.check_value);
    assert!(kills.count >= 13, "{} kills", kills.count);

    // An end before the last confirmation is as whole.
    let other = GENERATE.replace("made", "never").replace("A1000001", "A1000002");
    for steps in [0, 3, 4, 6, 9] {
        table = table.next(&other).await;
        for _ in 0..steps {
            table.step().await.unwrap();
        }
        let (officer, _) = table.service.person("officer-1").await;
        let killer = table.service.kill_after(kills.moment());
        let told = officer.abort_ceremony(&table.view.name, "somebody fell ill").await.is_ok();
        killer.join().unwrap();
        table.restart().await;
        assert!(!told || table.view.state == CeremonyState::Aborted, "{steps}");
        if table.view.state != CeremonyState::Aborted {
            assert_eq!((table.view.state, table.view.steps_done), (CeremonyState::Open, steps));
            let (officer, _) = table.service.person("officer-1").await;
            officer.abort_ceremony(&table.view.name, "somebody fell ill").await.unwrap();
            table.restart().await;
            assert_eq!(table.view.state, CeremonyState::Aborted);
        }
        assert!(table.verified().await.aborted && table.view.envelope_key.is_empty());
        assert!(table.key("keys/never").await.is_none());
    }
}

/// A key that may leave.
async fn make_key(table: &Table) -> Vec<u8> {
    let request = CreateKeyRequest {
        request_id: request_id(),
        key_id: "zone".to_owned(),
        usage: KeyUsage::PinEncryption.into(),
        algorithm: KeyAlgorithm::Aes128.into(),
        exportability: Exportability::Exportable.into(),
        ..CreateKeyRequest::default()
    };
    let (officer, _) = table.service.person("officer-1").await;
    let made = officer.keys().create_key(request).await.unwrap().into_inner();
    made.key.unwrap().check_value
}

async fn deactivate(table: &Table) {
    let (one, two) =
        (table.service.person("officer-1").await.0, table.service.person("officer-2").await.0);
    let request = SetKeyStateRequest {
        request_id: request_id(),
        name: "keys/zone/versions/1".to_owned(),
        state: KeyState::Deactivated.into(),
        ..SetKeyStateRequest::default()
    };
    if let Err(status) = one.keys().set_key_state(request.clone()).await {
        let ClientError::Refused(asked) = ClientError::from(status) else { panic!("refused") };
        let asked: Refusal = asked;
        approve(&two, &asked).await;
        one.keys().set_key_state(request).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_key_is_brought_handed_out_and_destroyed_whenever_the_service_is_killed() {
    let (brought, plan) = import("kek");
    let mut table = Table::set(Service::start("info"), &plan).await;
    table.brought.clone_from(&brought);
    let mut kills = Kills::default();
    kills.at_every_step(&mut table, &Effect::Made("keys/kek")).await;
    let kek = table.key("keys/kek").await.unwrap();
    assert_eq!(sum(&brought).check_value().bytes(), kek.check_value);

    let value = make_key(&table).await;
    let shown = data_encoding::HEXUPPER.encode(&value);
    let under = data_encoding::HEXUPPER.encode(&kek.check_value);
    let export = format!(
        "[export]\nkey = \"keys/zone\"\ncheck_value = \"{shown}\"\n\
         wrapping_key = \"keys/kek\"\nwrapping_key_check_value = \"{under}\"\n"
    );
    table = table.next(&export).await;
    kills.at_every_step(&mut table, &Effect::Exported).await;
    // Whoever has the components opens the block.
    let components: Vec<Component> = brought
        .iter()
        .map(|octets| Component::from_bytes(Algorithm::Aes256, octets).unwrap())
        .collect();
    let components: Vec<&Component> = components.iter().collect();
    let kek = combine::<KeyEncryption>(Algorithm::Aes256, Parity::Required, &components).unwrap();
    let block = keyblock::unwrap(&kek, &table.view.product).unwrap();
    assert_eq!(block.algorithm, Algorithm::Aes128);

    deactivate(&table).await;
    let name = "keys/zone/versions/1";
    table = table.next(&format!("[destroy]\nkey = \"{name}\"\ncheck_value = \"{shown}\"\n")).await;
    kills.at_every_step(&mut table, &Effect::Destroyed(name)).await;
    let certificate = table.view.product.clone();
    let log_key = VerifierKey::parse(&table.log_key().await).unwrap();
    let lines = DestructionCertificate::open(&certificate, &log_key).unwrap();
    assert!(lines.iter().any(|(_, value)| *value == table.view.name), "{lines:?}");
    assert!(kills.count >= 31, "{} kills", kills.count);
    assert!(kills.unanswered > 0, "some steps were done although nobody was told");
}
