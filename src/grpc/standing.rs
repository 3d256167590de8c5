//! How the service stands: what it is, and what its examinations found last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::memory::{PageKind, Protection, protections};
use crate::vault::{Gate, Phase, Realm, UnixMillis};

/// What does not change while the service runs.
#[derive(Debug, Clone)]
pub struct Facts {
    /// SHA-256 of the program file that runs.
    pub program_digest: Option<[u8; 32]>,
    /// The realm of its store.
    pub realm: Realm,
    /// The name of this replica.
    pub node: String,
    /// When it was started.
    pub start: UnixMillis,
    /// Whether callers show certificates, by TLS 1.3.
    pub callers_certified: bool,
}

/// What is examined again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// Whether an audit event could be written.
    Audit,
    /// Whether the certificates of the listeners are valid, and for how long.
    Certificate,
    /// Whether the newest checkpoint of the audit log is kept outside, where it is to be.
    Checkpoint,
    /// Whether the clock goes on.
    Clock,
    /// Whether the disk of the store has room.
    Disk,
    /// Whether random numbers are any.
    Random,
    /// Whether the vault is open, and the token that opens it is there.
    Seal,
    /// Whether the known answers came out right.
    SelfTest,
    /// Whether the store answers.
    Store,
}

impl Check {
    /// Every check, in the order of the names.
    pub const ALL: [Self; 9] = [
        Self::Audit,
        Self::Certificate,
        Self::Checkpoint,
        Self::Clock,
        Self::Disk,
        Self::Random,
        Self::Seal,
        Self::SelfTest,
        Self::Store,
    ];

    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Certificate => "certificate",
            Self::Checkpoint => "checkpoint",
            Self::Clock => "clock",
            Self::Disk => "disk",
            Self::Random => "random",
            Self::Seal => "seal",
            Self::SelfTest => "self_test",
            Self::Store => "store",
        }
    }
}

/// What an examination found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It is wrong, and nothing can be served until somebody mends it as the text says.
    Failed(String),
    /// It is wrong and will fail, but serves for now.
    Failing(String),
    /// It is well.
    Well,
}

impl Finding {
    /// What is wrong and what to do about it; empty where it is well.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Failed(detail) | Self::Failing(detail) => detail,
            Self::Well => "",
        }
    }
}

/// Why nobody comes through the gate, where the seal is why.
const fn closed(phase: Phase) -> Option<&'static str> {
    match phase {
        Phase::Failed | Phase::Open => None,
        Phase::Opening => Some("the vault is being opened"),
        Phase::Sealed => Some("sealed: `firstkey seal status` says what is waited for"),
        Phase::Sealing => Some("the vault is being sealed"),
    }
}

/// How the service stands.
#[derive(Debug)]
pub struct Standing {
    /// What it is.
    pub facts: Facts,
    found: RwLock<Vec<(Check, Finding)>>,
    /// The last second of the first certificate that expires; 0 where there is none.
    certificate_expiry: AtomicU64,
}

impl Standing {
    /// Of a service that was not examined yet.
    #[must_use]
    pub const fn new(facts: Facts) -> Self {
        Self { facts, found: RwLock::new(Vec::new()), certificate_expiry: AtomicU64::new(0) }
    }

    /// Notes what was found.
    pub fn note(&self, found: Vec<(Check, Finding)>) {
        *self.found.write().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// What was found last. A self-test that failed since then, and a seal, is told at once.
    #[must_use]
    pub fn found(&self, gate: &Gate) -> Vec<(Check, Finding)> {
        let mut found = self.found.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(algorithm) = gate.failed() {
            found.retain(|(check, _)| *check != Check::SelfTest);
            let detail = format!("{algorithm} failed: have the machine looked at, then restart");
            found.push((Check::SelfTest, Finding::Failed(detail)));
        }
        if let Some(detail) = closed(gate.phase()) {
            found.retain(|(check, _)| *check != Check::Seal);
            found.push((Check::Seal, Finding::Failed(detail.to_owned())));
        }
        found.sort_by_key(|(check, _)| *check);
        found
    }

    /// Notes when the first certificate of a listener expires, in Unix time.
    pub fn note_certificate_expiry(&self, seconds: u64) {
        self.certificate_expiry.store(seconds, Ordering::Relaxed);
    }

    /// When the first certificate of a listener expires; none where there is none.
    #[must_use]
    pub fn certificate_expiry(&self) -> Option<u64> {
        Some(self.certificate_expiry.load(Ordering::Relaxed)).filter(|seconds| *seconds > 0)
    }

    /// Whether it can serve: it was examined, and nothing failed.
    #[must_use]
    pub fn serves(&self, gate: &Gate) -> bool {
        let found = self.found(gate);
        !found.is_empty() && !found.iter().any(|(_, found)| matches!(found, Finding::Failed(_)))
    }

    /// What protects it, read back now; the master key is in such a page.
    #[must_use]
    pub fn protections(&self, master_key_page: PageKind) -> Vec<Protection> {
        let secret = master_key_page == PageKind::Secret;
        let page = if secret { "secret" } else { "locked, which root can read" };
        let mut found = protections();
        found.push(Protection {
            name: "callers_certified",
            in_force: self.facts.callers_certified,
            detail: "TLS 1.3 and a certificate of each caller; a development service has none"
                .to_owned(),
        });
        found.push(Protection {
            name: "memory_secret",
            in_force: secret,
            detail: format!("the page of the master key is {page} (memfd_secret)"),
        });
        found.sort_by_key(|protection| protection.name);
        found
    }
}
