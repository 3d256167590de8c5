//! `StatusService`: how the service is, for those who run it.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::timestamp;
use super::proto;
use super::proto::status_service_server::StatusService;
use super::respond::serve;
use super::standing::{Finding, Standing};
use crate::command::read_status::look_at_status;
use crate::vault::{Action, Gate, Vault};

/// The service.
pub(super) struct StatusApi {
    pub(super) gate: Arc<Gate>,
    pub(super) standing: Arc<Standing>,
}

#[tonic::async_trait]
impl StatusService for StatusApi {
    async fn get_status(
        &self,
        request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        serve("GetStatus", request, async |vault, caller, _| {
            look_at_status(&vault, &caller, Action::GetStatus).await?;
            Ok(self.status(&vault))
        })
        .await
    }
}

impl StatusApi {
    fn status(&self, vault: &Vault) -> proto::GetStatusResponse {
        let facts = &self.standing.facts;
        let checks = self.standing.found(&self.gate).into_iter().map(|(check, finding)| {
            let detail = finding.detail().to_owned();
            proto::HealthCheck {
                name: check.as_str().to_owned(),
                healthy: finding == Finding::Well,
                detail,
            }
        });
        let protections =
            self.standing.protections(vault.master_key_page()).into_iter().map(|protection| {
                proto::Protection {
                    name: protection.name.to_owned(),
                    in_force: protection.in_force,
                    detail: protection.detail,
                }
            });
        proto::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            program_digest: facts.program_digest.map(Vec::from).unwrap_or_default(),
            realm: facts.realm.as_str().to_owned(),
            node: facts.node.clone(),
            start_time: Some(timestamp(facts.start.0)),
            checks: checks.collect(),
            protections: protections.collect(),
            policy_version: vault.policy().version,
            audit_sequence: vault.audit_sequence(),
            checkpoint_time: vault.newest_checkpoint().map(|(_, time)| timestamp(time.0)),
            self_test_time: Some(timestamp(self.gate.tested().0)),
        }
    }
}
