//! The newest checkpoint in a file: a store that was set back does not start against it, nor does one
//! whose file is gone; and a file that fails or hangs holds up no call.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use firstkey::grpc::proto;

use crate::acknowledged;
use crate::service::{Service, timed};
use crate::trouble::{Folder, Tracer, say};

/// A store, and a folder that stands for another disk.
struct Place {
    folder: Folder,
}

impl Place {
    fn new() -> Self {
        let folder = Folder::new();
        fs::create_dir(folder.0.join("outside")).expect("a folder");
        Self { folder }
    }

    fn data(&self) -> PathBuf {
        self.folder.0.join("data")
    }

    fn file(&self) -> PathBuf {
        self.folder.0.join("outside/checkpoint")
    }

    fn start(&self, flags: &[&str]) -> Service {
        let file = self.file();
        let flags = [&["--checkpoint", file.to_str().expect("text")], flags].concat();
        Service::start(&self.data(), &flags)
    }

    fn refuses_to_start(&self) -> String {
        let file = self.file();
        Service::refuses_to_start(&self.data(), &["--checkpoint", file.to_str().expect("text")])
    }

    /// How many events the checkpoint in the file covers; 0 if there is none.
    fn covered(&self) -> u64 {
        let note = fs::read_to_string(self.file()).unwrap_or_default();
        note.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or(0)
    }

    /// Waits until the file covers more events than these.
    async fn covers_more_than(&self, size: u64) -> u64 {
        let began = Instant::now();
        while self.covered() <= size {
            assert!(began.elapsed() < Duration::from_mins(1), "{} are covered", self.covered());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.covered()
    }
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(done.expect("cp is there").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_set_back_does_not_start_against_the_file_outside() {
    let place = Place::new();
    let service = place.start(&[]);
    service.make_key().await;
    let before = place.covers_more_than(0).await;
    service.kill();
    let (data, old) = (place.data(), place.folder.0.join("old"));
    copy(&data, &old);

    let service = place.start(&[]);
    assert_eq!(acknowledged(&service.use_key(5).await), 5);
    place.covers_more_than(before + 5).await;
    service.kill();
    let new = place.folder.0.join("new");
    fs::rename(&data, &new).expect("moved");
    copy(&old, &data);
    let said = place.refuses_to_start();
    assert!(said.contains("rolled back: the checkpoint outside covers"), "{said}");

    // Written on from there without the file, it is another log.
    let service = Service::start(&data, &[]);
    let size = place.covered();
    while service.verified_export(&place.folder.0).len() < usize::try_from(size).expect("few") + 2 {
        service.use_key(5).await;
    }
    service.kill();
    let said = place.refuses_to_start();
    assert!(said.contains("forked: the first"), "{said}");

    fs::remove_dir_all(&data).expect("removed");
    fs::rename(&new, &data).expect("moved");
    drop(place.start(&[]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_file_is_gone_it_starts_on_purpose_alone() {
    let place = Place::new();
    let service = place.start(&[]);
    service.make_key().await;
    let covered = place.covers_more_than(0).await;
    // That something is outside is noted with the next.
    assert_eq!(acknowledged(&service.use_key(5).await), 5);
    place.covers_more_than(covered + 4).await;
    service.kill();
    fs::remove_file(place.file()).expect("removed");
    let said = place.refuses_to_start();
    assert!(said.contains("no checkpoint is outside, and one was kept there"), "{said}");
    assert!(said.contains("--new-checkpoint"), "{said}");

    let service = place.start(&["--new-checkpoint"]);
    place.covers_more_than(covered).await;
    let events = service.verified_export(&place.folder.0);
    let started = events.iter().filter(|event| event["action"] == "StartService");
    let told: Vec<_> = started.map(|event| &event["detail"]["checkpoint"]).collect();
    assert_eq!(told.len(), 2, "the start that was refused wrote nothing");
    assert!(told[0].is_null());
    assert_eq!(told[1], "begun anew");
    service.kill();
    drop(place.start(&[]));

    // What is in its place and no file is not waited for.
    fs::remove_file(place.file()).expect("removed");
    let made = Command::new("mkfifo").arg(place.file()).status();
    assert!(made.expect("mkfifo is there").success());
    let said = place.refuses_to_start();
    assert!(said.contains("it is not a file"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_fails_is_told_and_tried_again() {
    let place = Place::new();
    let service = place.start(&[]);
    service.make_key().await;
    let covered = place.covers_more_than(0).await;
    assert_eq!(service.comes_to_be("checkpoint", true).await, (200, String::new()));
    let (outside, away) = (place.folder.0.join("outside"), place.folder.0.join("away"));
    fs::rename(&outside, &away).expect("moved");
    goes_on_and_tells(&service).await;
    fs::rename(&away, &outside).expect("moved");
    place.covers_more_than(covered + 5).await;
    assert_eq!(service.comes_to_be("checkpoint", true).await, (200, String::new()));
    let left = fs::read_dir(&outside).expect("a folder").count();
    assert_eq!(left, 1, "nothing is left beside the file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_hangs_holds_up_nobody() {
    let place = Place::new();
    let service = place.start(&[]);
    service.make_key().await;
    let covered = place.covers_more_than(0).await;
    // Two minutes for each rename: the store makes none.
    let calls = "rename,renameat,renameat2";
    let Some(tracer) = Tracer::attach(service.id(), calls, "delay_enter=120000000") else {
        return say("NOT RUN: a checkpoint's file that hangs: this may not trace");
    };
    goes_on_and_tells(&service).await;
    // Some hundred tries would have used up every thread that reads the store.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        assert_eq!(acknowledged(&service.use_key(5).await), 5);
    }
    drop(tracer);
    place.covers_more_than(covered + 5).await;
    assert_eq!(service.comes_to_be("checkpoint", true).await, (200, String::new()));
}

/// While the file does not take a checkpoint, calls go on, checkpoints are given out, and health
/// and status tell what is wrong.
async fn goes_on_and_tells(service: &Service) {
    assert_eq!(acknowledged(&service.use_key(5).await), 5);
    let (code, detail) = service.comes_to_be("checkpoint", false).await;
    assert_eq!(code, 200, "it serves");
    assert!(detail.contains("has not been kept outside for"), "{detail}");
    let mut audit = service.client().await.audit();
    let signed = audit.get_checkpoint(proto::GetCheckpointRequest {});
    let signed = timed("GetCheckpoint", signed).await;
    assert_eq!(signed.reason, None);
    assert!(signed.took < Duration::from_secs(5), "{:?}", signed.took);
    let status = service.tool(&["status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status.status.code(), Some(6), "{said}");
    assert!(said.contains("has not been kept outside for"), "{said}");
    assert_eq!(acknowledged(&service.use_key(5).await), 5);
}
