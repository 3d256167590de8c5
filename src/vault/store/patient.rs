//! A store that is not waited for without end.

use std::sync::Arc;
use std::time::Duration;

use super::{Batch, BoxFuture, Kind, Outcome, Query, Row, Store, StoreError, Surveyed, Tail};

/// Answers `Unavailable` when the store behind it takes too long to read.
///
/// A commit is waited for as long as it takes: whether it came about has to be known before the
/// next. Whoever asked for it does not wait that long; see `Work`.
pub(in crate::vault) struct PatientStore {
    inner: Arc<dyn Store>,
    patience: Duration,
}

impl PatientStore {
    pub(in crate::vault) fn new(inner: Arc<dyn Store>, patience: Duration) -> Self {
        Self { inner, patience }
    }

    fn wait_for<'a, T: Send + 'a>(
        &self,
        answer: BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        let patience = self.patience;
        Box::pin(async move {
            let answer = tokio::time::timeout(patience, answer).await;
            answer.unwrap_or_else(|_| {
                tracing::error!("the store did not answer in time");
                Err(StoreError::Unavailable)
            })
        })
    }
}

impl Store for PatientStore {
    fn get(&self, kind: Kind, id: &str) -> BoxFuture<'_, Result<Option<Row>, StoreError>> {
        self.wait_for(self.inner.get(kind, id))
    }

    fn list(&self, query: Query) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.wait_for(self.inner.list(query))
    }

    fn survey(
        &self,
        except: &'static [Kind],
        after: Option<(String, String)>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Surveyed>, StoreError>> {
        self.wait_for(self.inner.survey(except, after, limit))
    }

    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, StoreError>> {
        self.wait_for(self.inner.free_bytes())
    }

    fn commit(
        &self,
        batches: Vec<Batch>,
        tail: Tail,
    ) -> BoxFuture<'_, Result<Vec<Outcome>, StoreError>> {
        self.inner.commit(batches, tail)
    }
}
