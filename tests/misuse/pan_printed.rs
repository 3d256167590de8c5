// error: E0277
// names: Display
//! A PAN has no text; `Debug` masks it.

use firstkey::pin::Pan;

fn print(pan: &Pan) {
    println!("{pan}");
}

fn main() {}
