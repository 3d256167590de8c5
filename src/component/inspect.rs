//! What a slip says of itself, row by row, and never the secret that it holds.

use super::text::{CHECK_LEN_BYTES, ROW_LEN_BYTES, TextInvalid, check_group};
use super::{Heading, HeadingInvalid, share::SHARE_ROWS};
use crate::key::{Algorithm, CheckValue, Material};
use crate::memory::with_wiped_stack;

/// A slip that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// What it holds.
    pub holds: Held,
    /// Each row by its number, and whether it agrees with its check group; none where it has none.
    pub rows: Vec<(u8, Option<bool>)>,
}

/// What a slip holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// A component, with the check value for each algorithm that has this length. None where a row
    /// does not agree with its check group: it would be that of something else.
    Component(Vec<(Algorithm, CheckValue)>),
    /// A share, with its heading.
    Share(Result<Heading, HeadingInvalid>),
}

impl Inspected {
    /// Whether nothing is wrong that can be seen.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let rows = self.rows.iter().all(|(_, agrees)| *agrees != Some(false));
        match &self.holds {
            Held::Component(_) => rows,
            Held::Share(heading) => rows && heading.is_ok(),
        }
    }
}

/// Whether a text has as many digits as a slip, and holds nothing else: it may be a secret.
#[must_use]
pub fn looks_like_a_slip(text: &str) -> bool {
    digits(text).all(|digit| digit.is_ascii_hexdigit()) && Form::of(digits(text).count()).is_some()
}

/// Looks at a slip: a share, or a component with or without check groups, told apart by how many
/// digits there are.
pub fn inspect(text: &str) -> Result<Inspected, TextInvalid> {
    let form = Form::of(digits(text).count()).ok_or(TextInvalid::Length)?;
    let mut octets = Material::zeroed(digits(text).count() / 2);
    for (place, digit) in digits(text).enumerate() {
        let digit = digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let digit = digit.ok_or(TextInvalid::Character)?;
        // Exposed to be read into.
        let octet = &mut octets.expose_bytes_mut()[place / 2];
        *octet = *octet << 4 | digit;
    }
    Ok(with_wiped_stack(|| form.judge(octets.expose_bytes())))
}

fn digits(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|letter| !letter.is_ascii_whitespace())
}

/// What a number of digits can be; no two forms have the same.
struct Form {
    is_share: bool,
    has_check_groups: bool,
    rows: usize,
}

impl Form {
    fn of(digits: usize) -> Option<Self> {
        let len_bytes = digits.is_multiple_of(2).then_some(digits / 2)?;
        let is_component =
            |rows| Algorithm::ALL.iter().any(|each| each.len_bytes() == rows * ROW_LEN_BYTES);
        let with_checks = ROW_LEN_BYTES + CHECK_LEN_BYTES;
        if len_bytes == SHARE_ROWS * with_checks {
            return Some(Self { is_share: true, has_check_groups: true, rows: SHARE_ROWS });
        }
        [(with_checks, true), (ROW_LEN_BYTES, false)].into_iter().find_map(|(row, checks)| {
            let rows = len_bytes / row;
            let is_whole = len_bytes.is_multiple_of(row) && is_component(rows);
            is_whole.then_some(Self { is_share: false, has_check_groups: checks, rows })
        })
    }

    fn judge(&self, octets: &[u8]) -> Inspected {
        let row_len_bytes = octets.len() / self.rows;
        let split: Vec<(&[u8], &[u8])> =
            octets.chunks(row_len_bytes).map(|row| row.split_at(ROW_LEN_BYTES)).collect();
        let first = u8::from(!self.is_share);
        let rows = (first..).zip(&split).map(|(number, (row, check))| {
            let heading = if number > 0 && self.is_share { split[0].0 } else { &[] };
            let computed = check_group(heading, number, row).to_be_bytes();
            (number, self.has_check_groups.then(|| computed == **check))
        });
        let rows: Vec<_> = rows.collect();
        let holds = if self.is_share {
            let heading = split[0].0.first_chunk();
            Held::Share(heading.ok_or(HeadingInvalid::Numbers).and_then(Heading::parse))
        } else if rows.iter().any(|(_, agrees)| *agrees == Some(false)) {
            Held::Component(Vec::new())
        } else {
            let mut component = Material::zeroed(self.rows * ROW_LEN_BYTES);
            // Exposed to be copied from one wiped buffer into another.
            let to = component.expose_bytes_mut().chunks_mut(ROW_LEN_BYTES);
            to.zip(&split).for_each(|(to, (row, _))| to.copy_from_slice(row));
            let algorithms = Algorithm::ALL.into_iter();
            let fitting = algorithms.filter(|each| each.len_bytes() == component.len_bytes());
            Held::Component(fitting.map(|each| (each, CheckValue::of(each, &component))).collect())
        };
        Inspected { holds, rows }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Component, Share};
    use super::*;
    use crate::crypto::rng::SystemRng;

    #[test]
    fn every_form_has_a_number_of_digits_of_its_own() {
        let forms: Vec<usize> = (0..400).filter(|digits| Form::of(*digits).is_some()).collect();
        assert_eq!(forms, [32, 40, 48, 60, 64, 80, 96, 100, 120, 128, 160]);
    }

    #[test]
    fn a_component_is_told_by_its_check_values_and_a_wrong_row_by_its_number() {
        for algorithm in Algorithm::ALL {
            let component = Component::generate(algorithm, &SystemRng::new()).unwrap();
            let rows: Vec<String> =
                component.write().lines().map(|line| line.text.to_owned()).collect();
            let inspected = inspect(&rows.join("\n")).unwrap();
            let Held::Component(values) = &inspected.holds else { panic!("a component") };
            assert!(values.contains(&(algorithm, component.check_value())));
            assert!(inspected.is_sound() && inspected.rows.len() == rows.len());
            let bare: String = rows.iter().map(|row| &row[..20]).collect();
            assert!(looks_like_a_slip(&bare));
            let bare = inspect(&bare).unwrap();
            assert_eq!(bare.holds, inspected.holds);
            assert!(bare.rows.iter().all(|(_, agrees)| agrees.is_none()));
            let mut wrong = rows.clone();
            wrong.swap(0, 1);
            let wrong = inspect(&wrong.concat()).unwrap();
            assert_eq!(wrong.rows[..2], [(1, Some(false)), (2, Some(false))]);
            assert!(!wrong.is_sound() && wrong.holds == Held::Component(Vec::new()));
        }
    }

    #[test]
    fn a_share_is_told_by_its_heading() {
        let shares = Share::split(&[9; 32], 3, 5, &SystemRng::new()).unwrap();
        let text: String = shares[3].write().lines().map(|line| line.text.to_owned()).collect();
        let inspected = inspect(&text).unwrap();
        assert_eq!(inspected.holds, Held::Share(Ok(shares[3].heading())));
        assert!(inspected.is_sound());
        let other = text.replacen("0103", "0203", 1);
        let inspected = inspect(&other).unwrap();
        assert_eq!(inspected.holds, Held::Share(Err(HeadingInvalid::Version { found: 2 })));
        // The heading enters each check group.
        assert!(inspected.rows.iter().all(|(_, agrees)| *agrees == Some(false)));
        assert!(!inspected.is_sound());
    }

    #[test]
    fn what_is_no_slip_is_refused() {
        assert_eq!(inspect(""), Err(TextInvalid::Length));
        assert_eq!(inspect(&"0".repeat(30)), Err(TextInvalid::Length));
        assert_eq!(inspect(&"g".repeat(32)), Err(TextInvalid::Character));
        assert!(!looks_like_a_slip(&"g".repeat(32)));
        assert!(!looks_like_a_slip("FFFF9876543210E00001"));
    }
}
