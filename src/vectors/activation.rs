//! The project's own protocol: activation codes, transcripts, session keys, parameter files,
//! payloads. With its vectors a stranger can write a terminal.

use serde_json::json;

use super::file::hex;
use super::operation::undefined;
use super::{Answer, Outcome, Stop, Vector};
use crate::activation::code::{ActivationCode, CodeHolder};
use crate::activation::confirmation;
use crate::activation::parameters::{
    AcquirerId, Currency, Limits, MerchantId, MerchantName, Parameters, ParametersInvalid,
    ParametersVersion, TerminalId, file_digest,
};
use crate::activation::payload::{
    ActivationName, Begin, BeginAnswer, Confirm, ConfirmAnswer, Deliver, DeliverAnswer,
    ParametersAnswer, ParametersRequest, Payload, Report, TestTransaction, TestTransactionAnswer,
    Update, UpdateAnswer,
};
use crate::activation::terminal_key::{TerminalKey, TerminalKeyUsage};
use crate::activation::transcript::{Role, Step, Transcript};
use crate::activation::update::Renewal;
use crate::agreement::{Agreement, ConfirmationKey, MasterKey, SessionKeys, Suite};
use crate::crypto::LengthInvalid;
use crate::crypto::ec::{self, Point};
use crate::dukpt::{AesInitialKey, AesKsn, KeyKind};
use crate::key::usage::KeyDerivation;
use crate::key::{Algorithm, Key, Material};

/// Runs the operations of activation.
pub(super) fn run(vector: &Vector) -> Outcome {
    match vector.operation()? {
        "activation_code_hash" => code_hash(vector),
        "activation_code_make" => {
            let code = ActivationCode::from_random_bits(&exactly(&vector.bytes("random")?)?);
            Ok(Answer::text(&code.expose_text()))
        }
        "activation_code_parse" => {
            Ok(Answer::text(&ActivationCode::parse(vector.text("code")?)?.expose_text()))
        }
        "activation_confirm" => confirm(vector),
        "activation_input" => Ok(Answer::text(&hex(&input(vector)?))),
        "activation_keys" => keys(vector),
        "activation_master_device_key" => {
            let key = master_key(vector)?;
            let key = MasterKey::new(&key, suite(vector)?)?.device_key(vector.text("serial")?);
            Ok(Answer::text(&hex(key.expose_bytes())))
        }
        "activation_master_keys" => {
            let key = master_key(vector)?;
            let begun = exactly(&vector.bytes("transcript_hash")?)?;
            Ok(session_keys(&MasterKey::new(&key, suite(vector)?)?.session_keys(&begun)))
        }
        "activation_parameters" => parameters(vector),
        "activation_parameters_make" => make_parameters(vector),
        "activation_payload" => payload(vector),
        "activation_proof" => {
            let key = ConfirmationKey::from_bytes(exactly(&vector.bytes("key")?)?);
            let message = (role(vector)?, step(vector)?);
            Ok(Answer::text(&hex(&confirmation::mac(&key, message, &transcript(vector)?))))
        }
        "activation_signature" => signature(vector),
        "activation_terminal_key" => terminal_key(vector),
        "activation_transcript" => Ok(Answer::text(&hex(&transcript(vector)?.hash()))),
        "activation_update_keys" => update_keys(vector),
        unknown => Err(Stop::Unknown(unknown.to_owned())),
    }
}

fn code_hash(vector: &Vector) -> Outcome {
    let code = ActivationCode::parse(vector.text("code")?)?;
    let holder = CodeHolder { serial: vector.text("serial")?, merchant: vector.text("merchant")? };
    let hash = code.keyed_hash(&exactly(&vector.bytes("key")?)?, &holder);
    Ok(Answer::text(&hex(hash.as_bytes())))
}

fn confirm(vector: &Vector) -> Outcome {
    let key = ConfirmationKey::from_bytes(exactly(&vector.bytes("key")?)?);
    let transcript = transcript(vector)?;
    let message = (role(vector)?, Step::Confirm);
    Ok(Answer::text(&hex(&confirmation::mac(&key, message, &transcript))))
}

fn keys(vector: &Vector) -> Outcome {
    let device_ephemeral = Point::parse(&vector.bytes("device_ephemeral")?)?;
    let service_ephemeral = Point::parse(&vector.bytes("service_ephemeral")?)?;
    let agreement = Agreement {
        suite: suite(vector)?,
        transcript_hash: &exactly(&vector.bytes("transcript_hash")?)?,
        device_ephemeral: &device_ephemeral,
        service_ephemeral: &service_ephemeral,
    };
    // The service's private key: a vector has the numbers of both sides.
    let private_key = vector.bytes("service_private_key")?;
    let agreed = agreement.derive(ec::ecdh_with_private_key(&private_key, &device_ephemeral)?);
    Ok(session_keys(&agreed))
}

/// The keys of a session, exposed to be compared with published values.
fn session_keys(keys: &SessionKeys) -> Answer {
    Answer::value(json!({
        "confirm_service": hex(keys.confirm_service.expose_bytes()),
        "confirm_terminal": hex(keys.confirm_terminal.expose_bytes()),
        "kbpk": hex(keys.key_block_protection.expose_bytes()),
    }))
}

fn master_key(vector: &Vector) -> Result<Key<KeyDerivation>, Stop> {
    let name = vector.text("algorithm")?;
    let algorithm = Algorithm::ALL.into_iter().find(|one| one.to_string() == name);
    let algorithm = algorithm.ok_or_else(|| undefined("algorithm", name))?;
    Ok(Key::from_material(algorithm, Material::copied_from(&vector.bytes("master_key")?))?)
}

fn suite(vector: &Vector) -> Result<Suite, Stop> {
    let name = vector.text("suite")?;
    Suite::from_name(name).ok_or_else(|| undefined("suite", name))
}

fn parameters(vector: &Vector) -> Outcome {
    let file = vector.text("file")?.as_bytes();
    let read = Parameters::parse(file)?;
    Ok(Answer::value(json!({
        "digest": hex(&file_digest(file)),
        "version": read.version.number(),
        "acquirer_id": read.acquirer_id.as_str(),
        "merchant_id": read.merchant_id.as_str(),
        "merchant_name": read.merchant_name.as_str(),
        "terminal_id": read.terminal_id.as_str(),
        "currency": read.currency.as_str(),
        "single_limit_minor": read.limits.single_minor(),
        "daily_limit_minor": read.limits.daily_minor(),
    })))
}

fn make_parameters(vector: &Vector) -> Outcome {
    let number = |field| {
        let number = vector.optional_number(field)?.ok_or_else(|| Stop::missing(field))?;
        u64::try_from(number).map_err(Stop::from)
    };
    let refused = |field| Stop::from(ParametersInvalid { field });
    let version = ParametersVersion::new(u32::try_from(number("version")?)?);
    let acquirer_id = AcquirerId::new(vector.text("acquirer_id")?);
    let merchant_id = MerchantId::new(vector.text("merchant_id")?);
    let merchant_name = MerchantName::new(vector.text("merchant_name")?);
    let terminal_id = TerminalId::new(vector.text("terminal_id")?);
    let currency = Currency::new(vector.text("currency")?);
    let made = Parameters {
        version: version.ok_or_else(|| refused("version"))?,
        acquirer_id: acquirer_id.ok_or_else(|| refused("acquirer_id"))?,
        merchant_id: merchant_id.ok_or_else(|| refused("merchant_id"))?,
        merchant_name: merchant_name.ok_or_else(|| refused("merchant_name"))?,
        terminal_id: terminal_id.ok_or_else(|| refused("terminal_id"))?,
        currency: currency.ok_or_else(|| refused("currency"))?,
        limits: Limits::new(number("single_limit_minor")?, number("daily_limit_minor")?)?,
    };
    Ok(Answer::value(json!({ "digest": hex(&made.digest()), "file": hex(&made.to_file()) })))
}

fn payload(vector: &Vector) -> Outcome {
    let payload = vector.bytes("payload")?;
    match vector.text("message")? {
        "Begin" => Begin::parse(&payload).map(drop)?,
        "BeginAnswer" => BeginAnswer::parse(&payload).map(drop)?,
        "Confirm" => Confirm::parse(&payload).map(drop)?,
        "ConfirmAnswer" => ConfirmAnswer::parse(&payload).map(drop)?,
        "Deliver" => Deliver::parse(&payload).map(drop)?,
        "DeliverAnswer" => DeliverAnswer::parse(&payload).map(drop)?,
        "Parameters" => ParametersRequest::parse(&payload).map(drop)?,
        "ParametersAnswer" => ParametersAnswer::parse(&payload).map(drop)?,
        "Report" => Report::parse(&payload).map(drop)?,
        "TestTransaction" => TestTransaction::parse(&payload).map(drop)?,
        "TestTransactionAnswer" => TestTransactionAnswer::parse(&payload).map(drop)?,
        "Update" => Update::parse(&payload).map(drop)?,
        "UpdateAnswer" => UpdateAnswer::parse(&payload).map(drop)?,
        other => return Err(undefined("message", other)),
    }
    Ok(Answer::verified())
}

/// A static key of a terminal.
fn terminal_key(vector: &Vector) -> Outcome {
    let algorithm = |field| {
        let name = vector.text(field)?;
        let found = Algorithm::ALL.into_iter().find(|one| one.to_string() == name);
        found.ok_or_else(|| undefined(field, name))
    };
    let derivation_key = Material::copied_from(&vector.bytes("derivation_key")?);
    let from: Key<KeyDerivation> =
        Key::from_material(algorithm("derivation_algorithm")?, derivation_key)?;
    let usage = vector.text("usage")?;
    let code: Result<[u8; 2], LengthInvalid> = exactly(usage.as_bytes());
    let number = vector.optional_number("slot")?.ok_or_else(|| Stop::missing("slot"))?;
    let key = TerminalKey {
        initial_key_id: &vector.bytes("initial_key_id")?,
        slot: u8::try_from(number)?,
        usage: TerminalKeyUsage::from_code(code?).ok_or_else(|| undefined("usage", usage))?,
        algorithm: algorithm("algorithm")?,
    };
    // Exposed to be compared with published values.
    Ok(Answer::text(&hex(key.derive(&from)?.expose_bytes())))
}

/// The keys of an update, from the initial key that serves and the KSN of the Update.
fn update_keys(vector: &Vector) -> Outcome {
    let ksn = AesKsn::parse(&vector.bytes("ksn")?)?;
    let initial_key = Material::copied_from(&vector.bytes("initial_key")?);
    let initial_key = Key::from_material(Algorithm::Aes128, initial_key)?;
    let initial_key = AesInitialKey::new(initial_key, ksn.initial_key_id())?;
    let activation = vector.text("activation")?;
    let renewal = Renewal {
        activation: &ActivationName::new(activation)
            .ok_or_else(|| undefined("activation", activation))?,
        nonce: &exactly(&vector.bytes("nonce")?)?,
        initial_key_id: &vector.bytes("new_initial_key_id")?,
    };
    let derivation_key = initial_key.working_key(&ksn, KeyKind::Aes128)?;
    let keys = renewal.confirmation_keys(&derivation_key)?;
    // Exposed to be compared with published values.
    Ok(Answer::value(json!({
        "confirm_service": hex(keys.service.expose_bytes()),
        "confirm_terminal": hex(keys.terminal.expose_bytes()),
        "update_key": hex(initial_key.update_key(KeyKind::Aes128)?.expose_bytes()),
    })))
}

fn signature(vector: &Vector) -> Outcome {
    let public = Point::parse(&vector.bytes("public_key")?)?;
    ec::verify(&public, &input(vector)?, &exactly(&vector.bytes("signature")?)?)?;
    Ok(Answer::verified())
}

fn input(vector: &Vector) -> Result<Vec<u8>, Stop> {
    Ok(transcript(vector)?.authenticated_input(role(vector)?, step(vector)?))
}

fn transcript(vector: &Vector) -> Result<Transcript, Stop> {
    let mut transcript = Transcript::new();
    for payload in vector.list_of_bytes("payloads")? {
        transcript.absorb(&payload);
    }
    Ok(transcript)
}

fn role(vector: &Vector) -> Result<Role, Stop> {
    let name = vector.text("role")?;
    let role = Role::ALL.into_iter().find(|role| role.as_str() == name);
    role.ok_or_else(|| undefined("role", name))
}

fn step(vector: &Vector) -> Result<Step, Stop> {
    let name = vector.text("step")?;
    let step = Step::ALL.into_iter().find(|step| step.as_str() == name);
    step.ok_or_else(|| undefined("step", name))
}

fn exactly<const LEN: usize>(bytes: &[u8]) -> Result<[u8; LEN], LengthInvalid> {
    bytes.try_into().map_err(|_| LengthInvalid)
}
