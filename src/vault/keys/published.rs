//! Keys that everybody knows, by their check values: a live realm takes none of them.

use crate::key::usage::KeyBlockProtection;
use crate::key::{Algorithm, Key, Material};
use crate::vault::master::MasterKey;

/// Check values of the keys that standards print as samples, and of the keys for development. Those
/// carry a label in their blocks besides, which is refused in the same place; in a block without it
/// they are the same keys.
pub const PUBLISHED_CHECK_VALUES: &[&str] = &[
    // ANSI X9.24-1:2009, annex A.4: the TDES base derivation key.
    "08D7B4",
    // ANSI X9.24-3:2017, annex B: the AES base derivation keys of 128, 192 and 256 bits.
    "FF0BD7C455",
    "67AAE1AF6D",
    "410EDFCA2A",
    // TR-31:2018, A.7.2.1, A.7.2.2, A.7.3.1, A.7.4: the key block protection keys.
    "D1D812",
    "2F0EEA",
    "F7BAA8",
    "2331550BC9",
    // The keys for development that are no samples of the above, in the order of their file: the
    // master key, dev-kek, -kek-tdes, -bdk-aes, -bdk-tdes, -zone-pin-aes, -zone-pin-tdes, -mac,
    // -master-aes, -master-tdes.
    "22D1F2AE0C",
    "D4BA600F4E",
    "953AE7",
    "B0D93CCABC",
    "9AFE75",
    "9270568692",
    "1A065B",
    "3436296062",
    "EACEF98B59",
    "7D5E0C",
    // The components for development, in the order of their file: those of dev-kek, of dev-bdk-aes
    // and of dev-bdk-tdes.
    "6361D330E5",
    "6C9C9711C4",
    "0FD2DEA3D6",
    "597E406BD7",
    "BAC8146A81",
    "0EC5E93BD0",
    "94D712",
    "33C8CD",
    "C63557",
];

/// Whether a key or component of this check value, in upper-case hexadecimals, was published.
#[must_use]
pub fn is_published(check_value: &str) -> bool {
    PUBLISHED_CHECK_VALUES.contains(&check_value)
}

/// Whether a master key was published. Its shares say nothing by which they could be known, as
/// their set id can be written anew; what they give has a check value.
pub(in crate::vault) fn is_published_master_key(master_key: &MasterKey) -> bool {
    let material = master_key.expose_bytes(|bytes| Material::copied_from(bytes));
    let key = Key::<KeyBlockProtection>::from_material(Algorithm::Aes256, material);
    key.is_ok_and(|key| is_published(&key.check_value().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::usage::DataBoth;

    #[test]
    fn the_samples_have_these_check_values() {
        let samples = [
            "0123456789ABCDEFFEDCBA9876543210",
            "FEDCBA9876543210F1F1F1F1F1F1F1F1",
            "FEDCBA9876543210F1F1F1F1F1F1F1F1FEDCBA9876543210",
            "FEDCBA9876543210F1F1F1F1F1F1F1F1FEDCBA9876543210F1F1F1F1F1F1F1F1",
            "89E88CF7931444F334BD7547FC3F380C",
            "B8ED59E0A279A295E9F5ED7944FD06B9",
            "DD7515F2BFC17F85CE48F3CA25CB21F6",
            "88E1AB2A2E3DD38C1FA039A536500CC8A87AB9D62DC92C01058FA79F44657DE6",
        ];
        let aes = [1, 2, 3, 7];
        for (number, (sample, expected)) in samples.iter().zip(PUBLISHED_CHECK_VALUES).enumerate() {
            let octets = data_encoding::HEXUPPER.decode(sample.as_bytes()).unwrap();
            let letter = if aes.contains(&number) { b'A' } else { b'T' };
            let algorithm = Algorithm::from_header(letter, octets.len()).unwrap();
            let material = Material::copied_from(&octets);
            let key = Key::<DataBoth>::from_material(algorithm, material).unwrap();
            let shown = data_encoding::HEXUPPER.encode(key.check_value().bytes());
            assert_eq!(shown, *expected);
            assert!(is_published(&shown));
        }
    }
}
