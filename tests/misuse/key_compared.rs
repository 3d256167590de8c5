// error: E0369
// names: does not implement `PartialEq`
//! Keys are compared by check value; `==` would take a time that depends on the secret.

use firstkey::key::Key;
use firstkey::key::usage::Mac;

fn same(one: &Key<Mac>, other: &Key<Mac>) -> bool {
    one == other
}

fn main() {}
