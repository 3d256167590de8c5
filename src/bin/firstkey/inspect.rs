//! `firstkey inspect`: what somebody holds, explained part by part.

use std::io::{self, IsTerminal as _, Read as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use firstkey::component::looks_like_a_slip;
use firstkey::inspect::{self, Explanation, NotExplained};
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::Output;
use crate::cli::inspect::{Inspect, Kind};
use crate::{exit, print};

/// The longest key block has 9,999 characters.
const LEN_BYTES_MAX: usize = 10_240;

pub(crate) fn run(arguments: &Inspect, output: Output) -> anyhow::Result<ExitCode> {
    let explanation = if let Some(value) = &arguments.value {
        // By now it stands in the list of processes and in the shell's history.
        ensure!(
            arguments.kind != Some(Kind::Slip) && !looks_like_a_slip(value),
            "a component or share is a secret: give it on standard input, never as an argument; if \
             this was one, treat it as known to others"
        );
        explain(value, arguments.kind)?
    } else {
        let text = read()?;
        let is_slip = arguments.kind.is_none() && looks_like_a_slip(&text);
        explain(&text, if is_slip { Some(Kind::Slip) } else { arguments.kind })?
    };
    match output {
        Output::Json => print::line(&as_json(&explanation).to_string()),
        Output::Table => show(&explanation),
    }
    let is_sound = explanation.is_sound;
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::from(exit::UNSOUND) })
}

fn explain(text: &str, kind: Option<Kind>) -> Result<Explanation, NotExplained> {
    match kind {
        None => inspect::recognised(text),
        Some(Kind::Block) => inspect::key_block(text),
        Some(Kind::Ksn) => inspect::key_serial_number(text),
        Some(Kind::Slip) => inspect::slip(text),
    }
}

/// Reads standard input into a buffer that does not grow, and is wiped.
fn read() -> anyhow::Result<Zeroizing<String>> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        bail!(
            "nothing to inspect: give it as an argument, or a slip on standard input from a file"
        );
    }
    let mut text = Zeroizing::new(String::with_capacity(LEN_BYTES_MAX));
    let longest = u64::try_from(LEN_BYTES_MAX).unwrap_or(u64::MAX);
    let read = stdin.lock().take(longest).read_to_string(&mut text);
    let read = read.context("can not read standard input as text")?;
    ensure!(read < LEN_BYTES_MAX, "too long for a key block or a slip");
    Ok(text)
}

fn show(explanation: &Explanation) {
    print::line(&explanation.what);
    print::line(&format!("see {}", explanation.source));
    let rows: Vec<Vec<String>> = explanation
        .parts
        .iter()
        .map(|part| {
            vec![part.at.clone(), part.field.clone(), part.value.clone(), part.meaning.clone()]
        })
        .collect();
    print::table(&rows);
}

fn as_json(explanation: &Explanation) -> serde_json::Value {
    let parts = explanation.parts.iter().map(|part| {
        json!({
            "at": part.at, "field": part.field, "value": part.value, "meaning": part.meaning,
        })
    });
    json!({
        "what": explanation.what,
        "source": explanation.source,
        "sound": explanation.is_sound,
        "parts": parts.collect::<Vec<_>>(),
    })
}
