//! The policy, read and written as the document that it is.

use tonic::transport::Channel;

use super::{Client, ClientError};
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

    /// Puts a policy in the place of the one whose version it has.
    pub async fn set_policy(
        &self,
        request_id: String,
        policy: &Policy,
    ) -> Result<Policy, ClientError> {
        let policy = Some(from_policy(policy));
        let request = proto::SetPolicyRequest { request_id, policy };
        document(self.policy().set_policy(request).await?.into_inner().policy)
    }
}

fn document(policy: Option<proto::Policy>) -> Result<Policy, ClientError> {
    let incomplete = ClientError::Incomplete("policy");
    policy.and_then(|policy| to_policy(policy).ok()).ok_or(incomplete)
}
