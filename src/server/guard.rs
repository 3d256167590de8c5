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
        refused: Arc<AtomicU32>,
    ) -> Self {
        let frames_per_second = limits.frames_per_second;
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
            seconds: tokio::time::interval(Duration::from_secs(1)),
            waited: Waited::default(),
            limits,
            frames_per_second,
            frames_now: frames_per_second,
            refused,
            had_turn: false,
            cut: None,
            seat,
        }
    }

    /// Lets the seconds go by, and cuts the connection when one was too many.
    fn poll_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while self.cut.is_none() && self.seconds.poll_tick(context).is_ready() {
            let refused = self.refused.swap(0, Ordering::Relaxed);
            let pressing = self.waited.pressing.saturating_add(1);
            self.waited.pressing = if refused == 0 { 0 } else { pressing };
            self.frames_now = if refused == 0 {
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
            } else if waited.pressing > max.pressing && !self.seat.is_certified() {
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
