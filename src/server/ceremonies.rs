//! Ends ceremonies that were left alone, as soon as their time is over.

use std::sync::Arc;
use std::time::Duration;

use crate::command::ceremony::conduct;
use crate::vault::Gate;

/// The time from one look to the next.
const PERIOD: Duration = Duration::from_secs(1);

/// Looks whenever the gate is open; what a sealed vault holds waits until it is opened.
pub(super) async fn watch(gate: Arc<Gate>) {
    loop {
        if let Ok(vault) = gate.enter() {
            // What fails has been logged by the store, and is tried again at the next look.
            let _ = conduct::abort_idle(&vault).await;
        }
        tokio::time::sleep(PERIOD).await;
    }
}
