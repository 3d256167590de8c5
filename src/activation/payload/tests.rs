//! The payloads come back, and each field is refused by its name.

use super::*;
use crate::activation::checks::{Check, Verdict};
use crate::activation::code::ActivationCode;
use crate::activation::parameters::{
    AcquirerId, Currency, Limits, MerchantId, MerchantName, Parameters, ParametersVersion,
    TerminalId,
};
use crate::activation::transcript::Step;
use crate::crypto::ec::EphemeralKey;

fn activation() -> ActivationName {
    ActivationName::new("terminals/t-1/activations/2").expect("a name")
}

fn begin() -> Begin {
    Begin {
        activation_code: Some(ActivationCode::from_random_bits(&[9; 7])),
        serial: Serial::new("SN-0001").expect("a serial"),
        certificate_chain: CertificateChain::new(vec![vec![0x30; 300]]),
        device_nonce: [7; 32],
        readiness: Readiness {
            hardware: Shown::new("rev B").expect("text"),
            firmware: Shown::new("1.2.3").expect("text"),
            network: Network::Cellular,
            tampered: false,
        },
        sequence: 1_795_392_000,
    }
}

fn delivered() -> DeliveredKey {
    DeliveredKey {
        slot: 0,
        usage: *b"B1",
        key_block: "D0112B1AX00N0000".to_owned(),
        initial_key_id: vec![1; 8],
        check_value: vec![1; 5],
    }
}

fn wire_begin() -> wire::Begin {
    wire::Begin::decode(&*begin().encode()).expect("our own message")
}

fn refused<P: Payload>(message: &impl Message) -> &'static str {
    match P::parse(&message.encode_to_vec()) {
        Ok(_) => "accepted",
        Err(PayloadInvalid { field }) => field,
    }
}

#[test]
fn begin_comes_back() {
    let bytes = begin().encode();
    let again = Begin::parse(&bytes).expect("our own message");
    assert_eq!(again.encode(), bytes);
    assert_eq!(again.serial.as_str(), "SN-0001");
    assert!(!format!("{again:?}").contains(&*begin().activation_code.unwrap().expose_text()));
}

#[test]
fn each_field_of_begin_is_bounded() {
    type Change = fn(&mut wire::Begin);
    let changes: [(&str, Change); 18] = [
        ("accepted", |_| ()),
        ("accepted", |begin| begin.activation_code = None),
        ("activation_code", |begin| begin.activation_code = Some(String::new())),
        ("activation_code", |begin| begin.activation_code = Some("000000000001".to_owned())),
        ("serial", |begin| begin.serial = "SN1".to_owned()),
        ("serial", |begin| begin.serial = "S".repeat(33)),
        ("serial", |begin| begin.serial = "SN 0001".to_owned()),
        ("accepted", |begin| begin.certificate_chain.clear()),
        ("certificate_chain", |begin| begin.certificate_chain = vec![Vec::new()]),
        ("certificate_chain", |begin| begin.certificate_chain = vec![vec![0x30]; 5]),
        ("certificate_chain", |begin| begin.certificate_chain = vec![vec![0x30; 4097]]),
        ("device_nonce", |begin| begin.device_nonce.truncate(31)),
        ("device_nonce", |begin| begin.device_nonce.push(0)),
        ("readiness", |begin| begin.readiness = None),
        ("readiness.hardware", |begin| begin.readiness.as_mut().unwrap().hardware.clear()),
        ("readiness.firmware", |begin| begin.readiness.as_mut().unwrap().firmware.push('\n')),
        ("readiness.network", |begin| begin.readiness.as_mut().unwrap().network = 0),
        ("readiness.network", |begin| begin.readiness.as_mut().unwrap().network = 99),
    ];
    for (field, change) in changes {
        let mut message = wire_begin();
        change(&mut message);
        assert_eq!(refused::<Begin>(&message), field);
    }
}

#[test]
fn what_is_no_message_is_refused() {
    for bytes in [&b""[..], b"\xFF\xFF\xFF", &[0x0A; 100], &vec![0; BEGIN_LEN_BYTES_MAX + 1]] {
        assert_eq!(Begin::parse(bytes).unwrap_err().field, "payload");
        assert_eq!(Deliver::parse(bytes).unwrap_err().field, "payload");
        assert_eq!(ParametersAnswer::parse(bytes).unwrap_err().field, "payload");
    }
}

#[test]
fn begin_answer_comes_back() {
    let answer = BeginAnswer {
        activation: activation(),
        service_nonce: [8; 32],
        service_certificate_chain: CertificateChain::new(vec![vec![1]]),
        acquirer_id: AcquirerId::new("acquirer-1").expect("an id"),
        expires_at_seconds: 5,
    };
    assert_eq!(BeginAnswer::parse(&answer.encode()), Ok(answer));
    for (name, good) in [
        ("terminals/t/activations/1", true),
        ("terminals/t/activations/0", false),
        ("terminals/t/activations/01", false),
        ("terminals/t/activations/", false),
        ("terminals//activations/1", false),
        ("terminals/t/x/activations/1", false),
        ("terminals/t/activations/1/activations/1", false),
        ("terminals/t/activations/4294967296", false),
    ] {
        assert_eq!(ActivationName::new(name).is_some(), good, "{name}");
    }
    assert_eq!((activation().terminal_id(), activation().number()), ("t-1", 2));
}

#[test]
fn deliver_takes_points_of_the_curve_in_one_form() {
    let point = EphemeralKey::generate().unwrap().public();
    let deliver = Deliver { activation: activation(), device_ephemeral: Some(point) };
    let bytes = deliver.encode();
    assert_eq!(Deliver::parse(&bytes).expect("our own").encode(), bytes);

    let good = wire::Deliver::decode(&*bytes).unwrap();
    let with = |ephemeral: Vec<u8>| {
        let message = wire::Deliver { device_ephemeral: ephemeral, ..good.clone() };
        refused::<Deliver>(&message)
    };
    let mut compressed = good.device_ephemeral[..33].to_vec();
    compressed[0] = 2;
    let mut off_curve = good.device_ephemeral.clone();
    off_curve[64] ^= 1;
    for bad in [compressed, off_curve, vec![0], vec![4; 65]] {
        assert_eq!(with(bad), "device_ephemeral");
    }
    // A terminal with a master key has none.
    assert_eq!(with(Vec::new()), "accepted");
}

#[test]
fn each_field_of_a_delivered_key_is_bounded() {
    type Change = fn(&mut DeliveredKey);
    let changes: [(&str, Change); 12] = [
        ("accepted", |_| ()),
        ("accepted", |key| key.initial_key_id = vec![1; 10]),
        ("keys.slot", |key| key.slot = 16),
        ("keys.usage", |key| key.usage = *b"b1"),
        ("keys.key_block", |key| key.key_block.truncate(15)),
        ("keys.key_block", |key| key.key_block = "A".repeat(1025)),
        ("keys.key_block", |key| key.key_block.push('\u{7f}')),
        ("keys.initial_key_id", |key| key.initial_key_id.clear()),
        ("keys.initial_key_id", |key| key.initial_key_id.push(1)),
        ("keys.initial_key_id", |key| key.usage = *b"P0"),
        ("keys.check_value", |key| key.check_value.truncate(4)),
        ("keys.check_value", |key| key.check_value.clear()),
    ];
    for (field, change) in changes {
        let mut key = delivered();
        change(&mut key);
        let answer = DeliverAnswer {
            activation: activation(),
            service_ephemeral: Some(EphemeralKey::generate().unwrap().public()),
            keys: vec![key],
        };
        let told = DeliverAnswer::parse(&answer.encode()).map_or_else(|e| e.field, |_| "accepted");
        assert_eq!(told, field);
    }
}

#[test]
fn slots_ascend() {
    let confirm = |slots: &[u32]| {
        let keys = slots.iter().map(|slot| ConfirmedKey { slot: *slot, check_value: vec![0; 3] });
        let confirm = Confirm { activation: activation(), keys: keys.collect() };
        Confirm::parse(&confirm.encode()).map(|again| assert_eq!(again, confirm))
    };
    assert_eq!(confirm(&[0, 3, 15]), Ok(()));
    for bad in [&[1, 1][..], &[1, 0], &[16]] {
        assert_eq!(confirm(bad), Err(PayloadInvalid { field: "keys.slot" }));
    }
    assert_eq!(confirm(&[]), Err(PayloadInvalid { field: "keys" }));
    assert_eq!(confirm(&[0, 1, 2, 3, 4, 5, 6, 7, 8]), Err(PayloadInvalid { field: "keys" }));
}

#[test]
fn a_confirmation_without_a_status_is_none() {
    let answer = ConfirmAnswer { activation: activation() };
    assert_eq!(ConfirmAnswer::parse(&answer.encode()), Ok(answer));
    for status in [0, 2] {
        let activation = activation().as_str().to_owned();
        let message = wire::ConfirmAnswer { activation, status };
        assert_eq!(refused::<ConfirmAnswer>(&message), "status");
    }
}

#[test]
fn parameters_come_back_and_their_digest_is_checked() {
    let request = ParametersRequest { known_version: 0, nonce: [3; 32] };
    assert_eq!(ParametersRequest::parse(&request.encode()), Ok(request));
    let parameters = Parameters {
        version: ParametersVersion::new(1).unwrap(),
        acquirer_id: AcquirerId::new("a").unwrap(),
        merchant_id: MerchantId::new("m").unwrap(),
        merchant_name: MerchantName::new("M").unwrap(),
        terminal_id: TerminalId::new("T0000001").unwrap(),
        currency: Currency::new("EUR").unwrap(),
        limits: Limits::new(1, 2).unwrap(),
    };
    let answer = ParametersAnswer { parameters };
    let bytes = answer.encode();
    assert_eq!(ParametersAnswer::parse(&bytes), Ok(answer));
    let mut message = wire::ParametersAnswer::decode(&*bytes).unwrap();
    message.parameter_file.push(b'\n');
    assert_eq!(refused::<ParametersAnswer>(&message), "digest");
    message.digest = crate::activation::parameters::file_digest(&message.parameter_file).to_vec();
    assert_eq!(refused::<ParametersAnswer>(&message), "parameter_file");
}

#[test]
fn reports_come_back() {
    let activation = activation();
    for (step, outcome, good) in [
        (Step::Parameters, Outcome::Applied([1; 32]), true),
        (Step::Parameters, Outcome::Fault(Fault::ParametersRolledBack), true),
        (Step::Begin, Outcome::Fault(Fault::ServiceNotTrusted), true),
        (Step::Begin, Outcome::Applied([1; 32]), false),
        (Step::Report, Outcome::Fault(Fault::Storage), false),
    ] {
        let report = Report { activation: activation.clone(), step, outcome };
        assert_eq!(Report::parse(&report.encode()).as_ref() == Ok(&report), good);
    }
    for fault in Fault::ALL {
        let outcome = Outcome::Fault(*fault);
        let report = Report { activation: activation.clone(), step: Step::Test, outcome };
        assert_eq!(Report::parse(&report.encode()), Ok(report));
    }
}

#[test]
fn each_field_of_a_test_transaction_is_bounded() {
    type Change = fn(&mut wire::TestTransaction);
    let good = TestTransaction {
        number: 1,
        amount_minor: 100,
        currency: Currency::new("EUR").unwrap(),
        card: CardData::new("4111111111111111", "2812").unwrap(),
        pin_block: vec![5; 16],
        pin_block_format: PinBlockFormat::Iso4,
    };
    assert!(!format!("{good:?}").contains("4111"));
    let good = wire::TestTransaction::decode(&*good.encode()).unwrap();
    let changes: [(&str, Change); 12] = [
        ("accepted", |_| ()),
        ("accepted", |test| test.pan = "1".to_owned()),
        ("number", |test| test.number = 0),
        ("amount_minor", |test| test.amount_minor = Limits::AMOUNT_MINOR_MAX + 1),
        ("currency", |test| test.currency = "eur".to_owned()),
        ("pan", |test| test.pan.clear()),
        ("pan", |test| test.pan = "1".repeat(33)),
        ("pan", |test| test.pan.push('A')),
        ("expiry", |test| test.expiry.push('1')),
        ("pin_block_format", |test| test.pin_block_format = 0),
        ("pin_block", |test| test.pin_block_format = wire::PinBlockFormat::Iso0.into()),
        ("pin_block", |test| test.pin_block.push(0)),
    ];
    for (field, change) in changes {
        let mut message = good.clone();
        change(&mut message);
        assert_eq!(refused::<TestTransaction>(&message), field);
    }
}

#[test]
fn verdicts_come_back() {
    let verdict = |check, passed| Verdict { check, passed, remedy: String::new() };
    let mut answer = TestTransactionAnswer {
        number: 1,
        verdicts: Check::ALL.into_iter().map(|check| verdict(check, true)).collect(),
        tests_passed: 1,
        tests_required: 2,
    };
    assert!(answer.passed());
    assert_eq!(TestTransactionAnswer::parse(&answer.encode()).as_ref(), Ok(&answer));
    answer.verdicts.push(verdict(Check::Mac, false));
    assert!(!answer.passed());
    let twice = TestTransactionAnswer::parse(&answer.encode());
    assert_eq!(twice, Err(PayloadInvalid { field: "verdicts.check" }));
}
