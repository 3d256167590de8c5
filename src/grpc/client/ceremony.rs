//! A ceremony, from the table: each call is one step of whoever's connection it is.

use prost::Message as _;
use tonic::transport::Channel;

use super::{Client, ClientError, Refusal, until_answered};
use crate::command::ceremony::custodian::{Custodian, Signed, sign_transcript};
use crate::command::ceremony::plan::{Plan, Planned, Task};
use crate::command::ceremony::record::{CeremonyState, SERVICE, key_signed};
use crate::command::ceremony::step::Act;
use crate::command::ceremony::transcript::Transcript;
use crate::component::Component;
use crate::crypto::ec::SigningKey;
use crate::crypto::rng::Rng;
use crate::grpc::proto;
use crate::grpc::proto::ceremony_service_client::CeremonyServiceClient;
use crate::key::Algorithm;
use crate::vault::{NoteError, VerifierKey};

/// A ceremony as the service tells of it, for a plan that was checked here.
#[derive(Clone, Debug)]
pub struct CeremonyView {
    /// `ceremonies/{ceremony}`.
    pub name: String,
    /// Where it stands.
    pub state: CeremonyState,
    /// What shall be done, and every step.
    pub planned: Planned,
    /// How many steps are done.
    pub steps_done: usize,
    /// The key for envelopes; empty where there is none.
    pub envelope_key: Vec<u8>,
    /// What the service's audit log signed of it.
    pub envelope_key_signature: Vec<u8>,
    /// The check value of the key that it is about, in upper case hexadecimals; empty before it is
    /// known.
    pub check_value: String,
    /// The transcript so far.
    pub transcript: Transcript,
    /// A key block or a certificate of destruction; empty where there is none.
    pub product: String,
}

/// A component that was committed to, sealed: to be handed over when all have committed.
pub struct Committed(Signed);

impl CeremonyView {
    /// Reads what a service tells. The plan is digested here: a service that tells another digest
    /// than that of its plan is not believed.
    pub(super) fn read(told: Option<proto::Ceremony>) -> Result<Self, ClientError> {
        let told = told.ok_or(ClientError::Incomplete("ceremony"))?;
        let plan: Option<Plan> = serde_json::from_slice(&told.plan).ok();
        let planned = plan.and_then(|plan| plan.check().ok());
        let planned = planned.ok_or(ClientError::Incomplete("plan"))?;
        if planned.digest().as_slice() != told.plan_digest {
            return Err(ClientError::Incomplete("plan_digest"));
        }
        let transcript = Transcript::parse(&told.transcript.join("\n"));
        let (transcript, lines) = transcript.map_err(|_| ClientError::Incomplete("transcript"))?;
        let named = lines.first().and_then(|first| first.values.get("ceremony"));
        if named != Some(&told.name) {
            return Err(ClientError::Incomplete("transcript"));
        }
        let state = match told.state() {
            proto::CeremonyState::Aborted => CeremonyState::Aborted,
            proto::CeremonyState::Closed => CeremonyState::Closed,
            proto::CeremonyState::Done => CeremonyState::Done,
            proto::CeremonyState::Open => CeremonyState::Open,
            proto::CeremonyState::Unspecified => return Err(ClientError::Incomplete("state")),
        };
        Ok(Self {
            state,
            steps_done: usize::try_from(told.steps_done).unwrap_or(usize::MAX),
            check_value: data_encoding::HEXUPPER.encode(&told.check_value),
            name: told.name,
            planned,
            envelope_key: told.envelope_key,
            envelope_key_signature: told.envelope_key_signature,
            transcript,
            product: told.product,
        })
    }

    /// Takes this for how things stand after `before`, if it is the same ceremony, of the same
    /// plan, and all that had happened is told as it was: else what people sign is another history
    /// than the one they saw.
    pub fn after(self, before: &Self) -> Result<Self, ClientError> {
        let is_same = self.name == before.name
            && self.planned.digest() == before.planned.digest()
            && self.transcript.lines().starts_with(before.transcript.lines());
        if is_same { Ok(self) } else { Err(ClientError::Incomplete("transcript")) }
    }

    /// Verifies that the key for envelopes is the one that the service with this audit log made for
    /// this ceremony, under this plan.
    pub fn verify_envelope_key(&self, log_key: &VerifierKey) -> Result<(), NoteError> {
        let signature: &[u8] = &self.envelope_key_signature;
        let signature = signature.try_into().map_err(|_| NoteError::SignatureInvalid)?;
        let signed = key_signed(&self.name, &self.planned.digest(), &self.envelope_key);
        log_key.verify(&signed, signature)
    }

    /// The algorithm of the components; none where there are none.
    #[must_use]
    pub fn algorithm(&self) -> Option<Algorithm> {
        match self.planned.task() {
            Task::Generate(key) => Some(key.algorithm),
            Task::Import(import) => Some(import.key.algorithm),
            Task::Destroy(_) | Task::Export(_) | Task::Initialise(_) | Task::ReShare(_) => None,
        }
    }

    /// What a custodian's tool computes for this ceremony.
    fn at<T>(
        &self,
        (number, signer): (u8, &SigningKey),
        act: impl FnOnce(&Custodian<'_>) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let algorithm = self.algorithm().ok_or(ClientError::Incomplete("algorithm"))?;
        let digest = self.planned.digest();
        act(&Custodian { ceremony: &self.name, digest: &digest, number, algorithm, signer })
    }
}

impl Client {
    /// `CeremonyService`.
    #[must_use]
    pub fn ceremonies(&self) -> CeremonyServiceClient<Channel> {
        CeremonyServiceClient::new(self.admin.clone())
    }

    /// Creates a ceremony. Others have to approve it: the refusal tells the digest of just this
    /// request, and the same id asks again.
    pub async fn create_ceremony(
        &self,
        request_id: String,
        planned: &Planned,
    ) -> Result<CeremonyView, ClientError> {
        let request = proto::CreateCeremonyRequest { request_id, plan: planned.canonical() };
        let sent = request.encode_to_vec();
        let made = self.ceremonies().create_ceremony(request).await;
        let made = made.map_err(|it| Refusal::from(it).of_sent("CreateCeremony", &sent))?;
        CeremonyView::read(made.into_inner().ceremony)
    }

    /// How a ceremony stands.
    pub async fn ceremony(&self, name: &str) -> Result<CeremonyView, ClientError> {
        let request = proto::GetCeremonyRequest { name: name.to_owned() };
        let found = self.ceremonies().get_ceremony(request).await?;
        CeremonyView::read(found.into_inner().ceremony)
    }

    /// The newest ceremony of a plan; none where there is none.
    pub async fn ceremony_of(
        &self,
        planned: &Planned,
    ) -> Result<Option<CeremonyView>, ClientError> {
        let digest = planned.digest();
        let mut request = proto::ListCeremoniesRequest::default();
        loop {
            let page = self.ceremonies().list_ceremonies(request.clone()).await?.into_inner();
            let found = page.ceremonies.iter().find(|one| one.plan_digest == digest);
            if let Some(found) = found {
                return self.ceremony(&found.name).await.map(Some);
            }
            if page.next_page_token.is_empty() {
                return Ok(None);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// All ceremonies, the newest first, as the service tells of them: without their plans.
    pub async fn list_ceremonies(&self) -> Result<Vec<proto::Ceremony>, ClientError> {
        let (mut listed, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = proto::ListCeremoniesRequest { page_size: 100, page_token };
            let page = self.ceremonies().list_ceremonies(request).await?.into_inner();
            listed.extend(page.ceremonies);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(listed);
            }
        }
    }

    /// Comes to the table with the digest of the plan.
    pub async fn join_ceremony(&self, at: &CeremonyView) -> Result<CeremonyView, ClientError> {
        let plan_digest = at.planned.digest().to_vec();
        let request = proto::JoinCeremonyRequest { name: at.name.clone(), plan_digest };
        let joined = self.ceremonies().join_ceremony(request).await?;
        CeremonyView::read(joined.into_inner().ceremony)?.after(at)
    }

    /// Takes the component of a custodian, which no other opens.
    pub async fn take_component(
        &self,
        at: &CeremonyView,
        by: (u8, &SigningKey),
        rng: &dyn Rng,
    ) -> Result<(CeremonyView, Component), ClientError> {
        let failed = |_| ClientError::Incomplete("randomness");
        let (key, asked) = at.at(by, |custodian| custodian.ask_for_slip(rng).map_err(failed))?;
        let request = proto::TakeComponentRequest {
            name: at.name.clone(),
            recipient_key: asked.sent,
            signature: asked.signature.to_vec(),
        };
        let ask =
            || async { Ok(self.ceremonies().take_component(request.clone()).await?.into_inner()) };
        let taken = until_answered(ask).await?;
        let refused = |_| ClientError::Incomplete("envelope");
        let component =
            at.at(by, |custodian| custodian.open_slip(&key, &taken.envelope).map_err(refused))?;
        Ok((CeremonyView::read(taken.ceremony)?.after(at)?, component))
    }

    /// Reads a slip back.
    pub async fn read_back_component(
        &self,
        at: &CeremonyView,
        by: (u8, &SigningKey),
        component: &Component,
        rng: &dyn Rng,
    ) -> Result<CeremonyView, ClientError> {
        let failed = |_| ClientError::Incomplete("envelope_key");
        let to = &at.envelope_key;
        let read =
            at.at(by, |custodian| custodian.read_back(to, component, rng).map_err(failed))?;
        let request = proto::ReadBackComponentRequest {
            name: at.name.clone(),
            envelope: read.sent,
            signature: read.signature.to_vec(),
        };
        let done = self.ceremonies().read_back_component(request).await?;
        CeremonyView::read(done.into_inner().ceremony)?.after(at)
    }

    /// Commits to a component, which is gone from here but for its envelope.
    pub async fn enter_component(
        &self,
        at: &CeremonyView,
        by: (u8, &SigningKey),
        component: Component,
        rng: &dyn Rng,
    ) -> Result<(CeremonyView, Committed), ClientError> {
        let failed = |_| ClientError::Incomplete("envelope_key");
        let to = &at.envelope_key;
        let (entry, sealed) =
            at.at(by, |custodian| custodian.commit(to, component, rng).map_err(failed))?;
        let request = proto::EnterComponentRequest {
            name: at.name.clone(),
            commitment: entry.sent,
            signature: entry.signature.to_vec(),
        };
        let done = self.ceremonies().enter_component(request).await?;
        Ok((CeremonyView::read(done.into_inner().ceremony)?.after(at)?, Committed(sealed)))
    }

    /// Hands over what was committed to.
    pub async fn reveal_component(
        &self,
        at: &CeremonyView,
        committed: &Committed,
    ) -> Result<CeremonyView, ClientError> {
        let Committed(Signed { sent, signature }) = committed;
        let request = proto::RevealComponentRequest {
            name: at.name.clone(),
            envelope: sent.clone(),
            signature: signature.to_vec(),
        };
        let done = self.ceremonies().reveal_component(request).await?;
        CeremonyView::read(done.into_inner().ceremony)?.after(at)
    }

    /// Takes all commitments back.
    pub async fn restart_entry(&self, at: &CeremonyView) -> Result<CeremonyView, ClientError> {
        let request = proto::RestartEntryRequest { name: at.name.clone() };
        let done = self.ceremonies().restart_entry(request).await?;
        CeremonyView::read(done.into_inner().ceremony)?.after(at)
    }

    /// Confirms a check value, in hexadecimals.
    pub async fn confirm_ceremony(
        &self,
        at: &CeremonyView,
        check_value: &str,
    ) -> Result<CeremonyView, ClientError> {
        let decoded = data_encoding::HEXUPPER_PERMISSIVE.decode(check_value.as_bytes());
        let check_value = decoded.map_err(|_| ClientError::Incomplete("check_value"))?;
        let request = proto::ConfirmCeremonyRequest { name: at.name.clone(), check_value };
        let done = self.ceremonies().confirm_ceremony(request).await?;
        CeremonyView::read(done.into_inner().ceremony)?.after(at)
    }

    /// Signs the transcript as it was when the thing was done.
    pub async fn sign_ceremony(
        &self,
        at: &CeremonyView,
        signer: &SigningKey,
    ) -> Result<CeremonyView, ClientError> {
        let steps = at.planned.steps();
        let signatures = steps.iter().take(at.steps_done).filter(|step| step.act == Act::Sign);
        let after = signatures.count();
        // What is signed says that it was done, and nothing else does.
        let last = at.transcript.line_before(after);
        if !last.is_some_and(|line| line.what == "done" && line.who == SERVICE) {
            return Err(ClientError::Incomplete("transcript"));
        }
        let link = at.transcript.link_before(after);
        let signature = sign_transcript(signer, &link);
        let signature = signature.map_err(|_| ClientError::Incomplete("randomness"))?.to_vec();
        let request = proto::SignCeremonyRequest { name: at.name.clone(), signature };
        let done = self.ceremonies().sign_ceremony(request).await?;
        CeremonyView::read(done.into_inner().ceremony)?.after(at)
    }

    /// Ends a ceremony before anything happened.
    pub async fn abort_ceremony(
        &self,
        name: &str,
        cause: &str,
    ) -> Result<CeremonyView, ClientError> {
        let request =
            proto::AbortCeremonyRequest { name: name.to_owned(), cause: cause.to_owned() };
        let done = self.ceremonies().abort_ceremony(request).await?;
        CeremonyView::read(done.into_inner().ceremony)
    }
}
