//! What a key's attributes let be done with a MAC: algorithm, lengths, whose message it is.

use super::transaction_key::Behind;
use super::{Direction, DukptKey, Error, SlotKey, WorkingKey};
use crate::agreement::label;
use crate::key::Algorithm;
use crate::mac::{MacAlgorithm, MacError};
use crate::vault::{Caller, HashPurpose, KeyAttributes, KeyUsage, Reason, Vault};

/// The key of a MAC: a transaction key has one for each direction.
#[derive(Debug, Clone)]
pub enum MacWorkingKey {
    /// The transaction key of a KSN, and whose message it is for.
    Dukpt(DukptKey, Direction),
    /// The static key in a slot of a terminal.
    Slot(SlotKey),
    /// The id in `keys/{id}` of a static key.
    Static(String),
}

impl MacWorkingKey {
    /// A key with the direction that must, or must not, be said of it.
    pub fn new(key: WorkingKey, direction: Option<Direction>) -> Result<Self, Error> {
        let refused = |cause| Err(Error::field("direction", cause));
        match (key, direction) {
            (WorkingKey::Dukpt(key), Some(direction)) => Ok(Self::Dukpt(key, direction)),
            (WorkingKey::Dukpt(_), None) => refused("must be specified for a DUKPT key"),
            (WorkingKey::Slot(key), None) => Ok(Self::Slot(key)),
            (WorkingKey::Static(name), None) => Ok(Self::Static(name)),
            (WorkingKey::Slot(_) | WorkingKey::Static(_), Some(_)) => {
                refused("is for DUKPT keys alone")
            }
        }
    }

    /// The stored key behind it; see [`DukptKey::behind`] and [`SlotKey::behind`].
    pub(super) async fn behind(&self, vault: &Vault, caller: &Caller) -> Result<Behind, Error> {
        match self {
            Self::Dukpt(key, _) => key.behind(vault).await,
            Self::Slot(key) => key.behind(vault, caller).await,
            Self::Static(name) => Ok(Behind::key(name.clone())),
        }
    }
}

/// A MAC that is to be made or verified, as the policy looks at it.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The algorithm, with its padding.
    pub(super) algorithm: MacAlgorithm,
    /// The message.
    pub(super) message: &'a [u8],
    /// How many octets the MAC has or shall have.
    pub(super) len_bytes: usize,
    /// The field that says so.
    pub(super) len_path: &'static str,
}

impl Asked<'_> {
    /// Holds the call against a static key: its usage names the algorithm.
    pub(super) fn check_static(
        &self,
        of: KeyUsage,
        attributes: &KeyAttributes,
        algorithm: Algorithm,
    ) -> Result<(), Error> {
        let usage = match self.algorithm {
            MacAlgorithm::Iso9797Alg1(_) => KeyUsage::MacAlgorithm1,
            MacAlgorithm::Iso9797Alg3(_) => KeyUsage::MacAlgorithm3,
            MacAlgorithm::AesCmac | MacAlgorithm::TdesCmac => KeyUsage::MacCmac,
            MacAlgorithm::HmacSha256 | MacAlgorithm::HmacSha384 | MacAlgorithm::HmacSha512 => {
                KeyUsage::MacHmac
            }
        };
        if of != usage {
            return Err(Error::refused(Reason::KeyUsageMismatch));
        }
        self.check(attributes, algorithm)
    }

    /// Holds the call against the attributes of a key of an algorithm. A transaction key may have
    /// any algorithm that fits it.
    ///
    /// ISO 9797-1 algorithms 1 and 3 chain blocks, so that MACs of messages of several lengths
    /// under one key can be put together to that of another. They serve with the one length that
    /// the key names, or with padding method 3, which begins with the length.
    ///
    /// A message that begins like what the steps of an activation authenticate is refused: a
    /// terminal's transaction keys authenticate both, and whoever may only ask for MACs is to play
    /// neither the service towards a terminal nor a terminal's step. Under one counter and
    /// direction a key makes one MAC, so nothing else it makes can be turned into such a one.
    pub(super) fn check(
        &self,
        attributes: &KeyAttributes,
        algorithm: Algorithm,
    ) -> Result<(), Error> {
        if self.message.is_empty() {
            return Err(Error::field("message", "is empty"));
        }
        if is_of_activation(self.message) {
            return Err(Error::field("message", "begins like a step of an activation"));
        }
        if self.len_bytes > self.algorithm.len_bytes() {
            return Err(Error::field(self.len_path, "is longer than the algorithm gives"));
        }
        let fits = self.algorithm.fits(algorithm)
            && self.len_bytes >= usize::from(attributes.mac_length_min_bytes)
            && self.has_permitted_length(attributes.mac_message_length_bytes);
        if fits { Ok(()) } else { Err(Error::refused(Reason::KeyUsageMismatch)) }
    }

    fn has_permitted_length(&self, fixed_len_bytes: u32) -> bool {
        let chains =
            matches!(self.algorithm, MacAlgorithm::Iso9797Alg1(_) | MacAlgorithm::Iso9797Alg3(_));
        match (chains, fixed_len_bytes) {
            (false, _) => true,
            (true, 0) => !self.algorithm.needs_fixed_length(),
            (true, fixed) => u32::try_from(self.message.len()).is_ok_and(|len| len == fixed),
        }
    }

    /// What tells one message under a counter from another. The MAC is not in it: it follows from
    /// the rest, so the same message with a shorter or a wrong MAC is no second message.
    pub(super) fn input(&self, vault: &Vault, key: Algorithm, direction: Direction) -> [u8; 32] {
        let algorithm = format!("{:?} {key} {direction:?}", self.algorithm);
        vault.keyed_hash(HashPurpose::LedgerInput, &[algorithm.as_bytes(), self.message])
    }

    /// What a MAC could still not be computed for.
    pub(super) fn refused(&self, error: MacError) -> Error {
        match error {
            MacError::Algorithm => Error::refused(Reason::KeyUsageMismatch),
            MacError::Length => {
                Error::field(self.len_path, "is a length that the algorithm does not give")
            }
            MacError::MessageEmpty => Error::field("message", "is empty"),
        }
    }
}

/// Whether a message begins with the label and the zero byte that begin whatever a step of an
/// activation authenticates; see [`Transcript::authenticated_input`].
///
/// [`Transcript::authenticated_input`]: crate::activation::Transcript::authenticated_input
fn is_of_activation(message: &[u8]) -> bool {
    let after_label = message.strip_prefix(label::ACTIVATION.as_bytes());
    after_label.is_some_and(|rest| rest.first() == Some(&0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::{Role, Step, Transcript};
    use crate::mac::Padding;

    fn asked(algorithm: MacAlgorithm, message: &[u8], len_bytes: usize) -> Asked<'_> {
        Asked { algorithm, message, len_bytes, len_path: "mac" }
    }

    fn reason(outcome: Result<(), Error>) -> Option<Reason> {
        outcome.err().map(|error| error.reason())
    }

    #[test]
    fn chained_macs_need_a_fixed_or_a_prefixed_length() {
        let free = KeyAttributes::default();
        let fixed = KeyAttributes { mac_message_length_bytes: 16, ..KeyAttributes::default() };
        for of in [MacAlgorithm::Iso9797Alg1, MacAlgorithm::Iso9797Alg3] {
            for padding in [Padding::Method1, Padding::Method2, Padding::Method3] {
                let check = |attributes, message: &[u8]| {
                    let asked = asked(of(padding), message, 8);
                    reason(asked.check(attributes, Algorithm::Tdes2))
                };
                let prefixed = padding == Padding::Method3;
                let refused = Some(Reason::KeyUsageMismatch);
                assert_eq!(check(&free, &[0; 16]), if prefixed { None } else { refused });
                assert_eq!(check(&fixed, &[0; 16]), None);
                assert_eq!(check(&fixed, &[0; 24]), refused);
            }
        }
        let cmac = asked(MacAlgorithm::AesCmac, &[0; 24], 8);
        assert_eq!(reason(cmac.check(&fixed, Algorithm::Aes128)), None);
    }

    #[test]
    fn what_an_activation_authenticates_is_no_message() {
        let check = |message: &[u8]| {
            let asked = asked(MacAlgorithm::AesCmac, message, 8);
            reason(asked.check(&KeyAttributes::default(), Algorithm::Aes128))
        };
        for (role, step) in [(Role::Service, Step::Parameters), (Role::Terminal, Step::Test)] {
            let input = Transcript::new().authenticated_input(role, step);
            assert_eq!(check(&input), Some(Reason::FieldInvalid));
        }
        assert_eq!(check(b"firstkey/v1/activation\0"), Some(Reason::FieldInvalid));
        for free in [b"firstkey/v1/activation".as_slice(), b"firstkey/v1/activations\0", b"\0"] {
            assert_eq!(check(free), None);
        }
    }

    #[test]
    fn lengths_are_held_against_key_and_algorithm() {
        let usual = KeyAttributes::default();
        let short = KeyAttributes { mac_length_min_bytes: 4, ..KeyAttributes::default() };
        let check = |attributes: &KeyAttributes, message, len_bytes| {
            let asked = asked(MacAlgorithm::AesCmac, message, len_bytes);
            reason(asked.check(attributes, Algorithm::Aes128))
        };
        assert_eq!(check(&short, b"m", 4), None);
        assert_eq!(check(&usual, b"m", 4), Some(Reason::KeyUsageMismatch));
        assert_eq!(check(&usual, b"m", 16), None);
        assert_eq!(check(&usual, b"m", 17), Some(Reason::FieldInvalid));
        assert_eq!(check(&usual, b"", 16), Some(Reason::FieldInvalid));
    }
}
