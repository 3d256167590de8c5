//! Components and shares on paper: rows of groups, each row with a check group.
//!
//! ```text
//! row    = 8 octets as 4 groups of 4 hexadecimal digits, and their check group
//! check  = CRC-16/T10-DIF over heading || row number (1) || the 8 octets
//!
//! component   rows 1 ..     its octets; the heading is empty
//! share       row 0         01 || threshold || index || shares || set id (4); heading empty
//!             rows 1 .. 4   its octets; the heading is row 0
//! ```
//!
//! The check group finds each wrong digit, and each swap of two digits side by side or of any two
//! groups in a row: the polynomial, 18BB7, has no factor in common with x^16 + 1, x^32 + 1,
//! x^48 + 1 or x^64 + 1. (That of CRC-16/CCITT has x + 1, and misses a swap of groups that differ
//! by F01F.) As the number of the row and the heading enter, it also finds rows that changed
//! places and rows of two shares of a set; of two sets, but for one in 65,536.

use zeroize::Zeroizing;

/// Octets of a row, without its check group.
pub(super) const ROW_LEN_BYTES: usize = 8;
/// Octets of a check group.
pub(super) const CHECK_LEN_BYTES: usize = 2;
/// Octets of a group.
const GROUP_LEN_BYTES: usize = 2;

/// How a component on paper proves that it was read well. One of the two it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assurance {
    /// A check group ends each row, as on slips of this service.
    CheckGroups,
    /// No check groups: the check value that the slip of a partner shows, 3 or 5 octets.
    CheckValue(Vec<u8>),
}

/// Why what was read or typed is no component and no share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextInvalid {
    /// Something else than a hexadecimal digit or a blank.
    #[error("it holds something else than hexadecimal digits and blanks")]
    Character,
    /// The component has another check value than its slip.
    #[error("the check value is not that of the slip")]
    CheckValue,
    /// Row 0 of a share says what no share of this version can say.
    #[error(transparent)]
    Heading(#[from] super::HeadingInvalid),
    /// Too few or too many digits.
    #[error("it has too few or too many digits")]
    Length,
    /// The check group of a row is not that of its digits.
    #[error("row {number} does not agree with its check group")]
    Row {
        /// The number of the row, as it stands on the slip.
        number: u8,
    },
}

/// A component or share in the form it has on paper. Wiped on drop.
pub struct Rows {
    /// The number of the first row.
    first: u8,
    /// Lines of [`LINE_LEN`] letters, one after the other.
    text: Zeroizing<String>,
}

/// One row on paper.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The number of the row.
    pub number: u8,
    /// Four groups and the check group, each of four digits, with a blank between two.
    pub text: &'a str,
}

/// Letters of a line: five groups of four digits and the blanks between them.
const LINE_LEN: usize = 5 * 4 + 4;

impl Rows {
    /// The octets of a component, in whole rows.
    pub(super) fn of_component(octets: &[u8]) -> Self {
        Self::write(1, &[], octets)
    }

    /// The heading of a share, and its octets in whole rows.
    pub(super) fn of_share(heading: [u8; ROW_LEN_BYTES], octets: &[u8]) -> Self {
        let mut rows = Self::write(0, &[], &heading);
        // Not one buffer that grows: what it grows out of would be left behind.
        let rest = Self::write(1, &heading, octets);
        let whole = Zeroizing::new([rows.text.as_str(), rest.text.as_str()].concat());
        rows.text = whole;
        rows
    }

    fn write(first: u8, heading: &[u8], octets: &[u8]) -> Self {
        let (rows, _) = octets.as_chunks::<ROW_LEN_BYTES>();
        let mut text = Zeroizing::new(String::with_capacity(rows.len() * LINE_LEN));
        for (number, row) in (first..).zip(rows) {
            let check = check_group(heading, number, row).to_be_bytes();
            for (place, group) in row.chunks(GROUP_LEN_BYTES).chain([&check[..]]).enumerate() {
                if place > 0 {
                    text.push(' ');
                }
                for octet in group {
                    text.extend([digit(octet >> 4), digit(octet & 0xf)]);
                }
            }
        }
        Self { first, text }
    }

    /// The rows, from the first.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        // Digits and blanks: each octet is a letter, so that no cut divides one.
        let starts = (0..self.text.len()).step_by(LINE_LEN);
        let texts = starts.map(|start| &self.text[start..start + LINE_LEN]);
        (self.first..).zip(texts).map(|(number, text)| Line { number, text })
    }
}

/// A hexadecimal digit, computed: a table would be asked for the secret.
fn digit(nibble: u8) -> char {
    let above_nine = 9_u8.wrapping_sub(nibble) >> 4;
    char::from(b'0' + nibble + (above_nine & 7))
}

/// The check group of a row: CRC-16/T10-DIF, computed bit by bit without a table.
pub(super) fn check_group(heading: &[u8], number: u8, row: &[u8]) -> u16 {
    let covered = heading.iter().chain([&number]).chain(row);
    covered.fold(0, |crc, octet| crc_with(crc, *octet))
}

/// The polynomial x^16 + x^15 + x^11 + x^9 + x^8 + x^7 + x^5 + x^4 + x^2 + x + 1 without its head.
const POLYNOMIAL: u16 = 0x8bb7;

fn crc_with(crc: u16, octet: u8) -> u16 {
    (0..8).fold(crc ^ u16::from(octet) << 8, |crc, _| {
        // All ones where the head is one: the time does not depend on the secret.
        let head = 0_u16.wrapping_sub(crc >> 15);
        crc << 1 ^ (POLYNOMIAL & head)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_is_the_published_one() {
        // The catalogue of parametrised CRC algorithms, CRC-16/T10-DIF: check.
        assert_eq!(b"123456789".iter().fold(0, |crc, octet| crc_with(crc, *octet)), 0xd0db);
        assert_eq!(check_group(b"", b'1', b"23456789"), 0xd0db);
        assert_eq!(check_group(b"1", b'2', b"3456789\0"), crc_with(0xd0db, 0));
    }

    #[test]
    fn a_row_is_four_groups_and_their_check() {
        let rows =
            Rows::of_component(b"\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10");
        let lines: Vec<(u8, &str)> = rows.lines().map(|line| (line.number, line.text)).collect();
        let first = format!(
            "0123 4567 89AB CDEF {:04X}",
            check_group(b"", 1, b"\x01\x23\x45\x67\x89\xab\xcd\xef")
        );
        let second = format!(
            "FEDC BA98 7654 3210 {:04X}",
            check_group(b"", 2, b"\xfe\xdc\xba\x98\x76\x54\x32\x10")
        );
        assert_eq!(lines, [(1, first.as_str()), (2, second.as_str())]);
    }

    #[test]
    fn every_swap_of_two_groups_is_found() {
        // The check is linear: whether a swap is found depends on the difference of the two alone.
        let zeros = check_group(b"", 0, &[0; ROW_LEN_BYTES]);
        assert_eq!(zeros, 0);
        for difference in 1..=u16::MAX {
            let [high, low] = difference.to_be_bytes();
            let mut row = [0; ROW_LEN_BYTES];
            let checks: Vec<u16> = (0..4)
                .map(|place| {
                    row.fill(0);
                    row[2 * place] = high;
                    row[2 * place + 1] = low;
                    check_group(b"", 0, &row)
                })
                .collect();
            for (place, check) in checks.iter().enumerate() {
                assert!(checks[..place].iter().all(|other| other != check));
                // A group and the check itself.
                assert_ne!(*check, difference);
            }
        }
    }
}
