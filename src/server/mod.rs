//! Wires the parts and serves: both binaries and the tests come through here.

pub mod access;
pub mod demonstration;
pub mod dev;
pub mod faults;
pub mod fleet;
mod listen;
pub mod manifest;
mod self_test;
pub mod simulation;
mod tls;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;

use crate::grpc::{self, Admission, CallLimits, Trust};
use crate::vault::Gate;

pub use self::listen::Listener;
pub use self::self_test::{
    SELF_TEST_PERIOD_MAX, SelfTestFailed, SelfTestsPassed, run_self_tests, self_test_names,
};
pub use self::tls::{Material, Tls, TlsError};

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
    /// What those who run the service see of it.
    pub operations: Operations,
}

/// What those who run the service see of it, and how often it is looked after.
#[derive(Debug)]
pub struct Operations {
    /// Where to answer over HTTP how the service is; nowhere if there is none.
    pub listener: Option<TcpListener>,
    /// SHA-256 of the program file that runs.
    pub program_digest: Option<[u8; 32]>,
    /// The folder of the store, whose disk must not run full.
    pub folder: Option<PathBuf>,
    /// The time from one run of the self-tests to the next: [`SELF_TEST_PERIOD_MAX`] at most.
    pub self_test_period: Duration,
}

impl Default for Operations {
    /// What can be told without asking anybody.
    fn default() -> Self {
        Self {
            listener: None,
            program_digest: None,
            folder: None,
            self_test_period: SELF_TEST_PERIOD_MAX,
        }
    }
}

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Calls in flight did not end within the drain time; nothing acknowledged is lost.
    #[error("calls in flight did not end within the drain time")]
    Drain,
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
    let (mut reporter, health) = tonic_health::server::health_reporter();
    // Streams end with the service, and when nothing is served any more.
    let streaming = gate.closed();
    let services = grpc::services(streaming.clone());
    for name in grpc::SERVICE_NAMES.iter().chain(&[""]) {
        reporter.set_service_status(*name, tonic_health::ServingStatus::Serving).await;
    }

    let router = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_mins(1)))
        .http2_max_pending_accept_reset_streams(Some(32))
        .http2_max_header_list_size(16 * 1024)
        .layer(Admission::new(Arc::clone(&gate), settings.trust, CallLimits::default()))
        .add_routes(services)
        .add_service(health)
        .add_optional_service(settings.reflection.then(grpc::reflection).flatten());

    let begin = draining.clone();
    let signal = async move {
        shutdown.await;
        tracing::info!("draining: no new calls, those in flight may end");
        for name in grpc::SERVICE_NAMES.iter().chain(&[""]) {
            reporter.set_service_status(*name, tonic_health::ServingStatus::NotServing).await;
            // Whoever watches has been told; a stream that goes on would hold up the end.
            reporter.clear_service_status(name).await;
        }
        begin.cancel();
        streaming.cancel();
    };
    let period = settings.operations.self_test_period;
    let testing =
        AbortOnDropHandle::new(tokio::spawn(self_test::repeat(Arc::clone(&gate), period)));
    let connections = ReceiverStream::new(listen::accept_all(settings.listeners, &draining));
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
    drop(testing);
    if let Ok(vault) = gate.enter()
        && let Err(error) = vault.flush().await
    {
        tracing::error!(%error, "the last counts of refusals were not written");
    }
    outcome
}
