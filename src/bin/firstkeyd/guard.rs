//! Who else may touch the files that the service believes: nobody but its own user and root.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use firstkey::memory::effective_user;

/// The bit of a folder in which each may change their own files alone, such as `/tmp`.
const STICKY: u32 = 0o1000;

/// Refuses a file with a key that others may touch.
pub(crate) fn refuse_shared(path: &Path) -> anyhow::Result<()> {
    refuse(path, 0o077, "read", "chmod 600 it, and take what is in it for known")
}

/// Refuses a file that others may write: they would say whom the service lets in.
pub(crate) fn refuse_writable(path: &Path) -> anyhow::Result<()> {
    refuse(path, 0o022, "written", "chmod go-w it, and look at what is in it")
}

/// Refuses a file that others may touch, that belongs to another user than the service's or root,
/// or that lies where others may put another in its place.
fn refuse(path: &Path, others: u32, what: &str, remedy: &str) -> anyhow::Result<()> {
    let path = path.canonicalize().with_context(|| format!("can not read {}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let (file, around) = (fs::metadata(&path)?, fs::metadata(folder)?);
    for (one, found) in [(path.as_path(), &file), (folder, &around)] {
        ensure!(
            [0, effective_user()].contains(&found.uid()),
            "{} belongs to user {}, who may change it: chown it to the service's user",
            one.display(),
            found.uid()
        );
    }
    ensure!(
        around.mode() & 0o022 == 0 || around.mode() & STICKY != 0,
        "{} may be written by others, who may put another file in the place of {}: chmod go-w it",
        folder.display(),
        path.display()
    );
    ensure!(
        file.mode() & others == 0,
        "{} may be {what} by others than its owner: {remedy}",
        path.display()
    );
    Ok(())
}
