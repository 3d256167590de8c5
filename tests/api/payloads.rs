//! What is wrong in the bytes of a step: each is refused, by name where a name helps nobody else.

use firstkey::activation::payload::{
    ConfirmedKey, Fault, Outcome, ParametersRequest, Payload as _, Report,
};
use firstkey::activation::{Step, Transcript};
use firstkey::agreement::Suite;
use firstkey::crypto::ec::EphemeralKey;
use firstkey::grpc::client::Refusal;
use firstkey::grpc::proto;
use firstkey::terminal::{ConfirmRequest, ReportRequest, SignedRequest, TransactionRequest};
use prost::Message as _;

use crate::hand::Hand;
use crate::harness::{Service, refusal};

const AES: Suite = Suite::P256Aes128;

/// `firstkey.payload.v1.Deliver`, with whatever bytes in it.
#[derive(Clone, PartialEq, prost::Message)]
struct WireDeliver {
    #[prost(string, tag = "1")]
    activation: String,
    #[prost(bytes = "vec", tag = "2")]
    device_ephemeral: Vec<u8>,
}

/// Bytes that differ from `bytes` in one bit, at every `step`th place, and in their length.
fn altered(bytes: &[u8], step: usize) -> Vec<Vec<u8>> {
    let flipped = (0..bytes.len()).step_by(step).map(|index| {
        let mut other = bytes.to_vec();
        other[index] ^= 1 << (index % 8);
        other
    });
    let (mut longer, shorter) = (bytes.to_vec(), bytes[..bytes.len() - 1].to_vec());
    longer.push(0);
    flipped.chain([longer, shorter]).collect()
}

/// The refusals of what does not prove itself: nothing else is told, but which field has no form.
#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, Refusal>) {
    let refusal = result.unwrap_err();
    match refusal.reason.as_str() {
        "ACTIVATION_REFUSED" => assert!(refusal.metadata.is_empty(), "{refusal}"),
        "FIELD_INVALID" => assert!(refusal.fields[0].0.starts_with("payload"), "{refusal}"),
        _ => panic!("{refusal}"),
    }
}

#[tokio::test]
async fn altered_bytes_of_a_proven_message_are_refused() {
    for suite in [AES, Suite::MasterAesAes128, Suite::MasterTdesTdes2] {
        altered_bytes_are_refused(suite).await;
    }
}

async fn altered_bytes_are_refused(suite: Suite) {
    let service = Service::start().await;
    let mut till = service.register("till", suite).await;
    let code = service.issue_code("till").await;
    let name = "terminals/till/activations/1";

    let begin = till.terminal.begin(Some(code), &service.rng, service.device_time()).unwrap();
    let before = service.get("till").await;
    for payload in altered(&begin.payload, 5) {
        let proof = begin.proof.clone();
        assert_refused(service.send_begin(&SignedRequest { payload, proof }).await);
    }
    for proof in altered(&begin.proof, 5).into_iter().filter(|one| one.len() == begin.proof.len()) {
        let payload = begin.payload.clone();
        assert_refused(service.send_begin(&SignedRequest { payload, proof }).await);
    }
    assert!(service.get("till").await == before);
    till.begin(&service, None).await.unwrap();

    let deliver = till.terminal.deliver().unwrap();
    let before = service.get("till").await;
    for payload in altered(&deliver.payload, 1) {
        let proof = deliver.proof.clone();
        assert_refused(service.send_deliver(name, &SignedRequest { payload, proof }).await);
    }
    assert!(service.get("till").await == before);
    till.deliver(&service).await.unwrap();

    let confirm = till.terminal.confirm().unwrap();
    let before = service.get("till").await;
    for payload in altered(&confirm.payload, 1) {
        let mac = confirm.mac;
        assert_refused(service.send_confirm(name, &ConfirmRequest { payload, mac }).await);
    }
    for mac in altered(&confirm.mac, 1).into_iter().filter_map(|one| one.try_into().ok()) {
        let payload = confirm.payload.clone();
        assert_refused(service.send_confirm(name, &ConfirmRequest { payload, mac }).await);
    }
    assert!(service.get("till").await == before);
    till.confirm(&service).await.unwrap();
}

#[tokio::test]
async fn altered_bytes_of_a_message_under_a_mac_are_refused_and_spend_no_counter() {
    let service = Service::start().await;
    for (id, suite) in [("till-aes", AES), ("till-tdes", Suite::P256Tdes2)] {
        let mut hand = Hand::with_parameters(&service, id, suite).await;
        let name = hand.activation.as_str().to_owned();
        let keys = hand.next_keys();
        let wanted = ParametersRequest { known_version: 1, nonce: [1; 32] }.encode();
        let good = hand.exchange(&keys, Step::Parameters, wanted);
        let before = service.get(id).await;
        for payload in altered(&good.payload, 1) {
            let altered = TransactionRequest { payload, ..good.clone() };
            assert_refused(service.send_parameters(&altered).await);
        }
        for mac in altered(&good.mac, 1).into_iter().filter(|mac| mac.len() == good.mac.len()) {
            let altered = TransactionRequest { mac, ..good.clone() };
            assert_refused(service.send_parameters(&altered).await);
        }
        // A MAC of another step is none, nor is one of the same key under another counter.
        assert_refused(service.send_test(&good).await);
        let other = hand.next_keys();
        let ksn = other.ksn.bytes().to_vec();
        assert_refused(service.send_parameters(&TransactionRequest { ksn, ..good.clone() }).await);
        assert!(service.get(id).await == before);
        service.send_parameters(&good).await.unwrap();

        let test = hand.good_test(&service, &other);
        let good = hand.exchange(&other, Step::Test, test.encode());
        let before = service.get(id).await;
        for payload in altered(&good.payload, 1) {
            let altered = TransactionRequest { payload, ..good.clone() };
            assert_refused(service.send_test(&altered).await);
        }
        assert!(service.get(id).await == before);
        service.send_test(&good).await.unwrap();

        let outcome = Outcome::Fault(Fault::Parameters);
        let report =
            Report { activation: hand.activation.clone(), step: Step::Parameters, outcome };
        let keys = hand.next_keys();
        let good = hand.exchange(&keys, Step::Report, report.encode());
        let before = service.get(id).await;
        for payload in altered(&good.payload, 1) {
            let altered = TransactionRequest { payload, ..good.clone() };
            let altered = ReportRequest::Transaction(altered);
            assert_refused(service.send_report(&name, &altered).await);
        }
        assert!(service.get(id).await == before);
        service.send_report(&name, &ReportRequest::Transaction(good)).await.unwrap();
    }
}

#[tokio::test]
async fn forged_macs_close_no_terminal() {
    let service = Service::start().await;
    let mut hand = Hand::with_parameters(&service, "till", AES).await;
    let keys = hand.next_keys();
    let wanted = ParametersRequest { known_version: 1, nonce: [1; 32] }.encode();
    let good = hand.exchange(&keys, Step::Parameters, wanted);
    let forged = TransactionRequest { mac: vec![0; 16], ..good.clone() };
    for _ in 0..150 {
        assert_refused(service.send_parameters(&forged).await);
    }
    service.send_parameters(&good).await.expect("whoever knows a KSN locks nobody out");
}

#[tokio::test]
async fn only_a_point_of_the_curve_in_its_one_form_is_agreed_with() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    let begin = till.terminal.begin(Some(code), &service.rng, service.device_time()).unwrap();
    let answer = service.send_begin(&begin).await.unwrap();
    let transcript = Transcript::new().with(&begin.payload).with(&answer.payload);
    let name = "terminals/till/activations/1";
    let before = service.get("till").await;
    let good = EphemeralKey::generate().unwrap().public().bytes().to_vec();
    let with_tag = |tag: u8, len: usize| {
        let mut point = good[..len].to_vec();
        point[0] = tag;
        point
    };
    let mut off_curve = good.clone();
    off_curve[64] ^= 1;
    // A coordinate that is the prime itself stands for zero, and is not its one form.
    let mut beyond = vec![4];
    beyond.extend(
        data_encoding::HEXUPPER
            .decode(b"FFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF")
            .unwrap(),
    );
    beyond.extend([0; 32]);
    let parity = good[64] & 1;
    for (what, point) in [
        ("off the curve", off_curve),
        ("compressed", with_tag(2 + parity, 33)),
        ("hybrid", with_tag(6 + parity, 65)),
        ("the identity", vec![0]),
        ("the identity, filled", vec![0; 65]),
        ("zeros with a tag", with_tag(4, 1).into_iter().chain([0; 64]).collect()),
        ("beyond the field", beyond),
        ("without its tag", good[1..].to_vec()),
        ("cut", good[..64].to_vec()),
        ("too long", good.iter().copied().chain([0]).collect()),
        ("none", Vec::new()),
    ] {
        let message = WireDeliver { activation: name.to_owned(), device_ephemeral: point };
        // The device itself signs it: what is refused is the point.
        let request = till.signed(&transcript, message.encode_to_vec(), Step::Deliver);
        let refusal = service.send_deliver(name, &request).await.unwrap_err();
        assert_eq!(refusal.reason, "FIELD_INVALID", "{what}");
        assert_eq!(refusal.fields.len(), 1, "{what}");
        assert_eq!(refusal.fields[0].0, "payload.device_ephemeral", "{what}");
    }
    assert!(service.get("till").await == before);
    let message = WireDeliver { activation: name.to_owned(), device_ephemeral: good };
    let request = till.signed(&transcript, message.encode_to_vec(), Step::Deliver);
    service.send_deliver(name, &request).await.expect("the point itself is agreed with");
}

#[tokio::test]
async fn a_step_names_its_own_activation() {
    let service = Service::start().await;
    let mut hand = Hand::take_keys(&service, "till", AES).await;
    let other = Hand::take_keys(&service, "other", AES).await;
    let confirm = hand.confirmation(hand.loaded());
    for name in [
        "terminals/other/activations/1",
        "terminals/till/activations/2",
        "terminals/nobody/activations/1",
    ] {
        let refusal = service.send_confirm(name, &confirm).await.unwrap_err();
        assert_eq!(refusal.reason, "ACTIVATION_REFUSED", "{name}");
    }
    for name in ["", "terminals/till", "terminals/till/activations/0", "till/activations/1"] {
        let refusal = service.send_confirm(name, &confirm).await.unwrap_err();
        assert_eq!(refusal.reason, "FIELD_INVALID", "{name}");
        assert_eq!(refusal.fields[0].0, "activation", "{name}");
    }
    // Nor does a valid MAC over a payload that names another.
    let own = std::mem::replace(&mut hand.activation, other.activation.clone());
    let confirm = hand.confirmation(hand.loaded());
    let refusal = service.send_confirm(own.as_str(), &confirm).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED");
}

#[tokio::test]
async fn the_fields_around_a_payload_are_bounded() {
    let service = Service::start().await;
    let hand = Hand::take_keys(&service, "till", AES).await;
    let name = hand.activation.as_str().to_owned();
    let field = |refusal: Refusal| {
        assert_eq!(refusal.reason, "FIELD_INVALID", "{refusal}");
        refusal.fields[0].0.clone()
    };
    let mut activation = service.client.activation();
    for (payload, proof, path) in [
        (Vec::new(), vec![0; 64], "payload"),
        (vec![0; 24 * 1024 + 1], vec![0; 64], "payload"),
        (vec![0; 24 * 1024], vec![0; 64], "payload"),
        (vec![1], vec![0; 31], "proof"),
        (vec![1], vec![0; 33], "proof"),
        (vec![1], vec![0; 63], "proof"),
        (vec![1], vec![0; 65], "proof"),
        (vec![1], Vec::new(), "proof"),
    ] {
        let request = proto::BeginActivationRequest { payload, proof };
        assert_eq!(field(refusal(activation.begin_activation(request).await)), path);
    }
    for (payload, mac, path) in [
        (vec![0; 4 * 1024 + 1], vec![0; 32], "payload"),
        (vec![1], vec![0; 31], "mac"),
        (vec![1], vec![0; 33], "mac"),
    ] {
        let request = proto::ConfirmKeysRequest { activation: name.clone(), payload, mac };
        assert_eq!(field(refusal(activation.confirm_keys(request).await)), path);
    }
    let keys = |count: u32| {
        let key = |slot| ConfirmedKey { slot, check_value: vec![0; 5] };
        hand.confirmation((0..count).map(key).collect())
    };
    for (confirm, path) in [(keys(0), "payload.keys"), (keys(9), "payload.keys")] {
        let refusal = service.send_confirm(&name, &confirm).await.unwrap_err();
        assert_eq!(field(refusal), path);
    }
    let ksn = vec![0xFF; 12];
    for (ksn, mac, reason, path) in [
        (vec![0; 9], vec![0; 16], "KSN_INVALID", "ksn"),
        (vec![0; 13], vec![0; 16], "KSN_INVALID", "ksn"),
        (ksn, vec![0; 16], "KSN_INVALID", "ksn"),
        (vec![0; 12], vec![0; 16], "KSN_INVALID", "ksn"),
        (vec![1; 12], vec![0; 15], "FIELD_INVALID", "mac"),
        (vec![1; 12], vec![0; 8], "FIELD_INVALID", "mac"),
        (vec![1; 10], vec![0; 16], "FIELD_INVALID", "mac"),
    ] {
        let request = proto::GetParametersRequest { ksn, payload: vec![1], mac };
        let refusal = refusal(activation.get_parameters(request).await);
        assert_eq!((refusal.reason.as_str(), refusal.fields[0].0.as_str()), (reason, path));
    }
    let request = proto::ReportStepRequest { activation: name, payload: vec![1], proof: None };
    assert_eq!(field(refusal(activation.report_step(request).await)), "proof");
}
