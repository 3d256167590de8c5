//! `firstkey key`: keys and their versions, from the first to the certificate of the last.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use firstkey::grpc::client::{Client, ClientError, request_id};
use firstkey::grpc::proto::{
    self, Exportability, KeyAlgorithm, KeyAttributes, KeyFilter, KeyState, KeyUsage,
};
use firstkey::vault::{DestructionCertificate, VerifierKey};
use prost_types::FieldMask;
use serde_json::{Value, json};

use crate::cli::key::{
    Again, Certificate, CreateKey, DestroyKey, Key, LabelKey, ListKeys, NamedKey, PrimaryVersion,
    RotateKey, SetKeyState, Sure, VerifyCertificate,
};
use crate::cli::{Output, Server};
use crate::connect::connect;
use crate::{approval, exit, print};

pub(crate) async fn run(command: Key, output: Output) -> anyhow::Result<ExitCode> {
    match command {
        Key::List(arguments) => list(arguments, output).await,
        Key::Show(arguments) => show(arguments, output).await,
        Key::Versions(arguments) => versions(arguments, output).await,
        Key::Create(arguments) => create(arguments, output).await,
        Key::Rotate(arguments) => rotate(arguments, output).await,
        Key::Primary(arguments) => primary(arguments, output).await,
        Key::Label(arguments) => label(arguments, output).await,
        Key::State(arguments) => {
            let SetKeyState { id, state, sure, again, server } = arguments;
            let state = value_of("KEY_STATE", Some(&state), KeyState::from_str_name);
            set_state(&id, state, (sure, again), &server, output).await
        }
        Key::Destroy(DestroyKey { id, sure, again, server }) => {
            set_state(&id, KeyState::Destroyed, (sure, again), &server, output).await
        }
        Key::Certificate(arguments) => certificate(arguments, output).await,
        Key::VerifyCertificate(arguments) => verify(&arguments, output),
    }
}

async fn list(arguments: ListKeys, output: Output) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.server).await?;
    let usage = value_of("KEY_USAGE", arguments.usage.as_deref(), KeyUsage::from_str_name);
    let of = arguments.algorithm.as_deref();
    let through = arguments.compromised_through.as_deref().map(name_of).unwrap_or_default();
    let filter = KeyFilter {
        state: value_of("KEY_STATE", arguments.state.as_deref(), KeyState::from_str_name).into(),
        usage: usage.into(),
        algorithm: value_of("KEY_ALGORITHM", of, KeyAlgorithm::from_str_name).into(),
        check_value: hex("--check-value", &arguments.check_value)?,
        key_set_id: hex("--key-set-id", &arguments.key_set_id)?,
        labels: labels(&arguments.labels)?,
        compromised_through: through,
        every_version: arguments.every_version,
        ..KeyFilter::default()
    };
    print_keys(&client.list_keys(filter).await?, output);
    Ok(ExitCode::SUCCESS)
}

async fn versions(arguments: NamedKey, output: Output) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.server).await?;
    print_keys(&client.list_key_versions(&name_of(&arguments.id)).await?, output);
    Ok(ExitCode::SUCCESS)
}

async fn show(arguments: NamedKey, output: Output) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.server).await?;
    print_key(&read(&client, &arguments.id).await?, output);
    Ok(ExitCode::SUCCESS)
}

async fn create(arguments: CreateKey, output: Output) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.server).await?;
    let usage = value_of("KEY_USAGE", Some(&arguments.usage), KeyUsage::from_str_name);
    let of = Some(arguments.algorithm.as_str());
    let exportability =
        if arguments.exportable { Exportability::Exportable } else { Exportability::Unspecified };
    let request = proto::CreateKeyRequest {
        request_id: request_id(),
        key_id: arguments.id,
        usage: usage.into(),
        algorithm: value_of("KEY_ALGORITHM", of, KeyAlgorithm::from_str_name).into(),
        exportability: exportability.into(),
        attributes: Some(KeyAttributes {
            key_set_id: hex("--key-set-id", &arguments.key_set_id)?,
            ..KeyAttributes::default()
        }),
        labels: labels(&arguments.labels)?,
        pre_active: arguments.pre_active,
        ..proto::CreateKeyRequest::default()
    };
    let made = client.keys().create_key(request).await.map_err(ClientError::from)?;
    print_key(&held(made.into_inner().key)?, output);
    Ok(ExitCode::SUCCESS)
}

async fn rotate(arguments: RotateKey, output: Output) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.server).await?;
    let request = proto::RotateKeyRequest {
        request_id: request_id(),
        name: name_of(&arguments.id),
        key_set_id: hex("--key-set-id", &arguments.key_set_id)?,
        keep_primary: arguments.keep_primary,
        pre_active: arguments.pre_active,
        ..proto::RotateKeyRequest::default()
    };
    let made = client.keys().rotate_key(request).await.map_err(ClientError::from)?;
    print_key(&held(made.into_inner().key)?, output);
    Ok(ExitCode::SUCCESS)
}

async fn primary(arguments: PrimaryVersion, output: Output) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.server).await?;
    let request_id = id_of(arguments.again);
    let name = name_of(&arguments.id);
    let request = proto::SetPrimaryVersionRequest { request_id: request_id.clone(), name };
    let set = client.set_primary_version(request).await;
    print_key(&held(waiting(set, &request_id)?.key)?, output);
    Ok(ExitCode::SUCCESS)
}

async fn label(arguments: LabelKey, output: Output) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.server).await?;
    let request = proto::UpdateKeyRequest {
        request_id: request_id(),
        key: Some(proto::Key {
            name: name_of(&arguments.id),
            labels: labels(&arguments.labels)?,
            ..proto::Key::default()
        }),
        update_mask: Some(FieldMask { paths: vec!["labels".to_owned()] }),
    };
    let updated = client.keys().update_key(request).await.map_err(ClientError::from)?;
    print_key(&held(updated.into_inner().key)?, output);
    Ok(ExitCode::SUCCESS)
}

async fn set_state(
    id: &str,
    state: KeyState,
    (sure, again): (Sure, Again),
    server: &Server,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let client = connect(server).await?;
    let is_final = match state {
        KeyState::Compromised | KeyState::Deactivated | KeyState::Destroyed => true,
        KeyState::Active | KeyState::PreActive | KeyState::Suspended | KeyState::Unspecified => {
            false
        }
    };
    if is_final && !is_meant(&read(&client, id).await?, state, sure, output)? {
        crate::shared::fail(&anyhow::anyhow!("the check value is another one; nothing was done"));
        return Ok(ExitCode::from(exit::UNSOUND));
    }
    let request_id = id_of(again);
    let request = proto::SetKeyStateRequest {
        request_id: request_id.clone(),
        name: name_of(id),
        state: state.into(),
        serve_until: None,
    };
    let set = waiting(client.set_key_state(request).await, &request_id)?;
    let key = held(set.key)?;
    match output {
        Output::Table => {
            print_key(&key, output);
            if set.exposed_versions > 0 {
                print::line(&format!(
                    "{} more are compromised with it: firstkey key list --every-version \
                     --compromised-through {}",
                    set.exposed_versions,
                    version_of(&key)
                ));
            }
        }
        Output::Json => {
            let mut shown = key_json(&key);
            shown["exposed_versions"] = set.exposed_versions.into();
            print::line(&shown.to_string());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether one who moves a key to where there is no way back means this very key.
fn is_meant(key: &proto::Key, state: KeyState, sure: Sure, output: Output) -> anyhow::Result<bool> {
    let shown = check_value(key);
    let typed = if let Some(typed) = sure.check_value {
        typed
    } else {
        ensure!(output == Output::Table, "a program names the check value: --check-value");
        print_key(key, output);
        let word = word("KEY_STATE_", state.as_str_name());
        let name = version_of(key);
        approval::ask(&format!("To make {name} {word}, for good, type its check value: "))?
    };
    let typed: String = typed.split_whitespace().collect();
    Ok(typed.eq_ignore_ascii_case(&shown))
}

async fn certificate(arguments: Certificate, output: Output) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.named.server).await?;
    let request = proto::GetDestructionCertificateRequest { name: name_of(&arguments.named.id) };
    let written = client.keys().get_destruction_certificate(request).await;
    let written = written.map_err(ClientError::from)?.into_inner();
    if let Some(path) = &arguments.out {
        let made = || format!("can not make {}", path.display());
        let mut file = fs::File::create_new(path).with_context(made)?;
        file.write_all(written.certificate.as_bytes()).with_context(made)?;
        file.sync_all().with_context(made)?;
    }
    match output {
        Output::Table => {
            print::line(written.certificate.trim_end());
            print::line("");
            print::line(&format!("key {}", written.verifier_key));
        }
        Output::Json => print::line(
            &json!({ "certificate": written.certificate, "key": written.verifier_key }).to_string(),
        ),
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(arguments: &VerifyCertificate, output: Output) -> anyhow::Result<ExitCode> {
    let key = VerifierKey::parse(&arguments.key)?;
    let path = &arguments.certificate;
    let note =
        fs::read_to_string(path).with_context(|| format!("can not read {}", path.display()))?;
    let opened = DestructionCertificate::open(&note, &key);
    let code = if opened.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(exit::UNSOUND) };
    match (opened, output) {
        (Ok(lines), Output::Table) => {
            print::line("verified");
            let row = |(name, value)| vec![name, value];
            print::table(&lines.into_iter().map(row).collect::<Vec<_>>());
        }
        (Ok(lines), Output::Json) => {
            // Of the approvers there may be several; all other lines stand once.
            let of = |wanted: &str| {
                let found = lines.iter().filter(|(name, _)| name == wanted);
                found.map(|(_, value)| value.clone()).collect::<Vec<_>>()
            };
            let mut shown: BTreeMap<&str, Value> =
                lines.iter().map(|(name, value)| (name.as_str(), value.clone().into())).collect();
            shown.insert("approver", of("approver").into());
            shown.insert("verified", true.into());
            print::line(&json!(shown).to_string());
        }
        (Err(error), Output::Table) => print::line(&format!("NOT VERIFIED: {error}")),
        (Err(error), Output::Json) => {
            print::line(&json!({ "verified": false, "message": error.to_string() }).to_string());
        }
    }
    Ok(code)
}

async fn read(client: &Client, id: &str) -> anyhow::Result<proto::Key> {
    let request = proto::GetKeyRequest { name: name_of(id) };
    let found = client.keys().get_key(request).await.map_err(ClientError::from)?;
    held(found.into_inner().key)
}

fn held(key: Option<proto::Key>) -> anyhow::Result<proto::Key> {
    key.context("the answer holds no key")
}

/// The id of a request: a fresh one, or that of the one that waited.
fn id_of(again: Again) -> String {
    again.request_id.unwrap_or_else(request_id)
}

/// Tells who has to wait under which id the same request is made again.
#[allow(clippy::print_stderr, reason = "what to do next belongs beside why it failed")]
fn waiting<A>(answer: Result<A, ClientError>, request_id: &str) -> Result<A, ClientError> {
    if let Err(error) = &answer
        && error.reason() == Some("APPROVAL_REQUIRED")
    {
        eprintln!("request: to make it once more, add --request-id {request_id}");
    }
    answer
}

fn name_of(id: &str) -> String {
    if id.starts_with("keys/") { id.to_owned() } else { format!("keys/{id}") }
}

fn version_of(key: &proto::Key) -> String {
    format!("{}/versions/{}", key.name.trim_start_matches("keys/"), key.version)
}

/// The value of an enum by its word, such as `PIN_ENCRYPTION` in any case; unspecified where there
/// is none.
fn value_of<E: Default>(prefix: &str, word: Option<&str>, known: fn(&str) -> Option<E>) -> E {
    let name = word.map(|word| format!("{prefix}_{}", word.to_uppercase()));
    name.and_then(|name| known(&name)).unwrap_or_default()
}

fn word<'a>(prefix: &str, name: &'a str) -> &'a str {
    name.trim_start_matches(prefix)
}

fn hex(what: &str, text: &str) -> anyhow::Result<Vec<u8>> {
    let octets = data_encoding::HEXUPPER_PERMISSIVE.decode(text.as_bytes());
    octets.with_context(|| format!("{what} is not pairs of hexadecimal digits"))
}

fn labels(given: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for label in given {
        let (name, value) =
            label.split_once('=').with_context(|| format!("{label} is not NAME=VALUE"))?;
        if labels.insert(name.to_owned(), value.to_owned()).is_some() {
            bail!("the label {name} is there twice");
        }
    }
    Ok(labels)
}

fn check_value(key: &proto::Key) -> String {
    data_encoding::HEXUPPER.encode(&key.check_value)
}

fn labels_text(key: &proto::Key) -> String {
    let one = |(name, value): (&String, &String)| format!("{name}={value}");
    key.labels.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn print_keys(keys: &[proto::Key], output: Output) {
    if output == Output::Json {
        let keys: Vec<Value> = keys.iter().map(key_json).collect();
        print::line(&json!({ "keys": keys }).to_string());
        return;
    }
    let head = ["KEY", "VERSION", "STATE", "USAGE", "ALGORITHM", "CHECK VALUE", "LABELS"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(keys.iter().map(|key| {
        let mark = if key.version == key.primary_version { " primary" } else { "" };
        vec![
            key.name.trim_start_matches("keys/").to_owned(),
            format!("{}{mark}", key.version),
            word("KEY_STATE_", key.state().as_str_name()).to_owned(),
            word("KEY_USAGE_", key.usage().as_str_name()).to_owned(),
            word("KEY_ALGORITHM_", key.algorithm().as_str_name()).to_owned(),
            check_value(key),
            labels_text(key),
        ]
    }));
    print::table(&rows);
}

fn print_key(key: &proto::Key, output: Output) {
    let shown = key_json(key);
    if output == Output::Json {
        print::line(&shown.to_string());
        return;
    }
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Object(_) => labels_text(key),
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    };
    let rows = shown.as_object().into_iter().flatten();
    let rows = rows.map(|(name, value)| vec![name.replace('_', " "), text(value)]);
    print::table(&rows.filter(|row| !row[1].is_empty()).collect::<Vec<_>>());
}

fn key_json(key: &proto::Key) -> Value {
    let time = |time: Option<prost_types::Timestamp>| {
        time.map(|time| time.to_string()).unwrap_or_default()
    };
    let attributes = key.attributes.clone().unwrap_or_default();
    json!({
        "name": key.name,
        "version": key.version,
        "primary_version": key.primary_version,
        "latest_version": key.latest_version,
        "state": word("KEY_STATE_", key.state().as_str_name()),
        "usage": word("KEY_USAGE_", key.usage().as_str_name()),
        "algorithm": word("KEY_ALGORITHM_", key.algorithm().as_str_name()),
        "exportability": word("EXPORTABILITY_", key.exportability().as_str_name()),
        "origin": word("KEY_ORIGIN_", key.origin().as_str_name()),
        "check_value": check_value(key),
        "key_set_id": data_encoding::HEXUPPER.encode(&attributes.key_set_id),
        "not_before": time(attributes.not_before),
        "expire_time": time(attributes.expire_time),
        "recipient_end_time": time(attributes.recipient_end_time),
        "create_time": time(key.create_time),
        "update_time": time(key.update_time),
        "serve_until": time(key.serve_until),
        "labels": key.labels,
        "compromised_through": key.compromised_through,
    })
}
