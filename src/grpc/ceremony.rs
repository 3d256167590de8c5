//! `CeremonyService`: people at a table, each call one step.

use data_encoding::{HEXLOWER, HEXUPPER};
use tonic::{Request, Response, Status};

use super::admit::Admitted;
use super::convert::{self, resource, timestamp};
use super::paging::{Pages, page_size};
use super::proto;
use super::proto::ceremony_service_server::CeremonyService;
use super::respond::serve;
use crate::command::Error;
use crate::command::ceremony::conduct::{self, By, Certificate};
use crate::command::ceremony::plan::Plan;
use crate::command::ceremony::record::{Ceremony, CeremonyState};
use crate::command::ceremony::step::{Act, Actor, Step};
use crate::vault::Action;

/// The longest plan, in bytes.
const PLAN_LEN_BYTES_MAX: usize = 16 * 1024;
/// The longest stated cause, in characters.
const CAUSE_LEN_MAX: usize = 200;
/// The longest envelope: a salt and a component of 64 bytes, under a key of P-521.
const ENVELOPE_LEN_BYTES_MAX: usize = 245;

/// The service.
pub(super) struct CeremonyApi;

/// Serves one step: `$done` gives the command's answer with `$by` and `$id`.
macro_rules! step {
    (
        $method:literal, $request:ident, $answer:ident,
        $by:ident, $id:ident, $body:ident, $vault:ident => $done:expr
    ) => {{
        let certificate = certificate(&$request);
        serve($method, $request, async |$vault, caller, $body| {
            let $id = resource("name", "ceremonies", &$body.name)?;
            let $by = By { caller: &caller, certificate: certificate.as_ref() };
            let ceremony = $done?;
            Ok(proto::$answer { ceremony: Some(from_ceremony(&ceremony)) })
        })
        .await
    }};
}

#[tonic::async_trait]
impl CeremonyService for CeremonyApi {
    async fn create_ceremony(
        &self,
        request: Request<proto::CreateCeremonyRequest>,
    ) -> Result<Response<proto::CreateCeremonyResponse>, Status> {
        serve("CreateCeremony", request, async |vault, caller, body| {
            let request = convert::request_id("CreateCeremony", &body.request_id, &body)?;
            let plan = to_plan(&body.plan)?;
            let made = conduct::create(&vault, &caller, Some(&request), &plan).await?;
            Ok(proto::CreateCeremonyResponse { ceremony: Some(from_ceremony(&made)) })
        })
        .await
    }

    async fn get_ceremony(
        &self,
        request: Request<proto::GetCeremonyRequest>,
    ) -> Result<Response<proto::GetCeremonyResponse>, Status> {
        serve("GetCeremony", request, async |vault, caller, body| {
            let id = resource("name", "ceremonies", &body.name)?;
            let found = conduct::get(&vault, &caller, &id).await?;
            Ok(proto::GetCeremonyResponse { ceremony: Some(from_ceremony(&found)) })
        })
        .await
    }

    async fn list_ceremonies(
        &self,
        request: Request<proto::ListCeremoniesRequest>,
    ) -> Result<Response<proto::ListCeremoniesResponse>, Status> {
        serve("ListCeremonies", request, async |vault, caller, body| {
            let limit = page_size(body.page_size)?;
            let pages = Pages { vault: &vault, caller: &caller, action: Action::ListCeremonies };
            let after = pages.after(&body.page_token)?;
            let page = conduct::list(&vault, &caller, after.as_deref(), limit).await?;
            let short = |one: &Ceremony| {
                let whole = from_ceremony(one);
                Ok(proto::Ceremony {
                    plan: Vec::new(),
                    steps: Vec::new(),
                    transcript: Vec::new(),
                    product: String::new(),
                    ..whole
                })
            };
            Ok(proto::ListCeremoniesResponse {
                ceremonies: page.rows.iter().map(short).collect::<Result<_, Error>>()?,
                next_page_token: pages.next(page.next.as_deref())?,
            })
        })
        .await
    }

    async fn join_ceremony(
        &self,
        request: Request<proto::JoinCeremonyRequest>,
    ) -> Result<Response<proto::JoinCeremonyResponse>, Status> {
        step!("JoinCeremony", request, JoinCeremonyResponse, by, id, body, vault => {
            let digest = convert::array::<32>("plan_digest", &body.plan_digest)?;
            conduct::join(&vault, by, &id, &digest).await
        })
    }

    async fn take_component(
        &self,
        request: Request<proto::TakeComponentRequest>,
    ) -> Result<Response<proto::TakeComponentResponse>, Status> {
        let certificate = certificate(&request);
        serve("TakeComponent", request, async |vault, caller, body| {
            let id = resource("name", "ceremonies", &body.name)?;
            let by = By { caller: &caller, certificate: certificate.as_ref() };
            let signature = convert::array("signature", &body.signature)?;
            let key = convert::bytes("recipient_key", body.recipient_key, 65..=133)?;
            let taken = conduct::take(&vault, by, &id, (&key, &signature)).await?;
            let (ceremony, envelope) = taken;
            let ceremony = Some(from_ceremony(&ceremony));
            Ok(proto::TakeComponentResponse { ceremony, envelope })
        })
        .await
    }

    async fn read_back_component(
        &self,
        request: Request<proto::ReadBackComponentRequest>,
    ) -> Result<Response<proto::ReadBackComponentResponse>, Status> {
        step!("ReadBackComponent", request, ReadBackComponentResponse, by, id, body, vault => {
            let signature = convert::array("signature", &body.signature)?;
            let envelope = to_envelope(body.envelope)?;
            conduct::read_back(&vault, by, &id, (&envelope, &signature)).await
        })
    }

    async fn enter_component(
        &self,
        request: Request<proto::EnterComponentRequest>,
    ) -> Result<Response<proto::EnterComponentResponse>, Status> {
        step!("EnterComponent", request, EnterComponentResponse, by, id, body, vault => {
            let signature = convert::array("signature", &body.signature)?;
            let commitment = convert::array("commitment", &body.commitment)?;
            conduct::enter(&vault, by, &id, (&commitment, &signature)).await
        })
    }

    async fn reveal_component(
        &self,
        request: Request<proto::RevealComponentRequest>,
    ) -> Result<Response<proto::RevealComponentResponse>, Status> {
        step!("RevealComponent", request, RevealComponentResponse, by, id, body, vault => {
            let signature = convert::array("signature", &body.signature)?;
            let envelope = to_envelope(body.envelope)?;
            conduct::reveal(&vault, by, &id, (&envelope, &signature)).await
        })
    }

    async fn restart_entry(
        &self,
        request: Request<proto::RestartEntryRequest>,
    ) -> Result<Response<proto::RestartEntryResponse>, Status> {
        step!("RestartEntry", request, RestartEntryResponse, by, id, body, vault => {
            conduct::restart_entry(&vault, by, &id).await
        })
    }

    async fn confirm_ceremony(
        &self,
        request: Request<proto::ConfirmCeremonyRequest>,
    ) -> Result<Response<proto::ConfirmCeremonyResponse>, Status> {
        step!("ConfirmCeremony", request, ConfirmCeremonyResponse, by, id, body, vault => {
            let value = convert::bytes("check_value", body.check_value, 3..=5)?;
            conduct::confirm(&vault, by, &id, &HEXUPPER.encode(&value)).await
        })
    }

    async fn sign_ceremony(
        &self,
        request: Request<proto::SignCeremonyRequest>,
    ) -> Result<Response<proto::SignCeremonyResponse>, Status> {
        step!("SignCeremony", request, SignCeremonyResponse, by, id, body, vault => {
            let signature = convert::array("signature", &body.signature)?;
            conduct::sign(&vault, by, &id, &signature).await
        })
    }

    async fn abort_ceremony(
        &self,
        request: Request<proto::AbortCeremonyRequest>,
    ) -> Result<Response<proto::AbortCeremonyResponse>, Status> {
        serve("AbortCeremony", request, async |vault, caller, body| {
            let id = resource("name", "ceremonies", &body.name)?;
            let cause = convert::text("cause", &body.cause, 1..=CAUSE_LEN_MAX)?;
            let ended = conduct::abort(&vault, &caller, &id, &cause).await?;
            Ok(proto::AbortCeremonyResponse { ceremony: Some(from_ceremony(&ended)) })
        })
        .await
    }
}

/// The certificate of the connection that a request came by.
fn certificate<Q>(request: &Request<Q>) -> Option<Certificate> {
    let identity = request.extensions().get::<Admitted>()?.recheck.identity()?;
    Some(Certificate { der: identity.certificate.clone(), key: identity.key? })
}

pub(super) fn to_plan(plan: &[u8]) -> Result<Plan, Error> {
    if plan.len() > PLAN_LEN_BYTES_MAX {
        return Err(Error::field("plan", "is too long"));
    }
    serde_json::from_slice(plan).map_err(|_| Error::field("plan", "is no plan in JSON"))
}

fn to_envelope(envelope: Vec<u8>) -> Result<Vec<u8>, Error> {
    convert::bytes("envelope", envelope, 1..=ENVELOPE_LEN_BYTES_MAX)
}

pub(super) fn from_ceremony(ceremony: &Ceremony) -> proto::Ceremony {
    let planned = ceremony.planned();
    let hex = |text: &str| HEXLOWER.decode(text.to_lowercase().as_bytes()).unwrap_or_default();
    let key = ceremony.envelope_key.as_ref().filter(|_| ceremony.state == CeremonyState::Open);
    let step = |step: &Step| {
        let (custodian, actor) = match step.actor {
            Actor::Custodian(number) => (u32::from(number), step.actor),
            Actor::Witness => (0, step.actor),
        };
        let name = planned.name_of(actor).unwrap_or_default().to_owned();
        proto::CeremonyStep { act: from_act(step.act).into(), custodian, name }
    };
    proto::Ceremony {
        name: ceremony.name(),
        state: from_state(ceremony.state).into(),
        plan: planned.canonical(),
        plan_digest: planned.digest().to_vec(),
        steps: planned.steps().iter().map(step).collect(),
        steps_done: u32::try_from(ceremony.steps_done).unwrap_or(u32::MAX),
        envelope_key: key.map(|key| hex(&key.public)).unwrap_or_default(),
        envelope_key_signature: key.map(|key| hex(&key.signature)).unwrap_or_default(),
        check_value: ceremony.check_value.as_deref().map(hex).unwrap_or_default(),
        transcript: ceremony.transcript.lines().to_vec(),
        expire_time: ceremony.expires().map(|time| timestamp(time.0)),
        product: ceremony.product.clone().unwrap_or_default(),
    }
}

const fn from_state(state: CeremonyState) -> proto::CeremonyState {
    match state {
        CeremonyState::Aborted => proto::CeremonyState::Aborted,
        CeremonyState::Closed => proto::CeremonyState::Closed,
        CeremonyState::Done => proto::CeremonyState::Done,
        CeremonyState::Open => proto::CeremonyState::Open,
    }
}

const fn from_act(act: Act) -> proto::CeremonyAct {
    match act {
        Act::Confirm => proto::CeremonyAct::Confirm,
        Act::Enter => proto::CeremonyAct::Enter,
        Act::Join => proto::CeremonyAct::Join,
        Act::ReadBack => proto::CeremonyAct::ReadBack,
        Act::Reveal => proto::CeremonyAct::Reveal,
        Act::Sign => proto::CeremonyAct::Sign,
        Act::Take => proto::CeremonyAct::Take,
    }
}
