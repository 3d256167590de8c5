//! The service as a process of its own, which can be killed at any moment.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use firstkey::grpc::client::Client;

use crate::firstkeyd::Firstkeyd;

/// A running `firstkeyd`.
pub(crate) struct Service {
    process: Firstkeyd,
    url: String,
}

impl Service {
    /// Starts it over a folder and waits until it serves.
    pub(crate) fn start(data: &Path, address: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firstkeyd"));
        command
            .args(["serve", "--dev", "--dev-keys"])
            .arg(project().join("keys-dev"))
            .arg("--data")
            .arg(data)
            .args(["--listen", &format!("{address}:0")]);
        let (process, address) = Firstkeyd::serving(&mut command);
        Self { process, url: format!("http://{address}") }
    }

    /// A connection to it.
    pub(crate) async fn connect(&self) -> Client {
        Client::connect(&self.url).await.expect("a service that says so serves")
    }

    /// Kills it with SIGKILL, now.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills it with SIGKILL after a delay, from a thread of its own, whatever else goes on.
    pub(crate) fn kill_after(&self, delay: Duration) -> JoinHandle<()> {
        self.process.kill_after(delay)
    }
}

/// The project's folder.
pub(crate) fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
