//! Steps 3 and 4 of a re-key in one: new keys under the update key of the AES keys that serve.

use super::begin::{NO_KEYS, Way, broken, go_on_or_anew, name};
use super::deliver::{deliver, give_again, shown, state_error};
use super::exchange::{Answered, Exchange, Opened, Opening, open};
use super::payload_field;
use super::profile::Profile;
use super::proof::{Proven, disbelieve, judge_again};
use super::record::{Answer, ConfirmationKeys, KeySet, Phase, Terminal};
use super::step::{Happened, advance, fail, profile_of, with_remedy};
use crate::activation::payload::{Payload, Update, UpdateAnswer};
use crate::activation::update::Renewal;
use crate::activation::{Call, Step, Transcript};
use crate::command::{Error, InitialKey, Ksn, retrying};
use crate::key::Algorithm;
use crate::key::usage::BaseDerivation;
use crate::vault::{Action, Caller, KeyState, Operation, Reason, StoredKey, Vault, Work};

/// What to do where the keys that serve may carry no others.
const NOT_UNDER_THESE: &str = "these keys may carry no others: begin an activation";

/// Gives a terminal new keys under the update key of those that serve (ANSI X9.24-3:2017, 6.5.4).
///
/// What vouches for the terminal are the keys that it has; its certificate is judged again all the
/// same. Towards these keys there is no forward secrecy: who has them reads the new ones.
pub async fn update_keys(
    vault: &Vault,
    caller: &Caller,
    request: &Exchange,
) -> Result<Answer, Error> {
    retrying(|| update_once(vault, caller, request)).await
}

async fn update_once(vault: &Vault, caller: &Caller, request: &Exchange) -> Result<Answer, Error> {
    let update = Update::parse(&request.signed.payload).map_err(payload_field)?;
    let what = (Action::UpdateKeys, Call::UpdateKeys, Step::Update);
    let mut opened = match open(vault, caller, what, request).await? {
        Opening::Answered(answered) => return again(vault, *answered).await,
        Opening::Fresh(opened) => opened,
    };
    let (terminal, now) = (&opened.terminal.record, opened.work.now());
    if !serves(terminal, &opened.bdk.record().version_name(), &request.ksn) {
        let error = state_error(terminal, "these keys are replaced: use those that serve");
        return Err(fail(opened.work, opened.terminal, error).await);
    }
    if !terminal.update_key_allowed {
        let error = state_error(terminal, "this re-key asks for a new activation: begin one");
        return Err(fail(opened.work, opened.terminal, error).await);
    }
    let device = match judge_again(vault, terminal, &opened.activation.record, now).await {
        Ok(device) => device,
        Err(disbelief) => return Err(disbelieve(opened.work, opened.terminal, disbelief).await),
    };
    let carriers = terminal.keys.as_ref().map(KeySet::carriers).unwrap_or_default();
    if let Err(error) = expect_carriers(vault, &mut opened.work, &carriers).await {
        return Err(fail(opened.work, opened.terminal, error).await);
    }
    let profile = profile_of(vault, &opened.terminal.record).await?;
    let operation = Operation::DeriveInitial;
    match vault.key::<BaseDerivation>(&profile.base_derivation_key, operation).await {
        Ok(bdk) => {
            let means = (&bdk, &device, &profile);
            hand_out(vault, opened, means, carriers, &update, request).await
        }
        Err(error) => {
            let error = with_remedy(error, NO_KEYS);
            Err(fail(opened.work, opened.terminal, error).await)
        }
    }
}

/// Makes the commit depend on the keys that carry others: see `Activation::carried_by`. The first,
/// which carries them now, must give out keys itself: one that is compromised carries none, though
/// it may serve transactions for a time. The others may have ended as keys do, but not have become
/// known: who knows one of them has read all that followed.
pub(super) async fn expect_carriers(
    vault: &Vault,
    work: &mut Work,
    carriers: &[String],
) -> Result<(), Error> {
    for (index, name) in carriers.iter().enumerate() {
        let key = vault.key_record(name).await?;
        let allowed = if index == 0 {
            key.record.check(Operation::DeriveInitial, work.now())
        } else if key.record.state == KeyState::Compromised {
            Err(Reason::KeyNotActive)
        } else {
            Ok(())
        };
        allowed.map_err(|reason| with_remedy(reason, NOT_UNDER_THESE))?;
        work.expects(&key);
    }
    Ok(())
}

/// The very bytes that were answered before; the device may be denied since, or their time be over.
async fn again(vault: &Vault, answered: Answered) -> Result<Answer, Error> {
    let Answered { mut work, terminal, activation, answer } = answered;
    let judged = judge_again(vault, &terminal.record, &activation.record, work.now()).await;
    if let Err(disbelief) = judged {
        return Err(disbelieve(work, terminal, disbelief).await);
    }
    match expect_carriers(vault, &mut work, &activation.record.carried_by).await {
        Ok(()) => give_again(vault, work, terminal, activation, answer).await,
        Err(error) => Err(fail(work, terminal, error).await),
    }
}

/// Whether a KSN is of the keys that serve: those before a re-key have their grace for
/// transactions, and give out no keys.
fn serves(terminal: &Terminal, name_of_bdk: &str, ksn: &Ksn) -> bool {
    terminal.keys.as_ref().is_some_and(|keys| {
        keys.base_derivation_key == name_of_bdk && keys.initial_key_id == ksn.initial_key_id()
    })
}

async fn hand_out(
    vault: &Vault,
    mut opened: Box<Opened>,
    (bdk, device, profile): (&StoredKey<BaseDerivation>, &Proven, &Profile),
    carried_by: Vec<String>,
    update: &Update,
    request: &Exchange,
) -> Result<Answer, Error> {
    let InitialKey::Aes(serving, ksn) = &opened.initial_key else {
        return Err(opened.refuse(Error::ksn("ksn")).await);
    };
    let kind = opened.initial_key.kind();
    let underivable = |_| broken("the initial key derives no update key");
    let update_key = serving.update_key(kind).map_err(underivable)?;
    let derivation_key = serving.working_key(ksn, kind).map_err(underivable)?;

    let chain = opened.activation.record.certificate_chain.clone();
    let suite = opened.activation.record.suite;
    let way = Way { suite, carried_by };
    let last = Some(opened.activation);
    let work = &mut opened.work;
    let terminal = &mut opened.terminal.record;
    let mut activation = match go_on_or_anew(work, terminal, last, bdk, way).await {
        Ok(activation) => activation,
        Err(error) => {
            let error = with_remedy(error, NO_KEYS);
            return Err(fail(opened.work, opened.terminal, error).await);
        }
    };
    let strength_bits = update_key.algorithm().strength_bits();
    let protection =
        (&update_key, |algorithm: Algorithm| algorithm.strength_bits() <= strength_bits);
    let handed = deliver(vault, work, (bdk, profile), &mut activation.record, protection).await;
    let keys = match handed {
        Ok(keys) => keys,
        Err(error) => return Err(fail(opened.work, opened.terminal, error).await),
    };
    let note = format!(
        "activation {}, initial key id {}, {}, under the update key",
        activation.record.number,
        data_encoding::HEXUPPER.encode(&activation.record.initial_key_id),
        shown(&activation.record),
    );
    let activation_name = name(&activation.record)?;
    let confirmation_keys = Renewal {
        activation: &activation_name,
        nonce: &update.nonce,
        initial_key_id: &activation.record.initial_key_id,
    }
    .confirmation_keys(&derivation_key)
    .map_err(|_| broken("the initial key derives no confirmation keys"))?;
    activation.record.confirmation_keys = Some(ConfirmationKeys {
        terminal: *confirmation_keys.terminal.expose_bytes(),
        service: *confirmation_keys.service.expose_bytes(),
    });
    activation.record.certificate_chain = chain;
    activation.record.phase = Phase::Delivered;
    let payload = UpdateAnswer { activation: activation_name, keys }.encode();
    let transcript = Transcript::new().with(&request.signed.payload).with(&payload);
    activation.record.transcript = transcript.state().to_vec();
    let state = terminal.state;
    advance(work, terminal, state, Happened::done("UpdateKeys", note));
    work.uses(bdk);
    device.expected_by(work, terminal);
    opened.activation = activation;
    opened.answer(request, payload).await
}
