//! What the audit log is told of a run: whom it believes, at its start and whenever that is read
//! again, and at last that it stopped. A run without an end was killed, or could write no more.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::HEXLOWER;

use super::tls::{Renewal, Tls};
use crate::grpc::{AuthorityKeys, Denied, DenyList};
use crate::vault::{Action, Caller, Error, Gate, Vault};

/// What was read again; nothing where it is broken, and so stays as it was.
pub struct Reload {
    /// The deny list.
    pub denied: Option<Denied>,
    /// Certificates and authorities.
    pub certificates: Option<Renewal>,
}

/// Puts in force what was read again, once it is written down: the SHA-256 of the text of the deny
/// list, and of the certificates of the authorities of each plane.
///
/// Whom the new settings shut out is shut out at once, whatever becomes of the event. Nobody is let
/// in, and no certificate changes, without it.
pub async fn reload(
    gate: &Gate,
    denied: &DenyList,
    tls: &[Arc<Tls>],
    read: Reload,
) -> Result<(), Error> {
    let Reload { denied: list, certificates } = read;
    if let Some(list) = &list {
        denied.add(list);
    }
    if let Some(renewal) = &certificates {
        renewal.shut_out();
    }
    let vault = gate.enter()?;
    let mut work = vault.begin(&Caller::service(), Action::ReloadSettings, "").await?;
    let digest = list.as_ref().map_or_else(|| denied.digest(), Denied::digest);
    let authorities =
        certificates.as_ref().map_or_else(|| authorities_of(tls), Renewal::authorities);
    for (name, value) in in_force(digest, &authorities) {
        work.detail(name, value);
    }
    let broken = [("denied", list.is_none()), ("certificates", certificates.is_none())];
    let broken: Vec<_> =
        broken.iter().filter(|(_, is_broken)| *is_broken).map(|(name, _)| *name).collect();
    if !broken.is_empty() {
        work.detail("failed", broken.join(" "));
    }
    work.commit().await?;
    if let Some(list) = list {
        denied.replace(list);
    }
    if let Some(renewal) = certificates {
        renewal.put_in_force();
    }
    Ok(())
}

/// The authorities in force on some listeners.
pub(super) fn authorities_of<'a>(tls: impl IntoIterator<Item = &'a Arc<Tls>>) -> AuthorityKeys {
    // Listeners that carry the same plane believe the same.
    tls.into_iter().flat_map(|one| one.authorities()).collect()
}

/// Who is believed and who is shut out, in the words of the audit log.
pub(super) fn in_force(denied: [u8; 32], authorities: &AuthorityKeys) -> BTreeMap<String, String> {
    let mut words = BTreeMap::from([("denied".to_owned(), HEXLOWER.encode(&denied))]);
    for (plane, fingerprint) in authorities {
        let all = words.entry(format!("authorities.{}", plane.as_str())).or_default();
        if !all.is_empty() {
            all.push(' ');
        }
        all.push_str(&HEXLOWER.encode(fingerprint));
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
