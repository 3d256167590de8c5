//! A ceremony as it is kept.
//!
//! ```text
//! OPEN -> DONE (the last confirmation) -> CLOSED (the last signature)
//! OPEN -> ABORTED
//! ```

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::material::{Given, Secret, kem_of};
use super::plan::{Plan, Planned, Task};
use super::step::Step;
use super::transcript::Transcript;
use crate::agreement::label;
use crate::crypto::digest::{framed, sha256};
use crate::crypto::hpke::RecipientKey;
use crate::crypto::rng::{Rng, RngFailed};
use crate::vault::{Kind, Record, UnixMillis};

/// Signs with the key of the audit log.
pub type Sign<'a> = &'a dyn Fn(&[u8]) -> [u8; 64];

/// How often slips may be read back wrongly, or entry begin again, in one ceremony; with the last
/// it is aborted.
pub const TRIES: u8 = 3;

/// Where a ceremony stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CeremonyState {
    /// It ended before anything happened.
    Aborted,
    /// All have signed.
    Closed,
    /// What it is for has happened.
    Done,
    /// Its next step is awaited.
    Open,
}

impl CeremonyState {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aborted => "ABORTED",
            Self::Closed => "CLOSED",
            Self::Done => "DONE",
            Self::Open => "OPEN",
        }
    }
}

/// A ceremony.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceremony {
    /// Its id in `ceremonies/{id}`.
    pub id: String,
    /// What shall be done, by whom.
    pub plan: Plan,
    /// Where it stands.
    pub state: CeremonyState,
    /// How many of its steps are done.
    pub steps_done: usize,
    /// When the last was done.
    pub updated: UnixMillis,
    /// The check value of the key that it is about, in upper case hexadecimals, once it is known.
    pub check_value: Option<String>,
    /// What it gave: a key block, or a certificate of destruction.
    pub product: Option<String>,
    /// What happened.
    pub transcript: Transcript,
    /// Its public key for envelopes, and the service's signature over it.
    pub envelope_key: Option<EnvelopeKey>,
    /// The hash that is signed, in lower case hexadecimals, when it is done.
    pub(super) signed: Option<String>,
    pub(super) private: Option<Secret>,
    pub(super) commitments: Vec<String>,
    pub(super) components: Vec<Secret>,
    /// The slip that waits to be read back.
    pub(super) given: Option<Given>,
    pub(super) tries_left: u8,
    /// The public key that each came with, in lower case hexadecimals, by the URI name.
    pub(super) keys: BTreeMap<String, String>,
}

/// The key of a ceremony for envelopes, as participants see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeKey {
    /// The point, in lower case hexadecimals.
    pub public: String,
    /// The signature of the audit log's key, in lower case hexadecimals.
    pub signature: String,
}

impl Record for Ceremony {
    const KIND: Kind = Kind::new("ceremony");

    fn id(&self) -> String {
        self.id.clone()
    }

    fn index(&self) -> Option<String> {
        Some(self.state.as_str().to_owned())
    }
}

impl Ceremony {
    /// Begins one.
    pub fn begin(
        id: String,
        planned: &Planned,
        values: &[(&str, String)],
        now: UnixMillis,
        (rng, sign): (&dyn Rng, Sign<'_>),
    ) -> Result<Self, RngFailed> {
        let mut begun = Self::new(id, planned, now);
        let mut values = values.to_vec();
        if let Some(algorithm) = begun.algorithm() {
            let key = RecipientKey::generate(kem_of(algorithm), rng)?;
            let public = HEXLOWER.encode(key.public());
            let signed = key_signed(&begun.name(), &planned.digest(), key.public());
            values.push(("envelope_key", public.clone()));
            let signature = HEXLOWER.encode(&sign(&signed));
            begun.envelope_key = Some(EnvelopeKey { public, signature });
            begun.private = Some(Secret::new(key.to_bytes()));
        }
        begun.created(planned, &values, now);
        Ok(begun)
    }

    /// One of which nothing is written yet.
    pub(super) fn new(id: String, planned: &Planned, now: UnixMillis) -> Self {
        let check_value = match planned.task() {
            Task::Destroy(destroy) => Some(destroy.check_value.clone()),
            Task::Export(export) => Some(export.check_value.clone()),
            Task::Import(import) => Some(import.check_value.clone()),
            Task::Generate(_) | Task::Initialise(_) | Task::ReShare(_) => None,
        };
        Self {
            id,
            plan: planned.plan().clone(),
            state: CeremonyState::Open,
            steps_done: 0,
            updated: now,
            check_value,
            product: None,
            transcript: Transcript::default(),
            envelope_key: None,
            signed: None,
            private: None,
            commitments: Vec::new(),
            components: Vec::new(),
            given: None,
            tries_left: TRIES,
            keys: BTreeMap::new(),
        }
    }

    /// Writes the first line.
    pub(super) fn created(
        &mut self,
        planned: &Planned,
        values: &[(&str, String)],
        now: UnixMillis,
    ) {
        let mut values = values.to_vec();
        let canonical = String::from_utf8(planned.canonical());
        values.push(("ceremony", self.name()));
        values.push(("plan", canonical.expect("JSON is UTF-8")));
        values.push(("plan_digest", HEXLOWER.encode(&planned.digest())));
        self.write(now, "created", SERVICE, &values);
    }

    /// `ceremonies/{id}`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("ceremonies/{}", self.id)
    }

    /// Its plan, which was checked when it began.
    #[must_use]
    pub fn planned(&self) -> Planned {
        self.plan.clone().check().expect("a ceremony begins with a plan that was checked")
    }

    /// The step that is awaited.
    #[must_use]
    pub fn next(&self) -> Option<Step> {
        match self.state {
            CeremonyState::Aborted | CeremonyState::Closed => None,
            CeremonyState::Done | CeremonyState::Open => {
                self.planned().steps().get(self.steps_done).copied()
            }
        }
    }

    /// When it is aborted if no step is done; none where nothing can be undone any more.
    #[must_use]
    pub fn expires(&self) -> Option<UnixMillis> {
        let idle_ms = u64::from(self.plan.idle_minutes) * 60_000;
        (self.state == CeremonyState::Open).then(|| self.updated.plus_ms(idle_ms))
    }

    /// How often a slip may still be read back wrongly.
    #[must_use]
    pub const fn tries_left(&self) -> u8 {
        self.tries_left
    }

    pub(super) fn close(&mut self, now: UnixMillis, sign: Sign<'_>) {
        let signature = sign(&transcript_signed(&self.transcript.link()));
        self.write(now, "closed", SERVICE, &[("signature", HEXLOWER.encode(&signature))]);
    }

    pub(super) fn done(
        &mut self,
        now: UnixMillis,
        what: &str,
        who: &str,
        values: &[(&str, String)],
    ) {
        self.steps_done = self.steps_done.saturating_add(1);
        self.updated = now;
        self.write(now, what, who, values);
    }

    pub(super) fn write(
        &mut self,
        now: UnixMillis,
        what: &str,
        who: &str,
        values: &[(&str, String)],
    ) {
        self.transcript.push(now, what, who, values);
    }

    pub(super) fn wipe(&mut self) {
        self.private = None;
        self.commitments.clear();
        self.components.clear();
        self.given = None;
    }
}

/// Whom the transcript names where nobody at the table did it.
pub const SERVICE: &str = "service";

/// What signatures of a transcript cover.
#[must_use]
pub fn transcript_signed(link: &[u8]) -> Vec<u8> {
    [label::CEREMONY_TRANSCRIPT.as_bytes(), link].concat()
}

/// What the signature of a ceremony's key for envelopes covers.
#[must_use]
pub fn key_signed(ceremony: &str, digest: &[u8; 32], public: &[u8]) -> Vec<u8> {
    framed(&[label::CEREMONY_KEY.as_bytes(), ceremony.as_bytes(), digest, public])
}

/// The occasion that an envelope of a component belongs to.
#[must_use]
pub fn occasion(ceremony: &str, digest: &[u8; 32], number: u8) -> [u8; 32] {
    sha256(&[&framed(&[ceremony.as_bytes(), digest, &[number]])])
}
