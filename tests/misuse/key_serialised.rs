// error: E0277
// names: Serialize
//! A key at rest or in flight is a key block.

use firstkey::key::Key;
use firstkey::key::usage::Mac;

fn serialised<T: serde::Serialize>() {}

fn main() {
    serialised::<Key<Mac>>();
}
