//! The newest checkpoint of the audit log in a file: on another disk than the store, it tells at
//! the next start whether the store was set back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use firstkey::vault::{Witness, WitnessFailed};

/// The longest note that is read, in bytes: of 4 lines and a key's name.
const NOTE_LEN_MAX: u64 = 4 * 1024;

/// A file for the newest checkpoint.
#[derive(Debug)]
pub(crate) struct WitnessFile(PathBuf);

impl WitnessFile {
    /// Names the file, which is made at the first signing.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// What stands in the file. A pipe or device in its place is not waited for.
    fn read(&self) -> io::Result<String> {
        if !fs::metadata(&self.0)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
        }
        let mut note = String::new();
        File::open(&self.0)?.take(NOTE_LEN_MAX).read_to_string(&mut note)?;
        Ok(note)
    }

    /// Replaced whole: an interruption leaves the last checkpoint or the new one. What is written
    /// on the way bears the number of this process: no other writes into it.
    fn replace(&self, note: &str) -> io::Result<()> {
        let mut part = self.0.as_os_str().to_owned();
        part.push(format!(".{}.part", std::process::id()));
        let part = Path::new(&part);
        let written = self.write_and_move(part, note);
        if written.is_err() {
            // What is left of it is nothing to anybody.
            let _ = fs::remove_file(part);
        }
        written
    }

    fn write_and_move(&self, part: &Path, note: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(part)?;
        file.write_all(note.as_bytes())?;
        file.sync_all()?;
        fs::rename(part, &self.0)?;
        let folder = self.0.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn tell(&self, error: &io::Error) -> WitnessFailed {
        tracing::error!(file = %self.0.display(), %error, "the checkpoint's file failed");
        WitnessFailed
    }
}

impl Witness for WitnessFile {
    fn last(&self) -> Result<Option<String>, WitnessFailed> {
        match self.read() {
            Ok(note) => Ok(Some(note)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.tell(&error)),
        }
    }

    fn keep(&self, note: &str) -> Result<(), WitnessFailed> {
        self.replace(note).map_err(|error| self.tell(&error))
    }
}
