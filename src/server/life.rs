//! What the audit log is told of a run: whom it believes, at its start and whenever that is read
//! again, and at last that it stopped. A run without an end was killed, or could write no more.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::HEXLOWER;

use super::tls::Tls;
use crate::grpc::DenyList;
use crate::vault::{Action, Caller, Error, Gate, Vault};

/// Tells that the settings were read again, and what is in force since: the SHA-256 of the text of
/// the deny list, and of the certificates of the authorities of each plane.
///
/// `failed` names what could not be read, and so stayed as it was; it is empty where all was.
pub async fn tell_reload(
    gate: &Gate,
    denied: &DenyList,
    tls: &[Arc<Tls>],
    failed: &str,
) -> Result<(), Error> {
    let vault = gate.enter()?;
    let mut work = vault.begin(&Caller::service(), Action::ReloadSettings, "").await?;
    for (name, value) in in_force(denied, tls) {
        work.detail(name, value);
    }
    if !failed.is_empty() {
        work.detail("failed", failed);
    }
    work.commit().await.map(|_| ())
}

/// Who is believed and who is shut out, in the words of the audit log.
pub(super) fn in_force<'a>(
    denied: &DenyList,
    tls: impl IntoIterator<Item = &'a Arc<Tls>>,
) -> BTreeMap<String, String> {
    let mut words = BTreeMap::from([("denied".to_owned(), HEXLOWER.encode(&denied.digest()))]);
    let mut each: Vec<_> = tls.into_iter().flat_map(|one| one.authorities()).collect();
    each.sort_unstable();
    // Listeners that carry the same plane believe the same.
    each.dedup();
    for (plane, fingerprint) in each {
        let all = words.entry(format!("authorities.{}", plane.as_str())).or_default();
        if !all.is_empty() {
            all.push(' ');
        }
        all.push_str(&HEXLOWER.encode(&fingerprint));
    }
    words
}

/// Tells that it stops, writes what is counted in memory, and signs the log.
pub(super) async fn tell_stop(vault: &Vault) -> Result<(), Error> {
    let work = vault.begin(&Caller::service(), Action::StopService, "").await?;
    let told = work.commit().await;
    vault.flush().await?;
    told.map(|_| ())
}
