//! `firstkeyd`, the service: reads its settings, wires the parts, serves until it is told to stop.

mod config;
mod logging;

#[path = "../shared/mod.rs"]
mod shared;

use std::process::ExitCode;

use anyhow::Context as _;
use firstkey::server;
use firstkey::vault::Gate;

use crate::config::Config;
use crate::shared::development;

fn main() -> ExitCode {
    let hardening = firstkey::memory::harden_process();
    let config = match Config::read() {
        Ok(config) => config,
        Err(error) => return shared::fail(&error),
    };
    if let Err(error) = logging::begin(&config.log) {
        return shared::fail(&error);
    }
    tracing::info!(?hardening, "process hardened");
    match shared::runtime().and_then(|runtime| runtime.block_on(serve(config))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => shared::fail(&error),
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let stop = shared::stop_signal()?;
    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("can not serve on {}", config.listen))?;
    let address = listener.local_addr()?;
    let passed = server::run_self_tests()?;
    tracing::info!("self-tests passed");
    let service = development::open(&config.data, &config.dev_keys).await?;
    tracing::warn!(
        "DEVELOPMENT: published keys, plain text, no authentication; never for real PINs"
    );
    tracing::info!(%address, "serving");
    let settings = development::settings(listener, config.drain)?;
    server::serve(Gate::open(service.vault), passed, settings, stop).await?;
    tracing::info!("stopped; every acknowledged call is durable");
    Ok(())
}
