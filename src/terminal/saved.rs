//! A terminal's memory while it is switched off, as a text.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::device::Service;
use super::engine::{AesFamily, Engine, Kind, TdesFamily};
use super::exchange::{Exchange, TransactionRequest};
use super::payment::Moved;
use super::registers::{Family, Registers};
use super::session::{ConfirmRequest, Session, SignedRequest};
use super::slots::SlotKey;
use super::{Certified, Credential, Device, Terminal};
use crate::activation::parameters::AcquirerId;
use crate::activation::payload::{
    ActivationName, CertificateChain, Network, Readiness, Serial, Shown,
};
use crate::activation::terminal_key::TerminalKeyUsage;
use crate::activation::{Parameters, Step, Transcript};
use crate::agreement::{ConfirmationKey, Dukpt, Suite};
use crate::crypto::ec::{Point, SigningKey};
use crate::dukpt::{AesInitialKeyId, TdesInitialKeyId};
use crate::key::{Algorithm, Key, Material};

/// What stands at the head of every saved terminal.
pub const DEVICE_MEMORY_WARNING: &str = "\
    SECRET: the memory of a simulated device, with its device or master key and its DUKPT \
    registers IN CLEAR. A real device keeps these in tamper-responsive memory. \
    For tests only; whoever reads this file is this terminal.";

/// A text is not the memory of a terminal.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("this is not the memory of a terminal: {field} is missing or invalid")]
pub struct SavedInvalid {
    /// The field; `form` where the text is something else altogether.
    pub field: &'static str,
}

impl Terminal {
    /// Writes all that the device must not forget, keys in clear: see [`DEVICE_MEMORY_WARNING`].
    ///
    /// An ephemeral key is not kept. A terminal that is switched off between Deliver and its answer
    /// has lost its session and begins again; one with a master key asks again.
    #[must_use]
    pub fn save(&self) -> Zeroizing<String> {
        let device = &self.device;
        let saved = Saved {
            warning: DEVICE_MEMORY_WARNING.to_owned(),
            form: FORM,
            suite: self.suite.name().to_owned(),
            serial: device.serial.as_str().to_owned(),
            credential: SavedCredential::of(&device.credential),
            acquirer_id: device.acquirer_id.as_str().to_owned(),
            hardware: device.readiness.hardware.as_str().to_owned(),
            firmware: device.readiness.firmware.as_str().to_owned(),
            network: device.readiness.network.as_str().to_owned(),
            tampered: device.readiness.tampered,
            activation: self.activation.as_ref().map(|name| name.as_str().to_owned()),
            session: SavedSession::of(&self.session),
            engine: self.engine.as_ref().map(SavedEngine::of),
            slots: self.slots.iter().map(SavedSlot::of).collect(),
            exchange: self.exchange.as_ref().map(SavedExchange::of),
            parameters: self.parameters.as_ref().map(|parameters| Hex::of(&parameters.to_file())),
            parameters_of: self.parameters_of.clone(),
            moved_day: self.moved.day,
            moved_amount_minor: self.moved.amount_minor,
            purchases_made: self.purchases_made,
            tests_made: self.tests_made,
            last_begin: self.last_begin,
        };
        let text = serde_json::to_string_pretty(&saved);
        Zeroizing::new(text.expect("texts, numbers and lists are what JSON has"))
    }

    /// Reads what [`Self::save`] wrote.
    pub fn restore(text: &str) -> Result<Self, SavedInvalid> {
        let saved: Saved = serde_json::from_str(text).map_err(|_| invalid("form"))?;
        if saved.form != FORM {
            return Err(invalid("form"));
        }
        let suite = Suite::from_name(&saved.suite).ok_or(invalid("suite"))?;
        let session = saved.session.restore(suite)?;
        let engine = saved.engine.as_ref().map(|engine| engine.restore(suite)).transpose()?;
        let slots = saved.slots.iter().map(SavedSlot::restore).collect::<Result<_, _>>()?;
        let exchange = saved.exchange.as_ref().map(|kept| kept.restore(suite)).transpose()?;
        let activation = saved.activation.as_deref().map(activation_name).transpose()?;
        let parameters = saved.parameters.as_ref().map(|file| Parameters::parse(&file.0));
        let parameters = parameters.transpose().map_err(|_| invalid("parameters"))?;
        let parameters_of = saved.parameters_of.clone();
        let moved = Moved { day: saved.moved_day, amount_minor: saved.moved_amount_minor };
        let (purchases_made, tests_made) = (saved.purchases_made, saved.tests_made);
        let last_begin = saved.last_begin;
        let device = saved.restore_device()?;
        Ok(Self {
            device,
            suite,
            session,
            activation,
            engine,
            slots,
            exchange,
            parameters,
            parameters_of,
            moved,
            purchases_made,
            tests_made,
            last_begin,
        })
    }
}

/// The form that is written and read.
const FORM: u32 = 2;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    warning: String,
    form: u32,
    suite: String,
    serial: String,
    credential: SavedCredential,
    acquirer_id: String,
    hardware: String,
    firmware: String,
    network: String,
    tampered: bool,
    activation: Option<String>,
    session: SavedSession,
    engine: Option<SavedEngine>,
    slots: Vec<SavedSlot>,
    exchange: Option<SavedExchange>,
    parameters: Option<Hex>,
    parameters_of: Option<String>,
    moved_day: u64,
    moved_amount_minor: u64,
    purchases_made: u64,
    tests_made: u32,
    last_begin: u64,
}

impl Saved {
    fn restore_device(self) -> Result<Device, SavedInvalid> {
        let network = Network::from_name(&self.network);
        Ok(Device {
            credential: self.credential.restore()?,
            serial: Serial::new(&self.serial).ok_or(invalid("serial"))?,
            readiness: Readiness {
                hardware: Shown::new(&self.hardware).ok_or(invalid("hardware"))?,
                firmware: Shown::new(&self.firmware).ok_or(invalid("firmware"))?,
                network: network.ok_or(invalid("network"))?,
                tampered: self.tampered,
            },
            acquirer_id: AcquirerId::new(&self.acquirer_id).ok_or(invalid("acquirer_id"))?,
        })
    }
}

/// What proves the device, in clear.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "kind")]
enum SavedCredential {
    Certificate { device_key: Hex, certificate_chain: Vec<Hex>, acquirer_root: Hex },
    MasterKey { algorithm: String, key: Hex },
}

impl SavedCredential {
    fn of(credential: &Credential) -> Self {
        match credential {
            Credential::Certificate(certified) => Self::Certificate {
                device_key: Hex::of(&certified.key.to_pkcs8()),
                certificate_chain: certified
                    .chain
                    .as_der()
                    .iter()
                    .map(|der| Hex::of(der))
                    .collect(),
                acquirer_root: Hex::of(&certified.acquirer_root),
            },
            Credential::MasterKey(key) => Self::MasterKey {
                algorithm: key.algorithm().to_string(),
                // Into the device's own memory, as its registers.
                key: Hex::of(key.expose_bytes()),
            },
        }
    }

    fn restore(&self) -> Result<Credential, SavedInvalid> {
        match self {
            Self::Certificate { device_key, certificate_chain, acquirer_root } => {
                let key = SigningKey::from_pkcs8(&device_key.0);
                let chain = certificate_chain.iter().map(|der| der.0.to_vec()).collect();
                Ok(Credential::Certificate(Certified {
                    key: key.map_err(|_| invalid("device_key"))?,
                    chain: CertificateChain::new(chain).ok_or(invalid("certificate_chain"))?,
                    acquirer_root: acquirer_root.0.to_vec(),
                }))
            }
            Self::MasterKey { algorithm, key } => {
                let mut all = Algorithm::ALL.into_iter();
                let algorithm = all.find(|one| one.to_string() == *algorithm);
                let algorithm = algorithm.ok_or(invalid("algorithm"))?;
                let key = Key::from_material(algorithm, Material::copied_from(&key.0));
                Ok(Credential::MasterKey(key.map_err(|_| invalid("key"))?))
            }
        }
    }
}

/// A session, as far as it outlives the device's power.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "step")]
enum SavedSession {
    Idle,
    Begun {
        transcript: Hex,
        payload: Hex,
        proof: Hex,
    },
    Trusted {
        transcript: Hex,
        activation: String,
        /// None where the master key proves the service.
        service: Option<Hex>,
    },
    Loaded {
        transcript: Hex,
        activation: String,
        engine: SavedEngine,
        slots: Vec<SavedSlot>,
        confirm_service: Hex,
        payload: Hex,
        mac: Hex,
    },
}

impl SavedSession {
    fn of(session: &Session) -> Self {
        match session {
            // Without the ephemeral key the session is over. Under a master key there is none, and
            // the same Deliver is made once more.
            Session::Idle | Session::Delivering { ephemeral: Some(_), .. } => Self::Idle,
            Session::Begun { transcript, request } => Self::Begun {
                transcript: Hex::of(&transcript.state()),
                payload: Hex::of(&request.payload),
                proof: Hex::of(&request.proof),
            },
            Session::Trusted { transcript, activation, service }
            | Session::Delivering { transcript, activation, service, .. } => Self::Trusted {
                transcript: Hex::of(&transcript.state()),
                activation: activation.as_str().to_owned(),
                service: match service {
                    Service::Certified(public) => Some(Hex::of(public.bytes())),
                    Service::MasterKey => None,
                },
            },
            Session::Loaded { transcript, activation, engine, slots, confirm_service, request } => {
                Self::Loaded {
                    transcript: Hex::of(&transcript.state()),
                    activation: activation.as_str().to_owned(),
                    engine: SavedEngine::of(engine),
                    slots: slots.iter().map(SavedSlot::of).collect(),
                    confirm_service: Hex::of(confirm_service.expose_bytes()),
                    payload: Hex::of(&request.payload),
                    mac: Hex::of(&request.mac),
                }
            }
        }
    }

    fn restore(&self, suite: Suite) -> Result<Session, SavedInvalid> {
        let transcript =
            |kept: &Hex| Transcript::from_state(&kept.0).map_err(|_| invalid("transcript"));
        Ok(match self {
            Self::Idle => Session::Idle,
            Self::Begun { transcript: kept, payload, proof } => Session::Begun {
                transcript: transcript(kept)?,
                request: SignedRequest { payload: payload.0.to_vec(), proof: proof.0.to_vec() },
            },
            Self::Trusted { transcript: kept, activation, service } => Session::Trusted {
                transcript: transcript(kept)?,
                activation: activation_name(activation)?,
                service: match service {
                    Some(public) => {
                        Service::Certified(Point::parse(&public.0).map_err(|_| invalid("service"))?)
                    }
                    None => Service::MasterKey,
                },
            },
            Self::Loaded {
                transcript: kept,
                activation,
                engine,
                slots,
                confirm_service,
                payload,
                mac,
            } => Session::Loaded {
                transcript: transcript(kept)?,
                activation: activation_name(activation)?,
                engine: engine.restore(suite)?,
                slots: slots.iter().map(SavedSlot::restore).collect::<Result<_, _>>()?,
                confirm_service: ConfirmationKey::from_bytes(
                    confirm_service.exactly("confirm_service")?,
                ),
                request: ConfirmRequest { payload: payload.0.to_vec(), mac: mac.exactly("mac")? },
            },
        })
    }
}

/// A static key in its slot, in clear.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SavedSlot {
    slot: u32,
    usage: TerminalKeyUsage,
    algorithm: Algorithm,
    key: Hex,
}

impl SavedSlot {
    fn of(key: &SlotKey) -> Self {
        let SlotKey { slot, usage, algorithm, material } = key;
        // Into the device's own memory, as its registers.
        let key = Hex::of(material.expose_bytes());
        Self { slot: *slot, usage: *usage, algorithm: *algorithm, key }
    }

    fn restore(&self) -> Result<SlotKey, SavedInvalid> {
        let Self { slot, usage, algorithm, .. } = *self;
        if self.key.0.len() != algorithm.len_bytes() {
            return Err(invalid("slots"));
        }
        Ok(SlotKey { slot, usage, algorithm, material: self.key.to_material() })
    }
}

/// The registers, in clear.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SavedEngine {
    initial_key_id: Hex,
    next_counter: u64,
    registers: Vec<Option<Hex>>,
}

impl SavedEngine {
    fn of(engine: &Engine) -> Self {
        match engine.kind() {
            Kind::Aes(registers) => Self::of_registers(registers.family().id.bytes(), registers),
            Kind::Tdes(registers) => Self::of_registers(registers.family().id.bytes(), registers),
        }
    }

    fn of_registers<F: Family>(id: &[u8], registers: &Registers<F>) -> Self {
        // The one place where registers leave the engine: into the device's own memory.
        let hex = |key: &Option<Material>| key.as_ref().map(|key| Hex::of(key.expose_bytes()));
        Self {
            initial_key_id: Hex::of(id),
            next_counter: registers.next(),
            registers: registers.keys().iter().map(hex).collect(),
        }
    }

    fn restore(&self, suite: Suite) -> Result<Engine, SavedInvalid> {
        let len_bytes = suite.initial_key_algorithm().len_bytes();
        let mut keys = Vec::with_capacity(self.registers.len());
        for register in &self.registers {
            if register.as_ref().is_some_and(|key| key.0.len() != len_bytes) {
                return Err(invalid("registers"));
            }
            keys.push(register.as_ref().map(|key| Material::copied_from(&key.0)));
        }
        let id = &self.initial_key_id.0;
        let kind = match suite.dukpt() {
            Dukpt::Aes128 => {
                let id = AesInitialKeyId::parse(id).map_err(|_| invalid("initial_key_id"))?;
                Registers::resume(AesFamily { id }, self.next_counter, keys).map(Kind::Aes)
            }
            Dukpt::Tdes2 => {
                let id = TdesInitialKeyId::parse(id).map_err(|_| invalid("initial_key_id"))?;
                Registers::resume(TdesFamily { id }, self.next_counter, keys).map(Kind::Tdes)
            }
        };
        kind.map(Engine::from_kind).ok_or(invalid("registers"))
    }
}

/// An exchange that waits for its answer, with the key that verifies it.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SavedExchange {
    step: String,
    ksn: Hex,
    payload: Hex,
    mac: Hex,
    response_key: Hex,
    derivation_key: Option<Hex>,
}

impl SavedExchange {
    fn of(exchange: &Exchange) -> Self {
        Self {
            step: exchange.step.as_str().to_owned(),
            ksn: Hex::of(&exchange.request.ksn),
            payload: Hex::of(&exchange.request.payload),
            mac: Hex::of(&exchange.request.mac),
            // Kept until the answer came, as the registers are.
            response_key: Hex::of(exchange.response_key.expose_bytes()),
            derivation_key: exchange.derivation_key.as_ref().map(|key| Hex::of(key.expose_bytes())),
        }
    }

    fn restore(&self, suite: Suite) -> Result<Exchange, SavedInvalid> {
        let step = Step::ALL.into_iter().find(|step| step.as_str() == self.step);
        let algorithm = suite.initial_key_algorithm();
        let response_key = Key::from_material(algorithm, self.response_key.to_material());
        let derivation_key = self.derivation_key.as_ref();
        let derivation_key =
            derivation_key.map(|key| Key::from_material(algorithm, key.to_material()));
        Ok(Exchange {
            step: step.ok_or(invalid("step"))?,
            request: TransactionRequest {
                ksn: self.ksn.0.to_vec(),
                payload: self.payload.0.to_vec(),
                mac: self.mac.0.to_vec(),
            },
            response_key: response_key.map_err(|_| invalid("response_key"))?,
            derivation_key: derivation_key.transpose().map_err(|_| invalid("derivation_key"))?,
        })
    }
}

/// Bytes as upper-case hexadecimal; wiped on drop, since some of them are keys.
struct Hex(Zeroizing<Vec<u8>>);

impl Hex {
    fn of(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    fn to_material(&self) -> Material {
        Material::copied_from(&self.0)
    }

    fn exactly<const N: usize>(&self, field: &'static str) -> Result<[u8; N], SavedInvalid> {
        self.0.as_slice().try_into().map_err(|_| invalid(field))
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = Zeroizing::new(data_encoding::HEXUPPER.encode(&self.0));
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = data_encoding::HEXUPPER.decode(text.as_bytes());
        // The decoder's error would show the character, which may be one of a key.
        let bytes = bytes.map_err(|_| serde::de::Error::custom("not upper-case hexadecimal"))?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}

fn activation_name(text: &str) -> Result<ActivationName, SavedInvalid> {
    ActivationName::new(text).ok_or(invalid("activation"))
}

fn invalid(field: &'static str) -> SavedInvalid {
    SavedInvalid { field }
}
