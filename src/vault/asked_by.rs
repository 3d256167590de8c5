//! How many approvals wait for one requester: so many at once, that nobody buries what another asks
//! for, or fills the store with requests that nobody answers.

use serde::{Deserialize, Serialize};

use super::approval::{Approval, Quorum, WAIT_MS_MAX};
use super::caller::Caller;
use super::error::Error;
use super::record::{Kind, Record, Versioned};
use super::seal::HashPurpose;
use super::vault::Vault;

/// How many approvals of one requester may be open at once.
const OPEN_MAX: usize = 100;

/// What a requester has asked for. Those that are closed may still be among them: they are looked
/// for when there is no more room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedBy {
    requester: String,
    approvals: Vec<String>,
}

impl AskedBy {
    pub(super) fn add(&mut self, approval: &Approval) {
        self.approvals.push(approval.id.clone());
    }
}

impl Record for AskedBy {
    const KIND: Kind = Kind::new("asked_by");

    fn id(&self) -> String {
        self.requester.clone()
    }
}

/// Finds room for one more approval of a requester: those that are open, and fewer than
/// [`OPEN_MAX`], else `RATE_LIMITED` until the first of them ends by itself.
///
/// Put back with the new one in a commit, it lets no two calls take the same room.
pub(super) async fn room_for(
    vault: &Vault,
    requester: &Caller,
    quorum: &Quorum,
) -> Result<Versioned<AskedBy>, Error> {
    let requester = vault.keyed_hash(HashPurpose::Requester, &[requester.name().as_bytes()]);
    let requester = data_encoding::HEXLOWER.encode(&requester);
    let asked = vault.get::<AskedBy>(&requester).await?;
    let mut asked =
        asked.unwrap_or_else(|| Versioned::absent(AskedBy { requester, approvals: Vec::new() }));
    if asked.record.approvals.len() < OPEN_MAX {
        return Ok(asked);
    }
    let mut open = Vec::new();
    let mut ends = quorum.now.plus_ms(WAIT_MS_MAX);
    for id in &asked.record.approvals {
        let Some(found) = vault.get::<Approval>(id).await? else { continue };
        if !found.record.state(quorum).is_closed() {
            ends = ends.min(found.record.expires);
            open.push(found.record.id);
        }
    }
    if open.len() >= OPEN_MAX {
        return Err(Error::RateLimited { retry_after_ms: ends.since_ms(quorum.now) });
    }
    asked.record.approvals = open;
    Ok(asked)
}
