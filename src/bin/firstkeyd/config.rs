//! The service's settings: flags before `FIRSTKEY_` environment before a TOML file before defaults.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use firstkey::crypto::token::TokenPlace;
use firstkey::grpc::Plane;
use firstkey::server::Limits;
use firstkey::vault::{AuditSettings, Witness};
use serde::Deserialize;

use crate::cli::Flags;
use crate::guard::refuse_writable;
use crate::operations;
use crate::shared::access::Files;
use crate::shared::witness::WitnessFile;

/// The first word of every environment variable that this program reads.
const ENVIRONMENT: &str = "FIRSTKEY_";
/// What the tool reads, which may be set where the service is started too.
const OF_THE_TOOL: [&str; 4] = ["FIRSTKEY_CA", "FIRSTKEY_CERT", "FIRSTKEY_KEY", "FIRSTKEY_SERVER"];

/// What the service runs with.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) data: PathBuf,
    pub(crate) log: String,
    pub(crate) audit: AuditSettings,
    pub(crate) drain: Duration,
    pub(crate) limits: Limits,
    pub(crate) mode: Mode,
    pub(crate) operations: operations::Settings,
    #[cfg(feature = "fault-points")]
    pub(crate) faults: operations::Faults,
}

/// For development, or in earnest.
#[derive(Debug)]
pub(crate) enum Mode {
    Development(Development),
    Live(Box<Live>),
}

/// A development service.
#[derive(Debug)]
pub(crate) struct Development {
    pub(crate) listen: SocketAddr,
    pub(crate) keys: PathBuf,
    pub(crate) tls: bool,
}

/// A service in earnest: whom it believes, and where its own secrets lie.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) node: String,
    pub(crate) listeners: Vec<(SocketAddr, Vec<Plane>)>,
    pub(crate) files: Files,
    pub(crate) denied: Option<PathBuf>,
    pub(crate) policy: Option<PathBuf>,
    pub(crate) seal: SealTable,
}

/// The settings in a file. Paths count from the file's folder.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data: Option<PathBuf>,
    log: Option<String>,
    checkpoint: Option<PathBuf>,
    audit_reserve_mib: Option<u32>,
    drain_seconds: Option<u64>,
    operations: Option<SocketAddr>,
    self_test_seconds: Option<u64>,
    #[serde(default)]
    limits: Limits,

    dev: Option<bool>,
    dev_keys: Option<PathBuf>,
    dev_tls: Option<bool>,
    listen: Option<SocketAddr>,

    node: Option<String>,
    #[serde(default)]
    listener: Vec<ListenerTable>,
    tls: Option<TlsTable>,
    #[serde(default)]
    authorities: BTreeMap<String, PathBuf>,
    denied: Option<PathBuf>,
    policy: Option<PathBuf>,
    seal: Option<SealTable>,
}

/// `[[listener]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenerTable {
    address: SocketAddr,
    planes: Vec<String>,
}

/// `[seal]`: who keeps the master key, and the token that keeps it or is to keep it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SealTable {
    pub(crate) kind: SealKind,
    /// The library of the token.
    module: Option<PathBuf>,
    /// Its label or serial number.
    token: Option<String>,
    /// Its PIN, for its owner alone.
    pin_file: Option<PathBuf>,
    /// The label of the wrapping key.
    key_label: Option<String>,
}

/// Who keeps the master key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SealKind {
    Pkcs11,
    #[default]
    Shamir,
}

/// A token, and where its PIN lies.
pub(crate) struct TokenFiles {
    pub(crate) place: TokenPlace,
    pub(crate) pin: PathBuf,
}

impl SealTable {
    /// The token; none where none is named.
    pub(crate) fn token(&self) -> anyhow::Result<Option<TokenFiles>> {
        let Self { kind, module, token, pin_file, key_label } = self.clone();
        match (module, token, pin_file) {
            (Some(module), Some(token), Some(pin)) => {
                let key_label = key_label.unwrap_or_else(|| KEY_LABEL.to_owned());
                ensure!(module.is_absolute(), "seal.module is an absolute path");
                Ok(Some(TokenFiles { place: TokenPlace { module, token, key_label }, pin }))
            }
            (None, None, None) if kind == SealKind::Shamir && key_label.is_none() => Ok(None),
            _ => bail!("a token is named by module, token and pin_file in [seal]"),
        }
    }
}

/// The label of the wrapping key, where none is named.
const KEY_LABEL: &str = "firstkey-master";

/// `[tls]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsTable {
    certificate: PathBuf,
    key: PathBuf,
}

impl Config {
    /// Joins flags, environment and file; refuses what it does not know and what is not safe.
    pub(crate) fn read(flags: Flags) -> anyhow::Result<Self> {
        refuse_unknown_variables(std::env::vars_os().map(|(name, _)| name))?;
        let file = match &flags.config {
            Some(path) => read_file(path)?,
            None => File::default(),
        };
        Self::join(flags, file)
    }

    fn join(flags: Flags, file: File) -> anyhow::Result<Self> {
        let drain_seconds = flags.drain_seconds.or(file.drain_seconds).unwrap_or(20);
        ensure!(drain_seconds <= 600, "drain-seconds is at most 600");
        let data = flags.data.clone().or_else(|| file.data.clone());
        let log = flags.log.clone().or_else(|| file.log.clone());
        let (address, seconds) = (file.operations, file.self_test_seconds);
        let operations = operations::Settings::join(&flags.operations, address, seconds)?;
        #[cfg(feature = "fault-points")]
        let faults = flags.operations.faults.clone();
        let audit = audit_settings(
            flags.checkpoint.clone().or_else(|| file.checkpoint.clone()),
            flags.audit_reserve_mib.or(file.audit_reserve_mib),
        );
        let audit = AuditSettings {
            new_checkpoint: flags.new_checkpoint,
            clock_is_right: flags.clock_is_right,
            ..audit
        };
        ensure!(
            audit.witness.is_some() || !audit.new_checkpoint,
            "new-checkpoint goes with a checkpoint file, and none is named"
        );
        let limits = file.limits.clone();
        let mode = if flags.dev.or(file.dev).unwrap_or(false) {
            Mode::Development(Development::join(flags, file)?)
        } else {
            Mode::Live(Box::new(Live::join(&flags, file)?))
        };
        let Some(data) = data else {
            bail!("name the folder of the store: --data DIR or FIRSTKEY_DATA");
        };
        Ok(Self {
            data,
            log: log.unwrap_or_else(|| "info".to_owned()),
            audit,
            drain: Duration::from_secs(drain_seconds),
            limits,
            mode,
            operations,
            #[cfg(feature = "fault-points")]
            faults,
        })
    }
}

impl Development {
    fn join(flags: Flags, file: File) -> anyhow::Result<Self> {
        let is_live = file.node.is_some()
            || !file.listener.is_empty()
            || file.tls.is_some()
            || !file.authorities.is_empty()
            || file.denied.is_some()
            || file.policy.is_some()
            || file.seal.is_some();
        ensure!(
            !is_live,
            "the file is of a service in earnest (node, listener, tls, authorities, denied, policy \
             or seal): take --dev away, or start --dev without it"
        );
        let listen = flags.listen.or(file.listen).unwrap_or(([127, 0, 0, 1], 7443).into());
        ensure!(
            listen.ip().is_loopback(),
            "development serves published keys and so on loopback only, not on {listen}"
        );
        Ok(Self {
            listen,
            keys: flags.dev_keys.or(file.dev_keys).unwrap_or_else(|| "keys-dev".into()),
            tls: flags.dev_tls.or(file.dev_tls).unwrap_or(false),
        })
    }
}

impl Live {
    fn join(flags: &Flags, file: File) -> anyhow::Result<Self> {
        let Some(tls) = file.tls else {
            bail!(
                "there are no means to authenticate callers: name a configuration with [tls] and \
                 [authorities] by --config (`firstkeyd init DIR` makes one), or try things by --dev"
            );
        };
        let is_dev = flags.listen.or(file.listen).is_some()
            || flags.dev_keys.is_some()
            || file.dev_keys.is_some()
            || flags.dev_tls.or(file.dev_tls).is_some();
        ensure!(
            !is_dev,
            "listen, dev_keys and dev_tls are for development: a service in earnest names its \
             addresses as [[listener]]"
        );
        ensure!(!file.listener.is_empty(), "name one [[listener]] or more");
        let mut listeners = Vec::new();
        for table in file.listener {
            let planes = table.planes.iter().map(|word| plane(word)).collect::<Result<_, _>>()?;
            listeners.push((table.address, planes));
        }
        let mut authorities = BTreeMap::new();
        for (word, path) in file.authorities {
            authorities.insert(plane(&word)?, path);
        }
        let files = Files { certificate: tls.certificate, key: tls.key, authorities };
        let node = file.node.context("name this replica: node = \"node-1\"")?;
        let seal = file.seal.unwrap_or_default();
        seal.token()?;
        let (denied, policy) = (file.denied, file.policy);
        Ok(Self { node, listeners, files, denied, policy, seal })
    }
}

fn audit_settings(checkpoint: Option<PathBuf>, reserve_mib: Option<u32>) -> AuditSettings {
    let default = AuditSettings::default();
    AuditSettings {
        witness: checkpoint.map(|path| -> Arc<dyn Witness> { Arc::new(WitnessFile::new(path)) }),
        reserve_bytes: reserve_mib.map_or(default.reserve_bytes, |mib| u64::from(mib) << 20),
        ..default
    }
}

/// A plane by its word.
pub(crate) fn plane(word: &str) -> anyhow::Result<Plane> {
    let found = Plane::ALL.into_iter().find(|plane| plane.as_str() == word);
    found.with_context(|| format!("{word} is no plane: activation, admin, data or terminals"))
}

fn read_file(path: &Path) -> anyhow::Result<File> {
    refuse_writable(path)?;
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("can not read the configuration {}", path.display()))?;
    let mut file: File = toml::from_str(&text)
        .with_context(|| format!("in the configuration {}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let pin = file.seal.iter_mut().filter_map(|seal| seal.pin_file.as_mut());
    let tls = file.tls.iter_mut().flat_map(|tls| [&mut tls.certificate, &mut tls.key]);
    [&mut file.data, &mut file.checkpoint, &mut file.dev_keys, &mut file.denied, &mut file.policy]
        .into_iter()
        .flatten()
        .chain(tls)
        .chain(pin)
        .chain(file.authorities.values_mut())
        .for_each(|path| *path = folder.join(&*path));
    Ok(file)
}

/// Refuses a `FIRSTKEY_` variable that no flag reads.
fn refuse_unknown_variables(names: impl Iterator<Item = std::ffi::OsString>) -> anyhow::Result<()> {
    let command = <Flags as clap::Args>::augment_args(clap::Command::new("serve"));
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
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn flags(arguments: &[&str]) -> Flags {
        let line = [&["firstkeyd", "serve"], arguments].concat();
        let Command::Serve(flags) = Cli::parse_from(line).command else {
            panic!("another command");
        };
        flags
    }

    /// What is wrong with these settings.
    fn told(arguments: &[&str], file: &str) -> String {
        let file = toml::from_str(file).expect("well-formed settings");
        format!("{:#}", Config::join(flags(arguments), file).unwrap_err())
    }

    const LIVE: &str = r#"
        data = "data"
        node = "node-1"
        [[listener]]
        address = "0.0.0.0:7443"
        planes = ["admin", "data"]
        [tls]
        certificate = "server.crt"
        key = "server.key"
        [authorities]
        admin = "admin.crt"
        data = "data.crt"
    "#;

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
        assert!(toml::from_str::<File>("[tls]\ncertificate = \"a\"\nkey = \"b\"\nca = 1").is_err());
        assert!(refuse_unknown_variables(["FIRSTKEY_LISTEM".into()].into_iter()).is_err());
        assert!(refuse_unknown_variables(["FIRSTKEY_LISTEN".into()].into_iter()).is_ok());
        assert!(refuse_unknown_variables(["FIRSTKEY_CERT".into()].into_iter()).is_ok());
        assert!(told(&[], &LIVE.replace("\"data\"]", "\"dta\"]")).contains("dta is no plane"));
    }

    #[test]
    fn nothing_starts_without_the_means_to_authenticate() {
        assert!(told(&["--data", "d"], "").contains("no means to authenticate"));
        let open = told(&["--dev", "--data", "d", "--listen", "0.0.0.0:7443"], "");
        assert!(open.contains("loopback only"));
        assert!(Config::join(flags(&["--dev", "--data", "d"]), File::default()).is_ok());
        assert!(Config::join(flags(&[]), toml::from_str(LIVE).unwrap()).is_ok());
        assert!(told(&["--dev"], LIVE).contains("of a service in earnest"));
        assert!(told(&["--listen", "127.0.0.1:1"], LIVE).contains("for development"));
        assert!(told(&["--tls"], LIVE).contains("for development"));
        let no_listener = LIVE.replace("[[listener]]", "[other]");
        assert!(toml::from_str::<File>(&no_listener).is_err());
        assert!(told(&[], &LIVE.replace("node = \"node-1\"", "")).contains("node"));
        let sealed = |table: &str| format!("{LIVE}\n[seal]\n{table}");
        let token = "module = \"/lib/x.so\"\ntoken = \"t\"\npin_file = \"pin\"";
        for whole in ["kind = \"shamir\"".to_owned(), format!("kind = \"pkcs11\"\n{token}")] {
            assert!(Config::join(flags(&[]), toml::from_str(&sealed(&whole)).unwrap()).is_ok());
        }
        assert!(told(&[], &sealed("kind = \"pkcs11\"")).contains("module, token and pin_file"));
        let relative = format!("kind = \"pkcs11\"\n{}", token.replace("/lib", "lib"));
        assert!(told(&[], &sealed(&relative)).contains("absolute"));
        assert!(toml::from_str::<File>(&sealed("kind = \"dev\"")).is_err());
    }

    #[test]
    fn paths_count_from_the_folder_of_the_file() {
        let name = format!("firstkeyd-config-{}", uuid::Uuid::new_v4());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, LIVE).unwrap();
        let file = read_file(&path);
        std::fs::remove_file(&path).unwrap();
        let config = Config::join(flags(&[]), file.unwrap()).unwrap();
        assert_eq!(config.data, std::env::temp_dir().join("data"));
        let Mode::Live(live) = config.mode else { panic!("it is live") };
        assert_eq!(live.files.key, std::env::temp_dir().join("server.key"));
        assert_eq!(live.files.authorities[&Plane::Admin], std::env::temp_dir().join("admin.crt"));
    }
}
