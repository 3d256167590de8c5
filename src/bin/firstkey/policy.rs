//! `firstkey policy`: read it, replace it, ask it why.

use std::fs;
use std::process::ExitCode;

use anyhow::Context as _;
use firstkey::grpc::client::ClientError;
use firstkey::grpc::proto::{CheckPolicyRequest, CheckPolicyResponse, PinBlockFormat};
use firstkey::vault::{Grant, Policy, Principal, in_file};
use serde_json::json;

use crate::cli::{self, CheckPolicy, GetPolicy, Output, SetPolicy};
use crate::connect::connect;
use crate::{exit, print};

pub(crate) async fn run(command: cli::Policy, output: Output) -> anyhow::Result<ExitCode> {
    match command {
        cli::Policy::Get(arguments) => get(arguments, output).await,
        cli::Policy::Set(arguments) => set(arguments, output).await,
        cli::Policy::Check(arguments) => check(arguments, output).await,
    }
}

async fn get(arguments: GetPolicy, output: Output) -> anyhow::Result<ExitCode> {
    let policy = connect(&arguments.server).await?.get_policy().await?;
    match output {
        _ if arguments.toml => print::line(toml::to_string(&policy)?.trim_end()),
        Output::Json => print::line(&serde_json::to_string(&policy)?),
        Output::Table => print_whole(&policy),
    }
    Ok(ExitCode::SUCCESS)
}

async fn set(arguments: SetPolicy, output: Output) -> anyhow::Result<ExitCode> {
    let path = arguments.file.display();
    let text =
        fs::read_to_string(&arguments.file).with_context(|| format!("can not read {path}"))?;
    let policy: Policy = toml::from_str(&text).with_context(|| format!("{path} is no policy"))?;
    let client = connect(&arguments.server).await?;
    let set = client.set_document(&policy, arguments.anew).await.map_err(in_words_of_the_file)?;
    match output {
        Output::Table => print::line(&format!("version {} is in force", set.version)),
        Output::Json => print::line(&json!({ "version": set.version }).to_string()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells a refusal to who wrote the file, and knows no other names of its fields.
fn in_words_of_the_file(error: ClientError) -> anyhow::Error {
    let ClientError::Refused(mut refusal) = error else { return error.into() };
    for (path, _) in &mut refusal.fields {
        *path = in_file(path.trim_start_matches("policy."));
    }
    let has_ended = refusal.has_ended();
    let error = anyhow::Error::from(ClientError::Refused(refusal));
    if has_ended {
        error.context("the approval of this file has ended: `policy set --anew` asks for another")
    } else {
        error
    }
}

async fn check(arguments: CheckPolicy, output: Output) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.server).await?;
    let name = |id: Option<String>| {
        let full = |id: String| if id.contains('/') { id } else { format!("keys/{id}") };
        id.map(full).unwrap_or_default()
    };
    let request = CheckPolicyRequest {
        principal: arguments.who,
        call: arguments.call,
        resource: name(arguments.resource),
        pin_format_in: format(arguments.format_in.as_deref()).into(),
        pin_format_out: format(arguments.format_out.as_deref()).into(),
        partner_key: name(arguments.partner),
    };
    let answer = client.policy().check_policy(request).await.map_err(ClientError::from)?;
    let CheckPolicyResponse { allowed, because, approval_required, policy_version } =
        answer.into_inner();
    match output {
        Output::Json => print::line(
            &json!({
                "allowed": allowed,
                "because": because,
                "approval_required": approval_required,
                "policy_version": policy_version,
            })
            .to_string(),
        ),
        Output::Table => {
            for rule in &because {
                print::line(rule);
            }
            let word = if allowed { "allowed" } else { "denied" };
            let vote =
                if approval_required { ", where marked once officers approve it" } else { "" };
            print::line(&format!("{word}{vote} (policy version {policy_version})"));
        }
    }
    Ok(if allowed { ExitCode::SUCCESS } else { ExitCode::from(exit::DENIED) })
}

fn format(word: Option<&str>) -> PinBlockFormat {
    let name = word.map(|word| format!("PIN_BLOCK_FORMAT_{word}"));
    name.and_then(|name| PinBlockFormat::from_str_name(&name)).unwrap_or_default()
}

fn print_whole(policy: &Policy) {
    print::line(&format!(
        "version {}; {} to approve, within {} s",
        policy.version, policy.votes_required, policy.approval_seconds
    ));
    print::line("");
    let head = ["PRINCIPAL", "PERSON", "ROLE", "PROFILES", "CALLS A MINUTE"];
    let head: Vec<String> = head.map(str::to_owned).to_vec();
    let rows = policy.principals.iter().map(principal_row);
    print::table(&[head].into_iter().chain(rows).collect::<Vec<_>>());
    print::line("");
    let head = ["KEY", "PRINCIPALS", "CALLS", "IN", "OUT", "WITH", "CALLS A MINUTE"];
    let head: Vec<String> = head.map(str::to_owned).to_vec();
    let rows = policy.grants.iter().map(grant_row);
    print::table(&[head].into_iter().chain(rows).collect::<Vec<_>>());
}

fn principal_row(principal: &Principal) -> Vec<String> {
    vec![
        principal.name.clone(),
        principal.person.clone(),
        principal.role.as_str().to_owned(),
        principal.profiles.join(" "),
        limit(principal.calls_per_minute_max),
    ]
}

fn grant_row(grant: &Grant) -> Vec<String> {
    let all = |list: &[String]| if list.is_empty() { "all".to_owned() } else { list.join(" ") };
    vec![
        grant.key.clone(),
        grant.principals.join(" "),
        grant.calls.join(" "),
        all(&grant.pin_formats_in),
        all(&grant.pin_formats_out),
        all(&grant.partner_keys),
        limit(grant.calls_per_minute_max),
    ]
}

fn limit(per_minute: u32) -> String {
    if per_minute == 0 { "-".to_owned() } else { per_minute.to_string() }
}
