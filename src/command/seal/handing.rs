//! How a master key gets to its custodians: each takes a share and reads it back, and with the last
//! it is in force. In a ceremony each of these is a step, written down where the ceremony is.

use std::sync::Arc;

use data_encoding::HEXUPPER;

use super::create::{first_policy, role_of};
use super::distribution::{Distribution, ReadBack};
use super::giver::{Asked, Giver, Sent, not_taken, told, unfit};
use super::opening::are_custodians;
use super::{Desk, Keeper, RESOURCE, ShareSet, Status, to_its_end};
use crate::command::ceremony::act::{OTHER_KEY, StepRefused};
use crate::command::ceremony::conduct::not_next;
use crate::command::ceremony::record::{Ceremony, CeremonyState};
use crate::command::{Error, give_up};
use crate::vault::{
    self, Action, Caller, MasterKey, Reason, Role, Seal, UnixMillis, Vault, Versioned, Work,
};

/// Where a call comes in while the vault is open; none while there is none.
type At = Option<(Arc<Vault>, Caller)>;

/// A master key that all custodians have a share of.
struct Made {
    master: MasterKey,
    seal: Seal,
    by: String,
    ceremony: Option<Versioned<Ceremony>>,
}

impl Keeper {
    /// Gives a custodian a share of the distribution, once: who asks again with the same key, until
    /// the share is read back, gets the same envelope. It is audited where there is a log.
    pub async fn take(
        self: &Arc<Self>,
        at: At,
        giver: Giver,
        distribution: [u8; 16],
        asked: Asked,
    ) -> Result<(Vec<u8>, Status), Error> {
        let keeper = Arc::clone(self);
        let sealed = to_its_end(async move {
            let mut desk = keeper.desk().await;
            let work = begin(at.as_ref(), Action::TakeShare).await?;
            let one = keeper.at_table(&mut desk, at.as_ref(), distribution).await;
            let one = one.and_then(|one| still_fit(one, at.as_ref()));
            let mut is_again = false;
            let taken = one.and_then(|one| match one.given(&giver, &asked) {
                Some(sealed) => {
                    is_again = true;
                    Ok(sealed)
                }
                None => keeper.hand_over(one, &giver, &asked),
            });
            // The share leaves when it is written down who has it.
            match (taken, work) {
                (Ok(sealed), Some(work)) => match commit(work, &desk).await {
                    Ok(()) => Ok(sealed),
                    Err(error) if is_again => Err(error),
                    Err(error) => {
                        // It has not left: it can be asked for again.
                        desk.distribution.iter_mut().for_each(|one| one.take_back(&giver));
                        Err(error)
                    }
                },
                (Ok(sealed), None) => Ok(sealed),
                (Err(error), Some(work)) => Err(give_up(work, error).await),
                (Err(error), None) => Err(error),
            }
        })
        .await?;
        Ok((sealed, self.status().await?))
    }

    fn hand_over(
        &self,
        one: &mut Distribution,
        giver: &Giver,
        asked: &Asked,
    ) -> Result<Vec<u8>, Error> {
        let (rng, now, who) = (&*self.opener()?.rng, self.gate.now(), giver.participant());
        one.step(|ceremony| ceremony.expect_take(who, &asked.plan_digest))?;
        let sealed = one.take(giver, &asked.key, &asked.signature, (rng, now))?;
        one.step(|ceremony| ceremony.share_taken(who, now))?;
        Ok(sealed)
    }

    /// Takes what a custodian read back; the last one puts the master key in force.
    pub async fn confirm(
        self: &Arc<Self>,
        at: At,
        giver: Giver,
        distribution: [u8; 16],
        sent: Sent,
    ) -> Result<Status, Error> {
        let keeper = Arc::clone(self);
        to_its_end(async move {
            let mut desk = keeper.desk().await;
            let work = begin(at.as_ref(), Action::ConfirmShare).await?;
            let now = keeper.gate.now();
            let generation = at.as_ref().map_or(0, |(vault, _)| vault.generation());
            let one = keeper.at_table(&mut desk, at.as_ref(), distribution).await;
            let one = one.and_then(|one| still_fit(one, at.as_ref()));
            let heard = one.and_then(|one| {
                let heard = hear(one, (&giver, &sent), now)?;
                let made = || made(one, &giver, generation.saturating_add(1), now);
                let made = if heard == ReadBack::All { Some(made()?) } else { None };
                Ok((heard, made))
            });
            match (heard, work) {
                (Ok((_, Some(made))), Some(mut work)) => {
                    made.ceremony.iter().try_for_each(|ceremony| work.put(ceremony))?;
                    work.commit_master_key(made.master, made.seal).await?;
                    desk.distribution = None;
                }
                (Ok((_, Some(Made { master, seal, by, ceremony }))), None) => {
                    keeper.begin_store(&mut desk, (master, seal), &by, ceremony).await?;
                    desk.distribution = None;
                }
                (Ok((ReadBack::Wrong, None)), work) => {
                    return Err(misread(&mut desk, (at.as_ref(), work), &giver, now).await);
                }
                (Ok((_, None)), Some(work)) => commit(work, &desk).await?,
                (Ok((_, None)), None) => {}
                (Err(error), Some(work)) => return Err(give_up(work, error).await),
                (Err(error), None) => return Err(error),
            }
            Ok(())
        })
        .await?;
        self.status().await
    }

    /// Forgets a distribution, for an officer or one of its custodians. A ceremony in the store is
    /// aborted with it; of one before there is a store, nothing is left.
    pub async fn abandon(
        self: &Arc<Self>,
        at: At,
        name: &str,
        distribution: [u8; 16],
    ) -> Result<Status, Error> {
        let (keeper, name) = (Arc::clone(self), name.to_owned());
        to_its_end(async move {
            let mut desk = keeper.desk().await;
            let work = begin(at.as_ref(), Action::AbandonMasterKey).await?;
            let role = match &at {
                Some((_, caller)) => caller.role(),
                None => role_of(first_policy(keeper.opener()?)?, &name),
            };
            let concerned = keeper.at_table(&mut desk, at.as_ref(), distribution).await;
            let concerned = concerned.and_then(|one| {
                let may = role == Some(Role::Officer) || one.concerns(&name);
                if may { Ok(()) } else { Err(Error::refused(Reason::PolicyDenied)) }
            });
            match (concerned, work) {
                (Ok(()), Some(work)) => {
                    let now = work.now();
                    let cause = "the distribution was abandoned";
                    abort(&mut desk, at.as_ref(), (&name, cause), now).await?;
                    commit(work, &desk).await?;
                }
                (Ok(()), None) => {}
                (Err(error), Some(work)) => return Err(give_up(work, error).await),
                (Err(error), None) => return Err(error),
            }
            desk.distribution = None;
            tracing::warn!(by = name, "the distribution of a master key is abandoned");
            Ok(())
        })
        .await?;
        self.status().await
    }

    /// The distribution of this id. One that was begun before there was a store is not gone on with
    /// when there is one, nor the other way.
    async fn at_table<'a>(
        &self,
        desk: &'a mut Desk,
        at: Option<&(Arc<Vault>, Caller)>,
        id: [u8; 16],
    ) -> Result<&'a mut Distribution, Error> {
        match at {
            Some((vault, _)) => desk.look_at_ceremony(vault).await?,
            None => self.expect_sealed()?,
        }
        let now = self.gate.now();
        let found = desk.distribution.as_mut().filter(|one| one.id == id && now < one.expires);
        found.ok_or_else(|| unfit("there is no such distribution: an officer begins one"))
    }
}

/// Refuses to go on with people whom the policy does not know as custodians any more, each another
/// person.
fn still_fit<'a>(
    one: &'a mut Distribution,
    at: Option<&(Arc<Vault>, Caller)>,
) -> Result<&'a mut Distribution, Error> {
    match at {
        Some((vault, _)) if !are_custodians(&vault.policy(), &one.names()) => {
            Err(Error::refused(Reason::PolicyDenied))
        }
        Some(_) | None => Ok(one),
    }
}

impl Desk {
    /// Takes the ceremony of the distribution as the store has it. Where it was ended there, or is
    /// of another time, the distribution is forgotten.
    pub(super) async fn look_at_ceremony(&mut self, vault: &Vault) -> Result<(), Error> {
        let held = self.distribution.as_mut().and_then(|one| one.ceremony.as_mut());
        let Some(held) = held else { return Ok(()) };
        match vault.get::<Ceremony>(&held.record.id).await? {
            Some(found) if found.record.state == CeremonyState::Open => *held = found,
            Some(_) | None => self.distribution = None,
        }
        Ok(())
    }
}

impl Distribution {
    /// Does a step of the ceremony, where it belongs to one.
    fn step(
        &mut self,
        act: impl FnOnce(&mut Ceremony) -> Result<(), StepRefused>,
    ) -> Result<(), Error> {
        let Some(held) = &mut self.ceremony else { return Ok(()) };
        act(&mut held.record).map_err(|refused| refusal(&held.record, refused))
    }
}

/// Hears what a custodian read back; in a ceremony only whose turn it is.
fn hear(
    one: &mut Distribution,
    (giver, sent): (&Giver, &Sent),
    now: UnixMillis,
) -> Result<ReadBack, Error> {
    let who = giver.participant();
    one.step(|ceremony| ceremony.expect_read_back(who))?;
    let heard = one.confirm(giver, sent, now)?;
    if heard == ReadBack::Right {
        one.step(|ceremony| ceremony.share_read_back(who, now).map(drop))?;
    }
    Ok(heard)
}

/// Puts the master key together, and writes down in a copy of the ceremony that it is in force: it
/// is so with the commit, and until then the last custodian can read the share back again.
fn made(
    one: &Distribution,
    giver: &Giver,
    generation: u32,
    now: UnixMillis,
) -> Result<Made, Error> {
    let ShareSet { id, threshold, shares } = one.set;
    let values = [
        ("generation", generation.to_string()),
        ("set_id", HEXUPPER.encode(&id)),
        ("shares", shares.to_string()),
        ("threshold", threshold.to_string()),
    ];
    let completed = |held: &Versioned<Ceremony>| {
        let mut record = held.record.copy_of_shares();
        let last = record.share_read_back(giver.participant(), now);
        if !last.map_err(|refused| refusal(&held.record, refused))? {
            return Err(not_next(&held.record));
        }
        record.complete(now, &values, None);
        Ok(Versioned { version: held.version, record })
    };
    let ceremony = one.ceremony.as_ref().map(completed).transpose()?;
    Ok(Made { master: one.combine()?, seal: one.seal(), by: one.by.clone(), ceremony })
}

/// Refuses what was read back wrongly; in a ceremony that is written down, and ends it in time.
async fn misread(
    desk: &mut Desk,
    (at, work): (Option<&(Arc<Vault>, Caller)>, Option<Work>),
    giver: &Giver,
    now: UnixMillis,
) -> Error {
    let held = desk.distribution.as_mut().and_then(|one| one.ceremony.as_mut());
    let Some(held) = held else {
        let error = not_taken(NOT_THE_SHARE);
        return match work {
            Some(work) => give_up(work, error).await,
            None => error,
        };
    };
    let refused = held.record.share_misread(giver.participant(), now);
    let Err(refused) = refused else { return not_next(&held.record) };
    let error = refusal(&held.record, refused);
    let ends = matches!(refused, StepRefused::Aborts(_));
    if let StepRefused::Aborts(cause) = refused
        && let Err(error) = abort(desk, at, ("service", &cause.to_string()), now).await
    {
        return error;
    }
    let told = match work {
        Some(work) => written_down(work, desk, error).await,
        None => error,
    };
    if ends {
        desk.distribution = None;
    }
    told
}

/// Refuses a call, and keeps what the ceremony has of it.
async fn written_down(mut work: Work, desk: &Desk, error: Error) -> Error {
    let held = desk.distribution.as_ref().and_then(|one| one.ceremony.as_ref());
    if let Err(worse) = held.map_or(Ok(()), |held| work.put(held)) {
        return worse.into();
    }
    match work.commit_refused(error.reason()).await {
        vault::Error::Refused(_) => error,
        worse => worse.into(),
    }
}

/// Ends the ceremony of the distribution, signed, where there is a key to sign with.
async fn abort(
    desk: &mut Desk,
    at: Option<&(Arc<Vault>, Caller)>,
    (who, cause): (&str, &str),
    now: UnixMillis,
) -> Result<(), Error> {
    let held = desk.distribution.as_mut().and_then(|one| one.ceremony.as_mut());
    let (Some(held), Some((vault, _))) = (held, at) else { return Ok(()) };
    let signer = vault.log_signer().await?;
    let sign = |message: &[u8]| signer.sign(message);
    let aborted = held.record.abort(who, cause, now, &sign);
    aborted.map_err(|refused| refusal(&held.record, refused))
}

/// Commits a step, with the ceremony as it stands after it.
async fn commit(mut work: Work, desk: &Desk) -> Result<(), Error> {
    let held = desk.distribution.as_ref().and_then(|one| one.ceremony.as_ref());
    held.map_or(Ok(()), |held| work.put(held))?;
    work.commit().await?;
    Ok(())
}

/// Begins a unit of work, where the vault is open.
async fn begin(at: Option<&(Arc<Vault>, Caller)>, action: Action) -> Result<Option<Work>, Error> {
    match at {
        Some((vault, caller)) => Ok(Some(vault.begin(caller, action, RESOURCE).await?)),
        None => Ok(None),
    }
}

/// What a custodian is told whose step is not done.
fn refusal(ceremony: &Ceremony, refused: StepRefused) -> Error {
    match refused {
        StepRefused::Aborts(cause) => told(Reason::CeremonyAborted, "cause", &cause.to_string()),
        StepRefused::ComponentRejected => Error::Refused {
            reason: Reason::ShareRefused,
            metadata: vec![
                ("cause", NOT_THE_SHARE.to_owned()),
                ("tries_left", ceremony.tries_left().to_string()),
            ],
        },
        StepRefused::DigestDiffers => Error::field("plan_digest", "is that of another plan"),
        StepRefused::NotNext => not_next(ceremony),
        StepRefused::OtherKey => told(Reason::PolicyDenied, "cause", OTHER_KEY),
        StepRefused::Rng(_) | StepRefused::SignatureInvalid => {
            vault::Error::incident("a step with a share has neither", RESOURCE).into()
        }
    }
}

const NOT_THE_SHARE: &str = "it is not what was taken";
