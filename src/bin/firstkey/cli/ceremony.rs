//! `firstkey ceremony`, as clap reads it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, value_parser};

use super::Server;

#[derive(Debug, Subcommand)]
pub(crate) enum Ceremony {
    /// End a ceremony before anything has happened: what it holds is wiped.
    #[command(after_help = "Example:
  firstkey ceremony abort ceremonies/… --cause 'custodian 2 is ill' --cert auditor.crt \\
      --key auditor.key")]
    Abort(Abort),
    /// List ceremonies, the newest first.
    List(List),
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
    /// Try a ceremony: the same screens against a service that is thrown away, TEST on everything.
    #[command(after_help = "Examples:
  firstkey ceremony rehearse
  firstkey ceremony rehearse bdk.toml --printer 'lp' --print-as pdf")]
    Rehearse(Rehearse),
    /// Take a ceremony up again, with the same people.
    #[command(after_help = "Example:
  firstkey ceremony resume ceremonies/… --cert auditor.crt --key auditor.key \\
      --printer 'lp -o raw'")]
    Resume(Resume),
    /// Create a ceremony as an officer, and hold it. Where others have to approve it, the same
    /// command goes on once they have.
    #[command(after_help = "Example:
  firstkey ceremony run bdk.toml --cert officer.crt --key officer.key --printer 'lp -o raw' \\
      --log-key 'firstkey/…+…+…'

The key is the one that `firstkey audit export` prints.")]
    Run(Run),
    /// Show how a ceremony stands, and the fingerprint of its envelope key, for somebody at the
    /// table to type.
    #[command(after_help = "Example:
  firstkey ceremony show ceremonies/… --cert auditor.crt --key auditor.key")]
    Show(Show),
    /// Verify the transcript of a ceremony. Needs no service.
    #[command(after_help = "Example:
  firstkey ceremony verify ceremony-….jsonl --log-key 'firstkey/…+…+…' --ca admin.crt

The key is the one that `firstkey audit export` prints. Exit codes: 0 verified, 6 not.")]
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(crate) struct Abort {
    /// `ceremonies/{ceremony}`.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Why, for the transcript.
    #[arg(long, value_name = "TEXT")]
    pub(crate) cause: String,
    /// Write the transcript here.
    #[arg(long, value_name = "FILE")]
    pub(crate) transcript: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) server: Server,
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

#[derive(Debug, Args)]
pub(crate) struct Rehearse {
    /// The plan; a base derivation key in three components where none is named.
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The folder of the development keys.
    #[arg(long, default_value = "keys-dev", value_name = "DIR")]
    pub(crate) keys: PathBuf,
    #[command(flatten)]
    pub(crate) room: Room,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// `ceremonies/{ceremony}`.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The plan, as people wrote it or in its canonical form.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The ceremony of this plan was aborted: create another.
    #[arg(long)]
    pub(crate) anew: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Where a ceremony is held: at this table, with that service.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The key of the service's audit log: it proves that the ceremony's envelope key is the
    /// service's. Without it people compare fingerprints.
    #[arg(long, value_name = "KEY")]
    pub(crate) log_key: Option<String>,
    #[command(flatten)]
    pub(crate) room: Room,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// What belongs to the table.
#[derive(Debug, Args)]
#[command(next_help_heading = "Table")]
pub(crate) struct Room {
    /// Print each slip by this command line, which gets it on its standard input.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) printer: Option<String>,
    /// Write each slip to a file in this folder, which must be memory, such as below /dev/shm.
    #[arg(long, value_name = "FOLDER", conflicts_with = "printer")]
    pub(crate) print_to: Option<PathBuf>,
    /// Write slips to a folder on a disk all the same: they stay there.
    #[arg(long, requires = "print_to")]
    pub(crate) force_file: bool,
    /// What slips are printed as.
    #[arg(long, value_enum, default_value_t = Form::Text, value_name = "FORM")]
    pub(crate) print_as: Form,
    /// Write the transcript here at the end; otherwise into the current folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) transcript: Option<PathBuf>,
    /// After so many seconds in which nobody types, what was typed of a component is wiped.
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
        value_parser = value_parser!(u16).range(5..=60))]
    pub(crate) silence: u16,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// `ceremonies/{ceremony}`.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Write the transcript here, of a ceremony that has ended.
    #[arg(long, value_name = "FILE")]
    pub(crate) transcript: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// What a page is to a printer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// PDF, the digits large: where the printer, or what stands before it, knows PDF.
    Pdf,
    /// Plain text and a form feed: for every printer.
    Text,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The transcript.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The key of the service's audit log.
    #[arg(long, value_name = "KEY")]
    pub(crate) log_key: String,
    /// The certificate of the authority that certifies who comes to the admin plane.
    #[arg(long = "ca", value_name = "FILE")]
    pub(crate) authority: PathBuf,
    /// Certificates between that authority's and people's, where there are any.
    #[arg(long, value_name = "FILE")]
    pub(crate) intermediates: Option<PathBuf>,
}
