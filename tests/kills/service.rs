//! The service as a process of its own, which can be killed at any moment.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use firstkey::grpc::client::Client;

/// How long a start may take before the test gives up.
const START_MAX: Duration = Duration::from_secs(30);

/// A running `firstkeyd`.
pub(crate) struct Service {
    child: Option<Child>,
    url: String,
}

impl Service {
    /// Starts it over a folder and waits until it serves.
    pub(crate) fn start(data: &Path, address: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_firstkeyd"))
            .args(["serve", "--dev", "--dev-keys"])
            .arg(project().join("keys-dev"))
            .arg("--data")
            .arg(data)
            .args(["--listen", &format!("{address}:0")])
            .stderr(Stdio::piped())
            .spawn()
            .expect("firstkeyd starts");
        let log = BufReader::new(child.stderr.take().expect("standard error is piped"));
        // Held from here on, so that it is killed however this function ends.
        let mut service = Self { child: Some(child), url: String::new() };
        let (sender, receiver) = mpsc::channel();
        // Reads on until the process is gone, so that it is never held up by a full pipe.
        thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                // Nobody listens any more once the address is known.
                let _ = sender.send(line);
            }
        });
        let mut said = Vec::new();
        loop {
            let Ok(line) = receiver.recv_timeout(START_MAX) else {
                panic!("firstkeyd did not come to serve:\n{}", said.join("\n"));
            };
            if let Some(address) = serving(&line) {
                service.url = format!("http://{address}");
                return service;
            }
            said.push(line);
        }
    }

    /// A connection to it.
    pub(crate) async fn connect(&self) -> Client {
        Client::connect(&self.url).await.expect("a service that says so serves")
    }

    /// Kills it with SIGKILL, now.
    pub(crate) fn kill(&mut self) {
        if let Some(child) = self.child.take() {
            kill(child);
        }
    }

    /// Kills it with SIGKILL after a delay, from a thread of its own, whatever else goes on.
    pub(crate) fn kill_after(&mut self, delay: Duration) -> thread::JoinHandle<()> {
        let child = self.child.take().expect("it runs");
        thread::spawn(move || {
            thread::sleep(delay);
            kill(child);
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The address in the line of the log that says that it serves.
fn serving(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let serves = line.get("message")?.as_str()? == "serving";
    serves.then(|| line["address"].as_str().map(str::to_owned)).flatten()
}

fn kill(mut child: Child) {
    child.kill().expect("a process of one's own can be killed");
    child.wait().expect("and is then gone");
}

/// The project's folder.
pub(crate) fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
