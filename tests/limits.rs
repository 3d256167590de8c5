//! Attacks the real service from the network, and measures a healthy client meanwhile.
//!
//! The attackers have no certificate and connect over TLS all the same, as terminals do, from
//! addresses of their own. The client is a backend with its certificate; it makes calls on a
//! connection of its own: for a while in quiet, then while an attack goes on, then in quiet again.
//! What the service promises about each attack is counted, and so is its memory. The attackers run
//! on the same machine as the service and take a share of it, which the figures contain.

#![allow(clippy::large_futures, reason = "each attack holds the frames that it sends")]

#[path = "limits/attacks.rs"]
mod attacks;
#[path = "setup/firstkeyd.rs"]
mod firstkeyd;
#[path = "limits/service.rs"]
mod service;
#[path = "limits/wire.rs"]
mod wire;

use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use firstkey::grpc::client::Client;
use firstkey::grpc::proto::working_key::Key;
use firstkey::grpc::proto::{GenerateMacRequest, MacAlgorithm, VerifyMacRequest, WorkingKey};
use tokio_util::sync::CancellationToken;

use crate::attacks::{Attack, Tally, run};
use crate::service::Service;

/// How long the client is measured in quiet, and under attack.
const QUIET: Duration = Duration::from_secs(2);
const UNDER_ATTACK: Duration = Duration::from_millis(6_500);

/// How much slower a healthy client may become (of a hundred calls all but one).
const RATIO_MAX: f64 = 5.0;

/// What counts as quiet at the least: below this the machine's own hiccups would decide.
const QUIET_MIN: Duration = Duration::from_millis(5);

/// How often an attack is measured again when the client was too slow: other work on the machine
/// may have been the cause. What an attack itself does to the client it does each time.
const RETRIES_MAX: usize = 2;

/// What the service may hold in memory under attack beyond what it held before, in KiB.
const MEMORY_MAX_KIB: u64 = 160 * 1024;

#[test]
fn a_healthy_client_goes_on_under_each_attack() {
    let service = Service::start();
    let (before_kib, _) = service.memory_kib();
    let client = Healthy::connect(&service);
    client.measure(Duration::from_secs(1));
    let mut quiet = client.measure(QUIET);
    tell(&format!("\n{HEAD}"));
    let mut faults = Vec::new();
    for attack in Attack::ALL {
        let mut tries = 0;
        let row = loop {
            let row = under(attack, quiet, &client, &service);
            // What is quiet after one attack is so before the next.
            quiet = row.quiet[1];
            if row.ratio() < RATIO_MAX || tries == RETRIES_MAX {
                break row;
            }
            tries += 1;
        };
        assert!(service.runs(), "{attack:?}: the service ended");
        tell(&row.line(attack, tries));
        if row.ratio() >= RATIO_MAX {
            faults.push(format!("{attack:?}: the client became {:.1} times as slow", row.ratio()));
        }
        let broken = row.tally.broken.load(Ordering::Relaxed);
        let kept = row.tally.kept.load(Ordering::Relaxed);
        if broken > 0 || (kept == 0 && attack.ends()) {
            faults.push(format!("{attack:?}: {broken} promises were broken, {kept} kept"));
        }
        if row.rss_kib > before_kib + MEMORY_MAX_KIB {
            faults.push(format!("{attack:?}: the service held {} KiB", row.rss_kib));
        }
    }
    let (_, peak_kib) = service.memory_kib();
    tell(&format!("memory: {} MiB before, {} MiB at most\n", before_kib / 1024, peak_kib / 1024));
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(peak_kib < before_kib + MEMORY_MAX_KIB, "{peak_kib} KiB at most");
}

/// One attack, with what the client saw of it.
fn under(attack: Attack, first: Figures, client: &Healthy, service: &Service) -> Row {
    let stop = CancellationToken::new();
    let target = service.target();
    let (attacked, tally, rss_kib, descriptors) = std::thread::scope(|scope| {
        let attack_running = scope.spawn(|| {
            // On a machine of their own they would not take the service's time; here they give
            // way, a little.
            rustix::process::nice(10).expect("less is always granted");
            runtime().block_on(run(attack, target, stop.clone()))
        });
        // What is measured is the attack under way, not its beginning.
        std::thread::sleep(Duration::from_millis(300));
        let attacked = client.measure(UNDER_ATTACK);
        let (rss_kib, _) = service.memory_kib();
        let descriptors = service.descriptors();
        stop.cancel();
        let tally = match attack_running.join() {
            Ok(tally) => tally,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        (attacked, tally, rss_kib, descriptors)
    });
    let last = client.measure(QUIET);
    Row { quiet: [first, last], attacked, tally, rss_kib, descriptors }
}

struct Row {
    quiet: [Figures; 2],
    attacked: Figures,
    tally: Tally,
    rss_kib: u64,
    descriptors: usize,
}

const HEAD: &str = "attack             connections   cut      sent  quiet p99  under p99  ratio  \
                    calls/s   RSS  files\n";

impl Row {
    /// Of the two quiet times the slower: the machine was that slow without an attack.
    fn quiet(&self) -> Duration {
        self.quiet.iter().map(|figures| figures.p99).max().unwrap_or_default().max(QUIET_MIN)
    }

    fn ratio(&self) -> f64 {
        self.attacked.p99.as_secs_f64() / self.quiet().as_secs_f64()
    }

    fn line(&self, attack: Attack, tries: usize) -> String {
        let count = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1_000.0);
        format!(
            "{:<18} {:>11} {:>5} {:>5} MiB {:>10} {:>10} {:>6.2} {:>8.0} {:>5} {:>5}{}\n",
            format!("{attack:?}"),
            count(&self.tally.connections),
            count(&self.tally.kept),
            count(&self.tally.sent_bytes) / 1024 / 1024,
            ms(self.quiet.iter().map(|figures| figures.p99).max().unwrap_or_default()),
            ms(self.attacked.p99),
            self.ratio(),
            self.attacked.calls_per_second,
            self.rss_kib / 1024,
            self.descriptors,
            match tries {
                0 => String::new(),
                _ => format!("  (measured {} times)", tries + 1),
            },
        )
    }
}

/// A backend that makes MACs and has them verified, one call after the other.
struct Healthy {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

#[derive(Clone, Copy)]
struct Figures {
    p99: Duration,
    calls_per_second: f64,
}

impl Healthy {
    fn connect(service: &Service) -> Self {
        // With a thread of its own, so that its connection lives on between the measurements.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().expect("a runtime");
        let url = format!("https://localhost:{}", service.address.port());
        let client = runtime.block_on(Client::connect_with(&url, &service.credentials()));
        Self { runtime, client: client.expect("the service answers") }
    }

    /// Makes calls for a while; each must succeed.
    fn measure(&self, time: Duration) -> Figures {
        let mut took = Vec::new();
        self.runtime.block_on(async {
            let since = clock();
            while clock().saturating_sub(since) < time {
                let begun = clock();
                let mac = self.generate().await;
                let generated = clock();
                self.verify(mac).await;
                took.extend([generated.saturating_sub(begun), clock().saturating_sub(generated)]);
            }
        });
        took.sort_unstable();
        let calls = u32::try_from(took.len()).expect("not so many");
        Figures {
            p99: took[took.len() * 99 / 100],
            calls_per_second: f64::from(calls) / time.as_secs_f64(),
        }
    }

    async fn generate(&self) -> Vec<u8> {
        let request = GenerateMacRequest {
            key: Some(key()),
            algorithm: MacAlgorithm::AesCmac.into(),
            message: MESSAGE.to_vec(),
            mac_length_bytes: 16,
            ..GenerateMacRequest::default()
        };
        let answer = self.client.macs().generate_mac(request).await;
        answer.expect("a healthy client is served").into_inner().mac
    }

    async fn verify(&self, mac: Vec<u8>) {
        let request = VerifyMacRequest {
            key: Some(key()),
            algorithm: MacAlgorithm::AesCmac.into(),
            message: MESSAGE.to_vec(),
            mac,
            ..VerifyMacRequest::default()
        };
        let answer = self.client.macs().verify_mac(request).await;
        answer.expect("a healthy client is served");
    }
}

fn key() -> WorkingKey {
    WorkingKey { key: Some(Key::StaticKey("keys/dev-mac".to_owned())) }
}

const MESSAGE: &[u8] = b"0200 a healthy client's message";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[allow(clippy::disallowed_methods, reason = "a measurement is of the time that goes by")]
fn clock() -> Duration {
    static BEGAN: std::sync::LazyLock<std::time::Instant> =
        std::sync::LazyLock::new(std::time::Instant::now);
    BEGAN.elapsed()
}

/// Onto the terminal whatever the test runner captures: the table is what the test is for.
fn tell(line: &str) {
    // A closed standard error is no reason to fail.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
