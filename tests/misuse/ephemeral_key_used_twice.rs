// error: E0382
// names: agree
//! An ephemeral key agrees once.

use firstkey::crypto::ec::{EphemeralKey, Point};

fn agree(key: EphemeralKey, one: &Point, other: &Point) {
    let _ = key.agree(one);
    let _ = key.agree(other);
}

fn main() {}
