//! `firstkey seal`: how the vault is opened, sealed, and given a new master key.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::FileTypeExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use data_encoding::{HEXLOWER, HEXUPPER};
use firstkey::component::Share;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::{ClientError, ShareHolder, create_master_key};
use firstkey::grpc::proto::{
    AbandonMasterKeyRequest, SealKind, SealRequest, SealState, SealStatus, ShareKeepers, ShareSet,
    TokenState, UnsealRequest, create_master_key_request::Keepers,
};
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::{MakeKey, Output, Seal, Server, TakeShare};
use crate::connect::{connect, credentials};
use crate::{ceremony, exit, print};

pub(crate) async fn run(command: Seal, output: Output) -> anyhow::Result<ExitCode> {
    let status = match command {
        Seal::Status(server) => {
            let status = connect(&server).await?.seal_status().await?;
            tell(&status, output);
            let is_open = status.state() == SealState::Open;
            return Ok(if is_open { ExitCode::SUCCESS } else { ExitCode::from(exit::SEALED) });
        }
        Seal::Init(make) => {
            let status = connect(&make.server).await?.seal_status().await?;
            let is_empty = status.state() == SealState::Uninitialised;
            ensure!(
                is_empty,
                "the store has a master key; another takes its place by rekey-shares"
            );
            make_key(make).await?
        }
        Seal::RekeyShares(make) => make_key(make).await?,
        Seal::Share(take) => take_share(&take).await?,
        Seal::Unseal(server) => unseal(&server).await?,
        Seal::Seal(server) => {
            let answer = connect(&server).await?.seals().seal(SealRequest {}).await;
            answer.map_err(ClientError::from)?.into_inner().status.unwrap_or_default()
        }
        Seal::Abandon(server) => {
            let client = connect(&server).await?;
            let one = client.seal_status().await?.distribution;
            let one = one.context("no master key is being distributed")?;
            let request = AbandonMasterKeyRequest { distribution: one.id };
            let answer = client.seals().abandon_master_key(request).await;
            answer.map_err(ClientError::from)?.into_inner().status.unwrap_or_default()
        }
    };
    tell(&status, output);
    Ok(ExitCode::SUCCESS)
}

async fn make_key(make: MakeKey) -> anyhow::Result<SealStatus> {
    let client = connect(&make.server).await?;
    let keepers = match make.threshold {
        Some(threshold) => Keepers::Custodians(ShareKeepers { threshold, names: make.custodian }),
        None => Keepers::Token(true),
    };
    Ok(create_master_key(&client, keepers).await?)
}

async fn take_share(take: &TakeShare) -> anyhow::Result<SealStatus> {
    // Opened first: a share that can not be printed is not taken.
    let device = OpenOptions::new().write(true).open(&take.print_to);
    let mut device = device.with_context(|| format!("can not open {}", take.print_to.display()))?;
    let kind = device.metadata()?.file_type();
    ensure!(
        kind.is_char_device() || kind.is_fifo() || kind.is_socket(),
        "{} is no printer and no pipe: a share is never written to a file",
        take.print_to.display()
    );
    ceremony::ensure_terminal()?;
    let (client, rng) = (connect(&take.server).await?, SystemRng::new());
    let holder = ShareHolder::new(&client, &credentials(&take.server)?, &rng)?;
    let share = holder.take().await?;
    device.write_all(&slip(&share)).context("the share was not printed: abandon, begin anew")?;
    drop((share, device));
    ceremony::read_back(&client, &take.server, &holder).await?;
    Ok(client.seal_status().await?)
}

/// What a custodian keeps.
fn slip(share: &Share) -> Zeroizing<Vec<u8>> {
    let heading = share.heading();
    let mut slip = Zeroizing::new(Vec::with_capacity(SLIP_LEN_MAX));
    let mut line = |text: &[u8]| {
        slip.extend_from_slice(text);
        slip.push(b'\n');
    };
    let (index, shares) = (heading.index(), heading.shares());
    line(format!("firstkey: share {index} of {shares} of a master key").as_bytes());
    line(format!("any {} of them open the vault", heading.threshold()).as_bytes());
    line(format!("set {}", HEXUPPER.encode(&heading.set_id())).as_bytes());
    let rows = share.write();
    for row in rows.lines() {
        line(&Zeroizing::new(
            [format!("row {}  ", row.number).as_bytes(), row.text.as_bytes()].concat(),
        ));
    }
    line(b"keep it where nobody else comes; type it only at firstkey's hidden entry\x0C");
    slip
}

/// Octets of the longest slip: it is never moved while it is written.
const SLIP_LEN_MAX: usize = 1_024;

async fn unseal(server: &Server) -> anyhow::Result<SealStatus> {
    let client = connect(server).await?;
    let status = client.seal_status().await?;
    match status.kind() {
        SealKind::Pkcs11 => {
            let answer = client.seals().unseal(UnsealRequest::default()).await;
            Ok(answer.map_err(ClientError::from)?.into_inner().status.unwrap_or_default())
        }
        SealKind::Shamir => {
            ceremony::unseal(&client, server).await?;
            Ok(client.seal_status().await?)
        }
        SealKind::Dev | SealKind::Unspecified => bail!("there is nothing to unseal"),
    }
}

fn tell(status: &SealStatus, output: Output) {
    if output == Output::Json {
        print::line(&to_json(status).to_string());
        return;
    }
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![row("state", word(status.state().as_str_name(), "SEAL_STATE_"))];
    if status.kind() != SealKind::Unspecified {
        rows.push(row("kept by", word(status.kind().as_str_name(), "SEAL_KIND_")));
        rows.push(row("master key", status.generation.to_string()));
    }
    if let Some(set) = &status.share_set {
        let (threshold, shares) = (set.threshold, set.shares);
        rows.push(row(
            "shares",
            format!("{threshold} of {shares}, set {}", HEXUPPER.encode(&set.id)),
        ));
    }
    if let Some(attempt) = &status.attempt {
        rows.push(row(
            "given",
            format!("{} {}", attempt.given_by.len(), attempt.given_by.join(" ")),
        ));
        rows.push(row("failed before", attempt.failed_attempts.to_string()));
    }
    if status.token() != TokenState::Unspecified {
        rows.push(row("token", word(status.token().as_str_name(), "TOKEN_STATE_")));
    }
    for keeper in status.distribution.iter().flat_map(|one| &one.keepers) {
        let progress = match (keeper.taken, keeper.confirmed) {
            (_, true) => "has confirmed the share",
            (true, false) => "has taken the share, and is to read it back",
            (false, false) => "is to take the share: firstkey seal share",
        };
        rows.push(row("custodian", format!("{} {progress}", keeper.name)));
    }
    if let Some(rotation) = &status.rotation {
        let (from, to, done) =
            (rotation.from_generation, rotation.to_generation, rotation.rows_done);
        let left = rotation.rows_left;
        rows.push(row(
            "rotation",
            format!("from {from} to {to}: {done} records done, {left} left"),
        ));
    }
    if !status.fault.is_empty() {
        rows.push(row("fault", status.fault.clone()));
    }
    print::table(&rows);
}

/// A word of the protocol, less what all of them have in common.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

fn to_json(status: &SealStatus) -> serde_json::Value {
    let set = |set: &ShareSet| {
        let (threshold, shares) = (set.threshold, set.shares);
        json!({ "id": HEXLOWER.encode(&set.id), "threshold": threshold, "shares": shares })
    };
    let attempt = status.attempt.as_ref().map(|attempt| {
        json!({
            "id": HEXLOWER.encode(&attempt.id),
            "fingerprint": HEXLOWER.encode(&attempt.fingerprint),
            "given_by": attempt.given_by,
            "failed_attempts": attempt.failed_attempts,
        })
    });
    let distribution = status.distribution.as_ref().map(|one| {
        let keepers = one.keepers.iter().map(|keeper| {
            let (taken, confirmed) = (keeper.taken, keeper.confirmed);
            json!({ "name": keeper.name, "taken": taken, "confirmed": confirmed })
        });
        json!({
            "id": HEXLOWER.encode(&one.id),
            "fingerprint": HEXLOWER.encode(&one.fingerprint),
            "share_set": one.share_set.as_ref().map(set),
            "keepers": keepers.collect::<Vec<_>>(),
        })
    });
    let rotation = status.rotation.as_ref().map(|one| {
        let (from, to) = (one.from_generation, one.to_generation);
        json!({ "from": from, "to": to, "rows_done": one.rows_done, "rows_left": one.rows_left })
    });
    json!({
        "state": word(status.state().as_str_name(), "SEAL_STATE_"),
        "kind": word(status.kind().as_str_name(), "SEAL_KIND_"),
        "generation": status.generation,
        "share_set": status.share_set.as_ref().map(set),
        "attempt": attempt,
        "token": word(status.token().as_str_name(), "TOKEN_STATE_"),
        "distribution": distribution,
        "rotation": rotation,
        "fault": status.fault,
    })
}
