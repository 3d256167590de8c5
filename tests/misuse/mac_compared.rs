// error: E0369
// names: MacTag
//! A MAC is verified in constant time or not at all.

use firstkey::mac::MacTag;

fn same(one: &MacTag, other: &MacTag) -> bool {
    one == other
}

fn main() {}
