//! What each step of a ceremony does to it: pure, so that every order can be tried.

use std::fmt;

use data_encoding::{BASE64, HEXLOWER, HEXUPPER};

use super::material::{Given, Secret};
use super::plan::Task;
use super::record::{Ceremony, CeremonyState, SERVICE, Sign, transcript_signed};
use super::step::{Act, Actor};
use crate::command::envelope::Purpose;
use crate::component::Component;
use crate::crypto::constant_time_eq;
use crate::crypto::ec::{self, Point};
use crate::crypto::rng::{Rng, RngFailed};
use crate::key::CheckValue;
use crate::vault::UnixMillis;

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
    /// The key is not the one that this person came with, or it is another's.
    #[error("{OTHER_KEY}")]
    OtherKey,
    /// The source of randomness failed.
    #[error(transparent)]
    Rng(#[from] RngFailed),
    /// The signature does not verify.
    #[error("the signature does not verify")]
    SignatureInvalid,
}

/// What somebody with another key is told.
pub const OTHER_KEY: &str = "the key is not the one that they came with, or it is another's";

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
    /// A component, or the key, is one that was published.
    Published,
    /// A slip was read back wrongly too often.
    ReadBackFailed,
    /// All were to enter again too often.
    RestartedTooOften,
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::CheckValueDiffers => "check value differs",
            Self::CommitmentDiffers => "component differs from its commitment",
            Self::KeyRejected => "the components make no key that may be used",
            Self::Idle => "no step was done in time",
            Self::Published => "a component or the key is one that was published",
            Self::ReadBackFailed => "a slip was read back wrongly too often",
            Self::RestartedTooOften => "entry began again too often",
        })
    }
}

impl Ceremony {
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
        self.comes(who);
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
        let check_value = shown(component.check_value());
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
            return Err(self.misread(who, ("component", number), now));
        }
        self.given = None;
        self.done(now, "read back", who.name, &[("component", number.to_string())]);
        Ok(())
    }

    /// A slip was read back wrongly: one try less, or none.
    pub(super) fn misread(
        &mut self,
        who: Participant<'_>,
        (part, number): (&str, u8),
        now: UnixMillis,
    ) -> StepRefused {
        self.tries_left = self.tries_left.saturating_sub(1);
        self.write(now, "read back wrongly", who.name, &[(part, number.to_string())]);
        match self.tries_left {
            0 => StepRefused::Aborts(Cause::ReadBackFailed),
            _ => StepRefused::ComponentRejected,
        }
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
    /// must be the one that was expected. `is_published` says of a check value whether everybody
    /// knows its key, where such keys are not taken.
    pub fn reveal(
        &mut self,
        who: Participant<'_>,
        sent: (&[u8], &[u8; 64]),
        now: UnixMillis,
        is_published: &dyn Fn(&str) -> bool,
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
        let check_value = shown(component.check_value());
        let expected = import.component_check_values.get(place);
        if !expected.is_some_and(|expected| is_same_value(&check_value, expected)) {
            return Err(StepRefused::Aborts(Cause::CheckValueDiffers));
        }
        if is_published(&check_value) {
            return Err(StepRefused::Aborts(Cause::Published));
        }
        self.components.push(Secret::copy_of(octets));
        if self.components.len() == self.plan.custodians.len() {
            let made = self.combined().map_err(|_| StepRefused::Aborts(Cause::KeyRejected))?;
            let made = shown(made.check_value());
            if !is_same_value(&made, &import.check_value) {
                return Err(StepRefused::Aborts(Cause::CheckValueDiffers));
            }
            if is_published(&made) {
                return Err(StepRefused::Aborts(Cause::Published));
            }
        }
        let values = [("component", number.to_string()), ("check_value", check_value)];
        self.done(now, "revealed", who.name, &values);
        Ok(())
    }

    /// Takes all commitments back, and what was revealed: whoever has entered enters again, while
    /// not all have revealed. Nobody steers the key by that: its check value, and each component's,
    /// stand in the plan. It costs a try, and the time until the ceremony ends goes on, so that
    /// nobody holds it up for ever.
    pub fn restart_entry(
        &mut self,
        who: Participant<'_>,
        now: UnixMillis,
    ) -> Result<(), StepRefused> {
        let steps = self.planned().steps();
        let first = steps.iter().position(|step| step.act == Act::Enter);
        let awaited = self.next().is_some_and(|next| matches!(next.act, Act::Enter | Act::Reveal));
        let (Some(first), true) = (first, awaited) else {
            return Err(StepRefused::NotNext);
        };
        if !self.plan.custodians.iter().any(|name| name == who.name) {
            return Err(StepRefused::NotNext);
        }
        self.tries_left = self.tries_left.saturating_sub(1);
        self.commitments.clear();
        self.components.clear();
        self.steps_done = first;
        self.write(now, "entry begins again", who.name, &[]);
        if self.tries_left == 0 {
            return Err(StepRefused::Aborts(Cause::RestartedTooOften));
        }
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
        sign: Sign<'_>,
    ) -> Result<(), StepRefused> {
        self.turn(who, Act::Sign)?;
        let link = self.signed.as_deref().and_then(|hex| HEXLOWER.decode(hex.as_bytes()).ok());
        let signed = transcript_signed(&link.ok_or(StepRefused::NotNext)?);
        ec::verify(who.key, &signed, signature).map_err(|_| StepRefused::SignatureInvalid)?;
        let values = [
            ("certificate", BASE64.encode(who.certificate)),
            ("signature", HEXLOWER.encode(signature)),
        ];
        self.comes(who);
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
        sign: Sign<'_>,
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

    /// Remembers with which key somebody came: whoever acts in that name later has it too.
    pub(super) fn comes(&mut self, who: Participant<'_>) {
        self.keys.insert(who.name.to_owned(), HEXLOWER.encode(who.key.bytes()));
    }

    /// Whose turn it is, and whether this is the one; the number of the component, 0 for the
    /// witness.
    pub(super) fn turn(&self, who: Participant<'_>, act: Act) -> Result<u8, StepRefused> {
        let next = self.next().filter(|next| next.act == act).ok_or(StepRefused::NotNext)?;
        if self.planned().name_of(next.actor) != Some(who.name) {
            return Err(StepRefused::NotNext);
        }
        let key = HEXLOWER.encode(who.key.bytes());
        let is_theirs = match self.keys.get(who.name) {
            Some(own) => *own == key,
            None => self.keys.values().all(|other| *other != key),
        };
        if !is_theirs {
            return Err(StepRefused::OtherKey);
        }
        Ok(match next.actor {
            Actor::Custodian(number) => number,
            Actor::Witness => 0,
        })
    }
}

pub(super) fn shown(check_value: CheckValue) -> String {
    HEXUPPER.encode(check_value.bytes())
}

/// Compares check values, of which one may be the beginning of the other (3 and 5 bytes).
pub(super) fn is_same_value(one: &str, other: &str) -> bool {
    let len = one.len().min(other.len());
    len >= 6 && one.get(..len) == other.get(..len)
}
