//! Wires the parts and serves: both binaries and the tests come through here.

pub mod access;
mod census;
mod ceremonies;
mod crowd;
pub mod demonstration;
pub mod dev;
pub mod faults;
pub mod fleet;
mod frames;
mod guard;
mod health;
mod life;
mod limits;
mod listen;
pub mod manifest;
mod operations;
mod sealing;
mod self_test;
pub mod simulation;
mod tls;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;

use crate::command::run::{Believed, Run};
use crate::command::seal::{Keeper, TokenAccess};
use crate::grpc::{self, Admission, Facts, Metrics, Parts, Standing, Stopwatch, Trust};
use crate::vault::{self, Gate, Phase};

use self::crowd::Crowd;
use self::health::Examiner;
use self::operations::Answers;

pub use self::life::{Reload, reload};
pub use self::limits::{ConnectionLimits, Limits};
pub use self::listen::Listener;
pub use self::self_test::{
    SELF_TEST_PERIOD_MAX, SelfTestFailed, SelfTestsPassed, run_self_tests, self_test_names,
};
pub use self::tls::{Material, Renewal, Tls, TlsError};

/// The longest health call, which names one service.
const HEALTH_LEN_BYTES_MAX: usize = 1_024;

/// How to serve.
pub struct Settings {
    /// Where to accept connections, and how.
    pub listeners: Vec<Listener>,
    /// How callers are told apart.
    pub trust: Trust,
    /// Whether to answer what services there are: development only.
    pub reflection: bool,
    /// How long calls in flight may take to end after the shutdown began.
    pub drain: Duration,
    /// How much the service takes on.
    pub limits: Limits,
    /// What those who run the service see of it.
    pub operations: Operations,
    /// The token that keeps the master key, or is to keep it.
    pub token: Option<TokenAccess>,
}

/// What those who run the service see of it, and how often it is looked after.
#[derive(Debug)]
pub struct Operations {
    /// Where to answer over HTTP how the service is; nowhere if there is none.
    pub listener: Option<TcpListener>,
    /// SHA-256 of the program file that runs.
    pub program_digest: Option<[u8; 32]>,
    /// The time from one run of the self-tests to the next: [`SELF_TEST_PERIOD_MAX`] at most.
    pub self_test_period: Duration,
    /// What durations are measured with.
    pub stopwatch: Stopwatch,
    /// Told once it is examined, and calls are taken.
    pub serving: Option<oneshot::Sender<()>>,
    /// Told how the seal stands, in a few words, whenever that changes.
    pub sealed: Option<fn(&str)>,
}

impl Default for Operations {
    /// What can be told without asking anybody.
    fn default() -> Self {
        Self {
            listener: None,
            program_digest: None,
            self_test_period: SELF_TEST_PERIOD_MAX,
            stopwatch: || 0,
            serving: None,
            sealed: None,
        }
    }
}

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Calls in flight did not end within the drain time; nothing acknowledged is lost.
    #[error("calls in flight did not end within the drain time")]
    Drain,
    /// The start could not be written into the audit log, or a self-test failed meanwhile.
    #[error("the start could not be audited: {0}")]
    Start(#[from] vault::Error),
    /// The connections or the transport failed.
    #[error("the transport failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves until `shutdown`, then lets the calls in flight end.
///
/// Takes the proof that the self-tests passed: no answer leaves before them. The gate alone holds
/// the vault, so that it is let go when the gate closes.
pub async fn serve(
    gate: Arc<Gate>,
    _proof: SelfTestsPassed,
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let draining = CancellationToken::new();
    let (reporter, health) = tonic_health::server::health_reporter();
    let operations = settings.operations;
    gate.expect_sound()?;
    let run = Arc::new(Run {
        program_digest: operations.program_digest,
        believed: believed(&settings.listeners, &settings.trust),
    });
    // A sealed vault is told when it is opened.
    if let Ok(vault) = gate.enter() {
        run.tell_start(&vault).await?;
    }
    let keeper = Keeper::new(Arc::clone(&gate), Arc::clone(&run), settings.token, settings.drain);
    let parts = begin(&gate, &keeper, &settings.listeners, &operations);
    let metrics = Arc::clone(&parts.metrics);
    let mut examiner = Examiner {
        gate: Arc::clone(&gate),
        keeper: Arc::clone(&keeper),
        standing: Arc::clone(&parts.standing),
        reporter,
        certificates: settings.listeners.iter().map(Listener::expiry).collect(),
    };
    examiner.examine().await;
    let told = operations.listener.map(|listener| {
        let Parts { gate, metrics, standing, .. } = parts.clone();
        spawn(operations::serve(listener, Answers { gate, metrics, standing }))
    });
    let beside = [
        spawn(census::repeat(Arc::clone(&gate), Arc::clone(&metrics))),
        spawn(ceremonies::watch(Arc::clone(&gate))),
        spawn(sealing::watch(keeper, operations.sealed)),
        spawn(self_test::repeat(Arc::clone(&gate), operations.self_test_period)),
    ];

    let crowd = Crowd::new(settings.limits.connections);
    let admission =
        Admission::new(Arc::clone(&gate), settings.trust, settings.limits.calls, metrics);
    let router = builder(crowd.limits())
        .layer(admission)
        .add_routes(grpc::services(parts))
        .add_service(health.max_decoding_message_size(HEALTH_LEN_BYTES_MAX))
        .add_optional_service(settings.reflection.then(grpc::reflection).flatten());

    let drain = draining.clone();
    let (examining, streaming) = (CancellationToken::new(), Arc::clone(&gate));
    let told_health = spawn(examiner.run(examining.clone()));
    let signal = async move {
        shutdown.await;
        tracing::info!("draining: no new calls, those in flight may end");
        examining.cancel();
        // Health is told first, so that nobody is sent here any more.
        let _ = told_health.await;
        drain.cancel();
        streaming.end_streams();
    };
    let connections =
        ReceiverStream::new(listen::accept_all(settings.listeners, &crowd, &draining));
    // Who waits for the start may have gone.
    let _ = operations.serving.map(|begun| begun.send(()));
    let serving = router.serve_with_incoming_shutdown(connections, signal);
    tokio::pin!(serving);
    let overdue = async {
        draining.cancelled().await;
        tokio::time::sleep(settings.drain).await;
    };
    let outcome = tokio::select! {
        ended = &mut serving => ended.map_err(ServeError::from),
        () = overdue => Err(ServeError::Drain),
    };
    drop((beside, told));
    tell_stop(&gate, &run).await;
    outcome
}

/// Writes down that the service stops. Whoever seals the vault meanwhile does so, and is waited
/// for, as is who opens it.
async fn tell_stop(gate: &Gate, run: &Run) {
    let is_still = |phase: &Phase| !matches!(phase, Phase::Opening | Phase::Sealing);
    // Its sender is the gate's, which is here.
    let _ = gate.changes().wait_for(is_still).await;
    if let Ok(vault) = gate.enter()
        && let Err(error) = run.tell_stop(&vault).await
    {
        tracing::error!(%error, "the end of this run was not written down");
    }
}

/// Whom the service believes whenever it is asked, in the words of the audit log.
fn believed(listeners: &[Listener], trust: &Trust) -> Believed {
    match trust {
        Trust::Certificates(denied) => {
            let denied = denied.clone();
            let tls: Vec<_> = listeners.iter().filter_map(Listener::asks).cloned().collect();
            Box::new(move || life::in_force(denied.digest(), &life::authorities_of(&tls)))
        }
        Trust::ForDevOnly(_) => Box::new(BTreeMap::new),
    }
}

/// Makes what the services share.
fn begin(
    gate: &Arc<Gate>,
    keeper: &Arc<Keeper>,
    listeners: &[Listener],
    operations: &Operations,
) -> Parts {
    let standing = Arc::new(Standing::new(Facts {
        program_digest: operations.program_digest,
        realm: gate.realm(),
        node: gate.node().to_owned(),
        start: gate.now(),
        callers_certified: listeners.iter().all(|listener| listener.asks().is_some()),
    }));
    let metrics = Metrics::new(Arc::clone(gate), Arc::clone(&standing), operations.stopwatch);
    let (gate, keeper) = (Arc::clone(gate), Arc::clone(keeper));
    Parts { gate, keeper, metrics: Arc::new(metrics), standing }
}

/// Begins a task that ends when it is let go of.
fn spawn<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

/// HTTP/2 within limits.
///
/// What a call may send before it is read is little, so that many open calls take up little. The
/// age has no grace here: with one, the library would cut a connection without asking its other end
/// to connect anew; who does not is cut by the connection's guard.
fn builder(limits: &ConnectionLimits) -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(limits.ping_seconds)))
        .http2_keepalive_timeout(Some(Duration::from_secs(limits.pong_seconds)))
        .max_connection_age(Duration::from_secs(limits.age_seconds))
        .max_concurrent_streams(limits.streams)
        .http2_max_header_list_size(limits.header_bytes)
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

/// How many streams that were reset before anybody looked at them may wait.
const RESETS_MAX: usize = 128;

/// What one call may send before it is read (RFC 9113, 6.9.2): more than the longest message.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;

/// What all calls of a connection may send before it is read.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
