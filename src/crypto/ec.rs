//! The elliptic curve P-256: points, key agreement (SP 800-56A) and signatures (FIPS 186-5).

use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
    KeyPair,
};
use zeroize::Zeroizing;

use super::rng::RngFailed;
use super::self_test::{break_down, falsify};

/// A point of the curve, not the one at infinity: a public key.
///
/// ```text
/// octet   0       04, uncompressed
/// octets  1..33   X, big endian
///        33..65   Y, big endian
/// ```
///
/// No other encoding is taken: a signed message has one form.
///
/// See SEC 1 version 2.0 (2009), 2.3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Point([u8; Self::LEN_BYTES]);

/// Bytes that are not a point of the curve in the one accepted form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an uncompressed point of P-256")]
pub struct PointInvalid;

impl Point {
    /// Octets of a point.
    pub const LEN_BYTES: usize = 65;

    /// Takes an uncompressed point and proves that it lies on the curve.
    pub fn parse(bytes: &[u8]) -> Result<Self, PointInvalid> {
        let bytes: &[u8; Self::LEN_BYTES] = bytes.try_into().map_err(|_| PointInvalid)?;
        // The tag is looked at here, for the library also knows other encodings.
        if bytes[0] != UNCOMPRESSED {
            return Err(PointInvalid);
        }
        p256::PublicKey::from_sec1_bytes(bytes).map_err(|_| PointInvalid)?;
        Ok(Self(*bytes))
    }

    /// The 65 octets.
    #[must_use]
    pub fn bytes(&self) -> &[u8; Self::LEN_BYTES] {
        &self.0
    }

    /// The point as the public key field of a certificate (RFC 5480, 2).
    #[must_use]
    pub fn to_spki(&self) -> Vec<u8> {
        [SPKI_PREFIX, &self.0].concat()
    }
}

/// Takes the public key field of a certificate.
///
/// DER gives an uncompressed point on a named curve exactly one encoding, so its beginning is
/// compared; parameters written out are refused with everything else.
pub fn point_from_spki(der: &[u8]) -> Result<Point, PointInvalid> {
    Point::parse(der.strip_prefix(SPKI_PREFIX).ok_or(PointInvalid)?)
}

const UNCOMPRESSED: u8 = 4;

/// SEQUENCE { SEQUENCE { OID id-ecPublicKey, OID prime256v1 }, BIT STRING of 65 octets }.
const SPKI_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A private key for one agreement.
pub struct EphemeralKey {
    // On the heap, so that the allocator wipes it: the library does not.
    private: Box<EphemeralPrivateKey>,
    public: Point,
}

impl EphemeralKey {
    /// Draws a key from the generator of the operating system, the only one the library takes, and
    /// computes its public key twice (SP 800-56A revision 3, 5.6.2.1.4).
    ///
    /// # Errors
    ///
    /// Also when the two differ; nothing is served then any more.
    pub fn generate() -> Result<Self, RngFailed> {
        let private = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new())
            .map(Box::new)
            .map_err(|_| RngFailed)?;
        let public = private.compute_public_key().map_err(|_| RngFailed)?;
        let again = private.compute_public_key().map_err(|_| RngFailed)?;
        let mut again = again.as_ref().to_vec();
        falsify(EPHEMERAL_PAIR, &mut again);
        if public.as_ref() != again {
            break_down(EPHEMERAL_PAIR);
            return Err(RngFailed);
        }
        let public = Point::parse(public.as_ref()).map_err(|_| RngFailed)?;
        Ok(Self { private, public })
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> Point {
        self.public
    }

    /// Agrees on a secret with the holder of `peer`, and is gone.
    #[must_use]
    pub fn agree(self, peer: &Point) -> SharedSecret {
        let peer = UnparsedPublicKey::new(&ECDH_P256, peer.bytes());
        agree_ephemeral(*self.private, &peer, SharedSecret::from_x)
            .expect("a point is on the curve by construction, and its order is prime")
    }
}

/// The test of each new key pair for an agreement.
pub const EPHEMERAL_PAIR: &str = "a key pair for ECDH";

/// The test of each new key pair for signatures.
pub const SIGNING_PAIR: &str = "a key pair for ECDSA";

/// What two parties agreed on: the X coordinate of the common point. Wiped on drop.
///
/// It is the input of a key derivation and never itself a key (SP 800-56A revision 3, 5.8).
pub struct SharedSecret(Zeroizing<[u8; 32]>);

impl SharedSecret {
    /// The secret itself, for the key derivation.
    pub(crate) fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn from_x(x: &[u8]) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(x);
        Self(secret)
    }
}

/// Bytes that are not a private key of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a private key of P-256")]
pub struct PrivateKeyInvalid;

/// Agrees with a private key given as a big-endian integer, for test vectors alone.
pub fn ecdh_with_private_key(
    private: &[u8],
    peer: &Point,
) -> Result<SharedSecret, PrivateKeyInvalid> {
    let leading_zeros = private.iter().take_while(|octet| **octet == 0).count();
    let digits = &private[leading_zeros..];
    let mut scalar = Zeroizing::new([0; 32]);
    let start = scalar.len().checked_sub(digits.len()).ok_or(PrivateKeyInvalid)?;
    scalar[start..].copy_from_slice(digits);
    let private = p256::SecretKey::from_slice(&*scalar).map_err(|_| PrivateKeyInvalid)?;
    let peer = p256::PublicKey::from_sec1_bytes(peer.bytes())
        .expect("a point is on the curve by construction");
    let shared = p256::ecdh::diffie_hellman(private.to_nonzero_scalar(), peer.as_affine());
    Ok(SharedSecret::from_x(shared.raw_secret_bytes()))
}

/// A private key that signs: of the service, of a device, of an authority.
pub struct SigningKey {
    // The library can not give back what it took in, so both are kept; on the heap, as above.
    pair: Box<EcdsaKeyPair>,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl SigningKey {
    /// Draws a key from the generator of the operating system, the only one the library takes, and
    /// verifies a signature of it (FIPS 140-3 implementation guidance, 10.3.A).
    ///
    /// # Errors
    ///
    /// Also when that does not verify; nothing is served then any more.
    pub fn generate() -> Result<Self, RngFailed> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let document = document.map_err(|_| RngFailed)?;
        let key = Self::from_pkcs8(document.as_ref()).map_err(|_| RngFailed)?;
        let mut signature = key.sign(SIGNING_PAIR.as_bytes())?;
        falsify(SIGNING_PAIR, &mut signature);
        if verify(&key.public(), SIGNING_PAIR.as_bytes(), &signature).is_err() {
            break_down(SIGNING_PAIR);
            return Err(RngFailed);
        }
        Ok(key)
    }

    /// Takes a key as PKCS #8 version 1 with its public key (RFC 5958, RFC 5915), and proves
    /// that the two belong together.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, PrivateKeyInvalid> {
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new());
        let pair = pair.map(Box::new).map_err(|_| PrivateKeyInvalid)?;
        Point::parse(pair.public_key().as_ref()).map_err(|_| PrivateKeyInvalid)?;
        Ok(Self { pair, pkcs8: Zeroizing::new(der.to_vec()) })
    }

    /// The key as PKCS #8, to be sealed or kept in a development file.
    #[must_use]
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        self.pkcs8.clone()
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> Point {
        Point::parse(self.pair.public_key().as_ref()).expect("it was parsed when the key was made")
    }

    /// Signs with ECDSA and SHA-256: r and s, 32 octets each, big endian.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], RngFailed> {
        let signed = self.pair.sign(&SystemRandom::new(), message).map_err(|_| RngFailed)?;
        signed.as_ref().try_into().map_err(|_| RngFailed)
    }
}

/// A signature that the key did not make over the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct SignatureInvalid;

/// Verifies an ECDSA signature with SHA-256 given as r and s, 32 octets each.
pub fn verify(
    public: &Point,
    message: &[u8],
    signature: &[u8; 64],
) -> Result<(), SignatureInvalid> {
    ring::signature::UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public.bytes())
        .verify(message, signature)
        .map_err(|_| SignatureInvalid)
}

/// Verifies an ECDSA signature with SHA-256 given in DER, as in certificates.
pub fn verify_der(
    public: &Point,
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureInvalid> {
    ring::signature::UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public.bytes())
        .verify(message, signature)
        .map_err(|_| SignatureInvalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_one_encoding_of_a_point_alone() {
        let point = EphemeralKey::generate().unwrap().public();
        let bytes = *point.bytes();
        assert_eq!(Point::parse(&bytes), Ok(point));
        assert_eq!(Point::parse(&bytes[..64]), Err(PointInvalid));
        assert_eq!(Point::parse(&[0]), Err(PointInvalid));
        for tag in (0..=u8::MAX).filter(|tag| *tag != 4) {
            let mut other = bytes;
            other[0] = tag;
            assert_eq!(Point::parse(&other), Err(PointInvalid));
        }
        let compressed = [&[2 | (bytes[64] & 1)], &bytes[1..33]].concat();
        assert_eq!(Point::parse(&compressed), Err(PointInvalid));
        let mut off_curve = bytes;
        off_curve[64] ^= 1;
        assert_eq!(Point::parse(&off_curve), Err(PointInvalid));
        let mut zero = [0; 65];
        zero[0] = 4;
        assert_eq!(Point::parse(&zero), Err(PointInvalid));
    }

    #[test]
    fn a_point_goes_into_a_public_key_field_and_back() {
        let point = EphemeralKey::generate().unwrap().public();
        let spki = point.to_spki();
        assert_eq!(point_from_spki(&spki), Ok(point));
        assert_eq!(point_from_spki(&spki[1..]), Err(PointInvalid));
        assert_eq!(point_from_spki(&[&spki[..], &[0]].concat()), Err(PointInvalid));
    }

    #[test]
    fn both_sides_agree() {
        let (one, other) = (EphemeralKey::generate().unwrap(), EphemeralKey::generate().unwrap());
        let (public_one, public_other) = (one.public(), other.public());
        let secret = one.agree(&public_other);
        assert_eq!(secret.expose_bytes(), other.agree(&public_one).expose_bytes());
    }

    #[test]
    fn takes_a_private_key_of_any_spelling_but_not_zero_or_the_order() {
        let peer = EphemeralKey::generate().unwrap().public();
        let secret = ecdh_with_private_key(&[7], &peer).unwrap();
        let spelled = [[0; 40].as_slice(), &[7]].concat();
        let same = ecdh_with_private_key(&spelled, &peer).unwrap();
        assert_eq!(secret.expose_bytes(), same.expose_bytes());
        assert!(ecdh_with_private_key(&[], &peer).is_err());
        assert!(ecdh_with_private_key(&[0; 32], &peer).is_err());
        assert!(ecdh_with_private_key(&[0xff; 32], &peer).is_err());
        assert!(ecdh_with_private_key(&[1; 33], &peer).is_err());
    }

    #[test]
    fn verifies_what_it_signed_and_nothing_else() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_pkcs8(&key.to_pkcs8()).unwrap();
        assert_eq!(key.public(), again.public());
        let signature = again.sign(b"message").unwrap();
        assert_eq!(verify(&key.public(), b"message", &signature), Ok(()));
        assert_eq!(verify(&key.public(), b"massage", &signature), Err(SignatureInvalid));
        let stranger = SigningKey::generate().unwrap().public();
        assert_eq!(verify(&stranger, b"message", &signature), Err(SignatureInvalid));
        assert_eq!(verify_der(&key.public(), b"message", &signature), Err(SignatureInvalid));
        assert_eq!(verify(&key.public(), b"message", &[0; 64]), Err(SignatureInvalid));
        assert!(SigningKey::from_pkcs8(b"none").is_err());
    }
}
