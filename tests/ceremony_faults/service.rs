//! A development service that tells people apart, as a process that can be killed at any moment.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use firstkey::crypto::certificate::key_from_pem;
use firstkey::crypto::ec::SigningKey;
use firstkey::grpc::client::{Client, Credentials};
use zeroize::Zeroizing;

use crate::memory::Memory;

/// A running service, killed when the test ends; its folder goes with it.
pub(crate) struct Service {
    pub(crate) folder: PathBuf,
    filter: &'static str,
    child: Arc<Mutex<Child>>,
    url: String,
    /// Everything that it ever logged, over all its lives.
    log: Arc<Mutex<Vec<String>>>,
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
        let log = Arc::default();
        let (child, url) = spawn(&folder, filter, &log);
        Self { folder, filter, child, url, log }
    }

    pub(crate) fn restart(&mut self) {
        kill(&self.child);
        (self.child, self.url) = spawn(&self.folder, self.filter, &self.log);
    }

    /// Kills it after so long, whatever else goes on.
    pub(crate) fn kill_after(&self, delay: Duration) -> JoinHandle<()> {
        let child = Arc::clone(&self.child);
        std::thread::spawn(move || {
            std::thread::sleep(delay);
            kill(&child);
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory(self.id())
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn logged(&self) -> String {
        self.log.lock().unwrap().join("\n")
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
        kill(&self.child);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn kill(child: &Mutex<Child>) {
    let mut child = child.lock().unwrap();
    // A service that was killed before is as gone.
    let _ = child.kill();
    let _ = child.wait();
}

fn spawn(
    folder: &Path,
    filter: &str,
    log: &Arc<Mutex<Vec<String>>>,
) -> (Arc<Mutex<Child>>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_firstkeyd"))
        .args(["serve", "--dev", "--tls", "--listen", "127.0.0.1:0", "--log", filter])
        // Little is kept on a disk that is small.
        .args(["--audit-reserve-mib", "8", "--data"])
        .arg(folder.join("data"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let (sender, serving) = std::sync::mpsc::channel();
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        for line in lines {
            let entry = serde_json::from_str::<serde_json::Value>(&line).unwrap_or_default();
            if let Some(address) =
                entry["address"].as_str().filter(|_| entry["message"] == "serving")
            {
                // Nobody listens any more where it was killed at once.
                let _ = sender.send(format!("https://{address}"));
            }
            log.lock().unwrap().push(line);
        }
    });
    let url = serving.recv_timeout(Duration::from_mins(1)).expect("it serves");
    (Arc::new(Mutex::new(child)), url)
}
