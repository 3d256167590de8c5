//! What those who run the service ask it over HTTP: whether it lives, whether it serves, what it
//! counts. Without authentication, so it tells no name of a key, a terminal or a caller.
//!
//! ```text
//! /livez    200 while the process answers at all
//! /readyz   200 while it can serve, else 503; each check and what is wrong, as JSON
//! /metrics  OpenMetrics 1.0
//! ```
//!
//! Few may ask at once, and nobody for long: its connections take nothing from those that serve.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::Listener;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

use crate::grpc::{Finding, Metrics, Standing};
use crate::vault::Gate;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How many connections there are at once; more wait in the queue of the kernel.
const VISITORS_MAX: usize = 16;

/// How long a connection lasts, whatever happens on it. Who scrapes connects anew.
const VISIT_MAX: Duration = Duration::from_secs(5);

/// What the answers are made of.
#[derive(Clone)]
pub(super) struct Answers {
    pub(super) gate: Arc<Gate>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) standing: Arc<Standing>,
}

/// Answers until it is dropped.
pub(super) async fn serve(listener: TcpListener, answers: Answers) {
    let routes = Router::new()
        .route("/livez", get(|| async { ([(header::CONTENT_TYPE, TEXT)], "alive\n") }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(answers);
    let reception = Reception { listener, places: Arc::new(Semaphore::new(VISITORS_MAX)) };
    if let Err(error) = axum::serve(reception, routes).await {
        tracing::error!(%error, "health and metrics are not told over HTTP any more");
    }
}

/// A listener that lets few in at once.
struct Reception {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Listener for Reception {
    type Io = Visit;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visit, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (Visit { stream, end: Box::pin(tokio::time::sleep(VISIT_MAX)), _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends in time.
struct Visit {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Visit {
    fn check_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.end.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl AsyncRead for Visit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_time(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Visit {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_time(context)?;
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// How it is, as JSON.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    checks: Vec<Checked>,
}

#[derive(Serialize)]
struct Checked {
    name: &'static str,
    healthy: bool,
    detail: String,
}

async fn ready(State(answers): State<Answers>) -> impl IntoResponse {
    let Answers { gate, standing, .. } = answers;
    let checks = standing.found(&gate).into_iter().map(|(check, finding)| Checked {
        name: check.as_str(),
        healthy: finding == Finding::Well,
        detail: finding.detail().to_owned(),
    });
    let readiness = Readiness { ready: standing.serves(&gate), checks: checks.collect() };
    let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let text = serde_json::to_string(&readiness).unwrap_or_default();
    (code, [(header::CONTENT_TYPE, JSON)], text + "\n")
}

async fn metrics(State(answers): State<Answers>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], answers.metrics.text())
}
