//! The activation code that a merchant types into a terminal.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::crypto::{constant_time_eq, hmac};

/// Crockford's base 32: no `I`, `L`, `O` (read as digits) and no `U`.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// An activation code: 50 random bits and what finds a slip of the finger.
///
/// ```text
/// characters  0..10   the random bits, five to a character, first bits first
///            10..12   check characters
/// shown as           XXXX-XXXX-XXXX
/// ```
///
/// The characters, read as elements of GF(2^5) modulo x^5 + x^2 + 1, are the coefficients of a
/// polynomial, first character highest, that (z + 1)(z + a) divides, `a` being the element x: a
/// Reed-Solomon code of distance three. Any one or two wrong characters are found, and so is every
/// swap of two.
///
/// Wiped on drop; `Debug` shows nothing of it. The code is only ever stored as a [`CodeHash`].
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct ActivationCode {
    symbols: [u8; Self::LEN],
}

impl ActivationCode {
    /// The characters of a code, check characters included.
    pub const LEN: usize = 12;

    /// The random characters of a code.
    const RANDOM_LEN: usize = 10;

    /// Makes a code of the first 50 of `random`'s bits, which the caller draws uniformly.
    #[must_use]
    pub fn from_random_bits(random: &[u8; 7]) -> Self {
        let mut bits = u64::from_be_bytes([
            0, random[0], random[1], random[2], random[3], random[4], random[5], random[6],
        ]) >> 6;
        let mut symbols = [0; Self::LEN];
        for symbol in symbols[..Self::RANDOM_LEN].iter_mut().rev() {
            *symbol = bits.to_be_bytes()[7] & 0x1F;
            bits >>= 5;
        }
        let [first, second] = remainder(&symbols);
        symbols[Self::RANDOM_LEN] = first;
        symbols[Self::RANDOM_LEN + 1] = second;
        Self { symbols }
    }

    /// Parses what a person typed: letters of either case, hyphens and blanks anywhere, `I` and `L`
    /// for 1, `O` for 0.
    pub fn parse(text: &str) -> Result<Self, CodeInvalid> {
        let mut code = Self { symbols: [0; Self::LEN] };
        let mut count = 0;
        for letter in text.bytes() {
            if matches!(letter, b'-' | b' ') {
                continue;
            }
            let symbol = code.symbols.get_mut(count).ok_or(CodeInvalid::Length)?;
            *symbol = symbol_of(letter).ok_or(CodeInvalid::Character)?;
            count += 1;
        }
        if count != Self::LEN {
            return Err(CodeInvalid::Length);
        }
        if remainder(&code.symbols) != [0, 0] {
            return Err(CodeInvalid::Check);
        }
        Ok(code)
    }

    /// The normal form, 12 characters without hyphens, as it travels in a payload.
    #[must_use]
    pub fn expose_text(&self) -> Zeroizing<String> {
        Zeroizing::new(self.symbols.iter().map(|symbol| character(*symbol)).collect())
    }

    /// The form for people, in groups of four.
    #[must_use]
    pub fn expose_grouped(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(Self::LEN + 2));
        for (index, symbol) in self.symbols.iter().enumerate() {
            if index > 0 && index % 4 == 0 {
                text.push('-');
            }
            text.push(character(*symbol));
        }
        text
    }

    /// The keyed hash under which a code is stored, bound to the serial and the merchant that it
    /// was issued for.
    ///
    /// ```text
    /// HMAC-SHA-256( key, code(12) || length(serial)(1) || serial || merchant )
    /// ```
    ///
    /// A code of 50 bits is guessed from a plain hash within hours; without `key` it is not. See
    /// SEC-36.
    #[must_use]
    pub fn keyed_hash(&self, key: &[u8; 32], holder: &CodeHolder<'_>) -> CodeHash {
        let text = self.expose_text();
        // A serial is at most 32 characters long; a longer one would only be hashed as 255.
        let serial_len = u8::try_from(holder.serial.len()).unwrap_or(u8::MAX);
        let mut message = Zeroizing::new(Vec::with_capacity(128));
        message.extend_from_slice(text.as_bytes());
        message.push(serial_len);
        message.extend_from_slice(holder.serial.as_bytes());
        message.extend_from_slice(holder.merchant.as_bytes());
        CodeHash(hmac::hmac_sha256(key, &message))
    }
}

impl fmt::Debug for ActivationCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ActivationCode(..)")
    }
}

/// For whom a code was issued.
#[derive(Clone, Copy, Debug)]
pub struct CodeHolder<'a> {
    /// The serial of the terminal, at most 32 characters.
    pub serial: &'a str,
    /// The id of the merchant.
    pub merchant: &'a str,
}

/// The keyed hash of a code. Compared in constant time only.
pub struct CodeHash([u8; 32]);

impl CodeHash {
    /// Takes a hash from a record.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash, for a sealed record.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both are of the same code, holder and key.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        constant_time_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for CodeHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CodeHash(..)")
    }
}

/// What is wrong with a typed code. All of it is found without asking the service.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CodeInvalid {
    /// A character that Crockford's base 32 does not have.
    #[error("the code has a character that codes never have")]
    Character,
    /// The check characters do not fit: one or two characters are wrong, or two are swapped.
    #[error("the code was mistyped")]
    Check,
    /// Not 12 characters.
    #[error("a code has 12 characters")]
    Length,
}

fn symbol_of(letter: u8) -> Option<u8> {
    let letter = match letter.to_ascii_uppercase() {
        b'I' | b'L' => b'1',
        b'O' => b'0',
        other => other,
    };
    let position = ALPHABET.iter().position(|known| *known == letter)?;
    u8::try_from(position).ok()
}

fn character(symbol: u8) -> char {
    char::from(ALPHABET[usize::from(symbol & 0x1F)])
}

/// The remainder of the polynomial on division by (z + 1)(z + a) = z^2 + (1 + a) z + a, highest
/// coefficient first; zero for a whole code. With check characters of zero, those to put there.
fn remainder(symbols: &[u8; ActivationCode::LEN]) -> [u8; 2] {
    let mut rest = [0_u8; 2];
    for symbol in symbols {
        let lead = rest[0];
        rest = [rest[1] ^ lead ^ times_a(lead), symbol ^ times_a(lead)];
    }
    rest
}

/// Multiplies by `a` in GF(2^5), without a branch upon the value.
fn times_a(value: u8) -> u8 {
    let carry = (value >> 4) & 1;
    ((value << 1) ^ (0x25 * carry)) & 0x1F
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ActivationCode {
        ActivationCode::from_random_bits(&[0x12, 0x34, 0x56, 0x78, 0x9A, 0xBC, 0xDE])
    }

    #[test]
    fn a_code_comes_back_from_what_people_make_of_it() {
        let code = sample();
        let grouped = code.expose_grouped();
        assert_eq!(grouped.len(), 14);
        for typed in [
            grouped.to_lowercase(),
            grouped.replace('1', "l").replace('0', "o"),
            grouped.replace('1', "I").replace('-', " "),
            code.expose_text().to_string(),
        ] {
            let parsed = ActivationCode::parse(&typed).expect("a form of the code");
            assert_eq!(*parsed.expose_text(), *code.expose_text());
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let text = sample().expose_text();
        let refused = |text: &str| ActivationCode::parse(text).expect_err("not a code");
        assert_eq!(refused(""), CodeInvalid::Length);
        assert_eq!(refused(&text[1..]), CodeInvalid::Length);
        assert_eq!(refused(&format!("{}0", *text)), CodeInvalid::Length);
        assert_eq!(refused(&format!("U{}", &text[1..])), CodeInvalid::Character);
        assert_eq!(refused(&format!("é{}", &text[2..])), CodeInvalid::Character);
    }

    /// The code is linear, so an error goes unfound only if it is a code word itself: every error
    /// of one character and of two, whichever they are, is tried, swaps among them.
    #[test]
    fn every_error_of_one_or_two_characters_is_found() {
        let mut tried = 0_u32;
        for first in 0..ActivationCode::LEN {
            for first_error in 1..32 {
                let mut error = [0_u8; ActivationCode::LEN];
                error[first] = first_error;
                assert_ne!(remainder(&error), [0, 0]);
                for second in first + 1..ActivationCode::LEN {
                    for second_error in 1..32 {
                        error[second] = second_error;
                        assert_ne!(remainder(&error), [0, 0]);
                        tried += 1;
                    }
                    error[second] = 0;
                }
            }
        }
        assert_eq!(tried, 66 * 31 * 31);
    }

    #[test]
    fn a_swap_in_a_real_code_is_found() {
        let text = sample().expose_text();
        for first in 0..ActivationCode::LEN {
            for second in first + 1..ActivationCode::LEN {
                let mut bytes = text.as_bytes().to_vec();
                bytes.swap(first, second);
                let swapped = String::from_utf8(bytes).expect("ASCII");
                let same = swapped == *text;
                assert_eq!(ActivationCode::parse(&swapped).is_ok(), same);
            }
        }
    }

    #[test]
    fn the_hash_binds_code_holder_and_key() {
        let holder = CodeHolder { serial: "SN-1", merchant: "M1" };
        let code = sample();
        let hash = code.keyed_hash(&[7; 32], &holder);
        assert!(hash.matches(&code.keyed_hash(&[7; 32], &holder)));
        assert!(!hash.matches(&code.keyed_hash(&[8; 32], &holder)));
        let shifted = CodeHolder { serial: "SN-1M", merchant: "1" };
        assert!(!hash.matches(&code.keyed_hash(&[7; 32], &shifted)));
        assert!(
            !hash.matches(&ActivationCode::from_random_bits(&[0; 7]).keyed_hash(&[7; 32], &holder))
        );
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", sample()), "ActivationCode(..)");
    }
}
