//! Builds, checks, enciphers and deciphers PIN blocks (ISO 9564-1:2017, 9).
//!
//! ```text
//! nibbles    0: format    1: PIN length    2..16: PIN, then fill
//! format 0   fill F            xor account field           TDES-ECB
//! format 1   fill anything                                 TDES-ECB
//! format 2   fill F            between a chip and its reader alone
//! format 3   fill A to F       xor account field           TDES-ECB
//! format 4   fill A, then 8 random octets   AES(AES(block) xor PAN field)
//! ```
//!
//! Format and PAN are known to everybody; PIN, its length and whether the block is well formed
//! are secret. What depends on these is computed without branches, so that the time of an answer
//! tells nothing.

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::pan::{Digits, packed};
use super::{FormatForbidden, Pan, PanForm, PinBlockRejected};
use crate::crypto::aes::Aes;
use crate::crypto::ct::{
    Choice, ConditionallySelectable, ConstantTimeEq, ConstantTimeGreater, ConstantTimeLess,
};
use crate::crypto::rng::{Rng, RngFailed};
use crate::crypto::tdes::Tdes;
use crate::crypto::{KeyLengthInvalid, LengthInvalid};
use crate::key::usage::PinEncryption;
use crate::key::{Algorithm, Key};
use crate::memory::with_wiped_stack;

/// How a PIN stands in its block (ISO 9564-1:2017, 9.3 and 9.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PinBlockFormat {
    /// PIN and PAN, fixed fill. TDES.
    Iso0,
    /// PIN and random fill, no PAN. TDES.
    Iso1,
    /// PIN and fixed fill, no PAN: for a chip card alone.
    Iso2,
    /// PIN and PAN, random fill. TDES.
    Iso3,
    /// PIN, random fill and PAN, 16 octets. AES.
    Iso4,
}

impl PinBlockFormat {
    /// Octets of a block of this format.
    #[must_use]
    pub fn len_bytes(self) -> usize {
        match self {
            Self::Iso0 | Self::Iso1 | Self::Iso2 | Self::Iso3 => 8,
            Self::Iso4 => 16,
        }
    }

    /// Whether the format goes with keys of that algorithm (PCI PIN 2-3).
    #[must_use]
    pub fn goes_with(self, algorithm: Algorithm) -> bool {
        match self {
            Self::Iso0 | Self::Iso1 | Self::Iso2 | Self::Iso3 => algorithm.is_tdes(),
            Self::Iso4 => algorithm.is_aes(),
        }
    }

    fn control(self) -> u8 {
        match self {
            Self::Iso0 => 0,
            Self::Iso1 => 1,
            Self::Iso2 => 2,
            Self::Iso3 => 3,
            Self::Iso4 => 4,
        }
    }

    /// Whether a nibble may stand after the PIN.
    fn is_fill(self, nibble: u8) -> Choice {
        match self {
            Self::Iso0 | Self::Iso2 => nibble.ct_eq(&0xF),
            Self::Iso1 => Choice::from(1),
            Self::Iso3 => nibble.ct_gt(&0x9),
            Self::Iso4 => nibble.ct_eq(&0xA),
        }
    }

    /// The nibble that stands at that place after the PIN.
    fn fill(self, place: usize, fill: &Fill) -> u8 {
        match self {
            Self::Iso0 | Self::Iso2 => 0xF,
            Self::Iso1 | Self::Iso3 => fill.nibbles[place],
            Self::Iso4 => 0xA,
        }
    }
}

/// An enciphered PIN block: 8 octets, or 16 for format 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncryptedPinBlock(Cryptogram);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cryptogram {
    Aes([u8; 16]),
    Tdes([u8; 8]),
}

impl EncryptedPinBlock {
    /// Takes the octets of a block.
    pub fn parse(bytes: &[u8]) -> Result<Self, LengthInvalid> {
        if let Ok(octets) = bytes.try_into() {
            return Ok(Self(Cryptogram::Aes(octets)));
        }
        bytes.try_into().map(|octets| Self(Cryptogram::Tdes(octets))).map_err(|_| LengthInvalid)
    }

    /// The octets of the block.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Cryptogram::Aes(octets) => octets,
            Cryptogram::Tdes(octets) => octets,
        }
    }
}

/// The random part of one PIN block, drawn before the block is made and used once.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Fill {
    /// By place after the PIN length.
    pub(super) nibbles: [u8; Self::PLACES],
    /// The second half of format 4.
    pub(super) octets: [u8; 8],
}

impl Fill {
    pub(super) const PLACES: usize = 14;

    /// Draws a fill: nibbles A to F, each as likely as the others, and eight octets.
    pub fn draw(rng: &dyn Rng) -> Result<Self, RngFailed> {
        let mut fill = Self { nibbles: [0; Self::PLACES], octets: [0; 8] };
        rng.fill(&mut fill.octets)?;
        let mut empty = fill.nibbles.iter_mut();
        let mut drawn = Zeroizing::new([0; 2 * Self::PLACES]);
        while !empty.as_slice().is_empty() {
            rng.fill(&mut *drawn)?;
            // 252 is the greatest multiple of six in an octet: what lies above would favour some.
            let fair = drawn.iter().filter(|octet| **octet < 252);
            for (octet, nibble) in fair.zip(&mut empty) {
                *nibble = 0xA + octet % 6;
            }
        }
        Ok(fill)
    }
}

/// A clear PIN of 4 to 12 digits, as a cardholder enters it at a terminal. Wiped on drop.
pub struct Pin(ClearPin);

/// Why a text is not a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinInvalid {
    /// A character that is no decimal digit.
    #[error("the PIN holds something else than digits")]
    Digit,
    /// Fewer than 4 or more than 12 digits (ISO 9564-1:2017, 8.1).
    #[error("the PIN does not have 4 to 12 digits")]
    Length,
}

impl Pin {
    /// Reads the digits of a PIN.
    pub fn parse(text: &str) -> Result<Self, PinInvalid> {
        let len = u8::try_from(text.len()).map_err(|_| PinInvalid::Length)?;
        if !(ClearPin::LEN_MIN..=ClearPin::LEN_MAX).contains(&len) {
            return Err(PinInvalid::Length);
        }
        if !text.bytes().all(|character| character.is_ascii_digit()) {
            return Err(PinInvalid::Digit);
        }
        let mut pin = ClearPin { digits: [0; ClearPin::PLACES], len };
        for (digit, character) in pin.digits.iter_mut().zip(text.bytes()) {
            *digit = character - b'0';
        }
        Ok(Self(pin))
    }

    pub(super) fn clear(&self) -> &ClearPin {
        &self.0
    }
}

/// Enciphers a PIN at a terminal, in format 0, 3 or 4.
pub fn encipher(
    key: &Key<PinEncryption>,
    format: PinBlockFormat,
    pin: &Pin,
    pan: &Pan,
    fill: &Fill,
) -> Result<EncryptedPinBlock, FormatForbidden> {
    if matches!(format, PinBlockFormat::Iso1 | PinBlockFormat::Iso2) {
        return Err(FormatForbidden::Pair);
    }
    let side = Side::new(key, format, pan, PanForm::Full)?;
    with_wiped_stack(|| side.encipher(pin.clear(), fill))
}

/// Verifies that a block is well formed under a key, format and PAN, and tells nothing else: a
/// test transaction's PIN.
pub fn verify_form(
    key: &Key<PinEncryption>,
    format: PinBlockFormat,
    pan: &Pan,
    block: &EncryptedPinBlock,
) -> Result<(), PinBlockRejected> {
    let side = Side::new(key, format, pan, PanForm::Full).map_err(|_| PinBlockRejected)?;
    let (well_formed, _) = with_wiped_stack(|| side.decipher(block))?;
    if bool::from(well_formed) { Ok(()) } else { Err(PinBlockRejected) }
}

/// The digits of a PIN and how many of them count; wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct ClearPin {
    pub(super) digits: [u8; Self::PLACES],
    pub(super) len: u8,
}

impl ClearPin {
    pub(super) const LEN_MIN: u8 = 4;
    pub(super) const LEN_MAX: u8 = 12;
    const PLACES: usize = 12;
}

/// One side of a PIN block's way: a key, a format and the field that ties the block to its PAN.
pub(super) struct Side<'a> {
    pub(super) key: &'a [u8],
    pub(super) format: PinBlockFormat,
    pub(super) tie: Tie,
}

/// What a block is combined with.
pub(super) enum Tie {
    AccountField([u8; 8]),
    None,
    PanField([u8; 16]),
}

impl Tie {
    pub(super) fn new(
        format: PinBlockFormat,
        pan: &Digits,
        form: PanForm,
    ) -> Result<Self, FormatForbidden> {
        match format {
            PinBlockFormat::Iso0 | PinBlockFormat::Iso3 => {
                pan.account_field().map(Self::AccountField)
            }
            PinBlockFormat::Iso1 | PinBlockFormat::Iso2 => Some(Self::None),
            PinBlockFormat::Iso4 => pan.format_4_field(form).map(Self::PanField),
        }
        .ok_or(FormatForbidden::PanLength)
    }
}

impl<'a> Side<'a> {
    pub(super) fn new(
        key: &'a Key<PinEncryption>,
        format: PinBlockFormat,
        pan: &Pan,
        form: PanForm,
    ) -> Result<Self, FormatForbidden> {
        if !format.goes_with(key.algorithm()) {
            return Err(FormatForbidden::Algorithm);
        }
        // Exposed to the cipher of this block alone.
        Ok(Self { key: key.expose_bytes(), format, tie: Tie::new(format, pan.digits(), form)? })
    }

    /// Enciphers a PIN. Takes the same time for every PIN.
    pub(super) fn encipher(
        &self,
        pin: &ClearPin,
        fill: &Fill,
    ) -> Result<EncryptedPinBlock, FormatForbidden> {
        let mut block = encode(self.format, pin, fill);
        match &self.tie {
            Tie::AccountField(field) => xor(&mut *block, field),
            Tie::None => {}
            Tie::PanField(field) => {
                let aes = Aes::new(self.key)?;
                let mut wide = Zeroizing::new([0; 16]);
                wide[..8].copy_from_slice(&*block);
                wide[8..].copy_from_slice(&fill.octets);
                aes.encrypt_block(&mut wide);
                xor(&mut *wide, field);
                aes.encrypt_block(&mut wide);
                return Ok(EncryptedPinBlock(Cryptogram::Aes(*wide)));
            }
        }
        Tdes::new(self.key)?.encrypt_block(&mut block);
        Ok(EncryptedPinBlock(Cryptogram::Tdes(*block)))
    }

    /// Deciphers a block and tells whether it is well formed; if not, the PIN is none that was
    /// in it. Takes the same time either way.
    pub(super) fn decipher(
        &self,
        block: &EncryptedPinBlock,
    ) -> Result<(Choice, ClearPin), PinBlockRejected> {
        let mut clear = Zeroizing::new([0; 8]);
        match (&self.tie, block.0) {
            (Tie::PanField(field), Cryptogram::Aes(octets)) => {
                let aes = Aes::new(self.key).map_err(|_| PinBlockRejected)?;
                let mut wide = Zeroizing::new(octets);
                aes.decrypt_block(&mut wide);
                xor(&mut *wide, field);
                aes.decrypt_block(&mut wide);
                clear.copy_from_slice(&wide[..8]);
            }
            (Tie::AccountField(_) | Tie::None, Cryptogram::Tdes(octets)) => {
                *clear = octets;
                Tdes::new(self.key).map_err(|_| PinBlockRejected)?.decrypt_block(&mut clear);
                if let Tie::AccountField(field) = &self.tie {
                    xor(&mut *clear, field);
                }
            }
            (Tie::PanField(_), Cryptogram::Tdes(_))
            | (Tie::AccountField(_) | Tie::None, Cryptogram::Aes(_)) => {
                return Err(PinBlockRejected);
            }
        }
        Ok(decode(self.format, &clear))
    }
}

impl From<KeyLengthInvalid> for FormatForbidden {
    fn from(_: KeyLengthInvalid) -> Self {
        Self::Algorithm
    }
}

/// The first eight octets of a clear block, before any field of the PAN.
pub(super) fn encode(format: PinBlockFormat, pin: &ClearPin, fill: &Fill) -> Zeroizing<[u8; 8]> {
    let mut nibbles = Zeroizing::new([0; 16]);
    nibbles[0] = format.control();
    nibbles[1] = pin.len;
    for (place, (nibble, counted)) in nibbles[2..].iter_mut().zip(0_u8..).enumerate() {
        // The last two places are never a digit's.
        let digit = pin.digits.get(place).copied().unwrap_or_default();
        *nibble =
            u8::conditional_select(&format.fill(place, fill), &digit, counted.ct_lt(&pin.len));
    }
    Zeroizing::new(packed(&nibbles))
}

/// Reads the first eight octets of a clear block. Every check is made, whatever the others say;
/// one answer comes out (SEC-21).
pub(super) fn decode(format: PinBlockFormat, block: &Zeroizing<[u8; 8]>) -> (Choice, ClearPin) {
    let mut nibbles = Zeroizing::new([0; 16]);
    for (pair, octet) in nibbles.chunks_exact_mut(2).zip(block.iter()) {
        pair[0] = octet >> 4;
        pair[1] = octet & 0x0F;
    }
    let len = nibbles[1];
    let mut well_formed = nibbles[0].ct_eq(&format.control())
        & !len.ct_lt(&ClearPin::LEN_MIN)
        & !len.ct_gt(&ClearPin::LEN_MAX);
    let mut pin = ClearPin { digits: [0; ClearPin::PLACES], len: 0 };
    for (place, (nibble, counted)) in nibbles[2..].iter().zip(0_u8..).enumerate() {
        let is_digits_place = counted.ct_lt(&len);
        let digit = nibble.ct_lt(&10);
        let fill = format.is_fill(*nibble);
        well_formed &= (is_digits_place & digit) | (!is_digits_place & fill);
        if let Some(out) = pin.digits.get_mut(place) {
            *out = u8::conditional_select(&0, nibble, is_digits_place & digit);
        }
    }
    pin.len = u8::conditional_select(&ClearPin::LEN_MIN, &len, well_formed);
    (well_formed, pin)
}

fn xor(into: &mut [u8], from: &[u8]) {
    for (octet, other) in into.iter_mut().zip(from) {
        *octet ^= other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::rng::SystemRng;

    const FORMATS: [PinBlockFormat; 5] = [
        PinBlockFormat::Iso0,
        PinBlockFormat::Iso1,
        PinBlockFormat::Iso2,
        PinBlockFormat::Iso3,
        PinBlockFormat::Iso4,
    ];

    fn block_of(nibbles: [u8; 16]) -> Zeroizing<[u8; 8]> {
        Zeroizing::new(packed(&nibbles))
    }

    #[test]
    fn accepts_exactly_what_the_format_says() {
        for format in FORMATS {
            for control in 0..16 {
                for len in 0..16 {
                    for fill in 0..16 {
                        let mut nibbles = [fill; 16];
                        nibbles[0] = control;
                        nibbles[1] = len;
                        for digit in nibbles.iter_mut().skip(2).take(usize::from(len).min(12)) {
                            *digit = 7;
                        }
                        let fill_fits = match format {
                            PinBlockFormat::Iso0 | PinBlockFormat::Iso2 => fill == 0xF,
                            PinBlockFormat::Iso1 => true,
                            PinBlockFormat::Iso3 => fill >= 0xA,
                            PinBlockFormat::Iso4 => fill == 0xA,
                        };
                        let expected =
                            control == format.control() && (4..=12).contains(&len) && fill_fits;
                        let (well_formed, pin) = decode(format, &block_of(nibbles));
                        assert_eq!(bool::from(well_formed), expected, "{format:?} {nibbles:X?}");
                        if expected {
                            assert_eq!(pin.len, len);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_digit_and_every_fill_place_is_checked() {
        for len in 4..=12_u8 {
            for place in 0..14_usize {
                for nibble in 0..16 {
                    let mut nibbles = [0xF; 16];
                    nibbles[0] = 0;
                    nibbles[1] = len;
                    nibbles[2..2 + usize::from(len)].fill(3);
                    nibbles[2 + place] = nibble;
                    let expected =
                        if place < usize::from(len) { nibble < 10 } else { nibble == 0xF };
                    let (well_formed, _) = decode(PinBlockFormat::Iso0, &block_of(nibbles));
                    assert_eq!(bool::from(well_formed), expected, "{nibbles:X?}");
                }
            }
        }
    }

    #[test]
    fn what_is_encoded_is_well_formed() {
        let fill = Fill::draw(&SystemRng::new()).unwrap();
        for format in FORMATS {
            for text in ["1234", "00000", "9876543210", "123456789012"] {
                let pin = Pin::parse(text).unwrap();
                let (well_formed, read) = decode(format, &encode(format, pin.clear(), &fill));
                assert!(bool::from(well_formed));
                assert_eq!((read.digits, read.len), (pin.clear().digits, pin.clear().len));
            }
        }
    }

    #[test]
    fn a_fill_uses_all_six_nibbles_and_no_other() {
        let mut seen = [0_u32; 16];
        for _ in 0..500 {
            let fill = Fill::draw(&SystemRng::new()).unwrap();
            for nibble in fill.nibbles {
                seen[usize::from(nibble)] += 1;
            }
        }
        assert!(seen[..10].iter().all(|count| *count == 0));
        assert!(seen[10..].iter().all(|count| *count > 900), "{seen:?}");
    }

    #[test]
    fn a_pin_has_four_to_twelve_digits() {
        for (text, expected) in [
            ("123", PinInvalid::Length),
            ("1234567890123", PinInvalid::Length),
            ("12a4", PinInvalid::Digit),
            ("\u{661}\u{662}", PinInvalid::Digit),
        ] {
            assert_eq!(Pin::parse(text).err(), Some(expected));
        }
    }

    #[test]
    fn a_terminals_block_verifies_and_another_does_not() {
        let rng = SystemRng::new();
        let key = Key::generate(Algorithm::Aes128, &rng).unwrap();
        let pan = Pan::parse("4111111111111111").unwrap();
        let pin = Pin::parse("1234").unwrap();
        let fill = Fill::draw(&rng).unwrap();
        let block = encipher(&key, PinBlockFormat::Iso4, &pin, &pan, &fill).unwrap();
        assert_eq!(verify_form(&key, PinBlockFormat::Iso4, &pan, &block), Ok(()));
        let other = Pan::parse("4111111111111112").unwrap();
        let rejected = verify_form(&key, PinBlockFormat::Iso4, &other, &block);
        assert_eq!(rejected, Err(PinBlockRejected));
        assert_eq!(
            encipher(&key, PinBlockFormat::Iso0, &pin, &pan, &fill),
            Err(FormatForbidden::Algorithm)
        );
        assert_eq!(
            encipher(&key, PinBlockFormat::Iso1, &pin, &pan, &fill),
            Err(FormatForbidden::Pair)
        );
    }
}
