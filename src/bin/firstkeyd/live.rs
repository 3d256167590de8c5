//! A service in earnest: its files, its vault, its listeners, and what SIGHUP reads again.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::{Denied, DenyList};
use firstkey::memory::{SecretPage, with_wiped_stack};
use firstkey::server::{self, Listener, Material, Reload, Tls};
use firstkey::vault::store::SqliteStore;
use firstkey::vault::{
    AuditSettings, Beginning, Gate, MasterKey, OpenError, Opening, Policy, PolicyInvalid, Realm,
    Seal, Vault,
};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use zeroize::Zeroizing;

use crate::config::Live;
use crate::guard::{refuse_shared, refuse_writable};
use crate::shared::development::make_folder;
use crate::shared::{SystemClock, access};

/// Opens the store under the master key, or begins an empty one with the first policy.
pub(crate) async fn open_vault(
    data: &Path,
    live: &Live,
    audit: AuditSettings,
) -> anyhow::Result<Arc<Vault>> {
    let master_key = read_master_key(&live.master_key)?;
    let policy = live.policy.as_deref().map(read_policy).transpose()?;
    let path = data.join("store");
    match &policy {
        Some(policy) => policy
            .check(Realm::Live)
            .map_err(PolicyInvalid::in_file)
            .context("can not put the policy in force")?,
        // Nothing is made that would not come to serve.
        None => ensure!(path.exists(), "{}: policy = FILE", OpenError::NoPolicy),
    }
    make_folder(data)?;
    let store = SqliteStore::open(&path)
        .with_context(|| format!("can not open the store below {}", data.display()))?;
    let opening = Opening {
        store: Arc::new(store),
        master_key,
        realm: Realm::Live,
        clock: Arc::new(SystemClock),
        rng: Arc::new(SystemRng::new()),
        node: live.node.clone(),
        audit,
    };
    let seal = Seal::Shamir { set_id: [0; 4], threshold: 2, shares: 2 };
    let beginning = Beginning { policy, seal };
    let vault = Vault::open_with(opening, beginning).await.context("can not open the vault")?;
    let vault = Arc::new(vault);
    if vault.verified().last == 0 {
        tracing::info!("the first policy is in force; from now on it changes by SetPolicy");
    }
    tracing::warn!(
        "the master key lies in a file: keep it from whoever may not open the store, and out of \
         the store's backups"
    );
    Ok(vault)
}

/// The listeners, and what can be read again for them.
pub(crate) struct Doors {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) denied: DenyList,
    pub(crate) tls: Vec<Arc<Tls>>,
}

/// Reads certificates and the deny list, and binds every listener.
pub(crate) async fn open_doors(live: &Live) -> anyhow::Result<Doors> {
    let denied = DenyList::default();
    denied.replace(read_denied(live)?);
    let material = read_material(live)?;
    let (mut listeners, mut addresses, mut tls) = (Vec::new(), Vec::new(), Vec::new());
    for (address, planes) in &live.listeners {
        let one = Tls::new(planes.clone(), &material, Arc::new(SystemClock))
            .with_context(|| format!("listener {address}"))?;
        let one = Arc::new(one);
        let socket = TcpListener::bind(address)
            .await
            .with_context(|| format!("can not serve on {address}"))?;
        addresses.push(socket.local_addr()?);
        listeners.push(Listener::tls(socket, Arc::clone(&one)));
        tls.push(one);
    }
    Ok(Doors { listeners, addresses, denied, tls })
}

/// Hears SIGHUP from now on.
pub(crate) fn hangup() -> anyhow::Result<Signal> {
    signal(SignalKind::hangup()).context("can not wait for SIGHUP")
}

/// Reads certificates, authorities and the deny list again at each SIGHUP, and puts them in force
/// with an event in the audit log. What is open stays open.
///
/// The deny list is one thing, certificates and authorities are another: where one of the two is
/// broken it stays as it was, and the other is taken. Whom to shut out waits for nothing.
pub(crate) fn reload_on(
    mut hangup: Signal,
    live: Live,
    gate: Arc<Gate>,
    denied: DenyList,
    tls: Vec<Arc<Tls>>,
) {
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let list = read_denied(&live).inspect_err(|error| {
                let error = format!("{error:#}");
                tracing::error!(error, "the deny list is not reloaded: it stays as it was");
            });
            let certificates =
                read_material(&live).and_then(|material| Ok(Tls::renew(&tls, &material)?));
            let certificates = certificates.inspect_err(|error| {
                let error = format!("{error:#}");
                tracing::error!(error, "certificates are not reloaded: they stay as they were");
            });
            let is_whole = list.is_ok() && certificates.is_ok();
            let read = Reload { denied: list.ok(), certificates: certificates.ok() };
            match server::reload(&gate, &denied, &tls, read).await {
                Ok(()) if is_whole => {
                    tracing::info!("reloaded certificates, authorities and the deny list");
                }
                Ok(()) => tracing::warn!("what is broken was left, the rest is in force"),
                Err(error) => tracing::error!(
                    %error,
                    "not reloaded, for it can not be audited: whom the files shut out is shut out, \
                     and nothing else changed"
                ),
            }
        }
    });
}

fn read_material(live: &Live) -> anyhow::Result<Material> {
    refuse_shared(&live.files.key)?;
    live.files.authorities.values().try_for_each(|path| refuse_writable(path))?;
    live.files.read()
}

fn read_denied(live: &Live) -> anyhow::Result<Denied> {
    let Some(path) = &live.denied else { return Ok(Denied::default()) };
    refuse_writable(path)?;
    let text = fs::read_to_string(path)
        .with_context(|| format!("can not read the deny list {}", path.display()))?;
    Denied::parse(&text).with_context(|| format!("in the deny list {}", path.display()))
}

fn read_policy(path: &Path) -> anyhow::Result<Policy> {
    refuse_writable(path)?;
    let text = fs::read_to_string(path)
        .with_context(|| format!("can not read the policy {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("in the policy {}", path.display()))
}

fn read_master_key(path: &Path) -> anyhow::Result<MasterKey> {
    refuse_shared(path)?;
    // The bytes are moved on their way into the page; where they were, nobody else wipes.
    with_wiped_stack(|| {
        let bytes = Zeroizing::new(access::read(path)?);
        let mut key = <[u8; 32]>::try_from(bytes.as_slice()).map(Zeroizing::new).map_err(|_| {
            anyhow::anyhow!("the master key {} is not a file of 32 bytes", path.display())
        })?;
        Ok(MasterKey::new(SecretPage::taken_from(&mut key)?))
    })
}
