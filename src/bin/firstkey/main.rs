//! `firstkey`, the tool: each subcommand is one call into the library or to a service.

mod approval;
mod audit;
mod ceremony;
mod cli;
mod connect;
mod dev;
mod exit;
mod inspect;
mod key;
mod policy;
mod policy_change;
mod print;
mod seal;
mod status;
mod terminal;
mod vectors;

#[path = "../shared/mod.rs"]
mod shared;

use std::process::ExitCode;

use clap::Parser as _;
use firstkey::grpc::client::ClientError;
use firstkey::terminal::TerminalError;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    // A tool has no log to say it in: what could not be hardened is the same on the service.
    let _ = firstkey::memory::harden_process();
    let cli = Cli::parse();
    let output = cli.output;
    let done = shared::runtime().and_then(|runtime| {
        runtime.block_on(async {
            match cli.command {
                Command::Approval(approval) => approval::run(approval, output).await,
                Command::Audit(audit) => audit::run(audit, output).await,
                Command::Ceremony(command) => ceremony::run(command, output).await,
                Command::Dev(dev) => dev::run(dev, output).await,
                Command::Inspect(arguments) => inspect::run(&arguments, output),
                Command::Key(command) => key::run(*command, output).await,
                Command::Policy(command) => policy::run(command, output).await,
                Command::Seal(command) => seal::run(command, output).await,
                Command::Status(server) => status::run(server, output).await,
                Command::Terminal(terminal) => terminal::run(*terminal, output).await,
                Command::Vectors(vectors) => vectors::run(vectors).await,
            }
        })
    });
    match done {
        Ok(code) => code,
        Err(error) => {
            let code = exit_code(&error);
            shared::fail(&error);
            tell_what_next(&error);
            code
        }
    }
}

/// Tells a requester whose call waits how it goes on, and where a service that refuses everything
/// tells why.
#[allow(clippy::print_stderr, reason = "what to do next belongs beside why it failed")]
fn tell_what_next(error: &anyhow::Error) {
    let Some(ClientError::Refused(refusal)) = error.downcast_ref() else { return };
    // The client has computed the same digest from what it sent.
    let (name, digest) = (refusal.told("approval"), refusal.told("request_digest"));
    if refusal.reason == "APPROVAL_REQUIRED"
        && let (Some(name), Some(digest)) = (name, digest)
    {
        eprintln!("next: tell another officer, by another way than this service, the digest");
        eprintln!("      {}", approval::in_groups(&digest.to_uppercase()));
        eprintln!("      who compares it in `firstkey approval approve {name}`;");
        eprintln!("      then give the same command once more");
    }
    if ["AUDIT_UNAVAILABLE", "SELF_TEST_FAILED", "STORE_UNAVAILABLE"].contains(&&*refusal.reason) {
        eprintln!(
            "next: /readyz at the service's `operations` address tells what is wrong with it,"
        );
        eprintln!("      and so does its log");
    }
}

/// What went wrong, as an exit code that means something.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let Some(error) = error.downcast_ref::<ClientError>() else { return ExitCode::FAILURE };
    if matches!(
        error,
        ClientError::TestFailed
            | ClientError::Terminal(
                TerminalError::Authentication | TerminalError::ServiceNotTrusted
            )
    ) {
        return ExitCode::from(exit::UNSOUND);
    }
    let reason = error.reason().unwrap_or_default();
    ExitCode::from(match reason {
        reason if reason.ends_with("_NOT_FOUND") => exit::NOT_FOUND,
        "APPROVAL_REQUIRED" => exit::WAITS,
        "VAULT_SEALED" => exit::SEALED,
        "CALLER_UNKNOWN" | "POLICY_DENIED" | "DEVICE_NOT_TRUSTED" => exit::DENIED,
        "MAC_MISMATCH" | "PIN_BLOCK_REJECTED" | "KEY_BLOCK_REJECTED" => exit::UNSOUND,
        _ => exit::FAILED,
    })
}
