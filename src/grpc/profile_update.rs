//! An update of a profile: the fields that its mask names, and no others.

use std::collections::BTreeSet;

use super::convert::{required, resource};
use super::proto;
use super::terminal_fields::{duration_ms, limits};
use crate::command::Error;
use crate::command::activation::profile::ProfileChange;

/// The id of the profile, and what changes in it.
pub(super) fn profile_update(
    profile: Option<proto::Profile>,
    mask: Option<prost_types::FieldMask>,
) -> Result<(String, Vec<ProfileChange>), Error> {
    let profile = required("profile", profile)?;
    let id = resource("profile.name", "profiles", &profile.name)?;
    let paths = required("update_mask", mask)?.paths;
    if paths.is_empty() {
        return Err(Error::field("update_mask", "names no field"));
    }
    if paths.iter().collect::<BTreeSet<_>>().len() < paths.len() {
        return Err(Error::field("update_mask", "names a field twice"));
    }
    let changes = paths.iter().map(|path| change(&profile, path)).collect::<Result<_, _>>()?;
    Ok((id, changes))
}

/// The change that one path of a mask asks for (AIP-134, with names of whole fields only).
fn change(profile: &proto::Profile, path: &str) -> Result<ProfileChange, Error> {
    Ok(match path {
        "automatic_enabling" => ProfileChange::AutomaticEnabling(profile.automatic_enabling),
        "base_derivation_key" => {
            let path = "profile.base_derivation_key";
            let key = resource(path, "keys", &profile.base_derivation_key)?;
            ProfileChange::BaseDerivationKey(key)
        }
        "code_lifetime" => {
            let ms = duration_ms("profile.code_lifetime", profile.code_lifetime)?;
            ProfileChange::CodeLifetimeMs(ms)
        }
        "limits" => {
            let (currency, limits) = limits(profile.limits.clone())?;
            ProfileChange::Limits(currency, limits)
        }
        "no_code" => ProfileChange::CodeRequired(!profile.no_code),
        "rekey_grace" => {
            ProfileChange::RekeyGraceMs(duration_ms("profile.rekey_grace", profile.rekey_grace)?)
        }
        "settlement_digest_required" => {
            ProfileChange::SettlementDigestRequired(profile.settlement_digest_required)
        }
        "test_transactions" => ProfileChange::TestTransactions(profile.test_transactions),
        "create_time" | "keys" | "name" | "parameters_version" | "suite" | "update_time" => {
            return Err(Error::field(format!("profile.{path}"), "does not change"));
        }
        _ => return Err(Error::field("update_mask", "names what is no field of a profile")),
    })
}
