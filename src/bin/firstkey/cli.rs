//! The command line, as clap reads it.

mod approval;
pub(crate) mod audit;
pub(crate) mod ceremony;
pub(crate) mod inspect;
pub(crate) mod key;
mod policy;
mod seal;

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use firstkey::activation::State;
use firstkey::agreement::Suite;
use firstkey::server::faults::{At, Fault};

pub(crate) use self::approval::{Approval, Approve, ListApprovals, NamedApproval, Reject};
pub(crate) use self::policy::{CheckPolicy, GetPolicy, Policy, SetPolicy};
pub(crate) use self::seal::{MakeKey, Seal, TakeShare};

/// The tool of firstkey: try it, drive terminals, govern and audit a service, run vectors.
#[derive(Debug, Parser)]
#[command(name = "firstkey", version, about, long_about = None, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 sealed, 4 not found, 5 denied, \
                        6 verification false, vectors failed or not well, \
                        7 waits for approval.")]
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
    /// Look at what others asked for and may not do alone; approve or reject it.
    #[command(subcommand)]
    Approval(Approval),
    /// Read the audit log, export it, and verify it without a service.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Make, bring, hand out or end a key at a table, of which nobody ever has all.
    #[command(subcommand)]
    Ceremony(ceremony::Ceremony),
    /// Start a development service and take a simulated terminal through its first activation.
    Dev(Dev),
    /// Explain a key block, a key serial number or a slip, without keys and without a service.
    Inspect(inspect::Inspect),
    /// Keys and their versions: list, make, rotate, label, take out of use, destroy.
    #[command(subcommand)]
    Key(Box<key::Key>),
    /// Read the policy, replace it, ask it why.
    #[command(subcommand)]
    Policy(Policy),
    /// Open and seal the vault; have its master key made, and made anew.
    #[command(subcommand)]
    Seal(Seal),
    /// Tell how a service is and what protects it. Exit code 6 where something is not well.
    #[command(after_help = "Examples:\n  firstkey status\n  firstkey --output json status")]
    Status(Server),
    /// Register, watch and simulate terminals.
    #[command(subcommand)]
    Terminal(Box<Terminal>),
    /// Run test vectors against the library, or against a development service.
    Vectors(Vectors),
}

/// `firstkey dev`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  firstkey dev
  firstkey dev --once --json
  firstkey dev --tls --data ./data")]
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
    /// Serve TLS: certificates for every role are made below the data folder, and callers are told
    /// apart by them.
    #[arg(long)]
    pub(crate) tls: bool,
    /// The port on loopback; 0 takes a free one.
    #[arg(long, default_value_t = 7443, value_name = "PORT")]
    pub(crate) port: u16,
    /// The folder of the development keys.
    #[arg(long, default_value = "keys-dev", value_name = "DIR")]
    pub(crate) keys: PathBuf,
}

/// Where the service is, and how both sides know each other.
#[derive(Debug, Args)]
#[command(next_help_heading = "Service")]
#[allow(clippy::struct_field_names, reason = "the fields are named as their flags")]
pub(crate) struct Server {
    /// The service.
    #[arg(
        long,
        env = "FIRSTKEY_SERVER",
        default_value = "http://127.0.0.1:7443",
        value_name = "URL"
    )]
    pub(crate) server: String,
    /// The certificate of the authority that certifies the service, in PEM form. No other is
    /// believed, and none of the system's.
    #[arg(long, env = "FIRSTKEY_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Your certificate, in PEM form.
    #[arg(long, env = "FIRSTKEY_CERT", value_name = "FILE", requires_all = ["ca", "key"])]
    pub(crate) cert: Option<PathBuf>,
    /// The private key of your certificate, in PEM form.
    #[arg(long, env = "FIRSTKEY_KEY", value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Terminal {
    /// Register a terminal, or those of a vendor's manifest (step 1).
    #[command(after_help = "Examples:
  firstkey terminal register till-7 --serial SN-0007 --profile dev-aes
  firstkey terminal register till-8 --serial SN-0008 --profile dev-tdes --merchant-name 'Café'
  firstkey terminal register till-9 --serial SN-0009 --profile dev-master-tdes \
      --master-key dev-master-tdes
  firstkey terminal register --manifest terminals.csv

A manifest is CSV in UTF-8. Its first line names the columns, in any order: id, serial, model,
merchant_id, terminal_id, merchant_name, profile, device_authority or master_key, and where wanted
standing (approved, pending or rejected; approved where it is missing or empty). Nothing is sent
unless all lines are well-formed. The same file again, within 24 hours, registers nothing twice.")]
    Register(Register),
    /// Issue an activation code (step 2). It is printed once.
    #[command(after_help = "Examples:
  firstkey terminal code till-7
  firstkey terminal code till-7 --again")]
    Code(Code),
    /// Open PIN and MAC calls for a tested terminal (step 8).
    Enable(Named),
    /// Let an active terminal take new keys; the old ones serve until those are confirmed.
    #[command(after_help = "Examples:
  firstkey terminal rekey till-7 --cause 'a year has passed'
  firstkey terminal rekey till-7 --cause 'a year has passed' --update-key

The terminal then takes them with `simulate --renew`, or with `simulate --renew --update`.")]
    Rekey(Rekey),
    /// Show a terminal and its timeline.
    Show(Named),
    /// List terminals.
    List(List),
    /// Tell whose a key serial number is, and whether it would be served.
    #[command(after_help = "Example:
  firstkey terminal lookup 012345670000000000000001")]
    Lookup(Lookup),
    /// Follow transitions as they happen.
    Watch(Watch),
    /// Play a terminal: activate it, test it, make purchases; its state lives in a file. Or play a
    /// fleet of them, or what can go wrong.
    #[command(after_help = "Examples:
  firstkey terminal simulate --state till-7.json --pki DATA/dev-pki --serial SN-0007 \
      --code XXXX-XXXX-XXXX
  firstkey terminal simulate --state till-9.json --serial SN-0009 --code XXXX-XXXX-XXXX
  firstkey terminal simulate --state till-7.json --purchase 1250
  firstkey terminal simulate --state till-7.json --renew
  firstkey terminal simulate --count 1000 --lose 5 --pki DATA/dev-pki
  firstkey terminal simulate --fault all --pki DATA/dev-pki

A fleet is for development services. Its report tells how long each call took, and the status is 0
only when each terminal is active, once, with an initial key id that no other has.")]
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
        "id", "serial", "model", "profile", "authority", "master_key", "merchant_id",
        "terminal_id", "merchant_name",
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
    /// The master key that the terminal holds, in place of a certificate; its profile is one for
    /// master keys.
    #[arg(long, value_name = "KEY", conflicts_with = "authority", requires = "profile")]
    pub(crate) master_key: Option<String>,
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

/// `firstkey terminal rekey`.
#[derive(Debug, Args)]
pub(crate) struct Rekey {
    /// The terminal's id.
    pub(crate) id: String,
    /// Why, for its timeline.
    #[arg(long, value_name = "TEXT")]
    pub(crate) cause: String,
    /// The update key of the AES keys that serve may carry the new ones. Only where those are known
    /// to nobody: who knows them reads the new ones.
    #[arg(long)]
    pub(crate) update_key: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// `firstkey terminal list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only terminals in this state.
    #[arg(long, ignore_case = true, value_parser = states())]
    pub(crate) state: Option<String>,
    /// Only terminals whose serving keys come from this base derivation key.
    #[arg(long, value_name = "KEY")]
    pub(crate) base_derivation_key: Option<String>,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// The states of a terminal, as the service names them.
fn states() -> PossibleValuesParser {
    PossibleValuesParser::new(State::ALL.iter().map(|state| state.as_str()))
}

/// `firstkey terminal lookup`.
#[derive(Debug, Args)]
pub(crate) struct Lookup {
    /// The key serial number in hexadecimal digits: 12 bytes for AES, 8 to 10 for TDES.
    pub(crate) ksn: String,
    #[command(flatten)]
    pub(crate) server: Server,
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
#[command(group(ArgGroup::new("played").required(true).args(["state", "count", "fault"])))]
pub(crate) struct Simulate {
    /// The folder of the development authorities, which make the certificates of new devices.
    #[arg(long, value_name = "DIR", required_unless_present = "state")]
    pub(crate) pki: Option<PathBuf>,
    /// The folder of the development keys: master keys, and the one below which facilities bring
    /// them.
    #[arg(long, default_value = "keys-dev", value_name = "DIR")]
    pub(crate) keys: PathBuf,
    #[command(flatten)]
    pub(crate) device: Device,
    #[command(flatten)]
    pub(crate) fleet: Fleet,
    #[command(flatten)]
    pub(crate) trouble: Trouble,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// One terminal, played step by step.
#[derive(Debug, Args)]
#[command(next_help_heading = "One terminal")]
pub(crate) struct Device {
    /// The file that stands for the device's memory; made at the first run.
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// First run: the device's serial.
    #[arg(long, requires = "state")]
    pub(crate) serial: Option<String>,
    /// The activation code, as the merchant would type it.
    #[arg(long, requires = "state")]
    pub(crate) code: Option<String>,
    /// Take new keys although there are some: in a re-key, or with another code after an activation
    /// was cancelled.
    #[arg(long, requires = "state")]
    pub(crate) renew: bool,
    /// With --renew: take them under the update key of the AES keys that serve, where the re-key
    /// allows it, and not in a new activation.
    #[arg(long, requires = "renew", conflicts_with = "code")]
    pub(crate) update: bool,
    /// After activation: make a purchase of this amount in minor units.
    #[arg(long, value_name = "AMOUNT", requires = "state", conflicts_with_all = ["code", "renew"])]
    pub(crate) purchase: Option<u64>,
}

/// What `--fault` takes for every fault.
pub(crate) const ALL: &str = "all";

/// What goes wrong with terminals that are registered for it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Faults")]
pub(crate) struct Trouble {
    /// Play a fault against a development service in plain text, say what came of it, and take the
    /// terminal to a purchase all the same.
    #[arg(
        long,
        value_name = "FAULT",
        requires = "pki",
        conflicts_with_all = ["state", "count"],
        value_parser = PossibleValuesParser::new(
            Fault::ALL.iter().map(|fault| fault.as_str()).chain([ALL])
        )
    )]
    pub(crate) fault: Option<String>,
    /// Only at this step.
    #[arg(
        long,
        value_name = "STEP",
        requires = "fault",
        value_parser = PossibleValuesParser::new(At::ALL.iter().map(|at| at.as_str()))
    )]
    pub(crate) at: Option<String>,
    /// The suite of the terminals.
    #[arg(
        long,
        requires = "fault",
        default_value = "P256_AES128",
        value_parser = PossibleValuesParser::new(Suite::ALL.map(Suite::name))
    )]
    pub(crate) suite: String,
}

/// Many terminals, registered, activated and put to work at the same time.
#[derive(Debug, Args)]
#[command(next_help_heading = "A fleet")]
pub(crate) struct Fleet {
    /// How many terminals, of every kind in turn: certificate or master key, AES or TDES.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) count: Option<u32>,
    /// How many of them are busy at the same time.
    #[arg(
        long,
        value_name = "N",
        requires = "count",
        default_value_t = 32,
        value_parser = clap::value_parser!(u32).range(1..=1_024)
    )]
    pub(crate) concurrency: u32,
    /// How many of a hundred replies are lost on purpose: the request is served, its answer thrown
    /// away, and the same bytes are sent again.
    #[arg(
        long,
        value_name = "PERCENT",
        requires = "count",
        default_value_t = 0,
        value_parser = clap::value_parser!(u8).range(0..=50)
    )]
    pub(crate) lose: u8,
    /// How many transactions each makes once it is active.
    #[arg(
        long,
        value_name = "N",
        requires = "count",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(0..=500)
    )]
    pub(crate) transactions: u32,
    /// Names the terminals, and decides which replies are lost. Otherwise drawn, and told.
    #[arg(long, value_name = "NUMBER", requires = "count")]
    pub(crate) seed: Option<u32>,
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
