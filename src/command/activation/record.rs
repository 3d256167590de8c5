//! What the vault keeps of a terminal: its record, its activation, and two indexes.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Signed;
use super::profile::ProfileKey;
use crate::activation::{State, Step, Transcript};
use crate::agreement::Suite;
use crate::command::Error;
use crate::crypto::digest::StateInvalid;
use crate::vault::{Caller, Kind, Reason, Record, UnixMillis, Vault};

/// How long the answer with the keys is kept for a terminal that lost it.
const ANSWER_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;

/// How many entries a terminal's timeline keeps.
const TIMELINE_LEN_MAX: usize = 100;

/// How a terminal proves itself, fixed at registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credential {
    /// By a device key with a certificate.
    DeviceCertificate {
        /// The id in `deviceAuthorities/{id}` of who signs it.
        authority: String,
    },
    /// By a master key that the service holds too.
    MasterKey {
        /// The id in `keys/{id}`, or a version of it; of a terminal the version.
        key: String,
    },
}

impl Credential {
    /// Whether what is delivered stays secret from whoever comes to know the long-lived key later.
    #[must_use]
    pub const fn forward_secrecy(&self) -> bool {
        matches!(self, Self::DeviceCertificate { .. })
    }

    /// The keys by which an activation that begins under it carries others: the master key.
    #[must_use]
    pub fn carriers(&self) -> Vec<String> {
        match self {
            Self::DeviceCertificate { .. } => Vec::new(),
            Self::MasterKey { key } => vec![key.clone()],
        }
    }
}

/// Where a merchant stands with the acquirer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MerchantStanding {
    /// Accepted.
    Approved,
    /// Not yet decided.
    Pending,
    /// Refused by the acquirer.
    Rejected,
}

/// The merchant at a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merchant {
    /// The card acceptor id (ISO 8583, field 42).
    pub merchant_id: String,
    /// The card acceptor terminal id (ISO 8583, field 41).
    pub terminal_id: String,
    /// The name on the receipt.
    pub display_name: String,
}

/// A registered terminal. Nothing in its first block changes after registration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Terminal {
    /// The id in `terminals/{id}`.
    pub id: String,
    /// The device's serial.
    pub serial: String,
    /// The device's model.
    pub model: String,
    /// The merchant.
    pub merchant: Merchant,
    /// The id in `profiles/{id}`.
    pub profile: String,
    /// How it proves itself.
    pub credential: Credential,
    /// Counts the key sets of the same serial, from 1.
    pub generation: u32,
    /// When it was registered.
    pub created: UnixMillis,

    /// Where it stands.
    pub state: State,
    /// Where its merchant stands.
    pub standing: MerchantStanding,
    /// Why it is held for a risk.
    pub hold_cause: Option<String>,
    /// The state to which a held or suspended terminal goes back.
    pub came_from: Option<State>,
    /// The code that waits to be shown.
    pub code: Option<Code>,
    /// How many codes were issued.
    pub codes_issued: u32,
    /// The number of its last activation, from 1; 0 before the first.
    pub activation: u32,
    /// The last Begin that was judged: an older one is a replay.
    pub last_begin: Option<LastBegin>,
    /// The keys that serve.
    pub keys: Option<KeySet>,
    /// The keys that still serve after a re-key, and until when.
    pub keys_before: Option<(KeySet, UnixMillis)>,
    /// Whether the keys that serve may carry the new ones in the re-key under way.
    #[serde(default)]
    pub update_key_allowed: bool,
    /// The version and digest of the parameters that were last sent.
    pub parameters_sent: Option<ParametersSent>,
    /// The version that it said it applied.
    pub parameters_applied: u32,
    /// How many test transactions passed.
    pub tests_passed: u32,
    /// SHA-256 of the settlement account.
    pub settlement_digest: Option<[u8; 32]>,
    /// When its first transaction after enabling came.
    pub first_transaction: Option<UnixMillis>,
    /// When it last changed.
    pub updated: UnixMillis,
    /// What happened to it, oldest first.
    pub timeline: Vec<TimelineEntry>,
}

/// A code that was issued: never the code itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Code {
    /// The keyed hash of the code, bound to serial and merchant.
    pub hash: [u8; 32],
    /// Until when it can be shown.
    pub expires: UnixMillis,
    /// How many wrong codes are still forgiven.
    pub tries_left: u32,
}

/// A Begin that was judged, whatever came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LastBegin {
    /// Its sequence.
    pub sequence: u64,
    /// SHA-256 of its payload. Not of its signature: a signature has two forms.
    pub payload: [u8; 32],
}

/// The confirmed keys of a terminal: what the host must know to derive them again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySet {
    /// The version of the base derivation key, less the `keys/` before it.
    pub base_derivation_key: String,
    /// The initial key id: 8 bytes for AES, 10 for TDES.
    pub initial_key_id: Vec<u8>,
    /// The check value of the initial key.
    pub check_value: Vec<u8>,
    /// The static keys that came with it.
    pub terminal_keys: Vec<TerminalKey>,
    /// The keys by which they were carried: see [`Activation::carried_by`].
    #[serde(default)]
    pub carried_by: Vec<String>,
}

impl KeySet {
    /// The keys by which others are carried under the update key of these: who knows one of them
    /// knows these, and with them the update key.
    #[must_use]
    pub fn carriers(&self) -> Vec<String> {
        let before = self.carried_by.iter().filter(|name| **name != self.base_derivation_key);
        [&self.base_derivation_key].into_iter().chain(before).cloned().collect()
    }
}

/// A static key of a terminal: what the host must know to derive it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalKey {
    /// Its slot and attributes, and what it is derived from.
    pub key: ProfileKey,
    /// Its check value.
    pub check_value: Vec<u8>,
}

/// Where an initial key of a terminal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStanding {
    /// Newer keys are confirmed; it serves until then.
    Grace(UnixMillis),
    /// It serves no more.
    Replaced,
    /// It is that of the last activation.
    Serving,
}

/// The parameters that a terminal was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParametersSent {
    /// Their version.
    pub version: u32,
    /// SHA-256 of the file.
    pub digest: [u8; 32],
}

/// One thing that happened to a terminal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// When.
    pub time: UnixMillis,
    /// The call or event.
    pub step: String,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// Why it failed; empty where it did not.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
    /// What else is worth knowing; never a secret.
    pub note: String,
}

impl Terminal {
    /// Refuses a caller that may not know of it as if there were no such terminal.
    pub fn check_seen(&self, vault: &Vault, caller: &Caller) -> Result<(), Error> {
        if vault.policy().sees_profile(caller, &self.profile) {
            Ok(())
        } else {
            Err(Error::Hidden { reason: Reason::TerminalNotFound, rule: "profile" })
        }
    }

    /// Adds an entry to the timeline; the oldest leaves when it is full.
    pub fn record(&mut self, entry: TimelineEntry) {
        if self.timeline.len() == TIMELINE_LEN_MAX {
            self.timeline.remove(0);
        }
        self.updated = entry.time;
        self.timeline.push(entry);
    }

    /// The state in which it stands at a time. That a code runs out is nobody's call: it is seen
    /// when the terminal is read, and stored with whatever changes the terminal next.
    #[must_use]
    pub fn state_at(&self, now: UnixMillis) -> State {
        let is_over = self.code.as_ref().is_some_and(|code| now > code.expires);
        if self.state == State::CodeIssued && is_over { State::CodeExpired } else { self.state }
    }

    /// Where one of its initial keys stands at a time.
    #[must_use]
    pub fn standing_of(
        &self,
        base_derivation_key: &str,
        initial_key_id: &[u8],
        now: UnixMillis,
    ) -> KeyStanding {
        let is_it = |keys: &KeySet| {
            keys.base_derivation_key == base_derivation_key && keys.initial_key_id == initial_key_id
        };
        if self.keys.as_ref().is_some_and(is_it) {
            return KeyStanding::Serving;
        }
        match &self.keys_before {
            Some((keys, until)) if is_it(keys) && now <= *until => KeyStanding::Grace(*until),
            Some(_) | None => KeyStanding::Replaced,
        }
    }

    /// The resource name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("terminals/{}", self.id)
    }

    /// Whether its keys were sent so that they stay secret from whoever comes to know a long-lived
    /// key later.
    #[must_use]
    pub fn forward_secrecy(&self) -> bool {
        let carried = self.keys.as_ref().is_some_and(|keys| !keys.carried_by.is_empty());
        self.credential.forward_secrecy() && !carried
    }

    /// The resource name of its last activation.
    #[must_use]
    pub fn activation_name(&self) -> String {
        format!("terminals/{}/activations/{}", self.id, self.activation)
    }
}

impl Record for Terminal {
    const KIND: Kind = Kind::new("terminal");

    fn id(&self) -> String {
        self.id.clone()
    }

    fn index(&self) -> Option<String> {
        Some(index_of(self.state).to_owned())
    }
}

/// What a terminal is found by in a state. Codes run out without a write, so whoever has one and
/// whoever had one are found together.
#[must_use]
pub fn index_of(state: State) -> &'static str {
    match state {
        State::CodeExpired => State::CodeIssued.as_str(),
        other => other.as_str(),
    }
}

/// How far an activation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The device proved itself; a key id is allocated.
    Begun,
    /// Keys were sent.
    Delivered,
    /// Both sides hold the same keys; the session's secrets are gone.
    Confirmed,
    /// Ended before it was done.
    Ended,
}

/// One activation of a terminal, with the session that is alive in it.
///
/// What a lost reply must not burn is kept: each answer stands beside the digest of the request
/// that it answered, and the same request gets the same bytes again.
#[derive(Clone, Serialize, Deserialize)]
pub struct Activation {
    /// The terminal's id.
    pub terminal: String,
    /// Its number, from 1.
    pub number: u32,
    /// How far it has come.
    pub phase: Phase,
    /// Until when it lives.
    pub expires: UnixMillis,
    /// The version of the base derivation key of the allocated id.
    pub base_derivation_key: String,
    /// The initial key id that was allocated for it, once.
    pub initial_key_id: Vec<u8>,
    /// The long-lived keys by which the delivered keys are carried, so that who knows one of them
    /// can read what is sent. A Begin with a device certificate: none. With a master key: that one.
    /// An Update: the base derivation key of the keys that serve, and what those were carried by.
    #[serde(default)]
    pub carried_by: Vec<String>,
    /// The algorithms, as the profile said when the activation began.
    pub suite: Suite,
    /// The device's certificate chain in DER, leaf first: judged again at each step.
    pub certificate_chain: Vec<Vec<u8>>,
    /// The state of the session's transcript: a hash, for the first message holds the code.
    pub transcript: Vec<u8>,
    /// The confirmation keys, terminal's and service's, between delivery and confirmation.
    pub confirmation_keys: Option<ConfirmationKeys>,
    /// The check values of the delivered keys by slot.
    pub check_values: Vec<(u32, Vec<u8>)>,
    /// The static keys that were delivered.
    pub terminal_keys: Vec<TerminalKey>,
    /// The answers to the session's steps.
    pub begun: Option<Answer>,
    /// See [`Self::begun`].
    pub delivered: Option<Answer>,
    /// See [`Self::begun`].
    pub confirmed: Option<Answer>,
    /// The last answer that was MACed under a transaction key.
    pub exchanged: Option<Answer>,
}

/// What confirms the session's keys; gone with the confirmation.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct ConfirmationKeys {
    /// The terminal's.
    pub terminal: [u8; 32],
    /// The service's.
    pub service: [u8; 32],
}

/// An answer that is given again for the same request.
#[derive(Clone, Serialize, Deserialize)]
pub struct Answer {
    /// SHA-256 of the request: payload and proof.
    pub request: [u8; 32],
    /// The answer's payload.
    pub payload: Vec<u8>,
    /// The answer's signature or MAC.
    pub proof: Vec<u8>,
    /// When it was first given.
    pub given: UnixMillis,
}

impl Activation {
    /// The id under which an activation stands; numbers sort as text.
    #[must_use]
    pub fn id_of(terminal: &str, number: u32) -> String {
        format!("{terminal}/{number:010}")
    }

    /// The resource name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("terminals/{}/activations/{}", self.terminal, self.number)
    }

    /// The transcript of the session so far; a new one where no session is alive.
    pub fn transcript(&self) -> Result<Transcript, StateInvalid> {
        match self.transcript.as_slice() {
            [] => Ok(Transcript::new()),
            state => Transcript::from_state(state),
        }
    }

    /// Ends it before it was done: the session is dead, and what it kept is gone.
    pub fn end(&mut self) {
        self.phase = Phase::Ended;
        self.forget_session();
        (self.begun, self.delivered, self.confirmed) = (None, None, None);
    }

    /// Drops the delivered keys, and what would confirm them, once their time is over; whether it
    /// was.
    pub fn forget_late_delivery(&mut self, now: UnixMillis) -> bool {
        let given = self.delivered.as_ref().map(|answer| answer.given);
        let is_late = given.is_some_and(|given| now > given.plus_ms(ANSWER_KEPT_MS));
        if is_late {
            self.forget_session();
            self.delivered = None;
        }
        is_late
    }

    /// Drops what only an unfinished session needs.
    pub fn forget_session(&mut self) {
        self.transcript.zeroize();
        self.confirmation_keys = None;
        self.check_values.clear();
        self.terminal_keys.clear();
    }

    /// Where the answer to an exchange is kept: new keys until they are confirmed, others until the
    /// next exchange.
    #[must_use]
    pub fn kept(&self, step: Step) -> Option<&Answer> {
        if step == Step::Update { self.delivered.as_ref() } else { self.exchanged.as_ref() }
    }

    /// See [`Self::kept`].
    pub fn kept_mut(&mut self, step: Step) -> &mut Option<Answer> {
        if step == Step::Update { &mut self.delivered } else { &mut self.exchanged }
    }

    /// The answer that was given to this very request before.
    #[must_use]
    pub fn answered(kept: Option<&Answer>, request: &Signed) -> Option<Answer> {
        kept.filter(|answer| answer.request == digest_of(request)).cloned()
    }
}

impl Answer {
    /// An answer to a request.
    #[must_use]
    pub fn to(request: &Signed, payload: Vec<u8>, proof: Vec<u8>, given: UnixMillis) -> Self {
        Self { request: digest_of(request), payload, proof, given }
    }
}

/// SHA-256 over payload and proof, each with its length.
fn digest_of(request: &Signed) -> [u8; 32] {
    Transcript::new().with(&request.payload).with(&request.proof).hash()
}

impl Record for Activation {
    const KIND: Kind = Kind::new("activation");

    fn id(&self) -> String {
        Self::id_of(&self.terminal, self.number)
    }
}
