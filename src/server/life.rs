//! Whom the service believes, read again while it runs: written down, then put in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::HEXLOWER;

use super::tls::{Renewal, Tls};
use crate::grpc::{AuthorityKeys, Denied, DenyList};
use crate::vault::{Action, Caller, Error, Gate, Phase, Reason};

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
/// in, and no certificate changes, without it. While the vault is sealed there is no log: whom the
/// service believes by then is told in it when the vault is opened.
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
    // Whoever opens the vault tells in the log whom it believes: that is known before or after.
    let _ = gate.changes().wait_for(|phase| !matches!(phase, Phase::Opening)).await;
    let vault = match gate.enter() {
        Ok(vault) => vault,
        Err(Error::Refused(Reason::VaultSealed)) => {
            put_in_force(denied, list, certificates);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
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
    put_in_force(denied, list, certificates);
    Ok(())
}

fn put_in_force(denied: &DenyList, list: Option<Denied>, certificates: Option<Renewal>) {
    if let Some(list) = list {
        denied.replace(list);
    }
    if let Some(renewal) = certificates {
        renewal.put_in_force();
    }
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
