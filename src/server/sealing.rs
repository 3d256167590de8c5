//! What the service does by itself while it is sealed: it tries its token once, forgets what nobody
//! goes on with, and says what it waits for.

use std::sync::Arc;
use std::time::Duration;

use crate::command::seal::Keeper;
use crate::vault::Phase;

/// The time from one look to the next.
const PERIOD: Duration = Duration::from_secs(1);

/// Tries the token, if the master key is kept by one, and from then on looks after the seal.
pub(super) async fn watch(keeper: Arc<Keeper>, tell: Option<fn(&str)>) {
    // What comes of it stands in the log and the status. There is no second try.
    let _ = keeper.try_at_start().await;
    let mut told = String::new();
    loop {
        keeper.tidy().await;
        let now = words(&keeper).await;
        if let Some(tell) = tell
            && told != now
        {
            tell(&now);
            told = now;
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// How the seal stands, in a few words.
async fn words(keeper: &Keeper) -> String {
    match keeper.phase() {
        Phase::Failed => "a self-test failed: nothing is served".to_owned(),
        Phase::Open => "serving".to_owned(),
        Phase::Opening => "opening".to_owned(),
        Phase::Sealing => "sealing".to_owned(),
        Phase::Sealed => match keeper.progress().await {
            Some((given, threshold)) => format!("sealed, {given} of {threshold} shares"),
            None => "sealed".to_owned(),
        },
    }
}
