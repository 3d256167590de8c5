//! `PolicyService`: who may do what, for officers and auditors.

use tonic::{Request, Response, Status};

use super::convert::{
    self, key_name, known, optional, optional_key, required, resource, timestamp,
};
use super::proto::policy_service_server::PolicyService;
use super::proto::{self};
use super::respond::serve;
use crate::command::Error;
use crate::command::manage_policy::{self, About, Check, Checked};
use crate::pin::PinBlockFormat;
use crate::vault::{
    Action, AuditMode, FORMATS, Grant, Policy, Principal, Role, UnixMillis, format_word,
};

/// The longest name of a principal.
const NAME_LEN_MAX: usize = 255;

/// The service.
#[derive(Clone)]
pub(super) struct PolicyApi;

#[tonic::async_trait]
impl PolicyService for PolicyApi {
    async fn get_policy(
        &self,
        request: Request<proto::GetPolicyRequest>,
    ) -> Result<Response<proto::GetPolicyResponse>, Status> {
        serve("GetPolicy", request, async |vault, caller, _| {
            let found = manage_policy::get_policy(&vault, &caller).await?;
            Ok(proto::GetPolicyResponse { policy: Some(from_policy(&found)) })
        })
        .await
    }

    async fn set_policy(
        &self,
        request: Request<proto::SetPolicyRequest>,
    ) -> Result<Response<proto::SetPolicyResponse>, Status> {
        serve("SetPolicy", request, async |vault, caller, body| {
            let request = convert::request_id("SetPolicy", &body.request_id, &body)?;
            let policy = to_policy(required("policy", body.policy)?)?;
            let request = Some(&request);
            let set = manage_policy::set_policy(&vault, &caller, request, policy).await?;
            Ok(proto::SetPolicyResponse { policy: Some(from_policy(&set)) })
        })
        .await
    }

    async fn check_policy(
        &self,
        request: Request<proto::CheckPolicyRequest>,
    ) -> Result<Response<proto::CheckPolicyResponse>, Status> {
        serve("CheckPolicy", request, async |vault, caller, body| {
            let check = to_check(&body)?;
            let checked = manage_policy::check_policy(&vault, &caller, &check).await?;
            let Checked { explanation, approval_required, policy_version } = checked;
            Ok(proto::CheckPolicyResponse {
                allowed: explanation.allowed,
                because: explanation.because,
                approval_required: approval_required && explanation.allowed,
                policy_version,
            })
        })
        .await
    }
}

fn to_check(body: &proto::CheckPolicyRequest) -> Result<Check, Error> {
    let principal = convert::text("principal", &body.principal, 1..=NAME_LEN_MAX)?;
    let call = Action::of_rpc(&body.call).ok_or_else(|| Error::field("call", "is no rpc"))?;
    let path = "resource";
    let about = match body.resource.split_once('/') {
        None if body.resource.is_empty() => About::Nothing,
        Some(("profiles", _)) => About::Profile(resource(path, "profiles", &body.resource)?),
        Some(_) | None => About::Key(key_name(path, &body.resource)?),
    };
    Ok(Check {
        principal,
        call,
        about,
        partner_key: optional_key("partner_key", &body.partner_key)?,
        format_in: to_optional_format("pin_format_in", body.pin_format_in)?,
        format_out: to_optional_format("pin_format_out", body.pin_format_out)?,
    })
}

/// A policy as it comes over the wire. Only its form is checked here: whether it may be the policy
/// says [`Policy::check`].
pub(super) fn to_policy(policy: proto::Policy) -> Result<Policy, Error> {
    let audit = match known("policy.audit_mode", policy.audit_mode)? {
        proto::AuditMode::Summary => AuditMode::Summary { seconds: policy.summary_seconds },
        // Unspecified is refused before.
        proto::AuditMode::Each | proto::AuditMode::Unspecified => {
            if policy.summary_seconds != 0 {
                let cause = "is for AUDIT_MODE_SUMMARY alone";
                return Err(Error::field("policy.summary_seconds", cause));
            }
            AuditMode::Each
        }
    };
    let principals = policy.principals.into_iter().enumerate();
    let grants = policy.grants.into_iter().enumerate();
    Ok(Policy {
        version: policy.version,
        votes_required: policy.votes_required,
        approval_seconds: policy.approval_seconds,
        audit,
        principals: principals
            .map(|(at, one)| to_principal(&format!("policy.principals[{at}]"), one))
            .collect::<Result<_, _>>()?,
        grants: grants
            .map(|(at, one)| to_grant(&format!("policy.grants[{at}]"), one))
            .collect::<Result<_, _>>()?,
    })
}

fn to_principal(path: &str, principal: proto::Principal) -> Result<Principal, Error> {
    let word = known(&format!("{path}.role"), principal.role)?;
    let role = Role::GIVEN.into_iter().find(|role| from_role(*role) == word);
    Ok(Principal {
        name: principal.name,
        person: principal.person,
        role: role.ok_or_else(|| Error::field(format!("{path}.role"), "is an unknown value"))?,
        profiles: principal.profiles,
        calls_per_minute_max: principal.calls_per_minute_max,
    })
}

fn to_grant(path: &str, grant: proto::Grant) -> Result<Grant, Error> {
    let words = |name: &str, values: &[i32]| {
        let values = values.iter().enumerate();
        let word = |(at, value): (usize, &i32)| {
            let path = format!("{path}.{name}[{at}]");
            let format = to_optional_format(&path, *value)?;
            let format = format.ok_or_else(|| Error::field(path, "must be specified"))?;
            Ok(format_word(format).to_owned())
        };
        values.map(word).collect::<Result<Vec<_>, Error>>()
    };
    let moment = |name: &str, time: Option<prost_types::Timestamp>| {
        let ms = time.map(|time| convert::unix_ms(&format!("{path}.{name}"), time));
        Ok::<_, Error>(ms.transpose()?.map(UnixMillis))
    };
    Ok(Grant {
        key: grant.key,
        principals: grant.principals,
        calls: grant.calls,
        pin_formats_in: words("pin_formats_in", &grant.pin_formats_in)?,
        pin_formats_out: words("pin_formats_out", &grant.pin_formats_out)?,
        partner_keys: grant.partner_keys,
        calls_per_minute_max: grant.calls_per_minute_max,
        not_before: moment("not_before", grant.not_before)?,
        not_after: moment("not_after", grant.not_after)?,
    })
}

/// A policy as it goes over the wire.
pub(super) fn from_policy(policy: &Policy) -> proto::Policy {
    let (audit_mode, summary_seconds) = match policy.audit {
        AuditMode::Each => (proto::AuditMode::Each, 0),
        AuditMode::Summary { seconds } => (proto::AuditMode::Summary, seconds),
    };
    proto::Policy {
        version: policy.version,
        principals: policy.principals.iter().map(from_principal).collect(),
        grants: policy.grants.iter().map(from_grant).collect(),
        votes_required: policy.votes_required,
        approval_seconds: policy.approval_seconds,
        audit_mode: audit_mode.into(),
        summary_seconds,
    }
}

fn from_principal(principal: &Principal) -> proto::Principal {
    proto::Principal {
        name: principal.name.clone(),
        person: principal.person.clone(),
        role: from_role(principal.role).into(),
        profiles: principal.profiles.clone(),
        calls_per_minute_max: principal.calls_per_minute_max,
    }
}

const fn from_role(role: Role) -> proto::Role {
    match role {
        Role::Auditor => proto::Role::Auditor,
        Role::Backend => proto::Role::Backend,
        Role::Custodian => proto::Role::Custodian,
        Role::Officer => proto::Role::Officer,
        Role::Operator => proto::Role::Operator,
        Role::TerminalRelay => proto::Role::TerminalRelay,
        // No policy gives them.
        Role::Service | Role::Stranger | Role::Terminal => proto::Role::Unspecified,
    }
}

fn from_grant(grant: &Grant) -> proto::Grant {
    let formats = |words: &[String]| words.iter().map(|word| from_word(word).into()).collect();
    proto::Grant {
        key: grant.key.clone(),
        principals: grant.principals.clone(),
        calls: grant.calls.clone(),
        pin_formats_in: formats(&grant.pin_formats_in),
        pin_formats_out: formats(&grant.pin_formats_out),
        partner_keys: grant.partner_keys.clone(),
        calls_per_minute_max: grant.calls_per_minute_max,
        not_before: grant.not_before.map(|moment| timestamp(moment.0)),
        not_after: grant.not_after.map(|moment| timestamp(moment.0)),
    }
}

const fn from_format(format: PinBlockFormat) -> proto::PinBlockFormat {
    match format {
        PinBlockFormat::Iso0 => proto::PinBlockFormat::Iso0,
        PinBlockFormat::Iso1 => proto::PinBlockFormat::Iso1,
        PinBlockFormat::Iso3 => proto::PinBlockFormat::Iso3,
        PinBlockFormat::Iso4 => proto::PinBlockFormat::Iso4,
        // No policy names it.
        PinBlockFormat::Iso2 => proto::PinBlockFormat::Unspecified,
    }
}

/// The format of a word that the policy was checked to hold.
fn from_word(word: &str) -> proto::PinBlockFormat {
    let format = FORMATS.into_iter().find(|format| format_word(*format) == word);
    format.map_or(proto::PinBlockFormat::Unspecified, from_format)
}

fn to_optional_format(path: &str, value: i32) -> Result<Option<PinBlockFormat>, Error> {
    let Some(word) = optional(path, value)? else { return Ok(None) };
    let found = FORMATS.into_iter().find(|format| from_format(*format) == word);
    found.map(Some).ok_or_else(|| Error::field(path, "is an unknown value"))
}
