//! The deny list: certificates and names that are shut out although they verify.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use super::peer::Identity;
use crate::crypto::certificate::is_uri_name;

/// Who is shut out, asked at each call; it can change at any time.
#[derive(Clone, Debug, Default)]
pub struct DenyList(Arc<RwLock<BTreeSet<String>>>);

/// What a deny list holds, read from text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denied(BTreeSet<String>);

/// A line of a deny list that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {0} is neither a SHA-256 fingerprint in hexadecimals nor a URI name")]
pub struct DeniedInvalid(pub usize);

impl Denied {
    /// Reads a list: on each line the SHA-256 fingerprint of a certificate in hexadecimals, with or
    /// without colons, or a URI name. `#` begins a comment.
    ///
    /// A line that is neither makes the whole list invalid: whom it meant would not be shut out.
    pub fn parse(text: &str) -> Result<Self, DeniedInvalid> {
        let mut denied = BTreeSet::new();
        for (index, line) in text.lines().enumerate() {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if entry.is_empty() {
                continue;
            }
            let digits = entry.replace(':', "").to_ascii_lowercase();
            let is_fingerprint =
                digits.len() == 64 && digits.bytes().all(|octet| octet.is_ascii_hexdigit());
            if is_fingerprint {
                denied.insert(digits);
            } else if is_uri_name(entry) {
                denied.insert(entry.to_owned());
            } else {
                return Err(DeniedInvalid(index + 1));
            }
        }
        Ok(Self(denied))
    }
}

impl DenyList {
    /// Puts another list in force, from the next call on.
    pub fn replace(&self, denied: Denied) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = denied.0;
    }

    /// Whether a caller is shut out, by its certificate or by its name.
    pub(super) fn holds(&self, identity: &Identity) -> bool {
        let denied = self.0.read().unwrap_or_else(PoisonError::into_inner);
        denied.contains(&identity.fingerprint) || denied.contains(&identity.name)
    }
}

#[cfg(test)]
mod tests {
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
            planes: Vec::new(),
        };
        let anna = identity("spiffe://example.test/officer/anna", "cd");
        assert!(!list.holds(&anna));
        list.replace(Denied::parse(&text).unwrap());
        assert!(list.holds(&anna));
        assert!(list.holds(&identity("spiffe://example.test/officer/bert", &fingerprint)));
        assert!(!list.holds(&identity("spiffe://example.test/officer/bert", "cd")));
        list.replace(Denied::default());
        assert!(!list.holds(&anna));
        assert_eq!(Denied::parse("urn:a\nanna\n"), Err(DeniedInvalid(2)));
        assert_eq!(Denied::parse("abcd"), Err(DeniedInvalid(1)));
        assert_eq!(Denied::parse("spiffe://example.test/*"), Err(DeniedInvalid(1)));
    }
}
