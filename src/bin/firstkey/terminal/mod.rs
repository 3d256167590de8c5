//! `firstkey terminal`: register, watch and play terminals against a running service.

mod fault;
mod fleet;
mod register;
mod show;
mod simulate;

use std::process::ExitCode;

use anyhow::Context as _;
use firstkey::grpc::client::{ClientError, request_id};
use firstkey::grpc::proto;
use serde_json::json;

use self::show::{
    HEAD, entry_json, entry_row, print_found, print_one, print_whole, row, terminal_json,
    terminal_row,
};
use crate::cli::{self, Code, List, Lookup, Named, Output, Rekey, Watch};
use crate::connect::connect;
use crate::print;

pub(crate) async fn run(command: cli::Terminal, output: Output) -> anyhow::Result<ExitCode> {
    match command {
        cli::Terminal::Register(arguments) => return register::run(arguments, output).await,
        cli::Terminal::Code(arguments) => code(arguments, output).await,
        cli::Terminal::Enable(arguments) => enable(arguments, output).await,
        cli::Terminal::Rekey(arguments) => rekey(arguments, output).await,
        cli::Terminal::Show(arguments) => show(arguments, output).await,
        cli::Terminal::List(arguments) => list(arguments, output).await,
        cli::Terminal::Lookup(arguments) => lookup(arguments, output).await,
        cli::Terminal::Watch(arguments) => watch(arguments, output).await,
        cli::Terminal::Simulate(arguments) => {
            if let Some(count) = arguments.fleet.count {
                return fleet::run(arguments, count, output).await;
            }
            if let Some(fault) = arguments.trouble.fault.clone() {
                return fault::run(arguments, &fault, output).await;
            }
            simulate::run(arguments, output).await
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn code(arguments: Code, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let (request_id, name) = (request_id(), format!("terminals/{}", arguments.id));
    let code = if arguments.again {
        let request = proto::ReissueActivationCodeRequest { request_id, name };
        let issued = client.terminals().reissue_activation_code(request).await;
        issued.map_err(ClientError::from)?.into_inner().activation_code
    } else {
        let request = proto::IssueActivationCodeRequest { request_id, name };
        let issued = client.terminals().issue_activation_code(request).await;
        issued.map_err(ClientError::from)?.into_inner().activation_code
    };
    match output {
        Output::Table => print::line(&code),
        Output::Json => print::line(&json!({ "activation_code": code }).to_string()),
    }
    Ok(())
}

async fn enable(arguments: Named, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let name = format!("terminals/{}", arguments.id);
    let request = proto::EnableTerminalRequest { request_id: request_id(), name };
    let enabled = client.terminals().enable_terminal(request).await.map_err(ClientError::from)?;
    print_one(enabled.into_inner().terminal.as_ref(), output)
}

async fn rekey(arguments: Rekey, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let request = proto::StartRekeyRequest {
        request_id: request_id(),
        name: format!("terminals/{}", arguments.id),
        cause: arguments.cause,
        update_key_allowed: arguments.update_key,
    };
    let started = client.terminals().start_rekey(request).await.map_err(ClientError::from)?;
    print_one(started.into_inner().terminal.as_ref(), output)
}

async fn show(arguments: Named, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let request = proto::GetTerminalRequest { name: format!("terminals/{}", arguments.id) };
    let found = client.terminals().get_terminal(request).await.map_err(ClientError::from)?;
    let terminal = found.into_inner().terminal.context("the answer holds no terminal")?;
    print_whole(&terminal, output);
    Ok(())
}

async fn list(arguments: List, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let state = arguments.state.map(|state| format!("TERMINAL_STATE_{}", state.to_uppercase()));
    let state = state.and_then(|state| proto::TerminalState::from_str_name(&state));
    let state = state.unwrap_or_default().into();
    let key = arguments.base_derivation_key;
    let base_derivation_key = key.map_or_else(String::new, |key| format!("keys/{key}"));
    let wanted = proto::ListTerminalsRequest { state, base_derivation_key, ..Default::default() };
    let mut rows = vec![row(&HEAD)];
    for terminal in client.list_terminals(wanted).await? {
        match output {
            Output::Table => rows.push(terminal_row(&terminal)),
            Output::Json => print::line(&terminal_json(&terminal).to_string()),
        }
    }
    if output == Output::Table {
        print::table(&rows);
    }
    Ok(())
}

async fn lookup(arguments: Lookup, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let ksn = data_encoding::HEXUPPER_PERMISSIVE.decode(arguments.ksn.as_bytes());
    let request = proto::LookupKsnRequest { ksn: ksn.context("the key serial number")? };
    let found = client.terminals().lookup_ksn(request).await.map_err(ClientError::from)?;
    print_found(&found.into_inner(), output);
    Ok(())
}

async fn watch(arguments: Watch, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let terminal = arguments.id.map_or_else(String::new, |id| format!("terminals/{id}"));
    let request = proto::WatchTerminalsRequest { after_sequence: arguments.after, terminal };
    let stream = client.terminals().watch_terminals(request).await.map_err(ClientError::from)?;
    let mut stream = stream.into_inner();
    while let Some(told) = stream.message().await.map_err(ClientError::from)? {
        let entry = told.entry.unwrap_or_default();
        match output {
            Output::Table => {
                let mut cells = vec![told.sequence.to_string(), told.terminal];
                cells.extend(entry_row(&entry));
                print::line(&cells.join("  "));
            }
            Output::Json => {
                let mut value = entry_json(&entry);
                value["sequence"] = told.sequence.into();
                value["terminal"] = told.terminal.into();
                print::line(&value.to_string());
            }
        }
    }
    Ok(())
}
