//! Who has a serial, a master key or an initial key: one small record for each.

use serde::{Deserialize, Serialize};

use crate::vault::{Kind, Record};

/// Which terminal has a serial: one that is not retired.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SerialIndex {
    /// The serial.
    pub serial: String,
    /// The terminal that has it now.
    pub terminal: String,
    /// How many key sets the serial had.
    pub generation: u32,
}

impl Record for SerialIndex {
    const KIND: Kind = Kind::new("serial");

    fn id(&self) -> String {
        self.serial.clone()
    }
}

/// Which device has a master key, for good: whoever had it in another device would open what is
/// delivered to this one. It is found by the key itself, so that another name for it is no way out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MasterKeyIndex {
    /// The keyed hash of the key.
    pub hash: [u8; 32],
    /// The serial of the device.
    pub serial: String,
}

impl Record for MasterKeyIndex {
    const KIND: Kind = Kind::new("terminal_master_key");

    fn id(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.hash)
    }
}

/// Which terminal has an initial key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyIndex {
    /// The version of the base derivation key.
    pub base_derivation_key: String,
    /// The initial key id.
    pub initial_key_id: Vec<u8>,
    /// The terminal.
    pub terminal: String,
}

impl KeyIndex {
    /// The id under which the index of an initial key stands.
    #[must_use]
    pub fn id_of(base_derivation_key: &str, initial_key_id: &[u8]) -> String {
        let hex = data_encoding::HEXUPPER.encode(initial_key_id);
        format!("{base_derivation_key}/{hex}")
    }

    /// What the ids of all indexes below a base derivation key, or a version of it, begin with, and
    /// no others.
    #[must_use]
    pub fn prefix_of(base_derivation_key: &str) -> String {
        Self::id_of(base_derivation_key, &[])
    }
}

impl Record for KeyIndex {
    const KIND: Kind = Kind::new("initial_key");

    fn id(&self) -> String {
        Self::id_of(&self.base_derivation_key, &self.initial_key_id)
    }
}
