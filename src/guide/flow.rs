//! The way through a ceremony: each step on its screen, by whoever does it, at one table.

use std::rc::Rc;
use std::time::Duration;

use data_encoding::{HEXLOWER_PERMISSIVE, HEXUPPER};

use super::ask::{Ask, Stopped, go_on};
use super::screen::{Frame, Happened, Screen, digest_groups, read_aloud};
use super::script::planned_lines;
use super::seat::Seat;
use super::table::{Interrupted, Table};
use super::words::{done, expected, role_of};
use crate::command::ceremony::plan::Task;
use crate::command::ceremony::step::{Act, Actor, Step};
use crate::crypto::digest::sha256;
use crate::crypto::rng::Rng;
use crate::grpc::client::{CeremonyView, ClientError, Committed};
use crate::vault::VerifierKey;

/// How long a call may take before its answer is taken for lost.
const CALL: Duration = Duration::from_secs(30);

/// What the smallest screen holds of a plan.
const PLANNED_COLUMNS: usize = 76;
/// What the smallest screen holds of a plan.
const PLANNED_LINES: usize = 8;

/// What a table is set for.
pub struct Setting<'a> {
    /// Where the service is.
    pub url: &'a str,
    /// The certificate of the authority that certifies the service, in PEM form.
    pub authority: &'a [u8],
    /// The key of the service's audit log, by which the ceremony's key for envelopes is proved to
    /// be the service's; none: people compare what they see with what others see.
    pub log_key: Option<VerifierKey>,
    /// A rehearsal.
    pub test: bool,
    /// After so many seconds without a key what was typed of a component is wiped.
    pub silence: u16,
    /// Where salts and keys for envelopes come from.
    pub rng: &'a dyn Rng,
    /// What people must know of this terminal and printer before they begin.
    pub warnings: Vec<String>,
    /// Where the certificate of somebody lies, where that is known; else empty.
    pub papers_of: &'a dyn Fn(&str) -> String,
}

/// Why a ceremony stopped. What that means is for the service to say.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The service refused a call, or does not answer.
    #[error(transparent)]
    Call(#[from] ClientError),
    /// There is another key for envelopes than there was.
    #[error("the key for envelopes is not the one of this ceremony's beginning: nothing is typed")]
    KeyChanged,
    /// The key for envelopes is not signed as it must be.
    #[error("the key for envelopes is not signed by this audit log: nothing is typed for it")]
    KeyUnsigned,
    /// The service's answer did not come in time.
    #[error("the service did not answer in time")]
    NoAnswer,
    /// A slip that was given out was not printed.
    #[error(
        "the slip was not printed: {0}. It is given out once: abort this ceremony, begin another"
    )]
    SlipLost(String),
    /// Somebody stopped, or had to.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl From<Interrupted> for Fault {
    fn from(Interrupted: Interrupted) -> Self {
        Self::Stopped(Stopped::Interrupted)
    }
}

/// The people at the table, and the ceremony as they know it.
pub struct Sitting<'a> {
    pub(super) table: &'a mut dyn Table,
    pub(super) setting: Setting<'a>,
    pub(super) view: CeremonyView,
    pub(super) seats: Vec<Rc<Seat>>,
    pub(super) committed: Vec<(u8, Committed)>,
    pub(super) happened: Vec<Happened>,
    pub(super) has_printed: bool,
}

impl<'a> Sitting<'a> {
    /// Sits down to a ceremony, as it stands.
    pub fn new(table: &'a mut dyn Table, setting: Setting<'a>, view: CeremonyView) -> Self {
        let (seats, committed, happened) = (Vec::new(), Vec::new(), Vec::new());
        Self { table, setting, view, seats, committed, happened, has_printed: false }
    }

    /// Goes through all steps that are left.
    pub async fn hold(&mut self) -> Result<(), Fault> {
        self.begin()?;
        self.prove_envelope_key()?;
        while let Some(step) = self.next() {
            self.step(step).await?;
        }
        let told = "The ceremony is complete, and everybody has signed. Its transcript is written \
                    when you leave this screen.";
        let mut screen = self.screen();
        screen.expected = vec![told.to_owned()];
        go_on(self.table, screen)?;
        Ok(())
    }

    /// The ceremony as it was last seen.
    #[must_use]
    pub fn view(&self) -> &CeremonyView {
        &self.view
    }

    fn next(&self) -> Option<Step> {
        self.view.planned.steps().get(self.view.steps_done).copied()
    }

    fn begin(&mut self) -> Result<(), Fault> {
        let mut screen = self.screen();
        screen.expected = vec![
            format!("{}, {} steps.", self.view.name, self.view.planned.steps().len()),
            "Everybody has the script on paper. One step a screen: who is named at the right acts, \
             all others watch. Ctrl-C stops, and the tool then tells what has happened."
                .to_owned(),
        ];
        screen.notice = self.setting.warnings.join(" ");
        go_on(self.table, screen)?;
        let lines = planned_lines(&self.view.planned, PLANNED_COLUMNS);
        for page in lines.chunks(PLANNED_LINES) {
            let mut screen = self.screen();
            "what is planned".clone_into(&mut screen.who);
            screen.expected = vec!["Compare each line with the script on paper:".to_owned()];
            screen.expected.push(String::new());
            screen.expected.extend_from_slice(page);
            go_on(self.table, screen)?;
        }
        Ok(())
    }

    async fn step(&mut self, step: Step) -> Result<(), Fault> {
        let number = self.view.steps_done + 1;
        let seat = self.seat(step).await?;
        let view = match (step.act, step.actor) {
            (Act::Join, _) => self.join(step, &seat).await?,
            (Act::Confirm, _) => self.confirm(step, &seat).await?,
            (Act::Sign, _) => {
                let screen = self.screen_of(step);
                go_on(self.table, screen)?;
                timely(seat.client.sign_ceremony(&self.view, &seat.key)).await?
            }
            (Act::Enter, Actor::Custodian(custodian)) => self.enter(step, &seat, custodian).await?,
            (Act::Reveal, Actor::Custodian(custodian)) => {
                self.reveal(step, &seat, custodian).await?
            }
            (Act::Take, Actor::Custodian(custodian)) if self.is_of_shares() => {
                self.take_share(step, &seat, custodian).await?
            }
            (Act::ReadBack, Actor::Custodian(_)) if self.is_of_shares() => {
                self.read_back_share(step, &seat).await?
            }
            (Act::Take, Actor::Custodian(custodian)) => self.take(step, &seat, custodian).await?,
            (Act::ReadBack, Actor::Custodian(custodian)) => {
                self.read_back(step, &seat, custodian).await?
            }
            (Act::Enter | Act::ReadBack | Act::Reveal | Act::Take, Actor::Witness) => {
                return Err(ClientError::Incomplete("steps").into());
            }
        };
        let advanced = view.steps_done >= number;
        self.see(view)?;
        if advanced {
            let who = role_of(&self.view.planned, step.actor);
            self.tell(format!("step {number}: {who} {}", done(step)));
        }
        Ok(())
    }

    /// Takes what the service tells now. A ceremony has one key for envelopes, until it ends.
    pub(super) fn see(&mut self, view: CeremonyView) -> Result<(), Fault> {
        let is_same = view.envelope_key == self.view.envelope_key || view.envelope_key.is_empty();
        self.view = view;
        is_same.then_some(()).ok_or(Fault::KeyChanged)
    }

    /// Proves that the key for envelopes is the service's, before anything is sealed for it: by the
    /// audit log's signature, or by what somebody else sees of it, at another machine.
    fn prove_envelope_key(&mut self) -> Result<(), Fault> {
        if self.view.envelope_key.is_empty() {
            return Ok(());
        }
        if let Some(log_key) = &self.setting.log_key {
            self.view.verify_envelope_key(log_key).map_err(|_| Fault::KeyUnsigned)?;
            self.tell("the envelope key is signed by the service's audit log".to_owned());
            return Ok(());
        }
        let right = squeezed(&fingerprint(&self.view.envelope_key));
        let mut screen = self.screen();
        // It comes from elsewhere: what stands here would only be copied.
        "as it is read to you".clone_into(&mut screen.frame.envelope_key);
        screen.expected = vec![
            "Components are sealed for the ceremony's envelope key. Is it the service's own?"
                .to_owned(),
            format!(
                "Somebody at another machine runs `firstkey ceremony show {}` and reads its \
                 fingerprint aloud. (With --log-key this tool proves it by itself.)",
                self.view.name
            ),
        ];
        Ask::value("Fingerprint of the envelope key").on(self.table, screen, |_, typed| {
            let other = "this is not the fingerprint of the key that this tool was given";
            (squeezed(typed) == right).then_some(()).ok_or_else(|| other.to_owned())
        })?;
        self.tell("the envelope key is the one that others see".to_owned());
        Ok(())
    }

    async fn join(&mut self, step: Step, seat: &Seat) -> Result<CeremonyView, Fault> {
        self.type_digest(step)?;
        timely(seat.client.join_ceremony(&self.view)).await
    }

    /// Whoever comes types the digest of the plan.
    pub(super) fn type_digest(&mut self, step: Step) -> Result<(), Fault> {
        let right = squeezed(&read_aloud(&self.view.planned.digest()));
        let mut screen = self.screen_of(step);
        // It is on paper: what stands here would only be copied.
        "as on your paper".clone_into(&mut screen.frame.digest);
        Ask::value("The first 32 digits of the digest").on(self.table, screen, |_, typed| {
            let other = "this is not the digest of the plan that this tool runs";
            (squeezed(typed) == right).then_some(()).ok_or_else(|| other.to_owned())
        })?;
        Ok(())
    }

    async fn confirm(&mut self, step: Step, seat: &Seat) -> Result<CeremonyView, Fault> {
        let right = self.view.check_value.clone();
        let mut screen = self.screen_of(step);
        if matches!(self.view.planned.task(), Task::Generate(_)) {
            screen.expected.push(format!("Check value of the key: {right}"));
        }
        Ask::value("Check value of the key").on(self.table, screen, |_, typed| {
            let same = check_value(typed).is_some_and(|typed| {
                let typed = HEXUPPER.encode(&typed);
                typed.starts_with(&right) || right.starts_with(&typed)
            });
            let other = "this is not the check value of the key; nothing has happened";
            same.then_some(()).ok_or_else(|| other.to_owned())
        })?;
        timely(seat.client.confirm_ceremony(&self.view, &right)).await
    }

    pub(super) fn tell(&mut self, what: String) {
        self.happened.push(Happened::now(self.table.now(), what));
    }

    pub(super) fn screen_of(&self, step: Step) -> Screen {
        let planned = &self.view.planned;
        Screen {
            step: Some((self.view.steps_done + 1, planned.steps().len())),
            who: role_of(planned, step.actor),
            name: planned.name_of(step.actor).unwrap_or_default().to_owned(),
            expected: expected(planned, step),
            ..self.screen()
        }
    }

    fn screen(&self) -> Screen {
        let planned = &self.view.planned;
        Screen {
            frame: Frame {
                test: self.setting.test,
                service: self.setting.url.to_owned(),
                title: planned.plan().title.clone(),
                digest: digest_groups(&planned.digest()),
                envelope_key: at_a_glance(&self.view.envelope_key),
            },
            happened: self.happened.clone(),
            ..Screen::default()
        }
    }
}

/// As much of [`fingerprint`] as stands on every screen.
fn at_a_glance(key: &[u8]) -> String {
    if key.is_empty() { String::new() } else { digest_groups(&sha256(&[key])) }
}

/// The SHA-256 of a ceremony's key for envelopes as it is read aloud; of no key, nothing.
#[must_use]
pub fn fingerprint(key: &[u8]) -> String {
    if key.is_empty() { String::new() } else { read_aloud(&sha256(&[key])) }
}

/// An answer, or a fault when there is none in time.
pub(super) async fn timely<T, E: Into<Fault>>(
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(CALL, call).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(Fault::NoAnswer),
    }
}

/// What was typed, without blanks, in upper case.
fn squeezed(typed: &str) -> String {
    typed.chars().filter(|letter| *letter != ' ').collect::<String>().to_uppercase()
}

/// A check value as people type it: 3 or 5 bytes.
pub(super) fn check_value(typed: &str) -> Option<Vec<u8>> {
    let value = HEXLOWER_PERMISSIVE.decode(squeezed(typed).as_bytes()).ok()?;
    [3, 5].contains(&value.len()).then_some(value)
}
