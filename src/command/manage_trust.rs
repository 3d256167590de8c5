//! Trust: the service's identity, the authorities that sign devices, the devices that are denied.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    Error, Page, RequestId, approvals, audited, give_up, recall, remember, repeated, retrying,
};
use crate::crypto::certificate::{self, Chain, Leaf};
use crate::crypto::ec::SigningKey;
use crate::vault::{Action, Caller, Kind, Reason, Record, UnixMillis, Vault, Versioned, Work};

/// The service's identity as others may see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    /// The acquirer id, the organization (O) of the certificate.
    pub acquirer_id: String,
    /// The public key, 65 bytes.
    pub public_key: Vec<u8>,
    /// The chain in DER, the service's own first, the acquirer's root last; empty before import.
    pub certificate_chain: Vec<Vec<u8>>,
    /// When the key was made.
    pub created: UnixMillis,
}

/// The identity with its private key: a sealed record and nothing else.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityRecord {
    public: Identity,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl Record for IdentityRecord {
    const KIND: Kind = Kind::new("identity");

    fn id(&self) -> String {
        IDENTITY.to_owned()
    }
}

/// There is one identity.
const IDENTITY: &str = "identity";

/// An authority that signs device certificates.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceAuthority {
    /// The id in `deviceAuthorities/{id}`.
    pub id: String,
    /// The vendor of the devices.
    pub vendor: String,
    /// The model of the devices.
    pub model: String,
    /// The certificate in DER.
    pub certificate: Vec<u8>,
    /// When it was created.
    pub created: UnixMillis,
}

impl Record for DeviceAuthority {
    const KIND: Kind = Kind::new("device_authority");

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// A device authority that is to be trusted.
#[derive(Debug, Clone)]
pub struct NewDeviceAuthority {
    /// The id in `deviceAuthorities/{id}`.
    pub id: String,
    /// The vendor of the devices.
    pub vendor: String,
    /// The model of the devices.
    pub model: String,
    /// The certificate in DER.
    pub certificate: Vec<u8>,
}

/// A device whose certificate opens nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeniedDevice {
    /// The device's serial.
    pub serial: String,
    /// Why.
    pub cause: String,
    /// Since when.
    pub created: UnixMillis,
}

impl Record for DeniedDevice {
    const KIND: Kind = Kind::new("denied_device");

    fn id(&self) -> String {
        self.serial.clone()
    }
}

/// What signs the service's answers.
pub(super) struct Signer {
    /// The identity key.
    pub(super) key: SigningKey,
    /// The chain without the root, which terminals hold.
    pub(super) chain: Vec<Vec<u8>>,
}

/// Makes the identity key.
pub async fn create_identity_key(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    acquirer_id: String,
) -> Result<Identity, Error> {
    let action = Action::CreateIdentityKey;
    retrying(|| async {
        let mut work = vault.begin(caller, action, "identity").await?;
        if let Some(answer) = recall(vault, caller, action, request).await? {
            return repeated(work, answer).await;
        }
        if vault.get::<IdentityRecord>(IDENTITY).await?.is_some() {
            return Err(give_up(work, Reason::ResourceAlreadyExists).await);
        }
        let key = SigningKey::generate()
            .map_err(|_| crate::vault::Error::incident("no random key", "identity"))?;
        let public = Identity {
            acquirer_id: acquirer_id.clone(),
            public_key: key.public().bytes().to_vec(),
            certificate_chain: Vec::new(),
            created: work.now(),
        };
        let identity = IdentityRecord { public: public.clone(), pkcs8: key.to_pkcs8() };
        work.put(&Versioned::absent(identity))?;
        let mut work = approvals::require(vault, work, request, &[]).await?;
        remember(vault, &mut work, request, &public).await?;
        work.commit().await?;
        Ok(public)
    })
    .await
}

/// Returns the identity.
pub async fn get_identity(vault: &Vault, caller: &Caller) -> Result<Identity, Error> {
    let found = async { Ok(read_identity(vault).await?.record.public) };
    audited(vault, caller, Action::GetIdentity, "identity", found).await
}

/// Makes a certificate request for the identity key, in DER.
pub async fn create_certificate_request(
    vault: &Vault,
    caller: &Caller,
    common_name: &str,
) -> Result<Vec<u8>, Error> {
    retrying(|| async {
        let work = vault.begin(caller, Action::CreateCertificateRequest, "identity").await?;
        match signed_request(vault, common_name).await {
            Ok(request) => {
                work.commit().await?;
                Ok(request)
            }
            Err(error) => Err(give_up(work, error).await),
        }
    })
    .await
}

async fn signed_request(vault: &Vault, common_name: &str) -> Result<Vec<u8>, Error> {
    let identity = read_identity(vault).await?.record;
    let key = signing_key(&identity)?;
    let organization = &identity.public.acquirer_id;
    certificate::signing_request(&key, organization, common_name)
        .map_err(|_| Error::field("common_name", "can not stand in a certificate"))
}

/// Imports the certificate that the acquirer's authority made for the identity key.
///
/// The chain must lead from the identity key, with the acquirer id as its organization, to the root
/// at its end: the root that the terminals hold.
pub async fn import_certificate(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    chain: Vec<Vec<u8>>,
) -> Result<Identity, Error> {
    let action = Action::ImportCertificate;
    retrying(|| async {
        let mut work = vault.begin(caller, action, "identity").await?;
        if let Some(answer) = recall(vault, caller, action, request).await? {
            return repeated(work, answer).await;
        }
        let (identity, leaf) = match certified(vault, &chain, work.now()).await {
            Ok(certified) => certified,
            Err(error) => return Err(give_up(work, error).await),
        };
        work.detail("fingerprint", data_encoding::HEXUPPER.encode(&leaf.fingerprint));
        work.put(&identity)?;
        let mut work = approvals::require(vault, work, request, &[]).await?;
        remember(vault, &mut work, request, &identity.record.public).await?;
        work.commit().await?;
        Ok(identity.record.public)
    })
    .await
}

/// The identity with a chain that certifies it.
async fn certified(
    vault: &Vault,
    chain: &[Vec<u8>],
    now: UnixMillis,
) -> Result<(Versioned<IdentityRecord>, Leaf), Error> {
    let mut identity = read_identity(vault).await?;
    let leaf = verify_own(chain, now)?;
    let public = &mut identity.record.public;
    if leaf.public.bytes().as_slice() != public.public_key.as_slice() {
        return Err(Error::field("certificate_chain[0]", "certifies another key"));
    }
    if leaf.organization.as_deref() != Some(public.acquirer_id.as_str()) {
        return Err(Error::field("certificate_chain[0]", "names another organization"));
    }
    public.certificate_chain = chain.to_vec();
    Ok((identity, leaf))
}

/// Trusts an authority to sign device certificates.
pub async fn create_device_authority(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    new: NewDeviceAuthority,
) -> Result<DeviceAuthority, Error> {
    let action = Action::CreateDeviceAuthority;
    retrying(|| async {
        let resource = format!("deviceAuthorities/{}", new.id);
        let mut work = vault.begin(caller, action, resource).await?;
        if let Some(answer) = recall(vault, caller, action, request).await? {
            return repeated(work, answer).await;
        }
        let Ok(inspected) = certificate::inspect_authority(&new.certificate) else {
            let error = Error::field("certificate", "is no certificate of an authority");
            return Err(give_up(work, error).await);
        };
        if vault.get::<DeviceAuthority>(&new.id).await?.is_some() {
            return Err(give_up(work, Reason::ResourceAlreadyExists).await);
        }
        let NewDeviceAuthority { id, vendor, model, certificate } = new.clone();
        let created = work.now();
        let authority = DeviceAuthority { id, vendor, model, certificate, created };
        work.detail("fingerprint", data_encoding::HEXUPPER.encode(&inspected.fingerprint));
        work.put(&Versioned::absent(authority.clone()))?;
        let mut work = approvals::require(vault, work, request, &[]).await?;
        remember(vault, &mut work, request, &authority).await?;
        work.commit().await?;
        Ok(authority)
    })
    .await
}

/// Returns a device authority.
pub async fn get_device_authority(
    vault: &Vault,
    caller: &Caller,
    id: &str,
) -> Result<DeviceAuthority, Error> {
    let resource = format!("deviceAuthorities/{id}");
    let found = read_device_authority(vault, id);
    audited(vault, caller, Action::GetDeviceAuthority, resource, found).await
}

/// Lists the device authorities.
pub async fn list_device_authorities(
    vault: &Vault,
    caller: &Caller,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<DeviceAuthority>, Error> {
    let page = Page::read(vault, None, after, limit);
    audited(vault, caller, Action::ListDeviceAuthorities, "deviceAuthorities", page).await
}

/// Denies a device.
pub async fn deny_device(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    serial: String,
    cause: String,
) -> Result<DeniedDevice, Error> {
    let action = Action::DenyDevice;
    retrying(|| async {
        let mut work = vault.begin(caller, action, format!("devices/{serial}")).await?;
        if let Some(answer) = recall(vault, caller, action, request).await? {
            return repeated(work, answer).await;
        }
        if vault.get::<DeniedDevice>(&serial).await?.is_some() {
            return Err(give_up(work, Reason::ResourceAlreadyExists).await);
        }
        let (serial, cause) = (serial.clone(), cause.clone());
        let denied = DeniedDevice { serial, cause, created: work.now() };
        work.detail("cause", denied.cause.clone());
        work.put(&Versioned::absent(denied.clone()))?;
        remember(vault, &mut work, request, &denied).await?;
        work.commit().await?;
        Ok(denied)
    })
    .await
}

/// Takes a device off the deny list.
pub async fn allow_device(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    serial: &str,
) -> Result<(), Error> {
    let action = Action::AllowDevice;
    retrying(|| async {
        let mut work = vault.begin(caller, action, format!("devices/{serial}")).await?;
        if recall::<()>(vault, caller, action, request).await?.is_some() {
            return repeated(work, ()).await;
        }
        let Some(denied) = vault.get::<DeniedDevice>(serial).await? else {
            return Err(give_up(work, Reason::ResourceNotFound).await);
        };
        work.delete(&denied);
        let mut work = approvals::require(vault, work, request, &[]).await?;
        remember(vault, &mut work, request, &()).await?;
        work.commit().await?;
        Ok(())
    })
    .await
}

/// Lists the denied devices.
pub async fn list_denied_devices(
    vault: &Vault,
    caller: &Caller,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<DeniedDevice>, Error> {
    let page = Page::read(vault, None, after, limit);
    audited(vault, caller, Action::ListDeniedDevices, "devices", page).await
}

/// Whether a device is denied.
pub(super) async fn is_denied(vault: &Vault, serial: &str) -> Result<bool, Error> {
    Ok(vault.get::<DeniedDevice>(serial).await?.is_some())
}

/// Makes a commit depend on the device not having been denied since it was judged.
pub(super) fn expect_allowed(work: &mut Work, serial: &str) {
    work.expects(&Versioned::absent(DeniedDevice {
        serial: serial.to_owned(),
        cause: String::new(),
        created: work.now(),
    }));
}

/// The authority by its id.
pub(super) async fn read_device_authority(
    vault: &Vault,
    id: &str,
) -> Result<DeviceAuthority, Error> {
    let authority = vault.get::<DeviceAuthority>(id).await?;
    Ok(authority.ok_or_else(|| Error::refused(Reason::ResourceNotFound))?.record)
}

/// The certified identity key, to sign an answer with.
pub(super) async fn signer(vault: &Vault) -> Result<Signer, Error> {
    let identity = read_identity(vault).await?.record;
    let key = signing_key(&identity)?;
    let mut chain = identity.public.certificate_chain;
    if chain.pop().is_none() {
        return Err(Error::refused(Reason::ResourceNotFound));
    }
    Ok(Signer { key, chain })
}

/// The acquirer id, which the identity has before it is certified.
pub(super) async fn acquirer_id(vault: &Vault) -> Result<String, Error> {
    Ok(read_identity(vault).await?.record.public.acquirer_id)
}

async fn read_identity(vault: &Vault) -> Result<Versioned<IdentityRecord>, Error> {
    let identity = vault.get::<IdentityRecord>(IDENTITY).await?;
    identity.ok_or_else(|| Error::refused(Reason::ResourceNotFound))
}

fn signing_key(identity: &IdentityRecord) -> Result<SigningKey, Error> {
    SigningKey::from_pkcs8(&identity.pkcs8)
        .map_err(|_| crate::vault::Error::incident("the identity key is no key", IDENTITY).into())
}

fn verify_own(chain: &[Vec<u8>], now: UnixMillis) -> Result<Leaf, Error> {
    let refused = |cause| Error::field("certificate_chain", cause);
    let [path @ .., root] = chain else { return Err(refused("is empty")) };
    if path.is_empty() {
        return Err(refused("has no root at its end"));
    }
    let path = Chain::parse(path.to_vec()).map_err(|_| refused("is malformed or too long"))?;
    certificate::inspect_authority(root).map_err(|_| refused("has no root at its end"))?;
    certificate::verify_service(&path, std::slice::from_ref(root), now.seconds())
        .map_err(|_| refused("does not verify"))
}
