// error: E0277
// names: Sealed
//! The list of usages is closed.

use firstkey::key::usage::{MacUsage, Usage};

enum Anything {}

impl Usage for Anything {
    const NAME: &'static str = "Anything";
}

impl MacUsage for Anything {}

fn main() {}
