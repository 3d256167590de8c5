//! Troubles of the kernel's own for a process: a small file system that is filled, and system calls
//! that `strace` lets fail or wait.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use firstkey::grpc::client::request_id;

/// The system calls that make what was written durable.
pub(crate) const SYNCS: &str = "fdatasync,fsync";

/// Written past the test harness, which hides what a passing test prints.
pub(crate) fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("standard error is open");
}

/// A folder that goes with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("firstkey-faults-{}", request_id()));
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A file system of its own, of so many MiB.
pub(crate) struct SmallDisk(Folder);

impl SmallDisk {
    /// None where this may not mount.
    pub(crate) fn mount(mib: u32) -> Option<Self> {
        let folder = Folder::new();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700"), "firstkey-faults"])
            .arg(&folder.0)
            .stderr(Stdio::null())
            .status();
        done.is_ok_and(|status| status.success()).then_some(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0.0
    }

    /// Fills it until so many bytes are free.
    pub(crate) fn fill(&self, leave: u64) {
        let path = self.path().join("ballast");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).append(true).open(path).expect("a file");
        while self.free() > leave {
            let len = usize::try_from((self.free() - leave).min(64 << 10)).expect("a small number");
            if file.write_all(&vec![7; len]).is_err() {
                return;
            }
        }
    }

    fn free(&self) -> u64 {
        let said = Command::new("df")
            .args(["--output=avail", "-B1"])
            .arg(self.path())
            .output()
            .expect("df is there");
        let text = String::from_utf8(said.stdout).expect("text");
        text.lines().nth(1).and_then(|line| line.trim().parse().ok()).expect("a number")
    }

    pub(crate) fn empty(&self) {
        std::fs::remove_file(self.path().join("ballast")).expect("the ballast is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still holds it open does so until the end of its process.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// `strace`, with a fault in some system calls of a process.
pub(crate) struct Tracer(Child);

impl Tracer {
    /// Attaches to every thread of a process; none where that is not possible.
    pub(crate) fn attach(process: u32, calls: &str, fault: &str) -> Option<Self> {
        let mut child = Command::new("strace")
            .args(["-f", "-p", &process.to_string()])
            .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{fault}")])
            .args(["-o", "/dev/null"])
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let mut said = BufReader::new(child.stderr.take().expect("piped")).lines();
        let attached = said.by_ref().map_while(Result::ok).any(|line| line.contains("attached"));
        thread::spawn(move || said.for_each(drop));
        let tracer = Self(child);
        // The first line names one thread; the others follow within moments.
        thread::sleep(Duration::from_millis(500));
        attached.then_some(tracer)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Told to end, it lets the calls that it holds go on; killed, it would not.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}
