//! `firstkey terminal simulate --fault`: what goes wrong, and what comes of it.

use std::process::ExitCode;

use anyhow::Context as _;
use firstkey::agreement::Suite;
use firstkey::crypto::rng::SystemRng;
use firstkey::server::faults::{At, Fault, Played, Scene, play};
use firstkey::vault::Clock as _;
use serde_json::json;

use super::connect;
use super::show::row;
use crate::cli::{ALL, Output, Simulate};
use crate::print;
use crate::shared::{SystemClock, development};

/// The exit code when something came otherwise than it must.
const UNSOUND: u8 = 6;

pub(super) async fn run(
    arguments: Simulate,
    fault: &str,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.server).await?;
    let pki = development::read_pki(&arguments.pki.context("a fault needs --pki DIR")?)?;
    let trouble = arguments.trouble;
    let kek = development::read_keys(&arguments.keys)?.key_encryption_key()?;
    let suite = Suite::from_name(&trouble.suite).context("the suite")?;
    let now = || SystemClock.now().seconds();
    let rng = SystemRng::new();
    let scene = Scene { client: &client, pki: &pki, kek: &kek, rng: &rng, now: &now };
    let mut rows = vec![row(&["FAULT", "AT", "WHAT CAME OF IT", "AS EXPECTED"])];
    let mut is_sound = true;
    let is_meant = |at: &&At| trouble.at.as_deref().is_none_or(|word| word == at.as_str());
    for fault in Fault::ALL.iter().filter(|one| fault == ALL || one.as_str() == fault) {
        for at in At::ALL.iter().filter(is_meant) {
            let Some(played) = play(&scene, suite, *fault, *at).await? else { continue };
            is_sound &= played.is_as_expected();
            match output {
                Output::Table => rows.push(fault_row(&played)),
                Output::Json => print::line(&fault_json(&played).to_string()),
            }
        }
    }
    if output == Output::Table {
        print::table(&rows);
    }
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::from(UNSOUND) })
}

fn fault_row(played: &Played) -> Vec<String> {
    let expected =
        if played.is_as_expected() { "yes".to_owned() } else { format!("no: {}", played.expected) };
    let Played { fault, at, seen, .. } = played;
    vec![fault.as_str().to_owned(), at.as_str().to_owned(), seen.to_string(), expected]
}

fn fault_json(played: &Played) -> serde_json::Value {
    json!({
        "fault": played.fault.as_str(),
        "at": played.at.as_str(),
        "seen": played.seen.to_string(),
        "expected": played.expected.to_string(),
    })
}
