//! What a backend and an officer call, in this library's types where there are any: the generated
//! ones stay on this floor.
//!
//! Values that may be wrong, such as a PAN or a KSN, go as they are: it is the service's to refuse
//! them.

use super::{Client, ClientError, request_id};
use crate::command::Direction;
use crate::grpc::proto;
use crate::grpc::vocabulary::from_algorithm;
use crate::key::Algorithm;
use crate::mac::{MacAlgorithm, Padding};
use crate::pin::PinBlockFormat;
use crate::vault::KeyAttributes;

/// The key of one side of a call.
#[derive(Clone, Copy)]
pub enum KeyCall<'a> {
    /// The transaction key of a KSN.
    Dukpt {
        /// The id in `keys/{id}` of the base derivation key.
        base_derivation_key: &'a str,
        /// The key serial number.
        ksn: &'a [u8],
        /// The algorithm of the working key, for AES; none for that of the base derivation key.
        algorithm: Option<Algorithm>,
    },
    /// The id in `keys/{id}` of a static key.
    Static(&'a str),
}

/// A key to be imported.
#[derive(Clone, Copy)]
pub struct ImportCall<'a> {
    /// The id in `keys/{id}` that it is to have.
    pub id: &'a str,
    /// The key block.
    pub key_block: &'a str,
    /// The id in `keys/{id}` of the key that the block is under.
    pub wrapping_key: &'a str,
    /// What the key may do beyond its usage: formats, lengths, whether it is open.
    pub attributes: &'a KeyAttributes,
}

/// A MAC to be made or verified.
#[derive(Clone, Copy)]
pub struct MacCall<'a> {
    /// The key.
    pub key: KeyCall<'a>,
    /// Whose message it is, for DUKPT keys.
    pub direction: Option<Direction>,
    /// The algorithm, with its padding.
    pub algorithm: MacAlgorithm,
    /// The message.
    pub message: &'a [u8],
}

/// A PIN block to be translated.
#[derive(Clone, Copy)]
pub struct PinCall<'a> {
    /// The key that it is under.
    pub source: KeyCall<'a>,
    /// The format that it has.
    pub source_format: PinBlockFormat,
    /// The PIN block.
    pub pin_block: &'a [u8],
    /// The key that it shall be under.
    pub destination: KeyCall<'a>,
    /// The format that it shall have.
    pub destination_format: PinBlockFormat,
    /// The PAN.
    pub pan: &'a str,
}

/// What the service says of a key block's header.
#[derive(Clone, Debug)]
pub struct InspectedHeader {
    /// Its fields in their order: name and characters.
    pub fields: Vec<(String, String)>,
    /// Whether the service would consider a block with this header for import.
    pub importable: bool,
}

impl Client {
    /// Imports a key; returns its check value.
    pub async fn import_key(&self, call: ImportCall<'_>) -> Result<Vec<u8>, ClientError> {
        let request = proto::ImportKeyRequest {
            request_id: request_id(),
            key_id: call.id.to_owned(),
            key_block: call.key_block.to_owned(),
            wrapping_key: key_name(call.wrapping_key),
            exportability: proto::Exportability::Unspecified.into(),
            attributes: Some(to_attributes(call.attributes)),
            ..proto::ImportKeyRequest::default()
        };
        let imported = self.keys().import_key(request).await?.into_inner();
        Ok(imported.key.ok_or(ClientError::Incomplete("key"))?.check_value)
    }

    /// Takes an active key out of use and destroys it.
    pub async fn destroy_key(&self, id: &str) -> Result<(), ClientError> {
        for state in [proto::KeyState::Deactivated, proto::KeyState::Destroyed] {
            let request = proto::SetKeyStateRequest {
                request_id: request_id(),
                name: key_name(id),
                state: state.into(),
                ..proto::SetKeyStateRequest::default()
            };
            self.keys().set_key_state(request).await?;
        }
        Ok(())
    }

    /// Lists all terminals that a request asks for, page by page; its own page is not looked at.
    pub async fn list_terminals(
        &self,
        wanted: proto::ListTerminalsRequest,
    ) -> Result<Vec<proto::Terminal>, ClientError> {
        let mut listed = Vec::new();
        let mut page_token = String::new();
        loop {
            let request =
                proto::ListTerminalsRequest { page_size: 100, page_token, ..wanted.clone() };
            let page = self.terminals().list_terminals(request).await?.into_inner();
            listed.extend(page.terminals);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(listed);
            }
        }
    }

    /// Has the header of a key block explained.
    pub async fn inspect_key_block(&self, key_block: &str) -> Result<InspectedHeader, ClientError> {
        let request = proto::InspectKeyBlockRequest { key_block: key_block.to_owned() };
        let answer = self.keys().inspect_key_block(request).await?.into_inner();
        let fields = answer.fields.into_iter().map(|row| (row.field, row.value)).collect();
        Ok(InspectedHeader { fields, importable: answer.importable })
    }

    /// Makes a MAC of so many octets.
    pub async fn generate_mac(
        &self,
        call: MacCall<'_>,
        len_bytes: u32,
    ) -> Result<Vec<u8>, ClientError> {
        let (algorithm, padding) = from_mac_algorithm(call.algorithm);
        let request = proto::GenerateMacRequest {
            key: Some(from_key(call.key)),
            direction: from_direction(call.direction).into(),
            algorithm: algorithm.into(),
            padding: padding.into(),
            message: call.message.to_vec(),
            mac_length_bytes: len_bytes,
            terminal: String::new(),
        };
        Ok(self.macs().generate_mac(request).await?.into_inner().mac)
    }

    /// Verifies a MAC.
    pub async fn verify_mac(&self, call: MacCall<'_>, mac: &[u8]) -> Result<(), ClientError> {
        let (algorithm, padding) = from_mac_algorithm(call.algorithm);
        let request = proto::VerifyMacRequest {
            key: Some(from_key(call.key)),
            direction: from_direction(call.direction).into(),
            algorithm: algorithm.into(),
            padding: padding.into(),
            message: call.message.to_vec(),
            mac: mac.to_vec(),
            terminal: String::new(),
        };
        self.macs().verify_mac(request).await?;
        Ok(())
    }

    /// Translates a PIN block.
    pub async fn translate_pin(&self, call: PinCall<'_>) -> Result<Vec<u8>, ClientError> {
        let request = proto::TranslatePinRequest {
            source: Some(from_key(call.source)),
            source_format: from_format(call.source_format).into(),
            pin_block: call.pin_block.to_vec(),
            destination: Some(from_key(call.destination)),
            destination_format: from_format(call.destination_format).into(),
            pan: call.pan.to_owned(),
            pan_form: proto::PanForm::Full.into(),
            terminal: String::new(),
        };
        Ok(self.pins().translate_pin(request).await?.into_inner().pin_block)
    }
}

fn key_name(id: &str) -> String {
    format!("keys/{id}")
}

fn from_key(key: KeyCall<'_>) -> proto::WorkingKey {
    let key = match key {
        KeyCall::Dukpt { base_derivation_key, ksn, algorithm } => {
            proto::working_key::Key::Dukpt(proto::DukptKey {
                base_derivation_key: key_name(base_derivation_key),
                ksn: ksn.to_vec(),
                algorithm: algorithm.map(from_algorithm).unwrap_or_default().into(),
            })
        }
        KeyCall::Static(id) => proto::working_key::Key::StaticKey(key_name(id)),
    };
    proto::WorkingKey { key: Some(key) }
}

fn to_attributes(attributes: &KeyAttributes) -> proto::KeyAttributes {
    let formats = |numbers: &[u8]| {
        let known = |number: &u8| FORMATS.into_iter().find(|(_, other)| other == number);
        numbers.iter().filter_map(known).map(|(format, _)| format.into()).collect()
    };
    proto::KeyAttributes {
        pin_formats_in: formats(&attributes.pin_formats_in),
        pin_formats_out: formats(&attributes.pin_formats_out),
        mac_length_min_bytes: attributes.mac_length_min_bytes.into(),
        mac_message_length_bytes: attributes.mac_message_length_bytes,
        open: attributes.open,
        ..proto::KeyAttributes::default()
    }
}

const FORMATS: [(proto::PinBlockFormat, u8); 4] = [
    (proto::PinBlockFormat::Iso0, 0),
    (proto::PinBlockFormat::Iso1, 1),
    (proto::PinBlockFormat::Iso3, 3),
    (proto::PinBlockFormat::Iso4, 4),
];

/// The wire has no word for format 2, which belongs to the chip: what is asked for with it is
/// refused.
const fn from_format(format: PinBlockFormat) -> proto::PinBlockFormat {
    match format {
        PinBlockFormat::Iso0 => proto::PinBlockFormat::Iso0,
        PinBlockFormat::Iso1 => proto::PinBlockFormat::Iso1,
        PinBlockFormat::Iso2 => proto::PinBlockFormat::Unspecified,
        PinBlockFormat::Iso3 => proto::PinBlockFormat::Iso3,
        PinBlockFormat::Iso4 => proto::PinBlockFormat::Iso4,
    }
}

const fn from_direction(direction: Option<Direction>) -> proto::Direction {
    match direction {
        None => proto::Direction::Unspecified,
        Some(Direction::Both) => proto::Direction::Both,
        Some(Direction::Request) => proto::Direction::Request,
        Some(Direction::Response) => proto::Direction::Response,
    }
}

const fn from_mac_algorithm(
    algorithm: MacAlgorithm,
) -> (proto::MacAlgorithm, proto::PaddingMethod) {
    use proto::MacAlgorithm as Word;
    let none = proto::PaddingMethod::Unspecified;
    match algorithm {
        MacAlgorithm::AesCmac => (Word::AesCmac, none),
        MacAlgorithm::HmacSha256 => (Word::HmacSha256, none),
        MacAlgorithm::HmacSha384 => (Word::HmacSha384, none),
        MacAlgorithm::HmacSha512 => (Word::HmacSha512, none),
        MacAlgorithm::Iso9797Alg1(padding) => (Word::Iso97971Algorithm1, from_padding(padding)),
        MacAlgorithm::Iso9797Alg3(padding) => (Word::Iso97971Algorithm3, from_padding(padding)),
        MacAlgorithm::TdesCmac => (Word::TdesCmac, none),
    }
}

const fn from_padding(padding: Padding) -> proto::PaddingMethod {
    match padding {
        Padding::Method1 => proto::PaddingMethod::PaddingMethod1,
        Padding::Method2 => proto::PaddingMethod::PaddingMethod2,
        Padding::Method3 => proto::PaddingMethod::PaddingMethod3,
    }
}
