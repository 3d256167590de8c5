//! Signatures with Ed25519: RFC 8032 (2017), 5.1.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::ec::SignatureInvalid;
use super::rng::{Rng, RngFailed};

/// A private key as it is kept: 32 random octets.
pub type Seed = Zeroizing<[u8; 32]>;

/// A private key that signs.
pub struct Ed25519Key {
    // On the heap, so that the allocator wipes it: the library does not.
    pair: Box<Ed25519KeyPair>,
}

impl Ed25519Key {
    /// Draws the seed of a key.
    pub fn draw_seed(rng: &dyn Rng) -> Result<Seed, RngFailed> {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill(&mut *seed)?;
        Ok(seed)
    }

    /// Takes the key of a seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed);
        Self { pair: Box::new(pair.expect("every 32 octets are a seed")) }
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        public.copy_from_slice(self.pair.public_key().as_ref());
        public
    }

    /// Signs: the same message always gets the same signature.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }
}

/// Verifies a signature.
pub fn verify(
    public: &[u8; 32],
    message: &[u8],
    signature: &[u8; 64],
) -> Result<(), SignatureInvalid> {
    UnparsedPublicKey::new(&ED25519, public)
        .verify(message, signature)
        .map_err(|_| SignatureInvalid)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    #[test]
    fn agrees_with_the_standard() {
        // RFC 8032, 7.1, tests 2 and 3.
        for (seed, public, message, signature) in [
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                "72",
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                 085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                "af82",
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac\
                 18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ] {
            let bytes = |hex: &str| HEXLOWER.decode(hex.as_bytes()).unwrap();
            let key = Ed25519Key::from_seed(&bytes(seed).try_into().unwrap());
            assert_eq!(HEXLOWER.encode(&key.public()), public);
            let mut made = key.sign(&bytes(message));
            assert_eq!(HEXLOWER.encode(&made), signature);
            assert_eq!(verify(&key.public(), &bytes(message), &made), Ok(()));
            assert!(verify(&key.public(), b"other", &made).is_err());
            made[0] ^= 1;
            assert!(verify(&key.public(), &bytes(message), &made).is_err());
        }
    }
}
