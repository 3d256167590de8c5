//! Step 5: both sides prove that they hold the same keys; only then do the keys serve.

use super::begin::{NO_KEYS, broken, name};
use super::deliver::{fail_session, read, state_error};
use super::index::KeyIndex;
use super::proof::{disbelieve, judge_again};
use super::record::{Activation, Answer, ConfirmationKeys, KeySet, Phase, Terminal};
use super::step::{Happened, advance, check, fail, profile_of, with_remedy};
use super::update::expect_carriers;
use super::{Signed, payload_field};
use crate::activation::payload::{Confirm, ConfirmAnswer, Payload};
use crate::activation::{Call, Role, State, Step, Transcript, confirmation};
use crate::agreement::ConfirmationKey;
use crate::command::{Error, give_up, refuse, repeated, retrying};
use crate::vault::{Action, Caller, Operation, Reason, Vault, Versioned, Work};

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
    let mut work = vault.begin(caller, Action::ConfirmKeys, resource).await?;
    let Some((terminal, mut activation)) = read(vault, terminal_id, number).await? else {
        return Err(refuse(work, Reason::ActivationRefused).await);
    };
    let Some(proven) = prove(&activation.record, request)? else {
        return Err(refuse(work, Reason::ActivationRefused).await);
    };
    let now = work.now();
    let device = match judge_again(vault, &terminal.record, &activation.record, now).await {
        Ok(device) => device,
        Err(disbelief) => return Err(disbelieve(work, terminal, disbelief).await),
    };
    let profile = profile_of(vault, &terminal.record).await?;
    if let Err(error) = check(&terminal.record, Call::ConfirmKeys, profile.code_required) {
        return Err(give_up(work, error).await);
    }
    let (keys, transcript) = match proven {
        Proven::Now(keys, transcript) => (keys, transcript),
        Proven::Before(answer) => return repeated(work, answer).await,
    };
    let expired = now > activation.record.expires;
    if let Err(error) = check_confirmation(&terminal.record, &activation.record, &confirm, expired)
    {
        if activation.record.forget_late_delivery(now) {
            work.put(&activation)?;
        }
        return Err(fail_session(work, terminal, error).await);
    }
    if let Err(error) = expect_keys(vault, &mut work, &activation.record).await {
        return Err(fail(work, terminal, error).await);
    }
    device.expected_by(&mut work, &terminal.record);
    let grace_ms = profile.rekey_grace_ms;
    let parts = (terminal, activation);
    serve(work, parts, &keys, transcript, request, grace_ms).await
}

/// What a confirmation is proven by.
enum Proven {
    /// It is the one that was answered before.
    Before(Answer),
    /// Its MAC verifies under the key of this session; its transcript.
    Now(ConfirmationKeys, Transcript),
}

/// Proves a confirmation; without delivered keys there is nothing to prove it with.
fn prove(activation: &Activation, request: &Signed) -> Result<Option<Proven>, Error> {
    if let Some(answer) = Activation::answered(activation.confirmed.as_ref(), request) {
        return Ok(Some(Proven::Before(answer)));
    }
    let Some(keys) = activation.confirmation_keys.clone() else { return Ok(None) };
    let before = activation.transcript().map_err(|_| broken("a transcript is none"))?;
    let transcript = before.with(&request.payload);
    let key = ConfirmationKey::from_bytes(keys.terminal);
    let message = (Role::Terminal, Step::Confirm);
    let verified = confirmation::verify(&key, message, &transcript, &request.proof);
    Ok(verified.is_ok().then_some(Proven::Now(keys, transcript)))
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
    Err(state_error(terminal, remedy))
}

/// Keys that others may have come to know since they were sent do not begin to serve: what they
/// were derived from and what carried them must be able to do so in the commit still.
async fn expect_keys(vault: &Vault, work: &mut Work, activation: &Activation) -> Result<(), Error> {
    let bdk = vault.key_record(&activation.base_derivation_key).await?;
    let allowed = bdk.record.check(Operation::DeriveInitial, work.now());
    allowed.map_err(|reason| with_remedy(reason, NO_KEYS))?;
    work.expects(&bdk);
    expect_carriers(vault, work, &activation.carried_by).await
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
    let mac = confirmation::mac(&key, (Role::Service, Step::Confirm), &transcript);
    let answer = Answer::to(request, payload, mac.to_vec(), work.now());

    let check_value = activation.record.check_values.first().map(|(_, value)| value.clone());
    let keys = KeySet {
        base_derivation_key: activation.record.base_derivation_key.clone(),
        initial_key_id: activation.record.initial_key_id.clone(),
        check_value: check_value.unwrap_or_default(),
        terminal_keys: std::mem::take(&mut activation.record.terminal_keys),
        carried_by: activation.record.carried_by.clone(),
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
    terminal.record.update_key_allowed = false;
    let until = work.now().plus_ms(grace_ms);
    terminal.record.keys_before = terminal.record.keys.replace(keys).map(|keys| (keys, until));
    advance(&mut work, &mut terminal.record, to, Happened::done("ConfirmKeys", note));
    work.put(&activation)?;
    work.put(&terminal)?;
    work.commit().await?;
    Ok(answer)
}
