//! Typing what nobody may see: a component or share, group by group, of which the screen shows how
//! far it is and nothing else.

use super::ask::{Stopped, TICK};
use super::screen::Screen;
use super::table::{Key, Table};
use crate::component::{Entry, Pressed};
use crate::memory::wipe_stack;

/// Lets somebody type an entry whole. After `silence` seconds without a key, and when the people
/// go, what was typed is wiped.
pub(super) fn type_hidden(
    table: &mut dyn Table,
    mut screen: Screen,
    entry: &mut Entry,
    silence: u16,
) -> Result<(), Stopped> {
    "Hidden, 0-9 and A-F   Backspace   Ctrl-C: stop".clone_into(&mut screen.keys);
    entry.clear();
    table.discard();
    let typed = type_all(table, &mut screen, entry, silence);
    if typed.is_err() {
        entry.clear();
    }
    // Keys went through it one by one.
    wipe_stack();
    typed
}

fn type_all(
    table: &mut dyn Table,
    screen: &mut Screen,
    entry: &mut Entry,
    silence: u16,
) -> Result<(), Stopped> {
    let mut silent = 0_u16;
    loop {
        screen.typed = vec![masked(entry)];
        table.show(screen)?;
        let Some(key) = table.key(TICK)? else {
            silent += 1;
            if silent >= silence {
                return Err(Stopped::Silence);
            }
            continue;
        };
        silent = 0;
        match press(entry, key) {
            Ok(true) => return Ok(()),
            Ok(false) => screen.notice.clear(),
            Err(cause) => {
                cause.clone_into(&mut screen.notice);
                table.bell();
            }
        }
    }
}

/// Takes a key; tells whether it was the last, or why it was refused.
fn press(entry: &mut Entry, key: Key) -> Result<bool, &'static str> {
    match key {
        Key::Character(letter) => match entry.press(char::from(letter)) {
            Ok(Pressed::Complete) => Ok(true),
            Ok(Pressed::Digit | Pressed::Group | Pressed::Row) => Ok(false),
            Ok(Pressed::RowRefused) => {
                Err("this row does not agree with its check group: type the row again")
            }
            Err(_) => Err("only the digits 0 to 9 and A to F are typed here"),
        },
        Key::Erase if entry.take_back() => Ok(false),
        Key::Erase => Err("a group that is complete stays; a wrong row is found at its end"),
        Key::Paste => Err("pasting is off: a component is typed from the slip"),
        Key::Enter => Err("more digits are expected"),
        Key::Other => Err("only the digits 0 to 9 and A to F are typed here"),
    }
}

/// How far an entry is: the row that is typed, a star for each digit.
fn masked(entry: &Entry) -> String {
    let place = entry.place();
    let row = place.row.min(entry.rows().saturating_sub(1));
    let mut line = format!("row {} of {}  ", entry.row_number(row), last_row(entry));
    for group in 0..entry.groups() {
        let digits = match group.cmp(&place.group) {
            std::cmp::Ordering::Less => 4,
            std::cmp::Ordering::Equal => place.digit,
            std::cmp::Ordering::Greater => 0,
        };
        let check = if group == 4 { " check" } else { "" };
        let stars = "*".repeat(digits);
        line.extend([check, "  ", &format!("{stars:_<4}")]);
    }
    line
}

fn last_row(entry: &Entry) -> u8 {
    entry.row_number(entry.rows().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scripted, typed};
    use super::*;
    use crate::component::{Assurance, Component};
    use crate::crypto::rng::SystemRng;
    use crate::key::Algorithm;

    fn run(keys: Vec<Option<Key>>, entry: &mut Entry) -> (Result<(), Stopped>, Scripted) {
        let mut table = Scripted::new(keys);
        let done = type_hidden(&mut table, Screen::default(), entry, 60);
        (done, table)
    }

    fn component() -> (Component, String) {
        let component = Component::generate(Algorithm::Aes128, &SystemRng::new()).unwrap();
        let rows = component.write();
        let text: Vec<_> = rows.lines().map(|line| line.text.to_owned()).collect();
        (component, text.concat().replace(' ', ""))
    }

    fn with_groups() -> Entry {
        Entry::of_component(Algorithm::Aes128, Assurance::CheckGroups)
    }

    #[test]
    fn what_is_typed_is_taken_and_never_shown() {
        let (component, text) = component();
        let mut entry = with_groups();
        let (done, table) = run(typed(&text.to_lowercase()), &mut entry);
        assert_eq!((done, table.bells), (Ok(()), 0));
        let back = Component::typed(entry).unwrap();
        assert_eq!(back.check_value(), component.check_value());
        assert!(table.seen("row 1 of 2    ****  ****  **__  ____ check  ____"));
        assert!(table.seen("row 2 of 2    ****  ****  ****  **** check  ***_"));
        for group in text.as_bytes().chunks(4) {
            let group = String::from_utf8(group.to_vec()).unwrap();
            assert!(!table.seen(&group), "{group} was shown");
            assert!(!table.seen(&group.to_lowercase()));
        }
    }

    #[test]
    fn refused_keys_ring_and_change_nothing() {
        let (_, text) = component();
        let (begin, rest) = text.split_at(2);
        let strange = vec![Some(Key::Paste), Some(Key::Enter), Some(Key::Other), None];
        let keys =
            [typed("g "), typed(begin), strange, typed("0"), vec![Some(Key::Erase)], typed(rest)];
        let mut entry = with_groups();
        let (done, table) = run(keys.concat(), &mut entry);
        assert_eq!((done, table.bells), (Ok(()), 5));
        assert!(entry.is_complete());
        assert!(table.seen("pasting is off"));
    }

    #[test]
    fn a_wrong_row_is_found_at_its_end_and_typed_again() {
        let (component, text) = component();
        let digit = if text.starts_with('0') { "1" } else { "0" };
        let wrong = format!("{digit}{}", &text[1..20]);
        let mut entry = with_groups();
        let (done, table) = run([typed(&wrong), typed(&text)].concat(), &mut entry);
        assert_eq!((done, table.bells), (Ok(()), 1));
        assert!(table.seen("does not agree with its check group"));
        let back = Component::typed(entry).unwrap();
        assert_eq!(back.check_value(), component.check_value());
    }

    #[test]
    fn silence_and_an_interruption_wipe_what_was_typed() {
        let (_, text) = component();
        let begun = typed(&text[..7]);
        let mut entry = with_groups();
        let (done, _) = run([begun.clone(), vec![None; 60]].concat(), &mut entry);
        assert_eq!(done, Err(Stopped::Silence));
        assert_eq!((entry.place().group, entry.place().digit), (0, 0));
        // A key in between begins the silence anew.
        let slow = [begun.clone(), vec![None; 59], typed(&text[7..8]), vec![None; 59]].concat();
        let (done, _) = run([slow, typed(&text[8..])].concat(), &mut entry);
        assert_eq!(done, Ok(()));
        let (done, _) = run(begun, &mut entry);
        assert_eq!(done, Err(Stopped::Interrupted));
        assert_eq!((entry.place().group, entry.place().digit), (0, 0));
    }
}
