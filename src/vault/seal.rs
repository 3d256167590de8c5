//! Sealing: what stands in the store opens only as itself, in its own realm.
//!
//! ```text
//! subkey = HKDF-SHA-256(salt = label, master key, info = realm, kind, id, version)
//! sealed = 01 || nonce (12) || AES-256-GCM(subkey, nonce, aad = realm, kind, id, version, record)
//! ```
//!
//! Each part of info and aad stands behind its length as 4 bytes, big endian. A key of its own for
//! each version of a record means that random nonces never come near a repetition, also after a
//! store was restored and written on, or where a machine was cloned and draws the same again: the
//! store takes a version once. A row that was moved, edited or swapped fails to open.

use std::fmt;

use zeroize::Zeroizing;

use super::record::Kind;
use crate::agreement::label;
use crate::crypto::rng::{Rng, RngFailed};
use crate::crypto::{aead, hmac, kdf};
use crate::key::usage::KeyBlockProtection;
use crate::key::{Algorithm, Key, Material};
use crate::memory::{PageKind, SecretPage};

/// The world a store belongs to. A record of one does not open in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Realm {
    /// Development: sample keys, no authentication, nothing of value.
    Dev,
    /// Live: refuses whatever was published.
    Live,
}

impl Realm {
    /// The stable word in associated data and key block labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Live => "live",
        }
    }
}

/// The master key, in its secret page.
pub struct MasterKey(SecretPage);

impl MasterKey {
    /// Takes the page that holds the key.
    #[must_use]
    pub fn new(page: SecretPage) -> Self {
        Self(page)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}

/// What a keyed hash is for. Hashes of different purposes have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashPurpose {
    /// An activation code as it is stored.
    ActivationCode,
    /// The bits of an activation code that is drawn.
    ActivationCodeDraw,
    /// A request that waits for approval: who asks, and for what.
    Approval,
    /// The id of a failure budget.
    Budget,
    /// An input that spent a counter.
    LedgerInput,
    /// A PAN, where two events shall show that they speak of one card.
    Pan,
    /// The body of a request, for idempotency and the audit event.
    RequestBody,
    /// A caller's request id.
    RequestId,
    /// Who asks for approvals, by name.
    Requester,
    /// A row that the store must hold.
    Tally,
    /// A terminal's master key, by which its device is found.
    TerminalMasterKey,
}

impl HashPurpose {
    const fn label(self) -> &'static str {
        match self {
            Self::ActivationCode => "activation-code",
            Self::ActivationCodeDraw => "activation-code-draw",
            Self::Approval => "approval",
            Self::Budget => "budget",
            Self::LedgerInput => "ledger-input",
            Self::Pan => "pan",
            Self::RequestBody => "request-body",
            Self::RequestId => "request-id",
            Self::Requester => "requester",
            Self::Tally => "tally",
            Self::TerminalMasterKey => "terminal-master-key",
        }
    }
}

/// Which key at rest a key block key is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyIdentity<'a> {
    pub(super) name: &'a str,
    pub(super) version: u32,
    /// One more with each change of state: an older row of the same key does not unwrap.
    pub(super) epoch: u64,
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

/// Seals and opens with the master key, in one realm.
#[derive(Debug)]
pub(super) struct Sealer {
    master: MasterKey,
    realm: Realm,
}

impl Sealer {
    pub(super) const fn new(master: MasterKey, realm: Realm) -> Self {
        Self { master, realm }
    }

    pub(super) const fn realm(&self) -> Realm {
        self.realm
    }

    pub(super) fn page_kind(&self) -> PageKind {
        self.master.0.kind()
    }

    pub(super) fn seal(&self, at: Address<'_>, nonce: Nonce, plain: &[u8]) -> Vec<u8> {
        let cryptogram = aead::seal(&self.record_key(at), nonce, &self.associated(at), plain);
        [&[FORMAT], nonce.as_slice(), &cryptogram].concat()
    }

    pub(super) fn open(
        &self,
        at: Address<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unopenable> {
        let rest = sealed.strip_prefix(&[FORMAT]).ok_or(Unopenable)?;
        let (nonce, cryptogram) = rest.split_first_chunk().ok_or(Unopenable)?;
        aead::open(&self.record_key(at), *nonce, &self.associated(at), cryptogram)
            .map(Zeroizing::new)
            .map_err(|_| Unopenable)
    }

    /// HMAC-SHA-256 under a key of this purpose; the parts can not flow into each other.
    pub(super) fn keyed_hash(&self, purpose: HashPurpose, parts: &[&[u8]]) -> [u8; 32] {
        let message = Zeroizing::new(framed(parts));
        hmac::hmac_sha256(self.hash_key(purpose).as_slice(), &message)
    }

    /// The key of the hashes of a purpose.
    pub(super) fn hash_key(&self, purpose: HashPurpose) -> Zeroizing<[u8; 32]> {
        self.subkey(label::AT_REST_HASH, &[purpose.label().as_bytes()])
    }

    /// The key under which a stored key's block is wrapped.
    pub(super) fn key_block_key(&self, identity: KeyIdentity<'_>) -> Key<KeyBlockProtection> {
        let subkey = self.subkey(
            label::AT_REST_KEY_BLOCK,
            &[
                identity.name.as_bytes(),
                &identity.version.to_be_bytes(),
                &identity.epoch.to_be_bytes(),
            ],
        );
        let material = Material::copied_from(subkey.as_slice());
        Key::from_material(Algorithm::Aes256, material).expect("a subkey has 32 bytes")
    }

    fn record_key(&self, at: Address<'_>) -> Zeroizing<[u8; 32]> {
        let (kind, id) = (at.kind.as_str().as_bytes(), at.id.as_bytes());
        self.subkey(label::AT_REST_RECORD, &[kind, id, &at.version.to_be_bytes()])
    }

    fn associated(&self, at: Address<'_>) -> Vec<u8> {
        framed(&[
            self.realm.as_str().as_bytes(),
            at.kind.as_str().as_bytes(),
            at.id.as_bytes(),
            &at.version.to_be_bytes(),
        ])
    }

    fn subkey(&self, label: &str, parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let info = framed(&[&[self.realm.as_str().as_bytes()], parts].concat());
        let mut subkey = Zeroizing::new([0; 32]);
        self.master
            .0
            .with_bytes(|master| {
                kdf::hkdf_sha256(label.as_bytes(), master, &[&info], subkey.as_mut_slice())
            })
            .expect("32 bytes are within what HKDF gives");
        subkey
    }
}

/// Draws the nonce of one sealing.
pub(super) fn draw_nonce(rng: &dyn Rng) -> Result<Nonce, RngFailed> {
    let mut nonce = [0; NONCE_LEN_BYTES];
    rng.fill(&mut nonce)?;
    Ok(nonce)
}

/// Puts each part behind its length, so that no two lists of parts read the same.
pub(super) fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let len_bytes = parts.iter().map(|part| part.len() + 4).sum();
    let mut out = Vec::with_capacity(len_bytes);
    for part in parts {
        let len = u32::try_from(part.len()).expect("no part comes near 4 GiB");
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// The first byte of everything sealed: this layout.
const FORMAT: u8 = 1;
const NONCE_LEN_BYTES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Address<'_> = Address { kind: Kind::new("key"), id: "a", version: 3 };

    fn sealer(realm: Realm) -> Sealer {
        Sealer::new(crate::vault::testing::master_key(7), realm)
    }

    #[test]
    fn the_keys_of_two_purposes_have_no_constant_between_them() {
        let purposes = [
            (label::AT_REST_HASH, "x"),
            (label::AT_REST_KEY_BLOCK, "x"),
            (label::AT_REST_RECORD, "x"),
            (label::AT_REST_RECORD, "y"),
        ];
        let differences = |octet: u8| {
            let sealer = Sealer::new(crate::vault::testing::master_key(octet), Realm::Dev);
            let key = |(label, part): (&str, &str)| sealer.subkey(label, &[part.as_bytes()]);
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
        let seal = |at: Address<'_>| sealer(Realm::Dev).seal(at, [9; 12], &[0; 32]);
        let stream = |sealed: Vec<u8>| sealed[13..45].to_vec();
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
        let sealed = sealer(Realm::Dev).seal(AT, [9; 12], b"plain");
        assert_eq!(sealer(Realm::Dev).open(AT, &sealed).unwrap().as_slice(), b"plain");
        assert!(sealer(Realm::Live).open(AT, &sealed).is_err());
        for moved in [
            Address { kind: Kind::new("keys"), ..AT },
            Address { id: "b", ..AT },
            Address { version: 4, ..AT },
        ] {
            assert!(sealer(Realm::Dev).open(moved, &sealed).is_err(), "{moved:?}");
        }
        let stranger = Sealer::new(crate::vault::testing::master_key(8), Realm::Dev);
        assert!(stranger.open(AT, &sealed).is_err());
    }

    #[test]
    fn every_changed_bit_is_found() {
        let sealed = sealer(Realm::Dev).seal(AT, [9; 12], b"plain");
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(sealer(Realm::Dev).open(AT, &changed).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(sealer(Realm::Dev).open(AT, &sealed[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn parts_do_not_flow_into_each_other() {
        let sealer = sealer(Realm::Dev);
        let hash = |parts: &[&[u8]]| sealer.keyed_hash(HashPurpose::Pan, parts);
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(
            sealer.keyed_hash(HashPurpose::Budget, &[b"a"]),
            sealer.keyed_hash(HashPurpose::Pan, &[b"a"])
        );
    }

    #[test]
    fn a_key_at_rest_has_its_own_wrapping_key_in_each_epoch() {
        let sealer = sealer(Realm::Dev);
        let value = |name, version, epoch| {
            sealer.key_block_key(KeyIdentity { name, version, epoch }).check_value()
        };
        assert_eq!(value("a", 1, 1), value("a", 1, 1));
        assert_ne!(value("a", 1, 1), value("a", 1, 2));
        assert_ne!(value("a", 1, 1), value("a", 2, 1));
        assert_ne!(value("a", 1, 1), value("b", 1, 1));
    }
}
