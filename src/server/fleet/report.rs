//! What a fleet did, in figures.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Order;
use super::judge::Judgement;
use super::wire::{Measured, Wire};
use crate::grpc::client::ClientError;

/// The calls of a terminal's life, in their order.
const CALLS: [&str; 11] = [
    "BatchCreateTerminals",
    "IssueActivationCode",
    "BeginActivation",
    "DeliverKeys",
    "ConfirmKeys",
    "GetParameters",
    "ReportStep",
    "RunTestTransaction",
    "EnableTerminal",
    "VerifyMac",
    "TranslatePin",
];

/// What a fleet did, and whether all of it is as it must be.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The seed that it began with.
    pub seed: u32,
    /// How many terminals it has.
    pub terminals: u32,
    /// How many were busy at the same time.
    pub concurrency: u32,
    /// How many of a hundred replies were to be lost.
    pub lose_percent: u8,
    /// How many transactions each was to make.
    pub transactions: u32,
    /// How long all of it took, in milliseconds.
    pub took_ms: u64,
    /// How many replies were lost on purpose.
    pub replies_lost: u64,
    /// What became of each call, in the order of a terminal's life.
    pub calls: Vec<CallReport>,
    /// How many terminals the service says are active.
    pub active: u32,
    /// How many different initial key ids they have.
    pub initial_key_ids: u32,
    /// What is not as it must be; at most the first hundred.
    pub faults: Vec<String>,
}

/// What became of the calls of one name.
#[derive(Clone, Debug, Serialize)]
pub struct CallReport {
    /// The call.
    pub call: &'static str,
    /// How often it was made.
    pub count: u64,
    /// The time that half of them took at most, in microseconds.
    pub p50_us: u64,
    /// The time that 99 of a hundred took at most, in microseconds.
    pub p99_us: u64,
    /// How many of them repeated one before.
    pub retries: u64,
    /// How many terminals failed there, by reason.
    pub failures: BTreeMap<String, u64>,
}

impl Report {
    /// Whether each terminal is active, once, with an initial key id that no other has.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let failed = self.calls.iter().any(|call| !call.failures.is_empty());
        let each = (self.terminals, self.terminals);
        (self.active, self.initial_key_ids) == each && self.faults.is_empty() && !failed
    }
}

/// What was measured so far.
#[derive(Default)]
pub(super) struct Tally {
    calls: BTreeMap<&'static str, Measured>,
    failures: BTreeMap<&'static str, BTreeMap<String, u64>>,
    lost: u64,
}

impl Tally {
    /// Adds what went over a line.
    pub(super) fn add(&mut self, wire: Wire) {
        self.lost += wire.lost;
        for (call, measured) in wire.calls {
            let all = self.calls.entry(call).or_default();
            all.took_us.extend(measured.took_us);
            all.retries += measured.retries;
        }
    }

    /// Counts a terminal that failed.
    pub(super) fn failure(&mut self, call: &'static str, reason: &str) {
        let failures = self.failures.entry(call).or_default();
        *failures.entry(reason.to_owned()).or_default() += 1;
    }

    pub(super) fn report(mut self, order: Order, took_us: u64, judgement: Judgement) -> Report {
        let calls = CALLS.into_iter().filter_map(|call| {
            let mut measured = self.calls.remove(call)?;
            measured.took_us.sort_unstable();
            Some(CallReport {
                call,
                count: u64::try_from(measured.took_us.len()).unwrap_or(u64::MAX),
                p50_us: percentile(&measured.took_us, 50),
                p99_us: percentile(&measured.took_us, 99),
                retries: measured.retries,
                failures: self.failures.remove(call).unwrap_or_default(),
            })
        });
        Report {
            seed: order.seed,
            terminals: order.terminals,
            concurrency: order.concurrency,
            lose_percent: order.lose_percent,
            transactions: order.transactions,
            took_ms: took_us / 1_000,
            replies_lost: self.lost,
            calls: calls.collect(),
            active: judgement.active,
            initial_key_ids: judgement.initial_key_ids,
            faults: judgement.faults,
        }
    }
}

/// The least of the sorted values that so many of a hundred do not exceed; 0 of none.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Why a call failed, in one word where there is one.
pub(super) fn reason(error: &ClientError) -> String {
    match error.reason() {
        Some(reason) if !reason.is_empty() => reason.to_owned(),
        Some(_) | None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!((percentile(&hundred, 50), percentile(&hundred, 99)), (50, 99));
        assert_eq!((percentile(&[3, 9], 50), percentile(&[3, 9], 99)), (3, 9));
        assert_eq!(percentile(&[], 99), 0);
    }
}
