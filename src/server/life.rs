//! The last thing that the audit log is told of a run: that it stopped. A run without an end was
//! killed, or could not write any more.

use crate::vault::{Action, Caller, Error, Vault};

/// Tells that it stops, writes what is counted in memory, and signs the log.
pub(super) async fn tell_stop(vault: &Vault) -> Result<(), Error> {
    let work = vault.begin(&Caller::service(), Action::StopService, "").await?;
    let told = work.commit().await;
    vault.flush().await?;
    told.map(|_| ())
}
