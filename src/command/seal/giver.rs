//! Who sends a share, and what is sent.

use crate::command::Error;
use crate::command::ceremony::act::Participant;
use crate::command::envelope::Context;
use crate::component::Share;
use crate::crypto::ec::Point;
use crate::crypto::hpke::RecipientKey;
use crate::vault::Reason;

/// Somebody whose certificate the door has verified.
#[derive(Clone, Debug)]
pub struct Giver {
    /// The URI name of the certificate.
    pub name: String,
    /// Its public key: of this very connection.
    pub key: Point,
    /// The certificate in DER.
    pub certificate: Vec<u8>,
}

impl Giver {
    pub(super) fn participant(&self) -> Participant<'_> {
        let Self { name, key, certificate } = self;
        Participant { name, certificate, key }
    }
}

/// What a custodian asks for a share with.
#[derive(Debug)]
pub struct Asked {
    /// The key that the share is sealed to.
    pub key: Vec<u8>,
    /// The custodian's signature over it.
    pub signature: [u8; 64],
    /// In a ceremony the digest of its plan, else empty.
    pub plan_digest: Vec<u8>,
}

/// A share in its envelope.
#[derive(Debug)]
pub struct Sent {
    /// The encapsulated key and the ciphertext.
    pub sealed: Vec<u8>,
    /// The giver's signature over them.
    pub signature: [u8; 64],
}

impl Sent {
    /// Opens the envelope, if it is its sender's.
    pub(super) fn open(&self, context: &Context<'_>, key: &RecipientKey) -> Result<Share, Error> {
        context.verify(&self.sealed, &self.signature).map_err(|_| not_taken(NOT_OPEN))?;
        let opened = context.open(key, &self.sealed).map_err(|_| not_taken(NOT_OPEN))?;
        Share::from_bytes(&opened).map_err(|_| not_taken("it is not a share of this version"))
    }
}

const NOT_OPEN: &str = "its envelope does not open, or is not its sender's";

/// Refuses a share for what anybody can see of it.
#[must_use]
pub fn not_taken(cause: &'static str) -> Error {
    told(Reason::ShareRefused, "cause", cause)
}

/// Refuses a call in this state of the seal, and says how to go on.
#[must_use]
pub fn unfit(remedy: &'static str) -> Error {
    told(Reason::SealState, "remedy", remedy)
}

/// A refusal with one word beyond its reason.
pub(super) fn told(reason: Reason, name: &'static str, value: &str) -> Error {
    Error::Refused { reason, metadata: vec![(name, value.to_owned())] }
}
