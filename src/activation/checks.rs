//! The judgement of a test transaction, check by check, as pure data.

use super::parameters::{Currency, Limits, OverLimit};
use super::payload::TestTransaction;

/// A check of a test transaction, in the order in which verdicts stand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Check {
    /// The MAC of the message; passed wherever there is a verdict.
    Mac,
    /// The KSN is fresh and within the window; passed wherever there is a verdict.
    Ksn,
    /// The PIN block opens to a PIN for this PAN.
    PinBlock,
    /// Currency and amount are within the terminal's limits.
    Limits,
    /// The PAN has 12 to 19 digits (ISO/IEC 7812-1).
    PanLength,
    /// The last digit of the PAN is its check digit (ISO/IEC 7812-1, annex B).
    Luhn,
    /// The card has not expired (ISO/IEC 7813).
    Expiry,
}

impl Check {
    /// All checks, in order.
    pub const ALL: [Self; 7] = [
        Self::Mac,
        Self::Ksn,
        Self::PinBlock,
        Self::Limits,
        Self::PanLength,
        Self::Luhn,
        Self::Expiry,
    ];

    /// The name, for a timeline.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mac => "MAC",
            Self::Ksn => "KSN",
            Self::PinBlock => "PIN_BLOCK",
            Self::Limits => "LIMITS",
            Self::PanLength => "PAN_LENGTH",
            Self::Luhn => "LUHN",
            Self::Expiry => "EXPIRY",
        }
    }

    /// What to do where it failed.
    fn remedy(self) -> &'static str {
        match self {
            // These two never fail: without them there are no verdicts.
            Self::Mac | Self::Ksn => "Send the next transaction.",
            Self::PinBlock => "Enter the PIN again; check the PIN block format and the PAN.",
            Self::Limits => "Send an amount within the limits, in the terminal's currency.",
            Self::PanLength => "Read the card again: a PAN has 12 to 19 digits.",
            Self::Luhn => "Read the card again: the check digit of the PAN is wrong.",
            Self::Expiry => "Use a test card that has not expired.",
        }
    }

    fn verdict(self, passed: bool) -> Verdict {
        let remedy = if passed { String::new() } else { self.remedy().to_owned() };
        Verdict { check: self, passed, remedy }
    }
}

/// How one check came out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// The check.
    pub check: Check,
    /// It passed.
    pub passed: bool,
    /// What to do where it failed, at most 200 characters; empty where it passed.
    pub remedy: String,
}

/// What is known of a test transaction when it is judged.
///
/// A message whose MAC does not verify, or whose counter is spent, gets no verdicts: it is refused.
/// Whatever is judged has passed [`Check::Mac`] and [`Check::Ksn`].
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The PIN block opened to a PIN for this PAN; why not is not known, and not told.
    pub pin_block_accepted: bool,
    /// The transaction.
    pub transaction: &'a TestTransaction,
    /// The terminal's currency.
    pub currency: Currency,
    /// The terminal's limits.
    pub limits: Limits,
    /// What the terminal has moved today, in minor units.
    pub spent_today_minor: u64,
    /// The month in which the judgement is made.
    pub month: Month,
}

impl Evidence<'_> {
    /// Judges every check; one that fails keeps none of the others from being made.
    #[must_use]
    pub fn judge(&self) -> Vec<Verdict> {
        let pan = self.transaction.card.expose_pan();
        let within = self.limits.admit(self.transaction.amount_minor, self.spent_today_minor);
        let within = match within {
            Ok(()) => true,
            Err(OverLimit::Daily | OverLimit::Single) => false,
        };
        let expiry = Month::from_expiry(self.transaction.card.expiry());
        Check::ALL
            .into_iter()
            .map(|check| {
                check.verdict(match check {
                    Check::Mac | Check::Ksn => true,
                    Check::PinBlock => self.pin_block_accepted,
                    Check::Limits => within && self.transaction.currency == self.currency,
                    Check::PanLength => (12..=19).contains(&pan.len()),
                    Check::Luhn => luhn_holds(pan),
                    Check::Expiry => expiry.is_some_and(|expiry| expiry >= self.month),
                })
            })
            .collect()
    }
}

/// A month of the calendar, UTC.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Month {
    year: u64,
    month: u64,
}

impl Month {
    /// The month of a point in time, in seconds since 1970 UTC.
    #[must_use]
    pub fn at(unix_seconds: u64) -> Self {
        // Days are counted from 1 March of year 0: then the leap day ends a year, and the months
        // from March on begin at day (153 m + 2) / 5 of it. 400 years have 146,097 days.
        let days = unix_seconds / 86_400 + 719_468;
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let leap_days = year_of_era / 4 - year_of_era / 100;
        let day_of_year = day_of_era - (365 * year_of_era + leap_days);
        let from_march = (5 * day_of_year + 2) / 153;
        let (month, next) = if from_march < 10 { (from_march + 3, 0) } else { (from_march - 9, 1) };
        Self { year: era * 400 + year_of_era + next, month }
    }

    /// The month of a card's expiry, four digits YYMM, in this century.
    #[must_use]
    pub fn from_expiry(expiry: &str) -> Option<Self> {
        let digits = expiry.len() == 4 && expiry.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = if digits { expiry.parse().ok()? } else { return None };
        let (year, month) = (2000 + number / 100, number % 100);
        (1..=12).contains(&month).then_some(Self { year, month })
    }
}

/// Whether the last digit is the check digit of those before it: ISO/IEC 7812-1, annex B.
fn luhn_holds(pan: &str) -> bool {
    let mut sum = 0_u32;
    for (index, byte) in pan.bytes().rev().enumerate() {
        let Some(digit) = char::from(byte).to_digit(10) else { return false };
        sum += match (index % 2, digit) {
            (0, _) => digit,
            (_, 0..=4) => 2 * digit,
            (_, _) => 2 * digit - 9,
        };
    }
    !pan.is_empty() && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::super::payload::{CardData, PinBlockFormat};
    use super::*;

    fn transaction(pan: &str, expiry: &str, amount_minor: u64) -> TestTransaction {
        TestTransaction {
            number: 1,
            amount_minor,
            currency: Currency::new("EUR").unwrap(),
            card: CardData::new(pan, expiry).unwrap(),
            pin_block: vec![0; 16],
            pin_block_format: PinBlockFormat::Iso4,
        }
    }

    fn failed(transaction: &TestTransaction, pin_block_accepted: bool) -> Vec<Check> {
        let evidence = Evidence {
            pin_block_accepted,
            transaction,
            currency: Currency::new("EUR").unwrap(),
            limits: Limits::new(1_000, 5_000).unwrap(),
            spent_today_minor: 4_500,
            month: Month::at(1_795_392_000),
        };
        let verdicts = evidence.judge();
        assert_eq!(verdicts.len(), Check::ALL.len(), "every check has its verdict");
        for verdict in &verdicts {
            assert_eq!(verdict.passed, verdict.remedy.is_empty());
            assert!(verdict.remedy.len() <= 200);
        }
        verdicts.iter().filter(|verdict| !verdict.passed).map(|verdict| verdict.check).collect()
    }

    #[test]
    fn each_fault_fails_its_own_check_alone() {
        let good = transaction("4111111111111111", "2612", 500);
        assert_eq!(failed(&good, true), []);
        assert_eq!(failed(&good, false), [Check::PinBlock]);
        let only = |pan, expiry, amount| failed(&transaction(pan, expiry, amount), true);
        assert_eq!(only("4111111111111112", "2612", 500), [Check::Luhn]);
        assert_eq!(only("41111111112", "2612", 500), [Check::PanLength]);
        assert_eq!(only("4111111111111111", "2610", 500), [Check::Expiry]);
        assert_eq!(only("4111111111111111", "2611", 500), []);
        assert_eq!(only("4111111111111111", "2613", 500), [Check::Expiry]);
        assert_eq!(only("4111111111111111", "2612", 501), [Check::Limits]);
        assert_eq!(only("4111111111111111", "2612", 0), [Check::Limits]);
    }

    #[test]
    fn months_follow_the_calendar() {
        let month = |seconds| {
            let Month { year, month } = Month::at(seconds);
            (year, month)
        };
        assert_eq!(month(0), (1970, 1));
        assert_eq!(month(951_782_399), (2000, 2), "28 February 2000");
        assert_eq!(month(951_868_799), (2000, 2), "29 February 2000, a leap year of 400");
        assert_eq!(month(951_868_800), (2000, 3));
        assert_eq!(month(1_767_225_599), (2025, 12));
        assert_eq!(month(1_767_225_600), (2026, 1));
        assert_eq!(month(4_107_542_399), (2100, 2), "28 February 2100, no leap year");
        assert_eq!(month(4_107_542_400), (2100, 3));
    }
}
