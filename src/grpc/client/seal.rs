//! The seal: shares in their envelopes, as custodians send and get them.

use prost::Message as _;
use tonic::transport::Channel;

use super::{Client, ClientError, Credentials, Refusal};
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

    /// Gives a share to open the vault.
    pub async fn give(&self, share: &Share) -> Result<proto::SealStatus, ClientError> {
        let status = self.client.seal_status().await?;
        let attempt = status.attempt.ok_or(ClientError::Incomplete("status.attempt"))?;
        let envelope = self.envelope(&attempt.id, Purpose::Unseal, &attempt.public_key, share)?;
        let request = proto::UnsealRequest { attempt: attempt.id, share: Some(envelope) };
        let answer = self.client.seals().unseal(request).await?;
        answer.into_inner().status.ok_or(ClientError::Incomplete("status"))
    }

    /// Takes the share of a distribution that is this holder's: once.
    pub async fn take(&self) -> Result<Share, ClientError> {
        let one = self.distribution().await?;
        let id = id_of(&one.id)?;
        let key = RecipientKey::generate(KEM, self.rng).map_err(|_| NO_RANDOMNESS)?;
        let holder = self.key.public();
        let context = Context { kem: KEM, id: &id, purpose: Purpose::Take, holder: &holder };
        let signature = context.sign(&self.key, key.public()).map_err(|_| NO_RANDOMNESS)?;
        let request = proto::TakeShareRequest {
            distribution: one.id,
            public_key: key.public().to_vec(),
            signature: signature.to_vec(),
        };
        let answer = self.client.seals().take_share(request).await?.into_inner();
        let opened = context.open(&key, &answer.sealed).map_err(|_| NOT_OPEN)?;
        Share::from_bytes(&opened).map_err(|_| NOT_OPEN)
    }

    /// Reads the share back.
    pub async fn confirm(&self, share: &Share) -> Result<proto::SealStatus, ClientError> {
        let one = self.distribution().await?;
        let envelope = self.envelope(&one.id, Purpose::Confirm, &one.public_key, share)?;
        let request = proto::ConfirmShareRequest { distribution: one.id, share: Some(envelope) };
        let answer = self.client.seals().confirm_share(request).await?;
        answer.into_inner().status.ok_or(ClientError::Incomplete("status"))
    }

    async fn distribution(&self) -> Result<proto::Distribution, ClientError> {
        let status = self.client.seal_status().await?;
        status.distribution.ok_or(ClientError::Incomplete("status.distribution"))
    }

    fn envelope(
        &self,
        id: &[u8],
        purpose: Purpose,
        to: &[u8],
        share: &Share,
    ) -> Result<proto::ShareEnvelope, ClientError> {
        let (id, holder) = (id_of(id)?, self.key.public());
        let context = Context { kem: KEM, id: &id, purpose, holder: &holder };
        // For the service alone, which holds the key of the envelope.
        let share = share.to_material();
        let sealed = context.seal(to, share.expose_bytes(), self.rng);
        let sealed = sealed.map_err(|_| ClientError::Incomplete("public_key"))?;
        let signature = context.sign(&self.key, &sealed).map_err(|_| NO_RANDOMNESS)?;
        Ok(proto::ShareEnvelope { sealed, signature: signature.to_vec() })
    }
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
    let sent = request.encode_to_vec();
    let answer = client.seals().create_master_key(request).await;
    let answer =
        answer.map_err(|status| Refusal::from(status).of_sent("CreateMasterKey", &sent))?;
    answer.into_inner().status.ok_or(ClientError::Incomplete("status"))
}

fn id_of(id: &[u8]) -> Result<[u8; 16], ClientError> {
    id.try_into().map_err(|_| ClientError::Incomplete("id"))
}

const NO_KEY: ClientError = ClientError::Envelope("there is no certificate with a key of P-256");
const NO_RANDOMNESS: ClientError = ClientError::Envelope("there is no randomness");
const NOT_OPEN: ClientError = ClientError::Envelope("the share of the service does not open");
