//! `SealService`: who brings the master key, and who sends it away. The one service that is there
//! while there is no vault.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::admit::{Admitted, AtSeal};
use super::ceremony::{from_ceremony, to_plan};
use super::convert::{self, timestamp};
use super::peer::Identity;
use super::proto;
use super::proto::seal_service_server::SealService;
use super::respond::respond;
use crate::command::seal::{
    self, Asked, DistributionStatus, Giver, Keeper, Keepers, Sent, ShareSet, TokenTrouble,
};
use crate::command::{Error, read_status};
use crate::crypto::hpke::Kem;
use crate::crypto::token::TokenError;
use crate::vault::{Action, Caller, Phase, Reason, RotationProgress, Seal, Vault};

/// The longest URI name.
const NAME_LEN_MAX: usize = 255;

/// The service.
pub(super) struct SealApi {
    pub(super) keeper: Arc<Keeper>,
}

/// Who calls, as the door let them in: with the vault, or while there is none.
struct Calling {
    at: Option<(Arc<Vault>, Caller)>,
    identity: Option<Arc<Identity>>,
}

impl Calling {
    /// A request that was not admitted came past the door, which can not happen.
    fn of<Q>(request: &Request<Q>) -> Result<Self, Error> {
        let extensions = request.extensions();
        if let Some(Admitted { vault, caller, recheck, .. }) = extensions.get() {
            let at = Some((Arc::clone(vault), caller.clone()));
            return Ok(Self { at, identity: recheck.identity() });
        }
        let at_seal = extensions.get::<AtSeal>();
        let AtSeal(identity) = at_seal.ok_or_else(|| Error::refused(Reason::PolicyDenied))?;
        Ok(Self { at: None, identity: Some(Arc::clone(identity)) })
    }

    /// For the log.
    fn caller(&self) -> Caller {
        match (&self.at, &self.identity) {
            (Some((_, caller)), _) => caller.clone(),
            (None, Some(identity)) => Caller::stranger(&identity.name, &identity.fingerprint),
            (None, None) => Caller::stranger("", ""),
        }
    }

    fn name(&self) -> String {
        self.caller().name().to_owned()
    }

    /// Whose certificate it is, and its key.
    fn giver(&self) -> Result<Giver, Error> {
        let identity = self.identity.as_ref();
        let known = identity.and_then(|one| Some((one.key?, one.certificate.clone())));
        let known = known.ok_or_else(|| seal::not_taken("the certificate has no key of P-256"));
        let (key, certificate) = known?;
        Ok(Giver { name: self.name(), key, certificate })
    }
}

/// Runs a call to the seal, and ends it.
async fn serve<Q, A, F>(
    method: &'static str,
    request: Request<Q>,
    call: impl FnOnce(Calling, Q) -> F,
) -> Result<Response<A>, Status>
where
    F: Future<Output = Result<A, Error>>,
{
    let from = Calling::of(&request);
    let caller = from.as_ref().map_or_else(|_| Caller::stranger("", ""), Calling::caller);
    let result = match from {
        Ok(from) => call(from, request.into_inner()).await,
        Err(error) => Err(error),
    };
    respond(method, &caller, result)
}

#[tonic::async_trait]
impl SealService for SealApi {
    async fn get_seal_status(
        &self,
        request: Request<proto::GetSealStatusRequest>,
    ) -> Result<Response<proto::GetSealStatusResponse>, Status> {
        serve("GetSealStatus", request, async |from, _| {
            if let Some((vault, caller)) = &from.at {
                read_status::look_at_status(vault, caller, Action::GetSealStatus).await?;
            }
            drop(from);
            Ok(proto::GetSealStatusResponse {
                status: Some(from_status(self.keeper.status().await?)),
            })
        })
        .await
    }

    async fn unseal(
        &self,
        request: Request<proto::UnsealRequest>,
    ) -> Result<Response<proto::UnsealResponse>, Status> {
        serve("Unseal", request, async |from, body| {
            if from.at.is_some() {
                return Err(seal::unfit("the vault is open"));
            }
            let status = match body.share {
                Some(share) => {
                    let attempt = convert::array("attempt", &body.attempt)?;
                    let sent = sent("share", share)?;
                    self.keeper.give(from.giver()?, attempt, sent).await?
                }
                None => self.keeper.try_token(&from.name()).await?,
            };
            Ok(proto::UnsealResponse { status: Some(from_status(status)) })
        })
        .await
    }

    async fn seal(
        &self,
        request: Request<proto::SealRequest>,
    ) -> Result<Response<proto::SealResponse>, Status> {
        serve("Seal", request, async |from, _| {
            let Some((vault, caller)) = from.at else {
                return Err(seal::unfit("the vault is sealed"));
            };
            let status = self.keeper.seal(vault, &caller).await?;
            Ok(proto::SealResponse { status: Some(from_status(status)) })
        })
        .await
    }

    async fn create_master_key(
        &self,
        request: Request<proto::CreateMasterKeyRequest>,
    ) -> Result<Response<proto::CreateMasterKeyResponse>, Status> {
        serve("CreateMasterKey", request, async |from, body| {
            let request = convert::request_id("CreateMasterKey", &body.request_id, &body)?;
            let keepers = to_keepers(body.keepers)?;
            let status = match from.at {
                Some((vault, caller)) => {
                    self.keeper.create_next(vault, caller, Some(request), keepers).await?
                }
                None => self.keeper.create_first(&from.name(), keepers).await?,
            };
            Ok(proto::CreateMasterKeyResponse { status: Some(from_status(status)) })
        })
        .await
    }

    async fn take_share(
        &self,
        request: Request<proto::TakeShareRequest>,
    ) -> Result<Response<proto::TakeShareResponse>, Status> {
        serve("TakeShare", request, async |from, body| {
            let id = convert::array("distribution", &body.distribution)?;
            let len = Kem::P521.public_len_bytes();
            let key = convert::bytes("public_key", body.public_key, len..=len)?;
            let signature = convert::array("signature", &body.signature)?;
            let plan_digest = convert::bytes("plan_digest", body.plan_digest, 0..=32)?;
            let asked = Asked { key, signature, plan_digest };
            let giver = from.giver()?;
            let (sealed, status) = self.keeper.take(from.at, giver, id, asked).await?;
            Ok(proto::TakeShareResponse { sealed, status: Some(from_status(status)) })
        })
        .await
    }

    async fn confirm_share(
        &self,
        request: Request<proto::ConfirmShareRequest>,
    ) -> Result<Response<proto::ConfirmShareResponse>, Status> {
        serve("ConfirmShare", request, async |from, body| {
            let id = convert::array("distribution", &body.distribution)?;
            let sent = sent("share", convert::required("share", body.share)?)?;
            let giver = from.giver()?;
            let status = self.keeper.confirm(from.at, giver, id, sent).await?;
            Ok(proto::ConfirmShareResponse { status: Some(from_status(status)) })
        })
        .await
    }

    async fn abandon_master_key(
        &self,
        request: Request<proto::AbandonMasterKeyRequest>,
    ) -> Result<Response<proto::AbandonMasterKeyResponse>, Status> {
        serve("AbandonMasterKey", request, async |from, body| {
            let id = convert::array("distribution", &body.distribution)?;
            let name = from.name();
            let status = self.keeper.abandon(from.at, &name, id).await?;
            Ok(proto::AbandonMasterKeyResponse { status: Some(from_status(status)) })
        })
        .await
    }
}

fn to_keepers(
    keepers: Option<proto::create_master_key_request::Keepers>,
) -> Result<Keepers, Error> {
    use proto::create_master_key_request::Keepers as Kept;
    match keepers {
        Some(Kept::Custodians(proto::ShareKeepers { threshold, names })) => {
            let threshold = u8::try_from(threshold)
                .map_err(|_| Error::field("custodians.threshold", "is too large"))?;
            let name = |name: &String| convert::text("custodians.names", name, 1..=NAME_LEN_MAX);
            let names = names.iter().map(name).collect::<Result<_, _>>()?;
            Ok(Keepers::Custodians { threshold, names })
        }
        Some(Kept::Plan(plan)) => {
            let planned = to_plan(&plan)?.check();
            let planned = planned.map_err(|wrong| Error::field("plan", wrong.rule))?;
            Ok(Keepers::Planned(Box::new(planned)))
        }
        Some(Kept::Token(true)) => Ok(Keepers::Token),
        Some(Kept::Token(false)) | None => {
            Err(Error::field("keepers", "must be custodians, a plan or the token"))
        }
    }
}

fn sent(path: &str, envelope: proto::ShareEnvelope) -> Result<Sent, Error> {
    let proto::ShareEnvelope { sealed, signature } = envelope;
    let len = Kem::P521.envelope_len_bytes(seal::SHARE_LEN_BYTES);
    let sealed = convert::bytes(&format!("{path}.sealed"), sealed, len..=len)?;
    let signature = convert::array(&format!("{path}.signature"), &signature)?;
    Ok(Sent { sealed, signature })
}

fn from_status(status: seal::Status) -> proto::SealStatus {
    let seal::Status { phase, custody, attempt, token, distribution, rotation, fault } = status;
    let (seal, generation) = custody.map_or((None, 0), |(seal, number)| (Some(seal), number));
    let set = seal.as_ref().and_then(seal::set_of);
    let state = match phase {
        Phase::Failed | Phase::Sealed if seal.is_none() && fault.is_empty() => {
            proto::SealState::Uninitialised
        }
        Phase::Failed | Phase::Sealed => proto::SealState::Sealed,
        Phase::Open => proto::SealState::Open,
        Phase::Opening => proto::SealState::Opening,
        Phase::Sealing => proto::SealState::Sealing,
    };
    let kind = match seal {
        None => proto::SealKind::Unspecified,
        Some(Seal::Dev) => proto::SealKind::Dev,
        Some(Seal::Pkcs11 { .. }) => proto::SealKind::Pkcs11,
        Some(Seal::Shamir { .. }) => proto::SealKind::Shamir,
    };
    let attempt = attempt.map(|attempt| proto::UnsealAttempt {
        id: attempt.id.to_vec(),
        fingerprint: seal::fingerprint(&attempt.key).to_vec(),
        public_key: attempt.key,
        expire_time: Some(timestamp(attempt.expires.0)),
        given_by: attempt.givers,
        failed_attempts: attempt.failed,
    });
    proto::SealStatus {
        state: state.into(),
        kind: kind.into(),
        generation,
        share_set: set.map(from_set),
        attempt,
        token: from_token(token).into(),
        distribution: distribution.map(from_distribution),
        rotation: rotation.map(from_rotation),
        fault,
    }
}

fn from_set(set: ShareSet) -> proto::ShareSet {
    let ShareSet { id, threshold, shares } = set;
    proto::ShareSet { id: id.to_vec(), threshold: threshold.into(), shares: shares.into() }
}

fn from_distribution(status: DistributionStatus) -> proto::Distribution {
    let keeper = |keeper: seal::KeeperStatus| {
        let seal::KeeperStatus { name, taken, confirmed } = keeper;
        proto::DistributionKeeper { name, taken, confirmed }
    };
    let ceremony = status.ceremony.as_ref().map(from_ceremony);
    proto::Distribution {
        id: status.id.to_vec(),
        share_set: Some(from_set(status.set)),
        fingerprint: seal::fingerprint(&status.key).to_vec(),
        public_key: status.key,
        expire_time: Some(timestamp(status.expires.0)),
        keepers: status.keepers.into_iter().map(keeper).collect(),
        ceremony,
    }
}

const fn from_rotation(progress: RotationProgress) -> proto::MasterKeyRotation {
    let RotationProgress { from, to, rows_done, rows_left } = progress;
    proto::MasterKeyRotation { from_generation: from, to_generation: to, rows_done, rows_left }
}

const fn from_token(token: Option<Result<(), TokenTrouble>>) -> proto::TokenState {
    use proto::TokenState;
    match token {
        None => TokenState::Unspecified,
        Some(Ok(())) => TokenState::Present,
        Some(Err(TokenTrouble::PinUnreadable)) => TokenState::PinUnreadable,
        Some(Err(TokenTrouble::Unanswered)) => TokenState::Unanswered,
        Some(Err(TokenTrouble::Token(error))) => match error {
            TokenError::Absent => TokenState::Absent,
            TokenError::Ambiguous => TokenState::Ambiguous,
            TokenError::KeyAmbiguous => TokenState::KeyAmbiguous,
            TokenError::KeyMissing => TokenState::KeyMissing,
            TokenError::KeyUnfit => TokenState::KeyUnfit,
            TokenError::ModuleFailed => TokenState::Failed,
            TokenError::OtherToken => TokenState::OtherToken,
            TokenError::PinFinalTry => TokenState::PinFinalTry,
            TokenError::PinLocked => TokenState::PinLocked,
            TokenError::PinWrong => TokenState::PinWrong,
            TokenError::WrappedInvalid => TokenState::WrappedInvalid,
        },
    }
}
