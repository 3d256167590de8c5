//! Counts keys and terminals again and again, for the metrics.

use std::sync::Arc;
use std::time::Duration;

use crate::command::census::Census;
use crate::grpc::Metrics;
use crate::vault::Gate;

/// The time from the end of a count to the next.
const PERIOD: Duration = Duration::from_mins(1);

/// How long a count rests between two steps, which take some milliseconds: the larger the store,
/// the longer the count, and never much of a processor.
const REST: Duration = Duration::from_millis(50);

/// Counts whenever the gate is open.
pub(super) async fn repeat(gate: Arc<Gate>, metrics: Arc<Metrics>) {
    loop {
        let mut census = Census::default();
        loop {
            // The vault is held for one step at a time: it goes when the gate closes.
            let Ok(vault) = gate.enter() else { break };
            match census.go_on(&vault).await {
                Ok(true) => {}
                Ok(false) => break metrics.counted(&census),
                // The store has said why; it is tried again.
                Err(_) => break,
            }
            drop(vault);
            tokio::time::sleep(REST).await;
        }
        tokio::time::sleep(PERIOD).await;
    }
}
