//! What one service takes on: all its limits, with what they are where nobody sets them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Deserialize;

use crate::grpc::{CallLimits, Place, Places, source_of};
use crate::vault::Rates;

/// The limits of a service, as the configuration may set them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Of calls.
    pub calls: CallLimits,
    /// Of connections.
    pub connections: ConnectionLimits,
}

/// How many connections the service holds, and what it waits for on each.
///
/// Nobody waits in a queue: a connection that is too many is closed at once, one that keeps to no
/// limit is cut, a stream that is too many is refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionLimits {
    /// Connections at once.
    pub open: usize,
    /// Connections at once from one address.
    pub open_per_address: usize,
    /// New connections in a minute from one address; 0 is no limit.
    pub new_per_minute: u32,
    /// How long one thing may take to arrive, in seconds: the handshake, the greeting of HTTP/2,
    /// the rest of a frame, the rest of a call's headers.
    pub step_seconds: u64,
    /// After how many quiet seconds the other end is asked whether it is there.
    pub ping_seconds: u64,
    /// How long it may take to answer that, in seconds.
    pub pong_seconds: u64,
    /// How long nothing at all may arrive, in seconds.
    pub idle_seconds: u64,
    /// After how many seconds the other end is asked to connect anew.
    pub age_seconds: u64,
    /// How many seconds calls and streams may go on after that.
    pub grace_seconds: u64,
    /// Frames of one connection that are read in a second; what is more waits at its other end.
    /// A call takes about three.
    pub frames_per_second: u32,
    /// Calls at once on one connection.
    pub streams: u32,
    /// The headers of a call, in octets as RFC 9113, 6.5.2 counts them.
    pub header_bytes: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            // Below the 1,024 descriptors that a process has where nobody gives it more.
            open: 800,
            open_per_address: 200,
            new_per_minute: 1_200,
            step_seconds: 10,
            ping_seconds: 60,
            pong_seconds: 20,
            idle_seconds: 120,
            age_seconds: 30 * 60,
            grace_seconds: 60,
            frames_per_second: 20_000,
            streams: 256,
            header_bytes: 16 * 1024,
        }
    }
}

/// The connections of a service, over all its listeners.
pub(super) struct Crowd {
    limits: ConnectionLimits,
    places: Arc<Places<IpAddr>>,
    rates: Rates,
}

impl Crowd {
    /// Nobody is there yet.
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        let places = Places::new(limits.open_per_address, limits.open);
        Arc::new(Self { limits, places, rates: Rates::default() })
    }

    pub(super) const fn limits(&self) -> &ConnectionLimits {
        &self.limits
    }

    /// Finds a connection its place; none where it is too many.
    pub(super) fn admit(&self, address: SocketAddr) -> Option<Place<IpAddr>> {
        let source = source_of(address.ip());
        let subject = ["connections", &source.to_string()];
        let place = match self.rates.take(self.limits.new_per_minute, &subject) {
            Ok(()) => self.places.take(source),
            Err(_) => None,
        };
        // Once in a minute: the log is no place to be flooded either.
        if place.is_none() && self.rates.take(1, &["told"]).is_ok() {
            let open = self.places.taken_by_all();
            tracing::warn!(%source, open, "connections are refused: there are too many");
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().expect("an address"), 40_000)
    }

    #[test]
    fn one_address_takes_neither_all_places_nor_connects_without_end() {
        let limits = ConnectionLimits {
            open: 5,
            open_per_address: 3,
            new_per_minute: 4,
            ..ConnectionLimits::default()
        };
        let crowd = Crowd::new(limits);
        let flood: Vec<_> = (0..10).map(|_| crowd.admit(address("192.0.2.1"))).collect();
        assert_eq!(flood.iter().flatten().count(), 3);
        drop(flood);
        // Its places are free again, and it has connected often enough.
        assert!(crowd.admit(address("192.0.2.1")).is_none());
        let others: Vec<_> =
            (0..10).map(|last| crowd.admit(address(&format!("192.0.2.{}", 10 + last)))).collect();
        assert_eq!(others.iter().flatten().count(), 5);
    }

    #[test]
    fn the_limits_are_set_by_name_and_each_name_is_known() {
        let text = "[calls]\nper_minute = 9\n[connections]\nopen = 7\n";
        let read: Limits = toml::from_str(text).expect("limits");
        assert_eq!((read.calls.per_minute, read.connections.open), (9, 7));
        assert_eq!(read.connections.streams, ConnectionLimits::default().streams);
        for unknown in ["[connection]\nopen = 7\n", "[connections]\nopened = 7\n"] {
            assert!(toml::from_str::<Limits>(unknown).is_err(), "{unknown}");
        }
    }
}
