//! What those who run the service ask it over HTTP: whether it lives, whether it serves, what it
//! counts. Without authentication, so it tells no name of a key, a terminal or a caller.
//!
//! ```text
//! /livez    200 while the process answers at all
//! /readyz   200 while it can serve, else 503; each check and what is wrong, as JSON
//! /metrics  OpenMetrics 1.0
//! ```

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::grpc::{Finding, Metrics, Standing};
use crate::vault::Gate;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "health and metrics are not told over HTTP any more");
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
