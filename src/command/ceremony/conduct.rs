//! The calls of a ceremony: each is one step, and one commit with its line and its audit event.

use std::collections::BTreeSet;

use data_encoding::HEXLOWER;

use super::act::{Cause, OTHER_KEY, Participant, StepRefused};
use super::effect;
use super::plan::{Plan, Planned, Task};
use super::record::{Ceremony, CeremonyState};
use super::step::Actor;
use crate::command::{
    Error, Page, RequestId, approvals, audited, give_up, recall, refuse, remember, repeated,
    retrying,
};
use crate::crypto::ec::Point;
use crate::crypto::rng::Rng;
use crate::vault::{
    self, Action, Caller, LogSigner, Policy, Reason, Role, UnixMillis, Vault, Versioned, Work,
};

/// The certificate of a caller's connection: with its key, and no other, the caller signs.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate in DER.
    pub der: Vec<u8>,
    /// Its public key.
    pub key: Point,
}

/// Somebody who does a step.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    /// Who calls.
    pub caller: &'a Caller,
    /// With which certificate; none in development without TLS, where nobody can sign.
    pub certificate: Option<&'a Certificate>,
}

/// Creates a ceremony from a plan.
///
/// `FIELD_INVALID` where the plan is none, names somebody whom the policy does not know in that
/// part, or a person twice.
pub async fn create(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    plan: &Plan,
) -> Result<Ceremony, Error> {
    let action = Action::CreateCeremony;
    retrying(|| async {
        let id = id_of(vault.rng(), vault.now())?;
        let mut work = vault.begin(caller, action, resource(&id)).await?;
        if let Some(id) = recall::<String>(vault, caller, action, request).await? {
            work.set_resource(resource(&id));
            return match read(vault, &id).await {
                Ok(found) => repeated(work, found.record).await,
                Err(error) => Err(give_up(work, error).await),
            };
        }
        let planned = match check(vault, caller, plan).await {
            Ok(planned) => planned,
            Err(error) => return Err(give_up(work, error).await),
        };
        work.detail("plan_digest", HEXLOWER.encode(&planned.digest()));
        let mut work = approvals::require(vault, work, request, &[]).await?;
        let signer = vault.log_signer().await?;
        let values = [("by", caller.name().to_owned())];
        let sign = |message: &[u8]| signer.sign(message);
        let begun =
            Ceremony::begin(id.clone(), &planned, &values, work.now(), (vault.rng(), &sign));
        let begun = begun.map_err(|_| vault::Error::incident("no randomness", &id))?;
        remember(vault, &mut work, request, &id).await?;
        let begun = Versioned::absent(begun);
        work.put(&begun)?;
        work.commit().await?;
        Ok(begun.record)
    })
    .await
}

/// Refuses a plan that is none, of people who are not what it says, or that could not be done.
async fn check(vault: &Vault, caller: &Caller, plan: &Plan) -> Result<Planned, Error> {
    let planned = plan.clone().check().map_err(|wrong| Error::field("plan", wrong.rule))?;
    let people = people_of(&vault.policy(), planned.plan());
    people.map_err(|rule| Error::field("plan", rule))?;
    if published(vault, &planned) {
        return Err(Error::field("plan", "a check value is that of a key that was published"));
    }
    effect::check(vault, caller, &planned).await?;
    Ok(planned)
}

/// Whether a key or component that is to be brought is one that everybody knows.
fn published(vault: &Vault, planned: &Planned) -> bool {
    let Task::Import(import) = planned.task() else { return false };
    let mut values = [&import.check_value].into_iter().chain(&import.component_check_values);
    values.any(|value| vault.refuses_published(value))
}

/// Returns a ceremony.
pub async fn get(vault: &Vault, caller: &Caller, id: &str) -> Result<Ceremony, Error> {
    let found = async { Ok(effect::with_product(vault, read(vault, id).await?.record).await) };
    audited(vault, caller, Action::GetCeremony, resource(id), found).await
}

/// Lists ceremonies in the order of their ids, from the one after `after`.
pub async fn list(
    vault: &Vault,
    caller: &Caller,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<Ceremony>, Error> {
    let page = Page::read(vault, None, after, limit);
    audited(vault, caller, Action::ListCeremonies, "ceremonies", page).await
}

/// Somebody comes to the table.
pub async fn join(vault: &Vault, by: By<'_>, id: &str, digest: &[u8]) -> Result<Ceremony, Error> {
    let act = |one: &mut Ceremony, who: Participant<'_>, now| one.join(who, digest, now);
    Ok(step(vault, (by, Action::JoinCeremony), id, act).await?.0)
}

/// A custodian gets the own component in an envelope.
pub async fn take(
    vault: &Vault,
    by: By<'_>,
    id: &str,
    recipient: (&[u8], &[u8; 64]),
) -> Result<(Ceremony, Vec<u8>), Error> {
    let act =
        |one: &mut Ceremony, who: Participant<'_>, now| one.take(who, recipient, now, vault.rng());
    step(vault, (by, Action::TakeComponent), id, act).await
}

/// A custodian reads a slip back.
pub async fn read_back(
    vault: &Vault,
    by: By<'_>,
    id: &str,
    envelope: (&[u8], &[u8; 64]),
) -> Result<Ceremony, Error> {
    let act = |one: &mut Ceremony, who: Participant<'_>, now| one.read_back(who, envelope, now);
    Ok(step(vault, (by, Action::ReadBackComponent), id, act).await?.0)
}

/// A custodian commits to a component.
pub async fn enter(
    vault: &Vault,
    by: By<'_>,
    id: &str,
    commitment: (&[u8; 32], &[u8; 64]),
) -> Result<Ceremony, Error> {
    let act = |one: &mut Ceremony, who: Participant<'_>, now| one.enter(who, commitment, now);
    Ok(step(vault, (by, Action::EnterComponent), id, act).await?.0)
}

/// A custodian hands over what was committed to.
pub async fn reveal(
    vault: &Vault,
    by: By<'_>,
    id: &str,
    envelope: (&[u8], &[u8; 64]),
) -> Result<Ceremony, Error> {
    let refuses = |check_value: &str| vault.refuses_published(check_value);
    let act =
        |one: &mut Ceremony, who: Participant<'_>, now| one.reveal(who, envelope, now, &refuses);
    Ok(step(vault, (by, Action::RevealComponent), id, act).await?.0)
}

/// Takes all commitments back.
pub async fn restart_entry(vault: &Vault, by: By<'_>, id: &str) -> Result<Ceremony, Error> {
    let act = |one: &mut Ceremony, who: Participant<'_>, now| one.restart_entry(who, now);
    Ok(step(vault, (by, Action::RestartEntry), id, act).await?.0)
}

/// Somebody has compared the check value. With the last, what the ceremony is for is done in this
/// commit.
pub async fn confirm(
    vault: &Vault,
    by: By<'_>,
    id: &str,
    check_value: &str,
) -> Result<Ceremony, Error> {
    let confirmed = retrying(|| async {
        let mut turn = begin(vault, (by, Action::ConfirmCeremony), id).await?;
        let now = turn.work.now();
        match turn.found.record.confirm(turn.who, check_value, now) {
            Ok(true) => match effect::perform(vault, &mut turn.work, &turn.found.record).await {
                Ok(done) => turn.found.record.complete(now, &done.values, done.product),
                Err(error) if super::super::is_ours(&error) => return Err(error),
                Err(error) => {
                    let cause = error.reason().as_str();
                    return Err(turn.abort(cause, error.reason()).await);
                }
            },
            Ok(false) => {}
            Err(refused) => return Err(turn.refuse(refused).await),
        }
        turn.commit().await
    });
    Ok(effect::with_product(vault, confirmed.await?).await)
}

/// Somebody signs the transcript.
pub async fn sign(
    vault: &Vault,
    by: By<'_>,
    id: &str,
    signature: &[u8; 64],
) -> Result<Ceremony, Error> {
    let signer = vault.log_signer().await?;
    let signer = &signer;
    let act = move |one: &mut Ceremony, who: Participant<'_>, now| {
        one.sign(who, signature, now, &|message| signer.sign(message))
    };
    let (done, ()) = step(vault, (by, Action::SignCeremony), id, act).await?;
    Ok(effect::with_product(vault, done).await)
}

/// Ends a ceremony before anything happened: by an officer, or by somebody who has a part in it.
pub async fn abort(
    vault: &Vault,
    caller: &Caller,
    id: &str,
    cause: &str,
) -> Result<Ceremony, Error> {
    retrying(|| async {
        let mut work = vault.begin(caller, Action::AbortCeremony, resource(id)).await?;
        let mut found = match read(vault, id).await {
            Ok(found) => found,
            Err(error) => return Err(give_up(work, error).await),
        };
        let has_part = found.record.plan.witness == caller.name()
            || found.record.plan.custodians.iter().any(|name| name == caller.name());
        if !has_part && caller.role() != Some(Role::Officer) && !caller.is_for_dev_only() {
            return Err(refuse(work, Reason::PolicyDenied).await);
        }
        let signer = vault.log_signer().await?;
        let sign = |message: &[u8]| signer.sign(message);
        if found.record.abort(caller.name(), cause, work.now(), &sign).is_err() {
            return Err(refuse(work, not_next(&found.record)).await);
        }
        work.detail("cause", cause);
        work.put(&found)?;
        work.commit().await?;
        Ok(found.record)
    })
    .await
}

/// Aborts every ceremony in which nothing was done for too long.
pub async fn abort_idle(vault: &Vault) -> Result<(), Error> {
    let (mut after, open) = (None, Some(CeremonyState::Open.as_str()));
    loop {
        let found = vault.list::<Ceremony>(open, after.as_deref(), PAGE).await?;
        after = found.last().map(|last| last.record.id.clone());
        if after.is_none() {
            return Ok(());
        }
        // Only what is open ever expires, whatever the store's index says.
        let is_idle = |one: &Ceremony| one.expires().is_some_and(|end| vault.now() > end);
        for idle in found.into_iter().filter(|one| is_idle(&one.record)) {
            abort_one(vault, idle).await?;
        }
    }
}

async fn abort_one(vault: &Vault, mut idle: Versioned<Ceremony>) -> Result<(), Error> {
    let (caller, action) = (Caller::service(), Action::AbortIdleCeremony);
    let mut work = vault.begin(&caller, action, idle.record.name()).await?;
    let signer = vault.log_signer().await?;
    let (cause, sign) = (Cause::Idle.to_string(), |message: &[u8]| signer.sign(message));
    let ended = idle.record.abort("service", &cause, work.now(), &sign);
    ended.map_err(|_| not_next(&idle.record))?;
    work.detail("cause", cause);
    work.put(&idle)?;
    match work.commit().await {
        // Somebody did a step, or aborted it, meanwhile.
        Ok(_) | Err(vault::Error::Conflict) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A step under way.
struct Turn<'a> {
    work: Work,
    found: Versioned<Ceremony>,
    who: Participant<'a>,
    signer: LogSigner,
}

/// Begins a step of somebody with a certificate, in a ceremony that still waits, of people who are
/// what they were when it was created.
async fn begin<'a>(
    vault: &Vault,
    (by, action): (By<'a>, Action),
    id: &str,
) -> Result<Turn<'a>, Error> {
    let work = vault.begin(by.caller, action, resource(id)).await?;
    let Some(Certificate { der, key }) = by.certificate else {
        return Err(refuse(work, Reason::PolicyDenied).await);
    };
    let found = match read(vault, id).await {
        Ok(found) => found,
        Err(error) => return Err(give_up(work, error).await),
    };
    if people_of(&vault.policy(), &found.record.plan).is_err() {
        return Err(refuse(work, Reason::PolicyDenied).await);
    }
    let signer = vault.log_signer().await?;
    let who = Participant { name: by.caller.name(), certificate: der, key };
    let turn = Turn { work, found, who, signer };
    let end = turn.found.record.expires();
    if end.is_some_and(|end| turn.work.now() > end) {
        return Err(turn.abort(&Cause::Idle.to_string(), Reason::CeremonyAborted).await);
    }
    Ok(turn)
}

async fn step<T>(
    vault: &Vault,
    by: (By<'_>, Action),
    id: &str,
    act: impl Fn(&mut Ceremony, Participant<'_>, UnixMillis) -> Result<T, StepRefused>,
) -> Result<(Ceremony, T), Error> {
    retrying(|| async {
        let mut turn = begin(vault, by, id).await?;
        let now = turn.work.now();
        match act(&mut turn.found.record, turn.who, now) {
            Ok(done) => Ok((turn.commit().await?, done)),
            Err(refused) => Err(turn.refuse(refused).await),
        }
    })
    .await
}

impl Turn<'_> {
    async fn commit(self) -> Result<Ceremony, Error> {
        let Self { mut work, found, .. } = self;
        work.detail("step", found.record.steps_done.to_string());
        work.put(&found)?;
        work.commit().await?;
        Ok(found.record)
    }

    async fn refuse(mut self, refused: StepRefused) -> Error {
        match refused {
            StepRefused::Aborts(cause) => {
                self.abort(&cause.to_string(), Reason::CeremonyAborted).await
            }
            // One try less: that stays.
            StepRefused::ComponentRejected => {
                let reason = Reason::ComponentRejected;
                let tries = self.found.record.tries_left().to_string();
                self.work.detail("tries_left", tries.clone());
                if let Err(error) = self.work.put(&self.found) {
                    return error.into();
                }
                match self.work.commit_refused(reason).await {
                    vault::Error::Refused(_) => {
                        Error::Refused { reason, metadata: vec![("tries_left", tries)] }
                    }
                    worse => worse.into(),
                }
            }
            StepRefused::DigestDiffers => {
                refuse(self.work, Error::field("plan_digest", "is that of another plan")).await
            }
            StepRefused::NotNext => {
                let error = not_next(&self.found.record);
                refuse(self.work, error).await
            }
            StepRefused::OtherKey => {
                let metadata = vec![("cause", OTHER_KEY.to_owned())];
                let reason = Reason::PolicyDenied;
                refuse(self.work, Error::Refused { reason, metadata }).await
            }
            StepRefused::Rng(_) => vault::Error::incident("no randomness", "ceremony").into(),
            StepRefused::SignatureInvalid => {
                refuse(self.work, Error::field("signature", "does not verify")).await
            }
        }
    }

    /// Ends the ceremony with the refusal of this step.
    async fn abort(self, cause: &str, reason: Reason) -> Error {
        let Self { mut work, mut found, signer, .. } = self;
        // What the ceremony is for may have been half prepared.
        work.let_go();
        let sign = |message: &[u8]| signer.sign(message);
        if found.record.abort("service", cause, work.now(), &sign).is_err() {
            return refuse(work, not_next(&found.record)).await;
        }
        work.detail("cause", cause);
        if let Err(error) = work.put(&found) {
            return error.into();
        }
        match work.commit_refused(reason).await {
            vault::Error::Refused(_) => {
                Error::Refused { reason, metadata: vec![("cause", cause.to_owned())] }
            }
            worse => worse.into(),
        }
    }
}

/// Tells whether the policy knows those of a plan as what they are there: custodians and an
/// auditor, each another person.
pub fn people_of(policy: &Policy, plan: &Plan) -> Result<(), &'static str> {
    let mut persons = BTreeSet::new();
    let custodians = plan.custodians.iter().map(|name| (name, Role::Custodian));
    for (name, role) in custodians.chain([(&plan.witness, Role::Auditor)]) {
        let Some(principal) = policy.principal(name).filter(|known| known.role == role) else {
            return Err("custodians must be custodians of the policy, the witness an auditor");
        };
        if !persons.insert(principal.person.clone()) {
            return Err("a person has one part");
        }
    }
    Ok(())
}

async fn read(vault: &Vault, id: &str) -> Result<Versioned<Ceremony>, Error> {
    let found = vault.get::<Ceremony>(id).await?;
    found.ok_or_else(|| Error::refused(Reason::ResourceNotFound))
}

/// What somebody is told whose step it is not.
#[must_use]
pub fn not_next(ceremony: &Ceremony) -> Error {
    let mut metadata = vec![("state", ceremony.state.as_str().to_owned())];
    if let Some(next) = ceremony.next() {
        metadata.push(("step", next.act.as_str().to_owned()));
        metadata.push((
            "actor",
            match next.actor {
                Actor::Custodian(number) => format!("custodian {number}"),
                Actor::Witness => "witness".to_owned(),
            },
        ));
    }
    Error::Refused { reason: Reason::CeremonyState, metadata }
}

/// Ceremonies that are looked at in one step.
const PAGE: usize = 100;

/// An id of which the newest comes first.
pub fn id_of(rng: &dyn Rng, now: UnixMillis) -> Result<String, Error> {
    let mut random = [0; 8];
    let drawn = rng.fill(&mut random);
    drawn.map_err(|_| vault::Error::incident("no randomness", "ceremony"))?;
    let left = IDS_END_MS.saturating_sub(now.0);
    Ok(format!("c{left:012x}-{}", HEXLOWER.encode(&random)))
}

/// Twelve hexadecimal digits of milliseconds: in the year 10889.
const IDS_END_MS: u64 = (1 << 48) - 1;

fn resource(id: &str) -> String {
    format!("ceremonies/{id}")
}
