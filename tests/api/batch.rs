//! `BatchCreateTerminals`: each entry for itself, in order, once.

use std::collections::BTreeSet;
use std::sync::Arc;

use firstkey::grpc::client::Client;
use firstkey::grpc::proto::create_terminal_result::Result as Outcome;
use firstkey::grpc::{BATCH_LEN_BYTES_MAX, MESSAGE_LEN_BYTES_MAX, Trust, proto};
use firstkey::server::dev::{self, Pki};
use firstkey::vault::store::MemoryStore;
use firstkey::vault::{Action, Caller};
use tonic::{Response, Status};

use crate::harness::{
    BEGIN_SECONDS, HOUR, Service, TestClock, answer, create_terminal_request, refusal, serial_of,
    state_name,
};

fn registration(id: &str) -> proto::CreateTerminalRequest {
    create_terminal_request(id, &serial_of(id), "dev-aes")
}

async fn send(
    client: &Client,
    entries: &[proto::CreateTerminalRequest],
) -> Result<Response<proto::BatchCreateTerminalsResponse>, Status> {
    let request = proto::BatchCreateTerminalsRequest { entries: entries.to_vec() };
    client.terminals().batch_create_terminals(request).await
}

/// What became of each entry of a batch that is taken.
async fn outcomes(service: &Service, entries: &[proto::CreateTerminalRequest]) -> Vec<Outcome> {
    let answered = answer(send(&service.client, entries).await);
    assert_eq!(answered.results.len(), entries.len());
    answered.results.into_iter().map(|result| result.result.expect("an outcome")).collect()
}

/// The name of the terminal, or the reason of the refusal.
fn told(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Terminal(terminal) => &terminal.name,
        Outcome::Refusal(refusal) => &refusal.reason,
    }
}

fn told_of(outcomes: &[Outcome]) -> Vec<&str> {
    outcomes.iter().map(told).collect()
}

async fn listed(service: &Service) -> Vec<String> {
    let request = proto::ListTerminalsRequest { page_size: 100, ..Default::default() };
    let page = answer(service.client.terminals().list_terminals(request).await);
    assert_eq!(page.next_page_token, "");
    page.terminals.into_iter().map(|terminal| terminal.name).collect()
}

#[tokio::test]
async fn each_entry_is_registered_or_refused_for_itself_and_in_order() {
    let service = Service::start_durable().await;
    service.register("taken", firstkey::agreement::Suite::P256Aes128).await;
    let mut entries = ["a", "b", "c", "d", "taken", "e"].map(registration).to_vec();
    entries[1].merchant.as_mut().unwrap().display_name = "n".repeat(41);
    entries[2].profile = "profiles/dev-tdes".to_owned();
    entries[2].merchant_standing = proto::MerchantStanding::Pending.into();
    entries[3].profile.push('x');
    let outcomes = outcomes(&service, &entries).await;
    let expected = [
        "terminals/a",
        "FIELD_INVALID",
        "terminals/c",
        "RESOURCE_NOT_FOUND",
        "TERMINAL_ALREADY_EXISTS",
        "terminals/e",
    ];
    assert_eq!(told_of(&outcomes), expected);
    assert_eq!(
        listed(&service).await,
        ["a", "c", "e", "taken"].map(|id| format!("terminals/{id}"))
    );

    // A terminal is answered as it is; a refusal as the call alone would be refused.
    let Outcome::Terminal(held) = &outcomes[2] else { panic!("a terminal") };
    assert_eq!((state_name(held).as_str(), held.profile.as_str()), ("HELD", "profiles/dev-tdes"));
    for (entry, outcome) in entries.iter().zip(&outcomes) {
        let Outcome::Refusal(batch) = outcome else { continue };
        let alone = refusal(service.client.terminals().create_terminal(entry.clone()).await);
        let fields = batch.field_violations.iter();
        let fields = fields.map(|wrong| (wrong.field.clone(), wrong.description.clone()));
        assert_eq!(fields.collect::<Vec<_>>(), alone.fields);
        assert_eq!((&batch.reason, &batch.message), (&alone.reason, &alone.message));
        assert_eq!(batch.metadata.len(), alone.metadata.len());
    }
    let Outcome::Refusal(refused) = &outcomes[1] else { panic!("a refusal") };
    assert_eq!(refused.field_violations[0].field, "merchant.display_name");
}

#[tokio::test]
async fn of_two_with_one_id_or_serial_the_second_is_refused() {
    let service = Service::start_durable().await;
    let mut entries = ["a", "b", "c", "b", "d"].map(registration).to_vec();
    // `b` shares the serial of `a`; so its id is free for the later `b`, which has its own.
    entries[1].serial = serial_of("a");
    entries[4].terminal_id = "c".to_owned();
    let told = told_of(&outcomes(&service, &entries).await).join(" ");
    let exists = "TERMINAL_ALREADY_EXISTS";
    assert_eq!(told, format!("terminals/a {exists} terminals/c terminals/b {exists}"));
    assert_eq!(service.get("b").await.serial, serial_of("b"));

    // A master key is of one device: of two with one key too, the second is refused.
    let with_key = |id: &str, key: &str| proto::CreateTerminalRequest {
        profile: format!("profiles/{}", dev::PROFILE_MASTER_AES),
        kind: proto::TerminalKind::MasterKey.into(),
        device_authority: String::new(),
        master_key: format!("keys/{key}"),
        ..registration(id)
    };
    let both = [with_key("k", "dev-master-aes"), with_key("l", "dev-master-aes")];
    let told = outcomes(&service, &both).await;
    assert_eq!(told_of(&told), ["terminals/k", "RESOURCE_ALREADY_EXISTS"]);

    // However many want one serial: one has it.
    let many: Vec<_> = (0..100)
        .map(|number| proto::CreateTerminalRequest {
            serial: "SN-WANTED".to_owned(),
            ..registration(&format!("many-{number}"))
        })
        .collect();
    let outcomes = outcomes(&service, &many).await;
    assert_eq!(told_of(&outcomes)[0], "terminals/many-0");
    assert!(told_of(&outcomes)[1..].iter().all(|told| *told == exists));
}

#[tokio::test]
async fn a_batch_that_is_repeated_whole_or_in_part_is_answered_the_same() {
    let service = Service::start_durable().await;
    let entries = ["a", "b", "c"].map(registration);
    let first = outcomes(&service, &entries).await;
    service.clock.advance(60);
    assert!(outcomes(&service, &entries).await == first);
    let [a, b, c] = &entries;
    assert!(
        outcomes(&service, &[c.clone(), a.clone()]).await
            == [&first[2], &first[0]].map(Clone::clone)
    );
    let alone = answer(service.client.terminals().create_terminal(b.clone()).await);
    assert!(alone.terminal.map(Outcome::Terminal).as_ref() == Some(&first[1]));

    // Registered alone first, it is answered the same in a batch; twice in one batch as well.
    let alone = registration("alone");
    answer(service.client.terminals().create_terminal(alone.clone()).await);
    let twice = registration("twice");
    let both = outcomes(&service, &[alone, twice.clone(), twice]).await;
    assert_eq!(told_of(&both), ["terminals/alone", "terminals/twice", "terminals/twice"]);

    // An id that was used with another body is refused, in the same batch too.
    let reused =
        proto::CreateTerminalRequest { request_id: a.request_id.clone(), ..registration("d") };
    let fresh = registration("e");
    let again =
        proto::CreateTerminalRequest { request_id: fresh.request_id.clone(), ..registration("f") };
    let told = outcomes(&service, &[reused, fresh, again]).await;
    assert_eq!(told_of(&told), ["REQUEST_ID_REUSED", "terminals/e", "REQUEST_ID_REUSED"]);
    service.clock.advance(24 * HOUR);
    let later = outcomes(&service, &entries).await;
    assert_eq!(told_of(&later), ["TERMINAL_ALREADY_EXISTS"; 3]);
}

#[tokio::test]
async fn each_entry_has_its_own_audit_event() {
    let service = Service::start_durable().await;
    let before = service.vault.events_after(0, 1_000).await.unwrap().len();
    let mut entries: Vec<_> = (0..20).map(|number| registration(&format!("t-{number}"))).collect();
    entries[7].profile.push('x');
    outcomes(&service, &entries).await;
    let events = service.vault.events_after(0, 1_000).await.unwrap();
    let events = &events[before..];
    assert!(events.iter().all(|event| event.action == Action::CreateTerminal.as_str()));
    let about = |is_done: bool| -> BTreeSet<&str> {
        let events = events.iter().filter(|event| event.is_done() == is_done);
        events.map(|event| event.resource.as_str()).collect()
    };
    assert_eq!(events.len(), entries.len());
    assert_eq!(about(true).len(), 19);
    assert_eq!(about(false), BTreeSet::from(["terminals/t-7"]));
    service.vault.verify_chain().await.unwrap();
}

#[tokio::test]
async fn a_batch_is_bounded_in_entries_and_bytes_and_no_other_call_gets_its_bound() {
    let service = Service::start().await;
    let many = |count: usize| -> Vec<_> {
        (0..count).map(|number| registration(&format!("t-{number}"))).collect()
    };
    for count in [0, 501] {
        let refused = refusal(send(&service.client, &many(count)).await);
        assert_eq!(refused.reason, "FIELD_INVALID");
        assert_eq!(refused.fields[0].0, "entries");
    }
    // As many as there may be, each as long as it may be.
    let longest: Vec<_> = (100..600)
        .map(|number| {
            let mut entry = registration(&format!("{}-{number}", "t".repeat(59)));
            entry.serial = format!("{}-{number}", "S".repeat(28));
            let merchant = entry.merchant.as_mut().unwrap();
            merchant.merchant_id = "M".repeat(15);
            merchant.display_name = "\u{1f3ea}".repeat(40);
            entry
        })
        .collect();
    let taken = outcomes(&service, &longest).await;
    assert!(taken.iter().all(|outcome| matches!(outcome, Outcome::Terminal(_))));

    let mut long = registration("long");
    long.model = "m".repeat(BATCH_LEN_BYTES_MAX);
    assert_eq!(refusal(send(&service.client, &[long]).await).reason, "MESSAGE_INVALID");
    let mut long = registration("long");
    long.model = "m".repeat(MESSAGE_LEN_BYTES_MAX);
    let told = outcomes(&service, std::slice::from_ref(&long)).await;
    assert_eq!(told_of(&told), ["FIELD_INVALID"]);
    let alone = refusal(service.client.terminals().create_terminal(long).await);
    assert_eq!(alone.reason, "MESSAGE_INVALID", "one terminal needs no more than 64 KiB");
}

#[tokio::test]
async fn a_stranger_registers_none() {
    let clock = TestClock::begin();
    let pki = Pki::generate(BEGIN_SECONDS).expect("authorities");
    let stranger = Trust::ForDevOnly(Caller::stranger("payments", ""));
    let store = Arc::new(MemoryStore::new());
    let service = Service::start_with(store, None, clock, pki, stranger).await;
    let refused = refusal(send(&service.client, &["a", "b"].map(registration)).await);
    assert_eq!(refused.reason, "CALLER_UNKNOWN");
}
