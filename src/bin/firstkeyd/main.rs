//! `firstkeyd`, the service, and what it takes to set one up.

mod certificate;
mod cli;
mod config;
mod guard;
mod init;
mod live;
mod logging;
mod operations;
mod serve;

#[path = "../shared/mod.rs"]
mod shared;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use firstkey::crypto::self_test::{self, SelfTestFailed};

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    #[cfg(feature = "fault-points")]
    let _last = operations::HoldPoint;
    // Before anything is read; what the system refuses, the service writes to its log.
    let _ = firstkey::memory::harden_process();
    let done = match Cli::parse().command {
        Command::Serve(flags) => serve::run(flags),
        Command::Init(init) => init::run(&init),
        Command::Certificate(certificate) => certificate::run(&certificate),
    };
    done.unwrap_or_else(|error| {
        let code = shared::fail(&error);
        let broken = self_test::broken().is_some() || error.is::<SelfTestFailed>();
        if broken { ExitCode::from(SELF_TEST_FAILED) } else { code }
    })
}

/// The exit code of a service that does not compute what it must.
const SELF_TEST_FAILED: u8 = 3;

/// Says on standard output what was done. A reader that went away is no fault of ours.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
