//! The terminal's DUKPT engine: working keys from future-key registers.
//!
//! It shares no derivation with the host's: the two are held against each other in the tests.

use std::fmt;

use zeroize::Zeroizing;

use super::registers::{CountersExhausted, Family, Registers};
use crate::crypto::aes::Aes;
use crate::crypto::tdes::Des;
use crate::dukpt::{AesInitialKeyId, AesKsn, TdesInitialKeyId, TdesKsn};
use crate::key::usage::{
    MacGeneration, MacVerification, PinEncryption, TdesVariant, Usage, WorkingKeyDerivation,
    WorkingKeyEncryption, WorkingUsage,
};
use crate::key::{Algorithm, Key, Material};
use crate::memory::with_wiped_stack;

/// The DUKPT engine of one initial key.
#[derive(Debug)]
pub struct Engine(Kind);

#[derive(Debug)]
pub(super) enum Kind {
    Aes(Registers<AesFamily>),
    Tdes(Registers<TdesFamily>),
}

impl Engine {
    /// Loads an initial key of AES-128 DUKPT; the key itself is not kept.
    #[must_use]
    pub fn load_aes(initial_key: &Material, id: AesInitialKeyId) -> Option<Self> {
        let family = AesFamily { id };
        let fits = initial_key.len_bytes() == AesFamily::KEY_LEN_BYTES;
        fits.then(|| Self(Kind::Aes(Registers::load(family, initial_key))))
    }

    /// Loads an initial key of TDES DUKPT; the key itself is not kept.
    #[must_use]
    pub fn load_tdes(initial_key: &Material, id: TdesInitialKeyId) -> Option<Self> {
        let family = TdesFamily { id };
        let fits = initial_key.len_bytes() == TdesFamily::KEY_LEN_BYTES;
        fits.then(|| Self(Kind::Tdes(Registers::load(family, initial_key))))
    }

    /// The KSN of the next transaction.
    pub fn next_ksn(&self) -> Result<Ksn, CountersExhausted> {
        match &self.0 {
            Kind::Aes(registers) => registers.family().ksn(registers.peek()?),
            Kind::Tdes(registers) => registers.family().ksn(registers.peek()?),
        }
    }

    /// The keys of the next transaction. Its register is erased before this returns, so a counter
    /// is never used twice, whatever becomes of the transaction.
    pub fn next_transaction(&mut self) -> Result<TransactionKeys, CountersExhausted> {
        with_wiped_stack(|| match &mut self.0 {
            Kind::Aes(registers) => {
                let (counter, key) = registers.take()?;
                registers.family().transaction_keys(&key, counter)
            }
            Kind::Tdes(registers) => {
                let (counter, key) = registers.take()?;
                Ok(TransactionKeys {
                    ksn: registers.family().ksn(counter)?,
                    pin: variant(&key),
                    mac_request: variant(&key),
                    mac_response: variant(&key),
                })
            }
        })
    }

    /// The keys of the next transaction, and the key derivation key that goes with them; none for
    /// TDES, which has no such key. Its register is erased as [`Self::next_transaction`] says.
    pub(super) fn next_update(&mut self) -> Result<Option<UpdateKeys>, CountersExhausted> {
        with_wiped_stack(|| match &mut self.0 {
            Kind::Aes(registers) => {
                let (counter, key) = registers.take()?;
                let family = registers.family();
                let keys = family.transaction_keys(&key, counter)?;
                Ok(Some(UpdateKeys { keys, derivation: family.working_key(&key, counter) }))
            }
            Kind::Tdes(_) => Ok(None),
        })
    }

    /// The update key: the key encryption key of the counter `FFFFFFFF`, which no transaction has
    /// (ANSI X9.24-3:2017, 6.5.4). It is the same for as long as the engine has counters left; none
    /// for TDES.
    pub(super) fn update_key(
        &self,
    ) -> Result<Option<Key<WorkingKeyEncryption>>, CountersExhausted> {
        with_wiped_stack(|| match &self.0 {
            Kind::Aes(registers) => {
                let key = registers.beyond_all()?;
                Ok(Some(registers.family().working_key(&key, u32::MAX)))
            }
            Kind::Tdes(_) => Ok(None),
        })
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.0
    }

    pub(super) fn from_kind(kind: Kind) -> Self {
        Self(kind)
    }
}

/// A key serial number of either family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ksn {
    /// Of AES DUKPT, 12 bytes.
    Aes(AesKsn),
    /// Of TDES DUKPT, 10 bytes.
    Tdes(TdesKsn),
}

impl Ksn {
    /// The bytes, as they are sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Aes(ksn) => ksn.bytes(),
            Self::Tdes(ksn) => ksn.bytes(),
        }
    }
}

impl fmt::Display for Ksn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().iter().try_for_each(|byte| write!(formatter, "{byte:02X}"))
    }
}

/// The working keys of one transaction, in the terminal's words.
pub struct TransactionKeys {
    /// The key serial number that goes with the transaction.
    pub ksn: Ksn,
    /// Enciphers the PIN block.
    pub pin: Key<PinEncryption>,
    /// Makes the MAC of the request.
    pub mac_request: Key<MacGeneration>,
    /// Verifies the MAC of the response.
    pub mac_response: Key<MacVerification>,
}

/// The working keys of a transaction that asks for new keys.
pub(super) struct UpdateKeys {
    /// Those that every transaction has.
    pub(super) keys: TransactionKeys,
    /// Derives the keys that confirm the new ones.
    pub(super) derivation: Key<WorkingKeyDerivation>,
}

/// AES DUKPT with 128-bit keys throughout: ANSI X9.24-3:2017.
#[derive(Debug)]
pub(super) struct AesFamily {
    pub(super) id: AesInitialKeyId,
}

impl AesFamily {
    const KEY_LEN_BYTES: usize = 16;

    fn ksn(&self, counter: u32) -> Result<Ksn, CountersExhausted> {
        self.id.ksn(counter).map(Ksn::Aes).map_err(|_| CountersExhausted)
    }

    fn transaction_keys(
        &self,
        key: &Material,
        counter: u32,
    ) -> Result<TransactionKeys, CountersExhausted> {
        Ok(TransactionKeys {
            ksn: self.ksn(counter)?,
            pin: self.working_key(key, counter),
            mac_request: self.working_key(key, counter),
            mac_response: self.working_key(key, counter),
        })
    }

    fn working_key<U: WorkingUsage>(&self, key: &Material, counter: u32) -> Key<U> {
        typed(Algorithm::Aes128, self.derive(key, U::INDICATOR, counter))
    }

    /// One derivation: the encryption of the derivation data under the parent key.
    ///
    /// ```text
    /// octets  0      01, version
    ///         1      01, block counter: a 128-bit key is one block
    ///         2..4   usage of the derived key
    ///         4..6   0002, AES-128
    ///         6..8   0080, bits of the derived key
    ///         8..12  derivation id
    ///        12..16  transaction counter
    /// ```
    ///
    /// See ANSI X9.24-3:2017, 6.3.2 and 6.3.3.
    fn derive(&self, parent: &Material, usage: u16, counter: u32) -> Material {
        // The derivation is a computation with the key; its result goes back into wiped memory.
        let aes = Aes::new(parent.expose_bytes()).expect("keys of this family have 16 bytes");
        let mut block = Zeroizing::new([0; 16]);
        block[..2].copy_from_slice(&[0x01, 0x01]);
        block[2..4].copy_from_slice(&usage.to_be_bytes());
        block[4..8].copy_from_slice(&[0x00, 0x02, 0x00, 0x80]);
        block[8..12].copy_from_slice(&self.id.derivation_id());
        block[12..].copy_from_slice(&counter.to_be_bytes());
        aes.encrypt_block(&mut block);
        Material::copied_from(&*block)
    }
}

impl Family for AesFamily {
    const REGISTERS: u8 = 32;
    const WEIGHT_MAX: u32 = AesKsn::COUNTER_WEIGHT_MAX;

    fn child(&self, parent: &Material, counter: u32) -> Material {
        /// The usage of a key from which others are derived: ANSI X9.24-3:2017, 6.3.2.
        const KEY_DERIVATION: u16 = 0x8000;
        self.derive(parent, KEY_DERIVATION, counter)
    }
}

/// TDES DUKPT: ANSI X9.24-1:2009, annex A.
#[derive(Debug)]
pub(super) struct TdesFamily {
    pub(super) id: TdesInitialKeyId,
}

impl TdesFamily {
    const KEY_LEN_BYTES: usize = 16;

    fn ksn(&self, counter: u32) -> Result<Ksn, CountersExhausted> {
        self.id.ksn(counter).map(Ksn::Tdes).map_err(|_| CountersExhausted)
    }
}

impl Family for TdesFamily {
    const REGISTERS: u8 = 21;
    const WEIGHT_MAX: u32 = TdesKsn::COUNTER_WEIGHT_MAX;

    /// The non-reversible key generation of the terminal (A.2): each half of the new key is the
    /// rightmost 64 bits of the KSN, enciphered between two additions of the right half under the
    /// left; for the left half of the new key, the parent is first changed by C0 octets.
    fn child(&self, parent: &Material, counter: u32) -> Material {
        let mut id = [0; 8];
        id.copy_from_slice(&self.id.bytes()[2..]);
        let serial = (u64::from_be_bytes(id) | u64::from(counter)).to_be_bytes();

        let right = one_way(parent, serial);
        let mut changed = Material::copied_from(parent.expose_bytes());
        for (index, byte) in changed.expose_bytes_mut().iter_mut().enumerate() {
            *byte ^= if index % 8 < 4 { 0xC0 } else { 0x00 };
        }
        let left = one_way(&changed, serial);

        let mut key = Material::zeroed(Self::KEY_LEN_BYTES);
        let (left_half, right_half) = key.expose_bytes_mut().split_at_mut(8);
        left_half.copy_from_slice(left.expose_bytes());
        right_half.copy_from_slice(right.expose_bytes());
        key
    }
}

/// One half of the key generation: `DES(left, data ^ right) ^ right`.
fn one_way(parent: &Material, data: [u8; 8]) -> Material {
    // The generation is a computation with the halves of the key; both copies are wiped here.
    let (left, right) = parent.expose_bytes().split_at(8);
    let left: &[u8; 8] = left.try_into().expect("keys of this family have 16 bytes");
    let add_right = |block: &mut [u8; 8]| {
        for (byte, right) in block.iter_mut().zip(right) {
            *byte ^= right;
        }
    };
    let mut block = Zeroizing::new(data);
    add_right(&mut block);
    Des::new(left).encrypt_block(&mut block);
    add_right(&mut block);
    Material::copied_from(&*block)
}

/// The variant of a transaction key for a usage: one octet of each half complemented (A.4.1).
fn variant<U: TdesVariant>(transaction_key: &Material) -> Key<U> {
    let mut key = Material::copied_from(transaction_key.expose_bytes());
    for half in key.expose_bytes_mut().chunks_mut(8) {
        half[U::MASK_OCTET] ^= 0xFF;
    }
    typed(Algorithm::Tdes2, key)
}

fn typed<U: Usage>(algorithm: Algorithm, material: Material) -> Key<U> {
    Key::from_material(algorithm, material).expect("the family fixes the length of its keys")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dukpt::{AesInitialKey, KeyKind, TdesInitialKey};
    use crate::key::usage::InitialDukpt;

    const KEY: [u8; 16] = *b"0123456789abcdef";

    fn host_key(algorithm: Algorithm, bytes: &[u8]) -> Key<InitialDukpt> {
        typed(algorithm, Material::copied_from(bytes))
    }

    fn aes_pair(key: &[u8; 16]) -> (Engine, AesInitialKey) {
        let id = AesInitialKeyId::new([1, 2, 3, 4], [5, 6, 7, 8]);
        let engine = Engine::load_aes(&Material::copied_from(key), id).unwrap();
        (engine, AesInitialKey::new(host_key(Algorithm::Aes128, key), id).unwrap())
    }

    fn tdes_pair(key: &[u8; 16]) -> (Engine, TdesInitialKey) {
        let id = TdesInitialKeyId::new([0xFF, 0xFF, 0x98, 0x76, 0x54], 0x1234).unwrap();
        let engine = Engine::load_tdes(&Material::copied_from(key), id).unwrap();
        (engine, TdesInitialKey::new(host_key(Algorithm::Tdes2, key), id).unwrap())
    }

    fn same<U: Usage>(ours: &Key<U>, hosts: &Key<U>) {
        assert_eq!(ours.expose_bytes(), hosts.expose_bytes());
    }

    fn agree_aes(keys: &TransactionKeys, host: &AesInitialKey) {
        let Ksn::Aes(ksn) = keys.ksn else { panic!("an AES KSN") };
        same(&keys.pin, &host.working_key(&ksn, KeyKind::Aes128).unwrap());
        same(&keys.mac_request, &host.working_key(&ksn, KeyKind::Aes128).unwrap());
        same(&keys.mac_response, &host.working_key(&ksn, KeyKind::Aes128).unwrap());
    }

    fn agree_tdes(keys: &TransactionKeys, host: &TdesInitialKey) {
        let Ksn::Tdes(ksn) = keys.ksn else { panic!("a TDES KSN") };
        same(&keys.pin, &host.working_key(&ksn).unwrap());
        same(&keys.mac_request, &host.working_key(&ksn).unwrap());
        same(&keys.mac_response, &host.working_key(&ksn).unwrap());
    }

    /// Puts a terminal at a counter, with the one register that it then needs.
    fn at_counter(engine: Engine, counter: u32, keys: &dyn Fn(u32) -> Material) -> Engine {
        // The registers at a counter hold the keys of the counters that follow its prefixes.
        fn registers<F: Family>(
            counter: u32,
            key: &dyn Fn(u32) -> Material,
        ) -> Vec<Option<Material>> {
            (0..F::REGISTERS)
                .map(|bit| {
                    let (above, this) = (u64::from(counter) >> bit, 1_u64 << bit);
                    let prefix = (above | 1) << bit;
                    let pending = above & 1 == 0 || u64::from(counter) % this == 0;
                    let usable = prefix.count_ones() <= F::WEIGHT_MAX;
                    let prefix = u32::try_from(prefix).unwrap();
                    (pending && usable).then(|| key(prefix))
                })
                .collect()
        }
        let next = u64::from(counter);
        Engine(match engine.0 {
            Kind::Aes(old) => {
                let kept = registers::<AesFamily>(counter, keys);
                let family = AesFamily { id: old.family().id };
                Kind::Aes(Registers::resume(family, next, kept).unwrap())
            }
            Kind::Tdes(old) => {
                let kept = registers::<TdesFamily>(counter, keys);
                let family = TdesFamily { id: old.family().id };
                Kind::Tdes(Registers::resume(family, next, kept).unwrap())
            }
        })
    }

    #[test]
    fn aes_agrees_with_the_host_from_the_first_counter_on() {
        let (mut engine, host) = aes_pair(&KEY);
        for counter in 1..=2_048 {
            let ksn = engine.next_ksn().unwrap();
            let keys = engine.next_transaction().unwrap();
            assert_eq!(keys.ksn, ksn);
            assert_eq!(ksn.bytes()[8..], u32::to_be_bytes(counter));
            agree_aes(&keys, &host);
        }
    }

    #[test]
    fn aes_has_the_hosts_update_key_at_every_counter() {
        let (engine, host) = aes_pair(&KEY);
        let expected = host.update_key(KeyKind::Aes128).unwrap();
        let family = AesFamily { id: host.id() };
        let initial = Material::copied_from(&KEY);
        let mut engine = engine;
        for counter in [1, 2, 0x7FFF_0001, 0x8000_0000, 0xC000_0001, 0xFFFE_8000, 0xFFFF_0000] {
            engine = at_counter(engine, counter, &|counter| walk(&family, &initial, counter));
            same(&engine.update_key().unwrap().expect("AES has one"), &expected);
            let update = engine.next_update().unwrap().expect("AES has one");
            agree_aes(&update.keys, &host);
            let Ksn::Aes(ksn) = update.keys.ksn else { panic!("an AES KSN") };
            assert_eq!(ksn.counter(), counter);
            same(&update.derivation, &host.working_key(&ksn, KeyKind::Aes128).unwrap());
        }
        assert!(engine.update_key().is_err() && engine.next_update().is_err(), "none is left");
        let (mut tdes, _) = tdes_pair(&KEY);
        assert!(tdes.update_key().unwrap().is_none() && tdes.next_update().unwrap().is_none());
    }

    #[test]
    fn tdes_agrees_with_the_host_through_the_first_skips() {
        let (mut engine, host) = tdes_pair(&KEY);
        let mut last = 0;
        for _ in 0..6_000 {
            let keys = engine.next_transaction().unwrap();
            agree_tdes(&keys, &host);
            let Ksn::Tdes(ksn) = keys.ksn else { panic!("a TDES KSN") };
            let skipped = last + 1..ksn.counter();
            assert!(skipped.clone().all(|counter| counter.count_ones() > 10));
            last = ksn.counter();
        }
        assert!(last > 6_000, "7FF and others with eleven one bits were skipped");
    }

    /// ANSI X9.24-1:2009, A.4: the whole life of a terminal has 1,048,575 transactions.
    #[test]
    fn tdes_visits_every_usable_counter_once() {
        struct Counting;
        impl Family for Counting {
            const REGISTERS: u8 = 21;
            const WEIGHT_MAX: u32 = 10;
            fn child(&self, parent: &Material, counter: u32) -> Material {
                // The "key" is its own counter: a child follows from its parent alone.
                let parent = parent.expose_bytes();
                let parent = u32::from_be_bytes(parent.try_into().unwrap());
                assert_eq!(parent | (counter ^ parent), counter);
                assert_eq!((counter ^ parent).count_ones(), 1);
                Material::copied_from(&counter.to_be_bytes())
            }
        }
        let mut registers = Registers::load(Counting, &Material::zeroed(4));
        let mut visited = 0_u32;
        let mut last = 0;
        while let Ok((counter, key)) = registers.take() {
            assert_eq!(key.expose_bytes(), counter.to_be_bytes());
            assert!(counter > last && counter.count_ones() <= 10);
            last = counter;
            visited += 1;
        }
        assert_eq!((visited, last), (1_048_575, TdesKsn::COUNTER_MAX));
        assert_eq!(registers.peek(), Err(CountersExhausted));
        assert!(registers.keys().iter().all(Option::is_none), "nothing is left of the key set");
    }

    #[test]
    fn a_used_register_is_empty() {
        let (mut engine, _) = aes_pair(&KEY);
        for _ in 0..100 {
            let before = engine.next_ksn().unwrap();
            drop(engine.next_transaction().unwrap());
            assert_ne!(engine.next_ksn().unwrap(), before);
        }
        let Kind::Aes(registers) = engine.kind() else { panic!("an AES engine") };
        let empty = registers.keys().iter().enumerate().filter(|(_, key)| key.is_none());
        let empty: Vec<usize> = empty.map(|(bit, _)| bit).collect();
        assert_eq!(empty, [2, 5, 6], "the bits of 101 above its lowest");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn both_agree_with_the_host_anywhere(
            key: [u8; 16],
            aes_counter in 1..AesKsn::COUNTER_MAX,
            tdes_counter in 1..TdesKsn::COUNTER_MAX,
        ) {
            let (engine, host) = aes_pair(&key);
            let start = heavier_bits_dropped(aes_counter, AesKsn::COUNTER_WEIGHT_MAX);
            let family = AesFamily { id: host.id() };
            let initial = Material::copied_from(&key);
            let walk = |counter: u32| walk(&family, &initial, counter);
            let mut engine = at_counter(engine, start, &walk);
            for _ in 0..40 {
                match engine.next_transaction() {
                    Ok(keys) => agree_aes(&keys, &host),
                    Err(CountersExhausted) => break,
                }
            }

            let (engine, host) = tdes_pair(&key);
            let start = heavier_bits_dropped(tdes_counter, TdesKsn::COUNTER_WEIGHT_MAX);
            let family = TdesFamily { id: host.id() };
            let walk = |counter: u32| self::walk(&family, &initial, counter);
            let mut engine = at_counter(engine, start, &walk);
            for _ in 0..40 {
                match engine.next_transaction() {
                    Ok(keys) => agree_tdes(&keys, &host),
                    Err(CountersExhausted) => break,
                }
            }
        }
    }

    fn walk<F: Family>(family: &F, initial: &Material, counter: u32) -> Material {
        let mut key = Material::copied_from(initial.expose_bytes());
        let mut reached = 0;
        for bit in (0..32).rev().filter(|bit| counter & 1 << bit != 0) {
            reached |= 1 << bit;
            key = family.child(&key, reached);
        }
        key
    }

    fn heavier_bits_dropped(mut counter: u32, weight_max: u32) -> u32 {
        while counter.count_ones() > weight_max {
            counter &= counter - 1;
        }
        counter
    }
}
