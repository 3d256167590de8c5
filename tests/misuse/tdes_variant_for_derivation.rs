// error: E0277
// names: TdesVariant
//! TDES DUKPT has no variant that derives keys.

use firstkey::dukpt::{TdesInitialKey, TdesKsn};
use firstkey::key::usage::WorkingKeyDerivation;

fn derive(initial: &TdesInitialKey, ksn: &TdesKsn) {
    let _ = initial.working_key::<WorkingKeyDerivation>(ksn);
}

fn main() {}
