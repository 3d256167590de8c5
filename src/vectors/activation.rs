//! The project's own protocol: activation codes, transcripts, agreed keys, parameter files. With
//! its vectors a stranger can write a terminal.

use serde_json::json;

use super::file::hex;
use super::operation::undefined;
use super::{Answer, Outcome, Stop, Vector};
use crate::activation::code::{ActivationCode, CodeHolder};
use crate::activation::confirmation;
use crate::activation::parameters::{Parameters, file_digest};
use crate::activation::transcript::{Role, Step, Transcript};
use crate::agreement::{Agreement, ConfirmationKey, Suite};
use crate::crypto::LengthInvalid;
use crate::crypto::ec::{self, Point};

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
        "activation_input" => {
            let input = transcript(vector)?.authenticated_input(role(vector)?, step(vector)?);
            Ok(Answer::text(&hex(&input)))
        }
        "activation_keys" => keys(vector),
        "activation_parameters" => parameters(vector),
        "activation_transcript" => Ok(Answer::text(&hex(&transcript(vector)?.hash()))),
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
    let mac = match role(vector)? {
        Role::Service => confirmation::service_mac(&key, &transcript),
        Role::Terminal => confirmation::terminal_mac(&key, &transcript),
    };
    Ok(Answer::text(&hex(&mac)))
}

fn keys(vector: &Vector) -> Outcome {
    let suite = vector.text("suite")?;
    let device_ephemeral = Point::parse(&vector.bytes("device_ephemeral")?)?;
    let service_ephemeral = Point::parse(&vector.bytes("service_ephemeral")?)?;
    let agreement = Agreement {
        suite: Suite::from_name(suite).ok_or_else(|| undefined("suite", suite))?,
        transcript_hash: &exactly(&vector.bytes("transcript_hash")?)?,
        device_ephemeral: &device_ephemeral,
        service_ephemeral: &service_ephemeral,
    };
    // The service's private key: a vector has the numbers of both sides.
    let private_key = vector.bytes("service_private_key")?;
    let agreed = agreement.derive(ec::ecdh_with_private_key(&private_key, &device_ephemeral)?);
    // Exposed to be compared with published values.
    Ok(Answer::value(json!({
        "confirm_service": hex(agreed.confirm_service.expose_bytes()),
        "confirm_terminal": hex(agreed.confirm_terminal.expose_bytes()),
        "kbpk": hex(agreed.key_block_protection.expose_bytes()),
    })))
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
