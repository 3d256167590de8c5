//! `firstkey approval`: officers at their own machines, over TLS with their own certificates.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use firstkey::crypto::certificate::certificate_to_pem;
use firstkey::grpc::Plane;
use firstkey::grpc::client::request_id;
use firstkey::grpc::proto;
use serde_json::Value;

use crate::approvals::{live, officer, state, waits};
use crate::harness::{TempFolder, TlsService, answer};

/// An officer's certificate and key in files, as the tool takes them.
struct Machine {
    folder: TempFolder,
    url: String,
}

impl Machine {
    fn of(service: &TlsService, officer: u8) -> Self {
        let folder = TempFolder::new();
        let name =
            format!("spiffe://{}/officer/officer-{officer}", firstkey::server::dev::TRUST_DOMAIN);
        let issued = service.issue(&name, Plane::Admin);
        let ca = certificate_to_pem(service.access.server.root_der());
        for (file, content) in [
            ("ca", ca.as_bytes()),
            ("cert", issued.certificate.as_bytes()),
            ("key", issued.key.as_bytes()),
        ] {
            std::fs::write(folder.path().join(file), content).expect("a file");
        }
        Self { folder, url: service.url().to_owned() }
    }

    /// Runs `firstkey approval`, and types this.
    async fn run(&self, arguments: &[&str], typed: &str) -> Output {
        self.tool(&[&["approval"], arguments].concat(), typed).await
    }

    async fn tool(&self, arguments: &[&str], typed: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firstkey"));
        command.args(arguments).args(["--server", &self.url]);
        for file in ["ca", "cert", "key"] {
            command.arg(format!("--{file}")).arg(self.folder.path().join(file));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let typed = typed.to_owned();
        let run = move || {
            let mut tool = command.spawn().expect("the tool starts");
            // A tool that asks nothing does not read it.
            let _ = tool.stdin.take().expect("a pipe").write_all(typed.as_bytes());
            tool.wait_with_output().expect("the tool ends")
        };
        tokio::task::spawn_blocking(run).await.expect("the tool ran")
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let done = self.run(&[arguments, &["--output", "json"]].concat(), "").await;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        serde_json::from_slice(&done.stdout).expect("JSON")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn new_key(id: &str) -> proto::CreateKeyRequest {
    proto::CreateKeyRequest {
        request_id: request_id(),
        key_id: id.to_owned(),
        usage: proto::KeyUsage::PinEncryption.into(),
        algorithm: proto::KeyAlgorithm::Aes128.into(),
        attributes: Some(proto::KeyAttributes {
            pin_formats_out: vec![proto::PinBlockFormat::Iso4.into()],
            ..proto::KeyAttributes::default()
        }),
        ..proto::CreateKeyRequest::default()
    }
}

#[tokio::test]
async fn an_officer_looks_compares_the_digest_and_approves() {
    let service = live(1, Vec::new()).await;
    let one = officer(&service, 1).await;
    let two = Machine::of(&service, 2);
    let request = new_key("zone");
    let name = waits(one.keys().create_key(request.clone()).await);
    let listed = two.json(&["list", "--state", "pending"]).await;
    assert_eq!(listed["approvals"][0]["name"], name.as_str());
    let none = two.json(&["list", "--state", "approved"]).await;
    assert_eq!(none["approvals"].as_array().unwrap().len(), 0);
    let listed = text(&two.run(&["list"], "").await.stdout);
    assert!(listed.contains("PENDING") && listed.contains("0 of 1"), "{listed}");

    let shown = two.json(&["show", &name]).await;
    let fields = shown["fields"].as_array().unwrap();
    let field = |path: &str| fields.iter().find(|field| field["path"] == path).unwrap();
    assert_eq!(field("usage")["value"], "KEY_USAGE_PIN_ENCRYPTION");
    assert_eq!(field("attributes.pin_formats_out[0]")["value"], "PIN_BLOCK_FORMAT_ISO_4");
    let digest = shown["request_digest"].as_str().unwrap();
    let table = text(&two.run(&["show", name.trim_start_matches("approvals/")], "").await.stdout);
    for word in ["officer-1", "CreateKey", "keys/zone", "PIN_BLOCK_FORMAT_ISO_4", &digest[..8]] {
        assert!(table.contains(word), "{word}: {table}");
    }

    let wrong = "0".repeat(64);
    // Nothing is approved without the digest, or with too little of it, or with another.
    for (arguments, typed) in [
        (vec!["approve", &name], ""),
        (vec!["approve", &name], "\n"),
        (vec!["approve", &name], &digest[..15]),
        (vec!["approve", &name], "0000000000000000\n"),
        (vec!["approve", &name, "--digest", &wrong], ""),
        (vec!["approve", &name, "--digest", &digest[..63]], ""),
        (vec!["approve", &name, "--digest", ""], ""),
        (vec!["approve", &name, "--output", "json"], digest),
    ] {
        let refused = two.run(&arguments, typed).await;
        assert!(!refused.status.success(), "{arguments:?} {typed}");
        assert_eq!(state(&one, &name).await, "PENDING");
    }
    let typed = format!("{} {}\n", digest[..8].to_lowercase(), &digest[8..16]);
    let done = two.run(&["approve", &name], &typed).await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(text(&done.stdout).contains("APPROVED (1 of 1)"), "{}", text(&done.stdout));
    answer(one.keys().create_key(request).await);
    let again = two.run(&["approve", &name, "--digest", digest], "").await;
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("APPROVAL_STATE"), "{}", text(&again.stderr));

    let name = waits(one.keys().create_key(new_key("other")).await);
    let ended = two.json(&["reject", &name, "--cause", "not this week"]).await;
    assert_eq!((&ended["state"], &ended["cause"]), (&"REJECTED".into(), &"not this week".into()));
    let nobody = two.run(&["show", "nobody"], "").await;
    assert_eq!(nobody.status.code(), Some(4));
    drop(one);
    service.stop().await;
}

#[tokio::test]
async fn a_key_is_destroyed_by_two_and_the_tool_says_how_the_request_is_made_again() {
    let service = live(1, Vec::new()).await;
    let (one, two) = (Machine::of(&service, 1), Machine::of(&service, 2));
    let made = ["key", "create", "zone", "--usage", "mac_cmac", "--algorithm", "aes128"];
    let made = one.tool(&[&made[..], &["--pre-active", "--output", "json"]].concat(), "").await;
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let check_value = made["check_value"].as_str().unwrap();
    // Asked for the check value, it does nothing with another.
    let destroy = ["key", "destroy", "zone"];
    let refused = one.tool(&destroy, "0000000000\n").await;
    assert_eq!(refused.status.code(), Some(6), "{}", text(&refused.stderr));
    let waits = one.tool(&destroy, &format!("{check_value}\n")).await;
    assert_eq!(waits.status.code(), Some(7), "{}", text(&waits.stderr));
    let told = text(&waits.stderr);
    let after = |word: &str| {
        let rest = told.split_once(word).unwrap_or_else(|| panic!("{word}: {told}")).1;
        rest.split_whitespace().next().unwrap().trim_end_matches(['`', ';']).to_owned()
    };
    let (name, request_id) = (after("approval approve "), after("--request-id "));
    let digest = two.json(&["show", &name]).await["request_digest"].as_str().unwrap().to_owned();
    let approved = two.run(&["approve", &name, "--digest", &digest], "").await;
    assert_eq!(approved.status.code(), Some(0), "{}", text(&approved.stderr));
    let again = ["--request-id", &request_id, "--check-value", check_value, "--output", "json"];
    let done = one.tool(&[&destroy[..], &again].concat(), "").await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let fetched = one.tool(&["key", "certificate", "zone"], "").await;
    let certificate = text(&fetched.stdout);
    assert!(certificate.contains("approver: officer-2"), "{certificate}");
    assert!(certificate.contains("requester: spiffe://"), "{certificate}");
    service.stop().await;
}

#[tokio::test]
async fn a_policy_whose_approval_ended_is_asked_anew_and_one_that_is_none_is_told_in_its_words() {
    let service = live(1, Vec::new()).await;
    let (one, two) = (Machine::of(&service, 1), Machine::of(&service, 2));
    let before = text(&one.tool(&["policy", "get", "--toml"], "").await.stdout);
    let file = one.folder.path().join("policy.toml");
    let path = file.to_str().unwrap();
    let none = before.replace("grant = []", "").replace("seconds = 86400", "seconds = 1")
        + "\n[[grant]]\nkey = \"zone\"\nprincipals = [\"*\"]\ncalls = [\"VerifyMac\"]\n";
    std::fs::write(&file, &none).expect("a file");
    let refused = text(&one.tool(&["policy", "set", path], "").await.stderr);
    assert!(refused.contains("approval_seconds: is 60"), "{refused}");
    std::fs::write(&file, none.replace("seconds = 1", "seconds = 600")).expect("a file");
    let refused = text(&one.tool(&["policy", "set", path], "").await.stderr);
    assert!(refused.contains("[[grant]] number 1, key: is no name"), "{refused}");
    let after = before.replace("approval_seconds = 86400", "approval_seconds = 600");
    std::fs::write(&file, after).expect("a file");
    let set = async |anew: &[&str]| {
        let done = one.tool(&[&["policy", "set", path], anew].concat(), "").await;
        (done.status.code(), text(&done.stderr))
    };
    let asked = async || two.json(&["list", "--state", "pending"]).await["approvals"].clone();
    let name_of = |listed: &Value| listed[0]["name"].as_str().unwrap_or_default().to_owned();

    // Rejected, expired, rejected again: nothing is asked until it is said, and then once.
    let (code, _) = set(&["--anew"]).await;
    assert_eq!(code, Some(7), "where nothing ended, it is as without");
    for round in 0..3 {
        let pending = asked().await;
        assert_eq!(pending.as_array().unwrap().len(), 1, "{round}");
        if round == 1 {
            service.plain.clock.advance(86_400);
        } else {
            two.json(&["reject", &name_of(&pending), "--cause", "not this week"]).await;
        }
        let (code, told) = set(&[]).await;
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("--anew") && told.contains("APPROVAL_STATE"), "{told}");
        assert_eq!(asked().await.as_array().unwrap().len(), 0);
        let first = set(&["--anew"]).await;
        assert_eq!(first.0, Some(7), "{}", first.1);
        assert_eq!(set(&["--anew"]).await, first, "the same command is the same request");
    }
    let name = name_of(&asked().await);
    let digest = two.json(&["show", &name]).await["request_digest"].clone();
    let approved = two.run(&["approve", &name, "--digest", digest.as_str().unwrap()], "").await;
    assert_eq!(approved.status.code(), Some(0), "{}", text(&approved.stderr));
    let (code, told) = set(&["--anew"]).await;
    assert_eq!(code, Some(0), "{told}");
    service.stop().await;
}

#[tokio::test]
async fn a_vote_that_does_not_count_is_not_counted() {
    let service = live(2, Vec::new()).await;
    let one = officer(&service, 1).await;
    let (two, three) = (Machine::of(&service, 2), Machine::of(&service, 3));
    let name = waits(one.keys().create_key(new_key("zone")).await);
    for machine in [&two, &three] {
        let digest = machine.json(&["show", &name]).await["request_digest"].clone();
        let digest = digest.as_str().unwrap();
        machine.json(&["approve", &name, "--digest", digest]).await;
    }
    let listed = async || text(&three.run(&["list"], "").await.stdout);
    let before = listed().await;
    assert!(before.contains("APPROVED") && before.contains("2 of 2"), "{before}");
    crate::approvals::change_policy(&service, |policy| {
        policy.principals.retain(|one| !one.name.ends_with("officer-2"));
    })
    .await;
    // The whole service follows the store within a second.
    let after = listed().await;
    assert!(after.contains("PENDING") && after.contains("1 of 2"), "{after}");
    let shown = text(&three.run(&["show", &name], "").await.stdout);
    assert!(shown.contains("does not count") && shown.contains("PENDING (1 of 2)"), "{shown}");
    drop(one);
    service.stop().await;
}

#[tokio::test]
async fn a_policy_waits_is_approved_and_set_by_the_same_command() {
    let service = live(1, Vec::new()).await;
    let (one, two) = (Machine::of(&service, 1), Machine::of(&service, 2));
    let before = text(&one.tool(&["policy", "get", "--toml"], "").await.stdout);
    assert!(before.contains("approval_seconds = 86400"), "{before}");
    let file = one.folder.path().join("policy.toml");
    let after = before.replace("approval_seconds = 86400", "approval_seconds = 600");
    std::fs::write(&file, after).expect("a file");
    let set = ["policy", "set", file.to_str().unwrap()];
    let waits = one.tool(&set, "").await;
    assert_eq!(waits.status.code(), Some(7), "{}", text(&waits.stderr));
    let told = text(&waits.stderr);
    let next = told.lines().find(|line| line.starts_with("next: ")).expect("what to do next");
    assert!(next.contains("digest"), "{told}");
    let command = told.split('`').find(|part| part.starts_with("firstkey approval ")).unwrap();
    let command = command.trim_start_matches("firstkey approval ");
    let command: Vec<&str> = command.split(' ').collect();
    let shown = two.json(&["show", command[1]]).await;
    let changes: Vec<&str> =
        shown["changes"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert!(changes.len() == 2, "{changes:?}");
    assert!(changes[0].starts_with("- approval_") && changes[0].contains("86400"), "{changes:?}");
    assert!(changes[1].starts_with("+ approval_") && changes[1].contains("600"), "{changes:?}");
    let table = text(&two.run(&["show", command[1]], "").await.stdout);
    assert!(table.contains(changes[1]), "{table}");
    let digest = shown["request_digest"].as_str().unwrap();
    // What the requester tells is what the others see.
    let groups: Vec<&str> = (0..8).map(|place| &digest[place * 8..][..8]).collect();
    assert!(told.contains(&groups.join(" ")), "{told}");
    let approved = two.run(&command, digest).await;
    assert_eq!(approved.status.code(), Some(0), "{}", text(&approved.stderr));
    let set = one.tool(&set, "").await;
    assert_eq!(set.status.code(), Some(0), "{}", text(&set.stderr));
    let now = text(&two.tool(&["policy", "get", "--toml"], "").await.stdout);
    assert!(now.contains("approval_seconds = 600"), "{now}");
    service.stop().await;
}
