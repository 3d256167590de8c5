//! Hidden entry, at the terminal alone: never from a pipe, an argument or the environment.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};

use anyhow::{Context as _, bail};
use firstkey::component::{Entry, Pressed, Share};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::{Zeroize as _, Zeroizing};

/// Digits of a row: four groups and the check group.
const ROW_DIGITS: usize = 20;

/// The longest line that is read, in bytes.
const LINE_LEN_MAX: usize = 256;

/// Reads a share that a custodian types, row by row; a row that does not agree with its check group
/// is typed again.
pub(crate) fn read_share() -> anyhow::Result<Share> {
    let mut terminal = Terminal::open()?;
    let mut entry = Entry::of_share();
    while !entry.is_complete() {
        terminal.say(&format!("row {} (hidden): ", entry.row_number(entry.place().row)))?;
        let line = terminal.line()?;
        terminal.say("\n")?;
        let digits = || line.iter().filter(|octet| !octet.is_ascii_whitespace());
        let is_row = digits().all(u8::is_ascii_hexdigit) && digits().count() == ROW_DIGITS;
        let mut typed = digits().map(|octet| entry.press(char::from(*octet)));
        // Of a row that is refused nothing stays.
        if !is_row || typed.any(|pressed| pressed == Ok(Pressed::RowRefused)) {
            terminal.say("this row is not right: type it again, all five groups\n")?;
        }
    }
    Share::typed(entry).context("this is no share")
}

/// The terminal of this process, which shows nothing of what is typed until it is let go of.
struct Terminal {
    file: File,
    before: Termios,
}

impl Terminal {
    fn open() -> anyhow::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/tty");
        let file = file.context("a share is typed at a terminal, and there is none")?;
        let before = tcgetattr(&file).context("the terminal does not say how it is set")?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL);
        tcsetattr(&file, OptionalActions::Flush, &hidden).context("entry can not be hidden")?;
        Ok(Self { file, before })
    }

    fn say(&mut self, text: &str) -> anyhow::Result<()> {
        self.file.write_all(text.as_bytes()).context("the terminal is gone")
    }

    /// Reads a line into a buffer that never grows, and so leaves no copy behind.
    fn line(&mut self) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let mut line = Zeroizing::new(Vec::with_capacity(LINE_LEN_MAX));
        let mut octet = [0];
        loop {
            let read = self.file.read(&mut octet).context("the terminal is gone")?;
            if read == 0 {
                bail!("nothing was typed");
            }
            if octet[0] == b'\n' {
                octet.zeroize();
                return Ok(line);
            }
            if line.len() == LINE_LEN_MAX {
                bail!("the line is too long");
            }
            line.push(octet[0]);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(&self.file, OptionalActions::Flush, &self.before);
    }
}
