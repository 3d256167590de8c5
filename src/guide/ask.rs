//! Questions: what is asked on a screen, and what is typed under it.

use std::time::Duration;

use super::screen::Screen;
use super::table::{Interrupted, Key, Table};

/// How often a value may be typed wrong.
pub(super) const TRIES_MAX: u8 = 3;
/// The longest line that is typed: a path.
const LINE_LEN_MAX: usize = 255;
/// How often a screen is drawn anew while nobody types: its clock goes on.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// Why a question has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// The people or the terminal went away.
    #[error("interrupted")]
    Interrupted,
    /// Nobody typed for so long that what was typed is wiped.
    #[error("nobody typed for too long; what was typed is wiped")]
    Silence,
    /// Typed wrong [`TRIES_MAX`] times.
    #[error("typed wrong three times")]
    Tries,
}

impl From<Interrupted> for Stopped {
    fn from(Interrupted: Interrupted) -> Self {
        Self::Interrupted
    }
}

/// A question whose answer everybody may see.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    /// What stands before the answer.
    pub(super) question: &'a str,
    /// What Enter alone answers; empty: nothing.
    pub(super) usual: &'a str,
    /// How often the answer may be wrong; none: as often as it takes.
    pub(super) tries: Option<u8>,
}

impl<'a> Ask<'a> {
    /// A value that is right or wrong: three tries.
    pub(super) const fn value(question: &'a str) -> Self {
        Self { question, usual: "", tries: Some(TRIES_MAX) }
    }

    /// Asks until `check` takes the answer; it tells what is wrong with one that it does not take.
    pub(super) fn on<T>(
        self,
        table: &mut dyn Table,
        mut screen: Screen,
        mut check: impl FnMut(&mut dyn Table, &str) -> Result<T, String>,
    ) -> Result<T, Stopped> {
        "Enter: done   Backspace: take back   Ctrl-C: stop".clone_into(&mut screen.keys);
        if !self.usual.is_empty() {
            screen.expected.push(format!("Enter alone takes {}", self.usual));
        }
        let mut wrong = 0_u8;
        table.discard();
        loop {
            let typed = self.line(table, &mut screen)?;
            let answer = if typed.is_empty() { self.usual } else { typed.trim() };
            match check(table, answer) {
                Ok(answer) => return Ok(answer),
                Err(cause) => screen.notice = cause,
            }
            table.bell();
            wrong = wrong.saturating_add(1);
            if self.tries.is_some_and(|tries| wrong >= tries) {
                return Err(Stopped::Tries);
            }
        }
    }

    fn line(self, table: &mut dyn Table, screen: &mut Screen) -> Result<String, Interrupted> {
        let mut line = String::new();
        loop {
            // The end of a long line is what is looked at.
            let skipped = line.len().saturating_sub(SHOWN_MAX);
            let shown = line.get(skipped..).unwrap_or_default();
            screen.typed = vec![self.question.to_owned(), format!("> {shown}_")];
            table.show(screen)?;
            let Some(key) = table.key(TICK)? else { continue };
            match key {
                Key::Character(letter) if line.len() < LINE_LEN_MAX => line.push(letter.into()),
                Key::Erase if !line.is_empty() => drop(line.pop()),
                Key::Enter if !line.is_empty() || !self.usual.is_empty() => return Ok(line),
                Key::Paste => {
                    "pasting is off: what is asked for here is typed"
                        .clone_into(&mut screen.notice);
                    table.bell();
                    continue;
                }
                Key::Character(_) | Key::Enter | Key::Erase | Key::Other => {
                    table.bell();
                    continue;
                }
            }
            screen.notice.clear();
        }
    }
}

/// How much of a line is shown on the narrowest screen.
const SHOWN_MAX: usize = 68;

/// Waits until somebody presses Enter.
pub(super) fn go_on(table: &mut dyn Table, mut screen: Screen) -> Result<(), Interrupted> {
    "Enter: go on   Ctrl-C: stop".clone_into(&mut screen.keys);
    table.discard();
    loop {
        table.show(&screen)?;
        match table.key(TICK)? {
            Some(Key::Enter) => return Ok(()),
            Some(_) => table.bell(),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scripted, enter, typed};
    use super::*;

    fn ask(keys: Vec<Option<Key>>, ask: Ask<'_>) -> (Result<String, Stopped>, Scripted) {
        let mut table = Scripted::new(keys);
        let check = |_: &mut dyn Table, answer: &str| match answer {
            "ab" | "usual" => Ok(answer.to_owned()),
            _ => Err("say ab".to_owned()),
        };
        let answer = ask.on(&mut table, Screen::default(), check);
        (answer, table)
    }

    #[test]
    fn an_answer_is_typed_and_corrected() {
        let keys = [typed("ax"), vec![Some(Key::Erase), None], typed("b"), enter()].concat();
        let (answer, table) = ask(keys, Ask::value("What?"));
        assert_eq!(answer.unwrap(), "ab");
        assert_eq!(table.bells, 0);
        assert!(table.seen("> ax_") && table.seen("> ab_"));
    }

    #[test]
    fn a_wrong_answer_is_told_and_three_are_enough() {
        let wrong = [typed("b"), enter()].concat();
        let keys = [wrong.clone(), typed("ab"), enter()].concat();
        let (answer, table) = ask(keys, Ask::value("What?"));
        assert_eq!(answer.unwrap(), "ab");
        assert!(table.seen("say ab"));
        let keys = [wrong.clone(), wrong.clone(), wrong.clone()].concat();
        assert_eq!(ask(keys, Ask::value("What?")).0, Err(Stopped::Tries));
        let path = Ask { question: "Where?", usual: "", tries: None };
        let keys = [wrong.repeat(5), typed("ab"), enter()].concat();
        assert_eq!(ask(keys, path).0.unwrap(), "ab");
    }

    #[test]
    fn enter_alone_takes_what_is_usual_where_something_is() {
        let usual = Ask { question: "Where?", usual: "usual", tries: None };
        assert_eq!(ask(enter(), usual).0.unwrap(), "usual");
        let (answer, table) = ask([enter(), typed("ab"), enter()].concat(), Ask::value("What?"));
        assert_eq!((answer.unwrap().as_str(), table.bells), ("ab", 1));
    }

    #[test]
    fn pasting_and_other_keys_change_nothing_and_an_interruption_ends_it() {
        let strange = vec![Some(Key::Paste), Some(Key::Other), Some(Key::Erase)];
        let (answer, table) = ask([strange, typed("ab"), enter()].concat(), Ask::value("What?"));
        assert_eq!((answer.unwrap().as_str(), table.bells), ("ab", 3));
        assert!(table.seen("pasting is off"));
        assert_eq!(ask(typed("ab"), Ask::value("What?")).0, Err(Stopped::Interrupted));
        let mut table = Scripted::new([typed("x"), vec![None], enter()].concat());
        assert_eq!(go_on(&mut table, Screen::default()), Ok(()));
        assert_eq!(go_on(&mut table, Screen::default()), Err(Interrupted));
    }

    #[test]
    fn a_line_is_no_longer_than_it_may_be() {
        let keys = [typed(&"a".repeat(LINE_LEN_MAX + 3)), enter()].concat();
        let (answer, table) = ask(keys, Ask::value("What?"));
        assert_eq!((answer, table.bells), (Err(Stopped::Interrupted), 4));
    }
}
