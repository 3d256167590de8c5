//! The folders of a development service: its store, its keys, its authorities.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use firstkey::crypto::certificate::authority::Authority;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::{DenyList, Plane, Trust};
use firstkey::server::access::Access;
use firstkey::server::dev::{self, Keys, Pki};
use firstkey::server::{Limits, Listener, Operations, Settings, Tls};
use firstkey::vault::store::SqliteStore;
use firstkey::vault::{AuditSettings, Caller, Clock as _, Opening, Vault};
use tokio::net::TcpListener;

use super::{SystemClock, access};

/// Where the authorities of devices and of the service stand below the data folder.
pub(crate) const PKI: &str = "dev-pki";

/// Where the certificates of callers stand below the data folder.
const ACCESS: &str = "dev-tls";

/// The name of the one replica that a development service has.
const NODE: &str = "dev";

/// A development service, ready to be served.
pub(crate) struct Service {
    pub(crate) vault: Arc<Vault>,
    #[allow(dead_code, reason = "only the tool's own demonstration needs the authorities again")]
    pub(crate) pki: Pki,
    /// Where its certificates lie, laid out as [`access`] says.
    pub(crate) access_folder: PathBuf,
}

/// Opens the store, loads the development keys, makes the authorities or takes those there are.
pub(crate) async fn open(
    data: &Path,
    keys: &Path,
    audit: AuditSettings,
) -> anyhow::Result<Service> {
    let keys = read_keys(keys)?;
    make_folder(data)?;
    let pki = open_pki(&data.join(PKI))?;
    let access_folder = data.join(ACCESS);
    open_access(&access_folder)?;
    let store = SqliteStore::open(&data.join("store"))
        .with_context(|| format!("can not open the store below {}", data.display()))?;
    let opening = Opening {
        store: Arc::new(store),
        master_key: keys.seal()?,
        realm: dev::REALM,
        clock: Arc::new(SystemClock),
        rng: Arc::new(SystemRng::new()),
        node: NODE.to_owned(),
        audit,
    };
    let vault = Arc::new(Vault::open(opening).await.context("can not open the vault")?);
    dev::prepare(&vault, &keys, &pki).await.context("can not prepare for development")?;
    Ok(Service { vault, pki, access_folder })
}

/// How callers come in to a development service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Whoever is on this machine may do everything.
    PlainText,
    /// By TLS, with certificates for each role and the development policy.
    Tls,
}

/// How a development service is served.
pub(crate) async fn settings(
    service: &Service,
    socket: TcpListener,
    way: Way,
    drain: Duration,
) -> anyhow::Result<Settings> {
    let (listener, trust) = match way {
        Way::PlainText => {
            let trust = Trust::ForDevOnly(Caller::for_dev_only("dev"));
            (Listener::plain_for_dev_only(socket)?, trust)
        }
        Way::Tls => {
            service.vault.install_policy(dev::policy()).await?;
            let material = access::Files::below(&service.access_folder).read()?;
            let tls = Tls::new(Plane::ALL.to_vec(), &material, Arc::new(SystemClock))?;
            (Listener::tls(socket, Arc::new(tls)), Trust::Certificates(DenyList::default()))
        }
    };
    Ok(Settings {
        listeners: vec![listener],
        trust,
        reflection: true,
        drain,
        limits: Limits::default(),
        operations: Operations::default(),
        token: None,
    })
}

/// Makes the certificates of a development service at the first time: its own, and one for each
/// role and plane.
pub(crate) fn open_access(folder: &Path) -> anyhow::Result<()> {
    made_whole(folder, |beside| {
        let validity = dev::validity(SystemClock.now().seconds());
        let access = Access::generate("DEV-ONLY", validity)?;
        let hosts = ["localhost", "127.0.0.1"];
        let names = access::Names { hosts: &hosts, trust_domain: dev::TRUST_DOMAIN, validity };
        access::write(beside, &access, &names)
    })
}

/// Reads the file of development keys.
pub(crate) fn read_keys(folder: &Path) -> anyhow::Result<Keys> {
    let path = folder.join("keys.toml");
    let text = fs::read_to_string(&path).with_context(|| {
        format!(
            "can not read the development keys {}: start in the project's folder or name theirs",
            path.display()
        )
    })?;
    Ok(Keys::parse(&text)?)
}

/// The authorities of a development service, made at the first time.
pub(crate) fn open_pki(folder: &Path) -> anyhow::Result<Pki> {
    made_whole(folder, |beside| {
        let pki = Pki::generate(SystemClock.now().seconds())?;
        write_authority(beside, "acquirer", &pki.acquirer)?;
        write_authority(beside, "vendor", &pki.vendor)
    })?;
    read_pki(folder)
}

/// Makes a folder that is not there yet: beside its place, and moved there whole, so that an
/// interruption leaves all of it or nothing.
fn made_whole(folder: &Path, fill: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let beside = folder.with_extension("new");
    if beside.exists() {
        fs::remove_dir_all(&beside)?;
    }
    make_folder(&beside)?;
    fill(&beside)?;
    Ok(fs::rename(&beside, folder)?)
}

/// The authorities that stand in a folder.
pub(crate) fn read_pki(folder: &Path) -> anyhow::Result<Pki> {
    Ok(Pki {
        acquirer: read_authority(folder, "acquirer")?,
        vendor: read_authority(folder, "vendor")?,
    })
}

fn read_authority(folder: &Path, name: &str) -> anyhow::Result<Authority> {
    let read = |ending: &str| {
        let path = folder.join(format!("{name}.{ending}"));
        fs::read(&path).with_context(|| format!("can not read {}", path.display()))
    };
    Ok(Authority::from_parts(&read("crt")?, &read("key")?)?)
}

fn write_authority(folder: &Path, name: &str, authority: &Authority) -> anyhow::Result<()> {
    write_new(&folder.join(format!("{name}.crt")), authority.root_der())?;
    write_new(&folder.join(format!("{name}.key")), &authority.to_pkcs8())
}

/// Makes a folder that only its owner enters; one that is there must be a folder.
pub(crate) fn make_folder(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("can not make the folder {}", path.display()))?;
    ensure!(path.is_dir(), "{} is not a folder", path.display());
    Ok(())
}

/// Writes a file that must not be there yet, durable and for its owner alone.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("can not make {}", path.display()))?;
    file.write_all(bytes).and_then(|()| file.sync_all())?;
    Ok(())
}
