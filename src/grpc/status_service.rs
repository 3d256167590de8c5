//! `StatusService`: how the service is, also when nothing else is served.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use super::admit::Admitted;
use super::convert::timestamp;
use super::proto;
use super::proto::status_service_server::StatusService;
use super::standing::{Finding, Standing};
use super::status::from_error;
use crate::command::Error;
use crate::vault::{Action, Gate, Reason};

/// How long the audit event of a look at the status may take.
const AUDIT_MAX: Duration = Duration::from_secs(1);

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
        match request.extensions().get::<Admitted>() {
            Some(admitted) => note(admitted).await,
            // With the gate closed there is no vault to be admitted to; the door has looked at the
            // caller's certificate.
            None if self.gate.failed().is_some() => {}
            None => return Err(from_error(&Error::refused(Reason::PolicyDenied))),
        }
        Ok(Response::new(self.status()))
    }
}

/// Notes who looked. The status has no effect and shows no secret, and it is needed most when
/// nothing can be written: so it is answered whether or not the event could be.
async fn note(admitted: &Admitted) {
    let Admitted { vault, caller, .. } = admitted;
    let written = async {
        let work = vault.begin(caller, Action::GetStatus, "").await?;
        work.commit().await
    };
    match tokio::time::timeout(AUDIT_MAX, written).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!(%error, "a look at the status was not audited"),
        Err(_) => tracing::error!("a look at the status was not audited in time"),
    }
}

impl StatusApi {
    fn status(&self) -> proto::GetStatusResponse {
        let facts = &self.standing.facts;
        let vault = self.gate.enter().ok();
        let checks = self.standing.found(&self.gate).into_iter().map(|(check, finding)| {
            let detail = finding.detail().to_owned();
            proto::HealthCheck {
                name: check.as_str().to_owned(),
                healthy: finding == Finding::Well,
                detail,
            }
        });
        let protections =
            self.standing.protections().into_iter().map(|protection| proto::Protection {
                name: protection.name.to_owned(),
                in_force: protection.in_force,
                detail: protection.detail,
            });
        proto::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            program_digest: facts.program_digest.map(Vec::from).unwrap_or_default(),
            realm: facts.realm.as_str().to_owned(),
            node: facts.node.clone(),
            start_time: Some(timestamp(facts.start.0)),
            checks: checks.collect(),
            protections: protections.collect(),
            policy_version: vault.as_ref().map_or(0, |vault| vault.policy().version),
            audit_sequence: vault.as_ref().map_or(0, |vault| vault.audit_sequence()),
            checkpoint_time: vault
                .as_ref()
                .and_then(|vault| vault.newest_checkpoint())
                .map(|(_, time)| timestamp(time.0)),
            self_test_time: Some(timestamp(self.gate.tested().0)),
        }
    }
}
