// error: E0277
// names: Display
//! A key has no text.

use firstkey::key::Key;
use firstkey::key::usage::Mac;

fn print(key: &Key<Mac>) {
    println!("{key}");
}

fn main() {}
