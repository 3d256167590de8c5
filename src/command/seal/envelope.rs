//! What a share of the master key crosses in: sealed to a key of the service's or of a custodian's,
//! signed by the key of the sender's certificate.
//!
//! ```text
//! info      = part(label) || part(id) || part(purpose) || part(public key of the certificate)
//! sealed    = HPKE, base mode, P-521 (RFC 9180)
//! signature = ECDSA P-256 over part(label) || part(id) || part(purpose) || part(sealed)
//! ```
//!
//! `part` puts four octets of length, big endian, before its octets. So nothing that was made for
//! one attempt, one purpose or one person opens in another.

use zeroize::Zeroizing;

use crate::agreement::label;
use crate::crypto::ec::{self, Point, SigningKey};
use crate::crypto::hpke::{self, Kem, RecipientKey, SealError};
use crate::crypto::rng::{Rng, RngFailed};

/// A master key is 256 bits strong, so is what its shares cross under.
pub const KEM: Kem = Kem::P521;

/// Octets of the id of an attempt or a distribution.
pub const ID_LEN_BYTES: usize = 16;

/// What an envelope is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A share is read back.
    Confirm,
    /// A share goes to its custodian.
    Take,
    /// A share is given to open the vault.
    Unseal,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Take => "take",
            Self::Unseal => "unseal",
        }
    }
}

/// What an envelope belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The attempt or the distribution.
    pub id: &'a [u8; ID_LEN_BYTES],
    /// What it is for.
    pub purpose: Purpose,
    /// The public key of the certificate of whoever sends, or is sent, a share.
    pub holder: &'a Point,
}

/// Something that does not open, was not signed by the holder, or belongs to something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the envelope does not open, or is not its sender's")]
pub struct EnvelopeRefused;

impl Context<'_> {
    /// Seals a share to a key.
    pub fn seal(&self, to: &[u8], share: &[u8], rng: &dyn Rng) -> Result<Vec<u8>, SealError> {
        hpke::seal(KEM, to, &self.info(), &[], share, rng)
    }

    /// Opens what was sealed to this key.
    pub fn open(
        &self,
        key: &RecipientKey,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, EnvelopeRefused> {
        key.open(&self.info(), &[], sealed).map_err(|_| EnvelopeRefused)
    }

    /// Signs what was sealed, or a key to be sealed to.
    pub fn sign(&self, key: &SigningKey, sent: &[u8]) -> Result<[u8; 64], RngFailed> {
        key.sign(&self.signed(sent))
    }

    /// Proves that the holder has sent it.
    pub fn verify(&self, sent: &[u8], signature: &[u8; 64]) -> Result<(), EnvelopeRefused> {
        ec::verify(self.holder, &self.signed(sent), signature).map_err(|_| EnvelopeRefused)
    }

    fn info(&self) -> Vec<u8> {
        self.parts(label::SHARE_ENVELOPE, self.holder.bytes())
    }

    fn signed(&self, sent: &[u8]) -> Vec<u8> {
        self.parts(label::SHARE_SIGNATURE, sent)
    }

    fn parts(&self, label: &str, last: &[u8]) -> Vec<u8> {
        let parts = [label.as_bytes(), self.id, self.purpose.as_str().as_bytes(), last];
        let part = |part: &[u8]| {
            let len = u32::try_from(part.len()).expect("no part comes near 4 GiB");
            [&len.to_be_bytes(), part].concat()
        };
        parts.into_iter().flat_map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::rng::SystemRng;

    #[test]
    fn an_envelope_opens_only_as_what_it_was_made_for() {
        let (rng, key) =
            (SystemRng::new(), RecipientKey::generate(KEM, &SystemRng::new()).unwrap());
        let (anna, ben) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let (holder, other) = (anna.public(), ben.public());
        let context = Context { id: &[7; 16], purpose: Purpose::Unseal, holder: &holder };
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
