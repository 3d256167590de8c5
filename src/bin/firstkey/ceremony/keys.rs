//! What a terminal sends, understood as keys (ECMA-48, 5.4; xterm's bracketed paste).
//!
//! Read here and not by a library: what is typed may be a component, and this way it stands in one
//! buffer of fixed size that is wiped octet by octet.

use firstkey::guide::Key;
use zeroize::Zeroize as _;

/// What an octet means depends on those before it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// A key begins.
    #[default]
    Plain,
    /// ESC was read.
    Escaped,
    /// ESC O was read: one octet more.
    Single,
    /// ESC [ and so many digits were read, of which those of a paste are known.
    Sequence { number: u16 },
    /// Between the beginning of a paste and its end, of which so many octets were read.
    Pasting { matched: usize },
}

/// What octets turn out to be.
#[derive(PartialEq, Eq)]
pub(super) enum Read {
    /// A key.
    Key(Key),
    /// Ctrl-C.
    Interrupt,
}

/// Octets that were read, and the key that is being understood.
pub(super) struct Keys {
    octets: [u8; Self::LEN_BYTES],
    begin: usize,
    end: usize,
    state: State,
}

/// The end of a paste.
const PASTE_END: &[u8] = b"\x1b[201~";
/// Its beginning is `ESC [ 200 ~`.
const PASTE_BEGIN: u16 = 200;

impl Keys {
    /// Octets that are read at once.
    const LEN_BYTES: usize = 64;
    /// Nobody types so many keys between two looks: a terminal that does not know about pasting.
    const TYPED_AT_ONCE_MAX: usize = 16;

    pub(super) const fn new() -> Self {
        Self { octets: [0; Self::LEN_BYTES], begin: 0, end: 0, state: State::Plain }
    }

    /// Where to read to; only when no key is left.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.octets.zeroize();
        (self.begin, self.end) = (0, 0);
        &mut self.octets
    }

    /// So many octets were read.
    pub(super) fn filled(&mut self, len_bytes: usize) -> Option<Read> {
        let read = self.octets.get(..len_bytes).unwrap_or_default();
        // What a marked paste is made of counts as nothing here.
        let before_escape = read.iter().take_while(|octet| **octet != ESCAPE);
        let typed = before_escape.filter(|octet| (b' '..=b'~').contains(*octet)).count();
        if self.state == State::Plain && typed >= Self::TYPED_AT_ONCE_MAX {
            let _ = self.room();
            return Some(Read::Key(Key::Paste));
        }
        self.end = len_bytes.min(Self::LEN_BYTES);
        None
    }

    /// The next key of what was read.
    pub(super) fn next(&mut self) -> Option<Read> {
        while self.begin < self.end {
            let octet = self.octets.get_mut(self.begin)?;
            let taken = *octet;
            octet.zeroize();
            self.begin += 1;
            if let Some(read) = self.take(taken) {
                return Some(read);
            }
        }
        None
    }

    /// Nothing more came: an ESC stands for itself.
    pub(super) fn silence(&mut self) -> Option<Read> {
        if matches!(self.state, State::Escaped | State::Single | State::Sequence { .. }) {
            self.state = State::Plain;
            return Some(Read::Key(Key::Other));
        }
        None
    }

    fn take(&mut self, octet: u8) -> Option<Read> {
        if octet == INTERRUPT {
            self.state = State::Plain;
            return Some(Read::Interrupt);
        }
        let (state, key) = match self.state {
            State::Plain => match octet {
                b' '..=b'~' => (State::Plain, Some(Key::Character(octet))),
                b'\r' | b'\n' => (State::Plain, Some(Key::Enter)),
                0x08 | 0x7f => (State::Plain, Some(Key::Erase)),
                ESCAPE => (State::Escaped, None),
                _ => (State::Plain, Some(Key::Other)),
            },
            State::Escaped => match octet {
                b'[' => (State::Sequence { number: 0 }, None),
                b'O' => (State::Single, None),
                ESCAPE => (State::Escaped, Some(Key::Other)),
                _ => (State::Plain, Some(Key::Other)),
            },
            State::Single => (State::Plain, Some(Key::Other)),
            State::Sequence { number } => match octet {
                b'0'..=b'9' => {
                    let digit = u16::from(octet - b'0');
                    let number = number.saturating_mul(10).saturating_add(digit);
                    (State::Sequence { number }, None)
                }
                b'~' if number == PASTE_BEGIN => (State::Pasting { matched: 0 }, Some(Key::Paste)),
                b'@'..=b'~' => (State::Plain, Some(Key::Other)),
                _ => (State::Sequence { number: u16::MAX }, None),
            },
            State::Pasting { matched } => {
                let matched = if PASTE_END.get(matched) == Some(&octet) {
                    matched + 1
                } else {
                    usize::from(octet == ESCAPE)
                };
                let ended = matched == PASTE_END.len();
                (if ended { State::Plain } else { State::Pasting { matched } }, None)
            }
        };
        self.state = state;
        key.map(Read::Key)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.octets.zeroize();
    }
}

const ESCAPE: u8 = 0x1b;
const INTERRUPT: u8 = 0x03;

#[cfg(test)]
mod tests {
    use super::*;

    /// What octets are, each read a part of its own; `I` is an interruption.
    fn read(reads: &[&[u8]]) -> String {
        let mut keys = Keys::new();
        let mut found = String::new();
        let mut tell = |read: &Read| {
            found.push(match read {
                Read::Interrupt => 'I',
                Read::Key(Key::Character(letter)) => char::from(*letter),
                Read::Key(Key::Enter) => '\n',
                Read::Key(Key::Erase) => '<',
                Read::Key(Key::Paste) => 'P',
                Read::Key(Key::Other) => '?',
            });
        };
        for octets in reads {
            keys.room()[..octets.len()].copy_from_slice(octets);
            if let Some(read) = keys.filled(octets.len()) {
                tell(&read);
            }
            while let Some(read) = keys.next() {
                tell(&read);
            }
        }
        if let Some(read) = keys.silence() {
            tell(&read);
        }
        assert!(keys.octets.iter().all(|octet| *octet == 0), "nothing is left behind");
        found
    }

    #[test]
    fn keys_are_what_a_terminal_sends_for_them() {
        assert_eq!(read(&[b"a1 \x7f\x08\r\n\x03\t\x1a\x1c"]), "a1 <<\n\nI???");
        // Arrows, Delete, F1, Alt-x, and an ESC alone.
        assert_eq!(read(&[b"\x1b[A\x1b[3~\x1bOPx", b"\x1bx", b"y\x1b"]), "???x?y?");
        assert_eq!(read(&[b"\x1b", b"[", b"A", b"b"]), "?b");
        assert_eq!(read(&[&[0xc3, 0xa9]]), "??");
    }

    #[test]
    fn what_is_pasted_is_seen_by_nobody() {
        assert_eq!(read(&[b"1\x1b[200~4F2A\r\x1b[201~2"]), "1P2");
        assert_eq!(read(&[b"\x1b[200~4F", b"2A\x1b", b"[201", b"~7"]), "P7");
        assert_eq!(read(&[b"\x1b[200~\x1b\x1b[201~7"]), "P7");
        assert_eq!(read(&[b"\x1b[200~4F\x03", b"7"]), "PI7");
    }

    #[test]
    fn what_nobody_types_at_once_is_pasted() {
        assert_eq!(read(&[b"0123456789ABCDE"]), "0123456789ABCDE");
        assert_eq!(read(&[b"0123456789ABCDEF", b"0"]), "P0");
    }
}
