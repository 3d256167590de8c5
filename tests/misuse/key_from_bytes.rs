// error: E0624
// names: copied_from
//! Bytes become a key inside the library alone: out of a key block, a derivation or a ceremony.

use firstkey::key::usage::Mac;
use firstkey::key::{Algorithm, Key, Material};

fn main() {
    let _ = Key::<Mac>::from_material(Algorithm::Aes128, Material::copied_from(&[1; 16]));
}
