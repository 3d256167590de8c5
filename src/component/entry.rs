//! Typing a component or share, digit by digit: a pure editor that shows where it stands and never
//! what was typed.

use super::Assurance;
use super::share::{Heading, SHARE_ROWS};
use super::text::{CHECK_LEN_BYTES, ROW_LEN_BYTES, TextInvalid, check_group};
use crate::key::{Algorithm, Material};

/// Digits of a group.
const GROUP_DIGITS: usize = 4;

/// A component or share that is being typed. Wiped on drop.
///
/// A row is checked when its check group is there. One that does not agree is emptied, and typed
/// again; so a whole entry has none that does not.
pub struct Entry {
    form: Form,
    /// The octets that were typed, check groups among them; what is not typed yet is zero.
    octets: Material,
    /// Digits that were typed.
    digits: usize,
}

/// What is typed.
enum Form {
    Component(Algorithm, Assurance),
    Share,
}

/// What a digit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressed {
    /// It was the last one.
    Complete,
    /// It stands in its group, which wants more.
    Digit,
    /// It ended a group, and the row goes on.
    Group,
    /// It ended a row that agrees with its check group, or has none; another row follows.
    Row,
    /// It ended a row that does not agree with its check group. The row is empty again.
    RowRefused,
}

/// Where the next digit goes, all counted from 0: what the screen shows of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Rows that are complete.
    pub row: usize,
    /// Groups of this row that are complete.
    pub group: usize,
    /// Digits of this group.
    pub digit: usize,
}

impl Entry {
    /// Begins a component.
    #[must_use]
    pub fn of_component(algorithm: Algorithm, assurance: Assurance) -> Self {
        Self::begin(Form::Component(algorithm, assurance))
    }

    /// Begins a share.
    #[must_use]
    pub fn of_share() -> Self {
        Self::begin(Form::Share)
    }

    fn begin(form: Form) -> Self {
        let mut entry = Self { form, octets: Material::zeroed(0), digits: 0 };
        entry.octets = Material::zeroed(entry.rows() * entry.row_len_bytes());
        entry
    }

    /// Rows that are to be typed.
    #[must_use]
    pub fn rows(&self) -> usize {
        match &self.form {
            Form::Component(algorithm, _) => algorithm.len_bytes() / ROW_LEN_BYTES,
            Form::Share => SHARE_ROWS,
        }
    }

    /// Groups of a row: five with the check group, else four.
    #[must_use]
    pub fn groups(&self) -> usize {
        2 * self.row_len_bytes() / GROUP_DIGITS
    }

    /// The number on the slip of a row that is counted from 0.
    #[must_use]
    pub fn row_number(&self, row: usize) -> u8 {
        let first = match self.form {
            Form::Component(..) => 1,
            Form::Share => 0,
        };
        first + u8::try_from(row).expect("a secret has few rows")
    }

    /// Where the next digit goes.
    #[must_use]
    pub fn place(&self) -> Place {
        let (row, in_row) = (self.digits / self.row_digits(), self.digits % self.row_digits());
        Place { row, group: in_row / GROUP_DIGITS, digit: in_row % GROUP_DIGITS }
    }

    /// Whether everything was typed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.digits == self.rows() * self.row_digits()
    }

    /// What the heading of a share says, once it was typed: it is no secret.
    #[must_use]
    pub fn heading(&self) -> Option<Heading> {
        match self.form {
            Form::Component(..) => None,
            Form::Share => Heading::parse(&self.row_at(0)?).ok(),
        }
    }

    /// Takes a key that was pressed; anything but a hexadecimal digit, and any digit too many,
    /// changes nothing.
    pub fn press(&mut self, key: char) -> Result<Pressed, TextInvalid> {
        let digit = key.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let digit = digit.ok_or(TextInvalid::Character)?;
        if self.is_complete() {
            return Err(TextInvalid::Length);
        }
        let is_high = self.digits.is_multiple_of(2);
        // Exposed to be typed into.
        let octet = &mut self.octets.expose_bytes_mut()[self.digits / 2];
        *octet |= if is_high { digit << 4 } else { digit };
        self.digits += 1;
        if !self.digits.is_multiple_of(self.row_digits()) {
            let is_group = self.digits.is_multiple_of(GROUP_DIGITS);
            return Ok(if is_group { Pressed::Group } else { Pressed::Digit });
        }
        let row = self.digits / self.row_digits() - 1;
        if !self.is_right(row) {
            self.forget_from(row * self.row_digits());
            return Ok(Pressed::RowRefused);
        }
        Ok(if self.is_complete() { Pressed::Complete } else { Pressed::Row })
    }

    /// Takes the last digit back, if its group wants more; a group that is complete stays.
    pub fn take_back(&mut self) -> bool {
        let is_within = !self.digits.is_multiple_of(GROUP_DIGITS);
        if is_within {
            self.forget_from(self.digits - 1);
        }
        is_within
    }

    /// Wipes everything and begins anew.
    pub fn clear(&mut self) {
        self.forget_from(0);
    }

    /// Takes a whole text; the first row that does not agree ends it.
    pub(super) fn with_text(mut self, text: &str) -> Result<Self, TextInvalid> {
        for letter in text.chars().filter(|letter| !letter.is_ascii_whitespace()) {
            let row = self.place().row;
            if self.press(letter)? == Pressed::RowRefused {
                return Err(TextInvalid::Row { number: self.row_number(row) });
            }
        }
        Ok(self)
    }

    /// The component, and the check value that it must have.
    pub(super) fn into_component(
        self,
    ) -> Result<(Algorithm, Material, Option<Vec<u8>>), TextInvalid> {
        let secret = self.secret(0)?;
        match self.form {
            Form::Component(algorithm, Assurance::CheckGroups) => Ok((algorithm, secret, None)),
            Form::Component(algorithm, Assurance::CheckValue(shown)) => {
                Ok((algorithm, secret, Some(shown)))
            }
            Form::Share => Err(TextInvalid::Length),
        }
    }

    /// The share: its heading, and its octets.
    pub(super) fn into_share(self) -> Result<(Heading, Material), TextInvalid> {
        match self.form {
            Form::Component(..) => Err(TextInvalid::Length),
            Form::Share => {
                let heading = self.row_at(0).ok_or(TextInvalid::Length)?;
                Ok((Heading::parse(&heading)?, self.secret(1)?))
            }
        }
    }

    /// What stands in the rows from this one on, without check groups.
    fn secret(&self, first: usize) -> Result<Material, TextInvalid> {
        if !self.is_complete() {
            return Err(TextInvalid::Length);
        }
        let mut secret = Material::zeroed((self.rows() - first) * ROW_LEN_BYTES);
        // Exposed to be copied from one wiped buffer into another.
        let typed = self.octets.expose_bytes().chunks(self.row_len_bytes()).skip(first);
        for (to, from) in secret.expose_bytes_mut().chunks_mut(ROW_LEN_BYTES).zip(typed) {
            to.copy_from_slice(&from[..ROW_LEN_BYTES]);
        }
        Ok(secret)
    }

    /// Whether a row that was typed agrees with its check group.
    fn is_right(&self, row: usize) -> bool {
        if !self.has_check_groups() {
            return true;
        }
        let (Some(octets), Some(check)) = (self.row_at(row), self.check_at(row)) else {
            return false;
        };
        let heading = match self.form {
            Form::Share if row > 0 => self.row_at(0),
            Form::Component(..) | Form::Share => None,
        };
        let heading = heading.as_ref().map(|heading| &heading[..]).unwrap_or_default();
        check_group(heading, self.row_number(row), &octets) == u16::from_be_bytes(check)
    }

    /// The octets of a row, once it is complete.
    fn row_at(&self, row: usize) -> Option<[u8; ROW_LEN_BYTES]> {
        let start = row * self.row_len_bytes();
        let is_complete = self.digits >= (row + 1) * self.row_digits();
        // Exposed to be checked; a heading, to be read.
        let octets = self.octets.expose_bytes().get(start..start + ROW_LEN_BYTES)?;
        octets.try_into().ok().filter(|_| is_complete)
    }

    fn check_at(&self, row: usize) -> Option<[u8; CHECK_LEN_BYTES]> {
        let start = row * self.row_len_bytes() + ROW_LEN_BYTES;
        self.octets.expose_bytes().get(start..start + CHECK_LEN_BYTES)?.try_into().ok()
    }

    /// Wipes the digits from this one on.
    fn forget_from(&mut self, digits: usize) {
        // Exposed to be wiped.
        let octets = self.octets.expose_bytes_mut();
        if digits % 2 == 1 {
            octets[digits / 2] &= 0xf0;
        }
        octets[digits.div_ceil(2)..].fill(0);
        self.digits = digits;
    }

    fn has_check_groups(&self) -> bool {
        match &self.form {
            Form::Component(_, Assurance::CheckGroups) | Form::Share => true,
            Form::Component(_, Assurance::CheckValue(_)) => false,
        }
    }

    fn row_len_bytes(&self) -> usize {
        ROW_LEN_BYTES + if self.has_check_groups() { CHECK_LEN_BYTES } else { 0 }
    }

    fn row_digits(&self) -> usize {
        2 * self.row_len_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Component, HeadingInvalid, Rows, Share};
    use super::*;
    use crate::crypto::rng::SystemRng;

    fn type_all(entry: &mut Entry, text: &str) -> Vec<Pressed> {
        let digits = text.chars().filter(|letter| *letter != ' ');
        digits.map(|digit| entry.press(digit).unwrap()).collect()
    }

    fn lines(rows: &Rows) -> Vec<String> {
        rows.lines().map(|line| line.text.to_owned()).collect()
    }

    fn component() -> Component {
        Component::generate(Algorithm::Aes128, &SystemRng::new()).unwrap()
    }

    #[test]
    fn each_digit_says_what_it_ended() {
        let component = component();
        let rows = lines(&component.write());
        let mut entry = Entry::of_component(Algorithm::Aes128, Assurance::CheckGroups);
        assert_eq!((entry.rows(), entry.groups()), (2, 5));
        let pressed = type_all(&mut entry, &rows[0]);
        for (index, pressed) in (1..).zip(&pressed) {
            let expected = match index {
                20 => Pressed::Row,
                _ if index % 4 == 0 => Pressed::Group,
                _ => Pressed::Digit,
            };
            assert_eq!(*pressed, expected, "{index}");
        }
        assert_eq!(entry.place(), Place { row: 1, group: 0, digit: 0 });
        assert_eq!(entry.row_number(1), 2);
        type_all(&mut entry, &rows[1][..7]);
        assert_eq!(entry.place(), Place { row: 1, group: 1, digit: 2 });
        assert!(!entry.is_complete());
        assert_eq!(type_all(&mut entry, &rows[1][7..]).last(), Some(&Pressed::Complete));
        assert!(entry.is_complete());
        assert_eq!(entry.press('0'), Err(TextInvalid::Length));
        let typed = Component::typed(entry).unwrap();
        assert_eq!(typed.expose_bytes(), component.expose_bytes());
    }

    #[test]
    fn a_row_that_does_not_agree_is_emptied_and_typed_again() {
        let component = component();
        let rows = lines(&component.write());
        let mut entry = Entry::of_component(Algorithm::Aes128, Assurance::CheckGroups);
        type_all(&mut entry, &rows[0]);
        let mut wrong = rows[1].clone();
        let digit = if wrong.starts_with('0') { "1" } else { "0" };
        wrong.replace_range(..1, digit);
        assert_eq!(type_all(&mut entry, &wrong).last(), Some(&Pressed::RowRefused));
        assert_eq!(entry.place(), Place { row: 1, group: 0, digit: 0 });
        assert!(entry.octets.expose_bytes()[10..].iter().all(|octet| *octet == 0), "wiped");
        type_all(&mut entry, &rows[1]);
        assert_eq!(Component::typed(entry).unwrap().expose_bytes(), component.expose_bytes());
        // The rows the other way round agree with no check group: their numbers enter.
        let mut entry = Entry::of_component(Algorithm::Aes128, Assurance::CheckGroups);
        assert_eq!(type_all(&mut entry, &rows[1]).last(), Some(&Pressed::RowRefused));
    }

    #[test]
    fn a_digit_is_taken_back_within_its_group_alone() {
        let component = component();
        let rows = lines(&component.write()).concat();
        let mut entry = Entry::of_component(Algorithm::Aes128, Assurance::CheckGroups);
        assert!(!entry.take_back(), "nothing to take back");
        type_all(&mut entry, "FFF");
        for digit in (0..3).rev() {
            assert!(entry.take_back());
            assert_eq!(entry.place(), Place { row: 0, group: 0, digit });
        }
        assert!(entry.octets.expose_bytes().iter().all(|octet| *octet == 0), "wiped");
        type_all(&mut entry, &rows[..4]);
        assert!(!entry.take_back(), "a group that is complete stays");
        for key in ['g', ' ', '-', '\u{661}', '\0'] {
            assert_eq!(entry.press(key), Err(TextInvalid::Character));
        }
        type_all(&mut entry, &rows[5..]);
        let Err(TextInvalid::Length) = Share::typed(entry).map(|_| ()) else {
            panic!("a component is no share");
        };
    }

    #[test]
    fn a_clear_entry_holds_nothing() {
        let mut entry = Entry::of_share();
        type_all(&mut entry, "0103 0105 1234");
        assert_eq!(entry.heading(), None);
        entry.clear();
        assert_eq!(entry.place(), Place { row: 0, group: 0, digit: 0 });
        assert!(entry.octets.expose_bytes().iter().all(|octet| *octet == 0));
        assert_eq!(Share::typed(entry).unwrap_err(), TextInvalid::Length);
    }

    #[test]
    fn a_share_tells_its_heading_as_soon_as_it_is_typed() {
        let shares = Share::split(&[7; 32], 2, 3, &SystemRng::new()).unwrap();
        let rows = lines(&shares[1].write());
        let mut entry = Entry::of_share();
        assert_eq!((entry.rows(), entry.groups(), entry.row_number(0)), (5, 5, 0));
        type_all(&mut entry, &rows[0]);
        assert_eq!(entry.heading(), Some(shares[1].heading()));
        // A row of another share, even of the same set, agrees with no check group.
        let other = lines(&shares[2].write());
        assert_eq!(type_all(&mut entry, &other[1]).last(), Some(&Pressed::RowRefused));
        rows[1..].iter().for_each(|row| drop(type_all(&mut entry, row)));
        assert!(Share::typed(entry).unwrap().is_same(&shares[1]));
    }

    #[test]
    fn a_heading_of_another_version_is_told_at_the_end() {
        let heading = [2, 2, 1, 2, 0, 0, 0, 1];
        let text: String =
            Rows::of_share(heading, &[9; 32]).lines().map(|line| line.text).collect();
        let refused = Share::parse(&text).unwrap_err();
        assert_eq!(refused, TextInvalid::Heading(HeadingInvalid::Version { found: 2 }));
    }

    #[test]
    fn a_slip_without_check_groups_needs_its_check_value() {
        // ANSI X9.24-1:2009, annex A: the base derivation key of its examples.
        let parse = |shown: &[u8], text: &str| {
            let assurance = Assurance::CheckValue(shown.to_vec());
            Component::parse(Algorithm::Tdes2, assurance, text).map(|_| ())
        };
        let text = "0123 4567 89ab cdef\n FEDCBA98 76543210\n";
        assert_eq!(parse(&[0x08, 0xd7, 0xb4], text), Ok(()));
        for shown in [&[0x08, 0xd7, 0xb5][..], &[0x08, 0xd7], &[0x08], &[]] {
            assert_eq!(parse(shown, text), Err(TextInvalid::CheckValue));
        }
        assert_eq!(parse(&[0x08, 0xd7, 0xb4], &text[..30]), Err(TextInvalid::Length));
        assert_eq!(parse(&[0x08, 0xd7, 0xb4], &[text, "0"].concat()), Err(TextInvalid::Length));
        let other = text.replace("FEDC", "FEDC:");
        assert_eq!(parse(&[0x08, 0xd7, 0xb4], &other), Err(TextInvalid::Character));
    }
}
