//! The stream behind `WatchTerminals`: what was committed, then what is being committed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::watch::Receiver;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::admit::Recheck;
use super::convert::timestamp;
use super::proto;
use super::status::from_error;
use super::terminal_fields::from_state;
use crate::command::activation::watch::{Transition, transitions_after};
use crate::vault::{Caller, Vault};

/// How many transitions wait for a slow watcher.
const QUEUE_LEN: usize = 16;

/// How long a watcher that has events to catch up with rests after each reading of them: who begins
/// at the first event of a long log, or sees few of its terminals, keeps nobody waiting.
const REST: Duration = Duration::from_millis(50);

/// One watcher: who it is, where it stands, and which terminal it asks about.
pub(super) struct Watcher {
    pub(super) caller: Caller,
    pub(super) recheck: Recheck,
    pub(super) sequence: u64,
    pub(super) terminal: Option<String>,
}

/// What a watcher is told, and what it has not been told yet.
pub(super) struct Watch {
    vault: Arc<Vault>,
    watcher: Watcher,
    committed: Receiver<u64>,
    waiting: VecDeque<Transition>,
}

impl Watch {
    /// Watches from after a sequence on.
    pub(super) fn new(vault: Arc<Vault>, watcher: Watcher) -> Self {
        let committed = vault.committed();
        Self { vault, watcher, committed, waiting: VecDeque::new() }
    }

    /// The stream of transitions. It ends with `ending`, however slowly it is read, and with an
    /// error that tells the reason; either way the watcher resumes after the last sequence it was
    /// told.
    pub(super) fn into_stream(
        mut self,
        ending: CancellationToken,
    ) -> impl Stream<Item = Result<proto::WatchTerminalsResponse, Status>> + Send {
        let (sender, receiver) = mpsc::channel(QUEUE_LEN);
        tokio::spawn(ending.run_until_cancelled_owned(async move {
            while let Some(item) = self.next().await {
                let last = item.is_err();
                // The task ends when the watcher has gone away.
                if sender.send(item).await.is_err() || last {
                    return;
                }
            }
        }));
        ReceiverStream::new(receiver)
    }

    async fn next(&mut self) -> Option<Result<proto::WatchTerminalsResponse, Status>> {
        loop {
            // Who has been shut out since it began to watch is told nothing more.
            if let Err(error) = self.watcher.recheck.check(&self.vault) {
                return Some(Err(from_error(&error)));
            }
            if let Some(transition) = self.waiting.pop_front() {
                return Some(Ok(response(transition)));
            }
            let newest = *self.committed.borrow_and_update();
            let (vault, watcher) = (&self.vault, &mut self.watcher);
            if newest > watcher.sequence {
                let terminal = watcher.terminal.as_deref();
                match transitions_after(vault, &watcher.caller, watcher.sequence, terminal).await {
                    Ok((transitions, looked)) => {
                        self.waiting.extend(transitions);
                        watcher.sequence = looked;
                        if newest > looked {
                            tokio::time::sleep(REST).await;
                        }
                    }
                    Err(error) => return Some(Err(from_error(&error))),
                }
                continue;
            }
            if self.committed.changed().await.is_err() {
                return None;
            }
        }
    }
}

fn response(transition: Transition) -> proto::WatchTerminalsResponse {
    proto::WatchTerminalsResponse {
        sequence: transition.sequence,
        terminal: transition.terminal,
        entry: Some(proto::TimelineEntry {
            time: Some(timestamp(transition.time.0)),
            step: transition.step,
            from: from_state(transition.from).into(),
            to: from_state(transition.to).into(),
            reason: transition.reason,
            remedy: transition.remedy,
            note: transition.note,
        }),
    }
}
