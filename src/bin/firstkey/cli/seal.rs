//! `firstkey seal`, as clap reads it.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::Server;

#[derive(Debug, Subcommand)]
#[expect(clippy::enum_variant_names, reason = "the verb is the noun's own: firstkey seal seal")]
pub(crate) enum Seal {
    /// Tell how the seal stands, and what is waited for. Exit code 3 where the vault is not open.
    #[command(
        after_help = "Examples:\n  firstkey seal status\n  firstkey --output json seal status"
    )]
    Status(Server),
    /// Have the first master key of an empty store made, as an officer.
    #[command(after_help = "Examples:
  firstkey seal init --threshold 2 --custodian spiffe://example.com/custodian/ann \\
      --custodian spiffe://example.com/custodian/ben --custodian spiffe://example.com/custodian/cem
  firstkey seal init --token

Each custodian then takes a share and reads it back: firstkey seal share.")]
    Init(MakeKey),
    /// Have a new master key made in place of the one in force, for the same custodians or others.
    #[command(after_help = "Other officers have to approve it: the refusal names the approval, and
the digest to tell them. Then the same command is given once more. The old shares are worth nothing
once every record stands under the new key: firstkey seal status tells.")]
    RekeyShares(MakeKey),
    /// Take your share, once, and read back what you wrote down, as a custodian.
    #[command(after_help = "Example:
  firstkey seal share --print-to /dev/usb/lp0")]
    Share(TakeShare),
    /// Give your share to open the vault, as a custodian; or have the token tried once.
    Unseal(Server),
    /// Seal the vault: no call is served any more, and the master key is wiped.
    Seal(Server),
    /// End the distribution of a master key; what was distributed is worth nothing.
    Abandon(Server),
}

/// `firstkey seal init` and `firstkey seal rekey-shares`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("keeper").required(true).args(["custodian", "token"])))]
pub(crate) struct MakeKey {
    /// How many custodians open the vault together: 2 at least.
    #[arg(long, value_name = "NUMBER", requires = "custodian")]
    pub(crate) threshold: Option<u32>,
    /// The URI name of a custodian's certificate; 2 to 16 of them, each another person.
    #[arg(long, value_name = "URI", requires = "threshold")]
    pub(crate) custodian: Vec<String>,
    /// Let the token of the service's configuration keep it.
    #[arg(long)]
    pub(crate) token: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// `firstkey seal share`.
#[derive(Debug, Args)]
pub(crate) struct TakeShare {
    /// A printer, or a pipe to one: where the share is printed. Never a file.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) print_to: PathBuf,
    #[command(flatten)]
    pub(crate) server: Server,
}
