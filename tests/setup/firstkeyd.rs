//! `firstkeyd` as a process of its own, whose log is read to its end.

#![allow(dead_code, reason = "each test takes what it needs")]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]
#![allow(clippy::disallowed_methods, reason = "a process is waited for in real time")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long it may take until it says, or does, what a test waits for.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a test rests between two looks.
const REST: Duration = Duration::from_millis(5);

/// A running process, killed when the test ends.
pub(crate) struct Firstkeyd {
    child: Arc<Mutex<Child>>,
    log: Arc<Mutex<Vec<String>>>,
    /// How many lines were heard.
    heard: Mutex<usize>,
    reader: Option<JoinHandle<()>>,
}

impl Firstkeyd {
    /// Starts it by a command, and waits for nothing.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("firstkeyd starts");
        let stderr = BufReader::new(child.stderr.take().expect("standard error is piped"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        // Reads on until the process is gone, so that it is never held up by a full pipe.
        let reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Self { child: Arc::new(Mutex::new(child)), log, heard: Mutex::new(0), reader: Some(reader) }
    }

    /// Starts it by a command, and waits until it serves; with the address where it does.
    pub(crate) fn serving(command: &mut Command) -> (Self, String) {
        let process = Self::spawn(command);
        let address = process.address("serving");
        (process, address)
    }

    /// Waits for a message that tells an address: `serving`, or `operations`.
    pub(crate) fn address(&self, message: &str) -> String {
        self.told(message)["address"].as_str().expect("an address").to_owned()
    }

    /// Waits until it has logged a message, whenever that was; the first of them.
    pub(crate) fn told(&self, message: &str) -> Value {
        self.find(&mut 0, |line| {
            let entry = serde_json::from_str::<Value>(line).ok()?;
            (entry["message"] == message).then_some(entry)
        })
    }

    /// Waits until it has logged a line in which this stands, after the one that was heard last.
    pub(crate) fn hear(&self, words: &str) -> String {
        let mut heard = self.heard.lock().unwrap();
        self.find(&mut heard, |line| line.contains(words).then(|| line.to_owned()))
    }

    /// Looks at each line from a place on, which then is behind the line that was found.
    fn find<T>(&self, place: &mut usize, found: impl Fn(&str) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            let gone = self.reader.as_ref().is_none_or(JoinHandle::is_finished);
            {
                let log = self.log.lock().unwrap();
                while let Some(line) = log.get(*place) {
                    *place += 1;
                    if let Some(one) = found(line) {
                        return one;
                    }
                }
            }
            assert!(!gone && began.elapsed() < PATIENCE, "it did not say so:\n{}", self.logged());
            std::thread::sleep(REST);
        }
    }

    /// All that it has logged until now.
    pub(crate) fn logged(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// Whether it still runs.
    pub(crate) fn runs(&self) -> bool {
        self.child.lock().unwrap().try_wait().expect("a process of one's own").is_none()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.lock().unwrap()), signal).unwrap();
    }

    /// Waits until it has ended by itself; with all that it logged.
    pub(crate) fn ended(&mut self) -> (ExitStatus, String) {
        let began = Instant::now();
        while self.runs() {
            assert!(began.elapsed() < PATIENCE, "it does not end:\n{}", self.logged());
            std::thread::sleep(REST);
        }
        self.read_out();
        let status = self.child.lock().unwrap().wait().expect("it has ended");
        (status, self.logged())
    }

    /// Kills it with SIGKILL, where it still runs.
    pub(crate) fn kill(&mut self) {
        kill(&self.child);
        self.read_out();
    }

    /// Kills it with SIGKILL after a delay, from a thread of its own, whatever else goes on.
    pub(crate) fn kill_after(&self, delay: Duration) -> JoinHandle<()> {
        let child = Arc::clone(&self.child);
        std::thread::spawn(move || {
            std::thread::sleep(delay);
            kill(&child);
        })
    }

    /// Reads what it logged at the very last.
    fn read_out(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("a reader does not fail");
        }
    }
}

impl Drop for Firstkeyd {
    fn drop(&mut self) {
        // A program that it started may hold the pipe open: nobody waits for the reader here.
        kill(&self.child);
    }
}

fn kill(child: &Mutex<Child>) {
    let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
    // One that has ended by itself is as gone as one that is killed.
    let _ = child.kill();
    let _ = child.wait();
}
