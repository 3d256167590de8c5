//! A disk that is full, a write that fails, a store that hangs: no call succeeds without its event,
//! each is answered within a bound, and afterwards the chain of events is whole.
//!
//! The faults are the kernel's own, about a real `firstkeyd`: a small file system that is filled,
//! and system calls that `strace` lets fail or wait. Where this may not mount or trace, it says so.

#![allow(clippy::disallowed_methods, reason = "tells how long calls take")]

#[path = "faults/change.rs"]
mod change;
#[path = "setup/firstkeyd.rs"]
mod firstkeyd;
#[path = "faults/outside.rs"]
mod outside;
#[path = "faults/service.rs"]
mod service;
#[path = "setup/trouble.rs"]
mod trouble;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::change::Changes;
use crate::service::{Outcome, Service};
use crate::trouble::{Folder, SYNCS, SmallDisk, Tracer, say};

/// What a call is waited for, and some time for a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(10 + 15);

/// Makes every call of the API once, each with an empty body, and some whose body is right, and
/// expects that none of them succeeds and all are answered in time. Health tells what is wrong.
async fn nothing_succeeds(service: &Service, changes: &Changes) -> usize {
    changes.are_refused(service).await;
    let (code, detail) = service.comes_to_be("audit", false).await;
    assert_eq!(code, 503, "{detail}");
    assert!(detail.contains("no event can be written"), "{detail}");
    let status = service.tool(&["status"]);
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(!status.status.success() && said.contains("/readyz"), "{said}");
    let began = Instant::now();
    let mut outcomes = service.call_everything().await;
    outcomes.extend(service.use_key(5).await);
    for outcome in &outcomes {
        assert!(outcome.reason.is_some(), "{} succeeded without an event", outcome.call);
        assert!(outcome.took < ANSWER_MAX, "{} took {:?}", outcome.call, outcome.took);
    }
    let of = |reason: &str| {
        outcomes.iter().filter(|outcome| outcome.reason.as_deref() == Some(reason)).count()
    };
    let unavailable = of("STORE_UNAVAILABLE") + of("AUDIT_UNAVAILABLE");
    say(&format!(
        "{} calls, none succeeded: {unavailable} UNAVAILABLE, the others refused before; {:?}",
        outcomes.len(),
        began.elapsed()
    ));
    unavailable
}

/// Every call that was acknowledged has its event, each change was made once, and the log verifies
/// from its first on.
fn the_log_is_whole(service: &Service, acknowledged: usize, folder: &Path) {
    let events = service.verified_export(folder);
    let told = events.iter().filter(|event| event["action"] == "GenerateMac");
    let done = told.filter(|event| event["decision"] == "done").count();
    assert!(done >= acknowledged, "{acknowledged} acknowledged, {done} in the log");
    Changes::were_done_once(&events);
}

pub(crate) fn acknowledged(outcomes: &[Outcome]) -> usize {
    outcomes.iter().filter(|outcome| outcome.reason.is_none()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_lets_nothing_pass_and_keeps_a_place_for_those_who_mend_it() {
    let Some(disk) = SmallDisk::mount(48) else {
        return say("NOT RUN: a full disk: this may not mount a file system");
    };
    let folder = Folder::new();
    let service = Service::start(disk.path(), &["--audit-reserve-mib", "8"]);
    service.make_key().await;
    let changes = Changes::prepare(&service).await;
    let mut done = acknowledged(&service.use_key(5).await);
    assert_eq!(done, 5);

    // Less is free than is kept: backends are refused, officers go on.
    disk.fill(4 << 20);
    let refused = service.refused_with(&service.use_key(1).await, "AUDIT_UNAVAILABLE").await;
    assert!(refused, "the reserve is not for backends");
    assert!(service.list_keys().await.reason.is_none(), "the reserve is for officers");
    // Health says who is refused, by the same measure.
    let (code, detail) = service.comes_to_be("disk", false).await;
    assert_eq!(code, 200, "{detail}");
    while !service.ready("disk").2.contains("AUDIT_UNAVAILABLE") {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // Nothing is free.
    disk.fill(0);
    service.exhaust().await;
    assert!(nothing_succeeds(&service, &changes).await > 10);
    disk.empty();
    assert!(service.recovers().await, "it serves again without a restart");
    changes.have_changed_nothing(&service).await;
    changes.succeed(&service).await;
    done += acknowledged(&service.use_key(5).await);
    the_log_is_whole(&service, done, &folder.0);
    let service = service.restart();
    the_log_is_whole(&service, done, &folder.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_was_cut_off_leaves_nothing_in_the_way() {
    let Some(disk) = SmallDisk::mount(1) else {
        return say("NOT RUN: an export to a full disk: this may not mount a file system");
    };
    let folder = Folder::new();
    let service = Service::start(&folder.0.join("data"), &[]);
    service.make_key().await;
    let out = disk.path().join("audit.jsonl");
    let export = ["audit", "export", "--out", out.to_str().expect("text")];
    disk.fill(0);
    assert!(!service.tool(&export).status.success(), "there is no room");
    let left: Vec<_> = std::fs::read_dir(disk.path()).expect("a folder").collect();
    assert_eq!(left.len(), 1, "the ballast alone: {left:?}");
    disk.empty();
    assert!(service.tool(&export).status.success(), "there is room");
    // What is in the way is named.
    std::fs::remove_file(&out).expect("removed");
    let said = String::from_utf8_lossy(&service.tool(&export).stderr).into_owned();
    assert!(said.contains("audit.jsonl.checkpoint is there already"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_write_that_fails_nothing_is_served_until_a_restart() {
    let folder = Folder::new();
    let data = folder.0.join("data");
    let service = Service::start(&data, &[]);
    service.make_key().await;
    let changes = Changes::prepare(&service).await;
    let done = acknowledged(&service.use_key(5).await);
    let Some(tracer) = Tracer::attach(service.id(), SYNCS, "error=EIO") else {
        return say("NOT RUN: a failing fdatasync: this may not trace");
    };
    assert!(nothing_succeeds(&service, &changes).await > 10);
    drop(tracer);
    // What the kernel did with the pages can not be known, so it serves no more of its own.
    assert!(nothing_succeeds(&service, &changes).await > 10);
    let service = service.restart();
    // What was not known of them then, a repetition finds out.
    changes.succeed(&service).await;
    let done = done + acknowledged(&service.use_key(5).await);
    the_log_is_whole(&service, done, &folder.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_holds_nobody_up_and_serves_again() {
    let folder = Folder::new();
    let service = Service::start(&folder.0.join("data"), &[]);
    service.make_key().await;
    let changes = Changes::prepare(&service).await;
    let done = acknowledged(&service.use_key(5).await);
    // A minute for each write: longer than anybody waits.
    let Some(tracer) = Tracer::attach(service.id(), SYNCS, "delay_enter=60000000") else {
        return say("NOT RUN: a store that hangs: this may not trace");
    };
    assert!(nothing_succeeds(&service, &changes).await > 10);
    drop(tracer);
    assert!(service.recovers().await, "it serves again without a restart");
    changes.succeed(&service).await;
    let done = done + acknowledged(&service.use_key(5).await);
    the_log_is_whole(&service, done, &folder.0);
    let service = service.restart();
    the_log_is_whole(&service, done, &folder.0);
}
