//! An exchange under a transaction key: request and answer MACed under one KSN.

use super::Signed;
use super::index::KeyIndex;
use super::record::{Activation, Answer, KeyStanding, Terminal};
use super::step::{check, check_again, read_terminal, unless_worse};
use crate::activation::{Call, Role, Step, Transcript};
use crate::command::{Error, InitialKey, Ksn, MacKey, give_up, is_ours, refuse};
use crate::key::usage::BaseDerivation;
use crate::mac::MacAlgorithm;
use crate::vault::{
    self, Action, Caller, Claim, ClaimRequest, KeyRecord, Operation, Purpose, Reason, StoredKey,
    UnixMillis, Vault, Versioned, Work,
};

use super::begin::broken;

/// A message of a terminal under a transaction key.
#[derive(Clone)]
pub struct Exchange {
    /// The key serial number.
    pub ksn: Ksn,
    /// The payload and its MAC.
    pub signed: Signed,
}

/// A request whose MAC verified, and what is needed to answer it.
pub(super) struct Opened {
    pub(super) work: Work,
    pub(super) terminal: Versioned<Terminal>,
    pub(super) activation: Versioned<Activation>,
    pub(super) initial_key: InitialKey,
    pub(super) bdk: StoredKey<BaseDerivation>,
    transcript: Transcript,
    step: Step,
}

/// A request whose MAC verified, and which was answered before.
pub(super) struct Answered {
    pub(super) work: Work,
    pub(super) terminal: Versioned<Terminal>,
    pub(super) activation: Versioned<Activation>,
    /// The same bytes again.
    pub(super) answer: Answer,
}

/// What opening a request leads to.
pub(super) enum Opening {
    /// It was answered before.
    Answered(Box<Answered>),
    /// It is new.
    Fresh(Box<Opened>),
}

/// Finds the terminal of a KSN, verifies the MAC, then claims the counter.
///
/// Until the MAC verifies nothing is counted, nothing is spent, and whatever is wrong looks the
/// same from outside: an unknown KSN, a base derivation key out of use, a wrong MAC.
pub(super) async fn open(
    vault: &Vault,
    caller: &Caller,
    (action, call, step): (Action, Call, Step),
    request: &Exchange,
) -> Result<Opening, Error> {
    let mut work = vault.begin(caller, action, "terminals").await?;
    let Some((name_of_bdk, terminal)) = terminal_of(vault, &request.ksn, work.now()).await? else {
        return Err(refuse(work, Reason::ActivationRefused).await);
    };
    let bdk = match vault.key::<BaseDerivation>(&name_of_bdk, Operation::DeriveWorking).await {
        Ok(bdk) => bdk,
        Err(vault::Error::Refused(_)) => {
            return Err(refuse(work, Reason::ActivationRefused).await);
        }
        Err(error) => return Err(give_up(work, error).await),
    };
    let initial_key = InitialKey::derive(bdk.key(), &request.ksn)
        .map_err(|_| broken("the base derivation key does not fit its terminal"))?;
    let transcript = Transcript::new().with(&request.signed.payload);
    let input = transcript.authenticated_input(Role::Terminal, step);
    let key = mac_key(&initial_key, Role::Terminal)?;
    // In full length, 8 or 16 octets: nobody forges it by trying, so there is nothing to count.
    if key.verify_mac(algorithm(&key), &input, &request.signed.proof).is_err() {
        return Err(refuse(work, Reason::ActivationRefused).await);
    }
    work.set_resource(terminal.record.name());
    if let Err(error) = vault.rates().take_terminal(&terminal.record.id) {
        return Err(give_up(work, error).await);
    }
    work.uses(&bdk);
    let id = Activation::id_of(&terminal.record.id, terminal.record.activation);
    let activation = vault.get::<Activation>(&id).await?;
    let activation = activation.ok_or_else(|| broken("a terminal with keys has no activation"))?;
    let kept = activation.record.kept(step);
    if let Some(answer) = Activation::answered(kept, &request.signed) {
        if let Err(error) = check_again(&terminal.record, call) {
            return Err(give_up(work, error).await);
        }
        return Ok(Opening::Answered(Box::new(Answered { work, terminal, activation, answer })));
    }
    let input = Transcript::new().with(&request.signed.payload).with(&request.signed.proof).hash();
    match claim(&mut work, bdk.record(), (&request.ksn, Purpose::MacRequest), &input).await {
        Ok(Claim::Fresh) => work.accept(Purpose::MacRequest),
        // Its answer is no longer kept, so it is not computed again either.
        Ok(Claim::Repeat) => return Err(refuse(work, Reason::KsnReplayed).await),
        Ok(Claim::Spent) => {
            // Two messages of the terminal under one counter: the commit refuses and raises the
            // alarm.
            work.accept(Purpose::MacRequest);
            let refused = work.commit().await;
            return Err(refused.map_or_else(Error::from, |_| Reason::KsnReplayed.into()));
        }
        Err(error) => return Err(give_up(work, error).await),
    }
    // From here on the message is the terminal's own, and its counter spent whatever follows.
    if let Err(error) = check(&terminal.record, call, true) {
        let refused = work.commit_refused(error.reason()).await;
        return Err(unless_worse(refused, error));
    }
    let opened = Opened { work, terminal, activation, initial_key, bdk, transcript, step };
    Ok(Opening::Fresh(Box::new(opened)))
}

impl Opened {
    /// Refuses a message that is the terminal's own: its counter stays spent. A fault of ours
    /// spends nothing.
    pub(super) async fn refuse(self, error: Error) -> Error {
        if is_ours(&error) {
            return error;
        }
        let refused = self.work.commit_refused(error.reason()).await;
        unless_worse(refused, error)
    }

    /// MACs the answer under the KSN's response key, keeps it and commits everything.
    ///
    /// The response key of a counter makes one message here too: who has had another one made with
    /// it gets `KSN_REPLAYED`, and the terminal goes on with its next counter.
    pub(super) async fn answer(
        mut self,
        request: &Exchange,
        payload: Vec<u8>,
    ) -> Result<Answer, Error> {
        self.transcript.absorb(&payload);
        let input = self.transcript.authenticated_input(Role::Service, self.step);
        let ksn = &request.ksn;
        let purpose = Purpose::MacResponse;
        match claim(&mut self.work, self.bdk.record(), (ksn, purpose), &input).await {
            Ok(_) => {}
            Err(Error::Vault(vault::Error::Refused(reason))) => {
                return Err(self.refuse(reason.into()).await);
            }
            Err(error) => return Err(error),
        }
        let key = mac_key(&self.initial_key, Role::Service)?;
        let algorithm = algorithm(&key);
        let mac = key
            .generate_mac(algorithm, &input, algorithm.len_bytes())
            .map_err(|_| broken("the response key makes no MAC"))?;
        let now = self.work.now();
        let answer = Answer::to(&request.signed, payload, mac.bytes().to_vec(), now);
        *self.activation.record.kept_mut(self.step) = Some(answer.clone());
        self.work.put(&self.activation)?;
        self.work.put(&self.terminal)?;
        self.work.commit().await?;
        Ok(answer)
    }
}

/// The terminal whose confirmed initial key a KSN belongs to, and the name of its base derivation
/// key: the keys that serve, or for their time those before a re-key.
pub async fn terminal_of(
    vault: &Vault,
    ksn: &Ksn,
    now: UnixMillis,
) -> Result<Option<(String, Versioned<Terminal>)>, Error> {
    let Some(bdk) = vault.key_of_set(&ksn.key_set_id()).await? else { return Ok(None) };
    let id = ksn.initial_key_id();
    let Some(index) = vault.get::<KeyIndex>(&KeyIndex::id_of(&bdk, &id)).await? else {
        return Ok(None);
    };
    let terminal = read_terminal(vault, &index.record.terminal).await?;
    let standing = terminal.record.standing_of(&bdk, &id, now);
    let serves = standing != KeyStanding::Replaced;
    Ok(serves.then_some((bdk, terminal)))
}

async fn claim(
    work: &mut Work,
    bdk: &KeyRecord,
    (ksn, purpose): (&Ksn, Purpose),
    input: &[u8],
) -> Result<Claim, Error> {
    Ok(work
        .claim(ClaimRequest {
            key_name: &bdk.name,
            key_version: bdk.version,
            initial_key_id: &ksn.initial_key_id(),
            purpose,
            rank: ksn.rank(),
            input,
            first_anywhere: false,
        })
        .await?)
}

/// The key of one side's MAC, of the algorithm of the initial key.
fn mac_key(initial_key: &InitialKey, role: Role) -> Result<MacKey, Error> {
    let direction = match role {
        Role::Terminal => crate::command::Direction::Request,
        Role::Service => crate::command::Direction::Response,
    };
    initial_key
        .mac_key(direction, initial_key.kind())
        .map_err(|_| broken("the initial key derives no MAC key"))
}

/// CMAC with the cipher of the key: it takes messages of any length.
fn algorithm(key: &MacKey) -> MacAlgorithm {
    if key.algorithm().is_tdes() { MacAlgorithm::TdesCmac } else { MacAlgorithm::AesCmac }
}
