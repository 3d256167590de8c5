//! A terminal with the tool in it: what a person types, and what a person sees.

#![allow(clippy::disallowed_methods, reason = "a test gives up after so long")]
#![allow(dead_code, reason = "each test takes what it needs")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

const FIRSTKEY: &str = env!("CARGO_BIN_EXE_firstkey");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// How long something may take to appear: the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(2);
const LINES: u16 = 24;
const COLUMNS: u16 = 80;

/// What came out of the terminal so far.
struct Seen {
    octets: Vec<u8>,
    parser: vt100::Parser,
}

/// A terminal, the tool in it, and whoever sits there.
pub(crate) struct Terminal {
    name: &'static str,
    /// The other end; a terminal is closed by closing it.
    person: Option<File>,
    /// The tool's end, to see whether it has read what was typed.
    tool: OwnedFd,
    child: Child,
    seen: Arc<Mutex<Seen>>,
    closed: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    pictures: usize,
}

impl Terminal {
    /// Starts the tool in a terminal of its own; what people see is kept under this name.
    pub(crate) fn start(name: &'static str, arguments: &[&str]) -> Self {
        let person =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let tool = ioctl_tiocgptpeer(&person, flags).unwrap();
        let size = Winsize { ws_row: LINES, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&person, size).unwrap();
        let end = || Stdio::from(tool.try_clone().unwrap());
        // A session of its own, whose terminal this is: as a person's.
        let mut command = Command::new("setsid");
        command.args(["--ctty", FIRSTKEY]).args(arguments).current_dir(ROOT);
        for recorded in ["TMUX", "STY", "SSH_CONNECTION", "SCRIPT", "ASCIINEMA_REC"] {
            command.env_remove(recorded);
        }
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let seen = Arc::new(Mutex::new(Seen {
            octets: Vec::new(),
            parser: vt100::Parser::new(LINES.try_into().unwrap(), COLUMNS.try_into().unwrap(), 0),
        }));
        let closed = Arc::new(AtomicBool::new(false));
        let reader = {
            let from = File::from(person.try_clone().unwrap());
            let (seen, closed) = (Arc::clone(&seen), Arc::clone(&closed));
            thread::spawn(move || read(from, &seen, &closed))
        };
        let (person, reader) = (Some(File::from(person)), Some(reader));
        Self { name, person, tool, child, seen, closed, reader, pictures: 0 }
    }

    /// The id of the tool's process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until everything of this is on the screen, and keeps a picture of it.
    pub(crate) fn sees(&mut self, texts: &[&str]) {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if texts.iter().all(|text| screen.contains(text)) {
                self.keep(&screen);
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                begun.elapsed() < PATIENCE && ended.is_none(),
                "{texts:?} is not there ({ended:?}):\n{screen}\n{}",
                String::from_utf8_lossy(&self.octets())
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What is on the screen.
    pub(crate) fn screen(&self) -> String {
        self.seen.lock().unwrap().parser.screen().contents()
    }

    /// The word on the screen that follows a text.
    pub(crate) fn word_behind(&self, text: &str) -> String {
        let screen = self.screen();
        let (_, rest) = screen.split_once(text).unwrap();
        rest.split(|letter: char| letter == ',' || letter.is_whitespace())
            .next()
            .unwrap()
            .to_owned()
    }

    /// Whether the tool has the screen without the history, pastes are marked and no cursor shows.
    pub(crate) fn is_taken(&self) -> bool {
        let seen = self.seen.lock().unwrap();
        let screen = seen.parser.screen();
        let states = [screen.alternate_screen(), screen.bracketed_paste(), screen.hide_cursor()];
        assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
        states[0]
    }

    /// Everything that was ever written to the terminal.
    pub(crate) fn octets(&self) -> Vec<u8> {
        self.seen.lock().unwrap().octets.clone()
    }

    /// Whether a text was ever written to the terminal, whatever its lines.
    pub(crate) fn octets_hold(&self, text: &str) -> bool {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        words(&String::from_utf8_lossy(&self.octets())).contains(&words(text))
    }

    /// Types a text, no faster than the tool reads.
    pub(crate) fn types(&mut self, text: &str) {
        for part in text.as_bytes().chunks(4) {
            self.sends(part);
        }
    }

    /// Types a line.
    pub(crate) fn answers(&mut self, text: &str) {
        self.types(text);
        self.sends(b"\r");
    }

    /// Sends octets as they are, and waits until the tool has read them.
    pub(crate) fn sends(&mut self, octets: &[u8]) {
        self.person.as_mut().unwrap().write_all(octets).unwrap();
        // They are on their way for a moment before the tool's end has them.
        thread::sleep(Duration::from_millis(20));
        let begun = Instant::now();
        while rustix::io::ioctl_fionread(&self.tool).unwrap() > 0 {
            assert!(begun.elapsed() < PATIENCE, "nobody reads:\n{}", self.screen());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends a signal to the tool.
    pub(crate) fn signals(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(done.unwrap().success());
    }

    /// Closes the terminal, as a window is closed.
    pub(crate) fn closes(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        self.reader.take().unwrap().join().unwrap();
        self.person = None;
    }

    /// Waits for the end of the tool.
    pub(crate) fn ends(&mut self) -> ExitStatus {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end:\n{}", self.screen());
            thread::sleep(Duration::from_millis(20));
        };
        if self.reader.is_some() {
            // What was written last is on its way.
            thread::sleep(Duration::from_millis(300));
            let screen = self.screen();
            self.keep(&screen);
        }
        status
    }

    /// Keeps what is on the screen as a text, for people to look at.
    fn keep(&mut self, screen: &str) {
        self.pictures += 1;
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("screens");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{}-{:02}.txt", self.name, self.pictures));
        std::fs::write(path, screen).unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A tool that has ended by itself is as gone as one that is killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.closed.store(true, Ordering::SeqCst);
    }
}

/// Reads what comes out of the terminal, until it is closed.
fn read(mut from: File, seen: &Mutex<Seen>, closed: &AtomicBool) {
    let wait = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let mut octets = [0; 4096];
    while !closed.load(Ordering::SeqCst) {
        let ready = poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&wait)).unwrap();
        if ready == 0 {
            continue;
        }
        let Ok(len_bytes) = from.read(&mut octets) else { return };
        let mut seen = seen.lock().unwrap();
        seen.octets.extend(&octets[..len_bytes]);
        seen.parser.process(&octets[..len_bytes]);
    }
}
