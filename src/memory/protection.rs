//! What protects the process, read back from the system.

use std::fs;

use rustix::process::{self, Resource};

use super::hardening::refuses_executable_memory;

/// One protection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// Its stable name.
    pub name: &'static str,
    /// Whether it is in force.
    pub in_force: bool,
    /// What it is worth, and the value that was read; for people.
    pub detail: String,
}

/// Reads every protection back: what counts is what the system says now, not what was asked for.
///
/// See proc(5), prctl(2), getrlimit(2).
#[must_use]
pub fn protections() -> Vec<Protection> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let core_pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let mut found = of_process();
    found.extend(of_status(&status));
    found.extend(of_host(&swaps, &core_pattern));
    found.sort_by_key(|protection| protection.name);
    found
}

fn protection(name: &'static str, in_force: bool, detail: impl Into<String>) -> Protection {
    Protection { name, in_force, detail: detail.into() }
}

fn of_process() -> Vec<Protection> {
    let core = process::getrlimit(Resource::Core);
    let locked = process::getrlimit(Resource::Memlock).current;
    let locked_text = locked.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
    let hidden = process::dumpable_behavior() == Ok(process::DumpableBehavior::NotDumpable);
    vec![
        protection(
            "core_files_off",
            core.current == Some(0) && core.maximum == Some(0),
            "the limit for core files is zero",
        ),
        protection("dumpable_off", hidden, "nobody but root attaches or reads /proc/PID/mem"),
        protection(
            "executable_memory_off",
            refuses_executable_memory(),
            "no memory becomes executable (PR_SET_MDWE, Linux 6.3)",
        ),
        protection(
            "locked_memory",
            locked.is_none_or(|bytes| bytes >= LOCKED_BYTES_MIN),
            format!("the limit for locked memory is {locked_text} bytes"),
        ),
    ]
}

/// A page for the master key, and some to spare.
const LOCKED_BYTES_MIN: u64 = 64 * 1024;

/// From `/proc/thread-self/status`: some of it is each thread's own.
fn of_status(status: &str) -> Vec<Protection> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim()
    };
    let capabilities = u64::from_str_radix(field("CapEff"), 16).unwrap_or(u64::MAX);
    let speculation = field("Speculation_Store_Bypass");
    vec![
        protection(
            "capabilities_dropped",
            capabilities & (CAP_SYS_PTRACE | CAP_SYS_ADMIN) == 0,
            "neither CAP_SYS_PTRACE nor CAP_SYS_ADMIN",
        ),
        protection(
            "no_new_privileges",
            field("NoNewPrivs") == "1",
            "no program that is started has more privileges",
        ),
        protection(
            "speculation_limited",
            speculation.contains("mitigated") || speculation.contains("not vulnerable"),
            format!("speculative store bypass: {speculation}"),
        ),
        protection(
            "system_calls_filtered",
            field("Seccomp") == "2",
            "a filter of system calls (seccomp), as the systemd unit sets it",
        ),
        protection("umask_private", field("Umask") == "0077", "new files are their owner's alone"),
    ]
}

/// Bits of `CapEff` (capabilities(7)).
const CAP_SYS_PTRACE: u64 = 1 << 19;
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// From `/proc/swaps` and `/proc/sys/kernel/core_pattern`.
fn of_host(swaps: &str, core_pattern: &str) -> Vec<Protection> {
    let piped = core_pattern.starts_with('|');
    vec![
        protection(
            "core_pattern_plain",
            !core_pattern.is_empty() && !piped,
            if piped { "core files are piped to a program" } else { "no program takes core files" },
        ),
        protection(
            "swap_off",
            // The first line is the heading.
            swaps.lines().count() == 1,
            "nothing is written to swap; where there is swap, it must be enciphered",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_force(found: &[Protection], name: &str) -> bool {
        found.iter().find(|protection| protection.name == name).unwrap().in_force
    }

    #[test]
    fn the_status_of_a_hardened_process_is_understood() {
        let status = "Name:\tfirstkeyd\nUmask:\t0077\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n\
            Seccomp:\t2\nSpeculation_Store_Bypass:\tthread force mitigated\n";
        assert!(of_status(status).iter().all(|protection| protection.in_force));
    }

    #[test]
    fn whatever_is_not_there_or_otherwise_is_not_in_force() {
        assert!(of_status("").iter().all(|protection| !protection.in_force));
        let status = "Umask:\t0022\nCapEff:\t000001ffffffffff\nNoNewPrivs:\t0\nSeccomp:\t0\n\
            Speculation_Store_Bypass:\tthread vulnerable\n";
        assert!(of_status(status).iter().all(|protection| !protection.in_force));
        let ptrace = of_status("CapEff:\t0000000000080000");
        assert!(!in_force(&ptrace, "capabilities_dropped"));
    }

    #[test]
    fn swap_and_piped_core_files_are_seen() {
        let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        let bare = of_host(heading, "core\n");
        assert!(bare.iter().all(|protection| protection.in_force));
        let swap = format!("{heading}/swap.img file 2097148 0 -2\n");
        assert!(!in_force(&of_host(&swap, "core"), "swap_off"));
        assert!(!in_force(&of_host("", "core"), "swap_off"));
        assert!(!in_force(&of_host(heading, "|/usr/bin/collect %p"), "core_pattern_plain"));
        assert!(!in_force(&of_host(heading, ""), "core_pattern_plain"));
    }

    #[test]
    fn each_is_named_once_and_in_order() {
        let names: Vec<_> = protections().iter().map(|protection| protection.name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
    }
}
