//! What a ceremony holds that nobody may see, between its steps: the components of a key, and the
//! key that opens envelopes.

use std::fmt;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::act::{Participant, StepRefused, shown};
use super::plan::Task;
use super::record::{Ceremony, occasion};
use crate::command::envelope::{Context, Purpose};
use crate::component::{self, Component, ComponentsRefused, Parity};
use crate::crypto::hpke::{Kem, RecipientKey};
use crate::crypto::rng::{Rng, RngFailed};
use crate::key::usage::DataBoth;
use crate::key::{Algorithm, Key};

/// What components combine to: its usage is the plan's to say, and the vault's to check.
pub(super) type Combined = Key<DataBoth>;

/// Octets that nobody may see: kept in the sealed record alone, wiped when dropped.
pub(super) struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub(super) const fn new(octets: Zeroizing<Vec<u8>>) -> Self {
        Self(octets)
    }

    pub(super) fn copy_of(octets: &[u8]) -> Self {
        Self(Zeroizing::new(octets.to_vec()))
    }
}

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

/// A slip that was given out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    pub(super) name: String,
    pub(super) recipient: Vec<u8>,
    pub(super) envelope: Vec<u8>,
}

impl Given {
    pub(super) fn is_for(&self, who: Participant<'_>, recipient: &[u8]) -> bool {
        self.name == who.name && self.recipient == recipient
    }
}

/// The mechanism for envelopes around components of an algorithm: as strong as they are.
pub(super) const fn kem_of(algorithm: Algorithm) -> Kem {
    Kem::for_strength(algorithm.strength_bits())
}

impl Ceremony {
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

    /// The algorithm of the components; none where there are none.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        match self.planned().task() {
            Task::Generate(key) => Some(key.algorithm),
            Task::Import(import) => Some(import.key.algorithm),
            Task::Destroy(_) | Task::Export(_) | Task::Initialise(_) | Task::ReShare(_) => None,
        }
    }

    /// Draws components until they make a key that may be used: all but always the first time.
    pub(super) fn draw(&mut self, algorithm: Algorithm, rng: &dyn Rng) -> Result<(), StepRefused> {
        for _ in 0..DRAWS_MAX {
            let one = |_| {
                let component = Component::generate(algorithm, rng)?;
                // Kept in the sealed record alone, until all were read back.
                Ok(Secret::copy_of(component.expose_bytes()))
            };
            let drawn = (0..self.plan.custodians.len()).map(one);
            self.components = drawn.collect::<Result<_, RngFailed>>()?;
            if let Ok(key) = self.combined() {
                self.check_value = Some(shown(key.check_value()));
                return Ok(());
            }
        }
        Err(StepRefused::Rng(RngFailed))
    }

    pub(super) fn component(&self, number: u8) -> Result<Component, StepRefused> {
        let place = usize::from(number).checked_sub(1).ok_or(StepRefused::NotNext)?;
        let (Some(algorithm), Some(secret)) = (self.algorithm(), self.components.get(place)) else {
            return Err(StepRefused::NotNext);
        };
        Component::from_bytes(algorithm, &secret.0).ok_or(StepRefused::ComponentRejected)
    }

    /// Opens an envelope of a custodian.
    pub(super) fn open(
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

    pub(super) fn occasion(&self, number: u8) -> [u8; 32] {
        occasion(&self.name(), &self.planned().digest(), number)
    }

    pub(super) fn context<'a>(
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
