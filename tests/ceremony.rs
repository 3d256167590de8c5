//! Ceremonies as people hold them: the real tool in a real terminal, key by key, screen by screen.
//!
//! Every screen is kept as a text below `target/tmp/screens`.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "ceremony/people.rs"]
mod people;
#[path = "ceremony/pty.rs"]
mod pty;
#[path = "ceremony/service.rs"]
mod service;

use firstkey::command::ceremony::transcript::Transcript;
use firstkey::key::Algorithm;

use crate::people::{Import, Rehearsal, check_value_of_sum, digits_in, slip_digits};
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
    terminal.sees(&["The first 16 digits"]);
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
        terminal.sees(&["Step 2 of 18", "The first 16 digits", "> _"]);
        terminal.answers("0123 4567 89AB CDEF");
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

/// The first 16 digits of a plan's digest, as its script has them.
fn digest_of(plan: &str) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_firstkey"));
    let script = command.args(["ceremony", "plan", plan]).output().unwrap().stdout;
    let script = String::from_utf8(script).unwrap();
    let (_, digest) = script.split_once("read aloud and typed: ").unwrap();
    digest[..19].to_owned()
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

#[test]
fn a_ceremony_is_approved_held_taken_up_again_and_verified() {
    let service = Service::start();
    let (plan, slips) = (service.path("plan.toml"), service.path("slips"));
    std::fs::write(&plan, GENERATED).unwrap();
    std::fs::create_dir(&slips).unwrap();
    let script = service.runs("officer-1", &["ceremony", "plan", &plan]);
    assert_eq!(script.status.code(), Some(2), "a plan takes no service");
    let transcript = service.path("transcript.jsonl");
    let table = ["--print-to", &slips, "--force-file", "--transcript", &transcript];
    let start = |name, verb: &[&str], holder: &str| {
        let flags = service.flags(holder);
        let flags = flags.iter().map(String::as_str);
        let arguments: Vec<&str> = ["ceremony"]
            .into_iter()
            .chain(verb.iter().copied())
            .chain(table)
            .chain(flags)
            .collect();
        Terminal::start(name, &arguments)
    };

    // One officer asks, another approves, and the same command goes on.
    let mut asks = start("run-asks", &["run", &plan], "officer-1");
    assert_eq!(asks.ends().code(), Some(7));
    another_officer_approves(&service, &mut asks);

    let mut run = start("run", &["run", &plan], "officer-1");
    run.sees(&["Everybody has the script on paper", "13 steps"]);
    let name = run.word_behind("  ceremonies/");
    run.sends(b"\r");
    run.sees(&["Step 1 of 13", "Path of your certificate"]);
    run.answers(&service.papers("custodian-1"));
    run.sees(&["Step 1 of 13", "The first 16 digits"]);
    run.sends(b"\x03");
    assert_eq!(run.ends().code(), Some(1));
    assert!(run.screen().contains("Nothing happened: ceremonies/"));
    assert!(run.screen().contains("It waits for step 1 of 13: join"));

    // The same people, later; a witness may open it too.
    let name = format!("ceremonies/{name}");
    let resumed = start("resume", &["resume", &name], "auditor-1");
    let digest = digest_of(&plan);
    let mut table = Rehearsal::taken_up(resumed, &digest, &service.folder);
    table.everybody_logs_in_and_joins(&["custodian-1", "custodian-2", "auditor-1"], &service);
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

    // Once more: it is complete, and nothing else happens.
    let mut again = start("run-again", &["run", &plan], "officer-1");
    assert!(again.ends().success());
    assert!(again.screen().contains("It is complete: ceremonies/"));
    let aborted = service.runs("officer-1", &["ceremony", "abort", &name, "--cause", "too late"]);
    assert!(!aborted.status.success());

    the_transcript_stands_by_itself(&service, &transcript, &value);
}

/// Nothing in it can be another, and nobody is asked.
fn the_transcript_stands_by_itself(service: &Service, transcript: &str, value: &str) {
    let checkpoint = service.runs("auditor-1", &["audit", "checkpoint"]).stdout;
    let checkpoint = String::from_utf8(checkpoint).unwrap();
    let key = checkpoint.lines().find_map(|line| line.strip_prefix("key ")).unwrap();
    let ca = service.path("data/dev-tls/authorities/admin.crt");
    let verify = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_firstkey"));
        command.args(["ceremony", "verify", transcript, "--log-key", key, "--ca", &ca]);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, told) = verify();
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("signed by everybody and the service") && told.contains("complete"));
    let text = std::fs::read_to_string(transcript).unwrap();
    assert!(text.contains(value));
    std::fs::write(transcript, text.replace(value, "0011AABBCC")).unwrap();
    let (code, told) = verify();
    assert_eq!(code, Some(6));
    assert!(told.starts_with("NOT VERIFIED: "), "{told}");
}
