//! The service's settings: flags before `FIRSTKEY_` environment before a TOML file before defaults.
//!
//! A setting that nobody knows is refused wherever it stands: a misspelt limit must not pass for
//! the default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use serde::Deserialize;

/// The first word of every environment variable that this program reads.
const ENVIRONMENT: &str = "FIRSTKEY_";
/// What the tool reads, which may be set where the service is started too.
const OF_THE_TOOL: [&str; 4] = ["FIRSTKEY_CA", "FIRSTKEY_CERT", "FIRSTKEY_KEY", "FIRSTKEY_SERVER"];

/// The payment key service.
#[derive(Debug, Parser)]
#[command(name = "firstkeyd", version, about, long_about = None)]
#[command(after_help = "Examples:
  firstkeyd --dev --data ./data
  FIRSTKEY_LISTEN=127.0.0.1:7443 firstkeyd --dev --config firstkeyd.toml")]
pub(crate) struct Flags {
    /// A TOML file with the settings below, by their long names.
    #[arg(long, env = "FIRSTKEY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address to serve on. Development: loopback only. [default: 127.0.0.1:7443]
    #[arg(long, env = "FIRSTKEY_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// The folder of the embedded store, made if it is not there.
    #[arg(long, env = "FIRSTKEY_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Serve for development: published keys, plain text on loopback. Never for real PINs.
    #[arg(long, env = "FIRSTKEY_DEV", num_args = 0..=1, default_missing_value = "true")]
    dev: Option<bool>,
    /// The folder of the development keys. [default: keys-dev]
    #[arg(long, env = "FIRSTKEY_DEV_KEYS", value_name = "DIR")]
    dev_keys: Option<PathBuf>,
    /// What to log, e.g. `info` or `firstkey=debug`. [default: info]
    #[arg(long, env = "FIRSTKEY_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How long calls in flight may take to end after SIGTERM, in seconds. [default: 20]
    #[arg(long, env = "FIRSTKEY_DRAIN_SECONDS", value_name = "SECONDS")]
    drain_seconds: Option<u64>,
}

/// The same settings in a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<SocketAddr>,
    data: Option<PathBuf>,
    dev: Option<bool>,
    dev_keys: Option<PathBuf>,
    log: Option<String>,
    drain_seconds: Option<u64>,
}

/// What the service runs with.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) data: PathBuf,
    pub(crate) dev_keys: PathBuf,
    pub(crate) log: String,
    pub(crate) drain: Duration,
}

impl Config {
    /// Joins flags, environment and file; refuses what it does not know and what is not safe.
    pub(crate) fn read() -> anyhow::Result<Self> {
        refuse_unknown_variables(std::env::vars_os().map(|(name, _)| name))?;
        let flags = Flags::parse();
        let file = match &flags.config {
            Some(path) => read_file(path)?,
            None => File::default(),
        };
        Self::join(flags, file)
    }

    fn join(flags: Flags, file: File) -> anyhow::Result<Self> {
        let dev = flags.dev.or(file.dev).unwrap_or(false);
        // Outside development the service needs TLS, client certificates and a seal. Until they
        // are there, refusing is the one honest answer.
        ensure!(
            dev,
            "there are no means to authenticate callers: this version serves only with --dev, \
             with published keys and without TLS, for trying it out"
        );
        let listen = flags.listen.or(file.listen).unwrap_or(([127, 0, 0, 1], 7443).into());
        ensure!(
            listen.ip().is_loopback(),
            "development serves in plain text and so on loopback only, not on {listen}"
        );
        let Some(data) = flags.data.or(file.data) else {
            bail!("name the folder of the store: --data DIR or FIRSTKEY_DATA");
        };
        let drain_seconds = flags.drain_seconds.or(file.drain_seconds).unwrap_or(20);
        ensure!(drain_seconds <= 600, "drain-seconds is at most 600");
        Ok(Self {
            listen,
            data,
            dev_keys: flags.dev_keys.or(file.dev_keys).unwrap_or_else(|| "keys-dev".into()),
            log: flags.log.or(file.log).unwrap_or_else(|| "info".to_owned()),
            drain: Duration::from_secs(drain_seconds),
        })
    }
}

fn read_file(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("can not read the configuration {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("in the configuration {}", path.display()))
}

/// Refuses a `FIRSTKEY_` variable that no flag reads.
fn refuse_unknown_variables(names: impl Iterator<Item = std::ffi::OsString>) -> anyhow::Result<()> {
    let command = <Flags as clap::CommandFactory>::command();
    let known: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_env).collect();
    for name in names {
        let ours = name.to_string_lossy().starts_with(ENVIRONMENT)
            && !OF_THE_TOOL.iter().any(|of_the_tool| name == *of_the_tool);
        if ours && !known.contains(&name.as_os_str()) {
            bail!("the environment variable {} is no setting of firstkeyd", name.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(arguments: &[&str]) -> Flags {
        Flags::parse_from([&["firstkeyd"], arguments].concat())
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let file: File =
            toml::from_str("dev = true\nlog = \"debug\"\ndata = \"from-file\"").unwrap();
        let config = Config::join(flags(&["--data", "from-flag"]), file).unwrap();
        assert_eq!(config.data, PathBuf::from("from-flag"));
        assert_eq!(config.log, "debug");
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        assert!(toml::from_str::<File>("devv = true").is_err());
        assert!(refuse_unknown_variables(["FIRSTKEY_LISTEM".into()].into_iter()).is_err());
        assert!(refuse_unknown_variables(["FIRSTKEY_LISTEN".into()].into_iter()).is_ok());
    }

    #[test]
    fn nothing_but_development_starts_and_that_on_loopback() {
        assert!(Config::join(flags(&["--data", "d"]), File::default()).is_err());
        let open = flags(&["--dev", "--data", "d", "--listen", "0.0.0.0:7443"]);
        assert!(Config::join(open, File::default()).is_err());
        assert!(Config::join(flags(&["--dev", "--data", "d"]), File::default()).is_ok());
    }
}
