//! TDES DUKPT, the host's side (ANSI X9.24-1:2009, annex A; X9.24-3:2017, annex C).
//!
//! ```text
//! initial key, left    E(BDK, first 8 octets of the KSN with counter 0)
//! initial key, right   the same under BDK xor MASK
//! one step, right      DES(K left, r xor K right) xor K right    r: last 8 octets of the KSN
//! one step, left       the same under K xor MASK                 with the counter reached so far
//! working key          K xor the variant of its usage; a data key is then encrypted under itself
//! ```

use zeroize::Zeroizing;

use super::{DerivationError, TdesInitialKeyId, TdesKsn};
use crate::crypto::tdes::{Des, Tdes};
use crate::key::usage::{BaseDerivation, InitialDukpt, PinEncryption, TdesVariant, Usage};
use crate::key::{Algorithm, Key, Material};
use crate::memory::with_wiped_stack;

impl Key<BaseDerivation> {
    /// Derives the initial key of one TDES device (ANSI X9.24-1:2009, annex A.6).
    pub fn tdes_initial_key(
        &self,
        id: TdesInitialKeyId,
    ) -> Result<TdesInitialKey, DerivationError> {
        require_tdes2(self.algorithm())?;
        // Exposed to the derivation alone; what comes back is wrapped at once.
        let bytes = with_wiped_stack(|| derive_initial_key(self.expose_bytes(), &id))?;
        Ok(TdesInitialKey { key: typed(&bytes)?, id })
    }
}

impl From<TdesInitialKey> for Key<InitialDukpt> {
    fn from(initial: TdesInitialKey) -> Self {
        initial.key
    }
}

/// The initial key of one TDES device, and the id that it belongs to.
#[derive(Debug)]
pub struct TdesInitialKey {
    key: Key<InitialDukpt>,
    id: TdesInitialKeyId,
}

impl TdesInitialKey {
    /// Joins a key that was received or stored with its id.
    pub fn new(key: Key<InitialDukpt>, id: TdesInitialKeyId) -> Result<Self, DerivationError> {
        require_tdes2(key.algorithm())?;
        Ok(Self { key, id })
    }

    /// The id of this key.
    #[must_use]
    pub fn id(&self) -> TdesInitialKeyId {
        self.id
    }

    /// The key itself, for wrapping and its check value.
    #[must_use]
    pub fn key(&self) -> &Key<InitialDukpt> {
        &self.key
    }

    /// Derives the working key of one transaction and one usage (X9.24-1:2009, annex A.4).
    pub fn working_key<U: TdesVariant>(&self, ksn: &TdesKsn) -> Result<Key<U>, DerivationError> {
        if ksn.initial_key_id() != self.id {
            return Err(DerivationError::KeyId);
        }
        let bytes = with_wiped_stack(|| {
            // Exposed to the derivation alone; what comes back is wrapped at once.
            let transaction_key = derive_transaction_key(self.key.expose_bytes(), ksn)?;
            derive_variant::<U>(transaction_key.as_slice())
        })?;
        typed(&bytes)
    }
}

/// Octets of a derived key, wiped when they are dropped.
pub(crate) type Derived = Zeroizing<[u8; KEY_LEN]>;

/// The initial key of a device from a double-length base derivation key.
pub(crate) fn derive_initial_key(
    bdk: &[u8],
    id: &TdesInitialKeyId,
) -> Result<Derived, DerivationError> {
    let bdk = double_length(bdk)?;
    let mut key = Zeroizing::new([0; KEY_LEN]);
    for (half, source) in key.chunks_mut(HALF_LEN).zip([bdk.clone(), masked(&bdk)]) {
        let mut block = [0; HALF_LEN];
        block.copy_from_slice(&id.bytes()[..HALF_LEN]);
        cipher(&source)?.encrypt_block(&mut block);
        half.copy_from_slice(&block);
    }
    Ok(key)
}

/// The key at a counter, before any variant: one step for each one bit, from the highest down.
pub(crate) fn derive_transaction_key(
    initial_key: &[u8],
    ksn: &TdesKsn,
) -> Result<Derived, DerivationError> {
    let mut key = double_length(initial_key)?;
    let mut register = [0; HALF_LEN];
    register.copy_from_slice(&ksn.initial_key_id().bytes()[TdesKsn::LEN_BYTES - HALF_LEN..]);
    let mut register = u64::from_be_bytes(register);
    for bit in (0..21).rev().map(|shift| 1_u32 << shift) {
        if ksn.counter() & bit != 0 {
            register |= u64::from(bit);
            key = step(&key, register);
        }
    }
    Ok(key)
}

/// The working key of one usage: one octet of each half inverted, and for data each half then
/// encrypted under the result, so that a data key that leaks does not betray its neighbours.
pub(crate) fn derive_variant<U: TdesVariant>(
    transaction_key: &[u8],
) -> Result<Derived, DerivationError> {
    let mut key = double_length(transaction_key)?;
    for half in key.chunks_mut(HALF_LEN) {
        half[U::MASK_OCTET] ^= 0xFF;
    }
    if U::ONE_WAY {
        let under_itself = cipher(&key)?;
        for half in key.as_chunks_mut::<HALF_LEN>().0 {
            under_itself.encrypt_block(half);
        }
    }
    Ok(key)
}

const HALF_LEN: usize = 8;
const KEY_LEN: usize = 2 * HALF_LEN;

/// Makes the left half of a derived key differ from its right half (annex A.2).
const MASK: [u8; HALF_LEN] = [0xC0, 0xC0, 0xC0, 0xC0, 0, 0, 0, 0];

/// The non-reversible key generation process (annex A.2), on both halves.
fn step(key: &Derived, register: u64) -> Derived {
    let mut next = Zeroizing::new([0; KEY_LEN]);
    let (left, right) = next.split_at_mut(HALF_LEN);
    right.copy_from_slice(&*one_way(key, register));
    left.copy_from_slice(&*one_way(&masked(key), register));
    next
}

fn one_way(key: &Derived, register: u64) -> Zeroizing<[u8; HALF_LEN]> {
    let mut left = Zeroizing::new([0; HALF_LEN]);
    left.copy_from_slice(&key[..HALF_LEN]);
    let right = &key[HALF_LEN..];
    let mut block = Zeroizing::new(register.to_be_bytes());
    xor(&mut *block, right);
    Des::new(&left).encrypt_block(&mut block);
    xor(&mut *block, right);
    block
}

fn masked(key: &Derived) -> Derived {
    let mut masked = key.clone();
    for half in masked.chunks_mut(HALF_LEN) {
        xor(half, &MASK);
    }
    masked
}

fn xor(into: &mut [u8], from: &[u8]) {
    for (octet, other) in into.iter_mut().zip(from) {
        *octet ^= other;
    }
}

fn double_length(key: &[u8]) -> Result<Derived, DerivationError> {
    key.try_into().map(Zeroizing::new).map_err(|_| DerivationError::Algorithm)
}

fn cipher(key: &Derived) -> Result<Tdes, DerivationError> {
    Tdes::new(key.as_slice()).map_err(|_| DerivationError::Algorithm)
}

fn require_tdes2(algorithm: Algorithm) -> Result<(), DerivationError> {
    if algorithm == Algorithm::Tdes2 { Ok(()) } else { Err(DerivationError::Algorithm) }
}

fn typed<U: Usage>(bytes: &Derived) -> Result<Key<U>, DerivationError> {
    // A derived key is used as it stands, parity included.
    Key::from_material(Algorithm::Tdes2, Material::copied_from(bytes.as_slice()))
        .map_err(|_| DerivationError::Algorithm)
}

/// The PIN key of the first transaction of the standard's example (annex A.4).
pub(super) fn holds(expected: &[u8]) -> Option<bool> {
    const BDK: [u8; 16] = [
        0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF, 0xFE, 0xDC, 0xBA, 0x98, 0x76, 0x54, 0x32,
        0x10,
    ];
    const KSN: [u8; 10] = [0xFF, 0xFF, 0x98, 0x76, 0x54, 0x32, 0x10, 0xE0, 0x00, 0x01];
    let ksn = TdesKsn::parse(&KSN).ok()?;
    let initial = derive_initial_key(&BDK, &ksn.initial_key_id()).ok()?;
    let key = derive_transaction_key(initial.as_slice(), &ksn).ok()?;
    let derived = derive_variant::<PinEncryption>(key.as_slice()).ok()?;
    Some(derived.as_slice() == expected)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXUPPER;

    use super::*;
    use crate::key::usage::{DataDecryption, DataEncryption, MacGeneration, MacVerification};

    /// ANSI X9.24-1:2009, annex A.4: the key of its examples.
    fn base() -> Key<BaseDerivation> {
        let bytes = hex("0123456789ABCDEFFEDCBA9876543210");
        Key::from_material(Algorithm::Tdes2, Material::copied_from(&bytes)).unwrap()
    }

    fn hex(text: &str) -> Vec<u8> {
        HEXUPPER.decode(text.as_bytes()).unwrap()
    }

    fn ksn(text: &str) -> TdesKsn {
        TdesKsn::parse(&hex(text)).unwrap()
    }

    #[test]
    fn derives_the_initial_key_of_annex_a() {
        let id = ksn("FFFF9876543210E00001").initial_key_id();
        let initial = base().tdes_initial_key(id).unwrap();
        assert_eq!(initial.key().expose_bytes(), hex("6AC292FAA1315B4D858AB3A3D7D5933A"));
        assert_eq!(initial.id(), id);
    }

    #[test]
    fn derives_the_working_keys_of_annex_a() {
        let ksn = ksn("FFFF9876543210E00001");
        let initial = base().tdes_initial_key(ksn.initial_key_id()).unwrap();
        let pin: Key<PinEncryption> = initial.working_key(&ksn).unwrap();
        assert_eq!(pin.expose_bytes(), hex("042666B49184CF5C68DE9628D0397B36"));
        let request: Key<MacGeneration> = initial.working_key(&ksn).unwrap();
        assert_eq!(request.expose_bytes(), hex("042666B4918430A368DE9628D03984C9"));
        let response: Key<MacVerification> = initial.working_key(&ksn).unwrap();
        assert_eq!(response.expose_bytes(), hex("042666B46E84CFA368DE96282F397BC9"));
        let request: Key<DataEncryption> = initial.working_key(&ksn).unwrap();
        assert_eq!(request.expose_bytes(), hex("448D3F076D8304036A55A3D7E0055A78"));
        let response: Key<DataDecryption> = initial.working_key(&ksn).unwrap();
        assert_ne!(request.expose_bytes(), response.expose_bytes());
    }

    #[test]
    fn refuses_another_devices_ksn_and_other_keys() {
        let mine = ksn("FFFF9876543210E00001");
        let other = ksn("FFFF9876543220000001");
        let initial = base().tdes_initial_key(mine.initial_key_id()).unwrap();
        let refused = initial.working_key::<PinEncryption>(&other).err();
        assert_eq!(refused, Some(DerivationError::KeyId));
        let aes: Key<BaseDerivation> =
            Key::from_material(Algorithm::Aes128, Material::zeroed(16)).unwrap();
        let refused = aes.tdes_initial_key(mine.initial_key_id()).err();
        assert_eq!(refused, Some(DerivationError::Algorithm));
    }
}
