//! A live service whose master key is wrapped inside a token: `SoftHSM2`, as a program of its own.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "setup/custody.rs"]
mod custody;
#[path = "setup/firstkeyd.rs"]
mod firstkeyd;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use firstkey::command::ceremony::plan::Plan;
use firstkey::command::ceremony::record::CeremonyState;
use firstkey::crypto::certificate::key_from_pem;
use firstkey::crypto::ec::SigningKey;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::{CeremonyView, Client, ClientError, create_master_key, request_id};
use firstkey::grpc::proto::create_master_key_request::Keepers;
use firstkey::grpc::proto::{
    ApproveRequest, GetStatusRequest, SealKind, SealRequest, SealState, SealStatus, TokenState,
    UnsealRequest,
};
use rusqlite::Connection;
use rustix::process::Signal;
use tokio::time::timeout;

use crate::firstkeyd::Firstkeyd;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "493817";

/// A folder with a service and a token, gone with the test.
struct Bench {
    folder: PathBuf,
    process: Option<Firstkeyd>,
    url: String,
}

impl Bench {
    /// A service that `firstkeyd init` set up, and a new token.
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("firstkey-token-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(folder.join("tokens")).unwrap();
        let tokens = format!("directories.tokendir = {}\n", folder.join("tokens").display());
        fs::write(folder.join("softhsm2.conf"), tokens).unwrap();
        let bench = Self { folder, process: None, url: String::new() };
        bench.add_token(PIN);
        custody::set_up(&bench.path("fk"));
        let table = format!(
            "kind = \"pkcs11\"\nmodule = \"{MODULE}\"\ntoken = \"firstkey\"\npin_file = \"pin\""
        );
        let text = fs::read_to_string(bench.path("fk/firstkeyd.toml")).unwrap();
        let text = text.replacen("kind = \"shamir\"", &table, 1);
        fs::write(bench.path("fk/firstkeyd.toml"), text).unwrap();
        bench.set_pin(PIN);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn set_pin(&self, pin: &str) {
        fs::write(self.path("fk/pin"), format!("{pin}\n")).unwrap();
        fs::set_permissions(self.path("fk/pin"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn try_run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        if program == "pkcs11-tool" {
            command.args(["--module", MODULE]);
        }
        command.output().unwrap()
    }

    /// What a program of the token prints.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let done = self.try_run(program, arguments);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// What a program of the token prints when it is logged in.
    fn run_inside(&self, arguments: &[&str]) -> String {
        self.run("pkcs11-tool", &[&["--login", "--pin", PIN], arguments].concat())
    }

    /// One more token of the name that the configuration says.
    fn add_token(&self, pin: &str) {
        let token = ["--init-token", "--free", "--label", "firstkey"];
        let pins = ["--so-pin", "87654321", "--pin", pin];
        self.run("softhsm2-util", &[&token[..], &pins].concat());
    }

    fn start(&mut self) {
        self.stop();
        let mut command = Command::new(env!("CARGO_BIN_EXE_firstkeyd"));
        command.args(["serve", "--config"]).arg(self.path("fk/firstkeyd.toml"));
        command.env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        let (process, address) = Firstkeyd::serving(&mut command);
        self.process = Some(process);
        self.url = format!("https://{address}");
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    fn logged(&self) -> String {
        self.process.as_ref().unwrap().logged()
    }

    /// How often the log says something.
    fn told(&self, message: &str) -> usize {
        self.logged().matches(message).count()
    }

    async fn client(&self, who: &str) -> Client {
        let own = custody::credentials(&self.path("fk"), &format!("admin/{who}"));
        Client::connect_with(&self.url, &own).await.unwrap()
    }

    async fn status(&self) -> SealStatus {
        self.client("operator-1").await.seal_status().await.unwrap()
    }

    /// Waits until the token was tried, and tells what came of it.
    async fn tried(&self) -> (&'static str, &'static str) {
        for _ in 0..500 {
            let status = self.status().await;
            let is_sealed = status.state().as_str_name() != SealState::Open.as_str_name();
            if !(is_sealed && status.token().as_str_name() == TokenState::Unspecified.as_str_name())
            {
                return (status.state().as_str_name(), status.token().as_str_name());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the token was not tried:\n{}", self.logged());
    }

    async fn unseal(&self) -> Result<&'static str, ClientError> {
        self.unseal_as("operator-1").await
    }

    async fn unseal_as(&self, who: &str) -> Result<&'static str, ClientError> {
        let client = self.client(who).await;
        let answer = client.seals().unseal(UnsealRequest::default()).await?;
        Ok(answer.into_inner().status.unwrap().state().as_str_name())
    }

    /// Has the service sealed.
    async fn seal(&self) {
        let officer = self.client("officer-1").await;
        officer.seals().seal(SealRequest {}).await.unwrap();
    }

    /// The state of the token when it is tried, and what the caller is told.
    async fn refused_unseal(&self) -> (&'static str, String) {
        let (reason, told) = refused(self.unseal().await);
        assert_eq!(reason, "TOKEN_UNAVAILABLE");
        let status = self.status().await;
        assert_eq!(status.state().as_str_name(), SealState::Sealed.as_str_name());
        (status.token().as_str_name(), told)
    }

    /// What the status of an open service says of its seal; none before it was examined.
    async fn health(&self) -> Option<(bool, String)> {
        let status = self.client("operator-1").await.status();
        let status = { status }.get_status(GetStatusRequest {}).await.unwrap().into_inner();
        let check = status.checks.into_iter().find(|check| check.name == "seal")?;
        Some((check.healthy, check.detail))
    }

    /// Waits until health complains of the token in these words.
    async fn complains(&self, words: &str) {
        let mut last = None;
        for _ in 0..100 {
            last = self.health().await;
            if last.as_ref().is_some_and(|(healthy, told)| !healthy && told.contains(words)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no complaint: {last:?}");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn refused<T>(done: Result<T, ClientError>) -> (String, String) {
    let ClientError::Refused(refusal) = done.err().unwrap() else { panic!("it is no refusal") };
    (refusal.reason.clone(), refusal.told("token").unwrap_or_default().to_owned())
}

/// A service that has a master key.
async fn initialised() -> Bench {
    let mut bench = Bench::new();
    bench.start();
    assert_eq!(bench.status().await.state().as_str_name(), SealState::Uninitialised.as_str_name());
    let officer = bench.client("officer-1").await;
    let status = create_master_key(&officer, Keepers::Token(true)).await.unwrap();
    assert_eq!(
        (status.state().as_str_name(), status.kind().as_str_name()),
        (SealState::Open.as_str_name(), SealKind::Pkcs11.as_str_name())
    );
    bench
}

#[tokio::test]
async fn the_wrapping_key_never_leaves_the_token_and_does_nothing_else() {
    let mut bench = initialised().await;
    let keys = bench.run_inside(&["--list-objects", "--type", "secrkey"]);
    let line = |name: &str| keys.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
    assert_eq!(keys.matches("Secret Key Object").count(), 1, "{keys}");
    assert!(line("Secret Key Object").contains("AES length 32"), "{keys}");
    assert_eq!(line("Usage:").split_once(':').unwrap().1.trim(), "wrap, unwrap");
    let access = line("Access:");
    for word in ["always sensitive", "never extractable", "local"] {
        assert!(access.contains(word), "{access}");
    }
    // It opens by itself, and the store holds nothing but the wrapped key.
    bench.start();
    assert_eq!(
        bench.tried().await,
        (SealState::Open.as_str_name(), TokenState::Present.as_str_name())
    );
    let store = Connection::open(bench.path("fk/data/store/firstkey.sqlite3")).unwrap();
    let custody: Vec<u8> = store
        .query_row("SELECT sealed FROM record WHERE kind = 'seal'", [], |row| row.get(0))
        .unwrap();
    let custody: serde_json::Value = serde_json::from_slice(&custody).unwrap();
    let wrapped = custody["seal"]["pkcs11"]["wrapped"].as_str().unwrap();
    assert_eq!(wrapped.len(), 2 * 40, "RFC 5649: one semiblock more");
}

#[tokio::test]
async fn a_wrong_pin_is_tried_once_and_only_a_call_tries_again() {
    let mut bench = initialised().await;
    bench.set_pin("000000");
    bench.start();
    assert_eq!(
        bench.tried().await,
        (SealState::Sealed.as_str_name(), TokenState::PinWrong.as_str_name())
    );
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(bench.told("the token does not open the vault"), 1, "one try");
    assert_eq!(
        refused(bench.unseal().await),
        ("TOKEN_UNAVAILABLE".into(), "the token refused the PIN".into())
    );
    assert_eq!(bench.told("the token does not open the vault"), 2, "one more");
    // A PIN that others may read is none.
    bench.set_pin(PIN);
    fs::set_permissions(bench.path("fk/pin"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(refused(bench.unseal().await).0, "TOKEN_UNAVAILABLE");
    assert_eq!(bench.status().await.token().as_str_name(), TokenState::PinUnreadable.as_str_name());
    bench.set_pin(PIN);
    assert_eq!(bench.unseal().await.unwrap(), SealState::Open.as_str_name());
}

#[tokio::test]
async fn a_token_that_is_pulled_out_is_told_and_the_vault_stays_as_it_is() {
    let mut bench = initialised().await;
    assert!(bench.health().await.is_none_or(|(healthy, _)| healthy));
    let away = || fs::rename(bench.path("tokens"), bench.path("away")).unwrap();
    let back = || fs::rename(bench.path("away"), bench.path("tokens")).unwrap();
    away();
    fs::create_dir(bench.path("tokens")).unwrap();
    bench.complains("the token is not there").await;
    assert_eq!(bench.status().await.state().as_str_name(), SealState::Open.as_str_name());
    bench.seal().await;
    assert_eq!(
        bench.refused_unseal().await,
        (TokenState::Absent.as_str_name(), "the token is not there".into())
    );
    fs::remove_dir(bench.path("tokens")).unwrap();
    back();
    // Who may not unseal has it tried, and it is closed again.
    assert_eq!(refused(bench.unseal_as("auditor-1").await).0, "POLICY_DENIED");
    assert_eq!(bench.status().await.state().as_str_name(), SealState::Sealed.as_str_name());
    assert_eq!(bench.unseal().await.unwrap(), SealState::Open.as_str_name());
    bench.start();
    assert_eq!(
        bench.tried().await,
        (SealState::Open.as_str_name(), TokenState::Present.as_str_name())
    );
}

#[tokio::test]
async fn what_was_wrapped_and_changed_does_not_open_and_one_thing_is_told() {
    let mut bench = initialised().await;
    bench.stop();
    let path = bench.path("fk/data/store/firstkey.sqlite3");
    let read = || -> String {
        let store = Connection::open(&path).unwrap();
        let select = "SELECT CAST(sealed AS TEXT) FROM record WHERE kind = 'seal'";
        store.query_row(select, [], |row| row.get(0)).unwrap()
    };
    let write = |text: &str| {
        let store = Connection::open(&path).unwrap();
        let update = "UPDATE record SET sealed = CAST(?1 AS BLOB) WHERE kind = 'seal'";
        assert_eq!(store.execute(update, [text]).unwrap(), 1);
    };
    let whole = read();
    let begin = whole.find("\"wrapped\":\"").unwrap() + "\"wrapped\":\"".len();
    for place in [0, 17, 40, 79] {
        let mut changed = whole.clone().into_bytes();
        let digit = &mut changed[begin + place];
        *digit = if *digit == b'0' { b'1' } else { b'0' };
        write(&String::from_utf8(changed).unwrap());
        bench.start();
        assert_eq!(
            bench.tried().await,
            (SealState::Sealed.as_str_name(), TokenState::WrappedInvalid.as_str_name()),
            "{place}"
        );
        bench.stop();
    }
    write(&whole);
    bench.start();
    assert_eq!(bench.tried().await.0, SealState::Open.as_str_name());
}

#[tokio::test]
async fn a_key_that_may_leave_the_token_wraps_nothing() {
    let mut bench = Bench::new();
    let make = ["--keygen", "--key-type", "AES:32", "--label", "firstkey-master", "--extractable"];
    bench.run_inside(&make);
    bench.start();
    let officer = bench.client("officer-1").await;
    let refused = refused(create_master_key(&officer, Keepers::Token(true)).await);
    assert_eq!(refused.0, "TOKEN_UNAVAILABLE");
    assert!(refused.1.contains("not fit"), "{refused:?}");
    let status = bench.status().await;
    assert_eq!(
        (status.state().as_str_name(), status.token().as_str_name()),
        (SealState::Uninitialised.as_str_name(), TokenState::KeyUnfit.as_str_name())
    );
}

#[tokio::test]
async fn no_pin_is_sent_to_another_token_of_the_name() {
    let bench = initialised().await;
    fs::rename(bench.path("tokens"), bench.path("away")).unwrap();
    fs::create_dir(bench.path("tokens")).unwrap();
    bench.add_token("111111");
    bench.complains("another token").await;
    bench.seal().await;
    let (state, told) = bench.refused_unseal().await;
    assert_eq!(state, TokenState::OtherToken.as_str_name());
    assert!(told.contains("no PIN is sent"), "{told}");
    // A token remembers a PIN that it refused, as the control shows.
    let flags = || bench.run("pkcs11-tool", &["--list-slots"]);
    assert!(flags().contains("PIN initialized") && !flags().contains("PIN count low"));
    let login = bench.try_run("pkcs11-tool", &["--login", "--pin", PIN, "--list-objects"]);
    assert!(!login.status.success());
    assert!(flags().contains("PIN count low"));
    fs::remove_dir_all(bench.path("tokens")).unwrap();
    fs::rename(bench.path("away"), bench.path("tokens")).unwrap();
    assert_eq!(bench.unseal().await.unwrap(), SealState::Open.as_str_name());
}

#[tokio::test]
async fn of_two_tokens_or_two_keys_of_one_name_neither_is_used() {
    let bench = initialised().await;
    bench.seal().await;
    let serials = || {
        let slots = bench.run("pkcs11-tool", &["--list-token-slots"]);
        let serials = slots.lines().filter_map(|line| line.trim().strip_prefix("serial num"));
        serials.map(|rest| rest.trim_matches([' ', ':']).to_owned()).collect::<Vec<_>>()
    };
    let before = serials();
    bench.add_token(PIN);
    assert_eq!(bench.refused_unseal().await.0, TokenState::Ambiguous.as_str_name());
    let second = serials().into_iter().find(|serial| !before.contains(serial)).unwrap();
    bench.run("softhsm2-util", &["--delete-token", "--serial", &second]);
    // A key is found again by its id, which another may be given.
    let keys = bench.run_inside(&["--list-objects", "--type", "secrkey"]);
    let id = keys.lines().find_map(|line| line.trim().strip_prefix("ID:")).unwrap().trim();
    let make = ["--keygen", "--key-type", "AES:32", "--label", "second", "--id", id];
    bench.run_inside(&make);
    assert_eq!(bench.refused_unseal().await.0, TokenState::KeyAmbiguous.as_str_name());
    bench.run_inside(&["--delete-object", "--type", "secrkey", "--label", "second"]);
    assert_eq!(bench.unseal().await.unwrap(), SealState::Open.as_str_name());
}

#[tokio::test]
async fn a_token_that_never_answers_holds_up_no_call_no_sealing_and_no_end() {
    let mut bench = initialised().await;
    let settings = fs::read_to_string(bench.path("softhsm2.conf")).unwrap();
    // The library reads its settings whenever it begins: out of this pipe it never gets any.
    let hang = || {
        fs::remove_file(bench.path("softhsm2.conf")).unwrap();
        assert!(
            Command::new("mkfifo").arg(bench.path("softhsm2.conf")).status().unwrap().success()
        );
    };
    hang();
    bench.complains("the token does not answer").await;
    let within = Duration::from_secs;
    timeout(within(5), bench.seal()).await.unwrap();
    let glance = async {
        tokio::time::sleep(within(1)).await;
        timeout(within(5), bench.status()).await.unwrap();
    };
    let (tried, ()) = tokio::join!(timeout(within(15), bench.refused_unseal()), glance);
    assert_eq!(
        tried.unwrap(),
        (TokenState::Unanswered.as_str_name(), "the token does not answer".into())
    );
    // It comes back, and serves again.
    let mut pipe = fs::OpenOptions::new().write(true).open(bench.path("softhsm2.conf")).unwrap();
    fs::write(bench.path("settings"), &settings).unwrap();
    fs::rename(bench.path("settings"), bench.path("softhsm2.conf")).unwrap();
    pipe.write_all(settings.as_bytes()).unwrap();
    drop(pipe);
    assert_eq!(bench.unseal().await.unwrap(), SealState::Open.as_str_name());
    hang();
    bench.complains("the token does not answer").await;
    let mut process = bench.process.take().unwrap();
    process.signal(Signal::TERM);
    // Its callers are tasks here, which hang up meanwhile.
    let ended = tokio::task::spawn_blocking(move || process.ended());
    let (ended, log) = timeout(within(10), ended).await.unwrap().unwrap();
    assert!(ended.success(), "{ended}\n{log}");
}

/// Somebody at the table, with the key of the certificate.
async fn person(bench: &Bench, who: &str) -> (Client, SigningKey) {
    let key = fs::read(bench.path(&format!("fk/clients/admin/{who}.key"))).unwrap();
    let key = SigningKey::from_pkcs8(&key_from_pem(&key).unwrap()).unwrap();
    (bench.client(who).await, key)
}

async fn create_ceremony(bench: &Bench) -> CeremonyView {
    let name = |who: &str| format!("spiffe://firstkey.internal/{who}");
    let custodians = [name("custodian/custodian-1"), name("custodian/custodian-2")];
    let plan = format!(
        "title = \"Test\"\ncustodians = {custodians:?}\nwitness = {:?}\n\
         [generate]\nid = \"made\"\nusage = \"K0\"\nalgorithm = \"AES256\"\n",
        name("auditor/auditor-1")
    );
    let planned = toml::from_str::<Plan>(&plan).unwrap().check().unwrap();
    let (one, two) = (bench.client("officer-1").await, bench.client("officer-2").await);
    let id = request_id();
    let asked = one.create_ceremony(id.clone(), &planned).await.err().unwrap();
    let ClientError::Refused(asked) = asked else { panic!("it waits for approval: {asked}") };
    let digest = asked.told("request_digest").unwrap();
    let request = ApproveRequest {
        request_id: request_id(),
        name: asked.told("approval").unwrap().to_owned(),
        request_digest: data_encoding::HEXLOWER.decode(digest.as_bytes()).unwrap(),
    };
    two.approvals().approve(request).await.unwrap();
    one.create_ceremony(id, &planned).await.unwrap()
}

#[tokio::test]
async fn a_ceremony_goes_on_without_the_token_and_after_a_restart_waits_for_it() {
    let mut bench = initialised().await;
    let rng = SystemRng::new();
    let mut view = create_ceremony(&bench).await;
    for who in ["custodian-1", "custodian-2", "auditor-1"] {
        view = person(&bench, who).await.0.join_ceremony(&view).await.unwrap();
    }
    let (client, signer) = person(&bench, "custodian-1").await;
    let (at, slip) = client.take_component(&view, (1, &signer), &rng).await.unwrap();
    fs::rename(bench.path("tokens"), bench.path("away")).unwrap();
    fs::create_dir(bench.path("tokens")).unwrap();
    // The vault is open, and stays so.
    view = client.read_back_component(&at, (1, &signer), &slip, &rng).await.unwrap();
    let (client, signer) = person(&bench, "custodian-2").await;
    let (at, slip) = client.take_component(&view, (2, &signer), &rng).await.unwrap();
    bench.start();
    assert_eq!(
        bench.tried().await,
        (SealState::Sealed.as_str_name(), TokenState::Absent.as_str_name())
    );
    let (client, signer) = person(&bench, "custodian-2").await;
    let sealed = client.read_back_component(&at, (2, &signer), &slip, &rng).await;
    assert_eq!(sealed.err().unwrap().reason(), Some("VAULT_SEALED"));
    fs::remove_dir(bench.path("tokens")).unwrap();
    fs::rename(bench.path("away"), bench.path("tokens")).unwrap();
    assert_eq!(bench.unseal().await.unwrap(), SealState::Open.as_str_name());
    // The same slip is read back as if nothing had been.
    view = client.read_back_component(&at, (2, &signer), &slip, &rng).await.unwrap();
    for who in ["custodian-1", "custodian-2", "auditor-1"] {
        let value = view.check_value.clone();
        view = person(&bench, who).await.0.confirm_ceremony(&view, &value).await.unwrap();
    }
    assert_eq!(view.state, CeremonyState::Done);
    for who in ["custodian-1", "custodian-2", "auditor-1"] {
        let (client, signer) = person(&bench, who).await;
        view = client.sign_ceremony(&view, &signer).await.unwrap();
    }
    assert_eq!(view.state, CeremonyState::Closed);
}
