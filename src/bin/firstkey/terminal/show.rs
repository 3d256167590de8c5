//! How terminals are shown, to people and to programs.

use anyhow::Context as _;
use firstkey::grpc::proto;
use serde_json::{Value, json};

use crate::cli::Output;
use crate::print;

/// The columns of a list of terminals.
pub(super) const HEAD: [&str; 6] =
    ["TERMINAL", "SERIAL", "STATE", "PROFILE", "MERCHANT", "CHECK VALUE"];

/// Prints a terminal as a row.
pub(super) fn print_one(terminal: Option<&proto::Terminal>, output: Output) -> anyhow::Result<()> {
    let terminal = terminal.context("the answer holds no terminal")?;
    match output {
        Output::Table => print::table(&[row(&HEAD), terminal_row(terminal)]),
        Output::Json => print::line(&terminal_json(terminal).to_string()),
    }
    Ok(())
}

/// Prints all there is to know of a terminal.
pub(super) fn print_whole(terminal: &proto::Terminal, output: Output) {
    let whole = terminal_json(terminal);
    if output == Output::Json {
        print::line(&whole.to_string());
        return;
    }
    print::table(&[row(&HEAD), terminal_row(terminal)]);
    print::line("");
    // What the row or the timeline tells is not told twice.
    let told = ["name", "serial", "state", "profile", "check_value", "terminal_keys", "timeline"];
    print::table(&field_rows(&whole, &told));
    print::line("");
    if !terminal.terminal_keys.is_empty() {
        let head = ["SLOT", "USAGE", "ALGORITHM", "DERIVATION KEY", "CHECK VALUE"];
        let keys = terminal.terminal_keys.iter().map(key_row);
        print::table(&[row(&head)].into_iter().chain(keys).collect::<Vec<_>>());
        print::line("");
    }
    let mut rows = vec![row(&["TIME (UTC)", "STEP", "FROM", "TO", "NOTE"])];
    rows.extend(terminal.timeline.iter().map(entry_row));
    print::table(&rows);
}

/// Prints whose a key serial number is.
pub(super) fn print_found(found: &proto::LookupKsnResponse, output: Output) {
    let standing = found.key_set().as_str_name().trim_start_matches("KEY_SET_STANDING_");
    let state = state_name(found.terminal_state());
    let known = !found.terminal.is_empty();
    let whole = json!({
        "base_derivation_key": found.base_derivation_key,
        "initial_key_id": data_encoding::HEXUPPER.encode(&found.initial_key_id),
        "counter": found.counter,
        "terminal": found.terminal,
        "terminal_state": known.then_some(state),
        "key_set": known.then_some(standing),
        "grace_end_time": time_text(found.grace_end_time),
        "served": found.served,
        "reason": found.reason,
        "remedy": found.remedy,
    });
    match output {
        Output::Table => print::table(&field_rows(&whole, &[])),
        Output::Json => print::line(&whole.to_string()),
    }
}

/// A row for each field but those told elsewhere; what is not there is not told at all.
fn field_rows(whole: &Value, told: &[&str]) -> Vec<Vec<String>> {
    let fields = whole.as_object().into_iter().flatten();
    let fields = fields.filter(|(name, _)| !told.contains(&name.as_str()));
    let rows = fields.filter_map(|(name, value)| match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(row(&[name, text])),
        Value::Object(merchant) => {
            let words = merchant.values().filter_map(Value::as_str);
            Some(row(&[name, &words.collect::<Vec<_>>().join("  ")]))
        }
        other => Some(row(&[name, &other.to_string()])),
    });
    rows.collect()
}

/// Cells of a table.
pub(super) fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// A terminal under [`HEAD`].
pub(super) fn terminal_row(terminal: &proto::Terminal) -> Vec<String> {
    let merchant = terminal.merchant.clone().unwrap_or_default();
    vec![
        terminal.name.clone(),
        terminal.serial.clone(),
        state_name(terminal.state()),
        terminal.profile.clone(),
        merchant.display_name,
        data_encoding::HEXUPPER.encode(&terminal.check_value),
    ]
}

/// A static key of a terminal.
fn key_row(key: &proto::TerminalKey) -> Vec<String> {
    let (asked, check_value) = (key.key.clone().unwrap_or_default(), &key.check_value);
    vec![
        asked.slot.to_string(),
        usage_name(asked.usage()),
        algorithm_name(asked.algorithm()),
        asked.derivation_key,
        data_encoding::HEXUPPER.encode(check_value),
    ]
}

/// An entry of a timeline.
pub(super) fn entry_row(entry: &proto::TimelineEntry) -> Vec<String> {
    let told = [entry.reason.as_str(), &entry.note, &entry.remedy];
    let told: Vec<&str> = told.into_iter().filter(|text| !text.is_empty()).collect();
    vec![
        time_text(entry.time).unwrap_or_default(),
        entry.step.clone(),
        state_name(entry.from()),
        state_name(entry.to()),
        told.join("; "),
    ]
}

/// A terminal as its fields.
pub(super) fn terminal_json(terminal: &proto::Terminal) -> Value {
    let merchant = terminal.merchant.clone().unwrap_or_default();
    let (standing, kind) = (terminal.merchant_standing(), terminal.kind());
    json!({
        "name": terminal.name,
        "serial": terminal.serial,
        "model": terminal.model,
        "merchant": {
            "merchant_id": merchant.merchant_id,
            "terminal_id": merchant.terminal_id,
            "display_name": merchant.display_name,
        },
        "merchant_standing": standing.as_str_name().trim_start_matches("MERCHANT_STANDING_"),
        "profile": terminal.profile,
        "kind": kind.as_str_name().trim_start_matches("TERMINAL_KIND_"),
        "device_authority": terminal.device_authority,
        "master_key": terminal.master_key,
        "forward_secrecy": terminal.forward_secrecy,
        "state": state_name(terminal.state()),
        "hold_cause": terminal.hold_cause,
        "generation": terminal.generation,
        "activation": terminal.activation,
        "initial_key_id": data_encoding::HEXUPPER.encode(&terminal.initial_key_id),
        "check_value": data_encoding::HEXUPPER.encode(&terminal.check_value),
        "terminal_keys": terminal.terminal_keys.iter().map(key_json).collect::<Vec<_>>(),
        "parameters_version": terminal.parameters_version,
        "tests_passed": terminal.tests_passed,
        "rekey_due": terminal.rekey_due,
        "first_transaction_time": time_text(terminal.first_transaction_time),
        "create_time": time_text(terminal.create_time),
        "update_time": time_text(terminal.update_time),
        "timeline": terminal.timeline.iter().map(entry_json).collect::<Vec<_>>(),
    })
}

/// A static key of a terminal as its fields.
fn key_json(key: &proto::TerminalKey) -> Value {
    let asked = key.key.clone().unwrap_or_default();
    json!({
        "slot": asked.slot,
        "usage": usage_name(asked.usage()),
        "algorithm": algorithm_name(asked.algorithm()),
        "derivation_key": asked.derivation_key,
        "check_value": data_encoding::HEXUPPER.encode(&key.check_value),
    })
}

/// An entry of a timeline as its fields.
pub(super) fn entry_json(entry: &proto::TimelineEntry) -> Value {
    json!({
        "time": time_text(entry.time),
        "step": entry.step,
        "from": state_name(entry.from()),
        "to": state_name(entry.to()),
        "reason": entry.reason,
        "remedy": entry.remedy,
        "note": entry.note,
    })
}

/// A state in its own words.
pub(super) fn state_name(state: proto::TerminalState) -> String {
    state.as_str_name().trim_start_matches("TERMINAL_STATE_").to_owned()
}

fn usage_name(usage: proto::KeyUsage) -> String {
    usage.as_str_name().trim_start_matches("KEY_USAGE_").to_owned()
}

fn algorithm_name(algorithm: proto::KeyAlgorithm) -> String {
    algorithm.as_str_name().trim_start_matches("KEY_ALGORITHM_").to_owned()
}

fn time_text(time: Option<prost_types::Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}
