//! What the screens need of the outside: a terminal, the clock, files that are named, a printer.

use std::time::Duration;

use zeroize::Zeroizing;

use super::screen::Screen;

/// A key that was pressed. What it is may be secret, so it is not printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A printable ASCII character.
    Character(u8),
    /// Enter.
    Enter,
    /// Backspace.
    Erase,
    /// Something was pasted, which nobody sees: what is on a clipboard has been elsewhere.
    Paste,
    /// Any other key.
    Other,
}

/// The people, or the terminal, went away: Ctrl-C, a signal, a line that was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// The table at which people sit: one terminal, and what belongs to it.
pub trait Table {
    /// Shows a screen in place of the one before.
    fn show(&mut self, screen: &Screen) -> Result<(), Interrupted>;

    /// Waits for a key; none was pressed in that time.
    fn key(&mut self, wait: Duration) -> Result<Option<Key>, Interrupted>;

    /// Forgets the keys that were pressed before now: nobody has answered what was not asked yet.
    fn discard(&mut self);

    /// Makes a sound: a key was refused.
    fn bell(&mut self);

    /// The time, in Unix seconds.
    fn now(&self) -> u64;

    /// Reads a file that somebody named; else why it can not be read.
    fn read(&mut self, path: &str) -> Result<Zeroizing<Vec<u8>>, String>;

    /// Prints a slip, which is secret: a page of plain text, of this name where it becomes a file.
    /// Tells where it went, or else why it was not printed; some of it may have been.
    fn print(&mut self, name: &str, page: &[u8]) -> Result<String, String>;
}
