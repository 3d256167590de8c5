//! What a compromised key exposes, in a graph of ten thousand.

use std::time::Duration;

use super::*;
use crate::vault::keys::record::BlockAtRest;

/// How long it may take to refuse what is exposed. A build for tests is not optimised, and shares
/// its processors with all other tests.
const AT_ONCE: Duration = Duration::from_secs(if cfg!(debug_assertions) { 30 } else { 1 });

/// Puts a described key without a block, as if it had come under others.
async fn carry(bench: &Bench, keys: &[(String, KeyUsage, Vec<String>)]) {
    let template =
        create(bench, new_key("template", KeyUsage::KeyEncryption, Algorithm::Aes256)).await;
    let head = Some(KeyHead { primary: 1, latest: 1, labels: BTreeMap::new() });
    let template = KeyRecord { head, ..template.unwrap() };
    for some in keys.chunks(500) {
        let mut work = bench.begin(Action::ImportKey).await;
        for (name, usage, carriers) in some {
            let mut record = KeyRecord { name: name.clone(), usage: *usage, ..template.clone() };
            record.carried_by = carriers.iter().map(|name| format!("{name}/versions/1")).collect();
            record.key_block =
                Some(BlockAtRest { generation: 1, block: "it is not opened here".into() });
            work.put(&Versioned::absent(record)).unwrap();
        }
        work.commit().await.unwrap();
    }
}

async fn state(bench: &Bench, name: &str) -> KeyState {
    bench.vault.key_record(name).await.unwrap().record.state
}

/// Those that the root reaches in a graph, by the rule in its shortest form.
fn expected(keys: &[(String, KeyUsage, Vec<String>)], root: &str) -> Vec<String> {
    let mut reached = vec![root.to_owned()];
    let mut looked_at = 0;
    while looked_at < reached.len() {
        let carrier = reached[looked_at].clone();
        for (name, _, carriers) in keys {
            if carriers.contains(&carrier) && !reached.contains(name) {
                reached.push(name.clone());
            }
        }
        looked_at += 1;
    }
    reached.remove(0);
    reached
}

#[tokio::test]
async fn a_compromised_key_closes_ten_thousand_at_once_and_they_stay_closed() {
    let bench = Bench::new().await;
    create(&bench, new_key("root", KeyUsage::KeyEncryption, Algorithm::Aes256)).await.unwrap();
    create(&bench, new_key("apart", KeyUsage::KeyEncryption, Algorithm::Aes256)).await.unwrap();
    // A hundred under the root, each of which carries a hundred more; some came by two ways.
    let mut keys = Vec::new();
    for carrier in 0..99 {
        let name = format!("kek-{carrier}");
        for key in 0..100 {
            let second = (key == 0).then(|| "apart".to_owned());
            let carriers: Vec<_> = [name.clone()].into_iter().chain(second).collect();
            keys.push((format!("key-{carrier}-{key}"), KeyUsage::PinEncryption, carriers));
        }
        keys.push((name, KeyUsage::KeyEncryption, vec!["root".to_owned()]));
    }
    keys.push(("other".to_owned(), KeyUsage::PinEncryption, vec!["apart".to_owned()]));
    carry(&bench, &keys).await;

    let told = async {
        let mut work = bench.begin(Action::SetKeyState).await;
        let to = StateChange { state: KeyState::Compromised, serve_until: None };
        let changed = work.set_key_state("root", to).await.unwrap();
        work.commit().await.map(|_| changed)
    };
    let changed = tokio::time::timeout(AT_ONCE, told).await.expect("at once").unwrap();
    assert_eq!(changed.exposed, keys.len() - 1);

    let bench = bench.restart().await;
    for (name, usage, _) in keys.iter().filter(|(name, ..)| name != "other") {
        let record = bench.vault.key_record(name).await.unwrap().record;
        assert!(record.compromised_through.contains("root/versions/1"), "{name}");
        for operation in
            Operation::ALL.into_iter().filter(|one| one.is_permitted_by(record.mode_of_use))
        {
            let told = record.check(operation, bench.vault.now());
            assert_eq!(told, Err(Reason::KeyNotActive), "{name} {usage:?} {operation:?}");
        }
    }
    for name in ["apart", "other", "template"] {
        assert_eq!(state(&bench, name).await, KeyState::Active, "{name}");
    }
}

#[tokio::test]
async fn what_is_exposed_is_what_was_carried_and_what_that_carried() {
    let bench = Bench::new().await;
    for name in ["kek", "kek-2", "apart"] {
        create(&bench, new_key(name, KeyUsage::KeyEncryption, Algorithm::Aes256)).await.unwrap();
    }
    for name in ["pin", "mine"] {
        create(&bench, new_key(name, KeyUsage::PinEncryption, Algorithm::Aes128)).await.unwrap();
    }
    // kek-2 left under kek, pin left under kek-2 and came back as pin-copy, mine left under apart.
    export(&bench, "kek-2", "kek").await.unwrap();
    let block = export(&bench, "pin", "kek-2").await.unwrap().key_block;
    import(&bench, "pin-copy", &block, "kek-2").await.unwrap();
    export(&bench, "mine", "apart").await.unwrap();

    // What was told compromised before stays as it was chosen, and stands in the list.
    set_state(&bench, "pin-copy", KeyState::Suspended).await.unwrap();
    set_state(&bench, "pin", KeyState::Deactivated).await.unwrap();
    set_state(&bench, "pin", KeyState::Destroyed).await.unwrap();
    let mut work = bench.begin(Action::SetKeyState).await;
    let to = StateChange { state: KeyState::Compromised, serve_until: None };
    let changed = work.set_key_state("kek", to).await.unwrap();
    work.commit().await.unwrap();
    assert_eq!(changed.exposed, 3);
    assert_eq!(
        bench.vault.events_after(0, 100).await.unwrap().pop().unwrap().detail["exposed"],
        "3"
    );
    for (name, expected) in [
        ("kek-2", KeyState::Compromised),
        ("pin-copy", KeyState::Compromised),
        ("pin", KeyState::Destroyed),
    ] {
        let record = bench.vault.key_record(name).await.unwrap().record;
        assert_eq!(record.state, expected, "{name}");
        assert!(record.compromised_through.contains("kek/versions/1"), "{name}");
    }
    // Upwards nothing is exposed, nor is what never met it.
    set_state(&bench, "mine", KeyState::Compromised).await.unwrap();
    assert_eq!(state(&bench, "apart").await, KeyState::Active);
    let open = bench.vault.key::<PinEncryption>("pin-copy", Operation::Decrypt).await;
    assert_eq!(err(open), refused(Reason::KeyNotActive));
}

/// Long enough to see that somebody waits.
const MOMENT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_key_that_comes_while_its_carrier_is_told_compromised_is_not_missed() {
    let bench = Bench::new().await;
    for name in ["kek", "a", "b"] {
        create(&bench, new_key(name, KeyUsage::KeyEncryption, Algorithm::Aes256)).await.unwrap();
    }
    let to = StateChange { state: KeyState::Compromised, serve_until: None };
    let wrapping = bench.vault.wrapping_key("kek", Operation::Wrap).await.unwrap();
    // One that is about to leave is waited for, and found.
    let mut leaves = bench.begin(Action::ExportKey).await;
    leaves.export_key(ExportKey { name: "a", exportability: None }, &wrapping).await.unwrap();
    let told = set_state(&bench, "kek", KeyState::Compromised);
    assert!(tokio::time::timeout(MOMENT, told).await.is_err(), "it waits");
    leaves.commit().await.unwrap();
    let mut work = bench.begin(Action::SetKeyState).await;
    assert_eq!(work.set_key_state("kek", to).await.unwrap().exposed, 1);
    // One that comes meanwhile waits, and finds its carrier compromised.
    let mut late = bench.begin(Action::ExportKey).await;
    let export = ExportKey { name: "b", exportability: None };
    let waits = tokio::time::timeout(MOMENT, late.export_key(export, &wrapping)).await;
    assert!(waits.is_err(), "it waits");
    work.commit().await.unwrap();
    let mut late = bench.begin(Action::ExportKey).await;
    late.export_key(export, &wrapping).await.unwrap();
    assert_eq!(late.commit().await, Err(Error::Conflict));
    assert_eq!(state(&bench, "a").await, KeyState::Compromised);
    assert_eq!(state(&bench, "b").await, KeyState::Active);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]

    #[test]
    fn in_any_graph_the_closure_is_what_can_be_reached(
        edges in proptest::collection::vec((0_usize..12, 0_usize..12), 0..30),
    ) {
        let mut keys: Vec<(String, KeyUsage, Vec<String>)> = (0..12)
            .map(|number| (format!("k-{number}"), KeyUsage::KeyEncryption, Vec::new()))
            .collect();
        for (carrier, carried) in edges {
            let carrier = keys[carrier].0.clone();
            keys[carried].2.push(carrier);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new().await;
            let (root, rest) = keys.split_at(1);
            create(&bench, new_key("k-0", KeyUsage::KeyEncryption, Algorithm::Aes256))
                .await
                .unwrap();
            carry(&bench, rest).await;
            set_state(&bench, &root[0].0, KeyState::Compromised).await.unwrap();
            let expected = expected(rest, "k-0");
            for (name, ..) in rest {
                let closed = state(&bench, name).await == KeyState::Compromised;
                assert_eq!(closed, expected.contains(name), "{name} of {rest:?}");
            }
        });
    }
}
