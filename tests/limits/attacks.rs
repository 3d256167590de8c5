//! The attacks: what each sends on a connection, and what the service promises to do about it.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::service::CUT_MAX;
use crate::wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
    Target, Wire, call, frame,
};

const GENERATE_MAC: &str = "/firstkey.v1.MacService/GenerateMac";
const BATCH: &str = "/firstkey.v1.TerminalService/BatchCreateTerminals";

/// More than any connection may send that is to be cut.
const SENT_MAX: u64 = 64 * 1024 * 1024;

/// The attacks, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attack {
    /// Calls that are reset at once (CVE-2023-44487).
    RapidReset,
    /// Headers without end (CVE-2024-27316).
    ContinuationFlood,
    /// Headers that unfold to a thousand times their size.
    HeaderBomb,
    SettingsFlood,
    PingFlood,
    /// A handshake that begins and does not end.
    SlowHandshake,
    /// A greeting that comes octet by octet.
    SlowGreeting,
    /// Headers whose end does not come.
    SlowHeaders,
    /// A message that comes octet by octet.
    SlowBody,
    /// Calls whose answers are not read.
    Deaf,
    /// Calls whose answers have no window.
    NoWindow,
    /// Connections that do nothing.
    Idle,
    /// A message of 1 GiB.
    HugeBody,
    /// Compressed messages.
    GzipBomb,
    /// Calls that are opened and left open.
    OpenStreams,
    /// Connections that come and go.
    ReconnectStorm,
}

impl Attack {
    pub(crate) const ALL: [Self; 16] = [
        Self::RapidReset,
        Self::ContinuationFlood,
        Self::HeaderBomb,
        Self::SettingsFlood,
        Self::PingFlood,
        Self::SlowHandshake,
        Self::SlowGreeting,
        Self::SlowHeaders,
        Self::SlowBody,
        Self::Deaf,
        Self::NoWindow,
        Self::Idle,
        Self::HugeBody,
        Self::GzipBomb,
        Self::OpenStreams,
        Self::ReconnectStorm,
    ];

    /// How many connections at once, and from how many addresses.
    const fn lanes(self) -> (usize, usize) {
        match self {
            Self::SlowGreeting | Self::SlowHeaders | Self::SlowBody => (100, 2),
            Self::NoWindow => (20, 2),
            Self::SlowHandshake | Self::Idle => (1_000, 4),
            Self::ReconnectStorm => (8, 8),
            _ => (4, 4),
        }
    }

    /// Whether each connection is cut within the time of the test. One whose answers nobody reads
    /// is cut when the system holds so many of them that it takes no more; its memory is bounded
    /// all the same.
    pub(crate) const fn ends(self) -> bool {
        !matches!(self, Self::Deaf)
    }

    /// Attacks on one connection; tells whether the service kept its promise.
    async fn go(self, wire: &mut Wire) -> io::Result<bool> {
        match self {
            Self::RapidReset => {
                self.flood(wire, |stream| {
                    let call = frame(HEADERS, END_HEADERS, stream, &call(GENERATE_MAC, None));
                    [call, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
                })
                .await
            }
            Self::ContinuationFlood => continuation_flood(wire).await,
            Self::HeaderBomb => {
                let mut bomb = call(GENERATE_MAC, None);
                bomb.extend_from_slice(&[0x40, 1, b'a', 0x7F, 0xA1, 0x1E]);
                bomb.extend_from_slice(&[b'x'; 4_000]);
                bomb.extend_from_slice(&[0xBE; 8_000]);
                self.flood(wire, |stream| frame(HEADERS, END_HEADERS, stream, &bomb)).await
            }
            Self::SettingsFlood => self.flood(wire, |_| frame(SETTINGS, 0, 0, &[])).await,
            Self::PingFlood => self.flood(wire, |_| frame(PING, 0, 0, &[7; 8])).await,
            Self::SlowHandshake => {
                // The begin of a record, and of a ClientHello in it.
                wire.send(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await?;
                wire.closed(CUT_MAX).await.map(|()| true)
            }
            Self::SlowGreeting => slow_greeting(wire).await,
            Self::SlowHeaders => {
                wire.greet().await?;
                wire.send(&frame(HEADERS, 0, 1, &call(GENERATE_MAC, None))).await?;
                wire.closed(CUT_MAX).await.map(|()| true)
            }
            Self::SlowBody => slow_body(wire).await,
            Self::Deaf => deaf(wire).await,
            Self::NoWindow => no_window(wire).await,
            Self::Idle => {
                wire.greet().await?;
                wire.closed(CUT_MAX).await.map(|()| true)
            }
            Self::HugeBody => huge_body(wire).await,
            Self::GzipBomb => gzip_bomb(wire).await,
            Self::OpenStreams => {
                self.flood(wire, |stream| {
                    frame(HEADERS, END_HEADERS, stream, &call(GENERATE_MAC, None))
                })
                .await
            }
            Self::ReconnectStorm => wire.greet().await.map(|()| true),
        }
    }

    /// Greets, and sends frames of ever new streams until the connection is cut.
    async fn flood(self, wire: &mut Wire, of_stream: impl Fn(u32) -> Vec<u8>) -> io::Result<bool> {
        wire.greet().await?;
        until_cut(wire, |round| {
            (0..32).flat_map(|each| of_stream((round * 32 + each) * 2 + 1)).collect()
        })
        .await
    }
}

async fn continuation_flood(wire: &mut Wire) -> io::Result<bool> {
    wire.greet().await?;
    wire.send(&frame(HEADERS, 0, 1, &call(GENERATE_MAC, None))).await?;
    // A name and a value of no length, again and again.
    let rest = frame(CONTINUATION, 0, 1, &[0; 16_383]);
    until_cut(wire, |_| rest.clone()).await
}

async fn slow_greeting(wire: &mut Wire) -> io::Result<bool> {
    for octet in PREFACE.chunks(1) {
        wire.send(octet).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(false)
}

async fn slow_body(wire: &mut Wire) -> io::Result<bool> {
    wire.greet().await?;
    wire.send(&frame(HEADERS, END_HEADERS, 1, &call(GENERATE_MAC, None))).await?;
    for octet in [0, 0, 0, 1, 0].iter().chain(&[0x42; 5]) {
        wire.send(&frame(DATA, 0, 1, &[*octet])).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // The call has been answered before its message was whole.
    Ok(wire.has_read(HEADERS))
}

async fn deaf(wire: &mut Wire) -> io::Result<bool> {
    wire.send_deaf(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await?;
    let mut stream = 1;
    while wire.sent_bytes < SENT_MAX {
        let end = END_HEADERS | END_STREAM;
        let octets = frame(HEADERS, end, stream, &call("/deaf", None));
        wire.send_deaf(&octets).await?;
        stream += 2;
    }
    Ok(false)
}

async fn no_window(wire: &mut Wire) -> io::Result<bool> {
    // SETTINGS_INITIAL_WINDOW_SIZE of 0.
    let shut = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    wire.send(&[PREFACE, &shut].concat()).await?;
    for stream in (1..100).step_by(2) {
        let end = END_HEADERS | END_STREAM;
        wire.send(&frame(HEADERS, end, stream, &call(GENERATE_MAC, None))).await?;
    }
    wire.closed(CUT_MAX).await.map(|()| true)
}

async fn huge_body(wire: &mut Wire) -> io::Result<bool> {
    wire.greet().await?;
    wire.send(&frame(HEADERS, END_HEADERS, 1, &call(BATCH, None))).await?;
    wire.send(&frame(DATA, 0, 1, &[0, 0x40, 0, 0, 0])).await?;
    let body = frame(DATA, 0, 1, &vec![b'x'; 16 * 1024]);
    until_cut(wire, |_| body.clone()).await
}

async fn gzip_bomb(wire: &mut Wire) -> io::Result<bool> {
    wire.greet().await?;
    let message = [&[1, 0, 0, 0xEA, 0x60][..], &vec![0x1F; 60_000]].concat();
    for stream in (1..200).step_by(2) {
        let call = call(GENERATE_MAC, Some("gzip"));
        wire.send(&frame(HEADERS, END_HEADERS, stream, &call)).await?;
        for (index, part) in message.chunks(16_000).enumerate() {
            let end = if index == 3 { END_STREAM } else { 0 };
            wire.send(&frame(DATA, end, stream, part)).await?;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(wire.has_read(HEADERS))
}

/// Sends until the connection is cut, which is an error, or it took more than any may.
async fn until_cut(wire: &mut Wire, of_round: impl Fn(u32) -> Vec<u8>) -> io::Result<bool> {
    for round in 0.. {
        if wire.sent_bytes > SENT_MAX {
            break;
        }
        wire.send(&of_round(round)).await?;
    }
    Ok(false)
}

/// What came of an attack.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Connections that were made.
    pub(crate) connections: AtomicU64,
    /// Those on which the service kept its promise: it cut, refused, or answered and went on.
    pub(crate) kept: AtomicU64,
    /// Those on which it did not.
    pub(crate) broken: AtomicU64,
    /// What was sent altogether.
    pub(crate) sent_bytes: AtomicU64,
}

/// Attacks until it is stopped.
pub(crate) async fn run(attack: Attack, target: Target, stop: CancellationToken) -> Tally {
    let (tally, target) = (Arc::new(Tally::default()), Arc::new(target));
    let (lanes, addresses) = attack.lanes();
    let mut running = tokio::task::JoinSet::new();
    for lane in 0..lanes {
        let last = u8::try_from(lane % addresses + 1).expect("few addresses");
        // Each attack comes from a network of its own, so that none finds itself refused before it
        // has begun.
        let third = u8::try_from(Attack::ALL.iter().position(|one| *one == attack).unwrap_or(0));
        let source = Ipv4Addr::new(127, 1, third.expect("few attacks"), last);
        let (tally, target, stop) = (Arc::clone(&tally), Arc::clone(&target), stop.clone());
        running.spawn(async move {
            while !stop.is_cancelled() {
                tally.connections.fetch_add(1, Ordering::Relaxed);
                let connecting = async {
                    match attack {
                        Attack::SlowHandshake => Wire::connect_bare(&target, source).await,
                        _ => Wire::connect(&target, source).await,
                    }
                };
                let connected = tokio::select! {
                    connected = connecting => connected,
                    () = stop.cancelled() => return,
                };
                let Ok(mut wire) = connected else {
                    // Closed at once: there were too many.
                    tally.kept.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                };
                let went = tokio::select! {
                    went = attack.go(&mut wire) => Some(went),
                    () = stop.cancelled() => None,
                };
                tally.sent_bytes.fetch_add(wire.sent_bytes, Ordering::Relaxed);
                let Some(went) = went else { return };
                // An error is the service's: it closed or reset the connection, or took no more.
                let kept = match &went {
                    Ok(kept) => *kept,
                    Err(error) => error.kind() != io::ErrorKind::Other,
                };
                let count = if kept { &tally.kept } else { &tally.broken };
                count.fetch_add(1, Ordering::Relaxed);
                if lanes > 8 {
                    // Who is closed at once tries again, and not in a loop without end.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        });
    }
    while running.join_next().await.is_some() {}
    Arc::into_inner(tally).expect("every lane has ended")
}
