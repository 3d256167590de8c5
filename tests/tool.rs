//! The tool as a newcomer uses it: the README's commands, run as programs.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "setup/firstkeyd.rs"]
mod firstkeyd;

use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use firstkey::grpc::client::{Client, request_id};
use firstkey::grpc::proto;
use serde_json::Value;

use crate::firstkeyd::Firstkeyd;

const FIRSTKEY: &str = env!("CARGO_BIN_EXE_firstkey");
const FIRSTKEYD: &str = env!("CARGO_BIN_EXE_firstkeyd");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("firstkey-test-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind lies in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running service.
struct Service {
    process: Firstkeyd,
    url: String,
}

impl Service {
    fn start(data: &str) -> Self {
        let mut command = Command::new(FIRSTKEYD);
        command
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data", data])
            .current_dir(ROOT);
        let (process, address) = Firstkeyd::serving(&mut command);
        Self { process, url: format!("http://{address}") }
    }
}

fn firstkey(arguments: &[&str], server: Option<&str>) -> Output {
    let mut command = Command::new(FIRSTKEY);
    command.args(arguments).current_dir(ROOT);
    if let Some(url) = server {
        command.env("FIRSTKEY_SERVER", url);
    }
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn succeed(arguments: &[&str], server: &str) -> String {
    let output = firstkey(arguments, Some(server));
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_demonstration_goes_from_no_keys_to_a_refused_replay() {
    let output = firstkey(&["dev", "--once", "--json", "--port", "0"], None);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    let steps: Vec<u64> = lines.iter().filter_map(|line| line["step"].as_u64()).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6, 6, 7, 8], "every step of the activation, in order");
    let calls: Vec<&str> = lines.iter().filter_map(|line| line["call"].as_str()).collect();
    for call in ["VerifyMac", "TranslatePin", "steps 1 to 8 again"] {
        assert!(calls.contains(&call), "{call}");
    }
    for state in ["REGISTERED", "CODE_ISSUED", "CODE_VERIFIED", "KEYS_DELIVERED", "TESTED"] {
        assert!(text(&output.stdout).contains(state), "{state}");
    }
    let last = lines.last().expect("there are lines");
    assert!(last["outcome"].as_str().unwrap().contains("KSN_REPLAYED"));
    assert!(lines.iter().all(|line| !line["because"].as_str().unwrap().is_empty()));
}

#[test]
fn the_demonstration_runs_again_over_the_store_it_kept() {
    let folder = Folder::new();
    let data = folder.path("kept");
    for _ in 0..2 {
        let arguments = ["--output", "json", "dev", "--once", "--port", "0", "--data", &data];
        let output = firstkey(&arguments, None);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let mut lines = output.stdout.lines().map_while(Result::ok);
        assert!(lines.all(|line| serde_json::from_str::<Value>(&line).is_ok()));
        // Terminals are named by the second; a second run is another terminal.
        std::thread::sleep(std::time::Duration::from_millis(1_100));
    }
    assert!(Path::new(&data).join("store").is_dir());
}

#[test]
fn the_readme_by_hand_works_and_fails_with_codes_that_mean_something() {
    let folder = Folder::new();
    let service = Service::start(&folder.path("data"));
    let url = service.url.as_str();
    let (state, pki) = (folder.path("till-7.json"), folder.path("data/dev-pki"));
    let simulate = ["terminal", "simulate", "--state", &state];

    assert!(
        succeed(&["terminal", "register", "till-7", "--serial", "SN-0007"], url)
            .contains("REGISTERED")
    );
    let code = succeed(&["terminal", "code", "till-7"], url);
    let first = [&simulate[..], &["--pki", &pki, "--serial", "SN-0007", "--code", code.trim()]];
    assert!(succeed(&first.concat(), url).contains("1 of 1 passed"));
    let early = firstkey(&[&simulate[..], &["--purchase", "1250"]].concat(), Some(url));
    assert!(!early.status.success(), "nothing is served before the terminal is enabled");
    assert!(text(&early.stderr).contains("TERMINAL_NOT_ACTIVE"));
    assert!(succeed(&["terminal", "enable", "till-7"], url).contains("ACTIVE"));
    let bought = succeed(&[&simulate[..], &["--purchase", "1250"]].concat(), url);
    assert!(bought.contains("MAC verified"));
    let over = firstkey(&[&simulate[..], &["--purchase", "50001"]].concat(), Some(url));
    assert!(text(&over.stderr).contains("limit"), "the terminal keeps its limits itself");

    let bought = [&["--output", "json"], &simulate[..], &["--purchase", "1250"]].concat();
    let bought: Value = serde_json::from_str(&succeed(&bought, url)).unwrap();
    assert_eq!((&bought["amount_minor"], &bought["mac"]), (&1250.into(), &"verified".into()));
    let ksn = bought["ksn"].as_str().unwrap();
    let found = succeed(&["terminal", "lookup", ksn], url);
    assert!(found.contains("terminals/till-7") && found.contains("SERVING"), "{found}");
    let found = succeed(&["--output", "json", "terminal", "lookup", ksn], url);
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!((&found["served"], &found["counter"].is_u64()), (&true.into(), &true));

    let shown = succeed(&["--output", "json", "terminal", "show", "till-7"], url);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["merchant"]["display_name"], "Corner Shop");
    assert_eq!(
        (&shown["merchant_standing"], &shown["kind"]),
        (&"APPROVED".into(), &"DEVICE_CERTIFICATE".into(),)
    );
    assert_eq!((&shown["generation"], &shown["hold_cause"]), (&1.into(), &"".into()));
    assert!(shown["first_transaction_time"].as_str().is_some());
    let steps: Vec<&str> =
        shown["timeline"].as_array().unwrap().iter().filter_map(|e| e["step"].as_str()).collect();
    assert_eq!(steps.last(), Some(&"FirstTransaction"));
    assert!(succeed(&["terminal", "list"], url).contains("SN-0007"));
    assert!(succeed(&["terminal", "list", "--state", "active"], url).contains("SN-0007"));
    assert!(!succeed(&["terminal", "list", "--state", "TESTED"], url).contains("SN-0007"));
    for (key, is_its) in [("dev-bdk-aes", true), ("dev-bdk-tdes", false)] {
        let listed = succeed(&["terminal", "list", "--base-derivation-key", key], url);
        assert_eq!(listed.contains("SN-0007"), is_its, "{key}");
    }
    assert!(succeed(&["terminal", "show", "till-7"], url).contains("deviceAuthorities/dev-vendor"));
    let unknown = firstkey(&["terminal", "show", "nobody"], Some(url));
    assert_eq!(unknown.status.code(), Some(4), "not found has a code of its own");
}

#[test]
fn a_terminal_with_a_master_key_is_played_from_the_development_keys() {
    let folder = Folder::new();
    let service = Service::start(&folder.path("data"));
    let url = service.url.as_str();
    for (id, serial) in [("dev-master-aes", "SN-0008"), ("dev-master-tdes", "SN-0009")] {
        let register = ["terminal", "register", id, "--serial", serial, "--master-key", id];
        succeed(&[&register[..], &["--profile", id]].concat(), url);
        let code = succeed(&["terminal", "code", id], url);
        let state = folder.path(&format!("{id}.json"));
        let simulate = ["terminal", "simulate", "--state", &state];
        let first = [&simulate[..], &["--serial", serial, "--code", code.trim()]].concat();
        assert!(succeed(&first, url).contains("1 of 1 passed"));
        succeed(&["terminal", "enable", id], url);
        let bought = succeed(&[&simulate[..], &["--purchase", "1250"]].concat(), url);
        assert!(bought.contains("MAC verified"));
        let shown = succeed(&["--output", "json", "terminal", "show", id], url);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["kind"], "MASTER_KEY");
        assert_eq!(shown["master_key"], format!("keys/{id}/versions/1"));
        assert_eq!(shown["forward_secrecy"], false);
    }
    // A certificate's profile is for no master key, and each master key is of one device.
    let taken = ["terminal", "register", "till", "--serial", "SN-0010", "--profile"];
    let with = |profile| [&taken[..], &[profile, "--master-key", "dev-master-aes"]].concat();
    let refused = firstkey(&with("dev-master-aes"), Some(url));
    assert!(text(&refused.stderr).contains("RESOURCE_ALREADY_EXISTS"));
    let refused = firstkey(&with("dev-aes"), Some(url));
    assert!(text(&refused.stderr).contains("FIELD_INVALID"));
}

#[test]
fn a_played_terminal_tells_programs_fields_and_no_prose() {
    let folder = Folder::new();
    let service = Service::start(&folder.path("data"));
    let url = service.url.as_str();
    let (state, pki) = (folder.path("till.json"), folder.path("data/dev-pki"));
    let tdes = ["--profile", "dev-tdes"];
    succeed(&[&["terminal", "register", "till", "--serial", "SN-1"], &tdes[..]].concat(), url);
    let code = succeed(&["terminal", "code", "till"], url);
    let play = ["--output", "json", "terminal", "simulate", "--state", &state, "--pki", &pki];
    let play = [&play[..], &["--serial", "SN-1", "--code", code.trim()]].concat();
    let told = succeed(&play, url);
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let calls: Vec<&str> = told.iter().map(|told| told["call"].as_str().unwrap()).collect();
    let expected = ["BeginActivation", "DeliverKeys", "ConfirmKeys", "GetParameters", "ReportStep"];
    assert_eq!(calls, [&expected[..], &["RunTestTransaction"]].concat());
    assert_eq!(told[1]["keys"][0]["initial_key_id"].as_str().unwrap().len(), 20);
    assert_eq!(told[3]["single_amount_minor"], 50_000);
    assert_eq!(told[5]["tests_passed"], told[5]["tests_required"]);
    let checks = told[5]["checks"].as_array().unwrap();
    assert!(!checks.is_empty() && checks.iter().all(|check| check["passed"] == true));
}

/// Makes the profile `retail` with two static keys: what the tool has no command for.
async fn make_profile(url: &str) {
    let client = Client::connect(url).await.unwrap();
    let root = proto::CreateKeyRequest {
        request_id: request_id(),
        key_id: "derive".to_owned(),
        usage: proto::KeyUsage::KeyDerivation.into(),
        algorithm: proto::KeyAlgorithm::Aes256.into(),
        ..Default::default()
    };
    client.keys().create_key(root).await.unwrap();
    let like = proto::GetProfileRequest { name: "profiles/dev-aes".to_owned() };
    let like = client.terminals().get_profile(like).await.unwrap().into_inner();
    let mut profile = like.profile.unwrap();
    profile.keys = [
        (3, proto::KeyUsage::PinEncryption, proto::KeyAlgorithm::Aes128),
        (7, proto::KeyUsage::MacAlgorithm1, proto::KeyAlgorithm::Tdes3),
    ]
    .map(|(slot, usage, algorithm)| proto::ProfileKey {
        slot,
        usage: usage.into(),
        algorithm: algorithm.into(),
        derivation_key: "keys/derive".to_owned(),
    })
    .to_vec();
    let request = proto::CreateProfileRequest {
        request_id: request_id(),
        profile_id: "retail".to_owned(),
        profile: Some(profile),
    };
    client.terminals().create_profile(request).await.unwrap();
}

#[test]
fn static_keys_are_shown_with_the_check_values_that_the_device_told() {
    let folder = Folder::new();
    let service = Service::start(&folder.path("data"));
    let url = service.url.as_str();
    tokio::runtime::Runtime::new().unwrap().block_on(make_profile(url));
    let register = ["terminal", "register", "till", "--serial", "SN-1", "--profile", "retail"];
    let fresh = succeed(&[&["--output", "json"], &register[..]].concat(), url);
    let fresh: Value = serde_json::from_str(&fresh).unwrap();
    assert_eq!(fresh["terminal_keys"], serde_json::json!([]), "none is confirmed yet");
    let code = succeed(&["terminal", "code", "till"], url);
    let (state, pki) = (folder.path("till.json"), folder.path("data/dev-pki"));
    let play = ["--output", "json", "terminal", "simulate", "--state", &state, "--pki", &pki];
    let told = succeed(&[&play[..], &["--serial", "SN-1", "--code", code.trim()]].concat(), url);
    let told = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let loaded = told.into_iter().find(|told| told["call"] == "DeliverKeys").unwrap();
    let check_value = |slot: u64| {
        let keys = loaded["keys"].as_array().unwrap();
        keys.iter().find(|key| key["slot"] == slot).unwrap()["check_value"].as_str().unwrap()
    };
    let shown = succeed(&["--output", "json", "terminal", "show", "till"], url);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let expected = [(3, "PIN_ENCRYPTION", "AES128"), (7, "MAC_ALGORITHM_1", "TDES3")];
    let expected = expected.map(|(slot, usage, algorithm)| {
        serde_json::json!({
            "slot": slot,
            "usage": usage,
            "algorithm": algorithm,
            "derivation_key": "keys/derive/versions/1",
            "check_value": check_value(slot),
        })
    });
    assert_eq!(shown["terminal_keys"], serde_json::json!(expected));
    let shown = succeed(&["terminal", "show", "till"], url);
    let start = "7     MAC_ALGORITHM_1  TDES3      keys/derive/versions/1";
    let row = format!("{start}  {}", check_value(7));
    assert!(shown.lines().any(|line| line == row), "{shown}");
}

#[test]
fn keys_are_renewed_by_hand_in_an_activation_or_by_the_update_key() {
    let folder = Folder::new();
    let service = Service::start(&folder.path("data"));
    let url = service.url.as_str();
    let (state, pki) = (folder.path("till.json"), folder.path("data/dev-pki"));
    let simulate = ["terminal", "simulate", "--state", &state];
    let rekey = ["terminal", "rekey", "till", "--cause", "a year has passed"];
    let show = || -> Value {
        let shown = succeed(&["--output", "json", "terminal", "show", "till"], url);
        serde_json::from_str(&shown).unwrap()
    };
    let renew = |how: &[&str]| -> Vec<String> {
        let play = [&["--output", "json"], &simulate[..], &["--renew"], how].concat();
        let told = succeed(&play, url);
        let told = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        told.map(|told| told["call"].as_str().unwrap().to_owned()).collect()
    };
    succeed(&["terminal", "register", "till", "--serial", "SN-1"], url);
    let early = firstkey(&rekey, Some(url));
    assert!(text(&early.stderr).contains("ACTIVATION_STATE"), "{}", text(&early.stderr));
    let code = succeed(&["terminal", "code", "till"], url);
    let first = [&simulate[..], &["--pki", &pki, "--serial", "SN-1", "--code", code.trim()]];
    succeed(&first.concat(), url);
    succeed(&["terminal", "enable", "till"], url);
    let first = show();

    assert!(succeed(&rekey, url).contains("REKEYING"));
    let update = [&simulate[..], &["--renew", "--update"]].concat();
    let refused = firstkey(&update, Some(url));
    assert!(text(&refused.stderr).contains("ACTIVATION_STATE"), "an update was not allowed");
    assert_eq!(renew(&[])[..3], ["BeginActivation", "DeliverKeys", "ConfirmKeys"]);
    let second = show();
    assert_eq!((&second["state"], &second["forward_secrecy"]), (&"ACTIVE".into(), &true.into()));
    assert_ne!(second["initial_key_id"], first["initial_key_id"]);
    let entries = second["timeline"].as_array().unwrap();
    let started = entries.iter().find(|entry| entry["step"] == "StartRekey").unwrap();
    assert!(started["note"].as_str().unwrap().contains("a year has passed"));
    succeed(&[&simulate[..], &["--purchase", "1250"]].concat(), url);

    succeed(&[&rekey[..], &["--update-key"]].concat(), url);
    assert_eq!(renew(&["--update"]), ["UpdateKeys", "ConfirmKeys"]);
    let third = show();
    assert_eq!((&third["state"], &third["forward_secrecy"]), (&"ACTIVE".into(), &false.into()));
    assert_ne!(third["initial_key_id"], second["initial_key_id"]);
    let bought = succeed(&[&simulate[..], &["--purchase", "1250"]].concat(), url);
    assert!(bought.contains(third["initial_key_id"].as_str().unwrap()), "under the new keys");
    let alone = firstkey(&[&simulate[..], &["--update"]].concat(), Some(url));
    assert_eq!(alone.status.code(), Some(2), "an update renews");
}

#[test]
fn a_fleet_is_reported_and_its_soundness_is_the_exit_code() {
    let folder = Folder::new();
    let service = Service::start(&folder.path("data"));
    let pki = folder.path("data/dev-pki");
    let fleet = ["terminal", "simulate", "--count", "6", "--lose", "20", "--pki", &pki];
    let told = firstkey(&[&fleet[..], &["--seed", "7"]].concat(), Some(&service.url));
    let table = text(&told.stdout);
    assert!(told.status.success() && told.stderr.is_empty(), "{table}");
    assert!(table.contains("6 active, 6 different initial key ids"), "{table}");
    assert!(table.ends_with("each is active exactly once, with an initial key id of its own\n"));

    // Another seed is another fleet.
    let json = [&["--output", "json"], &fleet[..], &["--seed", "8"]].concat();
    let report: Value = serde_json::from_str(&succeed(&json, &service.url)).unwrap();
    assert_eq!((&report["sound"], &report["terminals"]), (&true.into(), &6.into()));
    let calls = report["calls"].as_array().unwrap();
    let retries: u64 = calls.iter().filter_map(|call| call["retries"].as_u64()).sum();
    assert_eq!(report["replies_lost"].as_u64().unwrap(), retries);
    assert!(calls.iter().all(|call| call["p99_us"].as_u64() >= call["p50_us"].as_u64()));

    // The same one has devices whose keys nobody has any more: the service does not begin again.
    let again = firstkey(&[&fleet[..], &["--seed", "7"]].concat(), Some(&service.url));
    assert_eq!(again.status.code(), Some(6));
    let table = text(&again.stdout);
    assert!(table.contains("2 ACTIVATION_STATE") && table.contains("4 KEY_ALREADY_EXISTS"));
    let neither = firstkey(&["terminal", "simulate", "--pki", &pki], Some(&service.url));
    assert_eq!(neither.status.code(), Some(2), "one terminal, or a fleet");
}

#[test]
fn a_fault_is_told_as_a_row_and_as_fields() {
    let folder = Folder::new();
    let service = Service::start(&folder.path("data"));
    let pki = folder.path("data/dev-pki");
    let play = ["terminal", "simulate", "--pki", &pki, "--fault"];
    let table = succeed(&[&play[..], &["replay", "--at", "begin"]].concat(), &service.url);
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    assert_eq!(rows, [["FAULT", "AT"], ["replay", "begin"]], "{table}");

    let json = [&["--output", "json"], &play[..], &["alter"]].concat();
    let told = succeed(&json, &service.url);
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(told.iter().all(|told| told.is_object() && told["fault"] == "alter"));
    let at: Vec<&str> = told.iter().map(|told| told["at"].as_str().unwrap()).collect();
    assert!(at.contains(&"begin") && at.contains(&"purchase"), "{at:?}");
}

const MANIFEST: &str = "\
id,serial,model,merchant_id,terminal_id,merchant_name,standing,profile,device_authority
lane-1,LN-0001,simulator,000000000000001,00000001,Café am Markt,,dev-aes,dev-vendor
lane-2,LN-0002,simulator,000000000000001,00000002,Café am Markt,pending,dev-tdes,dev-vendor
lane-3,LN-0003,simulator,000000000000001,00000003,Café am Markt,approved,nowhere,dev-vendor
lane-4,LN 0004,simulator,000000000000001,00000004,Café am Markt,approved,dev-aes,dev-vendor
";

#[test]
fn a_manifest_is_registered_line_by_line_and_again_without_harm() {
    let folder = Folder::new();
    let service = Service::start(&folder.path("data"));
    let file = folder.path("terminals.csv");
    std::fs::write(&file, MANIFEST).unwrap();
    let arguments = ["terminal", "register", "--manifest", &file];
    let first = firstkey(&arguments, Some(&service.url));
    assert_eq!(first.status.code(), Some(1), "a refused line is a failure");
    assert!(first.stderr.is_empty(), "no progress bar where there is no terminal");
    let told = text(&first.stdout);
    let row = |line: &str| {
        let mut rows = told.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
        rows.find(|row| row[0] == line).unwrap().join(" ")
    };
    assert_eq!(row("2"), "2 lane-1 LN-0001 registered REGISTERED");
    assert_eq!(row("3"), "3 lane-2 LN-0002 registered HELD", "its merchant is pending");
    assert!(row("4").starts_with("4 lane-3 LN-0003 RESOURCE_NOT_FOUND "), "{told}");
    assert!(row("5").starts_with("5 lane-4 LN 0004 FIELD_INVALID "), "{told}");
    assert!(row("5").contains("serial"), "it says which field: {told}");
    assert!(told.ends_with("2 registered, 2 refused\n"), "{told}");

    let again = firstkey(&arguments, Some(&service.url));
    assert_eq!(text(&again.stdout), told, "the same file says the same");
    let json = firstkey(&[&["--output", "json"], &arguments[..]].concat(), Some(&service.url));
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["registered"], &json["refused"]), (&2.into(), &2.into()));
    assert_eq!(json["lines"][3]["fields"][0]["field"], "serial");
    assert_eq!(json["lines"][2]["reason"], "RESOURCE_NOT_FOUND");

    let good = MANIFEST.lines().take(3).collect::<Vec<_>>().join("\n");
    std::fs::write(&file, good).unwrap();
    assert!(succeed(&arguments, &service.url).ends_with("2 registered, 0 refused\n"));
}

#[test]
fn nothing_of_a_malformed_manifest_is_sent() {
    let folder = Folder::new();
    let service = Service::start(&folder.path("data"));
    let file = folder.path("terminals.csv");
    std::fs::write(&file, MANIFEST.replace("LN-0003", "LN-0001").replace("dev-tdes", "")).unwrap();
    let arguments = ["terminal", "register", "--manifest", &file];
    let told = firstkey(&arguments, Some(&service.url));
    assert_eq!(told.status.code(), Some(1));
    let causes = text(&told.stderr);
    assert!(causes.contains("line 3: `profile` is empty"), "{causes}");
    assert!(causes.contains("line 4: `serial` stands in line 2 already"), "{causes}");
    assert!(!succeed(&["terminal", "list"], &service.url).contains("lane-1"));
    let both = [&arguments[..], &["--serial", "LN-1"]].concat();
    assert_eq!(firstkey(&both, Some(&service.url)).status.code(), Some(2), "one or the other");
}

#[test]
fn vectors_end_with_their_count_and_tell_by_the_exit_code() {
    let files: Vec<String> = std::fs::read_dir(Path::new(ROOT).join("tests/vectors"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    let mut arguments = vec!["vectors"];
    arguments.extend(files.iter().map(String::as_str));
    let output = firstkey(&arguments, None);
    assert!(output.status.success(), "{}", text(&output.stdout));
    let last = text(&output.stdout).lines().last().unwrap().to_owned();
    assert!(last.ends_with(" 0 failed, 0 skipped") && !last.starts_with("0 "), "{last}");

    let folder = Folder::new();
    let wrong = folder.path("wrong.json");
    let vector = r#"{"vectors": [{"id": "w", "op": "mac_generate", "mac_algorithm": "CMAC-AES",
        "key": "00112233445566778899AABBCCDDEEFF", "message": "00", "mac_length": 8,
        "expect": "0000000000000000"}]}"#;
    std::fs::write(&wrong, vector).unwrap();
    let output = firstkey(&["vectors", &wrong], None);
    assert_eq!(output.status.code(), Some(6));
    assert!(text(&output.stdout).ends_with("0 passed, 1 failed, 0 skipped\n"));
}

/// A backend that may verify MACs with one key.
const POLICY: &str = r#"
votes_required = 0

[[principal]]
name = "spiffe://acquirer.example/officer/ann"
person = "ann"
role = "officer"

[[principal]]
name = "spiffe://acquirer.example/backend/switch-1"
role = "backend"
profiles = ["profiles/dev-*"]

[[grant]]
key = "keys/dev-mac"
principals = ["spiffe://acquirer.example/backend/switch-1"]
calls = ["VerifyMac"]
not_after = "2100-01-01T00:00:00Z"
"#;

#[test]
fn a_policy_is_set_read_back_and_asked() {
    let folder = Folder::new();
    let service = Service::start(&folder.path("data"));
    let url = service.url.as_str();
    let json = |arguments: &[&str]| {
        let all = [&["--output", "json"], arguments].concat();
        serde_json::from_str::<Value>(&succeed(&all, url)).unwrap()
    };
    let before = json(&["policy", "get"])["version"].as_u64().unwrap();
    let file = folder.path("policy.toml");
    std::fs::write(&file, format!("version = {before}{POLICY}")).unwrap();
    let version = before + 1;
    // Sent once more, it is the same request.
    for _ in 0..2 {
        let told = succeed(&["policy", "set", &file], url);
        assert_eq!(told.trim(), format!("version {version} is in force"));
    }
    let read = succeed(&["policy", "get", "--toml"], url);
    assert!(read.contains("not_after = \"2100-01-01T00:00:00Z\""), "{read}");
    assert!(succeed(&["policy", "get"], url).contains("switch-1"));
    // What was read is set as it stands; what was replaced is not replaced again.
    std::fs::write(&file, &read).unwrap();
    assert_eq!(json(&["policy", "set", &file])["version"].as_u64(), Some(version + 1));
    std::fs::write(&file, read.replace("dev-mac", "dev-kek")).unwrap();
    let late = firstkey(&["policy", "set", &file], Some(url));
    assert_eq!(late.status.code(), Some(1));
    assert!(text(&late.stderr).contains("STORE_CONFLICT"), "{}", text(&late.stderr));
    std::fs::write(&file, "votes = 1").unwrap();
    let wrong = firstkey(&["policy", "set", &file], Some(url));
    assert!(text(&wrong.stderr).contains("is no policy"), "{}", text(&wrong.stderr));

    let switch = "spiffe://acquirer.example/backend/switch-1";
    let allowed = succeed(&["policy", "check", switch, "VerifyMac", "dev-mac"], url);
    assert!(allowed.contains("grants[0], for keys/dev-mac: allows it"), "{allowed}");
    for (call, key) in [("GenerateMac", "dev-mac"), ("VerifyMac", "dev-kek"), ("GetKey", "dev-mac")]
    {
        let denied = firstkey(&["policy", "check", switch, call, key], Some(url));
        assert_eq!(denied.status.code(), Some(5), "{call} {key}: {}", text(&denied.stdout));
    }
    let asked = json(&["policy", "check", switch, "GetTerminal", "profiles/dev-aes"]);
    assert_eq!(
        (&asked["allowed"], &asked["policy_version"]),
        (&true.into(), &(version + 1).into())
    );
}

#[test]
fn the_log_is_listed_as_it_was_at_the_first_page() {
    let folder = Folder::new();
    let service = Service::start(&folder.path("data"));
    let url = service.url.as_str();
    let list = |arguments: &[&str]| {
        let all = [&["--output", "json", "audit", "list"], arguments].concat();
        let lines = succeed(&all, url);
        let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let sequences = events.map(|event| event["seq"].as_u64().unwrap());
        sequences.collect::<Vec<_>>()
    };
    // More events than two of the longest pages have.
    for _ in 0..220 {
        let asked = ["policy", "check", "spiffe://nobody.example/x", "GetKey", "dev-mac"];
        assert_eq!(firstkey(&asked, Some(url)).status.code(), Some(5));
    }
    let all = list(&["--count", "100000"]);
    let size = u64::try_from(all.len()).unwrap();
    assert!(size > 220);
    assert_eq!(all, (1..=size).collect::<Vec<_>>(), "each once, and it ends");
    // Each page of it was an event more, for the next list.
    let next = list(&["--count", "100000"]);
    assert_eq!(next.len(), all.len() + all.len().div_ceil(100));
    let table = succeed(&["audit", "list", "--count", "100000"], url);
    assert_eq!(table.lines().count(), 1 + next.len() + next.len().div_ceil(100));
    assert_eq!(list(&["--count", "150", "--after", "10"]), (11..=160).collect::<Vec<_>>());
    assert_eq!(list(&["--after", "1000000"]), [0; 0]);
    // Reading about a resource is an event about it, and none of those that were to be read.
    let about = list(&["--resource", "keys/dev-mac", "--count", "1000"]);
    let again = list(&["--resource", "keys/dev-mac", "--count", "1000"]);
    assert_eq!(again[..about.len()], about);
    assert_eq!(again.len(), about.len() + 1);
}

#[test]
fn the_status_is_what_the_machine_says() {
    let folder = Folder::new();
    let service = Service::start(&folder.path("data"));
    let url = service.url.as_str();
    let told: Value = serde_json::from_str(&succeed(&["--output", "json", "status"], url)).unwrap();
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((told["realm"].as_str(), told["node"].as_str()), (Some("dev"), Some("dev")));
    let program = firstkey::crypto::digest::sha256(&[&std::fs::read(FIRSTKEYD).unwrap()]);
    assert_eq!(told["program_digest"], data_encoding::HEXLOWER.encode(&program));
    assert!(told["audit_sequence"].as_u64().unwrap() > 0);
    assert!(told["start_time"].as_str().unwrap() >= told["self_test_time"].as_str().unwrap());
    let checks = told["checks"].as_array().unwrap();
    assert!(checks.len() >= 7 && checks.iter().all(|check| check["healthy"] == true));

    // Seen from outside.
    let process = format!("/proc/{}", service.process.id());
    let read = |name: &str| std::fs::read_to_string(format!("{process}/{name}")).unwrap();
    let (status, limits, maps) = (read("status"), read("limits"), read("maps"));
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim()
    };
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let capabilities = u64::from_str_radix(field("CapEff"), 16).unwrap();
    let locked = limit("Max locked memory").remove(0);
    let speculation = field("Speculation_Store_Bypass");
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap().lines().count() - 1;
    let core_pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let mut seen = vec![
        ("callers_certified", false),
        ("capabilities_dropped", capabilities & (1 << 19 | 1 << 21) == 0),
        ("core_files_off", limit("Max core file size") == ["0", "0"]),
        ("core_pattern_plain", !core_pattern.starts_with('|')),
        ("locked_memory", locked.parse().map_or(true, |bytes: u64| bytes >= 65_536)),
        ("memory_secret", maps.contains("secretmem")),
        ("no_new_privileges", field("NoNewPrivs") == "1"),
        ("speculation_limited", !speculation.contains("vulnerable") || speculation.contains("not")),
        ("swap_off", swaps == 0),
        ("system_calls_filtered", field("Seccomp") == "2"),
        ("umask_private", field("Umask") == "0077"),
    ];
    let protections = told["protections"].as_array().unwrap();
    let in_force = |name: &str| {
        let found = protections.iter().find(|protection| protection["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is not told"))["in_force"].as_bool().unwrap()
    };
    for (name, seen) in &seen {
        assert_eq!(in_force(name), *seen, "{name}");
    }
    // What no file shows; whether it can be had is shown where the process hardens itself.
    seen.push(("dumpable_off", in_force("dumpable_off")));
    seen.push(("executable_memory_off", in_force("executable_memory_off")));
    assert_eq!(protections.len(), seen.len(), "each that is told is looked at");

    let text = succeed(&["status"], url);
    let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
    for (name, seen) in seen {
        assert_eq!(row(name).contains("NOT IN FORCE"), !seen, "{}", row(name));
        assert!(row(name).to_lowercase().contains("in force"), "{}", row(name));
    }
    assert!(row("program").ends_with(&data_encoding::HEXLOWER.encode(&program)));
    assert!(row("self_test ").contains(" well"));
}

/// Runs `firstkey inspect` with something on its standard input.
fn inspect(arguments: &[&str], given: &str) -> Output {
    let mut child = Command::new(FIRSTKEY)
        .args(["--output", "json", "inspect"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A reader that refuses its arguments may be gone.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), given.as_bytes());
    child.wait_with_output().unwrap()
}

/// The rows of the first slip in a file of `keys-dev`, and the JSON that explains them.
fn explained_slip(file: &str) -> (String, Value) {
    let text = std::fs::read_to_string(Path::new(ROOT).join("keys-dev").join(file)).unwrap();
    let rows = text.lines().skip_while(|line| *line != "rows = [").skip(1);
    let rows: Vec<&str> = rows.take_while(|line| *line != "]").collect();
    let slip = rows.join("\n").replace(['"', ','], "");
    let done = inspect(&[], &slip);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let shown = String::from_utf8(done.stdout).unwrap();
    // Of a share the heading is shown; of neither any group of the secret.
    let secret = slip.lines().skip(usize::from(file == "shares.toml"));
    for group in secret.flat_map(str::split_whitespace) {
        assert!(!shown.contains(group), "{group} in {shown}");
    }
    (slip, serde_json::from_str(&shown).unwrap())
}

#[test]
fn a_slip_is_explained_from_standard_input_alone_and_never_shown() {
    let (share, told) = explained_slip("shares.toml");
    assert_eq!(told["what"], "share 1 of 5 of a master key; any 3 give it");
    assert_eq!(told["parts"][4]["value"], "DE000001");
    let (component, told) = explained_slip("components.toml");
    assert_eq!(told["what"], "component of 32 octets");
    assert!(told["parts"].as_array().unwrap().iter().any(|part| part["value"] == "6361D330E5"));

    for secret in [&share, &component] {
        for arguments in
            [&[secret.as_str()][..], &["--as", "slip", secret], &["--as", "ksn", secret]]
        {
            let refused = inspect(arguments, "");
            let said = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(refused.status.code(), Some(1));
            assert!(said.contains("a secret: give it on standard input"), "{said}");
            assert!(refused.stdout.is_empty() && !said.contains(&secret.trim()[..9]));
        }
    }
    let wrong = component.replacen("2762", "2763", 1);
    let told = inspect(&[], &wrong);
    assert_eq!(told.status.code(), Some(6));
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    let rows = told["parts"].as_array().unwrap();
    assert!(rows[0]["meaning"].as_str().unwrap().starts_with("WRONG"), "{told}");
    assert!(!rows[1]["meaning"].as_str().unwrap().starts_with("WRONG"));
    assert_eq!(told["sound"], false);
}

#[test]
fn key_blocks_and_key_serial_numbers_are_explained_without_keys() {
    let text = std::fs::read_to_string(Path::new(ROOT).join("keys-dev/keys.toml")).unwrap();
    let line = text.lines().find(|line| line.starts_with("block = ")).unwrap();
    let block = line.split('"').nth(1).unwrap();
    for done in [inspect(&[block], ""), inspect(&["--as", "block"], block)] {
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        let told: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(told["what"], "key block of version D");
        assert_eq!(told["parts"][2]["meaning"], "key encryption key (KEK)");
        assert_eq!(told["parts"][10]["value"], "LB DEV-ONLY dev-kek");
    }
    assert_eq!(inspect(&[&block[..100]], "").status.code(), Some(6), "cut");
    let ksn = inspect(&["9876543210E00001"], "");
    let told: Value = serde_json::from_slice(&ksn.stdout).unwrap();
    assert_eq!(told["parts"][0]["value"], "FFFF");
    assert_eq!(told["parts"][1]["value"], "FFFF987654");
    for (arguments, given) in [
        (&["nothing known"][..], ""),
        (&["--as", "ksn", "XY"], ""),
        (&["--as", "block", "B01"], ""),
        (&[], ""),
        (&["--as", "slip"], "0123"),
        (&[], "a\u{0}\u{ff}"),
    ] {
        let refused = inspect(arguments, given);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert!(refused.stdout.is_empty());
    }
}

fn json_of(arguments: &[&str], server: &str) -> Value {
    let printed = succeed(&[&["--output", "json"], arguments].concat(), server);
    serde_json::from_str(&printed).expect("JSON")
}

#[test]
fn a_key_lives_from_its_making_to_the_certificate_of_its_end() {
    let folder = Folder::new();
    let service = Service::start(&folder.path("data"));
    let url = service.url.as_str();
    let label = ["--label", "partner=visa"];
    let create = ["key", "create", "zone", "--usage", "pin_encryption", "--algorithm", "aes128"];
    let first = json_of(&[&create[..], &label].concat(), url);
    assert_eq!((&first["state"], &first["labels"]["partner"]), (&"ACTIVE".into(), &"visa".into()));
    let second = json_of(&["key", "rotate", "zone"], url);
    assert_eq!((&second["version"], &second["primary_version"]), (&2.into(), &2.into()));
    json_of(&["key", "primary", "zone/versions/1"], url);
    let versions = json_of(&["key", "versions", "zone"], url);
    assert_eq!(versions["keys"].as_array().unwrap().len(), 2);
    assert_eq!(versions["keys"][1]["primary_version"], 1);
    let listed = succeed(&[&["key", "list"], &label[..]].concat(), url);
    assert!(listed.contains("1 primary") && listed.contains("PIN_ENCRYPTION"), "{listed}");
    json_of(&["key", "label", "zone"], url);
    let none = json_of(&[&["key", "list"], &label[..]].concat(), url);
    assert_eq!(none["keys"], Value::Array(Vec::new()));
    let shown = succeed(&["key", "show", "zone/versions/2"], url);
    assert!(shown.contains(second["check_value"].as_str().unwrap()), "{shown}");

    // What has no way back names the check value of the very version.
    let (right, wrong) = (&second["check_value"], &first["check_value"]);
    let [right, wrong] = [right, wrong].map(|value| value.as_str().unwrap());
    let state = |state, sure| ["key", "state", "zone/versions/2", state, "--check-value", sure];
    let refused = firstkey(&state("deactivated", wrong), Some(url));
    assert_eq!(refused.status.code(), Some(6), "{}", text(&refused.stderr));
    assert_eq!(json_of(&["key", "show", "zone/versions/2"], url)["state"], "ACTIVE");
    assert_eq!(json_of(&state("deactivated", right), url)["state"], "DEACTIVATED");
    let early = firstkey(&["key", "certificate", "zone/versions/2"], Some(url));
    assert_eq!(early.status.code(), Some(1), "{}", text(&early.stderr));
    let destroy = ["key", "destroy", "zone/versions/2", "--check-value", right];
    assert_eq!(json_of(&destroy, url)["state"], "DESTROYED");

    let file = folder.path("certificate");
    let fetch = ["key", "certificate", "zone/versions/2", "--out", &file];
    let log_key = json_of(&fetch, url)["key"].as_str().unwrap().to_owned();
    drop(service);
    let verify = |output: &str| {
        let arguments = ["--output", output, "key", "verify-certificate", &file, "--key", &log_key];
        firstkey(&arguments, None)
    };
    let verified = verify("json");
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    let told: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!((&told["verified"], &told["check_value"]), (&true.into(), &right.into()));
    assert_eq!(told["key"], "keys/zone/versions/2");
    assert!(text(&verify("table").stdout).contains("not_reached"));
    let forged = std::fs::read_to_string(&file).unwrap().replace("versions/2", "versions/1");
    std::fs::write(&file, forged).unwrap();
    assert_eq!(verify("table").status.code(), Some(6));
}
