// error: E0599
// names: aes_initial_key
//! A working key derives no initial keys, though it has the same length.

use firstkey::dukpt::AesInitialKeyId;
use firstkey::key::Key;
use firstkey::key::usage::MacGeneration;

fn derive(key: &Key<MacGeneration>, id: AesInitialKeyId) {
    let _ = key.aes_initial_key(id);
}

fn main() {}
