//! The messages by which keys travel and are confirmed.

use std::fmt;

use prost::Message as _;

use super::{
    ANSWER_LEN_BYTES_MAX, ActivationName, PAYLOAD_LEN_BYTES_MAX, Payload, PayloadInvalid, decode,
    exactly, required, wire,
};
use crate::crypto::ec::Point;

/// The most keys of one delivery.
const KEYS_MAX: usize = 8;

/// The highest slot of a terminal.
const SLOT_MAX: u32 = 15;

/// Step deliver, from the terminal.
#[derive(Clone, Debug)]
pub struct Deliver {
    /// The activation.
    pub activation: ActivationName,
    /// The device's ephemeral key; none from a terminal with a master key.
    pub device_ephemeral: Option<Point>,
}

impl Payload for Deliver {
    fn encode(&self) -> Vec<u8> {
        wire::Deliver {
            activation: self.activation.as_str().to_owned(),
            device_ephemeral: to_wire(self.device_ephemeral.as_ref()),
        }
        .encode_to_vec()
    }

    fn parse(bytes: &[u8]) -> Result<Self, PayloadInvalid> {
        let message: wire::Deliver = decode(bytes, PAYLOAD_LEN_BYTES_MAX)?;
        Ok(Self {
            activation: required(ActivationName::new(&message.activation), "activation")?,
            device_ephemeral: point(&message.device_ephemeral, "device_ephemeral")?,
        })
    }
}

/// Answer to Deliver, from the service.
#[derive(Clone, Debug)]
pub struct DeliverAnswer {
    /// The activation.
    pub activation: ActivationName,
    /// The service's ephemeral key; none to a terminal with a master key.
    pub service_ephemeral: Option<Point>,
    /// The keys, 1 to 8, slots ascending.
    pub keys: Vec<DeliveredKey>,
}

impl Payload for DeliverAnswer {
    fn encode(&self) -> Vec<u8> {
        wire::DeliverAnswer {
            activation: self.activation.as_str().to_owned(),
            service_ephemeral: to_wire(self.service_ephemeral.as_ref()),
            keys: self.keys.iter().map(DeliveredKey::to_wire).collect(),
        }
        .encode_to_vec()
    }

    fn parse(bytes: &[u8]) -> Result<Self, PayloadInvalid> {
        let message: wire::DeliverAnswer = decode(bytes, ANSWER_LEN_BYTES_MAX)?;
        let slots: Vec<u32> = message.keys.iter().map(|key| key.slot).collect();
        check_slots(&slots)?;
        Ok(Self {
            activation: required(ActivationName::new(&message.activation), "activation")?,
            service_ephemeral: point(&message.service_ephemeral, "service_ephemeral")?,
            keys: message.keys.iter().map(DeliveredKey::from_wire).collect::<Result<_, _>>()?,
        })
    }
}

/// A key on its way to the terminal.
#[derive(Clone, Eq, PartialEq)]
pub struct DeliveredKey {
    /// Where the terminal keeps it, 0 to 15; the initial DUKPT key goes to slot 0.
    pub slot: u32,
    /// Its usage as in the block's header (ANSI X9.143:2021, 6.3.2).
    pub usage: [u8; 2],
    /// The key block, under the agreed key block protection key.
    pub key_block: String,
    /// The id of an initial key, 8 bytes for AES and 10 for TDES; empty for other keys.
    pub initial_key_id: Vec<u8>,
    /// The check value, 3 bytes for TDES and 5 for AES.
    pub check_value: Vec<u8>,
}

impl DeliveredKey {
    pub(super) fn to_wire(&self) -> wire::DeliveredKey {
        wire::DeliveredKey {
            slot: self.slot,
            usage: self.usage.map(char::from).iter().collect(),
            key_block: self.key_block.clone(),
            initial_key_id: self.initial_key_id.clone(),
            check_value: self.check_value.clone(),
        }
    }

    pub(super) fn from_wire(key: &wire::DeliveredKey) -> Result<Self, PayloadInvalid> {
        let usage: [u8; 2] = exactly(key.usage.as_bytes(), "keys.usage")?;
        if !usage.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()) {
            return Err(PayloadInvalid { field: "keys.usage" });
        }
        let block = &key.key_block;
        if !(16..=1024).contains(&block.len()) || !super::printable(block, 1024) {
            return Err(PayloadInvalid { field: "keys.key_block" });
        }
        // Only an initial key has an id, and it always has one.
        let id_fits = match key.initial_key_id.len() {
            0 => usage != *b"B1",
            8 | 10 => usage == *b"B1",
            _ => false,
        };
        if !id_fits {
            return Err(PayloadInvalid { field: "keys.initial_key_id" });
        }
        check_value(&key.check_value)?;
        Ok(Self {
            slot: key.slot,
            usage,
            key_block: block.clone(),
            initial_key_id: key.initial_key_id.clone(),
            check_value: key.check_value.clone(),
        })
    }
}

impl fmt::Debug for DeliveredKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DeliveredKey(slot {})", self.slot)
    }
}

/// Step confirm, from the terminal: every key arrived.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Confirm {
    /// The activation.
    pub activation: ActivationName,
    /// What the terminal computed from each key it loaded, 1 to 8, slots ascending.
    pub keys: Vec<ConfirmedKey>,
}

/// A key that the terminal loaded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfirmedKey {
    /// Its slot, 0 to 15.
    pub slot: u32,
    /// Its check value, 3 or 5 bytes.
    pub check_value: Vec<u8>,
}

impl Payload for Confirm {
    fn encode(&self) -> Vec<u8> {
        let keys = self
            .keys
            .iter()
            .map(|key| wire::ConfirmedKey { slot: key.slot, check_value: key.check_value.clone() });
        wire::Confirm { activation: self.activation.as_str().to_owned(), keys: keys.collect() }
            .encode_to_vec()
    }

    fn parse(bytes: &[u8]) -> Result<Self, PayloadInvalid> {
        let message: wire::Confirm = decode(bytes, PAYLOAD_LEN_BYTES_MAX)?;
        let slots: Vec<u32> = message.keys.iter().map(|key| key.slot).collect();
        check_slots(&slots)?;
        let mut keys = Vec::with_capacity(message.keys.len());
        for key in message.keys {
            check_value(&key.check_value)?;
            keys.push(ConfirmedKey { slot: key.slot, check_value: key.check_value });
        }
        let activation = required(ActivationName::new(&message.activation), "activation")?;
        Ok(Self { activation, keys })
    }
}

/// Answer to Confirm, from the service: the keys serve.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfirmAnswer {
    /// The activation.
    pub activation: ActivationName,
}

impl Payload for ConfirmAnswer {
    fn encode(&self) -> Vec<u8> {
        wire::ConfirmAnswer {
            activation: self.activation.as_str().to_owned(),
            status: wire::KeyStatus::Serving.into(),
        }
        .encode_to_vec()
    }

    fn parse(bytes: &[u8]) -> Result<Self, PayloadInvalid> {
        let message: wire::ConfirmAnswer = decode(bytes, ANSWER_LEN_BYTES_MAX)?;
        match message.status() {
            wire::KeyStatus::Serving => {}
            wire::KeyStatus::Unspecified => return Err(PayloadInvalid { field: "status" }),
        }
        Ok(Self { activation: required(ActivationName::new(&message.activation), "activation")? })
    }
}

fn to_wire(point: Option<&Point>) -> Vec<u8> {
    point.map(|point| point.bytes().to_vec()).unwrap_or_default()
}

fn point(bytes: &[u8], field: &'static str) -> Result<Option<Point>, PayloadInvalid> {
    if bytes.is_empty() {
        return Ok(None);
    }
    Point::parse(bytes).map(Some).map_err(|_| PayloadInvalid { field })
}

/// Slots must ascend, so that the same keys have one form.
pub(super) fn check_slots(slots: &[u32]) -> Result<(), PayloadInvalid> {
    if !(1..=KEYS_MAX).contains(&slots.len()) {
        return Err(PayloadInvalid { field: "keys" });
    }
    let ascending = slots.windows(2).all(|pair| pair[0] < pair[1]);
    if !ascending || slots.iter().any(|slot| *slot > SLOT_MAX) {
        return Err(PayloadInvalid { field: "keys.slot" });
    }
    Ok(())
}

fn check_value(bytes: &[u8]) -> Result<(), PayloadInvalid> {
    match bytes.len() {
        3 | 5 => Ok(()),
        _ => Err(PayloadInvalid { field: "keys.check_value" }),
    }
}
