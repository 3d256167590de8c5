//! Examines the service again and again, and tells health of it.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::listen::Expiry;
use super::self_test;
use crate::command::seal::Keeper;
use crate::crypto::rng;
use crate::grpc::{Check, Finding, SEAL_SERVICE, SERVICE_NAMES, Standing};
use crate::vault::{Disk, Gate, UnixMillis, Vault};

/// The time from one examination to the next.
const PERIOD: Duration = Duration::from_secs(3);

/// How long the store may take to answer one.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How long before its end a certificate is complained of, in seconds: thirty days.
const EXPIRY_NEAR_SECONDS: u64 = 30 * 24 * 60 * 60;

/// Octets below which the disk is complained of.
const DISK_FREE_BYTES_LOW: u64 = 1024 * 1024 * 1024;

/// How long the newest checkpoint may take to come outside before it is complained of, in
/// milliseconds: it is tried again each second.
const CHECKPOINT_BEHIND_MS_MAX: u64 = 5_000;

/// How far the clock may be behind the newest event, in milliseconds: it is slewed, and no more.
const CLOCK_BEHIND_MS_MAX: u64 = 2_000;

/// What is examined, and who is told.
pub(super) struct Examiner {
    pub(super) gate: Arc<Gate>,
    pub(super) keeper: Arc<Keeper>,
    pub(super) standing: Arc<Standing>,
    pub(super) reporter: HealthReporter,
    pub(super) certificates: Vec<Expiry>,
}

impl Examiner {
    /// Examines until `ending`, and tells those who watch health that it ends.
    pub(super) async fn run(mut self, ending: CancellationToken) {
        let mut changes = self.gate.changes();
        while !ending.is_cancelled() {
            changes.mark_unchanged();
            self.examine().await;
            tokio::select! {
                () = ending.cancelled() => {}
                // Its sender is the gate's, which is here.
                _ = changes.changed() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
        for name in SERVICE_NAMES.iter().chain(&[""]) {
            self.reporter.set_service_status(*name, ServingStatus::NotServing).await;
            // Whoever watches has been told; a stream that goes on would hold up the end.
            self.reporter.clear_service_status(name).await;
        }
    }

    /// Examines once.
    pub(super) async fn examine(&mut self) {
        let found = match self.gate.enter() {
            Ok(vault) => self.look(&vault).await,
            // Of a closed gate one thing is told, and the gate itself knows it.
            Err(_) => Vec::new(),
        };
        self.standing.note(found);
        let serves = self.standing.serves(&self.gate);
        // Who brings the master key is answered whatever else is not well.
        let is_sound = self.gate.expect_sound().is_ok();
        for name in SERVICE_NAMES.iter().chain(&[""]) {
            let serves = serves || (is_sound && *name == SEAL_SERVICE);
            let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
            self.reporter.set_service_status(*name, status).await;
        }
    }

    /// A token that is lost while the vault is open is needed at the next opening alone.
    async fn of_token(&self) -> Finding {
        // It gives up the token itself; what may be waited for besides is the store.
        match tokio::time::timeout(ANSWER_MAX * 2, self.keeper.look_at_token()).await {
            Ok(None | Some(Ok(()))) => Finding::Well,
            Ok(Some(Err(trouble))) => Finding::Failing(format!(
                "the vault would not open again: {trouble}; look at the token before any restart"
            )),
            Err(_) => Finding::Failing("nobody could look at the token".to_owned()),
        }
    }

    async fn look(&self, vault: &Vault) -> Vec<(Check, Finding)> {
        if let Err(failed) = rng::examine(vault.rng()) {
            self_test::close(&self.gate, failed.algorithm).await;
            return Vec::new();
        }
        let expiry = self.certificates.iter().filter_map(|certificate| certificate()).min();
        self.standing.note_certificate_expiry(expiry.unwrap_or(0));
        let store = in_time(vault.examine_store()).await;
        let audit = in_time(vault.examine_audit()).await;
        let advice = "look at the disk and the log, then restart";
        vec![
            (Check::Audit, of_answer(audit, &format!("no event can be written: {advice}"))),
            (Check::Certificate, of_expiry(expiry, vault.now())),
            (Check::Checkpoint, of_checkpoint(vault.checkpoint_behind_ms())),
            (Check::Clock, of_clock(vault.clock_behind_ms(), vault.clock_ahead_ms())),
            (Check::Disk, of_disk(vault.disk())),
            (Check::Random, Finding::Well),
            (Check::Seal, self.of_token().await),
            (Check::SelfTest, Finding::Well),
            (Check::Store, of_answer(store, &format!("it does not answer: {advice}"))),
        ]
    }
}

/// Whether something answered, and in time.
async fn in_time<E>(answer: impl Future<Output = Result<(), E>>) -> bool {
    matches!(tokio::time::timeout(ANSWER_MAX, answer).await, Ok(Ok(())))
}

fn of_answer(answered: bool, detail: &str) -> Finding {
    if answered { Finding::Well } else { Finding::Failed(detail.to_owned()) }
}

/// A listener in plain text has no certificate to expire.
fn of_expiry(expiry: Option<u64>, now: UnixMillis) -> Finding {
    let Some(expiry) = expiry else { return Finding::Well };
    let left = expiry.saturating_sub(now.seconds());
    if left == 0 {
        Finding::Failed("a listener's certificate has expired: replace it".to_owned())
    } else if left < EXPIRY_NEAR_SECONDS {
        let days = left / (24 * 60 * 60);
        Finding::Failing(format!("a listener's certificate expires in {days} days: replace it"))
    } else {
        Finding::Well
    }
}

fn of_clock(behind_ms: u64, ahead_ms: Option<u64>) -> Finding {
    if let Some(ahead_ms) = ahead_ms {
        let days = ahead_ms / (24 * 60 * 60 * 1_000);
        Finding::Failed(format!(
            "the clock is {days} days ahead of the newest event, so none is written: set it right"
        ))
    } else if behind_ms > CLOCK_BEHIND_MS_MAX {
        let seconds = behind_ms / 1_000;
        Finding::Failed(format!("the clock is {seconds} s behind the newest event: set it right"))
    } else {
        Finding::Well
    }
}

/// Calls go on without it: what it would find is found at a later start, or by others who hold one.
fn of_checkpoint(behind_ms: u64) -> Finding {
    if behind_ms > CHECKPOINT_BEHIND_MS_MAX {
        let seconds = behind_ms / 1_000;
        Finding::Failing(format!(
            "the newest checkpoint has not been kept outside for {seconds} s: look at the file \
             that checkpoint names, its disk, and the log"
        ))
    } else {
        Finding::Well
    }
}

/// What the service itself goes by. Where nothing at all can be written, the audit log's check says
/// so.
fn of_disk(disk: Disk) -> Finding {
    let Disk { free_bytes: Some(free), reserve_bytes } = disk else { return Finding::Well };
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let left = format!("the disk of the store has {} MiB left", mib(free));
    if free < reserve_bytes {
        Finding::Failing(format!(
            "{left}, fewer than the {} that audit_reserve_mib keeps: backends, relays, terminals \
             and strangers are refused with AUDIT_UNAVAILABLE; make room",
            mib(reserve_bytes)
        ))
    } else if free < DISK_FREE_BYTES_LOW {
        Finding::Failing(format!("{left}: make room"))
    } else {
        Finding::Well
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// -1 for what fails now, 0 for what will, 1 for what is well.
    fn sign(finding: &Finding) -> i8 {
        assert_eq!(finding.detail().is_empty(), *finding == Finding::Well);
        match finding {
            Finding::Failed(_) => -1,
            Finding::Failing(_) => 0,
            Finding::Well => 1,
        }
    }

    #[test]
    fn a_certificate_is_complained_of_before_it_ends() {
        let now = UnixMillis(1_900_000_000_000);
        let after = |seconds: u64| sign(&of_expiry(Some(1_900_000_000 + seconds), now));
        assert_eq!(sign(&of_expiry(None, now)), 1);
        assert_eq!([after(0), after(1), after(30 * 86_400 - 1), after(30 * 86_400)], [-1, 0, 0, 1]);
        assert_eq!(sign(&of_expiry(Some(1), now)), -1);
    }

    #[test]
    fn a_disk_is_complained_of_before_it_is_full() {
        let mib = 1024 * 1024;
        let with = |free_bytes, reserve_mib: u64| {
            of_disk(Disk { free_bytes, reserve_bytes: reserve_mib * mib })
        };
        for reserve in [0, 64, 512] {
            let free = |bytes: u64| with(Some(bytes), reserve);
            assert_eq!([sign(&free(1024 * mib - 1)), sign(&free(1024 * mib))], [0, 1]);
            // Whether anybody is refused is told where somebody is.
            let told = |bytes: u64| free(bytes).detail().contains("AUDIT_UNAVAILABLE");
            assert!(!told(reserve * mib), "{reserve}");
            assert!(reserve == 0 || told(reserve * mib - 1), "{reserve}");
        }
        assert!(with(Some(2_048 * mib), 4_096).detail().contains("the 4096 that"));
        assert_eq!(sign(&with(None, 64)), 1);
    }

    #[test]
    fn a_checkpoint_that_does_not_come_outside_is_complained_of() {
        let after = |behind_ms: u64| sign(&of_checkpoint(behind_ms));
        assert_eq!([after(0), after(5_000), after(5_001)], [1, 1, 0]);
    }

    #[test]
    fn a_clock_that_was_set_back_is_found() {
        assert_eq!(
            [sign(&of_clock(0, None)), sign(&of_clock(2_000, None)), sign(&of_clock(2_001, None))],
            [1, 1, -1]
        );
    }

    #[test]
    fn a_clock_that_is_far_ahead_is_found() {
        let ahead = of_clock(0, Some(40 * 24 * 60 * 60 * 1_000));
        assert_eq!(sign(&ahead), -1);
        assert!(ahead.detail().contains("40 days ahead"));
    }
}
