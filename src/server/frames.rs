//! Counts the frames of an HTTP/2 connection, so that a flood of empty ones is cut off.
//!
//! A frame that opens no call costs the other end nine octets and us a look at it: pings, settings,
//! priorities, resets, windows, the rest of headers without end, data that belongs to no call any
//! more. Who makes calls needs some of them with each call, so a call brings an allowance.
//!
//! ```text
//! preface  24 octets
//! frame    length 3 · type 1 · flags 1 · stream 4 · payload      (RFC 9113, 3.4 and 4.1)
//! ```

use crate::grpc::BATCH_LEN_BYTES_MAX;

/// A connection that sends more than its calls are good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Excess {
    /// More data than its calls may have.
    #[error("more data than its calls may have")]
    Data,
    /// More frames that open no call than its calls need.
    #[error("more frames that open no call than its calls need")]
    Frames,
}

/// What one end of a connection sent, frame by frame.
#[derive(Debug)]
pub(super) struct FrameMeter {
    stage: Stage,
    /// Whether headers have begun whose end has not come.
    headers_open: bool,
    /// How many things arrived whole: the preface, a frame, headers.
    arrived: u64,
    /// How many frames began in the second that goes on.
    this_second: u32,
    frames_left: usize,
    data_left_bytes: usize,
}

#[derive(Debug)]
enum Stage {
    Preface { left: usize },
    Head { octets: [u8; HEAD_LEN_BYTES], len: usize },
    Payload { left: usize },
}

const PREFACE_LEN_BYTES: usize = 24;
const HEAD_LEN_BYTES: usize = 9;

// RFC 9113, 6: the types and the one flag that matter here.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;

/// The frames that may come without a call, at most.
const FRAMES_MAX: usize = 5_000;
/// How many of them are allowed again in each second.
const FRAMES_PER_SECOND: usize = 1_000;
/// How many of them a call may need: resets, windows, pings.
const FRAMES_PER_CALL: usize = 8;
/// Every so many octets a frame counts once more.
const FRAME_UNIT_BYTES: usize = 256;

/// The data that may come without a call.
const DATA_BEGIN_BYTES: usize = 1024 * 1024;
/// The data that a call may have: the longest message, and what each of its frames counts.
const DATA_PER_CALL_BYTES: usize = BATCH_LEN_BYTES_MAX + 64 * 1024;
/// The data that calls under way may have, at most.
const DATA_MAX_BYTES: usize = 64 * 1024 * 1024;

impl FrameMeter {
    /// Before the first octet.
    pub(super) const fn new() -> Self {
        Self {
            stage: Stage::Preface { left: PREFACE_LEN_BYTES },
            headers_open: false,
            arrived: 0,
            this_second: 0,
            frames_left: FRAMES_MAX,
            data_left_bytes: DATA_BEGIN_BYTES,
        }
    }

    /// Reads on. What the octets mean is for others to judge; here they are counted.
    pub(super) fn read(&mut self, mut octets: &[u8]) -> Result<(), Excess> {
        while !octets.is_empty() {
            octets = match &mut self.stage {
                Stage::Preface { left } | Stage::Payload { left } => {
                    let (taken, rest) = octets.split_at(octets.len().min(*left));
                    *left = left.saturating_sub(taken.len());
                    if *left == 0 {
                        self.end();
                    }
                    rest
                }
                Stage::Head { octets: head, len } => {
                    let (taken, rest) = octets.split_at(octets.len().min(HEAD_LEN_BYTES - *len));
                    head[*len..*len + taken.len()].copy_from_slice(taken);
                    *len = len.saturating_add(taken.len());
                    if *len == HEAD_LEN_BYTES {
                        let head = *head;
                        self.begin(head)?;
                    }
                    rest
                }
            };
        }
        Ok(())
    }

    /// A second went by.
    pub(super) fn tick(&mut self) {
        self.this_second = 0;
        self.frames_left = self.frames_left.saturating_add(FRAMES_PER_SECOND).min(FRAMES_MAX);
    }

    /// Whether something has begun to arrive that is not whole.
    pub(super) const fn is_within(&self) -> bool {
        match self.stage {
            Stage::Preface { .. } | Stage::Payload { .. } => true,
            Stage::Head { len, .. } => len > 0 || self.headers_open,
        }
    }

    /// How many things arrived whole.
    pub(super) const fn arrived(&self) -> u64 {
        self.arrived
    }

    /// How many frames began in the second that goes on.
    pub(super) const fn this_second(&self) -> u32 {
        self.this_second
    }

    fn begin(&mut self, head: [u8; HEAD_LEN_BYTES]) -> Result<(), Excess> {
        let [a, b, c, kind, flags, ..] = head;
        self.this_second = self.this_second.saturating_add(1);
        let len = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        if kind == HEADERS {
            let frames = self.frames_left.saturating_add(FRAMES_PER_CALL);
            self.frames_left = frames.min(FRAMES_MAX);
            let data = self.data_left_bytes.saturating_add(DATA_PER_CALL_BYTES);
            self.data_left_bytes = data.min(DATA_MAX_BYTES);
        }
        if matches!(kind, HEADERS | CONTINUATION) {
            self.headers_open = flags & END_HEADERS == 0;
        }
        if kind == DATA {
            // An empty frame costs something, too.
            let cost = len.saturating_add(FRAME_UNIT_BYTES);
            self.data_left_bytes = self.data_left_bytes.checked_sub(cost).ok_or(Excess::Data)?;
        } else {
            let cost = len.div_ceil(FRAME_UNIT_BYTES).max(1);
            self.frames_left = self.frames_left.checked_sub(cost).ok_or(Excess::Frames)?;
        }
        self.stage = Stage::Payload { left: len };
        if len == 0 {
            self.end();
        }
        Ok(())
    }

    const fn end(&mut self) {
        self.stage = Stage::Head { octets: [0; HEAD_LEN_BYTES], len: 0 };
        if !self.headers_open {
            self.arrived = self.arrived.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, len: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(len).expect("a length").to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, 1], vec![0; len].as_slice()].concat()
    }

    fn greeted() -> FrameMeter {
        let mut meter = FrameMeter::new();
        meter.read(&[b'P'; PREFACE_LEN_BYTES]).expect("a preface");
        meter.read(&frame(SETTINGS, 0, 18)).expect("settings");
        meter
    }

    /// How many of a frame are taken before the connection is cut.
    fn taken(meter: &mut FrameMeter, frame: &[u8]) -> (usize, Excess) {
        (0..10_000_000)
            .find_map(|count| meter.read(frame).err().map(|excess| (count, excess)))
            .expect("it is cut")
    }

    #[test]
    fn who_makes_calls_is_never_cut() {
        let mut meter = greeted();
        for _ in 0..100_000 {
            for octets in [
                frame(HEADERS, END_HEADERS, 180),
                frame(DATA, 0, 300),
                frame(DATA, 1, 0),
                frame(WINDOW_UPDATE, 0, 4),
                frame(WINDOW_UPDATE, 0, 4),
                frame(PING, 0, 8),
                frame(PING, 1, 8),
                frame(RST_STREAM, 0, 4),
            ] {
                meter.read(&octets).expect("what a call needs");
            }
        }
        // Batches of the longest, many at once, in frames of 16 KiB.
        for _ in 0..50 {
            meter.read(&frame(HEADERS, END_HEADERS, 180)).expect("a call");
        }
        for _ in 0..50 * (BATCH_LEN_BYTES_MAX / (16 * 1024)) {
            meter.read(&frame(DATA, 0, 16 * 1024)).expect("its message");
        }
    }

    #[test]
    fn floods_are_cut() {
        for (kind, len) in [(PING, 8), (SETTINGS, 0), (RST_STREAM, 4), (WINDOW_UPDATE, 4), (200, 0)]
        {
            let (count, excess) = taken(&mut greeted(), &frame(kind, 0, len));
            assert!(count < FRAMES_MAX && count > FRAMES_MAX / 2, "{kind} {count}");
            assert_eq!(excess, Excess::Frames, "{kind}");
        }
        let (count, excess) = taken(&mut greeted(), &frame(CONTINUATION, 0, 16 * 1024));
        assert!(count < 100 && excess == Excess::Frames, "{count}");
        let mut meter = greeted();
        meter.read(&frame(HEADERS, END_HEADERS, 100)).expect("a call");
        let (count, excess) = taken(&mut meter, &frame(DATA, 0, 16 * 1024));
        assert!(count < 100 && excess == Excess::Data, "{count}");
        let (count, excess) = taken(&mut greeted(), &frame(DATA, 0, 0));
        assert!(count <= DATA_BEGIN_BYTES / FRAME_UNIT_BYTES && excess == Excess::Data, "{count}");
    }

    #[test]
    fn time_allows_more_frames_but_hoards_none() {
        let mut meter = greeted();
        taken(&mut meter, &frame(PING, 0, 8));
        let mut meter = greeted();
        for _ in 0..100 {
            meter.tick();
            for _ in 0..FRAMES_PER_SECOND {
                meter.read(&frame(PING, 0, 8)).expect("a ping in each millisecond");
            }
        }
        for _ in 0..1_000 {
            meter.tick();
        }
        assert_eq!(taken(&mut meter, &frame(PING, 0, 8)).0, FRAMES_MAX);
    }

    #[test]
    fn what_is_not_whole_is_seen_however_it_is_cut_into_pieces() {
        let mut meter = FrameMeter::new();
        let mut seen = Vec::new();
        let all = [
            vec![b'P'; PREFACE_LEN_BYTES],
            frame(SETTINGS, 0, 0),
            frame(HEADERS, 0, 2),
            frame(CONTINUATION, END_HEADERS, 1),
            frame(DATA, 1, 3),
        ]
        .concat();
        assert!(meter.is_within(), "the preface is due");
        for octet in &all {
            meter.read(std::slice::from_ref(octet)).expect("little");
            if !meter.is_within() {
                seen.push(meter.arrived());
            }
        }
        // After the preface, the settings, the headers as a whole, the data.
        assert_eq!(seen, [1, 2, 3, 4]);
    }
}
