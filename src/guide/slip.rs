//! The slip of a custodian: one page of plain text, secret, for a printer.
//!
//! 66 lines of at most 80 columns of printable ASCII, and a form feed. What a person reads back, or
//! must not miss, is indented by four blanks, between empty lines: see `paper`.

use zeroize::Zeroizing;

use super::paper::{LARGE, PAGE_LINES};
use super::screen::read_aloud;
use super::words::{part_of, role_of, task_of};
use crate::command::ceremony::plan::Planned;
use crate::command::ceremony::step::Actor;
use crate::component::Rows;

/// The most that a page has.
const PAGE_LEN_MAX: usize = PAGE_LINES * 81 + 1;

/// What stands on a slip.
pub(super) struct Slip<'a> {
    /// A rehearsal: the page says TEST at its head and foot.
    pub(super) test: bool,
    /// `ceremonies/{ceremony}`.
    pub(super) ceremony: &'a str,
    /// The plan.
    pub(super) planned: &'a Planned,
    /// The number of the custodian, from 1.
    pub(super) number: u8,
    /// The component or share.
    pub(super) rows: &'a Rows,
    /// Its check value, or the number of its set.
    pub(super) check: &'a str,
    /// The date in UTC.
    pub(super) date: &'a str,
}

impl Slip<'_> {
    /// The page. Wiped on drop.
    pub(super) fn page(&self) -> Zeroizing<Vec<u8>> {
        // Its room is set aside at once: what grows leaves behind what it grew out of.
        let mut page = Page { text: Zeroizing::new(Vec::with_capacity(PAGE_LEN_MAX)), lines: 0 };
        let plan = self.planned.plan();
        let actor = Actor::Custodian(self.number);
        let part = part_of(self.planned);
        let mark =
            if self.test { "    *** TEST *** nothing here is real *** TEST ***" } else { "" };
        let (number, of) = (self.number, plan.custodians.len());
        page.line(mark);
        page.line("");
        page.line(&format!("{LARGE}SECRET {} {number} OF {of}", part.to_uppercase()));
        page.line("");
        page.line("For its custodian alone. Whoever reads it, or a copy of it, has it.");
        page.line("");
        page.line(&format!("title       {}", plan.title));
        for (label, value) in [
            ("purpose", task_of(self.planned)),
            ("ceremony", self.ceremony.to_owned()),
            ("plan", read_aloud(&self.planned.digest())),
            ("date", self.date.to_owned()),
            ("custodian", role_of(self.planned, actor)),
            ("", self.planned.name_of(actor).unwrap_or_default().to_owned()),
        ] {
            page.folded(label, &value);
        }
        for row in self.rows.lines() {
            page.line("");
            // Piece by piece, so that no buffer but the page has ever held the digits.
            page.begin(&format!("{LARGE}row {}     ", row.number));
            page.secret(row.text);
            page.end();
        }
        page.line("");
        page.line("The fifth group of each row checks the four before it.");
        page.line("");
        let label = if part == "share" { "set        " } else { "check value" };
        page.line(&format!("{LARGE}{label} {}", self.check));
        for blank in ["envelope number", "custodian, signature", "witness, signature", "date"] {
            page.line("");
            page.line(&format!("{blank:<22} ________________________________________"));
        }
        for told in [
            "",
            "Read it back at the table, put it into the envelope, seal and sign the envelope.",
            "Keep it where only you can reach it. Never copy, photograph or tell it; no two",
            "of a set lie in one place. To end it: shred it crosswise before a witness.",
        ] {
            page.line(told);
        }
        page.finish(mark)
    }
}

/// A page that is being written.
struct Page {
    text: Zeroizing<Vec<u8>>,
    lines: usize,
}

impl Page {
    fn begin(&mut self, text: &str) {
        let plain = |letter: char| if (' '..='~').contains(&letter) { letter } else { '?' };
        self.text.extend(text.chars().take(80).map(plain).filter_map(|one| u8::try_from(one).ok()));
    }

    fn secret(&mut self, digits: &str) {
        self.text.extend_from_slice(digits.as_bytes());
    }

    fn end(&mut self) {
        self.text.push(b'\n');
        self.lines += 1;
    }

    fn line(&mut self, text: &str) {
        self.begin(text);
        self.end();
    }

    fn folded(&mut self, label: &str, value: &str) {
        let letters: Vec<char> = value.chars().collect();
        let labels = [label].into_iter().chain(std::iter::repeat(""));
        for (part, label) in letters.chunks(68).map(String::from_iter).zip(labels) {
            self.line(&format!("{label:<11} {part}"));
        }
    }

    fn finish(mut self, mark: &str) -> Zeroizing<Vec<u8>> {
        while self.lines < PAGE_LINES - 1 {
            self.end();
        }
        self.line(mark);
        self.text.push(b'\x0c');
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::ceremony::plan::Plan;
    use crate::component::Component;
    use crate::crypto::rng::SystemRng;
    use crate::key::Algorithm;

    fn page(algorithm: Algorithm, test: bool, name: &str) -> (Component, String) {
        let component = Component::generate(algorithm, &SystemRng::new()).unwrap();
        let plan = format!(
            "title = \"A key\"\ncustodians = [\"a:/{name}\", \"b:/{name}\"]\nwitness = \"w:/{name}\"
            [generate]\nid = \"k\"\nusage = \"B0\"\nalgorithm = \"AES256\"\n"
        );
        let planned = toml::from_str::<Plan>(&plan).unwrap().check().unwrap();
        let check = component.check_value().to_string();
        let rows = component.write();
        let slip = Slip {
            test,
            ceremony: "ceremonies/0192",
            planned: &planned,
            number: 2,
            rows: &rows,
            check: &check,
            date: "2026-11-23T18:30:05Z",
        };
        let page = slip.page();
        assert!(page.len() <= PAGE_LEN_MAX && page.capacity() == PAGE_LEN_MAX, "it never grew");
        (component, String::from_utf8(page.to_vec()).unwrap())
    }

    #[test]
    fn a_slip_is_one_page_and_says_what_it_is() {
        for (algorithm, name) in
            [(Algorithm::Aes256, "ann".to_owned()), (Algorithm::Hmac512, "x".repeat(250))]
        {
            let (component, page) = page(algorithm, false, &name);
            let body = page.strip_suffix('\x0c').unwrap();
            assert_eq!(body.lines().count(), PAGE_LINES);
            assert!(body.lines().all(|line| line.len() <= 80));
            for row in component.write().lines() {
                assert!(body.contains(&format!("row {}     {}", row.number, row.text)));
            }
            for text in [
                "SECRET COMPONENT 2 OF 2",
                "custodian   Custodian 2 of 2",
                "ceremonies/0192",
                "envelope number",
                &format!("check value {}", component.check_value()),
            ] {
                assert!(body.contains(text), "{text}");
            }
            assert!(!body.contains("TEST"));
            // Large lines have room for their size.
            let lines: Vec<&str> = body.lines().collect();
            let is_large = |line: &str| line.starts_with("    ") && !line.starts_with("     ");
            for place in (0..PAGE_LINES).filter(|place| is_large(lines[*place])) {
                assert!(lines[place].len() <= LARGE.len() + 50);
                assert!(place == 0 || lines[place - 1].is_empty(), "{}", lines[place]);
                assert!(place + 1 == PAGE_LINES || lines[place + 1].is_empty());
            }
        }
        let (_, page) = page(Algorithm::Aes128, true, "ann");
        assert_eq!(page.matches("*** TEST *** nothing here is real *** TEST ***").count(), 2);
    }
}
