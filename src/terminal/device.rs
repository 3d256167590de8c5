//! What a device has from manufacture: its identity, and whom it trusts.

use std::{fmt, slice};

use super::{SignedRequest, TerminalError};
use crate::activation::confirmation::{self, ConfirmationMismatch};
use crate::activation::parameters::AcquirerId;
use crate::activation::payload::{BeginAnswer, CertificateChain, Readiness, Serial};
use crate::activation::{Role, Step, Transcript};
use crate::agreement::{MasterKey, Suite};
use crate::crypto::certificate::{Chain, verify_service};
use crate::crypto::ec::{self, Point, SigningKey};
use crate::key::Key;
use crate::key::usage::KeyDerivation;

/// A device before it has any payment key.
pub struct Device {
    /// What proves it, and what proves its service.
    pub credential: Credential,
    /// Its serial; equal to the subject serialNumber of its certificate, if it has one.
    pub serial: Serial,
    /// How it finds itself.
    pub readiness: Readiness,
    /// The one acquirer that it serves, from manufacture or its signed application.
    pub acquirer_id: AcquirerId,
}

/// What a device proves itself by, and knows its service by. It never leaves the device.
///
/// There is no other source of trust: not the first service that answers, and not TLS.
pub enum Credential {
    /// A key of its own, and the root of the acquirer.
    Certificate(Certified),
    /// A key that its service holds too.
    MasterKey(Key<KeyDerivation>),
}

/// A device key with its certificates, and whom the device trusts.
pub struct Certified {
    /// The device key.
    pub key: SigningKey,
    /// Its certificates, leaf first.
    pub chain: CertificateChain,
    /// The acquirer's root certificate, in DER.
    pub acquirer_root: Vec<u8>,
}

impl fmt::Debug for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Device({})", self.serial.as_str())
    }
}

/// Who answered Begin, as far as later answers are held against it.
#[derive(Clone, Copy)]
pub(super) enum Service {
    /// The holder of a certified key.
    Certified(Point),
    /// A holder of the device's master key.
    MasterKey,
}

impl Device {
    /// The certificates that Begin carries.
    pub(super) fn chain(&self) -> Option<CertificateChain> {
        match &self.credential {
            Credential::Certificate(certified) => Some(certified.chain.clone()),
            Credential::MasterKey(_) => None,
        }
    }

    /// Adds a payload to a transcript and proves it; the transcript before Deliver is the one
    /// through `BeginAnswer`.
    pub(super) fn prove(
        &self,
        suite: Suite,
        before: &Transcript,
        payload: Vec<u8>,
        step: Step,
    ) -> Result<(Transcript, SignedRequest), TerminalError> {
        let transcript = before.with(&payload);
        let proof = match &self.credential {
            Credential::Certificate(certified) => {
                let input = transcript.authenticated_input(Role::Terminal, step);
                certified.key.sign(&input)?.to_vec()
            }
            Credential::MasterKey(key) => {
                let master = MasterKey::new(key, suite)?;
                let key = match step {
                    Step::Deliver => master.session_keys(&before.hash()).confirm_terminal,
                    _ => master.device_key(self.serial.as_str()),
                };
                confirmation::mac(&key, (Role::Terminal, step), &transcript).to_vec()
            }
        };
        Ok((transcript, SignedRequest { payload, proof }))
    }

    /// Judges the service that answered: it must be of this acquirer, and its certificate chain to
    /// the acquirer's root and be valid now. A service that holds the master key shows none; what
    /// it is worth, its proof says.
    pub(super) fn judge(&self, answer: &BeginAnswer, now: u64) -> Result<Service, TerminalError> {
        if answer.acquirer_id != self.acquirer_id {
            return Err(TerminalError::ServiceNotTrusted);
        }
        match (&self.credential, &answer.service_certificate_chain) {
            (Credential::MasterKey(_), None) => Ok(Service::MasterKey),
            (Credential::Certificate(certified), Some(chain)) => {
                let chain = Chain::parse(chain.as_der().to_vec())
                    .map_err(|_| TerminalError::ServiceNotTrusted)?;
                let roots = slice::from_ref(&certified.acquirer_root);
                let leaf = verify_service(&chain, roots, now)
                    .map_err(|_| TerminalError::ServiceNotTrusted)?;
                if leaf.organization.as_deref() != Some(self.acquirer_id.as_str()) {
                    return Err(TerminalError::ServiceNotTrusted);
                }
                Ok(Service::Certified(leaf.public))
            }
            (Credential::Certificate(_), None) | (Credential::MasterKey(_), Some(_)) => {
                Err(TerminalError::ServiceNotTrusted)
            }
        }
    }

    /// Verifies the proof of the service's answer that ends a transcript; `begun` is the hash of it
    /// through `BeginAnswer`.
    pub(super) fn verify(
        &self,
        suite: Suite,
        service: Service,
        begun: &[u8; 32],
        (transcript, step): (&Transcript, Step),
        proof: &[u8],
    ) -> Result<(), TerminalError> {
        match (&self.credential, service) {
            (Credential::Certificate(_), Service::Certified(public)) => {
                let input = transcript.authenticated_input(Role::Service, step);
                let proof = proof.try_into().map_err(|_| TerminalError::Authentication)?;
                ec::verify(&public, &input, proof).map_err(|_| TerminalError::Authentication)
            }
            (Credential::MasterKey(key), Service::MasterKey) => {
                let key = MasterKey::new(key, suite)?.session_keys(begun).confirm_service;
                let message = (Role::Service, step);
                let verified: Result<(), ConfirmationMismatch> =
                    confirmation::verify(&key, message, transcript, proof);
                Ok(verified?)
            }
            (Credential::Certificate(_), Service::MasterKey)
            | (Credential::MasterKey(_), Service::Certified(_)) => {
                Err(TerminalError::Authentication)
            }
        }
    }
}
