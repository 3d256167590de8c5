// error: E0308
// names: PinEncryption
//! A MAC key enciphers no PIN block.

use firstkey::key::Key;
use firstkey::key::usage::Mac;
use firstkey::pin::Translation;

fn receive_under<'a>(translation: &mut Translation<'a>, key: &'a Key<Mac>) {
    translation.inbound = key;
}

fn main() {}
