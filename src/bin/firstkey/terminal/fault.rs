//! `firstkey terminal simulate --fault`: what goes wrong, and what comes of it.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use firstkey::agreement::Suite;
use firstkey::crypto::rng::SystemRng;
use firstkey::server::faults::{At, Fault, Outcome, Played, Scene, play};
use firstkey::vault::Clock as _;
use serde_json::{Value, json};

use super::show::row;
use crate::cli::{ALL, Output, Simulate};
use crate::connect::connect;
use crate::shared::{SystemClock, development};
use crate::{exit, print};

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
    // A device that lost its memory a moment ago must not begin in the second of its last Begin.
    let looks = AtomicU64::new(0);
    let now = || SystemClock.now().seconds().saturating_add(looks.fetch_add(1, Ordering::Relaxed));
    let rng = SystemRng::new();
    let scene = Scene { client: &client, pki: &pki, kek: &kek, rng: &rng, now: &now };
    let mut rows = vec![row(&["FAULT", "AT", "WHAT CAME OF IT", "AS EXPECTED"])];
    let mut is_sound = true;
    let is_meant = |at: &&At| trouble.at.as_deref().is_none_or(|word| word == at.as_str());
    let mut failed = None;
    for fault in Fault::ALL.iter().filter(|one| fault == ALL || one.as_str() == fault) {
        for at in At::ALL.iter().filter(is_meant) {
            let played = match play(&scene, suite, *fault, *at).await {
                Ok(Some(played)) => played,
                Ok(None) => continue,
                Err(error) => {
                    let cell = format!("{} at {}", fault.as_str(), at.as_str());
                    failed.get_or_insert(anyhow::Error::from(error).context(cell));
                    continue;
                }
            };
            is_sound &= played.is_as_expected();
            rows.push(fault_row(&played));
            if output == Output::Json {
                print::line(&fault_json(&played, suite).to_string());
            }
        }
    }
    if output == Output::Table {
        print::table(&rows);
    }
    if let Some(error) = failed {
        return Err(error);
    }
    ensure!(rows.len() > 1, "that fault and that step do not meet in this suite");
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::from(exit::UNSOUND) })
}

fn fault_row(played: &Played) -> Vec<String> {
    let expected =
        if played.is_as_expected() { "yes".to_owned() } else { format!("no: {}", played.expected) };
    let Played { fault, at, seen, .. } = played;
    vec![fault.as_str().to_owned(), at.as_str().to_owned(), seen.to_string(), expected]
}

fn fault_json(played: &Played, suite: Suite) -> Value {
    let Played { fault, at, expected, seen } = played;
    json!({
        "fault": fault.as_str(),
        "at": at.as_str(),
        "suite": suite.name(),
        "seen": outcome_json(seen),
        "expected": outcome_json(expected),
        "as_expected": played.is_as_expected(),
    })
}

fn outcome_json(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Distrusted(fault) => json!({ "outcome": "DISTRUSTED", "fault": fault }),
        Outcome::Refused(reason) => json!({ "outcome": "REFUSED", "reason": reason }),
        Outcome::SameAnswer => json!({ "outcome": "SAME_ANSWER" }),
        Outcome::Served => json!({ "outcome": "SERVED" }),
    }
}
