//! Dual control: what officers may not do alone, and how others agree to it.
//!
//! ```text
//! ExportKey ->  marked? nobody has agreed: an approval is left behind   APPROVAL_REQUIRED
//! Approve   ->  another person, for the digest that was looked at
//! ExportKey ->  the same bytes of the same caller: judged again, done and consumed in one commit
//! ```

mod marks;

use serde::{Deserialize, Serialize};

use super::{
    Error, LOOKED_AT_MAX, Page, RequestId, audited, give_up, recall, refuse, remember, repeated,
    retrying,
};
use crate::vault::{
    self, Action, Approval, ApprovalState, Asked, Caller, NotTaken, Quorum, Reason, Record, Vault,
    Versioned, Work,
};

pub use self::marks::{MARKS, Mark, When, may_be_marked};
pub(super) use self::marks::{of_attributes, of_change, of_import, of_usage};

/// What is approved, as audit events and requesters are told it: in lower case hexadecimals.
const REQUEST_DIGEST: &str = "request_digest";

/// An approval, and what is judged of it when it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The approval.
    pub approval: Approval,
    /// Where it stands.
    pub state: ApprovalState,
    /// Which of its votes count: see [`Approval::counting`].
    pub counting: Vec<bool>,
    /// How many distinct persons have to approve.
    pub votes_required: u32,
}

impl Shown {
    fn now(approval: Approval, quorum: &Quorum) -> Self {
        let state = approval.state(quorum);
        let counting = approval.counting(quorum);
        let votes_required = approval.votes_required(quorum);
        Self { approval, state, counting, votes_required }
    }
}

/// Lets a call go on that nobody has to approve, or that was approved: the approval is consumed in
/// the commit of the call.
///
/// Else the call ends here without effect: `APPROVAL_REQUIRED` leaves an approval behind, the first
/// time, and `APPROVAL_STATE` says that the one of this request is closed. Called when all else was
/// found right, so that officers are asked for nothing that would be refused after all, and before
/// anything is made durable or shown.
pub(super) async fn require(
    vault: &Vault,
    mut work: Work,
    request: Option<&RequestId>,
    about: &[When],
) -> Result<Work, Error> {
    if !marks::is_marked(work.action(), about) {
        return Ok(work);
    }
    let quorum = vault.quorum().await?;
    if quorum.is_waived_for(work.caller()) {
        work.judged_by(&quorum);
        return Ok(work);
    }
    // What has no request, and so could not be repeated, is not done.
    let Some(request) = request else {
        return Err(refuse(work, Reason::ApprovalRequired).await);
    };
    let Some(found) = vault.approval_of(work.caller(), request.asked()).await? else {
        return Err(ask(vault, work, request.asked(), &quorum).await);
    };
    let approval = found.record.clone();
    work.detail("approval", resource(&approval.id));
    match approval.state(&quorum) {
        ApprovalState::Approved => {
            work.execute_approved(found, &quorum)?;
            Ok(work)
        }
        ApprovalState::Pending => Err(refuse(work, required(&approval, &quorum)).await),
        // It was done at the same time: tried again, the call finds its answer.
        ApprovalState::Executed if approval.is_answered(&quorum) => {
            Err(vault::Error::Conflict.into())
        }
        ApprovalState::Executed | ApprovalState::Expired | ApprovalState::Rejected => {
            Err(refuse(work, not_taken(&approval, NotTaken::Closed, &quorum)).await)
        }
    }
}

/// Leaves an approval behind; the refusal that tells of it is the same commit, and holds what the
/// call has found so far.
async fn ask(vault: &Vault, mut work: Work, asked: Asked<'_>, quorum: &Quorum) -> Error {
    let approval = match work.open_approval(vault, asked, quorum).await {
        Ok(approval) => approval,
        Err(error) => return give_up(work, error).await,
    };
    work.detail("approval", resource(&approval.id));
    work.detail(REQUEST_DIGEST, hex(&approval.digest));
    match work.commit_refused(Reason::ApprovalRequired).await {
        vault::Error::Refused(_) => required(&approval, quorum),
        worse => worse.into(),
    }
}

/// Returns an approval, and the serialized request that it is about.
pub async fn get_approval(
    vault: &Vault,
    caller: &Caller,
    id: &str,
) -> Result<(Shown, Vec<u8>), Error> {
    let shown = async {
        let approval = read(vault, id).await?.record;
        let request = vault.request_of(&approval).await?;
        Ok((Shown::now(approval, &vault.quorum().await?), request))
    };
    audited(vault, caller, Action::GetApproval, resource(id), shown).await
}

/// Lists approvals, the newest first, from the one after `after`; with a state only those in it.
///
/// A page can be shorter than asked for although there is another, as no call looks at more than
/// [`LOOKED_AT_MAX`].
pub async fn list_approvals(
    vault: &Vault,
    caller: &Caller,
    state: Option<ApprovalState>,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<Shown>, Error> {
    let page = async {
        let quorum = vault.quorum().await?;
        let found = vault.list::<Approval>(None, after, LOOKED_AT_MAX + 1).await?;
        let more = found.len() > LOOKED_AT_MAX;
        let (mut rows, mut last) = (Vec::new(), None);
        let mut looked_at = found.into_iter().take(LOOKED_AT_MAX);
        for one in looked_at.by_ref() {
            let shown = Shown::now(one.record, &quorum);
            last = Some(shown.approval.id());
            if state.is_none_or(|state| state == shown.state) {
                rows.push(shown);
            }
            if rows.len() == limit {
                break;
            }
        }
        let next = if more || looked_at.next().is_some() { last } else { None };
        Ok(Page { rows, next })
    };
    audited(vault, caller, Action::ListApprovals, "approvals", page).await
}

/// Approves what was asked, for an officer who looked at the bytes of this digest.
pub async fn approve(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    id: &str,
    digest: &[u8; 32],
) -> Result<Shown, Error> {
    let vote = |approval: &mut Approval, quorum: &Quorum| approval.vote(caller, digest, quorum);
    change(vault, (caller, Action::Approve), request, id, vote).await
}

/// Ends an approval without effect.
pub async fn reject(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    id: &str,
    cause: &str,
) -> Result<Shown, Error> {
    let end = |approval: &mut Approval, quorum: &Quorum| {
        approval.reject(caller, cause.to_owned(), quorum)
    };
    change(vault, (caller, Action::Reject), request, id, end).await
}

async fn change(
    vault: &Vault,
    (caller, action): (&Caller, Action),
    request: Option<&RequestId>,
    id: &str,
    change: impl Fn(&mut Approval, &Quorum) -> Result<(), NotTaken>,
) -> Result<Shown, Error> {
    retrying(|| async {
        let mut work = vault.begin(caller, action, resource(id)).await?;
        if let Some(answer) = recall(vault, caller, action, request).await? {
            return repeated(work, answer).await;
        }
        let mut found = match read(vault, id).await {
            Ok(found) => found,
            Err(error) => return Err(give_up(work, error).await),
        };
        let quorum = vault.quorum().await?;
        work.detail("method", found.record.method.clone());
        work.detail("about", found.record.resource.clone());
        work.detail(REQUEST_DIGEST, hex(&found.record.digest));
        if let Err(why) = change(&mut found.record, &quorum) {
            return Err(refuse(work, not_taken(&found.record, why, &quorum)).await);
        }
        work.judged_by(&quorum);
        work.put(&found)?;
        let shown = Shown::now(found.record, &quorum);
        remember(vault, &mut work, request, &shown).await?;
        work.commit().await?;
        Ok(shown)
    })
    .await
}

async fn read(vault: &Vault, id: &str) -> Result<Versioned<Approval>, Error> {
    let found = vault.get::<Approval>(id).await?;
    found.ok_or_else(|| Error::refused(Reason::ResourceNotFound))
}

fn hex(digest: &[u8; 32]) -> String {
    data_encoding::HEXLOWER.encode(digest)
}

/// The resource name of an approval.
fn resource(id: &str) -> String {
    format!("approvals/{id}")
}

/// What a requester is told whose call waits.
fn required(approval: &Approval, quorum: &Quorum) -> Error {
    let metadata = vec![
        ("approval", resource(&approval.id)),
        (REQUEST_DIGEST, hex(&approval.digest)),
        ("state", approval.state(quorum).as_str().to_owned()),
        ("votes", approval.approvers(quorum).len().to_string()),
        ("votes_required", approval.votes_required(quorum).to_string()),
    ];
    Error::Refused { reason: Reason::ApprovalRequired, metadata }
}

/// What somebody is told whose vote, rejection or repetition is not taken.
fn not_taken(approval: &Approval, why: NotTaken, quorum: &Quorum) -> Error {
    let remedy = match why {
        NotTaken::Closed => "make the call anew under another request_id",
        NotTaken::DigestDiffers => "look at the request again, and approve its own digest",
        NotTaken::NotAnOfficer => return Error::refused(Reason::PolicyDenied),
        NotTaken::OwnRequest => "another person has to approve",
        NotTaken::VotedAlready => "a further person has to approve, if votes are missing",
    };
    let metadata = vec![
        ("approval", resource(&approval.id)),
        ("state", approval.state(quorum).as_str().to_owned()),
        ("remedy", remedy.to_owned()),
    ];
    Error::Refused { reason: Reason::ApprovalState, metadata }
}
