//! A simulated terminal's surroundings: its vendor, its cardholder, its payment backend.

use super::dev::{self, Pki};
use crate::activation::parameters::AcquirerId;
use crate::activation::payload::{CertificateChain, Network, Readiness, Serial, Shown};
use crate::agreement::Suite;
use crate::crypto::certificate::authority::IssueFailed;
use crate::crypto::ec::SigningKey;
use crate::crypto::rng::Rng;
use crate::grpc::client::{Client, ClientError, ImportCall, request_id};
use crate::grpc::proto;
use crate::key::usage::{KeyDerivation, KeyEncryption};
use crate::key::{Algorithm, Key};
use crate::keyblock::{self, Header, Version};
use crate::pin::{Pan, Pin};
use crate::terminal::{Certified, Credential, Device, Payment, Purchase, Terminal, TerminalError};
use crate::vault::KeyAttributes;

/// The cardholder: a test PAN and its PIN.
const CARD_PAN: &str = "4111111111111111";
const CARD_PIN: &str = "1234";

/// A simulated device could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the simulated device could not be made: {0}")]
pub struct DeviceFailed(&'static str);

/// A master key did not come to both sides.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyFailed {
    /// The service did not take it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It could not be made.
    #[error(transparent)]
    Device(#[from] DeviceFailed),
}

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

/// A registration under a development profile, of a device that has a certificate.
#[must_use]
pub fn registration(id: &str, serial: &str, profile: &str) -> proto::CreateTerminalRequest {
    proto::CreateTerminalRequest {
        request_id: request_id(),
        terminal_id: id.to_owned(),
        serial: serial.to_owned(),
        model: dev::DEVICE_MODEL.to_owned(),
        merchant: Some(proto::Merchant {
            merchant_id: "000000000000001".to_owned(),
            terminal_id: "00000001".to_owned(),
            display_name: "Corner Shop".to_owned(),
        }),
        merchant_standing: proto::MerchantStanding::Approved.into(),
        profile: format!("profiles/{profile}"),
        kind: proto::TerminalKind::DeviceCertificate.into(),
        device_authority: format!("deviceAuthorities/{}", dev::DEVICE_AUTHORITY),
        master_key: String::new(),
    }
}

/// The same registration, of a device that has the master key `keys/{name}`.
#[must_use]
pub fn with_master_key(
    registration: proto::CreateTerminalRequest,
    name: &str,
) -> proto::CreateTerminalRequest {
    proto::CreateTerminalRequest {
        kind: proto::TerminalKind::MasterKey.into(),
        device_authority: String::new(),
        master_key: format!("keys/{name}"),
        ..registration
    }
}

/// Where devices come from: the vendor who certifies them, the facility that loads master keys.
pub struct Factory<'a> {
    /// A development service.
    pub client: &'a Client,
    /// The authorities around it.
    pub pki: &'a Pki,
    /// The development key encryption key, below which facilities bring master keys.
    pub kek: &'a Key<KeyEncryption>,
    /// Randomness for the devices.
    pub rng: &'a dyn Rng,
    /// The time, in seconds since 1970.
    pub now: u64,
}

impl Factory<'_> {
    /// Makes a device for a suite, and says how it is to be registered: with the certificate that
    /// it has, or with its master key, which the service then holds as `keys/master-{id}`.
    pub async fn make(
        &self,
        id: &str,
        serial: &str,
        suite: Suite,
    ) -> Result<(Device, proto::CreateTerminalRequest), MasterKeyFailed> {
        let registration = registration(id, serial, dev::profile_of(suite));
        let mut algorithms = Algorithm::ALL.into_iter();
        let Some(algorithm) = algorithms.find(|algorithm| suite.takes_master_key(*algorithm))
        else {
            let device = simulated_device(self.pki, serial, self.rng, self.now)?;
            return Ok((device, registration));
        };
        let name = format!("master-{id}");
        let key = master_key(self.client, self.kek, (&name, algorithm), self.rng).await?;
        let device = simulated_device_with(key, serial)?;
        Ok((device, with_master_key(registration, &name)))
    }
}

/// Brings a new master key to the service, below the development key encryption key, as a facility
/// does that loads it into a device too.
pub async fn master_key(
    client: &Client,
    kek: &Key<KeyEncryption>,
    (name, algorithm): (&str, Algorithm),
    rng: &dyn Rng,
) -> Result<Key<KeyDerivation>, MasterKeyFailed> {
    let key = Key::generate(algorithm, rng).map_err(|_| DeviceFailed("no master key"))?;
    let header = Header::new(Version::D, *b"B3", algorithm.header_letter(), b'X');
    let block = keyblock::wrap_key(kek, &header, &key, rng);
    let block = block.map_err(|_| DeviceFailed("no block of its master key"))?;
    let attributes = &KeyAttributes::default();
    let call =
        ImportCall { id: name, key_block: block.as_str(), wrapping_key: dev::KEK, attributes };
    client.import_key(call).await?;
    Ok(key)
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
