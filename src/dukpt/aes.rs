//! AES DUKPT, the host's side (ANSI X9.24-3:2017).
//!
//! ```text
//! derivation data, 16 octets (6.2):
//!   0       version, 01
//!   1       key block counter, 01 or 02
//!   2..4    usage of the derived key
//!   4..6    algorithm of the derived key
//!   6..8    length of the derived key in bits
//!   8..16   initial key: initial key ID; all others: derivation ID, counter
//! derived key = E(key, data with counter 1) || E(key, data with counter 2), cut to its length
//! ```

use zeroize::Zeroizing;

use super::{AesInitialKeyId, AesKsn, DerivationError};
use crate::crypto::aes::Aes;
use crate::key::usage::{
    BaseDerivation, InitialDukpt, PinEncryption, Usage, WorkingKeyDerivation, WorkingKeyEncryption,
    WorkingUsage,
};
use crate::key::{Algorithm, Key, Material};
use crate::memory::with_wiped_stack;

/// What kind of key a working key is: its algorithm and length (ANSI X9.24-3:2017, 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// Double-length TDES.
    Tdes2,
    /// Triple-length TDES.
    Tdes3,
    /// AES, 128 bits.
    Aes128,
    /// AES, 192 bits.
    Aes192,
    /// AES, 256 bits.
    Aes256,
    /// HMAC, 128 bits.
    Hmac128,
    /// HMAC, 192 bits.
    Hmac192,
    /// HMAC, 256 bits.
    Hmac256,
}

impl KeyKind {
    fn algorithm_indicator(self) -> u16 {
        match self {
            Self::Tdes2 => 0x0000,
            Self::Tdes3 => 0x0001,
            Self::Aes128 => 0x0002,
            Self::Aes192 => 0x0003,
            Self::Aes256 => 0x0004,
            Self::Hmac128 | Self::Hmac192 | Self::Hmac256 => 0x0005,
        }
    }

    fn len_bits(self) -> u16 {
        match self {
            Self::Tdes2 | Self::Aes128 | Self::Hmac128 => 128,
            Self::Tdes3 | Self::Aes192 | Self::Hmac192 => 192,
            Self::Aes256 | Self::Hmac256 => 256,
        }
    }

    /// The algorithm of a key of this kind.
    #[must_use]
    pub fn algorithm(self) -> Algorithm {
        match self {
            Self::Tdes2 => Algorithm::Tdes2,
            Self::Tdes3 => Algorithm::Tdes3,
            Self::Aes128 => Algorithm::Aes128,
            Self::Aes192 => Algorithm::Aes192,
            Self::Aes256 => Algorithm::Aes256,
            Self::Hmac128 => Algorithm::Hmac128,
            Self::Hmac192 => Algorithm::Hmac192,
            Self::Hmac256 => Algorithm::Hmac256,
        }
    }

    /// The AES key of that many octets: the kinds from which others can be derived.
    fn of_derivation_key(len_bytes: usize) -> Result<Self, DerivationError> {
        match len_bytes {
            16 => Ok(Self::Aes128),
            24 => Ok(Self::Aes192),
            32 => Ok(Self::Aes256),
            _ => Err(DerivationError::Algorithm),
        }
    }
}

impl Key<BaseDerivation> {
    /// Derives the initial key of one AES device (ANSI X9.24-3:2017, 6.3.1).
    pub fn aes_initial_key(&self, id: AesInitialKeyId) -> Result<AesInitialKey, DerivationError> {
        require_aes(self.algorithm())?;
        // Exposed to the derivation alone; what comes back is wrapped at once.
        let bytes = with_wiped_stack(|| derive_initial_key(self.expose_bytes(), id))?;
        let key = typed(self.algorithm(), &bytes)?;
        Ok(AesInitialKey { key, id })
    }
}

impl From<AesInitialKey> for Key<InitialDukpt> {
    fn from(initial: AesInitialKey) -> Self {
        initial.key
    }
}

/// The initial key of one AES device, and the id that it belongs to.
#[derive(Debug)]
pub struct AesInitialKey {
    key: Key<InitialDukpt>,
    id: AesInitialKeyId,
}

impl AesInitialKey {
    /// Joins a key that was received or stored with its id.
    pub fn new(key: Key<InitialDukpt>, id: AesInitialKeyId) -> Result<Self, DerivationError> {
        require_aes(key.algorithm())?;
        Ok(Self { key, id })
    }

    /// The id of this key.
    #[must_use]
    pub fn id(&self) -> AesInitialKeyId {
        self.id
    }

    /// The key itself, for wrapping and its check value.
    #[must_use]
    pub fn key(&self) -> &Key<InitialDukpt> {
        &self.key
    }

    /// Derives the working key of one transaction and one usage (ANSI X9.24-3:2017, 6.3.4).
    pub fn working_key<U: WorkingUsage>(
        &self,
        ksn: &AesKsn,
        kind: KeyKind,
    ) -> Result<Key<U>, DerivationError> {
        if ksn.initial_key_id() != self.id {
            return Err(DerivationError::KeyId);
        }
        let bytes = with_wiped_stack(|| {
            // Exposed to the derivation alone; what comes back is wrapped at once.
            derive_working_key(self.key.expose_bytes(), self.id, ksn.counter(), U::INDICATOR, kind)
        })?;
        typed(kind.algorithm(), &bytes)
    }

    /// Derives the update key, which protects a new initial key on its way to the terminal: the
    /// key encryption key at counter `FFFFFFFF`, which no transaction uses (X9.24-3:2017, 6.5.4).
    pub fn update_key(&self, kind: KeyKind) -> Result<Key<WorkingKeyEncryption>, DerivationError> {
        let bytes = with_wiped_stack(|| {
            // Exposed to the derivation alone; what comes back is wrapped at once.
            derive_update_key(self.key.expose_bytes(), self.id, kind)
        })?;
        typed(kind.algorithm(), &bytes)
    }
}

/// Octets of a derived key, wiped when they are dropped.
pub(crate) type Derived = Zeroizing<Vec<u8>>;

/// The initial key of a device, of its base derivation key's length.
pub(crate) fn derive_initial_key(
    bdk: &[u8],
    id: AesInitialKeyId,
) -> Result<Derived, DerivationError> {
    let kind = KeyKind::of_derivation_key(bdk.len())?;
    derive(bdk, INITIAL_KEY, kind, *id.bytes())
}

/// The intermediate derivation key at a counter: one step for each of its one bits, from the
/// highest down. Any counter, also those that are no transaction.
pub(crate) fn derive_transaction_key(
    initial_key: &[u8],
    id: AesInitialKeyId,
    counter: u32,
) -> Result<Derived, DerivationError> {
    let kind = KeyKind::of_derivation_key(initial_key.len())?;
    let mut key = Zeroizing::new(initial_key.to_vec());
    let mut reached = 0;
    for bit in (0..u32::BITS).rev().map(|shift| 1_u32 << shift) {
        if counter & bit != 0 {
            reached |= bit;
            key = derive(&key, WorkingKeyDerivation::INDICATOR, kind, context(id, reached))?;
        }
    }
    Ok(key)
}

/// The working key of one usage at a counter; never stronger than the key it comes from.
pub(crate) fn derive_working_key(
    initial_key: &[u8],
    id: AesInitialKeyId,
    counter: u32,
    usage: u16,
    kind: KeyKind,
) -> Result<Derived, DerivationError> {
    let source = KeyKind::of_derivation_key(initial_key.len())?;
    if kind.algorithm().strength_bits() > source.algorithm().strength_bits() {
        return Err(DerivationError::Strength);
    }
    let transaction_key = derive_transaction_key(initial_key, id, counter)?;
    derive_of_transaction(&transaction_key, id, counter, usage, kind)
}

/// The working key of one usage under the transaction key of a counter.
pub(crate) fn derive_of_transaction(
    transaction_key: &[u8],
    id: AesInitialKeyId,
    counter: u32,
    usage: u16,
    kind: KeyKind,
) -> Result<Derived, DerivationError> {
    derive(transaction_key, usage, kind, context(id, counter))
}

/// The update key: the one use of the counter that has all bits set.
pub(crate) fn derive_update_key(
    initial_key: &[u8],
    id: AesInitialKeyId,
    kind: KeyKind,
) -> Result<Derived, DerivationError> {
    derive_working_key(initial_key, id, u32::MAX, WorkingKeyEncryption::INDICATOR, kind)
}

const VERSION: u8 = 1;
/// Usage of the initial key.
const INITIAL_KEY: u16 = 0x8001;
const BLOCK_LEN: usize = 16;

fn context(id: AesInitialKeyId, counter: u32) -> [u8; 8] {
    let mut context = [0; 8];
    context[..4].copy_from_slice(&id.derivation_id());
    context[4..].copy_from_slice(&counter.to_be_bytes());
    context
}

fn derive(
    key: &[u8],
    usage: u16,
    kind: KeyKind,
    context: [u8; 8],
) -> Result<Derived, DerivationError> {
    let cipher = Aes::new(key).map_err(|_| DerivationError::Algorithm)?;
    let mut derived = Zeroizing::new(vec![0; kind.algorithm().len_bytes()]);
    for (counter, part) in (1_u8..).zip(derived.chunks_mut(BLOCK_LEN)) {
        let mut block = Zeroizing::new([0; BLOCK_LEN]);
        block[0] = VERSION;
        block[1] = counter;
        block[2..4].copy_from_slice(&usage.to_be_bytes());
        block[4..6].copy_from_slice(&kind.algorithm_indicator().to_be_bytes());
        block[6..8].copy_from_slice(&kind.len_bits().to_be_bytes());
        block[8..].copy_from_slice(&context);
        cipher.encrypt_block(&mut block);
        part.copy_from_slice(&block[..part.len()]);
    }
    Ok(derived)
}

fn require_aes(algorithm: Algorithm) -> Result<(), DerivationError> {
    if algorithm.is_aes() { Ok(()) } else { Err(DerivationError::Algorithm) }
}

fn typed<U: Usage>(algorithm: Algorithm, bytes: &[u8]) -> Result<Key<U>, DerivationError> {
    Key::from_material(algorithm, Material::copied_from(bytes))
        .map_err(|_| DerivationError::Algorithm)
}

/// The PIN key of the first transaction in the supplement's examples, of the base derivation key
/// that begins with these octets.
pub(super) fn holds(base_len_bytes: usize, kind: KeyKind, expected: &[u8]) -> Option<bool> {
    const BASE: [u8; 32] = [
        0xFE, 0xDC, 0xBA, 0x98, 0x76, 0x54, 0x32, 0x10, 0xF1, 0xF1, 0xF1, 0xF1, 0xF1, 0xF1, 0xF1,
        0xF1, 0xFE, 0xDC, 0xBA, 0x98, 0x76, 0x54, 0x32, 0x10, 0xF1, 0xF1, 0xF1, 0xF1, 0xF1, 0xF1,
        0xF1, 0xF1,
    ];
    let id = AesInitialKeyId::new([0x12, 0x34, 0x56, 0x78], [0x90, 0x12, 0x34, 0x56]);
    let initial = derive_initial_key(BASE.get(..base_len_bytes)?, id).ok()?;
    let derived = derive_working_key(&initial, id, 1, PinEncryption::INDICATOR, kind).ok()?;
    Some(*derived == expected)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXUPPER;

    use super::*;
    use crate::key::usage::{DataBoth, DataEncryption, MacBoth, MacGeneration, MacVerification};

    /// ANSI X9.24-3:2017, supplement: the key and the key serial numbers of its examples.
    const BDK: &str = "FEDCBA9876543210F1F1F1F1F1F1F1F1";
    const ID: AesInitialKeyId =
        AesInitialKeyId::new([0x12, 0x34, 0x56, 0x78], [0x90, 0x12, 0x34, 0x56]);

    fn hex(text: &str) -> Vec<u8> {
        HEXUPPER.decode(text.as_bytes()).unwrap()
    }

    fn initial() -> AesInitialKey {
        let bdk = Material::copied_from(&hex(BDK));
        let bdk: Key<BaseDerivation> = Key::from_material(Algorithm::Aes128, bdk).unwrap();
        bdk.aes_initial_key(ID).unwrap()
    }

    fn working<U: WorkingUsage>(counter: u32, kind: KeyKind) -> Vec<u8> {
        let key: Key<U> = initial().working_key(&ID.ksn(counter).unwrap(), kind).unwrap();
        key.expose_bytes().to_vec()
    }

    #[test]
    fn derives_the_initial_key_of_the_supplement() {
        assert_eq!(initial().key().expose_bytes(), hex("1273671EA26AC29AFA4D1084127652A1"));
    }

    #[test]
    fn derives_the_working_keys_of_the_supplement() {
        let kind = KeyKind::Aes128;
        assert_eq!(working::<PinEncryption>(1, kind), hex("AF8CB133A78F8DC2D1359F18527593FB"));
        assert_eq!(working::<MacVerification>(1, kind), hex("DBB463945B286C07CD3AD82EE96FD9C9"));
        assert_eq!(working::<DataBoth>(1, kind), hex("A308E080DD15A1B741F1721BF67DE11C"));
        assert_eq!(
            working::<WorkingKeyEncryption>(1, kind),
            hex("36A724B7BEFA5A25F5E7B5782A4554A2")
        );
        assert_eq!(
            working::<WorkingKeyDerivation>(1, kind),
            hex("30E54D3C69B22501A7FC43969D81D5C0")
        );
    }

    #[test]
    fn derives_the_update_keys_of_the_supplement() {
        let key = |kind| initial().update_key(kind).unwrap().expose_bytes().to_vec();
        assert_eq!(key(KeyKind::Aes128), hex("9A9770AEE1ACD1B13473D0463A1883B9"));
        assert_eq!(key(KeyKind::Tdes2), hex("4744A5ECBC62B5C4BB76FBEAE1E244A3"));
        assert_eq!(key(KeyKind::Tdes3), hex("AF82BE8533CFCA526DA71708667AD0BBC7A7517504C78C8A"));
    }

    #[test]
    fn every_usage_has_another_key() {
        let kind = KeyKind::Aes128;
        let mut keys = vec![
            working::<PinEncryption>(3, kind),
            working::<MacGeneration>(3, kind),
            working::<MacVerification>(3, kind),
            working::<MacBoth>(3, kind),
            working::<DataEncryption>(3, kind),
            working::<DataBoth>(3, kind),
        ];
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 6);
    }

    #[test]
    fn refuses_what_is_too_strong_and_what_is_anothers() {
        let ksn = ID.ksn(1).unwrap();
        for kind in [KeyKind::Aes192, KeyKind::Aes256, KeyKind::Hmac192, KeyKind::Hmac256] {
            let refused = initial().working_key::<MacGeneration>(&ksn, kind).err();
            assert_eq!(refused, Some(DerivationError::Strength), "{kind:?}");
            assert_eq!(initial().update_key(kind).err(), Some(DerivationError::Strength));
        }
        let other = AesInitialKeyId::new(ID.bdk_id(), [0; 4]).ksn(1).unwrap();
        let refused = initial().working_key::<PinEncryption>(&other, KeyKind::Aes128).err();
        assert_eq!(refused, Some(DerivationError::KeyId));
        let tdes: Key<BaseDerivation> =
            Key::from_material(Algorithm::Tdes2, Material::zeroed(16)).unwrap();
        assert_eq!(tdes.aes_initial_key(ID).err(), Some(DerivationError::Algorithm));
    }
}
