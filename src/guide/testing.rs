//! A table for tests: keys that were written down beforehand, and every screen kept.

use std::time::Duration;

use zeroize::Zeroizing;

use super::screen::Screen;
use super::table::{Interrupted, Key, Table};

/// Keys in their order, none for a silence; after the last one the people have gone.
pub(super) struct Scripted {
    keys: std::vec::IntoIter<Option<Key>>,
    pub(super) bells: usize,
    pub(super) shown: Vec<String>,
    pub(super) printed: Vec<Vec<u8>>,
    now: u64,
}

impl Scripted {
    pub(super) fn new(keys: Vec<Option<Key>>) -> Self {
        let (shown, printed) = (Vec::new(), Vec::new());
        Self { keys: keys.into_iter(), bells: 0, shown, printed, now: 1_795_458_605 }
    }

    /// Whether a text was on some screen.
    pub(super) fn seen(&self, text: &str) -> bool {
        self.shown.iter().any(|screen| screen.contains(text))
    }
}

impl Table for Scripted {
    fn show(&mut self, screen: &Screen) -> Result<(), Interrupted> {
        let lines = screen.render(80, 24, self.now).unwrap();
        self.shown.push(lines.join("\n"));
        Ok(())
    }

    fn key(&mut self, wait: Duration) -> Result<Option<Key>, Interrupted> {
        let key = self.keys.next().ok_or(Interrupted)?;
        if key.is_none() {
            self.now += wait.as_secs();
        }
        Ok(key)
    }

    // Each key was written down for the question that it answers.
    fn discard(&mut self) {}

    fn bell(&mut self) {
        self.bells += 1;
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn read(&mut self, path: &str) -> Result<Zeroizing<Vec<u8>>, String> {
        Err(format!("there is no {path}"))
    }

    fn print(&mut self, name: &str, page: &[u8]) -> Result<String, String> {
        self.printed.push(page.to_vec());
        Ok(format!("printed {name}"))
    }
}

/// A text, key by key.
pub(super) fn typed(text: &str) -> Vec<Option<Key>> {
    text.bytes().map(|octet| Some(Key::Character(octet))).collect()
}

/// Enter.
pub(super) fn enter() -> Vec<Option<Key>> {
    vec![Some(Key::Enter)]
}
