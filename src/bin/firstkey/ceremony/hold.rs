//! `firstkey ceremony run` and `resume`: a ceremony at this terminal; and what has happened when it
//! ends, whichever way.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use firstkey::command::ceremony::plan::{Planned, Task};
use firstkey::command::ceremony::record::CeremonyState;
use firstkey::command::ceremony::step::{Act, Step};
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::{CeremonyView, Client, ClientError, ceremony_in, request_id_of};
use firstkey::grpc::proto::SealState;
use firstkey::guide::{Fault, Setting, Sitting};
use firstkey::vault::VerifierKey;
use tokio_util::sync::CancellationToken;

use super::plan;
use super::printer::Printer;
use super::terminal::{Terminal, ensure_there_is_one};
use crate::cli::ceremony::{Abort, Place, Resume, Room, Run};
use crate::connect::connect;
use crate::shared::access::read;
use crate::shared::development::write_new;
use crate::{exit, print, shared};

/// How long the service may take to say how a ceremony stands.
const ASK: Duration = Duration::from_secs(10);

/// Creates a ceremony, or finds the one that the same plan created, and holds it.
pub(super) async fn run(arguments: &Run) -> anyhow::Result<ExitCode> {
    ensure_there_is_one()?;
    let place = &arguments.place;
    let log_key = log_key(place.log_key.as_deref())?;
    let planned = plan::read(&arguments.file)?;
    let printer = printer(&place.room, gives_slips(&planned.steps()))?;
    let client = connect(&place.server).await?;
    let view = if is_of_shares(&planned) {
        create_of_shares(&client, &planned, arguments.anew).await?
    } else {
        create(&client, &planned, arguments.anew).await?
    };
    let file = arguments.file.display();
    ensure!(view.planned == planned, "the service runs another plan than {file}");
    at_service(&client, view, place, (printer, log_key)).await
}

/// Creates the ceremony of a plan under a request id that the plan always has: once others have
/// approved it, the same command creates it, and then finds it.
///
/// One that was aborted is not taken up again. With `anew` another one is created, under an id that
/// the plan and the one that was aborted always have.
pub(super) async fn create(
    client: &Client,
    planned: &Planned,
    anew: bool,
) -> Result<CeremonyView, ClientError> {
    let mut aborted = String::new();
    loop {
        let id = request_id_of(&[&planned.digest(), aborted.as_bytes()]);
        let view = client.create_ceremony(id, planned).await?;
        if !anew || view.state != CeremonyState::Aborted {
            return Ok(view);
        }
        aborted = view.name;
    }
}

/// Has a master key made by a plan, or finds the ceremony in which that is done.
pub(super) async fn create_of_shares(
    client: &Client,
    planned: &Planned,
    anew: bool,
) -> Result<CeremonyView, ClientError> {
    let status = client.seal_status().await?;
    if let Some(view) = ceremony_in(&status)?.filter(|view| view.planned == *planned) {
        return Ok(view);
    }
    let is_open = status.state() == SealState::Open;
    let mut found = if is_open { client.ceremony_of(planned).await? } else { None };
    if let Some(open) = found.take_if(|view| view.state == CeremonyState::Open) {
        // Its shares were in the memory of a service that has ended.
        found = Some(client.abort_ceremony(&open.name, "the service was started anew").await?);
    }
    match found {
        Some(view) if !anew || view.state != CeremonyState::Aborted => Ok(view),
        found => {
            let before = found.map(|view| view.name).unwrap_or_default();
            let status = client.plan_master_key(planned, &before).await?;
            ceremony_in(&status)?.ok_or(ClientError::Incomplete("ceremony"))
        }
    }
}

/// Takes a ceremony up again.
pub(super) async fn resume(arguments: &Resume) -> anyhow::Result<ExitCode> {
    ensure_there_is_one()?;
    let place = &arguments.place;
    let log_key = log_key(place.log_key.as_deref())?;
    let client = connect(&place.server).await?;
    let found = client.master_key_ceremony(&arguments.name).await?;
    let Some(view) = found else {
        print::line(&forgotten(&arguments.name));
        return Ok(ExitCode::from(exit::FAILED));
    };
    let printer = printer(&place.room, gives_slips(&view.planned.steps()))?;
    at_service(&client, view, place, (printer, log_key)).await
}

/// Ends a ceremony before anything has happened.
pub(super) async fn abort(arguments: &Abort) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.server).await?;
    let status = client.seal_status().await?;
    if ceremony_in(&status)?.is_some_and(|view| view.name == arguments.name) {
        let _ = client.abandon_master_key().await?;
        let Some(view) = client.master_key_ceremony(&arguments.name).await? else {
            print::line(&forgotten(&arguments.name));
            return Ok(ExitCode::from(exit::FAILED));
        };
        return Ok(tell(&view, arguments.transcript.clone()));
    }
    let view = client.abort_ceremony(&arguments.name, &arguments.cause).await?;
    Ok(tell(&view, arguments.transcript.clone()))
}

async fn at_service(
    client: &Client,
    view: CeremonyView,
    Place { room, server, .. }: &Place,
    (printer, log_key): (Printer, Option<VerifierKey>),
) -> anyhow::Result<ExitCode> {
    let authority = server.ca.as_deref().context("people log in by TLS: name the --ca")?;
    let setting = Setting {
        url: &server.server,
        authority: &read(authority)?,
        log_key,
        test: false,
        silence: room.silence,
        rng: &SystemRng::new(),
        warnings: warnings(&printer),
        papers_of: &|_| String::new(),
    };
    let transcript = Some(room.transcript.clone().unwrap_or_else(|| of_name(&view.name)));
    hold(client, view, setting, printer, transcript).await
}

/// Holds a ceremony, and tells what has happened.
pub(super) async fn hold(
    client: &Client,
    view: CeremonyView,
    setting: Setting<'_>,
    printer: Printer,
    transcript: Option<PathBuf>,
) -> anyhow::Result<ExitCode> {
    if ended(&view) {
        return Ok(tell(&view, transcript));
    }
    let stop = stop_token()?;
    let (outcome, last) = {
        // The terminal is as it was when this block ends.
        let mut terminal = Terminal::take(stop, printer)?;
        let mut held = Sitting::new(&mut terminal, setting, view);
        let outcome = held.hold().await;
        (outcome, held.view().clone())
    };
    if let Err(fault) = &outcome {
        print::line(&format!("Stopped: {fault}."));
    }
    let asked = tokio::time::timeout(ASK, client.master_key_ceremony(&last.name)).await;
    match asked {
        Ok(Ok(Some(view))) => Ok(tell(&view, transcript)),
        Ok(Ok(None)) => {
            print::line(&forgotten(&last.name));
            Ok(ExitCode::from(exit::FAILED))
        }
        Ok(Err(error)) => Ok(guess(&last, outcome.as_ref().err(), &error.to_string())),
        Err(_) => Ok(guess(&last, outcome.as_ref().err(), "it does not answer")),
    }
}

/// Tells how a ceremony stands, as the service says, and writes its transcript once it has ended.
pub(super) fn tell(view: &CeremonyView, transcript: Option<PathBuf>) -> ExitCode {
    let name = &view.name;
    let steps = view.planned.steps();
    let next = steps.get(view.steps_done);
    let is_done = view.state == CeremonyState::Done;
    let code = if view.state == CeremonyState::Closed {
        print::line(&format!("It is complete: {name}, and everybody has signed."));
        ExitCode::SUCCESS
    } else if view.state == CeremonyState::Aborted {
        print::line(&format!("Nothing happened: {name} was aborted, and what it held is wiped."));
        ExitCode::from(exit::FAILED)
    } else {
        let number = view.steps_done + 1;
        let (act, who) = next.map_or(("", ""), |step| {
            (step.act.as_str(), view.planned.name_of(step.actor).unwrap_or_default())
        });
        print::line(&if is_done {
            format!("It is complete: {name}. Signatures are awaited.")
        } else {
            format!("Nothing happened: {name} is not complete.")
        });
        print::line(&format!("It waits for step {number} of {}: {act}, {who}.", steps.len()));
        print::line(&format!("Take it up again with `firstkey ceremony resume {name}`"));
        if !is_done {
            let minutes = view.planned.plan().idle_minutes;
            print::line(&format!("within {minutes} minutes of its last step, or end it with"));
            print::line(&format!("`firstkey ceremony abort {name} --cause …`."));
        }
        ExitCode::from(if is_done { exit::WAITS } else { exit::FAILED })
    };
    if !view.product.is_empty() {
        print::line("");
        print::line(view.product.trim_end());
    }
    if let Some(path) = transcript.filter(|_| ended(view)) {
        let text = view.transcript.lines().join("\n") + "\n";
        print::line(&match write_new(&path, text.as_bytes()) {
            Ok(()) => format!("Its transcript is in {}.", path.display()),
            Err(error) => format!("Its transcript was not written: {error:#}"),
        });
    }
    code
}

/// Tells what is known where the service can not be asked: what it did with a step whose answer is
/// lost is not.
fn guess(last: &CeremonyView, fault: Option<&Fault>, cause: &str) -> ExitCode {
    let steps = last.planned.steps();
    let confirms = steps.iter().rposition(|step| step.act != Act::Sign).unwrap_or_default();
    print::line(&format!("The service can not be asked how {} stands: {cause}.", last.name));
    let was_sent = matches!(fault, Some(Fault::Call(_) | Fault::NoAnswer));
    let is_of_shares = is_of_shares(&last.planned);
    print::line(if last.steps_done > confirms {
        "It is complete: nothing but signatures is left."
    } else if last.steps_done == confirms && was_sent {
        "The step that completes it was sent and not answered: it is complete or nothing \
         happened. Resume it, and the service says which."
    } else if is_of_shares {
        "Nothing happened: the last share was not read back."
    } else {
        "Nothing happened: its last confirmation was not given."
    });
    print::line(&format!("Take it up again with `firstkey ceremony resume {}`.", last.name));
    ExitCode::from(exit::FAILED)
}

fn log_key(text: Option<&str>) -> anyhow::Result<Option<VerifierKey>> {
    text.map(VerifierKey::parse).transpose().context("--log-key")
}

/// Cancelled when somebody ends the tool, or the terminal goes.
pub(super) fn stop_token() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let ended = stop.clone();
    let (signals, hangup) = (shared::stop_signal()?, shared::hangup_signal()?);
    tokio::spawn(async move {
        tokio::select! {
            () = signals => {}
            () = hangup => {}
        }
        ended.cancel();
    });
    Ok(stop)
}

/// The printer, where slips are given out.
pub(super) fn printer(room: &Room, gives_slips: bool) -> anyhow::Result<Printer> {
    let printer = Printer::of(room)?;
    ensure!(
        !gives_slips || printer.prints(),
        "this ceremony prints slips: --printer COMMAND, or --print-to a folder in memory"
    );
    Ok(printer)
}

pub(super) fn is_of_shares(planned: &Planned) -> bool {
    matches!(planned.task(), Task::Initialise(_) | Task::ReShare(_))
}

/// What is told of a ceremony for the first master key that ended: before there is a store there is
/// no log that could sign its end.
fn forgotten(name: &str) -> String {
    format!(
        "Nothing happened: the service does not know {name}. Begin anew with `firstkey ceremony \
         run`; what was printed is worth nothing. A store that is sealed is unsealed first."
    )
}

const fn ended(view: &CeremonyView) -> bool {
    matches!(view.state, CeremonyState::Aborted | CeremonyState::Closed)
}

fn gives_slips(steps: &[Step]) -> bool {
    steps.iter().any(|step| step.act == Act::Take)
}

/// What people must know of this terminal and printer: somebody else may see or keep what passes.
pub(super) fn warnings(printer: &Printer) -> Vec<String> {
    let mut warnings: Vec<String> = printer.warning().into_iter().collect();
    for (variable, what) in [
        ("TMUX", "inside tmux"),
        ("STY", "inside screen"),
        ("SCRIPT", "recorded by script"),
        ("ASCIINEMA_REC", "recorded by asciinema"),
        ("SSH_CONNECTION", "on another machine than its keyboard (ssh)"),
    ] {
        if std::env::var_os(variable).is_some() {
            warnings.push(format!(
                "This terminal is {what}: what is typed passes through more hands. Better is a \
                 terminal of its own."
            ));
        }
    }
    warnings
}

/// Where a transcript goes: `ceremonies/x` to `ceremony-x.jsonl`.
fn of_name(name: &str) -> PathBuf {
    let id = name.rsplit('/').next().unwrap_or(name);
    format!("ceremony-{id}.jsonl").into()
}

/// Whether a call waits for other officers.
pub(super) fn waits(error: &ClientError) -> bool {
    error.reason() == Some("APPROVAL_REQUIRED")
}
