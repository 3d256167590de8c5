//! Step 4: the keys of the session, and the delivered keys as key blocks under them.

use super::begin::{NO_IDENTITY, NO_KEYS, broken, name};
use super::profile::Profile;
use super::proof::{Message, Proven, disbelieve, judge_again, prove};
use super::record::{Activation, Answer, ConfirmationKeys, Phase, Terminal};
use super::step::{Happened, advance, check, fail, profile_of, read_terminal, with_remedy};
use super::{Signed, payload_field, terminal_keys};
use crate::activation::payload::{Deliver, DeliverAnswer, DeliveredKey, Payload};
use crate::activation::{Call, State, Step, Transcript};
use crate::agreement::{Agreement, SessionKeys};
use crate::command::initial_key::InitialKeyId;
use crate::command::{Error, give_up, refuse, repeated, retrying};
use crate::crypto::ec::{EphemeralKey, Point};
use crate::key::usage::BaseDerivation;
use crate::key::{Algorithm, Key};
use crate::keyblock::{self, Version, WrappingUsage};
use crate::vault::{
    Action, Caller, Operation, Reason, StoredKey, UnixMillis, Vault, Versioned, Work,
};

/// What to do where the keys beside the initial key can not be derived, or not be carried.
const NO_TERMINAL_KEYS: &str = "the profile's keys can not be given out: ask the acquirer";

/// The slot of the initial DUKPT key.
const SLOT: u32 = 0;

/// Delivers the keys of an activation.
///
/// The service's ephemeral key is made here, used once and gone with this call. The answer is kept,
/// sealed, and given again for the same payload until the keys are confirmed.
pub async fn deliver_keys(
    vault: &Vault,
    caller: &Caller,
    activation: (&str, u32),
    request: &Signed,
) -> Result<Answer, Error> {
    retrying(|| deliver_once(vault, caller, activation, request)).await
}

async fn deliver_once(
    vault: &Vault,
    caller: &Caller,
    (terminal_id, number): (&str, u32),
    request: &Signed,
) -> Result<Answer, Error> {
    let deliver = Deliver::parse(&request.payload).map_err(payload_field)?;
    let resource = format!("terminals/{terminal_id}");
    let work = vault.begin(caller, Action::DeliverKeys, resource).await?;
    let Some((terminal, activation)) = read(vault, terminal_id, number).await? else {
        return Err(refuse(work, Reason::ActivationRefused).await);
    };
    let kept = Activation::answered(activation.record.delivered.as_ref(), request);
    let before = activation.record.transcript().map_err(|_| broken("a transcript is none"))?;
    let chain = &activation.record.certificate_chain;
    let message = Message { chain, before: &before, step: Step::Deliver, signed: request };
    let now = work.now();
    let proven = match &kept {
        // The very bytes that were proven before; the device may be denied since.
        Some(_) => judge_again(vault, &terminal.record, &activation.record, now).await,
        None => prove(vault, &terminal.record, &message, now).await,
    };
    let device = match proven {
        Ok(device) => device,
        Err(disbelief) => return Err(disbelieve(work, terminal, disbelief).await),
    };
    let profile = profile_of(vault, &terminal.record).await?;
    if let Err(error) = check(&terminal.record, Call::DeliverKeys, profile.code_required) {
        return Err(give_up(work, error).await);
    }
    if let Some(answer) = kept {
        return give_again(vault, work, terminal, activation, answer).await;
    }
    if let Err(error) = check_session(&terminal.record, &activation.record, &deliver, now) {
        return Err(fail_session(work, terminal, error).await);
    }
    let session = Session { device, deliver, begun: before, profile };
    hand_out(vault, work, terminal, activation, session, request).await
}

/// Reads a terminal and the activation that it is in; none if that is another or there is none.
pub(super) async fn read(
    vault: &Vault,
    terminal_id: &str,
    number: u32,
) -> Result<Option<(Versioned<Terminal>, Versioned<Activation>)>, Error> {
    let terminal = match read_terminal(vault, terminal_id).await {
        Ok(terminal) => terminal,
        Err(error) if error.reason() == Reason::TerminalNotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if terminal.record.activation != number {
        return Ok(None);
    }
    let id = Activation::id_of(terminal_id, number);
    let activation = vault.get::<Activation>(&id).await?;
    Ok(activation.map(|activation| (terminal, activation)))
}

/// Gives the kept answer again, for as long as it is kept and its base derivation key may give out
/// keys.
pub(super) async fn give_again(
    vault: &Vault,
    mut work: Work,
    terminal: Versioned<Terminal>,
    mut activation: Versioned<Activation>,
    answer: Answer,
) -> Result<Answer, Error> {
    if !activation.record.forget_late_delivery(work.now()) {
        let bdk = vault.key_record(&activation.record.base_derivation_key).await?.record;
        return match bdk.check(Operation::DeriveInitial, work.now()) {
            Ok(()) => repeated(work, answer).await,
            Err(reason) => Err(fail(work, terminal, with_remedy(reason, NO_KEYS)).await),
        };
    }
    work.put(&activation)?;
    let error = expired(&terminal.record);
    Err(fail(work, terminal, error).await)
}

/// Refuses a step of a session; that another activation is named is told to nobody.
pub(super) async fn fail_session(work: Work, terminal: Versioned<Terminal>, error: Error) -> Error {
    if error.reason() == Reason::ActivationRefused {
        refuse(work, error).await
    } else {
        fail(work, terminal, error).await
    }
}

/// The time of an activation, or of what it keeps, is over.
fn expired(terminal: &Terminal) -> Error {
    state_error(terminal, "the activation has expired: begin again")
}

/// The terminal's activation does not allow a step that its state allows.
pub(super) fn state_error(terminal: &Terminal, remedy: &str) -> Error {
    Error::Refused {
        reason: Reason::ActivationState,
        metadata: vec![
            ("state", terminal.state.as_str().to_owned()),
            ("remedy", remedy.to_owned()),
        ],
    }
}

/// A session delivers once, within its time.
fn check_session(
    terminal: &Terminal,
    activation: &Activation,
    deliver: &Deliver,
    now: UnixMillis,
) -> Result<(), Error> {
    if deliver.activation.as_str() != activation.name() {
        return Err(Error::refused(Reason::ActivationRefused));
    }
    if now > activation.expires {
        return Err(expired(terminal));
    }
    if activation.phase != Phase::Begun {
        let remedy = "this session has delivered its keys: repeat the same request, or begin again";
        return Err(state_error(terminal, remedy));
    }
    Ok(())
}

/// A session whose device asks for its keys.
struct Session {
    device: Proven,
    deliver: Deliver,
    /// The transcript through `BeginAnswer`.
    begun: Transcript,
    profile: Profile,
}

impl Session {
    /// The keys of the session, and the service's ephemeral key where they are agreed.
    fn keys(
        &self,
        activation: &Activation,
        transcript: &Transcript,
    ) -> Result<(Option<Point>, SessionKeys), Error> {
        match (&self.device, &self.deliver.device_ephemeral) {
            (Proven::Certificate, Some(device_ephemeral)) => {
                let ephemeral = EphemeralKey::generate();
                let ephemeral = ephemeral.map_err(|_| broken("no ephemeral key"))?;
                let service_ephemeral = ephemeral.public();
                let secret = ephemeral.agree(device_ephemeral);
                let agreement = Agreement {
                    suite: activation.suite,
                    transcript_hash: &transcript.hash(),
                    device_ephemeral,
                    service_ephemeral: &service_ephemeral,
                };
                Ok((Some(service_ephemeral), agreement.derive(secret)))
            }
            (Proven::MasterKey(held), None) => Ok((None, held.session_keys(&self.begun.hash())?)),
            (Proven::Certificate, None) | (Proven::MasterKey(_), Some(_)) => {
                Err(Error::field("payload.device_ephemeral", "is missing or invalid"))
            }
        }
    }
}

async fn hand_out(
    vault: &Vault,
    mut work: Work,
    mut terminal: Versioned<Terminal>,
    mut activation: Versioned<Activation>,
    session: Session,
    request: &Signed,
) -> Result<Answer, Error> {
    let name_of_bdk = activation.record.base_derivation_key.clone();
    let bdk = match vault.key::<BaseDerivation>(&name_of_bdk, Operation::DeriveInitial).await {
        Ok(bdk) => bdk,
        Err(error) => return Err(fail(work, terminal, with_remedy(error, NO_KEYS)).await),
    };
    let voice = match session.device.voice(vault).await {
        Ok(voice) => voice,
        Err(error) => return Err(fail(work, terminal, with_remedy(error, NO_IDENTITY)).await),
    };
    let mut transcript = session.begun.with(&request.payload);
    let (service_ephemeral, keys) = match session.keys(&activation.record, &transcript) {
        Ok(established) => established,
        Err(error) => return Err(give_up(work, error).await),
    };
    // The agreement may be weaker than the key that is derived from it.
    let protection = (&keys.key_block_protection, |algorithm| keys.carry(algorithm));
    let handed =
        deliver(vault, &mut work, (&bdk, &session.profile), &mut activation.record, protection);
    let delivered = match handed.await {
        Ok(delivered) => delivered,
        Err(error) => return Err(fail(work, terminal, error).await),
    };
    activation.record.confirmation_keys = Some(ConfirmationKeys {
        terminal: *keys.confirm_terminal.expose_bytes(),
        service: *keys.confirm_service.expose_bytes(),
    });
    let activation_name = name(&activation.record)?;
    let payload =
        DeliverAnswer { activation: activation_name, service_ephemeral, keys: delivered }.encode();
    transcript.absorb(&payload);
    let proof = voice.prove(&session.begun.hash(), &transcript, Step::Deliver)?;
    let answer = Answer::to(request, payload, proof, work.now());
    activation.record.transcript = transcript.state().to_vec();
    activation.record.phase = Phase::Delivered;
    activation.record.delivered = Some(answer.clone());
    let to = match terminal.record.state {
        State::Rekeying => State::Rekeying,
        _ => State::KeysDelivered,
    };
    let version = char::from(block_version(&keys.key_block_protection)?.letter());
    let note = format!("{}, version {version} key blocks", shown(&activation.record));
    advance(&mut work, &mut terminal.record, to, Happened::done("DeliverKeys", note));
    work.uses(&bdk);
    session.device.expected_by(&mut work, &terminal.record);
    work.put(&activation)?;
    work.put(&terminal)?;
    work.commit().await?;
    Ok(answer)
}

/// The keys of an activation: the initial key, and those that the profile gives beside it. They are
/// wrapped under the session's key, or under the update key of the keys before; their check values
/// are what the terminal has to confirm.
pub(super) async fn deliver<U: WrappingUsage>(
    vault: &Vault,
    work: &mut Work,
    (bdk, profile): (&StoredKey<BaseDerivation>, &Profile),
    activation: &mut Activation,
    (protection, carries): (&Key<U>, impl Fn(Algorithm) -> bool),
) -> Result<Vec<DeliveredKey>, Error> {
    if !carries(bdk.key().algorithm()) {
        return Err(with_remedy(Reason::WrappingKeyTooWeak, NO_KEYS));
    }
    let mut keys = vec![initial_key(vault, bdk, activation, protection)?];
    let protection = (protection, carries);
    let terminal_keys = terminal_keys::deliver(vault, work, profile, activation, protection).await;
    keys.extend(terminal_keys.map_err(|error| with_remedy(error, NO_TERMINAL_KEYS))?);
    activation.check_values = keys.iter().map(|key| (key.slot, key.check_value.clone())).collect();
    Ok(keys)
}

/// The check values of what was delivered, by slot, for a timeline.
pub(super) fn shown(activation: &Activation) -> String {
    let values = activation.check_values.iter().map(|(slot, value)| {
        let value = data_encoding::HEXUPPER.encode(value);
        if *slot == SLOT { format!("initial key {value}") } else { format!("slot {slot} {value}") }
    });
    format!("check values: {}", values.collect::<Vec<_>>().join(", "))
}

/// Derives the initial key of the allocated id and wraps it.
fn initial_key<U: WrappingUsage>(
    vault: &Vault,
    bdk: &StoredKey<BaseDerivation>,
    activation: &Activation,
    protection: &Key<U>,
) -> Result<DeliveredKey, Error> {
    let id = InitialKeyId::parse(&activation.initial_key_id);
    let id = id.ok_or_else(|| broken("no initial key id"))?;
    let key = id.derive(bdk.key())?;
    let header = id.header(block_version(protection)?, &key)?;
    let wrapped = keyblock::wrap_key(protection, &header, &key, vault.rng())
        .map_err(|_| broken("the initial key does not wrap"))?;
    Ok(DeliveredKey {
        slot: SLOT,
        usage: *b"B1",
        key_block: wrapped.as_str().to_owned(),
        initial_key_id: id.bytes().to_vec(),
        check_value: key.check_value().bytes().to_vec(),
    })
}

/// The version of key blocks that a key wraps.
pub(super) fn block_version<U: WrappingUsage>(protection: &Key<U>) -> Result<Version, Error> {
    Version::under(protection.algorithm())
        .ok_or_else(|| broken("the protection key wraps no key blocks"))
}
