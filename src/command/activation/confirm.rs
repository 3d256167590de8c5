//! Step 5: both sides prove that they hold the same keys; only then do the keys serve.

use super::begin::{broken, name};
use super::deliver::read;
use super::proof::judge_again;
use super::record::{Activation, Answer, ConfirmationKeys, KeyIndex, KeySet, Phase, Terminal};
use super::step::{Happened, advance, check, check_again, profile_of};
use super::{Signed, payload_field};
use crate::activation::payload::{Confirm, ConfirmAnswer, Payload};
use crate::activation::{Call, State, Transcript, confirmation};
use crate::agreement::ConfirmationKey;
use crate::command::{Error, refuse, retrying};
use crate::vault::{Action, Caller, Reason, Vault, Versioned, Work};

/// Confirms the keys of an activation.
pub async fn confirm_keys(
    vault: &Vault,
    caller: &Caller,
    activation: (&str, u32),
    request: &Signed,
) -> Result<Answer, Error> {
    retrying(|| confirm_once(vault, caller, activation, request)).await
}

async fn confirm_once(
    vault: &Vault,
    caller: &Caller,
    (terminal_id, number): (&str, u32),
    request: &Signed,
) -> Result<Answer, Error> {
    let confirm = Confirm::parse(&request.payload).map_err(payload_field)?;
    let resource = format!("terminals/{terminal_id}");
    let work = vault.begin(caller, Action::ConfirmKeys, resource).await?;
    let Some((terminal, activation)) = read(vault, terminal_id, number).await? else {
        return Err(refuse(work, Reason::ActivationRefused).await);
    };
    if let Some(answer) = Activation::answered(activation.record.confirmed.as_ref(), request) {
        return match check_again(&terminal.record, Call::ConfirmKeys) {
            Ok(()) => Ok(answer),
            Err(error) => Err(refuse(work, error).await),
        };
    }
    // Without delivered keys there is nothing that a proof could be checked with.
    let Some(keys) = activation.record.confirmation_keys.clone() else {
        return Err(refuse(work, Reason::ActivationRefused).await);
    };
    let before = activation.record.transcript().map_err(|_| broken("a transcript is none"))?;
    let transcript = before.with(&request.payload);
    let key = ConfirmationKey::from_bytes(keys.terminal);
    if confirmation::verify_terminal_mac(&key, &transcript, &request.proof).is_err() {
        return Err(refuse(work, Reason::ActivationRefused).await);
    }
    let now = work.now();
    let chain = &activation.record.certificate_chain;
    if let Err(disbelief) = judge_again(vault, &terminal.record, chain, now).await {
        return Err(refuse(work, disbelief).await);
    }
    let profile = profile_of(vault, &terminal.record).await?;
    let expired = now > activation.record.expires;
    let allowed = check(&terminal.record, Call::ConfirmKeys, profile.code_required)
        .and_then(|()| check_confirmation(&terminal.record, &activation.record, &confirm, expired));
    if let Err(error) = allowed {
        return Err(refuse(work, error).await);
    }
    let grace_ms = profile.rekey_grace_ms;
    let parts = (terminal, activation);
    serve(work, parts, &keys, transcript, request, grace_ms).await
}

/// The terminal must name every key that it was sent, with the check value it was sent with.
fn check_confirmation(
    terminal: &Terminal,
    activation: &Activation,
    confirm: &Confirm,
    expired: bool,
) -> Result<(), Error> {
    if confirm.activation.as_str() != activation.name() {
        return Err(Error::refused(Reason::ActivationRefused));
    }
    let loaded: Vec<(u32, &[u8])> =
        confirm.keys.iter().map(|key| (key.slot, key.check_value.as_slice())).collect();
    let sent: Vec<(u32, &[u8])> =
        activation.check_values.iter().map(|(slot, value)| (*slot, value.as_slice())).collect();
    let remedy = if expired {
        "the activation has expired: begin again"
    } else if loaded != sent {
        "the terminal loaded other keys than it was sent: begin again"
    } else {
        return Ok(());
    };
    Err(Error::Refused {
        reason: Reason::ActivationState,
        metadata: vec![
            ("state", terminal.state.as_str().to_owned()),
            ("remedy", remedy.to_owned()),
        ],
    })
}

/// Lets the keys serve, on both sides, and drops what the session kept.
async fn serve(
    mut work: Work,
    (mut terminal, mut activation): (Versioned<Terminal>, Versioned<Activation>),
    keys: &ConfirmationKeys,
    mut transcript: Transcript,
    request: &Signed,
    grace_ms: u64,
) -> Result<Answer, Error> {
    let payload = ConfirmAnswer { activation: name(&activation.record)? }.encode();
    transcript.absorb(&payload);
    let key = ConfirmationKey::from_bytes(keys.service);
    let mac = confirmation::service_mac(&key, &transcript);
    let answer = Answer::to(request, payload, mac.to_vec());

    let check_value = activation.record.check_values.first().map(|(_, value)| value.clone());
    let keys = KeySet {
        base_derivation_key: activation.record.base_derivation_key.clone(),
        initial_key_id: activation.record.initial_key_id.clone(),
        check_value: check_value.unwrap_or_default(),
    };
    work.put(&Versioned::absent(KeyIndex {
        base_derivation_key: keys.base_derivation_key.clone(),
        initial_key_id: keys.initial_key_id.clone(),
        terminal: terminal.record.id.clone(),
    }))?;
    activation.record.phase = Phase::Confirmed;
    activation.record.confirmed = Some(answer.clone());
    // The wrapped keys and the code are of no more use to anybody.
    (activation.record.begun, activation.record.delivered) = (None, None);
    activation.record.forget_session();

    let to = match terminal.record.state {
        State::Rekeying => State::Active,
        _ => State::KeysConfirmed,
    };
    let note = format!("check value {}", data_encoding::HEXUPPER.encode(&keys.check_value));
    terminal.record.code = None;
    let until = work.now().plus_ms(grace_ms);
    terminal.record.keys_before = terminal.record.keys.replace(keys).map(|keys| (keys, until));
    advance(&mut work, &mut terminal.record, to, Happened::done("ConfirmKeys", note));
    work.put(&activation)?;
    work.put(&terminal)?;
    work.commit().await?;
    Ok(answer)
}
