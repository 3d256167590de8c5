//! Those who sit at the table of a rehearsal, and what they bring.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use firstkey::component::Component;
use firstkey::crypto::rng::SystemRng;
use firstkey::key::Algorithm;

use crate::pty::Terminal;
use crate::service::Service;

/// A rehearsal in a terminal.
pub(crate) struct Rehearsal {
    pub(crate) terminal: Terminal,
    /// The first 32 digits of the digest, as the script has them.
    pub(crate) digest: String,
    /// Where slips and transcript go; gone with the test.
    folder: PathBuf,
    /// How many custodians there are.
    custodians: usize,
    step: usize,
    steps: usize,
}

impl Rehearsal {
    /// Begins; the people have the script before them.
    pub(crate) fn begin(name: &'static str, plan: Option<&str>) -> Self {
        Self::begin_in(&std::env::temp_dir(), name, plan, &["--force-file"])
    }

    /// Begins with slips in a folder of this folder, and printed so.
    pub(crate) fn begin_in(
        parent: &Path,
        name: &'static str,
        plan: Option<&str>,
        printed: &[&str],
    ) -> Self {
        let folder = parent.join(format!("firstkey-test-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        let path = |name: &str| folder.join(name).display().to_string();
        let (slips, transcript) = (path("slips"), path("transcript.jsonl"));
        fs::create_dir(&slips).unwrap();
        let mut arguments = vec!["ceremony", "rehearse", "--silence", "5"];
        arguments.extend(printed);
        arguments.extend(["--print-to", &slips, "--transcript", &transcript]);
        let file = path("plan.toml");
        if let Some(plan) = plan {
            fs::write(&file, plan).unwrap();
            arguments.push(&file);
        }
        let mut terminal = Terminal::start(name, &arguments);
        terminal.sees(&["Keep the digest at hand, and press Enter."]);
        let script = String::from_utf8(terminal.octets()).unwrap();
        let (_, digest) = script.split_once("digest       ").unwrap();
        let digest = digest[..39].to_owned();
        terminal.sends(b"\r");
        terminal.sees(&["Everybody has the script on paper", "TEST"]);
        let (custodians, steps) = if plan.is_some() { (2, 13) } else { (3, 18) };
        terminal.sends(b"\r");
        terminal.sees(&["what is planned"]);
        terminal.sends(b"\r");
        Self { terminal, digest, folder, custodians, step: 1, steps }
    }

    /// Where the certificate of a custodian lies, as the screen proposes it.
    pub(crate) fn papers(&self, custodian: usize) -> String {
        let screen = self.terminal.screen().replace('\n', "");
        let (_, path) = screen.split_once("Enter alone takes ").unwrap();
        let (folder, _) = path.split_once("/people/").unwrap();
        format!("{}/people/custodian-{custodian}.crt", folder.replace(' ', ""))
    }

    fn next(&mut self) -> String {
        let step = format!("Step {} of {}", self.step, self.steps);
        self.step += 1;
        step
    }

    pub(crate) fn everybody_joins(&mut self) {
        for _ in 0..=self.custodians {
            let step = self.next();
            self.terminal.sees(&[&step, "Path of your certificate"]);
            self.terminal.sends(b"\r");
            self.terminal.sees(&[&step, "The first 32 digits"]);
            let digest = self.digest.clone();
            self.terminal.answers(&digest);
        }
    }

    /// A ceremony that is taken up again, with two custodians and from its first step.
    pub(crate) fn taken_up(mut terminal: Terminal, digest: &str, folder: &Path) -> Self {
        terminal.sees(&["Everybody has the script on paper"]);
        terminal.sends(b"\r");
        terminal.sees(&["what is planned"]);
        terminal.sends(b"\r");
        let folder = folder.to_owned();
        Self { terminal, digest: digest.to_owned(), folder, custodians: 2, step: 1, steps: 13 }
    }

    pub(crate) fn everybody_logs_in_and_joins(&mut self, holders: &[&str], service: &Service) {
        for holder in holders {
            let step = self.next();
            self.terminal.sees(&[&step, "Path of your certificate"]);
            self.terminal.answers(&service.papers(holder));
            self.terminal.sees(&[&step, "The first 32 digits"]);
            let digest = self.digest.clone();
            self.terminal.answers(&digest);
        }
    }

    /// Gets a slip and types it back; gives its digits.
    pub(crate) fn takes_and_reads_back(&mut self, custodian: usize) -> String {
        self.takes(custodian);
        let step = self.next();
        self.terminal.sees(&[&step, "row 1 of 2    ____"]);
        let slip = self.slip(custodian);
        let is_test = self.terminal.screen().contains("*** TEST ***");
        assert_eq!(slip.trim().starts_with("*** TEST ***"), is_test, "{slip}");
        let rows: Vec<&str> = slip
            .lines()
            .filter_map(|line| line.trim().strip_prefix("row "))
            .map(|row| row[1..].trim())
            .collect();
        let typed = rows.concat().replace(' ', "");
        self.terminal.types(&typed);
        rows.iter().map(|row| row[..19].replace(' ', "")).collect()
    }

    /// A slip as whoever holds it reads it.
    fn slip(&self, custodian: usize) -> String {
        let text = self.folder.join(format!("slips/slip-{custodian}.txt"));
        if text.exists() {
            return fs::read_to_string(text).unwrap();
        }
        reader("pdftotext", &["-layout"], &self.page(&format!("slip-{custodian}")))
    }

    /// A page that was printed as PDF.
    pub(crate) fn page(&self, name: &str) -> PathBuf {
        self.folder.join(format!("slips/{name}.pdf"))
    }

    pub(crate) fn takes(&mut self, custodian: usize) {
        let step = self.next();
        if custodian == 1 {
            self.terminal.sees(&[&step, "First the script is printed"]);
            self.terminal.sends(b"\r");
        }
        self.terminal.sees(&[&step, "is printed now, once"]);
        self.terminal.sends(b"\r");
    }

    /// Types a component that was brought, as its slip has it.
    pub(crate) fn enters(&mut self, import: &Import, custodian: usize) {
        let step = self.next();
        self.terminal.sees(&[&step, "Check value of your component"]);
        self.terminal.answers(&import.values[custodian - 1]);
        self.terminal.sees(&[&step, "Has each row a fifth group"]);
        self.terminal.answers("n");
        self.terminal.sees(&[&step, "row 1 of 2    ____"]);
        self.terminal.types(&import.components[custodian - 1]);
        if custodian == self.custodians {
            self.step += self.custodians;
        }
    }

    /// The check value of the key that was made.
    pub(crate) fn check_value_on_screen(&mut self) -> String {
        let step = format!("Step {} of {}", self.step, self.steps);
        self.terminal.sees(&[&step, "Check value of the key: "]);
        let screen = self.terminal.screen();
        let (_, value) = screen.split_once("Check value of the key: ").unwrap();
        value[..10].to_owned()
    }

    pub(crate) fn everybody_confirms(&mut self, value: &str) {
        for _ in 0..=self.custodians {
            let step = self.next();
            self.terminal.sees(&[&step, "Check value of the key", "> _"]);
            self.terminal.answers(value);
        }
    }

    pub(crate) fn everybody_signs(&mut self) {
        for _ in 0..=self.custodians {
            let step = self.next();
            self.terminal.sees(&[&step, "Your key signs the transcript"]);
            self.terminal.sends(b"\r");
        }
    }

    pub(crate) fn transcript(&self) -> String {
        fs::read_to_string(self.folder.join("transcript.jsonl")).unwrap()
    }

    /// Nothing of these digits was ever on the terminal, nor is in the transcript.
    pub(crate) fn leaves_no_trace(&self, digits: &str) {
        for eight in digits.as_bytes().chunks(8) {
            let eight = std::str::from_utf8(eight).unwrap();
            assert!(!digits_in(&self.terminal.octets(), eight), "{eight} was on the terminal");
            assert!(!digits_in(self.transcript().as_bytes(), eight), "{eight} is written down");
        }
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        // What is left behind lies in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What a reader of PDF files makes of one: poppler's, which `tests/run.sh` installs.
pub(crate) fn reader(program: &str, flags: &[&str], page: &Path) -> String {
    // One of them writes to a file unless it is told.
    let to = (program == "pdftotext").then_some("-");
    let read = Command::new(program).args(flags).arg(page).args(to).output();
    let read = read.unwrap_or_else(|error| panic!("{program} of poppler-utils: {error}"));
    assert!(read.status.success() && read.stderr.is_empty(), "{read:?}");
    String::from_utf8_lossy(&read.stdout).into_owned()
}

/// Whether digits stand somewhere, whatever their case and the blanks between them.
pub(crate) fn digits_in(octets: &[u8], digits: &str) -> bool {
    let squeezed: Vec<u8> = octets
        .iter()
        .filter(|octet| !octet.is_ascii_whitespace())
        .map(u8::to_ascii_uppercase)
        .collect();
    squeezed.windows(digits.len()).any(|window| window == digits.as_bytes())
}

/// The digits on the slip of a component that nobody was given.
pub(crate) fn slip_digits(algorithm: Algorithm) -> String {
    let component = Component::generate(algorithm, &SystemRng::new()).unwrap();
    component.write().lines().map(|row| row.text.replace(' ', "")).collect()
}

/// The check value of the key that components make; parity says nothing in it.
pub(crate) fn check_value_of_sum(algorithm: Algorithm, components: &[String]) -> String {
    let mut sum = vec![0; algorithm.len_bytes()];
    for component in components {
        let octets = data_encoding::HEXUPPER.decode(component.as_bytes()).unwrap();
        sum.iter_mut().zip(octets).for_each(|(sum, octet)| *sum ^= octet);
    }
    Component::from_bytes(algorithm, &sum).unwrap().check_value().to_string()
}

/// A key in two components that custodians bring.
pub(crate) struct Import {
    algorithm: Algorithm,
    pub(crate) components: Vec<String>,
    /// The check values of the components.
    pub(crate) values: Vec<String>,
    /// The check value of the key.
    pub(crate) check_value: String,
}

impl Import {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let rng = SystemRng::new();
        let drawn: Vec<Component> =
            (0..2).map(|_| Component::generate(algorithm, &rng).unwrap()).collect();
        let digits = |component: &Component| {
            component.write().lines().map(|row| row.text[..19].replace(' ', "")).collect()
        };
        let components: Vec<String> = drawn.iter().map(digits).collect();
        Self {
            algorithm,
            values: drawn.iter().map(|component| component.check_value().to_string()).collect(),
            check_value: check_value_of_sum(algorithm, &components),
            components,
        }
    }

    /// The plan in which it is brought, to be used as a key encryption key.
    pub(crate) fn plan(&self) -> String {
        let Self { algorithm, values, check_value, .. } = self;
        format!(
            "title = \"a zone's key\"
custodians = [\"spiffe://dev.firstkey.internal/custodian/ann\", \
             \"spiffe://dev.firstkey.internal/custodian/bob\"]
witness = \"spiffe://dev.firstkey.internal/auditor/cid\"
[import]
check_value = \"{check_value}\"
component_check_values = {values:?}
[import.key]
id = \"zone\"
usage = \"K0\"
algorithm = \"{algorithm}\"
"
        )
    }
}
