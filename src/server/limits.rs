//! What one service takes on: all its limits, with what they are where nobody sets them.

use serde::Deserialize;

use crate::grpc::CallLimits;

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
/// limit is cut, a stream that is too many is refused. Who shows a certificate has places that
/// nobody else takes: strangers who connect keep no backend out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionLimits {
    /// Connections at once that are not through their handshake: of those who have most, the oldest
    /// gives way to the next that comes.
    pub arriving: usize,
    /// Connections at once with a certificate.
    pub certified: usize,
    /// Connections at once with certificates of one name.
    pub certified_per_name: usize,
    /// Connections at once without a certificate.
    pub uncertified: usize,
    /// Connections at once without a certificate from one address.
    pub uncertified_per_address: usize,
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
            // Together below the 1,024 descriptors that a process has where nobody gives it more.
            arriving: 100,
            certified: 300,
            certified_per_name: 100,
            uncertified: 400,
            uncertified_per_address: 200,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_set_by_name_and_each_name_is_known() {
        let text = "[calls]\nper_minute = 9\n[connections]\ncertified = 7\n";
        let read: Limits = toml::from_str(text).expect("limits");
        assert_eq!((read.calls.per_minute, read.connections.certified), (9, 7));
        assert_eq!(read.connections.streams, ConnectionLimits::default().streams);
        for unknown in ["[connection]\ncertified = 7\n", "[connections]\nopen = 7\n"] {
            assert!(toml::from_str::<Limits>(unknown).is_err(), "{unknown}");
        }
    }
}
