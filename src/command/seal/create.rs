//! How a master key is made: the first of a store, or one in place of another. Under the token in
//! one step; for custodians when each has taken a share and read it back.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::distribution::Distribution;
use super::giver::{Giver, Sent, unfit};
use super::opening::are_custodians;
use super::token::{TokenAccess, unavailable};
use super::{Desk, Keeper, RESOURCE, Status, not_open, to_its_end};
use crate::command::{Error, RequestId, approvals, give_up, recall, remember, repeated};
use crate::crypto::sharing::{SHARES_MAX, THRESHOLD_MIN};
use crate::vault::{Action, Caller, MasterKey, Opener, Policy, Reason, Role, Seal, Vault, Work};

/// Who is to keep a master key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keepers {
    /// Custodians with a share each.
    Custodians {
        /// How many of them open the vault together.
        threshold: u8,
        /// The URI names of their certificates.
        names: Vec<String>,
    },
    /// The token of the configuration.
    Token,
}

/// What is remembered of a call that made a master key, or began to.
#[derive(Serialize, Deserialize)]
struct Created {}

impl Keeper {
    /// Makes the first master key of an empty store, for an officer of the policy that it will be
    /// begun with.
    pub async fn create_first(
        self: &Arc<Self>,
        officer: &str,
        keepers: Keepers,
    ) -> Result<Status, Error> {
        let (keeper, officer) = (Arc::clone(self), officer.to_owned());
        to_its_end(async move {
            let mut desk = keeper.desk().await;
            keeper.expect_empty().await?;
            let opener = keeper.opener()?;
            let policy = first_policy(opener)?;
            expect_role(policy, &officer, Role::Officer)?;
            match keepers {
                Keepers::Custodians { threshold, names } => {
                    expect_fit(policy, threshold, &names)?;
                    keeper.distribute(&mut desk, &officer, (threshold, names))
                }
                Keepers::Token => {
                    let (master, seal) = keeper.wrap(&mut desk).await?;
                    keeper.begin_store(&mut desk, (master, seal), &officer).await
                }
            }
        })
        .await?;
        self.status().await
    }

    /// Makes a master key in place of the one in force, for an officer and those who approve.
    pub async fn create_next(
        self: &Arc<Self>,
        vault: Arc<Vault>,
        caller: Caller,
        request: Option<RequestId>,
        keepers: Keepers,
    ) -> Result<Status, Error> {
        let keeper = Arc::clone(self);
        to_its_end(async move {
            let mut desk = keeper.desk().await;
            let work = vault.begin(&caller, Action::CreateMasterKey, RESOURCE).await?;
            let action = Action::CreateMasterKey;
            if let Some(Created {}) = recall(&vault, &caller, action, request.as_ref()).await? {
                return repeated(work, ()).await;
            }
            if let Err(error) = keeper.expect_replaceable(&desk, &vault, &keepers) {
                return Err(give_up(work, error).await);
            }
            let mut work = approvals::require(&vault, work, request.as_ref(), &[]).await?;
            remember(&vault, &mut work, request.as_ref(), &Created {}).await?;
            match keepers {
                Keepers::Custodians { threshold, names } => {
                    work.detail("custodians", names.join(" "));
                    work.detail("threshold", threshold.to_string());
                    work.commit().await?;
                    keeper.distribute(&mut desk, caller.name(), (threshold, names))
                }
                Keepers::Token => match keeper.wrap(&mut desk).await {
                    Ok((master, seal)) => {
                        work.commit_master_key(master, seal).await?;
                        Ok(())
                    }
                    Err(error) => Err(give_up(work, error).await),
                },
            }
        })
        .await?;
        self.status().await
    }

    /// Gives a custodian a share of the distribution, once; it is audited where there is a log.
    pub async fn take(
        self: &Arc<Self>,
        at: Option<(Arc<Vault>, Caller)>,
        giver: Giver,
        distribution: [u8; 16],
        (key, signature): (Vec<u8>, [u8; 64]),
    ) -> Result<(Vec<u8>, Status), Error> {
        let keeper = Arc::clone(self);
        let sealed = to_its_end(async move {
            let mut desk = keeper.desk().await;
            let work = begin(at.as_ref(), Action::TakeShare).await?;
            let rng = &*keeper.opener()?.rng;
            let now = keeper.gate.now();
            let taken = match keeper.under_way(&mut desk, distribution, at.is_some()) {
                Ok(one) => one.take(&giver, &key, &signature, (rng, now)),
                Err(error) => Err(error),
            };
            // The share leaves when it is written down who has it.
            match (taken, work) {
                (Ok(sealed), Some(work)) => {
                    work.commit().await.map(|_| sealed).map_err(Error::from)
                }
                (Ok(sealed), None) => Ok(sealed),
                (Err(error), Some(work)) => Err(give_up(work, error).await),
                (Err(error), None) => Err(error),
            }
        })
        .await?;
        Ok((sealed, self.status().await?))
    }

    /// Takes what a custodian read back; the last one puts the master key in force.
    pub async fn confirm(
        self: &Arc<Self>,
        at: Option<(Arc<Vault>, Caller)>,
        giver: Giver,
        distribution: [u8; 16],
        sent: Sent,
    ) -> Result<Status, Error> {
        let keeper = Arc::clone(self);
        to_its_end(async move {
            let mut desk = keeper.desk().await;
            let work = begin(at.as_ref(), Action::ConfirmShare).await?;
            let now = keeper.gate.now();
            let confirmed = keeper.under_way(&mut desk, distribution, at.is_some());
            let confirmed = confirmed.and_then(|one| {
                let all = one.confirm(&giver, &sent, now)?;
                Ok(if all { Some((one.combine()?, one.seal(), one.by.clone())) } else { None })
            });
            match (confirmed, work) {
                (Ok(Some((master, seal, _))), Some(work)) => {
                    work.commit_master_key(master, seal).await?;
                    desk.distribution = None;
                }
                (Ok(Some((master, seal, by))), None) => {
                    keeper.begin_store(&mut desk, (master, seal), &by).await?;
                    desk.distribution = None;
                }
                (Ok(None), Some(work)) => drop(work.commit().await?),
                (Ok(None), None) => {}
                (Err(error), Some(work)) => return Err(give_up(work, error).await),
                (Err(error), None) => return Err(error),
            }
            Ok(())
        })
        .await?;
        self.status().await
    }

    /// Forgets a distribution, for an officer or one of its custodians.
    pub async fn abandon(
        self: &Arc<Self>,
        at: Option<(Arc<Vault>, Caller)>,
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
            let concerned = keeper.under_way(&mut desk, distribution, at.is_some());
            let concerned = concerned.and_then(|one| {
                let may = role == Some(Role::Officer) || one.concerns(&name);
                if may { Ok(()) } else { Err(Error::refused(Reason::PolicyDenied)) }
            });
            match (concerned, work) {
                (Ok(()), work) => {
                    desk.distribution = None;
                    tracing::warn!(by = name, "the distribution of a master key is abandoned");
                    if let Some(work) = work {
                        work.commit().await?;
                    }
                    Ok(())
                }
                (Err(error), Some(work)) => Err(give_up(work, error).await),
                (Err(error), None) => Err(error),
            }
        })
        .await?;
        self.status().await
    }

    /// Begins to distribute a new master key.
    fn distribute(
        &self,
        desk: &mut Desk,
        by: &str,
        (threshold, names): (u8, Vec<String>),
    ) -> Result<(), Error> {
        self.expect_free(desk)?;
        let (rng, now) = (&*self.opener()?.rng, self.gate.now());
        desk.distribution = Some(Distribution::begin(by, names, threshold, rng, now)?);
        Ok(())
    }

    /// Draws a master key and has the token wrap it.
    async fn wrap(&self, desk: &mut Desk) -> Result<(MasterKey, Seal), Error> {
        let (token, rng) = (self.expect_token()?.clone(), Arc::clone(&self.opener()?.rng));
        let Ok(master) = MasterKey::draw(&*rng) else {
            let error = crate::vault::Error::incident("no master key was drawn", RESOURCE);
            return Err(error.into());
        };
        let wrapped = token.wrap(rng, master).await;
        desk.token = Some(wrapped.as_ref().map(|_| ()).map_err(|trouble| *trouble));
        wrapped.map_err(|trouble| {
            tracing::error!(%trouble, "the token does not wrap the master key");
            unavailable(trouble)
        })
    }

    /// Begins the store, and opens it at once.
    async fn begin_store(
        &self,
        desk: &mut Desk,
        (master, seal): (MasterKey, Seal),
        by: &str,
    ) -> Result<(), Error> {
        self.expect_empty().await?;
        let ajar = self.gate.begin_opening().ok_or_else(|| unfit("it is not sealed any more"))?;
        let (kind, names) = (seal.as_str(), desk.keepers());
        let vault = self.opener()?.begin(master, seal).await;
        let vault = vault.map_err(|error| not_open(&error))?;
        let told = async {
            let service = Caller::service();
            let mut work = vault.begin(&service, Action::OpenVault, RESOURCE).await?;
            work.detail("seal", kind);
            work.detail("generation", vault.generation().to_string());
            work.detail("made_by", by);
            if !names.is_empty() {
                work.detail("custodians", names.join(" "));
            }
            work.commit().await?;
            Ok(())
        };
        let told = told.await;
        self.let_through(desk, ajar, vault, told).await
    }

    /// Goes on only where the store is empty and nobody opens it.
    async fn expect_empty(&self) -> Result<(), Error> {
        self.expect_sealed()?;
        match self.custody().await? {
            None => Ok(()),
            Some(_) => Err(unfit("the store has a master key: unseal it first")),
        }
    }

    /// Goes on only where a master key can be made in place of another.
    fn expect_replaceable(
        &self,
        desk: &Desk,
        vault: &Vault,
        keepers: &Keepers,
    ) -> Result<(), Error> {
        self.opener()?;
        self.expect_free(desk)?;
        if vault.rotation().is_some() {
            return Err(Error::refused(Reason::RotationUnderWay));
        }
        match keepers {
            Keepers::Custodians { threshold, names } => {
                expect_fit(&vault.policy(), *threshold, names)
            }
            Keepers::Token => self.expect_token().map(|_| ()),
        }
    }

    /// Goes on only where no master key is being distributed.
    fn expect_free(&self, desk: &Desk) -> Result<(), Error> {
        let now = self.gate.now();
        match desk.distribution.as_ref().filter(|one| now < one.expires) {
            Some(_) => {
                Err(unfit("a master key is being distributed: go on with it, or abandon it"))
            }
            None => Ok(()),
        }
    }

    pub(super) fn expect_token(&self) -> Result<&TokenAccess, Error> {
        self.token.as_ref().ok_or_else(|| unfit("the configuration names no token: [seal]"))
    }

    /// The distribution of this id. One that was begun before there was a store is not gone on with
    /// when there is one, nor the other way.
    fn under_way<'a>(
        &self,
        desk: &'a mut Desk,
        id: [u8; 16],
        is_open: bool,
    ) -> Result<&'a mut Distribution, Error> {
        if !is_open {
            self.expect_sealed()?;
        }
        let now = self.gate.now();
        let found = desk.distribution.as_mut().filter(|one| one.id == id && now < one.expires);
        found.ok_or_else(|| unfit("there is no such distribution: an officer begins one"))
    }
}

impl Desk {
    /// The custodians of the distribution.
    fn keepers(&self) -> Vec<String> {
        let keepers = self.distribution.iter().flat_map(|one| &one.keepers);
        keepers.map(|keeping| keeping.name.clone()).collect()
    }
}

/// Begins a unit of work, where the vault is open.
async fn begin(at: Option<&(Arc<Vault>, Caller)>, action: Action) -> Result<Option<Work>, Error> {
    match at {
        Some((vault, caller)) => Ok(Some(vault.begin(caller, action, RESOURCE).await?)),
        None => Ok(None),
    }
}

/// The policy that an empty store will be begun with.
fn first_policy(opener: &Opener) -> Result<&Policy, Error> {
    let policy = opener.first_policy.as_ref();
    policy.ok_or_else(|| unfit("the configuration names no policy to begin the store with"))
}

fn role_of(policy: &Policy, name: &str) -> Option<Role> {
    policy.principal(name).map(|principal| principal.role)
}

fn expect_role(policy: &Policy, name: &str, role: Role) -> Result<(), Error> {
    match role_of(policy, name) {
        Some(found) if found == role => Ok(()),
        Some(_) => Err(Error::refused(Reason::PolicyDenied)),
        None => Err(Error::refused(Reason::CallerUnknown)),
    }
}

/// Whether shares can be given to these: custodians, each another person, enough of them.
fn expect_fit(policy: &Policy, threshold: u8, names: &[String]) -> Result<(), Error> {
    let count = u8::try_from(names.len()).unwrap_or(u8::MAX);
    if !(THRESHOLD_MIN..=SHARES_MAX).contains(&count) {
        return Err(Error::field("custodians.names", "are not 2 to 16"));
    }
    if !(THRESHOLD_MIN..=count).contains(&threshold) {
        let cause = "is not 2 to as many as there are custodians";
        return Err(Error::field("custodians.threshold", cause));
    }
    if !are_custodians(policy, names) {
        let cause = "are not custodians of the policy, each another person";
        return Err(Error::field("custodians.names", cause));
    }
    Ok(())
}
