//! What is kept outside of the store, and the one thread that keeps it there.
//!
//! Whatever is outside may fail, and may hang. So one thread alone asks it, one thing after the
//! other, and nobody waits for that thread but an end of the service, for a while: it finds the
//! newest note in its slot, and the notes that were put there meanwhile are passed over.

use std::fmt::Debug;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::super::clock::UnixMillis;
use super::checkpoints::SignedCheckpoint;

/// Keeps the newest checkpoint where whoever changes the store can not change it: on another disk,
/// or with somebody else. It is asked one thing at a time.
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

/// How many events a checkpoint covers, and when it was signed.
pub(super) type Covered = (u64, UnixMillis);

/// The thread that keeps notes outside. It ends when this is dropped, once it comes back from what
/// it is at.
pub(super) struct Keeper {
    slot: Arc<Slot>,
    done: watch::Receiver<Done>,
}

/// What the thread has done.
#[derive(Clone, Copy, Default)]
struct Done {
    /// The last offer that it has come back from.
    offer: u64,
    kept: Option<Covered>,
}

#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How many notes were offered.
    offers: u64,
    waiting: Option<(u64, SignedCheckpoint)>,
    /// How many events the newest note covers.
    size: u64,
    /// Since when the newest that was kept is not the newest that was offered.
    behind_since: UnixMillis,
    is_over: bool,
}

impl Keeper {
    /// Begins the thread, and asks what was kept last; whoever does not tell in time has failed.
    pub(super) async fn begin(
        witness: Arc<dyn Witness>,
        patience: Duration,
    ) -> Result<(Self, Option<String>), WitnessFailed> {
        let slot = Arc::<Slot>::default();
        let (told, done) = watch::channel(Done::default());
        let (answer, answered) = oneshot::channel();
        let keeper = Self { slot: Arc::clone(&slot), done };
        thread::Builder::new()
            .name("checkpoint-keeper".into())
            .spawn(move || {
                let last = witness.last();
                if answer.send(last).is_ok() {
                    slot.keep_each(&*witness, &told);
                }
            })
            .map_err(|_| WitnessFailed)?;
        let last = tokio::time::timeout(patience, answered).await;
        let last = last.map_err(|_| WitnessFailed)?.unwrap_or(Err(WitnessFailed))?;
        Ok((keeper, last))
    }

    /// Offers a note in place of those that wait. The answer is the number of the offer.
    pub(super) fn offer(&self, signed: &SignedCheckpoint, now: UnixMillis) -> u64 {
        let kept = self.kept();
        let mut state = self.slot.state();
        if kept.is_some_and(|(size, _)| size >= state.size) || state.offers == 0 {
            state.behind_since = now;
        }
        state.offers += 1;
        state.size = signed.size;
        state.waiting = Some((state.offers, signed.clone()));
        self.slot.changed.notify_one();
        state.offers
    }

    /// Waits until the thread has come back from an offer, or a later one.
    pub(super) async fn wait_for(&self, offer: u64) {
        // A thread that panicked does not come back.
        let _ = self.done.clone().wait_for(|done| done.offer >= offer).await;
    }

    /// The newest that is outside; none before the first since the start.
    pub(super) fn kept(&self) -> Option<Covered> {
        self.done.borrow().kept
    }

    /// For how long the newest that is outside is not the newest there is, in milliseconds.
    pub(super) fn behind_ms(&self, now: UnixMillis) -> u64 {
        let kept = self.kept().map_or(0, |(size, _)| size);
        let state = self.slot.state();
        if kept >= state.size { 0 } else { now.since_ms(state.behind_since) }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.slot.state().is_over = true;
        self.slot.changed.notify_one();
    }
}

impl Slot {
    /// Keeps each note that comes into the slot.
    fn keep_each(&self, witness: &dyn Witness, told: &watch::Sender<Done>) {
        while let Some((offer, signed)) = self.take() {
            let is_kept = witness.keep(&signed.note).is_ok();
            if !is_kept {
                tracing::error!("the checkpoint was not kept outside");
            }
            told.send_modify(|done| {
                done.offer = offer;
                if is_kept {
                    done.kept = Some((signed.size, signed.time));
                }
            });
        }
    }

    /// Waits for a note; none when it is over.
    fn take(&self) -> Option<(u64, SignedCheckpoint)> {
        let mut state = self.state();
        loop {
            if state.is_over {
                return None;
            }
            if let Some(waiting) = state.waiting.take() {
                return Some(waiting);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A state is changed whole, so what a panicking thread leaves behind is still consistent.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
