//! The parameter file: merchant, acquirer and limits, in one canonical text.

use std::fmt::Write as _;

use crate::crypto::digest;

/// What a terminal is told about itself and about the money it may move.
///
/// ```text
/// version=3
/// acquirer_id=acquirer-1
/// merchant_id=M00000000000001
/// merchant_name=Corner Shop
/// terminal_id=T0000001
/// currency=EUR
/// single_limit_minor=50000
/// daily_limit_minor=200000
/// ```
///
/// Each line ends with one line feed. A file has exactly one form: whatever parses is what
/// [`Parameters::to_file`] writes again, so its digest names its content.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parameters {
    /// Counts the files of a terminal, from 1; a terminal never goes back.
    pub version: ParametersVersion,
    /// The acquirer.
    pub acquirer_id: AcquirerId,
    /// The card acceptor id (ISO 8583, field 42).
    pub merchant_id: MerchantId,
    /// The name on the receipt.
    pub merchant_name: MerchantName,
    /// The card acceptor terminal id (ISO 8583, field 41).
    pub terminal_id: TerminalId,
    /// What the limits and amounts are counted in.
    pub currency: Currency,
    /// What the terminal may move.
    pub limits: Limits,
}

impl Parameters {
    /// The longest file in bytes.
    pub const FILE_LEN_BYTES_MAX: usize = 4096;

    /// Writes the file.
    #[must_use]
    pub fn to_file(&self) -> Vec<u8> {
        let values: [&dyn std::fmt::Display; KEYS.len()] = [
            &self.version.0,
            &self.acquirer_id.0,
            &self.merchant_id.0,
            &self.merchant_name.0,
            &self.terminal_id.0,
            &self.currency.as_str(),
            &self.limits.single_minor,
            &self.limits.daily_minor,
        ];
        let mut file = String::new();
        for (key, value) in KEYS.iter().zip(values) {
            writeln!(file, "{key}={value}").expect("a string takes what is written to it");
        }
        file.into_bytes()
    }

    /// Reads a file, strictly: the keys in their order, each once, nothing else.
    pub fn parse(file: &[u8]) -> Result<Self, ParametersInvalid> {
        let refuse = |field| ParametersInvalid { field };
        if file.len() > Self::FILE_LEN_BYTES_MAX {
            return Err(refuse("file"));
        }
        let text = std::str::from_utf8(file).map_err(|_| refuse("file"))?;
        let mut rest = text;
        let mut values = [""; KEYS.len()];
        for (key, value) in KEYS.iter().zip(&mut values) {
            let (line, after) = rest.split_once('\n').ok_or(refuse(key))?;
            let line = line.strip_prefix(key).ok_or(refuse(key))?;
            *value = line.strip_prefix('=').ok_or(refuse(key))?;
            rest = after;
        }
        if !rest.is_empty() {
            return Err(refuse("file"));
        }
        let [version, acquirer, merchant, name, terminal, currency, single, daily] = values;
        let number = |text: &str, field| decimal(text).ok_or(refuse(field));
        let version = u32::try_from(number(version, "version")?).ok();
        let limits = (number(single, "single_limit_minor")?, number(daily, "daily_limit_minor")?);
        Ok(Self {
            version: version.and_then(ParametersVersion::new).ok_or(refuse("version"))?,
            acquirer_id: AcquirerId::new(acquirer).ok_or(refuse("acquirer_id"))?,
            merchant_id: MerchantId::new(merchant).ok_or(refuse("merchant_id"))?,
            merchant_name: MerchantName::new(name).ok_or(refuse("merchant_name"))?,
            terminal_id: TerminalId::new(terminal).ok_or(refuse("terminal_id"))?,
            currency: Currency::new(currency).ok_or(refuse("currency"))?,
            limits: Limits::new(limits.0, limits.1)?,
        })
    }

    /// SHA-256 of the file: what the terminal reports as applied.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        file_digest(&self.to_file())
    }

    /// Refuses to replace what is applied by something older, or by another file of the same
    /// version. The same file again is no change and is accepted.
    pub fn check_against(&self, applied: &Self) -> Result<(), RolledBack> {
        let same = self == applied;
        if self.version > applied.version || same { Ok(()) } else { Err(RolledBack) }
    }
}

/// The digest of a parameter file: SHA-256 of its bytes.
#[must_use]
pub fn file_digest(file: &[u8]) -> [u8; 32] {
    digest::sha256(&[file])
}

/// The version of a parameter file, from 1.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ParametersVersion(u32);

impl ParametersVersion {
    /// Takes a version; 0 stands for "none" on the wire and is no version.
    #[must_use]
    pub fn new(version: u32) -> Option<Self> {
        (version > 0).then_some(Self(version))
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

/// What a terminal may move, in minor units of its currency: one transaction at most the single
/// limit, those of a day together at most the daily limit, and the single limit within the daily.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    single_minor: u64,
    daily_minor: u64,
}

impl Limits {
    /// The largest amount: 12 digits, as ISO 8583, field 4 has.
    pub const AMOUNT_MINOR_MAX: u64 = 999_999_999_999;

    /// Takes the two limits, single before daily.
    pub fn new(single_minor: u64, daily_minor: u64) -> Result<Self, ParametersInvalid> {
        if single_minor == 0 || single_minor > Self::AMOUNT_MINOR_MAX {
            return Err(ParametersInvalid { field: "single_limit_minor" });
        }
        if daily_minor < single_minor || daily_minor > Self::AMOUNT_MINOR_MAX {
            return Err(ParametersInvalid { field: "daily_limit_minor" });
        }
        Ok(Self { single_minor, daily_minor })
    }

    /// The most that one transaction may be.
    #[must_use]
    pub fn single_minor(self) -> u64 {
        self.single_minor
    }

    /// The most that the transactions of a day may be together.
    #[must_use]
    pub fn daily_minor(self) -> u64 {
        self.daily_minor
    }

    /// Whether an amount may be moved after `spent_today_minor`; an amount of zero may not.
    pub fn admit(self, amount_minor: u64, spent_today_minor: u64) -> Result<(), OverLimit> {
        if amount_minor == 0 || amount_minor > self.single_minor {
            return Err(OverLimit::Single);
        }
        match spent_today_minor.checked_add(amount_minor) {
            Some(total) if total <= self.daily_minor => Ok(()),
            Some(_) | None => Err(OverLimit::Daily),
        }
    }
}

/// Which limit an amount is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OverLimit {
    /// With what was moved today it is over the daily limit.
    #[error("the amount is over what is left of the daily limit")]
    Daily,
    /// It is zero, or over the limit of one transaction.
    #[error("the amount is zero or over the limit of one transaction")]
    Single,
}

/// A parameter file, or a value for one, is not well formed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("parameter {field} is missing, out of place or out of bounds")]
pub struct ParametersInvalid {
    /// The key of the line, or `file`.
    pub field: &'static str,
}

/// A parameter file is older than the one applied, or another one of its version.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the parameter file does not come after the one applied")]
pub struct RolledBack;

/// The currency: ISO 4217, three upper-case letters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Takes an alphabetic code.
    #[must_use]
    pub fn new(code: &str) -> Option<Self> {
        let code: [u8; 3] = code.as_bytes().try_into().ok()?;
        code.iter().all(u8::is_ascii_uppercase).then_some(Self(code))
    }

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("three ASCII letters")
    }
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: $accepts:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, PartialEq)]
        pub struct $name(String);

        impl $name {
            /// Takes a text of this form.
            #[must_use]
            pub fn new(text: &str) -> Option<Self> {
                let accepts: fn(&str) -> bool = $accepts;
                accepts(text).then(|| Self(text.to_owned()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    )+};
}

texts! {
    /// The acquirer: 1 to 32 letters, digits or hyphens.
    AcquirerId: |text| (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    /// The card acceptor id: 1 to 15 letters and digits (ISO 8583, field 42).
    MerchantId: |text| (1..=15).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    /// The merchant's name: 1 to 40 characters, none a control character, no blank at either end.
    MerchantName: |text| (1..=40).contains(&text.chars().count())
        && text.trim() == text && !text.chars().any(char::is_control);
    /// The card acceptor terminal id: 8 letters and digits (ISO 8583, field 41).
    TerminalId: |text| text.len() == 8
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
}

/// The keys of the file, in their order.
const KEYS: [&str; 8] = [
    "version",
    "acquirer_id",
    "merchant_id",
    "merchant_name",
    "terminal_id",
    "currency",
    "single_limit_minor",
    "daily_limit_minor",
];

/// A decimal number without sign or leading zeros.
fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if canonical && digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(version: u32) -> Parameters {
        Parameters {
            version: ParametersVersion::new(version).unwrap(),
            acquirer_id: AcquirerId::new("acquirer-1").unwrap(),
            merchant_id: MerchantId::new("M00000000000001").unwrap(),
            merchant_name: MerchantName::new("Eckladen Süd").unwrap(),
            terminal_id: TerminalId::new("T0000001").unwrap(),
            currency: Currency::new("EUR").unwrap(),
            limits: Limits::new(50_000, 200_000).unwrap(),
        }
    }

    #[test]
    fn a_file_comes_back() {
        let file = sample(3).to_file();
        assert_eq!(Parameters::parse(&file), Ok(sample(3)));
        assert_eq!(file_digest(&file), sample(3).digest());
        assert!(file.starts_with(b"version=3\nacquirer_id=acquirer-1\n"));
    }

    #[test]
    fn every_change_of_one_line_is_refused_or_read_as_it_stands() {
        let file = String::from_utf8(sample(3).to_file()).unwrap();
        let refused = |file: &str| Parameters::parse(file.as_bytes()).unwrap_err().field;
        assert_eq!(refused(&file.replace("version=3", "version=03")), "version");
        assert_eq!(refused(&file.replace("version=3", "version=0")), "version");
        assert_eq!(refused(&file.replace("version=3", "version=4294967296")), "version");
        assert_eq!(refused(&file.replace("version=3", "version=+3")), "version");
        assert_eq!(refused(&file.replace("EUR", "eur")), "currency");
        assert_eq!(refused(&file.replace("EUR", "EURO")), "currency");
        assert_eq!(refused(&file.replace("T0000001", "T000001")), "terminal_id");
        assert_eq!(refused(&file.replace("=50000", "=200001")), "daily_limit_minor");
        assert_eq!(refused(&file.replace("=50000", "=0")), "single_limit_minor");
        assert_eq!(refused(&file.replace("Süd", "Süd ")), "merchant_name");
        assert_eq!(refused(&file.replace("Süd", "S\rd")), "merchant_name");
        assert_eq!(refused(&file.replace('\n', "\r\n")), "version");
        assert_eq!(refused(&format!("{file}x=1\n")), "file");
        assert_eq!(refused(&format!("\n{file}")), "version");
        assert_eq!(refused(file.trim_end()), "daily_limit_minor");
        for key in KEYS {
            assert_eq!(refused(&file.replace(&format!("{key}="), "other=")), key);
        }
    }

    #[test]
    fn a_terminal_does_not_go_back() {
        assert_eq!(sample(3).check_against(&sample(2)), Ok(()));
        assert_eq!(sample(3).check_against(&sample(3)), Ok(()));
        assert_eq!(sample(2).check_against(&sample(3)), Err(RolledBack));
        let mut other = sample(3);
        other.limits = Limits::new(50_001, 200_000).unwrap();
        assert_eq!(other.check_against(&sample(3)), Err(RolledBack));
    }

    #[test]
    fn limits_admit_up_to_and_including_themselves() {
        let limits = Limits::new(100, 250).unwrap();
        assert_eq!(limits.admit(100, 150), Ok(()));
        assert_eq!(limits.admit(101, 0), Err(OverLimit::Single));
        assert_eq!(limits.admit(0, 0), Err(OverLimit::Single));
        assert_eq!(limits.admit(100, 151), Err(OverLimit::Daily));
        assert_eq!(limits.admit(100, u64::MAX), Err(OverLimit::Daily));
    }

    proptest! {
        #[test]
        fn whatever_parses_is_canonical(file in "[ -~\n]{0,200}") {
            if let Ok(parameters) = Parameters::parse(file.as_bytes()) {
                prop_assert_eq!(parameters.to_file(), file.as_bytes());
            }
        }

        #[test]
        fn an_altered_file_never_reads_as_the_same(at in 0_usize..150, byte: u8) {
            let mut file = sample(3).to_file();
            let at = at % file.len();
            prop_assume!(file[at] != byte);
            file[at] = byte;
            if let Ok(parameters) = Parameters::parse(&file) {
                prop_assert_eq!(parameters.to_file(), file);
                prop_assert_ne!(parameters, sample(3));
            }
        }
    }
}
