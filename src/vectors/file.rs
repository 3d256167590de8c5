//! Parses a file of vectors and reads the fields of each.

use data_encoding::{HEXUPPER, HEXUPPER_PERMISSIVE};
use serde_json::{Map, Value};

use super::Stop;

/// Why a text is not a file of vectors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileInvalid {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// No list named `vectors`.
    #[error("there is no list `vectors`")]
    List,
}

/// One vector: an operation, its inputs and what is expected of it.
#[derive(Clone, Debug)]
pub struct Vector {
    place: usize,
    fields: Map<String, Value>,
}

/// Reads the vectors of a file in their order.
pub fn parse(json: &str) -> Result<Vec<Vector>, FileInvalid> {
    let root: Value =
        serde_json::from_str(json).map_err(|error| FileInvalid::Json(error.to_string()))?;
    let Some(Value::Array(vectors)) = root.get("vectors") else {
        return Err(FileInvalid::List);
    };
    let vectors = vectors.iter().enumerate().map(|(place, vector)| Vector {
        place,
        // What is no object has no fields, so its operation will be missing and it fails.
        fields: vector.as_object().cloned().unwrap_or_default(),
    });
    Ok(vectors.collect())
}

impl Vector {
    /// The vector's name, or its place in the file where it has none.
    #[must_use]
    pub fn id(&self) -> String {
        match self.fields.get("id").and_then(Value::as_str) {
            Some(id) => id.to_owned(),
            None => format!("#{}", self.place),
        }
    }

    /// The operation's name.
    pub fn operation(&self) -> Result<&str, Stop> {
        self.text("op")
    }

    /// What is expected.
    pub fn expected(&self) -> Result<&Value, Stop> {
        self.fields.get("expect").ok_or_else(|| Stop::missing("expect"))
    }

    /// Whether the vector is to be refused.
    #[must_use]
    pub fn expects_refusal(&self) -> bool {
        let expected = self.fields.get("expect").and_then(Value::as_str);
        expected.is_some_and(|text| text.starts_with("error:"))
    }

    /// Whether a field is there.
    #[must_use]
    pub fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    /// A field that holds text.
    pub fn text(&self, field: &str) -> Result<&str, Stop> {
        self.optional_text(field)?.ok_or_else(|| Stop::missing(field))
    }

    /// A field that holds text, where it is there.
    pub fn optional_text(&self, field: &str) -> Result<Option<&str>, Stop> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Stop::Malformed(format!("`{field}` is not text"))),
        }
    }

    /// A field that holds octets in hexadecimal.
    ///
    /// Text that is not hexadecimal is an input that the library refuses, not a missing one.
    pub fn bytes(&self, field: &str) -> Result<Vec<u8>, Stop> {
        self.optional_bytes(field)?.ok_or_else(|| Stop::missing(field))
    }

    /// A field that holds octets in hexadecimal, where it is there.
    pub fn optional_bytes(&self, field: &str) -> Result<Option<Vec<u8>>, Stop> {
        self.optional_text(field)?.map(|text| decode(field, text)).transpose()
    }

    /// A field that holds a list of octet strings in hexadecimal.
    pub fn list_of_bytes(&self, field: &str) -> Result<Vec<Vec<u8>>, Stop> {
        let Some(Value::Array(items)) = self.fields.get(field) else {
            return Err(Stop::Malformed(format!("`{field}` is not a list")));
        };
        let octets = |item: &Value| {
            let text = item.as_str().ok_or_else(|| {
                Stop::Malformed(format!("`{field}` holds something else than text"))
            })?;
            decode(field, text)
        };
        items.iter().map(octets).collect()
    }

    /// A field that holds a number of octets.
    pub fn optional_number(&self, field: &str) -> Result<Option<usize>, Stop> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_u64()
                .and_then(|number| usize::try_from(number).ok())
                .map(Some)
                .ok_or_else(|| Stop::Malformed(format!("`{field}` is not a number"))),
        }
    }
}

/// Octets as the vectors write them.
pub(super) fn hex(bytes: &[u8]) -> String {
    HEXUPPER.encode(bytes)
}

fn decode(field: &str, text: &str) -> Result<Vec<u8>, Stop> {
    HEXUPPER_PERMISSIVE
        .decode(text.as_bytes())
        .map_err(|_| Stop::Refused(format!("`{field}` is not hexadecimal")))
}
