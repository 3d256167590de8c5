// error: E0599
// names: generate_mac
//! An initial DUKPT key derives and does nothing else.

use firstkey::key::Key;
use firstkey::key::usage::InitialDukpt;
use firstkey::mac::MacAlgorithm;

fn mac(key: &Key<InitialDukpt>) {
    let _ = key.generate_mac(MacAlgorithm::AesCmac, b"message", 8);
}

fn main() {}
