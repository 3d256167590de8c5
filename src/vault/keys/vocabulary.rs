//! The words that describe a stored key, each with its code in a key block header.
//!
//! See ANSI X9.143:2021, 6.3.

use serde::{Deserialize, Serialize};

use crate::key::Algorithm;

/// Declares an enum whose values have a text, by which they are stored.
macro_rules! words {
    (
        $(#[$doc:meta])* $name:ident;
        $($(#[$value_doc:meta])* $value:ident = $code:literal,)*
    ) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub enum $name {
            $($(#[$value_doc])* #[serde(rename = $code)] $value,)*
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$value,)*];

            /// The code or word, as headers, records and events have it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $code,)*
                }
            }
        }
    };
}

words! {
    /// What a key is for: its usage code (6.3.2).
    KeyUsage;
    /// Base derivation key of DUKPT.
    BaseDerivation = "B0",
    /// Initial DUKPT key; never stored.
    InitialDukpt = "B1",
    /// Derives keys, not by X9.24.
    KeyDerivation = "B3",
    /// Data encryption.
    DataEncryption = "D0",
    /// Key encryption.
    KeyEncryption = "K0",
    /// Key block protection.
    KeyBlockProtection = "K1",
    /// MAC, ISO 9797-1 algorithm 1.
    MacAlgorithm1 = "M1",
    /// MAC, ISO 9797-1 algorithm 3.
    MacAlgorithm3 = "M3",
    /// MAC, CMAC.
    MacCmac = "M6",
    /// MAC, HMAC.
    MacHmac = "M7",
    /// PIN encryption.
    PinEncryption = "P0",
}

words! {
    /// What a key may do within its usage (6.3.4).
    ModeOfUse;
    /// Encrypt and decrypt, wrap and unwrap.
    EncryptAndDecrypt = "B",
    /// Generate and verify a MAC.
    GenerateAndVerify = "C",
    /// Decrypt or unwrap only.
    Decrypt = "D",
    /// Encrypt or wrap only.
    Encrypt = "E",
    /// Generate a MAC only.
    Generate = "G",
    /// No restriction other than the usage.
    NoRestriction = "N",
    /// Verify a MAC only.
    Verify = "V",
    /// Derive other keys.
    Derive = "X",
}

words! {
    /// Where a key may go (6.3.6).
    Exportability;
    /// Exportable under a wrapping key at least as strong.
    Exportable = "E",
    /// Never leaves.
    NonExportable = "N",
    /// Sensitive: treated as never.
    Sensitive = "S",
}

words! {
    /// Where a key came from.
    Origin;
    /// Out of components, in a ceremony.
    Ceremony = "CEREMONY",
    /// Made here.
    Generated = "GENERATED",
    /// In a key block.
    Imported = "IMPORTED",
}

words! {
    /// When a spent counter becomes durable.
    LedgerPolicy;
    /// Before the answer leaves.
    Strict = "STRICT",
}

impl KeyUsage {
    /// The two octets in a header.
    #[must_use]
    pub fn code(self) -> [u8; 2] {
        *self.as_str().as_bytes().first_chunk().expect("a code has two letters")
    }

    /// Finds the usage of a code.
    #[must_use]
    pub fn from_code(code: [u8; 2]) -> Option<Self> {
        Self::ALL.iter().copied().find(|usage| usage.code() == code)
    }

    /// Whether a key of this usage may have this algorithm: the rows of the standard that the
    /// service uses. Algorithms 1 and 3 of ISO 9797-1 are for TDES, algorithm 3 with two keys, and
    /// DUKPT under TDES begins with two (ANSI X9.24-1:2009, 7).
    #[must_use]
    pub const fn permits(self, algorithm: Algorithm) -> bool {
        match self {
            Self::MacHmac => algorithm.is_hmac(),
            Self::MacAlgorithm1 => algorithm.is_tdes(),
            Self::MacAlgorithm3 => matches!(algorithm, Algorithm::Tdes2),
            Self::BaseDerivation | Self::InitialDukpt => {
                algorithm.is_aes() || matches!(algorithm, Algorithm::Tdes2)
            }
            Self::KeyDerivation
            | Self::DataEncryption
            | Self::KeyEncryption
            | Self::KeyBlockProtection
            | Self::MacCmac
            | Self::PinEncryption => algorithm.is_aes() || algorithm.is_tdes(),
        }
    }

    /// The modes of use that a key of this usage may have; the first is the usual one.
    #[must_use]
    pub const fn modes(self) -> &'static [ModeOfUse] {
        use ModeOfUse::{
            Decrypt, Derive, Encrypt, EncryptAndDecrypt, Generate, GenerateAndVerify,
            NoRestriction, Verify,
        };
        match self {
            Self::BaseDerivation | Self::InitialDukpt | Self::KeyDerivation => {
                &[Derive, NoRestriction]
            }
            Self::DataEncryption
            | Self::KeyEncryption
            | Self::KeyBlockProtection
            | Self::PinEncryption => &[EncryptAndDecrypt, Decrypt, Encrypt, NoRestriction],
            Self::MacAlgorithm1 | Self::MacAlgorithm3 | Self::MacCmac | Self::MacHmac => {
                &[GenerateAndVerify, Generate, Verify, NoRestriction]
            }
        }
    }
}

impl ModeOfUse {
    /// The octet in a header.
    #[must_use]
    pub fn letter(self) -> u8 {
        self.as_str().as_bytes()[0]
    }

    /// Finds the mode of a letter.
    #[must_use]
    pub fn from_letter(letter: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|mode| mode.letter() == letter)
    }
}

impl Exportability {
    /// The octet in a header.
    #[must_use]
    pub fn letter(self) -> u8 {
        self.as_str().as_bytes()[0]
    }

    /// Finds the exportability of a letter.
    #[must_use]
    pub fn from_letter(letter: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.letter() == letter)
    }

    /// Takes what a caller asks for, if it is not looser than this. `N` and `S` are equally tight.
    #[must_use]
    pub fn tightened_to(self, asked: Self) -> Option<Self> {
        (asked != Self::Exportable || self == Self::Exportable).then_some(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_values_name_each_other() {
        for usage in KeyUsage::ALL {
            assert_eq!(KeyUsage::from_code(usage.code()), Some(*usage));
        }
        for mode in ModeOfUse::ALL {
            assert_eq!(ModeOfUse::from_letter(mode.letter()), Some(*mode));
        }
        assert_eq!(KeyUsage::from_code(*b"M0"), None);
        assert_eq!(ModeOfUse::from_letter(b'S'), None);
    }

    #[test]
    fn exportability_only_tightens() {
        for from in Exportability::ALL {
            for to in Exportability::ALL {
                let looser = *from != Exportability::Exportable && *to == Exportability::Exportable;
                assert_eq!(from.tightened_to(*to).is_none(), looser, "{from:?} {to:?}");
            }
        }
    }
}
