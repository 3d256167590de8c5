//! Hardening of the process at its start.

use rustix::fs::Mode;
use rustix::process::{self, DumpableBehavior, Resource, Rlimit};
use rustix::thread;

/// What the process is protected by, read back after it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a report: one flag for each protection")]
pub struct Hardening {
    /// The limit for core files is zero.
    pub core_files_off: bool,
    /// No user but root can attach to the process or read its memory through `/proc`.
    pub dumpable_off: bool,
    /// No program that is started can have more privileges than this one.
    pub no_new_privileges: bool,
    /// New files can be read by their owner alone.
    pub umask_private: bool,
}

/// Protects the process as well as the system lets it; call before the first secret is read.
///
/// A protection that the system refuses is reported and stops nothing: the operator decides.
///
/// See prctl(2), setrlimit(2), umask(2).
#[must_use = "what the system refused is for the log"]
pub fn harden_process() -> Hardening {
    // The results are read back below: what counts is the state, not the answer.
    let _ = process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = process::setrlimit(Resource::Core, no_core);
    let _ = thread::set_no_new_privs(true);
    process::umask(Mode::RWXG | Mode::RWXO);
    Hardening {
        core_files_off: process::getrlimit(Resource::Core) == no_core,
        dumpable_off: process::dumpable_behavior() == Ok(DumpableBehavior::NotDumpable),
        no_new_privileges: thread::no_new_privs() == Ok(true),
        // Setting it again gives what it was.
        umask_private: process::umask(Mode::RWXG | Mode::RWXO) == Mode::RWXG | Mode::RWXO,
    }
}
