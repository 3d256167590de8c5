//! `firstkey ceremony`: people at a table.

mod plan;

use std::process::ExitCode;

use crate::cli::ceremony::Ceremony;

pub(crate) fn run(command: Ceremony) -> anyhow::Result<ExitCode> {
    match command {
        Ceremony::Plan(arguments) => plan::run(&arguments),
    }
}
