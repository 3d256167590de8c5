//! `firstkey ceremony rehearse`: the same screens against a service that lives as long as the
//! rehearsal, and TEST on everything.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use firstkey::command::ceremony::plan::{Plan, Planned, Task};
use firstkey::crypto::certificate::authority::Authority;
use firstkey::crypto::certificate::{certificates_from_pem, key_from_pem};
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::Plane;
use firstkey::grpc::client::{CeremonyView, Client, ClientError, Credentials, request_id};
use firstkey::grpc::proto::ApproveRequest;
use firstkey::guide::{Setting, script};
use firstkey::server;
use firstkey::server::access::issue_client;
use firstkey::server::dev;
use firstkey::vault::{AuditSettings, Clock as _, Gate, Policy, Principal, Role, VerifierKey};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::hold::{create, hold, is_of_shares, printer, waits, warnings};
use super::terminal::ensure_there_is_one;
use super::{plan, rehearse_shares};
use crate::cli::ceremony::Rehearse;
use crate::dev::Data;
use crate::print;
use crate::shared::development::{self, Way, make_folder};
use crate::shared::{SystemClock, access};

/// How long calls in flight may take to end.
pub(super) const DRAIN: Duration = Duration::from_secs(5);

/// The folder of the certificates of those who take part, below the rehearsal's.
pub(super) const PEOPLE: &str = "people";

/// What is rehearsed where no plan is named: a base derivation key in three components.
const PLAN: &str = r#"
title = "base derivation key in three components"
custodians = [
    "spiffe://dev.firstkey.internal/custodian/custodian-1",
    "spiffe://dev.firstkey.internal/custodian/custodian-2",
    "spiffe://dev.firstkey.internal/custodian/custodian-3",
]
witness = "spiffe://dev.firstkey.internal/auditor/auditor-1"

[generate]
id = "rehearsed-bdk"
usage = "B0"
algorithm = "AES128"
key_set_id = "7E577E57"
"#;

pub(super) async fn run(mut arguments: Rehearse) -> anyhow::Result<ExitCode> {
    ensure_there_is_one()?;
    let planned = planned(arguments.file.as_deref())?;
    let data = Data::at(None)?;
    if arguments.room.printer.is_none() && arguments.room.print_to.is_none() {
        // Nothing on these slips is worth keeping from anybody.
        let slips = data.path().join("slips");
        make_folder(&slips)?;
        (arguments.room.print_to, arguments.room.force_file) = (Some(slips), true);
    }
    let printer = printer(&arguments.room, true)?;
    show_script(&planned, arguments.room.print_to.as_deref())?;

    if is_of_shares(&planned) {
        return rehearse_shares::run(&planned, arguments, &data, printer).await;
    }
    let passed = server::run_self_tests()?;
    let service = development::open(data.path(), &arguments.keys, AuditSettings::default()).await?;
    service.vault.install_policy(policy(&planned)).await?;
    let people = data.path().join(PEOPLE);
    certify(&planned, &service.access_folder, &people)?;
    let socket = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("https://{}", socket.local_addr()?);
    let settings = development::settings(&service, socket, Way::Tls, DRAIN).await?;
    let (end, ended) = oneshot::channel::<()>();
    let gate = Gate::open(Arc::clone(&service.vault));
    let serving = tokio::spawn(server::serve(gate, passed, settings, async {
        let _ = ended.await;
    }));

    let authority = access::read(&access::server_authority(&service.access_folder))?;
    let officers = Officers { url: &url, folder: &service.access_folder, authority: &authority };
    let (client, view) = officers.create(&planned).await?;
    let papers_of = |name: &str| {
        let place = position(&planned, name).map(|place| people.join(place));
        place.map(|stem| access::ending(&stem, "crt").display().to_string()).unwrap_or_default()
    };
    let rng = SystemRng::new();
    let setting = Setting {
        url: &url,
        authority: &authority,
        log_key: Some(VerifierKey::parse(&service.vault.checkpoint().await?.verifier_key)?),
        test: true,
        silence: arguments.room.silence,
        rng: &rng,
        warnings: warnings(&printer),
        papers_of: &papers_of,
    };
    let code = hold(&client, view, setting, printer, arguments.room.transcript).await;
    print::line("TEST: this was a rehearsal. Nothing of it is real, and its service is gone.");
    let _ = end.send(());
    serving.await.context("the service ended abnormally")??;
    code
}

/// The plan with TEST before its title: its digest is no plan's that is ever run in earnest.
fn planned(file: Option<&Path>) -> anyhow::Result<Planned> {
    let mut plan: Plan = match file {
        Some(file) => plan::read(file)?.plan().clone(),
        None => toml::from_str(PLAN)?,
    };
    plan.title = format!("TEST {}", plan.title).chars().take(80).collect();
    let planned = plan.check()?;
    ensure!(
        !matches!(planned.task(), Task::ReShare(_)),
        "another master key is not rehearsed: the first one is, whose table is the same"
    );
    Ok(planned)
}

fn show_script(planned: &Planned, slips: Option<&Path>) -> anyhow::Result<()> {
    print::line("TEST: a rehearsal. Nothing of it is real.\n");
    print::line(&script(planned));
    if let Some(slips) = slips {
        print::line(&format!("Slips are printed to {}", slips.display()));
    }
    print::line("Keep the digest at hand, and press Enter.");
    io::stdin().read_line(&mut String::new()).context("there is nobody")?;
    Ok(())
}

/// The development policy, and those who take part.
pub(super) fn policy(planned: &Planned) -> Policy {
    let mut policy = dev::policy();
    let plan = planned.plan();
    let custodians = plan.custodians.iter().map(|name| (name, Role::Custodian));
    for (name, role) in custodians.chain([(&plan.witness, Role::Auditor)]) {
        if policy.principals.iter().all(|known| known.name != *name) {
            let person = format!("rehearsal-{}", position(planned, name).unwrap_or_default());
            let name = name.clone();
            let (profiles, calls_per_minute_max) = (Vec::new(), 0);
            policy.principals.push(Principal {
                name,
                person,
                role,
                profiles,
                calls_per_minute_max,
            });
        }
    }
    policy
}

/// The file name of somebody's certificate: `custodian-2`, or `witness`.
pub(super) fn position(planned: &Planned, name: &str) -> Option<String> {
    let plan = planned.plan();
    let place = plan.custodians.iter().position(|custodian| custodian == name);
    let witness = (plan.witness == name).then(|| "witness".to_owned());
    place.map(|place| format!("custodian-{}", place + 1)).or(witness)
}

/// Makes a certificate for each who takes part.
pub(super) fn certify(
    planned: &Planned,
    access_folder: &Path,
    people: &Path,
) -> anyhow::Result<()> {
    make_folder(people)?;
    let read = |ending| {
        let stem = access_folder.join("authorities").join(Plane::Admin.as_str());
        access::read(&access::ending(&stem, ending))
    };
    let chain = certificates_from_pem(&read("crt")?)?;
    let root = chain.first().context("the authority of the admin plane")?;
    let key = key_from_pem(&Zeroizing::new(read("key")?))?;
    let authority = Authority::from_parts(root, &key)?;
    let validity = dev::validity(SystemClock.now().seconds());
    let plan = planned.plan();
    for name in plan.custodians.iter().chain([&plan.witness]) {
        let stem: PathBuf = people.join(position(planned, name).unwrap_or_default());
        access::write_issued(&stem, &issue_client(&authority, name, validity)?)?;
    }
    Ok(())
}

/// The officers of a rehearsal, whom the tool plays.
pub(super) struct Officers<'a> {
    pub(super) url: &'a str,
    pub(super) folder: &'a Path,
    pub(super) authority: &'a [u8],
}

impl Officers<'_> {
    /// One asks for the ceremony, the other approves it. Gives the first one's connection.
    async fn create(&self, planned: &Planned) -> anyhow::Result<(Client, CeremonyView)> {
        let (one, other) = (self.connect("officer-1").await?, self.connect("officer-2").await?);
        let refusal = match create(&one, planned, false).await {
            Ok(view) => return Ok((one, view)),
            Err(ClientError::Refused(refusal)) => refusal,
            Err(error) => return Err(error.into()),
        };
        let told = |name| refusal.told(name).unwrap_or_default().to_owned();
        let digest = data_encoding::HEXLOWER.decode(told("request_digest").as_bytes());
        ensure!(waits(&ClientError::Refused(refusal.clone())), "{refusal}");
        let request = ApproveRequest {
            request_id: request_id(),
            name: told("approval"),
            request_digest: digest.context("the digest of the request")?,
        };
        other.approvals().approve(request).await.map_err(ClientError::from)?;
        let view = create(&one, planned, false).await?;
        Ok((one, view))
    }

    pub(super) async fn connect(&self, name: &str) -> anyhow::Result<Client> {
        let stem = access::client(self.folder, Plane::Admin, name);
        let certificate = access::read(&access::ending(&stem, "crt"))?;
        let key = Zeroizing::new(access::read(&access::ending(&stem, "key"))?);
        let (authority, identity) = (self.authority.to_vec(), Some((certificate, key)));
        Ok(Client::connect_with(self.url, &Credentials { authority, identity }).await?)
    }
}
