//! What is said of a key as a whole: which version is its primary one, and its labels.

use std::collections::BTreeMap;

use super::record::{DescribedKey, KeyHead, KeyRecord};
use super::state::KeyState;
use super::{FIRST_VERSION, read_version};
use crate::vault::error::Error;
use crate::vault::reason::Reason;
use crate::vault::record::Versioned;
use crate::vault::work::Work;

impl Work {
    /// Makes a version the one that the name of its key means. It must be in use, and its time have
    /// come and not gone, else `KEY_NOT_ACTIVE`.
    pub async fn set_primary_version(
        &mut self,
        name: &str,
        version: u32,
    ) -> Result<DescribedKey, Error> {
        let found = read_version(self.core(), name, version).await?;
        self.uses_record(&found);
        let is_usable = found.record.state == KeyState::Active
            && found.record.is_in_originator_period(self.now());
        if !is_usable {
            return Err(Error::Refused(Reason::KeyNotActive));
        }
        let head = self.change_head(name, |head| head.primary = version).await?;
        Ok(found.record.described(head))
    }

    /// Replaces the labels of a key. The answer describes its primary version.
    pub async fn set_labels(
        &mut self,
        name: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<DescribedKey, Error> {
        let head = self.change_head(name, |head| head.labels = labels).await?;
        let primary = read_version(self.core(), name, head.primary).await?;
        Ok(primary.record.described(head))
    }

    async fn change_head(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut KeyHead),
    ) -> Result<KeyHead, Error> {
        let mut first: Versioned<KeyRecord> =
            read_version(self.core(), name, FIRST_VERSION).await?;
        let mut head = first.record.head()?.clone();
        self.detail("primary_before", head.primary.to_string());
        change(&mut head);
        self.detail("primary", head.primary.to_string());
        first.record.head = Some(head.clone());
        self.put(&first)?;
        Ok(head)
    }
}
