//! The messages under transaction keys: parameters, reports and test transactions.

use std::fmt;

use prost::Message as _;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{
    ANSWER_LEN_BYTES_MAX, ActivationName, PAYLOAD_LEN_BYTES_MAX, Payload, PayloadInvalid, decode,
    exactly, printable, required, wire,
};
use crate::activation::checks::{Check, Verdict};
use crate::activation::parameters::{Currency, Limits, Parameters, file_digest};
use crate::activation::transcript::Step;
use crate::crypto::constant_time_eq;

/// Step parameters, from the terminal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ParametersRequest {
    /// The version that the terminal has applied; 0 where it has none.
    pub known_version: u32,
    /// Drawn at random by the device.
    pub nonce: [u8; 32],
}

impl Payload for ParametersRequest {
    fn encode(&self) -> Vec<u8> {
        wire::Parameters { known_version: self.known_version, nonce: self.nonce.to_vec() }
            .encode_to_vec()
    }

    fn parse(bytes: &[u8]) -> Result<Self, PayloadInvalid> {
        let message: wire::Parameters = decode(bytes, PAYLOAD_LEN_BYTES_MAX)?;
        let nonce = exactly(&message.nonce, "nonce")?;
        Ok(Self { known_version: message.known_version, nonce })
    }
}

/// Answer to a parameters request, from the service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ParametersAnswer {
    /// The file, read; its digest is [`Parameters::digest`].
    pub parameters: Parameters,
}

impl Payload for ParametersAnswer {
    fn encode(&self) -> Vec<u8> {
        let parameter_file = self.parameters.to_file();
        let digest = file_digest(&parameter_file).to_vec();
        wire::ParametersAnswer { parameter_file, digest }.encode_to_vec()
    }

    fn parse(bytes: &[u8]) -> Result<Self, PayloadInvalid> {
        let message: wire::ParametersAnswer = decode(bytes, ANSWER_LEN_BYTES_MAX)?;
        if !constant_time_eq(&file_digest(&message.parameter_file), &message.digest) {
            return Err(PayloadInvalid { field: "digest" });
        }
        let parameters = Parameters::parse(&message.parameter_file);
        Ok(Self { parameters: parameters.map_err(|_| PayloadInvalid { field: "parameter_file" })? })
    }
}

/// From the terminal: what became of a step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// The activation.
    pub activation: ActivationName,
    /// The step that is reported; never `Report` itself.
    pub step: Step,
    /// How it went.
    pub outcome: Outcome,
}

/// How a step went at the terminal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The terminal applied the parameter file of this digest.
    Applied([u8; 32]),
    /// The terminal found something wrong.
    Fault(Fault),
}

impl Payload for Report {
    fn encode(&self) -> Vec<u8> {
        let step = match self.step {
            Step::Begin => wire::Step::Begin,
            Step::Deliver => wire::Step::Deliver,
            Step::Confirm => wire::Step::Confirm,
            Step::Parameters => wire::Step::Parameters,
            Step::Test => wire::Step::Test,
            Step::Update => wire::Step::Update,
            // No report is made of a report; the receiver refuses the value.
            Step::Report => wire::Step::Unspecified,
        };
        let outcome = match self.outcome {
            Outcome::Applied(digest) => wire::report::Outcome::AppliedDigest(digest.to_vec()),
            Outcome::Fault(fault) => wire::report::Outcome::Fault(fault.to_wire().into()),
        };
        wire::Report {
            activation: self.activation.as_str().to_owned(),
            step: step.into(),
            outcome: Some(outcome),
        }
        .encode_to_vec()
    }

    fn parse(bytes: &[u8]) -> Result<Self, PayloadInvalid> {
        let message: wire::Report = decode(bytes, PAYLOAD_LEN_BYTES_MAX)?;
        let step = match message.step() {
            wire::Step::Unspecified => return Err(PayloadInvalid { field: "step" }),
            wire::Step::Begin => Step::Begin,
            wire::Step::Deliver => Step::Deliver,
            wire::Step::Confirm => Step::Confirm,
            wire::Step::Parameters => Step::Parameters,
            wire::Step::Test => Step::Test,
            wire::Step::Update => Step::Update,
        };
        let outcome = match required(message.outcome, "outcome")? {
            wire::report::Outcome::AppliedDigest(digest) => {
                Outcome::Applied(exactly(&digest, "applied_digest")?)
            }
            wire::report::Outcome::Fault(fault) => {
                let fault = wire::Fault::try_from(fault).ok().and_then(Fault::from_wire);
                Outcome::Fault(required(fault, "fault")?)
            }
        };
        // Only a parameter file is applied.
        if matches!(outcome, Outcome::Applied(_)) && step != Step::Parameters {
            return Err(PayloadInvalid { field: "outcome" });
        }
        let activation = required(ActivationName::new(&message.activation), "activation")?;
        Ok(Self { activation, step, outcome })
    }
}

/// Names a fault in every form that it has.
macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)+) => {
        /// What a terminal found wrong with an answer.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Fault { $($(#[$doc])* $name,)+ }

        impl Fault {
            /// All faults.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The code, for a timeline.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            fn to_wire(self) -> wire::Fault {
                match self { $(Self::$name => wire::Fault::$name,)+ }
            }

            fn from_wire(fault: wire::Fault) -> Option<Self> {
                match fault {
                    wire::Fault::Unspecified => None,
                    $(wire::Fault::$name => Some(Self::$name),)+
                }
            }
        }
    };
}

faults! {
    /// The signature or MAC of the answer does not verify.
    Authentication = "AUTHENTICATION";
    /// A check value differs.
    CheckValue = "CHECK_VALUE";
    /// A key block does not open, or holds another key than it says.
    KeyBlock = "KEY_BLOCK";
    /// The parameter file is not well formed, or names another acquirer.
    Parameters = "PARAMETERS";
    /// The parameter file is older than the one applied, or another one of its version.
    ParametersRolledBack = "PARAMETERS_ROLLED_BACK";
    /// The answer is not well formed.
    Payload = "PAYLOAD";
    /// The service's certificate does not chain to the acquirer's root, or is another acquirer's.
    ServiceNotTrusted = "SERVICE_NOT_TRUSTED";
    /// Storage failed on the device.
    Storage = "STORAGE";
}

/// Step test, from the terminal: a transaction with a test card.
#[derive(Debug)]
pub struct TestTransaction {
    /// Counts the terminal's test transactions, from 1.
    pub number: u32,
    /// The amount, in minor units, at most 12 digits.
    pub amount_minor: u64,
    /// The currency.
    pub currency: Currency,
    /// What was read from the card.
    pub card: CardData,
    /// The PIN block under the PIN key of the KSN: 8 bytes, or 16 for format 4.
    pub pin_block: Vec<u8>,
    /// The format of the PIN block.
    pub pin_block_format: PinBlockFormat,
}

impl Payload for TestTransaction {
    fn encode(&self) -> Vec<u8> {
        let mut message = wire::TestTransaction {
            number: self.number,
            amount_minor: self.amount_minor,
            currency: self.currency.as_str().to_owned(),
            pan: self.card.pan.clone(),
            expiry: self.card.expiry.clone(),
            pin_block: self.pin_block.clone(),
            pin_block_format: self.pin_block_format.to_wire().into(),
        };
        let bytes = message.encode_to_vec();
        message.pan.zeroize();
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, PayloadInvalid> {
        let mut message: wire::TestTransaction = decode(bytes, PAYLOAD_LEN_BYTES_MAX)?;
        let card = CardData {
            pan: std::mem::take(&mut message.pan),
            expiry: std::mem::take(&mut message.expiry),
        };
        if !(1..=32).contains(&card.pan.len()) || !all_digits(&card.pan) {
            return Err(PayloadInvalid { field: "pan" });
        }
        if card.expiry.len() != 4 || !all_digits(&card.expiry) {
            return Err(PayloadInvalid { field: "expiry" });
        }
        let format = PinBlockFormat::from_wire(message.pin_block_format());
        let format = required(format, "pin_block_format")?;
        if message.pin_block.len() != format.len_bytes() {
            return Err(PayloadInvalid { field: "pin_block" });
        }
        if message.number == 0 {
            return Err(PayloadInvalid { field: "number" });
        }
        if message.amount_minor > Limits::AMOUNT_MINOR_MAX {
            return Err(PayloadInvalid { field: "amount_minor" });
        }
        Ok(Self {
            number: message.number,
            amount_minor: message.amount_minor,
            currency: required(Currency::new(&message.currency), "currency")?,
            card,
            pin_block: message.pin_block,
            pin_block_format: format,
        })
    }
}

/// What was read from a card: digits, but otherwise as they came, since they are to be judged.
///
/// Wiped on drop; `Debug` shows nothing of it.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct CardData {
    pan: String,
    expiry: String,
}

impl CardData {
    /// Takes a PAN of 1 to 32 digits and an expiry, YYMM.
    #[must_use]
    pub fn new(pan: &str, expiry: &str) -> Option<Self> {
        let digits = (1..=32).contains(&pan.len()) && all_digits(pan);
        let month = expiry.len() == 4 && all_digits(expiry);
        (digits && month).then(|| Self { pan: pan.to_owned(), expiry: expiry.to_owned() })
    }

    /// The PAN as it was read.
    #[must_use]
    pub fn expose_pan(&self) -> &str {
        &self.pan
    }

    /// The expiry, YYMM.
    #[must_use]
    pub fn expiry(&self) -> &str {
        &self.expiry
    }
}

impl fmt::Debug for CardData {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CardData(..)")
    }
}

/// A PIN block format that a terminal may send: ISO 9564-1:2017, 9.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PinBlockFormat {
    /// Format 0, TDES.
    Iso0,
    /// Format 3, TDES.
    Iso3,
    /// Format 4, AES.
    Iso4,
}

impl PinBlockFormat {
    /// The length of an encrypted block in bytes.
    #[must_use]
    pub fn len_bytes(self) -> usize {
        match self {
            Self::Iso0 | Self::Iso3 => 8,
            Self::Iso4 => 16,
        }
    }

    fn to_wire(self) -> wire::PinBlockFormat {
        match self {
            Self::Iso0 => wire::PinBlockFormat::Iso0,
            Self::Iso3 => wire::PinBlockFormat::Iso3,
            Self::Iso4 => wire::PinBlockFormat::Iso4,
        }
    }

    fn from_wire(format: wire::PinBlockFormat) -> Option<Self> {
        match format {
            wire::PinBlockFormat::Unspecified => None,
            wire::PinBlockFormat::Iso0 => Some(Self::Iso0),
            wire::PinBlockFormat::Iso3 => Some(Self::Iso3),
            wire::PinBlockFormat::Iso4 => Some(Self::Iso4),
        }
    }
}

/// Answer to a test transaction, from the service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TestTransactionAnswer {
    /// The number of the transaction.
    pub number: u32,
    /// One verdict for each check that was made.
    pub verdicts: Vec<Verdict>,
    /// How many test transactions of this activation have passed whole.
    pub tests_passed: u32,
    /// How many the profile asks for.
    pub tests_required: u32,
}

impl TestTransactionAnswer {
    /// Whether every check passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.passed)
    }
}

impl Payload for TestTransactionAnswer {
    fn encode(&self) -> Vec<u8> {
        let verdicts = self.verdicts.iter().map(|verdict| wire::Verdict {
            check: check_to_wire(verdict.check).into(),
            passed: verdict.passed,
            remedy: verdict.remedy.clone(),
        });
        wire::TestTransactionAnswer {
            number: self.number,
            verdicts: verdicts.collect(),
            tests_passed: self.tests_passed,
            tests_required: self.tests_required,
        }
        .encode_to_vec()
    }

    fn parse(bytes: &[u8]) -> Result<Self, PayloadInvalid> {
        let message: wire::TestTransactionAnswer = decode(bytes, ANSWER_LEN_BYTES_MAX)?;
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(Check::ALL.len());
        for verdict in message.verdicts {
            let check = required(check_from_wire(verdict.check()), "verdicts.check")?;
            if verdicts.iter().any(|earlier| earlier.check == check) {
                return Err(PayloadInvalid { field: "verdicts.check" });
            }
            if !printable(&verdict.remedy, 200) {
                return Err(PayloadInvalid { field: "verdicts.remedy" });
            }
            verdicts.push(Verdict { check, passed: verdict.passed, remedy: verdict.remedy });
        }
        if verdicts.is_empty() {
            return Err(PayloadInvalid { field: "verdicts" });
        }
        Ok(Self {
            number: message.number,
            verdicts,
            tests_passed: message.tests_passed,
            tests_required: message.tests_required,
        })
    }
}

fn check_to_wire(check: Check) -> wire::Check {
    match check {
        Check::Mac => wire::Check::Mac,
        Check::Ksn => wire::Check::Ksn,
        Check::PinBlock => wire::Check::PinBlock,
        Check::Limits => wire::Check::Limits,
        Check::PanLength => wire::Check::PanLength,
        Check::Luhn => wire::Check::Luhn,
        Check::Expiry => wire::Check::Expiry,
    }
}

fn check_from_wire(check: wire::Check) -> Option<Check> {
    Check::ALL.into_iter().find(|known| check_to_wire(*known) == check)
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}
