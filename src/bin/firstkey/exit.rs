//! What the tool's exit codes mean. 0 is done; 2, wrong usage, is clap's.

/// It failed.
pub(crate) const FAILED: u8 = 1;
/// The vault is sealed.
pub(crate) const SEALED: u8 = 3;
/// What was named is not there.
pub(crate) const NOT_FOUND: u8 = 4;
/// The service denied it.
pub(crate) const DENIED: u8 = 5;
/// A verification came out false, a vector failed, or something is not as it must be.
pub(crate) const UNSOUND: u8 = 6;
/// Officers have to approve what was asked; then the same call goes through.
pub(crate) const WAITS: u8 = 7;
