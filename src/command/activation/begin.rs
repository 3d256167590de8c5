//! Step 3: the terminal shows its code and proves its device key; its key id is allocated.

use super::code;
use super::lifecycle::terminal_of_serial;
use super::profile::Profile;
use super::proof::{Disbelief, Message, Proven, Voice, disbelieve, prove};
use super::record::{Activation, Answer, LastBegin, Phase, Terminal};
use super::step::{
    Happened, advance, check, check_again, fail, profile_of, unless_worse, with_remedy,
};
use super::{Signed, payload_field};
use crate::activation::parameters::AcquirerId;
use crate::activation::payload::{ActivationName, Begin, BeginAnswer, CertificateChain, Payload};
use crate::activation::{Call, State, Step, Transcript};
use crate::agreement::Suite;
use crate::command::initial_key::InitialKeyId;
use crate::command::{Error, give_up, manage_trust, refuse, repeated, retrying};
use crate::crypto::{constant_time_eq, digest};
use crate::key::usage::BaseDerivation;
use crate::vault::{
    self, Action, Caller, Operation, Reason, StoredKey, UnixMillis, Vault, Versioned, Work,
};

/// How long an activation lives: one hour.
const LIFETIME_MS: u64 = 60 * 60 * 1_000;

/// Begins an activation, or begins its session anew.
///
/// The same bytes get the same answer. Other nonces from the same device end the session that there
/// was and begin another with the same initial key id.
pub async fn begin_activation(
    vault: &Vault,
    caller: &Caller,
    request: &Signed,
) -> Result<Answer, Error> {
    retrying(|| begin_once(vault, caller, request)).await
}

async fn begin_once(vault: &Vault, caller: &Caller, request: &Signed) -> Result<Answer, Error> {
    let begin = Begin::parse(&request.payload).map_err(payload_field)?;
    let serial = begin.serial.as_str();
    let work = vault.begin(caller, Action::BeginActivation, "terminals").await?;
    // A serial that nobody registered looks like a wrong signature.
    let Some(terminal) = terminal_of_serial(vault, serial).await? else {
        return Err(refuse(work, Disbelief::Unproven).await);
    };
    let now = work.now();
    let freshness = Freshness::of(&terminal.record, &begin, request, now);
    let chain = begin.certificate_chain.as_ref().map_or(&[][..], CertificateChain::as_der);
    let before = &Transcript::new();
    let message = Message { chain, before, step: Step::Begin, signed: request };
    let device = match prove(vault, &terminal.record, &message, now).await {
        Ok(device) => device,
        // The device proved itself once; nobody writes its timeline by a replay of that.
        Err(disbelief) if freshness != Freshness::New => {
            return Err(give_up(work, disbelief).await);
        }
        Err(disbelief) => return Err(disbelieve(work, terminal, disbelief).await),
    };
    let before = last_activation(vault, &terminal.record).await?;
    // What was proven is the payload. A signature has two forms, which make no two requests.
    let request = &Signed { payload: request.payload.clone(), proof: Vec::new() };
    if freshness == Freshness::Repeated
        && let Some(last) = &before
        && let Some(answer) = Activation::answered(last.record.begun.as_ref(), request)
    {
        // Told before: nothing is spent by a lost reply.
        return match check_again(&terminal.record, Call::BeginActivation) {
            Ok(()) => repeated(work, answer).await,
            Err(error) => Err(give_up(work, error).await),
        };
    }
    let profile = profile_of(vault, &terminal.record).await?;
    let allowed = check(&terminal.record, Call::BeginActivation, profile.code_required)
        .and_then(|()| freshness.check(&terminal.record));
    if let Err(error) = allowed {
        return Err(give_up(work, error).await);
    }
    let attempt = Attempt { work, terminal, before, profile, begin: &begin };
    attempt.go_on(vault, &device, request).await
}

/// How far a device's clock may be ahead, in seconds: a day.
const AHEAD_SECONDS_MAX: u64 = 24 * 60 * 60;

/// How a Begin stands to the last one that was judged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Freshness {
    /// The device's clock is too far ahead: taken, it would shut out every later Begin.
    Ahead,
    /// Above it.
    New,
    /// The very same.
    Repeated,
    /// Below it, or another under its sequence: a replay, whoever sends it.
    Stale,
}

impl Freshness {
    fn of(terminal: &Terminal, begin: &Begin, request: &Signed, now: UnixMillis) -> Self {
        let Some(last) = &terminal.last_begin else { return Self::at(begin, now) };
        if begin.sequence > last.sequence {
            return Self::at(begin, now);
        }
        let same =
            begin.sequence == last.sequence && last.payload == digest::sha256(&[&request.payload]);
        if same { Self::Repeated } else { Self::Stale }
    }

    fn at(begin: &Begin, now: UnixMillis) -> Self {
        let latest = now.seconds().saturating_add(AHEAD_SECONDS_MAX);
        if begin.sequence > latest { Self::Ahead } else { Self::New }
    }

    /// A repeated Begin that has no answer was refused, and is refused again without another try.
    fn check(self, terminal: &Terminal) -> Result<(), Error> {
        let remedy = match self {
            Self::New => return Ok(()),
            Self::Stale => return Err(Error::refused(Reason::ActivationRefused)),
            Self::Ahead => "the device's clock is more than a day ahead: set it",
            Self::Repeated => "type the code again as it was told",
        };
        let tries_left = terminal.code.as_ref().map_or(0, |code| code.tries_left);
        Err(Error::Refused {
            reason: if self == Self::Ahead { Reason::ActivationState } else { Reason::CodeRefused },
            metadata: vec![("tries_left", tries_left.to_string()), ("remedy", remedy.to_owned())],
        })
    }
}

/// What to do where keys can not be derived, or not be told of in the service's name.
pub(super) const NO_KEYS: &str = "the base derivation key gives out no keys: ask the acquirer";
pub(super) const NO_IDENTITY: &str = "the service has no certified identity: ask the acquirer";

/// What an activation needs of the service.
struct Means<'a> {
    bdk: StoredKey<BaseDerivation>,
    acquirer_id: String,
    voice: Voice<'a>,
    activation: Versioned<Activation>,
}

impl Means<'_> {
    /// The answer, and the transcript through it.
    fn answer(
        &self,
        vault: &Vault,
        request: &Signed,
        now: UnixMillis,
    ) -> Result<(Transcript, Answer), Error> {
        let activation = &self.activation.record;
        let payload = BeginAnswer {
            activation: name(activation)?,
            service_nonce: nonce(vault)?,
            service_certificate_chain: self.voice.chain()?,
            acquirer_id: AcquirerId::new(&self.acquirer_id)
                .ok_or_else(|| broken("the acquirer id is none"))?,
            expires_at_seconds: activation.expires.seconds(),
        }
        .encode();
        let transcript = Transcript::new().with(&request.payload).with(&payload);
        let proof = self.voice.prove(&transcript.hash(), &transcript, Step::Begin)?;
        Ok((transcript, Answer::to(request, payload, proof, now)))
    }
}

/// A device that proved itself, in a state that allows it to begin.
struct Attempt<'a> {
    work: Work,
    terminal: Versioned<Terminal>,
    before: Option<Versioned<Activation>>,
    profile: Profile,
    begin: &'a Begin,
}

impl Attempt<'_> {
    async fn go_on(
        mut self,
        vault: &Vault,
        device: &Proven,
        request: &Signed,
    ) -> Result<Answer, Error> {
        let last_begin = self.terminal.record.last_begin.replace(LastBegin {
            sequence: self.begin.sequence,
            payload: digest::sha256(&[&request.payload]),
        });
        if self.begin.readiness.tampered {
            return Err(self.hold_tampered().await);
        }
        // A re-key was started by the backend for keys that serve: no merchant types a code.
        let code_required =
            self.profile.code_required && self.terminal.record.state != State::Rekeying;
        if code_required && !self.code_is_right(vault) {
            return Err(self.refuse_code().await);
        }
        let means = match self.means(vault, device).await {
            Ok(means) => means,
            Err(error) => {
                // What the service lacks says nothing of the request: it may come again as it is.
                self.terminal.record.last_begin = last_begin;
                return Err(fail(self.work, self.terminal, error).await);
            }
        };
        let (transcript, answer) = means.answer(vault, request, self.work.now())?;
        let Means { bdk, mut activation, .. } = means;
        activation.record.transcript = transcript.state().to_vec();
        activation.record.begun = Some(answer.clone());
        self.note(&activation.record);
        self.work.uses(&bdk);
        device.expected_by(&mut self.work, &self.terminal.record);
        self.work.put(&activation)?;
        self.work.put(&self.terminal)?;
        self.work.commit().await?;
        Ok(answer)
    }

    /// The base derivation key, the identity, and the activation with its initial key id.
    async fn means<'a>(&mut self, vault: &Vault, device: &'a Proven) -> Result<Means<'a>, Error> {
        let bdk_name = &self.profile.base_derivation_key;
        let bdk = vault.key::<BaseDerivation>(bdk_name, Operation::DeriveInitial).await;
        let bdk = bdk.map_err(|error| with_remedy(error, NO_KEYS))?;
        let acquirer_id = manage_trust::acquirer_id(vault).await;
        let acquirer_id = acquirer_id.map_err(|error| with_remedy(error, NO_IDENTITY))?;
        let voice = device.voice(vault).await.map_err(|error| with_remedy(error, NO_IDENTITY))?;
        let activation = self.activation(&bdk).await;
        let activation = activation.map_err(|error| with_remedy(error, NO_KEYS))?;
        Ok(Means { bdk, acquirer_id, voice, activation })
    }

    /// The activation of the session that begins, for the device that begins it.
    async fn activation(
        &mut self,
        bdk: &StoredKey<BaseDerivation>,
    ) -> Result<Versioned<Activation>, Error> {
        let terminal = &mut self.terminal.record;
        let (last, suite) = (self.before.take(), self.profile.suite);
        let way = Way { suite, carried_by: terminal.credential.carriers() };
        let mut activation = go_on_or_anew(&mut self.work, terminal, last, bdk, way).await?;
        let chain = self.begin.certificate_chain.as_ref();
        activation.record.certificate_chain =
            chain.map_or(&[][..], |chain| chain.as_der()).to_vec();
        Ok(activation)
    }

    fn note(&mut self, activation: &Activation) {
        let id = data_encoding::HEXUPPER.encode(&activation.initial_key_id);
        let readiness = &self.begin.readiness;
        let note = format!(
            "activation {}, initial key id {id}; {} {} over {}",
            activation.number,
            readiness.hardware.as_str(),
            readiness.firmware.as_str(),
            readiness.network.as_str(),
        );
        let terminal = &mut self.terminal.record;
        let to = match terminal.state {
            State::Rekeying => State::Rekeying,
            _ => State::CodeVerified,
        };
        advance(&mut self.work, terminal, to, Happened::done("BeginActivation", note));
    }

    fn code_is_right(&self, vault: &Vault) -> bool {
        let terminal = &self.terminal.record;
        let (Some(kept), Some(shown)) = (&terminal.code, &self.begin.activation_code) else {
            return false;
        };
        let in_time = self.work.now() <= kept.expires;
        in_time && constant_time_eq(&code::hash(vault, shown, terminal), &kept.hash)
    }

    /// A proven device with a wrong code spends a try and learns what to do; the last one locks.
    async fn refuse_code(mut self) -> Error {
        let now = self.work.now();
        let terminal = &mut self.terminal.record;
        let expired = terminal.code.as_ref().is_none_or(|code| now > code.expires);
        let tries_left = match &mut terminal.code {
            Some(code) if !expired => {
                code.tries_left = code.tries_left.saturating_sub(1);
                code.tries_left
            }
            Some(_) | None => 0,
        };
        let (to, reason, remedy) = if expired {
            (State::CodeExpired, Reason::CodeRefused, "the code has expired: reissue it")
        } else if tries_left == 0 {
            (State::Locked, Reason::TerminalLocked, "the terminal is locked: reissue its code")
        } else {
            (terminal.state, Reason::CodeRefused, "type the code again as it was told")
        };
        let happened = Happened::failed("BeginActivation", reason, remedy);
        advance(&mut self.work, terminal, to, happened);
        if let Err(error) = self.work.put(&self.terminal) {
            return error.into();
        }
        let metadata = vec![("tries_left", tries_left.to_string()), ("remedy", remedy.to_owned())];
        let error = Error::Refused { reason, metadata };
        unless_worse(self.work.commit_refused(reason).await, error)
    }

    /// A device whose tamper detection has answered receives no keys, now or later.
    async fn hold_tampered(mut self) -> Error {
        let remedy = "the device reports tampering: replace it";
        let reason = Reason::DeviceNotTrusted;
        let terminal = &mut self.terminal.record;
        terminal.came_from = Some(terminal.state);
        terminal.hold_cause = Some("the device reports tampering".to_owned());
        let happened = Happened::failed("BeginActivation", reason, remedy);
        advance(&mut self.work, terminal, State::Held, happened);
        if let Err(error) = self.work.put(&self.terminal) {
            return error.into();
        }
        let metadata = vec![("remedy", remedy.to_owned())];
        let error = Error::Refused { reason, metadata };
        unless_worse(self.work.commit_refused(reason).await, error)
    }
}

/// How the keys of an activation come to the terminal.
pub(super) struct Way {
    /// The algorithms of an activation that is new.
    pub(super) suite: Suite,
    /// See [`Activation::carried_by`].
    pub(super) carried_by: Vec<String>,
}

/// The activation that goes on in a new session, or a new one with a key id of its own.
///
/// One goes on while it lives and is not confirmed, while the profile's base derivation key is
/// still the one of its key id, and in the way in which it was made: an initial key that is carried
/// by an agreed key is never carried by keys that others may know.
pub(super) async fn go_on_or_anew(
    work: &mut Work,
    terminal: &mut Terminal,
    last: Option<Versioned<Activation>>,
    bdk: &StoredKey<BaseDerivation>,
    way: Way,
) -> Result<Versioned<Activation>, Error> {
    let under_way =
        |last: &Versioned<Activation>| matches!(last.record.phase, Phase::Begun | Phase::Delivered);
    let Some(mut last) = last.filter(under_way) else {
        return fresh(work, terminal, bdk, way).await;
    };
    let is_over = work.now() > last.record.expires;
    let is_other = last.record.base_derivation_key != bdk.record().version_name()
        || last.record.carried_by != way.carried_by;
    if is_over || is_other {
        last.record.end();
        work.put(&last)?;
        return fresh(work, terminal, bdk, way).await;
    }
    last.record.forget_session();
    (last.record.begun, last.record.delivered, last.record.confirmed) = (None, None, None);
    last.record.phase = Phase::Begun;
    Ok(last)
}

async fn fresh(
    work: &mut Work,
    terminal: &mut Terminal,
    bdk: &StoredKey<BaseDerivation>,
    way: Way,
) -> Result<Versioned<Activation>, Error> {
    let initial_key_id = InitialKeyId::allocate(work, bdk.record()).await?;
    terminal.activation = terminal.activation.saturating_add(1);
    Ok(Versioned::absent(Activation {
        terminal: terminal.id.clone(),
        number: terminal.activation,
        phase: Phase::Begun,
        expires: work.now().plus_ms(LIFETIME_MS),
        base_derivation_key: bdk.record().version_name(),
        initial_key_id: initial_key_id.bytes().to_vec(),
        carried_by: way.carried_by,
        suite: way.suite,
        certificate_chain: Vec::new(),
        transcript: Vec::new(),
        confirmation_keys: None,
        check_values: Vec::new(),
        terminal_keys: Vec::new(),
        begun: None,
        delivered: None,
        confirmed: None,
        exchanged: None,
    }))
}

async fn last_activation(
    vault: &Vault,
    terminal: &Terminal,
) -> Result<Option<Versioned<Activation>>, Error> {
    if terminal.activation == 0 {
        return Ok(None);
    }
    let id = Activation::id_of(&terminal.id, terminal.activation);
    Ok(vault.get::<Activation>(&id).await?)
}

fn nonce(vault: &Vault) -> Result<[u8; 32], Error> {
    let mut nonce = [0; 32];
    vault.rng().fill(&mut nonce).map_err(|_| broken("the random number generator failed"))?;
    Ok(nonce)
}

/// The activation's name, as payloads have it.
pub(super) fn name(activation: &Activation) -> Result<ActivationName, Error> {
    ActivationName::new(&activation.name()).ok_or_else(|| broken("an activation has no name"))
}

/// Something that can not happen did.
pub(in crate::command) fn broken(what: &'static str) -> Error {
    vault::Error::incident(what, "activation").into()
}
