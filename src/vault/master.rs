//! A master key, and what stands under it: sealed records, the keys of stored key blocks.
//!
//! ```text
//! subkey = HKDF-SHA-256(salt = label, master key, info = realm, kind, id, version)
//! sealed = 02 || generation (4) || nonce (12)
//!          || AES-256-GCM(subkey, nonce, aad = realm, generation, kind, id, version, record)
//! ```
//!
//! Each part of info and aad stands behind its length as 4 bytes, big endian. A key of its own for
//! each version of a record means that random nonces never come near a repetition, also after a
//! store was restored and written on, or where a machine was cloned and draws the same again: the
//! store takes a version once under each master key. A row that was moved, edited or swapped fails
//! to open.

use std::fmt;

use zeroize::Zeroizing;

use super::record::Kind;
use super::seal::Realm;
use crate::agreement::label;
use crate::crypto::digest::framed;
use crate::crypto::rng::{Rng, RngFailed};
use crate::crypto::{aead, kdf};
use crate::memory::{PageKind, SecretPage, SecretPageUnavailable, with_wiped_stack};

/// The master key, 256 bits, in its secret page.
pub struct MasterKey(SecretPage);

/// Why there is no new master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotDrawn {
    /// There is no page for it.
    #[error(transparent)]
    Memory(#[from] SecretPageUnavailable),
    /// There is no randomness.
    #[error(transparent)]
    Random(#[from] RngFailed),
}

impl MasterKey {
    /// Octets of a master key.
    pub const LEN_BYTES: usize = SecretPage::LEN_BYTES;

    /// Takes the page that holds the key.
    #[must_use]
    pub const fn new(page: SecretPage) -> Self {
        Self(page)
    }

    /// Moves a key into a page of its own and wipes where it came from, also when it fails.
    pub fn taken_from(bytes: &mut [u8; Self::LEN_BYTES]) -> Result<Self, SecretPageUnavailable> {
        SecretPage::taken_from(bytes).map(Self)
    }

    /// Draws a new one.
    pub fn draw(rng: &dyn Rng) -> Result<Self, NotDrawn> {
        // The bytes are moved on their way into the page; where they were, nobody else wipes.
        with_wiped_stack(|| {
            let mut bytes = Zeroizing::new([0; Self::LEN_BYTES]);
            rng.fill(bytes.as_mut_slice())?;
            Ok(Self::taken_from(&mut bytes)?)
        })
    }

    /// Lends the key to what keeps it for its custodians: its split into shares, or a token that
    /// wraps it. It must not be copied to where it is not wiped.
    pub fn expose_bytes<T>(&self, borrow: impl FnOnce(&[u8; Self::LEN_BYTES]) -> T) -> T {
        self.0.with_bytes(borrow)
    }

    /// What kind of page holds it.
    #[must_use]
    pub fn page_kind(&self) -> PageKind {
        self.0.kind()
    }

    /// A key for one use.
    pub(super) fn subkey(&self, label: &str, realm: Realm, parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let info = framed(&[&[realm.as_str().as_bytes()], parts].concat());
        let mut subkey = Zeroizing::new([0; 32]);
        self.0
            .with_bytes(|master| {
                kdf::hkdf_sha256(label.as_bytes(), master, &[&info], subkey.as_mut_slice())
            })
            .expect("32 bytes are within what HKDF gives");
        subkey
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}

/// A random value for one sealing.
pub(super) type Nonce = [u8; NONCE_LEN_BYTES];

/// What was sealed does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unopenable;

/// Where a sealed record stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address<'a> {
    pub(super) kind: Kind,
    pub(super) id: &'a str,
    pub(super) version: u64,
}

/// A master key with its number, in one realm: seals, and opens what it has sealed.
#[derive(Debug)]
pub(super) struct Generation {
    number: u32,
    realm: Realm,
    pub(super) master: MasterKey,
}

impl Generation {
    pub(super) const fn new(number: u32, realm: Realm, master: MasterKey) -> Self {
        Self { number, realm, master }
    }

    /// From 1, one more with each master key of a store.
    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn seal(&self, at: Address<'_>, nonce: Nonce, plain: &[u8]) -> Vec<u8> {
        let cryptogram = aead::seal(&self.record_key(at), nonce, &self.associated(at), plain);
        [&[FORMAT], self.number.to_be_bytes().as_slice(), &nonce, &cryptogram].concat()
    }

    pub(super) fn open(
        &self,
        at: Address<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unopenable> {
        let (number, rest) = split(sealed).ok_or(Unopenable)?;
        let (nonce, cryptogram) = rest.split_first_chunk().ok_or(Unopenable)?;
        if number != self.number {
            return Err(Unopenable);
        }
        aead::open(&self.record_key(at), *nonce, &self.associated(at), cryptogram)
            .map(Zeroizing::new)
            .map_err(|_| Unopenable)
    }

    /// A key for one use, which is not that of a record.
    pub(super) fn subkey(&self, label: &str, parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        self.master.subkey(label, self.realm, parts)
    }

    fn record_key(&self, at: Address<'_>) -> Zeroizing<[u8; 32]> {
        let (kind, id) = (at.kind.as_str().as_bytes(), at.id.as_bytes());
        self.subkey(label::AT_REST_RECORD, &[kind, id, &at.version.to_be_bytes()])
    }

    fn associated(&self, at: Address<'_>) -> Vec<u8> {
        framed(&[
            self.realm.as_str().as_bytes(),
            &self.number.to_be_bytes(),
            at.kind.as_str().as_bytes(),
            at.id.as_bytes(),
            &at.version.to_be_bytes(),
        ])
    }
}

/// The number of the master key that something is sealed under; none where it is not sealed.
pub(super) fn generation_of(sealed: &[u8]) -> Option<u32> {
    split(sealed).map(|(number, _)| number)
}

fn split(sealed: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = sealed.strip_prefix(&[FORMAT])?.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

/// Draws the nonce of one sealing.
pub(super) fn draw_nonce(rng: &dyn Rng) -> Result<Nonce, RngFailed> {
    let mut nonce = [0; NONCE_LEN_BYTES];
    rng.fill(&mut nonce)?;
    Ok(nonce)
}

/// The first byte of everything sealed: this layout. 1 had no generation.
const FORMAT: u8 = 2;
const NONCE_LEN_BYTES: usize = 12;

#[cfg(test)]
mod tests {
    use super::super::testing::master_key;
    use super::*;

    const AT: Address<'_> = Address { kind: Kind::new("key"), id: "a", version: 3 };

    fn generation(number: u32, realm: Realm) -> Generation {
        Generation::new(number, realm, master_key(7))
    }

    #[test]
    fn the_keys_of_two_purposes_have_no_constant_between_them() {
        let purposes = [
            (label::AT_REST_HASH, "x"),
            (label::AT_REST_KEY_BLOCK, "x"),
            (label::AT_REST_RECORD, "x"),
            (label::AT_REST_RECORD, "y"),
            (label::AT_REST_CUSTODY, "x"),
        ];
        let differences = |octet: u8| {
            let master = master_key(octet);
            let key =
                |(label, part): (&str, &str)| master.subkey(label, Realm::Dev, &[part.as_bytes()]);
            let keys = purposes.map(key);
            let others = keys[1..].iter();
            let differ = others.map(|other| {
                let pairs = keys[0].iter().zip(other.iter());
                pairs.map(|(one, other)| one ^ other).collect::<Vec<_>>()
            });
            differ.collect::<Vec<_>>()
        };
        let all: Vec<_> = (0..32).map(differences).collect();
        for (index, one) in all.iter().enumerate() {
            for other in &all[index + 1..] {
                assert!(one.iter().zip(other).all(|(one, other)| one != other));
            }
        }
    }

    #[test]
    fn a_nonce_that_is_drawn_again_meets_another_key() {
        let seal = |at: Address<'_>| generation(1, Realm::Dev).seal(at, [9; 12], &[0; 32]);
        let stream = |sealed: Vec<u8>| sealed[17..49].to_vec();
        let first = stream(seal(AT));
        assert_eq!(first, stream(seal(AT)), "the control");
        for other in [
            Address { kind: Kind::new("keys"), ..AT },
            Address { id: "b", ..AT },
            Address { version: 4, ..AT },
        ] {
            assert_ne!(first, stream(seal(other)), "{other:?}");
        }
    }

    #[test]
    fn opens_only_where_it_was_sealed() {
        let sealed = generation(1, Realm::Dev).seal(AT, [9; 12], b"plain");
        let opened = generation(1, Realm::Dev).open(AT, &sealed).unwrap();
        assert_eq!(opened.as_slice(), b"plain");
        assert!(generation(1, Realm::Live).open(AT, &sealed).is_err());
        for moved in [
            Address { kind: Kind::new("keys"), ..AT },
            Address { id: "b", ..AT },
            Address { version: 4, ..AT },
        ] {
            assert!(generation(1, Realm::Dev).open(moved, &sealed).is_err(), "{moved:?}");
        }
        let stranger = Generation::new(1, Realm::Dev, master_key(8));
        assert!(stranger.open(AT, &sealed).is_err());
        // The same master key under another number, as if it had come again.
        assert!(generation(2, Realm::Dev).open(AT, &sealed).is_err());
        let mut renumbered = sealed;
        renumbered[4] = 2;
        assert!(generation(2, Realm::Dev).open(AT, &renumbered).is_err());
    }

    #[test]
    fn every_changed_bit_is_found() {
        let sealed = generation(1, Realm::Dev).seal(AT, [9; 12], b"plain");
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(generation(1, Realm::Dev).open(AT, &changed).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(generation(1, Realm::Dev).open(AT, &sealed[..len]).is_err(), "length {len}");
        }
    }

    /// Gives 1, 2, 3 and so on.
    struct Counting;
    impl Rng for Counting {
        fn fill(&self, out: &mut [u8]) -> Result<(), RngFailed> {
            out.iter_mut().zip(1..).for_each(|(octet, number)| *octet = number);
            Ok(())
        }
    }

    /// Gives nothing.
    struct Failing;
    impl Rng for Failing {
        fn fill(&self, _: &mut [u8]) -> Result<(), RngFailed> {
            Err(RngFailed)
        }
    }

    #[test]
    fn a_master_key_is_drawn_from_the_source_that_is_handed_in_and_prints_nothing() {
        let drawn = MasterKey::draw(&Counting).unwrap();
        drawn.expose_bytes(|bytes| assert!(bytes.iter().copied().eq(1..=32)));
        assert_eq!(format!("{drawn:?}"), "MasterKey");
        assert_eq!(MasterKey::draw(&Failing).err(), Some(NotDrawn::Random(RngFailed)));
    }
}
