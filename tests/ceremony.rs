//! Ceremonies as people hold them: the real tool in a real terminal, key by key, screen by screen.
//!
//! Every screen is kept as a text below `target/tmp/screens`.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "setup/firstkeyd.rs"]
mod firstkeyd;
#[path = "ceremony/people.rs"]
mod people;
#[path = "ceremony/pty.rs"]
mod pty;
#[path = "ceremony/service.rs"]
mod service;

use std::path::Path;

use firstkey::command::ceremony::transcript::Transcript;
use firstkey::key::Algorithm;

use crate::people::{Import, Rehearsal, check_value_of_sum, digits_in, reader, slip_digits};
use crate::pty::Terminal;
use crate::service::Service;

#[test]
fn three_custodians_and_a_witness_make_a_base_derivation_key() {
    let mut table = Rehearsal::begin("generate", None);
    table.everybody_joins();
    let mut slips = Vec::new();
    for custodian in 1..=3 {
        slips.push(table.takes_and_reads_back(custodian));
    }
    let value = table.check_value_on_screen();
    table.everybody_confirms(&value);
    table.everybody_signs();
    table.terminal.sees(&["The ceremony is complete", "TEST"]);
    assert!(table.terminal.is_taken());
    table.terminal.sends(b"\r");
    assert!(table.terminal.ends().success());
    assert!(!table.terminal.is_taken(), "the terminal is as it was");
    assert!(table.terminal.screen().contains("It is complete: ceremonies/"));
    assert!(table.terminal.screen().contains("Nothing of it is real"));

    // The transcript follows from line to line, and names what was done.
    let (_, lines) = Transcript::parse(&table.transcript()).unwrap();
    assert!(lines[0].values["plan"].contains("TEST base derivation key"));
    // The custodians have what makes the key, and nobody else saw it.
    assert_eq!(check_value_of_sum(Algorithm::Aes128, &slips), value);
    for slip in &slips {
        table.leaves_no_trace(slip);
    }
    // The control: what is shown is found by the same search.
    assert!(digits_in(&table.terminal.octets(), &value));
}

#[test]
fn slips_in_pdf_read_as_they_were_written_and_lie_in_memory_alone() {
    let memory = Path::new("/dev/shm");
    let mut table = Rehearsal::begin_in(memory, "pdf", None, &["--print-as", "pdf"]);
    assert!(!table.terminal.octets_hold("is not memory"));
    table.everybody_joins();
    // Typed back from what a reader of PDF files shows: it is what was made.
    for custodian in 1..=3 {
        let _ = table.takes_and_reads_back(custodian);
    }
    let value = table.check_value_on_screen();
    assert_eq!(value.len(), 10);
    // What is compared with the slip is not cut off with the name of its file.
    let screen = table.terminal.screen();
    let (_, shown) = screen.split_once("slip 3, check value ").unwrap();
    let slip = reader("pdftotext", &["-layout"], &table.page("slip-3"));
    assert!(slip.contains(&format!("check value {}", &shown[..10])), "{slip}");
    for name in ["cover", "slip-1", "slip-2", "slip-3"] {
        let page = table.page(name);
        let told = reader("pdfinfo", &[], &page).replace(' ', "");
        assert!(told.contains("Pages:1") && told.contains("Pagesize:595x792pts"), "{told}");
        let fonts = reader("pdffonts", &[], &page);
        assert!(fonts.contains("Courier-Bold") && !fonts.contains("Helvetica"), "{fonts}");
        // Drawn, it is a picture with something on it.
        let drawn = reader("pdftoppm", &["-r", "100", "-gray"], &page);
        let is_dark = |shade: char| shade < '@';
        assert!(drawn.starts_with("P5") && drawn.chars().skip(20).any(is_dark), "{name}");
    }
    let slip = reader("pdftotext", &["-layout"], &table.page("slip-2"));
    for text in [
        "*** TEST *** nothing here is real *** TEST ***",
        "SECRET COMPONENT 2 OF 3",
        "TEST base derivation key in three components",
        "Custodian 2 of 3",
        "check value ",
        "envelope number        ____",
        "custodian, signature   ____",
        "witness, signature     ____",
    ] {
        assert!(slip.contains(text), "{text}:\n{slip}");
    }
    assert_eq!(slip.matches("*** TEST *** nothing here is real").count(), 2);
    assert!(slip.contains(&table.digest), "the plan's digest");
    let date = slip.lines().find_map(|line| line.trim().strip_prefix("date ")).unwrap().trim();
    assert_eq!((date.len(), &date[..2], &date[10..11]), (20, "20", "T"), "{date}");
}

#[test]
fn slips_on_a_disk_are_refused_and_forced_the_screen_says_so() {
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut refused = Terminal::start("disk", &["ceremony", "rehearse", "--print-to", "/proc"]);
    assert_eq!(refused.ends().code(), Some(1));
    assert!(refused.screen().contains("/proc, which is not memory"), "{}", refused.screen());
    assert!(refused.screen().contains("--force-file if that is what you want"));
    let table = Rehearsal::begin_in(disk, "forced", None, &["--force-file"]);
    assert!(table.terminal.octets_hold("which is not memory: they stay on its disk"));
}

#[test]
fn components_that_custodians_bring_become_the_key_of_their_check_value() {
    let import = Import::new(Algorithm::Tdes2);
    let mut table = Rehearsal::begin("import", Some(&import.plan()));
    table.everybody_joins();
    for custodian in 1..=2 {
        table.enters(&import, custodian);
    }
    // Handed over by themselves; what comes next is confirmed.
    table.everybody_confirms(&import.check_value);
    table.everybody_signs();
    table.terminal.sees(&["The ceremony is complete"]);
    table.terminal.sends(b"\r");
    assert!(table.terminal.ends().success());
    for component in &import.components {
        table.leaves_no_trace(component);
    }
}

#[test]
fn what_is_typed_wrong_is_told_and_three_times_end_it() {
    let import = Import::new(Algorithm::Aes128);
    let mut table = Rehearsal::begin("wrong", Some(&import.plan()));
    table.everybody_joins();
    let terminal = &mut table.terminal;
    terminal.sees(&["Step 4 of 13", "Check value of your component"]);
    terminal.answers("0011223344");
    terminal.sees(&["the plan names another check value for this component"]);
    terminal.answers(&import.values[0]);
    terminal.sees(&["Has each row a fifth group"]);
    terminal.answers("n");
    // Too short: no key ends it before it is whole, and what is pasted does not count.
    terminal.sees(&["row 1 of 2"]);
    terminal.types("0011");
    terminal.sends(b"\r");
    terminal.sees(&["more digits are expected", "****  ____"]);
    terminal.sends(b"\x1b[200~00112233445566778899AABBCCDDEEFF\x1b[201~");
    terminal.sees(&["pasting is off", "****  ____"]);
    terminal.types("x");
    terminal.sees(&["only the digits 0 to 9 and A to F"]);
    terminal.types(&"0".repeat(28));
    for _ in 0..2 {
        terminal.sees(&["its check value is not the one of the slip", "row 1 of 2    ____"]);
        terminal.types(&"0".repeat(32));
    }
    assert!(!terminal.ends().success());
    assert!(terminal.screen().contains("typed wrong three times"));
    assert!(terminal.screen().contains("Nothing happened: ceremonies/"));
    assert!(terminal.screen().contains("waits for step 4 of 13: enter"));
    assert!(!terminal.is_taken());
}

#[test]
fn a_digest_that_is_not_the_plans_and_a_certificate_of_somebody_else_come_no_further() {
    let mut table = Rehearsal::begin("other", None);
    let terminal = &mut table.terminal;
    terminal.sees(&["Step 1 of 18", "Path of your certificate"]);
    terminal.sends(b"\r");
    terminal.sees(&["The first 32 digits"]);
    terminal.answers(&table.digest);
    terminal.sees(&["Step 2 of 18", "Enter alone takes"]);
    // The first custodian's, for the second.
    let first = table.papers(1);
    let terminal = &mut table.terminal;
    terminal.answers(&first);
    terminal.sees(&["this is the certificate of", "custodian-2 logs in here"]);
    terminal.answers("/nowhere/at-all.crt");
    terminal.sees(&["can not read /nowhere/at-all.crt"]);
    terminal.sends(b"\r");
    for _ in 0..3 {
        terminal.sees(&["Step 2 of 18", "The first 32 digits", "> _"]);
        terminal.answers("0123 4567 89AB CDEF 0123 4567 89AB CDEF");
    }
    assert!(!terminal.ends().success());
    assert!(terminal.screen().contains("Nothing happened: ceremonies/"));
}

#[test]
fn who_types_nothing_for_too_long_begins_again() {
    let import = Import::new(Algorithm::Aes128);
    let mut table = Rehearsal::begin("silence", Some(&import.plan()));
    table.everybody_joins();
    let terminal = &mut table.terminal;
    terminal.sees(&["Step 4 of 13", "Check value of your component"]);
    terminal.answers(&import.values[0]);
    terminal.sees(&["Has each row a fifth group"]);
    terminal.answers("n");
    terminal.sees(&["row 1 of 2"]);
    terminal.types(&import.components[0][..10]);
    terminal.sees(&["nobody typed for too long; what was typed is wiped"]);
    terminal.sends(b"\r");
    terminal.sees(&["row 1 of 2    ____"]);
    terminal.sends(b"\x03");
    assert!(!terminal.ends().success());
    assert!(terminal.screen().contains("Nothing happened: ceremonies/"));
}

#[test]
fn an_interruption_at_any_time_gives_the_terminal_back_and_says_what_happened() {
    for (name, signal) in [("ctrl-c", None), ("sigint", Some("-INT")), ("sigterm", Some("-TERM"))] {
        let mut table = Rehearsal::begin(name, None);
        table.terminal.sees(&["Step 1 of 18", "Path of your certificate"]);
        assert!(table.terminal.is_taken());
        match signal {
            Some(signal) => table.terminal.signals(signal),
            None => table.terminal.sends(b"\x03"),
        }
        assert_eq!(table.terminal.ends().code(), Some(1), "{name}");
        assert!(!table.terminal.is_taken(), "{name}");
        assert!(table.terminal.screen().contains("Stopped: interrupted."), "{name}");
        assert!(table.terminal.screen().contains("Nothing happened: ceremonies/"), "{name}");
    }
}

#[test]
fn a_terminal_that_is_closed_ends_the_tool_and_its_service() {
    let mut table = Rehearsal::begin("closed", None);
    table.terminal.sees(&["Step 1 of 18", "Path of your certificate"]);
    table.terminal.closes();
    assert_eq!(table.terminal.ends().code(), Some(1));
}

#[test]
fn without_a_terminal_nothing_begins() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_firstkey"));
    command.args(["ceremony", "rehearse"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("a ceremony is held at a terminal"));
}

#[test]
fn a_slip_that_is_read_back_wrongly_three_times_ends_the_ceremony() {
    let mut table = Rehearsal::begin("misread", None);
    table.everybody_joins();
    table.takes(1);
    for misread in 1..=3 {
        table.terminal.sees(&["Step 6 of 18", "row 1 of 2    ____"]);
        // Well-formed rows of another component.
        table.terminal.types(&slip_digits(Algorithm::Aes128));
        if misread < 3 {
            table.terminal.sees(&["this is not the component that was given out"]);
        }
    }
    assert_eq!(table.terminal.ends().code(), Some(1));
    assert!(table.terminal.screen().contains("was aborted, and what it held is wiped"));
    assert!(table.transcript().contains("a slip was read back wrongly too often"));
}

/// A plan for the people that a development service knows.
const GENERATED: &str = "title = \"a zone's key\"
custodians = [\"spiffe://dev.firstkey.internal/custodian/custodian-1\", \
    \"spiffe://dev.firstkey.internal/custodian/custodian-2\"]
witness = \"spiffe://dev.firstkey.internal/auditor/auditor-1\"
[generate]
id = \"zone-2027\"
usage = \"K0\"
algorithm = \"AES128\"
";

/// The first 32 digits of a plan's digest, as its script has them.
fn digest_of(plan: &str) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_firstkey"));
    let script = command.args(["ceremony", "plan", plan]).output().unwrap().stdout;
    let script = String::from_utf8(script).unwrap();
    let (_, digest) = script.split_once("digest       ").unwrap();
    digest[..39].to_owned()
}

/// Approves what a refused command left behind, by what it tells.
fn another_officer_approves(service: &Service, asks: &mut Terminal) {
    let told = String::from_utf8(asks.octets()).unwrap();
    let word = |name: &str| {
        let (_, rest) = told.split_once(name).unwrap();
        rest.split(|letter: char| letter == ';' || letter.is_whitespace())
            .next()
            .unwrap()
            .to_owned()
    };
    let (approval, digest) = (word("approval: "), word("request_digest: "));
    let voted = ["approval", "approve", &approval, "--digest", &digest];
    let voted = service.runs("officer-2", &voted);
    assert!(voted.status.success(), "{}", String::from_utf8_lossy(&voted.stderr));
}

/// A plan, the service that it is for, and where it leaves what it makes.
struct Held {
    service: Service,
    plan: String,
    transcript: String,
    slips: String,
}

impl Held {
    fn new() -> Self {
        let service = Service::start();
        let [plan, transcript, slips] =
            ["plan.toml", "transcript.jsonl", "slips"].map(|name| service.path(name));
        std::fs::write(&plan, GENERATED).unwrap();
        std::fs::create_dir(&slips).unwrap();
        Self { service, plan, transcript, slips }
    }

    /// The tool in a terminal, as somebody.
    fn start(&self, name: &'static str, verb: &[&str], holder: &str) -> Terminal {
        let flags = self.service.flags(holder);
        let mut arguments = vec!["ceremony"];
        arguments.extend(verb);
        arguments.extend(["--print-to", &self.slips, "--force-file"]);
        arguments.extend(["--transcript", &self.transcript]);
        arguments.extend(flags.iter().map(String::as_str));
        Terminal::start(name, &arguments)
    }

    /// What the tool says to somebody, without a terminal.
    fn told(&self, holder: &str, arguments: &[&str]) -> String {
        String::from_utf8(self.service.runs(holder, arguments).stdout).unwrap()
    }

    /// The key of the audit log, as an auditor has it.
    fn log_key(&self) -> String {
        let checkpoint = self.told("auditor-1", &["audit", "checkpoint"]);
        let key = checkpoint.lines().find_map(|line| line.strip_prefix("key "));
        key.unwrap().trim().to_owned()
    }

    /// Others see the same key for envelopes, and it is typed as they read it.
    fn compares_the_envelope_key(&self, run: &mut Terminal, name: &str) {
        run.sees(&["Components are sealed for", "as it is read to you"]);
        run.answers("0123 4567 89AB CDEF 0123 4567 89AB CDEF");
        run.sees(&["this is not the fingerprint of the key that this tool was given"]);
        let shown = self.told("auditor-1", &["ceremony", "show", name]);
        assert!(shown.contains("It waits for step 1 of 13: join"), "{shown}");
        let fingerprint = shown.lines().find_map(|line| line.strip_prefix("envelope_key"));
        run.answers(fingerprint.unwrap().trim());
        let listed = self.told("auditor-1", &["ceremony", "list"]);
        assert!(listed.contains(&format!("{name}  OPEN")), "{listed}");
    }

    /// A key for envelopes that another log signed, or nobody: nothing is typed for it.
    fn believes_no_other_log(&self, name: &str) {
        let other = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        let mut forged = self.start("forged", &["resume", name, "--log-key", other], "auditor-1");
        forged.sees(&["Everybody has the script on paper"]);
        forged.sends(b"\r");
        forged.sees(&["what is planned"]);
        forged.sends(b"\r");
        assert_eq!(forged.ends().code(), Some(1));
        let screen = forged.screen();
        assert!(screen.contains("not signed by this audit log"), "{screen}");
        assert!(screen.contains("Nothing happened: ceremonies/"), "{screen}");
    }

    /// It is complete, and nothing else happens; another plan is another ceremony, to be approved
    /// by itself.
    fn is_complete(&self, name: &str) {
        let mut again = self.start("run-again", &["run", &self.plan], "officer-1");
        assert!(again.ends().success());
        assert!(again.screen().contains("It is complete: ceremonies/"));
        let abort = ["ceremony", "abort", name, "--cause", "too late"];
        assert!(!self.service.runs("officer-1", &abort).status.success());
        std::fs::write(&self.plan, GENERATED.replace("zone-2027", "zone-2028")).unwrap();
        let mut other = self.start("run-other", &["run", &self.plan], "officer-1");
        assert_eq!(other.ends().code(), Some(7));
        assert!(other.screen().contains("APPROVAL_REQUIRED"), "{}", other.screen());
    }

    /// Nothing in the transcript can be another, and nobody is asked.
    fn the_transcript_stands_by_itself(&self, value: &str) {
        let ca = self.service.path("data/dev-tls/authorities/admin.crt");
        let key = self.log_key();
        let verify = |flags: &[&str]| {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_firstkey"));
            command.args(["ceremony", "verify", &self.transcript, "--log-key", &key]).args(flags);
            let output = command.output().unwrap();
            (output.status.code(), String::from_utf8(output.stdout).unwrap())
        };
        let (code, told) = verify(&["--ca", &ca]);
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains("signed by everybody and the service") && told.contains("complete"));
        // A certificate in between that is none in between is of no use, and does no harm.
        let server = self.service.path("data/dev-tls/authorities/server.crt");
        assert_eq!(verify(&["--ca", &ca, "--intermediates", &server]).0, Some(0));
        let (code, told) = verify(&["--ca", &server, "--intermediates", &server]);
        assert_eq!(code, Some(6));
        assert!(told.contains("line 2: the certificate is not of whom the line names"), "{told}");
        let text = std::fs::read_to_string(&self.transcript).unwrap();
        assert!(text.contains(value));
        std::fs::write(&self.transcript, text.replace(value, "0011AABBCC")).unwrap();
        let (code, told) = verify(&["--ca", &ca]);
        assert_eq!(code, Some(6));
        assert!(told.starts_with("NOT VERIFIED: "), "{told}");
    }
}

#[test]
fn a_ceremony_is_approved_held_taken_up_again_and_verified() {
    let held = Held::new();
    let script = held.service.runs("officer-1", &["ceremony", "plan", &held.plan]);
    assert_eq!(script.status.code(), Some(2), "a plan takes no service");

    // One officer asks, another approves, and the same command goes on.
    let mut asks = held.start("run-asks", &["run", &held.plan], "officer-1");
    assert_eq!(asks.ends().code(), Some(7));
    another_officer_approves(&held.service, &mut asks);

    let mut run = held.start("run", &["run", &held.plan], "officer-1");
    run.sees(&["Everybody has the script on paper", "13 steps"]);
    let name = format!("ceremonies/{}", run.word_behind("  ceremonies/"));
    run.sends(b"\r");
    run.sees(&["what is planned"]);
    run.sends(b"\r");
    held.compares_the_envelope_key(&mut run, &name);
    run.sees(&["Step 1 of 13", "Path of your certificate"]);
    run.answers(&held.service.papers("custodian-1"));
    run.sees(&["Step 1 of 13", "The first 32 digits"]);
    run.sends(b"\x03");
    assert_eq!(run.ends().code(), Some(1));
    assert!(run.screen().contains("Nothing happened: ceremonies/"));
    assert!(run.screen().contains("It waits for step 1 of 13: join"));

    // The same people, later; a witness may open it too.
    held.believes_no_other_log(&name);
    let key = held.log_key();
    let resumed = held.start("resume", &["resume", &name, "--log-key", &key], "auditor-1");
    let digest = digest_of(&held.plan);
    let mut table = Rehearsal::taken_up(resumed, &digest, &held.service.folder);
    let people = ["custodian-1", "custodian-2", "auditor-1"];
    table.everybody_logs_in_and_joins(&people, &held.service);
    for custodian in 1..=2 {
        table.takes_and_reads_back(custodian);
    }
    let value = table.check_value_on_screen();
    table.everybody_confirms(&value);
    table.everybody_signs();
    table.terminal.sees(&["The ceremony is complete"]);
    assert!(!table.terminal.screen().contains("TEST"));
    table.terminal.sends(b"\r");
    assert!(table.terminal.ends().success());
    held.is_complete(&name);
    held.the_transcript_stands_by_itself(&value);
}
