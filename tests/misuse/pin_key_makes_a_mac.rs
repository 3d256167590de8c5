// error: E0599
// names: generate_mac
//! A PIN key makes no MAC: an answer would be an encryption of a chosen block.

use firstkey::key::Key;
use firstkey::key::usage::PinEncryption;
use firstkey::mac::MacAlgorithm;

fn mac(key: &Key<PinEncryption>) {
    let _ = key.generate_mac(MacAlgorithm::AesCmac, b"message", 8);
}

fn main() {}
