//! `firstkey terminal simulate --count N`: a fleet, and its report.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use firstkey::crypto::rng::{Rng as _, SystemRng};
use firstkey::server::fleet::{CallReport, Fleet, Order, Progress, Report};
use firstkey::vault::Clock as _;
use serde_json::json;

use super::show::row;
use crate::cli::{Output, Simulate};
use crate::connect::connect;
use crate::shared::{SystemClock, development};
use crate::{exit, print};

#[allow(clippy::disallowed_methods, reason = "a stopwatch for what is printed")]
pub(super) async fn run(
    arguments: Simulate,
    count: u32,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.server).await?;
    let pki = arguments.pki.context("a fleet needs --pki DIR")?;
    let wanted = arguments.fleet;
    let rng = SystemRng::new();
    let mut drawn = [0; 4];
    rng.fill(&mut drawn)?;
    let seed = wanted.seed.unwrap_or(u32::from_be_bytes(drawn));
    let began = Instant::now();
    let registering = print::progress("registering", count);
    let activating = print::progress("activating", count);
    let bars = (registering.clone(), activating.clone());
    let fleet = Fleet {
        client,
        pki: development::read_pki(&pki)?,
        kek: development::read_keys(&arguments.keys)?.key_encryption_key()?,
        rng: Arc::new(rng),
        now: Arc::new(|| SystemClock.now().seconds()),
        stopwatch: Arc::new(move || u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)),
        tell: Arc::new(move |progress| match progress {
            Progress::Registered(all) if all >= count => bars.0.finish_and_clear(),
            Progress::Registered(some) => bars.0.set_position(some.into()),
            Progress::Done(some) => bars.1.set_position(some.into()),
        }),
        order: Order {
            terminals: count,
            concurrency: wanted.concurrency,
            lose_percent: wanted.lose,
            transactions: wanted.transactions,
            seed,
        },
    };
    let report = fleet.run().await;
    registering.finish_and_clear();
    activating.finish_and_clear();
    let report = report?;
    print(&report, output);
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::from(exit::UNSOUND) })
}

fn print(report: &Report, output: Output) {
    if output == Output::Json {
        let mut value = json!(report);
        value["sound"] = report.is_sound().into();
        print::line(&value.to_string());
        return;
    }
    let mut rows = vec![row(&["CALL", "COUNT", "P50 MS", "P99 MS", "RETRIES", "FAILURES"])];
    rows.extend(report.calls.iter().map(call_row));
    print::table(&rows);
    let Report { seed, terminals, took_ms, replies_lost, active, initial_key_ids, .. } = report;
    let seconds = format!("{}.{} s", took_ms / 1_000, took_ms % 1_000 / 100);
    print::line(&format!(
        "\n{terminals} terminals in {seconds}, seed {seed}: {active} active, {initial_key_ids} \
         different initial key ids, {replies_lost} replies lost"
    ));
    for fault in &report.faults {
        print::line(&format!("not as it must be: {fault}"));
    }
    print::line(if report.is_sound() {
        "each is active exactly once, with an initial key id of its own"
    } else {
        "not every terminal is active exactly once with an initial key id of its own"
    });
}

fn call_row(call: &CallReport) -> Vec<String> {
    let ms = |us: u64| format!("{}.{}", us / 1_000, us % 1_000 / 100);
    let failures = call.failures.iter().map(|(reason, count)| format!("{count} {reason}"));
    let failures = failures.collect::<Vec<_>>().join(", ");
    vec![
        call.call.to_owned(),
        call.count.to_string(),
        ms(call.p50_us),
        ms(call.p99_us),
        call.retries.to_string(),
        failures,
    ]
}
