//! A terminal's report of a step: the digest it applied, or the fault it found.

use super::deliver::read;
use super::exchange::{Exchange, Opening, open};
use super::proof::{Message, disbelieve, prove};
use super::record::{ParametersSent, Terminal, TimelineEntry};
use super::step::{Happened, advance, check, enable_if_automatic, profile_of};
use super::{Signed, payload_field};
use crate::activation::payload::{Fault, Outcome, Payload, Report};
use crate::activation::{Call, State, Step, Transcript};
use crate::command::{Error, Ksn, give_up, refuse, repeated, retrying};
use crate::vault::{Action, Caller, Reason, Vault};

/// What vouches for a report.
#[derive(Clone)]
pub enum Voucher {
    /// Before the keys are confirmed: the device itself, by its key or its master key.
    Device,
    /// After: a transaction key.
    Transaction(Ksn),
}

/// Takes a report. It tells of a fault, or that the parameters were applied.
pub async fn report_step(
    vault: &Vault,
    caller: &Caller,
    activation: (&str, u32),
    signed: &Signed,
    voucher: &Voucher,
) -> Result<(), Error> {
    retrying(|| report_once(vault, caller, activation, signed, voucher)).await
}

async fn report_once(
    vault: &Vault,
    caller: &Caller,
    activation: (&str, u32),
    signed: &Signed,
    voucher: &Voucher,
) -> Result<(), Error> {
    let report = Report::parse(&signed.payload).map_err(payload_field)?;
    match voucher {
        Voucher::Device => by_device(vault, caller, activation, signed, &report).await,
        Voucher::Transaction(ksn) => {
            let exchange = Exchange { ksn: ksn.clone(), signed: signed.clone() };
            by_transaction(vault, caller, activation, &exchange, &report).await
        }
    }
}

async fn by_device(
    vault: &Vault,
    caller: &Caller,
    (terminal_id, number): (&str, u32),
    signed: &Signed,
    report: &Report,
) -> Result<(), Error> {
    let resource = format!("terminals/{terminal_id}");
    let mut work = vault.begin(caller, Action::ReportStep, resource).await?;
    let Some((mut terminal, activation)) = read(vault, terminal_id, number).await? else {
        return Err(refuse(work, Reason::ActivationRefused).await);
    };
    let chain = &activation.record.certificate_chain;
    let message = Message { chain, before: &Transcript::new(), step: Step::Report, signed };
    let device = match prove(vault, &terminal.record, &message, work.now()).await {
        Ok(device) => device,
        Err(disbelief) => return Err(disbelieve(work, terminal, disbelief).await),
    };
    let profile = profile_of(vault, &terminal.record).await?;
    let allowed = check(&terminal.record, Call::ReportStep, profile.code_required)
        .and_then(|()| same_activation(&terminal.record, report));
    if let Err(error) = allowed {
        return Err(give_up(work, error).await);
    }
    let Outcome::Fault(fault) = report.outcome else {
        // Parameters come after the keys, so this report has a transaction key to stand under.
        return Err(refuse(work, Error::field("proof", "must be a transaction MAC")).await);
    };
    if is_repetition(&terminal.record, report, fault) {
        return repeated(work, ()).await;
    }
    device.expected_by(&mut work, &terminal.record);
    tell_fault(&mut work, &mut terminal.record, report, fault);
    work.put(&terminal)?;
    work.commit().await?;
    Ok(())
}

async fn by_transaction(
    vault: &Vault,
    caller: &Caller,
    (terminal_id, number): (&str, u32),
    exchange: &Exchange,
    report: &Report,
) -> Result<(), Error> {
    let what = (Action::ReportStep, Call::ReportStep, Step::Report);
    let mut opened = match open(vault, caller, what, exchange).await? {
        Opening::Answered(answered) => return repeated(answered.work, ()).await,
        Opening::Fresh(opened) => opened,
    };
    let terminal = &mut opened.terminal.record;
    if terminal.id != terminal_id || terminal.activation != number {
        return Err(opened.refuse(Error::refused(Reason::ActivationRefused)).await);
    }
    if let Err(error) = same_activation(terminal, report) {
        return Err(opened.refuse(error).await);
    }
    let profile = profile_of(vault, terminal).await?;
    match report.outcome {
        Outcome::Fault(fault) => tell_fault(&mut opened.work, terminal, report, fault),
        Outcome::Applied(digest) => {
            let sent = terminal.parameters_sent.clone();
            let Some(ParametersSent { version, .. }) = sent.filter(|sent| sent.digest == digest)
            else {
                let error = Error::field("payload.applied_digest", "is not what was sent");
                return Err(opened.refuse(error).await);
            };
            terminal.parameters_applied = version;
            let none_to_run = terminal.tests_passed >= profile.test_transactions;
            let to = match terminal.state {
                State::ParametersDelivered if none_to_run => State::Tested,
                other => other,
            };
            let note = format!("parameters version {version} applied");
            advance(&mut opened.work, terminal, to, Happened::done("ReportStep", note));
            enable_if_automatic(vault, &mut opened.work, terminal, &profile).await?;
        }
    }
    opened.answer(exchange, Vec::new()).await?;
    Ok(())
}

fn same_activation(terminal: &Terminal, report: &Report) -> Result<(), Error> {
    if report.activation.as_str() == terminal.activation_name() {
        Ok(())
    } else {
        Err(Error::refused(Reason::ActivationRefused))
    }
}

/// Tells a fault in the timeline; the state stays, for the remedy is the step again.
fn tell_fault(
    work: &mut crate::vault::Work,
    terminal: &mut Terminal,
    report: &Report,
    fault: Fault,
) {
    let state = terminal.state;
    let remedy = "the terminal refused the answer of this step: run the step again";
    let note = note(report, fault);
    let happened = Happened { step: "ReportStep", reason: fault.as_str(), remedy, note };
    advance(work, terminal, state, happened);
}

fn note(report: &Report, fault: Fault) -> String {
    format!("step {} failed at the terminal: {}", report.step.as_str(), fault.as_str())
}

/// The same report twice in a session is one: a device key has no counter to tell them apart, and
/// whoever recorded two of them must not write the timeline full by turns.
fn is_repetition(terminal: &Terminal, report: &Report, fault: Fault) -> bool {
    let begins =
        |entry: &&TimelineEntry| entry.step == "BeginActivation" && entry.reason.is_empty();
    let session = terminal.timeline.iter().rev().take_while(|entry| !begins(entry));
    let note = note(report, fault);
    session.into_iter().any(|entry| entry.step == "ReportStep" && entry.note == note)
}
