//! Holds a primary account number, wiped and masked, and makes the fields of PIN blocks from it.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A primary account number of 12 to 19 digits (ISO/IEC 7812-1). Wiped on drop; `Debug` shows
/// the first six and the last four digits.
///
/// The check digit is not verified: test ranges and tokens have none.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Pan(Digits);

/// Why a text is not a primary account number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PanInvalid {
    /// A character that is no decimal digit.
    #[error("the PAN holds something else than digits")]
    Digit,
    /// Fewer than 12 or more than 19 digits.
    #[error("the PAN does not have 12 to 19 digits")]
    Length,
}

/// How the PAN stands in the PAN field of format 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PanForm {
    /// All digits, as ISO 9564-1:2017 says.
    #[default]
    Full,
    /// The twelve rightmost digits without the check digit, as some hosts do.
    Legacy12,
}

impl Pan {
    /// The fewest digits.
    pub const LEN_MIN: usize = 12;
    /// The most digits.
    pub const LEN_MAX: usize = 19;

    /// Reads the digits of a PAN.
    pub fn parse(text: &str) -> Result<Self, PanInvalid> {
        let digits = Digits::parse(text)?;
        if digits.as_slice().len() < Self::LEN_MIN {
            Err(PanInvalid::Length)
        } else {
            Ok(Self(digits))
        }
    }

    /// The digits as text, for a keyed hash of the PAN. Each caller says why.
    #[must_use]
    pub fn expose_digits(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.as_slice().iter().map(|digit| char::from(b'0' + digit)).collect())
    }

    pub(super) fn digits(&self) -> &Digits {
        &self.0
    }
}

impl fmt::Debug for Pan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.as_slice();
        f.write_str("Pan(")?;
        for (index, digit) in digits.iter().enumerate() {
            // Ten digits are shown at most, and never one of the last four twice.
            if index < 6 || index + 4 >= digits.len() {
                write!(f, "{digit}")?;
            } else {
                f.write_str("*")?;
            }
        }
        f.write_str(")")
    }
}

/// The digits of a PAN of 1 to 19 digits. Fewer than twelve occur in vectors alone.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Digits {
    digits: [u8; Pan::LEN_MAX],
    len: usize,
}

impl Digits {
    pub(super) fn parse(text: &str) -> Result<Self, PanInvalid> {
        let len = text.len();
        if len == 0 || len > Pan::LEN_MAX {
            return Err(PanInvalid::Length);
        }
        if !text.bytes().all(|character| character.is_ascii_digit()) {
            return Err(PanInvalid::Digit);
        }
        let mut digits = [0; Pan::LEN_MAX];
        for (digit, character) in digits.iter_mut().zip(text.bytes()) {
            *digit = character - b'0';
        }
        Ok(Self { digits, len })
    }

    fn as_slice(&self) -> &[u8] {
        &self.digits[..self.len]
    }

    /// The account number field of formats 0 and 3: four zeros, then the twelve rightmost digits
    /// without the check digit (ISO 9564-1:2017, 9.3.2). Nothing where there are fewer.
    pub(super) fn account_field(&self) -> Option<[u8; 8]> {
        let twelve = self.without_check_digit()?;
        let mut nibbles = [0; 16];
        nibbles[4..].copy_from_slice(twelve);
        Some(packed(&nibbles))
    }

    /// The PAN field of format 4: how many digits there are beyond twelve, the digits, zeros
    /// (ISO 9564-1:2017, 9.4.2.3). Fewer than twelve digits are filled with zeros on the left.
    pub(super) fn format_4_field(&self, form: PanForm) -> Option<[u8; 16]> {
        let digits = match form {
            PanForm::Full => self.as_slice(),
            PanForm::Legacy12 => self.without_check_digit()?,
        };
        let mut nibbles = [0; 32];
        let fill = Pan::LEN_MIN.saturating_sub(digits.len());
        let beyond = digits.len().saturating_sub(Pan::LEN_MIN);
        nibbles[0] = u8::try_from(beyond).ok()?;
        nibbles[1 + fill..1 + fill + digits.len()].copy_from_slice(digits);
        Some(packed(&nibbles))
    }

    fn without_check_digit(&self) -> Option<&[u8]> {
        let (_, digits) = self.as_slice().split_last()?;
        digits.get(digits.len().checked_sub(Pan::LEN_MIN)?..)
    }
}

/// Packs nibbles into octets, the first into the high half.
pub(super) fn packed<const N: usize, const HALF: usize>(nibbles: &[u8; N]) -> [u8; HALF] {
    let mut octets = [0; HALF];
    for (octet, pair) in octets.iter_mut().zip(nibbles.chunks_exact(2)) {
        *octet = pair[0] << 4 | pair[1];
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_twelve_to_nineteen_digits() {
        assert!(Pan::parse("123456789012").is_ok());
        assert!(Pan::parse("1234567890123456789").is_ok());
        for (text, expected) in [
            ("", PanInvalid::Length),
            ("12345678901", PanInvalid::Length),
            ("12345678901234567890", PanInvalid::Length),
            ("41111111111111a1", PanInvalid::Digit),
            ("4111111 11111111", PanInvalid::Digit),
            ("\u{664}\u{661}\u{661}\u{661}\u{661}\u{661}", PanInvalid::Digit),
        ] {
            assert_eq!(Pan::parse(text).err(), Some(expected), "{text}");
        }
    }

    #[test]
    fn debug_shows_ten_digits_at_most() {
        let shown = |text| format!("{:?}", Pan::parse(text).unwrap());
        assert_eq!(shown("4111111111111234"), "Pan(411111******1234)");
        assert_eq!(shown("123456789012"), "Pan(123456**9012)");
    }

    #[test]
    fn makes_the_fields_of_the_formats() {
        let pan = Pan::parse("43219876543210987").unwrap();
        assert_eq!(pan.digits().account_field(), Some([0, 0, 0x98, 0x76, 0x54, 0x32, 0x10, 0x98]));
        let full = [0x54, 0x32, 0x19, 0x87, 0x65, 0x43, 0x21, 0x09, 0x87, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(pan.digits().format_4_field(PanForm::Full), Some(full));
        let legacy = [0x09, 0x87, 0x65, 0x43, 0x21, 0x09, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(pan.digits().format_4_field(PanForm::Legacy12), Some(legacy));
        let short = Pan::parse("123456789012").unwrap();
        assert_eq!(short.digits().account_field(), None);
        assert_eq!(short.digits().format_4_field(PanForm::Legacy12), None);
    }
}
