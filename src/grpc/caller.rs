//! Who calls: what the listener learnt of the peer becomes a `Caller`.

use tonic::Request;

use crate::command::Error;
use crate::vault::{Caller, Reason};

/// The caller that the listener put beside the request.
///
/// A request without one came past the listener's authentication, which can not happen; it is
/// refused and not served.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Error> {
    let caller = request.extensions().get::<Caller>();
    caller.cloned().ok_or_else(|| Error::refused(Reason::PolicyDenied))
}
