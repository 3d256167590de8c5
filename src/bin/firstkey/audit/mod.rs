//! `firstkey audit`: reads the audit log of a service, and verifies what was read without one.

mod proof;
mod verify;

use std::fs::{self, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use firstkey::grpc::client::{Client, ClientError};
use firstkey::grpc::proto;
use serde_json::{Value, json};
use tonic::Streaming;

use crate::cli::Output;
use crate::cli::audit::{Audit, Checkpoint, Export, List};
use crate::connect::connect;
use crate::print;

/// How many events a page of a list has at most.
const PAGE_MAX: usize = 100;

pub(crate) async fn run(command: Audit, output: Output) -> anyhow::Result<ExitCode> {
    match command {
        Audit::List(arguments) => list(arguments, output).await?,
        Audit::Export(arguments) => export(arguments, output).await?,
        Audit::Checkpoint(arguments) => checkpoint(arguments, output).await?,
        Audit::Prove(arguments) => proof::fetch(arguments).await?,
        Audit::Verify(arguments) => return verify::run(&arguments, output),
        Audit::VerifyProof(arguments) => return proof::verify(&arguments, output),
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(arguments: List, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let mut rows = vec![row(&HEAD)];
    let (mut after, mut left, mut size) = (arguments.after, arguments.count, None);
    while left > 0 {
        let request = proto::ListEventsRequest {
            page_size: u32::try_from(left.min(PAGE_MAX))?,
            after,
            resource: arguments.resource.clone(),
        };
        let page = client.audit().list_events(request).await.map_err(ClientError::from)?;
        let page = page.into_inner();
        // Each page adds the event that it was read: the list ends where it ended at first.
        let size = *size.get_or_insert(page.size);
        for text in &page.events {
            let event: Value = serde_json::from_str(text).context("an event is no JSON")?;
            if event["seq"].as_u64().context("an event has no sequence")? > size {
                break;
            }
            match output {
                Output::Json => print::line(text),
                Output::Table => rows.push(event_row(&event)),
            }
        }
        left -= page.events.len().min(left);
        // What a page does not hold was looked at all the same.
        if page.last <= after || page.last >= size {
            break;
        }
        after = page.last;
    }
    if output == Output::Table {
        print::table(&rows);
    }
    Ok(())
}

const HEAD: [&str; 7] = ["EVENT", "TIME (ms)", "CALLER", "CALL", "RESOURCE", "DECISION", "REASON"];

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}

fn event_row(event: &Value) -> Vec<String> {
    let cell = |name: &str| match &event[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let columns = ["seq", "time", "caller", "action", "resource", "decision", "reason"];
    columns.map(cell).to_vec()
}

async fn export(arguments: Export, output: Output) -> anyhow::Result<()> {
    let Export { out, server } = arguments;
    let note_path = beside(&out, "checkpoint");
    for path in [&out, &note_path] {
        ensure!(
            !path.exists(),
            "{} is there already: name another, or move it away",
            path.display()
        );
    }
    let client = connect(&server).await?;
    let request = proto::ExportEventsRequest { after: 0 };
    let stream = client.audit().export_events(request).await.map_err(ClientError::from)?;
    // Written beside its place and moved there whole: half an export does not pass for one.
    let part = beside(&out, &format!("{}.part", std::process::id()));
    let taken = take_export(stream.into_inner(), create(&part)?).await;
    let placed = taken.and_then(|taken| {
        write_new(&note_path, &taken.signed.checkpoint)?;
        fs::rename(&part, &out).with_context(|| format!("can not make {}", out.display()))?;
        Ok(taken)
    });
    if placed.is_err() {
        // What is left of it is nothing to anybody; why it failed is what counts.
        let _ = fs::remove_file(&part);
    }
    let Taken { count, signed } = placed?;
    match output {
        Output::Table => {
            print::line(&format!("{count} events in {}", out.display()));
            print::line(&format!("checkpoint in {}", note_path.display()));
            print::line(&format!("key {}", signed.verifier_key));
        }
        Output::Json => print::line(
            &json!({
                "events": count,
                "checkpoint": signed.checkpoint,
                "key": signed.verifier_key,
            })
            .to_string(),
        ),
    }
    Ok(())
}

/// What came of an export: how many events, and the message that ends it.
struct Taken {
    count: u64,
    signed: proto::ExportEventsResponse,
}

/// Writes each event as a line, durably, up to the checkpoint.
async fn take_export(
    mut stream: Streaming<proto::ExportEventsResponse>,
    file: fs::File,
) -> anyhow::Result<Taken> {
    let mut file = BufWriter::new(file);
    let mut count = 0;
    loop {
        let Some(message) = stream.message().await.map_err(ClientError::from)? else {
            bail!("the export was cut off: the service ended it before its checkpoint");
        };
        for event in &message.events {
            writeln!(file, "{event}")?;
            count += 1;
        }
        if !message.checkpoint.is_empty() {
            file.into_inner()?.sync_all()?;
            return Ok(Taken { count, signed: message });
        }
    }
}

async fn checkpoint(arguments: Checkpoint, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let signed = signed_now(&client).await?;
    if let Some(out) = &arguments.out {
        write_new(out, &signed.checkpoint)?;
    }
    match output {
        Output::Table => {
            print::line(signed.checkpoint.trim_end());
            print::line("");
            print::line(&format!("key {}", signed.verifier_key));
        }
        Output::Json => print::line(
            &json!({ "checkpoint": signed.checkpoint, "key": signed.verifier_key }).to_string(),
        ),
    }
    Ok(())
}

async fn signed_now(client: &Client) -> anyhow::Result<proto::GetCheckpointResponse> {
    let signed = client.audit().get_checkpoint(proto::GetCheckpointRequest {}).await;
    Ok(signed.map_err(ClientError::from)?.into_inner())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// Makes a file for its owner alone, which must not be there yet.
fn create(path: &Path) -> anyhow::Result<fs::File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("can not make {}", path.display()))
}

fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = create(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half of it would only be in the way.
        let _ = fs::remove_file(path);
    }
    written.with_context(|| format!("can not write {}", path.display()))
}
