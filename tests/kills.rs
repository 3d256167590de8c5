//! Kills the real service with SIGKILL, again and again, and holds it to what it acknowledged.
//!
//! Two lanes run side by side, one of AES and one of TDES terminals, each with a `firstkeyd` of its
//! own over one store. A kill comes after the reply of each step, with the reply kept or
//! lost by the device, or at a random microsecond while requests are in flight. After each the
//! service starts again on the same store and the terminal goes on, as often as not from its saved
//! memory alone, as a device that lost its power too.

#[path = "kills/device.rs"]
mod device;
#[path = "setup/firstkeyd.rs"]
mod firstkeyd;
#[path = "kills/lane.rs"]
mod lane;
#[path = "kills/service.rs"]
mod service;

use std::io::Write as _;

use firstkey::agreement::Suite;
use firstkey::server::dev::{PROFILE_AES, PROFILE_TDES};

use crate::lane::{Lane, Tally};

/// The least that the whole test must have done, whatever the timing of the machine.
const KILLS_MIN: usize = 200;
const IN_FLIGHT_MIN: usize = 60;

/// Terminals of a lane that are killed after each reply, once with and once without the reply.
const STEPPED: usize = 2;
/// Kills of a lane at random moments of activations, and of PIN and MAC traffic.
const RANDOM_KILLS: usize = 45;
const TRAFFIC_KILLS: usize = 25;

#[test]
fn two_hundred_kills_burn_no_code_issue_no_key_id_twice_and_lose_nothing_acknowledged() {
    let lanes = [
        ("aes", "127.0.0.2", PROFILE_AES, Suite::P256Aes128, 0x5EED_0001),
        ("tdes", "127.0.0.3", PROFILE_TDES, Suite::P256Tdes2, 0x5EED_0002),
    ];
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let running: Vec<_> = lanes
            .into_iter()
            .map(|(name, address, profile, suite, seed)| {
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .expect("a runtime starts");
                    runtime.block_on(run(Lane::begin(name, address, profile, suite, seed)))
                })
            })
            .collect();
        running
            .into_iter()
            .map(|lane| match lane.join() {
                Ok(tally) => tally,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    });
    let total = tallies.into_iter().fold(Tally::default(), Tally::and);
    say(&format!("{total}"));
    assert!(total.kills() >= KILLS_MIN, "{total}");
    assert!(total.in_flight >= IN_FLIGHT_MIN, "{total}");
    assert!(total.replays_refused >= 2 * TRAFFIC_KILLS, "{total}");
}

/// One lane from an empty store to the audit of what it wrote.
async fn run(mut lane: Lane) -> Tally {
    for _ in 0..STEPPED {
        lane.kill_after_each_reply(true).await;
        lane.kill_after_each_reply(false).await;
    }
    lane.kill_at_random_while_activating(RANDOM_KILLS).await;
    lane.kill_at_random_in_traffic(TRAFFIC_KILLS).await;
    lane.audit().await
}

/// Written past the test harness, which hides what a passing test prints.
fn say(line: &str) {
    writeln!(std::io::stderr(), "\n{line}").expect("standard error is open");
}
