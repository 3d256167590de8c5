//! Reads keys: one, its versions, or a page of those that a filter wants.

use std::collections::BTreeMap;

use super::manage_keys::resource;
use super::{Error, Filling, Page, Scan, audited};
use crate::key::Algorithm;
use crate::vault::{
    Action, Caller, DescribedKey, DestructionCertificate, KeyHead, KeyRecord, KeyState, KeyUsage,
    Origin, Record as _, Vault,
};

/// Which keys are listed: those of which all that is said here holds; nothing said for all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this state.
    pub state: Option<KeyState>,
    /// Of this usage.
    pub usage: Option<KeyUsage>,
    /// Of this algorithm and length.
    pub algorithm: Option<Algorithm>,
    /// Which came to be here so.
    pub origin: Option<Origin>,
    /// Whose check value begins so, in upper case hexadecimals.
    pub check_value: String,
    /// With this key set id, in upper case hexadecimals.
    pub key_set_id: Option<String>,
    /// With all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Exposed by this compromised version of a key, less the `keys/` before it.
    pub compromised_through: Option<String>,
    /// Whether each version is a row of its own; else the primary versions are the rows.
    pub every_version: bool,
}

impl Filter {
    fn wants(&self, key: &KeyRecord, head: &KeyHead) -> bool {
        let mut labels = self.labels.iter();
        (self.every_version || key.version == head.primary)
            && self.state.is_none_or(|state| key.state == state)
            && self.usage.is_none_or(|usage| key.usage == usage)
            && self.algorithm.is_none_or(|algorithm| key.algorithm == algorithm)
            && self.origin.is_none_or(|origin| key.origin == origin)
            && key.check_value.starts_with(&self.check_value)
            && self
                .key_set_id
                .as_ref()
                .is_none_or(|id| key.attributes.key_set_id.as_ref() == Some(id))
            && labels.all(|(name, value)| head.labels.get(name) == Some(value))
            && self
                .compromised_through
                .as_ref()
                .is_none_or(|root| key.compromised_through.contains(root))
    }
}

/// Returns a key, or a version of it.
pub async fn get_key(vault: &Vault, caller: &Caller, id: &str) -> Result<DescribedKey, Error> {
    let found = async { Ok(vault.described_key(id).await?) };
    audited(vault, caller, Action::GetKey, resource(id), found).await
}

/// Returns the certificate of a key's destruction, or of that of a version.
pub async fn get_destruction_certificate(
    vault: &Vault,
    caller: &Caller,
    id: &str,
) -> Result<DestructionCertificate, Error> {
    let written = async { Ok(vault.destruction_certificate(id).await?) };
    audited(vault, caller, Action::GetDestructionCertificate, resource(id), written).await
}

/// Lists keys in the order of their names, and of their versions, from the one after `after`.
///
/// A page can be shorter than asked for although there is another, as no call looks at more than
/// [`super::LOOKED_AT_MAX`] versions.
pub async fn list_keys(
    vault: &Vault,
    caller: &Caller,
    filter: &Filter,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<DescribedKey>, Error> {
    // On the heap: what it holds while it reads is too much for every call's own state.
    let page = Box::pin(page_of(vault, filter, after, limit));
    audited(vault, caller, Action::ListKeys, "keys", page).await
}

/// Lists the versions of a key in their order, from the one after the number `after`.
pub async fn list_key_versions(
    vault: &Vault,
    caller: &Caller,
    id: &str,
    after: Option<u32>,
    limit: usize,
) -> Result<Page<DescribedKey>, Error> {
    let page = async {
        let head = vault.key_head(id).await?;
        let mut rows = Vec::new();
        let first = after.unwrap_or(0).saturating_add(1);
        for version in (first..=head.latest).take(limit) {
            let found = vault.key_record(&format!("{id}/versions/{version}")).await?;
            rows.push(found.record.described(head.clone()));
        }
        let last = rows.last().map(|last| last.record.version);
        let next = last.filter(|last| *last < head.latest).map(|last| last.to_string());
        Ok(Page { rows, next })
    };
    audited(vault, caller, Action::ListKeyVersions, resource(id), page).await
}

async fn page_of(
    vault: &Vault,
    filter: &Filter,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<DescribedKey>, Error> {
    let mut keys = Scan::<KeyRecord>::new(vault, None, after);
    let mut page = Filling::new(limit);
    let mut of: Option<(String, KeyHead)> = None;
    while let Some(key) = keys.next().await? {
        let head = match of.take() {
            Some((name, head)) if name == key.name => head,
            Some(_) | None => vault.key_head(&key.name).await?,
        };
        let wanted = filter.wants(&key, &head);
        of = Some((key.name.clone(), head.clone()));
        if wanted && !page.takes(key.id(), key.described(head)) {
            return Ok(page.full());
        }
    }
    Ok(page.end(keys.rest()))
}
