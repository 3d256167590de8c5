//! What the tests of the commands share: a vault in memory, keys, and terminals in service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::activation::index::KeyIndex;
use super::activation::record::{Credential, KeySet, Merchant, MerchantStanding, Terminal};
use super::{DukptKey, Error, Ksn, RequestId, WorkingKey, approvals, manage_keys};
use crate::activation::State;
use crate::crypto::rng::SystemRng;
use crate::dukpt::{AesInitialKeyId, TdesKsn};
use crate::key::Algorithm;
use crate::memory::SecretPage;
use crate::vault::store::MemoryStore;
use crate::vault::{
    Action, AuditSettings, Beginning, Caller, Clock, Event, KeyAttributes, KeyUsage, MasterKey,
    NewKey, Opening, Policy, Principal, Realm, Reason, Record, Role, Seal, Start, UnixMillis,
    Vault, Versioned,
};

/// The key set id of [`Bench::bdk`] for AES.
pub(super) const AES_SET: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
/// The key set id of [`Bench::bdk`] for TDES.
pub(super) const TDES_SET: [u8; 5] = [0xFF, 0xFF, 0x98, 0x76, 0x54];

/// A vault in memory, its clock and a caller.
pub(super) struct Bench {
    pub(super) vault: Vault,
    pub(super) caller: Caller,
    clock: Arc<HandClock>,
    requests: AtomicU64,
}

struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::Relaxed))
    }
}

/// The persons who are officers in a live realm.
pub(super) const OFFICERS: [&str; 3] = ["ann", "bob", "cid"];

/// One of [`OFFICERS`], as the door knows them.
pub(super) fn officer(person: &str) -> Caller {
    Caller::new(officer_name(person), person, Role::Officer, "")
}

fn officer_name(person: &str) -> String {
    format!("spiffe://test/officer/{person}")
}

impl Bench {
    pub(super) async fn new() -> Self {
        Self::of_realm(Realm::Dev).await
    }

    /// A vault of a realm; a live one has [`OFFICERS`], and calls that wait for one of them.
    pub(super) async fn of_realm(realm: Realm) -> Self {
        let clock = Arc::new(HandClock(AtomicU64::new(1_700_000_000_000)));
        let store = Arc::new(MemoryStore::new());
        let open = async || {
            let page = SecretPage::taken_from(&mut [7; 32]).unwrap();
            let opening = Opening {
                store: store.clone(),
                master_key: MasterKey::new(page),
                realm,
                clock: clock.clone(),
                rng: Arc::new(SystemRng::new()),
                node: "node-1".into(),
                audit: AuditSettings::default(),
            };
            let first = Policy { principals: officers().to_vec(), ..Policy::none() };
            let policy = (realm == Realm::Live).then_some(first);
            let seal = Seal::Shamir { set_id: [1; 4], threshold: 2, shares: 3 };
            let beginning = Beginning { policy, seal };
            Self {
                vault: Vault::open_with(opening, beginning).await.unwrap(),
                caller: Caller::for_dev_only("dev"),
                clock: clock.clone(),
                requests: AtomicU64::new(0),
            }
        };
        let bench = open().await;
        match realm {
            Realm::Dev => bench,
            Realm::Live => {
                bench.put(policy_of_officers()).await;
                bench.vault.close().await;
                open().await
            }
        }
    }

    /// Makes a call, and once more when an officer has approved it.
    pub(super) async fn approved<T>(
        &self,
        call: impl AsyncFn(&RequestId) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let id = self.requests.fetch_add(1, Ordering::Relaxed).to_string();
        let request = RequestId::new(id.clone(), "Test", id.into_bytes());
        let refused = match call(&request).await {
            Err(error) if error.reason() == Reason::ApprovalRequired => error,
            other => return other,
        };
        let told = refused.metadata().into_iter().find(|(name, _)| *name == "approval").unwrap();
        let id = told.1.trim_start_matches("approvals/");
        let (vault, ann) = (&self.vault, officer(OFFICERS[0]));
        let (asked, _) = approvals::get_approval(vault, &ann, id).await.unwrap();
        approvals::approve(vault, &ann, None, id, &asked.approval.digest).await.unwrap();
        call(&request).await
    }

    pub(super) fn forward(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::Relaxed);
    }

    /// Makes a key with the usual mode of its usage.
    pub(super) async fn key(
        &self,
        name: &str,
        usage: KeyUsage,
        algorithm: Algorithm,
        attributes: KeyAttributes,
    ) {
        let new = NewKey {
            name: name.into(),
            usage,
            algorithm,
            mode_of_use: None,
            exportability: None,
            attributes,
            labels: BTreeMap::new(),
            start: Start::Primary,
        };
        manage_keys::create_key(&self.vault, &self.caller, None, new).await.unwrap();
    }

    /// Makes a base derivation key with the key set id of its family.
    pub(super) async fn bdk(&self, name: &str, algorithm: Algorithm, attributes: KeyAttributes) {
        let set = if algorithm.is_aes() { AES_SET.as_slice() } else { &TDES_SET };
        let key_set_id = Some(data_encoding::HEXUPPER.encode(set));
        let attributes = KeyAttributes { key_set_id, ..attributes };
        self.key(name, KeyUsage::BaseDerivation, algorithm, attributes).await;
    }

    /// Registers a terminal that has the initial key of a KSN, in a state.
    pub(super) async fn terminal(&self, id: &str, bdk: &str, ksn: &Ksn, state: State) {
        let bdk = self.vault.key_record(bdk).await.unwrap().record.version_name();
        let keys = KeySet {
            terminal_keys: Vec::new(),
            carried_by: Vec::new(),
            base_derivation_key: bdk.clone(),
            initial_key_id: ksn.initial_key_id(),
            check_value: Vec::new(),
        };
        let index = KeyIndex {
            base_derivation_key: bdk,
            initial_key_id: ksn.initial_key_id(),
            terminal: id.into(),
        };
        let terminal = Terminal { keys: Some(keys), ..blank(id, state, self.vault.now()) };
        self.put(index).await;
        self.put(terminal).await;
    }

    pub(super) async fn put<R: Record>(&self, record: R) {
        let action = Action::CreateTerminal;
        let mut work = self.vault.begin(&self.caller, action, "terminals").await.unwrap();
        let found = self.vault.get::<R>(&record.id()).await.unwrap();
        let version = found.and_then(|found| found.version);
        work.put(&Versioned { version, record }).unwrap();
        work.commit().await.unwrap();
    }

    pub(super) async fn read_terminal(&self, id: &str) -> Terminal {
        self.vault.get::<Terminal>(id).await.unwrap().unwrap().record
    }

    /// The newest audit event.
    pub(super) async fn last_event(&self) -> Event {
        self.vault.events_after(0, 1_000).await.unwrap().pop().unwrap()
    }
}

fn officers() -> [Principal; 3] {
    OFFICERS.map(|person| principal(officer_name(person), person))
}

fn principal(name: String, person: &str) -> Principal {
    Principal {
        name,
        person: person.to_owned(),
        role: Role::Officer,
        profiles: Vec::new(),
        calls_per_minute_max: 0,
    }
}

/// The officers, and whoever asks in these tests.
fn policy_of_officers() -> Policy {
    let mut principals = officers().to_vec();
    principals.push(principal("dev".to_owned(), "dev"));
    Policy { version: 2, principals, ..Policy::none() }
}

/// A terminal without keys.
fn blank(id: &str, state: State, now: UnixMillis) -> Terminal {
    Terminal {
        id: id.into(),
        serial: format!("SN-{id}"),
        model: "simulator".into(),
        merchant: Merchant {
            merchant_id: "M1".into(),
            terminal_id: "T1".into(),
            display_name: "Shop".into(),
        },
        profile: "dev".into(),
        credential: Credential::DeviceCertificate { authority: "dev-vendor".into() },
        generation: 1,
        created: now,
        state,
        standing: MerchantStanding::Approved,
        hold_cause: None,
        came_from: None,
        code: None,
        codes_issued: 0,
        activation: 1,
        last_begin: None,
        keys: None,
        keys_before: None,
        update_key_allowed: false,
        parameters_sent: None,
        parameters_applied: 0,
        tests_passed: 0,
        settlement_digest: None,
        first_transaction: None,
        updated: now,
        timeline: Vec::new(),
    }
}

/// An AES KSN of [`AES_SET`].
pub(super) fn aes_ksn(device: u8, counter: u32) -> Ksn {
    let id = AesInitialKeyId::new(AES_SET, [0, 0, 0, device]);
    Ksn::Aes(id.ksn(counter).unwrap())
}

/// A TDES KSN of [`TDES_SET`], with a counter below 256.
pub(super) fn tdes_ksn(counter: u8) -> Ksn {
    let bytes = [TDES_SET.as_slice(), &[0x32, 0x10, 0xE0, 0, counter]].concat();
    Ksn::Tdes(TdesKsn::parse(&bytes).unwrap())
}

/// The transaction key of a KSN, its base derivation key to be found by the key set id.
pub(super) fn dukpt(ksn: Ksn) -> DukptKey {
    DukptKey { base_derivation_key: None, ksn, kind: None }
}

pub(super) fn stored(name: &str) -> WorkingKey {
    WorkingKey::Static(name.into())
}

/// The stable text of an outcome's reason.
pub(super) fn reason<T>(outcome: &Result<T, Error>) -> &'static str {
    match outcome {
        Ok(_) => "OK",
        Err(error) => error.reason().as_str(),
    }
}
