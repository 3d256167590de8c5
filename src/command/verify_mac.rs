//! Verifies the MAC of a message, under a static key or a transaction key.

use super::mac_policy::{Asked, MacWorkingKey};
use super::transaction_key::{Side, Wanted, named_terminal, resource_of, underivable};
use super::{Direction, Error, activation, give_up, retrying};
use crate::key::usage::Mac;
use crate::mac::{MacAlgorithm, VerifyMacError};
use crate::vault::{Action, Budget, Caller, Operation, Purpose, Reason, Vault, Work};

/// A MAC to be verified.
pub struct Request {
    /// The key.
    pub key: MacWorkingKey,
    /// The algorithm, with its padding.
    pub algorithm: MacAlgorithm,
    /// The message.
    pub message: Vec<u8>,
    /// The MAC, or its leftmost octets.
    pub mac: Vec<u8>,
    /// The id in `terminals/{id}`; none to find it by the KSN.
    pub terminal: Option<String>,
}

/// Verifies a MAC, or answers `MAC_MISMATCH`.
///
/// A counter is spent only when the MAC verifies, so a forged message burns nothing; each failure
/// is charged to the budget of the terminal, or of the caller and the key. The identical message
/// within five minutes is verified again; another one that verifies under the same counter is
/// `KSN_REPLAYED` and raises the clone alarm. The MAC of a response is the terminal's to verify:
/// for a terminal that is registered here it is refused with `KEY_USAGE_MISMATCH`.
pub async fn verify_mac(vault: &Vault, caller: &Caller, request: &Request) -> Result<(), Error> {
    retrying(|| async {
        let name = request.key.name(vault).await?;
        let resource = resource_of(name.as_deref());
        let mut work = vault.begin(caller, Action::VerifyMac, resource).await?;
        match check(vault, caller, &mut work, name.as_deref(), request).await {
            Ok(Verdict::Genuine) => {
                work.commit().await?;
                Ok(())
            }
            Ok(Verdict::Mismatch) => Err(work.commit_refused(Reason::MacMismatch).await.into()),
            Err(error) => Err(give_up(work, error).await),
        }
    })
    .await
}

enum Verdict {
    Genuine,
    Mismatch,
}

async fn check(
    vault: &Vault,
    caller: &Caller,
    work: &mut Work,
    name: Option<&str>,
    request: &Request,
) -> Result<Verdict, Error> {
    let Request { algorithm, message, mac, .. } = request;
    let asked = Asked { algorithm: *algorithm, message, len_bytes: mac.len(), len_path: "mac" };
    let terminal = request.terminal.as_deref();
    match &request.key {
        MacWorkingKey::Dukpt(key, direction) => {
            let side = verified_by(*direction);
            let key = Wanted { key, name, side, terminal }.find(vault, work).await?;
            asked.check(key.attributes(), key.algorithm())?;
            let terminal = key.terminal();
            reserve(work, caller, name, terminal.map(|found| found.id.as_str())).await?;
            let input = asked.input(vault, key.algorithm(), *direction);
            // Claimed before it is verified, so that what is long spent costs nothing. Spent only
            // if it verifies: the vault sees to that for requests.
            if side == Side::Host {
                key.claim(work, Purpose::MacRequest, &input).await?;
            }
            let (initial, kind) = key.derive()?;
            let derived = initial.mac_key(*direction, kind).map_err(underivable)?;
            let verdict = verdict(asked, derived.verify_mac(*algorithm, message, mac))?;
            if let Verdict::Mismatch = verdict {
                return Ok(verdict);
            }
            // A claim on a response is spent whatever comes of it, so it waits for the verdict.
            if side == Side::Terminal {
                key.claim(work, Purpose::MacResponse, &input).await?;
            }
            if let Some(terminal) = terminal.filter(|found| found.first_transaction.is_none()) {
                activation::first_transaction(vault, work, &terminal.id, "VerifyMac").await?;
            }
            Ok(verdict)
        }
        MacWorkingKey::Static(name) => {
            let terminal = named_terminal(vault, work, terminal).await?;
            let key = vault.key::<Mac>(name, Operation::VerifyMac).await?;
            work.uses(&key);
            asked.check_static(key.record())?;
            reserve(work, caller, Some(name), terminal.as_ref().map(|found| found.id.as_str()))
                .await?;
            verdict(asked, key.key().verify_mac(*algorithm, message, mac))
        }
    }
}

/// Whose part it is to verify a message in a direction.
const fn verified_by(direction: Direction) -> Side {
    match direction {
        Direction::Both | Direction::Request => Side::Host,
        Direction::Response => Side::Terminal,
    }
}

/// Reserves a place in the budget of failures: of the terminal, or of the caller and the key.
async fn reserve(
    work: &mut Work,
    caller: &Caller,
    key: Option<&str>,
    terminal: Option<&str>,
) -> Result<(), Error> {
    let caller = caller.name().as_bytes();
    let key = key.unwrap_or_default().as_bytes();
    let subject: &[&[u8]] = match terminal {
        Some(terminal) => &[b"terminal", terminal.as_bytes()],
        None => &[b"caller", caller, key],
    };
    Ok(work.reserve(Budget::Mac, subject).await?)
}

fn verdict(asked: Asked<'_>, outcome: Result<(), VerifyMacError>) -> Result<Verdict, Error> {
    match outcome {
        Ok(()) => Ok(Verdict::Genuine),
        Err(VerifyMacError::Arguments(error)) => Err(asked.refused(error)),
        Err(VerifyMacError::Mismatch(_)) => Ok(Verdict::Mismatch),
    }
}
