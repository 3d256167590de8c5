//! The memory of a faulty device: what no working device would keep.
//!
//! A device's memory is a text ([`Terminal::save`]); these write another one in its place.

use serde_json::Value;

use super::scene::PlayError;
use crate::activation::parameters::ParametersVersion;
use crate::terminal::Terminal;

/// The device after it lost everything but what it has from manufacture: its clock alone makes its
/// next Begin later than its last.
pub(super) fn lost(terminal: &Terminal) -> Result<Terminal, PlayError> {
    changed(terminal, |memory| {
        memory["session"] = serde_json::json!({ "step": "idle" });
        for field in ["activation", "engine", "exchange", "parameters", "parameters_of"] {
            memory[field] = Value::Null;
        }
        memory["slots"] = serde_json::json!([]);
        for field in
            ["last_begin", "moved_amount_minor", "moved_day", "purchases_made", "tests_made"]
        {
            memory[field] = 0.into();
        }
    })
}

/// The device as it stands, once more.
pub(super) fn copied(terminal: &Terminal) -> Result<Terminal, PlayError> {
    changed(terminal, |_| ())
}

/// A device that says it is another one.
pub(super) fn renamed(terminal: &Terminal, serial: &str) -> Result<Terminal, PlayError> {
    changed(terminal, |memory| memory["serial"] = serial.into())
}

/// A device that uses its keys although the service has not confirmed them.
pub(super) fn unconfirmed(terminal: &Terminal) -> Result<Terminal, PlayError> {
    changed(terminal, |memory| {
        memory["engine"] = memory["session"]["engine"].take();
        memory["session"] = serde_json::json!({ "step": "idle" });
    })
}

/// A device that has applied a later version of the parameters of `other`.
pub(super) fn ahead(terminal: &Terminal, other: &Terminal) -> Result<Terminal, PlayError> {
    let applied = other.parameters().ok_or(PlayError::Otherwise("no parameters"))?;
    let mut later = applied.clone();
    let version = applied.version.number().checked_add(1).and_then(ParametersVersion::new);
    later.version = version.ok_or(PlayError::Otherwise("the parameters have no later version"))?;
    let file = data_encoding::HEXUPPER.encode(&later.to_file());
    let registration = terminal.activation().map(|name| name.terminal_id().to_owned());
    changed(terminal, |memory| {
        memory["parameters"] = file.into();
        memory["parameters_of"] = registration.into();
    })
}

/// A device that was taught its parameters anew: it knows none.
pub(super) fn without_parameters(terminal: &Terminal) -> Result<Terminal, PlayError> {
    changed(terminal, |memory| memory["parameters"] = Value::Null)
}

fn changed(terminal: &Terminal, change: impl FnOnce(&mut Value)) -> Result<Terminal, PlayError> {
    let mut memory: Value = serde_json::from_str(&terminal.save())
        .map_err(|_| PlayError::Otherwise("a device's memory is no JSON"))?;
    change(&mut memory);
    Terminal::restore(&memory.to_string()).map_err(PlayError::Memory)
}
