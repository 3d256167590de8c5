//! A disk that is full and a write that fails in the middle of a ceremony: the step is refused, it
//! did not happen or happened whole, and the people go on.

use std::time::Duration;

use firstkey::command::ceremony::record::CeremonyState;
use firstkey::command::ceremony::step::Act;
use firstkey::grpc::client::ClientError;

use crate::kills::{Effect, GENERATE};
use crate::service::Service;
use crate::table::Table;
use crate::trouble::{SYNCS, SmallDisk, Tracer, say};

/// Looks are tried so often, each a fifth of a second after the other.
const LOOKS_MAX: u32 = 450;

/// The steps that something is lost in, if ever: a slip is given out, the key is made.
const STEPS: [usize; 2] = [3, 9];

fn reason(done: Result<(), ClientError>) -> String {
    done.unwrap_err().reason().unwrap_or_default().to_owned()
}

/// Whether a step was refused as one that can be done again.
fn is_refused(done: Result<(), ClientError>) -> bool {
    ["AUDIT_UNAVAILABLE", "STORE_UNAVAILABLE"].contains(&reason(done).as_str())
}

/// Does every step until so many are done.
async fn advance(table: &mut Table, steps: usize) {
    while table.view.steps_done < steps {
        table.step().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn on_a_full_disk_no_step_is_done_and_with_room_it_goes_on() {
    let Some(disk) = SmallDisk::mount(48) else {
        return say("NOT RUN: a ceremony on a full disk: this may not mount a file system");
    };
    let made = Effect::Made("keys/made");
    let service = Service::start_in(disk.path().to_owned(), "info");
    let mut table = Table::set(service, GENERATE).await;
    for steps in STEPS {
        advance(&mut table, steps).await;
        disk.fill(0);
        // What the store has in its file for itself is used up.
        let mut looks = 0;
        while table.try_to_look().await.is_ok() {
            looks += 1;
            assert!(looks < 10_000, "the disk is not full");
        }
        assert!(is_refused(table.step().await), "{:?}", table.awaited());
        disk.empty();
        let mut looks = 0;
        while table.try_to_look().await.is_err() {
            looks += 1;
            assert!(looks < LOOKS_MAX, "it does not serve again");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(table.view.steps_done, steps, "what was refused was not done");
        made.is_whole(&table).await;
    }
    finish(table, &made).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn after_a_write_that_fails_a_step_was_done_or_not_and_the_people_go_on() {
    let made = Effect::Made("keys/made");
    let mut table = Table::set(Service::start("info"), GENERATE).await;
    for steps in STEPS {
        advance(&mut table, steps).await;
        let Some(tracer) = Tracer::attach(table.service.id(), SYNCS, "error=EIO") else {
            return say("NOT RUN: a write that fails in a ceremony: this may not trace");
        };
        assert!(is_refused(table.step().await), "{:?}", table.awaited());
        drop(tracer);
        // Until it is started anew nothing is served: nobody knows what is written.
        assert!(is_refused(table.step().await));
        table.restart().await;
        assert!((steps..=steps + 1).contains(&table.view.steps_done));
        made.is_whole(&table).await;
    }
    finish(table, &made).await;
}

async fn finish(mut table: Table, made: &Effect) {
    while let Some(step) = table.awaited() {
        assert_ne!(step.act, Act::Join);
        table.step().await.unwrap();
    }
    assert_eq!(table.view.state, CeremonyState::Closed);
    assert!(!table.verified().await.aborted);
    made.is_whole(&table).await;
}
