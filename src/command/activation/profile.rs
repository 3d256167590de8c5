//! Profiles: which keys, limits and rules a group of terminals has.

use serde::{Deserialize, Serialize};

use super::terminal_keys::derivation_key;
use crate::activation::parameters::{Currency, Limits};
use crate::activation::terminal_key::{SLOTS, TERMINAL_KEYS_MAX, TerminalKeyUsage};
use crate::agreement::Suite;
use crate::command::{
    Error, Filling, Page, RequestId, Scan, approvals, audited, give_up, recall, refuse, remember,
    repeated, retrying,
};
use crate::key::Algorithm;
use crate::key::usage::BaseDerivation;
use crate::vault::{
    Action, Caller, KeyUsage, Kind, Operation, Reason, Record, StoredKey, UnixMillis, Vault,
    Versioned, Work,
};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const CODE_LIFETIME_MS_DEFAULT: u64 = 24 * HOUR_MS;
const REKEY_GRACE_MS_DEFAULT: u64 = HOUR_MS;

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
    /// The static keys that its terminals have beside the initial key, slots ascending.
    pub keys: Vec<ProfileKey>,
    /// When it was created.
    pub created: UnixMillis,
    /// When it was last updated.
    pub updated: UnixMillis,
}

impl Record for Profile {
    const KIND: Kind = Kind::new("profile");

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// A static key that each terminal of a profile has, derived for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileKey {
    /// Where the terminal keeps it.
    pub slot: u8,
    /// What it is for.
    pub usage: TerminalKeyUsage,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// The id in `keys/{id}` of the key that it is derived from.
    pub derivation_key: String,
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
    /// The static keys of its terminals.
    pub keys: Vec<ProfileKey>,
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
            keys: Vec::new(),
        }
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
        return repeated(work, answer).await;
    }
    let profile = match checked(vault, &mut work, new).await {
        Ok(profile) => profile,
        Err(error) => return Err(give_up(work, error).await),
    };
    work.put(&Versioned::absent(profile.clone()))?;
    let mut work = approvals::require(vault, work, request, &[]).await?;
    remember(vault, &mut work, request, &profile).await?;
    work.commit().await?;
    Ok(profile)
}

/// The profile that is asked for: a new one, within its bounds, over a base derivation key that
/// gives out initial keys.
async fn checked(vault: &Vault, work: &mut Work, new: &NewProfile) -> Result<Profile, Error> {
    let code_lifetime_ms = code_lifetime_ms(new.code_lifetime_ms)?;
    let test_transactions = test_transactions(new.test_transactions)?;
    let rekey_grace_ms = rekey_grace_ms(new.rekey_grace_ms)?;
    if vault.get::<Profile>(&new.id).await?.is_some() {
        return Err(Error::refused(Reason::ResourceAlreadyExists));
    }
    work.uses(&base_key(vault, new.suite, &new.base_derivation_key).await?);
    check_keys(vault, work, new).await?;
    Ok(Profile {
        id: new.id.clone(),
        suite: new.suite,
        base_derivation_key: new.base_derivation_key.clone(),
        code_required: new.code_required,
        code_lifetime_ms,
        test_transactions,
        automatic_enabling: new.automatic_enabling,
        settlement_digest_required: new.settlement_digest_required,
        currency: new.currency.as_str().to_owned(),
        single_amount_minor: new.limits.single_minor(),
        daily_amount_minor: new.limits.daily_minor(),
        parameters_version: 1,
        rekey_grace_ms,
        keys: new.keys.clone(),
        created: work.now(),
        updated: work.now(),
    })
}

/// The static keys are few, each in a slot of its own, carried by the suite and derived from a key
/// that is there.
async fn check_keys(vault: &Vault, work: &mut Work, new: &NewProfile) -> Result<(), Error> {
    if new.keys.len() > TERMINAL_KEYS_MAX {
        return Err(Error::field("profile.keys", "are 7 at most"));
    }
    let mut below = 0;
    for (index, key) in new.keys.iter().enumerate() {
        let field = |name, cause| Error::field(format!("profile.keys[{index}].{name}"), cause);
        if key.slot <= below || !SLOTS.contains(&key.slot) {
            return Err(field("slot", "is 1 to 15, and above the one before it"));
        }
        below = key.slot;
        let usage = KeyUsage::from_code(key.usage.code());
        if !usage.is_some_and(|usage| usage.permits(key.algorithm)) {
            return Err(field("algorithm", "is none that keys of this usage have"));
        }
        if !new.suite.carries(key.algorithm) {
            return Err(Error::refused(Reason::WrappingKeyTooWeak));
        }
        work.uses(&derivation_key(vault, key).await?);
    }
    Ok(())
}

/// One field of a profile that changes, with its value from then on.
#[derive(Debug, Clone)]
pub enum ProfileChange {
    /// Whether a tested terminal is enabled without a call.
    AutomaticEnabling(bool),
    /// The id in `keys/{id}` of the base derivation key, for activations begun from then on.
    BaseDerivationKey(String),
    /// How long a code lives, in milliseconds; see [`NewProfile::code_lifetime_ms`].
    CodeLifetimeMs(Option<u64>),
    /// Whether a terminal needs an activation code.
    CodeRequired(bool),
    /// The currency and the limits; others than there were are a new version of parameters.
    Limits(Currency, Limits),
    /// How long the old keys serve after a re-key; see [`NewProfile::rekey_grace_ms`].
    RekeyGraceMs(Option<u64>),
    /// Whether enabling waits for a settlement-account digest.
    SettlementDigestRequired(bool),
    /// How many test transactions must pass.
    TestTransactions(u32),
}

impl ProfileChange {
    /// The field's name in the API.
    const fn field(&self) -> &'static str {
        match self {
            Self::AutomaticEnabling(_) => "automatic_enabling",
            Self::BaseDerivationKey(_) => "base_derivation_key",
            Self::CodeLifetimeMs(_) => "code_lifetime",
            Self::CodeRequired(_) => "no_code",
            Self::Limits(..) => "limits",
            Self::RekeyGraceMs(_) => "rekey_grace",
            Self::SettlementDigestRequired(_) => "settlement_digest_required",
            Self::TestTransactions(_) => "test_transactions",
        }
    }
}

/// Changes a profile: all of the changes or none.
pub async fn update_profile(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    id: &str,
    changes: &[ProfileChange],
) -> Result<Profile, Error> {
    retrying(|| update_once(vault, caller, request, id, changes)).await
}

async fn update_once(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    id: &str,
    changes: &[ProfileChange],
) -> Result<Profile, Error> {
    let action = Action::UpdateProfile;
    let mut work = vault.begin(caller, action, format!("profiles/{id}")).await?;
    if let Some(answer) = recall(vault, caller, action, request).await? {
        return repeated(work, answer).await;
    }
    let Some(mut profile) = vault.get::<Profile>(id).await? else {
        return Err(refuse(work, Reason::ResourceNotFound).await);
    };
    if let Err(error) = change(vault, &mut work, &mut profile.record, changes).await {
        return Err(give_up(work, error).await);
    }
    let fields: Vec<&str> = changes.iter().map(ProfileChange::field).collect();
    work.detail("fields", fields.join(", "));
    work.detail("parameters_version", profile.record.parameters_version.to_string());
    work.put(&profile)?;
    let mut work = approvals::require(vault, work, request, &[]).await?;
    remember(vault, &mut work, request, &profile.record).await?;
    work.commit().await?;
    Ok(profile.record)
}

async fn change(
    vault: &Vault,
    work: &mut Work,
    profile: &mut Profile,
    changes: &[ProfileChange],
) -> Result<(), Error> {
    for change in changes {
        match change {
            ProfileChange::AutomaticEnabling(enabling) => profile.automatic_enabling = *enabling,
            ProfileChange::BaseDerivationKey(key) => {
                work.uses(&base_key(vault, profile.suite, key).await?);
                profile.base_derivation_key.clone_from(key);
            }
            ProfileChange::CodeLifetimeMs(ms) => profile.code_lifetime_ms = code_lifetime_ms(*ms)?,
            ProfileChange::CodeRequired(required) => profile.code_required = *required,
            ProfileChange::Limits(currency, limits) => profile.limit(*currency, *limits)?,
            ProfileChange::RekeyGraceMs(ms) => profile.rekey_grace_ms = rekey_grace_ms(*ms)?,
            ProfileChange::SettlementDigestRequired(required) => {
                profile.settlement_digest_required = *required;
            }
            ProfileChange::TestTransactions(count) => {
                profile.test_transactions = test_transactions(*count)?;
            }
        }
    }
    profile.updated = work.now();
    Ok(())
}

impl Profile {
    /// Sets currency and limits. Terminals tell parameter files apart by their version alone, so
    /// other limits are a higher one, and the same ones are none.
    fn limit(&mut self, currency: Currency, limits: Limits) -> Result<(), Error> {
        let now = (currency.as_str(), limits.single_minor(), limits.daily_minor());
        if now == (self.currency.as_str(), self.single_amount_minor, self.daily_amount_minor) {
            return Ok(());
        }
        let version = self.parameters_version.checked_add(1).ok_or_else(|| {
            Error::field("profile.limits", "changed too often: the version is the highest")
        })?;
        (self.single_amount_minor, self.daily_amount_minor) = (now.1, now.2);
        currency.as_str().clone_into(&mut self.currency);
        self.parameters_version = version;
        Ok(())
    }
}

fn code_lifetime_ms(given: Option<u64>) -> Result<u64, Error> {
    let ms = given.unwrap_or(CODE_LIFETIME_MS_DEFAULT);
    let bounds = MINUTE_MS..=72 * HOUR_MS;
    let refused = || Error::field("profile.code_lifetime", "is 1 minute to 72 hours");
    bounds.contains(&ms).then_some(ms).ok_or_else(refused)
}

fn rekey_grace_ms(given: Option<u64>) -> Result<u64, Error> {
    let ms = given.unwrap_or(REKEY_GRACE_MS_DEFAULT);
    let refused = || Error::field("profile.rekey_grace", "is 72 hours at most");
    (ms <= 72 * HOUR_MS).then_some(ms).ok_or_else(refused)
}

fn test_transactions(count: u32) -> Result<u32, Error> {
    let refused = || Error::field("profile.test_transactions", "is 10 at most");
    (count <= TEST_TRANSACTIONS_MAX).then_some(count).ok_or_else(refused)
}

/// A base derivation key that gives out initial keys of a suite, to registered terminals alone:
/// below an open one keys serve whose terminal nobody knows, so delivered ones before they are
/// confirmed, and whatever is decided about the terminal.
async fn base_key(
    vault: &Vault,
    suite: Suite,
    id: &str,
) -> Result<StoredKey<BaseDerivation>, Error> {
    let bdk = vault.key::<BaseDerivation>(id, Operation::DeriveInitial).await?;
    let is_open = bdk.record().attributes.open;
    if is_open || bdk.key().algorithm() != suite.initial_key_algorithm() {
        return Err(Error::refused(Reason::KeyUsageMismatch));
    }
    // Without one no initial key id, and so no KSN, could be made.
    if bdk.record().attributes.key_set_id.is_none() {
        return Err(Error::field("profile.base_derivation_key", "has no key set id"));
    }
    Ok(bdk)
}

/// Returns a profile.
pub async fn get_profile(vault: &Vault, caller: &Caller, id: &str) -> Result<Profile, Error> {
    let found = async {
        check_seen(vault, caller, id)?;
        read_profile(vault, id).await
    };
    audited(vault, caller, Action::GetProfile, format!("profiles/{id}"), found).await
}

/// Refuses a caller that may not know of a profile as if there were no such profile.
pub(super) fn check_seen(vault: &Vault, caller: &Caller, id: &str) -> Result<(), Error> {
    if vault.policy().sees_profile(caller, id) {
        Ok(())
    } else {
        Err(Error::Hidden { reason: Reason::ResourceNotFound, rule: "profile" })
    }
}

/// Lists the profiles that the caller may know of.
pub async fn list_profiles(
    vault: &Vault,
    caller: &Caller,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<Profile>, Error> {
    let page = async {
        let policy = vault.policy();
        let mut profiles = Scan::<Profile>::new(vault, None, after);
        let mut page = Filling::new(limit);
        while let Some(profile) = profiles.next().await? {
            let is_seen = policy.sees_profile(caller, &profile.id);
            if is_seen && !page.takes(profile.id.clone(), profile) {
                return Ok(page.full());
            }
        }
        Ok(page.end(profiles.rest()))
    };
    audited(vault, caller, Action::ListProfiles, "profiles", page).await
}

pub(super) async fn read_profile(vault: &Vault, id: &str) -> Result<Profile, Error> {
    let profile = vault.get::<Profile>(id).await?;
    Ok(profile.ok_or_else(|| Error::refused(Reason::ResourceNotFound))?.record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(parameters_version: u32) -> Profile {
        Profile {
            id: "retail".to_owned(),
            suite: Suite::P256Aes128,
            base_derivation_key: "bdk".to_owned(),
            code_required: true,
            code_lifetime_ms: CODE_LIFETIME_MS_DEFAULT,
            test_transactions: 1,
            automatic_enabling: false,
            settlement_digest_required: false,
            currency: "EUR".to_owned(),
            single_amount_minor: 100,
            daily_amount_minor: 1_000,
            parameters_version,
            rekey_grace_ms: REKEY_GRACE_MS_DEFAULT,
            keys: Vec::new(),
            created: UnixMillis(0),
            updated: UnixMillis(0),
        }
    }

    #[test]
    fn other_limits_are_a_higher_version_until_there_is_none() {
        let euro = Currency::new("EUR").unwrap();
        let franc = Currency::new("CHF").unwrap();
        let limits = |single, daily| Limits::new(single, daily).unwrap();
        let mut last = profile(u32::MAX - 1);
        last.limit(euro, limits(100, 1_000)).unwrap();
        assert_eq!(last.parameters_version, u32::MAX - 1);
        last.limit(franc, limits(100, 1_000)).unwrap();
        assert_eq!((last.parameters_version, last.currency.as_str()), (u32::MAX, "CHF"));
        assert!(last.limit(euro, limits(100, 1_000)).is_err());
        assert!(last.limit(franc, limits(101, 1_000)).is_err());
        assert_eq!((last.currency.as_str(), last.single_amount_minor), ("CHF", 100));
        last.limit(franc, limits(100, 1_000)).unwrap();
    }
}
