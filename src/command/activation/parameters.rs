//! Step 6: merchant data and limits, in a file that the terminal verifies.

use super::begin::{NO_IDENTITY, broken};
use super::exchange::{Exchange, Opening, open};
use super::payload_field;
use super::profile::Profile;
use super::record::{Answer, ParametersSent, Terminal};
use super::step::{Happened, advance, profile_of, with_remedy};
use crate::activation::parameters::{
    AcquirerId, Currency, Limits, MerchantId, MerchantName, Parameters, ParametersVersion,
    TerminalId,
};
use crate::activation::payload::{ParametersAnswer, ParametersRequest, Payload};
use crate::activation::{Call, State, Step};
use crate::command::{Error, manage_trust, repeated, retrying};
use crate::vault::{Action, Caller, Vault};

/// Answers a terminal with its parameters, under its transaction key.
pub async fn get_parameters(
    vault: &Vault,
    caller: &Caller,
    request: &Exchange,
) -> Result<Answer, Error> {
    retrying(|| get_once(vault, caller, request)).await
}

async fn get_once(vault: &Vault, caller: &Caller, request: &Exchange) -> Result<Answer, Error> {
    let wanted = ParametersRequest::parse(&request.signed.payload).map_err(payload_field)?;
    let what = (Action::GetParameters, Call::GetParameters, Step::Parameters);
    let mut opened = match open(vault, caller, what, request).await? {
        Opening::Answered(answered) => return repeated(answered.work, answered.answer).await,
        Opening::Fresh(opened) => opened,
    };
    let profile = profile_of(vault, &opened.terminal.record).await?;
    let acquirer_id = match manage_trust::acquirer_id(vault).await {
        Ok(acquirer_id) => acquirer_id,
        Err(error) => return Err(opened.refuse(with_remedy(error, NO_IDENTITY)).await),
    };
    let parameters = parameters(&opened.terminal.record, &profile, &acquirer_id)?;
    let version = profile.parameters_version;
    let digest = parameters.digest();
    let terminal = &mut opened.terminal.record;
    terminal.parameters_sent = Some(ParametersSent { version, digest });
    let to = match terminal.state {
        State::KeysConfirmed => State::ParametersDelivered,
        other => other,
    };
    let note = format!(
        "version {version}, known version {}; single limit {} {}, daily limit {}",
        wanted.known_version,
        profile.single_amount_minor,
        profile.currency,
        profile.daily_amount_minor,
    );
    advance(&mut opened.work, terminal, to, Happened::done("GetParameters", note));
    let payload = ParametersAnswer { parameters }.encode();
    opened.answer(request, payload).await
}

/// The parameters of a terminal, as its profile says now.
fn parameters(
    terminal: &Terminal,
    profile: &Profile,
    acquirer_id: &str,
) -> Result<Parameters, Error> {
    let unfit = || broken("a registered value does not fit the parameter file");
    let merchant = &terminal.merchant;
    Ok(Parameters {
        version: ParametersVersion::new(profile.parameters_version).ok_or_else(unfit)?,
        acquirer_id: AcquirerId::new(acquirer_id).ok_or_else(unfit)?,
        merchant_id: MerchantId::new(&merchant.merchant_id).ok_or_else(unfit)?,
        merchant_name: MerchantName::new(&merchant.display_name).ok_or_else(unfit)?,
        terminal_id: TerminalId::new(&merchant.terminal_id).ok_or_else(unfit)?,
        currency: Currency::new(&profile.currency).ok_or_else(unfit)?,
        limits: limits(profile)?,
    })
}

/// The limits of a profile.
pub(super) fn limits(profile: &Profile) -> Result<Limits, Error> {
    Limits::new(profile.single_amount_minor, profile.daily_amount_minor)
        .map_err(|_| broken("the limits of a profile are none"))
}
