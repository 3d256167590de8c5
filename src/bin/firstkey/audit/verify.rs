//! `firstkey audit verify`: an export against itself and against checkpoints, without a service.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use firstkey::vault::{Checkpoint, NoteError, VerifierKey, verify_export};
use serde_json::{Value, json};

use crate::cli::Output;
use crate::cli::audit::Verify;
use crate::{exit, print};

pub(super) fn run(arguments: &Verify, output: Output) -> anyhow::Result<ExitCode> {
    let key = arguments.key.as_deref().map(VerifierKey::parse).transpose()?;
    let open = |path: Option<&Path>| match (path, &key) {
        (Some(path), Some(key)) => Ok(Some(open_note(path, key)?)),
        _ => anyhow::Ok(None),
    };
    let notes = open(arguments.checkpoint.as_deref())
        .and_then(|note| Ok((note, open(arguments.against.as_deref())?)));
    let (checkpoint, against) = match notes {
        Ok(notes) => notes,
        Err(error) if error.is::<NoteError>() => return Ok(unsound(None, &error, output)),
        Err(error) => return Err(error),
    };
    let path = &arguments.export;
    let read = || format!("can not read {}", path.display());
    let file = fs::File::open(path).with_context(read)?;
    let mut failed = None;
    let lines = BufReader::new(file)
        .split(b'\n')
        .map_while(|line| line.map_err(|error| failed = Some(error)).ok());
    let verified = verify_export(lines, checkpoint.as_ref(), against.as_ref());
    if let Some(error) = failed {
        return Err(error).with_context(read);
    }
    let report = match verified {
        Ok(report) => report,
        Err(fault) => return Ok(unsound(Some(fault.parts()), &fault.into(), output)),
    };
    let root = data_encoding::HEXLOWER.encode(&report.root.hash);
    match output {
        Output::Table => {
            print::line(&format!("verified: {} events, root {root}", report.events));
            print::line(&match (checkpoint.is_some(), report.events - report.covered) {
                (false, _) => "no checkpoint was given: that events were cut off at the end, or \
                               all written anew, would not show"
                    .to_owned(),
                (true, 0) => "the checkpoint covers all of them".to_owned(),
                (true, beyond) => format!("the last {beyond} are not covered by the checkpoint"),
            });
        }
        Output::Json => print::line(
            &json!({
                "verified": true,
                "events": report.events,
                "covered": report.covered,
                "root": root,
            })
            .to_string(),
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a checkpoint that the key signed.
pub(super) fn open_note(path: &Path, key: &VerifierKey) -> anyhow::Result<Checkpoint> {
    let note =
        fs::read_to_string(path).with_context(|| format!("can not read {}", path.display()))?;
    Ok(Checkpoint::open(&note, key)?)
}

/// Says that something does not verify: which event is wrong first, and what is.
pub(super) fn unsound(
    fault: Option<(&'static str, u64)>,
    error: &anyhow::Error,
    output: Output,
) -> ExitCode {
    let (word, event) =
        fault.map_or(("not_verified", Value::Null), |(word, event)| (word, event.into()));
    match output {
        Output::Table => print::line(&format!("NOT VERIFIED: {error}")),
        Output::Json => print::line(
            &json!({
                "verified": false,
                "fault": word,
                "event": event,
                "message": error.to_string(),
            })
            .to_string(),
        ),
    }
    ExitCode::from(exit::UNSOUND)
}
