//! A ceremony as it is kept, and what each step does to it: pure, so that every order can be tried.
//!
//! ```text
//! OPEN -> DONE (the last confirmation) -> CLOSED (the last signature)
//! OPEN -> ABORTED
//! ```

use std::fmt;

use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::plan::{Plan, Planned, Task};
use super::step::{Act, Actor, Step};
use super::transcript::Transcript;
use crate::agreement::label;
use crate::command::envelope::{Context, Purpose, parts};
use crate::component::{self, Component, ComponentsRefused, Parity};
use crate::crypto::constant_time_eq;
use crate::crypto::digest::sha256;
use crate::crypto::ec::{self, Point};
use crate::crypto::hpke::{Kem, RecipientKey};
use crate::crypto::rng::{Rng, RngFailed};
use crate::key::usage::DataBoth;
use crate::key::{Algorithm, CheckValue, Key};
use crate::vault::{Kind, Record, UnixMillis};

/// How often a slip may be read back wrongly in one ceremony; with the last it is aborted.
pub const READ_BACK_TRIES: u8 = 3;

/// What components combine to: its usage is the plan's to say, and the vault's to check.
pub type Combined = Key<DataBoth>;

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

/// Whoever does a step, with the certificate of the connection.
#[derive(Debug, Clone, Copy)]
pub struct Participant<'a> {
    /// The URI name.
    pub name: &'a str,
    /// The certificate in DER.
    pub certificate: &'a [u8],
    /// Its public key.
    pub key: &'a Point,
}

/// Why a step is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StepRefused {
    /// The ceremony is aborted by it: nothing has happened, nothing is kept.
    #[error("aborted: {0}")]
    Aborts(Cause),
    /// The digest is that of another plan.
    #[error("the plan is another one")]
    DigestDiffers,
    /// It does not open, is not signed by the key of the certificate, or is no component.
    #[error("the component is not taken")]
    ComponentRejected,
    /// Another step is awaited, or none.
    #[error("this is not the next step")]
    NotNext,
    /// The source of randomness failed.
    #[error(transparent)]
    Rng(#[from] RngFailed),
    /// The signature does not verify.
    #[error("the signature does not verify")]
    SignatureInvalid,
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

/// Why a ceremony is aborted by a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The check value is not the one that is expected.
    CheckValueDiffers,
    /// A component is not what was committed to.
    CommitmentDiffers,
    /// The components make no key that may be used: see [`component::combine`].
    KeyRejected,
    /// No step was done for too long.
    Idle,
    /// A slip was read back wrongly too often.
    ReadBackFailed,
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::CheckValueDiffers => "check value differs",
            Self::CommitmentDiffers => "component differs from its commitment",
            Self::KeyRejected => "the components make no key that may be used",
            Self::Idle => "no step was done in time",
            Self::ReadBackFailed => "a slip was read back wrongly too often",
        })
    }
}

/// Octets that nobody may see: kept in the sealed record alone, wiped when dropped.
struct Secret(Zeroizing<Vec<u8>>);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(HEXLOWER.encode(&self.0)))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let octets = HEXLOWER.decode(text.as_bytes());
        let octets = octets.map_err(|_| serde::de::Error::custom("a secret is hexadecimal"))?;
        Ok(Self(Zeroizing::new(octets)))
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
    signed: Option<String>,
    private: Option<Secret>,
    commitments: Vec<String>,
    components: Vec<Secret>,
    /// The slip that waits to be read back.
    given: Option<Given>,
    tries_left: u8,
}

/// A slip that was given out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    name: String,
    recipient: Vec<u8>,
    envelope: Vec<u8>,
}

impl Given {
    fn is_for(&self, who: Participant<'_>, recipient: &[u8]) -> bool {
        self.name == who.name && self.recipient == recipient
    }
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
}

/// The mechanism for envelopes around components of an algorithm: as strong as they are.
#[must_use]
pub const fn kem_of(algorithm: Algorithm) -> Kem {
    Kem::for_strength(algorithm.strength_bits())
}

impl Ceremony {
    /// Begins one. `sign` signs with the key of the audit log.
    pub fn begin(
        id: String,
        planned: &Planned,
        values: &[(&str, String)],
        now: UnixMillis,
        (rng, sign): (&dyn Rng, &dyn Fn(&[u8]) -> [u8; 64]),
    ) -> Result<Self, RngFailed> {
        let mut begun = Self {
            id,
            plan: planned.plan().clone(),
            state: CeremonyState::Open,
            steps_done: 0,
            updated: now,
            check_value: None,
            product: None,
            transcript: Transcript::default(),
            envelope_key: None,
            signed: None,
            private: None,
            commitments: Vec::new(),
            components: Vec::new(),
            given: None,
            tries_left: READ_BACK_TRIES,
        };
        begun.check_value = match planned.task() {
            Task::Destroy(destroy) => Some(destroy.check_value.clone()),
            Task::Export(export) => Some(export.check_value.clone()),
            Task::Import(import) => Some(import.check_value.clone()),
            Task::Generate(_) | Task::Initialise(_) | Task::ReShare(_) => None,
        };
        let mut values = values.to_vec();
        let canonical = String::from_utf8(planned.canonical());
        values.push(("plan", canonical.expect("JSON is UTF-8")));
        values.push(("plan_digest", HEXLOWER.encode(&planned.digest())));
        if let Some(algorithm) = begun.algorithm() {
            let key = RecipientKey::generate(kem_of(algorithm), rng)?;
            let public = HEXLOWER.encode(key.public());
            let signed = key_signed(&begun.name(), &planned.digest(), key.public());
            values.push(("envelope_key", public.clone()));
            let signature = HEXLOWER.encode(&sign(&signed));
            begun.envelope_key = Some(EnvelopeKey { public, signature });
            begun.private = Some(Secret(key.to_bytes()));
        }
        begun.write(now, "created", SERVICE, &values);
        Ok(begun)
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

    /// Somebody comes, and has read the digest of this plan.
    pub fn join(
        &mut self,
        who: Participant<'_>,
        digest: &[u8],
        now: UnixMillis,
    ) -> Result<(), StepRefused> {
        self.turn(who, Act::Join)?;
        if digest != self.planned().digest() {
            return Err(StepRefused::DigestDiffers);
        }
        let certificate = BASE64.encode(who.certificate);
        self.done(now, "joined", who.name, &[("certificate", certificate)]);
        Ok(())
    }

    /// Gives a custodian the component that is theirs, once. All are drawn with the first.
    ///
    /// The same key asked for again, before the slip is read back, gets the same envelope again:
    /// an answer that was lost on its way costs nothing, and nobody else can open it.
    pub fn take(
        &mut self,
        who: Participant<'_>,
        (recipient, signature): (&[u8], &[u8; 64]),
        now: UnixMillis,
        rng: &dyn Rng,
    ) -> Result<Vec<u8>, StepRefused> {
        if let Some(given) = self.given.as_ref().filter(|given| given.is_for(who, recipient))
            && self.turn(who, Act::ReadBack).is_ok()
        {
            return Ok(given.envelope.clone());
        }
        let number = self.turn(who, Act::Take)?;
        let algorithm = self.algorithm().ok_or(StepRefused::NotNext)?;
        let id = self.occasion(number);
        let context = self.context(who, &id, Purpose::Take)?;
        context.verify(recipient, signature).map_err(|_| StepRefused::SignatureInvalid)?;
        if self.components.is_empty() {
            self.draw(algorithm, rng)?;
        }
        let component = self.component(number)?;
        // Sealed for its custodian, who alone sees it.
        let envelope = context.seal(recipient, component.expose_bytes(), rng);
        let envelope = envelope.map_err(|_| StepRefused::ComponentRejected)?;
        let (name, recipient) = (who.name.to_owned(), recipient.to_vec());
        self.given = Some(Given { name, recipient, envelope: envelope.clone() });
        let check_value = shown(&component.check_value());
        let values = [("component", number.to_string()), ("check_value", check_value)];
        self.done(now, "given out", who.name, &values);
        Ok(envelope)
    }

    /// A custodian types what the slip says.
    pub fn read_back(
        &mut self,
        who: Participant<'_>,
        sent: (&[u8], &[u8; 64]),
        now: UnixMillis,
    ) -> Result<(), StepRefused> {
        let number = self.turn(who, Act::ReadBack)?;
        let octets = self.open(who, (number, Purpose::Confirm), sent)?;
        let given = self.component(number)?;
        // Compared with what was given out, in a time that tells nothing.
        if !constant_time_eq(&octets, given.expose_bytes()) {
            self.tries_left = self.tries_left.saturating_sub(1);
            let values = [("component", number.to_string())];
            self.write(now, "read back wrongly", who.name, &values);
            return Err(match self.tries_left {
                0 => StepRefused::Aborts(Cause::ReadBackFailed),
                _ => StepRefused::ComponentRejected,
            });
        }
        self.given = None;
        self.done(now, "read back", who.name, &[("component", number.to_string())]);
        Ok(())
    }

    /// A custodian commits to a component.
    pub fn enter(
        &mut self,
        who: Participant<'_>,
        (commitment, signature): (&[u8; 32], &[u8; 64]),
        now: UnixMillis,
    ) -> Result<(), StepRefused> {
        let number = self.turn(who, Act::Enter)?;
        let id = self.occasion(number);
        let context = self.context(who, &id, Purpose::Commit)?;
        context.verify(commitment, signature).map_err(|_| StepRefused::SignatureInvalid)?;
        let commitment = HEXLOWER.encode(commitment);
        self.commitments.push(commitment.clone());
        let values = [("component", number.to_string()), ("commitment", commitment)];
        self.done(now, "committed", who.name, &values);
        Ok(())
    }

    /// A custodian hands over what was committed to. With the last the key is put together, and
    /// must be the one that was expected.
    pub fn reveal(
        &mut self,
        who: Participant<'_>,
        sent: (&[u8], &[u8; 64]),
        now: UnixMillis,
    ) -> Result<(), StepRefused> {
        let number = self.turn(who, Act::Reveal)?;
        let opened = self.open(who, (number, Purpose::Reveal), sent)?;
        let (salt, octets) = opened.split_first_chunk().ok_or(StepRefused::ComponentRejected)?;
        let planned = self.planned();
        let Task::Import(import) = planned.task() else { return Err(StepRefused::NotNext) };
        let component = Component::from_bytes(import.key.algorithm, octets);
        let component = component.ok_or(StepRefused::Aborts(Cause::CommitmentDiffers))?;
        let place = usize::from(number).saturating_sub(1);
        let commitment = HEXLOWER.encode(&component.commitment(&self.name(), number, salt));
        if self.commitments.get(place) != Some(&commitment) {
            return Err(StepRefused::Aborts(Cause::CommitmentDiffers));
        }
        let check_value = shown(&component.check_value());
        let expected = import.component_check_values.get(place);
        if !expected.is_some_and(|expected| is_same_value(&check_value, expected)) {
            return Err(StepRefused::Aborts(Cause::CheckValueDiffers));
        }
        self.components.push(Secret(Zeroizing::new(octets.to_vec())));
        if self.components.len() == self.plan.custodians.len() {
            let made = self.combined().map_err(|_| StepRefused::Aborts(Cause::KeyRejected))?;
            let made = shown(&made.check_value());
            if !is_same_value(&made, &import.check_value) {
                return Err(StepRefused::Aborts(Cause::CheckValueDiffers));
            }
        }
        let values = [("component", number.to_string()), ("check_value", check_value)];
        self.done(now, "revealed", who.name, &values);
        Ok(())
    }
}

impl Ceremony {
    /// Takes all commitments back: whoever has entered enters again.
    pub fn restart_entry(
        &mut self,
        who: Participant<'_>,
        now: UnixMillis,
    ) -> Result<(), StepRefused> {
        let steps = self.planned().steps();
        let first = steps.iter().position(|step| step.act == Act::Enter);
        let awaited = self.next().is_some_and(|next| matches!(next.act, Act::Enter | Act::Reveal));
        let (Some(first), true, true) = (first, awaited, self.components.is_empty()) else {
            return Err(StepRefused::NotNext);
        };
        if !self.plan.custodians.iter().any(|name| name == who.name) {
            return Err(StepRefused::NotNext);
        }
        self.commitments.clear();
        self.steps_done = first;
        self.updated = now;
        self.write(now, "entry begins again", who.name, &[]);
        Ok(())
    }

    /// Somebody has compared the check value. Tells whether it was the last who had to: then the
    /// thing is to be done, and [`Ceremony::complete`] follows in the same commit.
    pub fn confirm(
        &mut self,
        who: Participant<'_>,
        check_value: &str,
        now: UnixMillis,
    ) -> Result<bool, StepRefused> {
        self.turn(who, Act::Confirm)?;
        let expected = self.check_value.as_deref();
        if !expected.is_some_and(|expected| is_same_value(check_value, expected)) {
            return Err(StepRefused::Aborts(Cause::CheckValueDiffers));
        }
        let values = [("check_value", check_value.to_owned())];
        self.done(now, "confirmed", who.name, &values);
        Ok(self.next().is_some_and(|next| next.act == Act::Sign))
    }

    /// The key that the components make, for the commit of the last confirmation.
    pub fn combined(&self) -> Result<Combined, ComponentsRefused> {
        let planned = self.planned();
        let (algorithm, parity) = match planned.task() {
            Task::Generate(key) => (key.algorithm, Parity::Required),
            Task::Import(import) => (import.key.algorithm, import.parity),
            Task::Destroy(_) | Task::Export(_) | Task::Initialise(_) | Task::ReShare(_) => {
                return Err(ComponentsRefused::Count);
            }
        };
        let parse = |secret: &Secret| Component::from_bytes(algorithm, &secret.0);
        let components: Vec<Component> = self.components.iter().filter_map(parse).collect();
        component::combine(algorithm, parity, &components.iter().collect::<Vec<_>>())
    }

    /// What the ceremony is for has happened: nothing secret is kept, and signatures follow.
    pub fn complete(
        &mut self,
        now: UnixMillis,
        values: &[(&str, String)],
        product: Option<String>,
    ) {
        self.wipe();
        self.product = product;
        self.state = CeremonyState::Done;
        self.write(now, "done", SERVICE, values);
        self.signed = Some(HEXLOWER.encode(&self.transcript.link()));
    }

    /// Somebody signs what happened. `sign` signs with the key of the audit log, at last.
    pub fn sign(
        &mut self,
        who: Participant<'_>,
        signature: &[u8; 64],
        now: UnixMillis,
        sign: &dyn Fn(&[u8]) -> [u8; 64],
    ) -> Result<(), StepRefused> {
        self.turn(who, Act::Sign)?;
        let link = self.signed.as_deref().and_then(|hex| HEXLOWER.decode(hex.as_bytes()).ok());
        let signed = transcript_signed(&link.ok_or(StepRefused::NotNext)?);
        ec::verify(who.key, &signed, signature).map_err(|_| StepRefused::SignatureInvalid)?;
        let values = [
            ("certificate", BASE64.encode(who.certificate)),
            ("signature", HEXLOWER.encode(signature)),
        ];
        self.done(now, "signed", who.name, &values);
        if self.next().is_none() {
            self.state = CeremonyState::Closed;
            self.close(now, sign);
        }
        Ok(())
    }

    /// Ends it before anything happened: what it holds is wiped, and the service signs that it
    /// ended.
    pub fn abort(
        &mut self,
        who: &str,
        cause: &str,
        now: UnixMillis,
        sign: &dyn Fn(&[u8]) -> [u8; 64],
    ) -> Result<(), StepRefused> {
        if self.state != CeremonyState::Open {
            return Err(StepRefused::NotNext);
        }
        self.wipe();
        self.state = CeremonyState::Aborted;
        self.updated = now;
        self.write(now, "aborted", who, &[("cause", cause.to_owned())]);
        self.close(now, sign);
        Ok(())
    }

    fn close(&mut self, now: UnixMillis, sign: &dyn Fn(&[u8]) -> [u8; 64]) {
        let signature = sign(&transcript_signed(&self.transcript.link()));
        self.write(now, "closed", SERVICE, &[("signature", HEXLOWER.encode(&signature))]);
    }

    /// Whose turn it is, and whether this is the one; the number of the component, 0 for the
    /// witness.
    fn turn(&self, who: Participant<'_>, act: Act) -> Result<u8, StepRefused> {
        let next = self.next().filter(|next| next.act == act).ok_or(StepRefused::NotNext)?;
        if self.planned().name_of(next.actor) != Some(who.name) {
            return Err(StepRefused::NotNext);
        }
        Ok(match next.actor {
            Actor::Custodian(number) => number,
            Actor::Witness => 0,
        })
    }

    fn done(&mut self, now: UnixMillis, what: &str, who: &str, values: &[(&str, String)]) {
        self.steps_done = self.steps_done.saturating_add(1);
        self.updated = now;
        self.write(now, what, who, values);
    }

    fn write(&mut self, now: UnixMillis, what: &str, who: &str, values: &[(&str, String)]) {
        self.transcript.push(now, what, who, values);
    }

    fn wipe(&mut self) {
        self.private = None;
        self.commitments.clear();
        self.components.clear();
        self.given = None;
    }
}

/// Whom the transcript names where nobody at the table did it.
const SERVICE: &str = "service";

/// What signatures of a transcript cover.
#[must_use]
pub fn transcript_signed(link: &[u8]) -> Vec<u8> {
    [label::CEREMONY_TRANSCRIPT.as_bytes(), link].concat()
}

/// What the signature of a ceremony's key for envelopes covers.
#[must_use]
pub fn key_signed(ceremony: &str, digest: &[u8; 32], public: &[u8]) -> Vec<u8> {
    parts(&[label::CEREMONY_KEY.as_bytes(), ceremony.as_bytes(), digest, public])
}

/// The occasion that an envelope of a component belongs to.
#[must_use]
pub fn occasion(ceremony: &str, digest: &[u8; 32], number: u8) -> [u8; 32] {
    sha256(&[&parts(&[ceremony.as_bytes(), digest, &[number]])])
}

fn shown(check_value: &CheckValue) -> String {
    HEXUPPER.encode(check_value.bytes())
}

/// Compares check values, of which one may be the beginning of the other (3 and 5 bytes).
pub(super) fn is_same_value(one: &str, other: &str) -> bool {
    let len = one.len().min(other.len());
    len >= 6 && one.get(..len) == other.get(..len)
}

impl Ceremony {
    /// How often a slip may still be read back wrongly.
    #[must_use]
    pub const fn tries_left(&self) -> u8 {
        self.tries_left
    }

    /// The algorithm of the components; none where there are none.
    fn algorithm(&self) -> Option<Algorithm> {
        match self.planned().task() {
            Task::Generate(key) => Some(key.algorithm),
            Task::Import(import) => Some(import.key.algorithm),
            Task::Destroy(_) | Task::Export(_) | Task::Initialise(_) | Task::ReShare(_) => None,
        }
    }

    /// Draws components until they make a key that may be used: all but always the first time.
    fn draw(&mut self, algorithm: Algorithm, rng: &dyn Rng) -> Result<(), StepRefused> {
        for _ in 0..DRAWS_MAX {
            let one = |_| {
                let component = Component::generate(algorithm, rng)?;
                // Kept in the sealed record alone, until all were read back.
                Ok(Secret(Zeroizing::new(component.expose_bytes().to_vec())))
            };
            let drawn = (0..self.plan.custodians.len()).map(one);
            self.components = drawn.collect::<Result<_, RngFailed>>()?;
            if let Ok(key) = self.combined() {
                self.check_value = Some(shown(&key.check_value()));
                return Ok(());
            }
        }
        Err(StepRefused::Rng(RngFailed))
    }

    fn component(&self, number: u8) -> Result<Component, StepRefused> {
        let place = usize::from(number).checked_sub(1).ok_or(StepRefused::NotNext)?;
        let (Some(algorithm), Some(secret)) = (self.algorithm(), self.components.get(place)) else {
            return Err(StepRefused::NotNext);
        };
        Component::from_bytes(algorithm, &secret.0).ok_or(StepRefused::ComponentRejected)
    }

    /// Opens an envelope of a custodian.
    fn open(
        &self,
        who: Participant<'_>,
        (number, purpose): (u8, Purpose),
        (envelope, signature): (&[u8], &[u8; 64]),
    ) -> Result<Zeroizing<Vec<u8>>, StepRefused> {
        let id = self.occasion(number);
        let context = self.context(who, &id, purpose)?;
        context.verify(envelope, signature).map_err(|_| StepRefused::SignatureInvalid)?;
        let private = self.private.as_ref().ok_or(StepRefused::NotNext)?;
        let key = RecipientKey::from_bytes(context.kem, &private.0);
        let key = key.map_err(|_| StepRefused::ComponentRejected)?;
        context.open(&key, envelope).map_err(|_| StepRefused::ComponentRejected)
    }

    fn occasion(&self, number: u8) -> [u8; 32] {
        occasion(&self.name(), &self.planned().digest(), number)
    }

    fn context<'a>(
        &self,
        who: Participant<'a>,
        id: &'a [u8],
        purpose: Purpose,
    ) -> Result<Context<'a>, StepRefused> {
        let algorithm = self.algorithm().ok_or(StepRefused::NotNext)?;
        Ok(Context { kem: kem_of(algorithm), id, purpose, holder: who.key })
    }
}

/// How often components are drawn: weak keys are so rare that a second time is a fault.
const DRAWS_MAX: u8 = 4;
