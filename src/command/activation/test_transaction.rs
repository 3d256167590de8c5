//! Step 7: a test transaction, judged check by check.

use super::begin::broken;
use super::deliver::state_error;
use super::exchange::{Exchange, Opened, Opening, open};
use super::parameters::limits;
use super::payload_field;
use super::profile::Profile;
use super::record::{Answer, Terminal};
use super::step::{Happened, advance, enable_if_automatic, profile_of};
use crate::activation::checks::{Evidence, Month, Verdict};
use crate::activation::parameters::Currency;
use crate::activation::payload::{self, Payload, TestTransaction, TestTransactionAnswer};
use crate::activation::{Call, State, Step};
use crate::command::{Error, repeated, retrying};
use crate::pin::{self, EncryptedPinBlock, Pan, PinBlockFormat};
use crate::vault::{Action, Caller, ClaimRequest, Purpose, Vault};

/// Judges a test transaction; the verdicts go back under the KSN's response key.
pub async fn run_test_transaction(
    vault: &Vault,
    caller: &Caller,
    request: &Exchange,
) -> Result<Answer, Error> {
    retrying(|| run_once(vault, caller, request)).await
}

async fn run_once(vault: &Vault, caller: &Caller, request: &Exchange) -> Result<Answer, Error> {
    let transaction = TestTransaction::parse(&request.signed.payload).map_err(payload_field)?;
    let what = (Action::RunTestTransaction, Call::RunTestTransaction, Step::Test);
    let mut opened = match open(vault, caller, what, request).await? {
        Opening::Answered(answered) => return repeated(answered.work, answered.answer).await,
        Opening::Fresh(opened) => opened,
    };
    let profile = profile_of(vault, &opened.terminal.record).await?;
    if let Err(error) = check_parameters(&opened.terminal.record, &profile) {
        return Err(opened.refuse(error).await);
    }
    let pin_block_accepted = match judge_pin_block(&mut opened, request, &transaction).await {
        Ok(accepted) => accepted,
        Err(error) => return Err(opened.refuse(error).await),
    };
    let evidence = Evidence {
        pin_block_accepted,
        transaction: &transaction,
        currency: Currency::new(&profile.currency).ok_or_else(|| broken("no currency"))?,
        limits: limits(&profile)?,
        // Test transactions move no money.
        spent_today_minor: 0,
        month: Month::at(opened.work.now().seconds()),
    };
    let verdicts = evidence.judge();
    conclude(vault, opened, &profile, &transaction, verdicts, request).await
}

/// A transaction is judged by the limits of the profile: the terminal must have been sent these,
/// and have said that it applied what it was sent.
fn check_parameters(terminal: &Terminal, profile: &Profile) -> Result<(), Error> {
    let sent = terminal.parameters_sent.as_ref().map_or(0, |sent| sent.version);
    let remedy = if sent < profile.parameters_version {
        "the limits changed: get the parameters again"
    } else if terminal.parameters_applied < sent {
        "the terminal has not reported that it applied its parameters"
    } else {
        return Ok(());
    };
    Err(state_error(terminal, remedy))
}

/// Whether the PIN block opens to a PIN for the card; the counter's PIN key is spent either way.
async fn judge_pin_block(
    opened: &mut Opened,
    request: &Exchange,
    transaction: &TestTransaction,
) -> Result<bool, Error> {
    let record = opened.bdk.record();
    opened
        .work
        .claim(ClaimRequest {
            key_name: &record.name,
            key_version: record.version,
            initial_key_id: &request.ksn.initial_key_id(),
            purpose: Purpose::Pin,
            rank: request.ksn.rank(),
            input: &request.signed.payload,
            first_anywhere: false,
        })
        .await?;
    let Ok(pan) = Pan::parse(transaction.card.expose_pan()) else { return Ok(false) };
    let Ok(block) = EncryptedPinBlock::parse(&transaction.pin_block) else { return Ok(false) };
    let format = match transaction.pin_block_format {
        payload::PinBlockFormat::Iso0 => PinBlockFormat::Iso0,
        payload::PinBlockFormat::Iso3 => PinBlockFormat::Iso3,
        payload::PinBlockFormat::Iso4 => PinBlockFormat::Iso4,
    };
    let key = opened
        .initial_key
        .pin_key(opened.initial_key.kind())
        .map_err(|_| broken("the initial key derives no PIN key"))?;
    Ok(pin::verify_form(&key, format, &pan, &block).is_ok())
}

async fn conclude(
    vault: &Vault,
    mut opened: Box<Opened>,
    profile: &Profile,
    transaction: &TestTransaction,
    verdicts: Vec<Verdict>,
    request: &Exchange,
) -> Result<Answer, Error> {
    let terminal = &mut opened.terminal.record;
    let failed: Vec<&Verdict> = verdicts.iter().filter(|one| !one.passed).collect();
    // The timeline gives the first as the reason; the note names them all.
    let (reason, remedy) =
        failed.first().map_or(("", ""), |one| (one.check.as_str(), one.remedy.as_str()));
    let mut to = terminal.state;
    let note = if failed.is_empty() {
        terminal.tests_passed = terminal.tests_passed.saturating_add(1);
        if to == State::ParametersDelivered && terminal.tests_passed >= profile.test_transactions {
            to = State::Tested;
        }
        format!(
            "test {} passed all {} checks, {} of {}",
            transaction.number,
            verdicts.len(),
            terminal.tests_passed,
            profile.test_transactions
        )
    } else {
        let checks: Vec<&str> = failed.iter().map(|one| one.check.as_str()).collect();
        format!("test {} failed: {}", transaction.number, checks.join(", "))
    };
    let happened = Happened { step: "RunTestTransaction", reason, remedy, note };
    advance(&mut opened.work, terminal, to, happened);
    enable_if_automatic(vault, &mut opened.work, terminal, profile).await?;
    let answer = TestTransactionAnswer {
        number: transaction.number,
        tests_passed: terminal.tests_passed,
        tests_required: profile.test_transactions,
        verdicts,
    };
    opened.answer(request, answer.encode()).await
}
