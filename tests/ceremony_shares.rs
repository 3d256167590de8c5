//! The first master key, made by people at a terminal: the real tool over a real service that
//! starts sealed, interrupted, killed and held to its end.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "ceremony/pty.rs"]
mod pty;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::pty::Terminal;

/// A live service whose store is empty.
struct Service {
    folder: PathBuf,
    child: Child,
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
        let (child, url) = serve(&folder);
        Self { folder, child, url }
    }

    fn is_killed_and_started(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.child, self.url) = serve(&self.folder);
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn papers(&self, holder: &str) -> String {
        self.path(&format!("clients/admin/{holder}.crt"))
    }

    /// The tool in a terminal, as an officer.
    fn tool(&self, name: &'static str, arguments: &[&str]) -> Terminal {
        let (certificate, ca) = (self.papers("officer-1"), self.path("authorities/server.crt"));
        let key = certificate.replace(".crt", ".key");
        let server = ["--server", &self.url, "--ca", &ca, "--cert", &certificate, "--key", &key];
        Terminal::start(name, &[arguments, &server].concat())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // A service that has ended by itself is as gone as one that is killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn serve(folder: &Path) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_firstkeyd"))
        .args(["serve", "--config"])
        .arg(folder.join("firstkeyd.toml"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let url = lines
        .by_ref()
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(&line).ok())
        .filter(|line| line["message"] == "serving")
        .find_map(|line| Some(format!("https://{}", line.get("address")?.as_str()?)))
        .expect("the service says where it serves");
    std::thread::spawn(move || lines.for_each(drop));
    (child, url)
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
    let script = Command::new(env!("CARGO_BIN_EXE_firstkey"))
        .args(["ceremony", "plan", &plan])
        .output()
        .unwrap();
    let script = String::from_utf8(script.stdout).unwrap();
    let (_, digest) = script.split_once("digest       ").unwrap();
    let digest = &digest[..39];
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
