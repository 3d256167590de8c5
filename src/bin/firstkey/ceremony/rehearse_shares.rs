//! The rehearsal of a first master key: a service that begins empty and sealed, and lives as long
//! as the rehearsal. Once its master key is made it is sealed, and its custodians open it again.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use firstkey::command::ceremony::plan::Planned;
use firstkey::command::ceremony::record::CeremonyState;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::{Client, ClientError};
use firstkey::grpc::proto::SealRequest;
use firstkey::grpc::{DenyList, Plane, Trust};
use firstkey::guide::{Custodians, Setting};
use firstkey::server::{self, Limits, Listener, Operations, Settings, Tls};
use firstkey::vault::store::SqliteStore;
use firstkey::vault::{AuditSettings, Gate, Opener, Realm};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::hold::{create_of_shares, hold, stop_token, warnings};
use super::printer::Printer;
use super::rehearse::{DRAIN, Officers, PEOPLE, certify, policy, position};
use super::terminal::Terminal;
use crate::cli::ceremony::Rehearse;
use crate::dev::Data;
use crate::print;
use crate::shared::development::open_access;
use crate::shared::{SystemClock, access};

pub(super) async fn run(
    planned: &Planned,
    arguments: Rehearse,
    data: &Data,
    printer: Printer,
) -> anyhow::Result<ExitCode> {
    let passed = server::run_self_tests()?;
    let (folder, people) = (data.path().join("access"), data.path().join(PEOPLE));
    open_access(&folder)?;
    certify(planned, &folder, &people)?;
    let socket = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("https://{}", socket.local_addr()?);
    let (gate, settings) = (empty(planned, data.path())?, settings(&folder, socket)?);
    let (end, ended) = oneshot::channel::<()>();
    let serving = tokio::spawn(server::serve(gate, passed, settings, async {
        let _ = ended.await;
    }));

    let authority = access::read(&access::server_authority(&folder))?;
    let officers = Officers { url: &url, folder: &folder, authority: &authority };
    let client = officers.connect("officer-1").await?;
    let view = create_of_shares(&client, planned, false).await?;
    let name = view.name.clone();
    let papers_of = |name: &str| {
        let stem = position(planned, name).map(|place| people.join(place));
        stem.map(|stem| access::ending(&stem, "crt").display().to_string()).unwrap_or_default()
    };
    let rng = SystemRng::new();
    let warnings = warnings(&printer);
    let setting = |warnings| Setting {
        url: &url,
        authority: &authority,
        log_key: None,
        test: true,
        silence: arguments.room.silence,
        rng: &rng,
        warnings,
        papers_of: &papers_of,
    };
    let mut code = hold(&client, view, setting(warnings), printer, arguments.room.transcript).await;
    if is_closed(&client, &name).await {
        let opened = open_again(&client, setting(Vec::new()), &planned.plan().custodians).await;
        code = opened.map(|()| ExitCode::SUCCESS);
    }
    print::line("TEST: this was a rehearsal. Nothing of it is real, and its service is gone.");
    let _ = end.send(());
    serving.await.context("the service ended abnormally")??;
    code
}

async fn is_closed(client: &Client, name: &str) -> bool {
    let found = client.master_key_ceremony(name).await;
    found.is_ok_and(|view| view.is_some_and(|view| view.state == CeremonyState::Closed))
}

/// Seals the service, and has its custodians open it.
async fn open_again(client: &Client, setting: Setting<'_>, names: &[String]) -> anyhow::Result<()> {
    client.seals().seal(SealRequest {}).await.map_err(ClientError::from)?;
    let opened = {
        let mut terminal = Terminal::take(stop_token()?, Printer::none())?;
        Custodians::new(&mut terminal, setting).unseal(client, None, names).await
    };
    opened.context("the vault of the rehearsal is sealed")?;
    print::line("The vault was sealed, and its custodians have opened it again.");
    Ok(())
}

/// A store without a master key, as that of a live service is at first.
fn empty(planned: &Planned, data: &Path) -> anyhow::Result<Arc<Gate>> {
    let mut policy = policy(planned);
    // What is granted there is for keys that this service does not have.
    policy.grants.clear();
    Ok(Gate::sealed(Opener {
        store: Arc::new(SqliteStore::open(&data.join("store"))?),
        realm: Realm::Live,
        clock: Arc::new(SystemClock),
        rng: Arc::new(SystemRng::new()),
        node: "rehearsal".to_owned(),
        audit: AuditSettings::default(),
        first_policy: Some(policy),
    }))
}

fn settings(folder: &Path, socket: TcpListener) -> anyhow::Result<Settings> {
    let material = access::Files::below(folder).read()?;
    let tls = Tls::new(Plane::ALL.to_vec(), &material, Arc::new(SystemClock))?;
    Ok(Settings {
        listeners: vec![Listener::tls(socket, Arc::new(tls))],
        trust: Trust::Certificates(DenyList::default()),
        reflection: false,
        drain: DRAIN,
        limits: Limits::default(),
        operations: Operations::default(),
        token: None,
    })
}
