//! `firstkey approval`, as clap reads it.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use firstkey::vault::ApprovalState;

use super::Server;

#[derive(Debug, Subcommand)]
pub(crate) enum Approval {
    /// List approvals, the newest first.
    List(ListApprovals),
    /// Show what was asked, field by field, with the digest that an approval names.
    #[command(after_help = "Example:
  firstkey approval show a01ba8f5e8d7f-0123456789abcdef")]
    Show(NamedApproval),
    /// Approve what is shown. The digest is computed here, from what is shown, and sent.
    #[command(after_help = "Examples:
  firstkey approval approve a01ba8f5e8d7f-0123456789abcdef
  firstkey approval approve a01ba8f5e8d7f-0123456789abcdef --digest 8F3A11C2

Without --digest it shows the request and asks for the digest. Compare it with the one that the
requester tells you by another way: its first 8 digits at least.")]
    Approve(Approve),
    /// End an approval; there is no way back. The requester may do so too.
    #[command(after_help = "Example:
  firstkey approval reject a01ba8f5e8d7f-0123456789abcdef --cause 'not this week'")]
    Reject(Reject),
}

/// `firstkey approval list`.
#[derive(Debug, Args)]
pub(crate) struct ListApprovals {
    /// Only approvals in this state.
    #[arg(long, ignore_case = true, value_parser = states())]
    pub(crate) state: Option<String>,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// The states of an approval, as the service names them.
fn states() -> PossibleValuesParser {
    PossibleValuesParser::new(ApprovalState::ALL.iter().map(|state| state.as_str()))
}

/// An approval by its id.
#[derive(Debug, Args)]
pub(crate) struct NamedApproval {
    /// The approval's id, or its name `approvals/...`.
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// `firstkey approval approve`.
#[derive(Debug, Args)]
pub(crate) struct Approve {
    #[command(flatten)]
    pub(crate) named: NamedApproval,
    /// The digest of what you looked at: all its hexadecimal digits. Without it, you are asked.
    #[arg(long, value_name = "DIGITS")]
    pub(crate) digest: Option<String>,
}

/// `firstkey approval reject`.
#[derive(Debug, Args)]
pub(crate) struct Reject {
    #[command(flatten)]
    pub(crate) named: NamedApproval,
    /// Why: up to 200 characters.
    #[arg(long, value_name = "TEXT")]
    pub(crate) cause: String,
}
