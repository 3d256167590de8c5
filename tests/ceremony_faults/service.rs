//! A development service that tells people apart, as a process that can be killed at any moment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use firstkey::crypto::certificate::key_from_pem;
use firstkey::crypto::ec::SigningKey;
use firstkey::grpc::client::{Client, Credentials};
use zeroize::Zeroizing;

use crate::firstkeyd::Firstkeyd;
use crate::memory::Memory;

/// A running service, killed when the test ends; its folder goes with it.
pub(crate) struct Service {
    pub(crate) folder: PathBuf,
    filter: &'static str,
    process: Firstkeyd,
    url: String,
    /// What it logged in the lives before this one.
    logged: String,
}

impl Service {
    /// Starts it, to log as much as this filter lets through.
    pub(crate) fn start(filter: &'static str) -> Self {
        let folder = std::env::temp_dir().join(format!("firstkey-test-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        Self::start_in(folder, filter)
    }

    /// The same in a folder that there is.
    pub(crate) fn start_in(folder: PathBuf, filter: &'static str) -> Self {
        let (process, url) = spawn(&folder, filter);
        Self { folder, filter, process, url, logged: String::new() }
    }

    pub(crate) fn restart(&mut self) {
        self.process.kill();
        self.logged += &self.process.logged();
        (self.process, self.url) = spawn(&self.folder, self.filter);
    }

    /// Kills it after so long, whatever else goes on.
    pub(crate) fn kill_after(&self, delay: Duration) -> JoinHandle<()> {
        self.process.kill_after(delay)
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory(self.id())
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Everything that it ever logged, over all its lives.
    pub(crate) fn logged(&self) -> String {
        format!("{}\n{}", self.logged, self.process.logged())
    }

    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.folder.join(path)).unwrap()
    }

    /// A connection of somebody, with the key of the certificate.
    pub(crate) async fn person(&self, who: &str) -> (Client, SigningKey) {
        let of = |ending| self.read(&format!("data/dev-tls/clients/admin/{who}.{ending}"));
        let key = Zeroizing::new(of("key"));
        let signer = SigningKey::from_pkcs8(&key_from_pem(&key).unwrap()).unwrap();
        let authority = self.read("data/dev-tls/authorities/server.crt");
        let own = Credentials { authority, identity: Some((of("crt"), key)) };
        (Client::connect_with(&self.url, &own).await.unwrap(), signer)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.process.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn spawn(folder: &Path, filter: &str) -> (Firstkeyd, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firstkeyd"));
    command
        .args(["serve", "--dev", "--tls", "--listen", "127.0.0.1:0", "--log", filter])
        // Little is kept on a disk that is small.
        .args(["--audit-reserve-mib", "8", "--data"])
        .arg(folder.join("data"))
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let (process, address) = Firstkeyd::serving(&mut command);
    (process, format!("https://{address}"))
}
