//! `firstkey audit`, as clap reads it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Server;

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List events. Reading is written down too.
    #[command(after_help = "Examples:
  firstkey audit list
  firstkey audit list --resource keys/zone --after 4711
  firstkey --output json audit list --count 1000")]
    List(List),
    /// Write the whole log to a file, one event a line, with its checkpoint beside it.
    #[command(after_help = "Example:
  firstkey audit export --out audit.jsonl

Writes audit.jsonl and audit.jsonl.checkpoint, and prints the key to verify the checkpoint with.
Keep that key where the log's keeper can not change it.")]
    Export(Export),
    /// Have the log signed as it stands, and print or keep the checkpoint.
    Checkpoint(Checkpoint),
    /// Verify an export. Needs no service.
    #[command(after_help = "Examples:
  firstkey audit verify audit.jsonl
  firstkey audit verify audit.jsonl --checkpoint audit.jsonl.checkpoint --key 'firstkey/…+…+…'
  firstkey audit verify audit.jsonl --checkpoint audit.jsonl.checkpoint --key 'firstkey/…+…+…' \\
      --against last-month.checkpoint

Without a checkpoint the chain alone is verified: that events were cut off at the end, or that all
of them were written anew, shows only against a checkpoint.
Exit codes: 0 verified, 6 not: the message says which event is wrong first, and what is.")]
    Verify(Verify),
    /// Fetch a proof, to be verified without the rest of the log.
    #[command(subcommand)]
    Prove(Prove),
    /// Verify a proof. Needs no service.
    #[command(after_help = "Examples:
  firstkey audit verify-proof event-4711.json --key 'firstkey/…+…+…'
  firstkey audit verify-proof grown.json --key 'firstkey/…+…+…' --against last-month.checkpoint")]
    VerifyProof(VerifyProof),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only events about this resource, such as `keys/zone` or `terminals/till-7`.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) resource: String,
    /// Begin after this sequence.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) after: u64,
    /// How many at most, of those that are there when the list begins.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) count: usize,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The file to write; it must not be there yet.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Debug, Args)]
pub(crate) struct Checkpoint {
    /// Write the checkpoint here as well; the file must not be there yet.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The export: one event a line, from the first on.
    #[arg(value_name = "FILE")]
    pub(crate) export: PathBuf,
    /// The checkpoint over it.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// The key of the log, as `audit export` prints it.
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// An older checkpoint of the same log, which was kept elsewhere.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) against: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Prove {
    /// That an event is in the log.
    Inclusion {
        /// Its sequence.
        #[arg(value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        sequence: u64,
        #[command(flatten)]
        to: To,
    },
    /// That the log begins with what it was when it had so many events.
    Consistency {
        /// How many: the second line of the older checkpoint.
        #[arg(value_name = "SIZE", value_parser = clap::value_parser!(u64).range(1..))]
        size: u64,
        #[command(flatten)]
        to: To,
    },
}

#[derive(Debug, Args)]
pub(crate) struct To {
    /// Write the proof here, not to standard output; the file must not be there yet.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyProof {
    /// The proof, as `audit prove` wrote it.
    #[arg(value_name = "FILE")]
    pub(crate) proof: PathBuf,
    /// The key of the log, as `audit export` prints it.
    #[arg(long, value_name = "KEY")]
    pub(crate) key: String,
    /// Of a consistency proof: the older checkpoint.
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Option<PathBuf>,
}
