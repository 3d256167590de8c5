//! Ceremonies in every order, right and wrong, without a service.

use std::cell::RefCell;

use data_encoding::HEXLOWER;

use super::act::{Cause, Participant, StepRefused};
use super::custodian::{Custodian, Signed, sign_transcript};
use super::plan::{Plan, Planned};
use super::record::{Ceremony, CeremonyState, transcript_signed};
use super::transcript::Transcript;
use crate::component::Component;
use crate::crypto::ec::{Point, SigningKey};
use crate::crypto::ed25519::{self, Ed25519Key};
use crate::crypto::rng::SystemRng;
use crate::key::{Algorithm, CheckValue, Material};
use crate::vault::UnixMillis;

/// People at a table, and the service across it.
struct Table {
    planned: Planned,
    keys: Vec<(SigningKey, Point)>,
    ceremony: Ceremony,
    log: Ed25519Key,
    minute: RefCell<u64>,
}

const NAMES: [&str; 4] = ["c1", "c2", "c3", "w"];
const WITNESS: usize = 3;

impl Table {
    fn new(table: &str) -> Self {
        let people = "custodians = [\"c1\", \"c2\", \"c3\"]\nwitness = \"w\"\n";
        let plan: Plan = toml::from_str(&format!("title = \"T\"\n{people}{table}")).unwrap();
        let planned = plan.check().unwrap();
        let log = Ed25519Key::from_seed(&[7; 32]);
        let (rng, sign) = (SystemRng::new(), |message: &[u8]| log.sign(message));
        let begun = Ceremony::begin("1".into(), &planned, &[], UnixMillis(0), (&rng, &sign));
        let ceremony = begun.unwrap();
        let keys = NAMES.map(|_| SigningKey::generate().unwrap());
        let keys = keys.into_iter().map(|key| (key.public(), key)).map(|(p, k)| (k, p)).collect();
        Self { planned, keys, ceremony, log, minute: RefCell::default() }
    }

    fn generating(algorithm: &str) -> Self {
        let key = format!("[generate]\nid = \"k\"\nusage = \"K0\"\nalgorithm = \"{algorithm}\"\n");
        Self::new(&key)
    }

    fn importing(algorithm: Algorithm, components: &[Component], check_value: &str) -> Self {
        let values: Vec<String> = components.iter().map(|one| shown(one.check_value())).collect();
        let algorithm = serde_json::to_string(&algorithm).unwrap();
        Self::new(&format!(
            "[import]\ncheck_value = \"{check_value}\"\ncomponent_check_values = {values:?}\n\
             [import.key]\nid = \"k\"\nusage = \"K0\"\nalgorithm = {algorithm}\n"
        ))
    }

    fn now(&self) -> UnixMillis {
        *self.minute.borrow_mut() += 1;
        UnixMillis(*self.minute.borrow() * 60_000)
    }

    /// One step of somebody.
    fn step<T>(
        &mut self,
        who: usize,
        act: impl FnOnce(&mut Ceremony, Participant<'_>, UnixMillis) -> Result<T, StepRefused>,
    ) -> Result<T, StepRefused> {
        let now = self.now();
        let participant =
            Participant { name: NAMES[who], certificate: b"der", key: &self.keys[who].1 };
        act(&mut self.ceremony, participant, now)
    }

    fn join_all(&mut self) {
        let digest = self.planned.digest();
        for who in 0..NAMES.len() {
            self.step(who, |one, by, now| one.join(by, &digest, now)).unwrap();
        }
    }

    /// What a custodian's tool makes.
    fn tool<T>(&self, who: usize, act: impl FnOnce(&Custodian<'_>, &[u8]) -> T) -> T {
        let (name, digest) = (self.ceremony.name(), self.planned.digest());
        let algorithm = match self.planned.task() {
            super::plan::Task::Generate(key) => key.algorithm,
            super::plan::Task::Import(import) => import.key.algorithm,
            other => panic!("{other:?}"),
        };
        let to = self.ceremony.envelope_key.as_ref().unwrap();
        let to = HEXLOWER.decode(to.public.as_bytes()).unwrap();
        let custodian = Custodian {
            ceremony: &name,
            digest: &digest,
            number: u8::try_from(who + 1).unwrap(),
            algorithm,
            signer: &self.keys[who].0,
        };
        act(&custodian, &to)
    }

    fn take(&mut self, who: usize) -> Component {
        let rng = SystemRng::new();
        let (key, asked) = self.tool(who, |tool, _| tool.ask_for_slip(&rng)).unwrap();
        let envelope = self
            .step(who, |one, by, now| one.take(by, (&asked.sent, &asked.signature), now, &rng))
            .unwrap();
        self.tool(who, |tool, _| tool.open_slip(&key, &envelope)).unwrap()
    }

    fn read_back(&mut self, who: usize, component: &Component) -> Result<(), StepRefused> {
        let rng = SystemRng::new();
        let read = self.tool(who, |tool, to| tool.read_back(to, component, &rng)).unwrap();
        self.step(who, |one, by, now| one.read_back(by, (&read.sent, &read.signature), now))
    }

    fn enter(&mut self, who: usize, component: Component) -> Result<Signed, StepRefused> {
        let rng = SystemRng::new();
        let (entry, revealed) =
            self.tool(who, |tool, to| tool.commit(to, component, &rng)).unwrap();
        let commitment: [u8; 32] = entry.sent.try_into().unwrap();
        self.step(who, |one, by, now| one.enter(by, (&commitment, &entry.signature), now))?;
        Ok(revealed)
    }

    fn reveal(&mut self, who: usize, sealed: &Signed) -> Result<(), StepRefused> {
        self.step(who, |one, by, now| {
            one.reveal(by, (&sealed.sent, &sealed.signature), now, &|_| false)
        })
    }

    fn confirm_all(&mut self) {
        let check_value = self.ceremony.check_value.clone().unwrap();
        for who in 0..NAMES.len() {
            let last = self.step(who, |one, by, now| one.confirm(by, &check_value, now)).unwrap();
            assert_eq!(last, who == WITNESS);
        }
    }

    fn sign_all(&mut self) {
        let link = self.ceremony.transcript.link();
        for who in 0..NAMES.len() {
            let signature = sign_transcript(&self.keys[who].0, &link).unwrap();
            let log = Ed25519Key::from_seed(&[7; 32]);
            let sign = |message: &[u8]| log.sign(message);
            self.step(who, |one, by, now| one.sign(by, &signature, now, &sign)).unwrap();
        }
    }
}

fn shown(check_value: CheckValue) -> String {
    data_encoding::HEXUPPER.encode(check_value.bytes())
}

fn component(algorithm: Algorithm, octet: u8) -> Component {
    Component::from_bytes(algorithm, &vec![octet; algorithm.len_bytes()]).unwrap()
}

fn sum(algorithm: Algorithm, components: &[Component]) -> String {
    let mut octets = vec![0; algorithm.len_bytes()];
    for one in components {
        octets.iter_mut().zip(one.expose_bytes()).for_each(|(sum, octet)| *sum ^= octet);
    }
    shown(CheckValue::of(algorithm, &Material::copied_from(&octets)))
}

#[test]
fn a_key_is_made_given_out_read_back_confirmed_and_signed() {
    for (algorithm, word) in [(Algorithm::Aes256, "AES256"), (Algorithm::Tdes2, "TDES2")] {
        let mut table = Table::generating(word);
        table.join_all();
        let mut slips = Vec::new();
        for who in 0..3 {
            let slip = table.take(who);
            table.read_back(who, &slip).unwrap();
            slips.push(slip);
        }
        let check_value = table.ceremony.check_value.clone().unwrap();
        assert_eq!(check_value, sum(algorithm, &slips));
        table.confirm_all();
        let key = table.ceremony.combined().unwrap();
        assert_eq!(shown(key.check_value()), check_value);
        let now = table.now();
        table.ceremony.complete(now, &[("key", "keys/k/versions/1".into())], None);
        assert_eq!(table.ceremony.state, CeremonyState::Done);
        table.sign_all();
        assert_eq!((table.ceremony.state, table.ceremony.next()), (CeremonyState::Closed, None));
        let text = table.ceremony.transcript.lines().join("\n");
        let (_, lines) = Transcript::parse(&text).unwrap();
        let last = lines.last().unwrap();
        let signature = HEXLOWER.decode(last.values["signature"].as_bytes()).unwrap();
        let before = HEXLOWER.decode(last.prev.as_bytes()).unwrap();
        let signature = signature.try_into().unwrap();
        let signed = transcript_signed(&before);
        assert_eq!(ed25519::verify(&table.log.public(), &signed, &signature), Ok(()));
        // No component is told or kept, in any form that it was in.
        let kept = serde_json::to_string(&table.ceremony).unwrap();
        for slip in &slips {
            let octets = HEXLOWER.encode(slip.expose_bytes());
            assert!(!kept.contains(&octets) && !text.to_lowercase().contains(&octets));
        }
    }
}

#[test]
fn a_step_is_done_by_its_actor_in_its_turn_or_not_at_all() {
    let mut table = Table::generating("AES128");
    let digest = table.planned.digest();
    let steps = table.planned.steps();
    for done in 0..steps.len() {
        if table.ceremony.state == CeremonyState::Open {
            for who in 0..NAMES.len() {
                let joins = done == who;
                let joined = table.step(who, |one, by, now| one.join(by, &digest, now));
                if joins {
                    assert_eq!(joined, Ok(()));
                    break;
                }
                assert_eq!(joined, Err(StepRefused::NotNext), "step {done}, {who}");
            }
        }
        if done == 3 {
            break;
        }
    }
    // The first custodian takes; nobody else does anything.
    let before = serde_json::to_string(&table.ceremony).unwrap();
    for who in 0..NAMES.len() {
        let signature = [0; 64];
        let value = "001122";
        let refused = [
            table.step(who, |one, by, now| one.join(by, &digest, now)),
            table.step(who, |one, by, now| one.confirm(by, value, now)).map(drop),
            table.step(who, |one, by, now| one.enter(by, (&[0; 32], &signature), now)),
            table.step(who, |one, by, now| one.reveal(by, (b"", &signature), now, &|_| false)),
            table.step(who, |one, by, now| one.read_back(by, (b"", &signature), now)),
            table.step(who, Ceremony::restart_entry),
            table.step(who, |one, by, now| one.sign(by, &signature, now, &|_| [0; 64])),
        ];
        assert!(refused.iter().all(|one| *one == Err(StepRefused::NotNext)), "{refused:?}");
        if who > 0 {
            let rng = SystemRng::new();
            let taken = table.step(who, |one, by, now| one.take(by, (b"", &signature), now, &rng));
            assert_eq!(taken, Err(StepRefused::NotNext));
        }
    }
    assert_eq!(serde_json::to_string(&table.ceremony).unwrap(), before);
}

#[test]
fn another_plan_is_not_joined() {
    let mut table = Table::generating("AES128");
    let joined = table.step(0, |one, by, now| one.join(by, &[1; 32], now));
    assert_eq!(joined, Err(StepRefused::DigestDiffers));
}

#[test]
fn there_is_one_print_and_an_answer_that_was_lost_is_given_again_to_the_same_key() {
    let mut table = Table::generating("TDES3");
    table.join_all();
    let rng = SystemRng::new();
    let (key, asked) = table.tool(0, |tool, _| tool.ask_for_slip(&rng)).unwrap();
    let take = |table: &mut Table, asked: &Signed| {
        table.step(0, |one, by, now| one.take(by, (&asked.sent, &asked.signature), now, &rng))
    };
    let first = take(&mut table, &asked).unwrap();
    assert_eq!(take(&mut table, &asked), Ok(first.clone()));
    let (_, another) = table.tool(0, |tool, _| tool.ask_for_slip(&rng)).unwrap();
    assert_eq!(take(&mut table, &another), Err(StepRefused::NotNext));
    let slip = table.tool(0, |tool, _| tool.open_slip(&key, &first)).unwrap();
    table.read_back(0, &slip).unwrap();
    assert_eq!(take(&mut table, &asked), Err(StepRefused::NotNext), "it was read back");
    // Nobody else opens it, and a key that is not the custodian's gets nothing.
    assert!(table.tool(1, |tool, _| tool.open_slip(&key, &first)).is_err());
    let stolen =
        table.step(1, |one, by, now| one.take(by, (&another.sent, &another.signature), now, &rng));
    assert_eq!(stolen, Err(StepRefused::SignatureInvalid));
}

#[test]
fn a_slip_that_is_read_back_wrongly_three_times_ends_it() {
    let mut table = Table::generating("AES128");
    table.join_all();
    let slip = table.take(0);
    let wrong = component(Algorithm::Aes128, 1);
    for _ in 0..2 {
        assert_eq!(table.read_back(0, &wrong), Err(StepRefused::ComponentRejected));
    }
    let mut right = Table::generating("AES128");
    right.join_all();
    let other = right.take(0);
    right.read_back(0, &wrong).unwrap_err();
    right.read_back(0, &other).unwrap();
    assert_eq!(table.read_back(0, &wrong), Err(StepRefused::Aborts(Cause::ReadBackFailed)));
    let now = table.now();
    table.ceremony.abort("service", "x", now, &|_| [0; 64]).unwrap();
    let kept = serde_json::to_string(&table.ceremony).unwrap();
    assert!(!kept.contains(&HEXLOWER.encode(slip.expose_bytes())));
    assert_eq!(table.read_back(0, &slip), Err(StepRefused::NotNext));
}

#[test]
fn a_key_comes_in_components_that_nobody_can_steer() {
    let algorithm = Algorithm::Aes256;
    let bring = || [1, 2, 4].map(|octet| component(algorithm, octet));
    let check_value = sum(algorithm, &bring());
    let begin = |check_value: &str| {
        let mut table = Table::importing(algorithm, &bring(), check_value);
        table.join_all();
        table
    };
    let mut table = begin(&check_value);
    let sealed: Vec<Signed> =
        (0..).zip(bring()).map(|(who, one)| table.enter(who, one).unwrap()).collect();
    // Whoever reveals, reveals the own.
    assert_eq!(table.reveal(0, &sealed[1]), Err(StepRefused::SignatureInvalid));
    for (who, one) in sealed.iter().enumerate() {
        table.reveal(who, one).unwrap();
    }
    table.confirm_all();
    let key = table.ceremony.combined().unwrap();
    assert_eq!(shown(key.check_value()), check_value);
    // The last one has seen what others brought, and brings something else than was said.
    let mut table = begin(&check_value);
    let sealed: Vec<Signed> =
        (0..).zip(bring()).map(|(who, one)| table.enter(who, one).unwrap()).collect();
    table.reveal(0, &sealed[0]).unwrap();
    table.reveal(1, &sealed[1]).unwrap();
    let rng = SystemRng::new();
    let chosen = component(algorithm, 7);
    let (_, other) = table.tool(2, |tool, to| tool.commit(to, chosen, &rng)).unwrap();
    assert_eq!(table.reveal(2, &other), Err(StepRefused::Aborts(Cause::CommitmentDiffers)));
    // The key is not the one that was agreed.
    let mut table = begin("000000");
    let sealed: Vec<Signed> =
        (0..).zip(bring()).map(|(who, one)| table.enter(who, one).unwrap()).collect();
    table.reveal(0, &sealed[0]).unwrap();
    table.reveal(1, &sealed[1]).unwrap();
    assert_eq!(table.reveal(2, &sealed[2]), Err(StepRefused::Aborts(Cause::CheckValueDiffers)));
}

#[test]
fn what_makes_no_key_ends_it() {
    let aes = Algorithm::Aes128;
    for (octets, cause) in [
        ([1, 1, 3], Cause::KeyRejected),
        ([1, 2, 3], Cause::KeyRejected),
        ([0, 1, 2], Cause::KeyRejected),
    ] {
        let bring = octets.map(|octet| component(aes, octet));
        let check_value = sum(aes, &bring);
        let mut table = Table::importing(aes, &bring, &check_value);
        table.join_all();
        let sealed: Vec<Signed> =
            (0..).zip(bring).map(|(who, one)| table.enter(who, one).unwrap()).collect();
        table.reveal(0, &sealed[0]).unwrap();
        table.reveal(1, &sealed[1]).unwrap();
        assert_eq!(table.reveal(2, &sealed[2]), Err(StepRefused::Aborts(cause)), "{octets:?}");
    }
}

#[test]
fn an_envelope_that_was_lost_means_that_all_enter_again() {
    let bring = || [1, 2, 4].map(|octet| component(Algorithm::Aes128, octet));
    let check_value = sum(Algorithm::Aes128, &bring());
    let mut table = Table::importing(Algorithm::Aes128, &bring(), &check_value);
    table.join_all();
    for (who, one) in (0..).zip(bring()) {
        table.enter(who, one).unwrap();
    }
    assert_eq!(table.step(WITNESS, Ceremony::restart_entry), Err(StepRefused::NotNext));
    table.step(1, Ceremony::restart_entry).unwrap();
    let sealed: Vec<Signed> =
        (0..).zip(bring()).map(|(who, one)| table.enter(who, one).unwrap()).collect();
    // Some have revealed: theirs is void too.
    table.reveal(0, &sealed[0]).unwrap();
    table.reveal(1, &sealed[1]).unwrap();
    table.step(2, Ceremony::restart_entry).unwrap();
    assert_eq!(table.reveal(2, &sealed[2]), Err(StepRefused::NotNext));
    for (who, one) in (0..).zip(bring()) {
        table.enter(who, one).unwrap();
    }
    // Not for ever.
    let late = table.step(1, Ceremony::restart_entry);
    assert_eq!(late, Err(StepRefused::Aborts(Cause::RestartedTooOften)));
}

#[test]
fn another_check_value_ends_it_and_a_wrong_signature_does_not_count() {
    let mut table = Table::generating("AES128");
    table.join_all();
    for who in 0..3 {
        let slip = table.take(who);
        table.read_back(who, &slip).unwrap();
    }
    let wrong = table.step(0, |one, by, now| one.confirm(by, "000000", now));
    assert_eq!(wrong, Err(StepRefused::Aborts(Cause::CheckValueDiffers)));
    table.confirm_all();
    let now = table.now();
    table.ceremony.complete(now, &[], None);
    let refused = table.step(0, |one, by, now| one.sign(by, &[1; 64], now, &|_| [0; 64]));
    assert_eq!(refused, Err(StepRefused::SignatureInvalid));
    let late = table.ceremony.abort("c1", "too late", UnixMillis(0), &|_| [0; 64]);
    assert_eq!(late, Err(StepRefused::NotNext), "it has happened");
    table.sign_all();
    assert_eq!(table.ceremony.state, CeremonyState::Closed);
}
