//! `firstkey policy`, as clap reads it.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use firstkey::vault::{FORMATS, format_word};

use super::Server;

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Print the policy in force.
    #[command(after_help = "Example:\n  firstkey policy get --toml > policy.toml")]
    Get(GetPolicy),
    /// Put a policy in force in place of the one whose version it has.
    #[command(after_help = "Example:
  firstkey policy set policy.toml

Outside development other officers have to approve it: the refusal names the approval, and the
digest to tell them. Then the same file is set once more. Where the approval expired or was
rejected, --anew asks for another; it stays in the command until the policy is in force.")]
    Set(SetPolicy),
    /// Tell whether a caller may make a call, and which rules say so. Exit code 5 where it may not.
    #[command(after_help = "Examples:
  firstkey policy check spiffe://acquirer.example/backend/switch-1 VerifyMac keys/zone-mac
  firstkey policy check spiffe://acquirer.example/backend/switch-1 TranslatePin bdk \\
      --partner zone-pin --format-in ISO_0 --format-out ISO_4
  firstkey policy check spiffe://acquirer.example/operator/ann ResumeTerminal")]
    Check(CheckPolicy),
}

/// `firstkey policy get`.
#[derive(Debug, Args)]
pub(crate) struct GetPolicy {
    /// As a policy file.
    #[arg(long)]
    pub(crate) toml: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// `firstkey policy set`.
#[derive(Debug, Args)]
pub(crate) struct SetPolicy {
    /// The policy, as `get --toml` prints it; its version is that of the policy it was made from.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Ask for another approval, where that of this file expired or was rejected.
    #[arg(long)]
    pub(crate) anew: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// `firstkey policy check`.
#[derive(Debug, Args)]
pub(crate) struct CheckPolicy {
    /// The URI name of a principal.
    #[arg(value_name = "WHO")]
    pub(crate) who: String,
    /// The call, such as `TranslatePin`.
    #[arg(value_name = "CALL")]
    pub(crate) call: String,
    /// What it is about: a key's id, or `profiles/{profile}`.
    #[arg(value_name = "KEY")]
    pub(crate) resource: Option<String>,
    /// The other key of the call.
    #[arg(long, value_name = "KEY", requires = "resource")]
    pub(crate) partner: Option<String>,
    /// The format of the PIN block that comes in.
    #[arg(long, value_name = "FORMAT", value_parser = formats())]
    pub(crate) format_in: Option<String>,
    /// The format of the PIN block that goes out.
    #[arg(long, value_name = "FORMAT", value_parser = formats())]
    pub(crate) format_out: Option<String>,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// The PIN block formats, as policies name them.
fn formats() -> PossibleValuesParser {
    PossibleValuesParser::new(FORMATS.map(format_word))
}
