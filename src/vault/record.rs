//! Records: what the vault keeps, each sealed under its own id and version.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The kind of a record: a short lower-case word, the first part of its address in the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind([u8; Self::LEN_MAX]);

impl Kind {
    /// The longest word.
    pub const LEN_MAX: usize = 24;

    /// Names a kind. A word that is not of `a` to `z` and `_` does not compile in a constant.
    #[must_use]
    pub const fn new(word: &str) -> Self {
        Self::parse(word).expect("a kind is a short lower-case word")
    }

    /// The kind of a word as it is stored; none where that is not the word of a kind.
    #[must_use]
    pub const fn parse(word: &str) -> Option<Self> {
        let bytes = word.as_bytes();
        if bytes.is_empty() || bytes.len() > Self::LEN_MAX {
            return None;
        }
        // What follows the word is zero, which comes before every letter: kinds have the order of
        // their words.
        let mut kind = [0; Self::LEN_MAX];
        let mut place = 0;
        while place < bytes.len() {
            if !bytes[place].is_ascii_lowercase() && bytes[place] != b'_' {
                return None;
            }
            kind[place] = bytes[place];
            place += 1;
        }
        Some(Self(kind))
    }

    /// The word as it is stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|octet| *octet == 0).unwrap_or(Self::LEN_MAX);
        str::from_utf8(&self.0[..len]).expect("a kind is made of letters")
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Kind({})", self.as_str())
    }
}

/// Something that the vault can keep: serialised as JSON, then sealed.
pub trait Record: Serialize + DeserializeOwned {
    /// Its kind. No two types share one.
    const KIND: Kind;

    /// Its id, unique within its kind, fixed for life.
    fn id(&self) -> String;

    /// A value to list it by. It stands in clear beside the sealed record and is a hint only:
    /// whoever lists by it checks the opened record.
    fn index(&self) -> Option<String> {
        None
    }
}

/// A record with the version under which it was read, which a change of it must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<R> {
    /// The version read; none for a record that is not stored yet.
    pub version: Option<u64>,
    /// The record.
    pub record: R,
}

impl<R> Versioned<R> {
    /// A record that must not be stored yet.
    pub const fn absent(record: R) -> Self {
        Self { version: None, record }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_a_short_lower_case_word_and_kinds_have_the_order_of_their_words() {
        let words = ["a", "ab", "b", "b_a", "ba", "zzzzzzzzzzzzzzzzzzzzzzzz"];
        let kinds = words.map(|word| Kind::parse(word).unwrap());
        assert_eq!(kinds.map(|kind| kind.as_str().to_owned()), words);
        assert!(kinds.is_sorted() && words.is_sorted());
        for wrong in ["", "A", "a1", "a-b", "a b", "\u{e4}", "zzzzzzzzzzzzzzzzzzzzzzzzz"] {
            assert_eq!(Kind::parse(wrong), None, "{wrong}");
        }
    }
}
