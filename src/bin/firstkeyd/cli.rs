//! The command line, as clap reads it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::operations::OperationsFlags;

/// The payment key service.
#[derive(Debug, Parser)]
#[command(name = "firstkeyd", version, about, long_about = None, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve until SIGTERM; SIGHUP reads certificates and the deny list again.
    #[command(after_help = "Examples:
  firstkeyd serve --config /etc/firstkey/firstkeyd.toml
  firstkeyd serve --dev --data ./data
  FIRSTKEY_LISTEN=127.0.0.1:7443 firstkeyd serve --dev --tls --data ./data")]
    Serve(Flags),
    /// Make a folder with everything that a new service needs, and say what to do next.
    #[command(after_help = "Example:
  firstkeyd init /etc/firstkey --name keys.example.com --trust-domain example.com")]
    Init(Init),
    /// Certify one more caller, or the service anew, by an authority whose key is a file.
    #[command(after_help = "Examples:
  firstkeyd certificate --authorities authorities --plane data \\
      --name spiffe://example.com/backend/switch-2 --out switch-2
  firstkeyd certificate --authorities authorities --host keys.example.com --out server")]
    Certificate(Certificate),
}

/// The settings of `serve`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// A TOML file with the settings, by their long names; and, but for development, the only place
    /// for listeners, certificates and authorities.
    #[arg(long, env = "FIRSTKEY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Development: the address to serve on, on loopback. [default: 127.0.0.1:7443]
    #[arg(long, env = "FIRSTKEY_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// The folder of the embedded store, made if it is not there.
    #[arg(long, env = "FIRSTKEY_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Serve for development: published keys, plain text on loopback. Never for real PINs.
    #[arg(long, env = "FIRSTKEY_DEV", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) dev: Option<bool>,
    /// Development: the folder of the development keys. [default: keys-dev]
    #[arg(long, env = "FIRSTKEY_DEV_KEYS", value_name = "DIR")]
    pub(crate) dev_keys: Option<PathBuf>,
    /// Development: serve TLS, with certificates for every role, made below the data folder.
    #[arg(
        long = "tls",
        id = "dev_tls",
        env = "FIRSTKEY_DEV_TLS",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub(crate) dev_tls: Option<bool>,
    /// What to log, e.g. `info` or `firstkey=debug`. [default: info]
    #[arg(long, env = "FIRSTKEY_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// A file for the newest checkpoint of the audit log, on another disk than the store: it tells
    /// at the next start whether the store was set back.
    #[arg(long, env = "FIRSTKEY_CHECKPOINT", value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Start although the file of the newest checkpoint is gone that there was, and begin a new
    /// one: nothing tells then whether the store was set back. For one start; the audit log has it.
    #[arg(long)]
    pub(crate) new_checkpoint: bool,
    /// Start although the clock is more than 31 days ahead of the newest audit event: nobody used
    /// the service for so long, and the clock is right. For one start; there is no way back.
    #[arg(long)]
    pub(crate) clock_is_right: bool,
    /// How much of the disk is kept for the audit events of those who run the service, in MiB: with
    /// less, the calls of backends and terminals are refused. [default: 64]
    #[arg(long, env = "FIRSTKEY_AUDIT_RESERVE_MIB", value_name = "MIB")]
    pub(crate) audit_reserve_mib: Option<u32>,
    /// How long calls in flight may take to end after SIGTERM, in seconds. [default: 20]
    #[arg(long, env = "FIRSTKEY_DRAIN_SECONDS", value_name = "SECONDS")]
    pub(crate) drain_seconds: Option<u64>,
    #[command(flatten)]
    pub(crate) operations: OperationsFlags,
}

/// `firstkeyd init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The folder to make; it may be there, and is then empty.
    pub(crate) folder: PathBuf,
    /// A host name or address at which callers reach the service, in place of the defaults; may be
    /// given several times.
    #[arg(long = "name", value_name = "HOST", default_values = ["localhost", "127.0.0.1"])]
    pub(crate) names: Vec<String>,
    /// The domain below which callers are named: `spiffe://DOMAIN/ROLE/NAME`.
    #[arg(long, value_name = "DOMAIN", default_value = "firstkey.internal")]
    pub(crate) trust_domain: String,
    /// Where the service will listen; on this machine alone, unless you say otherwise.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7443")]
    pub(crate) listen: SocketAddr,
}

/// `firstkeyd certificate`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("whose").required(true).args(["plane", "host"])))]
pub(crate) struct Certificate {
    /// The folder of the authorities' certificates and keys.
    #[arg(long, value_name = "DIR")]
    pub(crate) authorities: PathBuf,
    /// Certify a caller of this plane: admin, data, terminals or activation.
    #[arg(long, requires = "name")]
    pub(crate) plane: Option<String>,
    /// The caller's URI name, as the policy knows it.
    #[arg(long, value_name = "URI", requires = "plane")]
    pub(crate) name: Option<String>,
    /// Certify the service for this host name or address; may be given several times.
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Vec<String>,
    /// Where to write: FILE.crt and FILE.key. Neither may be there.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// How long it holds, in days.
    #[arg(
        long,
        value_name = "DAYS",
        default_value_t = 397,
        value_parser = clap::value_parser!(u64).range(1..=397)
    )]
    pub(crate) days: u64,
}
