//! Looks at the status. It shows no secret, and is refused like any other call all the same: nobody
//! is answered of whom nothing is written down. What is wrong then tell `/readyz` and health.

use super::{Error, audited};
use crate::vault::{Action, Caller, Vault};

/// Notes who looks at the status of the service, or of its seal.
pub async fn look_at_status(vault: &Vault, caller: &Caller, action: Action) -> Result<(), Error> {
    audited(vault, caller, action, "", async { Ok(()) }).await
}
