//! A service in earnest: its files, its vault, its listeners, and what SIGHUP reads again.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use firstkey::command::seal::TokenAccess;
use firstkey::crypto::rng::SystemRng;
use firstkey::crypto::token::Token;
use firstkey::grpc::{Denied, DenyList};
use firstkey::server::{self, Listener, Material, Reload, Tls};
use firstkey::vault::store::{SqliteStore, Store};
use firstkey::vault::{
    AuditSettings, Custody, Gate, OpenError, Opener, Policy, PolicyInvalid, Realm,
};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use zeroize::Zeroizing;

use crate::config::{Live, SealKind, TokenFiles};
use crate::guard::{refuse_shared, refuse_writable};
use crate::shared::development::make_folder;
use crate::shared::{SystemClock, access};

/// Opens the store, which stays sealed: with an empty one, the first policy is what its master key
/// is made by.
pub(crate) async fn open_gate(
    data: &Path,
    live: &Live,
    audit: AuditSettings,
) -> anyhow::Result<Arc<Gate>> {
    let first_policy = live.policy.as_deref().map(read_policy).transpose()?;
    let path = data.join("store");
    match &first_policy {
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
    let store: Arc<dyn Store> = Arc::new(store);
    let custody = Custody::read(&*store).await.context("can not open the store")?;
    if let Some(Custody { seal, .. }) = &custody {
        ensure!(
            seal.as_str() == word(live.seal.kind),
            "the store's master key is kept by {}, and [seal] says kind = \"{}\": set it right",
            seal.as_str(),
            word(live.seal.kind)
        );
    } else {
        ensure!(first_policy.is_some(), "{}: policy = FILE", OpenError::NoPolicy);
        tracing::warn!("the store is empty: an officer makes its master key, firstkey seal init");
    }
    Ok(Gate::sealed(Opener {
        store,
        realm: Realm::Live,
        clock: Arc::new(SystemClock),
        rng: Arc::new(SystemRng::new()),
        node: live.node.clone(),
        audit,
        first_policy,
    }))
}

const fn word(kind: SealKind) -> &'static str {
    match kind {
        SealKind::Pkcs11 => "pkcs11",
        SealKind::Shamir => "shamir",
    }
}

/// The token that keeps the master key or is to keep it. Its library is code that runs in here, so
/// it is nobody's else to write.
pub(crate) fn open_token(live: &Live) -> anyhow::Result<Option<TokenAccess>> {
    let Some(TokenFiles { place, pin }) = live.seal.token()? else { return Ok(None) };
    refuse_writable(&place.module)?;
    ensure!(place.module.is_file(), "{} is not a file", place.module.display());
    let read = move || {
        let read = refuse_shared(&pin).and_then(|()| access::read(&pin));
        match read {
            Ok(octets) => Some(first_line(Zeroizing::new(octets))),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the PIN of the token can not be read");
                None
            }
        }
    };
    Ok(Some(TokenAccess::new(Token::new(place), Box::new(read))))
}

/// A line end after a PIN is not of it.
fn first_line(mut octets: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    let end = octets.iter().position(|octet| matches!(octet, b'\n' | b'\r'));
    let len = end.unwrap_or(octets.len());
    octets.truncate(len);
    octets
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
