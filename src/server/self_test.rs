//! Known answers before the first answer, and again every day: every primitive, and every piece
//! built upon them.

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::rng::{self, SystemRng};
use crate::crypto::self_test::{self, KnownAnswer};
use crate::crypto::{ec, hpke, sharing};
use crate::vault::{self, Action, Caller, Gate, Reason, Vault};
use crate::{dukpt, keyblock, pin};

pub use crate::crypto::self_test::SelfTestFailed;

/// The proof that the self-tests passed: only [`run_self_tests`] makes it, and serving asks for it.
#[derive(Debug)]
pub struct SelfTestsPassed(());

/// The longest time from one run to the next (SEC-62).
pub const SELF_TEST_PERIOD_MAX: Duration = Duration::from_hours(24);

/// Computes every known answer, and looks whether the random numbers are any.
pub fn run_self_tests() -> Result<SelfTestsPassed, SelfTestFailed> {
    known_answers().try_for_each(KnownAnswer::check)?;
    rng::examine(&SystemRng::new())?;
    Ok(SelfTestsPassed(()))
}

/// What is tested, each in the words of its standard: the known answers, the random numbers, and
/// each key pair when it is made.
pub fn self_test_names() -> impl Iterator<Item = &'static str> {
    let known = known_answers().map(|known| known.algorithm);
    known.chain([rng::RANDOM_NUMBERS, ec::EPHEMERAL_PAIR, ec::SIGNING_PAIR, hpke::RECIPIENT_PAIR])
}

fn known_answers() -> impl Iterator<Item = &'static KnownAnswer> {
    let primitives = self_test::KNOWN_ANSWERS.iter();
    let primitives = primitives.chain(&hpke::KNOWN_ANSWERS).chain(&sharing::KNOWN_ANSWERS);
    let built = dukpt::KNOWN_ANSWERS.iter().chain(&keyblock::KNOWN_ANSWERS);
    primitives.chain(built).chain(&pin::KNOWN_ANSWERS)
}

/// Runs the self-tests again and again until something fails, in them or in a new key pair; that
/// closes the gate.
pub(super) async fn repeat(gate: Arc<Gate>, period: Duration) {
    let period = period.min(SELF_TEST_PERIOD_MAX);
    loop {
        tokio::select! {
            algorithm = self_test::until_broken() => return close(&gate, algorithm).await,
            () = tokio::time::sleep(period) => {}
        }
        // They compute for some milliseconds, which other calls need not wait for.
        let result = tokio::task::spawn_blocking(run_self_tests).await;
        // What broke within a test is told in place of the test that it broke.
        let failed = gate.failed().or(match result {
            Ok(Ok(SelfTestsPassed(()))) => None,
            Ok(Err(failed)) => Some(failed.algorithm),
            Err(_) => Some("the self-tests themselves"),
        });
        if let Some(algorithm) = failed {
            return close(&gate, algorithm).await;
        }
        gate.note_tested();
        tracing::info!("self-tests passed");
        // A sealed vault has no log to write it into. What broke since then ends the wait at once.
        let Ok(vault) = gate.enter() else { continue };
        if let Err(error) = tell(&vault, None).await {
            tracing::error!(%error, "the self-tests were not audited");
        }
    }
}

/// Closes the gate for good: nothing is served any more, and the vault is let go.
pub(super) async fn close(gate: &Gate, algorithm: &'static str) {
    // Whoever came first has told it.
    let Some(vault) = gate.fail(algorithm) else { return };
    tracing::error!(algorithm, "a self-test failed: nothing is served until the next start");
    if let Err(error) = tell(&vault, Some(algorithm)).await {
        tracing::error!(%error, "the failure was not audited");
    }
}

/// Writes the result into the audit log.
async fn tell(vault: &Vault, failed: Option<&str>) -> Result<(), vault::Error> {
    let mut work = vault.begin(&Caller::service(), Action::RunSelfTests, "").await?;
    let Some(algorithm) = failed else { return work.commit().await.map(|_| ()) };
    work.detail("failed", algorithm);
    match work.commit_refused(Reason::SelfTestFailed).await {
        vault::Error::Refused(_) => Ok(()),
        error => Err(error),
    }
}
