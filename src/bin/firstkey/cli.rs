//! The command line, as clap reads it.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use firstkey::activation::State;

/// The tool of firstkey: try it, drive terminals, hold it against vectors.
#[derive(Debug, Parser)]
#[command(name = "firstkey", version, about, long_about = None, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 usage, 4 not found, 5 denied, \
                        6 verification false or vectors failed.")]
pub(crate) struct Cli {
    /// How to print: tables for people, JSON for programs.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// One JSON document, or one a line for streams.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a development service and take a simulated terminal through its first activation.
    Dev(Dev),
    /// Register, watch and simulate terminals.
    #[command(subcommand)]
    Terminal(Terminal),
    /// Run test vectors against the library, or against a development service.
    Vectors(Vectors),
}

/// `firstkey dev`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  firstkey dev\n  firstkey dev --once --json")]
pub(crate) struct Dev {
    /// Leave after the demonstration, with status 0 when all of it succeeded.
    #[arg(long)]
    pub(crate) once: bool,
    /// Print each step as one line of JSON: the same as --output json.
    #[arg(long)]
    pub(crate) json: bool,
    /// Keep the store here. Otherwise it lives in a fresh temporary folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The port on loopback; 0 takes a free one.
    #[arg(long, default_value_t = 7443, value_name = "PORT")]
    pub(crate) port: u16,
    /// The folder of the development keys.
    #[arg(long, default_value = "keys-dev", value_name = "DIR")]
    pub(crate) keys: PathBuf,
}

/// Where the service is.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// The service.
    #[arg(
        long,
        env = "FIRSTKEY_SERVER",
        default_value = "http://127.0.0.1:7443",
        value_name = "URL"
    )]
    pub(crate) server: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Terminal {
    /// Register a terminal, or those of a vendor's manifest (step 1).
    #[command(after_help = "Examples:
  firstkey terminal register till-7 --serial SN-0007 --profile dev-aes
  firstkey terminal register till-8 --serial SN-0008 --profile dev-tdes --merchant-name 'Café'
  firstkey terminal register --manifest terminals.csv

A manifest is CSV in UTF-8. Its first line names the columns, in any order: id, serial, model,
merchant_id, terminal_id, merchant_name, profile, device_authority, and where wanted standing
(approved, pending or rejected; approved where it is missing or empty). Nothing is sent unless all
lines are well-formed. The same file again, within 24 hours, registers nothing twice.")]
    Register(Register),
    /// Issue an activation code (step 2). It is printed once.
    #[command(after_help = "Examples:
  firstkey terminal code till-7
  firstkey terminal code till-7 --again")]
    Code(Code),
    /// Open PIN and MAC calls for a tested terminal (step 8).
    Enable(Named),
    /// Show a terminal and its timeline.
    Show(Named),
    /// List terminals.
    List(List),
    /// Follow transitions as they happen.
    Watch(Watch),
    /// Play a terminal: activate it, test it, make purchases; its state lives in a file.
    #[command(after_help = "Examples:
  firstkey terminal simulate --state till-7.json --pki DATA/dev-pki --serial SN-0007 \
      --code XXXX-XXXX-XXXX
  firstkey terminal simulate --state till-7.json --purchase 1250")]
    Simulate(Simulate),
}

/// `firstkey terminal register`.
#[derive(Debug, Args)]
pub(crate) struct Register {
    /// The terminal's id.
    #[arg(required_unless_present = "manifest")]
    pub(crate) id: Option<String>,
    /// The device's serial.
    #[arg(long, required_unless_present = "manifest")]
    pub(crate) serial: Option<String>,
    /// Register the terminals of this CSV file instead, and report on each line.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "id", "serial", "model", "profile", "authority", "merchant_id", "terminal_id",
        "merchant_name",
    ])]
    pub(crate) manifest: Option<PathBuf>,
    /// The device's model, as its authority says.
    #[arg(long, default_value = "simulator")]
    pub(crate) model: String,
    /// The profile.
    #[arg(long, default_value = "dev-aes")]
    pub(crate) profile: String,
    /// The device authority that signed the device's certificate.
    #[arg(long, default_value = "dev-vendor")]
    pub(crate) authority: String,
    /// The card acceptor id (ISO 8583, field 42).
    #[arg(long, default_value = "000000000000001")]
    pub(crate) merchant_id: String,
    /// The card acceptor terminal id (ISO 8583, field 41).
    #[arg(long, default_value = "00000001")]
    pub(crate) terminal_id: String,
    /// The name on the receipt.
    #[arg(long, default_value = "Corner Shop")]
    pub(crate) merchant_name: String,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// `firstkey terminal code`.
#[derive(Debug, Args)]
pub(crate) struct Code {
    /// The terminal's id.
    pub(crate) id: String,
    /// Issue another code in place of the last one; unlocks a locked terminal.
    #[arg(long)]
    pub(crate) again: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// A terminal by its id.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The terminal's id.
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// `firstkey terminal list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only terminals in this state.
    #[arg(long, ignore_case = true, value_parser = states())]
    pub(crate) state: Option<String>,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// The states of a terminal, as the service names them.
fn states() -> PossibleValuesParser {
    PossibleValuesParser::new(State::ALL.iter().map(|state| state.as_str()))
}

/// `firstkey terminal watch`.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Only this terminal.
    pub(crate) id: Option<String>,
    /// Only transitions after this sequence.
    #[arg(long, default_value_t = 0)]
    pub(crate) after: u64,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// `firstkey terminal simulate`.
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// The file that stands for the device's memory; made at the first run.
    #[arg(long, value_name = "FILE")]
    pub(crate) state: PathBuf,
    /// First run: the folder of the development authorities, to make the device's certificate.
    #[arg(long, value_name = "DIR")]
    pub(crate) pki: Option<PathBuf>,
    /// First run: the device's serial.
    #[arg(long)]
    pub(crate) serial: Option<String>,
    /// The activation code, as the merchant would type it.
    #[arg(long)]
    pub(crate) code: Option<String>,
    /// Take new keys although there are some: in a re-key, or with another code after an activation
    /// was cancelled.
    #[arg(long)]
    pub(crate) renew: bool,
    /// After activation: make a purchase of this amount in minor units.
    #[arg(long, value_name = "AMOUNT", conflicts_with_all = ["code", "renew"])]
    pub(crate) purchase: Option<u64>,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// `firstkey vectors`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  firstkey vectors tests/vectors/*.json
  firstkey vectors --server http://127.0.0.1:7443 tests/vectors/*.json")]
pub(crate) struct Vectors {
    /// Drive what the API can express through this development service.
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// With --server: the folder of the development keys.
    #[arg(long, default_value = "keys-dev", value_name = "DIR")]
    pub(crate) keys: PathBuf,
    /// The files, of the form that tests/vectors/README.md describes.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}
