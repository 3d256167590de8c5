//! What officers are asked to approve, in readable fields.
//!
//! The bytes are read by the protocol's own description, so every request that can wait for
//! approval is explained, none specially. What this release does not know is not left out: then
//! nothing is explained, and so nothing should be approved with it.

use std::collections::HashMap;

use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, Duration, FieldDescriptorProto, FileDescriptorSet, Timestamp};

use crate::crypto::digest;
use crate::grpc::DESCRIPTORS;

/// How deep messages may stand in each other.
const DEPTH_MAX: u8 = 8;

/// The longest bytes that are shown as they are; of longer ones, such as certificates, the hash is.
const SHOWN_LEN_BYTES_MAX: usize = 64;

/// A request that waits for approval, as this side reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// What an approval of it has to name, computed here: SHA-256 of the rpc's name, a zero octet
    /// and the request.
    pub digest: [u8; 32],
    /// Its fields in their order: path and value. One that is absent has its default.
    pub fields: Vec<(String, String)>,
}

/// Explains the request of an rpc; none where this release does not know all of it.
#[must_use]
pub fn explain_request(method: &str, request: &[u8]) -> Option<Explained> {
    let files = FileDescriptorSet::decode(DESCRIPTORS).ok()?;
    let types = Types::of(&files);
    let mut fields = Vec::new();
    let name = format!(".firstkey.v1.{method}Request");
    types.read(&name, request, "", DEPTH_MAX, &mut fields)?;
    Some(Explained { digest: request_digest(method, request), fields })
}

/// What officers approve: SHA-256 of the rpc's name, a zero octet and the serialized request.
#[must_use]
pub fn request_digest(method: &str, request: &[u8]) -> [u8; 32] {
    digest::sha256(&[method.as_bytes(), &[0], request])
}

/// The types of the protocol by their full names, which begin with a dot.
struct Types<'a> {
    messages: HashMap<String, &'a DescriptorProto>,
    enums: HashMap<String, HashMap<i32, &'a str>>,
}

impl<'a> Types<'a> {
    fn of(files: &'a FileDescriptorSet) -> Self {
        let mut types = Self { messages: HashMap::new(), enums: HashMap::new() };
        for file in &files.file {
            let package = file.package();
            for message in &file.message_type {
                types.messages.insert(format!(".{package}.{}", message.name()), message);
            }
            for one in &file.enum_type {
                let words = one.value.iter().map(|value| (value.number(), value.name()));
                types.enums.insert(format!(".{package}.{}", one.name()), words.collect());
            }
        }
        types
    }

    /// Reads a message into rows, each under its path.
    fn read(
        &self,
        name: &str,
        mut bytes: &[u8],
        path: &str,
        depth: u8,
        rows: &mut Vec<(String, String)>,
    ) -> Option<()> {
        let message = self.messages.get(name)?;
        let mut counts: HashMap<u32, usize> = HashMap::new();
        while !bytes.is_empty() {
            let (number, wire) = decode_key(&mut bytes).ok()?;
            let known = |field: &&FieldDescriptorProto| u32::try_from(field.number()) == Ok(number);
            let field = message.field.iter().find(known)?;
            let mut next = || {
                let index = counts.entry(number).or_default();
                let at = path_of(path, field, *index);
                *index += 1;
                at
            };
            match wire {
                WireType::Varint => {
                    let value = decode_varint(&mut bytes).ok()?;
                    rows.push((next(), self.scalar(field, value)?));
                }
                WireType::LengthDelimited => {
                    let len = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
                    let (mut content, rest) = bytes.split_at_checked(len)?;
                    bytes = rest;
                    match field.r#type() {
                        Type::Message if !is_time(field) => {
                            let at = next();
                            let depth = depth.checked_sub(1)?;
                            self.read(field.type_name(), content, &at, depth, rows)?;
                        }
                        Type::Bytes | Type::Message | Type::String => {
                            rows.push((next(), text_of(field, content)?));
                        }
                        // Numbers and enums that are repeated stand packed.
                        _ => {
                            while !content.is_empty() {
                                let value = decode_varint(&mut content).ok()?;
                                rows.push((next(), self.scalar(field, value)?));
                            }
                        }
                    }
                }
                WireType::EndGroup
                | WireType::SixtyFourBit
                | WireType::StartGroup
                | WireType::ThirtyTwoBit => return None,
            }
        }
        Some(())
    }

    fn scalar(&self, field: &FieldDescriptorProto, value: u64) -> Option<String> {
        match field.r#type() {
            Type::Bool => Some((value != 0).to_string()),
            Type::Enum => {
                let words = self.enums.get(field.type_name())?;
                Some((*words.get(&i32::try_from(value).ok()?)?).to_owned())
            }
            Type::Uint32 | Type::Uint64 => Some(value.to_string()),
            _ => None,
        }
    }
}

/// Where a field stands: `attributes.pin_formats_in[0]`.
fn path_of(above: &str, field: &FieldDescriptorProto, index: usize) -> String {
    let dot = if above.is_empty() { "" } else { "." };
    let at = match field.label() {
        Label::Repeated => format!("[{index}]"),
        Label::Optional | Label::Required => String::new(),
    };
    format!("{above}{dot}{}{at}", field.name())
}

const TIMESTAMP: &str = ".google.protobuf.Timestamp";
const DURATION: &str = ".google.protobuf.Duration";

/// Whether a message is a time, which is shown in one line.
fn is_time(field: &FieldDescriptorProto) -> bool {
    [TIMESTAMP, DURATION].contains(&field.type_name())
}

/// The content of a field that is shown in one line.
fn text_of(field: &FieldDescriptorProto, content: &[u8]) -> Option<String> {
    match field.r#type() {
        Type::Bytes => Some(bytes_text(content)),
        Type::String => Some(quoted(std::str::from_utf8(content).ok()?)),
        Type::Message if field.type_name() == DURATION => {
            Some(Duration::decode(content).ok()?.to_string())
        }
        Type::Message => Some(Timestamp::decode(content).ok()?.to_string()),
        _ => None,
    }
}

/// Text in which nothing can hide or steer the screen it is shown on.
fn quoted(text: &str) -> String {
    let plain = text.bytes().all(|octet| (b' '..=b'~').contains(&octet));
    if plain && !text.is_empty() { text.to_owned() } else { format!("{text:?}") }
}

fn bytes_text(bytes: &[u8]) -> String {
    if bytes.len() <= SHOWN_LEN_BYTES_MAX {
        return data_encoding::HEXUPPER.encode(bytes);
    }
    let hash = data_encoding::HEXUPPER.encode(&digest::sha256(&[bytes]));
    format!("{} bytes, SHA-256 {hash}", bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::approvals::MARKS;
    use crate::grpc::proto;

    fn explained(method: &str, request: &impl prost::Message) -> Option<Vec<(String, String)>> {
        Some(explain_request(method, &request.encode_to_vec())?.fields)
    }

    fn rows(rows: &[(&str, &str)]) -> Vec<(String, String)> {
        rows.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_request_is_shown_field_by_field() {
        let request = proto::CreateKeyRequest {
            request_id: "7".into(),
            key_id: "zone\u{202e}".into(),
            usage: proto::KeyUsage::PinEncryption.into(),
            attributes: Some(proto::KeyAttributes {
                pin_formats_in: vec![1, 4],
                key_set_id: vec![0x12, 0xAB],
                device_cap: 70_000,
                open: true,
                expire_time: Some(Timestamp { seconds: 1_900_000_000, nanos: 0 }),
                ..proto::KeyAttributes::default()
            }),
            ..proto::CreateKeyRequest::default()
        };
        let expected = [
            ("request_id", "7"),
            ("key_id", "\"zone\\u{202e}\""),
            ("usage", "KEY_USAGE_PIN_ENCRYPTION"),
            ("attributes.pin_formats_in[0]", "PIN_BLOCK_FORMAT_ISO_0"),
            ("attributes.pin_formats_in[1]", "PIN_BLOCK_FORMAT_ISO_4"),
            ("attributes.key_set_id", "12AB"),
            ("attributes.device_cap", "70000"),
            ("attributes.open", "true"),
            ("attributes.expire_time", "2030-03-17T17:46:40Z"),
        ];
        let mut shown = explained("CreateKey", &request).unwrap();
        shown.sort();
        let mut expected = rows(&expected);
        expected.sort();
        assert_eq!(shown, expected);
    }

    #[test]
    fn lists_of_messages_and_long_bytes_are_shown() {
        let request = proto::ImportCertificateRequest {
            certificate_chain: vec![vec![7; 65], vec![7; 64]],
            ..proto::ImportCertificateRequest::default()
        };
        let shown = explained("ImportCertificate", &request).unwrap();
        assert!(shown[0].1.starts_with("65 bytes, SHA-256 "), "{}", shown[0].1);
        assert_eq!(shown[1], ("certificate_chain[1]".to_owned(), "07".repeat(64)));
        let grant = |key: &str| proto::Grant { key: key.into(), ..proto::Grant::default() };
        let policy = proto::Policy { grants: vec![grant("a"), grant("b")], ..Default::default() };
        let request = proto::SetPolicyRequest { policy: Some(policy), ..Default::default() };
        let expected = rows(&[("policy.grants[0].key", "a"), ("policy.grants[1].key", "b")]);
        assert_eq!(explained("SetPolicy", &request).unwrap(), expected);
    }

    #[test]
    fn each_marked_request_is_known_and_what_is_not_known_is_not_explained() {
        for mark in MARKS {
            assert!(explain_request(mark.action.as_str(), &[]).is_some(), "{mark:?}");
        }
        assert!(explain_request("Nothing", &[]).is_none());
        let method = "ExportKey";
        // A field of number 1000; a number cut short; a length beyond the end; no UTF-8; a group.
        for unknown in [
            [0xC2, 0x3E, 0].as_slice(),
            &[0x20, 0x80],
            &[0x0A, 9, b'a'],
            &[0x0A, 1, 0xFF],
            &[0x0B],
            &[0x20, 99],
        ] {
            assert!(explain_request(method, unknown).is_none(), "{unknown:?}");
        }
    }

    #[test]
    fn the_digest_is_that_of_method_and_request() {
        let explained = explain_request("ExportKey", &[0x0A, 1, b'7']).unwrap();
        assert_eq!(explained.digest, digest::sha256(&[b"ExportKey\0\x0A\x017"]));
    }
}
