//! `firstkey approval`: what others asked for, and whether one agrees.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use firstkey::grpc::client::{Client, ClientError, Explained, explain_request, request_id};
use firstkey::grpc::proto;
use serde_json::{Value, json};

use crate::cli::{self, Approve, ListApprovals, NamedApproval, Output, Reject};
use crate::connect::connect;
use crate::{exit, policy_change, print, shared};

/// How many digits of a digest are enough from who has just read the request. With fewer, a
/// requester could look for two requests that begin alike: one to tell of, one to ask for.
const DIGITS_MIN: usize = 16;

pub(crate) async fn run(command: cli::Approval, output: Output) -> anyhow::Result<ExitCode> {
    match command {
        cli::Approval::List(arguments) => list(arguments, output).await,
        cli::Approval::Show(arguments) => show(arguments, output).await,
        cli::Approval::Approve(arguments) => approve(arguments, output).await,
        cli::Approval::Reject(arguments) => reject(arguments, output).await,
    }
}

async fn list(arguments: ListApprovals, output: Output) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.server).await?;
    let wanted = arguments.state.unwrap_or_default().to_uppercase();
    let state = proto::ApprovalState::from_str_name(&format!("APPROVAL_STATE_{wanted}"));
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let state = state.unwrap_or_default().into();
        let request = proto::ListApprovalsRequest { page_size: 100, page_token, state };
        let page = client.approvals().list_approvals(request).await.map_err(ClientError::from)?;
        let page = page.into_inner();
        listed.extend(page.approvals);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    match output {
        Output::Table => {
            let head = ["APPROVAL", "STATE", "VOTES", "CALL", "RESOURCE", "REQUESTER"];
            let mut rows = vec![head.map(str::to_owned).to_vec()];
            rows.extend(listed.iter().map(|approval| {
                vec![
                    approval.name.clone(),
                    state_name(approval),
                    votes_text(approval),
                    approval.method.clone(),
                    approval.resource.clone(),
                    approval.requester_person.clone(),
                ]
            }));
            print::table(&rows);
        }
        Output::Json => {
            let listed: Vec<Value> = listed.iter().map(approval_json).collect();
            print::line(&json!({ "approvals": listed }).to_string());
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(arguments: NamedApproval, output: Output) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.server).await?;
    let approval = read(&client, &arguments.id).await?;
    let explained = explain_request(&approval.method, &approval.request);
    let changes = changes(&client, &approval, explained.as_ref()).await;
    print_whole(&approval, explained.as_ref(), changes, output);
    Ok(match explained {
        Some(explained) if explained.digest.as_slice() == approval.request_digest => {
            ExitCode::SUCCESS
        }
        _ => ExitCode::from(exit::UNSOUND),
    })
}

async fn approve(arguments: Approve, output: Output) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.named.server).await?;
    let approval = read(&client, &arguments.named.id).await?;
    let explained = explain_request(&approval.method, &approval.request)
        .context("this release does not know all of the request; approve it with a newer one")?;
    if output == Output::Table {
        let changes = changes(&client, &approval, Some(&explained)).await;
        print_whole(&approval, Some(&explained), changes, output);
    }
    let digest = data_encoding::HEXUPPER.encode(&explained.digest);
    let (typed, digits_min) = if let Some(digest_told) = arguments.digest {
        (digest_told, digest.len())
    } else {
        ensure!(output == Output::Table, "a program names the digest: --digest");
        (ask("To approve this, type the first 16 digits of its digest: ")?, DIGITS_MIN)
    };
    if !is_prefix(&typed, &digest, digits_min) {
        shared::fail(&anyhow::anyhow!("the digest is another one; nothing was approved"));
        return Ok(ExitCode::from(exit::UNSOUND));
    }
    let request = proto::ApproveRequest {
        request_id: request_id(),
        name: approval.name,
        request_digest: explained.digest.to_vec(),
    };
    let voted = client.approvals().approve(request).await.map_err(ClientError::from)?;
    print_outcome(voted.into_inner().approval, output)
}

async fn reject(arguments: Reject, output: Output) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.named.server).await?;
    let (request_id, name) = (request_id(), name_of(&arguments.named.id));
    let request = proto::RejectRequest { request_id, name, cause: arguments.cause };
    let ended = client.approvals().reject(request).await.map_err(ClientError::from)?;
    print_outcome(ended.into_inner().approval, output)
}

async fn read(client: &Client, id: &str) -> anyhow::Result<proto::Approval> {
    let request = proto::GetApprovalRequest { name: name_of(id) };
    let found = client.approvals().get_approval(request).await.map_err(ClientError::from)?;
    found.into_inner().approval.context("the answer holds no approval")
}

/// What a policy that is asked for changes, or why that can not be told; none of another call.
async fn changes(
    client: &Client,
    approval: &proto::Approval,
    explained: Option<&Explained>,
) -> Option<Vec<String>> {
    let told = policy_change::of_request(client, &approval.method, explained?).await;
    told.unwrap_or_else(|error| {
        Some(vec![format!("can not be told, for the policy in force can not be read: {error}")])
    })
}

fn name_of(id: &str) -> String {
    if id.starts_with("approvals/") { id.to_owned() } else { format!("approvals/{id}") }
}

/// Whether digits as they were typed begin a digest, and are enough of it.
fn is_prefix(typed: &str, digest: &str, digits_min: usize) -> bool {
    let typed: String = typed.split_whitespace().collect::<String>().to_uppercase();
    typed.len() >= digits_min && digest.starts_with(&typed)
}

#[allow(clippy::print_stderr, reason = "a question is no part of what is printed")]
pub(crate) fn ask(question: &str) -> anyhow::Result<String> {
    eprint!("{question}");
    io::stderr().flush().context("can not ask")?;
    let mut line = String::new();
    if io::stdin().read_line(&mut line).context("can not read the answer")? == 0 {
        bail!("nothing was typed; nothing was done");
    }
    Ok(line)
}

fn print_outcome(approval: Option<proto::Approval>, output: Output) -> anyhow::Result<ExitCode> {
    let approval = approval.context("the answer holds no approval")?;
    match output {
        Output::Table => {
            let votes = votes_text(&approval);
            print::line(&format!("{} {} ({votes})", approval.name, state_name(&approval)));
        }
        Output::Json => print::line(&approval_json(&approval).to_string()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints all that an officer looks at. The digest is the one computed here.
fn print_whole(
    approval: &proto::Approval,
    explained: Option<&Explained>,
    changes: Option<Vec<String>>,
    output: Output,
) {
    if output == Output::Json {
        let mut whole = approval_json(approval);
        whole["request"] = data_encoding::BASE64.encode(&approval.request).into();
        whole["fields"] = explained.map_or(Value::Null, |explained| {
            let fields = explained.fields.iter();
            fields.map(|(path, value)| json!({ "path": path, "value": value })).collect()
        });
        whole["changes"] = changes.into();
        print::line(&whole.to_string());
        return;
    }
    let votes = votes_text(approval);
    let requester = format!("{} ({})", approval.requester, approval.requester_person);
    let mut rows = vec![
        row("approval", &approval.name),
        row("state", &format!("{} ({votes})", state_name(approval))),
        row("call", &approval.method),
        row("resource", &approval.resource),
        row("requester", &requester),
        row("asked", &time_text(approval.create_time)),
        row("ends", &time_text(approval.expire_time)),
    ];
    for vote in &approval.votes {
        let told = format!("{} ({}) {}", vote.caller, vote.person, time_text(vote.vote_time));
        let name = if vote.counts { "approved by" } else { "does not count" };
        rows.push(row(name, &told));
    }
    if !approval.rejected_by.is_empty() {
        let told = format!("{}: {}", approval.rejected_by, approval.cause);
        rows.push(row("rejected by", &told));
    }
    print::table(&rows);
    print::line("");
    let Some(explained) = explained else {
        print::line("This release does not know all of the request: do not approve it with it.");
        return;
    };
    print::table(
        &explained.fields.iter().map(|(path, value)| row(path, value)).collect::<Vec<_>>(),
    );
    print::line("");
    let digest = data_encoding::HEXUPPER.encode(&explained.digest);
    if let Some(changes) = changes {
        print::line("changes of the policy in force, none of them if nothing stands here:");
        for line in changes {
            print::line(&format!("  {line}"));
        }
        print::line("");
    }
    print::line(&format!("digest  {}", in_groups(&digest)));
    if explained.digest.as_slice() != approval.request_digest {
        print::line("The service names another digest: do not approve this.");
    }
}

fn row(name: &str, value: &str) -> Vec<String> {
    vec![name.to_owned(), value.to_owned()]
}

/// Digits in groups of 8, which two people can read to each other.
pub(crate) fn in_groups(digits: &str) -> String {
    let digits: Vec<char> = digits.chars().collect();
    digits.chunks(8).map(String::from_iter).collect::<Vec<_>>().join(" ")
}

/// How many of the votes count, of how many that are needed.
fn votes_text(approval: &proto::Approval) -> String {
    let counting = approval.votes.iter().filter(|vote| vote.counts).count();
    format!("{counting} of {}", approval.votes_required)
}

fn state_name(approval: &proto::Approval) -> String {
    approval.state().as_str_name().trim_start_matches("APPROVAL_STATE_").to_owned()
}

fn time_text(time: Option<prost_types::Timestamp>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
}

fn approval_json(approval: &proto::Approval) -> Value {
    let votes = approval.votes.iter().map(|vote| {
        let time = time_text(vote.vote_time);
        json!({
            "person": vote.person,
            "caller": vote.caller,
            "vote_time": time,
            "counts": vote.counts,
        })
    });
    json!({
        "name": approval.name,
        "state": state_name(approval),
        "method": approval.method,
        "resource": approval.resource,
        "request_digest": data_encoding::HEXUPPER.encode(&approval.request_digest),
        "requester": approval.requester,
        "requester_person": approval.requester_person,
        "votes": votes.collect::<Vec<_>>(),
        "votes_required": approval.votes_required,
        "create_time": time_text(approval.create_time),
        "expire_time": time_text(approval.expire_time),
        "rejected_by": approval.rejected_by,
        "cause": approval.cause,
    })
}
