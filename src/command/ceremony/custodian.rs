//! What a custodian's tool does with a component: the other end of every envelope of a ceremony.

use zeroize::Zeroizing;

use super::material::kem_of;
use super::record::{occasion, transcript_signed};
use crate::command::envelope::{Context, Purpose};
use crate::component::Component;
use crate::crypto::ec::{Point, SigningKey};
use crate::crypto::hpke::{RecipientKey, SealError};
use crate::crypto::rng::{Rng, RngFailed};
use crate::key::Algorithm;

/// A custodian at a ceremony, with the key of the certificate.
pub struct Custodian<'a> {
    /// `ceremonies/{ceremony}`.
    pub ceremony: &'a str,
    /// The digest of its plan.
    pub digest: &'a [u8; 32],
    /// The number of the component.
    pub number: u8,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// The private key of the certificate.
    pub signer: &'a SigningKey,
}

/// What is sent, and the signature over it.
pub struct Signed {
    /// An envelope, a key or a commitment.
    pub sent: Vec<u8>,
    /// By the key of the certificate.
    pub signature: [u8; 64],
}

/// An envelope that is no custodian's, or holds no component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the envelope does not open, or holds no component of this key")]
pub struct SlipRefused;

impl Custodian<'_> {
    /// Makes a key for one slip, and asks for the slip with it.
    pub fn ask_for_slip(&self, rng: &dyn Rng) -> Result<(RecipientKey, Signed), RngFailed> {
        let key = RecipientKey::generate(kem_of(self.algorithm), rng)?;
        let asked = self.signed(Purpose::Take, key.public().to_vec())?;
        Ok((key, asked))
    }

    /// Opens what was given out.
    pub fn open_slip(&self, key: &RecipientKey, envelope: &[u8]) -> Result<Component, SlipRefused> {
        let opened = self.in_context(Purpose::Take, |context| context.open(key, envelope));
        let octets = opened.map_err(|_| SlipRefused)?;
        Component::from_bytes(self.algorithm, &octets).ok_or(SlipRefused)
    }

    /// Seals what was typed from the slip, for the ceremony's key.
    pub fn read_back(
        &self,
        to: &[u8],
        component: &Component,
        rng: &dyn Rng,
    ) -> Result<Signed, SealError> {
        // Sealed for the service, which compares it.
        self.sealed(Purpose::Confirm, to, component.expose_bytes(), rng)
    }

    /// Commits to a component, and seals it for the ceremony's key, to be sent when all have
    /// committed. The component is gone with this.
    pub fn commit(
        &self,
        to: &[u8],
        component: Component,
        rng: &dyn Rng,
    ) -> Result<(Signed, Signed), SealError> {
        let mut salt = Zeroizing::new([0; 32]);
        rng.fill(&mut *salt)?;
        let commitment = component.commitment(self.ceremony, self.number, &salt);
        // Sealed for the service, which combines it.
        let plain = Zeroizing::new([salt.as_slice(), component.expose_bytes()].concat());
        drop(component);
        let revealed = self.sealed(Purpose::Reveal, to, &plain, rng)?;
        Ok((self.signed(Purpose::Commit, commitment.to_vec())?, revealed))
    }

    fn sealed(
        &self,
        purpose: Purpose,
        to: &[u8],
        plain: &[u8],
        rng: &dyn Rng,
    ) -> Result<Signed, SealError> {
        let sealed = self.in_context(purpose, |context| context.seal(to, plain, rng))?;
        Ok(self.signed(purpose, sealed)?)
    }

    fn signed(&self, purpose: Purpose, sent: Vec<u8>) -> Result<Signed, RngFailed> {
        let signature = self.in_context(purpose, |context| context.sign(self.signer, &sent))?;
        Ok(Signed { sent, signature })
    }

    fn in_context<T>(&self, purpose: Purpose, ask: impl FnOnce(Context<'_>) -> T) -> T {
        let holder: Point = self.signer.public();
        let id = occasion(self.ceremony, self.digest, self.number);
        ask(Context { kem: kem_of(self.algorithm), id: &id, purpose, holder: &holder })
    }
}

/// Signs the transcript, of which this is the hash.
pub fn sign_transcript(signer: &SigningKey, link: &[u8; 32]) -> Result<[u8; 64], RngFailed> {
    signer.sign(&transcript_signed(link))
}
