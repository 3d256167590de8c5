//! `firstkey terminal`: register, watch and play terminals against a running service.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use firstkey::activation::ActivationCode;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::{Client, ClientError, Driver, Told, request_id};
use firstkey::grpc::proto;
use firstkey::server::simulation;
use firstkey::terminal::Terminal;
use firstkey::vault::Clock as _;
use serde_json::{Value, json};

use crate::cli::{self, Code, List, Named, Output, Register, Simulate, Watch};
use crate::print;
use crate::shared::{SystemClock, development};

pub(crate) async fn run(command: cli::Terminal, output: Output) -> anyhow::Result<ExitCode> {
    match command {
        cli::Terminal::Register(arguments) => register(arguments, output).await,
        cli::Terminal::Code(arguments) => code(arguments, output).await,
        cli::Terminal::Enable(arguments) => enable(arguments, output).await,
        cli::Terminal::Show(arguments) => show(arguments, output).await,
        cli::Terminal::List(arguments) => list(arguments, output).await,
        cli::Terminal::Watch(arguments) => watch(arguments, output).await,
        cli::Terminal::Simulate(arguments) => simulate(arguments, output).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn register(arguments: Register, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let request = proto::CreateTerminalRequest {
        request_id: request_id(),
        terminal_id: arguments.id,
        serial: arguments.serial,
        model: arguments.model,
        merchant: Some(proto::Merchant {
            merchant_id: arguments.merchant_id,
            terminal_id: arguments.terminal_id,
            display_name: arguments.merchant_name,
        }),
        merchant_standing: proto::MerchantStanding::Approved.into(),
        profile: format!("profiles/{}", arguments.profile),
        kind: proto::TerminalKind::DeviceCertificate.into(),
        device_authority: format!("deviceAuthorities/{}", arguments.authority),
    };
    let made = client.terminals().create_terminal(request).await.map_err(ClientError::from)?;
    print_one(made.into_inner().terminal.as_ref(), output)
}

async fn code(arguments: Code, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let (request_id, name) = (request_id(), format!("terminals/{}", arguments.id));
    let code = if arguments.again {
        let request = proto::ReissueActivationCodeRequest { request_id, name };
        let issued = client.terminals().reissue_activation_code(request).await;
        issued.map_err(ClientError::from)?.into_inner().activation_code
    } else {
        let request = proto::IssueActivationCodeRequest { request_id, name };
        let issued = client.terminals().issue_activation_code(request).await;
        issued.map_err(ClientError::from)?.into_inner().activation_code
    };
    match output {
        Output::Table => print::line(&code),
        Output::Json => print::line(&json!({ "activation_code": code }).to_string()),
    }
    Ok(())
}

async fn enable(arguments: Named, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let name = format!("terminals/{}", arguments.id);
    let request = proto::EnableTerminalRequest { request_id: request_id(), name };
    let enabled = client.terminals().enable_terminal(request).await.map_err(ClientError::from)?;
    print_one(enabled.into_inner().terminal.as_ref(), output)
}

async fn show(arguments: Named, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let request = proto::GetTerminalRequest { name: format!("terminals/{}", arguments.id) };
    let found = client.terminals().get_terminal(request).await.map_err(ClientError::from)?;
    let terminal = found.into_inner().terminal.context("the answer holds no terminal")?;
    if output == Output::Json {
        print::line(&terminal_json(&terminal).to_string());
        return Ok(());
    }
    print_one(Some(&terminal), output)?;
    print::line("");
    let mut rows = vec![row(&["TIME (UTC)", "STEP", "FROM", "TO", "NOTE"])];
    rows.extend(terminal.timeline.iter().map(entry_row));
    print::table(&rows);
    Ok(())
}

async fn list(arguments: List, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let mut rows = vec![row(&HEAD)];
    let mut page_token = String::new();
    loop {
        let request = proto::ListTerminalsRequest { page_size: 100, page_token, state: 0 };
        let page = client.terminals().list_terminals(request).await.map_err(ClientError::from)?;
        let page = page.into_inner();
        for terminal in &page.terminals {
            match output {
                Output::Table => rows.push(terminal_row(terminal)),
                Output::Json => print::line(&terminal_json(terminal).to_string()),
            }
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if output == Output::Table {
        print::table(&rows);
    }
    Ok(())
}

async fn watch(arguments: Watch, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let terminal = arguments.id.map_or_else(String::new, |id| format!("terminals/{id}"));
    let request = proto::WatchTerminalsRequest { after_sequence: arguments.after, terminal };
    let stream = client.terminals().watch_terminals(request).await.map_err(ClientError::from)?;
    let mut stream = stream.into_inner();
    while let Some(told) = stream.message().await.map_err(ClientError::from)? {
        let entry = told.entry.unwrap_or_default();
        match output {
            Output::Table => {
                let mut cells = vec![told.sequence.to_string(), told.terminal];
                cells.extend(entry_row(&entry));
                print::line(&cells.join("  "));
            }
            Output::Json => {
                let mut value = entry_json(&entry);
                value["sequence"] = told.sequence.into();
                value["terminal"] = told.terminal.into();
                print::line(&value.to_string());
            }
        }
    }
    Ok(())
}

async fn simulate(arguments: Simulate, output: Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let mut terminal = device(&client, &arguments).await?;
    let code = match &arguments.code {
        Some(text) => Some(ActivationCode::parse(text).context("the activation code")?),
        None => None,
    };
    if arguments.serial.as_deref().is_some_and(|serial| serial != terminal.device().serial.as_str())
    {
        bail!("{} is the memory of another serial", arguments.state.display());
    }
    let path = arguments.state.clone();
    let mut save = |terminal: &Terminal| write_memory(&path, terminal);
    save(&terminal).map_err(|cause| anyhow::anyhow!(cause))?;
    if let Some(amount_minor) = arguments.purchase {
        return purchase(&client, &mut terminal, amount_minor, &mut save, output).await;
    }
    let now = || SystemClock.now().seconds();
    let mut tell = |told: Told| match output {
        Output::Table => print::line(&told_text(&told)),
        Output::Json => print::line(&json!({ "told": told_text(&told) }).to_string()),
    };
    let rng = SystemRng::new();
    let mut driver = Driver {
        line: &mut client.clone(),
        terminal: &mut terminal,
        rng: &rng,
        now: &now,
        save: &mut save,
        tell: &mut tell,
    };
    Ok(driver.activate(code, arguments.renew).await?)
}

/// The device in the state file, or a new one with a certificate of the development vendor.
async fn device(client: &Client, arguments: &Simulate) -> anyhow::Result<Terminal> {
    match fs::read_to_string(&arguments.state) {
        Ok(text) => {
            return Terminal::restore(&text)
                .with_context(|| format!("in {}", arguments.state.display()));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("reading {}", arguments.state.display()));
        }
    }
    let (Some(pki), Some(serial)) = (&arguments.pki, &arguments.serial) else {
        bail!("a new device needs --pki DIR and --serial SERIAL");
    };
    let pki = development::read_pki(pki)?;
    let suite = suite_of(client, serial).await?;
    let now = SystemClock.now().seconds();
    let device = simulation::simulated_device(&pki, serial, &SystemRng::new(), now)?;
    Ok(Terminal::new(device, suite))
}

/// The suite that the terminal of a serial is registered with: a vendor ships the application
/// for it.
async fn suite_of(client: &Client, serial: &str) -> anyhow::Result<firstkey::agreement::Suite> {
    let mut page_token = String::new();
    loop {
        let request = proto::ListTerminalsRequest { page_size: 100, page_token, state: 0 };
        let page = client.terminals().list_terminals(request).await.map_err(ClientError::from)?;
        let page = page.into_inner();
        let mut found = page.terminals.iter().filter(|terminal| terminal.serial == serial);
        if let Some(terminal) = found.next_back() {
            let request = proto::GetProfileRequest { name: terminal.profile.clone() };
            let answer = client.terminals().get_profile(request).await;
            let answer = answer.map_err(ClientError::from)?.into_inner();
            let suite = answer.profile.map(|profile| profile.suite()).unwrap_or_default();
            let name = suite.as_str_name().trim_start_matches("SUITE_");
            return firstkey::agreement::Suite::from_name(name).context("an unknown suite");
        }
        page_token = page.next_page_token;
        ensure!(!page_token.is_empty(), "no terminal is registered with the serial {serial}");
    }
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
    let block = data_encoding::HEXUPPER.encode(&answer.into_inner().pin_block);
    let ksn = payment.ksn.to_string();
    match output {
        Output::Table => {
            print::line(&format!("purchase of {amount_minor} under KSN {ksn}: MAC verified"));
            print::line(&format!("PIN block for keys/dev-zone-pin-aes, format 4: {block}"));
        }
        Output::Json => print::line(&json!({ "ksn": ksn, "pin_block": block }).to_string()),
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

async fn connect(server: &cli::Server) -> anyhow::Result<Client> {
    Ok(Client::connect(&server.server).await?)
}

fn told_text(told: &Told) -> String {
    match told {
        Told::Begun { activation } => format!("the service proved itself: {activation}"),
        Told::Keys(keys) => {
            let keys = keys.iter().map(|key| {
                let id = data_encoding::HEXUPPER.encode(&key.initial_key_id);
                format!("initial key {id}, check value {}", key.check_value)
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

const HEAD: [&str; 6] = ["TERMINAL", "SERIAL", "STATE", "PROFILE", "MERCHANT", "CHECK VALUE"];

fn print_one(terminal: Option<&proto::Terminal>, output: Output) -> anyhow::Result<()> {
    let terminal = terminal.context("the answer holds no terminal")?;
    match output {
        Output::Table => print::table(&[row(&HEAD), terminal_row(terminal)]),
        Output::Json => print::line(&terminal_json(terminal).to_string()),
    }
    Ok(())
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn terminal_row(terminal: &proto::Terminal) -> Vec<String> {
    let merchant = terminal.merchant.clone().unwrap_or_default();
    vec![
        terminal.name.clone(),
        terminal.serial.clone(),
        state_name(terminal.state()),
        terminal.profile.clone(),
        merchant.display_name,
        data_encoding::HEXUPPER.encode(&terminal.check_value),
    ]
}

fn entry_row(entry: &proto::TimelineEntry) -> Vec<String> {
    let told = [entry.reason.as_str(), &entry.note, &entry.remedy];
    let told: Vec<&str> = told.into_iter().filter(|text| !text.is_empty()).collect();
    vec![
        time_text(entry),
        entry.step.clone(),
        state_name(entry.from()),
        state_name(entry.to()),
        told.join("; "),
    ]
}

fn time_text(entry: &proto::TimelineEntry) -> String {
    entry.time.map(|time| time.to_string()).unwrap_or_default()
}

fn state_name(state: proto::TerminalState) -> String {
    state.as_str_name().trim_start_matches("TERMINAL_STATE_").to_owned()
}

fn terminal_json(terminal: &proto::Terminal) -> Value {
    json!({
        "name": terminal.name,
        "serial": terminal.serial,
        "state": state_name(terminal.state()),
        "profile": terminal.profile,
        "activation": terminal.activation,
        "initial_key_id": data_encoding::HEXUPPER.encode(&terminal.initial_key_id),
        "check_value": data_encoding::HEXUPPER.encode(&terminal.check_value),
        "parameters_version": terminal.parameters_version,
        "tests_passed": terminal.tests_passed,
        "timeline": terminal.timeline.iter().map(entry_json).collect::<Vec<_>>(),
    })
}

fn entry_json(entry: &proto::TimelineEntry) -> Value {
    json!({
        "time": time_text(entry),
        "step": entry.step,
        "from": state_name(entry.from()),
        "to": state_name(entry.to()),
        "reason": entry.reason,
        "remedy": entry.remedy,
        "note": entry.note,
    })
}
