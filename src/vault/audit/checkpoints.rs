//! Signing checkpoints, keeping the newest, and holding the log against it at start.
//!
//! The key is a sealed record made when a store is first opened, with the id of the log; both stay
//! for the life of the store. A checkpoint says in clear what the log is: whoever sets the whole
//! store back sets back what is kept in it too, so the newest also goes to a [`Witness`] outside.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use zeroize::Zeroizing;

use super::super::clock::UnixMillis;
use super::super::core::{Core, expected};
use super::super::error::Error;
use super::super::record::{Kind, Record, Versioned};
use super::super::vault::OpenError;
use super::chain::read_head;
use super::note::{Checkpoint, NoteError, VerifierKey};
use super::tree::root_at;
use crate::crypto::ed25519::Ed25519Key;
use crate::memory;

/// A checkpoint and the key to verify it with, both as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// How many events it covers.
    pub size: u64,
    /// When it was signed.
    pub time: UnixMillis,
    /// The signed note.
    pub note: String,
    /// The key: `name+id+key`.
    pub verifier_key: String,
}

/// Keeps the newest checkpoint where whoever changes the store can not change it: on another disk,
/// or with somebody else.
pub trait Witness: Debug + Send + Sync {
    /// What was kept last; none if nothing was.
    fn last(&self) -> Result<Option<String>, WitnessFailed>;

    /// Keeps a note durably in place of the last.
    fn keep(&self, note: &str) -> Result<(), WitnessFailed>;
}

/// What is kept outside can not be read or written. The cause goes to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint outside can not be read or written")]
pub struct WitnessFailed;

/// How often a log that has grown is signed.
const STEP: Duration = Duration::from_secs(1);
/// After how many events it is signed even sooner.
const EVENTS_MAX: u64 = 1_000;

/// The key of the log, and the log's own id.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogKey {
    log: String,
    seed: Zeroizing<[u8; 32]>,
}

impl Record for LogKey {
    const KIND: Kind = Kind::new("log_key");

    fn id(&self) -> String {
        LOG_KEY.to_owned()
    }
}

/// There is one key.
const LOG_KEY: &str = "log";

/// The newest checkpoint of a node, as the store keeps it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Newest {
    node: String,
    time: UnixMillis,
    note: String,
}

impl Record for Newest {
    const KIND: Kind = Kind::new("checkpoint");

    fn id(&self) -> String {
        self.node.clone()
    }
}

/// The checkpoints of a log.
pub(in crate::vault) struct Checkpoints {
    verifier_key: VerifierKey,
    witness: Option<Arc<dyn Witness>>,
    newest: Mutex<Kept>,
    /// The size that was last signed, and kept outside where there is an outside.
    size: AtomicU64,
    /// When, in milliseconds.
    time: AtomicU64,
}

/// What was signed last.
struct Kept {
    version: Option<u64>,
    signed: Option<SignedCheckpoint>,
    /// Whether it is outside as well.
    is_outside: bool,
}

impl Checkpoints {
    /// Makes the key where there is none, and holds the log against the checkpoints kept in the
    /// store and outside.
    pub(in crate::vault) async fn open(
        core: &Core,
        witness: Option<Arc<dyn Witness>>,
    ) -> Result<Self, OpenError> {
        let key = key_of(core).await.map_err(OpenError::from)?;
        let name = format!("firstkey/{}/{}", key.log, core.node);
        let verifier_key = VerifierKey::new(name, &Ed25519Key::from_seed(&key.seed));
        drop(key);
        let found = core.read::<Newest>(&core.node).await.map_err(OpenError::from)?;
        if let Some(found) = &found {
            compare(core, &found.record.note, &verifier_key).await?;
        }
        if let Some(witness) = &witness {
            match ask(witness, |witness| witness.last()).await {
                Ok(Some(note)) => compare(core, &note, &verifier_key).await?,
                Ok(None) => tracing::warn!(
                    "no checkpoint is kept outside yet: whether this log was set back can not be \
                     told"
                ),
                Err(WitnessFailed) => return Err(OpenError::WitnessUnavailable),
            }
        }
        let kept = Kept {
            version: found.and_then(|found| found.version),
            signed: None,
            is_outside: false,
        };
        let (size, time) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { verifier_key, witness, newest: Mutex::new(kept), size, time })
    }

    /// How many events the newest checkpoint covers, and when it was signed; none before the first
    /// since the start.
    pub(in crate::vault) fn newest(&self) -> Option<(u64, UnixMillis)> {
        let size = self.size.load(Ordering::Acquire);
        (size > 0).then(|| (size, UnixMillis(self.time.load(Ordering::Acquire))))
    }

    /// Signs the log as it stands, unless it has not grown since.
    pub(in crate::vault) async fn sign(&self, core: &Core) -> Result<SignedCheckpoint, Error> {
        let signing = async {
            let mut kept = self.newest.lock().await;
            let root = read_head(core).await?.record.frontier()?.root();
            let signed = match kept.signed.take().filter(|signed| signed.size == root.size) {
                Some(signed) => signed,
                None => {
                    self.sign_anew(
                        core,
                        &mut kept,
                        Checkpoint { origin: self.verifier_key.name().to_owned(), root },
                    )
                    .await?
                }
            };
            kept.signed = Some(signed.clone());
            self.keep_outside(&mut kept, &signed).await;
            if kept.is_outside {
                self.time.store(signed.time.0, Ordering::Release);
                self.size.store(signed.size, Ordering::Release);
            }
            Ok(signed)
        };
        // Whoever waits for a store that hangs does not wait without end.
        let signed = tokio::time::timeout(core.patience, signing).await;
        signed.unwrap_or(Err(Error::Unavailable))
    }

    async fn sign_anew(
        &self,
        core: &Core,
        kept: &mut Kept,
        checkpoint: Checkpoint,
    ) -> Result<SignedCheckpoint, Error> {
        let size = checkpoint.root.size;
        let key = key_of(core).await?;
        let note = memory::with_wiped_stack(|| checkpoint.sign(&Ed25519Key::from_seed(&key.seed)));
        drop(key);
        let time = core.now();
        let newest = Newest { node: core.node.clone(), time, note: note.clone() };
        let write = core.put(&Versioned { version: kept.version, record: newest })?;
        let next = expected(kept.version).next_version();
        let outcomes = core.store.commit(vec![vec![write]], Box::new(|_| Vec::new())).await;
        match outcomes {
            Ok(outcomes) if outcomes.iter().all(|outcome| outcome.is_applied()) => {}
            // Whether it was written is not known: what is there is read anew.
            Ok(_) | Err(_) => {
                kept.version = core.read::<Newest>(&core.node).await?.and_then(|one| one.version);
                return Err(Error::Unavailable);
            }
        }
        kept.version = Some(next);
        kept.is_outside = false;
        let verifier_key = self.verifier_key.to_string();
        Ok(SignedCheckpoint { size, time, note, verifier_key })
    }

    /// What can not be kept outside is tried again at the next step, and shows in the health.
    async fn keep_outside(&self, kept: &mut Kept, signed: &SignedCheckpoint) {
        let Some(witness) = self.witness.as_ref().filter(|_| !kept.is_outside) else {
            kept.is_outside = true;
            return;
        };
        let note = signed.note.clone();
        let done = ask(witness, move |witness| witness.keep(&note)).await;
        if done.is_err() {
            tracing::error!("the checkpoint was not kept outside");
        }
        kept.is_outside = done.is_ok();
    }
}

/// Signs while the log grows: every second, or every thousand events.
pub(in crate::vault) async fn keep_signing(
    core: Weak<Core>,
    checkpoints: Arc<Checkpoints>,
    mut committed: watch::Receiver<u64>,
) {
    let mut is_behind = false;
    loop {
        let signed = checkpoints.size.load(Ordering::Acquire);
        let many = async {
            // What went wrong is not tried again at once.
            let enough = |seq: &u64| !is_behind && seq.saturating_sub(signed) >= EVENTS_MAX;
            committed.wait_for(enough).await.is_err()
        };
        if tokio::time::timeout(STEP, many).await == Ok(true) {
            return;
        }
        let Some(core) = core.upgrade() else { return };
        if *committed.borrow() > signed {
            is_behind = checkpoints.sign(&core).await.is_err()
                || checkpoints.size.load(Ordering::Acquire) == signed;
        }
    }
}

/// Holds the log against a checkpoint that was signed before.
async fn compare(core: &Core, note: &str, key: &VerifierKey) -> Result<(), OpenError> {
    let before = Checkpoint::open(note, key).map_err(|error| match error {
        NoteError::KeyOther => OpenError::CheckpointForeign,
        NoteError::Malformed | NoteError::SignatureInvalid => OpenError::CheckpointInvalid,
    })?;
    let head = read_head(core).await.map_err(OpenError::from)?.record;
    if before.root.size > head.seq {
        return Err(OpenError::RolledBack { kept: before.root.size, found: head.seq });
    }
    let root = root_at(core, before.root.size).await.map_err(OpenError::from)?;
    if root == before.root { Ok(()) } else { Err(OpenError::Forked { size: root.size }) }
}

/// The key of the log, made at the first time.
async fn key_of(core: &Core) -> Result<LogKey, Error> {
    if let Some(found) = core.read::<LogKey>(LOG_KEY).await? {
        return Ok(found.record);
    }
    let random = |_| Error::incident("the random number generator failed", LOG_KEY);
    let mut log = [0; 16];
    core.rng.fill(&mut log).map_err(random)?;
    let seed = Ed25519Key::draw_seed(&*core.rng).map_err(random)?;
    let made = LogKey { log: HEXLOWER.encode(&log), seed };
    let write = core.put(&Versioned::absent(made))?;
    // Another replica may be first: then its key is the store's.
    core.store.commit(vec![vec![write]], Box::new(|_| Vec::new())).await?;
    let found = core.read::<LogKey>(LOG_KEY).await?;
    Ok(found.ok_or_else(|| Error::incident("the key of the log is not kept", LOG_KEY))?.record)
}

/// Asks a witness, which may take its time: never on a thread that serves.
async fn ask<T: Send + 'static>(
    witness: &Arc<dyn Witness>,
    question: impl FnOnce(&dyn Witness) -> Result<T, WitnessFailed> + Send + 'static,
) -> Result<T, WitnessFailed> {
    let witness = Arc::clone(witness);
    let asked = tokio::task::spawn_blocking(move || question(&*witness));
    asked.await.unwrap_or(Err(WitnessFailed))
}
