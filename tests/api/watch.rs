//! The stream of transitions: complete, in order, resumable.

use std::time::Duration;

use firstkey::activation::Call;
use firstkey::agreement::Suite;
use firstkey::grpc::proto;
use tonic::Streaming;

use crate::harness::Service;

const AES: Suite = Suite::P256Aes128;

type Stream = Streaming<proto::WatchTerminalsResponse>;

async fn watch(service: &Service, after_sequence: u64, terminal: &str) -> Stream {
    let terminal = terminal.to_owned();
    let request = proto::WatchTerminalsRequest { after_sequence, terminal };
    crate::harness::answer(service.client.terminals().watch_terminals(request).await)
}

/// The next of a stream, which must come.
async fn next(stream: &mut Stream) -> proto::WatchTerminalsResponse {
    let message = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
    let message = message.expect("a transition comes in time");
    message.unwrap_or_else(|status| panic!("{status}")).expect("the stream goes on")
}

async fn take(stream: &mut Stream, count: usize) -> Vec<proto::WatchTerminalsResponse> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(next(stream).await);
    }
    taken
}

#[tokio::test]
async fn a_watcher_is_told_every_transition_in_order_as_it_happens() {
    let service = Service::start_durable().await;
    let mut stream = watch(&service, 0, "terminals/till").await;
    let mut till = service.active_till("till", AES).await;
    let _ = service.active_till("other", AES).await;
    let timeline = service.get("till").await.timeline;
    let told = take(&mut stream, timeline.len()).await;
    for (told, entry) in told.iter().zip(&timeline) {
        assert_eq!(told.terminal, "terminals/till");
        // The event has its time from its commit, the entry from its call.
        let mut told = told.entry.clone().expect("an entry");
        told.time = entry.time;
        assert!(told == *entry, "{} is told otherwise", entry.step);
    }
    assert!(told.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    // What fails is told too, and the first transaction under the keys.
    crate::transactions::verify(&service, &till.purchase(&service)).await.unwrap();
    assert_eq!(next(&mut stream).await.entry.unwrap().step, "FirstTransaction");
    service.must(Call::SuspendTerminal, "till").await;
    assert_eq!(next(&mut stream).await.entry.unwrap().step, "SuspendTerminal");
}

#[tokio::test]
async fn a_watcher_resumes_from_any_sequence_without_gap_or_repeat() {
    let service = Service::start_durable().await;
    for id in ["one", "two"] {
        service.active_till(id, AES).await;
    }
    let mut count = 0;
    for id in ["one", "two"] {
        count += service.get(id).await.timeline.len();
    }
    let all = take(&mut watch(&service, 0, "").await, count).await;
    for cut in 0..=count {
        let after = if cut == 0 { 0 } else { all[cut - 1].sequence };
        let rest = take(&mut watch(&service, after, "").await, count - cut).await;
        assert!(rest == all[cut..], "resumed after {after}");
    }
    // Broken off in the middle of what happens, and taken up again, as often as it likes.
    let mut told = Vec::new();
    let mut last = all[count - 1].sequence;
    for round in 0..5 {
        let mut stream = watch(&service, last, "terminals/one").await;
        service.must(Call::SuspendTerminal, "one").await;
        service.must(Call::ResumeTerminal, "one").await;
        service.must(Call::SuspendTerminal, "two").await;
        service.must(Call::ResumeTerminal, "two").await;
        let taken = take(&mut stream, 1 + round % 2).await;
        last = taken.last().unwrap().sequence;
        told.extend(taken);
    }
    let missing = 10 - told.len();
    told.extend(take(&mut watch(&service, last, "terminals/one").await, missing).await);
    let steps: Vec<String> = told.into_iter().map(|told| told.entry.unwrap().step).collect();
    let timeline = service.get("one").await.timeline;
    let expected: Vec<String> =
        timeline[timeline.len() - 10..].iter().map(|entry| entry.step.clone()).collect();
    assert_eq!(steps, expected);
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "a measurement is of the time that goes by")]
async fn a_watcher_of_a_long_log_rests_between_its_readings() {
    let service = Service::start().await;
    // Each of them leaves an event.
    for batch in 0..3 {
        let entry = |number: usize| {
            let id = format!("a-{batch}-{number:03}");
            crate::harness::create_terminal_request(&id, &format!("SN-{id}"), "dev-aes")
        };
        let entries = (0..400).map(entry).collect();
        let request = proto::BatchCreateTerminalsRequest { entries };
        crate::harness::answer(service.client.terminals().batch_create_terminals(request).await);
    }
    service.register("last", AES).await;
    let began = std::time::Instant::now();
    let told = next(&mut watch(&service, 0, "terminals/last").await).await;
    // 1,200 events and more are read in seven readings of 200.
    let took = began.elapsed();
    assert_eq!(told.terminal, "terminals/last");
    assert!(took >= Duration::from_millis(6 * 50), "{took:?}");
}

#[tokio::test]
async fn a_watcher_is_let_go_when_the_service_drains() {
    let service = Service::start().await;
    let mut stream = watch(&service, 0, "").await;
    service.register("till", AES).await;
    assert_eq!(next(&mut stream).await.entry.unwrap().step, "CreateTerminal");
    let reading = tokio::spawn(async move { stream.message().await });
    service.stop().await;
    let ended = tokio::time::timeout(Duration::from_secs(10), reading).await;
    let ended = ended.expect("the stream ends").expect("the task ends");
    assert!(ended.is_ok_and(|message| message.is_none()), "it ended with an error");
}
