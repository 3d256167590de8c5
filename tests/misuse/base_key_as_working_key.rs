// error: E0277
// names: WorkingUsage
//! No transaction derives a base derivation key.

use firstkey::dukpt::{AesInitialKey, AesKsn, KeyKind};
use firstkey::key::usage::BaseDerivation;

fn derive(initial: &AesInitialKey, ksn: &AesKsn) {
    let _ = initial.working_key::<BaseDerivation>(ksn, KeyKind::Aes128);
}

fn main() {}
