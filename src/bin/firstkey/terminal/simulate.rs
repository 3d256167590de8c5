//! `firstkey terminal simulate`: a terminal in software, whose memory is a file.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, bail};
use data_encoding::HEXUPPER;
use firstkey::activation::ActivationCode;
use firstkey::agreement::Suite;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::{Client, ClientError, Driver, Told};
use firstkey::grpc::proto;
use firstkey::server::simulation;
use firstkey::terminal::Terminal;
use firstkey::vault::{Clock as _, key_of};
use serde_json::{Value, json};

use crate::cli::{Device, Output, Simulate};
use crate::connect::{connect, connect_as_terminal};
use crate::print;
use crate::shared::{SystemClock, development};

pub(super) async fn run(arguments: Simulate, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let Device { state, serial, code, renew, update, purchase: amount_minor } = arguments.device;
    let path = state.context("a terminal needs --state FILE")?;
    let making =
        Making { serial: serial.as_deref(), pki: arguments.pki.as_deref(), keys: &arguments.keys };
    let mut terminal = device(&client, &path, &making).await?;
    let code = match &code {
        Some(text) => Some(ActivationCode::parse(text).context("the activation code")?),
        None => None,
    };
    if serial.is_some_and(|serial| serial != terminal.device().serial.as_str()) {
        bail!("{} is the memory of another serial", path.display());
    }
    let mut save = |terminal: &Terminal| write_memory(&path, terminal);
    save(&terminal).map_err(|cause| anyhow::anyhow!(cause))?;
    if let Some(amount_minor) = amount_minor {
        return purchase(&client, &mut terminal, amount_minor, &mut save, output).await;
    }
    let now = || SystemClock.now().seconds();
    let mut tell = |told: Told| match output {
        Output::Table => print::line(&told_text(&told)),
        Output::Json => print::line(&told_json(&told, update).to_string()),
    };
    let rng = SystemRng::new();
    let mut driver = Driver {
        line: &mut connect_as_terminal(&arguments.server).await?,
        terminal: &mut terminal,
        rng: &rng,
        now: &now,
        save: &mut save,
        tell: &mut tell,
    };
    if update {
        return Ok(driver.update_keys().await?);
    }
    Ok(driver.activate(code, renew).await?)
}

/// What a new device is made from.
struct Making<'a> {
    serial: Option<&'a str>,
    /// The folder of the development authorities, for a device certificate.
    pki: Option<&'a Path>,
    /// The folder of the development keys, for a master key.
    keys: &'a Path,
}

/// The device in the state file, or a new one as it is registered: with a certificate of the
/// development vendor, or with a development master key.
async fn device(client: &Client, state: &Path, making: &Making<'_>) -> anyhow::Result<Terminal> {
    match fs::read_to_string(state) {
        Ok(text) => {
            return Terminal::restore(&text).with_context(|| format!("in {}", state.display()));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("reading {}", state.display()));
        }
    }
    let serial = making.serial.context("a new device needs --serial SERIAL")?;
    let (suite, master_key) = registered(client, serial).await?;
    let device = if let Some(version) = master_key.strip_prefix("keys/") {
        let key = development::read_keys(making.keys)?.terminal_master_key(key_of(version))?;
        simulation::simulated_device_with(key, serial)?
    } else {
        let pki = making.pki.context("a new device with a certificate needs --pki DIR")?;
        let (pki, now) = (development::read_pki(pki)?, SystemClock.now().seconds());
        simulation::simulated_device(&pki, serial, &SystemRng::new(), now)?
    };
    Ok(Terminal::new(device, suite))
}

/// The suite and the master key that the terminal of a serial is registered with: a vendor ships
/// the application for it.
async fn registered(client: &Client, serial: &str) -> anyhow::Result<(Suite, String)> {
    let terminals = client.list_terminals(proto::ListTerminalsRequest::default()).await?;
    let of_serial = terminals.into_iter().filter(|terminal| terminal.serial == serial);
    let terminal = of_serial.max_by_key(|terminal| terminal.generation);
    let terminal =
        terminal.with_context(|| format!("no terminal is registered with the serial {serial}"))?;
    let request = proto::GetProfileRequest { name: terminal.profile };
    let answer = client.terminals().get_profile(request).await.map_err(ClientError::from)?;
    let suite = answer.into_inner().profile.map(|profile| profile.suite()).unwrap_or_default();
    let name = suite.as_str_name().trim_start_matches("SUITE_");
    Ok((Suite::from_name(name).context("an unknown suite")?, terminal.master_key))
}

/// Makes a purchase with the test card, and plays the backend that has it checked.
async fn purchase(
    client: &Client,
    terminal: &mut Terminal,
    amount_minor: u64,
    save: &mut (dyn FnMut(&Terminal) -> Result<(), String> + Send),
    output: Output,
) -> anyhow::Result<()> {
    let now = SystemClock.now().seconds();
    let payment = simulation::purchase(terminal, amount_minor, &SystemRng::new(), now)?;
    // The counter is spent before anything leaves, as a device does it.
    save(terminal).map_err(|cause| anyhow::anyhow!(cause))?;
    let verify = simulation::verify_request(&payment);
    client.macs().verify_mac(verify).await.map_err(ClientError::from)?;
    let translate = simulation::translate_request(&payment, payment.pin_block.bytes().to_vec());
    let answer = client.pins().translate_pin(translate).await.map_err(ClientError::from)?;
    let block = HEXUPPER.encode(&answer.into_inner().pin_block);
    let ksn = payment.ksn.to_string();
    match output {
        Output::Table => {
            print::line(&format!("purchase of {amount_minor} under KSN {ksn}: MAC verified"));
            print::line(&format!("PIN block for keys/dev-zone-pin-aes, format 4: {block}"));
        }
        Output::Json => {
            let value = json!({
                "amount_minor": amount_minor,
                "ksn": ksn,
                "mac": "verified",
                "pin_block": block,
                "pin_block_key": "keys/dev-zone-pin-aes",
            });
            print::line(&value.to_string());
        }
    }
    Ok(())
}

/// Replaces the memory of a device as a whole: an interruption leaves the old or the new one.
fn write_memory(path: &Path, terminal: &Terminal) -> Result<(), String> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let written = fs::remove_file(beside)
        .or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
        .map_err(anyhow::Error::from)
        .and_then(|()| development::write_new(beside, terminal.save().as_bytes()))
        .and_then(|()| fs::rename(beside, path).map_err(anyhow::Error::from));
    written.map_err(|error| format!("{}: {error:#}", path.display()))
}

fn told_text(told: &Told) -> String {
    match told {
        Told::Begun { activation } => format!("the service proved itself: {activation}"),
        Told::Keys(keys) => {
            let keys = keys.iter().map(|key| {
                let name = match key.slot {
                    0 => format!("initial key {}", HEXUPPER.encode(&key.initial_key_id)),
                    slot => format!("key in slot {slot}"),
                };
                format!("{name}, check value {}", key.check_value)
            });
            format!("keys arrived: {}", keys.collect::<Vec<_>>().join("; "))
        }
        Told::Confirmed => "keys confirmed on both sides".to_owned(),
        Told::Parameters(parameters) => format!(
            "parameters version {} applied: {} at most {} at once, {} a day",
            parameters.version.number(),
            parameters.currency.as_str(),
            parameters.limits.single_minor(),
            parameters.limits.daily_minor()
        ),
        Told::Reported => "reported the applied parameters".to_owned(),
        Told::Tested(verdict) => {
            let failed: Vec<String> = verdict
                .verdicts
                .iter()
                .filter(|verdict| !verdict.passed)
                .map(|verdict| format!("{}: {}", verdict.check.as_str(), verdict.remedy))
                .collect();
            format!(
                "test transaction {}: {} of {} passed {}",
                verdict.number,
                verdict.tests_passed,
                verdict.tests_required,
                failed.join("; ")
            )
        }
    }
}

/// The same as fields, under the name of the call; keys come by one of two.
fn told_json(told: &Told, is_update: bool) -> Value {
    match told {
        Told::Begun { activation } => {
            json!({ "call": "BeginActivation", "activation": activation })
        }
        Told::Keys(keys) => {
            let keys = keys.iter().map(|key| {
                json!({
                    "slot": key.slot,
                    "initial_key_id": HEXUPPER.encode(&key.initial_key_id),
                    "check_value": key.check_value.to_string(),
                })
            });
            let call = if is_update { "UpdateKeys" } else { "DeliverKeys" };
            json!({ "call": call, "keys": keys.collect::<Vec<_>>() })
        }
        Told::Confirmed => json!({ "call": "ConfirmKeys" }),
        Told::Parameters(parameters) => json!({
            "call": "GetParameters",
            "version": parameters.version.number(),
            "currency": parameters.currency.as_str(),
            "single_amount_minor": parameters.limits.single_minor(),
            "daily_amount_minor": parameters.limits.daily_minor(),
        }),
        Told::Reported => json!({ "call": "ReportStep" }),
        Told::Tested(verdict) => {
            let checks = verdict.verdicts.iter().map(|verdict| {
                json!({
                    "check": verdict.check.as_str(),
                    "passed": verdict.passed,
                    "remedy": verdict.remedy,
                })
            });
            json!({
                "call": "RunTestTransaction",
                "number": verdict.number,
                "tests_passed": verdict.tests_passed,
                "tests_required": verdict.tests_required,
                "checks": checks.collect::<Vec<_>>(),
            })
        }
    }
}
