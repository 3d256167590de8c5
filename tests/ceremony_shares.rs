//! The first master key, made by people at a terminal: the real tool over a real service that
//! starts sealed, interrupted, killed and held to its end.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "setup/firstkeyd.rs"]
mod firstkeyd;
#[path = "ceremony/pty.rs"]
mod pty;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::firstkeyd::Firstkeyd;
use crate::pty::Terminal;

/// A live service whose store is empty.
struct Service {
    folder: PathBuf,
    process: Firstkeyd,
    url: String,
}

impl Service {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("firstkey-shares-{}", uuid::Uuid::new_v4()));
        let made = Command::new(env!("CARGO_BIN_EXE_firstkeyd"))
            .arg("init")
            .arg(&folder)
            .args(["--listen", "127.0.0.1:0"])
            .output();
        assert!(made.unwrap().status.success());
        let (process, url) = serve(&folder);
        Self { folder, process, url }
    }

    fn is_killed_and_started(&mut self) {
        self.process.kill();
        (self.process, self.url) = serve(&self.folder);
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn papers(&self, holder: &str) -> String {
        self.path(&format!("clients/admin/{holder}.crt"))
    }

    /// The tool in a terminal, as an officer.
    fn tool(&self, name: &'static str, arguments: &[&str]) -> Terminal {
        self.tool_of("officer-1", name, arguments)
    }

    /// The tool in a terminal of somebody.
    fn tool_of(&self, holder: &str, name: &'static str, arguments: &[&str]) -> Terminal {
        let (certificate, ca) = (self.papers(holder), self.path("authorities/server.crt"));
        let key = certificate.replace(".crt", ".key");
        let server = ["--server", &self.url, "--ca", &ca, "--cert", &certificate, "--key", &key];
        Terminal::start(name, &[arguments, &server].concat())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.process.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn serve(folder: &Path) -> (Firstkeyd, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firstkeyd"));
    command.args(["serve", "--config"]).arg(folder.join("firstkeyd.toml"));
    let (process, address) = Firstkeyd::serving(&mut command);
    (process, format!("https://{address}"))
}

const PLAN: &str = "title = \"the first master key\"
custodians = [\"spiffe://firstkey.internal/custodian/custodian-1\", \
    \"spiffe://firstkey.internal/custodian/custodian-2\", \
    \"spiffe://firstkey.internal/custodian/custodian-3\"]
witness = \"spiffe://firstkey.internal/auditor/auditor-1\"
[initialise]
threshold = 2
";

/// Somebody logs in and types the digest, and gets a slip.
fn takes(table: &mut Terminal, service: &Service, custodian: usize, digest: &str) {
    let step = format!("Step {} of 10", 2 * custodian - 1);
    table.sees(&[&step, "Path of your certificate"]);
    table.answers(&service.papers(&format!("custodian-{custodian}")));
    table.sees(&[&step, "The first 32 digits"]);
    table.answers(digest);
    if custodian == 1 {
        table.sees(&[&step, "First the script is printed"]);
        table.sends(b"\r");
    }
    table.sees(&[&step, "Your share is printed now, once"]);
    table.sends(b"\r");
    table.sees(&[&format!("Step {} of 10", 2 * custodian), "row 0 of 4    ____"]);
}

/// The rows of a slip, as they are typed.
fn slip(service: &Service, custodian: usize) -> String {
    let text = fs::read_to_string(service.path(&format!("slips/slip-{custodian}.txt"))).unwrap();
    assert!(text.contains("SECRET SHARE") && !text.contains("check value  "), "{text}");
    let rows = text.lines().filter_map(|line| line.strip_prefix("    row "));
    rows.map(|row| row[1..].replace(' ', "")).collect()
}

/// What is typed of a plan's digest, as its script has it.
fn digest_of(plan: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firstkey"));
    let script = command.args(["ceremony", "plan", plan]).output().unwrap().stdout;
    let script = String::from_utf8(script).unwrap();
    let (_, digest) = script.split_once("digest       ").unwrap();
    digest[..39].to_owned()
}

/// The service is killed in the middle: nothing has happened.
fn it_is_killed_in_the_middle(service: &mut Service, run: &[&str], digest: &str) {
    let mut table = service.tool("shares-killed", run);
    table.sees(&["Everybody has the script on paper", "10 steps"]);
    table.sends(b"\r");
    table.sees(&["what is planned"]);
    table.sends(b"\r");
    takes(&mut table, service, 1, digest);
    service.is_killed_and_started();
    table.sends(b"\x03");
    assert_eq!(table.ends().code(), Some(1));
    // It serves at another place: how it stands can not be asked there.
    assert!(table.screen().contains("Nothing happened: the last share was not read back."));
    for old in ["cover", "slip-1"] {
        fs::remove_file(service.path(&format!("slips/{old}.txt"))).unwrap();
    }
}

#[test]
fn three_custodians_make_the_first_master_key_at_a_table() {
    let mut service = Service::new();
    let (plan, slips) = (service.path("plan.toml"), service.path("slips"));
    let transcript = service.path("transcript.jsonl");
    fs::write(&plan, PLAN).unwrap();
    fs::create_dir(&slips).unwrap();
    let digest = &digest_of(&plan);
    let room = ["--print-to", &slips, "--force-file", "--transcript", &transcript];
    let run = [&["ceremony", "run", &plan], &room[..]].concat();

    it_is_killed_in_the_middle(&mut service, &run, digest);

    // Begun anew, and the tool interrupted once; what is read back wrongly is told.
    let mut table = service.tool("shares", &run);
    table.sees(&["Everybody has the script on paper"]);
    let name = format!("ceremonies/{}", table.word_behind("  ceremonies/"));
    table.sends(b"\r");
    table.sees(&["what is planned"]);
    table.sends(b"\r");
    takes(&mut table, &service, 1, digest);
    let first = slip(&service, 1);
    table.sends(b"\x03");
    assert_eq!(table.ends().code(), Some(1));
    assert!(table.screen().contains("Nothing happened: ceremonies/"), "{}", table.screen());
    assert!(table.screen().contains("waits for step 2 of 10: read-back"));
    fs::remove_file(service.path("slips/cover.txt")).unwrap();
    let resume = [&["ceremony", "resume", &name], &room[..]].concat();
    let mut table = service.tool("shares-resumed", &resume);
    table.sees(&["Everybody has the script on paper"]);
    table.sends(b"\r");
    table.sees(&["what is planned"]);
    table.sends(b"\r");
    table.sees(&["Step 2 of 10", "Path of your certificate"]);
    table.answers(&service.papers("custodian-1"));
    table.sees(&["Step 2 of 10", "row 0 of 4    ____"]);
    table.types(&first);
    for custodian in 2..=3 {
        if custodian == 2 {
            table.sees(&["Step 3 of 10", "Path of your certificate"]);
            table.answers(&service.papers("custodian-2"));
            table.sees(&["Step 3 of 10", "The first 32 digits"]);
            table.answers(digest);
            table.sees(&["Step 3 of 10", "First the script is printed"]);
            table.sends(b"\r");
            table.sees(&["Step 3 of 10", "Your share is printed now, once"]);
            table.sends(b"\r");
            table.sees(&["Step 4 of 10", "row 0 of 4    ____"]);
            table.types(&first);
            table.sees(&["this is not the share that was given out", "row 0 of 4    ____"]);
        } else {
            takes(&mut table, &service, custodian, digest);
        }
        table.types(&slip(&service, custodian));
    }
    for step in 7..=10 {
        let step = format!("Step {step} of 10");
        if step.starts_with("Step 10") {
            table.sees(&[&step, "Path of your certificate"]);
            table.answers(&service.papers("auditor-1"));
        }
        table.sees(&[&step, "Your key signs the transcript"]);
        table.sends(b"\r");
    }
    table.sees(&["The ceremony is complete"]);
    table.sends(b"\r");
    assert!(table.ends().success());
    assert!(table.screen().contains("It is complete: ceremonies/"));
    nothing_is_left_of_what_was_typed(&service, &table, &transcript);
    it_is_opened_again_at_one_table(&mut service);
}

/// Killed, it is sealed; two of the custodians open it, whoever left the table before.
fn it_is_opened_again_at_one_table(service: &mut Service) {
    service.is_killed_and_started();
    let unseal = ["seal", "unseal"];
    // Nothing was typed to its end: nothing happened.
    for end in ["-INT", "-HUP"] {
        let mut table = service.tool_of("custodian-1", "unseal-stopped", &unseal);
        table.sees(&["0 of 2 shares given", "row 0 of 4    ____"]);
        table.types(&slip(service, 1)[..30]);
        table.signals(end);
        assert_eq!(table.ends().code(), Some(1));
        assert!(table.screen().contains("nothing happened: no share was given here"), "{end}");
    }
    // One who gives a share and leaves has given it.
    let mut table = service.tool_of("custodian-1", "unseal-one", &unseal);
    table.sees(&["0 of 2 shares given", "row 0 of 4    ____"]);
    table.types(&slip(service, 1));
    table.sees(&["1 of 2 shares given", "The next custodian logs in"]);
    table.sends(b"\x03");
    assert!(table.ends().success());
    assert!(table.screen().contains("What was given here stays until"), "{}", table.screen());
    // The same share and the same custodian are no second ones.
    let mut table = service.tool_of("custodian-3", "unseal", &unseal);
    table.sees(&["1 of 2 shares given", "row 0 of 4    ____"]);
    table.types(&slip(service, 1));
    table.sees(&["it was given before", "1 of 2 shares given", "The next custodian logs in"]);
    table.answers(&service.papers("custodian-1"));
    table.sees(&["1 of 2 shares given", "row 0 of 4    ____"]);
    table.types(&slip(service, 2));
    table.sees(&["this caller gave one before", "The next custodian logs in"]);
    table.answers(&service.papers("custodian-2"));
    table.sees(&["1 of 2 shares given", "row 0 of 4    ____"]);
    table.types(&slip(service, 2));
    table.sees(&["the vault is open"]);
    table.sends(b"\r");
    assert!(table.ends().success());
    assert!(table.screen().contains("OPEN"), "{}", table.screen());
}

/// What was typed is nowhere, and the transcript has an end that the service signed.
fn nothing_is_left_of_what_was_typed(service: &Service, table: &Terminal, transcript: &str) {
    let text = fs::read_to_string(transcript).unwrap();
    assert!(text.contains("\"what\":\"closed\"") && text.contains("read back wrongly"));
    let shown = String::from_utf8_lossy(&table.octets()).replace(' ', "");
    for custodian in 1..=3 {
        let digits = slip(service, custodian);
        for row in digits.as_bytes().chunks(20).skip(1) {
            let row = std::str::from_utf8(&row[..16]).unwrap();
            assert!(!shown.contains(row) && !text.to_uppercase().contains(row));
        }
    }
}

const REHEARSED: &str = "title = \"five shares\"
custodians = [\"spiffe://dev.firstkey.internal/custodian/custodian-1\", \
    \"spiffe://dev.firstkey.internal/custodian/custodian-2\", \
    \"spiffe://dev.firstkey.internal/custodian/custodian-3\", \
    \"spiffe://dev.firstkey.internal/custodian/custodian-4\", \
    \"spiffe://dev.firstkey.internal/custodian/custodian-5\"]
witness = \"spiffe://dev.firstkey.internal/auditor/auditor-1\"
[initialise]
threshold = 3
";

/// The digits of a slip of a rehearsal, as they are typed.
fn rehearsed_slip(slips: &Path, custodian: usize) -> String {
    let text = fs::read_to_string(slips.join(format!("slip-{custodian}.txt"))).unwrap();
    assert!(text.trim_start().starts_with("*** TEST ***"), "{text}");
    let rows = text.lines().filter_map(|line| line.strip_prefix("    row "));
    rows.map(|row| row[1..].replace(' ', "")).collect()
}

/// A rehearsal with its slips in a folder, to where the first custodian logs in.
fn rehearse(name: &'static str, folder: &Path) -> (Terminal, String) {
    let path = |name: &str| folder.join(name).display().to_string();
    fs::create_dir_all(folder.join("slips")).unwrap();
    fs::write(folder.join("plan.toml"), REHEARSED).unwrap();
    let (plan, slips, transcript) = (path("plan.toml"), path("slips"), path("transcript.jsonl"));
    let room = ["--print-to", &slips, "--force-file", "--transcript", &transcript];
    let mut table = Terminal::start(name, &[&["ceremony", "rehearse", &plan], &room[..]].concat());
    table.sees(&["Keep the digest at hand, and press Enter."]);
    let script = String::from_utf8(table.octets()).unwrap();
    let (_, digest) = script.split_once("digest       ").unwrap();
    let digest = digest[..39].to_owned();
    table.sends(b"\r");
    table.sees(&["Everybody has the script on paper", "16 steps", "TEST"]);
    table.sends(b"\r");
    table.sees(&["what is planned", "initialise.threshold 3"]);
    table.sends(b"\r");
    table.sees(&["Step 1 of 16", "Path of your certificate", "Enter alone takes"]);
    (table, digest)
}

/// Five custodians at the table, each with a slip that is read back.
fn five_take_theirs(table: &mut Terminal, slips: &Path, digest: &str) {
    for custodian in 1..=5 {
        let step = format!("Step {} of 16", 2 * custodian - 1);
        table.sees(&[&step, "Path of your certificate"]);
        table.sends(b"\r");
        table.sees(&[&step, "The first 32 digits"]);
        table.answers(digest);
        if custodian == 1 {
            table.sees(&[&step, "First the script is printed"]);
            table.sends(b"\r");
        }
        table.sees(&[&step, "Your share is printed now, once"]);
        table.sends(b"\r");
        let step = format!("Step {} of 16", 2 * custodian);
        table.sees(&[&step, "row 0 of 4    ____"]);
        if custodian == 5 {
            table.sees(&["This is the last share"]);
        }
        table.types(&rehearsed_slip(slips, custodian));
    }
}

/// The next custodian logs in, and types a share when enough are not given yet.
fn gives(table: &mut Terminal, given: usize, people: &str, custodian: usize, share: &str) {
    table.sees(&[&format!("{given} of 3 shares given"), "The next custodian logs in", "TEST"]);
    table.answers(&format!("{people}/custodian-{custodian}.crt"));
    table.sees(&[&format!("{given} of 3 shares given"), "row 0 of 4    ____"]);
    table.types(share);
}

#[test]
fn five_custodians_rehearse_the_first_master_key_and_three_open_the_vault() {
    let folder = std::env::temp_dir().join(format!("firstkey-five-{}", uuid::Uuid::new_v4()));
    let slips = folder.join("slips");
    let (mut table, digest) = rehearse("five", &folder);
    let screen = table.screen().replace('\n', "");
    let (_, path) = screen.split_once("Enter alone takes ").unwrap();
    let (data, _) = path.split_once("/people/").unwrap();
    let people = format!("{}/people", data.replace(' ', ""));
    five_take_theirs(&mut table, &slips, &digest);
    for step in 11..=16 {
        let step = format!("Step {step} of 16");
        if step.starts_with("Step 16") {
            table.sees(&[&step, "Path of your certificate"]);
            table.sends(b"\r");
        }
        table.sees(&[&step, "Your key signs the transcript"]);
        table.sends(b"\r");
    }
    table.sees(&["The ceremony is complete"]);
    table.sends(b"\r");

    // The first share is a wrong one, which nobody can tell before there are three.
    let shares: Vec<_> = (1..=5).map(|one| rehearsed_slip(&slips, one)).collect();
    let wrong = with_another_digit(&shares[4]);
    gives(&mut table, 0, &people, 5, &wrong);
    gives(&mut table, 1, &people, 2, &shares[1]);
    // What anybody can see of a share is told at once.
    gives(&mut table, 2, &people, 2, &shares[3]);
    table.sees(&["this caller gave one before", "2 of 3 shares given"]);
    gives(&mut table, 2, &people, 4, &shares[1]);
    table.sees(&["it was given before", "2 of 3 shares given"]);
    gives(&mut table, 2, &people, 4, &shares[3]);
    table.sees(&["Which of them is wrong", "0 of 3 shares given"]);
    gives(&mut table, 0, &people, 5, &shares[4]);
    gives(&mut table, 1, &people, 2, &shares[1]);
    gives(&mut table, 2, &people, 4, &shares[3]);
    table.sees(&["the vault is open", "TEST"]);
    table.sends(b"\r");
    assert!(table.ends().success(), "{}", table.screen());
    assert!(table.screen().contains("its custodians have opened it again"));
    assert!(!table.is_taken());
    let shown = String::from_utf8_lossy(&table.octets()).replace(' ', "");
    for share in &shares {
        for row in share.as_bytes().chunks(20).skip(1) {
            assert!(!shown.contains(std::str::from_utf8(&row[..16]).unwrap()));
        }
    }
    fs::remove_dir_all(folder).unwrap();
}

/// A share whose first digit is another one, and whose check group agrees.
fn with_another_digit(share: &str) -> String {
    let mut octets = data_encoding::HEXUPPER.decode(share.as_bytes()).unwrap();
    octets[10] ^= 0x10;
    // The check group covers the heading, the number of the row and the row.
    let covered = [&octets[..8], &[1], &octets[10..18]].concat();
    let mut crc = 0_u16;
    for octet in covered {
        crc ^= u16::from(octet) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x8BB7 };
        }
    }
    octets[18..20].copy_from_slice(&crc.to_be_bytes());
    data_encoding::HEXUPPER.encode(&octets)
}

#[test]
fn a_rehearsal_of_shares_that_is_interrupted_says_what_happened() {
    let folder = std::env::temp_dir().join(format!("firstkey-five-{}", uuid::Uuid::new_v4()));
    let (mut table, _) = rehearse("five-interrupted", &folder);
    table.sends(b"\x03");
    assert_eq!(table.ends().code(), Some(1));
    assert!(table.screen().contains("Nothing happened: ceremonies/"), "{}", table.screen());
    assert!(table.screen().contains("waits for step 1 of 16: take"));
    assert!(!table.is_taken());
    fs::remove_dir_all(folder).unwrap();
}
