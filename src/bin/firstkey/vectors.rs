//! `firstkey vectors`: files in, a report out.

use std::process::ExitCode;

use anyhow::Context as _;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::Client;
use firstkey::server::dev;
use firstkey::vectors::{self, Report, Service};

use crate::cli::Vectors;
use crate::shared::development;
use crate::{exit, print};

pub(crate) async fn run(arguments: Vectors) -> anyhow::Result<ExitCode> {
    let mut files = Vec::new();
    for path in &arguments.files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("can not read {}", path.display()))?;
        files.push((name, text));
    }
    let reports = match &arguments.server {
        Some(url) => through_service(url, &arguments, &files).await?,
        None => files.iter().map(|(name, text)| vectors::run(name, text)).collect(),
    };
    let mut total = Report::default();
    for ((name, _), report) in files.iter().zip(reports) {
        print::line(&format!(
            "{name}: {} passed, {} failed, {} skipped",
            report.passed(),
            report.failed(),
            report.skipped()
        ));
        total.absorb(report);
    }
    if arguments.server.is_some() {
        print::line(&format!(
            "{} of {} vectors expressed through the service; {} of them refused by its policy, as \
             they must be",
            total.expressed(),
            total.expressed() + total.skipped(),
            total.refused_by_policy()
        ));
    }
    let failed = total.failed();
    print::line(total.to_string().trim_end());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::UNSOUND) })
}

async fn through_service(
    url: &str,
    arguments: &Vectors,
    files: &[(String, String)],
) -> anyhow::Result<Vec<Report>> {
    let client = Client::connect(url).await?;
    let keys = development::read_keys(&arguments.keys)?;
    let service = Service {
        client: &client,
        key_encryption_key: &keys.key_encryption_key()?,
        key_encryption_key_id: dev::KEK,
        rng: &SystemRng::new(),
    };
    Ok(service.run(files).await)
}
