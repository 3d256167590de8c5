//! Pages of a list: their size, and the tokens by which one goes on after another.

use data_encoding::BASE64URL_NOPAD;

use crate::command::Error;
use crate::vault::{Action, Caller, Vault};

/// How many rows a page holds at most.
const SIZE_MAX: u32 = 100;
/// How many rows a page holds when the caller does not say.
const SIZE_DEFAULT: u32 = 50;
/// The longest token, in characters.
const TOKEN_LEN_MAX: usize = 208;

/// The size of a page.
pub(super) fn page_size(size: u32) -> Result<usize, Error> {
    match size {
        0 => Ok(usize::try_from(SIZE_DEFAULT).expect("50 fits")),
        1..=SIZE_MAX => Ok(usize::try_from(size).expect("at most 100 fits")),
        _ => Err(Error::field("page_size", "is at most 100")),
    }
}

/// The tokens of one list, as one caller is given them: the id after which to go on, sealed, in
/// URL-safe base64.
pub(super) struct Pages<'a> {
    pub(super) vault: &'a Vault,
    pub(super) caller: &'a Caller,
    pub(super) action: Action,
}

impl Pages<'_> {
    /// Where a page begins; none for the first.
    pub(super) fn after(&self, token: &str) -> Result<Option<String>, Error> {
        if token.is_empty() {
            return Ok(None);
        }
        let sealed = match token.len() {
            ..=TOKEN_LEN_MAX => BASE64URL_NOPAD.decode(token.as_bytes()).ok(),
            _ => None,
        };
        let opened =
            sealed.and_then(|sealed| self.vault.open_place(self.caller, self.action, &sealed));
        let refused = || Error::field("page_token", "was not given to this caller by this call");
        opened.map(Some).ok_or_else(refused)
    }

    /// The token of the page after `last`; empty where there is none.
    pub(super) fn next(&self, last: Option<&str>) -> Result<String, Error> {
        let Some(last) = last else { return Ok(String::new()) };
        let sealed = self.vault.seal_place(self.caller, self.action, last)?;
        Ok(BASE64URL_NOPAD.encode(&sealed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_bounded() {
        assert_eq!(page_size(0).unwrap(), 50);
        assert_eq!(page_size(100).unwrap(), 100);
        assert!(page_size(101).is_err());
    }
}
