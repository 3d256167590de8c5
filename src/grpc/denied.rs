//! The deny list: certificates and names that are shut out although they verify.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use super::peer::Identity;
use crate::crypto::certificate::is_uri_name;
use crate::crypto::digest::sha256;

/// Who is shut out, asked at each call; it can change at any time.
#[derive(Clone, Debug, Default)]
pub struct DenyList(Arc<RwLock<Denied>>);

/// What a deny list holds, read from text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    entries: BTreeSet<String>,
    /// SHA-256 of the text.
    digest: [u8; 32],
}

impl Denied {
    /// SHA-256 of the text.
    #[must_use]
    pub const fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl Default for Denied {
    /// Nobody, as an empty text has it.
    fn default() -> Self {
        Self { entries: BTreeSet::new(), digest: sha256(&[]) }
    }
}

/// A line of a deny list that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {0} is neither a SHA-256 fingerprint in hexadecimals nor a URI name")]
pub struct DeniedInvalid(pub usize);

impl Denied {
    /// Reads a list: on each line the SHA-256 fingerprint of a certificate in hexadecimals, with or
    /// without colons, or a URI name. `#` begins a comment.
    ///
    /// A fingerprint shuts out the certificate and its twins: an ECDSA signature can be written in
    /// two ways, and whoever has a certificate can change the one into the other.
    ///
    /// A line that is neither makes the whole list invalid: whom it meant would not be shut out.
    pub fn parse(text: &str) -> Result<Self, DeniedInvalid> {
        let mut entries = BTreeSet::new();
        for (index, line) in text.lines().enumerate() {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if entry.is_empty() {
                continue;
            }
            let digits = entry.replace(':', "").to_ascii_lowercase();
            let is_fingerprint =
                digits.len() == 64 && digits.bytes().all(|octet| octet.is_ascii_hexdigit());
            if is_fingerprint {
                entries.insert(digits);
            } else if is_uri_name(entry) {
                entries.insert(entry.to_owned());
            } else {
                return Err(DeniedInvalid(index + 1));
            }
        }
        Ok(Self { entries, digest: sha256(&[text.as_bytes()]) })
    }
}

impl DenyList {
    /// Puts another list in force, from the next call on.
    pub fn replace(&self, denied: Denied) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = denied;
    }

    /// Shuts out those on another list as well, without letting anybody in again.
    pub fn add(&self, denied: &Denied) {
        let mut list = self.0.write().unwrap_or_else(PoisonError::into_inner);
        list.entries.extend(denied.entries.iter().cloned());
    }

    /// SHA-256 of the text of the list that was put in force last.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.0.read().unwrap_or_else(PoisonError::into_inner).digest
    }

    /// Whether a caller is shut out, by its certificate or by its name.
    pub(super) fn holds(&self, identity: &Identity) -> bool {
        let denied = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut known_as = identity.twins.iter().chain([&identity.fingerprint, &identity.name]);
        known_as.any(|one| denied.entries.contains(one))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::believed::Believed;
    use super::*;

    #[test]
    fn a_list_is_read_whole_or_not_at_all() {
        let fingerprint = "ab".repeat(32);
        let colons = "AB:".repeat(32);
        let text = format!(
            "# who left\n\nspiffe://example.test/officer/anna # in May\n  {}\n",
            colons.trim_end_matches(':')
        );
        let list = DenyList::default();
        let identity = |name: &str, fingerprint: &str| Identity {
            name: name.to_owned(),
            fingerprint: fingerprint.to_owned(),
            not_after: 0,
            certificate: Vec::new(),
            key: None,
            twins: vec!["ef".repeat(32)],
            planes: BTreeMap::new(),
            believed: Believed::default(),
        };
        let anna = identity("spiffe://example.test/officer/anna", "cd");
        assert!(!list.holds(&anna));
        list.replace(Denied::parse(&text).unwrap());
        assert!(list.holds(&anna));
        assert!(list.holds(&identity("spiffe://example.test/officer/bert", &fingerprint)));
        assert!(!list.holds(&identity("spiffe://example.test/officer/bert", "cd")));
        list.replace(Denied::parse(&"EF".repeat(32)).unwrap());
        assert!(list.holds(&anna), "by a twin");
        assert_eq!(list.digest(), sha256(&["EF".repeat(32).as_bytes()]));
        list.replace(Denied::default());
        assert_eq!(list.digest(), sha256(&[]));
        assert!(!list.holds(&anna));
        assert_eq!(Denied::parse("urn:a\nanna\n"), Err(DeniedInvalid(2)));
        assert_eq!(Denied::parse("abcd"), Err(DeniedInvalid(1)));
        assert_eq!(Denied::parse("spiffe://example.test/*"), Err(DeniedInvalid(1)));
    }
}
