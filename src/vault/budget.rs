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
    /// MACs that do not verify and are so short that one could be guessed: per terminal, per caller
    /// and initial key of a terminal that is not registered, or per caller and static key.
    Mac,
    /// PIN blocks that are rejected, for one PAN or one cryptogram.
    Pin,
    /// PIN blocks that are rejected, whatever PAN they come with: per terminal, per caller and
    /// initial key of a terminal that is not registered, or per caller and static key.
    PinRate,
}

impl Budget {
    /// How many failures fit in one interval.
    #[must_use]
    pub const fn failures_max(self) -> usize {
        match self {
            Self::Mac | Self::PinRate => 100,
            Self::Pin => 3,
        }
    }

    /// The interval in milliseconds: one hour.
    #[must_use]
    pub const fn interval_ms(self) -> u64 {
        match self {
            Self::Mac | Self::Pin | Self::PinRate => HOUR_MS,
        }
    }

    /// Whether it is the rate of a whole terminal or static key. Many genuine calls share such a
    /// budget: those under way at once wait for each other's places instead of being refused, and
    /// when it is spent the audit event of the refusal raises an alarm.
    #[must_use]
    pub const fn is_rate(self) -> bool {
        matches!(self, Self::Mac | Self::PinRate)
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Mac => "mac",
            Self::Pin => "pin",
            Self::PinRate => "pin_rate",
        }
    }
}

pub(super) const HOUR_MS: u64 = 60 * 60 * 1_000;

/// How long to wait when places are only reserved, not spent: the calls under way end soon.
pub(super) const RESERVED_RETRY_MS: u64 = 1_000;

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
    ) -> Result<(), Full> {
        let recent: Vec<UnixMillis> = self.recent(budget, now).collect();
        if recent.len() + reserved < budget.failures_max() {
            return Ok(());
        }
        match recent.first() {
            Some(oldest) if recent.len() >= budget.failures_max() => {
                let retry_after_ms = oldest.plus_ms(budget.interval_ms()).since_ms(now);
                Err(Full::Spent { retry_after_ms })
            }
            Some(_) | None => Err(Full::Reserved),
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

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The calls under way could fill the budget if all of them failed.
    Reserved,
    /// So many have failed.
    Spent {
        /// When the first of them no longer counts, from now.
        retry_after_ms: u64,
    },
}

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
        let spent = Err(Full::Spent { retry_after_ms: 50 * 60_000 });
        assert_eq!(failures.admit(Budget::Pin, 0, now), spent);
        assert_eq!(failures.admit(Budget::Pin, 0, UnixMillis(HOUR_MS)), Ok(()));
    }

    #[test]
    fn places_under_way_count() {
        let failures = Failures::new("x".into());
        assert_eq!(failures.admit(Budget::Pin, 2, UnixMillis(0)), Ok(()));
        assert_eq!(failures.admit(Budget::Pin, 3, UnixMillis(0)), Err(Full::Reserved));
    }
}
