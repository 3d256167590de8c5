//! `firstkeyd`, the service, and what it takes to set one up.

mod certificate;
mod cli;
mod config;
mod init;
mod live;
mod logging;
mod serve;

#[path = "../shared/mod.rs"]
mod shared;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    // Before anything is read; what the system refuses, the service writes to its log.
    let _ = firstkey::memory::harden_process();
    let done = match Cli::parse().command {
        Command::Serve(flags) => serve::run(flags),
        Command::Init(init) => init::run(&init),
        Command::Certificate(certificate) => certificate::run(&certificate),
    };
    done.unwrap_or_else(|error| shared::fail(&error))
}

/// Says on standard output what was done. A reader that went away is no fault of ours.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
