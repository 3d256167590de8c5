//! Structured logs: lines of JSON on standard error.

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// Begins to log what `filter` asks for.
pub(crate) fn begin(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("no log filter: {filter}"))?;
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init()
        .map_err(|error| anyhow::anyhow!("can not begin to log: {error}"))
}
