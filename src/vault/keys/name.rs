//! Which key a call means: `x`, the primary version of it, or `x/versions/n`, one of them.
//!
//! Calls name keys so, less the `keys/` before it. What has to stay with one version, such as a
//! terminal with the one that its initial key comes from, keeps the second form.

/// What stands between the name of a key and the number of a version.
const VERSIONS: &str = "/versions/";

/// A key as a call names it, in its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyName<'a> {
    /// The id in `keys/{id}`.
    pub key: &'a str,
    /// The number of a version, from 1; none for the primary one.
    pub version: Option<u32>,
}

impl<'a> KeyName<'a> {
    /// Takes a name apart; none where the number is not written as it is: decimal, from 1, without
    /// zeros before it.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let Some((key, number)) = text.split_once(VERSIONS) else {
            return Some(Self { key: text, version: None });
        };
        let version = number.parse().ok().filter(|version: &u32| *version > 0)?;
        (version.to_string() == number).then_some(Self { key, version: Some(version) })
    }
}

/// The id in `keys/{id}` of a key that may be named with a version: what policies and budgets are
/// about, so that a version more is no way round either.
#[must_use]
pub fn key_of(name: &str) -> &str {
    name.split_once(VERSIONS).map_or(name, |(key, _)| key)
}

/// Names one version.
pub(super) fn version_name(key: &str, version: u32) -> String {
    format!("{key}{VERSIONS}{version}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_and_put_together() {
        assert_eq!(KeyName::parse("x"), Some(KeyName { key: "x", version: None }));
        for version in [1, 10, u32::MAX] {
            let name = version_name("x", version);
            assert_eq!(KeyName::parse(&name), Some(KeyName { key: "x", version: Some(version) }));
            assert_eq!(key_of(&name), "x");
        }
        assert_eq!(key_of("x"), "x");
        for bad in ["", "0", "01", "+1", "-1", "1 ", "4294967296", "1/versions/1", "x"] {
            assert_eq!(KeyName::parse(&format!("x/versions/{bad}")), None, "{bad}");
        }
    }
}
