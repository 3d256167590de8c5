//! The terminal of a ceremony: another screen than the one with the history, no echo, and every
//! setting put back whichever way it ends.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::thread::{self, ThreadId};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use firstkey::guide::{Interrupted, Key, Screen, Table};
use firstkey::vault::Clock as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{
    OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::keys::{Keys, Read};
use super::printer::Printer;
use crate::shared::SystemClock;

/// The other screen, pastes marked as such, no cursor (xterm control sequences).
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?2004h\x1b[?25l\x1b[2J";
/// All of it undone.
const LEAVE: &[u8] = b"\x1b[?2004l\x1b[?25h\x1b[?1049l";

/// How often a signal is looked for while nobody types.
const LOOK: Duration = Duration::from_millis(100);

/// A terminal that shows screens.
pub(super) struct Terminal {
    keys: Keys,
    /// What is on the screen: the same is not drawn again.
    drawn: Vec<u8>,
    stop: CancellationToken,
    printer: Printer,
}

/// How the terminal was, and whose it is; none while it is as it was.
static BEFORE: Mutex<Option<(Termios, ThreadId)>> = Mutex::new(None);

impl Terminal {
    /// Takes the terminal.
    pub(super) fn take(stop: CancellationToken, printer: Printer) -> anyhow::Result<Self> {
        ensure_there_is_one()?;
        let before = tcgetattr(io::stdin()).context("can not read the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        put_back_on_panic();
        *lock() = Some((before, thread::current().id()));
        tcsetattr(io::stdin(), OptionalActions::Flush, &raw)
            .context("can not change the terminal's settings")?;
        let taken = Self { keys: Keys::new(), drawn: Vec::new(), stop, printer };
        write(ENTER).context("can not write to the terminal")?;
        Ok(taken)
    }

    fn size() -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            // A terminal that does not say has the size that all had.
            _ => (80, 24),
        }
    }
}

/// Refuses where there is no terminal: what is typed would come from a file or a program, and what
/// is shown go to one.
pub(crate) fn ensure_there_is_one() -> anyhow::Result<()> {
    ensure!(
        io::stdin().is_terminal() && io::stdout().is_terminal(),
        "a ceremony is held at a terminal: standard input and output must be one"
    );
    Ok(())
}

impl Drop for Terminal {
    fn drop(&mut self) {
        put_back();
    }
}

impl Table for Terminal {
    fn show(&mut self, screen: &Screen) -> Result<(), Interrupted> {
        let (columns, lines) = Self::size();
        let mut text = Vec::from(b"\x1b[H");
        match screen.render(columns, lines, self.now()) {
            Ok(lines) => text.extend(lines.join("\r\n").bytes()),
            Err(small) => text.extend(format!("\x1b[2J{small}: make it larger").bytes()),
        }
        if text != self.drawn {
            write(&text).map_err(|_| Interrupted)?;
            self.drawn = text;
        }
        Ok(())
    }

    fn key(&mut self, wait: Duration) -> Result<Option<Key>, Interrupted> {
        let key = |read| match read {
            Read::Key(key) => Ok(Some(key)),
            Read::Interrupt => Err(Interrupted),
        };
        let mut left = wait;
        loop {
            if self.stop.is_cancelled() {
                return Err(Interrupted);
            }
            if let Some(read) = self.keys.next() {
                return key(read);
            }
            if readable(LOOK.min(left))? {
                let len_bytes = rustix::io::read(io::stdin(), self.keys.room());
                // Nothing to read from a terminal that is ready: it has gone.
                let len_bytes = len_bytes.ok().filter(|read| *read > 0).ok_or(Interrupted)?;
                if let Some(read) = self.keys.filled(len_bytes) {
                    return key(read);
                }
                continue;
            }
            if let Some(read) = self.keys.silence() {
                return key(read);
            }
            left = left.saturating_sub(LOOK);
            if left.is_zero() {
                return Ok(None);
            }
        }
    }

    fn discard(&mut self) {
        let _ = self.keys.room();
        // A terminal that does not forget is a nuisance, and no more: what is typed is checked.
        let _ = tcflush(io::stdin(), QueueSelector::IFlush);
    }

    fn bell(&mut self) {
        // Without it the screen still tells.
        let _ = write(b"\x07");
    }

    fn now(&self) -> u64 {
        SystemClock.now().seconds()
    }

    fn read(&mut self, path: &str) -> Result<Zeroizing<Vec<u8>>, String> {
        let read = std::fs::read(path).map_err(|error| format!("can not read {path}: {error}"));
        read.map(Zeroizing::new)
    }

    fn print(&mut self, name: &str, page: &[u8]) -> Result<String, String> {
        self.printer.print(name, page).map_err(|error| format!("{error:#}"))
    }
}

/// Whether there is something to read, after so long at most.
fn readable(wait: Duration) -> Result<bool, Interrupted> {
    let wait = Timespec::try_from(wait).map_err(|_| Interrupted)?;
    let input = io::stdin();
    let mut waiting = [PollFd::new(&input, PollFlags::IN)];
    match poll(&mut waiting, Some(&wait)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => Ok(false),
        Ok(_) if waiting[0].revents().contains(PollFlags::IN) => Ok(true),
        Ok(_) | Err(_) => Err(Interrupted),
    }
}

fn write(octets: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(octets)?;
    out.flush()
}

/// Gives the terminal back as it was.
fn put_back() {
    if let Some((before, _)) = lock().take() {
        // A terminal that is gone needs nothing.
        let _ = write(LEAVE);
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &before);
    }
}

/// Gives it back before what went wrong is said, where it goes wrong at the table itself: while
/// something else goes on, what is typed stays hidden.
fn put_back_on_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let at_table = lock().as_ref().is_some_and(|(_, at)| *at == thread::current().id());
        if at_table {
            put_back();
        }
        usual(panic);
    }));
}

fn lock() -> std::sync::MutexGuard<'static, Option<(Termios, ThreadId)>> {
    BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
