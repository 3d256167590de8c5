//! The static keys of a terminal, each in its slot.

use super::TerminalError;
use super::engine::Engine;
use super::session::{LoadedKey, load};
use crate::activation::payload::{ConfirmedKey, DeliveredKey};
use crate::activation::terminal_key::TerminalKeyUsage;
use crate::agreement::Suite;
use crate::key::usage::StoredUsage;
use crate::key::{Algorithm, CheckValue, Key, Material};
use crate::keyblock::{self, Version, WrappingUsage};

/// A static key in its slot.
pub(super) struct SlotKey {
    pub(super) slot: u32,
    pub(super) usage: TerminalKeyUsage,
    pub(super) algorithm: Algorithm,
    pub(super) material: Material,
}

/// The keys of a delivery.
pub(super) struct Delivered {
    pub(super) engine: Engine,
    pub(super) slots: Vec<SlotKey>,
    pub(super) loaded: Vec<LoadedKey>,
}

impl Delivered {
    /// Opens every block: the initial key in slot 0, the static keys in the slots above it.
    pub(super) fn open<U: WrappingUsage>(
        suite: Suite,
        protection: &Key<U>,
        keys: &[DeliveredKey],
    ) -> Result<Self, TerminalError> {
        let [initial, others @ ..] = keys else {
            return Err(TerminalError::KeyBlock { slot: 0 });
        };
        let (engine, loaded) = load(suite, protection, initial)?;
        let (mut slots, mut loaded) = (Vec::with_capacity(others.len()), vec![loaded]);
        for key in others {
            let opened = SlotKey::open(protection, key)?;
            let check_value = CheckValue::of(opened.algorithm, &opened.material);
            if check_value.bytes() != key.check_value {
                return Err(TerminalError::CheckValue { slot: key.slot });
            }
            loaded.push(LoadedKey { slot: key.slot, check_value, initial_key_id: Vec::new() });
            slots.push(opened);
        }
        Ok(Self { engine, slots, loaded })
    }

    /// What the terminal confirms.
    pub(super) fn confirmed(&self) -> Vec<ConfirmedKey> {
        let confirmed = |key: &LoadedKey| ConfirmedKey {
            slot: key.slot,
            check_value: key.check_value.bytes().to_vec(),
        };
        self.loaded.iter().map(confirmed).collect()
    }
}

impl SlotKey {
    /// Opens a block whose authenticated header says what the delivery says: a key of the usage,
    /// with the mode that the terminal has of it, which never leaves (`N`).
    fn open<U: WrappingUsage>(
        protection: &Key<U>,
        delivered: &DeliveredKey,
    ) -> Result<Self, TerminalError> {
        let slot = delivered.slot;
        let refused = TerminalError::KeyBlock { slot };
        let opened = keyblock::unwrap(protection, &delivered.key_block).map_err(|_| refused)?;
        let usage = TerminalKeyUsage::from_code(delivered.usage).ok_or(refused)?;
        let header = &opened.header;
        let says_so = Version::under(protection.algorithm()) == Some(header.version)
            && header.usage == delivered.usage
            && header.mode == usage.mode()
            && header.exportability == b'N'
            && slot != 0;
        let (algorithm, material) = (opened.algorithm, opened.material);
        if says_so { Ok(Self { slot, usage, algorithm, material }) } else { Err(refused) }
    }
}

impl super::Terminal {
    /// The static key in a slot, where there is one of that usage and it serves.
    #[must_use]
    pub fn slot_key<U: StoredUsage>(&self, slot: u32) -> Option<Key<U>> {
        let is_it = |key: &&SlotKey| key.slot == slot && U::CODES.contains(&key.usage.code());
        let key = self.slots.iter().find(is_it)?;
        // Handed out typed by its usage; the copy is wiped with it.
        let material = Material::copied_from(key.material.expose_bytes());
        Key::from_material(key.algorithm, material).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::rng::SystemRng;
    use crate::key::usage::{KeyBlockProtection, KeyEncryption, Mac, PinEncryption};
    use crate::keyblock::Header;

    /// A key in slot 3, in a block under a new protection key.
    fn delivered(
        algorithm: Algorithm,
        change: impl FnOnce(&mut Header, &mut DeliveredKey),
    ) -> (Key<KeyBlockProtection>, DeliveredKey) {
        let protection =
            Key::<KeyBlockProtection>::generate(Algorithm::Aes256, &SystemRng::new()).unwrap();
        let key = Key::<PinEncryption>::generate(algorithm, &SystemRng::new()).unwrap();
        let mut header = Header::new(Version::D, *b"P0", algorithm.header_letter(), b'E');
        let mut delivered = DeliveredKey {
            slot: 3,
            usage: *b"P0",
            key_block: String::new(),
            initial_key_id: Vec::new(),
            check_value: key.check_value().bytes().to_vec(),
        };
        change(&mut header, &mut delivered);
        let block = keyblock::wrap_key(&protection, &header, &key, &SystemRng::new()).unwrap();
        delivered.key_block = block.to_string();
        (protection, delivered)
    }

    #[test]
    fn a_block_must_say_what_the_delivery_says() {
        type Change = fn(&mut Header, &mut DeliveredKey);
        for algorithm in [Algorithm::Aes128, Algorithm::Tdes2] {
            let (protection, key) = delivered(algorithm, |_, _| ());
            let opened = SlotKey::open(&protection, &key).unwrap();
            assert_eq!((opened.slot, opened.algorithm), (3, algorithm));
            assert_eq!(opened.usage, TerminalKeyUsage::PinEncryption);
        }
        let changes: [Change; 6] = [
            |header, _| header.usage = *b"M6",
            |header, _| header.mode = b'B',
            |header, _| header.exportability = b'E',
            |header, key| (header.usage, key.usage) = (*b"K1", *b"K1"),
            |_, key| key.usage = *b"D0",
            |_, key| key.slot = 0,
        ];
        for change in changes {
            let (protection, key) = delivered(Algorithm::Aes128, change);
            let slot = key.slot;
            let refused = SlotKey::open(&protection, &key).err();
            assert_eq!(refused, Some(TerminalError::KeyBlock { slot }));
        }
        let (_, key) = delivered(Algorithm::Aes128, |_, _| ());
        let (other, _) = delivered(Algorithm::Aes128, |_, _| ());
        assert!(SlotKey::open(&other, &key).is_err(), "another protection key");
    }

    #[test]
    fn every_usage_of_a_slot_is_one_of_a_typed_key() {
        use crate::key::usage::DataBoth;
        let codes = [DataBoth::CODES, KeyEncryption::CODES, Mac::CODES, PinEncryption::CODES];
        for usage in TerminalKeyUsage::ALL {
            assert!(codes.concat().contains(&usage.code()), "{usage:?}");
        }
    }
}
