//! Each call that waits for approval, and beside it the calls that do not: in a live realm, from an
//! empty service on, over real TLS.

use std::collections::HashSet;
use std::sync::Mutex;

use firstkey::command::approvals::{MARKS, Mark, When};
use firstkey::crypto::certificate::authority::Authority;
use firstkey::grpc::Plane;
use firstkey::grpc::client::{Client, request_id};
use firstkey::grpc::proto::{
    self, AllowDeviceRequest, CreateCertificateRequestRequest, CreateDeviceAuthorityRequest,
    CreateIdentityKeyRequest, CreateKeyRequest, CreateProfileRequest, DenyDeviceRequest,
    ExportInitialKeyRequest, ExportKeyRequest, Exportability, ImportCertificateRequest,
    ImportKeyRequest, KeyAttributes, KeyState, KeyUsage, SetKeyStateRequest, UpdateProfileRequest,
};
use firstkey::server::dev::{self, validity};
use firstkey::vault::Grant;
use prost_types::{FieldMask, Timestamp};
use tonic::{Response, Status};

use crate::approvals::{approve, done, live, officer, state, waits};
use crate::harness::{BEGIN_SECONDS, HOUR, TlsService, answer};

/// Two officers of a service, and the calls of the first that had to wait for the second.
struct Office {
    service: TlsService,
    one: Client,
    two: Client,
    waited: Mutex<HashSet<(String, When)>>,
}

impl Office {
    async fn open(grants: Vec<Grant>) -> Self {
        let service = live(1, grants).await;
        let (one, two) = (officer(&service, 1).await, officer(&service, 2).await);
        Self { service, one, two, waited: Mutex::default() }
    }

    /// Makes a call that waits: it has no effect until another approved it, then it is done once,
    /// and answered the same again. The audit event names who approved.
    async fn approved<A: PartialEq>(
        &self,
        (method, when): (&str, When),
        call: impl AsyncFn() -> Result<Response<A>, Status>,
    ) -> A {
        let before = done(&self.service, method).await.len();
        let name = waits(call().await);
        assert_eq!(waits(call().await), name);
        assert_eq!(done(&self.service, method).await.len(), before, "{method} had an effect");
        let asked = approve(&self.two, &name).await.unwrap();
        assert_eq!(asked.method, method, "{when:?}");
        let answered = answer(call().await);
        assert!(answer(call().await) == answered, "{method} is answered the same again");
        assert_eq!(state(&self.two, &name).await, "EXECUTED");
        let events = done(&self.service, method).await;
        assert_eq!(events.len(), before + 1, "{method} was done once");
        assert_eq!(events[before].approvers, ["officer-2"]);
        self.waited.lock().unwrap().insert((method.to_owned(), when));
        answered
    }

    async fn create(&self, request: CreateKeyRequest) -> Result<Response<()>, Status> {
        Ok(self.one.keys().create_key(request).await?.map(drop))
    }

    async fn import(&self, request: &ImportKeyRequest) -> Result<Response<()>, Status> {
        Ok(self.one.keys().import_key(request.clone()).await?.map(drop))
    }

    async fn set_state(&self, request: &SetKeyStateRequest) -> Result<Response<()>, Status> {
        Ok(self.one.keys().set_key_state(request.clone()).await?.map(drop))
    }
}

fn new_key(id: &str, usage: KeyUsage, attributes: KeyAttributes) -> CreateKeyRequest {
    CreateKeyRequest {
        request_id: request_id(),
        key_id: id.to_owned(),
        usage: usage.into(),
        algorithm: proto::KeyAlgorithm::Aes128.into(),
        exportability: Exportability::Exportable.into(),
        attributes: Some(attributes),
        ..CreateKeyRequest::default()
    }
}

fn of_set(number: u8) -> KeyAttributes {
    KeyAttributes { key_set_id: vec![number; 4], ..KeyAttributes::default() }
}

fn formats() -> KeyAttributes {
    let pin_formats_in = vec![proto::PinBlockFormat::Iso4.into()];
    KeyAttributes { pin_formats_in, ..KeyAttributes::default() }
}

fn export(id: &str) -> ExportKeyRequest {
    ExportKeyRequest {
        request_id: request_id(),
        name: format!("keys/{id}"),
        wrapping_key: "keys/kek".to_owned(),
        ..ExportKeyRequest::default()
    }
}

fn import(id: &str, key_block: &str, attributes: KeyAttributes) -> ImportKeyRequest {
    ImportKeyRequest {
        request_id: request_id(),
        key_id: id.to_owned(),
        key_block: key_block.to_owned(),
        wrapping_key: "keys/kek".to_owned(),
        attributes: Some(attributes),
        ..ImportKeyRequest::default()
    }
}

fn move_to(id: &str, state: KeyState, serve_hours: Option<u64>) -> SetKeyStateRequest {
    let seconds = serve_hours.map(|hours| i64::try_from(BEGIN_SECONDS + hours * HOUR).unwrap());
    SetKeyStateRequest {
        request_id: request_id(),
        name: format!("keys/{id}"),
        state: state.into(),
        serve_until: seconds.map(|seconds| Timestamp { seconds, nanos: 0 }),
    }
}

/// A grant for officer-1 to export initial keys of `keys/open` under other keys.
fn grant(partner: &str) -> Grant {
    Grant {
        key: "keys/open".to_owned(),
        principals: vec![format!("spiffe://{}/officer/officer-1", dev::TRUST_DOMAIN)],
        calls: vec!["ExportInitialKey".to_owned()],
        pin_formats_in: Vec::new(),
        pin_formats_out: Vec::new(),
        partner_keys: vec![partner.to_owned()],
        calls_per_minute_max: 0,
        not_before: None,
        not_after: None,
    }
}

#[tokio::test]
async fn each_marked_call_waits_and_its_gentler_sister_does_not() {
    // A grant for another partner's key does not stand for an approval.
    let office = Office::open(vec![grant("keys/kek-2")]).await;
    trust_changes(&office).await;
    keys_that_pass(&office).await;
    states_of_keys(&office).await;
    profiles(&office).await;
    let waited = office.waited.lock().unwrap().clone();
    let line = |mark: &Mark| (mark.action.as_str().to_owned(), mark.when);
    let marked: HashSet<_> = MARKS.iter().map(line).collect();
    // Ceremonies, the master key and the policy have tests of their own, where they are made.
    let missing: HashSet<_> = marked.difference(&waited).cloned().collect();
    let elsewhere = ["CreateCeremony", "CreateMasterKey", "SetPolicy"];
    assert_eq!(missing, elsewhere.map(|call| (call.to_owned(), When::Always)).into());
    assert!(waited.is_subset(&marked));
}

async fn trust_changes(office: &Office) {
    let trust = || office.one.trust();
    let request = CreateIdentityKeyRequest { request_id: request_id(), acquirer_id: "ACQ".into() };
    let make = async || trust().create_identity_key(request.clone()).await;
    office.approved(("CreateIdentityKey", When::Always), make).await;
    let asked = CreateCertificateRequestRequest { common_name: "firstkey".to_owned() };
    let asked = answer(trust().create_certificate_request(asked).await).certificate_request;
    let root = Authority::new("root", validity(BEGIN_SECONDS)).unwrap();
    let leaf = root.issue_service_from_request(&asked, "ACQ", validity(BEGIN_SECONDS)).unwrap();
    let certificate_chain = vec![leaf, root.root_der().to_vec()];
    let request = ImportCertificateRequest { request_id: request_id(), certificate_chain };
    let take = async || trust().import_certificate(request.clone()).await;
    office.approved(("ImportCertificate", When::Always), take).await;
    let request = CreateDeviceAuthorityRequest {
        request_id: request_id(),
        device_authority_id: "vendor".to_owned(),
        vendor: "Vendor".to_owned(),
        model: "Model".to_owned(),
        certificate: root.root_der().to_vec(),
    };
    let take = async || trust().create_device_authority(request.clone()).await;
    office.approved(("CreateDeviceAuthority", When::Always), take).await;
    // To deny is to protect, and must be fast.
    let deny = DenyDeviceRequest {
        request_id: request_id(),
        serial: "SN-1".to_owned(),
        cause: "stolen".to_owned(),
    };
    answer(trust().deny_device(deny).await);
    let request = AllowDeviceRequest { request_id: request_id(), serial: "SN-1".to_owned() };
    let allow = async || trust().allow_device(request.clone()).await;
    office.approved(("AllowDevice", When::Always), allow).await;
}

async fn keys_that_pass(office: &Office) {
    let keys = || office.one.keys();
    let none = KeyAttributes::default;
    answer(office.create(new_key("kek", KeyUsage::KeyEncryption, none())).await);
    answer(office.create(new_key("bdk", KeyUsage::BaseDerivation, of_set(1))).await);
    answer(office.create(new_key("pin", KeyUsage::PinEncryption, none())).await);
    let request = new_key("formats", KeyUsage::PinEncryption, formats());
    office
        .approved(("CreateKey", When::SetsPinFormats), async || {
            office.create(request.clone()).await
        })
        .await;
    for usage in [KeyUsage::KeyDerivation, KeyUsage::KeyEncryption, KeyUsage::KeyBlockProtection] {
        let id = format!("of-usage-{}", i32::from(usage));
        answer(office.create(new_key(&id, usage, none())).await);
        let request = export(&id);
        waits(keys().export_key(request).await);
    }

    let block = block_of(office, "bdk-1", KeyUsage::BaseDerivation).await;
    let request = import("bdk-2", &block, of_set(2));
    office.approved(("ImportKey", When::KeyOfKeys), async || office.import(&request).await).await;
    let block = block_of(office, "pin-1", KeyUsage::PinEncryption).await;
    answer(office.import(&import("pin-2", &block, none())).await);
    let block = block_of(office, "pin-0", KeyUsage::PinEncryption).await;
    let request = import("pin-3", &block, formats());
    office
        .approved(("ImportKey", When::SetsPinFormats), async || office.import(&request).await)
        .await;
    versions(office).await;

    let open = KeyAttributes { open: true, ..of_set(3) };
    answer(office.create(new_key("open", KeyUsage::BaseDerivation, open)).await);
    let request = initial_key();
    let leave = async || keys().export_initial_key(request.clone()).await;
    let left = office.approved(("ExportInitialKey", When::NotGranted), leave).await;
    assert_eq!(left.initial_key_id[4..], [0; 4], "nothing was allocated while it waited");
}

/// What is granted of a key is not granted of what one officer alone brings in its name.
async fn versions(office: &Office) {
    let keys = || office.one.keys();
    let block = block_of(office, "pin-4", KeyUsage::PinEncryption).await;
    let next_version = true;
    let request =
        ImportKeyRequest { next_version, ..import("pin-3", &block, KeyAttributes::default()) };
    let request = ImportKeyRequest { keep_primary: true, ..request };
    office.approved(("ImportKey", When::NextVersion), async || office.import(&request).await).await;
    let name = "keys/pin-3/versions/2".to_owned();
    let request = proto::SetPrimaryVersionRequest { request_id: request_id(), name };
    let set = async || keys().set_primary_version(request.clone()).await;
    let set = office.approved(("SetPrimaryVersion", When::Always), set).await.key.unwrap();
    assert_eq!((set.version, set.primary_version), (2, 2));
    // What is made here nobody knows.
    let name = "keys/pin-3".to_owned();
    let request = proto::RotateKeyRequest { request_id: request_id(), name, ..Default::default() };
    let rotated = answer(keys().rotate_key(request).await).key.unwrap();
    assert_eq!((rotated.version, rotated.primary_version), (3, 3));
}

/// The block of a key that was here and is destroyed: a live service takes none twice.
async fn block_of(office: &Office, id: &str, usage: KeyUsage) -> String {
    answer(office.create(new_key(id, usage, KeyAttributes::default())).await);
    let request = export(id);
    let leave = async || office.one.keys().export_key(request.clone()).await;
    let left = match usage {
        KeyUsage::BaseDerivation => office.approved(("ExportKey", When::KeyOfKeys), leave).await,
        _ => answer(leave().await),
    };
    let duplicate = import("again", &left.key_block, KeyAttributes::default());
    let refused = crate::harness::refusal(office.import(&duplicate).await);
    assert_eq!(refused.reason, "KEY_DUPLICATE");
    for (state, when) in
        [(KeyState::Deactivated, When::Deactivates), (KeyState::Destroyed, When::Destroys)]
    {
        let request = move_to(id, state, None);
        let set = async || office.set_state(&request).await;
        office.approved(("SetKeyState", when), set).await;
    }
    left.key_block
}

fn initial_key() -> ExportInitialKeyRequest {
    ExportInitialKeyRequest {
        request_id: request_id(),
        base_derivation_key: "keys/open".to_owned(),
        wrapping_key: "keys/kek".to_owned(),
    }
}

async fn states_of_keys(office: &Office) {
    answer(office.set_state(&move_to("pin", KeyState::Suspended, None)).await);
    let request = move_to("pin", KeyState::Active, None);
    office
        .approved(("SetKeyState", When::Unsuspends), async || office.set_state(&request).await)
        .await;
    let request = move_to("pin", KeyState::Deactivated, None);
    office
        .approved(("SetKeyState", When::Deactivates), async || office.set_state(&request).await)
        .await;
    let request = move_to("pin", KeyState::Destroyed, None);
    office
        .approved(("SetKeyState", When::Destroys), async || office.set_state(&request).await)
        .await;
    answer(office.set_state(&move_to("pin-2", KeyState::Compromised, None)).await);
    let request = move_to("bdk-2", KeyState::Compromised, Some(48));
    office
        .approved(("SetKeyState", When::ServesOn), async || office.set_state(&request).await)
        .await;
    // To shorten the time that it serves is to protect.
    answer(office.set_state(&move_to("bdk-2", KeyState::Compromised, Some(24))).await);
    answer(office.set_state(&move_to("bdk-2", KeyState::Compromised, None)).await);
}

async fn profiles(office: &Office) {
    let terminals = office.service.client("officer-1", Plane::Terminals).await;
    let profile = proto::Profile {
        name: "profiles/retail".to_owned(),
        suite: proto::Suite::P256Aes128.into(),
        base_derivation_key: "keys/bdk".to_owned(),
        test_transactions: 1,
        limits: Some(proto::Limits {
            currency: "EUR".to_owned(),
            single_amount_minor: 100,
            daily_amount_minor: 1_000,
        }),
        ..proto::Profile::default()
    };
    let request = CreateProfileRequest {
        request_id: request_id(),
        profile_id: "retail".to_owned(),
        profile: Some(profile.clone()),
    };
    let make = async || terminals.terminals().create_profile(request.clone()).await;
    office.approved(("CreateProfile", When::Always), make).await;
    let request = UpdateProfileRequest {
        request_id: request_id(),
        profile: Some(proto::Profile { no_code: true, ..profile }),
        update_mask: Some(FieldMask { paths: vec!["no_code".to_owned()] }),
    };
    let change = async || terminals.terminals().update_profile(request.clone()).await;
    let changed = office.approved(("UpdateProfile", When::Always), change).await;
    assert!(changed.profile.unwrap().no_code);
}

#[tokio::test]
async fn a_grant_that_names_officer_and_keys_was_approved_with_the_policy() {
    let once = Grant { calls_per_minute_max: 1, ..grant("keys/kek-3") };
    let office = Office::open(vec![grant("keys/kek"), once]).await;
    let none = KeyAttributes::default;
    for id in ["kek", "kek-2", "kek-3"] {
        answer(office.create(new_key(id, KeyUsage::KeyEncryption, none())).await);
    }
    let open = KeyAttributes { open: true, ..of_set(3) };
    answer(office.create(new_key("open", KeyUsage::BaseDerivation, open)).await);
    answer(office.one.keys().export_initial_key(initial_key()).await);
    // Neither another officer, nor another partner.
    waits(office.two.keys().export_initial_key(initial_key()).await);
    let other = ExportInitialKeyRequest { wrapping_key: "keys/kek-2".to_owned(), ..initial_key() };
    waits(office.one.keys().export_initial_key(other).await);
    // A grant stands for as many approvals in a minute as it says.
    let limited =
        || ExportInitialKeyRequest { wrapping_key: "keys/kek-3".to_owned(), ..initial_key() };
    answer(office.one.keys().export_initial_key(limited()).await);
    let refused = crate::harness::refusal(office.one.keys().export_initial_key(limited()).await);
    assert_eq!(refused.reason, "RATE_LIMITED");
    answer(office.one.keys().export_initial_key(initial_key()).await);
    let Office { service, one, two, .. } = office;
    drop((one, two));
    service.stop().await;
}

#[tokio::test]
async fn what_would_be_refused_leaves_nothing_to_approve() {
    let office = Office::open(Vec::new()).await;
    let none = KeyAttributes::default;
    answer(office.create(new_key("kek", KeyUsage::KeyEncryption, none())).await);
    let request = CreateKeyRequest {
        algorithm: proto::KeyAlgorithm::Aes256.into(),
        ..new_key("strong", KeyUsage::KeyEncryption, none())
    };
    answer(office.create(request).await);
    for (reason, request) in [
        ("KEY_NOT_FOUND", export("nobody")),
        ("WRAPPING_KEY_TOO_WEAK", export("strong")),
        ("KEY_NOT_FOUND", ExportKeyRequest { wrapping_key: "keys/no".into(), ..export("kek") }),
    ] {
        let refused = crate::harness::refusal(office.one.keys().export_key(request).await);
        assert_eq!(refused.reason, reason);
    }
    let request = proto::ListApprovalsRequest::default();
    assert!(answer(office.two.approvals().list_approvals(request).await).approvals.is_empty());
    let Office { service, one, two, .. } = office;
    drop((one, two));
    service.stop().await;
}
