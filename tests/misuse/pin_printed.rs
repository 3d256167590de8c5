// error: E0277
// names: Pin
//! A PIN has no text at all.

use firstkey::pin::Pin;

fn print(pin: &Pin) {
    println!("{pin:?}");
}

fn main() {}
