//! Payments: PIN entry, limits, and the message that goes to the host.

use zeroize::Zeroizing;

use super::exchange::make_mac;
use super::{Ksn, Terminal, TerminalError};
use crate::activation::parameters::Limits;
use crate::activation::payload::{CardData, PinBlockFormat as SentFormat};
use crate::agreement::{Dukpt, Suite};
use crate::crypto::rng::Rng;
use crate::key::Key;
use crate::key::usage::PinEncryption;
use crate::pin::{self, EncryptedPinBlock, Fill, Pan, Pin, PinBlockFormat};

/// A purchase to be made.
#[derive(Clone, Copy)]
pub struct Purchase<'a> {
    /// The amount, in minor units of the terminal's currency.
    pub amount_minor: u64,
    /// The card.
    pub pan: &'a Pan,
    /// The cardholder's PIN.
    pub pin: &'a Pin,
}

/// A payment as it goes to the host, which checks the MAC and translates the PIN block.
#[derive(Clone, Debug)]
pub struct Payment {
    /// The key serial number of both keys.
    pub ksn: Ksn,
    /// The message: `purchase` and its fields, in ASCII. The PAN is not in it.
    pub message: Vec<u8>,
    /// CMAC of the message under the MAC request key, in full length.
    pub mac: Vec<u8>,
    /// The PIN block under the PIN key.
    pub pin_block: EncryptedPinBlock,
    /// Its format: 4 for AES, 3 for TDES.
    pub pin_block_format: PinBlockFormat,
}

/// What a terminal moved on one day, UTC.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Moved {
    /// Days since 1970.
    pub(super) day: u64,
    pub(super) amount_minor: u64,
}

impl Terminal {
    /// Makes a purchase within the limits of the applied parameters.
    ///
    /// The amount counts towards the day as soon as the message exists: whether the host was
    /// reached is not known here. A clock that goes back does not open a new day.
    pub fn purchase(
        &mut self,
        purchase: Purchase<'_>,
        rng: &dyn Rng,
        now: u64,
    ) -> Result<Payment, TerminalError> {
        let day = now / SECONDS_PER_DAY;
        let moved = if day > self.moved.day { Moved { day, amount_minor: 0 } } else { self.moved };
        let parameters = self.parameters.as_ref().ok_or(TerminalError::OutOfStep)?;
        let limits: Limits = parameters.limits;
        limits.admit(purchase.amount_minor, moved.amount_minor)?;

        let number = self.purchases_made + 1;
        let message = format!(
            "purchase;terminal_id={};merchant_id={};number={number};amount_minor={};currency={};\
             time_seconds={now}",
            parameters.terminal_id.as_str(),
            parameters.merchant_id.as_str(),
            purchase.amount_minor,
            parameters.currency.as_str(),
        )
        .into_bytes();
        let suite = self.suite;
        let keys = self.serving_engine()?.next_transaction()?;
        let mac = make_mac(suite, &keys.mac_request, &message);
        let entry = PinEntry { suite, key: &keys.pin, pin: purchase.pin };
        let pin_block = entry.encipher(purchase.pan, rng)?;
        let amount_minor = moved.amount_minor.saturating_add(purchase.amount_minor);
        self.moved = Moved { day: moved.day, amount_minor };
        self.purchases_made = number;
        let pin_block_format = entry.format();
        Ok(Payment { ksn: keys.ksn, message, mac, pin_block, pin_block_format })
    }
}

/// A PIN as it is entered for one transaction.
pub(super) struct PinEntry<'a> {
    pub(super) suite: Suite,
    pub(super) key: &'a Key<PinEncryption>,
    pub(super) pin: &'a Pin,
}

/// A PIN block of a test transaction.
pub(super) struct Entry {
    pub(super) block: EncryptedPinBlock,
    pub(super) format: SentFormat,
}

impl PinEntry<'_> {
    /// Format 4 goes with AES; of those that go with TDES, 3 is the one with a random fill: SEC-24.
    fn format(&self) -> PinBlockFormat {
        match self.suite.dukpt() {
            Dukpt::Aes128 => PinBlockFormat::Iso4,
            Dukpt::Tdes2 => PinBlockFormat::Iso3,
        }
    }

    fn encipher(&self, pan: &Pan, rng: &dyn Rng) -> Result<EncryptedPinBlock, TerminalError> {
        let fill = Fill::draw(rng)?;
        Ok(pin::encipher(self.key, self.format(), self.pin, pan, &fill)?)
    }

    /// As [`Self::encipher`], whatever was read from the card: its PAN is filled with zeros on the
    /// left to 13 digits, and cut on the right to 19.
    pub(super) fn encipher_for_test(
        &self,
        card: &CardData,
        rng: &dyn Rng,
    ) -> Result<Entry, TerminalError> {
        let pan = Pan::parse(card.expose_pan()).or_else(|_| {
            let filled = Zeroizing::new(format!("{:0>13}", card.expose_pan()));
            Pan::parse(filled.get(..Pan::LEN_MAX).unwrap_or(&filled))
        });
        let pan = pan.expect("13 to 19 digits are a PAN");
        let format = match self.suite.dukpt() {
            Dukpt::Aes128 => SentFormat::Iso4,
            Dukpt::Tdes2 => SentFormat::Iso3,
        };
        Ok(Entry { block: self.encipher(&pan, rng)?, format })
    }
}

const SECONDS_PER_DAY: u64 = 86_400;
