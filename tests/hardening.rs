//! The hardening of the process; alone in its own, for it cannot be undone.

use firstkey::memory::{harden_process, protections};

#[test]
fn linux_grants_it_to_anybody_and_it_is_read_back() {
    let asked = [
        "capabilities_dropped",
        "core_files_off",
        "dumpable_off",
        "no_new_privileges",
        "umask_private",
    ];
    let given = harden_process();
    assert_eq!(given, protections());
    for name in asked {
        let found = given.iter().find(|protection| protection.name == name);
        assert!(found.is_some_and(|protection| protection.in_force), "{name}: {found:?}");
    }
}
