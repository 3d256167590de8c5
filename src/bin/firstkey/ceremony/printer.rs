//! Where slips go: to a printer's pipe, or to files in memory. A slip is a secret on paper, and a
//! file on a disk is one that stays.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use firstkey::guide::pdf;
use rustix::fs::statfs;

use crate::cli::ceremony::{Form, Room};
use crate::shared::development::write_new;

/// Where slips go, and as what.
pub(super) struct Printer {
    to: To,
    form: Form,
}

/// Where pages go.
enum To {
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
    /// None: where no slips are given out.
    pub(super) const fn none() -> Self {
        Self { to: To::None, form: Form::Text }
    }

    /// As the command line says. A folder that is no memory is refused unless it is forced.
    pub(super) fn of(room: &Room) -> anyhow::Result<Self> {
        let form = room.print_as;
        let Some(folder) = room.print_to.clone() else {
            return Ok(Self { to: room.printer.clone().map_or(To::None, To::Command), form });
        };
        ensure!(folder.is_dir(), "{} is no folder", folder.display());
        let printer = Self { to: To::Folder(folder), form };
        ensure!(
            room.force_file || printer.warning().is_none(),
            "{}: --force-file if that is what you want",
            printer.warning().unwrap_or_default()
        );
        Ok(printer)
    }

    /// Whether pages go anywhere.
    pub(super) const fn prints(&self) -> bool {
        !matches!(self.to, To::None)
    }

    /// What people must know before something is printed.
    pub(super) fn warning(&self) -> Option<String> {
        let To::Folder(folder) = &self.to else { return None };
        let kind = statfs(folder).ok().and_then(|found| u32::try_from(found.f_type).ok());
        if kind.is_some_and(|kind| MEMORY.contains(&kind)) {
            return None;
        }
        let folder = folder.display();
        Some(format!("slips go to files in {folder}, which is not memory: they stay on its disk"))
    }

    /// Prints pages of plain text, and tells where they went.
    pub(super) fn print(&self, name: &str, text: &[u8]) -> anyhow::Result<String> {
        match self.form {
            Form::Pdf => self.send(&format!("{name}.pdf"), &pdf(text)),
            Form::Text => self.send(&format!("{name}.txt"), text),
        }
    }

    fn send(&self, name: &str, page: &[u8]) -> anyhow::Result<String> {
        match &self.to {
            To::Command(command) => {
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
            To::Folder(folder) => {
                let path = folder.join(name);
                write_new(&path, page)?;
                Ok(format!("written to {}", path.display()))
            }
            To::None => bail!("there is no printer: --printer COMMAND, or --print-to FOLDER"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn room(command: Option<&str>, folder: Option<&Path>) -> Room {
        Room {
            printer: command.map(str::to_owned),
            print_to: folder.map(Path::to_owned),
            force_file: false,
            print_as: Form::Text,
            transcript: None,
            silence: 60,
        }
    }

    fn temporary() -> PathBuf {
        std::env::temp_dir().join(format!("firstkey-slip-{}", uuid::Uuid::new_v4()))
    }

    #[test]
    fn a_command_gets_the_page_and_its_failure_is_told() {
        let path = temporary();
        let cat = format!("cat > '{}'", path.display());
        let printer = Printer::of(&room(Some(&cat), None)).unwrap();
        printer.print("slip-1", b"a page\x0c").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a page\x0c");
        let printer = Printer::of(&Room { print_as: Form::Pdf, ..room(Some(&cat), None) }).unwrap();
        printer.print("slip-1", b"a page\x0c").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), *pdf(b"a page\x0c"));
        std::fs::remove_file(path).unwrap();
        let printer = Printer::of(&room(Some("exit 3"), None)).unwrap();
        assert!(printer.print("slip-1", b"").is_err());
        let none = Printer::of(&room(None, None)).unwrap();
        assert!(!none.prints() && none.print("slip-1", b"a page").is_err());
    }

    #[test]
    fn a_folder_is_memory_or_it_is_said() {
        let memory = Path::new("/dev/shm");
        assert!(Printer::of(&room(None, Some(memory))).unwrap().warning().is_none());
        let disk = Path::new("/proc");
        assert!(Printer::of(&room(None, Some(disk))).is_err());
        let forced = Room { force_file: true, ..room(None, Some(disk)) };
        let forced = Printer::of(&forced).unwrap();
        assert!(forced.warning().unwrap().contains("which is not memory"));
        let no_folder = Room { force_file: true, ..room(None, Some(Path::new("/dev/null"))) };
        assert!(Printer::of(&no_folder).is_err());
    }
}
