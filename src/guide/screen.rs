//! A screen: who acts, what is expected, what happened, and when it is, in so many lines and
//! columns of plain ASCII.
//!
//! ```text
//! line 1        whose tool it is, TEST where nothing is real, the time in UTC
//!      2..5     the ceremony: its title, the plan's digest, the service, its envelope key
//!      6..      step n of N, who acts; what is expected; what is typed; what was wrong with it
//!      the last what happened, the newest first; the keys that do something
//! ```

use crate::vault::UnixMillis;

/// The least that a screen fits into.
pub const COLUMNS_MIN: usize = 80;
/// The least that a screen fits into.
pub const LINES_MIN: usize = 24;
/// How much of what happened is on a screen.
const HAPPENED_MAX: usize = 3;

/// What stays on every screen of a ceremony.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// A rehearsal: it says TEST at the top and at the foot.
    pub test: bool,
    /// Where the service is.
    pub service: String,
    /// The title of the plan.
    pub title: String,
    /// The first 16 digits of the plan's digest, as [`digest_groups`] has them.
    pub digest: String,
    /// The first 16 digits of the SHA-256 of the ceremony's key for envelopes; empty: it has none.
    pub envelope_key: String,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// When, in UTC: `18:30:05Z`.
    pub time: String,
    /// What, in one line.
    pub what: String,
}

/// One screen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Screen {
    /// What stays.
    pub frame: Frame,
    /// The number of the step from 1, and how many there are; none before the first.
    pub step: Option<(usize, usize)>,
    /// Who acts: `Custodian 2 of 3`, and by what name.
    pub who: String,
    /// The URI name of who acts.
    pub name: String,
    /// What is expected of them, a paragraph each.
    pub expected: Vec<String>,
    /// What was typed so far, masked where it is secret.
    pub typed: Vec<String>,
    /// What is to be noticed: why something was refused.
    pub notice: String,
    /// What happened, the oldest first.
    pub happened: Vec<Happened>,
    /// The keys that do something.
    pub keys: String,
}

/// The terminal is smaller than a screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the terminal has {columns} columns and {lines} lines; a screen needs 80 and 24")]
pub struct TooSmall {
    /// Its columns.
    pub columns: usize,
    /// Its lines.
    pub lines: usize,
}

impl Happened {
    /// Something that happened now, in Unix seconds.
    #[must_use]
    pub fn now(now: u64, what: String) -> Self {
        let time = time(now).get(11..).unwrap_or_default().to_owned();
        Self { time, what }
    }
}

impl Screen {
    /// The lines of the screen: exactly so many, each of exactly so many printable ASCII
    /// characters. `now` is in Unix seconds.
    pub fn render(&self, columns: usize, lines: usize, now: u64) -> Result<Vec<String>, TooSmall> {
        if columns < COLUMNS_MIN || lines < LINES_MIN {
            return Err(TooSmall { columns, lines });
        }
        let (mut head, asked, foot) =
            (self.head(columns, now), self.asked(columns), self.foot(columns));
        // What was typed, and what is wrong with it, goes before what is expected, should there be
        // too much of both.
        let room = lines.saturating_sub(foot.len() + asked.len());
        head.extend(self.expectation(columns));
        head.truncate(room);
        head.extend(asked);
        head.resize(lines.saturating_sub(foot.len()), String::new());
        head.extend(foot);
        Ok(head.into_iter().map(|line| exactly(&line, columns)).collect())
    }

    fn head(&self, columns: usize, now: u64) -> Vec<String> {
        let frame = &self.frame;
        let mark = if frame.test { "*** TEST *** TEST *** TEST ***" } else { "" };
        let name = "firstkey ceremony";
        let mut head = vec![
            three(name, mark, &time(now), columns),
            "=".repeat(columns),
            two(&frame.title, &labelled("plan", &frame.digest), columns),
            two(&frame.service, &labelled("envelope key", &frame.envelope_key), columns),
            "-".repeat(columns),
        ];
        if let Some((step, of)) = self.step {
            head.push(two(&format!("Step {step} of {of}"), &self.who, columns));
        } else {
            head.push(two("", &self.who, columns));
        }
        head.push(two("", &self.name, columns));
        head
    }

    fn expectation(&self, columns: usize) -> Vec<String> {
        let lines = self.expected.iter().flat_map(|paragraph| wrap(paragraph, columns - 4));
        let lines = lines.map(|line| format!("  {line}"));
        [String::new()].into_iter().chain(lines).collect()
    }

    fn asked(&self, columns: usize) -> Vec<String> {
        let mut asked = Vec::new();
        if !self.typed.is_empty() {
            asked.push(String::new());
            asked.extend(self.typed.iter().map(|line| format!("    {line}")));
        }
        if !self.notice.is_empty() {
            asked.push(String::new());
            let lines = wrap(&self.notice, columns - 6);
            asked.extend(lines.into_iter().map(|line| format!("  ! {line}")));
        }
        asked
    }

    fn foot(&self, columns: usize) -> Vec<String> {
        let mut foot = vec!["-".repeat(columns)];
        let newest = self.happened.iter().rev().take(HAPPENED_MAX);
        foot.extend(newest.map(|happened| format!(" {}  {}", happened.time, happened.what)));
        foot.resize(HAPPENED_MAX + 1, String::new());
        foot.push("=".repeat(columns));
        let mark = if self.frame.test { "TEST: nothing here is real" } else { "" };
        foot.push(two(&self.keys, mark, columns));
        foot
    }
}

/// The first 16 digits of a digest in groups of 4: enough to tell one from another at a glance.
pub(super) fn digest_groups(digest: &[u8]) -> String {
    let digits = data_encoding::HEXUPPER.encode(digest);
    in_groups(digits.get(..16).unwrap_or(&digits))
}

/// The first 32 digits of a digest in groups of 4, which are read aloud and typed: who writes what
/// is digested finds no two that have them in common.
#[must_use]
pub fn read_aloud(digest: &[u8]) -> String {
    let digits = data_encoding::HEXUPPER.encode(digest);
    in_groups(digits.get(..32).unwrap_or(&digits))
}

/// Digits in groups of 4, which two people can read to each other.
#[must_use]
pub fn in_groups(digits: &str) -> String {
    let digits: Vec<char> = digits.chars().collect();
    digits.chunks(4).map(String::from_iter).collect::<Vec<_>>().join(" ")
}

/// A moment in Unix seconds as RFC 3339 has it, in UTC.
pub(super) fn time(seconds: u64) -> String {
    UnixMillis(seconds.saturating_mul(1_000)).to_string()
}

fn labelled(label: &str, value: &str) -> String {
    if value.is_empty() { String::new() } else { format!("{label}  {value}") }
}

/// Two texts at the edges of a line; the right one is never cut.
fn two(left: &str, right: &str, columns: usize) -> String {
    let room = columns.saturating_sub(right.chars().count() + 3);
    let left: String = left.chars().take(room).collect();
    let width = columns.saturating_sub(left.chars().count() + 2);
    format!(" {left}{right:>width$} ")
}

/// A text in the middle of a line, between two at its edges.
fn three(left: &str, middle: &str, right: &str, columns: usize) -> String {
    let width = columns.saturating_sub(left.len() + right.len() + 2);
    format!(" {left}{middle:^width$}{right} ")
}

/// Breaks a paragraph at its spaces; a word that is longer than a line is broken too. What it
/// begins with stays: nothing looks like the beginning of something that is none.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut line, mut is_fresh) = (String::new(), true);
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let begun = line.chars().count();
            let space = usize::from(!is_fresh);
            if begun + space + word.len() <= width {
                line.extend([" "].iter().take(space).copied());
                line.extend(word);
                is_fresh = false;
                break;
            }
            if begun > 0 {
                lines.push(std::mem::take(&mut line));
                is_fresh = true;
            } else {
                let rest = word.split_off(width);
                lines.push(String::from_iter(word));
                word = rest;
            }
        }
    }
    lines.push(line);
    lines
}

/// A line of exactly so many characters. What is not printable ASCII is shown as `?`: names and
/// titles come from a file or a service, and none of them gives orders to a terminal.
fn exactly(line: &str, columns: usize) -> String {
    let plain = |letter: char| if (' '..='~').contains(&letter) { letter } else { '?' };
    let mut exact: String = line.chars().take(columns).map(plain).collect();
    let missing = columns.saturating_sub(exact.len());
    exact.extend(std::iter::repeat_n(' ', missing));
    exact
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENING: u64 = 1_795_458_605;

    fn screen() -> Screen {
        Screen {
            frame: Frame {
                test: true,
                service: "https://127.0.0.1:7443".to_owned(),
                title: "BDK for the terminals of 2027".to_owned(),
                digest: digest_groups(&[0xab; 32]),
                envelope_key: digest_groups(&[0x12; 32]),
            },
            step: Some((5, 17)),
            who: "Custodian 2 of 3".to_owned(),
            name: "spiffe://example.test/custodian/bob".to_owned(),
            expected: vec![
                "Type the component that your slip says, group by group. Nobody else looks at the \
                 keys or at the slip."
                    .to_owned(),
            ],
            typed: vec!["row 1 of 2   ****  **__  ____  ____   check ____".to_owned()],
            notice: "this row is not what its check group says: type it again".to_owned(),
            happened: (1_u64..=7)
                .map(|one| Happened::now(EVENING - 60 + one, format!("event {one}")))
                .collect(),
            keys: "Backspace: take back   Ctrl-C: stop".to_owned(),
        }
    }

    #[test]
    fn everything_stands_where_people_look_for_it() {
        let shown = screen().render(80, 24, EVENING).unwrap();
        let expected = "
 firstkey ceremony     *** TEST *** TEST *** TEST ***      2026-11-23T18:30:05Z
================================================================================
 BDK for the terminals of 2027                        plan  ABAB ABAB ABAB ABAB
 https://127.0.0.1:7443                       envelope key  1212 1212 1212 1212
--------------------------------------------------------------------------------
 Step 5 of 17                                                  Custodian 2 of 3
                                            spiffe://example.test/custodian/bob

  Type the component that your slip says, group by group. Nobody else looks at
  the keys or at the slip.

    row 1 of 2   ****  **__  ____  ____   check ____

  ! this row is not what its check group says: type it again




--------------------------------------------------------------------------------
 18:29:12Z  event 7
 18:29:11Z  event 6
 18:29:10Z  event 5
================================================================================
 Backspace: take back   Ctrl-C: stop                 TEST: nothing here is real
";
        let shown: Vec<_> = shown.iter().map(|line| line.trim_end()).collect();
        let expected: Vec<_> = expected.lines().skip(1).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_screen_is_as_large_as_the_terminal_whatever_stands_on_it() {
        let mut long = screen();
        long.expected = vec!["word ".repeat(500), "x".repeat(300)];
        long.frame.title = "t".repeat(200);
        long.name = "n".repeat(255);
        for screen in [screen(), long, Screen::default()] {
            for (columns, lines) in [(80, 24), (81, 25), (132, 50), (400, 100)] {
                let shown = screen.render(columns, lines, EVENING).unwrap();
                assert_eq!(shown.len(), lines);
                assert!(shown.iter().all(|line| line.len() == columns), "{shown:?}");
                if !screen.notice.is_empty() {
                    assert!(shown.concat().contains("type it again"), "what is wrong stays");
                }
            }
        }
        assert_eq!(screen().render(79, 24, EVENING), Err(TooSmall { columns: 79, lines: 24 }));
        assert!(screen().render(80, 23, EVENING).is_err());
    }

    #[test]
    fn nothing_that_is_shown_gives_orders_to_the_terminal() {
        let mut screen = screen();
        for field in [&mut screen.frame.title, &mut screen.name, &mut screen.notice] {
            *field = "a\u{1b}[2Jb\u{7f}\r\n\u{9b}31mc\u{e9}".to_owned();
        }
        screen.happened[6].what = "\u{1b}]52;c;AAAA\u{7}".to_owned();
        let shown = screen.render(80, 24, EVENING).unwrap().concat();
        assert!(shown.bytes().all(|octet| (32..127).contains(&octet)));
        assert!(shown.contains("a?[2Jb"));
    }

    #[test]
    fn what_is_no_rehearsal_is_not_marked() {
        let mut screen = screen();
        screen.frame.test = false;
        assert!(!screen.render(80, 24, EVENING).unwrap().concat().contains("TEST"));
    }
}
