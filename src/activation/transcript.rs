//! The transcript of an exchange, and the bytes that signatures and MACs cover.

use std::fmt;

use zeroize::Zeroizing;

use crate::agreement::label;
use crate::crypto::digest::{RunningSha256, StateInvalid};

/// All messages of an exchange in the order they were sent.
///
/// ```text
/// T(n) = SHA-256( "firstkey/v1/activation" || for each message 1..n: length(4) || payload )
/// ```
///
/// Lengths are big endian. Equal hashes mean the same messages, cut at the same places.
///
/// What is kept between two messages is the state of the hash and not the messages: the first one
/// carries the activation code, which is to stand in no record.
#[derive(Clone)]
pub struct Transcript(RunningSha256);

impl Transcript {
    /// Begins a transcript.
    #[must_use]
    pub fn new() -> Self {
        let mut hash = RunningSha256::default();
        hash.update(label::ACTIVATION.as_bytes());
        Self(hash)
    }

    /// Goes on with a transcript that was kept; `state` comes from [`Self::state`].
    pub fn from_state(state: &[u8]) -> Result<Self, StateInvalid> {
        RunningSha256::from_state(state).map(Self)
    }

    /// What is to be kept, in a sealed record or a device's memory.
    #[must_use]
    pub fn state(&self) -> Zeroizing<Vec<u8>> {
        self.0.state()
    }

    /// Adds the next message: its payload, exactly as it was sent.
    pub fn absorb(&mut self, payload: &[u8]) {
        let len_bytes = u32::try_from(payload.len()).expect("messages are at most 64 KiB long");
        self.0.update(&len_bytes.to_be_bytes());
        self.0.update(payload);
    }

    /// The transcript with one message more.
    #[must_use]
    pub fn with(&self, payload: &[u8]) -> Self {
        let mut longer = self.clone();
        longer.absorb(payload);
        longer
    }

    /// The hash of all messages so far.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.0.digest()
    }

    /// What the signature or MAC of the last message covers.
    ///
    /// ```text
    /// "firstkey/v1/activation" || 00 || role || 00 || step || 00 || T
    /// ```
    ///
    /// No role or step contains a zero byte, so no two triples give the same bytes.
    #[must_use]
    pub fn authenticated_input(&self, role: Role, step: Step) -> Vec<u8> {
        let mut input = Vec::with_capacity(96);
        for text in [label::ACTIVATION, role.as_str(), step.as_str()] {
            input.extend_from_slice(text.as_bytes());
            input.push(0);
        }
        input.extend_from_slice(&self.hash());
        input
    }
}

impl Default for Transcript {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Transcript {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Transcript(..)")
    }
}

/// Who speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// The key service.
    Service,
    /// The terminal.
    Terminal,
}

impl Role {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Service, Self::Terminal];

    /// The role as it is signed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Terminal => "terminal",
        }
    }
}

/// A step whose messages are signed or under a MAC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// The device proves itself.
    Begin,
    /// The keys travel.
    Deliver,
    /// Both sides prove that they hold the same keys.
    Confirm,
    /// The parameters travel.
    Parameters,
    /// The terminal says what became of a step.
    Report,
    /// A test transaction.
    Test,
    /// New keys travel under the update key of those before.
    Update,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Self; 7] = [
        Self::Begin,
        Self::Deliver,
        Self::Confirm,
        Self::Parameters,
        Self::Report,
        Self::Test,
        Self::Update,
    ];

    /// The step as it is signed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Deliver => "deliver",
            Self::Confirm => "confirm",
            Self::Parameters => "parameters",
            Self::Report => "report",
            Self::Test => "test",
            Self::Update => "update",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn where_messages_are_cut_matters() {
        let mut hashes = HashSet::new();
        for messages in [
            &[][..],
            &[&b""[..]],
            &[b"", b""],
            &[b"ab"],
            &[b"a", b"b"],
            &[b"b", b"a"],
            &[b"ab", b""],
            &[b"\0\0\0\x01a"],
        ] {
            let mut transcript = Transcript::new();
            for message in messages {
                transcript.absorb(message);
            }
            assert!(hashes.insert(transcript.hash()), "two exchanges with one hash");
        }
    }

    #[test]
    fn role_and_step_are_bound() {
        let transcript = Transcript::new().with(b"x");
        let mut inputs = HashSet::new();
        for role in Role::ALL {
            for step in Step::ALL {
                assert!(inputs.insert(transcript.authenticated_input(role, step)));
                assert!(!role.as_str().contains('\0') && !step.as_str().contains('\0'));
            }
        }
    }

    #[test]
    fn a_kept_transcript_goes_on() {
        let kept = Transcript::new().with(b"one");
        let restored = Transcript::from_state(&kept.state()).unwrap();
        assert_eq!(kept.with(b"two").hash(), restored.with(b"two").hash());
    }
}
