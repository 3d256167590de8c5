//! The policy, read and written as the document that it is.

use prost::Message as _;
use tonic::transport::Channel;

use super::{Client, ClientError, Refusal, request_id_of};
use crate::grpc::policy::{from_policy, to_policy};
use crate::grpc::proto;
use crate::grpc::proto::policy_service_client::PolicyServiceClient;
use crate::vault::Policy;

impl Client {
    /// `PolicyService`.
    #[must_use]
    pub fn policy(&self) -> PolicyServiceClient<Channel> {
        PolicyServiceClient::new(self.admin.clone())
    }

    /// The policy in force.
    pub async fn get_policy(&self) -> Result<Policy, ClientError> {
        let answer = self.policy().get_policy(proto::GetPolicyRequest {}).await?;
        document(answer.into_inner().policy)
    }

    /// Puts a policy in the place of the one whose version it has. Where others have to approve it,
    /// the refusal tells the digest of just this request.
    pub async fn set_policy(
        &self,
        request_id: String,
        policy: &Policy,
    ) -> Result<Policy, ClientError> {
        let policy = Some(from_policy(policy));
        let request = proto::SetPolicyRequest { request_id, policy };
        let sent = request.encode_to_vec();
        let answer = self.policy().set_policy(request).await;
        let answer = answer.map_err(|status| Refusal::from(status).of_sent("SetPolicy", &sent))?;
        document(answer.into_inner().policy)
    }

    /// Puts a policy in force under a request id that the document always has: once others have
    /// approved it, the same is asked again and is done.
    ///
    /// An approval that ended without effect is not opened again. With `anew` another one is asked
    /// for, under an id that the document and the approval that ended always have.
    pub async fn set_document(&self, policy: &Policy, anew: bool) -> Result<Policy, ClientError> {
        let mut ended = String::new();
        loop {
            let id = request_id_of(&[policy.digest().as_bytes(), ended.as_bytes()]);
            let set = self.set_policy(id, policy).await;
            match set {
                Err(ClientError::Refused(refusal)) if anew && refusal.has_ended() => {
                    refusal.told("approval").unwrap_or_default().clone_into(&mut ended);
                }
                set => return set,
            }
        }
    }
}

fn document(policy: Option<proto::Policy>) -> Result<Policy, ClientError> {
    let incomplete = ClientError::Incomplete("policy");
    policy.and_then(|policy| to_policy(policy).ok()).ok_or(incomplete)
}
