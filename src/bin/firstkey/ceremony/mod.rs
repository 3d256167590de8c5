//! `firstkey ceremony`: people at a table.

mod custodians;
mod hold;
mod keys;
mod plan;
mod printer;
mod rehearse;
mod rehearse_shares;
mod show;
mod terminal;
mod verify;

use std::process::ExitCode;

pub(crate) use self::custodians::{read_back, unseal};
pub(crate) use self::terminal::ensure_there_is_one as ensure_terminal;

use crate::cli::Output;
use crate::cli::ceremony::Ceremony;

pub(crate) async fn run(command: Ceremony, output: Output) -> anyhow::Result<ExitCode> {
    match command {
        Ceremony::Abort(arguments) => hold::abort(&arguments).await,
        Ceremony::List(arguments) => show::list(&arguments, output).await,
        Ceremony::Plan(arguments) => plan::run(&arguments),
        Ceremony::Rehearse(arguments) => rehearse::run(arguments).await,
        Ceremony::Resume(arguments) => hold::resume(&arguments).await,
        Ceremony::Run(arguments) => hold::run(&arguments).await,
        Ceremony::Show(arguments) => show::show(arguments, output).await,
        Ceremony::Verify(arguments) => verify::run(&arguments, output),
    }
}
