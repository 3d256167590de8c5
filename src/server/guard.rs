//! A connection under guard: it is cut when it is too slow, too quiet, too old or floods us.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Interval;

use super::crowd::Seat;
use super::frames::FrameMeter;
use super::limits::ConnectionLimits;

/// A stream of HTTP/2 and what is waited for on it.
///
/// Its time goes by in whole seconds, whoever is asked to move, reader or writer: a connection that
/// does neither would wait for ever.
pub(super) struct Guarded<S> {
    stream: S,
    meter: FrameMeter,
    seconds: Interval,
    waited: Waited,
    limits: Waited,
    frames_per_second: u32,
    /// How many frames are read in the second that goes on.
    frames_now: u32,
    /// How many of its calls were too many, in the second that goes on.
    refused: Arc<AtomicU32>,
    /// It has had its turn: others come first before it goes on.
    had_turn: bool,
    /// Why it was cut.
    cut: Option<&'static str>,
    seat: Seat,
    /// Whether nobody certified its other end.
    is_stranger: bool,
}

/// How much of a connection is read before the others have their turn, in octets.
///
/// What is read is worked off in one go, and the smallest frames have nine octets: with more, one
/// that is full of them would keep a thread of the service to itself.
const TURN_LEN_BYTES: usize = 512;

/// How many frames a call takes, about.
///
/// Even a refusal costs something. So whose calls were too many is read less in the next second: by
/// as many frames as those calls took, so that what remains is what is served.
const FRAMES_PER_CALL: u32 = 3;

/// How many frames of a connection are read in any second: it learns that it may come back.
const FRAMES_MIN: u32 = 16;

/// What part of its frames is read of a stranger's connection in its first second; twice as many in
/// each that goes by without a call too many. Who is cut and comes again begins anew, too.
const STRANGER_PART: u32 = 64;

/// Seconds that went by.
#[derive(Debug, Default)]
struct Waited {
    /// Since the connection came to be.
    age: u64,
    /// Since the last octet arrived.
    idle: u64,
    /// Since something began to arrive that is not whole.
    step: u64,
    /// For how many seconds running its calls have been too many.
    pressing: u64,
    /// How many things had arrived whole, when that was looked at last.
    arrived: u64,
}

impl<S> Guarded<S> {
    /// Guards a stream from before its first octet.
    pub(super) fn new(
        stream: S,
        limits: &ConnectionLimits,
        seat: Seat,
        is_stranger: bool,
        refused: Arc<AtomicU32>,
    ) -> Self {
        let frames_per_second = limits.frames_per_second;
        let part = if is_stranger { STRANGER_PART } else { 1 };
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        // The first is over in a second, not at once.
        seconds.reset();
        let limits = Waited {
            age: limits.age_seconds.saturating_add(limits.grace_seconds),
            idle: limits.idle_seconds,
            step: limits.step_seconds,
            pressing: limits.step_seconds,
            arrived: 0,
        };
        Self {
            stream,
            meter: FrameMeter::new(),
            seconds,
            waited: Waited::default(),
            limits,
            frames_per_second,
            frames_now: (frames_per_second / part).max(FRAMES_MIN),
            refused,
            had_turn: false,
            cut: None,
            seat,
            is_stranger,
        }
    }

    /// Lets the seconds go by, and cuts the connection when one was too many.
    fn poll_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while self.cut.is_none() && self.seconds.poll_tick(context).is_ready() {
            let refused = self.refused.swap(0, Ordering::Relaxed);
            let pressing = self.waited.pressing.saturating_add(1);
            self.waited.pressing = if refused == 0 { 0 } else { pressing };
            self.frames_now = if refused == 0 && self.is_stranger {
                self.frames_now.saturating_mul(2).min(self.frames_per_second)
            } else if refused == 0 {
                self.frames_per_second
            } else {
                let served = self.meter.this_second();
                let served = served.saturating_sub(refused.saturating_mul(FRAMES_PER_CALL));
                served.max(FRAMES_MIN)
            };
            self.meter.tick();
            let (waited, max) = (&mut self.waited, &self.limits);
            waited.age = waited.age.saturating_add(1);
            waited.idle = waited.idle.saturating_add(1);
            let goes_on = waited.arrived != self.meter.arrived();
            waited.arrived = self.meter.arrived();
            let is_due = self.meter.is_within() && !goes_on;
            waited.step = if is_due { waited.step.saturating_add(1) } else { 0 };
            if waited.step > max.step {
                self.cut("what began to arrive did not end in time");
            } else if waited.idle > max.idle {
                self.cut("nothing arrived for too long");
            } else if waited.pressing > max.pressing && self.is_stranger {
                // Who is known is told when to come back, and may have other calls under way.
                self.cut("its calls were too many for too long");
            } else if waited.age > max.age {
                self.cut("it is too old");
            }
        }
        match self.cut {
            Some(cause) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, cause)),
            None => Ok(()),
        }
    }

    fn cut(&mut self, cause: &'static str) {
        tracing::info!(source = %self.seat.source(), cause, "a connection was cut");
        self.cut = Some(cause);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.poll_time(context)?;
        if std::mem::take(&mut this.had_turn) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.meter.this_second() >= this.frames_now {
            // The next second wakes it. What comes meanwhile waits at the other end.
            return Poll::Pending;
        }
        let room = buffer.initialize_unfilled_to(buffer.remaining().min(TURN_LEN_BYTES));
        let mut turn = ReadBuf::new(room);
        ready!(Pin::new(&mut this.stream).poll_read(context, &mut turn))?;
        let arrived = turn.filled();
        let len = arrived.len();
        this.had_turn = len == TURN_LEN_BYTES;
        if len > 0 {
            this.waited.idle = 0;
        }
        let read = this.meter.read(arrived);
        if let Err(excess) = read {
            this.cut("it sends more than its calls are good for");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, excess)));
        }
        buffer.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_time(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_time(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_time(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_time(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt as _, DuplexStream};

    use super::super::crowd::Crowd;
    use super::*;

    /// Headers without a field, which open a call (RFC 9113, 6.2).
    const CALL: [u8; 9] = [0, 0, 0, 1, 4, 0, 0, 0, 1];
    const CALLS: usize = 60_000;

    /// A connection at whose other end more calls wait than are read in the test.
    async fn flooded(is_stranger: bool) -> (Guarded<DuplexStream>, Arc<AtomicU32>, DuplexStream) {
        let limits = ConnectionLimits {
            frames_per_second: 6_400,
            step_seconds: 1,
            ..ConnectionLimits::default()
        };
        let (mut far, near) = tokio::io::duplex(1024 * 1024);
        far.write_all(&[b'P'; 24]).await.expect("room");
        far.write_all(&CALL.repeat(CALLS)).await.expect("room");
        let crowd = Crowd::new(limits);
        let seat = crowd.settle(([192, 0, 2, 1], 1).into(), None).expect("a place");
        let refused = Arc::new(AtomicU32::new(0));
        let guarded = Guarded::new(near, crowd.limits(), seat, is_stranger, Arc::clone(&refused));
        (guarded, refused, far)
    }

    /// How many calls are read until the connection has others wait.
    async fn read(guarded: &mut Guarded<DuplexStream>) -> io::Result<usize> {
        let (mut len, mut turns_without) = (0, 0);
        while turns_without < 2 {
            let mut room = [0; 4_096];
            let mut buffer = ReadBuf::new(&mut room);
            let polled = poll_fn(|context| {
                Poll::Ready(Pin::new(&mut *guarded).poll_read(context, &mut buffer))
            });
            match polled.await {
                Poll::Ready(read) => read?,
                Poll::Pending => {}
            }
            turns_without = if buffer.filled().is_empty() { turns_without + 1 } else { 0 };
            len += buffer.filled().len();
        }
        Ok(len / CALL.len())
    }

    #[tokio::test]
    async fn a_strangers_connection_begins_slowly() {
        let (mut stranger, _, _far) = flooded(true).await;
        let (mut known, _, _far) = flooded(false).await;
        // One turn of 512 octets more than a 64th.
        let first = read(&mut stranger).await.expect("it is read");
        assert!((100..160).contains(&first), "{first}");
        assert!(read(&mut known).await.expect("it is read") >= 6_400);
        assert_eq!(read(&mut stranger).await.expect("it waits"), 0);
        tokio::time::sleep(Duration::from_millis(1_050)).await;
        let second = read(&mut stranger).await.expect("it is read on");
        assert!(second >= 2 * first - 120, "{second} after {first}");
    }

    #[tokio::test]
    async fn a_stranger_who_goes_on_with_too_many_calls_is_cut_and_who_is_known_is_not() {
        let (mut stranger, of_stranger, _far) = flooded(true).await;
        let (mut known, of_known, _far) = flooded(false).await;
        let mut cut = None;
        for _ in 0..40 {
            for refused in [&of_stranger, &of_known] {
                refused.fetch_add(1, Ordering::Relaxed);
            }
            cut = cut.or(read(&mut stranger).await.err());
            read(&mut known).await.expect("who is known is told when to come back");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(cut.expect("it is cut").kind(), io::ErrorKind::ConnectionAborted);
    }
}
