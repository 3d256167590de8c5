//! `firstkey terminal register`: one terminal, or those of a vendor's manifest.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use firstkey::grpc::client::{ClientError, request_id};
use firstkey::grpc::proto;
use firstkey::grpc::proto::create_terminal_result::Result as Registered;
use firstkey::server::manifest::{self, Line};
use serde_json::{Value, json};

use super::show::{print_one, row, state_name};
use crate::cli::{self, Output, Register};
use crate::connect::connect;
use crate::print;

pub(super) async fn run(arguments: Register, output: Output) -> anyhow::Result<ExitCode> {
    if let Some(path) = &arguments.manifest {
        return all(path, &arguments.server, output).await;
    }
    one(arguments, output).await?;
    Ok(ExitCode::SUCCESS)
}

async fn one(arguments: Register, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let (kind, device_authority, master_key) = match &arguments.master_key {
        None => {
            let authority = format!("deviceAuthorities/{}", arguments.authority);
            (proto::TerminalKind::DeviceCertificate, authority, String::new())
        }
        Some(key) => (proto::TerminalKind::MasterKey, String::new(), format!("keys/{key}")),
    };
    let request = proto::CreateTerminalRequest {
        request_id: request_id(),
        terminal_id: arguments.id.unwrap_or_default(),
        serial: arguments.serial.unwrap_or_default(),
        model: arguments.model,
        merchant: Some(proto::Merchant {
            merchant_id: arguments.merchant_id,
            terminal_id: arguments.terminal_id,
            display_name: arguments.merchant_name,
        }),
        merchant_standing: proto::MerchantStanding::Approved.into(),
        profile: format!("profiles/{}", arguments.profile),
        kind: kind.into(),
        device_authority,
        master_key,
    };
    let made = client.terminals().create_terminal(request).await.map_err(ClientError::from)?;
    print_one(made.into_inner().terminal.as_ref(), output)
}

/// Registers the terminals of a manifest and reports on each line.
async fn all(path: &Path, server: &cli::Server, output: Output) -> anyhow::Result<ExitCode> {
    let file = fs::read(path).with_context(|| format!("can not read {}", path.display()))?;
    let lines = manifest::parse(&file).map_err(|malformed| {
        let told: Vec<String> = malformed.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{} is malformed, nothing was sent:\n{}", path.display(), told.join("\n"))
    })?;
    let client = connect(server).await?;
    let progress = print::progress("registering", u32::try_from(lines.len())?);
    let mut report = Report::default();
    let done = manifest::register(&client, &lines, &mut |line, result| {
        report.add(line, &result);
        progress.inc(1);
    })
    .await;
    progress.finish_and_clear();
    // Of a run that was interrupted, what is known is told first.
    report.print(output);
    done.with_context(|| {
        format!("after {} of {} lines; the same command goes on", report.rows.len(), lines.len())
    })?;
    Ok(if report.refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What became of the lines so far.
#[derive(Default)]
struct Report {
    rows: Vec<Vec<String>>,
    values: Vec<Value>,
    registered: usize,
    refused: usize,
}

impl Report {
    fn add(&mut self, line: &Line, result: &Registered) {
        let registration = &line.registration;
        let mut value = json!({
            "line": line.number,
            "id": registration.terminal_id,
            "serial": registration.serial,
        });
        let (result, told) = match result {
            Registered::Terminal(terminal) => {
                self.registered += 1;
                value["result"] = "registered".into();
                value["state"] = state_name(terminal.state()).into();
                ("registered".to_owned(), state_name(terminal.state()))
            }
            Registered::Refusal(refusal) => {
                self.refused += 1;
                value["result"] = "refused".into();
                value["reason"] = refusal.reason.clone().into();
                value["message"] = refusal.message.clone().into();
                value["fields"] = refusal.field_violations.iter().map(violation).collect();
                value["metadata"] = json!(refusal.metadata);
                (refusal.reason.clone(), sentence(refusal))
            }
        };
        let (id, serial) = (&registration.terminal_id, &registration.serial);
        self.rows.push(row(&[&line.number.to_string(), id, serial, &result, &told]));
        self.values.push(value);
    }

    fn print(&self, output: Output) {
        let (registered, refused) = (self.registered, self.refused);
        match output {
            Output::Table => {
                let mut rows = vec![row(&["LINE", "ID", "SERIAL", "RESULT", "MESSAGE"])];
                rows.extend_from_slice(&self.rows);
                print::table(&rows);
                print::line(&format!("{registered} registered, {refused} refused"));
            }
            Output::Json => {
                let lines = &self.values;
                let report =
                    json!({ "lines": lines, "registered": registered, "refused": refused });
                print::line(&report.to_string());
            }
        }
    }
}

fn violation(violation: &proto::FieldViolation) -> Value {
    json!({ "field": violation.field, "description": violation.description })
}

/// A refusal in one sentence for people.
fn sentence(refusal: &proto::Refusal) -> String {
    let fields = refusal.field_violations.iter();
    let fields = fields.map(|violation| format!("{} {}", violation.field, violation.description));
    let metadata = refusal.metadata.iter().map(|(name, value)| format!("{name}: {value}"));
    let mut parts = vec![refusal.message.clone()];
    parts.extend(fields.chain(metadata));
    parts.join("; ")
}
