//! Every state of a key and every call that uses one, over the real API.

use firstkey::crypto::cmac::aes_cmac;
use firstkey::dukpt::{AesInitialKey, AesInitialKeyId, AesKsn, KeyKind};
use firstkey::grpc::client::request_id;
use firstkey::grpc::proto::{
    CreateKeyRequest, Direction, ExportInitialKeyRequest, GenerateMacRequest,
    GetDestructionCertificateRequest, GetKeyRequest, ImportKeyRequest, Key, KeyAlgorithm,
    KeyAttributes, KeyState, KeyUsage, ListKeyVersionsRequest, MacAlgorithm, PinBlockFormat,
    RotateKeyRequest, SetPrimaryVersionRequest, TranslatePinRequest, UpdateKeyRequest,
    VerifyMacAndTranslatePinRequest, VerifyMacRequest, WorkingKey,
};
use firstkey::key::Algorithm;
use firstkey::key::usage::{
    BaseDerivation, KeyEncryption, MacGeneration, PinEncryption, WorkingUsage,
};
use firstkey::vault::{KeyState as State, Operation};
use tonic::Status;

use crate::harness::Service;
use crate::keys::{create, export, made, move_to};
use crate::known::{
    Known, PAN, PIN, dev, dukpt_of, enciphered, expect_reason, import_request, pin_block, random,
    reason_of, status_of, stored, wrap_d,
};

use KeyState::{Active, Compromised, Deactivated, Destroyed, PreActive, Suspended};

const STATES: [KeyState; 6] = [PreActive, Active, Suspended, Deactivated, Compromised, Destroyed];

/// What a call does with the key that is in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    // Static keys.
    GenerateMac,
    VerifyMac,
    TranslatePinSource,
    TranslatePinDestination,
    SwitchMacKey,
    SwitchSource,
    SwitchDestination,
    // Base derivation keys.
    GenerateMacDukpt,
    VerifyMacDukpt,
    TranslatePinSourceDukpt,
    TranslatePinDestinationDukpt,
    ExportInitialKey,
    // Keys that wrap, and keys that are wrapped.
    ImportUnder,
    ExportUnder,
    ExportInitialKeyUnder,
    ExportKey,
    // Keys as they are governed.
    RotateKey,
    SetPrimaryVersion,
    UpdateKey,
    GetKey,
    ListKeyVersions,
    GetDestructionCertificate,
}

/// What goes on old data goes on when a key is deactivated.
const OLD: &[KeyState] = &[Active, Deactivated];
const IN_USE: &[KeyState] = &[Active];

/// In which states each use is done; in the others it is `KEY_NOT_ACTIVE`. Written out, and
/// not derived from the library, whose word for the use stands beside it.
#[rustfmt::skip]
const TABLE: [(Use, Option<Operation>, &[KeyState]); 22] = [
    (Use::GenerateMac, Some(Operation::GenerateMac), IN_USE),
    (Use::VerifyMac, Some(Operation::VerifyMac), OLD),
    (Use::TranslatePinSource, Some(Operation::Decrypt), OLD),
    (Use::TranslatePinDestination, Some(Operation::Encrypt), IN_USE),
    (Use::SwitchMacKey, Some(Operation::VerifyMac), OLD),
    (Use::SwitchSource, Some(Operation::Decrypt), OLD),
    (Use::SwitchDestination, Some(Operation::Encrypt), IN_USE),
    (Use::GenerateMacDukpt, Some(Operation::DeriveWorking), IN_USE),
    (Use::VerifyMacDukpt, Some(Operation::DeriveWorking), IN_USE),
    (Use::TranslatePinSourceDukpt, Some(Operation::DeriveWorking), IN_USE),
    (Use::TranslatePinDestinationDukpt, Some(Operation::DeriveWorking), IN_USE),
    (Use::ExportInitialKey, Some(Operation::DeriveInitial), IN_USE),
    (Use::ImportUnder, Some(Operation::Unwrap), OLD),
    (Use::ExportUnder, Some(Operation::Wrap), IN_USE),
    (Use::ExportInitialKeyUnder, Some(Operation::Wrap), IN_USE),
    (Use::ExportKey, Some(Operation::Export), IN_USE),
    (Use::RotateKey, None, &STATES),
    (Use::SetPrimaryVersion, None, IN_USE),
    (Use::UpdateKey, None, &STATES),
    (Use::GetKey, None, &STATES),
    (Use::ListKeyVersions, None, &STATES),
    (Use::GetDestructionCertificate, None, &[Destroyed]),
];

#[tokio::test]
async fn every_state_answers_every_call_as_the_table_says() {
    let service = Service::start().await;
    let mut wrong = Vec::new();
    for (row, (what, _, done_in)) in TABLE.into_iter().enumerate() {
        for (column, state) in STATES.into_iter().enumerate() {
            let cell = Cell { service: &service, state, row, column };
            let found = cell.try_use(what).await.err().map(|status| reason_of(&status));
            let expected = (!done_in.contains(&state)).then_some("KEY_NOT_ACTIVE");
            if found.as_deref() != expected {
                wrong.push(format!("{what:?} {}: {found:?}", state.as_str_name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_and_the_library_agree_on_what_is_allowed() {
    for (what, operation, done_in) in TABLE {
        let Some(operation) = operation else { continue };
        for state in STATES {
            let known = State::ALL
                .into_iter()
                .find(|one| state.as_str_name().strip_prefix("KEY_STATE_") == Some(one.as_str()));
            let allows = known.unwrap().allows(operation);
            assert_eq!(allows, done_in.contains(&state), "{what:?} {}", state.as_str_name());
        }
    }
    for operation in Operation::ALL {
        assert!(TABLE.iter().any(|(_, one, _)| *one == Some(operation)), "{operation:?}");
    }
}

/// One cell of the table, with keys of its own.
struct Cell<'a> {
    service: &'a Service,
    state: KeyState,
    row: usize,
    column: usize,
}

impl Cell<'_> {
    /// The name of the key that is in the state.
    fn id(&self) -> String {
        format!("k-{}-{}", self.row, self.column)
    }

    /// Brings a key that the test knows into the state.
    async fn bring(&self, bytes: &[u8], fields: &str, attributes: KeyAttributes) {
        let key_block = wrap_d(&dev().kek, &format!("{fields}0000"), bytes);
        let request = ImportKeyRequest {
            attributes: Some(attributes),
            pre_active: self.state == PreActive,
            ..import_request(&self.id(), &key_block, "keys/dev-kek")
        };
        self.service.client.keys().import_key(request).await.expect("a key block under dev-kek");
        for state in way_to(self.state) {
            move_to(self.service, &self.id(), *state).await.expect("a way of the table");
        }
    }

    /// A key that is in use throughout, as another of the call.
    async fn beside(&self, what: &str, bytes: &[u8], fields: &str) -> String {
        let id = format!("{what}-{}-{}", self.row, self.column);
        let key_block = wrap_d(&dev().kek, &format!("{fields}0000"), bytes);
        let request = import_request(&id, &key_block, "keys/dev-kek");
        self.service.client.keys().import_key(request).await.expect("a key block under dev-kek");
        id
    }

    async fn try_use(&self, what: Use) -> Result<(), Status> {
        match what {
            Use::GenerateMac | Use::VerifyMac => self.mac(what).await,
            Use::TranslatePinSource | Use::TranslatePinDestination => self.pin(what).await,
            Use::SwitchMacKey | Use::SwitchSource | Use::SwitchDestination => {
                self.switch(what).await
            }
            Use::GenerateMacDukpt
            | Use::VerifyMacDukpt
            | Use::TranslatePinSourceDukpt
            | Use::TranslatePinDestinationDukpt
            | Use::ExportInitialKey => self.derivation(what).await,
            Use::ImportUnder | Use::ExportUnder | Use::ExportInitialKeyUnder | Use::ExportKey => {
                self.wrapping(what).await
            }
            Use::RotateKey
            | Use::SetPrimaryVersion
            | Use::UpdateKey
            | Use::GetKey
            | Use::ListKeyVersions
            | Use::GetDestructionCertificate => self.governing(what).await,
        }
    }

    async fn mac(&self, what: Use) -> Result<(), Status> {
        let bytes = random(16);
        self.bring(&bytes, "M6AC00N", KeyAttributes::default()).await;
        let mut macs = self.service.client.macs();
        if what == Use::GenerateMac {
            let made = macs.generate_mac(generation(stored(&self.id()))).await?;
            assert_eq!(made.into_inner().mac, aes_cmac(&bytes, MESSAGE).unwrap());
            return Ok(());
        }
        let mac = aes_cmac(&bytes, MESSAGE).unwrap().to_vec();
        macs.verify_mac(verification(stored(&self.id()), mac)).await.map(drop)
    }

    async fn pin(&self, what: Use) -> Result<(), Status> {
        let (bytes, other) = (random(16), random(16));
        self.bring(&bytes, "P0AB00N", KeyAttributes::default()).await;
        let other_id = self.beside("other", &other, "P0AB00N").await;
        let request = if what == Use::TranslatePinSource {
            translation(stored(&self.id()), stored(&other_id), pin_block(4, &bytes, PIN, PAN))
        } else {
            translation(stored(&other_id), stored(&self.id()), pin_block(4, &other, PIN, PAN))
        };
        self.service.client.pins().translate_pin(request).await.map(drop)
    }

    /// MAC and PIN block of one message.
    async fn switch(&self, what: Use) -> Result<(), Status> {
        let (mac, source, destination) = (random(16), random(16), random(16));
        let mut keys = [
            (Use::SwitchMacKey, &mac, "M6AC00N", "mac"),
            (Use::SwitchSource, &source, "P0AB00N", "source"),
            (Use::SwitchDestination, &destination, "P0AB00N", "destination"),
        ]
        .into_iter();
        let mut names = Vec::new();
        for (of, bytes, fields, name) in &mut keys {
            if of == what {
                self.bring(bytes, fields, KeyAttributes::default()).await;
                names.push(self.id());
            } else {
                names.push(self.beside(name, bytes, fields).await);
            }
        }
        let request = VerifyMacAndTranslatePinRequest {
            mac_key: stored(&names[0]),
            algorithm: MacAlgorithm::AesCmac.into(),
            message: MESSAGE.to_vec(),
            mac: aes_cmac(&mac, MESSAGE).unwrap().to_vec(),
            source: stored(&names[1]),
            source_format: PinBlockFormat::Iso4.into(),
            pin_block: pin_block(4, &source, PIN, PAN),
            destination: stored(&names[2]),
            destination_format: PinBlockFormat::Iso4.into(),
            pan: PAN.to_owned(),
            ..VerifyMacAndTranslatePinRequest::default()
        };
        self.service.client.pins().verify_mac_and_translate_pin(request).await.map(drop)
    }

    /// What a terminal that was injected elsewhere does, or another that is to be injected.
    async fn derivation(&self, what: Use) -> Result<(), Status> {
        let known = Known::<BaseDerivation>::generate(Algorithm::Aes128);
        let place = u8::try_from(self.row * STATES.len() + self.column).unwrap();
        let set = [0xE0, 0xE1, 0xE2, place];
        let attributes =
            KeyAttributes { key_set_id: set.to_vec(), open: true, ..KeyAttributes::default() };
        self.bring(&known.bytes, "B0AX00N", attributes).await;
        let id = AesInitialKeyId::parse(&[&set[..], &[0, 0, 0, 7]].concat()).unwrap();
        let (initial, ksn) = (known.key.aes_initial_key(id).unwrap(), id.ksn(1).unwrap());
        // Named, as the key set of a key that is destroyed leads to no key any more.
        let from = |ksn: &AesKsn| dukpt_of(&format!("keys/{}", self.id()), ksn.bytes());
        let (mut macs, mut pins) = (self.service.client.macs(), self.service.client.pins());
        let other = random(16);
        match what {
            Use::GenerateMacDukpt => {
                let request = generation(from(&ksn));
                let direction = Direction::Response.into();
                macs.generate_mac(GenerateMacRequest { direction, ..request }).await.map(drop)
            }
            Use::VerifyMacDukpt => {
                let key = working_key::<MacGeneration>(&initial, &ksn);
                let mac = firstkey::mac::MacAlgorithm::AesCmac;
                let mac = key.generate_mac(mac, MESSAGE, 16).unwrap().bytes().to_vec();
                let direction = Direction::Request.into();
                let request = verification(from(&ksn), mac);
                macs.verify_mac(VerifyMacRequest { direction, ..request }).await.map(drop)
            }
            Use::TranslatePinSourceDukpt => {
                let key = working_key::<PinEncryption>(&initial, &ksn);
                let block = enciphered(&key, firstkey::pin::PinBlockFormat::Iso4, PIN, PAN);
                let other = self.beside("other", &other, "P0AB00N").await;
                let request = translation(from(&ksn), stored(&other), block);
                pins.translate_pin(request).await.map(drop)
            }
            Use::TranslatePinDestinationDukpt => {
                let block = pin_block(4, &other, PIN, PAN);
                let other = self.beside("other", &other, "P0AB00N").await;
                let request = translation(stored(&other), from(&ksn), block);
                pins.translate_pin(request).await.map(drop)
            }
            _ => self.initial_key(&self.id(), "dev-kek").await,
        }
    }

    async fn initial_key(&self, bdk: &str, wrapping_key: &str) -> Result<(), Status> {
        let request = ExportInitialKeyRequest {
            request_id: request_id(),
            base_derivation_key: format!("keys/{bdk}"),
            wrapping_key: format!("keys/{wrapping_key}"),
        };
        self.service.client.keys().export_initial_key(request).await.map(drop)
    }

    async fn wrapping(&self, what: Use) -> Result<(), Status> {
        let mut keys = self.service.client.keys();
        if what == Use::ExportKey {
            self.bring(&random(16), "P0AB00E", KeyAttributes::default()).await;
            return keys.export_key(export(&self.id(), "dev-kek")).await.map(drop);
        }
        let kek = Known::<KeyEncryption>::generate(Algorithm::Aes256);
        self.bring(&kek.bytes, "K0AB00N", KeyAttributes::default()).await;
        match what {
            Use::ImportUnder => {
                let block = wrap_d(&kek.bytes, "P0AB00E0000", &random(16));
                let in_id = format!("in-{}", self.column);
                let request = import_request(&in_id, &block, &format!("keys/{}", self.id()));
                keys.import_key(request).await.map(drop)
            }
            Use::ExportUnder => {
                let other = self.beside("other", &random(16), "P0AB00E").await;
                keys.export_key(export(&other, &self.id())).await.map(drop)
            }
            _ => {
                let bdk = format!("bdk-{}", self.column);
                let place = u8::try_from(self.column).unwrap();
                let key_set_id = vec![0xD0, 0xD1, 0xD2, place];
                let attributes =
                    KeyAttributes { key_set_id, open: true, ..KeyAttributes::default() };
                let request = create(&bdk, KeyUsage::BaseDerivation, KeyAlgorithm::Aes128);
                let attributes = Some(attributes);
                made(self.service, CreateKeyRequest { attributes, ..request }).await;
                self.initial_key(&bdk, &self.id()).await
            }
        }
    }

    async fn governing(&self, what: Use) -> Result<(), Status> {
        self.bring(&random(16), "P0AB00N", KeyAttributes::default()).await;
        let (mut keys, name) = (self.service.client.keys(), format!("keys/{}", self.id()));
        match what {
            Use::RotateKey => {
                let request = RotateKeyRequest {
                    request_id: request_id(),
                    name,
                    ..RotateKeyRequest::default()
                };
                keys.rotate_key(request).await.map(drop)
            }
            Use::SetPrimaryVersion => {
                let name = format!("{name}/versions/1");
                let request = SetPrimaryVersionRequest { request_id: request_id(), name };
                keys.set_primary_version(request).await.map(drop)
            }
            Use::UpdateKey => {
                let labels = [("partner".to_owned(), "one".to_owned())].into();
                let request = UpdateKeyRequest {
                    request_id: request_id(),
                    key: Some(Key { name, labels, ..Key::default() }),
                    update_mask: Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] }),
                };
                keys.update_key(request).await.map(drop)
            }
            Use::GetKey => {
                let found = keys.get_key(GetKeyRequest { name }).await?.into_inner().key.unwrap();
                assert!(found.state() == self.state);
                Ok(())
            }
            Use::ListKeyVersions => {
                let request = ListKeyVersionsRequest { name, ..ListKeyVersionsRequest::default() };
                let listed = keys.list_key_versions(request).await?.into_inner().keys;
                assert!(listed.len() == 1 && listed[0].state() == self.state);
                Ok(())
            }
            _ => {
                let name = format!("{name}/versions/1");
                let request = GetDestructionCertificateRequest { name };
                keys.get_destruction_certificate(request).await.map(drop)
            }
        }
    }
}

const MESSAGE: &[u8] = b"what a MAC is for";

fn generation(key: Option<WorkingKey>) -> GenerateMacRequest {
    GenerateMacRequest {
        key,
        algorithm: MacAlgorithm::AesCmac.into(),
        message: MESSAGE.to_vec(),
        mac_length_bytes: 16,
        ..GenerateMacRequest::default()
    }
}

fn verification(key: Option<WorkingKey>, mac: Vec<u8>) -> VerifyMacRequest {
    VerifyMacRequest {
        key,
        algorithm: MacAlgorithm::AesCmac.into(),
        message: MESSAGE.to_vec(),
        mac,
        ..VerifyMacRequest::default()
    }
}

fn translation(
    source: Option<WorkingKey>,
    destination: Option<WorkingKey>,
    pin_block: Vec<u8>,
) -> TranslatePinRequest {
    let iso_4 = PinBlockFormat::Iso4.into();
    TranslatePinRequest {
        source,
        source_format: iso_4,
        pin_block,
        destination,
        destination_format: iso_4,
        pan: PAN.to_owned(),
        ..TranslatePinRequest::default()
    }
}

fn working_key<U: WorkingUsage>(initial: &AesInitialKey, ksn: &AesKsn) -> firstkey::key::Key<U> {
    initial.working_key(ksn, KeyKind::Aes128).unwrap()
}

#[tokio::test]
async fn a_key_moves_as_the_table_says_and_never_back_from_its_end() {
    // NIST SP 800-57 part 1 rev. 5, 7, as the proto tells it.
    let ways = [
        (PreActive, [Active, Compromised, Destroyed].as_slice()),
        (Active, &[Suspended, Deactivated, Compromised]),
        (Suspended, &[Active, Deactivated, Compromised]),
        (Deactivated, &[Compromised, Destroyed]),
        (Compromised, &[]),
        (Destroyed, &[]),
    ];
    let service = Service::start().await;
    let mut count = 0;
    for (from, permitted) in ways {
        for to in STATES {
            count += 1;
            let id = format!("life-{count}");
            let pre_active = from == PreActive;
            let request = create(&id, KeyUsage::MacCmac, KeyAlgorithm::Aes128);
            made(&service, CreateKeyRequest { pre_active, ..request }).await;
            for state in way_to(from) {
                move_to(&service, &id, *state).await.expect("a way of the table");
            }
            let answer = move_to(&service, &id, to).await;
            let request = GetKeyRequest { name: format!("keys/{id}") };
            let found = service.client.keys().get_key(request).await.unwrap().into_inner();
            let now = found.key.unwrap().state();
            if permitted.contains(&to) {
                assert!(answer.expect("a way of the table").state() == to);
                assert!(now == to);
            } else {
                expect_reason(&status_of(answer), "KEY_NOT_ACTIVE");
                assert!(now == from, "{} to {}", from.as_str_name(), to.as_str_name());
            }
        }
    }
}

/// How a new key comes to a state.
fn way_to(state: KeyState) -> &'static [KeyState] {
    match state {
        KeyState::Unspecified | KeyState::PreActive | KeyState::Active => &[],
        KeyState::Suspended => &[KeyState::Suspended],
        KeyState::Deactivated => &[KeyState::Deactivated],
        KeyState::Compromised => &[KeyState::Compromised],
        KeyState::Destroyed => &[KeyState::Deactivated, KeyState::Destroyed],
    }
}
