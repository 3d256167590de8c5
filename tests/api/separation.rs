//! One key, one purpose: every kind of key at every place that names one.
//!
//! The table is written out here a second time: which usages and modes of use a place takes. All
//! others are refused alike, with one status a place, whatever the key was.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use firstkey::grpc::client::request_id;
use firstkey::grpc::proto::{
    CreateKeyRequest, CreateProfileRequest, Direction, ExportInitialKeyRequest, ExportKeyRequest,
    Exportability, GenerateMacRequest, KeyAlgorithm, KeyAttributes, KeyUsage, MacAlgorithm,
    ModeOfUse, PaddingMethod, PinBlockFormat, Profile, ProfileKey, Suite, TranslatePinRequest,
    VerifyMacAndTranslatePinRequest, VerifyMacRequest, WorkingKey,
};
use firstkey::server::dev;
use firstkey::vault::Reason;
use tonic::Status;

use crate::harness::{Service, answer, create_terminal_request, with_master_key};
use crate::known::{PAN, dukpt_of, import_request, reason_of, stored};

/// A kind of key: what is fixed when it is made.
#[derive(Clone, Copy)]
struct Kind {
    usage: KeyUsage,
    algorithm: KeyAlgorithm,
    mode: ModeOfUse,
}

impl Kind {
    fn is_tdes(self) -> bool {
        matches!(self.algorithm, KeyAlgorithm::Tdes2 | KeyAlgorithm::Tdes3)
    }

    fn id(self) -> String {
        let words = [
            self.usage.as_str_name().trim_start_matches("KEY_USAGE_"),
            self.algorithm.as_str_name().trim_start_matches("KEY_ALGORITHM_"),
            self.mode.as_str_name().trim_start_matches("MODE_OF_USE_"),
        ];
        words.join("-").to_lowercase().replace('_', "")
    }

    /// The key set of a base derivation key of this kind: the number of its algorithm and mode.
    fn key_set_id(self) -> Vec<u8> {
        let number = |value: i32| u8::try_from(value).expect("the enums are small");
        let len = if self.is_tdes() { 5 } else { 4 };
        let mut set = vec![0x77; len];
        set[2] = number(self.algorithm.into());
        set[3] = number(self.mode.into());
        set
    }

    /// The KSN of the first counter of the first terminal below it.
    fn ksn(self) -> Vec<u8> {
        let first: &[u8] =
            if self.is_tdes() { &[0, 0, 0x20, 0, 1] } else { &[0, 0, 0, 1, 0, 0, 0, 1] };
        [self.key_set_id().as_slice(), first].concat()
    }

    /// A base derivation key serves strangers or registered terminals: one of its modes stands for
    /// each here.
    fn is_open(self) -> bool {
        self.mode == ModeOfUse::Derive
    }

    fn is_base_key(self) -> bool {
        self.usage == KeyUsage::BaseDerivation
    }

    fn format(self) -> i32 {
        let format = if self.is_tdes() { PinBlockFormat::Iso0 } else { PinBlockFormat::Iso4 };
        format.into()
    }

    fn pin_block(self) -> Vec<u8> {
        vec![0x5A; if self.is_tdes() { 8 } else { 16 }]
    }
}

/// Every kind of key that the service makes.
fn kinds() -> Vec<Kind> {
    use KeyAlgorithm::{
        Aes128, Aes192, Aes256, Hmac128, Hmac192, Hmac256, Hmac384, Hmac512, Tdes2, Tdes3,
    };
    use ModeOfUse::{
        Decrypt, Derive, Encrypt, EncryptAndDecrypt, Generate, GenerateAndVerify, NoRestriction,
        Verify,
    };
    const CIPHERS: &[KeyAlgorithm] = &[Tdes2, Tdes3, Aes128, Aes192, Aes256];
    // TDES-DUKPT begins with a key of double length (ANSI X9.24-1).
    const BASES: &[KeyAlgorithm] = &[Tdes2, Aes128, Aes192, Aes256];
    const HASHES: &[KeyAlgorithm] = &[Hmac128, Hmac192, Hmac256, Hmac384, Hmac512];
    const DERIVES: &[ModeOfUse] = &[Derive, NoRestriction];
    const ENCRYPTS: &[ModeOfUse] = &[EncryptAndDecrypt, Encrypt, Decrypt, NoRestriction];
    const MACS: &[ModeOfUse] = &[GenerateAndVerify, Generate, Verify, NoRestriction];
    let rows: [(KeyUsage, &[KeyAlgorithm], &[ModeOfUse]); 10] = [
        (KeyUsage::BaseDerivation, BASES, DERIVES),
        (KeyUsage::KeyDerivation, CIPHERS, DERIVES),
        (KeyUsage::KeyEncryption, CIPHERS, ENCRYPTS),
        (KeyUsage::KeyBlockProtection, CIPHERS, ENCRYPTS),
        (KeyUsage::PinEncryption, CIPHERS, ENCRYPTS),
        (KeyUsage::DataEncryption, CIPHERS, ENCRYPTS),
        (KeyUsage::MacAlgorithm1, &[Tdes2, Tdes3], MACS),
        (KeyUsage::MacAlgorithm3, &[Tdes2], MACS),
        (KeyUsage::MacCmac, CIPHERS, MACS),
        (KeyUsage::MacHmac, HASHES, MACS),
    ];
    let rows = rows.into_iter();
    rows.flat_map(|(usage, algorithms, modes)| {
        algorithms.iter().flat_map(move |algorithm| {
            modes.iter().map(move |mode| Kind { usage, algorithm: *algorithm, mode: *mode })
        })
    })
    .collect()
}

/// A place in a request that names a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    ExportWrapping,
    FacilityBaseKey,
    FacilityWrapping,
    Generate(Mac),
    GenerateBaseKey,
    ImportWrapping,
    ProfileBaseKey,
    ProfileDerivationKey,
    SwitchDestination,
    SwitchMac,
    SwitchSource,
    TerminalMasterKey,
    TranslateDestination,
    TranslateDestinationBaseKey,
    TranslateSource,
    TranslateSourceBaseKey,
    Verify(Mac),
    VerifyBaseKey,
}

/// An algorithm of a MAC, in the words of this table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mac {
    AesCmac,
    Algorithm1,
    Algorithm3,
    Hmac,
    TdesCmac,
}

const MAC_ALGORITHMS: [Mac; 5] =
    [Mac::AesCmac, Mac::Algorithm1, Mac::Algorithm3, Mac::Hmac, Mac::TdesCmac];

impl Mac {
    fn words(self) -> (i32, i32) {
        let (algorithm, padding) = match self {
            Self::AesCmac => (MacAlgorithm::AesCmac, PaddingMethod::Unspecified),
            Self::Algorithm1 => (MacAlgorithm::Iso97971Algorithm1, PaddingMethod::PaddingMethod3),
            Self::Algorithm3 => (MacAlgorithm::Iso97971Algorithm3, PaddingMethod::PaddingMethod3),
            Self::Hmac => (MacAlgorithm::HmacSha256, PaddingMethod::Unspecified),
            Self::TdesCmac => (MacAlgorithm::TdesCmac, PaddingMethod::Unspecified),
        };
        (algorithm.into(), padding.into())
    }

    fn takes(self, kind: Kind) -> bool {
        match self {
            Self::AesCmac => kind.usage == KeyUsage::MacCmac && !kind.is_tdes(),
            Self::Algorithm1 => kind.usage == KeyUsage::MacAlgorithm1,
            Self::Algorithm3 => kind.usage == KeyUsage::MacAlgorithm3,
            Self::Hmac => kind.usage == KeyUsage::MacHmac,
            Self::TdesCmac => kind.usage == KeyUsage::MacCmac && kind.is_tdes(),
        }
    }
}

impl Place {
    fn all() -> Vec<Self> {
        let macs = MAC_ALGORITHMS.into_iter();
        let macs = macs.flat_map(|mac| [Self::Generate(mac), Self::Verify(mac)]);
        macs.chain([
            Self::ExportWrapping,
            Self::FacilityBaseKey,
            Self::FacilityWrapping,
            Self::GenerateBaseKey,
            Self::ImportWrapping,
            Self::ProfileBaseKey,
            Self::ProfileDerivationKey,
            Self::SwitchDestination,
            Self::SwitchMac,
            Self::SwitchSource,
            Self::TerminalMasterKey,
            Self::TranslateDestination,
            Self::TranslateDestinationBaseKey,
            Self::TranslateSource,
            Self::TranslateSourceBaseKey,
            Self::VerifyBaseKey,
        ])
        .collect()
    }

    /// The published cell: whether the place takes such a key.
    fn takes(self, kind: Kind) -> bool {
        use ModeOfUse::{
            Decrypt, Encrypt, EncryptAndDecrypt, Generate, GenerateAndVerify, NoRestriction, Verify,
        };
        let of = |usages: &[KeyUsage]| usages.contains(&kind.usage);
        let may = |modes: &[ModeOfUse]| modes.contains(&kind.mode);
        let wraps = of(&[KeyUsage::KeyEncryption, KeyUsage::KeyBlockProtection]);
        match self {
            Self::ExportWrapping | Self::FacilityWrapping => {
                wraps && may(&[EncryptAndDecrypt, Encrypt, NoRestriction])
            }
            Self::ImportWrapping => wraps && may(&[EncryptAndDecrypt, Decrypt, NoRestriction]),
            Self::FacilityBaseKey => kind.is_base_key() && kind.is_open(),
            Self::GenerateBaseKey
            | Self::TranslateDestinationBaseKey
            | Self::TranslateSourceBaseKey
            | Self::VerifyBaseKey => kind.is_base_key(),
            // The suite of the profile is AES-DUKPT with 128 bits.
            Self::ProfileBaseKey => {
                let fits = kind.algorithm == KeyAlgorithm::Aes128;
                kind.is_base_key() && fits && !kind.is_open()
            }
            Self::ProfileDerivationKey | Self::TerminalMasterKey => {
                of(&[KeyUsage::KeyDerivation]) && !kind.is_tdes()
            }
            Self::Generate(mac) => {
                mac.takes(kind) && may(&[GenerateAndVerify, Generate, NoRestriction])
            }
            Self::Verify(mac) => {
                mac.takes(kind) && may(&[GenerateAndVerify, Verify, NoRestriction])
            }
            Self::SwitchMac => {
                Mac::AesCmac.takes(kind) && may(&[GenerateAndVerify, Verify, NoRestriction])
            }
            Self::SwitchSource | Self::TranslateSource => {
                of(&[KeyUsage::PinEncryption]) && may(&[EncryptAndDecrypt, Decrypt, NoRestriction])
            }
            Self::SwitchDestination | Self::TranslateDestination => {
                of(&[KeyUsage::PinEncryption]) && may(&[EncryptAndDecrypt, Encrypt, NoRestriction])
            }
        }
    }
}

#[tokio::test]
async fn every_kind_of_key_serves_at_its_own_places_alone() {
    let service = Service::start().await;
    let kinds = kinds();
    for kind in &kinds {
        make(&service, *kind).await;
    }
    let bench = Bench::new(&service).await;
    let mut refusals: BTreeMap<Place, Vec<u8>> = BTreeMap::new();
    let mut cells = 0;
    let mut wrong = Vec::new();
    for place in Place::all() {
        for kind in &kinds {
            cells += 1;
            let status = bench.call(place, *kind).await.err();
            let reason = status.as_ref().map(reason_of);
            let refused = reason.as_deref() == Some(Reason::KeyUsageMismatch.as_str());
            if refused == place.takes(*kind) {
                wrong.push(format!("{place:?} {}: {reason:?}", kind.id()));
            }
            if let Some(status) = status.filter(|_| refused) {
                let bytes = [status.message().as_bytes(), status.details()].concat();
                let first = refusals.entry(place).or_insert_with(|| bytes.clone());
                assert_eq!(*first, bytes, "{place:?} {}", kind.id());
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {cells}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cells > 2_000, "{cells}");
}

async fn make(service: &Service, kind: Kind) {
    let derives = kind.usage == KeyUsage::BaseDerivation;
    let attributes = derives.then(|| KeyAttributes {
        key_set_id: kind.key_set_id(),
        open: kind.is_open(),
        ..KeyAttributes::default()
    });
    let request = CreateKeyRequest {
        request_id: request_id(),
        key_id: kind.id(),
        usage: kind.usage.into(),
        algorithm: kind.algorithm.into(),
        mode_of_use: kind.mode.into(),
        attributes,
        ..CreateKeyRequest::default()
    };
    answer(service.client.keys().create_key(request).await);
}

/// What else the calls need.
struct Bench<'a> {
    service: &'a Service,
    /// A right MAC over the message under [`MAC_KEY`], so that the PIN part is reached.
    mac: Vec<u8>,
    /// For names that no call before has taken.
    numbers: AtomicU32,
}

/// A base derivation key that may give out initial keys.
const BASE_KEY: Kind = Kind {
    usage: KeyUsage::BaseDerivation,
    algorithm: KeyAlgorithm::Aes128,
    mode: ModeOfUse::Derive,
};
const MESSAGE: &[u8] = b"a message";
const MAC_KEY: &str = "mac";

impl<'a> Bench<'a> {
    async fn new(service: &'a Service) -> Self {
        let make = |id: &str, usage: KeyUsage| CreateKeyRequest {
            request_id: request_id(),
            key_id: id.to_owned(),
            usage: usage.into(),
            algorithm: KeyAlgorithm::Aes128.into(),
            exportability: Exportability::Exportable.into(),
            ..CreateKeyRequest::default()
        };
        for (id, usage) in [(MAC_KEY, KeyUsage::MacCmac), ("leaves", KeyUsage::DataEncryption)] {
            answer(service.client.keys().create_key(make(id, usage)).await);
        }
        let request = generate(stored(MAC_KEY), Mac::AesCmac, 0);
        let mac = answer(service.client.macs().generate_mac(request).await).mac;
        Self { service, mac, numbers: AtomicU32::new(1) }
    }

    /// Makes the call of a place with a key of a kind at it, and nothing else wrong.
    async fn call(&self, place: Place, kind: Kind) -> Result<(), Status> {
        let id = kind.id();
        let name = format!("keys/{id}");
        match place {
            Place::ExportWrapping
            | Place::FacilityBaseKey
            | Place::FacilityWrapping
            | Place::ImportWrapping => self.pass(place, kind, name).await,
            Place::ProfileBaseKey | Place::ProfileDerivationKey | Place::TerminalMasterKey => {
                self.terminals(place, &id).await
            }
            Place::Generate(_)
            | Place::GenerateBaseKey
            | Place::Verify(_)
            | Place::VerifyBaseKey => self.macs(place, kind).await,
            Place::SwitchDestination
            | Place::SwitchMac
            | Place::SwitchSource
            | Place::TranslateDestination
            | Place::TranslateDestinationBaseKey
            | Place::TranslateSource
            | Place::TranslateSourceBaseKey => self.pins(place, kind).await,
        }
    }

    async fn pass(&self, place: Place, kind: Kind, name: String) -> Result<(), Status> {
        let mut keys = self.service.client.keys();
        let request_id = request_id();
        if place == Place::ImportWrapping {
            let version = if kind.is_tdes() { 'B' } else { 'D' };
            let block = format!("{version}0112P0AE00E0000{}", "0".repeat(96));
            return keys.import_key(import_request("never", &block, &name)).await.map(drop);
        }
        if place == Place::ExportWrapping {
            let leaves = "keys/leaves".to_owned();
            let request = ExportKeyRequest {
                request_id,
                name: leaves,
                wrapping_key: name,
                ..ExportKeyRequest::default()
            };
            return keys.export_key(request).await.map(drop);
        }
        let (base, wrapping) = match place {
            Place::FacilityBaseKey => (name, "keys/dev-kek".to_owned()),
            _ => (format!("keys/{}", BASE_KEY.id()), name),
        };
        let request = ExportInitialKeyRequest {
            request_id,
            base_derivation_key: base,
            wrapping_key: wrapping,
        };
        keys.export_initial_key(request).await.map(drop)
    }

    async fn terminals(&self, place: Place, id: &str) -> Result<(), Status> {
        let mut terminals = self.service.client.terminals();
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        if place == Place::TerminalMasterKey {
            let (own, serial) = (format!("till-{number}"), format!("SN-{number}"));
            let request = create_terminal_request(&own, &serial, dev::PROFILE_MASTER_AES);
            return terminals.create_terminal(with_master_key(request, id)).await.map(drop);
        }
        let request = self.service.get_profile(dev::PROFILE_AES).await;
        let mut profile = Profile { name: String::new(), ..request };
        profile.suite = Suite::P256Aes128.into();
        if place == Place::ProfileBaseKey {
            profile.base_derivation_key = format!("keys/{id}");
        } else {
            profile.keys = vec![ProfileKey {
                slot: 1,
                usage: KeyUsage::PinEncryption.into(),
                algorithm: KeyAlgorithm::Aes128.into(),
                derivation_key: format!("keys/{id}"),
            }];
        }
        let request = CreateProfileRequest {
            request_id: request_id(),
            profile_id: format!("profile-{number}"),
            profile: Some(profile),
        };
        terminals.create_profile(request).await.map(drop)
    }

    async fn macs(&self, place: Place, kind: Kind) -> Result<(), Status> {
        let id = kind.id();
        let direction = Direction::Request.into();
        let of_kind = if kind.is_tdes() { Mac::TdesCmac } else { Mac::AesCmac };
        let (key, mac, direction) = match place {
            Place::Generate(mac) | Place::Verify(mac) => (stored(&id), mac, 0),
            _ => (dukpt_of(&format!("keys/{id}"), &kind.ksn()), of_kind, direction),
        };
        let request = generate(key, mac, direction);
        let mut macs = self.service.client.macs();
        if matches!(place, Place::Generate(_) | Place::GenerateBaseKey) {
            return macs.generate_mac(request).await.map(drop);
        }
        let request = VerifyMacRequest {
            key: request.key,
            direction: request.direction,
            algorithm: request.algorithm,
            padding: request.padding,
            message: request.message,
            mac: vec![0; 8],
            terminal: String::new(),
        };
        macs.verify_mac(request).await.map(drop)
    }

    async fn pins(&self, place: Place, kind: Kind) -> Result<(), Status> {
        let id = kind.id();
        let own = stored(&id);
        let below = dukpt_of(&format!("keys/{id}"), &kind.ksn());
        let zone = stored("dev-zone-pin-aes");
        let iso_4: i32 = PinBlockFormat::Iso4.into();
        let block = (zone.clone(), iso_4, vec![0x5A; 16]);
        let (source, destination) = match place {
            Place::SwitchSource | Place::TranslateSource => {
                ((own, kind.format(), kind.pin_block()), (zone, iso_4))
            }
            Place::TranslateSourceBaseKey => {
                ((below, kind.format(), kind.pin_block()), (zone, iso_4))
            }
            Place::SwitchDestination | Place::TranslateDestination => (block, (own, kind.format())),
            Place::TranslateDestinationBaseKey => (block, (below, kind.format())),
            _ => (block, (zone, iso_4)),
        };
        let translation = TranslatePinRequest {
            source: source.0,
            source_format: source.1,
            pin_block: source.2,
            destination: destination.0,
            destination_format: destination.1,
            pan: PAN.to_owned(),
            ..TranslatePinRequest::default()
        };
        let mut pins = self.service.client.pins();
        let is_switch =
            matches!(place, Place::SwitchDestination | Place::SwitchMac | Place::SwitchSource);
        if !is_switch {
            return pins.translate_pin(translation).await.map(drop);
        }
        let mac_key = if place == Place::SwitchMac { stored(&id) } else { stored(MAC_KEY) };
        let request = VerifyMacAndTranslatePinRequest {
            mac_key,
            algorithm: MacAlgorithm::AesCmac.into(),
            message: MESSAGE.to_vec(),
            mac: self.mac.clone(),
            source: translation.source,
            source_format: translation.source_format,
            pin_block: translation.pin_block,
            destination: translation.destination,
            destination_format: translation.destination_format,
            pan: translation.pan,
            ..VerifyMacAndTranslatePinRequest::default()
        };
        pins.verify_mac_and_translate_pin(request).await.map(drop)
    }
}

fn generate(key: Option<WorkingKey>, mac: Mac, direction: i32) -> GenerateMacRequest {
    let (algorithm, padding) = mac.words();
    GenerateMacRequest {
        key,
        direction,
        algorithm,
        padding,
        message: MESSAGE.to_vec(),
        mac_length_bytes: 8,
        terminal: String::new(),
    }
}
