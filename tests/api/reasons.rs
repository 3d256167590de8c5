//! Each reason of the protocol is raised over the API by something that really happens.
//!
//! The domain and the gRPC code of each refusal are checked by [`reason_of`], and the field by
//! [`expect_path`] where a field is to blame.

use firstkey::activation::ActivationCode;
use firstkey::agreement::Suite;
use firstkey::grpc::client::request_id;
use firstkey::grpc::proto::{
    BeginActivationRequest, CreateKeyRequest, CreateProfileRequest, CreateTerminalRequest,
    DenyDeviceRequest, EnableTerminalRequest, ExportKeyRequest, GenerateMacRequest,
    GetDeviceAuthorityRequest, GetKeyRequest, GetProfileRequest, GetTerminalRequest,
    IssueActivationCodeRequest, KeyAlgorithm, KeyAttributes, KeyState, KeyUsage, MacAlgorithm,
    MerchantStanding, PinBlockFormat, SetKeyStateRequest, TranslatePinRequest, VerifyMacRequest,
};
use firstkey::key::Algorithm;
use firstkey::key::usage::KeyEncryption;
use firstkey::server::dev;
use firstkey::vault::Reason;
use rusqlite::Connection;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::harness::{Service, Till, answer, create_terminal_request, retyped};
use crate::known::{
    InjectedAes, Known, PAN, PIN, dukpt, expect_path, import_request, random, reason_of, status_of,
    stored, wrap_d,
};

const AES: Suite = Suite::P256Aes128;

/// What needs more than a development service: each is raised where it is tested.
const RAISED_ELSEWHERE: [Reason; 17] = [
    Reason::ApprovalRequired,
    Reason::ApprovalState,
    Reason::AuditUnavailable,
    Reason::CallerUnknown,
    Reason::CeremonyAborted,
    Reason::CeremonyState,
    Reason::ComponentRejected,
    Reason::KeyDuplicate,
    Reason::MessageInvalid,
    Reason::RateLimited,
    Reason::RotationUnderWay,
    Reason::SealState,
    Reason::SelfTestFailed,
    Reason::ShareRefused,
    Reason::TokenUnavailable,
    Reason::UnsealFailed,
    Reason::VaultSealed,
];

#[tokio::test]
async fn every_reason_is_raised_by_a_call() {
    for reason in Reason::ALL {
        if RAISED_ELSEWHERE.contains(reason) {
            continue;
        }
        let status = raised(*reason).await;
        assert_eq!(reason_of(&status), reason.as_str());
        let details = status.get_error_details();
        let is_ours = *reason == Reason::Internal;
        let metadata = &details.error_info().unwrap().metadata;
        assert_eq!(metadata.contains_key("incident"), is_ours, "{}", reason.as_str());
        assert_eq!(details.retry_info().is_some(), *reason == Reason::BudgetSpent);
        assert!(!status.message().is_empty());
    }
}

/// A status of each reason. There is no default: a new reason needs its own way here.
async fn raised(reason: Reason) -> Status {
    match reason {
        Reason::ApprovalRequired
        | Reason::ApprovalState
        | Reason::AuditUnavailable
        | Reason::CallerUnknown
        | Reason::CeremonyAborted
        | Reason::CeremonyState
        | Reason::ComponentRejected
        | Reason::KeyDuplicate
        | Reason::MessageInvalid
        | Reason::RateLimited
        | Reason::RotationUnderWay
        | Reason::SealState
        | Reason::SelfTestFailed
        | Reason::ShareRefused
        | Reason::TokenUnavailable
        | Reason::UnsealFailed
        | Reason::VaultSealed => panic!("it is raised elsewhere"),
        Reason::ActivationRefused
        | Reason::ActivationState
        | Reason::CodeRefused
        | Reason::DeviceNotTrusted
        | Reason::KsnExhausted
        | Reason::MerchantNotApproved
        | Reason::TerminalAlreadyActivated
        | Reason::TerminalAlreadyExists
        | Reason::TerminalLocked
        | Reason::TerminalNotActive
        | Reason::TerminalNotFound => of_terminals(reason).await,
        Reason::FieldInvalid
        | Reason::KeyAlreadyExists
        | Reason::KeyBlockRejected
        | Reason::KeyNotActive
        | Reason::KeyNotFound
        | Reason::KeyUsageMismatch
        | Reason::PolicyDenied
        | Reason::RequestIdReused
        | Reason::ResourceAlreadyExists
        | Reason::ResourceNotFound
        | Reason::WrappingKeyTooWeak => of_keys(reason).await,
        Reason::BudgetSpent
        | Reason::KsnInvalid
        | Reason::KsnReplayed
        | Reason::MacMismatch
        | Reason::PinBlockRejected
        | Reason::TranslationForbidden => of_transactions(reason).await,
        Reason::Internal => edited_row().await,
        Reason::StoreConflict => conflict().await,
        Reason::StoreUnavailable => locked_store().await,
    }
}

/// Sends what a terminal begins with, its proof as it is or spoilt.
async fn begin(service: &Service, till: &mut Till, code: ActivationCode, spoil: bool) -> Status {
    let mut request = till.terminal.begin(Some(code), &service.rng, service.device_time()).unwrap();
    request.proof[0] ^= u8::from(spoil);
    let (payload, proof) = (request.payload, request.proof);
    let request = BeginActivationRequest { payload, proof };
    status_of(service.client.activation().begin_activation(request).await)
}

async fn of_terminals(reason: Reason) -> Status {
    let service = Service::start().await;
    let mut terminals = service.client.terminals();
    let mut till = service.register("till", AES).await;
    let name = || "terminals/till".to_owned();
    let wrong = || ActivationCode::from_random_bits(&[0xA5; 7]);
    let enable = EnableTerminalRequest { request_id: request_id(), name: name() };
    match reason {
        Reason::ActivationState => return status_of(terminals.enable_terminal(enable).await),
        Reason::MerchantNotApproved => {
            let merchant_standing = MerchantStanding::Pending.into();
            let pending = create_terminal_request("pending", "SN-P", dev::PROFILE_AES);
            let pending = CreateTerminalRequest { merchant_standing, ..pending };
            answer(terminals.create_terminal(pending).await);
            let name = "terminals/pending".to_owned();
            let request = IssueActivationCodeRequest { request_id: request_id(), name };
            return status_of(terminals.issue_activation_code(request).await);
        }
        Reason::TerminalAlreadyExists => {
            let again = create_terminal_request("till", "SN-AGAIN", dev::PROFILE_AES);
            return status_of(terminals.create_terminal(again).await);
        }
        Reason::TerminalNotActive => {
            let request = GenerateMacRequest { terminal: name(), ..mac_request() };
            return status_of(service.client.macs().generate_mac(request).await);
        }
        Reason::TerminalNotFound => {
            let request = GetTerminalRequest { name: "terminals/nobody".into() };
            return status_of(terminals.get_terminal(request).await);
        }
        Reason::KsnExhausted => return exhausted(&service).await,
        _ => {}
    }
    let code = service.issue_code("till").await;
    if reason == Reason::ActivationRefused {
        return begin(&service, &mut till, code, true).await;
    }
    if reason == Reason::DeviceNotTrusted {
        answer(service.client.trust().deny_device(deny("SN-TILL")).await);
        return begin(&service, &mut till, code, false).await;
    }
    if reason == Reason::TerminalAlreadyActivated {
        let again = retyped(&code);
        till.take_keys(&service, Some(code)).await.unwrap();
        return begin(&service, &mut till.twin(), again, false).await;
    }
    let tries = if reason == Reason::TerminalLocked { 5 } else { 1 };
    for _ in 1..tries {
        begin(&service, &mut till.twin(), wrong(), false).await;
    }
    begin(&service, &mut till, wrong(), false).await
}

/// The second terminal of a base derivation key that may have one.
async fn exhausted(service: &Service) -> Status {
    let attributes = KeyAttributes {
        key_set_id: vec![0xC1, 0xC2, 0xC3, 0xC4],
        device_cap: 1,
        ..KeyAttributes::default()
    };
    let request = CreateKeyRequest {
        attributes: Some(attributes),
        ..create("bdk-of-one", KeyUsage::BaseDerivation)
    };
    answer(service.client.keys().create_key(request).await);
    let name = format!("profiles/{}", dev::PROFILE_AES);
    let found = answer(service.client.terminals().get_profile(GetProfileRequest { name }).await);
    let mut profile = found.profile.unwrap();
    profile.name = String::new();
    profile.create_time = None;
    "keys/bdk-of-one".clone_into(&mut profile.base_derivation_key);
    let request = CreateProfileRequest {
        request_id: request_id(),
        profile_id: "of-one".to_owned(),
        profile: Some(profile),
    };
    answer(service.client.terminals().create_profile(request).await);
    let mut first = service.register_under("first", AES, "of-one").await;
    let code = service.issue_code("first").await;
    first.begin(service, Some(code)).await.expect("there is one id");
    let mut second = service.register_under("second", AES, "of-one").await;
    let code = service.issue_code("second").await;
    begin(service, &mut second, code, false).await
}

fn create(id: &str, usage: KeyUsage) -> CreateKeyRequest {
    CreateKeyRequest {
        request_id: request_id(),
        key_id: id.to_owned(),
        usage: usage.into(),
        algorithm: KeyAlgorithm::Aes128.into(),
        ..CreateKeyRequest::default()
    }
}

fn deny(serial: &str) -> DenyDeviceRequest {
    let (serial, cause) = (serial.to_owned(), "stolen".to_owned());
    DenyDeviceRequest { request_id: request_id(), serial, cause }
}

fn mac_request() -> GenerateMacRequest {
    GenerateMacRequest {
        key: stored("dev-mac"),
        algorithm: MacAlgorithm::AesCmac.into(),
        message: b"message".to_vec(),
        mac_length_bytes: 16,
        ..GenerateMacRequest::default()
    }
}

async fn of_keys(reason: Reason) -> Status {
    let service = Service::start().await;
    let (mut keys, mut trust) = (service.client.keys(), service.client.trust());
    let get = |name: &str| GetKeyRequest { name: name.to_owned() };
    let export = |name: &str, wrapping_key: &str| ExportKeyRequest {
        request_id: request_id(),
        name: name.to_owned(),
        wrapping_key: wrapping_key.to_owned(),
        ..ExportKeyRequest::default()
    };
    let mac_key = create("mac", KeyUsage::MacCmac);
    answer(keys.create_key(mac_key.clone()).await);
    match reason {
        Reason::FieldInvalid => {
            let status = status_of(keys.get_key(get("mac")).await);
            expect_path(&status, reason.as_str(), "name");
            status
        }
        Reason::KeyAlreadyExists => {
            status_of(keys.create_key(create("mac", KeyUsage::MacCmac)).await)
        }
        Reason::KeyBlockRejected => {
            let block = wrap_d(&random(32), "P0AB00E0000", &random(16));
            status_of(keys.import_key(import_request("in", &block, "keys/dev-kek")).await)
        }
        Reason::KeyNotActive => {
            let request = SetKeyStateRequest {
                request_id: request_id(),
                name: "keys/dev-mac".into(),
                state: KeyState::Suspended.into(),
                ..SetKeyStateRequest::default()
            };
            answer(keys.set_key_state(request).await);
            status_of(service.client.macs().generate_mac(mac_request()).await)
        }
        Reason::KeyNotFound => status_of(keys.get_key(get("keys/nobody")).await),
        Reason::KeyUsageMismatch => {
            let request = GenerateMacRequest { key: stored("dev-kek"), ..mac_request() };
            status_of(service.client.macs().generate_mac(request).await)
        }
        Reason::PolicyDenied => {
            status_of(keys.export_key(export("keys/mac", "keys/dev-kek")).await)
        }
        Reason::RequestIdReused => {
            let other = CreateKeyRequest { key_id: "other".into(), ..mac_key };
            status_of(keys.create_key(other).await)
        }
        Reason::ResourceAlreadyExists => {
            answer(trust.deny_device(deny("SN-1")).await);
            status_of(trust.deny_device(deny("SN-1")).await)
        }
        Reason::ResourceNotFound => {
            let request = GetDeviceAuthorityRequest { name: "deviceAuthorities/nobody".into() };
            status_of(trust.get_device_authority(request).await)
        }
        _ => {
            let weak = Known::<KeyEncryption>::generate(Algorithm::Tdes2);
            weak.import(&service, "weak", "K0TB00N").await;
            status_of(keys.export_key(export("keys/dev-zone-pin-aes", "keys/weak")).await)
        }
    }
}

async fn of_transactions(reason: Reason) -> Status {
    let service = Service::start().await;
    let terminal = InjectedAes::below(&service, "bdk", [0xC1, 0xC2, 0xC3, 0xC4]).await;
    let iso_4 = PinBlockFormat::Iso4.into();
    let translate = |ksn: &[u8], pin_block: Vec<u8>| TranslatePinRequest {
        source: dukpt(ksn),
        source_format: iso_4,
        pin_block,
        destination: stored("dev-zone-pin-aes"),
        destination_format: iso_4,
        pan: PAN.to_owned(),
        ..TranslatePinRequest::default()
    };
    let send = async |request| service.client.pins().translate_pin(request).await;
    let ksn = |counter: u32| terminal.ksn(counter).bytes().to_vec();
    match reason {
        Reason::KsnInvalid => {
            let status = status_of(send(translate(&[1; 11], random(16))).await);
            expect_path(&status, reason.as_str(), "source.dukpt.ksn");
            status
        }
        Reason::KsnReplayed => {
            answer(send(translate(&ksn(1), terminal.pin_block(1, PIN, PAN))).await);
            status_of(send(translate(&ksn(1), terminal.pin_block(1, "8888", PAN))).await)
        }
        Reason::MacMismatch => {
            let made = mac_request();
            let request = VerifyMacRequest {
                key: made.key,
                algorithm: made.algorithm,
                message: made.message,
                mac: random(16),
                ..VerifyMacRequest::default()
            };
            status_of(service.client.macs().verify_mac(request).await)
        }
        Reason::TranslationForbidden => {
            let destination_format = PinBlockFormat::Iso1.into();
            let request = translate(&ksn(1), terminal.pin_block(1, PIN, PAN));
            status_of(send(TranslatePinRequest { destination_format, ..request }).await)
        }
        _ => {
            let wrong = if reason == Reason::BudgetSpent { 4 } else { 1 };
            for counter in 1..wrong {
                status_of(send(translate(&ksn(counter), random(16))).await);
            }
            status_of(send(translate(&ksn(wrong), random(16))).await)
        }
    }
}

/// A connection to the store's file, as somebody with the disk in hand has it.
fn beside(service: &Service) -> Connection {
    let path = service.folder_path().join("store/firstkey.sqlite3");
    Connection::open(path).unwrap()
}

/// A sealed row in which one bit is turned.
async fn edited_row() -> Status {
    let service = Service::start_durable().await;
    let connection = beside(&service);
    let row = "kind = 'key' AND id LIKE 'dev-mac#%'";
    let query = format!("SELECT sealed FROM record WHERE {row}");
    let mut sealed: Vec<u8> = connection.query_row(&query, [], |row| row.get(0)).unwrap();
    *sealed.last_mut().unwrap() ^= 1;
    let update = format!("UPDATE record SET sealed = ?1 WHERE {row}");
    assert_eq!(connection.execute(&update, [sealed]).unwrap(), 1);
    let request = GetKeyRequest { name: "keys/dev-mac".into() };
    let status = status_of(service.client.keys().get_key(request).await);
    let details = status.get_error_details();
    let incident = &details.error_info().unwrap().metadata["incident"];
    assert!(uuid::Uuid::try_parse(incident).is_ok(), "{incident}");
    let other = GetKeyRequest { name: "keys/dev-kek".into() };
    answer(service.client.keys().get_key(other).await);
    status
}

/// A lock that somebody else holds for longer than the store waits.
async fn locked_store() -> Status {
    let service = Service::start_durable().await;
    let connection = beside(&service);
    connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let request = create("late", KeyUsage::MacCmac);
    let status = status_of(service.client.keys().create_key(request.clone()).await);
    connection.execute_batch("COMMIT").unwrap();
    // Nothing was done, and the same call is served as soon as the store serves.
    answer(service.client.keys().create_key(request).await);
    status
}

/// A row that somebody else is always first to write, however often the service tries.
async fn conflict() -> Status {
    let service = Service::start_durable().await;
    let connection = beside(&service);
    let always_first = "CREATE TRIGGER always_first BEFORE INSERT ON record
        WHEN NEW.kind = 'denied_device' BEGIN SELECT RAISE(IGNORE); END";
    connection.execute_batch(always_first).unwrap();
    let (mut trust, request) = (service.client.trust(), deny("SN-1"));
    let status = status_of(trust.deny_device(request.clone()).await);
    connection.execute_batch("DROP TRIGGER always_first").unwrap();
    // Nothing was done, and the same call is served once nobody is in its way.
    answer(trust.deny_device(request).await);
    status
}
