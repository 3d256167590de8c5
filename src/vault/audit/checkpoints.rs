//! Signing checkpoints, keeping the newest, and holding the log against it at start.
//!
//! The key is a sealed record made when a store is begun, with the id of the log; both stay for the
//! life of the store. A checkpoint says in clear what the log is: whoever sets the whole store back
//! sets back what is kept in it too, so the newest also goes to a [`Witness`](super::Witness)
//! outside. The store notes that something was ever kept there: then nothing there is a finding.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use zeroize::Zeroizing;

use super::super::clock::UnixMillis;
use super::super::core::{Core, expected};
use super::super::error::Error;
use super::super::open::{CheckpointAt, OpenError};
use super::super::record::{Kind, Record, Versioned};
use super::AuditSettings;
use super::chain::read_head;
use super::note::{Checkpoint, NoteError, VerifierKey};
use super::tree::root_at;
use super::witness::{Covered, Keeper};
use crate::crypto::ed25519::Ed25519Key;
use crate::crypto::rng::{Rng, RngFailed};
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

/// How often a log that has grown is signed.
pub(in crate::vault) const STEP: Duration = Duration::from_secs(1);
/// After how many events it is signed even sooner.
const EVENTS_MAX: u64 = 1_000;

/// The key of the log, and the log's own id.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::vault) struct LogKey {
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

impl LogKey {
    /// Draws a key for a store that is begun.
    pub(in crate::vault) fn draw(rng: &dyn Rng) -> Result<Self, RngFailed> {
        let mut log = [0; 16];
        rng.fill(&mut log)?;
        let seed = Ed25519Key::draw_seed(rng)?;
        Ok(Self { log: HEXLOWER.encode(&log), seed })
    }

    /// The key itself.
    pub(super) fn key(&self) -> Ed25519Key {
        Ed25519Key::from_seed(&self.seed)
    }

    /// Reads the key; there is one in every store that was begun.
    pub(in crate::vault) async fn read(core: &Core) -> Result<Option<Self>, Error> {
        Ok(core.read::<Self>(LOG_KEY).await?.map(|found| found.record))
    }

    /// The key, with its name: the origin of the log of a node.
    pub(super) fn named(&self, node: &str) -> (String, Ed25519Key) {
        (format!("firstkey/{}/{node}", self.log), Ed25519Key::from_seed(&self.seed))
    }
}

/// The newest checkpoint of a node, as the store keeps it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::vault) struct Newest {
    node: String,
    time: UnixMillis,
    note: String,
    /// Whether one was ever kept outside.
    #[serde(default)]
    is_outside: bool,
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
    keeper: Option<Keeper>,
    /// Whether nothing was outside where something had been, and that was on purpose.
    pub(in crate::vault) has_begun_anew: bool,
    newest: Mutex<Kept>,
    /// Whether the store knows that one was ever kept outside.
    is_outside: AtomicBool,
    /// The size that was last signed.
    size: AtomicU64,
    /// When, in milliseconds.
    time: AtomicU64,
}

/// What was signed last.
struct Kept {
    version: Option<u64>,
    signed: Option<SignedCheckpoint>,
}

impl Checkpoints {
    /// Holds the log against the checkpoints kept in the store and outside.
    pub(in crate::vault) async fn open(
        core: &Core,
        key: &LogKey,
        audit: AuditSettings,
    ) -> Result<Self, OpenError> {
        let (name, key) = key.named(&core.node);
        let verifier_key = VerifierKey::new(name, &key);
        let found = core.read::<Newest>(&core.node).await.map_err(OpenError::from)?;
        let mut size = 0;
        if let Some(found) = &found {
            size = compare(core, &found.record.note, &verifier_key, CheckpointAt::Store).await?;
        }
        let was_outside = found.as_ref().is_some_and(|found| found.record.is_outside);
        let (mut keeper, mut has_begun_anew) = (None, false);
        if let Some(witness) = audit.witness {
            let begun = Keeper::begin(witness, audit.patience).await;
            let (begun, last) = begun.map_err(|_| OpenError::WitnessUnavailable)?;
            has_begun_anew = was_outside && last.is_none();
            match last {
                Some(note) => {
                    compare(core, &note, &verifier_key, CheckpointAt::Outside).await?;
                }
                None if was_outside && !audit.new_checkpoint => {
                    return Err(OpenError::CheckpointMissing { size });
                }
                None => tracing::warn!(
                    "no checkpoint is kept outside yet: whether this log was set back can not be \
                     told"
                ),
            }
            keeper = Some(begun);
        }
        let kept = Kept { version: found.and_then(|found| found.version), signed: None };
        Ok(Self {
            verifier_key,
            keeper,
            has_begun_anew,
            newest: Mutex::new(kept),
            is_outside: AtomicBool::new(was_outside),
            size: AtomicU64::new(0),
            time: AtomicU64::new(0),
        })
    }

    /// How many events the newest checkpoint covers that is kept wherever it is to be kept, and
    /// when it was signed; none before the first since the start.
    pub(in crate::vault) fn newest(&self) -> Option<Covered> {
        if let Some(keeper) = &self.keeper {
            return keeper.kept();
        }
        let size = self.size.load(Ordering::Acquire);
        (size > 0).then(|| (size, UnixMillis(self.time.load(Ordering::Acquire))))
    }

    /// For how long the newest checkpoint has not been kept outside, in milliseconds.
    pub(in crate::vault) fn behind_ms(&self, now: UnixMillis) -> u64 {
        self.keeper.as_ref().map_or(0, |keeper| keeper.behind_ms(now))
    }

    /// Signs the log as it stands, unless it has not grown since. It is kept outside soon after.
    pub(in crate::vault) async fn sign(&self, core: &Core) -> Result<SignedCheckpoint, Error> {
        self.sign_and_offer(core).await.map(|(signed, _)| signed)
    }

    /// Signs the log as it stands, and waits for a while until that is outside.
    pub(in crate::vault) async fn sign_and_keep(&self, core: &Core) -> Result<(), Error> {
        let (_, offer) = self.sign_and_offer(core).await?;
        if let (Some(keeper), Some(offer)) = (&self.keeper, offer) {
            // What did not come outside is missed there; the store has it.
            let _ = tokio::time::timeout(core.patience, keeper.wait_for(offer)).await;
            if self.has_more_to_tell() {
                self.sign(core).await?;
            }
        }
        Ok(())
    }

    async fn sign_and_offer(&self, core: &Core) -> Result<(SignedCheckpoint, Option<u64>), Error> {
        let signing = async {
            let mut kept = self.newest.lock().await;
            let root = read_head(core).await?.record.frontier()?.root();
            let is_told = !self.has_more_to_tell();
            let same = |signed: &SignedCheckpoint| signed.size == root.size && is_told;
            let signed = if let Some(signed) = kept.signed.take().filter(same) {
                signed
            } else {
                let origin = self.verifier_key.name().to_owned();
                self.sign_anew(core, &mut kept, Checkpoint { origin, root }).await?
            };
            kept.signed = Some(signed.clone());
            self.time.store(signed.time.0, Ordering::Release);
            self.size.store(signed.size, Ordering::Release);
            let offer = self.keeper.as_ref().filter(|_| self.is_behind());
            let offer = offer.map(|keeper| keeper.offer(&signed, core.now()));
            Ok((signed, offer))
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
        let key = LogKey::read(core).await?;
        let key = key.ok_or_else(|| Error::incident("the key of the log is gone", LOG_KEY))?;
        let note = memory::with_wiped_stack(|| checkpoint.sign(&Ed25519Key::from_seed(&key.seed)));
        drop(key);
        let time = core.now();
        let is_outside = self.is_outside.load(Ordering::Acquire) || self.has_more_to_tell();
        let newest = Newest { node: core.node.clone(), time, note: note.clone(), is_outside };
        let next = expected(kept.version).next_version();
        let written = core.write_alone(&Versioned { version: kept.version, record: newest }).await;
        if written != Ok(true) {
            // Whether it was written is not known: what is there is read anew.
            kept.version = core.read::<Newest>(&core.node).await?.and_then(|one| one.version);
            return Err(Error::Unavailable);
        }
        kept.version = Some(next);
        self.is_outside.store(is_outside, Ordering::Release);
        let verifier_key = self.verifier_key.to_string();
        Ok(SignedCheckpoint { size, time, note, verifier_key })
    }

    /// Whether what was signed last is not outside.
    fn is_behind(&self) -> bool {
        let kept = |keeper: &Keeper| keeper.kept().map_or(0, |(size, _)| size);
        let signed = self.size.load(Ordering::Acquire);
        self.keeper.as_ref().is_some_and(|keeper| kept(keeper) < signed)
    }

    /// Whether something is outside, and the store does not know it.
    fn has_more_to_tell(&self) -> bool {
        let has_kept = self.keeper.as_ref().is_some_and(|keeper| keeper.kept().is_some());
        has_kept && !self.is_outside.load(Ordering::Acquire)
    }
}

/// Signs while the log grows: at every step, and sooner after a thousand events.
pub(in crate::vault) async fn keep_signing(
    core: Weak<Core>,
    checkpoints: Arc<Checkpoints>,
    mut committed: watch::Receiver<u64>,
    step: Duration,
) {
    let mut has_failed = false;
    loop {
        let signed = checkpoints.size.load(Ordering::Acquire);
        let many = async {
            // What went wrong is not tried again at once.
            let enough = |seq: &u64| !has_failed && seq.saturating_sub(signed) >= EVENTS_MAX;
            committed.wait_for(enough).await.is_err()
        };
        if tokio::time::timeout(step, many).await == Ok(true) {
            return;
        }
        let Some(core) = core.upgrade() else { return };
        let has_grown = *committed.borrow() > signed;
        if has_grown || checkpoints.is_behind() || checkpoints.has_more_to_tell() {
            has_failed = checkpoints.sign(&core).await.is_err();
        }
    }
}

/// Holds the log against a checkpoint that was signed before, and tells how many events it covers.
async fn compare(
    core: &Core,
    note: &str,
    key: &VerifierKey,
    at: CheckpointAt,
) -> Result<u64, OpenError> {
    let before = Checkpoint::open(note, key).map_err(|error| match error {
        NoteError::KeyOther => OpenError::CheckpointForeign(at),
        NoteError::Malformed | NoteError::SignatureInvalid => OpenError::CheckpointInvalid(at),
    })?;
    let (head, size) = (read_head(core).await.map_err(OpenError::from)?.record, before.root.size);
    if size > head.seq {
        return Err(OpenError::RolledBack { at, kept: size, found: head.seq });
    }
    let root = root_at(core, size).await.map_err(OpenError::from)?;
    if root == before.root { Ok(size) } else { Err(OpenError::Forked { at, size }) }
}
