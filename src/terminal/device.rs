//! What a device has from manufacture: its identity, and whom it trusts.

use std::fmt;

use super::TerminalError;
use crate::activation::parameters::AcquirerId;
use crate::activation::payload::{BeginAnswer, CertificateChain, Readiness, Serial};
use crate::crypto::certificate::{Chain, verify_service};
use crate::crypto::ec::{Point, SigningKey};

/// A device before it has any payment key.
pub struct Device {
    /// Proves the device; it never leaves it.
    pub key: SigningKey,
    /// Its certificates, leaf first.
    pub certificate_chain: CertificateChain,
    /// Its serial, equal to the subject serialNumber of its certificate.
    pub serial: Serial,
    /// How it finds itself.
    pub readiness: Readiness,
    /// Whom it trusts.
    pub trust: Trust,
}

impl fmt::Debug for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Device({})", self.serial.as_str())
    }
}

/// The one acquirer that a terminal serves, from manufacture or its signed application.
///
/// There is no other source of trust: not the first service that answers, and not TLS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trust {
    /// The acquirer's root certificate, in DER.
    pub acquirer_root: Vec<u8>,
    /// The acquirer.
    pub acquirer_id: AcquirerId,
}

impl Trust {
    /// Judges the service that answered: its certificate must chain to the acquirer's root, be of
    /// this acquirer, and be valid now. Gives the key that its signatures are held against.
    pub(super) fn judge(&self, answer: &BeginAnswer, now: u64) -> Result<Point, TerminalError> {
        let chain = Chain::parse(answer.service_certificate_chain.as_der().to_vec())
            .map_err(|_| TerminalError::ServiceNotTrusted)?;
        let roots = [self.acquirer_root.clone()];
        let leaf = verify_service(&chain, &roots, now);
        let leaf = leaf.map_err(|_| TerminalError::ServiceNotTrusted)?;
        let certified = leaf.organization.as_deref();
        let ours = self.acquirer_id.as_str();
        if certified != Some(ours) || answer.acquirer_id != self.acquirer_id {
            return Err(TerminalError::ServiceNotTrusted);
        }
        Ok(leaf.public)
    }
}
