//! The seal: shares in their envelopes, as custodians send and get them.

use prost::Message as _;
use tonic::transport::Channel;

use super::{CeremonyView, Client, ClientError, Credentials, Refusal, until_answered};
use crate::command::ceremony::plan::Planned;
use crate::command::envelope::{Context, Purpose};
use crate::command::seal::KEM;
use crate::component::Share;
use crate::crypto::certificate::key_from_pem;
use crate::crypto::ec::SigningKey;
use crate::crypto::hpke::RecipientKey;
use crate::crypto::rng::Rng;
use crate::grpc::proto;
use crate::grpc::proto::create_master_key_request::Keepers;
use crate::grpc::proto::seal_service_client::SealServiceClient;

/// Somebody who gets or gives shares: by the key of the certificate that the service knows.
pub struct ShareHolder<'a> {
    client: &'a Client,
    key: SigningKey,
    rng: &'a dyn Rng,
}

/// What those who give shares have to see of the seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealView {
    /// Whether the vault is open.
    pub is_open: bool,
    /// The id of the set of shares that open it, or before there is one of that which is given out,
    /// and how many of them open it.
    pub share_set: Option<(Vec<u8>, u32)>,
    /// The attempt under way to open it.
    pub attempt: Option<AttemptView>,
}

/// An attempt to open the vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptView {
    /// SHA-256 of the key that shares are sealed for.
    pub fingerprint: Vec<u8>,
    /// The URI names of those who have given one.
    pub given_by: Vec<String>,
}

impl From<proto::SealStatus> for SealView {
    fn from(status: proto::SealStatus) -> Self {
        let is_open = status.state() == proto::SealState::Open;
        let attempt = |one: proto::UnsealAttempt| AttemptView {
            fingerprint: one.fingerprint,
            given_by: one.given_by,
        };
        let under_way = status.distribution.and_then(|one| one.share_set);
        Self {
            is_open,
            share_set: status.share_set.or(under_way).map(|set| (set.id, set.threshold)),
            attempt: status.attempt.map(attempt),
        }
    }
}

impl Client {
    /// `SealService`.
    #[must_use]
    pub fn seals(&self) -> SealServiceClient<Channel> {
        SealServiceClient::new(self.admin.clone())
    }

    /// How the seal stands.
    pub async fn seal_status(&self) -> Result<proto::SealStatus, ClientError> {
        let answer = self.seals().get_seal_status(proto::GetSealStatusRequest {}).await?;
        answer.into_inner().status.ok_or(ClientError::Incomplete("status"))
    }

    /// The same, as those see it who give shares.
    pub async fn seal_view(&self) -> Result<SealView, ClientError> {
        Ok(self.seal_status().await?.into())
    }

    /// How a ceremony for the master key stands: in the distribution that is under way, or in the
    /// store of a vault that is open. None where the service knows of neither.
    pub async fn master_key_ceremony(
        &self,
        name: &str,
    ) -> Result<Option<CeremonyView>, ClientError> {
        let status = self.seal_status().await?;
        if let Some(found) = ceremony_in(&status)?.filter(|view| view.name == name) {
            return Ok(Some(found));
        }
        if status.state() != proto::SealState::Open {
            return Ok(None);
        }
        match self.ceremony(name).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.reason() == Some("RESOURCE_NOT_FOUND") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has a master key made in a ceremony. The same plan asked again is the same request, unless
    /// the one `before`, of the same plan, has ended.
    pub async fn plan_master_key(
        &self,
        planned: &Planned,
        before: &str,
    ) -> Result<proto::SealStatus, ClientError> {
        let request = proto::CreateMasterKeyRequest {
            request_id: super::request_id_of(&[&planned.digest(), before.as_bytes()]),
            keepers: Some(Keepers::Plan(planned.canonical())),
        };
        self.create_master_key(request).await
    }

    async fn create_master_key(
        &self,
        request: proto::CreateMasterKeyRequest,
    ) -> Result<proto::SealStatus, ClientError> {
        let sent = request.encode_to_vec();
        let answer = self.seals().create_master_key(request).await;
        let answer =
            answer.map_err(|status| Refusal::from(status).of_sent("CreateMasterKey", &sent))?;
        answer.into_inner().status.ok_or(ClientError::Incomplete("status"))
    }

    /// Ends the distribution that is under way.
    pub async fn abandon_master_key(&self) -> Result<proto::SealStatus, ClientError> {
        let one = self.distribution().await?;
        let request = proto::AbandonMasterKeyRequest { distribution: one.id };
        let answer = self.seals().abandon_master_key(request).await?;
        answer.into_inner().status.ok_or(ClientError::Incomplete("status"))
    }

    /// Gives a share to open the vault.
    pub async fn give_share(
        &self,
        (key, rng): (&SigningKey, &dyn Rng),
        share: &Share,
    ) -> Result<proto::SealStatus, ClientError> {
        let status = self.seal_status().await?;
        let attempt = status.attempt.ok_or(ClientError::Incomplete("status.attempt"))?;
        let to = (&*attempt.id, &*attempt.public_key);
        let envelope = envelope((key, rng), Purpose::Unseal, to, share)?;
        let request = proto::UnsealRequest { attempt: attempt.id, share: Some(envelope) };
        let answer = self.seals().unseal(request).await?;
        answer.into_inner().status.ok_or(ClientError::Incomplete("status"))
    }

    /// Takes the share of the distribution under way that is the holder's: once. In a ceremony with
    /// the digest of the plan, else with none.
    pub async fn take_share(
        &self,
        (key, rng): (&SigningKey, &dyn Rng),
        plan_digest: &[u8],
    ) -> Result<(proto::SealStatus, Share), ClientError> {
        let one = self.distribution().await?;
        let id = id_of(&one.id)?;
        let recipient = RecipientKey::generate(KEM, rng).map_err(|_| NO_RANDOMNESS)?;
        let holder = key.public();
        let context = Context { kem: KEM, id: &id, purpose: Purpose::Take, holder: &holder };
        let signature = context.sign(key, recipient.public()).map_err(|_| NO_RANDOMNESS)?;
        let request = proto::TakeShareRequest {
            distribution: one.id,
            public_key: recipient.public().to_vec(),
            signature: signature.to_vec(),
            plan_digest: plan_digest.to_vec(),
        };
        let ask = || async { Ok(self.seals().take_share(request.clone()).await?.into_inner()) };
        let answer = until_answered(ask).await?;
        let opened = context.open(&recipient, &answer.sealed).map_err(|_| NOT_OPEN)?;
        let share = Share::from_bytes(&opened).map_err(|_| NOT_OPEN)?;
        Ok((answer.status.ok_or(ClientError::Incomplete("status"))?, share))
    }

    /// Reads a share back.
    pub async fn read_back_share(
        &self,
        by: (&SigningKey, &dyn Rng),
        share: &Share,
    ) -> Result<proto::SealStatus, ClientError> {
        let one = self.distribution().await?;
        let envelope = envelope(by, Purpose::Confirm, (&one.id, &one.public_key), share)?;
        let request = proto::ConfirmShareRequest { distribution: one.id, share: Some(envelope) };
        let answer = self.seals().confirm_share(request).await?;
        answer.into_inner().status.ok_or(ClientError::Incomplete("status"))
    }

    async fn distribution(&self) -> Result<proto::Distribution, ClientError> {
        let status = self.seal_status().await?;
        status.distribution.ok_or(ClientError::Incomplete("status.distribution"))
    }
}

impl<'a> ShareHolder<'a> {
    /// The holder of a client's certificate.
    pub fn new(
        client: &'a Client,
        credentials: &Credentials,
        rng: &'a dyn Rng,
    ) -> Result<Self, ClientError> {
        let (_, key) = credentials.identity.as_ref().ok_or(NO_KEY)?;
        let key = key_from_pem(key).map_err(|_| NO_KEY)?;
        let key = SigningKey::from_pkcs8(&key).map_err(|_| NO_KEY)?;
        Ok(Self { client, key, rng })
    }

    /// See [`Client::give_share`].
    pub async fn give(&self, share: &Share) -> Result<proto::SealStatus, ClientError> {
        self.client.give_share((&self.key, self.rng), share).await
    }

    /// See [`Client::take_share`].
    pub async fn take(&self) -> Result<Share, ClientError> {
        Ok(self.client.take_share((&self.key, self.rng), &[]).await?.1)
    }

    /// See [`Client::read_back_share`].
    pub async fn confirm(&self, share: &Share) -> Result<proto::SealStatus, ClientError> {
        self.client.read_back_share((&self.key, self.rng), share).await
    }
}

/// The ceremony of the distribution under way, if there is one.
pub fn ceremony_in(status: &proto::SealStatus) -> Result<Option<CeremonyView>, ClientError> {
    let told = status.distribution.as_ref().and_then(|one| one.ceremony.clone());
    told.map(|told| CeremonyView::read(Some(told))).transpose()
}

/// Seals a share to the service.
fn envelope(
    (key, rng): (&SigningKey, &dyn Rng),
    purpose: Purpose,
    (id, to): (&[u8], &[u8]),
    share: &Share,
) -> Result<proto::ShareEnvelope, ClientError> {
    let (id, holder) = (id_of(id)?, key.public());
    let context = Context { kem: KEM, id: &id, purpose, holder: &holder };
    // For the service alone, which holds the key of the envelope.
    let share = share.to_material();
    let sealed = context.seal(to, share.expose_bytes(), rng);
    let sealed = sealed.map_err(|_| ClientError::Incomplete("public_key"))?;
    let signature = context.sign(key, &sealed).map_err(|_| NO_RANDOMNESS)?;
    Ok(proto::ShareEnvelope { sealed, signature: signature.to_vec() })
}

/// Has a master key made. The same asked again while the same master key is in force is the same
/// request: once others have approved it, it is done.
pub async fn create_master_key(
    client: &Client,
    keepers: Keepers,
) -> Result<proto::SealStatus, ClientError> {
    let generation = client.seal_status().await?.generation;
    let mut request =
        proto::CreateMasterKeyRequest { request_id: String::new(), keepers: Some(keepers) };
    let asked = [&generation.to_be_bytes()[..], &request.encode_to_vec()];
    request.request_id = super::request_id_of(&asked);
    client.create_master_key(request).await
}

fn id_of(id: &[u8]) -> Result<[u8; 16], ClientError> {
    id.try_into().map_err(|_| ClientError::Incomplete("id"))
}

const NO_KEY: ClientError = ClientError::Envelope("there is no certificate with a key of P-256");
const NO_RANDOMNESS: ClientError = ClientError::Envelope("there is no randomness");
const NOT_OPEN: ClientError = ClientError::Envelope("the share of the service does not open");
