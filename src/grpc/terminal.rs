//! `TerminalService`: profiles, terminals, and what the acquirer's backend does with them.

use std::pin::Pin;

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::admit::Admitted;
use super::convert::{self, optional, optional_key, required, resource, text, timestamp};
use super::paging::{Pages, page_size};
use super::profile_update::profile_update;
use super::proto;
use super::proto::create_terminal_result::Result as CreateTerminalOutcome;
use super::proto::terminal_service_server::TerminalService;
use super::respond::{refused, serve};
use super::terminal_fields::{
    from_found, from_profile, from_reading, from_terminal, new_profile, new_terminal, standing,
    to_state,
};
use super::watch::{Watch, Watcher};
use crate::command::Error;
use crate::command::activation::lifecycle::{Change, change_terminal};
use crate::command::activation::register::{self, Entry};
use crate::command::activation::{code, profile, read, watch};
use crate::command::lookup_ksn::lookup_ksn;
use crate::vault::Action;

/// The longest stated cause, in characters.
const CAUSE_LEN_MAX: usize = 200;

/// The most entries of a batch.
const ENTRIES_MAX: usize = 500;

/// The service.
pub(super) struct TerminalApi;

/// The body of a call that changes a terminal: convert, call, convert back.
macro_rules! change {
    ($name:literal, $request:ident, $response:ident, |$body:ident| $change:expr) => {
        serve($name, $request, async |vault, caller, $body| {
            let change = $change;
            let id = resource("name", "terminals", &$body.name)?;
            let request = convert::request_id($name, &$body.request_id, &$body)?;
            let changed = change_terminal(&vault, &caller, Some(&request), &id, &change).await?;
            Ok(proto::$response { terminal: Some(from_terminal(&changed, false)) })
        })
        .await
    };
}

#[tonic::async_trait]
impl TerminalService for TerminalApi {
    async fn create_profile(
        &self,
        request: Request<proto::CreateProfileRequest>,
    ) -> Result<Response<proto::CreateProfileResponse>, Status> {
        serve("CreateProfile", request, async |vault, caller, body| {
            let request = convert::request_id("CreateProfile", &body.request_id, &body)?;
            let id = convert::id("profile_id", &body.profile_id)?;
            let new = new_profile(id, required("profile", body.profile)?)?;
            let made = profile::create_profile(&vault, &caller, Some(&request), new).await?;
            Ok(proto::CreateProfileResponse { profile: Some(from_profile(&made)) })
        })
        .await
    }

    async fn get_profile(
        &self,
        request: Request<proto::GetProfileRequest>,
    ) -> Result<Response<proto::GetProfileResponse>, Status> {
        serve("GetProfile", request, async |vault, caller, body| {
            let id = resource("name", "profiles", &body.name)?;
            let found = profile::get_profile(&vault, &caller, &id).await?;
            Ok(proto::GetProfileResponse { profile: Some(from_profile(&found)) })
        })
        .await
    }

    async fn list_profiles(
        &self,
        request: Request<proto::ListProfilesRequest>,
    ) -> Result<Response<proto::ListProfilesResponse>, Status> {
        serve("ListProfiles", request, async |vault, caller, body| {
            let limit = page_size(body.page_size)?;
            let pages = Pages { vault: &vault, caller: &caller, action: Action::ListProfiles };
            let after = pages.after(&body.page_token)?;
            let after = after.as_deref();
            let page = profile::list_profiles(&vault, &caller, after, limit).await?;
            Ok(proto::ListProfilesResponse {
                profiles: page.rows.iter().map(from_profile).collect(),
                next_page_token: pages.next(page.next.as_deref())?,
            })
        })
        .await
    }

    async fn update_profile(
        &self,
        request: Request<proto::UpdateProfileRequest>,
    ) -> Result<Response<proto::UpdateProfileResponse>, Status> {
        serve("UpdateProfile", request, async |vault, caller, body| {
            let request = convert::request_id("UpdateProfile", &body.request_id, &body)?;
            let (id, changes) = profile_update(body.profile, body.update_mask)?;
            let request = Some(&request);
            let made = profile::update_profile(&vault, &caller, request, &id, &changes).await?;
            Ok(proto::UpdateProfileResponse { profile: Some(from_profile(&made)) })
        })
        .await
    }

    async fn create_terminal(
        &self,
        request: Request<proto::CreateTerminalRequest>,
    ) -> Result<Response<proto::CreateTerminalResponse>, Status> {
        serve("CreateTerminal", request, async |vault, caller, body| {
            let Entry { request, new } = entry(body)?;
            let request = Some(&request);
            let made = register::create_terminal(&vault, &caller, request, &new).await?;
            Ok(proto::CreateTerminalResponse { terminal: Some(from_terminal(&made, false)) })
        })
        .await
    }

    async fn batch_create_terminals(
        &self,
        request: Request<proto::BatchCreateTerminalsRequest>,
    ) -> Result<Response<proto::BatchCreateTerminalsResponse>, Status> {
        let admitted = request.extensions().get::<Admitted>().cloned();
        serve("BatchCreateTerminals", request, async |vault, caller, body| {
            if !(1..=ENTRIES_MAX).contains(&body.entries.len()) {
                return Err(Error::field("entries", "are not 1 to 500"));
            }
            if let Some(admitted) = admitted {
                admitted.charge(Action::CreateTerminal, body.entries.len()).await?;
            }
            let entries = body.entries.into_iter().map(entry).collect();
            let made = register::create_terminals(&vault, &caller, entries).await;
            let results = made.into_iter().map(|made| match made {
                Ok(made) => CreateTerminalOutcome::Terminal(from_terminal(&made, false)),
                Err(error) => {
                    CreateTerminalOutcome::Refusal(refused("CreateTerminal", &caller, &error))
                }
            });
            let results =
                results.map(|result| proto::CreateTerminalResult { result: Some(result) });
            Ok(proto::BatchCreateTerminalsResponse { results: results.collect() })
        })
        .await
    }

    async fn get_terminal(
        &self,
        request: Request<proto::GetTerminalRequest>,
    ) -> Result<Response<proto::GetTerminalResponse>, Status> {
        serve("GetTerminal", request, async |vault, caller, body| {
            let id = resource("name", "terminals", &body.name)?;
            let found = read::get_terminal(&vault, &caller, &id).await?;
            Ok(proto::GetTerminalResponse { terminal: Some(from_reading(&found, true)) })
        })
        .await
    }

    async fn list_terminals(
        &self,
        request: Request<proto::ListTerminalsRequest>,
    ) -> Result<Response<proto::ListTerminalsResponse>, Status> {
        serve("ListTerminals", request, async |vault, caller, body| {
            let limit = page_size(body.page_size)?;
            let pages = Pages { vault: &vault, caller: &caller, action: Action::ListTerminals };
            let after = pages.after(&body.page_token)?;
            let after = after.as_deref();
            let path = "base_derivation_key";
            let filter = read::Filter {
                state: optional::<proto::TerminalState>("state", body.state)?.and_then(to_state),
                base_derivation_key: optional_key(path, &body.base_derivation_key)?,
            };
            let page = read::list_terminals(&vault, &caller, &filter, after, limit).await?;
            Ok(proto::ListTerminalsResponse {
                terminals: page.rows.iter().map(|row| from_reading(row, false)).collect(),
                next_page_token: pages.next(page.next.as_deref())?,
            })
        })
        .await
    }

    async fn issue_activation_code(
        &self,
        request: Request<proto::IssueActivationCodeRequest>,
    ) -> Result<Response<proto::IssueActivationCodeResponse>, Status> {
        serve("IssueActivationCode", request, async |vault, caller, body| {
            let id = resource("name", "terminals", &body.name)?;
            let request = convert::request_id("IssueActivationCode", &body.request_id, &body)?;
            let issued = code::issue_activation_code(&vault, &caller, &request, &id).await?;
            Ok(proto::IssueActivationCodeResponse {
                terminal: Some(from_terminal(&issued.terminal, false)),
                // The one place where the code leaves: it is told to the backend once.
                activation_code: issued.code.to_string(),
                expire_time: Some(timestamp(issued.expires.0)),
            })
        })
        .await
    }

    async fn reissue_activation_code(
        &self,
        request: Request<proto::ReissueActivationCodeRequest>,
    ) -> Result<Response<proto::ReissueActivationCodeResponse>, Status> {
        serve("ReissueActivationCode", request, async |vault, caller, body| {
            let id = resource("name", "terminals", &body.name)?;
            let request = convert::request_id("ReissueActivationCode", &body.request_id, &body)?;
            let issued = code::reissue_activation_code(&vault, &caller, &request, &id).await?;
            Ok(proto::ReissueActivationCodeResponse {
                terminal: Some(from_terminal(&issued.terminal, false)),
                activation_code: issued.code.to_string(),
                expire_time: Some(timestamp(issued.expires.0)),
            })
        })
        .await
    }

    async fn set_merchant_standing(
        &self,
        request: Request<proto::SetMerchantStandingRequest>,
    ) -> Result<Response<proto::SetMerchantStandingResponse>, Status> {
        change!("SetMerchantStanding", request, SetMerchantStandingResponse, |body| {
            Change::SetMerchantStanding(standing("standing", body.standing)?)
        })
    }

    async fn hold_terminal(
        &self,
        request: Request<proto::HoldTerminalRequest>,
    ) -> Result<Response<proto::HoldTerminalResponse>, Status> {
        change!("HoldTerminal", request, HoldTerminalResponse, |body| Change::Hold(cause(
            &body.cause
        )?))
    }

    async fn release_terminal(
        &self,
        request: Request<proto::ReleaseTerminalRequest>,
    ) -> Result<Response<proto::ReleaseTerminalResponse>, Status> {
        change!("ReleaseTerminal", request, ReleaseTerminalResponse, |body| Change::Release)
    }

    async fn cancel_activation(
        &self,
        request: Request<proto::CancelActivationRequest>,
    ) -> Result<Response<proto::CancelActivationResponse>, Status> {
        change!("CancelActivation", request, CancelActivationResponse, |body| Change::Cancel(
            cause(&body.cause)?
        ))
    }

    async fn set_settlement_digest(
        &self,
        request: Request<proto::SetSettlementDigestRequest>,
    ) -> Result<Response<proto::SetSettlementDigestResponse>, Status> {
        change!("SetSettlementDigest", request, SetSettlementDigestResponse, |body| {
            Change::SetSettlementDigest(convert::array("digest", &body.digest)?)
        })
    }

    async fn enable_terminal(
        &self,
        request: Request<proto::EnableTerminalRequest>,
    ) -> Result<Response<proto::EnableTerminalResponse>, Status> {
        change!("EnableTerminal", request, EnableTerminalResponse, |body| Change::Enable)
    }

    async fn suspend_terminal(
        &self,
        request: Request<proto::SuspendTerminalRequest>,
    ) -> Result<Response<proto::SuspendTerminalResponse>, Status> {
        change!("SuspendTerminal", request, SuspendTerminalResponse, |body| Change::Suspend(cause(
            &body.cause
        )?))
    }

    async fn resume_terminal(
        &self,
        request: Request<proto::ResumeTerminalRequest>,
    ) -> Result<Response<proto::ResumeTerminalResponse>, Status> {
        change!("ResumeTerminal", request, ResumeTerminalResponse, |body| Change::Resume)
    }

    async fn retire_terminal(
        &self,
        request: Request<proto::RetireTerminalRequest>,
    ) -> Result<Response<proto::RetireTerminalResponse>, Status> {
        change!("RetireTerminal", request, RetireTerminalResponse, |body| Change::Retire(cause(
            &body.cause
        )?))
    }

    async fn mark_terminal_compromised(
        &self,
        request: Request<proto::MarkTerminalCompromisedRequest>,
    ) -> Result<Response<proto::MarkTerminalCompromisedResponse>, Status> {
        change!("MarkTerminalCompromised", request, MarkTerminalCompromisedResponse, |body| {
            Change::MarkCompromised(cause(&body.cause)?)
        })
    }

    async fn start_rekey(
        &self,
        request: Request<proto::StartRekeyRequest>,
    ) -> Result<Response<proto::StartRekeyResponse>, Status> {
        change!("StartRekey", request, StartRekeyResponse, |body| Change::StartRekey {
            cause: cause(&body.cause)?,
            update_key_allowed: body.update_key_allowed,
        })
    }

    async fn lookup_ksn(
        &self,
        request: Request<proto::LookupKsnRequest>,
    ) -> Result<Response<proto::LookupKsnResponse>, Status> {
        serve("LookupKsn", request, async |vault, caller, body| {
            let ksn = convert::host_ksn("ksn", &body.ksn)?;
            let found = lookup_ksn(&vault, &caller, &ksn).await?;
            Ok(from_found(&ksn, &found))
        })
        .await
    }

    type WatchTerminalsStream =
        Pin<Box<dyn Stream<Item = Result<proto::WatchTerminalsResponse, Status>> + Send>>;

    async fn watch_terminals(
        &self,
        request: Request<proto::WatchTerminalsRequest>,
    ) -> Result<Response<Self::WatchTerminalsStream>, Status> {
        let admitted = request.extensions().get::<Admitted>();
        let recheck = admitted.map(|admitted| admitted.recheck.clone()).unwrap_or_default();
        let ending = admitted.map(|admitted| admitted.ending.clone()).unwrap_or_default();
        serve("WatchTerminals", request, async |vault, caller, body| {
            let terminal = convert::optional_resource("terminal", "terminals", &body.terminal)?;
            watch::begin_to_watch(&vault, &caller, terminal.as_deref()).await?;
            let watcher = Watcher { caller, recheck, sequence: body.after_sequence, terminal };
            let watch = Watch::new(vault, watcher);
            let stream: Self::WatchTerminalsStream = Box::pin(watch.into_stream(ending));
            Ok(stream)
        })
        .await
    }
}

/// A registration with its request id, which is the same alone and in a batch.
fn entry(body: proto::CreateTerminalRequest) -> Result<Entry, Error> {
    let request = convert::request_id("CreateTerminal", &body.request_id, &body)?;
    Ok(Entry { request, new: new_terminal(body)? })
}

fn cause(cause: &str) -> Result<String, Error> {
    text("cause", cause, 1..=CAUSE_LEN_MAX)
}
