//! What a key may do: the closed list of usages, each a type without values.
//!
//! A DUKPT usage is named from the terminal's side: with `MacGeneration` the terminal made the
//! MAC that the host checks.

/// What a key may do. Sealed: the list is closed and lives in this file.
pub trait Usage: sealed::Sealed + Send + Sync + 'static {
    /// The name that `Debug` of a key prints.
    const NAME: &'static str;
}

/// A usage that a stored key can have.
pub trait StoredUsage: Usage {
    /// Its codes in a key block header (ANSI X9.143, 6.3.1).
    const CODES: &'static [[u8; 2]];
}

/// A usage for which AES DUKPT derives working keys.
pub trait WorkingUsage: Usage {
    /// The key usage indicator of the derivation data (ANSI X9.24-3:2017, 6.3.2).
    const INDICATOR: u16;
}

/// A usage for which TDES DUKPT has a variant of the transaction key (ANSI X9.24-1:2009, A.4.1).
pub trait TdesVariant: WorkingUsage {
    /// The octet of each half of the transaction key, counted from 0, that is exclusive-ored
    /// with FF.
    const MASK_OCTET: usize;
    /// Whether the variant then encrypts its own halves, as data keys do.
    const ONE_WAY: bool;
}

/// A usage whose keys generate and verify MACs.
///
/// Both for each of them: what the terminal generates, the host verifies with the same key.
pub trait MacUsage: Usage {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! usages {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}
        impl sealed::Sealed for $name {}
        impl Usage for $name {
            const NAME: &'static str = stringify!($name);
        }
    )+};
}

usages! {
    /// Base derivation key (BDK): derives initial keys.
    BaseDerivation;
    /// Encrypts and decrypts data.
    DataBoth;
    /// Decrypts, at the terminal, data of a response.
    DataDecryption;
    /// Encrypts, at the terminal, data of a request.
    DataEncryption;
    /// Initial DUKPT key (IK): derives working keys.
    InitialDukpt;
    /// Key block protection key (KBPK): wraps keys as key blocks.
    KeyBlockProtection;
    /// Derives keys: the terminal master key of a terminal without a device certificate.
    KeyDerivation;
    /// Key encryption key (KEK): wraps keys for a partner.
    KeyEncryption;
    /// Generates and verifies MACs; stored.
    Mac;
    /// Generates and verifies MACs in both directions; derived.
    MacBoth;
    /// Generates, at the terminal, the MAC of a request.
    MacGeneration;
    /// Verifies, at the terminal, the MAC of a response.
    MacVerification;
    /// PIN encryption key (PEK): enciphers and deciphers PIN blocks.
    PinEncryption;
    /// Derives keys; derived by DUKPT itself.
    WorkingKeyDerivation;
    /// Wraps keys for the terminal; derived by DUKPT.
    WorkingKeyEncryption;
}

macro_rules! stored {
    ($($name:ident: $($code:literal)+;)+) => {$(
        impl StoredUsage for $name {
            const CODES: &'static [[u8; 2]] = &[$(*$code),+];
        }
    )+};
}

stored! {
    BaseDerivation: b"B0";
    DataBoth: b"D0";
    InitialDukpt: b"B1";
    KeyBlockProtection: b"K1";
    KeyDerivation: b"B3";
    KeyEncryption: b"K0";
    // Retail and CBC-MAC of ISO 9797-1 algorithms 1 and 3, CMAC, HMAC.
    Mac: b"M1" b"M3" b"M6" b"M7";
    PinEncryption: b"P0";
}

macro_rules! working {
    ($($name:ident: $indicator:literal;)+) => {$(
        impl WorkingUsage for $name {
            const INDICATOR: u16 = $indicator;
        }
    )+};
}

working! {
    DataBoth: 0x3002;
    DataDecryption: 0x3001;
    DataEncryption: 0x3000;
    MacBoth: 0x2002;
    MacGeneration: 0x2000;
    MacVerification: 0x2001;
    PinEncryption: 0x1000;
    WorkingKeyDerivation: 0x8000;
    WorkingKeyEncryption: 0x0002;
}

macro_rules! tdes_variants {
    ($($name:ident: $mask_octet:literal, $one_way:literal;)+) => {$(
        impl TdesVariant for $name {
            const MASK_OCTET: usize = $mask_octet;
            const ONE_WAY: bool = $one_way;
        }
    )+};
}

// A key that serves both ways has the variant of the request.
tdes_variants! {
    DataBoth: 5, true;
    DataDecryption: 3, true;
    DataEncryption: 5, true;
    MacBoth: 6, false;
    MacGeneration: 6, false;
    MacVerification: 4, false;
    PinEncryption: 7, false;
}

macro_rules! mac_usages {
    ($($name:ident)+) => {$(impl MacUsage for $name {})+};
}

mac_usages! { Mac MacBoth MacGeneration MacVerification }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_means_two_usages() {
        let codes = [
            BaseDerivation::CODES,
            DataBoth::CODES,
            InitialDukpt::CODES,
            KeyBlockProtection::CODES,
            KeyDerivation::CODES,
            KeyEncryption::CODES,
            Mac::CODES,
            PinEncryption::CODES,
        ]
        .concat();
        for (index, code) in codes.iter().enumerate() {
            assert!(!codes[index + 1..].contains(code));
        }
    }
}
