//! How every call ends: one line in the log, and an answer or a status for the caller.

use std::future::Future;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::admit::Admitted;
use super::proto;
use super::status::{from_error, to_refusal};
use crate::command::Error;
use crate::vault::{Caller, Reason, Vault};

/// Runs a command for the caller of a request, and ends the call.
///
/// A request that was not admitted came past the door, which can not happen; it is not served.
pub(super) async fn serve<Q, A, F>(
    method: &'static str,
    request: Request<Q>,
    command: impl FnOnce(Arc<Vault>, Caller, Q) -> F,
) -> Result<Response<A>, Status>
where
    F: Future<Output = Result<A, Error>>,
{
    let Some(Admitted { vault, caller, .. }) = request.extensions().get::<Admitted>().cloned()
    else {
        return Err(from_error(&Error::refused(Reason::PolicyDenied)));
    };
    let result = command(vault, caller.clone(), request.into_inner()).await;
    respond(method, &caller, result)
}

/// Ends a call: notes in the log who called what and how it ended, never with what content, and
/// translates the error for the caller.
pub(super) fn respond<A>(
    method: &'static str,
    caller: &Caller,
    result: Result<A, Error>,
) -> Result<Response<A>, Status> {
    let caller = caller.name();
    match result {
        Ok(answer) => {
            tracing::debug!(method, caller, "done");
            Ok(Response::new(answer))
        }
        Err(error) => {
            note(method, caller, &error);
            Err(from_error(&error))
        }
    }
}

/// Ends one entry of a batch that was refused, as [`respond`] ends a call.
pub(super) fn refused(method: &'static str, caller: &Caller, error: &Error) -> proto::Refusal {
    note(method, caller.name(), error);
    to_refusal(error)
}

/// What is ours to mend stands out; what the caller did is ordinary.
fn note(method: &'static str, caller: &str, error: &Error) {
    let reason = error.reason();
    let incident = error.metadata().into_iter().find(|(name, _)| *name == "incident");
    let incident = incident.map(|(_, id)| id);
    match reason {
        Reason::Internal | Reason::StoreUnavailable => {
            tracing::error!(method, caller, reason = reason.as_str(), incident, "failed");
        }
        _ => tracing::info!(method, caller, reason = reason.as_str(), "refused"),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn a_request_without_a_caller_is_not_served() {
        let answer = serve("GetKey", Request::new(()), |_, _, ()| async { Ok(()) }).await;
        assert_eq!(answer.unwrap_err().code(), Code::PermissionDenied);
    }
}
