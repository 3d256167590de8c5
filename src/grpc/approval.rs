//! `ApprovalService`: dual control, for officers.

use tonic::{Request, Response, Status};

use super::convert::{self, resource, timestamp};
use super::paging::{Pages, page_size};
use super::proto::approval_service_server::ApprovalService;
use super::proto::{self};
use super::respond::serve;
use crate::command::Error;
use crate::command::approvals::{self, Shown};
use crate::vault::{Action, ApprovalState, Ending};

/// The longest stated cause, in characters.
const CAUSE_LEN_MAX: usize = 200;

/// The service.
pub(super) struct ApprovalApi;

#[tonic::async_trait]
impl ApprovalService for ApprovalApi {
    async fn get_approval(
        &self,
        request: Request<proto::GetApprovalRequest>,
    ) -> Result<Response<proto::GetApprovalResponse>, Status> {
        serve("GetApproval", request, async |vault, caller, body| {
            let id = resource("name", "approvals", &body.name)?;
            let (found, request) = approvals::get_approval(&vault, &caller, &id).await?;
            let approval = Some(proto::Approval { request, ..from_shown(found) });
            Ok(proto::GetApprovalResponse { approval })
        })
        .await
    }

    async fn list_approvals(
        &self,
        request: Request<proto::ListApprovalsRequest>,
    ) -> Result<Response<proto::ListApprovalsResponse>, Status> {
        serve("ListApprovals", request, async |vault, caller, body| {
            let limit = page_size(body.page_size)?;
            let pages = Pages { vault: &vault, caller: &caller, action: Action::ListApprovals };
            let after = pages.after(&body.page_token)?;
            let state = to_state(body.state)?;
            let page =
                approvals::list_approvals(&vault, &caller, state, after.as_deref(), limit).await?;
            Ok(proto::ListApprovalsResponse {
                approvals: page.rows.into_iter().map(from_shown).collect(),
                next_page_token: pages.next(page.next.as_deref())?,
            })
        })
        .await
    }

    async fn approve(
        &self,
        request: Request<proto::ApproveRequest>,
    ) -> Result<Response<proto::ApproveResponse>, Status> {
        serve("Approve", request, async |vault, caller, body| {
            let request = convert::request_id("Approve", &body.request_id, &body)?;
            let id = resource("name", "approvals", &body.name)?;
            let digest = convert::array::<32>("request_digest", &body.request_digest)?;
            let request = Some(&request);
            let voted = approvals::approve(&vault, &caller, request, &id, &digest).await?;
            Ok(proto::ApproveResponse { approval: Some(from_shown(voted)) })
        })
        .await
    }

    async fn reject(
        &self,
        request: Request<proto::RejectRequest>,
    ) -> Result<Response<proto::RejectResponse>, Status> {
        serve("Reject", request, async |vault, caller, body| {
            let request = convert::request_id("Reject", &body.request_id, &body)?;
            let id = resource("name", "approvals", &body.name)?;
            let cause = convert::text("cause", &body.cause, 1..=CAUSE_LEN_MAX)?;
            let request = Some(&request);
            let ended = approvals::reject(&vault, &caller, request, &id, &cause).await?;
            Ok(proto::RejectResponse { approval: Some(from_shown(ended)) })
        })
        .await
    }
}

fn to_state(state: i32) -> Result<Option<ApprovalState>, Error> {
    let asked = convert::optional::<proto::ApprovalState>("state", state)?;
    Ok(asked.and_then(|word| ApprovalState::ALL.into_iter().find(|one| from_state(*one) == word)))
}

const fn from_state(state: ApprovalState) -> proto::ApprovalState {
    match state {
        ApprovalState::Approved => proto::ApprovalState::Approved,
        ApprovalState::Executed => proto::ApprovalState::Executed,
        ApprovalState::Expired => proto::ApprovalState::Expired,
        ApprovalState::Pending => proto::ApprovalState::Pending,
        ApprovalState::Rejected => proto::ApprovalState::Rejected,
    }
}

/// An approval without its request, which stands in the answer of `GetApproval` alone.
fn from_shown(shown: Shown) -> proto::Approval {
    let Shown { approval, state, counting, votes_required } = shown;
    let (rejected_by, cause) = match approval.ending {
        Some(Ending::Rejected { by, cause }) => (by, cause),
        Some(Ending::Executed { .. }) | None => (String::new(), String::new()),
    };
    let votes =
        approval.votes.into_iter().zip(counting).map(|(vote, counts)| proto::ApprovalVote {
            counts,
            person: vote.person,
            caller: vote.caller,
            vote_time: Some(timestamp(vote.time.0)),
        });
    proto::Approval {
        name: format!("approvals/{}", approval.id),
        state: from_state(state).into(),
        method: approval.method,
        resource: approval.resource,
        request: Vec::new(),
        request_digest: approval.digest.to_vec(),
        requester: approval.requester,
        requester_person: approval.requester_person,
        votes: votes.collect(),
        votes_required,
        create_time: Some(timestamp(approval.created.0)),
        expire_time: Some(timestamp(approval.expires.0)),
        rejected_by,
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_of_the_service_names_each_marked_call() {
        let text = include_str!("../../proto/firstkey/v1/approval_service.proto");
        let (comment, _) = text.split_once("service ApprovalService").unwrap();
        for mark in approvals::MARKS {
            assert!(comment.contains(mark.action.as_str()), "{mark:?}");
        }
    }

    #[test]
    fn each_state_goes_there_and_back() {
        for state in ApprovalState::ALL {
            let word = from_state(state);
            assert_eq!(to_state(word.into()).unwrap(), Some(state));
            assert!(word.as_str_name().ends_with(state.as_str()));
        }
        assert_eq!(to_state(0).unwrap(), None);
        assert!(to_state(99).is_err());
    }
}
