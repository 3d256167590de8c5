// error: E0624
// names: expose_bytes
//! What a key is stays inside the library.

use firstkey::key::Key;
use firstkey::key::usage::Mac;

fn bytes(key: &Key<Mac>) -> &[u8] {
    key.expose_bytes()
}

fn main() {}
