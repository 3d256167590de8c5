//! Where slips go: to a printer's pipe, or to files in memory. A slip is a secret on paper, and a
//! file on a disk is one that stays.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use rustix::fs::statfs;

use crate::shared::development::write_new;

/// Where slips go.
pub(super) enum Printer {
    /// To the standard input of a command line, which is run by `/bin/sh`.
    Command(String),
    /// Into a folder, each a file of its own.
    Folder(PathBuf),
    /// Nowhere.
    None,
}

/// File systems that are memory (statfs(2)); their pages can be swapped, as can the tool's.
const MEMORY: [u32; 2] = [TMPFS, RAMFS];
const TMPFS: u32 = 0x0102_1994;
const RAMFS: u32 = 0x8584_58f6;

impl Printer {
    /// As the command line says. A folder that is no memory is refused unless it is forced.
    pub(super) fn of(
        command: Option<String>,
        folder: Option<PathBuf>,
        force: bool,
    ) -> anyhow::Result<Self> {
        let Some(folder) = folder else {
            return Ok(command.map_or(Self::None, Self::Command));
        };
        ensure!(folder.is_dir(), "{} is no folder", folder.display());
        let printer = Self::Folder(folder);
        ensure!(
            force || printer.warning().is_none(),
            "{}: --force-file if that is what you want",
            printer.warning().unwrap_or_default()
        );
        Ok(printer)
    }

    /// What people must know before something is printed.
    pub(super) fn warning(&self) -> Option<String> {
        let Self::Folder(folder) = self else { return None };
        let kind = statfs(folder).ok().and_then(|found| u32::try_from(found.f_type).ok());
        if kind.is_some_and(|kind| MEMORY.contains(&kind)) {
            return None;
        }
        let folder = folder.display();
        Some(format!("slips go to files in {folder}, which is not memory: they stay on its disk"))
    }

    /// Prints a page, and tells where it went.
    pub(super) fn print(&self, name: &str, page: &[u8]) -> anyhow::Result<String> {
        match self {
            Self::Command(command) => {
                let mut child = Command::new("/bin/sh")
                    .args(["-c", command])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .context("can not run the printer's command")?;
                // Closed at the end of this line, so that the command sees where the page ends.
                let sent = child.stdin.take().map(|mut pipe| pipe.write_all(page));
                let status = child.wait().context("the printer's command")?;
                sent.context("the printer's command has no input")?
                    .context("the printer's command did not take the page")?;
                ensure!(status.success(), "the printer's command failed: {status}");
                Ok("sent to the printer".to_owned())
            }
            Self::Folder(folder) => {
                let path = folder.join(format!("{name}.txt"));
                write_new(&path, page)?;
                Ok(format!("written to {}", path.display()))
            }
            Self::None => bail!("there is no printer: --printer COMMAND, or --print-to FOLDER"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_gets_the_page_and_its_failure_is_told() {
        let path = std::env::temp_dir().join(format!("firstkey-slip-{}", uuid::Uuid::new_v4()));
        let printer = Printer::Command(format!("cat > '{}'", path.display()));
        printer.print("slip-1", b"a page\x0c").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a page\x0c");
        std::fs::remove_file(path).unwrap();
        assert!(Printer::Command("exit 3".to_owned()).print("slip-1", b"").is_err());
        assert!(Printer::None.print("slip-1", b"a page").is_err());
    }

    #[test]
    fn a_folder_is_memory_or_it_is_said() {
        let memory = PathBuf::from("/dev/shm");
        assert!(Printer::of(None, Some(memory), false).unwrap().warning().is_none());
        // The sources do not lie in memory; where they do, there is nothing to say.
        let disk = PathBuf::from("/proc");
        assert!(Printer::of(None, Some(disk.clone()), false).is_err());
        let forced = Printer::of(None, Some(disk), true).unwrap();
        assert!(forced.warning().unwrap().contains("which is not memory"));
        assert!(Printer::of(None, Some(PathBuf::from("/dev/null")), true).is_err());
    }
}
