//! `firstkey audit prove` and `verify-proof`: a proof in a file, with the checkpoint it leads to.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use firstkey::grpc::client::{Client, ClientError};
use firstkey::grpc::proto;
use firstkey::vault::{Checkpoint, NoteError, VerifierKey};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::verify::{open_note, unsound};
use super::{signed_now, write_new};
use crate::cli::Output;
use crate::cli::audit::{Prove, To, VerifyProof};
use crate::connect::connect;
use crate::print;

/// A proof as it stands in a file.
#[derive(Serialize, Deserialize)]
#[serde(tag = "proof", rename_all = "snake_case", deny_unknown_fields)]
enum Proof {
    /// That an event is in the log.
    Inclusion {
        /// Its sequence, from 1: the index of the leaf is one less.
        sequence: u64,
        /// The event in its exact bytes: the leaf.
        event: String,
        /// The hashes in hexadecimals (RFC 6962, 2.1.1).
        hashes: Vec<String>,
        /// The signed note.
        checkpoint: String,
    },
    /// That the log begins with what it was.
    Consistency {
        /// How many events it had.
        size: u64,
        /// The hashes in hexadecimals (RFC 6962, 2.1.2).
        hashes: Vec<String>,
        /// The signed note of what it is.
        checkpoint: String,
    },
}

pub(super) async fn fetch(what: Prove) -> anyhow::Result<()> {
    let (proof, out) = match what {
        Prove::Inclusion { sequence, to: To { out, server } } => {
            let client = connect(&server).await?;
            (inclusion(&client, sequence).await?, out)
        }
        Prove::Consistency { size, to: To { out, server } } => {
            let client = connect(&server).await?;
            (consistency(&client, size).await?, out)
        }
    };
    let text = serde_json::to_string(&proof)?;
    if let Some(out) = out {
        return write_new(&out, &format!("{text}\n"));
    }
    print::line(&text);
    Ok(())
}

async fn inclusion(client: &Client, sequence: u64) -> anyhow::Result<Proof> {
    let (checkpoint, size) = signed(client).await?;
    let request = proto::ProveInclusionRequest { sequence, size };
    let proof = client.audit().prove_inclusion(request).await.map_err(ClientError::from)?;
    let request =
        proto::ListEventsRequest { page_size: 1, after: sequence - 1, ..Default::default() };
    let listed = client.audit().list_events(request).await.map_err(ClientError::from)?;
    let event = listed.into_inner().events.pop().context("there is no such event")?;
    Ok(Proof::Inclusion { sequence, event, hashes: to_hex(&proof.into_inner().hashes), checkpoint })
}

async fn consistency(client: &Client, size: u64) -> anyhow::Result<Proof> {
    let (checkpoint, second) = signed(client).await?;
    let request = proto::ProveConsistencyRequest { first: size, second };
    let proof = client.audit().prove_consistency(request).await.map_err(ClientError::from)?;
    Ok(Proof::Consistency { size, hashes: to_hex(&proof.into_inner().hashes), checkpoint })
}

/// A checkpoint of now, and its size.
async fn signed(client: &Client) -> anyhow::Result<(String, u64)> {
    let signed = signed_now(client).await?;
    let key = VerifierKey::parse(&signed.verifier_key)?;
    let size = Checkpoint::open(&signed.checkpoint, &key)?.root.size;
    Ok((signed.checkpoint, size))
}

pub(super) fn verify(arguments: &VerifyProof, output: Output) -> anyhow::Result<ExitCode> {
    let text = fs::read_to_string(&arguments.proof)
        .with_context(|| format!("can not read {}", arguments.proof.display()))?;
    let proof: Proof = serde_json::from_str(&text).context("this is no proof of this tool")?;
    match holds(&proof, arguments) {
        Ok(said) => {
            match output {
                Output::Table => print::line(&format!("verified: {said}")),
                Output::Json => print::line(&json!({ "verified": true }).to_string()),
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if error.is::<NoteError>() || error.is::<Unproven>() => {
            Ok(unsound(None, &error, output))
        }
        Err(error) => Err(error),
    }
}

/// The proof does not prove what it is said to.
#[derive(Debug, thiserror::Error)]
#[error("the proof does not hold")]
struct Unproven;

/// What a proof proves, in words.
fn holds(proof: &Proof, arguments: &VerifyProof) -> anyhow::Result<String> {
    let key = VerifierKey::parse(&arguments.key)?;
    let against = arguments.against.as_deref().map(|path| open_note(path, &key)).transpose()?;
    match proof {
        Proof::Inclusion { sequence, event, hashes, checkpoint } => {
            ensure!(against.is_none(), "--against is for proofs of consistency");
            let checkpoint = Checkpoint::open(checkpoint, &key)?;
            checkpoint.verify_event(*sequence, event, &from_hex(hashes)?).map_err(|_| Unproven)?;
            Ok(format!("event {sequence} is one of the {} that were signed", checkpoint.root.size))
        }
        Proof::Consistency { size, hashes, checkpoint } => {
            let Some(older) = against else { bail!("name the older checkpoint: --against FILE") };
            let newer = Checkpoint::open(checkpoint, &key)?;
            if older.root.size != *size {
                return Err(Unproven.into());
            }
            newer.verify_continues(&older, &from_hex(hashes)?).map_err(|_| Unproven)?;
            let (old, new) = (older.root.size, newer.root.size);
            Ok(format!("the {new} events begin with the {old} that were signed before"))
        }
    }
}

fn to_hex(hashes: &[Vec<u8>]) -> Vec<String> {
    hashes.iter().map(|hash| data_encoding::HEXLOWER.encode(hash)).collect()
}

fn from_hex(hashes: &[String]) -> anyhow::Result<Vec<[u8; 32]>> {
    let hash = |hash: &String| {
        let hash = data_encoding::HEXLOWER.decode(hash.as_bytes()).ok()?;
        <[u8; 32]>::try_from(hash).ok()
    };
    hashes.iter().map(hash).collect::<Option<_>>().context("this is no proof of this tool")
}
