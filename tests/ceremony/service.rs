//! A development service that tells people apart, and the tool beside its terminal.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::firstkeyd::Firstkeyd;

/// A running service, killed when the test ends.
pub(crate) struct Service {
    process: Firstkeyd,
    pub(crate) url: String,
    /// Its store and its certificates, and what the test writes; gone with the test.
    pub(crate) folder: PathBuf,
}

impl Service {
    pub(crate) fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("firstkey-test-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_firstkeyd"));
        command.args(["serve", "--dev", "--tls", "--listen", "127.0.0.1:0", "--data"]);
        command.arg(folder.join("data")).current_dir(env!("CARGO_MANIFEST_DIR"));
        let (process, address) = Firstkeyd::serving(&mut command);
        Self { process, url: format!("https://{address}"), folder }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Where a certificate of the admin plane lies.
    pub(crate) fn papers(&self, holder: &str) -> String {
        self.path(&format!("data/dev-tls/clients/admin/{holder}.crt"))
    }

    /// The flags of somebody.
    pub(crate) fn flags(&self, holder: &str) -> Vec<String> {
        let (certificate, key) = (self.papers(holder), self.papers(holder).replace(".crt", ".key"));
        let ca = self.path("data/dev-tls/authorities/server.crt");
        ["--server", &self.url, "--ca", &ca, "--cert", &certificate, "--key", &key]
            .map(str::to_owned)
            .to_vec()
    }

    /// Runs the tool as somebody, without a terminal.
    pub(crate) fn runs(&self, holder: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firstkey"));
        command.args(arguments).args(self.flags(holder));
        command.current_dir(&self.folder).output().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.process.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
