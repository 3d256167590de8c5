//! PIN blocks below the policy: clear blocks, any format, any pair, short PANs, given fills.

use zeroize::Zeroizing;

use super::block::{
    ClearPin, EncryptedPinBlock, Fill, Pin, PinBlockFormat, Side, Tie, decode as read,
    encode as write,
};
use super::pan::Digits;
use super::{FormatForbidden, PanForm, PanInvalid, PinBlockRejected, PinInvalid};
use crate::crypto::LengthInvalid;

/// Why an input was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Block(#[from] PinBlockRejected),
    #[error("the random fill does not fit the format and the PIN")]
    Fill,
    #[error(transparent)]
    Format(#[from] FormatForbidden),
    #[error(transparent)]
    Length(#[from] LengthInvalid),
    #[error(transparent)]
    Pan(#[from] PanInvalid),
    #[error("a PAN is needed")]
    PanMissing,
    #[error(transparent)]
    Pin(#[from] PinInvalid),
}

/// What a PIN block is made of, or is expected to hold.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) format: PinBlockFormat,
    /// Formats 1 and 2 and a clear block of format 4 have none.
    pub(crate) pan: Option<&'a str>,
}

impl Subject<'_> {
    /// How many fill nibbles a PIN of that length needs; format 4 counts those of its second half.
    pub(crate) fn fill_len(self, pin: &str) -> usize {
        match self.format {
            PinBlockFormat::Iso0 | PinBlockFormat::Iso2 => 0,
            PinBlockFormat::Iso1 | PinBlockFormat::Iso3 => Fill::PLACES.saturating_sub(pin.len()),
            PinBlockFormat::Iso4 => 16,
        }
    }

    /// The clear block; of format 4, the PIN field.
    pub(crate) fn encode(self, pin: &str, fill: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let pin = Pin::parse(pin)?;
        let mask = self.clear_mask()?;
        let fill = given_fill(self.format, pin.clear(), fill)?;
        let mut block = Zeroizing::new(write(self.format, pin.clear(), &fill).to_vec());
        for (octet, other) in block.iter_mut().zip(mask) {
            *octet ^= other;
        }
        if self.format == PinBlockFormat::Iso4 {
            block.extend_from_slice(&fill.octets);
        }
        Ok(block)
    }

    /// The PIN of a clear block; of format 4, of a PIN field.
    pub(crate) fn decode(self, block: &[u8]) -> Result<Zeroizing<String>, Refused> {
        let mask = self.clear_mask()?;
        if block.len() != self.format.len_bytes() {
            return Err(LengthInvalid.into());
        }
        let mut clear = Zeroizing::new([0; 8]);
        for (octet, (from, other)) in clear.iter_mut().zip(block.iter().zip(mask)) {
            *octet = from ^ other;
        }
        let (well_formed, pin) = read(self.format, &clear);
        if bool::from(well_formed) { Ok(text(&pin)) } else { Err(PinBlockRejected.into()) }
    }

    /// An enciphered block.
    pub(crate) fn encipher(
        self,
        key: &[u8],
        pin: &str,
        fill: &[u8],
    ) -> Result<EncryptedPinBlock, Refused> {
        let pin = Pin::parse(pin)?;
        let fill = given_fill(self.format, pin.clear(), fill)?;
        Ok(self.side(key)?.encipher(pin.clear(), &fill)?)
    }

    /// The PIN of an enciphered block.
    pub(crate) fn decipher(self, key: &[u8], block: &[u8]) -> Result<Zeroizing<String>, Refused> {
        let block = EncryptedPinBlock::parse(block)?;
        let (well_formed, pin) = self.side(key)?.decipher(&block)?;
        if bool::from(well_formed) { Ok(text(&pin)) } else { Err(PinBlockRejected.into()) }
    }

    fn side(self, key: &[u8]) -> Result<Side<'_>, Refused> {
        Ok(Side { key, format: self.format, tie: self.tie()? })
    }

    fn tie(self) -> Result<Tie, Refused> {
        match self.format {
            PinBlockFormat::Iso1 | PinBlockFormat::Iso2 => Ok(Tie::None),
            PinBlockFormat::Iso0 | PinBlockFormat::Iso3 | PinBlockFormat::Iso4 => {
                let pan = Digits::parse(self.pan.ok_or(Refused::PanMissing)?)?;
                Ok(Tie::new(self.format, &pan, PanForm::Full)?)
            }
        }
    }

    /// What a clear block holds besides PIN and fill. The PIN field of format 4 stands alone.
    fn clear_mask(self) -> Result<[u8; 8], Refused> {
        if self.format == PinBlockFormat::Iso4 {
            return Ok([0; 8]);
        }
        match self.tie()? {
            Tie::AccountField(field) => Ok(field),
            Tie::None | Tie::PanField(_) => Ok([0; 8]),
        }
    }
}

/// The PAN field of format 4 for a PAN of 1 to 19 digits.
pub(crate) fn encode_pan_field(pan: &str) -> Result<[u8; 16], Refused> {
    let digits = Digits::parse(pan)?;
    Ok(digits.format_4_field(PanForm::Full).ok_or(FormatForbidden::PanLength)?)
}

/// Puts given nibbles where an encoder would draw them.
fn given_fill(format: PinBlockFormat, pin: &ClearPin, given: &[u8]) -> Result<Fill, Refused> {
    let mut fill = Fill { nibbles: [0; Fill::PLACES], octets: [0; 8] };
    let is_nibble = |nibble: &u8| *nibble <= 0xF;
    match format {
        PinBlockFormat::Iso0 | PinBlockFormat::Iso2 => {
            if !given.is_empty() {
                return Err(Refused::Fill);
            }
        }
        PinBlockFormat::Iso1 | PinBlockFormat::Iso3 => {
            let lowest = if format == PinBlockFormat::Iso3 { 0xA } else { 0 };
            let places = &mut fill.nibbles[usize::from(pin.len)..];
            if places.len() != given.len()
                || !given.iter().all(|nibble| is_nibble(nibble) && *nibble >= lowest)
            {
                return Err(Refused::Fill);
            }
            places.copy_from_slice(given);
        }
        PinBlockFormat::Iso4 => {
            if given.len() != 2 * fill.octets.len() || !given.iter().all(is_nibble) {
                return Err(Refused::Fill);
            }
            for (octet, pair) in fill.octets.iter_mut().zip(given.chunks_exact(2)) {
                *octet = pair[0] << 4 | pair[1];
            }
        }
    }
    Ok(fill)
}

fn text(pin: &ClearPin) -> Zeroizing<String> {
    let digits = pin.digits.iter().take(usize::from(pin.len));
    Zeroizing::new(digits.map(|digit| char::from(b'0' + digit)).collect())
}

/// The PIN 1234 with these fill nibbles under a key of the derivation's examples, there and back.
pub(super) fn holds(format: PinBlockFormat, fill: &[u8], expected: &[u8]) -> Option<bool> {
    const TDES_KEY: [u8; 16] = [
        0x04, 0x26, 0x66, 0xB4, 0x91, 0x84, 0xCF, 0x5C, 0x68, 0xDE, 0x96, 0x28, 0xD0, 0x39, 0x7B,
        0x36,
    ];
    const AES_KEY: [u8; 16] = [
        0xAF, 0x8C, 0xB1, 0x33, 0xA7, 0x8F, 0x8D, 0xC2, 0xD1, 0x35, 0x9F, 0x18, 0x52, 0x75, 0x93,
        0xFB,
    ];
    let (key, pan) = match format {
        PinBlockFormat::Iso4 => (&AES_KEY, "4111111111111111"),
        _ => (&TDES_KEY, "4012345678909"),
    };
    let subject = Subject { format, pan: Some(pan) };
    let made = subject.encipher(key, "1234", fill).ok()?;
    let pin = subject.decipher(key, made.bytes()).ok()?;
    Some(made.bytes() == expected && *pin == "1234")
}
