//! The service as a process of its own over TLS, with short times so that a test sees them end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use firstkey::grpc::client::Credentials;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

use crate::firstkeyd::Firstkeyd;
use crate::wire::Target;

/// Limits with shorter times than where nobody sets them. Two numbers are a tenth of what they are
/// then: a program that is built for tests takes about ten times as long over a frame or a call.
const CONFIGURATION: &str = "
[limits.calls]
message_seconds = 2
unknown_per_minute = 120
[limits.connections]
step_seconds = 2
ping_seconds = 2
pong_seconds = 2
frames_per_second = 2000
";

/// The longest of these times, and what the machine may be late by.
pub(crate) const CUT_MAX: Duration = Duration::from_secs(8);

/// A running `firstkeyd`, over TLS with the certificates of development.
pub(crate) struct Service {
    process: Firstkeyd,
    folder: PathBuf,
    pub(crate) address: SocketAddr,
}

/// Where the certificates of development lie below the folder of the store.
const CERTIFICATES: &str = "data/dev-tls";

impl Service {
    /// Starts it and waits until it serves.
    pub(crate) fn start() -> Self {
        let name = format!("firstkey-limits-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a folder for the test");
        let configuration = folder.join("firstkeyd.toml");
        std::fs::write(&configuration, CONFIGURATION).expect("a configuration");
        let mut command = Command::new(env!("CARGO_BIN_EXE_firstkeyd"));
        command
            .args([
                "serve",
                "--dev",
                "--tls",
                "--listen",
                "127.0.0.1:0",
                "--log",
                "warn,firstkeyd=info",
            ])
            .args(["--dev-keys", concat!(env!("CARGO_MANIFEST_DIR"), "/keys-dev")])
            .arg("--config")
            .arg(&configuration)
            .arg("--data")
            .arg(folder.join("data"));
        let (process, address) = Firstkeyd::serving(&mut command);
        let address = address.parse().expect("an address and a port");
        Self { process, folder, address }
    }

    /// How the attackers know it, who have no certificate of their own.
    pub(crate) fn target(&self) -> Target {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(&self.read("authorities/server.crt"));
        roots.add(authority.expect("a certificate")).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Target { address: self.address, tls: Arc::new(config) }
    }

    /// How a backend knows it, and is known.
    pub(crate) fn credentials(&self) -> Credentials {
        let certificate = self.read("clients/data/backend-1.crt");
        let key = Zeroizing::new(self.read("clients/data/backend-1.key"));
        let authority = self.read("authorities/server.crt");
        Credentials { authority, identity: Some((certificate, key)) }
    }

    fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(CERTIFICATES).join(file)).expect("a file of certificates")
    }

    /// Whether the process still runs.
    pub(crate) fn runs(&self) -> bool {
        self.process.runs()
    }

    /// What it holds in memory now, and the most it ever held, in KiB.
    pub(crate) fn memory_kib(&self) -> (u64, u64) {
        let status = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(status).expect("it runs");
        let of = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("a line of it");
            line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.process.id());
        std::fs::read_dir(folder).expect("it runs").count()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.process.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
