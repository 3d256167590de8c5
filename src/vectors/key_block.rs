//! Key blocks of every version, with given padding.

use serde_json::{Value, json};

use super::file::hex;
use super::{Answer, Outcome, Stop, Vector};
use crate::keyblock::Header;
use crate::keyblock::for_vectors::{Opened, unwrap_any, wrap_any};

/// Runs `parse_header`, `unwrap` and `wrap`.
pub(super) fn run(vector: &Vector) -> Outcome {
    match vector.operation()? {
        "parse_header" => {
            let (header, len) = Header::parse(vector.text("header")?)?;
            let mut fields = fields_of(&header);
            fields["header_length"] = json!(len);
            Ok(Answer::value(fields))
        }
        "unwrap" => {
            let Opened { header, key, padding } =
                unwrap_any(&vector.bytes("kbpk")?, vector.text("key_block")?)?;
            let mut fields = fields_of(&header);
            // Exposed to be compared with a published value.
            fields["key"] = json!(hex(key.expose_bytes()));
            fields["padding"] = json!(hex(padding.expose_bytes()));
            Ok(Answer::value(fields))
        }
        _ => wrap(vector),
    }
}

fn wrap(vector: &Vector) -> Outcome {
    let kbpk = vector.bytes("kbpk")?;
    let header = vector.text("header")?;
    let key = vector.bytes("key")?;
    let given = vector.optional_bytes("padding")?;
    let padding = given.clone().unwrap_or_else(|| {
        // Enough for the cipher's block: tells whether anything but the padding is amiss.
        vec![0; (2 + key.len()).next_multiple_of(16) - 2 - key.len()]
    });
    let block = wrap_any(&kbpk, header, &key, &padding)?;
    if given.is_none() { Err(Stop::missing("padding")) } else { Ok(Answer::text(&block)) }
}

fn fields_of(header: &Header) -> Value {
    let text = |characters: &[u8]| characters.iter().copied().map(char::from).collect::<String>();
    let optional: Vec<_> =
        header.optional().iter().map(|block| json!([text(&block.id()), block.data()])).collect();
    json!({
        "version_id": text(&[header.version.letter()]),
        "key_usage": text(&header.usage),
        "algorithm": text(&[header.algorithm]),
        "mode_of_use": text(&[header.mode]),
        "key_version": text(&header.key_version),
        "exportability": text(&[header.exportability]),
        "optional_blocks": optional,
        "key_context": text(&[header.context]),
        "reserved": text(&[header.context, header.reserved]),
    })
}
