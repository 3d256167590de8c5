//! How a master key is made: the first of a store, or one in place of another. Under the token in
//! one step; for custodians it is drawn here, and in force when each has taken a share and read it
//! back.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::distribution::Distribution;
use super::giver::unfit;
use super::opening::are_custodians;
use super::token::{TokenAccess, unavailable};
use super::{Desk, Keeper, RESOURCE, Status, not_open, to_its_end};
use crate::command::ceremony::conduct::people_of;
use crate::command::ceremony::plan::{Planned, Shares, Task};
use crate::command::ceremony::record::Ceremony;
use crate::command::{Error, RequestId, approvals, give_up, recall, remember, repeated};
use crate::crypto::sharing::{SHARES_MAX, THRESHOLD_MIN};
use crate::vault::{
    Action, Caller, MasterKey, Opener, Policy, Reason, Role, Seal, Vault, Versioned, Work,
};

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
    /// The custodians of a plan, in a ceremony.
    Planned(Box<Planned>),
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
            expect_fit(policy, &keepers, true)?;
            keeper.expect_free(&desk)?;
            if let Some(one) = keeper.draw(&officer, &keepers)? {
                desk.distribution = Some(one);
                return Ok(());
            }
            let (master, seal) = keeper.wrap(&mut desk).await?;
            keeper.begin_store(&mut desk, (master, seal), &officer, None).await
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
            desk.look_at_ceremony(&vault).await?;
            if let Err(error) = keeper.expect_replaceable(&desk, &vault, &keepers) {
                return Err(give_up(work, error).await);
            }
            let mut work = approvals::require(&vault, work, request.as_ref(), &[]).await?;
            remember(&vault, &mut work, request.as_ref(), &Created {}).await?;
            let Some(one) = keeper.draw(caller.name(), &keepers)? else {
                return match keeper.wrap(&mut desk).await {
                    Ok((master, seal)) => {
                        work.commit_master_key(master, seal).await?;
                        Ok(())
                    }
                    Err(error) => Err(give_up(work, error).await),
                };
            };
            work.detail("custodians", one.names().join(" "));
            work.detail("threshold", one.set.threshold.to_string());
            if let Some(ceremony) = &one.ceremony {
                work.detail("ceremony", ceremony.record.name());
                work.put(ceremony)?;
            }
            work.commit().await?;
            desk.distribution = Some(one);
            // As the store has it from now on.
            desk.look_at_ceremony(&vault).await
        })
        .await?;
        self.status().await
    }

    /// Draws a master key for custodians; none where the token keeps it.
    fn draw(&self, by: &str, keepers: &Keepers) -> Result<Option<Distribution>, Error> {
        let (rng, now) = (&*self.opener()?.rng, self.gate.now());
        let begun = match keepers {
            Keepers::Custodians { threshold, names } => {
                Distribution::begin(by, names.clone(), *threshold, rng, now)
            }
            Keepers::Planned(planned) => {
                let threshold = shares_of(planned)?.threshold;
                Distribution::begin_planned(by, (planned, threshold), rng, now)
            }
            Keepers::Token => return Ok(None),
        };
        begun.map(Some)
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

    /// Begins the store, with the record of the ceremony in the same commit, and opens it at once.
    pub(super) async fn begin_store(
        &self,
        desk: &mut Desk,
        (master, seal): (MasterKey, Seal),
        by: &str,
        ceremony: Option<Versioned<Ceremony>>,
    ) -> Result<(), Error> {
        self.expect_empty().await?;
        let ajar = self.gate.begin_opening().ok_or_else(|| unfit("it is not sealed any more"))?;
        let kind = seal.as_str();
        let names = desk.distribution.as_ref().map(Distribution::names).unwrap_or_default();
        let also = |work: &mut Work| ceremony.iter().try_for_each(|one| work.put(one));
        let vault = self.opener()?.begin(master, seal, &also).await;
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
        expect_fit(&vault.policy(), keepers, false)?;
        match keepers {
            Keepers::Custodians { .. } | Keepers::Planned(_) => Ok(()),
            Keepers::Token => self.expect_token().map(drop),
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
}

/// The policy that an empty store will be begun with.
pub(super) fn first_policy(opener: &Opener) -> Result<&Policy, Error> {
    let policy = opener.first_policy.as_ref();
    policy.ok_or_else(|| unfit("the configuration names no policy to begin the store with"))
}

pub(super) fn role_of(policy: &Policy, name: &str) -> Option<Role> {
    policy.principal(name).map(|principal| principal.role)
}

fn expect_role(policy: &Policy, name: &str, role: Role) -> Result<(), Error> {
    match role_of(policy, name) {
        Some(found) if found == role => Ok(()),
        Some(_) => Err(Error::refused(Reason::PolicyDenied)),
        None => Err(Error::refused(Reason::CallerUnknown)),
    }
}

/// Whether shares can be given to these: custodians, each another person, enough of them. A plan
/// says besides whether it is for the first master key.
fn expect_fit(policy: &Policy, keepers: &Keepers, is_first: bool) -> Result<(), Error> {
    let (threshold, names) = match keepers {
        Keepers::Custodians { threshold, names } => (*threshold, names),
        Keepers::Planned(planned) => {
            if matches!(planned.task(), Task::Initialise(_)) != is_first {
                let cause = "is not to initialise an empty store, or to re-share one that is begun";
                return Err(Error::field("plan", cause));
            }
            let people = people_of(policy, planned.plan());
            people.map_err(|cause| Error::field("plan", cause))?;
            (shares_of(planned)?.threshold, &planned.plan().custodians)
        }
        Keepers::Token => return Ok(()),
    };
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

/// How a plan gives out a master key, if it does.
fn shares_of(planned: &Planned) -> Result<&Shares, Error> {
    match planned.task() {
        Task::Initialise(shares) | Task::ReShare(shares) => Ok(shares),
        Task::Destroy(_) | Task::Export(_) | Task::Generate(_) | Task::Import(_) => {
            Err(Error::field("plan", "makes no master key: CeremonyService runs it"))
        }
    }
}
