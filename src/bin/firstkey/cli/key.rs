//! `firstkey key`, as clap reads it.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use firstkey::grpc::proto::{KeyAlgorithm, KeyState, KeyUsage};

use super::Server;

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// List keys, each in its primary version.
    #[command(after_help = "Examples:
  firstkey key list
  firstkey key list --usage pin_encryption --label partner=visa
  firstkey key list --check-value 08D7 --every-version
  firstkey key list --compromised-through kek/versions/1 --every-version")]
    List(ListKeys),
    /// Show a key in its primary version, or one of its versions.
    #[command(after_help = "Examples:
  firstkey key show zone
  firstkey key show zone/versions/2")]
    Show(NamedKey),
    /// List the versions of a key.
    Versions(NamedKey),
    /// Make a random key inside the service.
    #[command(after_help = "Examples:
  firstkey key create zone --usage pin_encryption --algorithm aes128 --exportable
  firstkey key create bdk --usage base_derivation --algorithm aes128 --key-set-id 12345678 \\
      --label region=eu")]
    Create(CreateKey),
    /// Make the next version of a key inside the service. It becomes the primary one; the others
    /// stay in use until they are deactivated.
    #[command(after_help = "Examples:
  firstkey key rotate zone
  firstkey key rotate zone --keep-primary
  firstkey key rotate bdk --key-set-id 12345679")]
    Rotate(RotateKey),
    /// Make a version of a key its primary one. Another officer has to approve it.
    #[command(after_help = "Example:
  firstkey key primary zone/versions/2")]
    Primary(PrimaryVersion),
    /// Replace the labels of a key. Never put anything secret into one.
    #[command(after_help = "Examples:
  firstkey key label zone partner=visa region=eu
  firstkey key label zone")]
    Label(LabelKey),
    /// Move a version of a key to another state.
    #[command(after_help = "Examples:
  firstkey key state zone/versions/1 suspended
  firstkey key state zone/versions/1 destroyed --check-value 8F3A11C2D0

For states without a way back you are asked for the key's check value. Of a key with several
versions the version must be named.")]
    State(SetKeyState),
    /// Destroy a version of a key: the same as the state destroyed.
    #[command(after_help = "Example:
  firstkey key destroy zone/versions/1

Only a key that is deactivated, or was never in use, is destroyed: see `key certificate`.")]
    Destroy(DestroyKey),
    /// Fetch the certificate of a key's destruction.
    #[command(after_help = "Example:
  firstkey key certificate zone/versions/1 --out zone-1.destroyed")]
    Certificate(Certificate),
    /// Verify a certificate of destruction. Needs no service.
    #[command(after_help = "Example:
  firstkey key verify-certificate zone-1.destroyed --key 'firstkey/…+…+…'

The key is that of the audit log, as `firstkey audit export` prints it.
Exit codes: 0 verified, 6 not.")]
    VerifyCertificate(VerifyCertificate),
}

/// `firstkey key list`.
#[derive(Debug, Args)]
pub(crate) struct ListKeys {
    /// Only keys in this state.
    #[arg(long, ignore_case = true, value_parser = states())]
    pub(crate) state: Option<String>,
    /// Only keys of this usage.
    #[arg(long, ignore_case = true, value_parser = usages())]
    pub(crate) usage: Option<String>,
    /// Only keys of this algorithm.
    #[arg(long, ignore_case = true, value_parser = algorithms())]
    pub(crate) algorithm: Option<String>,
    /// Only keys whose check value begins so, in hexadecimals.
    #[arg(long, value_name = "HEX", default_value = "")]
    pub(crate) check_value: String,
    /// Only the base derivation key of this key set id, in hexadecimals.
    #[arg(long, value_name = "HEX", default_value = "")]
    pub(crate) key_set_id: String,
    /// Only keys with this label; several times for all of several.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Only keys that this compromised version exposes.
    #[arg(long, value_name = "KEY/versions/N")]
    pub(crate) compromised_through: Option<String>,
    /// List each version as a row of its own.
    #[arg(long)]
    pub(crate) every_version: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// A key by its id.
#[derive(Debug, Args)]
pub(crate) struct NamedKey {
    /// The key's id, or `ID/versions/N`; `keys/` may stand before it.
    #[arg(value_name = "KEY")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// `firstkey key create`.
#[derive(Debug, Args)]
pub(crate) struct CreateKey {
    /// The key's id.
    #[arg(value_name = "KEY")]
    pub(crate) id: String,
    /// What it is for.
    #[arg(long, ignore_case = true, value_parser = usages())]
    pub(crate) usage: String,
    /// Its algorithm and length.
    #[arg(long, ignore_case = true, value_parser = algorithms())]
    pub(crate) algorithm: String,
    /// Let it leave under a key at least as strong.
    #[arg(long)]
    pub(crate) exportable: bool,
    /// Base derivation keys: the key set id, in hexadecimals.
    #[arg(long, value_name = "HEX", default_value = "")]
    pub(crate) key_set_id: String,
    /// A label; several times for several.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Let it do nothing until its state is set to active.
    #[arg(long)]
    pub(crate) pre_active: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// `firstkey key rotate`.
#[derive(Debug, Args)]
pub(crate) struct RotateKey {
    /// The key's id, without a version.
    #[arg(value_name = "KEY")]
    pub(crate) id: String,
    /// Base derivation keys: the key set id of the new version, in hexadecimals.
    #[arg(long, value_name = "HEX", default_value = "")]
    pub(crate) key_set_id: String,
    /// Leave the primary version the primary one.
    #[arg(long)]
    pub(crate) keep_primary: bool,
    /// Let the new version do nothing until its state is set to active.
    #[arg(long)]
    pub(crate) pre_active: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// `firstkey key primary`.
#[derive(Debug, Args)]
pub(crate) struct PrimaryVersion {
    /// The version: `ID/versions/N`.
    #[arg(value_name = "KEY/versions/N")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) again: Again,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// A call that is made once more after it was approved.
#[derive(Debug, Args)]
pub(crate) struct Again {
    /// Make the same request once more that was told to wait: its id, as it was printed.
    #[arg(long, value_name = "UUID")]
    pub(crate) request_id: Option<String>,
}

/// `firstkey key label`.
#[derive(Debug, Args)]
pub(crate) struct LabelKey {
    /// The key's id, without a version.
    #[arg(value_name = "KEY")]
    pub(crate) id: String,
    /// All labels that it shall have; none to take them all away.
    #[arg(value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<String>,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// `firstkey key state`.
#[derive(Debug, Args)]
pub(crate) struct SetKeyState {
    /// The key's id, or `ID/versions/N`.
    #[arg(value_name = "KEY")]
    pub(crate) id: String,
    /// The state to move to.
    #[arg(ignore_case = true, value_parser = states())]
    pub(crate) state: String,
    #[command(flatten)]
    pub(crate) sure: Sure,
    #[command(flatten)]
    pub(crate) again: Again,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// `firstkey key destroy`.
#[derive(Debug, Args)]
pub(crate) struct DestroyKey {
    /// The key's id, or `ID/versions/N`.
    #[arg(value_name = "KEY")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) sure: Sure,
    #[command(flatten)]
    pub(crate) again: Again,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// That one means this very key.
#[derive(Debug, Args)]
pub(crate) struct Sure {
    /// The key's check value, in hexadecimals. Without it, you are asked.
    #[arg(long, value_name = "HEX")]
    pub(crate) check_value: Option<String>,
}

/// `firstkey key certificate`.
#[derive(Debug, Args)]
pub(crate) struct Certificate {
    #[command(flatten)]
    pub(crate) named: NamedKey,
    /// Write the certificate here as well; the file must not be there yet.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// `firstkey key verify-certificate`.
#[derive(Debug, Args)]
pub(crate) struct VerifyCertificate {
    /// The certificate.
    #[arg(value_name = "FILE")]
    pub(crate) certificate: PathBuf,
    /// The key of the audit log.
    #[arg(long, value_name = "KEY")]
    pub(crate) key: String,
}

/// The states of a key, as the service names them.
fn states() -> PossibleValuesParser {
    PossibleValuesParser::new(
        (1..=6)
            .filter_map(|number| KeyState::try_from(number).ok())
            .map(|word| word.as_str_name().trim_start_matches("KEY_STATE_")),
    )
}

/// The usages of a stored key.
fn usages() -> PossibleValuesParser {
    let usages = (1..=11).filter_map(|number| KeyUsage::try_from(number).ok());
    let stored = usages.filter(|usage| *usage != KeyUsage::InitialDukpt);
    PossibleValuesParser::new(
        stored.map(|word| word.as_str_name().trim_start_matches("KEY_USAGE_")),
    )
}

/// The algorithms.
fn algorithms() -> PossibleValuesParser {
    let algorithms = (1..=10).filter_map(|number| KeyAlgorithm::try_from(number).ok());
    PossibleValuesParser::new(
        algorithms.map(|word| word.as_str_name().trim_start_matches("KEY_ALGORITHM_")),
    )
}
