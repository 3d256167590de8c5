//! The transcript: what happened, line by line, each bound to the one before, and no secret.
//!
//! ```text
//! {"n":1,"time":"2026-11-23T18:30:00Z","what":"created","who":"spiffe://…",…,"prev":"0000…"}
//! prev     SHA-256 of the line before, without its end, in lower case hexadecimals; 64 zeros first
//! signed   label || SHA-256 of the last line before the first signature
//! ```
//!
//! Each signature of a custodian or witness is a line of its own with the certificate; the last
//! line is the service's: Ed25519 with the key of its audit log over label || SHA-256 of the line
//! before. So whoever holds that key and the authority of the admin plane verifies all of it
//! without the service.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::crypto::digest::sha256;
use crate::vault::UnixMillis;

/// The hash of a line.
pub type Link = [u8; 32];

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Its number, from 1.
    pub n: u32,
    /// When it was written: RFC 3339, UTC, to the millisecond.
    pub time: String,
    /// What happened: a stable word.
    pub what: String,
    /// Who did it: a URI name, or `service`.
    pub who: String,
    /// Public values, by stable names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// The hash of the line before.
    pub prev: String,
}

/// Why lines are no transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TranscriptBroken {
    /// A line is none.
    #[error("line {0} is no line of a transcript")]
    LineMalformed(u32),
    /// A line is not the one that followed.
    #[error("line {0} does not follow from the line before: lines were changed, or left out")]
    LinkBroken(u32),
}

/// Lines that follow from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Transcript(Vec<String>);

impl Transcript {
    /// Reads lines, and finds whether they follow from each other.
    pub fn parse(text: &str) -> Result<(Self, Vec<Line>), TranscriptBroken> {
        let (mut transcript, mut lines) = (Self::default(), Vec::new());
        for (place, written) in text.lines().enumerate() {
            let n = u32::try_from(place + 1).unwrap_or(u32::MAX);
            let line: Line =
                serde_json::from_str(written).map_err(|_| TranscriptBroken::LineMalformed(n))?;
            // Written anew it is the same: nothing stands in it that was not read.
            if to_text(&line) != written {
                return Err(TranscriptBroken::LineMalformed(n));
            }
            if line.n != n || line.prev != HEXLOWER.encode(&transcript.link()) {
                return Err(TranscriptBroken::LinkBroken(n));
            }
            transcript.0.push(written.to_owned());
            lines.push(line);
        }
        Ok((transcript, lines))
    }

    /// Adds a line. Its time is never before that of the last one.
    pub fn push(&mut self, now: UnixMillis, what: &str, who: &str, values: &[(&str, String)]) {
        let last = self.line_before(0).and_then(|line| UnixMillis::parse(&line.time));
        let now = last.map_or(now, |last| last.max(now));
        let line = Line {
            n: u32::try_from(self.0.len()).unwrap_or(u32::MAX).saturating_add(1),
            time: now.to_string(),
            what: what.to_owned(),
            who: who.to_owned(),
            values: values
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            prev: HEXLOWER.encode(&self.link()),
        };
        self.0.push(to_text(&line));
    }

    /// The hash of the last line; zeros before the first.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link_before(0)
    }

    /// The hash of the last line but so many.
    #[must_use]
    pub fn link_before(&self, lines: usize) -> Link {
        let before = self.0.len().saturating_sub(lines);
        self.0[..before].last().map_or([0; 32], |line| sha256(&[line.as_bytes()]))
    }

    /// The last line but so many.
    #[must_use]
    pub fn line_before(&self, lines: usize) -> Option<Line> {
        let before = self.0.len().checked_sub(lines)?;
        serde_json::from_str(self.0[..before].last()?).ok()
    }

    /// The lines as they are written.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

fn to_text(line: &Line) -> String {
    serde_json::to_string(line).expect("a line is words and numbers, which all have a JSON form")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript() -> Transcript {
        let mut transcript = Transcript::default();
        for (second, what) in (0..).zip(["created", "joined", "aborted"]) {
            let now = UnixMillis(1_795_458_600_000 + second * 1_000);
            transcript.push(now, what, "service", &[("digest", "00ff".to_owned())]);
        }
        transcript
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else_is() {
        let text = transcript().lines().join("\n");
        let (read, lines) = Transcript::parse(&text).unwrap();
        assert_eq!(read, transcript());
        assert_eq!((lines[2].n, lines[2].what.as_str()), (3, "aborted"));
        assert_eq!(lines[0].prev, "0".repeat(64));
        let first_two = Transcript::parse(text.rsplit_once('\n').unwrap().0).unwrap();
        assert_ne!(first_two.0.link(), read.link(), "an end that was cut off is another");
        let lines: Vec<_> = text.lines().collect();
        for (broken, expected) in [
            (vec![lines[0], lines[2]], TranscriptBroken::LinkBroken(2)),
            (vec![lines[1], lines[2]], TranscriptBroken::LinkBroken(1)),
            (vec![lines[0], lines[1], lines[1]], TranscriptBroken::LinkBroken(3)),
            (vec![lines[0], "", lines[1]], TranscriptBroken::LineMalformed(2)),
            (vec![lines[0], "{}"], TranscriptBroken::LineMalformed(2)),
        ] {
            assert_eq!(Transcript::parse(&broken.join("\n")), Err(expected));
        }
    }

    #[test]
    fn every_changed_octet_is_found() {
        let text = transcript().lines().join("\n");
        let end = transcript().link();
        for place in 0..text.len() {
            let mut octets = text.clone().into_bytes();
            octets[place] ^= 1;
            let changed = String::from_utf8(octets).unwrap();
            let read = Transcript::parse(&changed);
            assert!(read.is_err() || read.unwrap().0.link() != end, "octet {place}");
        }
    }
}
