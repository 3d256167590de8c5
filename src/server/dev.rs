//! A development service: published keys, a PKI of its own, profiles to try things with.
//!
//! Everything here is for development only; a vault of realm live refuses each of these keys.

use std::sync::Arc;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::access::{self, HOLDERS};
use crate::agreement::{Dukpt, Suite};
use crate::command::activation::profile;
use crate::command::{self, manage_keys, manage_trust};
use crate::crypto::certificate::authority::{Authority, IssueFailed, Validity};
use crate::key::usage::{KeyBlockProtection, KeyDerivation, KeyEncryption, StoredUsage as _};
use crate::key::{Algorithm, Key, Material};
use crate::keyblock;
use crate::memory::{SecretPage, SecretPageUnavailable, with_wiped_stack};
use crate::vault::{Action, Caller, Grant, MasterKey, Policy, Realm, Reason, Role, Vault};

/// The acquirer id of every development service.
pub const ACQUIRER_ID: &str = "DEV-ACQUIRER";
/// The device authority that signs simulated terminals.
pub const DEVICE_AUTHORITY: &str = "dev-vendor";
/// The model of simulated terminals.
pub const DEVICE_MODEL: &str = "simulator";
/// The profile of AES-DUKPT terminals.
pub const PROFILE_AES: &str = "dev-aes";
/// The profile of TDES-DUKPT terminals.
pub const PROFILE_TDES: &str = "dev-tdes";
/// The profile of AES-DUKPT terminals with an AES master key.
pub const PROFILE_MASTER_AES: &str = "dev-master-aes";
/// The profile of TDES-DUKPT terminals with an AES master key.
pub const PROFILE_MASTER_AES_TDES: &str = "dev-master-aes-tdes";
/// The profile of TDES-DUKPT terminals with a TDES master key.
pub const PROFILE_MASTER_TDES: &str = "dev-master-tdes";

/// The id of the AES master key of development terminals.
pub const MASTER_AES: &str = "dev-master-aes";
/// The id of the TDES master key of development terminals.
pub const MASTER_TDES: &str = "dev-master-tdes";

/// The id of the key encryption key of every development service.
pub const KEK: &str = "dev-kek";

/// How long development certificates are valid: ten years.
const VALID_SECONDS: u64 = 10 * 365 * 24 * 60 * 60;

/// The file of development keys, `keys.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Says DEV-ONLY.
    label: String,
    /// The development master key: 32 bytes in hexadecimals.
    master_key: Zeroizing<String>,
    /// The keys, as key blocks under the master key.
    key: Vec<DevKey>,
}

/// One development key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DevKey {
    /// The id in `keys/{id}`.
    id: String,
    /// The key block, labelled DEV-ONLY.
    block: String,
    /// BDKs: the key set id in hexadecimals.
    #[serde(default)]
    key_set_id: String,
    /// BDKs: serves terminals that were injected elsewhere.
    #[serde(default)]
    open: bool,
}

/// Why a development service did not come up.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] IssueFailed),
    /// A command was refused.
    #[error("{0}")]
    Command(#[from] command::Error),
    /// The file of development keys is not one.
    #[error("the development keys: {0}")]
    Keys(&'static str),
    /// The file of development keys does not parse.
    #[error("the development keys: {0}")]
    KeysForm(#[from] toml::de::Error),
    /// There is no page for the master key.
    #[error(transparent)]
    Memory(#[from] SecretPageUnavailable),
    /// The vault did not open.
    #[error(transparent)]
    Vault(#[from] crate::vault::Error),
}

impl Keys {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Self, DevError> {
        let keys: Self = toml::from_str(text)?;
        if keys.label.starts_with("DEV-ONLY") {
            Ok(keys)
        } else {
            Err(DevError::Keys("the label does not say DEV-ONLY"))
        }
    }

    /// The development master key.
    fn master_key(&self) -> Result<Zeroizing<[u8; 32]>, DevError> {
        let bytes = Zeroizing::new(
            data_encoding::HEXUPPER
                .decode(self.master_key.as_bytes())
                .map_err(|_| DevError::Keys("the master key is not hexadecimal"))?,
        );
        let array = <[u8; 32]>::try_from(bytes.as_slice());
        array.map(Zeroizing::new).map_err(|_| DevError::Keys("the master key is not 32 bytes"))
    }

    /// The key that the development key blocks are under: the master key itself.
    pub fn protection_key(&self) -> Result<Key<KeyBlockProtection>, DevError> {
        with_wiped_stack(|| {
            let material = Material::copied_from(&*self.master_key()?);
            Key::from_material(Algorithm::Aes256, material)
                .map_err(|_| DevError::Keys("the master key is not a key"))
        })
    }

    /// The key encryption key [`KEK`], for tools that bring keys to a development service.
    pub fn key_encryption_key(&self) -> Result<Key<KeyEncryption>, DevError> {
        let block = self.block(KEK).ok_or(DevError::Keys("there is no dev-kek"))?;
        let opened = keyblock::unwrap(&self.protection_key()?, block)
            .map_err(|_| DevError::Keys("the block of dev-kek does not open"))?;
        Key::from_material(opened.algorithm, opened.material)
            .map_err(|_| DevError::Keys("dev-kek is not a key"))
    }

    /// A terminal's master key, for a simulated device that holds it.
    pub fn terminal_master_key(&self, id: &str) -> Result<Key<KeyDerivation>, DevError> {
        let refused = DevError::Keys("there is no master key of a terminal of this name");
        let Some(block) = self.block(id) else { return Err(refused) };
        match keyblock::unwrap(&self.protection_key()?, block) {
            Ok(opened) if KeyDerivation::CODES.contains(&opened.header.usage) => {
                Key::from_material(opened.algorithm, opened.material).map_err(|_| refused)
            }
            Ok(_) | Err(_) => Err(refused),
        }
    }

    /// The block of one key, for tools that work beside a development service.
    #[must_use]
    pub fn block(&self, id: &str) -> Option<&str> {
        self.key.iter().find(|key| key.id == id).map(|key| key.block.as_str())
    }

    /// The master key, for the vault of a development service.
    pub fn seal(&self) -> Result<MasterKey, DevError> {
        // The bytes are moved on their way into the page; where they were, nobody else wipes.
        with_wiped_stack(|| {
            let mut bytes = self.master_key()?;
            Ok(MasterKey::new(SecretPage::taken_from(&mut bytes)?))
        })
    }
}

/// The two authorities outside the service: the acquirer's and the vendor's.
pub struct Pki {
    /// Signs the service's identity; its root stands in every terminal.
    pub acquirer: Authority,
    /// Signs devices.
    pub vendor: Authority,
}

impl Pki {
    /// Makes both, valid from `now` on (Unix seconds).
    pub fn generate(now: u64) -> Result<Self, DevError> {
        let validity = validity(now);
        Ok(Self {
            acquirer: Authority::new("DEV-ONLY acquirer root", validity)?,
            vendor: Authority::new("DEV-ONLY terminal vendor", validity)?,
        })
    }
}

/// From an hour before `now`, so that a clock may be a little late, for ten years.
#[must_use]
pub fn validity(now: u64) -> Validity {
    Validity { not_before: now.saturating_sub(3600), not_after: now.saturating_add(VALID_SECONDS) }
}

/// The realm of every development service.
pub const REALM: Realm = Realm::Dev;

/// The names of callers of development services stand below this domain.
pub const TRUST_DOMAIN: &str = "dev.firstkey.internal";

/// The policy of a development service that tells callers apart: everybody of [`HOLDERS`], one vote
/// besides the requester's, and the backend may use every key, and register terminals with the
/// master keys of development terminals.
#[must_use]
pub fn policy() -> Policy {
    let backends = HOLDERS.iter().filter(|holder| holder.role == Role::Backend);
    let backends: Vec<String> = backends.map(|holder| holder.uri_name(TRUST_DOMAIN)).collect();
    let calls = [
        Action::GenerateMac,
        Action::LookupKsn,
        Action::TranslatePin,
        Action::VerifyMac,
        Action::VerifyMacAndTranslatePin,
    ];
    let grant = |key: &str, calls: &[Action]| Grant {
        key: key.to_owned(),
        principals: backends.clone(),
        calls: calls.iter().map(|call| call.as_str().to_owned()).collect(),
        pin_formats_in: Vec::new(),
        pin_formats_out: Vec::new(),
        partner_keys: Vec::new(),
        calls_per_minute_max: 0,
        not_before: None,
        not_after: None,
    };
    let registers = |id: &str| grant(&format!("keys/{id}"), &[Action::CreateTerminal]);
    let masters = [MASTER_AES, MASTER_TDES].map(registers);
    access::policy(TRUST_DOMAIN, 1, [vec![grant("keys/*", &calls)], masters.to_vec()].concat())
}

/// Brings a development service to where a newcomer can use it; what is there already stays.
pub async fn prepare(vault: &Arc<Vault>, keys: &Keys, pki: &Pki) -> Result<(), DevError> {
    let caller = Caller::for_dev_only("dev-setup");
    load_keys(vault, &caller, keys).await?;
    certify(vault, &caller, pki).await?;
    let authority = manage_trust::NewDeviceAuthority {
        id: DEVICE_AUTHORITY.to_owned(),
        vendor: "DEV-ONLY terminal vendor".to_owned(),
        model: DEVICE_MODEL.to_owned(),
        certificate: pki.vendor.root_der().to_vec(),
    };
    unless_there(manage_trust::create_device_authority(vault, &caller, None, authority).await)?;
    for suite in Suite::ALL {
        let bdk = match suite.dukpt() {
            Dukpt::Aes128 => "dev-bdk-aes",
            Dukpt::Tdes2 => "dev-bdk-tdes",
        };
        let profile = profile::NewProfile::for_dev_only(profile_of(suite), bdk, suite);
        unless_there(profile::create_profile(vault, &caller, None, profile).await)?;
    }
    Ok(())
}

/// The development profile of a suite.
#[must_use]
pub const fn profile_of(suite: Suite) -> &'static str {
    match suite {
        Suite::MasterAesAes128 => PROFILE_MASTER_AES,
        Suite::MasterAesTdes2 => PROFILE_MASTER_AES_TDES,
        Suite::MasterTdesTdes2 => PROFILE_MASTER_TDES,
        Suite::P256Aes128 => PROFILE_AES,
        Suite::P256Tdes2 => PROFILE_TDES,
    }
}

async fn load_keys(vault: &Arc<Vault>, caller: &Caller, keys: &Keys) -> Result<(), DevError> {
    let protection = keys.protection_key()?;
    for key in &keys.key {
        let key_set_id = data_encoding::HEXUPPER
            .decode(key.key_set_id.as_bytes())
            .map_err(|_| DevError::Keys("a key set id is not hexadecimal"))?;
        let import = manage_keys::DevImport {
            id: key.id.clone(),
            block: key.block.clone(),
            key_set_id,
            open: key.open,
        };
        unless_there(manage_keys::import_for_dev_only(vault, caller, &protection, import).await)?;
    }
    Ok(())
}

/// Makes the identity key and has the development acquirer certify it.
async fn certify(vault: &Arc<Vault>, caller: &Caller, pki: &Pki) -> Result<(), DevError> {
    let acquirer_id = ACQUIRER_ID.to_owned();
    unless_there(manage_trust::create_identity_key(vault, caller, None, acquirer_id).await)?;
    let identity = manage_trust::get_identity(vault, caller).await?;
    if !identity.certificate_chain.is_empty() {
        return Ok(());
    }
    let request = manage_trust::create_certificate_request(vault, caller, "firstkey").await?;
    let now = vault.now().seconds();
    let own = pki.acquirer.issue_service_from_request(&request, ACQUIRER_ID, validity(now))?;
    let chain = vec![own, pki.acquirer.root_der().to_vec()];
    manage_trust::import_certificate(vault, caller, None, chain).await?;
    Ok(())
}

/// What is there already is what was wanted.
fn unless_there<T>(result: Result<T, command::Error>) -> Result<(), command::Error> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.reason() {
            Reason::KeyAlreadyExists | Reason::ResourceAlreadyExists => Ok(()),
            _ => Err(error),
        },
    }
}
