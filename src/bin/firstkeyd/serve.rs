//! `firstkeyd serve`: wires the parts, and serves until it is told to stop.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use firstkey::grpc::Trust;
use firstkey::memory::protections;
use firstkey::server::{self, Limits, Operations, Settings};
use firstkey::vault::{AuditSettings, Gate};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::cli::Flags;
use crate::config::{Config, Development, Live, Mode};
use crate::shared::development::{self, Way};
use crate::{live, logging, operations, shared};

pub(crate) fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let config = Config::read(flags)?;
    logging::begin(&config.log)?;
    operations::log_hardening(&protections());
    shared::runtime()?.block_on(serve(config))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let (stop, at_once) = (shared::stop_signal()?, shared::second_stop_signal()?);
    #[cfg(feature = "fault-points")]
    operations::set_faults(&config.faults)?;
    #[cfg(feature = "fault-points")]
    let at_once = operations::or_panic(at_once, &config.faults)?;
    let Config { data, audit, drain, limits, mode, operations, .. } = config;
    let passed = server::run_self_tests()?;
    tracing::info!("self-tests passed");
    let (mut settings, gate) = match mode {
        Mode::Development(dev) => for_development(&data, &dev, audit, drain).await?,
        Mode::Live(live) => in_earnest(&data, *live, audit, drain).await?,
    };
    settings.limits = limits;
    settings.operations = operations.open().await?;
    let stop = async {
        stop.await;
        operations::tell_stopping();
    };
    let (serving, begun) = oneshot::channel();
    settings.operations.serving = Some(serving);
    settings.operations.sealed = Some(operations::tell_status);
    tokio::spawn(async move {
        if begun.await.is_ok() {
            operations::tell_ready();
        }
    });
    tokio::select! {
        served = server::serve(gate, passed, settings, stop) => served?,
        () = at_once => bail!("stopped at once: calls in flight were not waited for"),
    }
    tracing::info!("stopped; every acknowledged call is durable");
    Ok(())
}

async fn in_earnest(
    data: &Path,
    live: Live,
    audit: AuditSettings,
    drain: Duration,
) -> anyhow::Result<(Settings, Arc<Gate>)> {
    // A hang-up that comes while the store is opened is heard, and heeded afterwards.
    let hangup = live::hangup()?;
    // Whatever is wrong with the files is found before the store is touched.
    let doors = live::open_doors(&live).await?;
    let token = live::open_token(&live)?;
    let gate = live::open_gate(data, &live, audit).await?;
    live::reload_on(hangup, live, Arc::clone(&gate), doors.denied.clone(), doors.tls);
    for address in doors.addresses {
        tracing::info!(%address, "serving");
    }
    let settings = Settings {
        listeners: doors.listeners,
        trust: Trust::Certificates(doors.denied),
        reflection: false,
        drain,
        limits: Limits::default(),
        operations: Operations::default(),
        token,
    };
    Ok((settings, gate))
}

async fn for_development(
    data: &Path,
    dev: &Development,
    audit: AuditSettings,
    drain: Duration,
) -> anyhow::Result<(Settings, Arc<Gate>)> {
    let socket = TcpListener::bind(dev.listen)
        .await
        .with_context(|| format!("can not serve on {}", dev.listen))?;
    let address = socket.local_addr()?;
    let way = if dev.tls { Way::Tls } else { Way::PlainText };
    let service = development::open(data, &dev.keys, audit).await?;
    let settings = development::settings(&service, socket, way, drain).await?;
    match way {
        Way::Tls => tracing::warn!("DEVELOPMENT: published keys; never for real PINs"),
        Way::PlainText => tracing::warn!(
            "DEVELOPMENT: published keys, plain text, no authentication; never for real PINs"
        ),
    }
    tracing::info!(%address, "serving");
    Ok((settings, Gate::open(service.vault)))
}
