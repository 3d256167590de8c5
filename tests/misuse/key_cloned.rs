// error: E0277
// names: Clone
//! A key has one owner, who wipes it.

use firstkey::key::Key;
use firstkey::key::usage::Mac;

fn cloned<T: Clone>() {}

fn main() {
    cloned::<Key<Mac>>();
}
