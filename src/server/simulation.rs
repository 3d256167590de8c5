//! A simulated terminal's surroundings: its vendor, its cardholder, its payment backend.

use super::dev::{self, Pki};
use crate::activation::parameters::AcquirerId;
use crate::activation::payload::{CertificateChain, Network, Readiness, Serial, Shown};
use crate::crypto::certificate::for_dev_only::IssueFailed;
use crate::crypto::ec::SigningKey;
use crate::crypto::rng::Rng;
use crate::grpc::proto;
use crate::key::Key;
use crate::key::usage::KeyDerivation;
use crate::pin::{Pan, Pin};
use crate::terminal::{Certified, Credential, Device, Payment, Purchase, Terminal, TerminalError};

/// The cardholder: a test PAN and its PIN.
const CARD_PAN: &str = "4111111111111111";
const CARD_PIN: &str = "1234";

/// A simulated device could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the simulated device could not be made: {0}")]
pub struct DeviceFailed(&'static str);

impl From<IssueFailed> for DeviceFailed {
    fn from(_: IssueFailed) -> Self {
        Self("its certificate")
    }
}

/// Makes a device as a vendor would: a key, and a certificate of it by the device authority.
pub fn simulated_device(
    pki: &Pki,
    serial: &str,
    rng: &dyn Rng,
    now: u64,
) -> Result<Device, DeviceFailed> {
    // The generator is asked once, so that a device is not made where randomness fails.
    rng.fill(&mut [0; 1]).map_err(|_| DeviceFailed("no randomness"))?;
    let key = SigningKey::generate().map_err(|_| DeviceFailed("no key"))?;
    let certificate = pki.vendor.issue_device(&key.public(), serial, dev::validity(now))?;
    let certified = Certified {
        key,
        chain: CertificateChain::new(vec![certificate]).ok_or(DeviceFailed("its chain"))?,
        acquirer_root: pki.acquirer.root_der().to_vec(),
    };
    device(serial, Credential::Certificate(certified))
}

/// Makes a device as a facility would: with a master key that the service holds too.
pub fn simulated_device_with(
    master_key: Key<KeyDerivation>,
    serial: &str,
) -> Result<Device, DeviceFailed> {
    device(serial, Credential::MasterKey(master_key))
}

fn device(serial: &str, credential: Credential) -> Result<Device, DeviceFailed> {
    let shown = |text| Shown::new(text).ok_or(DeviceFailed("its readiness"));
    Ok(Device {
        credential,
        serial: Serial::new(serial).ok_or(DeviceFailed("its serial"))?,
        readiness: Readiness {
            hardware: shown("simulated terminal")?,
            firmware: shown(env!("CARGO_PKG_VERSION"))?,
            network: Network::Ethernet,
            tampered: false,
        },
        acquirer_id: AcquirerId::new(dev::ACQUIRER_ID).ok_or(DeviceFailed("its acquirer"))?,
    })
}

/// Makes a purchase with the cardholder's card and PIN.
pub fn purchase(
    terminal: &mut Terminal,
    amount_minor: u64,
    rng: &dyn Rng,
    now: u64,
) -> Result<Payment, TerminalError> {
    let pan = Pan::parse(CARD_PAN).expect("the card has a PAN of 16 digits");
    let pin = Pin::parse(CARD_PIN).expect("the card has a PIN of 4 digits");
    terminal.purchase(Purchase { amount_minor, pan: &pan, pin: &pin }, rng, now)
}

/// A payment's MAC as the backend has it verified.
#[must_use]
pub fn verify_request(payment: &Payment) -> proto::VerifyMacRequest {
    let algorithm = match payment.pin_block_format.len_bytes() {
        16 => proto::MacAlgorithm::AesCmac,
        _ => proto::MacAlgorithm::TdesCmac,
    };
    proto::VerifyMacRequest {
        key: Some(dukpt(payment)),
        direction: proto::Direction::Request.into(),
        algorithm: algorithm.into(),
        message: payment.message.clone(),
        mac: payment.mac.clone(),
        ..proto::VerifyMacRequest::default()
    }
}

/// A payment's PIN block as the backend has it translated, to the zone key of development.
#[must_use]
pub fn translate_request(payment: &Payment, pin_block: Vec<u8>) -> proto::TranslatePinRequest {
    let zone = "keys/dev-zone-pin-aes".to_owned();
    let zone = proto::WorkingKey { key: Some(proto::working_key::Key::StaticKey(zone)) };
    let format = match payment.pin_block_format.len_bytes() {
        16 => proto::PinBlockFormat::Iso4,
        _ => proto::PinBlockFormat::Iso3,
    };
    proto::TranslatePinRequest {
        source: Some(dukpt(payment)),
        source_format: format.into(),
        pin_block,
        destination: Some(zone),
        destination_format: proto::PinBlockFormat::Iso4.into(),
        pan: CARD_PAN.to_owned(),
        ..proto::TranslatePinRequest::default()
    }
}

fn dukpt(payment: &Payment) -> proto::WorkingKey {
    let ksn = payment.ksn.bytes().to_vec();
    let key = proto::DukptKey { ksn, ..proto::DukptKey::default() };
    proto::WorkingKey { key: Some(proto::working_key::Key::Dukpt(key)) }
}
