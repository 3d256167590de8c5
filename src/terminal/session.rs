//! The terminal's side of first activation, up to keys that serve.
//!
//! Each step gives a request and takes its answer. A request is made once: asked for again before
//! its answer came, it is the same bytes, so a lost reply costs nothing.

use std::mem;

use super::device::Service;
use super::engine::Engine;
use super::slots::{Delivered, SlotKey};
use super::{Answer, Credential, Terminal, TerminalError};
use crate::activation::confirmation;
use crate::activation::payload::{
    ActivationName, Begin, BeginAnswer, Confirm, ConfirmAnswer, Deliver, DeliverAnswer,
    DeliveredKey, Payload,
};
use crate::activation::{ActivationCode, PayloadInvalid, Role, Step, Transcript};
use crate::agreement::{Agreement, ConfirmationKey, Dukpt, MasterKey, SessionKeys, Suite};
use crate::crypto::ec::{EphemeralKey, Point};
use crate::crypto::rng::Rng;
use crate::dukpt::{AesInitialKeyId, TdesInitialKeyId};
use crate::key::usage::InitialDukpt;
use crate::key::{CheckValue, Key};
use crate::keyblock::{self, Unwrapped, Version, WrappingUsage};

/// A signed message to the service.
#[derive(Clone, Eq, PartialEq)]
pub struct SignedRequest {
    /// The payload.
    pub payload: Vec<u8>,
    /// What proves the device: its signature, r and s, or an HMAC under its master key.
    pub proof: Vec<u8>,
}

/// The confirmation of the keys, to the service.
#[derive(Clone, Eq, PartialEq)]
pub struct ConfirmRequest {
    /// The payload.
    pub payload: Vec<u8>,
    /// The terminal's confirmation MAC.
    pub mac: [u8; confirmation::MAC_LEN_BYTES],
}

/// Where the session with the service stands.
pub(super) enum Session {
    /// No session, or one that is over.
    Idle,
    /// Begin was made.
    Begun { transcript: Transcript, request: SignedRequest },
    /// The service proved itself; the transcript ends with its answer.
    Trusted { transcript: Transcript, activation: ActivationName, service: Service },
    /// Deliver was made; the transcript still ends with the answer before it.
    Delivering {
        transcript: Transcript,
        activation: ActivationName,
        service: Service,
        /// None where the keys come from a master key.
        ephemeral: Option<EphemeralKey>,
        request: SignedRequest,
    },
    /// The keys are loaded and do not serve yet; Confirm was made.
    Loaded {
        transcript: Transcript,
        activation: ActivationName,
        engine: Engine,
        slots: Vec<SlotKey>,
        confirm_service: ConfirmationKey,
        request: ConfirmRequest,
    },
}

/// A key that the terminal loaded, as it may be shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LoadedKey {
    /// Its slot.
    pub slot: u32,
    /// Its check value, as the terminal computed it.
    pub check_value: CheckValue,
    /// The id of the initial key.
    pub initial_key_id: Vec<u8>,
}

impl Terminal {
    /// Begins a session anew: new nonce, and whatever was under way before is dead. Keys that serve
    /// go on serving until new ones are confirmed.
    pub fn begin(
        &mut self,
        activation_code: Option<ActivationCode>,
        rng: &dyn Rng,
        now: u64,
    ) -> Result<SignedRequest, TerminalError> {
        let mut device_nonce = [0; 32];
        rng.fill(&mut device_nonce)?;
        let begin = Begin {
            activation_code,
            serial: self.device.serial.clone(),
            certificate_chain: self.device.chain(),
            device_nonce,
            readiness: self.device.readiness.clone(),
            sequence: now.max(self.last_begin.saturating_add(1)),
        };
        self.last_begin = begin.sequence;
        let (before, payload) = (Transcript::new(), begin.encode());
        let (transcript, request) = self.device.prove(self.suite, &before, payload, Step::Begin)?;
        self.session = Session::Begun { transcript, request: request.clone() };
        Ok(request)
    }

    /// The Begin that waits for its answer, to be sent again as it is.
    #[must_use]
    pub fn begin_again(&self) -> Option<SignedRequest> {
        match &self.session {
            Session::Begun { request, .. } => Some(request.clone()),
            Session::Idle
            | Session::Trusted { .. }
            | Session::Delivering { .. }
            | Session::Loaded { .. } => None,
        }
    }

    /// Takes the answer to Begin, if the service proves that it is the acquirer's.
    pub fn accept_begin(
        &mut self,
        answer: Answer<'_>,
        now: u64,
    ) -> Result<ActivationName, TerminalError> {
        let Session::Begun { transcript, .. } = &self.session else {
            return Err(TerminalError::OutOfStep);
        };
        let message = BeginAnswer::parse(answer.payload)?;
        let service = self.device.judge(&message, now)?;
        let transcript = transcript.with(answer.payload);
        let (begun, signed) = (transcript.hash(), (&transcript, Step::Begin));
        self.device.verify(self.suite, service, &begun, signed, answer.proof)?;
        if message.expires_at_seconds <= now {
            return Err(TerminalError::Expired);
        }
        let activation = message.activation;
        self.activation = Some(activation.clone());
        self.session = Session::Trusted { transcript, activation: activation.clone(), service };
        Ok(activation)
    }

    /// Asks for the keys. Asked again before the answer came, the same bytes.
    pub fn deliver(&mut self) -> Result<SignedRequest, TerminalError> {
        if let Session::Delivering { request, .. } = &self.session {
            return Ok(request.clone());
        }
        let Session::Trusted { transcript, activation, service } = &self.session else {
            return Err(TerminalError::OutOfStep);
        };
        let ephemeral = match service {
            Service::Certified(_) => Some(EphemeralKey::generate()?),
            Service::MasterKey => None,
        };
        let deliver = Deliver {
            activation: activation.clone(),
            device_ephemeral: ephemeral.as_ref().map(EphemeralKey::public),
        };
        let payload = deliver.encode();
        let (_, request) = self.device.prove(self.suite, transcript, payload, Step::Deliver)?;
        self.session = Session::Delivering {
            transcript: transcript.clone(),
            activation: activation.clone(),
            service: *service,
            ephemeral,
            request: request.clone(),
        };
        Ok(request)
    }

    /// Takes the keys: verifies the answer, agrees, opens each block, checks each check value and
    /// loads the registers. The keys do not serve before the service confirmed.
    ///
    /// A proven answer whose blocks do not open ends the session, for an ephemeral key is used up.
    pub fn accept_keys(&mut self, answer: Answer<'_>) -> Result<Vec<LoadedKey>, TerminalError> {
        let Session::Delivering { transcript, activation, service, request, .. } = &self.session
        else {
            return Err(TerminalError::OutOfStep);
        };
        let begun = transcript.hash();
        let asked = transcript.with(&request.payload);
        let answered = asked.with(answer.payload);
        let signed = (&answered, Step::Deliver);
        self.device.verify(self.suite, *service, &begun, signed, answer.proof)?;
        let message = DeliverAnswer::parse(answer.payload)?;
        if message.activation != *activation {
            return Err(TerminalError::ActivationOther);
        }
        let Session::Delivering { activation, ephemeral, .. } =
            mem::replace(&mut self.session, Session::Idle)
        else {
            return Err(TerminalError::OutOfStep);
        };
        let agreed = self.session_keys(&begun, &asked, ephemeral, message.service_ephemeral)?;
        let delivered = Delivered::open(self.suite, &agreed.key_block_protection, &message.keys)?;
        let confirm = Confirm { activation: activation.clone(), keys: delivered.confirmed() };
        let payload = confirm.encode();
        let transcript = answered.with(&payload);
        let message = (Role::Terminal, Step::Confirm);
        let mac = confirmation::mac(&agreed.confirm_terminal, message, &transcript);
        let Delivered { engine, slots, loaded } = delivered;
        self.session = Session::Loaded {
            transcript,
            activation,
            engine,
            slots,
            confirm_service: agreed.confirm_service,
            request: ConfirmRequest { payload, mac },
        };
        Ok(loaded)
    }

    /// The keys of the session: agreed, or from the master key.
    fn session_keys(
        &self,
        begun: &[u8; 32],
        asked: &Transcript,
        ephemeral: Option<EphemeralKey>,
        service_ephemeral: Option<Point>,
    ) -> Result<SessionKeys, TerminalError> {
        match (&self.device.credential, ephemeral, service_ephemeral) {
            (Credential::Certificate(_), Some(ephemeral), Some(service_ephemeral)) => {
                let device_ephemeral = ephemeral.public();
                let agreement = Agreement {
                    suite: self.suite,
                    transcript_hash: &asked.hash(),
                    device_ephemeral: &device_ephemeral,
                    service_ephemeral: &service_ephemeral,
                };
                Ok(agreement.derive(ephemeral.agree(&service_ephemeral)))
            }
            (Credential::MasterKey(key), None, None) => {
                Ok(MasterKey::new(key, self.suite)?.session_keys(begun))
            }
            _ => Err(PayloadInvalid { field: "service_ephemeral" }.into()),
        }
    }

    /// Says that every key arrived. Asked again before the answer came, the same bytes.
    pub fn confirm(&self) -> Result<ConfirmRequest, TerminalError> {
        match &self.session {
            Session::Loaded { request, .. } => Ok(request.clone()),
            Session::Idle
            | Session::Begun { .. }
            | Session::Trusted { .. }
            | Session::Delivering { .. } => Err(TerminalError::OutOfStep),
        }
    }

    /// Takes the service's confirmation; from here on the new keys serve, and the old are gone.
    pub fn accept_confirmation(&mut self, answer: Answer<'_>) -> Result<(), TerminalError> {
        let Session::Loaded { transcript, activation, confirm_service, .. } = &self.session else {
            return Err(TerminalError::OutOfStep);
        };
        let transcript = transcript.with(answer.payload);
        let message = (Role::Service, Step::Confirm);
        confirmation::verify(confirm_service, message, &transcript, answer.proof)?;
        if ConfirmAnswer::parse(answer.payload)?.activation != *activation {
            return Err(TerminalError::ActivationOther);
        }
        // A device that was registered anew begins a new count of versions, and other limits.
        if self.parameters_of.as_deref() != Some(activation.terminal_id()) {
            (self.parameters, self.parameters_of) = (None, None);
        }
        let Session::Loaded { engine, slots, .. } = mem::replace(&mut self.session, Session::Idle)
        else {
            return Err(TerminalError::OutOfStep);
        };
        (self.engine, self.slots) = (Some(engine), slots);
        self.exchange = None;
        self.tests_made = 0;
        Ok(())
    }

    /// The activation that the service last named.
    #[must_use]
    pub fn activation(&self) -> Option<&ActivationName> {
        self.activation.as_ref()
    }
}

/// Opens the block of an initial key and loads the registers from it.
pub(super) fn load<U: WrappingUsage>(
    suite: Suite,
    protection: &Key<U>,
    delivered: &DeliveredKey,
) -> Result<(Engine, LoadedKey), TerminalError> {
    let slot = delivered.slot;
    let refused = TerminalError::KeyBlock { slot };
    let opened = keyblock::unwrap(protection, &delivered.key_block).map_err(|_| refused)?;
    if slot != 0 || !describes(suite, protection, &opened, delivered) {
        return Err(refused);
    }
    let Unwrapped { algorithm, material, .. } = opened;
    let id = &delivered.initial_key_id;
    let engine = match suite.dukpt() {
        Dukpt::Aes128 => {
            let id = AesInitialKeyId::parse(id).map_err(|_| refused)?;
            Engine::load_aes(&material, id)
        }
        Dukpt::Tdes2 => {
            let id = TdesInitialKeyId::parse(id).map_err(|_| refused)?;
            Engine::load_tdes(&material, id)
        }
    };
    let key = Key::<InitialDukpt>::from_material(algorithm, material).map_err(|_| refused)?;
    let check_value = key.check_value();
    if check_value.bytes() != delivered.check_value {
        return Err(TerminalError::CheckValue { slot });
    }
    let loaded = LoadedKey { slot, check_value, initial_key_id: id.clone() };
    Ok((engine.ok_or(refused)?, loaded))
}

/// Whether the authenticated header says what the delivery says: an initial DUKPT key (`B1`) of the
/// suite's algorithm that derives (`X`) and never leaves (`N`), with the same id in `IK` or `KS`.
fn describes<U: WrappingUsage>(
    suite: Suite,
    protection: &Key<U>,
    opened: &Unwrapped,
    delivered: &DeliveredKey,
) -> bool {
    let id_block = match suite.dukpt() {
        Dukpt::Aes128 => *b"IK",
        Dukpt::Tdes2 => *b"KS",
    };
    let id = data_encoding::HEXUPPER.encode(&delivered.initial_key_id);
    let header = &opened.header;
    Version::under(protection.algorithm()) == Some(header.version)
        && header.usage == *b"B1"
        && delivered.usage == header.usage
        && header.mode == b'X'
        && header.exportability == b'N'
        && opened.algorithm == suite.initial_key_algorithm()
        && header.find(id_block) == Some(id.as_str())
}
