//! The messages that open a session: Begin and its answer.

use std::fmt;

use prost::Message as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::{
    ANSWER_LEN_BYTES_MAX, BEGIN_LEN_BYTES_MAX, Payload, PayloadInvalid, decode, exactly, printable,
    required, wire,
};
use crate::activation::code::ActivationCode;
use crate::activation::parameters::AcquirerId;

/// Step begin, from the terminal.
#[derive(Debug)]
pub struct Begin {
    /// The code that the merchant typed; none where the profile asks for none.
    pub activation_code: Option<ActivationCode>,
    /// The device's serial.
    pub serial: Serial,
    /// The device's certificates; none from a terminal with a master key.
    pub certificate_chain: Option<CertificateChain>,
    /// Drawn at random by the device.
    pub device_nonce: [u8; 32],
    /// How the device finds itself.
    pub readiness: Readiness,
    /// Above that of every Begin before.
    pub sequence: u64,
}

impl Payload for Begin {
    fn encode(&self) -> Vec<u8> {
        let code = self.activation_code.as_ref();
        let mut message = wire::Begin {
            activation_code: code.map(|code| code.expose_text().to_string()),
            serial: self.serial.0.clone(),
            certificate_chain: CertificateChain::to_wire(self.certificate_chain.as_ref()),
            device_nonce: self.device_nonce.to_vec(),
            readiness: Some(wire::Readiness {
                hardware: self.readiness.hardware.0.clone(),
                firmware: self.readiness.firmware.0.clone(),
                network: self.readiness.network.to_wire().into(),
                tampered: self.readiness.tampered,
            }),
            sequence: self.sequence,
        };
        let bytes = message.encode_to_vec();
        // The signed bytes hold the code from here on; this copy of it goes.
        message.activation_code.zeroize();
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, PayloadInvalid> {
        let mut message: wire::Begin = decode(bytes, BEGIN_LEN_BYTES_MAX)?;
        let code = message.activation_code.take().map(Zeroizing::new);
        let code = code.map(|text| ActivationCode::parse(&text)).transpose();
        let readiness = required(message.readiness.as_ref(), "readiness")?;
        Ok(Self {
            activation_code: code.map_err(|_| PayloadInvalid { field: "activation_code" })?,
            serial: required(Serial::new(&message.serial), "serial")?,
            device_nonce: exactly(&message.device_nonce, "device_nonce")?,
            readiness: Readiness {
                hardware: required(Shown::new(&readiness.hardware), "readiness.hardware")?,
                firmware: required(Shown::new(&readiness.firmware), "readiness.firmware")?,
                network: required(Network::from_wire(readiness.network()), "readiness.network")?,
                tampered: readiness.tampered,
            },
            certificate_chain: CertificateChain::from_wire(
                message.certificate_chain,
                "certificate_chain",
            )?,
            sequence: message.sequence,
        })
    }
}

/// How the device finds itself before it asks for keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Readiness {
    /// The hardware revision.
    pub hardware: Shown,
    /// The firmware version.
    pub firmware: Shown,
    /// How it reaches the service.
    pub network: Network,
    /// Its tamper detection has answered: it receives no keys.
    pub tampered: bool,
}

/// How a device reaches the service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Network {
    /// A mobile network.
    Cellular,
    /// A modem.
    DialUp,
    /// A wired local network.
    Ethernet,
    /// A wireless local network.
    Wifi,
}

impl Network {
    /// All networks.
    pub const ALL: [Self; 4] = [Self::Cellular, Self::DialUp, Self::Ethernet, Self::Wifi];

    /// Finds a network by its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|network| network.as_str() == name)
    }

    /// The name, for a timeline.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cellular => "cellular",
            Self::DialUp => "dial-up",
            Self::Ethernet => "ethernet",
            Self::Wifi => "wifi",
        }
    }

    fn to_wire(self) -> wire::Network {
        match self {
            Self::Cellular => wire::Network::Cellular,
            Self::DialUp => wire::Network::DialUp,
            Self::Ethernet => wire::Network::Ethernet,
            Self::Wifi => wire::Network::Wifi,
        }
    }

    fn from_wire(network: wire::Network) -> Option<Self> {
        match network {
            wire::Network::Unspecified => None,
            wire::Network::Cellular => Some(Self::Cellular),
            wire::Network::DialUp => Some(Self::DialUp),
            wire::Network::Ethernet => Some(Self::Ethernet),
            wire::Network::Wifi => Some(Self::Wifi),
        }
    }
}

/// Answer to Begin, from the service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BeginAnswer {
    /// The activation.
    pub activation: ActivationName,
    /// Drawn at random by the service.
    pub service_nonce: [u8; 32],
    /// The service's certificates; none to a terminal with a master key.
    pub service_certificate_chain: Option<CertificateChain>,
    /// The acquirer.
    pub acquirer_id: AcquirerId,
    /// When the activation ends, in seconds since 1970 UTC.
    pub expires_at_seconds: u64,
}

impl Payload for BeginAnswer {
    fn encode(&self) -> Vec<u8> {
        wire::BeginAnswer {
            activation: self.activation.0.clone(),
            service_nonce: self.service_nonce.to_vec(),
            service_certificate_chain: CertificateChain::to_wire(
                self.service_certificate_chain.as_ref(),
            ),
            acquirer_id: self.acquirer_id.as_str().to_owned(),
            expires_at_seconds: self.expires_at_seconds,
        }
        .encode_to_vec()
    }

    fn parse(bytes: &[u8]) -> Result<Self, PayloadInvalid> {
        let message: wire::BeginAnswer = decode(bytes, ANSWER_LEN_BYTES_MAX)?;
        let expires = message.expires_at_seconds;
        Ok(Self {
            activation: required(ActivationName::new(&message.activation), "activation")?,
            service_nonce: exactly(&message.service_nonce, "service_nonce")?,
            service_certificate_chain: CertificateChain::from_wire(
                message.service_certificate_chain,
                "service_certificate_chain",
            )?,
            acquirer_id: required(AcquirerId::new(&message.acquirer_id), "acquirer_id")?,
            expires_at_seconds: required((expires > 0).then_some(expires), "expires_at_seconds")?,
        })
    }
}

/// A chain of certificates in DER, leaf first, the root left out: 1 to 4, each of 1 to 4,096 bytes.
///
/// Bounded here, judged by `crypto::certificate`.
#[derive(Clone, Eq, PartialEq)]
pub struct CertificateChain(Vec<Vec<u8>>);

impl CertificateChain {
    /// Takes a chain within these bounds.
    #[must_use]
    pub fn new(certificates: Vec<Vec<u8>>) -> Option<Self> {
        let bounded = (1..=4).contains(&certificates.len())
            && certificates.iter().all(|each| (1..=4096).contains(&each.len()));
        bounded.then_some(Self(certificates))
    }

    /// The certificates.
    #[must_use]
    pub fn as_der(&self) -> &[Vec<u8>] {
        &self.0
    }

    fn to_wire(chain: Option<&Self>) -> Vec<Vec<u8>> {
        chain.map(|chain| chain.0.clone()).unwrap_or_default()
    }

    fn from_wire(
        certificates: Vec<Vec<u8>>,
        field: &'static str,
    ) -> Result<Option<Self>, PayloadInvalid> {
        if certificates.is_empty() {
            return Ok(None);
        }
        required(Self::new(certificates), field).map(Some)
    }
}

impl fmt::Debug for CertificateChain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CertificateChain({} certificates)", self.0.len())
    }
}

/// The serial of a device: 4 to 32 letters, digits, dots, underscores or hyphens.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Serial(String);

impl Serial {
    /// Takes a text of this form.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let plain = (4..=32).contains(&text.len()) && text.bytes().all(is_name_byte);
        plain.then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that a device tells of itself: 1 to 64 printable ASCII characters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shown(String);

impl Shown {
    /// Takes a text of this form.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty() && printable(text, 64)).then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of an activation: `terminals/{terminal}/activations/{n}`, counted from 1.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ActivationName(String);

impl ActivationName {
    /// Takes a name of this form.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let (terminal, number) = text.strip_prefix("terminals/")?.split_once("/activations/")?;
        let terminal_plain =
            (1..=64).contains(&terminal.len()) && terminal.bytes().all(is_name_byte);
        let number_plain = !number.starts_with('0')
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && number.parse::<u32>().is_ok();
        (terminal_plain && number_plain).then(|| Self(text.to_owned()))
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The `{terminal}` in it.
    #[must_use]
    pub fn terminal_id(&self) -> &str {
        self.0.split('/').nth(1).expect("the name has four parts")
    }

    /// The `{n}` in it.
    #[must_use]
    pub fn number(&self) -> u32 {
        let number = self.0.rsplit('/').next().and_then(|number| number.parse().ok());
        number.expect("the last part is a number")
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}
