//! The hardening of the process; alone in its own, for it cannot be undone.

use firstkey::memory::{Hardening, harden_process};

#[test]
fn linux_grants_all_of_it_to_anybody() {
    let all = Hardening {
        core_files_off: true,
        dumpable_off: true,
        no_new_privileges: true,
        umask_private: true,
    };
    assert_eq!(harden_process(), all);
}
