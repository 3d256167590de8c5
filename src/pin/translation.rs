//! Translates a PIN block from one key and format to another, the one place where a host has a
//! clear PIN.

use super::block::{EncryptedPinBlock, Fill, PinBlockFormat, Side};
use super::{FormatForbidden, Pan, PanForm, PinBlockRejected};
use crate::key::Key;
use crate::key::usage::PinEncryption;
use crate::memory::with_wiped_stack;

/// Re-enciphers a PIN block. There is one PAN: a translation to another can not be expressed
/// (SEC-19).
#[derive(Debug)]
pub struct Translation<'a> {
    /// The key that the block comes under.
    pub inbound: &'a Key<PinEncryption>,
    /// The format that the block comes in.
    pub from: PinBlockFormat,
    /// How the PAN stands in a block that comes in format 4.
    pub inbound_pan: PanForm,
    /// The key that the block leaves under.
    pub outbound: &'a Key<PinEncryption>,
    /// The format that the block leaves in.
    pub to: PinBlockFormat,
    /// How the PAN stands in a block that leaves in format 4.
    pub outbound_pan: PanForm,
    /// The PAN of both blocks.
    pub pan: &'a Pan,
    /// Whether the inbound key's attributes let it carry format 1, which no PAN is bound to.
    pub format_1_inbound: bool,
}

impl Translation<'_> {
    /// Tells whether the translation may be made, before anything is deciphered.
    pub fn check(&self) -> Result<(), FormatForbidden> {
        self.sides().map(|_| ())
    }

    /// Translates a block; the clear PIN exists inside this call only, and its stack is wiped.
    /// Whatever is wrong, the caller learns that the block was rejected, after the same work.
    pub fn apply(
        &self,
        block: &EncryptedPinBlock,
        fill: &Fill,
    ) -> Result<EncryptedPinBlock, PinBlockRejected> {
        let (inbound, outbound) = self.sides().map_err(|_| PinBlockRejected)?;
        with_wiped_stack(|| {
            let (well_formed, pin) = inbound.decipher(block)?;
            // Enciphered whether well formed or not, so that the time does not tell.
            let translated = outbound.encipher(&pin, fill).map_err(|_| PinBlockRejected)?;
            if bool::from(well_formed) { Ok(translated) } else { Err(PinBlockRejected) }
        })
    }

    fn sides(&self) -> Result<(Side<'_>, Side<'_>), FormatForbidden> {
        if !permitted(self.from, self.to, self.format_1_inbound) {
            return Err(FormatForbidden::Pair);
        }
        let inbound = Side::new(self.inbound, self.from, self.pan, self.inbound_pan)?;
        let outbound = Side::new(self.outbound, self.to, self.pan, self.outbound_pan)?;
        Ok((inbound, outbound))
    }
}

/// Whether a block of one format may become a block of another (PCI PIN 3-3).
/// `format_1_inbound` is the inbound key's attribute.
#[must_use]
pub fn permitted(from: PinBlockFormat, to: PinBlockFormat, format_1_inbound: bool) -> bool {
    PERMITTED.iter().any(|(row_from, row_to, condition)| {
        let met = match condition {
            Condition::ByAttribute => format_1_inbound,
            Condition::SamePan => true,
        };
        *row_from == from && *row_to == to && met
    })
}

/// On what a pair depends. That the PAN is the same is so by construction.
#[derive(Clone, Copy)]
enum Condition {
    ByAttribute,
    SamePan,
}

use Condition::{ByAttribute, SamePan};
use PinBlockFormat::{Iso0, Iso1, Iso3, Iso4};

/// Every permitted pair; what is not here is forbidden. Nothing becomes format 1, for that would
/// loosen the PIN from its PAN; format 2 belongs to a chip and its reader.
const PERMITTED: &[(PinBlockFormat, PinBlockFormat, Condition)] = &[
    (Iso0, Iso0, SamePan),
    (Iso0, Iso3, SamePan),
    (Iso0, Iso4, SamePan),
    (Iso1, Iso0, ByAttribute),
    (Iso1, Iso3, ByAttribute),
    (Iso1, Iso4, ByAttribute),
    (Iso3, Iso0, SamePan),
    (Iso3, Iso3, SamePan),
    (Iso3, Iso4, SamePan),
    (Iso4, Iso0, SamePan),
    (Iso4, Iso3, SamePan),
    (Iso4, Iso4, SamePan),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::rng::SystemRng;
    use crate::key::Algorithm;
    use crate::pin::for_vectors::Subject;
    use PinBlockFormat::Iso2;

    const PAN: &str = "4012345678909";

    fn key(format: PinBlockFormat) -> Key<PinEncryption> {
        let algorithm = if format == Iso4 { Algorithm::Aes128 } else { Algorithm::Tdes2 };
        Key::generate(algorithm, &SystemRng::new()).unwrap()
    }

    fn fill() -> Fill {
        Fill::draw(&SystemRng::new()).unwrap()
    }

    fn made(key: &Key<PinEncryption>, format: PinBlockFormat) -> EncryptedPinBlock {
        let subject = Subject { format, pan: Some(PAN) };
        let fill = vec![0xC; subject.fill_len("12345")];
        subject.encipher(key.expose_bytes(), "12345", &fill).unwrap()
    }

    #[test]
    fn the_table_is_the_matrix_of_the_requirements() {
        // PCI PIN 3-3, as this service narrows it: rows from, columns to, for 0 1 2 3 4.
        // s: same PAN, a: only by the key's attribute, n: never.
        let matrix = ["snnss", "annaa", "nnnnn", "snnss", "snnss"];
        let formats = [Iso0, Iso1, Iso2, Iso3, Iso4];
        for (from, row) in formats.into_iter().zip(matrix) {
            for (to, cell) in formats.into_iter().zip(row.chars()) {
                assert_eq!(permitted(from, to, false), cell == 's', "{from:?} {to:?}");
                assert_eq!(permitted(from, to, true), cell != 'n', "{from:?} {to:?}");
            }
        }
    }

    #[test]
    fn every_permitted_pair_carries_the_pin_and_no_other_does() {
        let pan = Pan::parse(PAN).unwrap();
        for from in [Iso0, Iso1, Iso2, Iso3, Iso4] {
            for to in [Iso0, Iso1, Iso2, Iso3, Iso4] {
                let (inbound, outbound) = (key(from), key(to));
                let translation = Translation {
                    inbound: &inbound,
                    from,
                    inbound_pan: PanForm::Full,
                    outbound: &outbound,
                    to,
                    outbound_pan: PanForm::Full,
                    pan: &pan,
                    format_1_inbound: true,
                };
                let translated = translation.apply(&made(&inbound, from), &fill());
                if !permitted(from, to, true) {
                    assert_eq!(translation.check(), Err(FormatForbidden::Pair));
                    assert_eq!(translated, Err(PinBlockRejected));
                    continue;
                }
                let subject = Subject { format: to, pan: Some(PAN) };
                let translated = translated.unwrap();
                let pin = subject.decipher(outbound.expose_bytes(), translated.bytes()).unwrap();
                assert_eq!(*pin, "12345");
            }
        }
    }

    #[test]
    fn another_pan_another_length_and_another_algorithm_are_refused() {
        let pan = Pan::parse("4012345678008").unwrap();
        let (inbound, outbound) = (key(Iso0), key(Iso4));
        let mut translation = Translation {
            inbound: &inbound,
            from: Iso0,
            inbound_pan: PanForm::Full,
            outbound: &outbound,
            to: Iso4,
            outbound_pan: PanForm::Full,
            pan: &pan,
            format_1_inbound: false,
        };
        let block = made(&inbound, Iso0);
        assert_eq!(translation.check(), Ok(()));
        assert_eq!(translation.apply(&block, &fill()), Err(PinBlockRejected));
        let longer = EncryptedPinBlock::parse(&[0; 16]).unwrap();
        assert_eq!(translation.apply(&longer, &fill()), Err(PinBlockRejected));
        let short = Pan::parse("401234567890").unwrap();
        translation.pan = &short;
        assert_eq!(translation.check(), Err(FormatForbidden::PanLength));
        translation.pan = &pan;
        translation.to = Iso3;
        assert_eq!(translation.check(), Err(FormatForbidden::Algorithm));
        assert_eq!(translation.apply(&block, &fill()), Err(PinBlockRejected));
    }

    #[test]
    fn the_legacy_pan_form_is_another_block() {
        let pan = Pan::parse(PAN).unwrap();
        let (inbound, outbound) = (key(Iso4), key(Iso4));
        let mut translation = Translation {
            inbound: &inbound,
            from: Iso4,
            inbound_pan: PanForm::Full,
            outbound: &outbound,
            to: Iso4,
            outbound_pan: PanForm::Legacy12,
            pan: &pan,
            format_1_inbound: false,
        };
        let block = translation.apply(&made(&inbound, Iso4), &fill()).unwrap();
        let subject = Subject { format: Iso4, pan: Some(PAN) };
        assert!(subject.decipher(outbound.expose_bytes(), block.bytes()).is_err());
        translation.inbound = &outbound;
        translation.inbound_pan = PanForm::Legacy12;
        assert!(translation.apply(&block, &fill()).is_ok());
    }
}
