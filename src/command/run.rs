//! What the audit log is told of a run: that the service begins to serve, which program it is and
//! whom it believes, and at last that it stops. A run without an end was killed, or could write no
//! more.

use std::collections::BTreeMap;

use crate::vault::{Action, Caller, Error, Vault};

/// One run of the service.
pub struct Run {
    /// SHA-256 of the program file that runs.
    pub program_digest: Option<[u8; 32]>,
    /// Whom it believes at the moment.
    pub believed: Believed,
}

/// Who is believed and who is shut out, in the words of the audit log.
pub type Believed = Box<dyn Fn() -> BTreeMap<String, String> + Send + Sync>;

impl Run {
    /// Tells that it begins to serve, and that the self-tests passed before.
    pub async fn tell_start(&self, vault: &Vault) -> Result<(), Error> {
        let mut work = vault.begin(&Caller::service(), Action::StartService, "").await?;
        work.detail("version", env!("CARGO_PKG_VERSION"));
        work.detail("realm", vault.realm().as_str());
        work.detail("self_tests", "passed");
        if vault.has_begun_checkpoint() {
            work.detail("checkpoint", "begun anew");
        }
        if let Some(digest) = self.program_digest {
            work.detail("program", data_encoding::HEXLOWER.encode(&digest));
        }
        for (name, value) in (self.believed)() {
            work.detail(name, value);
        }
        work.commit().await.map(|_| ())
    }

    /// Tells that it stops, writes what is counted in memory, and signs the log.
    pub async fn tell_stop(&self, vault: &Vault) -> Result<(), Error> {
        let work = vault.begin(&Caller::service(), Action::StopService, "").await?;
        let told = work.commit().await;
        vault.flush().await?;
        told.map(|_| ())
    }
}
