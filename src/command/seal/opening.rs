//! How the vault is opened: by shares, or by the token. Who gave shares is judged when the policy
//! can be read, before anything else is done.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::attempt::Attempt;
use super::giver::{Giver, Sent, unfit};
use super::token::unavailable;
use super::{Desk, Keeper, RESOURCE, ShareSet, Status, not_open, to_its_end};
use crate::command::Error;
use crate::component::Share;
use crate::crypto::token::TokenError;
use crate::vault::{
    Action, Ajar, Caller, Custody, MasterKey, Policy, Reason, Role, Seal, Vault, may_call,
};

impl Keeper {
    /// Takes a share for an attempt; with enough of them the vault is opened.
    pub async fn give(
        self: &Arc<Self>,
        giver: Giver,
        attempt: [u8; 16],
        sent: Sent,
    ) -> Result<Status, Error> {
        let keeper = Arc::clone(self);
        to_its_end(async move {
            let mut desk = keeper.desk().await;
            keeper.expect_sealed()?;
            let custody = keeper.expect_custody().await?;
            let wanted = set_of(&custody.seal);
            let wanted = wanted.ok_or_else(|| unfit("a token opens it, no shares"))?;
            let now = keeper.gate.now();
            let under_way = desk.attempt.as_mut().filter(|one| one.id == attempt);
            let under_way = under_way.filter(|one| one.is_current(wanted, now));
            let Some(under_way) = under_way else {
                return Err(unfit("this attempt is over: ask for the status, and begin anew"));
            };
            if !under_way.give(&giver, &sent, now)? {
                tracing::info!(by = giver.name, "a share was given");
                return Ok(());
            }
            let (givers, shares) =
                desk.attempt.take().map(Attempt::into_shares).unwrap_or_default();
            let master = Share::combine(&shares.iter().collect::<Vec<_>>());
            let master = master.ok().map(MasterKey::new);
            let master = master.filter(|master| custody.accepts(master));
            drop(shares);
            let Some(master) = master else {
                desk.failed_attempts = desk.failed_attempts.saturating_add(1);
                tracing::warn!(by = givers.join(" "), "the shares do not open the vault");
                return Err(Error::refused(Reason::UnsealFailed));
            };
            keeper.open(&mut desk, (&custody, master), &givers).await
        })
        .await?;
        self.status().await
    }

    /// Tries the token once by itself, where it keeps the master key: when the service starts.
    pub async fn try_at_start(self: &Arc<Self>) -> Result<(), Error> {
        let is_sealed = self.expect_sealed().is_ok() && self.token.is_some();
        let custody = if is_sealed { self.custody().await? } else { None };
        if custody.is_some_and(|custody| matches!(custody.seal, Seal::Pkcs11 { .. })) {
            self.try_token(Caller::service().name()).await?;
        }
        Ok(())
    }

    /// Tries the token once.
    pub async fn try_token(self: &Arc<Self>, by: &str) -> Result<Status, Error> {
        let (keeper, by) = (Arc::clone(self), by.to_owned());
        to_its_end(async move {
            let mut desk = keeper.desk().await;
            keeper.expect_sealed()?;
            let custody = keeper.expect_custody().await?;
            if set_of(&custody.seal).is_some() {
                return Err(unfit("its custodians open it: give shares"));
            }
            let token = keeper.expect_token()?;
            let unwrapped = token.unwrap(&custody.seal).await;
            let unwrapped = unwrapped.and_then(|master| {
                let is_right = custody.accepts(&master);
                if is_right { Ok(master) } else { Err(TokenError::WrappedInvalid.into()) }
            });
            desk.token = Some(unwrapped.as_ref().map(|_| ()).map_err(|trouble| *trouble));
            let master = unwrapped.map_err(|trouble| {
                desk.failed_attempts = desk.failed_attempts.saturating_add(1);
                tracing::error!(%trouble, "the token does not open the vault");
                unavailable(trouble)
            })?;
            keeper.open(&mut desk, (&custody, master), &[by]).await
        })
        .await?;
        self.status().await
    }

    /// Opens the vault under its master key for those who brought it, and lets calls through.
    async fn open(
        &self,
        desk: &mut Desk,
        (custody, master): (&Custody, MasterKey),
        givers: &[String],
    ) -> Result<(), Error> {
        let ajar = self.gate.begin_opening().ok_or_else(|| unfit("it is not sealed any more"))?;
        let opened = self.opener()?.open(master, !desk.was_open).await;
        desk.fault = opened.as_ref().map_or_else(ToString::to_string, |_| String::new());
        let vault = opened.map_err(|error| not_open(&error))?;
        let begun = async {
            let mut work = vault.begin(&Caller::service(), Action::OpenVault, RESOURCE).await?;
            work.detail("seal", custody.seal.as_str());
            work.detail("generation", custody.generation.to_string());
            work.detail("given_by", givers.join(" "));
            work.detail("failed_attempts", desk.failed_attempts.to_string());
            let may = match custody.seal {
                Seal::Shamir { .. } => are_custodians(&vault.policy(), givers),
                Seal::Dev | Seal::Pkcs11 { .. } => may_try_token(&vault.policy(), givers),
            };
            if !may {
                desk.failed_attempts = desk.failed_attempts.saturating_add(1);
                return Err(work.refuse(Reason::PolicyDenied).await.into());
            }
            work.commit().await?;
            Ok(())
        };
        let begun = begun.await;
        self.let_through(desk, ajar, vault, begun).await
    }

    /// Lets calls through to a vault that was opened, or closes it again.
    pub(super) async fn let_through(
        &self,
        desk: &mut Desk,
        ajar: Ajar,
        vault: Vault,
        begun: Result<(), Error>,
    ) -> Result<(), Error> {
        let told = match begun {
            Ok(()) => self.run.tell_start(&vault).await.map_err(Error::from),
            Err(error) => Err(error),
        };
        if let Err(error) = told {
            vault.close().await;
            return Err(error);
        }
        ajar.put(vault);
        desk.failed_attempts = 0;
        desk.was_open = true;
        tracing::info!("open: calls are served");
        Ok(())
    }

    /// What the store says of its master key, which has to be there.
    async fn expect_custody(&self) -> Result<Custody, Error> {
        let found = self.custody().await?;
        found.ok_or_else(|| unfit("the store is empty: an officer makes its master key first"))
    }
}

/// The shares that a seal asks for; none of another.
#[must_use]
pub const fn set_of(seal: &Seal) -> Option<ShareSet> {
    match seal {
        Seal::Shamir { set_id, threshold, shares } => {
            Some(ShareSet { id: *set_id, threshold: *threshold, shares: *shares })
        }
        Seal::Dev | Seal::Pkcs11 { .. } => None,
    }
}

/// Whether each is the service itself, which tries the token when it starts, or somebody who may
/// unseal. While it is sealed no policy is known, so this is judged when it is open.
fn may_try_token(policy: &Policy, names: &[String]) -> bool {
    let is_service = |name: &String| name == Caller::service().name();
    names.iter().all(|name| {
        is_service(name)
            || policy.principal(name).is_some_and(|known| may_call(known.role, Action::Unseal))
    })
}

/// Whether each is a custodian, and each another person.
pub(super) fn are_custodians(policy: &Policy, names: &[String]) -> bool {
    let mut persons = BTreeSet::new();
    names.iter().all(|name| {
        policy.principal(name).is_some_and(|principal| {
            principal.role == Role::Custodian && persons.insert(principal.person.as_str())
        })
    })
}
