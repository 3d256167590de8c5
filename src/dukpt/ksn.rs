//! Reads key serial numbers: which device, which key, which transaction.

use super::counter::CounterSet;

/// Why a key serial number was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KsnInvalid {
    /// The counter has more one bits than any terminal uses.
    #[error("the transaction counter has too many one bits")]
    CounterWeight,
    /// Counter zero belongs to the initial key, not to a transaction.
    #[error("the transaction counter is zero")]
    CounterZero,
    /// The key serial number, or the key id, has another length or more bits than fit.
    #[error("the key serial number has the wrong length")]
    Length,
}

/// The key serial number (KSN) that a TDES terminal sends with each transaction.
///
/// ```text
/// bits   0..40   key set id: names the base derivation key
///       40..59   device number
///       59..80   transaction counter, big endian
/// ```
///
/// A value of this type has a usable counter: it is not zero and has at most
/// [`TdesKsn::COUNTER_WEIGHT_MAX`] bits set, so every derivation ends after as many steps.
///
/// See ANSI X9.24-1:2009, 7.2 and annex A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TdesKsn([u8; Self::LEN_BYTES]);

impl TdesKsn {
    /// Octets of a key serial number.
    pub const LEN_BYTES: usize = 10;
    /// The most one bits that a counter may have.
    pub const COUNTER_WEIGHT_MAX: u32 = 10;
    /// The last counter of a terminal.
    pub const COUNTER_MAX: u32 = 0x1F_F800;
    const COUNTERS: CounterSet = CounterSet::new(21, 10);

    /// Reads a key serial number of exactly ten octets.
    pub fn parse(bytes: &[u8]) -> Result<Self, KsnInvalid> {
        let bytes = bytes.try_into().map_err(|_| KsnInvalid::Length)?;
        let ksn = Self(bytes);
        check_counter(ksn.counter(), Self::COUNTER_WEIGHT_MAX)?;
        Ok(ksn)
    }

    /// Reads a key serial number of 8, 9 or 10 octets, filled with `FF` on the left, as hosts
    /// have always taken them. Meant for the edge of the service alone.
    pub fn left_filled(bytes: &[u8]) -> Result<Self, KsnInvalid> {
        if !(8..=Self::LEN_BYTES).contains(&bytes.len()) {
            return Err(KsnInvalid::Length);
        }
        let mut filled = [0xFF; Self::LEN_BYTES];
        filled[Self::LEN_BYTES - bytes.len()..].copy_from_slice(bytes);
        Self::parse(&filled)
    }

    /// The transaction counter, 21 bits.
    #[must_use]
    pub fn counter(&self) -> u32 {
        tdes_low_bits(&self.0) & TDES_COUNTER_MASK
    }

    /// The key serial number with its counter cleared: the name of the device's initial key.
    #[must_use]
    pub fn initial_key_id(&self) -> TdesInitialKeyId {
        TdesInitialKeyId(with_tdes_counter(self.0, 0))
    }

    /// The first five octets, which name the base derivation key.
    #[must_use]
    pub fn key_set_id(&self) -> [u8; 5] {
        first(&self.0)
    }

    /// All ten octets.
    #[must_use]
    pub fn bytes(&self) -> &[u8; Self::LEN_BYTES] {
        &self.0
    }

    /// The how-manieth transaction of the terminal this is, from 1.
    #[must_use]
    pub fn rank(&self) -> u64 {
        Self::COUNTERS.rank(self.counter())
    }

    /// How many valid counters are not above `counter`.
    #[must_use]
    pub fn rank_of(counter: u32) -> u64 {
        Self::COUNTERS.rank(counter & TDES_COUNTER_MASK)
    }

    /// The counter of the transaction of that rank, from 1 to [`TdesKsn::rank_max`].
    #[must_use]
    pub fn from_rank(rank: u64) -> Option<u32> {
        Self::COUNTERS.counter_at(rank)
    }

    /// How many transactions a terminal can make with one initial key: 1,048,575.
    #[must_use]
    pub const fn rank_max() -> u64 {
        Self::COUNTERS.rank_max()
    }
}

/// The name of a TDES device's initial key: its key serial number with a counter of zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TdesInitialKeyId([u8; TdesKsn::LEN_BYTES]);

impl TdesInitialKeyId {
    /// The highest device number under one key set id.
    pub const DEVICE_MAX: u32 = (1 << 19) - 1;

    /// Names the initial key of a device under a key set.
    pub fn new(key_set_id: [u8; 5], device: u32) -> Result<Self, KsnInvalid> {
        if device > Self::DEVICE_MAX {
            return Err(KsnInvalid::Length);
        }
        let mut bytes = [0; TdesKsn::LEN_BYTES];
        bytes[..5].copy_from_slice(&key_set_id);
        // Five octets stand below the key set id: 19 bits of device number, 21 of counter.
        let low = u64::from(device) << 21;
        bytes[5..].copy_from_slice(&low.to_be_bytes()[3..]);
        Ok(Self(bytes))
    }

    /// Reads an id of exactly ten octets whose counter bits are zero.
    pub fn parse(bytes: &[u8]) -> Result<Self, KsnInvalid> {
        let bytes: [u8; TdesKsn::LEN_BYTES] = bytes.try_into().map_err(|_| KsnInvalid::Length)?;
        if tdes_low_bits(&bytes) & TDES_COUNTER_MASK == 0 {
            Ok(Self(bytes))
        } else {
            Err(KsnInvalid::CounterWeight)
        }
    }

    /// The key serial number of this device's transaction with that counter.
    pub fn ksn(&self, counter: u32) -> Result<TdesKsn, KsnInvalid> {
        if counter > TDES_COUNTER_MASK {
            return Err(KsnInvalid::Length);
        }
        TdesKsn::parse(&with_tdes_counter(self.0, counter))
    }

    /// The first five octets, which name the base derivation key.
    #[must_use]
    pub fn key_set_id(&self) -> [u8; 5] {
        first(&self.0)
    }

    /// All ten octets.
    #[must_use]
    pub fn bytes(&self) -> &[u8; TdesKsn::LEN_BYTES] {
        &self.0
    }
}

/// The key serial number (KSN) that an AES terminal sends with each transaction.
///
/// ```text
/// octets  0..4   base derivation key ID
///         4..8   derivation ID
///         8..12  transaction counter, big endian
/// ```
///
/// A value of this type has a usable counter: it is not zero and has at most
/// [`AesKsn::COUNTER_WEIGHT_MAX`] bits set, so every derivation ends after as many steps. The
/// update key's counter `FFFFFFFF` is therefore no [`AesKsn`].
///
/// See ANSI X9.24-3:2017, 6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AesKsn([u8; Self::LEN_BYTES]);

impl AesKsn {
    /// Octets of a key serial number.
    pub const LEN_BYTES: usize = 12;
    /// The most one bits that a counter may have.
    pub const COUNTER_WEIGHT_MAX: u32 = 16;
    /// The last counter of a terminal.
    pub const COUNTER_MAX: u32 = 0xFFFF_0000;
    const COUNTERS: CounterSet = CounterSet::new(32, 16);

    /// Reads a key serial number of exactly twelve octets.
    pub fn parse(bytes: &[u8]) -> Result<Self, KsnInvalid> {
        let bytes = bytes.try_into().map_err(|_| KsnInvalid::Length)?;
        let ksn = Self(bytes);
        check_counter(ksn.counter(), Self::COUNTER_WEIGHT_MAX)?;
        Ok(ksn)
    }

    /// The transaction counter.
    #[must_use]
    pub fn counter(&self) -> u32 {
        let [.., a, b, c, d] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }

    /// The first eight octets: the name of the device's initial key.
    #[must_use]
    pub fn initial_key_id(&self) -> AesInitialKeyId {
        AesInitialKeyId(first(&self.0))
    }

    /// The first four octets, which name the base derivation key.
    #[must_use]
    pub fn bdk_id(&self) -> [u8; 4] {
        first(&self.0)
    }

    /// All twelve octets.
    #[must_use]
    pub fn bytes(&self) -> &[u8; Self::LEN_BYTES] {
        &self.0
    }

    /// The how-manieth transaction of the terminal this is, from 1.
    #[must_use]
    pub fn rank(&self) -> u64 {
        Self::COUNTERS.rank(self.counter())
    }

    /// How many valid counters are not above `counter`.
    #[must_use]
    pub fn rank_of(counter: u32) -> u64 {
        Self::COUNTERS.rank(counter)
    }

    /// The counter of the transaction of that rank, from 1 to [`AesKsn::rank_max`].
    #[must_use]
    pub fn from_rank(rank: u64) -> Option<u32> {
        Self::COUNTERS.counter_at(rank)
    }

    /// How many transactions a terminal can make with one initial key: 2,448,023,842.
    #[must_use]
    pub const fn rank_max() -> u64 {
        Self::COUNTERS.rank_max()
    }
}

/// The name of an AES device's initial key: base derivation key ID and derivation ID.
///
/// See ANSI X9.24-3:2017, 6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AesInitialKeyId([u8; Self::LEN_BYTES]);

impl AesInitialKeyId {
    /// Octets of an initial key id.
    pub const LEN_BYTES: usize = 8;

    /// Names the initial key of a device under a base derivation key.
    #[must_use]
    pub const fn new(bdk_id: [u8; 4], derivation_id: [u8; 4]) -> Self {
        let mut bytes = [0; Self::LEN_BYTES];
        let (first, last) = bytes.split_at_mut(4);
        first.copy_from_slice(&bdk_id);
        last.copy_from_slice(&derivation_id);
        Self(bytes)
    }

    /// Reads an id of exactly eight octets.
    pub fn parse(bytes: &[u8]) -> Result<Self, KsnInvalid> {
        bytes.try_into().map(Self).map_err(|_| KsnInvalid::Length)
    }

    /// The key serial number of this device's transaction with that counter.
    pub fn ksn(&self, counter: u32) -> Result<AesKsn, KsnInvalid> {
        let mut bytes = [0; AesKsn::LEN_BYTES];
        bytes[..Self::LEN_BYTES].copy_from_slice(&self.0);
        bytes[Self::LEN_BYTES..].copy_from_slice(&counter.to_be_bytes());
        AesKsn::parse(&bytes)
    }

    /// The first four octets, which name the base derivation key.
    #[must_use]
    pub fn bdk_id(&self) -> [u8; 4] {
        first(&self.0)
    }

    /// The last four octets, the device's own part.
    #[must_use]
    pub fn derivation_id(&self) -> [u8; 4] {
        let [.., a, b, c, d] = self.0;
        [a, b, c, d]
    }

    /// All eight octets.
    #[must_use]
    pub fn bytes(&self) -> &[u8; Self::LEN_BYTES] {
        &self.0
    }
}

/// A key serial number of AES DUKPT as it is split, whatever its counter: the vectors' view.
///
/// Ten octets are the compatibility form: the 21 low bits are the counter; the whole, with the
/// counter cleared and shifted right by 20 bits, is the id.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CompatibleKsn {
    pub(crate) initial_key_id: [u8; AesInitialKeyId::LEN_BYTES],
    pub(crate) counter: u32,
}

impl CompatibleKsn {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, KsnInvalid> {
        if let Ok(long) = <[u8; AesKsn::LEN_BYTES]>::try_from(bytes) {
            let ksn = AesKsn(long);
            return Ok(Self { initial_key_id: first(&long), counter: ksn.counter() });
        }
        let short: [u8; TdesKsn::LEN_BYTES] = bytes.try_into().map_err(|_| KsnInvalid::Length)?;
        let counter = TdesKsn(short).counter();
        let mut wide = [0; 16];
        wide[6..].copy_from_slice(&with_tdes_counter(short, 0));
        let shifted = (u128::from_be_bytes(wide) >> 20).to_be_bytes();
        let mut initial_key_id = [0; AesInitialKeyId::LEN_BYTES];
        initial_key_id.copy_from_slice(&shifted[8..]);
        Ok(Self { initial_key_id, counter })
    }
}

/// The initial key's id in any ten octets, whatever their counter, for vectors.
pub(crate) fn tdes_initial_key_id(ksn: &[u8]) -> Result<TdesInitialKeyId, KsnInvalid> {
    let bytes = ksn.try_into().map_err(|_| KsnInvalid::Length)?;
    Ok(TdesInitialKeyId(with_tdes_counter(bytes, 0)))
}

const TDES_COUNTER_MASK: u32 = 0x1F_FFFF;

/// The last four octets of a TDES key serial number: 11 bits of device number, 21 of counter.
fn tdes_low_bits(bytes: &[u8; TdesKsn::LEN_BYTES]) -> u32 {
    let [.., a, b, c, d] = *bytes;
    u32::from_be_bytes([a, b, c, d])
}

fn with_tdes_counter(
    mut bytes: [u8; TdesKsn::LEN_BYTES],
    counter: u32,
) -> [u8; TdesKsn::LEN_BYTES] {
    let low = tdes_low_bits(&bytes) & !TDES_COUNTER_MASK | counter;
    bytes[6..].copy_from_slice(&low.to_be_bytes());
    bytes
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().expect("every caller's array is longer than what it asks for")
}

fn check_counter(counter: u32, weight_max: u32) -> Result<(), KsnInvalid> {
    if counter == 0 {
        Err(KsnInvalid::CounterZero)
    } else if counter.count_ones() > weight_max {
        Err(KsnInvalid::CounterWeight)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tdes_ksn_is_split_where_the_standard_says() {
        // ANSI X9.24-1:2009, annex A.4.
        let bytes = [0xFF, 0xFF, 0x98, 0x76, 0x54, 0x32, 0x10, 0xE0, 0x00, 0x08];
        let ksn = TdesKsn::parse(&bytes).expect("the printed example is valid");
        assert_eq!(ksn.counter(), 8);
        assert_eq!(ksn.key_set_id(), [0xFF, 0xFF, 0x98, 0x76, 0x54]);
        assert_eq!(ksn.initial_key_id().ksn(8), Ok(ksn));
        assert_eq!(TdesKsn::left_filled(&bytes[2..]), Ok(ksn));
        assert_eq!(TdesKsn::left_filled(&bytes[3..]), Err(KsnInvalid::Length));
        let device = (0x32_10E0 >> 5) & TdesInitialKeyId::DEVICE_MAX;
        assert_eq!(TdesInitialKeyId::new(ksn.key_set_id(), device), Ok(ksn.initial_key_id()));
        assert_eq!(TdesInitialKeyId::new([0; 5], 1 << 19), Err(KsnInvalid::Length));
        assert_eq!(TdesInitialKeyId::parse(&bytes), Err(KsnInvalid::CounterWeight));
    }

    #[test]
    fn an_aes_ksn_is_split_where_the_standard_says() {
        let bytes = [0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0x34, 0x56, 0, 0, 0, 1];
        let ksn = AesKsn::parse(&bytes).expect("the printed example is valid");
        assert_eq!(ksn.bdk_id(), [0x12, 0x34, 0x56, 0x78]);
        assert_eq!(ksn.initial_key_id().derivation_id(), [0x90, 0x12, 0x34, 0x56]);
        assert_eq!(ksn.initial_key_id().ksn(1), Ok(ksn));
        assert_eq!(ksn.rank(), 1);
    }

    #[test]
    fn an_unusable_counter_is_no_ksn() {
        let id = AesInitialKeyId::new([1; 4], [2; 4]);
        assert_eq!(id.ksn(0), Err(KsnInvalid::CounterZero));
        assert_eq!(id.ksn(0x1_FFFF), Err(KsnInvalid::CounterWeight));
        assert_eq!(id.ksn(0xFFFF_FFFF), Err(KsnInvalid::CounterWeight));
        assert!(id.ksn(AesKsn::COUNTER_MAX).is_ok());
        let id = TdesInitialKeyId::new([1; 5], 2).expect("the device number fits");
        assert_eq!(id.ksn(0), Err(KsnInvalid::CounterZero));
        assert_eq!(id.ksn(0x7FF), Err(KsnInvalid::CounterWeight));
        assert_eq!(id.ksn(0x20_0001), Err(KsnInvalid::Length));
        assert!(id.ksn(TdesKsn::COUNTER_MAX).is_ok());
        for length in [0, 7, 9, 11, 13] {
            assert_eq!(TdesKsn::parse(&vec![1; length]), Err(KsnInvalid::Length));
            assert_eq!(AesKsn::parse(&vec![1; length]), Err(KsnInvalid::Length));
        }
    }

    #[test]
    fn the_compatibility_form_is_shifted_into_eight_octets() {
        let bytes = [0x0E, 0x11, 0x11, 0x11, 0x11, 0xFF, 0xFF, 0xFF, 0, 0];
        let ksn = CompatibleKsn::parse(&bytes).expect("ten octets are read");
        assert_eq!(ksn.initial_key_id, [0x00, 0xE1, 0x11, 0x11, 0x11, 0x1F, 0xFF, 0xFE]);
        assert_eq!(ksn.counter, 0x1F_0000);
    }
}
