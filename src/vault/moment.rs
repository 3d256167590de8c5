//! Moments as text: RFC 3339 in UTC, to the millisecond.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serializer};

use super::clock::UnixMillis;

/// Writes a moment; for `#[serde(with)]`.
#[allow(clippy::ref_option, reason = "serde hands the field over as it stands")]
pub(super) fn serialize<S: Serializer>(
    moment: &Option<UnixMillis>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match moment {
        Some(moment) => serializer.serialize_some(&text(*moment)),
        None => serializer.serialize_none(),
    }
}

/// Reads a moment; for `#[serde(with)]`.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<UnixMillis>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let refused = || D::Error::custom("a moment is written as \"2030-01-31T23:59:59Z\"");
    parse(&text).map(Some).ok_or_else(refused)
}

impl UnixMillis {
    /// Reads a moment as it is displayed; from 1970 to 9999.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse(text)
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&text(*self))
    }
}

/// The text of a moment.
fn text(moment: UnixMillis) -> String {
    let (seconds, ms) = (moment.0 / 1_000, moment.0 % 1_000);
    let (days, second) = (seconds / DAY_SECONDS, seconds % DAY_SECONDS);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let fraction = if ms == 0 { String::new() } else { format!(".{ms:03}") };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// The moment of a text: from 1970 to 9999, in UTC, with at most three digits behind the second.
fn parse(text: &str) -> Option<UnixMillis> {
    let (whole, fraction) = text.strip_suffix('Z')?.split_at_checked(19)?;
    let bytes = whole.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !marks.iter().all(|(at, mark)| bytes[*at] == *mark) {
        return None;
    }
    let (year, month, day) = (digits(&whole[..4])?, digits(&whole[5..7])?, digits(&whole[8..10])?);
    let (hour, minute, second) =
        (digits(&whole[11..13])?, digits(&whole[14..16])?, digits(&whole[17..])?);
    let ms = match fraction.strip_prefix('.') {
        Some(part) if (1..=3).contains(&part.len()) => digits(&format!("{part:0<3}"))?,
        None if fraction.is_empty() => 0,
        Some(_) | None => return None,
    };
    let in_bounds = year >= 1970
        && (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour <= 23
        && minute <= 59
        && second <= 59;
    if !in_bounds {
        return None;
    }
    let years: u64 = (1970..year).map(days_of_year).sum();
    let months: u64 = (1..month).map(|month| days_of(year, month)).sum();
    let days = years + months + day - 1;
    let seconds = days * DAY_SECONDS + hour * 3_600 + minute * 60 + second;
    Some(UnixMillis(seconds * 1_000 + ms))
}

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// Digits alone: `parse` of a number would take a sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Year, month and day of a day since 1970, in the Gregorian calendar.
fn date(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    // Whole cycles of the calendar at once, so that the end of time is near too.
    year += days / CYCLE_DAYS * 400;
    days %= CYCLE_DAYS;
    while days >= days_of_year(year) {
        days -= days_of_year(year);
        year += 1;
    }
    let mut month = 1;
    while days >= days_of(year, month) {
        days -= days_of(year, month);
        month += 1;
    }
    (year, month, days + 1)
}

/// The days of 400 years.
const CYCLE_DAYS: u64 = 146_097;

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_of_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

const fn days_of(year: u64, month: u64) -> u64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_go_there_and_back() {
        for (ms, written) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696_000, "2000-02-29T12:34:56Z"),
            (1_900_000_000_123, "2030-03-17T17:46:40.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(text(UnixMillis(ms)), written);
            assert_eq!(parse(written), Some(UnixMillis(ms)), "{written}");
        }
        assert_eq!(parse("2030-03-17T17:46:40.5Z"), Some(UnixMillis(1_900_000_000_500)));
        for days in 0..CYCLE_DAYS + 400 {
            let moment = UnixMillis(days * DAY_SECONDS * 1_000);
            assert_eq!(parse(&text(moment)), Some(moment));
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for bad in [
            "",
            "Z",
            "2030-01-31",
            "2030-01-31T23:59:59",
            "2030-01-31T23:59:59+00:00",
            "2030-01-31 23:59:59Z",
            "2030-02-29T00:00:00Z",
            "2030-13-01T00:00:00Z",
            "2030-00-01T00:00:00Z",
            "2030-01-00T00:00:00Z",
            "2030-01-01T24:00:00Z",
            "2030-01-01T00:60:00Z",
            "2030-01-01T00:00:60Z",
            "1969-12-31T23:59:59Z",
            "+030-01-01T00:00:00Z",
            "2030-01-01T00:00:00.Z",
            "2030-01-01T00:00:00.1234Z",
            "2030-01-01T00:00:0éZ",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
