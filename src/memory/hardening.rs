//! Hardening of the process at its start.
#![allow(unsafe_code, reason = "one system call has no safe wrapper")]

use rustix::fs::Mode;
use rustix::process::{self, DumpableBehavior, Resource, Rlimit};
use rustix::thread::{self, CapabilitySet};

use super::protection::{Protection, protections};

/// Protects the process as well as the system lets it; call before the first secret is read and
/// before the first thread is started. Gives what protects it now.
///
/// A protection that the system refuses is reported and stops nothing: the operator decides.
/// Memory is not locked as a whole, which would cost a host more than it is worth: the master key
/// has a page of its own, and what else holds a secret is wiped when it is freed.
///
/// See prctl(2), setrlimit(2), umask(2), capabilities(7).
#[must_use = "what the system refused is for the log"]
pub fn harden_process() -> Vec<Protection> {
    // The results are read back below: what counts is the state, not the answer.
    let _ = process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = process::setrlimit(Resource::Core, no_core);
    let _ = thread::set_no_new_privs(true);
    refuse_executable_memory();
    drop_capabilities();
    process::umask(Mode::RWXG | Mode::RWXO);
    protections()
}

/// Gives up what reads other processes' memory, or undoes a protection.
fn drop_capabilities() {
    let Ok(mut sets) = thread::capabilities(None) else { return };
    let given_up = CapabilitySet::SYS_PTRACE | CapabilitySet::SYS_ADMIN;
    sets.effective.remove(given_up);
    sets.permitted.remove(given_up);
    sets.inheritable.remove(given_up);
    let _ = thread::set_capabilities(None, sets);
}

/// No mapping becomes executable from now on (Linux 6.3).
/// The number of the user as whom the process acts.
#[must_use]
pub fn effective_user() -> u32 {
    process::geteuid().as_raw()
}

fn refuse_executable_memory() {
    let refuse = libc::c_ulong::from(libc::PR_MDWE_REFUSE_EXEC_GAIN);
    let none: libc::c_ulong = 0;
    // SAFETY: the call takes numbers alone and touches no memory of the process.
    let _ = unsafe { libc::prctl(libc::PR_SET_MDWE, refuse, none, none, none) };
}

/// Whether memory can become executable no more.
pub(super) fn refuses_executable_memory() -> bool {
    let none: libc::c_ulong = 0;
    // SAFETY: as above.
    let answer = unsafe { libc::prctl(libc::PR_GET_MDWE, none, none, none, none) };
    answer >= 0 && answer & 1 == 1
}
