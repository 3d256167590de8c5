//! Rates: how many calls somebody may make in a minute.
//!
//! They are limits of load and live in memory: a restart forgets them, and each replica counts for
//! itself. What guesses cost stands in the store, see [`Budget`](super::Budget).
//!
//! A rate of `n` is a bucket of `n` calls that fills evenly within a minute: who was quiet may make
//! `n` at once, who goes on may make one in each `n`-th of a minute.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use super::error::Error;

/// How many subjects are told apart by one rate between two tidyings.
const SUBJECTS_MAX: usize = 100_000;

/// How many messages of one terminal are taken in a minute: far more than somebody who swipes cards
/// can cause, so that a terminal that runs wild keeps none of the others waiting.
const TERMINAL_PER_MINUTE: u32 = 6_000;

/// The buckets of all rates. The time is the machine's own since it started, not the time of day:
/// a clock that is set back keeps nobody waiting.
#[derive(Default)]
pub struct Rates {
    limiters: Mutex<Limiters>,
}

/// By the calls in a minute.
type Limiters = HashMap<NonZeroU32, Arc<Limiter>>;

type Limiter = RateLimiter<String, HashMapStateStore<String>, MonotonicClock, NoOpMiddleware<Time>>;
type Time = <MonotonicClock as governor::clock::Clock>::Instant;

impl Rates {
    /// Takes one call out of the bucket of a subject, or refuses it with
    /// [`Error::RateLimited`]; a rate of 0 is none.
    ///
    /// `subject` says whose bucket it is, its first part what sort of bucket: one rate has one
    /// bucket for each.
    pub fn take(&self, per_minute: u32, subject: &[&str]) -> Result<(), Error> {
        self.take_many(per_minute, 1, subject)
    }

    /// Takes so many calls out of the bucket of a subject, all or none; where there are more than
    /// it holds, all that it holds.
    pub fn take_many(&self, per_minute: u32, calls: u32, subject: &[&str]) -> Result<(), Error> {
        let Some(calls) = NonZeroU32::new(calls.min(per_minute)) else { return Ok(()) };
        let Some(per_minute) = NonZeroU32::new(per_minute) else { return Ok(()) };
        let limiter = self.limiter(per_minute);
        // No part of a subject holds a line end: names are printable.
        let taken = limiter.check_key_n(&subject.join("\n"), calls);
        taken.expect("no more are taken than the bucket holds").map_err(|until| {
            let wait = until.wait_time_from(limiter.clock().now());
            let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            // Rounded up: who comes back then is let in.
            Error::RateLimited { retry_after_ms: ms.saturating_add(1) }
        })
    }

    /// Takes one message of a terminal, whoever brings it.
    pub fn take_terminal(&self, id: &str) -> Result<(), Error> {
        self.take(TERMINAL_PER_MINUTE, &["terminal", id])
    }

    /// Forgets buckets that are full again, which are as good as none, and rates without buckets.
    /// Meanwhile callers wait for nobody's buckets but those of their own rate.
    pub fn tidy(&self) {
        let limiters: Vec<_> = self.lock().values().cloned().collect();
        for limiter in limiters {
            limiter.retain_recent();
        }
        // Whoever holds one is about to take from it.
        self.lock().retain(|_, limiter| Arc::strong_count(limiter) > 1 || !limiter.is_empty());
    }

    fn limiter(&self, per_minute: NonZeroU32) -> Arc<Limiter> {
        let known = |limiters: &mut Limiters| {
            Arc::clone(limiters.entry(per_minute).or_insert_with(|| fresh(per_minute)))
        };
        let limiter = known(&mut self.lock());
        if limiter.len() < SUBJECTS_MAX {
            return limiter;
        }
        // Who invents so many names at once fills every bucket anew: a limit of load must neither
        // stop those who are genuine nor take up the memory.
        let mut limiters = self.lock();
        let now = known(&mut limiters);
        if !Arc::ptr_eq(&limiter, &now) {
            return now;
        }
        let fresh = fresh(per_minute);
        limiters.insert(per_minute, Arc::clone(&fresh));
        fresh
    }

    /// Nothing waits while it holds this.
    fn lock(&self) -> MutexGuard<'_, Limiters> {
        self.limiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fresh(per_minute: NonZeroU32) -> Arc<Limiter> {
    Arc::new(RateLimiter::hashmap_with_clock(Quota::per_minute(per_minute), MonotonicClock))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry_after_ms(taken: Result<(), Error>) -> Option<u64> {
        match taken {
            Err(Error::RateLimited { retry_after_ms }) => Some(retry_after_ms),
            _ => None,
        }
    }

    #[test]
    fn a_bucket_is_emptied_and_fills_again() {
        let rates = Rates::default();
        // One in 20 ms.
        let taken = (0..10_000).find_map(|_| retry_after_ms(rates.take(3_000, &["caller", "a"])));
        let wait = taken.expect("3,000 and a few more in a few milliseconds");
        assert!((1..=21).contains(&wait), "{wait}");
        std::thread::sleep(std::time::Duration::from_millis(wait));
        assert_eq!(rates.take(3_000, &["caller", "a"]), Ok(()));
    }

    #[test]
    fn many_are_taken_together_and_more_than_a_bucket_holds_take_all_of_it() {
        let rates = Rates::default();
        let take = |calls, subject| retry_after_ms(rates.take_many(4, calls, &["caller", subject]));
        assert_eq!((take(3, "a"), take(0, "a")), (None, None));
        let wait = take(2, "a").expect("one is left");
        assert!((14_000..=15_001).contains(&wait), "{wait}");
        assert_eq!(take(1, "a"), None, "and nothing was taken of it");
        assert_eq!(take(u32::MAX, "b"), None);
        assert!(take(1, "b").is_some());
        assert_eq!(rates.take_many(0, u32::MAX, &["caller", "b"]), Ok(()));
    }

    #[test]
    fn each_subject_and_each_rate_has_a_bucket_of_its_own() {
        let rates = Rates::default();
        for subject in [&["caller", "a"], &["caller", "b"], &["key", "a"]] {
            assert_eq!(rates.take(1, subject), Ok(()));
            let wait = retry_after_ms(rates.take(1, subject)).expect("the bucket is empty");
            assert!((59_000..=60_001).contains(&wait), "{wait}");
            assert_eq!(rates.take(2, subject), Ok(()));
        }
    }

    #[test]
    fn no_rate_is_no_limit() {
        let rates = Rates::default();
        assert!((0..100_000).all(|_| rates.take(0, &["caller", "a"]).is_ok()));
    }

    #[test]
    fn what_is_full_again_is_forgotten_and_so_is_a_rate_that_nobody_has() {
        let rates = Rates::default();
        // Full again in a tenth of a millisecond, and not within the test.
        for per_minute in [600_000, 1] {
            assert_eq!(rates.take(per_minute, &["caller", "a"]), Ok(()));
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
        rates.tidy();
        let known: Vec<u32> = rates.lock().keys().map(|rate| rate.get()).collect();
        assert_eq!(known, [1]);
        assert!(rates.take(1, &["caller", "a"]).is_err(), "a bucket that is in use is kept");
        // Who is about to take from a limiter does not lose it.
        let held = rates.limiter(NonZeroU32::new(600_000).unwrap());
        rates.tidy();
        assert!(Arc::ptr_eq(&held, &rates.limiter(NonZeroU32::new(600_000).unwrap())));
    }

    #[test]
    fn more_subjects_than_are_told_apart_begin_anew() {
        let rates = Rates::default();
        for number in 0..SUBJECTS_MAX {
            rates.take(1, &["caller", &number.to_string()]).unwrap();
        }
        assert_eq!(rates.take(1, &["caller", "late"]), Ok(()));
        assert_eq!(rates.limiter(NonZeroU32::MIN).len(), 1);
        assert!(retry_after_ms(rates.take(1, &["caller", "late"])).is_some());
    }
}
