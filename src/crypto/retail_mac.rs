//! The retail MAC, ISO 9797-1:2011 MAC algorithm 3, over a message that is already padded.
//!
//! With padding method 1 it is the MAC of ANSI X9.19. Secure only where all messages have one
//! length or begin with their length.

use ::retail_mac::RetailMac;

use super::cbc_mac::{BlockMacError, mac, require_blocks};

/// Computes the MAC: single DES chaining under the left half of the key, then a last triple step.
pub fn retail_mac(key: &[u8; 16], padded: &[u8]) -> Result<[u8; 8], BlockMacError> {
    require_blocks::<8>(padded)?;
    mac::<RetailMac<::des::Des>, 8>(key, padded)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXUPPER;

    use super::*;

    #[test]
    fn agrees_with_the_standard() {
        // ISO 9797-1:2011, annex B.4: "Now is the time for all ", padding method 1.
        let key = HEXUPPER.decode(b"0123456789ABCDEFFEDCBA9876543210").unwrap();
        let key: [u8; 16] = key.try_into().unwrap();
        let tag = retail_mac(&key, b"Now is the time for all ").unwrap();
        assert_eq!(HEXUPPER.encode(&tag[..4]), "A1C72E74");
    }

    #[test]
    fn refuses_empty_and_ragged_messages() {
        assert!(retail_mac(&[1; 16], b"").is_err());
        assert!(retail_mac(&[1; 16], b"seven b").is_err());
    }
}
