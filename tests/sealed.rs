//! A live service as a program: killed while its master key is made, sealed, looked into.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "setup/custody.rs"]
mod custody;
#[path = "setup/firstkeyd.rs"]
mod firstkeyd;
#[path = "setup/memory.rs"]
mod memory;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use firstkey::component::Share;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::{Client, ShareHolder, create_master_key};
use firstkey::grpc::proto::create_master_key_request::Keepers;
use firstkey::grpc::proto::{SealRequest, SealState, SealStatus, ShareKeepers};
use firstkey::vault::store::SqliteStore;
use firstkey::vault::{AuditSettings, Clock, MasterKey, Opener, Policy, Realm, Seal, UnixMillis};

use crate::firstkeyd::Firstkeyd;
use crate::memory::Memory;

/// A service that `firstkeyd init` set up; killed, and its folder gone, when the test ends.
struct Service {
    folder: PathBuf,
    process: Firstkeyd,
    url: String,
}

impl Service {
    fn new() -> Self {
        Self::serve(set_up(), &[])
    }

    fn serve(folder: PathBuf, arguments: &[&str]) -> Self {
        let (process, url) = serving(&folder, arguments);
        Self { folder, process, url }
    }

    fn restart(&mut self, arguments: &[&str]) {
        self.process.kill();
        (self.process, self.url) = serving(&self.folder, arguments);
    }

    async fn client(&self, who: &str) -> Client {
        let own = custody::credentials(&self.folder, &format!("admin/{who}"));
        Client::connect_with(&self.url, &own).await.unwrap()
    }

    async fn status(&self) -> SealStatus {
        self.client("operator-1").await.seal_status().await.unwrap()
    }

    async fn state(&self) -> &'static str {
        self.status().await.state().as_str_name()
    }

    /// The tool, as an operator.
    fn tool(&self, plane: &str, arguments: &[&str]) -> Output {
        let own = |ending: &str| self.folder.join(format!("clients/{plane}/operator-1.{ending}"));
        Command::new(env!("CARGO_BIN_EXE_firstkey"))
            .args(arguments)
            .env("FIRSTKEY_SERVER", &self.url)
            .env("FIRSTKEY_CA", self.folder.join("authorities/server.crt"))
            .env("FIRSTKEY_CERT", own("crt"))
            .env("FIRSTKEY_KEY", own("key"))
            .output()
            .unwrap()
    }

    fn memory(&self) -> Memory {
        Memory(self.process.id())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.process.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A folder that `firstkeyd init` made.
fn set_up() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("firstkey-sealed-{}", uuid::Uuid::new_v4()));
    custody::set_up(&folder);
    folder
}

fn serving(folder: &Path, arguments: &[&str]) -> (Firstkeyd, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firstkeyd"));
    command.args(["serve", "--config"]).arg(folder.join("firstkeyd.toml")).args(arguments);
    let (process, address) = Firstkeyd::serving(&mut command);
    (process, format!("https://{address}"))
}

fn two_of_three() -> Keepers {
    let name = |number: u8| format!("spiffe://firstkey.internal/custodian/custodian-{number}");
    Keepers::Custodians(ShareKeepers { threshold: 2, names: (1..=3).map(name).collect() })
}

#[tokio::test]
async fn sealing_wipes_the_master_key_and_every_share() {
    let service = Service::new();
    let mut shares = Vec::new();
    custody::open(&service.url, &service.folder, &mut shares).await;
    let open_pages = service.memory().secret_pages();
    let master = Share::combine(&shares.iter().collect::<Vec<_>>()).unwrap();
    let master = master.with_bytes(|octets| octets.to_vec());
    let mut secrets = vec![master];
    for share in &shares {
        let lines = share.write();
        let digits: String = lines
            .lines()
            .skip(1)
            .flat_map(|line| line.text.split(' ').take(4).map(str::to_owned).collect::<Vec<_>>())
            .collect();
        secrets.push(data_encoding::HEXUPPER.decode(digits.as_bytes()).unwrap());
    }
    if open_pages == 0 {
        assert!(
            service.memory().holds(&secrets[0]),
            "the control: where there are no secret pages"
        );
    }
    let officer = service.client("officer-1").await;
    officer.seals().seal(SealRequest {}).await.unwrap();
    assert_eq!(service.memory().secret_pages(), 0, "the page of the master key is gone");
    for (place, secret) in secrets.iter().enumerate() {
        assert!(!service.memory().holds(secret), "secret {place} is still there");
        let digits = data_encoding::HEXUPPER.encode(secret);
        assert!(
            !service.memory().holds(digits.as_bytes()),
            "secret {place} is still there, in digits"
        );
    }
    // The control: the search finds what is there.
    assert!(service.memory().holds(service.folder.as_os_str().as_encoded_bytes()));
    // Given and wrong, given and right: neither leaves anything behind.
    custody::open(&service.url, &service.folder, &mut shares).await;
    officer.seals().seal(SealRequest {}).await.unwrap();
    assert!(secrets.iter().all(|secret| !service.memory().holds(secret)));
}

#[tokio::test]
async fn a_kill_at_any_step_of_the_initialisation_leaves_the_store_empty_or_whole() {
    let mut service = Service::new();
    let rng = SystemRng::new();
    for steps in 0..6 {
        let officer = service.client("officer-1").await;
        create_master_key(&officer, two_of_three()).await.unwrap();
        let mut taken = Vec::new();
        for step in 0..steps {
            let number = step / 2 + 1;
            let own = custody::credentials(&service.folder, &format!("admin/custodian-{number}"));
            let client = Client::connect_with(&service.url, &own).await.unwrap();
            let holder = ShareHolder::new(&client, &own, &rng).unwrap();
            if step % 2 == 0 {
                taken.push(holder.take().await.unwrap());
            } else {
                holder.confirm(taken.last().unwrap()).await.unwrap();
            }
        }
        service.restart(&[]);
        assert_eq!(service.state().await, SealState::Uninitialised.as_str_name(), "{steps}");
    }
    let mut shares = Vec::new();
    custody::open(&service.url, &service.folder, &mut shares).await;
    service.restart(&[]);
    assert_eq!(service.state().await, SealState::Sealed.as_str_name());
    custody::open(&service.url, &service.folder, &mut shares).await;
}

#[tokio::test]
async fn the_tool_tells_that_the_vault_is_sealed() {
    let service = Service::new();
    let told = service.tool("admin", &["seal", "status"]);
    assert_eq!(told.status.code(), Some(3), "{}", String::from_utf8_lossy(&told.stderr));
    assert!(String::from_utf8(told.stdout).unwrap().contains("UNINITIALISED"));
    let mut shares = Vec::new();
    custody::open(&service.url, &service.folder, &mut shares).await;
    let told = service.tool("admin", &["--output", "json", "seal", "status"]);
    assert_eq!(told.status.code(), Some(0));
    let status: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&status["state"], &status["kind"]), (&"OPEN".into(), &"SHAMIR".into()));
    assert_eq!(service.tool("admin", &["seal", "seal"]).status.code(), Some(0));
    let refused = service.tool("terminals", &["terminal", "list"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("VAULT_SEALED"));
    // A share is typed at a terminal alone, and printed to no file.
    let unseal = service.tool("admin", &["seal", "unseal"]);
    assert_eq!(unseal.status.code(), Some(1));
    let paper = service.folder.join("paper");
    fs::write(&paper, "").unwrap();
    let share = service.tool("admin", &["seal", "share", "--print-to", paper.to_str().unwrap()]);
    let said = String::from_utf8(share.stderr).unwrap();
    assert!(said.contains("never written to a file"), "{said}");
    assert_eq!(fs::read(&paper).unwrap(), b"");
}

#[tokio::test]
async fn a_configuration_that_says_who_else_keeps_the_master_key_is_refused() {
    let mut service = Service::new();
    custody::open(&service.url, &service.folder, &mut Vec::new()).await;
    service.process.kill();
    let file = service.folder.join("firstkeyd.toml");
    let table = "kind = \"pkcs11\"\nmodule = \"/bin/true\"\ntoken = \"t\"\npin_file = \"pin\"";
    let text = fs::read_to_string(&file).unwrap().replacen("kind = \"shamir\"", table, 1);
    fs::write(&file, text).unwrap();
    let command = ["serve", "--config", file.to_str().unwrap()];
    let told = Command::new(env!("CARGO_BIN_EXE_firstkeyd")).args(command).output().unwrap();
    assert_eq!(told.status.code(), Some(1));
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(told.contains("is kept by shamir, and [seal] says kind = \"pkcs11\""), "{told}");
}

const DAY: Duration = Duration::from_hours(24);

/// A clock that is so far behind the real one.
struct Behind(Duration);

impl Clock for Behind {
    #[allow(clippy::disallowed_methods, reason = "a program beside it has the real time")]
    fn now(&self) -> UnixMillis {
        let then = SystemTime::now().checked_sub(self.0).unwrap();
        let since = then.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        UnixMillis(since.as_millis().try_into().unwrap())
    }
}

/// Begins the store of a service as the service did so long ago, and stops.
async fn begun(folder: &Path, ago: Duration) -> Vec<Share> {
    let rng = Arc::new(SystemRng::new());
    let master = MasterKey::draw(&*rng).unwrap();
    let shares = master.expose_bytes(|secret| Share::split(secret, 2, 3, &*rng)).unwrap();
    let heading = shares[0].heading();
    let policy = fs::read_to_string(folder.join("policy.toml")).unwrap();
    let opener = Opener {
        store: Arc::new(SqliteStore::open(&folder.join("data/store")).unwrap()),
        realm: Realm::Live,
        clock: Arc::new(Behind(ago)),
        rng,
        node: "node-1".to_owned(),
        audit: AuditSettings::default(),
        first_policy: Some(toml::from_str::<Policy>(&policy).unwrap()),
    };
    let seal = Seal::Shamir { set_id: heading.set_id(), threshold: 2, shares: 3 };
    opener.begin(master, seal, &|_| Ok(())).await.unwrap().close().await;
    shares
}

#[tokio::test]
async fn a_clock_far_ahead_of_the_last_event_opens_nothing_until_somebody_says_that_it_is_right() {
    let folder = set_up();
    let mut shares = begun(&folder, 40 * DAY).await;
    let mut service = Service::serve(folder, &[]);
    for (number, share) in (2..).zip(&shares[1..]) {
        let own = custody::credentials(&service.folder, &format!("admin/custodian-{number}"));
        let client = Client::connect_with(&service.url, &own).await.unwrap();
        let given = ShareHolder::new(&client, &own, &SystemRng::new()).unwrap().give(share).await;
        assert_eq!(given.is_ok(), number == 2, "with the last one it is to open");
    }
    let status = service.status().await;
    assert_eq!(status.state().as_str_name(), SealState::Sealed.as_str_name());
    assert!(status.fault.contains("40 days ahead"), "{}", status.fault);
    assert!(status.fault.contains("--clock-is-right"), "{}", status.fault);
    // With the word of an operator it goes on, and needs none the next time.
    for arguments in [&["--clock-is-right"][..], &[]] {
        service.restart(arguments);
        custody::open(&service.url, &service.folder, &mut shares).await;
    }
}
