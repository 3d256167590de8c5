//! Key blocks, by importing them and comparing check values; headers, by having them explained.

use serde_json::json;

use super::super::file::hex;
use super::super::{Answer, Outcome, Stop, Vector};
use super::keys::{Keys, New, expect, is_strong};
use crate::key::usage::{DataBoth, KeyBlockProtection};
use crate::key::{Algorithm, Key, Material};
use crate::keyblock;
use crate::vault::{Exportability, KeyAttributes, KeyUsage, ModeOfUse};

/// Runs `parse_header`, `unwrap` and `wrap`.
pub(super) async fn run(keys: &mut Keys<'_>, vector: &Vector) -> Outcome {
    match vector.operation()? {
        "parse_header" => parse_header(keys, vector).await,
        "unwrap" => {
            let expected = vector.expected()?.get("key").and_then(|key| key.as_str());
            import(keys, vector, vector.text("key_block")?, expected).await
        }
        _ => {
            if vector.expects_refusal() {
                let why = "of wrap with a header or key that is refused: there is no block";
                return Err(Stop::Unexpressed(why.to_owned()));
            }
            import(keys, vector, vector.text("expect")?, Some(vector.text("key")?)).await
        }
    }
}

/// Imports a block under the vector's protection key; the check value tells which key it held.
async fn import(
    keys: &mut Keys<'_>,
    vector: &Vector,
    block: &str,
    expected_key: Option<&str>,
) -> Outcome {
    let kbpk = vector.bytes("kbpk")?;
    let is_tdes = block.starts_with(['A', 'B', 'C']);
    let letter = if is_tdes { b'T' } else { b'A' };
    let new = New {
        usage: KeyUsage::KeyBlockProtection,
        letter,
        key: &kbpk,
        attributes: KeyAttributes::default(),
    };
    let protection = keys.import(new).await?;
    let forbidden = forbidden(letter, &kbpk, block);
    let attributes = KeyAttributes::default();
    let imported = keys.import_block(block, &protection.id, &attributes).await;
    let shown = expect(forbidden, imported)?.check_value;
    if expected_key.and_then(|key| check_value(block, key)).is_some_and(|value| value == shown) {
        return Ok(Answer::value(vector.expected()?.clone()));
    }
    Ok(Answer::text(&format!("a key with check value {}", hex(&shown))))
}

/// The check value of an expected key, whose algorithm is the one of its block's header.
fn check_value(block: &str, key: &str) -> Option<Vec<u8>> {
    let key = data_encoding::HEXUPPER_PERMISSIVE.decode(key.as_bytes()).ok()?;
    let algorithm = Algorithm::from_header(*block.as_bytes().get(ALGORITHM_AT)?, key.len())?;
    // The type parameter is of no consequence: a check value is of the algorithm.
    let key = Key::<DataBoth>::from_material(algorithm, Material::copied_from(&key)).ok()?;
    Some(key.check_value().bytes().to_vec())
}

/// Where a header says its key's algorithm.
const ALGORITHM_AT: usize = 7;

/// What the service must answer where its rules of import forbid a block that is otherwise right:
/// versions A, C and E, forms that are not canonical, usages that it does not know, weak keys, keys
/// stronger than what they are under.
fn forbidden(letter: u8, kbpk: &[u8], block: &str) -> Option<&'static str> {
    const REJECTED: Option<&str> = Some("KEY_BLOCK_REJECTED");
    let algorithm = Algorithm::from_header(letter, kbpk.len())?;
    let protection =
        Key::<KeyBlockProtection>::from_material(algorithm, Material::copied_from(kbpk)).ok()?;
    let Ok(opened) = keyblock::unwrap(&protection, block) else { return REJECTED };
    if opened.algorithm.strength_bits() > algorithm.strength_bits() {
        return Some("WRAPPING_KEY_TOO_WEAK");
    }
    let header = &opened.header;
    let mode = ModeOfUse::from_letter(header.mode);
    let fits = KeyUsage::from_code(header.usage).is_some_and(|usage| {
        usage != KeyUsage::InitialDukpt
            && usage.permits(opened.algorithm)
            && mode.is_some_and(|mode| usage.modes().contains(&mode))
    });
    let known = fits && Exportability::from_letter(header.exportability).is_some();
    if known && is_strong(opened.algorithm, opened.material) { None } else { REJECTED }
}

async fn parse_header(keys: &Keys<'_>, vector: &Vector) -> Outcome {
    let header = vector.text("header")?;
    let inspected = expect(None, keys.service.client.inspect_key_block(header).await)?;
    let field = |name: &str| {
        let found = inspected.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let optional: Vec<_> = inspected
        .fields
        .iter()
        .filter(|(field, _)| field == "optional block")
        .map(|(_, value)| {
            value.split_once(' ').map_or(json!(value), |(id, data)| json!([id, data]))
        })
        .collect();
    let mut fields = json!({
        "version_id": field("version"),
        "key_usage": field("usage"),
        "algorithm": field("algorithm"),
        "mode_of_use": field("mode of use"),
        "key_version": field("key version"),
        "exportability": field("exportability"),
        "optional_blocks": optional,
        "key_context": field("context"),
        "reserved": format!("{}{}", field("context"), field("reserved")),
    });
    // The service explains what a header says, not where it ends.
    if let Some(len) = vector.expected()?.get("header_length") {
        fields["header_length"] = len.clone();
    }
    Ok(Answer::value(fields))
}
