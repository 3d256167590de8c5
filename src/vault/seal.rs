//! Sealing: what stands in the store opens only as itself, in its own realm.
//!
//! ```text
//! master key  current; during a rotation the previous one too, until nothing is under it
//!   records, key blocks
//! hash root   random, the same for the life of a store: a record under the master key
//!   keyed hashes, by which rows are found: these outlive each master key
//! ```

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::master::{Address, Generation, MasterKey, Nonce, Unopenable, generation_of};
use super::record::{Kind, Record};
use crate::agreement::label;
use crate::crypto::digest::framed;
use crate::crypto::hmac;
use crate::crypto::rng::{Rng, RngFailed};
use crate::key::usage::KeyBlockProtection;
use crate::key::{Algorithm, Key, Material};
use crate::memory::{PageKind, SecretPageUnavailable, with_wiped_stack};

/// The world a store belongs to. A record of one does not open in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
    /// A key, by which a second one like it is found.
    KeyMaterial,
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
            Self::KeyMaterial => "key-material",
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

/// The hash root, as the store keeps it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HashRoot {
    /// Boxed, so that a move leaves no copy behind.
    root: Box<Zeroizing<[u8; MasterKey::LEN_BYTES]>>,
}

impl HashRoot {
    pub(super) const ID: &str = "root";

    /// Draws the root of a store that is begun.
    pub(super) fn draw(rng: &dyn Rng) -> Result<Self, RngFailed> {
        let mut root = Box::new(Zeroizing::new([0; MasterKey::LEN_BYTES]));
        rng.fill(root.as_mut_slice())?;
        Ok(Self { root })
    }

    /// Copies it into a page of its own.
    pub(super) fn to_key(&self) -> Result<MasterKey, SecretPageUnavailable> {
        with_wiped_stack(|| MasterKey::taken_from(&mut self.root.clone()))
    }
}

impl Record for HashRoot {
    const KIND: Kind = Kind::new("hash_root");

    fn id(&self) -> String {
        Self::ID.to_owned()
    }
}

/// The master keys at hand.
#[derive(Debug)]
pub(super) struct Masters {
    current: Arc<Generation>,
    previous: Option<Arc<Generation>>,
}

impl Masters {
    pub(super) fn new(current: Generation) -> Self {
        Self { current: Arc::new(current), previous: None }
    }

    pub(super) fn set_previous(&mut self, previous: Generation) {
        self.previous = Some(Arc::new(previous));
    }

    /// The one of a number.
    fn find(&self, number: u32) -> Option<&Arc<Generation>> {
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|one| one.number() == number)
    }

    pub(super) fn open(
        &self,
        at: Address<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unopenable> {
        let number = generation_of(sealed).ok_or(Unopenable)?;
        self.find(number).ok_or(Unopenable)?.open(at, sealed)
    }
}

/// Seals and opens with the master keys, and hashes with the hash root, in one realm.
#[derive(Debug)]
pub(super) struct Sealer {
    realm: Realm,
    /// Counts as generation 0: it is none of the master keys, and never changes.
    root: Generation,
    masters: RwLock<Masters>,
}

impl Sealer {
    pub(super) const fn new(realm: Realm, masters: Masters, root: MasterKey) -> Self {
        let root = Generation::new(0, realm, root);
        Self { realm, root, masters: RwLock::new(masters) }
    }

    pub(super) const fn realm(&self) -> Realm {
        self.realm
    }

    pub(super) fn page_kind(&self) -> PageKind {
        self.current().master.page_kind()
    }

    /// The master key in force: what is sealed from now on stands under it.
    pub(super) fn current(&self) -> Arc<Generation> {
        Arc::clone(&self.masters().current)
    }

    /// The master key before it, while something may be under that.
    pub(super) fn previous(&self) -> Option<Arc<Generation>> {
        self.masters().previous.clone()
    }

    /// Brings a new master key into force.
    pub(super) fn advance(&self, next: Generation) {
        let mut masters = self.masters_mut();
        let before = std::mem::replace(&mut masters.current, Arc::new(next));
        masters.previous = Some(before);
    }

    /// Lets go of the previous master key: with the last call that holds it, it is wiped.
    pub(super) fn retire(&self) {
        self.masters_mut().previous = None;
    }

    pub(super) fn seal(&self, at: Address<'_>, nonce: Nonce, plain: &[u8]) -> Vec<u8> {
        self.current().seal(at, nonce, plain)
    }

    pub(super) fn open(
        &self,
        at: Address<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unopenable> {
        let number = generation_of(sealed).ok_or(Unopenable)?;
        let master = self.masters().find(number).cloned();
        master.ok_or(Unopenable)?.open(at, sealed)
    }

    /// Seals what is never stored, and outlives the master key in force.
    pub(super) fn seal_outside(&self, at: Address<'_>, nonce: Nonce, plain: &[u8]) -> Vec<u8> {
        self.root.seal(at, nonce, plain)
    }

    /// Opens what [`Sealer::seal_outside`] has sealed.
    pub(super) fn open_outside(
        &self,
        at: Address<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unopenable> {
        self.root.open(at, sealed)
    }

    /// HMAC-SHA-256 under a key of this purpose; the parts can not flow into each other.
    pub(super) fn keyed_hash(&self, purpose: HashPurpose, parts: &[&[u8]]) -> [u8; 32] {
        let message = Zeroizing::new(framed(parts));
        hmac::hmac_sha256(self.hash_key(purpose).as_slice(), &message)
    }

    /// The key of the hashes of a purpose.
    pub(super) fn hash_key(&self, purpose: HashPurpose) -> Zeroizing<[u8; 32]> {
        self.root.subkey(label::AT_REST_HASH, &[purpose.label().as_bytes()])
    }

    /// The key under which a stored key's block is wrapped, below the master key of a number; none
    /// where that is not at hand.
    pub(super) fn key_block_key(
        &self,
        generation: u32,
        identity: KeyIdentity<'_>,
    ) -> Option<Key<KeyBlockProtection>> {
        let master = self.masters().find(generation).cloned()?;
        let subkey = master.subkey(
            label::AT_REST_KEY_BLOCK,
            &[
                identity.name.as_bytes(),
                &identity.version.to_be_bytes(),
                &identity.epoch.to_be_bytes(),
            ],
        );
        let material = Material::copied_from(subkey.as_slice());
        Some(Key::from_material(Algorithm::Aes256, material).expect("a subkey has 32 bytes"))
    }

    /// Changed whole, so what a panicking thread leaves behind is still consistent.
    fn masters(&self) -> RwLockReadGuard<'_, Masters> {
        self.masters.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn masters_mut(&self) -> RwLockWriteGuard<'_, Masters> {
        self.masters.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::master_key;
    use super::*;

    const AT: Address<'_> = Address { kind: Kind::new("key"), id: "a", version: 3 };

    fn generation(number: u32, octet: u8) -> Generation {
        Generation::new(number, Realm::Dev, master_key(octet))
    }

    fn sealer() -> Sealer {
        Sealer::new(Realm::Dev, Masters::new(generation(1, 7)), master_key(9))
    }

    #[test]
    fn what_the_previous_master_key_sealed_opens_until_it_is_retired() {
        let sealer = sealer();
        let first = sealer.seal(AT, [9; 12], b"plain");
        sealer.advance(generation(2, 8));
        let second = sealer.seal(AT, [9; 12], b"plain");
        assert_eq!((generation_of(&first), generation_of(&second)), (Some(1), Some(2)));
        for sealed in [&first, &second] {
            assert_eq!(sealer.open(AT, sealed).unwrap().as_slice(), b"plain");
        }
        // Nothing opens under the number of another.
        let renumbered = |sealed: &[u8], number| {
            let mut changed = sealed.to_vec();
            changed[4] = number;
            sealer.open(AT, &changed).is_err()
        };
        assert!(renumbered(&first, 2) && renumbered(&second, 1) && renumbered(&second, 3));
        sealer.retire();
        assert!(sealer.open(AT, &first).is_err());
        assert!(sealer.open(AT, &second).is_ok());
    }

    #[test]
    fn hashes_and_what_is_sealed_outside_outlive_the_master_key() {
        let sealer = sealer();
        let outside = sealer.seal_outside(AT, [9; 12], b"place");
        let hash = sealer.keyed_hash(HashPurpose::Budget, &[b"a"]);
        sealer.advance(generation(2, 8));
        sealer.retire();
        assert_eq!(sealer.keyed_hash(HashPurpose::Budget, &[b"a"]), hash);
        assert_eq!(sealer.open_outside(AT, &outside).unwrap().as_slice(), b"place");
        // Nothing stored opens as if it came from outside, nor the reverse.
        assert!(sealer.open(AT, &outside).is_err());
        assert!(sealer.open_outside(AT, &sealer.seal(AT, [9; 12], b"plain")).is_err());
    }

    #[test]
    fn parts_do_not_flow_into_each_other() {
        let sealer = sealer();
        let hash = |parts: &[&[u8]]| sealer.keyed_hash(HashPurpose::Pan, parts);
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(
            sealer.keyed_hash(HashPurpose::Budget, &[b"a"]),
            sealer.keyed_hash(HashPurpose::Pan, &[b"a"])
        );
    }

    #[test]
    fn a_key_at_rest_has_its_own_wrapping_key_in_each_epoch_under_each_master_key() {
        let sealer = sealer();
        sealer.advance(generation(2, 8));
        let value = |generation, name, version, epoch| {
            let key = sealer.key_block_key(generation, KeyIdentity { name, version, epoch });
            key.map(|key| key.check_value())
        };
        let one = value(1, "a", 1, 1);
        assert_eq!(one, value(1, "a", 1, 1));
        let others =
            [value(2, "a", 1, 1), value(1, "a", 1, 2), value(1, "a", 2, 1), value(1, "b", 1, 1)];
        assert!(others.iter().all(|other| other.is_some() && *other != one));
        assert_eq!(value(3, "a", 1, 1), None);
        sealer.retire();
        assert_eq!(value(1, "a", 1, 1), None);
    }
}
