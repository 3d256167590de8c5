//! What those who run the service set and see: health over HTTP, self-tests, what systemd is told.

use std::net::SocketAddr;
use std::sync::OnceLock;
#[cfg(feature = "fault-points")]
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use firstkey::crypto::digest;
use firstkey::memory::Protection;
use firstkey::server::{Operations, SELF_TEST_PERIOD_MAX};
use sd_notify::NotifyState;
use tokio::net::TcpListener;

/// The settings, each of which may also stand in the file.
#[derive(Debug, Default, Args)]
pub(crate) struct OperationsFlags {
    /// Where to tell over HTTP how the service is (/livez, /readyz, /metrics), without
    /// authentication. [default: nowhere]
    #[arg(long, env = "FIRSTKEY_OPERATIONS", value_name = "ADDRESS:PORT")]
    operations: Option<SocketAddr>,
    /// The time from one run of the self-tests to the next, in seconds. [default: 86400]
    #[arg(long, env = "FIRSTKEY_SELF_TEST_SECONDS", value_name = "SECONDS")]
    self_test_seconds: Option<u64>,
    #[cfg(feature = "fault-points")]
    #[command(flatten)]
    pub(crate) faults: Faults,
}

/// Builds for tests: which self-test fails, and when.
#[cfg(feature = "fault-points")]
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Faults {
    /// The self-test of this name fails.
    #[arg(long, value_name = "NAME")]
    fault: Option<String>,
    /// It fails from the signal SIGUSR1 on.
    #[arg(long, value_name = "NAME")]
    fault_on_signal: Option<String>,
    /// The service panics at the signal SIGUSR2.
    #[arg(long)]
    panic_on_signal: bool,
    /// The process is not left when it ends, so that its memory can be looked at.
    #[arg(long)]
    hold: bool,
}

/// What is set.
#[derive(Debug)]
pub(crate) struct Settings {
    address: Option<SocketAddr>,
    self_test_period: Duration,
}

impl Settings {
    /// Joins flags and file.
    pub(crate) fn join(
        flags: &OperationsFlags,
        address: Option<SocketAddr>,
        self_test_seconds: Option<u64>,
    ) -> anyhow::Result<Self> {
        let address = flags.operations.or(address);
        let named = address.is_none_or(|address| !address.ip().is_unspecified());
        ensure!(named, "operations names one address: whoever reaches it is told without asking");
        let seconds = flags.self_test_seconds.or(self_test_seconds);
        let self_test_period = seconds.map_or(SELF_TEST_PERIOD_MAX, Duration::from_secs);
        let allowed = Duration::from_secs(1)..=SELF_TEST_PERIOD_MAX;
        ensure!(allowed.contains(&self_test_period), "self-test-seconds is 1 to 86400");
        Ok(Self { address, self_test_period })
    }

    /// Opens what is to be opened.
    pub(crate) async fn open(&self) -> anyhow::Result<Operations> {
        let listener = match self.address {
            Some(address) => {
                let listener = TcpListener::bind(address).await;
                let listener =
                    listener.with_context(|| format!("can not tell of health on {address}"))?;
                tracing::info!(address = %listener.local_addr()?, "operations");
                Some(listener)
            }
            None => None,
        };
        Ok(Operations {
            listener,
            program_digest: program_digest(),
            self_test_period: self.self_test_period,
            stopwatch: microseconds,
            serving: None,
            sealed: None,
        })
    }
}

/// SHA-256 of the program file that runs.
fn program_digest() -> Option<[u8; 32]> {
    let program = std::fs::read("/proc/self/exe").ok()?;
    Some(digest::sha256(&[&program]))
}

/// Microseconds since the first look.
#[allow(clippy::disallowed_methods, reason = "a stopwatch for how long calls take")]
fn microseconds() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    u64::try_from(FIRST.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Logs what does not protect the process.
pub(crate) fn log_hardening(protections: &[Protection]) {
    let lacking = protections.iter().filter(|protection| !protection.in_force);
    let lacking: Vec<_> = lacking.map(|protection| protection.name).collect();
    tracing::info!(?lacking, "process hardened");
}

/// Tells systemd that the service takes calls, sealed or open, and from then on that it is alive;
/// elsewhere nothing.
pub(crate) fn tell_ready() {
    tell(&[NotifyState::Ready]);
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    tokio::spawn(async move {
        // A runtime that turns no more says nothing.
        let mut beat = tokio::time::interval(patience / 3);
        loop {
            beat.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    });
}

/// Tells systemd, and the log, how the seal stands.
pub(crate) fn tell_status(status: &str) {
    tracing::info!(status, "seal");
    tell(&[NotifyState::Status(status)]);
}

/// Tells systemd that the service drains.
pub(crate) fn tell_stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining: calls in flight may end")]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd was not told");
    }
}

/// Lets the chosen self-test fail, at once or at a signal; and more of what is chosen.
#[cfg(feature = "fault-points")]
pub(crate) fn set_faults(faults: &Faults) -> anyhow::Result<()> {
    use firstkey::crypto::fault_points;
    use tokio::signal::unix::{SignalKind, signal};

    if let Some(name) = &faults.fault {
        fault_points::set(name.clone());
    }
    if let Some(name) = faults.fault_on_signal.clone() {
        let mut chosen = signal(SignalKind::user_defined1())?;
        tokio::spawn(async move {
            chosen.recv().await;
            fault_points::set(name);
        });
    }
    HELD.store(faults.hold, Ordering::Relaxed);
    Ok(())
}

/// Waits as before, or panics at the chosen signal.
#[cfg(feature = "fault-points")]
pub(crate) fn or_panic(
    waiting: impl Future<Output = ()>,
    faults: &Faults,
) -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut chosen = signal(SignalKind::user_defined2())?;
    let panics = faults.panic_on_signal;
    Ok(async move {
        tokio::select! {
            () = waiting => {}
            _ = chosen.recv(), if panics => panic!("by a fault point"),
        }
    })
}

#[cfg(feature = "fault-points")]
static HELD: AtomicBool = AtomicBool::new(false);

/// The last value to be let go, also by a panic: where that is chosen, the process stays then.
#[cfg(feature = "fault-points")]
pub(crate) struct HoldPoint;

#[cfg(feature = "fault-points")]
impl Drop for HoldPoint {
    fn drop(&mut self) {
        if HELD.load(Ordering::Relaxed) {
            tracing::info!("held at its end");
            loop {
                std::thread::park();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_and_the_period_at_most_a_day() {
        let flags = OperationsFlags::default();
        let join = |address: &str, seconds| {
            Settings::join(&flags, Some(address.parse().unwrap()), Some(seconds)).is_ok()
        };
        assert!(join("127.0.0.1:9464", 86_400));
        assert!(join("[::1]:9464", 1));
        assert!(!join("0.0.0.0:9464", 86_400));
        assert!(!join("[::]:9464", 86_400));
        assert!(!join("127.0.0.1:9464", 0));
        assert!(!join("127.0.0.1:9464", 86_401));
    }
}
