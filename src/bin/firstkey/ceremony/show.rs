//! `firstkey ceremony list` and `show`: how ceremonies stand, for those who are not at the table.

use std::process::ExitCode;

use firstkey::grpc::client::CeremonyView;
use firstkey::guide::{fingerprint, read_aloud};
use serde_json::{Map, Value, json};

use super::hold::tell;
use crate::cli::Output;
use crate::cli::ceremony::{List, Show};
use crate::connect::connect;
use crate::print;

/// Lists all ceremonies.
pub(super) async fn list(arguments: &List, output: Output) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.server).await?;
    let listed = client.list_ceremonies().await?;
    let rows = listed.into_iter().map(|one| {
        let state = one.state().as_str_name().trim_start_matches("CEREMONY_STATE_").to_owned();
        (one.name, state, one.steps_done)
    });
    match output {
        Output::Table => {
            let head = ["name", "state", "steps done"].map(str::to_owned).to_vec();
            let rows = rows.map(|(name, state, done)| vec![name, state, done.to_string()]);
            print::table(&[head].into_iter().chain(rows).collect::<Vec<_>>());
        }
        Output::Json => rows.for_each(|(name, state, done)| {
            print::line(&json!({ "name": name, "state": state, "steps_done": done }).to_string());
        }),
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows one ceremony: what people compare, and how it stands.
pub(super) async fn show(arguments: Show, output: Output) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.server).await?;
    let view = client.ceremony(&arguments.name).await?;
    let shown = shown(&view);
    match output {
        Output::Table => {
            let row = |(name, value): &(&str, String)| vec![(*name).to_owned(), value.clone()];
            print::table(&shown.iter().map(row).collect::<Vec<_>>());
            print::line("");
            // How it stands is what was asked: no failure, whatever it is.
            let _ = tell(&view, arguments.transcript);
        }
        Output::Json => {
            let steps = [("steps_done", view.steps_done), ("steps", view.planned.steps().len())];
            let words = shown.into_iter().map(|(name, value)| (name.to_owned(), value.into()));
            let numbers = steps.map(|(name, value)| (name.to_owned(), value.into()));
            let object: Map<String, Value> = words.chain(numbers).collect();
            print::line(&Value::from(object).to_string());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is known of it.
fn shown(view: &CeremonyView) -> Vec<(&'static str, String)> {
    let shown = [
        ("name", view.name.clone()),
        ("title", view.planned.plan().title.clone()),
        ("plan", read_aloud(&view.planned.digest())),
        ("envelope_key", fingerprint(&view.envelope_key)),
        ("check_value", view.check_value.clone()),
    ];
    shown.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}
