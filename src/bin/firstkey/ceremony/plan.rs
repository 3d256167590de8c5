//! `firstkey ceremony plan`: a plan, checked, and its script on paper.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use firstkey::command::ceremony::plan::{Plan, Planned};
use firstkey::guide::script;

use crate::cli::ceremony::Plan as Arguments;
use crate::print;
use crate::shared::development::write_new;

/// Prints the script; the plan itself goes to a file that is not there yet.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let planned = read(&arguments.file)?;
    if let Some(path) = &arguments.out {
        write_new(path, &planned.canonical())?;
    }
    print::line(script(&planned).trim_end());
    Ok(ExitCode::SUCCESS)
}

/// Reads a plan as people wrote it, or in its canonical form, and checks it.
pub(super) fn read(path: &Path) -> anyhow::Result<Planned> {
    let text =
        fs::read_to_string(path).with_context(|| format!("can not read {}", path.display()))?;
    let is_json = text.trim_start().starts_with('{');
    let plan: Plan = if is_json {
        serde_json::from_str(&text).map_err(anyhow::Error::from)
    } else {
        toml::from_str(&text).map_err(anyhow::Error::from)
    }
    .with_context(|| format!("{} is no plan", path.display()))?;
    plan.check().with_context(|| format!("{} is no plan", path.display()))
}
