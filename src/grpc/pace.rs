//! How many calls are taken: of each caller, of each address that shows no certificate, at once.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::places::{Place, Places};
use crate::vault::{self, Action, Caller, Rates, Role, Vault};

/// How many calls the service takes, and how long it waits for a message.
///
/// A rate is a bucket that is filled evenly: who was quiet may make the calls of a whole minute at
/// once. A rate of 0 is no limit. The caller of a development service, which serves loopback alone
/// and asks for no certificate, has none of these limits but the last.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallLimits {
    /// Calls of one caller in a minute, where the policy says nothing else of it.
    pub per_minute: u32,
    /// Calls of one caller at once, without its streams.
    pub at_once: usize,
    /// Streams of one caller at once: it watches terminals, or the audit log is exported.
    pub streams_at_once: usize,
    /// Calls in a minute from one address without a certificate that the policy knows.
    pub unknown_per_minute: u32,
    /// Calls in a minute from all such addresses together.
    pub unknown_per_minute_total: u32,
    /// Calls at once from one such address.
    pub unknown_at_once: usize,
    /// Calls at once from all such addresses together.
    pub unknown_at_once_total: usize,
    /// How long the message of a call may take to arrive, in seconds.
    pub message_seconds: u64,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            // A switch at a thousand transactions a second, with a minute's worth in one burst.
            per_minute: 60_000,
            at_once: 1_024,
            streams_at_once: 8,
            // An activation takes about ten calls: a hundred and twenty terminals in a minute
            // behind one address.
            unknown_per_minute: 1_200,
            unknown_per_minute_total: 12_000,
            unknown_at_once: 32,
            unknown_at_once_total: 256,
            message_seconds: 10,
        }
    }
}

/// Whose calls are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Who {
    Address(Option<IpAddr>),
    Caller(String),
}

/// Keeps callers to their limits.
pub(super) struct Pace {
    limits: CallLimits,
    known: Arc<Places<Who>>,
    streaming: Arc<Places<Who>>,
    unknown: Arc<Places<Who>>,
    /// The buckets while there is no vault to hold them.
    outside: Rates,
}

impl Pace {
    pub(super) fn new(limits: CallLimits) -> Self {
        let known = Places::new(limits.at_once, usize::MAX);
        let streaming = Places::new(limits.streams_at_once, usize::MAX);
        let unknown = Places::new(limits.unknown_at_once, limits.unknown_at_once_total);
        Self { limits, known, streaming, unknown, outside: Rates::default() }
    }

    /// How long the message of a call may take to arrive.
    pub(super) const fn message_time_max(&self) -> Duration {
        Duration::from_secs(self.limits.message_seconds)
    }

    /// Lets a call begin, or refuses it because its caller makes too many. The place is the call's
    /// until its answer has left.
    pub(super) fn begin(
        &self,
        vault: &Vault,
        caller: &Caller,
        action: Action,
        address: Option<IpAddr>,
    ) -> Result<Option<Place<Who>>, vault::Error> {
        match caller.role() {
            None => Ok(None),
            Some(Role::Stranger | Role::Terminal) => {
                self.take_unknown(vault.rates(), address)?;
                self.place_of_unknown(address).map(Some)
            }
            Some(_) => {
                vault.rates().take(self.per_minute(vault, caller), &["caller", caller.name()])?;
                let places = if is_stream(action) { &self.streaming } else { &self.known };
                places.take(Who::Caller(caller.name().to_owned())).map(Some).ok_or(BUSY)
            }
        }
    }

    /// The place of a call of who shows no certificate that the policy knows.
    pub(super) fn place_of_unknown(
        &self,
        address: Option<IpAddr>,
    ) -> Result<Place<Who>, vault::Error> {
        self.unknown.take(Who::Address(address.map(source_of))).ok_or(BUSY)
    }

    /// Takes the rest of the calls whose work one message does out of its caller's bucket: one was
    /// taken when it began. Where there are more than the bucket holds, it has to be full.
    pub(super) fn take_rest(
        &self,
        vault: &Vault,
        caller: &Caller,
        calls: u32,
    ) -> Result<(), vault::Error> {
        if caller.role().is_none() {
            return Ok(());
        }
        let per_minute = self.per_minute(vault, caller);
        let rest = calls.min(per_minute).saturating_sub(1);
        let taken = vault.rates().take_many(per_minute, rest, &["caller", caller.name()]);
        taken.map_err(|error| match error {
            // Who comes back begins anew, and needs the first as well.
            vault::Error::RateLimited { retry_after_ms } => {
                let one_ms = MINUTE_MS.div_ceil(u64::from(per_minute.max(1)));
                vault::Error::RateLimited { retry_after_ms: retry_after_ms.saturating_add(one_ms) }
            }
            other @ (vault::Error::AttributeInvalid { .. }
            | vault::Error::BudgetSpent { .. }
            | vault::Error::Conflict
            | vault::Error::Internal { .. }
            | vault::Error::Refused(_)
            | vault::Error::Unavailable) => other,
        })
    }

    /// How many calls a caller may make in a minute; 0 is no limit.
    fn per_minute(&self, vault: &Vault, caller: &Caller) -> u32 {
        let policy = vault.policy();
        let own = policy.principal(caller.name()).map_or(0, |one| one.calls_per_minute_max);
        if own == 0 { self.limits.per_minute } else { own }
    }

    /// Takes a call out of the buckets of all who call while the vault is sealed.
    pub(super) fn take_outside(&self, address: Option<IpAddr>) -> Result<(), vault::Error> {
        // Few call then, so that this costs little; and whoever does takes up no memory for long.
        self.outside.tidy();
        self.take_unknown(&self.outside, address)
    }

    /// Takes a call out of the buckets of those who show no certificate that the policy knows.
    pub(super) fn take_unknown(
        &self,
        rates: &Rates,
        address: Option<IpAddr>,
    ) -> Result<(), vault::Error> {
        // The address first: who alone is too many takes nothing from all the others.
        let source = address.map_or_else(String::new, |address| source_of(address).to_string());
        rates.take(self.limits.unknown_per_minute, &["address", &source])?;
        rates.take(self.limits.unknown_per_minute_total, &["addresses"])
    }
}

/// A call that found no place is worth trying again after a second.
const BUSY: vault::Error = vault::Error::RateLimited { retry_after_ms: 1_000 };

/// Whether the answer of a call goes on for as long as its caller likes.
const fn is_stream(action: Action) -> bool {
    matches!(action, Action::ExportEvents | Action::WatchTerminals)
}

const MINUTE_MS: u64 = 60_000;

/// The address that stands for whoever holds it: of IPv6, the network of 64 bits that one
/// subscriber is given (RFC 4291, 2.5.1).
#[must_use]
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_of_many_addresses_is_one_source() {
        for (address, source) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(source_of(address).to_string(), source);
        }
    }

    #[test]
    fn who_alone_is_too_many_takes_nothing_from_the_others() {
        let limits = CallLimits {
            unknown_per_minute: 2,
            unknown_per_minute_total: 3,
            ..CallLimits::default()
        };
        let (pace, rates) = (Pace::new(limits), Rates::default());
        let take = |address: &str| {
            pace.take_unknown(&rates, Some(address.parse().expect("an address"))).is_ok()
        };
        let flood: Vec<bool> = (0..5).map(|_| take("192.0.2.1")).collect();
        assert_eq!(flood, [true, true, false, false, false]);
        assert!(take("192.0.2.2"));
        assert!(!take("192.0.2.3"), "all together have had theirs");
    }

    #[test]
    fn a_limit_that_nobody_knows_is_refused() {
        let read: Result<CallLimits, _> = toml::from_str("per_minute = 5\nmessage_second = 3\n");
        assert!(read.unwrap_err().to_string().contains("message_second"));
        let read: CallLimits = toml::from_str("per_minute = 5").expect("one limit");
        assert_eq!(read, CallLimits { per_minute: 5, ..CallLimits::default() });
    }
}
