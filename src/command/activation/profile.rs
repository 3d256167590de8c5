//! Profiles: which keys, limits and rules a group of terminals has.

use serde::{Deserialize, Serialize};

use crate::activation::parameters::{Currency, Limits};
use crate::agreement::Suite;
use crate::command::{Error, Page, RequestId, give_up, recall, remember, retrying};
use crate::key::usage::BaseDerivation;
use crate::vault::{Action, Caller, Kind, Operation, Reason, Record, UnixMillis, Vault, Versioned};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// How many test transactions a profile may ask for.
pub const TEST_TRANSACTIONS_MAX: u32 = 10;

/// What a group of terminals has in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The id in `profiles/{id}`.
    pub id: String,
    /// The algorithms.
    pub suite: Suite,
    /// The id in `keys/{id}` of the base derivation key.
    pub base_derivation_key: String,
    /// Whether a terminal needs an activation code.
    pub code_required: bool,
    /// How long a code lives, in milliseconds.
    pub code_lifetime_ms: u64,
    /// How many test transactions must pass.
    pub test_transactions: u32,
    /// Whether a tested terminal is enabled without a call.
    pub automatic_enabling: bool,
    /// Whether enabling waits for a settlement-account digest.
    pub settlement_digest_required: bool,
    /// ISO 4217.
    pub currency: String,
    /// The most that one transaction may be, in minor units.
    pub single_amount_minor: u64,
    /// The most that the transactions of a day may be, in minor units.
    pub daily_amount_minor: u64,
    /// The version of parameters that terminals receive.
    pub parameters_version: u32,
    /// How long the old keys serve after a re-key is confirmed, in milliseconds.
    pub rekey_grace_ms: u64,
    /// When it was created.
    pub created: UnixMillis,
}

impl Record for Profile {
    const KIND: Kind = Kind::new("profile");

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// A profile that is to be created; see [`Profile`].
#[derive(Debug, Clone)]
pub struct NewProfile {
    /// The id in `profiles/{id}`.
    pub id: String,
    /// The algorithms.
    pub suite: Suite,
    /// The id in `keys/{id}` of the base derivation key.
    pub base_derivation_key: String,
    /// Whether a terminal needs an activation code.
    pub code_required: bool,
    /// How long a code lives: 1 minute to 72 hours. None: 24 hours.
    pub code_lifetime_ms: Option<u64>,
    /// How many test transactions must pass, [`TEST_TRANSACTIONS_MAX`] at most.
    pub test_transactions: u32,
    /// Whether a tested terminal is enabled without a call.
    pub automatic_enabling: bool,
    /// Whether enabling waits for a settlement-account digest.
    pub settlement_digest_required: bool,
    /// The currency.
    pub currency: Currency,
    /// The limits.
    pub limits: Limits,
    /// How long the old keys serve after a re-key: 72 hours at most. None: 1 hour.
    pub rekey_grace_ms: Option<u64>,
}

impl NewProfile {
    /// The profile of a development service: codes, one test transaction, enabling by call.
    #[must_use]
    pub fn for_dev_only(id: &str, base_derivation_key: &str, suite: Suite) -> Self {
        Self {
            id: id.to_owned(),
            suite,
            base_derivation_key: base_derivation_key.to_owned(),
            code_required: true,
            code_lifetime_ms: None,
            test_transactions: 1,
            automatic_enabling: false,
            settlement_digest_required: false,
            currency: Currency::new("EUR").expect("EUR is a currency code"),
            limits: Limits::new(50_000, 500_000).expect("the single limit is the smaller"),
            rekey_grace_ms: None,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let lifetime = self.code_lifetime_ms.unwrap_or(24 * HOUR_MS);
        if !(MINUTE_MS..=72 * HOUR_MS).contains(&lifetime) {
            return Err(Error::field("profile.code_lifetime", "is 1 minute to 72 hours"));
        }
        if self.test_transactions > TEST_TRANSACTIONS_MAX {
            return Err(Error::field("profile.test_transactions", "is 10 at most"));
        }
        if self.rekey_grace_ms.is_some_and(|grace| grace > 72 * HOUR_MS) {
            return Err(Error::field("profile.rekey_grace", "is 72 hours at most"));
        }
        Ok(())
    }
}

/// Creates a profile over a base derivation key that is there and fits.
pub async fn create_profile(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    new: NewProfile,
) -> Result<Profile, Error> {
    retrying(|| create_once(vault, caller, request, &new)).await
}

async fn create_once(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    new: &NewProfile,
) -> Result<Profile, Error> {
    let action = Action::CreateProfile;
    let mut work = vault.begin(caller, action, format!("profiles/{}", new.id)).await?;
    if let Some(answer) = recall(vault, caller, action, request).await? {
        return Ok(answer);
    }
    if let Err(error) = check_new(vault, new).await {
        return Err(give_up(work, error).await);
    }
    let profile = Profile {
        id: new.id.clone(),
        suite: new.suite,
        base_derivation_key: new.base_derivation_key.clone(),
        code_required: new.code_required,
        code_lifetime_ms: new.code_lifetime_ms.unwrap_or(24 * HOUR_MS),
        test_transactions: new.test_transactions,
        automatic_enabling: new.automatic_enabling,
        settlement_digest_required: new.settlement_digest_required,
        currency: new.currency.as_str().to_owned(),
        single_amount_minor: new.limits.single_minor(),
        daily_amount_minor: new.limits.daily_minor(),
        parameters_version: 1,
        rekey_grace_ms: new.rekey_grace_ms.unwrap_or(HOUR_MS),
        created: work.now(),
    };
    work.put(&Versioned::absent(profile.clone()))?;
    remember(vault, &mut work, request, &profile).await?;
    work.commit().await?;
    Ok(profile)
}

/// A profile is new, within its bounds, and its base derivation key gives out initial keys.
async fn check_new(vault: &Vault, new: &NewProfile) -> Result<(), Error> {
    new.check()?;
    if vault.get::<Profile>(&new.id).await?.is_some() {
        return Err(Error::refused(Reason::ResourceAlreadyExists));
    }
    let operation = Operation::DeriveInitial;
    let bdk = vault.key::<BaseDerivation>(&new.base_derivation_key, operation).await?;
    if bdk.key().algorithm() != new.suite.initial_key_algorithm() {
        return Err(Error::refused(Reason::KeyUsageMismatch));
    }
    // Without one no initial key id, and so no KSN, could be made.
    if bdk.record().attributes.key_set_id.is_none() {
        return Err(Error::field("profile.base_derivation_key", "has no key set id"));
    }
    Ok(())
}

/// Returns a profile.
pub async fn get_profile(vault: &Vault, caller: &Caller, id: &str) -> Result<Profile, Error> {
    vault.authorise(caller, Action::GetProfile, &format!("profiles/{id}")).await?;
    read_profile(vault, id).await
}

/// Lists profiles.
pub async fn list_profiles(
    vault: &Vault,
    caller: &Caller,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<Profile>, Error> {
    vault.authorise(caller, Action::ListProfiles, "profiles").await?;
    Page::read(vault, None, after, limit).await
}

pub(super) async fn read_profile(vault: &Vault, id: &str) -> Result<Profile, Error> {
    let profile = vault.get::<Profile>(id).await?;
    Ok(profile.ok_or_else(|| Error::refused(Reason::ResourceNotFound))?.record)
}
