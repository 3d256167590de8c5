//! Records: what the vault keeps, each sealed under its own id and version.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The kind of a record: a short lower-case word, the first part of its address in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(&'static str);

impl Kind {
    /// Names a kind. A word that is not of `a` to `z` and `_` does not compile in a constant.
    #[must_use]
    pub const fn new(word: &'static str) -> Self {
        let bytes = word.as_bytes();
        assert!(!bytes.is_empty(), "a kind has a name");
        let mut place = 0;
        while place < bytes.len() {
            assert!(
                bytes[place].is_ascii_lowercase() || bytes[place] == b'_',
                "a kind is a lower-case word"
            );
            place += 1;
        }
        Self(word)
    }

    /// The word as it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
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
