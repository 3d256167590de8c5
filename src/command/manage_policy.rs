//! The policy: read, replaced as a whole, and asked what it would say.

use super::{Error, RequestId, approvals, audited, give_up, recall, remember, repeated, retrying};
use crate::pin::PinBlockFormat;
use crate::vault::{Action, Caller, Explanation, KeyUse, Policy, PolicyRefused, Question, Vault};

/// What is asked of the policy.
#[derive(Debug, Clone)]
pub struct Check {
    /// The name of a principal.
    pub principal: String,
    /// The call.
    pub call: Action,
    /// What the call is about.
    pub about: About,
    /// The id in `keys/{id}` of the other key of the call.
    pub partner_key: Option<String>,
    /// The format of the PIN block that comes in.
    pub format_in: Option<PinBlockFormat>,
    /// The format of the PIN block that goes out.
    pub format_out: Option<PinBlockFormat>,
}

/// What a call is about.
#[derive(Debug, Clone)]
pub enum About {
    /// The id in `keys/{id}`.
    Key(String),
    /// Nothing that the policy tells apart.
    Nothing,
    /// The id in `profiles/{id}`.
    Profile(String),
}

/// What the policy says.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Whether it allows it, and why.
    pub explanation: Explanation,
    /// Whether officers have to approve each such call, or those of it that the service marks.
    pub approval_required: bool,
    /// The version of the policy.
    pub policy_version: u64,
}

/// Returns the policy in force.
pub async fn get_policy(vault: &Vault, caller: &Caller) -> Result<Policy, Error> {
    let found = async { Ok(Policy::clone(&vault.policy())) };
    audited(vault, caller, Action::GetPolicy, Policy::RESOURCE, found).await
}

/// Puts a policy in the place of the one whose version it has: `STORE_CONFLICT` where another is in
/// force by now. It decides every call that begins after the answer.
pub async fn set_policy(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    policy: Policy,
) -> Result<Policy, Error> {
    let action = Action::SetPolicy;
    retrying(|| async {
        let work = vault.begin(caller, action, Policy::RESOURCE).await?;
        if let Some(answer) = recall(vault, caller, action, request).await? {
            return repeated(work, answer).await;
        }
        let next = match vault.next_policy(policy.clone()).await {
            Ok(next) => next,
            Err(refused) => return Err(give_up(work, refused).await),
        };
        let mut work = approvals::require(vault, work, request, &[]).await?;
        remember(vault, &mut work, request, &next.record).await?;
        work.commit_policy(next.clone()).await?;
        Ok(next.record)
    })
    .await
}

/// Tells what the policy in force says of a call, and by which rules. Nothing is done.
pub async fn check_policy(vault: &Vault, caller: &Caller, check: &Check) -> Result<Checked, Error> {
    let checked = async {
        let policy = vault.policy();
        let partner = check
            .partner_key
            .as_deref()
            .map(|key| KeyUse { format_out: check.format_out, ..KeyUse::of(Ok(key)) });
        let key = match &check.about {
            About::Key(key) => Some(KeyUse {
                key: Ok(key),
                format_in: check.format_in,
                // Alone, the key is asked about both sides; with a partner, that is the other one.
                format_out: if partner.is_some() { None } else { check.format_out },
            }),
            About::Nothing | About::Profile(_) => None,
        };
        let profile = match &check.about {
            About::Profile(profile) => Some(profile.as_str()),
            About::Key(_) | About::Nothing => None,
        };
        let keys: Vec<KeyUse<'_>> = key.into_iter().chain(partner).collect();
        let (principal, action) = (check.principal.as_str(), check.call);
        let question = Question { principal, action, keys: &keys, profile };
        let explanation = policy.explain(&question, vault.now());
        let may_wait = approvals::may_be_marked(action) && !explanation.approved_before;
        Ok(Checked {
            approval_required: policy.votes_required > 0 && may_wait,
            explanation,
            policy_version: policy.version,
        })
    };
    audited(vault, caller, Action::CheckPolicy, Policy::RESOURCE, checked).await
}

impl From<PolicyRefused> for Error {
    fn from(refused: PolicyRefused) -> Self {
        match refused {
            PolicyRefused::Invalid(invalid) => {
                Self::field(format!("policy.{}", invalid.path), invalid.cause)
            }
            PolicyRefused::Vault(error) => error.into(),
        }
    }
}
