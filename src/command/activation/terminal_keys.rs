//! The static keys that a profile gives its terminals, beside the initial key.

use super::begin::broken;
use super::deliver::block_version;
use super::profile::{Profile, ProfileKey};
use super::record::{Activation, Terminal, TerminalKey};
use super::register::is_master_key;
use crate::activation::payload::DeliveredKey;
use crate::activation::terminal_key;
use crate::command::Error;
use crate::key::usage::KeyDerivation;
use crate::key::{Algorithm, CheckValue, Key, Material};
use crate::keyblock::{self, Header, WrappingUsage};
use crate::vault::{Operation, Reason, StoredKey, Vault, Work};

/// The derivation key of a profile's key: one that is at least as strong as what comes from it, and
/// that no terminal holds as its master key, or that terminal could derive the keys of all others.
pub(super) async fn derivation_key(
    vault: &Vault,
    key: &ProfileKey,
) -> Result<StoredKey<KeyDerivation>, Error> {
    let name = &key.derivation_key;
    let stored = vault.key::<KeyDerivation>(name, Operation::DeriveInitial).await?;
    let is_strong = stored.key().algorithm().strength_bits() >= key.algorithm.strength_bits();
    if is_strong && !is_master_key(vault, stored.key()).await? {
        Ok(stored)
    } else {
        Err(Error::refused(Reason::KeyUsageMismatch))
    }
}

/// Derives the keys of a profile for the terminal of an activation and wraps them; `carries` says
/// what the protection key is strong enough for.
pub(super) async fn deliver<U: WrappingUsage>(
    vault: &Vault,
    work: &mut Work,
    profile: &Profile,
    activation: &mut Activation,
    (protection, carries): (&Key<U>, impl Fn(Algorithm) -> bool),
) -> Result<Vec<DeliveredKey>, Error> {
    activation.terminal_keys.clear();
    let mut delivered = Vec::with_capacity(profile.keys.len());
    for key in &profile.keys {
        if !carries(key.algorithm) {
            return Err(Error::refused(Reason::WrappingKeyTooWeak));
        }
        let stored = derivation_key(vault, key).await?;
        work.uses(&stored);
        let material = derive(key, &activation.initial_key_id, &stored)?;
        let check_value = CheckValue::of(key.algorithm, &material).bytes().to_vec();
        let (code, letter) = (key.usage.code(), key.algorithm.header_letter());
        let header = Header::new(block_version(protection)?, code, letter, key.usage.mode());
        let wrapped = keyblock::wrap(protection, &header, &material, vault.rng())
            .map_err(|_| broken("a terminal key does not wrap"))?;
        delivered.push(DeliveredKey {
            slot: key.slot.into(),
            usage: code,
            key_block: wrapped.as_str().to_owned(),
            initial_key_id: Vec::new(),
            check_value: check_value.clone(),
        });
        // The version that it came from derives it again, whichever is the primary one then.
        let derivation_key = stored.record().version_name();
        let key = ProfileKey { derivation_key, ..key.clone() };
        activation.terminal_keys.push(TerminalKey { key, check_value });
    }
    Ok(delivered)
}

/// Derives a key that a terminal has confirmed again, from what gives out such keys still.
pub(in crate::command) async fn derive_again(
    vault: &Vault,
    work: &mut Work,
    terminal: &Terminal,
    confirmed: &TerminalKey,
) -> Result<Material, Error> {
    let keys = terminal.keys.as_ref().ok_or_else(|| broken("a confirmed key without an id"))?;
    let stored = derivation_key(vault, &confirmed.key).await?;
    work.uses(&stored);
    let material = derive(&confirmed.key, &keys.initial_key_id, &stored)?;
    if CheckValue::of(confirmed.key.algorithm, &material).bytes() == confirmed.check_value {
        Ok(material)
    } else {
        Err(broken("a terminal key is not the one that was confirmed"))
    }
}

fn derive(
    key: &ProfileKey,
    initial_key_id: &[u8],
    stored: &StoredKey<KeyDerivation>,
) -> Result<Material, Error> {
    let ProfileKey { slot, usage, algorithm, .. } = *key;
    let key = terminal_key::TerminalKey { initial_key_id, slot, usage, algorithm };
    key.derive(stored.key()).map_err(|_| Error::refused(Reason::KeyUsageMismatch))
}
