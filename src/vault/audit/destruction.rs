//! Certificates of destruction: a signed note for each key that is destroyed.
//!
//! ```text
//! firstkey/v1/certificate-of-destruction
//! log: firstkey/{log}/{node}       whose key signs, as it signs checkpoints
//! key: keys/{key}/versions/{n}
//! ...                              a line for each of usage, algorithm, check value, who and when
//! event: 4711                      its sequence in the audit log
//! event_hash: hexadecimals         SHA-256 of the event as an export has it
//! not_reached: ...                 what destruction does not reach
//! ```
//!
//! It holds nothing that the store and the log do not, and is written anew whenever it is asked
//! for: the same bytes each time.

use super::super::caller::Action;
use super::super::clock::UnixMillis;
use super::super::core::Core;
use super::super::error::Error;
use super::super::event::Event;
use super::super::keys::{KeyRecord, KeyState};
use super::super::reason::Reason;
use super::super::vault::Vault;
use super::chain::{events_after, read_head};
use super::checkpoints::LogKey;
use super::note::{NoteError, VerifierKey, sign_text, signed_text};
use crate::agreement::label::CERTIFICATE_OF_DESTRUCTION;
use crate::memory;

/// A certificate of destruction, and the key to verify it with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestructionCertificate {
    /// The signed note.
    pub note: String,
    /// The key of the log, as signed-note writes it.
    pub verifier_key: String,
}

impl DestructionCertificate {
    /// Verifies a note, and gives its lines: each a name and a value.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Vec<(String, String)>, NoteError> {
        let lines = lines_of(signed_text(note, key)?).ok_or(NoteError::Malformed)?;
        let is_of_log = lines.first().is_some_and(|(name, log)| name == "log" && log == key.name());
        if is_of_log { Ok(lines) } else { Err(NoteError::KeyOther) }
    }
}

fn lines_of(text: &str) -> Option<Vec<(String, String)>> {
    let mut lines = text.lines();
    if lines.next() != Some(CERTIFICATE_OF_DESTRUCTION) {
        return None;
    }
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    lines.map(|line| line.split_once(": ").map(owned)).collect()
}

/// How far the time in a key's record and that of its event may be apart, in milliseconds: a call
/// waits for its commit so long at most, and a clock that steps back meanwhile is no harm.
const APART_MS: u64 = 60 * 1_000;

/// Events that are read at once.
const PAGE: usize = 500;

/// What no certificate can promise.
const NOT_REACHED: &str = "backups from before, for whoever has the master key that they are \
                           under, until that master key is retired";

impl Vault {
    /// Writes the certificate of a key that is destroyed; `KEY_NOT_ACTIVE` for any other.
    pub async fn destruction_certificate(
        &self,
        name: &str,
    ) -> Result<DestructionCertificate, Error> {
        let core = &self.shared.core;
        let record = self.key_record(name).await?.record;
        if record.state != KeyState::Destroyed {
            return Err(Error::Refused(Reason::KeyNotActive));
        }
        let event = event_of(core, &record).await?;
        let key = LogKey::read(core).await?;
        let missing = || Error::incident("a store has no key of its log", "log");
        let key = key.ok_or_else(missing)?;
        Ok(memory::with_wiped_stack(|| {
            let (log, key) = key.named(&core.node);
            let note = sign_text(&text_of(&log, &record, &event), &log, &key);
            DestructionCertificate { note, verifier_key: VerifierKey::new(log, &key).to_string() }
        }))
    }
}

fn text_of(log: &str, record: &KeyRecord, event: &Event) -> String {
    let letter = char::from(record.algorithm.header_letter());
    let mut lines = vec![
        ("log", log.to_owned()),
        ("key", record.resource_name()),
        ("usage", record.usage.as_str().to_owned()),
        ("algorithm", format!("{letter}, {} bits", record.algorithm.len_bytes() * 8)),
        ("check_value", record.check_value.clone()),
        ("created", record.created.to_string()),
        ("destroyed", event.time.to_string()),
        ("requester", event.caller.clone()),
    ];
    lines.extend(event.approvers.iter().map(|person| ("approver", person.clone())));
    // Who was at the table stands in its transcript, and who approved it in the event of its plan.
    if event.action == Action::ConfirmCeremony.as_str() {
        lines.push(("ceremony", event.resource.clone()));
    }
    lines.push(("event", event.seq.to_string()));
    lines.push(("event_hash", event.hash()));
    lines.push(("not_reached", NOT_REACHED.to_owned()));
    // A line end in a value would make another line of it.
    let line = |(name, value): (&str, String)| {
        format!("{name}: {}\n", value.replace(char::is_control, "\u{FFFD}"))
    };
    let lines: String = lines.into_iter().map(line).collect();
    format!("{CERTIFICATE_OF_DESTRUCTION}\n{lines}")
}

/// Finds the event that tells of a key's destruction: times never run back in a chain, so the place
/// where to look is found by halves.
async fn event_of(core: &Core, record: &KeyRecord) -> Result<Event, Error> {
    let missing = || Error::incident("a destroyed key has no event of it", &record.name);
    let from = UnixMillis(record.updated.0.saturating_sub(APART_MS));
    let until = record.updated.plus_ms(APART_MS);
    let (mut before, mut beyond) = (0, read_head(core).await?.record.seq);
    while before < beyond {
        let middle = before + (beyond - before) / 2;
        let event = events_after(core, middle, None, 1).await?.pop().ok_or_else(missing)?;
        if event.time < from {
            before = middle + 1;
        } else {
            beyond = middle;
        }
    }
    loop {
        let page = events_after(core, before, None, PAGE).await?;
        let last = page.last().ok_or_else(missing)?;
        let is_past = last.time > until;
        before = last.seq;
        if let Some(event) = page.into_iter().find(|event| destroys(event, record)) {
            return Ok(event);
        }
        if is_past {
            return Err(missing());
        }
    }
}

/// The calls with which a key is destroyed.
const DESTROYERS: [Action; 2] = [Action::ConfirmCeremony, Action::SetKeyState];

fn destroys(event: &Event, record: &KeyRecord) -> bool {
    let to = event.detail.get("to").map(String::as_str);
    event.is_done()
        && DESTROYERS.iter().any(|action| event.action == action.as_str())
        && to == Some(KeyState::Destroyed.as_str())
        && event.keys.iter().any(|key| key.name == record.resource_name())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::key::Algorithm;
    use crate::vault::testing::Bench;
    use crate::vault::{KeyAttributes, KeyUsage, NewKey, Start, StateChange};

    async fn create(bench: &Bench) {
        let mut work = bench.begin(Action::CreateKey).await;
        let new = NewKey {
            name: "zone".into(),
            usage: KeyUsage::PinEncryption,
            algorithm: Algorithm::Aes128,
            mode_of_use: None,
            exportability: None,
            attributes: KeyAttributes::default(),
            labels: BTreeMap::new(),
            start: Start::PreActive,
        };
        work.create_key(new).await.unwrap();
        work.commit().await.unwrap();
    }

    async fn destroy(bench: &Bench) -> UnixMillis {
        let mut work = bench.begin(Action::SetKeyState).await;
        let change = StateChange { state: KeyState::Destroyed, serve_until: None };
        work.set_key_state("zone", change).await.unwrap();
        work.commit().await.unwrap().time
    }

    async fn noise(bench: &Bench) {
        for _ in 0..700 {
            bench.begin(Action::GetKey).await.commit().await.unwrap();
            bench.clock.forward(1_000);
        }
    }

    #[tokio::test]
    async fn a_certificate_is_found_in_a_long_log_verifies_and_is_the_same_after_a_restart() {
        let bench = Bench::new().await;
        create(&bench).await;
        let early = bench.vault.destruction_certificate("zone").await;
        assert_eq!(early, Err(Error::Refused(Reason::KeyNotActive)));
        noise(&bench).await;
        let time = destroy(&bench).await;
        let sequence = bench.vault.log_size().await.unwrap();
        noise(&bench).await;
        let made = bench.vault.destruction_certificate("zone").await.unwrap();
        let bench = bench.restart().await;
        assert_eq!(bench.vault.destruction_certificate("zone").await.as_ref(), Ok(&made));
        let key = VerifierKey::parse(&made.verifier_key).unwrap();
        assert_eq!(bench.vault.checkpoint().await.unwrap().verifier_key, made.verifier_key);
        let lines = DestructionCertificate::open(&made.note, &key).unwrap();
        let line = |name: &str| {
            let found = lines.iter().find(|(one, _)| one == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        assert_eq!(line("key"), "keys/zone/versions/1");
        assert_eq!((line("usage"), line("algorithm")), ("P0".into(), "A, 128 bits".into()));
        assert_eq!(line("destroyed"), time.to_string());
        assert_eq!(line("requester"), "dev");
        assert_eq!(line("event"), sequence.to_string());
        let event = bench.vault.events_after(sequence - 1, 1).await.unwrap().pop().unwrap();
        assert_eq!(line("event_hash"), event.hash());
        assert!(line("not_reached").contains("backups"));
    }

    #[tokio::test]
    async fn what_is_changed_or_is_of_another_key_or_kind_does_not_verify() {
        let bench = Bench::new().await;
        create(&bench).await;
        destroy(&bench).await;
        let made = bench.vault.destruction_certificate("zone").await.unwrap();
        let key = VerifierKey::parse(&made.verifier_key).unwrap();
        let open = |note: &str| DestructionCertificate::open(note, &key).err();
        for (from, to) in [("keys/zone", "keys/zine"), ("P0", "P1"), ("event: ", "event: 1")] {
            let changed = made.note.replace(from, to);
            assert_eq!(open(&changed), Some(NoteError::SignatureInvalid), "{from}");
        }
        // A checkpoint is signed by the same key, and is no certificate; nor the other way.
        let checkpoint = bench.vault.checkpoint().await.unwrap();
        assert_eq!(open(&checkpoint.note), Some(NoteError::Malformed));
        let as_checkpoint = super::super::Checkpoint::open(&made.note, &key).err();
        assert_eq!(as_checkpoint, Some(NoteError::Malformed));
        let other = Bench::new().await.vault.checkpoint().await.unwrap();
        let other = VerifierKey::parse(&other.verifier_key).unwrap();
        let told = DestructionCertificate::open(&made.note, &other).err();
        assert_eq!(told, Some(NoteError::KeyOther));
    }
}
