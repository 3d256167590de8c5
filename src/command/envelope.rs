//! What a share or a component crosses in: sealed to a key of the service's, or of a custodian's,
//! and signed by the key of the sender's certificate.
//!
//! ```text
//! info      = part(label) || part(id) || part(purpose) || part(public key of the certificate)
//! sealed    = HPKE, base mode (RFC 9180)
//! signature = ECDSA P-256 over part(label) || part(id) || part(purpose) || part(what is sent)
//! ```
//!
//! `part` puts four octets of length, big endian, before its octets. So nothing that was made for
//! one occasion, one purpose or one person opens in another. Base mode does not say who sealed;
//! without the signature, whoever comes between could put in a secret that is known.

use zeroize::Zeroizing;

use crate::agreement::label;
use crate::crypto::digest::framed;
use crate::crypto::ec::{self, Point, SigningKey};
use crate::crypto::hpke::{self, Kem, RecipientKey, SealError};
use crate::crypto::rng::{Rng, RngFailed};

/// What an envelope, or what is signed like one, is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A custodian commits to a component.
    Commit,
    /// What stands on a slip is read back.
    Confirm,
    /// A component is handed over.
    Reveal,
    /// A share or component goes to its custodian.
    Take,
    /// A share is given to open the vault.
    Unseal,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Confirm => "confirm",
            Self::Reveal => "reveal",
            Self::Take => "take",
            Self::Unseal => "unseal",
        }
    }
}

/// What an envelope belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// How it is sealed: as strong as what is in it.
    pub kem: Kem,
    /// The occasion: it never comes again.
    pub id: &'a [u8],
    /// What it is for.
    pub purpose: Purpose,
    /// The public key of the certificate of whoever sends, or is sent, what is in it.
    pub holder: &'a Point,
}

/// Something that does not open, was not signed by the holder, or belongs to something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the envelope does not open, or is not its sender's")]
pub struct EnvelopeRefused;

impl Context<'_> {
    /// Seals to a key.
    pub fn seal(&self, to: &[u8], plain: &[u8], rng: &dyn Rng) -> Result<Vec<u8>, SealError> {
        hpke::seal(self.kem, to, &self.info(), &[], plain, rng)
    }

    /// Opens what was sealed to this key.
    pub fn open(
        &self,
        key: &RecipientKey,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, EnvelopeRefused> {
        key.open(&self.info(), &[], sealed).map_err(|_| EnvelopeRefused)
    }

    /// Signs what is sent: what was sealed, a key to be sealed to, or a commitment.
    pub fn sign(&self, key: &SigningKey, sent: &[u8]) -> Result<[u8; 64], RngFailed> {
        key.sign(&self.signed(sent))
    }

    /// Proves that the holder has sent it.
    pub fn verify(&self, sent: &[u8], signature: &[u8; 64]) -> Result<(), EnvelopeRefused> {
        ec::verify(self.holder, &self.signed(sent), signature).map_err(|_| EnvelopeRefused)
    }

    fn info(&self) -> Vec<u8> {
        self.parts(label::ENVELOPE_INFO, self.holder.bytes())
    }

    fn signed(&self, sent: &[u8]) -> Vec<u8> {
        self.parts(label::ENVELOPE_SIGNATURE, sent)
    }

    fn parts(&self, label: &str, last: &[u8]) -> Vec<u8> {
        framed(&[label.as_bytes(), self.id, self.purpose.as_str().as_bytes(), last])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::rng::SystemRng;

    #[test]
    fn an_envelope_opens_only_as_what_it_was_made_for() {
        let (rng, key) =
            (SystemRng::new(), RecipientKey::generate(Kem::P256, &SystemRng::new()).unwrap());
        let (anna, ben) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let (holder, other) = (anna.public(), ben.public());
        let context =
            Context { kem: Kem::P256, id: &[7; 16], purpose: Purpose::Unseal, holder: &holder };
        let sealed = context.seal(key.public(), b"share", &rng).unwrap();
        let signature = context.sign(&anna, &sealed).unwrap();
        assert_eq!(**context.open(&key, &sealed).unwrap(), *b"share");
        assert_eq!(context.verify(&sealed, &signature), Ok(()));
        for elsewhere in [
            Context { id: &[8; 16], ..context },
            Context { purpose: Purpose::Confirm, ..context },
            Context { holder: &other, ..context },
        ] {
            assert!(elsewhere.open(&key, &sealed).is_err(), "{elsewhere:?}");
            assert!(elsewhere.verify(&sealed, &signature).is_err(), "{elsewhere:?}");
        }
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(context.open(&key, &changed).is_err());
        assert!(context.verify(&changed, &signature).is_err());
        assert!(context.verify(&sealed, &context.sign(&ben, &sealed).unwrap()).is_err());
    }
}
