//! Durable budgets of failures: how often something may go wrong before it is closed for a while.
//!
//! A place in the budget is reserved before anything is decrypted and given back on success, so
//! calls that run at once can not fail more often than the budget has places. What failed is kept
//! in the store: a restart gives nothing back.

use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;
use super::record::{Kind, Record};

/// What may fail only so often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Budget {
    /// MACs that do not verify, per terminal, or per caller and key. Nor may more than the budget
    /// has places be verified at once for one of them.
    Mac,
    /// PIN blocks that are rejected, per terminal or caller, and PAN.
    Pin,
}

impl Budget {
    /// How many failures fit in one interval.
    #[must_use]
    pub const fn failures_max(self) -> usize {
        match self {
            Self::Mac => 100,
            Self::Pin => 3,
        }
    }

    /// The interval in milliseconds: one hour.
    #[must_use]
    pub const fn interval_ms(self) -> u64 {
        match self {
            Self::Mac | Self::Pin => HOUR_MS,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Mac => "mac",
            Self::Pin => "pin",
        }
    }
}

pub(super) const HOUR_MS: u64 = 60 * 60 * 1_000;

/// How long to wait when places are only reserved, not spent: the calls under way end soon.
const RESERVED_RETRY_MS: u64 = 1_000;

/// The failures of one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failures {
    id: String,
    /// When it failed, oldest first.
    times: Vec<UnixMillis>,
}

impl Record for Failures {
    const KIND: Kind = Kind::new("budget");

    fn id(&self) -> String {
        self.id.clone()
    }

    /// The hour after which it says nothing more, to be purged by.
    fn index(&self) -> Option<String> {
        let last = self.times.last()?;
        Some(hour_bucket(last.plus_ms(HOUR_MS)))
    }
}

impl Failures {
    pub(super) const fn new(id: String) -> Self {
        Self { id, times: Vec::new() }
    }

    /// Tells whether one more may fail while `reserved` others are under way.
    pub(super) fn admit(
        &self,
        budget: Budget,
        reserved: usize,
        now: UnixMillis,
    ) -> Result<(), RetryAfterMs> {
        let recent: Vec<UnixMillis> = self.recent(budget, now).collect();
        if recent.len() + reserved < budget.failures_max() {
            return Ok(());
        }
        match recent.first() {
            Some(oldest) if recent.len() >= budget.failures_max() => {
                Err(RetryAfterMs(oldest.plus_ms(budget.interval_ms()).since_ms(now)))
            }
            Some(_) | None => Err(RetryAfterMs(RESERVED_RETRY_MS)),
        }
    }

    /// Notes a failure and forgets those that no longer count.
    pub(super) fn charge(&mut self, budget: Budget, now: UnixMillis) {
        self.times = self.recent(budget, now).collect();
        self.times.push(now);
    }

    fn recent(&self, budget: Budget, now: UnixMillis) -> impl Iterator<Item = UnixMillis> + '_ {
        let interval_ms = budget.interval_ms();
        self.times.iter().copied().filter(move |time| now.since_ms(*time) < interval_ms)
    }
}

/// When it is worth trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RetryAfterMs(pub(super) u64);

/// The hour in which a moment lies, in a form whose byte order is the order of time.
pub(super) fn hour_bucket(time: UnixMillis) -> String {
    format!("{:010}", time.0 / HOUR_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_after_its_failures_and_opens_an_hour_after_the_first() {
        let mut failures = Failures::new("x".into());
        for minute in 0..3 {
            let now = UnixMillis(minute * 60_000);
            assert_eq!(failures.admit(Budget::Pin, 0, now), Ok(()));
            failures.charge(Budget::Pin, now);
        }
        let now = UnixMillis(10 * 60_000);
        assert_eq!(failures.admit(Budget::Pin, 0, now), Err(RetryAfterMs(50 * 60_000)));
        assert_eq!(failures.admit(Budget::Pin, 0, UnixMillis(HOUR_MS)), Ok(()));
    }

    #[test]
    fn places_under_way_count() {
        let failures = Failures::new("x".into());
        assert_eq!(failures.admit(Budget::Pin, 2, UnixMillis(0)), Ok(()));
        let full = failures.admit(Budget::Pin, 3, UnixMillis(0));
        assert_eq!(full, Err(RetryAfterMs(RESERVED_RETRY_MS)));
    }
}
