//! Who has a place: connections that arrive, and those of which it is known who they are.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::limits::ConnectionLimits;
use crate::grpc::{Place, Places, source_of};
use crate::vault::Rates;

/// The connections of a service, over all its listeners.
///
/// Until the handshake is through nobody can be told apart but by address. So nobody is refused a
/// place to arrive at: whoever lingers there gives way. After it, who shows a certificate and who
/// shows none have places of their own.
pub(super) struct Crowd {
    limits: ConnectionLimits,
    arriving: Arc<Arriving>,
    certified: Arc<Places<String>>,
    uncertified: Arc<Places<IpAddr>>,
    rates: Rates,
}

impl Crowd {
    /// Nobody is there yet.
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        let arriving = Arc::new(Arriving { max: limits.arriving, queue: Mutex::default() });
        let certified = Places::new(limits.certified_per_name, limits.certified);
        let uncertified = Places::new(limits.uncertified_per_address, limits.uncertified);
        Arc::new(Self { limits, arriving, certified, uncertified, rates: Rates::default() })
    }

    pub(super) const fn limits(&self) -> &ConnectionLimits {
        &self.limits
    }

    /// Lets a connection arrive; none where its address connects too often.
    pub(super) fn arrive(&self, address: SocketAddr) -> Option<Arrival> {
        let source = source_of(address.ip());
        let subject = ["connections", &source.to_string()];
        if self.rates.take(self.limits.new_per_minute, &subject).is_err() {
            self.tell(source);
            return None;
        }
        Some(Arriving::arrive(&self.arriving, source))
    }

    /// Finds a place for a connection that has arrived, with the name in its certificate; none
    /// where it is too many.
    pub(super) fn settle(&self, address: SocketAddr, name: Option<&str>) -> Option<Seat> {
        let source = source_of(address.ip());
        let place = match name {
            Some(name) => self.certified.take(name.to_owned()).map(Held::Certified),
            None => self.uncertified.take(source).map(Held::Uncertified),
        };
        if place.is_none() {
            self.tell(source);
        }
        place.map(|place| Seat { source, _place: place })
    }

    /// Once in a minute: the log is no place to be flooded either.
    fn tell(&self, source: IpAddr) {
        if self.rates.take(1, &["told"]).is_ok() {
            let certified = self.certified.taken_by_all();
            let uncertified = self.uncertified.taken_by_all();
            tracing::warn!(%source, certified, uncertified, "connections are refused");
        }
    }
}

/// The place of a connection, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    source: IpAddr,
    _place: Held,
}

#[derive(Debug)]
enum Held {
    Certified(#[expect(dead_code, reason = "it is held")] Place<String>),
    Uncertified(#[expect(dead_code, reason = "it is held")] Place<IpAddr>),
}

impl Seat {
    /// The address that it comes from.
    pub(super) const fn source(&self) -> IpAddr {
        self.source
    }
}

/// Connections that are not through their handshake, in the order in which they came.
struct Arriving {
    max: usize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
}

struct Waiting {
    source: IpAddr,
    gives_way: CancellationToken,
}

impl Arriving {
    fn arrive(self: &Arc<Self>, source: IpAddr) -> Arrival {
        let mut queue = self.queue();
        while queue.waiting.len() >= self.max.max(1) {
            let Some(number) = queue.least_missed() else { break };
            if let Some(one) = queue.waiting.remove(&number) {
                one.gives_way.cancel();
            }
        }
        let (number, gives_way) = (queue.next, CancellationToken::new());
        queue.next = queue.next.wrapping_add(1);
        queue.waiting.insert(number, Waiting { source, gives_way: gives_way.clone() });
        Arrival { arriving: Arc::clone(self), number, gives_way }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// The oldest of the address that has most: so a flood from one address costs no other its
    /// handshake, and one from many addresses that of whoever takes longest.
    fn least_missed(&self) -> Option<u64> {
        let mut by_source: HashMap<IpAddr, usize> = HashMap::new();
        for one in self.waiting.values() {
            let count = by_source.entry(one.source).or_default();
            *count = count.saturating_add(1);
        }
        let most = by_source.values().max().copied()?;
        let of_most = |one: &Waiting| by_source.get(&one.source) == Some(&most);
        self.waiting.iter().find(|(_, one)| of_most(one)).map(|(number, _)| *number)
    }
}

/// The place of a connection that arrives, given back when it is dropped.
pub(super) struct Arrival {
    arriving: Arc<Arriving>,
    number: u64,
    gives_way: CancellationToken,
}

impl Arrival {
    /// Returns when another one has come in its place.
    pub(super) fn gives_way(&self) -> CancellationToken {
        self.gives_way.clone()
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.arriving.queue().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().expect("an address"), 40_000)
    }

    fn crowd() -> Arc<Crowd> {
        Crowd::new(ConnectionLimits {
            arriving: 3,
            certified: 3,
            certified_per_name: 2,
            uncertified: 5,
            uncertified_per_address: 3,
            new_per_minute: 8,
            ..ConnectionLimits::default()
        })
    }

    #[test]
    fn strangers_take_no_place_of_those_who_are_certified() {
        let crowd = crowd();
        let settle = |last: usize, name| crowd.settle(address(&format!("192.0.2.{last}")), name);
        let of_one: Vec<_> = (0..10).filter_map(|_| settle(1, None)).collect();
        assert_eq!(of_one.len(), 3);
        let of_many: Vec<_> = (2..20).filter_map(|last| settle(last, None)).collect();
        assert_eq!(of_many.len(), 2);
        // From the same address, and with no place left to strangers.
        let backend: Vec<_> = (0..5).filter_map(|_| settle(1, Some("backend"))).collect();
        assert_eq!(backend.len(), 2, "each name has its share");
        let other: Vec<_> = (0..5).filter_map(|_| settle(1, Some("other"))).collect();
        assert_eq!(other.len(), 1);
        drop((of_one, backend));
        assert!(settle(9, None).is_some());
        assert!(settle(9, Some("backend")).is_some());
    }

    #[test]
    fn who_lingers_gives_way_to_whoever_comes() {
        let crowd = crowd();
        let arrive = |last: usize| crowd.arrive(address(&format!("192.0.2.{last}"))).unwrap();
        let gave_way = |one: &Arrival| one.gives_way().is_cancelled();
        let (first, quiet, second) = (arrive(1), arrive(2), arrive(1));
        // Of the address that has most the oldest, though another is older.
        let third = arrive(1);
        let gone = [&first, &quiet, &second, &third].map(gave_way);
        assert_eq!(gone, [true, false, false, false]);
        let fourth = arrive(1);
        assert_eq!([&quiet, &second, &third, &fourth].map(gave_way), [false, true, false, false]);
        // Who has gone leaves room: nobody gives way.
        drop(third);
        let other = arrive(3);
        assert_eq!([&quiet, &fourth, &other].map(gave_way), [false; 3]);
        // Of several that have as many, the oldest of all.
        let another = arrive(4);
        assert_eq!([&quiet, &fourth, &other, &another].map(gave_way), [true, false, false, false]);
        drop((first, quiet, second, fourth, other, another));
        assert!(crowd.arriving.queue().waiting.is_empty());
    }

    #[test]
    fn nobody_connects_without_end() {
        let crowd = crowd();
        let flood = (0..20).filter_map(|_| crowd.arrive(address("192.0.2.1"))).count();
        assert_eq!(flood, 8);
        assert!(crowd.arrive(address("192.0.2.2")).is_some());
    }
}
