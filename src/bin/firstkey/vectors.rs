//! `firstkey vectors`: files in, a report out.

use std::process::ExitCode;

use anyhow::Context as _;
use firstkey::vectors::{self, Report};

use crate::cli::Vectors;
use crate::print;

/// The exit code when a vector failed.
const FAILED: u8 = 6;

pub(crate) async fn run(arguments: Vectors) -> anyhow::Result<ExitCode> {
    let mut total = Report::default();
    for path in &arguments.files {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("can not read {}", path.display()))?;
        let report = vectors::run(&name, &text);
        print::line(&format!(
            "{name}: {} passed, {} failed, {} skipped",
            report.passed(),
            report.failed(),
            report.skipped()
        ));
        total.absorb(report);
    }
    let failed = total.failed();
    print::line(total.to_string().trim_end());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}
