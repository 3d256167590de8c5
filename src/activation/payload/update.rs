//! The messages by which new keys travel under the update key of those that serve.

use prost::Message as _;

use super::keys::{DeliveredKey, check_slots};
use super::{
    ANSWER_LEN_BYTES_MAX, ActivationName, PAYLOAD_LEN_BYTES_MAX, Payload, PayloadInvalid, decode,
    exactly, required, wire,
};

/// Step update, from the terminal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Update {
    /// Drawn at random by the device.
    pub nonce: [u8; 32],
}

impl Payload for Update {
    fn encode(&self) -> Vec<u8> {
        wire::Update { nonce: self.nonce.to_vec() }.encode_to_vec()
    }

    fn parse(bytes: &[u8]) -> Result<Self, PayloadInvalid> {
        let message: wire::Update = decode(bytes, PAYLOAD_LEN_BYTES_MAX)?;
        Ok(Self { nonce: exactly(&message.nonce, "nonce")? })
    }
}

/// Answer to Update, from the service.
#[derive(Clone, Debug)]
pub struct UpdateAnswer {
    /// The activation that began with it.
    pub activation: ActivationName,
    /// The keys, 1 to 8, slots ascending.
    pub keys: Vec<DeliveredKey>,
}

impl Payload for UpdateAnswer {
    fn encode(&self) -> Vec<u8> {
        wire::UpdateAnswer {
            activation: self.activation.as_str().to_owned(),
            keys: self.keys.iter().map(DeliveredKey::to_wire).collect(),
        }
        .encode_to_vec()
    }

    fn parse(bytes: &[u8]) -> Result<Self, PayloadInvalid> {
        let message: wire::UpdateAnswer = decode(bytes, ANSWER_LEN_BYTES_MAX)?;
        let slots: Vec<u32> = message.keys.iter().map(|key| key.slot).collect();
        check_slots(&slots)?;
        Ok(Self {
            activation: required(ActivationName::new(&message.activation), "activation")?,
            keys: message.keys.iter().map(DeliveredKey::from_wire).collect::<Result<_, _>>()?,
        })
    }
}
