//! Where a list goes on: told to the caller sealed, as it may name what the caller is not shown.

use super::caller::{Action, Caller};
use super::error::Error;
use super::master::Address;
use super::record::Kind;
use super::vault::Vault;

/// The kind of what is sealed here. It is never stored.
const PLACE: Kind = Kind::new("place");

impl Vault {
    /// Seals the id after which a list goes on: it opens for the same caller and call alone.
    pub fn seal_place(
        &self,
        caller: &Caller,
        action: Action,
        after: &str,
    ) -> Result<Vec<u8>, Error> {
        let core = &self.shared.core;
        let nonce = core.nonce()?;
        let id = id_of(caller, action);
        Ok(core.sealer.seal_outside(address(&id), nonce, after.as_bytes()))
    }

    /// Opens what [`Vault::seal_place`] sealed; none where it sealed something else.
    #[must_use]
    pub fn open_place(&self, caller: &Caller, action: Action, sealed: &[u8]) -> Option<String> {
        let id = id_of(caller, action);
        let opened = self.shared.core.sealer.open_outside(address(&id), sealed).ok()?;
        String::from_utf8(opened.to_vec()).ok()
    }
}

fn id_of(caller: &Caller, action: Action) -> String {
    // Neither part holds a line end.
    [action.as_str(), caller.name()].join("\n")
}

const fn address(id: &str) -> Address<'_> {
    Address { kind: PLACE, id, version: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::testing::Bench;

    #[tokio::test]
    async fn a_place_opens_for_its_caller_and_call_alone_and_tells_nothing() {
        let vault = Bench::new().await.vault;
        let (one, other) = (Caller::for_dev_only("one"), Caller::for_dev_only("other"));
        let sealed = vault.seal_place(&one, Action::ListKeys, "hidden").unwrap();
        let again = vault.seal_place(&one, Action::ListKeys, "hidden").unwrap();
        assert_ne!(sealed, again, "which is the same place nobody sees");
        assert!(!sealed.windows(6).any(|part| part == b"hidden"));
        let open = |caller, action, sealed: &[u8]| vault.open_place(caller, action, sealed);
        assert_eq!(open(&one, Action::ListKeys, &sealed).as_deref(), Some("hidden"));
        assert_eq!(open(&other, Action::ListKeys, &sealed), None);
        assert_eq!(open(&one, Action::ListProfiles, &sealed), None);
        assert_eq!(open(&one, Action::ListKeys, &sealed[1..]), None);
        assert_eq!(open(&one, Action::ListKeys, b"hidden"), None);
    }
}
