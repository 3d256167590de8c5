//! Who else may touch the files that the service believes: nobody but its own user and root.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use firstkey::memory::effective_user;

/// The bit of a folder in which each may change their own files alone, such as `/tmp`.
const STICKY: u32 = 0o1000;

/// Refuses a file with a key that others may touch.
#[allow(clippy::verbose_bit_mask, reason = "modes are read as octal digits")]
pub(crate) fn refuse_shared(path: &Path) -> anyhow::Result<()> {
    refuse_foreign(path)?;
    ensure!(
        mode(path)? & 0o077 == 0,
        "{} may be read by others than its owner: chmod 600 it, and take what is in it for known",
        path.display()
    );
    Ok(())
}

/// Refuses a file that others may write: they would say whom the service lets in.
#[allow(clippy::verbose_bit_mask, reason = "modes are read as octal digits")]
pub(crate) fn refuse_writable(path: &Path) -> anyhow::Result<()> {
    refuse_foreign(path)?;
    ensure!(
        mode(path)? & 0o022 == 0,
        "{} may be written by others than its owner: chmod go-w it, and look at what is in it",
        path.display()
    );
    Ok(())
}

/// Refuses a file that belongs to another user than the service's or root, or lies where others
/// may put another in its place.
#[allow(clippy::verbose_bit_mask, reason = "modes are read as octal digits")]
fn refuse_foreign(path: &Path) -> anyhow::Result<()> {
    let path = path.canonicalize().with_context(|| format!("can not read {}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    for one in [&path, folder] {
        let owner = metadata(one)?.uid();
        ensure!(
            [0, effective_user()].contains(&owner),
            "{} belongs to user {owner}, who may change it: chown it to the service's user",
            one.display()
        );
    }
    let mode = mode(folder)?;
    ensure!(
        mode & 0o022 == 0 || mode & STICKY != 0,
        "{} may be written by others, who may put another file in the place of {}: chmod go-w it",
        folder.display(),
        path.display()
    );
    Ok(())
}

fn mode(path: &Path) -> anyhow::Result<u32> {
    Ok(metadata(path)?.mode())
}

fn metadata(path: &Path) -> anyhow::Result<fs::Metadata> {
    fs::metadata(path).with_context(|| format!("can not read {}", path.display()))
}
