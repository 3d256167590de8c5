//! The seal: how the master key comes to be known, and is forgotten again.
//!
//! ```text
//! closed, no store   create --> distribution --> each takes and confirms --> store begun, open
//! closed             give, give, give --> open          try_token --> open
//! open               seal --> closed       create --> .. --> rotation of the master key
//! ```
//!
//! Nothing of an attempt or a distribution is stored: a crash before its last step leaves all as it
//! was. A ceremony for a master key that replaces another stands in the store from its beginning,
//! so that its end is signed however it ends; the first master key's is stored with the commit that
//! begins the store. Whatever opens or seals the vault goes on to its end when its caller goes
//! away.

mod attempt;
mod create;
mod distribution;
mod giver;
mod handing;
mod opening;
mod status;
mod token;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};

use self::attempt::Attempt;
use self::distribution::Distribution;
use super::Error;
use super::run::Run;
use crate::component::Share;
use crate::crypto::hpke::Kem;
use crate::vault::{self, Action, Caller, Custody, Gate, OpenError, Opener, Phase, Vault};

pub use self::create::Keepers;
pub use self::giver::{Asked, Giver, Sent, not_taken, unfit};
pub use self::opening::set_of;
pub use self::status::{AttemptStatus, DistributionStatus, KeeperStatus, Status, fingerprint};
pub use self::token::{PinSource, TokenAccess, TokenTrouble};

/// How long an attempt or a distribution stays while nothing happens, in milliseconds.
const PATIENCE_MS: u64 = 15 * 60 * 1_000;

/// A master key is 256 bits strong, so is what its shares cross under.
pub const KEM: Kem = Kem::P521;

/// Octets of the id of an attempt or a distribution.
pub const ID_LEN_BYTES: usize = 16;

/// Octets of a share in its envelope: its heading and its value.
pub const SHARE_LEN_BYTES: usize = Share::LEN_BYTES;

/// Which shares belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareSet {
    /// What tells them from others.
    pub id: [u8; 4],
    /// How many give the master key.
    pub threshold: u8,
    /// How many there are.
    pub shares: u8,
}

impl ShareSet {
    /// The set that a share says it is of.
    fn of(share: &Share) -> Self {
        let heading = share.heading();
        let (threshold, shares) = (heading.threshold(), heading.shares());
        Self { id: heading.set_id(), threshold, shares }
    }
}

/// What the audit log has the calls of this room be about.
const RESOURCE: &str = "seal";

/// Keeps the gate sealed, opens it with what is brought, and seals it again.
pub struct Keeper {
    gate: Arc<Gate>,
    run: Arc<Run>,
    token: Option<TokenAccess>,
    /// How long calls in flight may take to end when the vault is sealed.
    drain: Duration,
    desk: Arc<Mutex<Desk>>,
}

/// What is on the table; in memory alone.
#[derive(Default)]
struct Desk {
    attempt: Option<Attempt>,
    /// Since the vault was open.
    failed_attempts: u32,
    distribution: Option<Distribution>,
    /// How the token was the last time; none before that.
    token: Option<Result<(), TokenTrouble>>,
    /// Why the vault did not open under the right master key.
    fault: String,
    /// Whether it has been open in this run.
    was_open: bool,
}

impl Keeper {
    /// Keeps a gate, perhaps with a token.
    #[must_use]
    pub fn new(
        gate: Arc<Gate>,
        run: Arc<Run>,
        token: Option<TokenAccess>,
        drain: Duration,
    ) -> Arc<Self> {
        Arc::new(Self { gate, run, token, drain, desk: Arc::default() })
    }

    /// Where the gate stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.gate.phase()
    }

    /// Seals the vault for a caller: written down before, done when this answers.
    pub async fn seal(
        self: &Arc<Self>,
        vault: Arc<Vault>,
        caller: &Caller,
    ) -> Result<Status, Error> {
        let work = vault.begin(caller, Action::Seal, RESOURCE).await?;
        if self.gate.opener().is_none() {
            return Err(super::give_up(work, never()).await);
        }
        work.commit().await?;
        // Nobody may hold it while it is closed.
        drop(vault);
        let keeper = Arc::clone(self);
        to_its_end(async move {
            let last = async |vault: &Vault| {
                if let Err(error) = keeper.run.tell_stop(vault).await {
                    tracing::error!(%error, "the sealing was not written down to its end");
                }
            };
            if keeper.gate.seal(keeper.drain, last).await {
                tracing::info!("sealed: the master key is wiped");
            }
            // Not held until here: who waits for it may hold the vault. What was distributed was
            // for the one that is closed now.
            let mut desk = keeper.desk().await;
            desk.distribution = None;
            desk.failed_attempts = 0;
            Ok(())
        })
        .await?;
        self.status().await
    }

    /// Forgets what nobody goes on with.
    pub async fn tidy(&self) {
        let (mut desk, now) = (self.desk().await, self.gate.now());
        if desk.attempt.as_ref().is_some_and(|attempt| attempt.expires <= now) {
            tracing::info!("an attempt to open the vault is over: its shares are forgotten");
            desk.attempt = None;
        }
        if desk.distribution.as_ref().is_some_and(|one| one.expires <= now) {
            tracing::warn!("the distribution of a master key is over: it is forgotten");
            desk.distribution = None;
        }
    }

    async fn desk(&self) -> OwnedMutexGuard<Desk> {
        Arc::clone(&self.desk).lock_owned().await
    }

    /// What the vault is opened from.
    fn opener(&self) -> Result<&Opener, Error> {
        self.gate.opener().ok_or_else(never)
    }

    /// What the store says of its master key; none where it is empty.
    async fn custody(&self) -> Result<Option<Custody>, Error> {
        let found = Custody::read(&*self.opener()?.store).await;
        found.map_err(|error| not_open(&error))
    }

    /// Goes on only while the vault is sealed.
    fn expect_sealed(&self) -> Result<(), Error> {
        self.gate.expect_sound()?;
        match self.gate.phase() {
            Phase::Sealed => Ok(()),
            Phase::Failed | Phase::Open => Err(unfit("the vault is open")),
            Phase::Opening | Phase::Sealing => Err(unfit("wait until it is open or sealed")),
        }
    }
}

/// A development service has a published master key, and so nothing to seal.
fn never() -> Error {
    unfit("a development service is never sealed")
}

/// What became of opening, for the caller; the log and the status tell more.
fn not_open(error: &OpenError) -> Error {
    match error {
        OpenError::Unavailable | OpenError::WitnessUnavailable => vault::Error::Unavailable.into(),
        other => vault::Error::incident("the vault does not open", &other.to_string()).into(),
    }
}

/// Lets something go on although nobody waits for it any more.
async fn to_its_end<T: Send + 'static>(
    task: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::spawn(task).await {
        Ok(done) => done,
        Err(_) => Err(vault::Error::incident("a call of the seal broke off", RESOURCE).into()),
    }
}
