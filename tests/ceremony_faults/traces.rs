//! No component is anywhere but where it must be: after each step it is looked for in every form,
//! in what is written and in what the service and the tool remember.

use std::fs;
use std::path::Path;

use firstkey::command::ceremony::step::Act;
use firstkey::component::Component;
use firstkey::crypto::rng::SystemRng;
use firstkey::key::Algorithm;

use crate::memory::{Memory, Wanted};
use crate::pty::Terminal;
use crate::service::Service;
use crate::table::{Table, import, octets_of, sum};

const GENERATE: &str = "[generate]\nid = \"made\"\nusage = \"K0\"\nalgorithm = \"AES256\"\n";

/// What is looked for, and a control in each place: something that must be found there.
struct Search {
    wanted: Wanted,
}

impl Search {
    /// Nothing of it is in the transcript, in what the service logged, stored and remembers.
    fn finds_nothing_at(&self, table: &Table) {
        let transcript = table.view.transcript.lines().join("\n");
        let id = table.view.name.trim_start_matches("ceremonies/").to_owned();
        let logged = table.service.logged();
        self.finds_nothing_in("the transcript", transcript.as_bytes(), "plan_digest");
        self.finds_nothing_in("the log", logged.as_bytes(), "serving");
        for (name, octets) in stored(&table.service.folder.join("data")) {
            // The ids of records stand in clear.
            let control = if name.ends_with("-wal") { id.as_str() } else { "" };
            self.finds_nothing_in(&name, &octets, control);
        }
        let folder = table.service.folder.to_str().unwrap().to_owned();
        self.finds_nothing_in_memory("the service", table.service.memory(), &folder);
    }

    fn finds_nothing_in(&self, place: &str, octets: &[u8], control: &str) {
        if !control.is_empty() {
            let mut there = Wanted::default();
            there.add("the control", control.as_bytes());
            assert!(there.within(octets).is_some(), "{place}: {control} is not found");
        }
        assert_eq!(self.wanted.within(octets), None, "{place}");
    }

    fn finds_nothing_in_memory(&self, whose: &str, memory: Memory, control: &str) {
        assert!(memory.holds(control.as_bytes()), "{whose}: {control} is not found");
        assert_eq!(memory.first_of(&self.wanted), None, "the memory of {whose}");
    }
}

/// The files of a store.
fn stored(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder.join("store")).unwrap() {
        let path = entry.unwrap().path();
        found.push((path.display().to_string(), fs::read(&path).unwrap()));
    }
    assert!(found.iter().any(|(name, _)| name.ends_with("-wal")), "{:?}", found.len());
    found
}

#[test]
fn every_form_of_a_secret_is_found_wherever_it_begins() {
    let secret = Component::generate(Algorithm::Aes256, &SystemRng::new()).unwrap();
    let secret = octets_of(&secret);
    let mut wanted = Wanted::default();
    wanted.add_every_form("it", &secret);
    let upper = data_encoding::HEXUPPER.encode(&secret);
    let groups: Vec<&str> =
        upper.as_bytes().chunks(4).map(|group| str::from_utf8(group).unwrap()).collect();
    let groups = groups.join(" ");
    for (form, octets) in [
        ("as it is", secret.clone()),
        ("in groups", groups.clone().into_bytes()),
        ("in groups, lower case", groups.to_lowercase().into_bytes()),
        ("in digits", upper.clone().into_bytes()),
        ("in digits, lower case", upper.to_lowercase().into_bytes()),
    ] {
        for before in 0..9 {
            let told = [vec![b'0'; before], octets.clone(), vec![b'0'; 9]].concat();
            let found = wanted.within(&told).unwrap();
            assert!(found.ends_with(form), "{found} for {form}");
        }
        assert_eq!(wanted.within(&octets[1..8]), None);
    }
    for before in 0..9 {
        let told = [vec![7; before], secret.clone(), vec![7; 9]].concat();
        let told = data_encoding::BASE64.encode(&told);
        assert!(wanted.within(told.as_bytes()).unwrap().contains("base 64"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_service_keeps_no_trace_of_components_once_a_step_is_over() {
    let (brought, plan) = import("kek");
    let mut table = Table::set(Service::start("trace"), &plan).await;
    let mut search = Search { wanted: Wanted::default() };
    for (number, component) in (1..).zip(&brought) {
        search.wanted.add_every_form(&format!("brought {number}"), component);
    }
    search.wanted.add_every_form("the key that was brought", &octets_of(&sum(&brought)));
    table.brought = brought;
    while let Some(step) = table.awaited() {
        table.step().await.unwrap();
        if matches!(step.act, Act::Enter | Act::Reveal | Act::Confirm) {
            search.finds_nothing_at(&table);
        }
    }
    table = table.next(GENERATE).await;
    let mut given = Vec::new();
    while let Some(step) = table.awaited() {
        table.step().await.unwrap();
        if step.act == Act::Take {
            given.push(octets_of(table.slips[given.len()].as_ref().unwrap()));
            search.wanted.add_every_form("a slip", given.last().unwrap());
            if given.len() == table.slips.len() {
                search.wanted.add_every_form("the key that was made", &octets_of(&sum(&given)));
            }
        }
        if matches!(step.act, Act::Take | Act::ReadBack | Act::Confirm) {
            search.finds_nothing_at(&table);
        }
    }
    search.finds_nothing_at(&table);
}

/// The tool at a terminal, in the middle of a ceremony.
struct Held {
    table: Table,
    terminal: Terminal,
    step: usize,
}

impl Held {
    /// Takes up a ceremony in a terminal; everybody logs in and joins.
    async fn begin(name: &'static str, table: Table) -> Self {
        let log_key = table.log_key().await;
        let path = |name: &str| table.service.folder.join(name).display().to_string();
        let papers = |who: &str| path(&format!("data/dev-tls/clients/admin/{who}.crt"));
        let (slips, transcript) = (path("slips"), path("transcript.jsonl"));
        fs::create_dir_all(&slips).unwrap();
        let own = papers("auditor-1");
        let key = own.replace(".crt", ".key");
        let ca = path("data/dev-tls/authorities/server.crt");
        let url = table.service.url();
        let ceremony = table.view.name.clone();
        let terminal = Terminal::start(
            name,
            &[
                "ceremony",
                "resume",
                &ceremony,
                "--print-to",
                &slips,
                "--force-file",
                "--transcript",
                &transcript,
                "--server",
                url,
                "--ca",
                &ca,
                "--cert",
                &own,
                "--key",
                &key,
                "--log-key",
                &log_key,
            ],
        );
        let digest = data_encoding::HEXUPPER.encode(&table.view.planned.digest()[..16]);
        let mut held = Self { table, terminal, step: 0 };
        held.terminal.sees(&["Everybody has the script on paper"]);
        held.terminal.sends(b"\r");
        held.terminal.sees(&["what is planned"]);
        held.terminal.sends(b"\r");
        for who in ["custodian-1", "custodian-2", "auditor-1"] {
            let step = held.next();
            held.terminal.sees(&[&step, "Path of your certificate"]);
            let papers =
                held.table.service.folder.join(format!("data/dev-tls/clients/admin/{who}.crt"));
            held.terminal.answers(papers.to_str().unwrap());
            held.terminal.sees(&[&step, "The first 32 digits"]);
            held.terminal.answers(&digest);
        }
        held
    }

    fn next(&mut self) -> String {
        self.step += 1;
        format!("Step {} ", self.step)
    }

    /// Types rows; after the first of them it must be there to be found.
    fn types(&mut self, typed: &str, octets: &[u8]) {
        let (first, rest) = typed.split_at(typed.len() / 4);
        self.terminal.types(first);
        self.terminal.sees(&["row 2 of 4    ____"]);
        assert!(self.memory().holds(&octets[..8]), "the control: what is being typed");
        self.terminal.types(rest);
    }

    fn memory(&self) -> Memory {
        Memory(self.terminal.id())
    }

    /// What a terminal showed, and what the tool remembers; and all that the service has.
    async fn leaves_no_trace(&mut self, search: &Search) {
        self.table.look().await;
        let shown = self.terminal.octets();
        search.finds_nothing_in("the terminal", &shown, "Step 1 ");
        let control = self.table.view.name.clone();
        search.finds_nothing_in_memory("the tool", self.memory(), &control);
        search.finds_nothing_at(&self.table);
    }

    fn everybody_confirms_and_signs(&mut self) {
        for _ in 0..3 {
            let step = self.next();
            self.terminal.sees(&[&step, "Check value of the key", "> _"]);
            let value = self.table.view.check_value.clone();
            self.terminal.answers(&value);
        }
        for _ in 0..3 {
            let step = self.next();
            self.terminal.sees(&[&step, "Your key signs the transcript"]);
            self.terminal.sends(b"\r");
        }
        self.terminal.sees(&["The ceremony is complete"]);
    }

    /// Ends the tool, whose transcript holds nothing either.
    async fn ends(mut self, search: &Search) -> Table {
        self.leaves_no_trace(search).await;
        self.terminal.sends(b"\r");
        assert!(self.terminal.ends().success());
        search.finds_nothing_in("the terminal", &self.terminal.octets(), "It is complete");
        let path = self.table.service.folder.join("transcript.jsonl");
        search.finds_nothing_in("the transcript", &fs::read(&path).unwrap(), "signature");
        fs::remove_file(path).unwrap();
        self.table
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_tool_keeps_no_trace_of_what_was_typed() {
    let (brought, plan) = import("kek");
    let mut search = Search { wanted: Wanted::default() };
    for (number, component) in (1..).zip(&brought) {
        search.wanted.add_every_form(&format!("brought {number}"), component);
    }
    let table = Table::set(Service::start("info"), &plan).await;
    let mut held = Held::begin("traces-import", table).await;
    for component in &brought {
        let step = held.next();
        held.terminal.sees(&[&step, "Check value of your component"]);
        held.terminal.answers(&sum(std::slice::from_ref(component)).check_value().to_string());
        held.terminal.sees(&[&step, "Has each row a fifth group"]);
        held.terminal.answers("n");
        held.terminal.sees(&[&step, "row 1 of 4    ____"]);
        held.types(&data_encoding::HEXUPPER.encode(component), component);
        held.terminal
            .sees(&[&format!("Step {} ", held.step + 1 + 2 * usize::from(held.step == 5))]);
        held.leaves_no_trace(&search).await;
    }
    held.step += brought.len();
    held.everybody_confirms_and_signs();
    let table = held.ends(&search).await;

    let mut held = Held::begin("traces-generate", table.next(GENERATE).await).await;
    for number in 1..=2 {
        let step = held.next();
        if number == 1 {
            held.terminal.sees(&[&step, "First the script is printed"]);
            held.terminal.sends(b"\r");
        }
        held.terminal.sees(&[&step, "is printed now, once"]);
        held.terminal.sends(b"\r");
        let step = held.next();
        held.terminal.sees(&[&step, "row 1 of 4    ____"]);
        let slip = held.table.service.folder.join(format!("slips/slip-{number}.txt"));
        let (typed, octets) = rows_of(&fs::read_to_string(&slip).unwrap());
        search.wanted.add_every_form(&format!("slip {number}"), &octets);
        assert!(search.wanted.within(&fs::read(slip).unwrap()).is_some(), "the control: the slip");
        held.leaves_no_trace(&search).await;
        held.types(&typed, &octets);
        held.terminal.sees(&[&format!("Step {} ", held.step + 1)]);
        held.leaves_no_trace(&search).await;
    }
    held.everybody_confirms_and_signs();
    held.ends(&search).await;
}

/// What is typed from a slip, and what it says.
fn rows_of(slip: &str) -> (String, Vec<u8>) {
    let rows = slip.lines().filter_map(|line| line.strip_prefix("    row "));
    let rows: Vec<String> = rows.map(|row| row[1..].trim().replace(' ', "")).collect();
    let digits: String = rows.iter().map(|row| &row[..16]).collect();
    (rows.concat(), data_encoding::HEXUPPER.decode(digits.as_bytes()).unwrap())
}
