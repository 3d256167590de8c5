//! `firstkey status`: how a service is, and what protects it.

use std::process::ExitCode;

use data_encoding::HEXLOWER;
use firstkey::grpc::client::ClientError;
use firstkey::grpc::proto::{GetStatusRequest, GetStatusResponse};
use serde_json::json;

use crate::cli::{Output, Server};
use crate::connect::connect;
use crate::exit;
use crate::print;

/// Prints the status; what is not healthy makes the exit code another.
pub(crate) async fn run(server: Server, output: Output) -> anyhow::Result<ExitCode> {
    let client = connect(&server).await?;
    let answer = client.status().get_status(GetStatusRequest {}).await;
    let status = answer.map_err(ClientError::from)?.into_inner();
    match output {
        Output::Table => print_tables(&status),
        Output::Json => print::line(&to_json(&status).to_string()),
    }
    let healthy = status.checks.iter().all(|check| check.healthy);
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::from(exit::UNSOUND) })
}

fn print_tables(status: &GetStatusResponse) {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let seconds = |time: &Option<prost_types::Timestamp>| {
        time.as_ref().map_or_else(|| "never".to_owned(), std::string::ToString::to_string)
    };
    print::table(&[
        row("version", status.version.clone()),
        row("program", HEXLOWER.encode(&status.program_digest)),
        row("realm", status.realm.clone()),
        row("node", status.node.clone()),
        row("started", seconds(&status.start_time)),
        row("self-tests passed", seconds(&status.self_test_time)),
        row("policy", status.policy_version.to_string()),
        row("audit events", status.audit_sequence.to_string()),
        row("checkpoint", seconds(&status.checkpoint_time)),
    ]);
    print::line("");
    let mut rows = vec![["CHECK", "", "DETAIL"].map(str::to_owned).to_vec()];
    rows.extend(status.checks.iter().map(|check| {
        let word = if check.healthy { "well" } else { "NOT WELL" };
        vec![check.name.clone(), word.to_owned(), check.detail.clone()]
    }));
    print::table(&rows);
    print::line("");
    let mut rows = vec![["PROTECTION", "", "DETAIL"].map(str::to_owned).to_vec()];
    rows.extend(status.protections.iter().map(|protection| {
        let word = if protection.in_force { "in force" } else { "NOT IN FORCE" };
        vec![protection.name.clone(), word.to_owned(), protection.detail.clone()]
    }));
    print::table(&rows);
}

fn to_json(status: &GetStatusResponse) -> serde_json::Value {
    let time = |time: &Option<prost_types::Timestamp>| time.as_ref().map(ToString::to_string);
    let checks = status.checks.iter().map(
        |check| json!({ "name": check.name, "healthy": check.healthy, "detail": check.detail }),
    );
    let protections = status.protections.iter().map(|protection| {
        let (name, detail) = (&protection.name, &protection.detail);
        json!({ "name": name, "in_force": protection.in_force, "detail": detail })
    });
    json!({
        "version": status.version,
        "program_digest": HEXLOWER.encode(&status.program_digest),
        "realm": status.realm,
        "node": status.node,
        "start_time": time(&status.start_time),
        "self_test_time": time(&status.self_test_time),
        "policy_version": status.policy_version,
        "audit_sequence": status.audit_sequence,
        "checkpoint_time": time(&status.checkpoint_time),
        "checks": checks.collect::<Vec<_>>(),
        "protections": protections.collect::<Vec<_>>(),
    })
}
