//! `AuditService`: the audit log, for auditors.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::admit::{Admitted, Recheck};
use super::convert;
use super::paging::page_size;
use super::proto::audit_service_server::AuditService;
use super::proto::{self};
use super::respond::serve;
use super::status::from_error;
use crate::command::{Error, read_audit};
use crate::crypto::merkle::Hash;
use crate::vault::{Caller, Event, SignedCheckpoint, Vault};

/// The longest name of a resource.
const RESOURCE_LEN_MAX: usize = 200;

/// How many messages of an export wait for a slow reader.
const QUEUE_LEN: usize = 4;

/// The service.
pub(super) struct AuditApi;

type ExportItem = Result<proto::ExportEventsResponse, Status>;

#[tonic::async_trait]
impl AuditService for AuditApi {
    type ExportEventsStream = Pin<Box<dyn Stream<Item = ExportItem> + Send>>;

    async fn list_events(
        &self,
        request: Request<proto::ListEventsRequest>,
    ) -> Result<Response<proto::ListEventsResponse>, Status> {
        serve("ListEvents", request, async |vault, caller, body| {
            let limit = page_size(body.page_size)?;
            let resource = convert::text("resource", &body.resource, 0..=RESOURCE_LEN_MAX)?;
            let resource = (!resource.is_empty()).then_some(resource.as_str());
            let found =
                read_audit::list_events(&vault, &caller, body.after, resource, limit).await?;
            let events = texts(&found.events)?;
            Ok(proto::ListEventsResponse { events, last: found.last, size: found.size })
        })
        .await
    }

    async fn export_events(
        &self,
        request: Request<proto::ExportEventsRequest>,
    ) -> Result<Response<Self::ExportEventsStream>, Status> {
        let admitted = request.extensions().get::<Admitted>();
        let recheck = admitted.map(|admitted| admitted.recheck.clone()).unwrap_or_default();
        let ending = admitted.map(|admitted| admitted.ending.clone()).unwrap_or_default();
        serve("ExportEvents", request, async |vault, caller, body| {
            let checkpoint = read_audit::begin_export(&vault, &caller, body.after).await?;
            let export = Export { vault, caller, recheck, after: body.after, checkpoint };
            let stream: Self::ExportEventsStream = Box::pin(export.stream(ending));
            Ok(stream)
        })
        .await
    }

    async fn get_checkpoint(
        &self,
        request: Request<proto::GetCheckpointRequest>,
    ) -> Result<Response<proto::GetCheckpointResponse>, Status> {
        serve("GetCheckpoint", request, async |vault, caller, _| {
            let signed = read_audit::get_checkpoint(&vault, &caller).await?;
            let SignedCheckpoint { note: checkpoint, verifier_key, .. } = signed;
            Ok(proto::GetCheckpointResponse { checkpoint, verifier_key })
        })
        .await
    }

    async fn prove_inclusion(
        &self,
        request: Request<proto::ProveInclusionRequest>,
    ) -> Result<Response<proto::ProveInclusionResponse>, Status> {
        serve("ProveInclusion", request, async |vault, caller, body| {
            let (sequence, size) = (body.sequence, body.size);
            let proof = read_audit::prove_inclusion(&vault, &caller, sequence, size).await?;
            Ok(proto::ProveInclusionResponse {
                leaf_hash: proof.leaf_hash.to_vec(),
                hashes: octets(&proof.hashes),
                root: proof.root.hash.to_vec(),
            })
        })
        .await
    }

    async fn prove_consistency(
        &self,
        request: Request<proto::ProveConsistencyRequest>,
    ) -> Result<Response<proto::ProveConsistencyResponse>, Status> {
        serve("ProveConsistency", request, async |vault, caller, body| {
            let (first, second) = (body.first, body.second);
            let proof = read_audit::prove_consistency(&vault, &caller, first, second).await?;
            Ok(proto::ProveConsistencyResponse {
                hashes: octets(&proof.hashes),
                first_root: proof.first.hash.to_vec(),
                second_root: proof.second.hash.to_vec(),
            })
        })
        .await
    }
}

/// An export under way: everything up to its checkpoint.
struct Export {
    vault: Arc<Vault>,
    caller: Caller,
    recheck: Recheck,
    after: u64,
    checkpoint: SignedCheckpoint,
}

impl Export {
    /// The stream of events. One that ends without a checkpoint was cut off.
    fn stream(mut self, ending: CancellationToken) -> impl Stream<Item = ExportItem> + Send {
        let (sender, receiver) = mpsc::channel(QUEUE_LEN);
        tokio::spawn(ending.run_until_cancelled_owned(async move {
            loop {
                let item = self.next().await.map_err(|error| from_error(&error));
                let is_last = item.as_ref().map_or(true, |item| !item.checkpoint.is_empty());
                // The task ends when the reader has gone away.
                if sender.send(item).await.is_err() || is_last {
                    return;
                }
            }
        }));
        ReceiverStream::new(receiver)
    }

    async fn next(&mut self) -> Result<proto::ExportEventsResponse, Error> {
        // Who has been shut out since the export began is told nothing more, also no checkpoint.
        self.recheck.check(&self.vault)?;
        let mut response = proto::ExportEventsResponse::default();
        let (vault, caller, size) = (&self.vault, &self.caller, self.checkpoint.size);
        let events = read_audit::exported(vault, caller, self.after, size).await?;
        if self.after < size {
            let last = events.last().map(|event| event.seq);
            let gap = || crate::vault::Error::incident("an event is missing", "export");
            self.after = last.ok_or_else(gap)?;
            response.events = texts(&events)?;
        } else {
            response.checkpoint.clone_from(&self.checkpoint.note);
            response.verifier_key.clone_from(&self.checkpoint.verifier_key);
        }
        Ok(response)
    }
}

/// Events in their exact bytes.
fn texts(events: &[Event]) -> Result<Vec<String>, Error> {
    let text = |event: &Event| {
        String::from_utf8(event.encode())
            .map_err(|_| crate::vault::Error::incident("an event is not UTF-8", "event").into())
    };
    events.iter().map(text).collect()
}

fn octets(hashes: &[Hash]) -> Vec<Vec<u8>> {
    hashes.iter().map(|hash| hash.to_vec()).collect()
}
