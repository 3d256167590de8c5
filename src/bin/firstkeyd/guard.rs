//! Who else may touch the files that the service believes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};

/// Refuses a file with a key that others than its owner may touch. Who reads such a file is its
/// owner, or root.
#[allow(clippy::verbose_bit_mask, reason = "modes are read as octal digits")]
pub(crate) fn refuse_shared(path: &Path) -> anyhow::Result<()> {
    ensure!(
        mode(path)? & 0o077 == 0,
        "{} may be read by others than its owner: chmod 600 it, and take what is in it for known",
        path.display()
    );
    Ok(())
}

/// Refuses a file that others than its owner may write: they would say whom the service lets in.
#[allow(clippy::verbose_bit_mask, reason = "modes are read as octal digits")]
pub(crate) fn refuse_writable(path: &Path) -> anyhow::Result<()> {
    ensure!(
        mode(path)? & 0o022 == 0,
        "{} may be written by others than its owner: chmod go-w it, and look at what is in it",
        path.display()
    );
    Ok(())
}

fn mode(path: &Path) -> anyhow::Result<u32> {
    let found = fs::metadata(path).with_context(|| format!("can not read {}", path.display()))?;
    Ok(found.mode())
}
