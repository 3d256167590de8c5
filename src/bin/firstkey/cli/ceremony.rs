//! `firstkey ceremony`, as clap reads it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Ceremony {
    /// Check a plan, and print its script: every step, who does it, and the digest to read aloud.
    #[command(after_help = "Example:
  firstkey ceremony plan bdk.toml --out bdk.json > bdk.txt

A plan:
  title = \"BDK for the terminals of 2027\"
  custodians = [\"spiffe://example.test/custodian/ann\", \"spiffe://example.test/custodian/bob\"]
  witness = \"spiffe://example.test/auditor/cid\"

  [generate]                      # or: import, export, destroy, initialise, re_share
  id = \"bdk-2027\"
  usage = \"B0\"
  algorithm = \"AES256\"
  key_set_id = \"12345678\"")]
    Plan(Plan),
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The plan.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Write the plan in its canonical form, of which the digest is: for `run`.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}
