//! The steps with a component: on a slip, typed back from it, typed from one that was brought, and
//! handed over.

use data_encoding::HEXUPPER;

use super::ask::{Ask, Stopped, TRIES_MAX, go_on};
use super::flow::{Fault, Sitting, check_value, timely};
use super::hidden::type_hidden;
use super::screen::{Screen, time};
use super::seat::Seat;
use super::slip::Slip;
use crate::command::ceremony::plan::{Import, Task};
use crate::command::ceremony::record::CeremonyState;
use crate::command::ceremony::step::Step;
use crate::component::{Assurance, Component, Entry, Rows};
use crate::grpc::client::{CeremonyView, ClientError};
use crate::key::Algorithm;

/// How the typing of a component ended.
enum Typed {
    /// Nobody typed for too long; it is wiped.
    Silence,
    /// As it stands on the slip.
    Whole(Component),
    /// Its check value is another one; it is wiped.
    Wrong,
}

impl Sitting<'_> {
    pub(super) async fn take(
        &mut self,
        step: Step,
        seat: &Seat,
        custodian: u8,
    ) -> Result<CeremonyView, Fault> {
        // A printer that does not print is found before there is anything to lose.
        if !self.has_printed {
            self.print_cover(step)?;
        }
        let screen = self.screen_of(step);
        go_on(self.table, screen)?;
        let (view, component) = timely(seat.client.take_component(
            &self.view,
            (custodian, &seat.key),
            self.setting.rng,
        ))
        .await?;
        let check = component.check_value().to_string();
        let printed = self.print_slip(&view, custodian, component.write(), &check);
        drop(component);
        // The slip is given out, whatever became of it on its way.
        self.see(view.clone())?;
        let told = printed.map_err(Fault::SlipLost)?;
        self.tell(format!("slip {custodian}, check value {check}, {told}"));
        Ok(view)
    }

    /// Prints what a custodian takes home; here it is wiped, whatever became of it.
    pub(super) fn print_slip(
        &mut self,
        view: &CeremonyView,
        number: u8,
        rows: Rows,
        check: &str,
    ) -> Result<String, String> {
        let date = time(self.table.now());
        let slip = Slip {
            test: self.setting.test,
            ceremony: &view.name,
            planned: &view.planned,
            number,
            rows: &rows,
            check,
            date: &date,
        };
        let printed = self.table.print(&format!("slip-{number}"), &slip.page());
        drop(rows);
        printed
    }

    pub(super) fn print_cover(&mut self, step: Step) -> Result<(), Fault> {
        let mut screen = self.screen_of(step);
        screen.expected = vec![
            "First the script is printed, which is no secret: it shows that the printer prints, \
             and is the cover of the slips."
                .to_owned(),
        ];
        loop {
            go_on(self.table, screen.clone())?;
            let page = super::script::script(&self.view.planned) + "\x0c";
            match self.table.print("cover", page.as_bytes()) {
                Ok(told) => {
                    self.has_printed = true;
                    self.tell(format!("the script was {told}"));
                    return Ok(());
                }
                Err(cause) => screen.notice = format!("{cause}: mend it, and press Enter"),
            }
        }
    }

    pub(super) async fn read_back(
        &mut self,
        step: Step,
        seat: &Seat,
        custodian: u8,
    ) -> Result<CeremonyView, Fault> {
        let algorithm = self.view.algorithm().ok_or(ClientError::Incomplete("plan"))?;
        let mut notice = String::new();
        loop {
            let mut screen = self.screen_of(step);
            screen.notice = std::mem::take(&mut notice);
            // With check groups there is nothing else to compare it with here: the service does.
            let typed = self.typed(screen, algorithm, Assurance::CheckGroups)?;
            let Typed::Whole(component) = typed else { continue };
            let call = seat.client.read_back_component(
                &self.view,
                (custodian, &seat.key),
                &component,
                self.setting.rng,
            );
            match timely(call).await {
                Err(Fault::Call(error)) if error.reason() == Some("COMPONENT_REJECTED") => {
                    // The service counts, and ends the ceremony with the third.
                    let asked = timely(seat.client.ceremony(&self.view.name)).await?;
                    if asked.state == CeremonyState::Open {
                        "this is not the component that was given out: look at the slip"
                            .clone_into(&mut notice);
                        self.table.bell();
                        continue;
                    }
                    return Err(error.into());
                }
                answer => return answer,
            }
        }
    }

    pub(super) async fn enter(
        &mut self,
        step: Step,
        seat: &Seat,
        custodian: u8,
    ) -> Result<CeremonyView, Fault> {
        let algorithm = self.view.algorithm().ok_or(ClientError::Incomplete("plan"))?;
        let planned = self.view.planned.clone();
        let Task::Import(Import { component_check_values, .. }) = planned.task() else {
            return Err(ClientError::Incomplete("plan").into());
        };
        let place = usize::from(custodian).saturating_sub(1);
        let right = component_check_values.get(place).map(String::as_str).unwrap_or_default();
        let screen = self.screen_of(step);
        let shown = Ask::value("Check value of your component, from the slip").on(
            self.table,
            screen.clone(),
            |_, typed| {
                let typed = check_value(typed).ok_or("3 or 5 bytes in hexadecimals")?;
                let digits = HEXUPPER.encode(&typed);
                let same = digits.starts_with(right) || right.starts_with(&digits);
                let other = "the plan names another check value for this component";
                same.then_some(typed).ok_or_else(|| other.to_owned())
            },
        )?;
        let has_check_groups = Ask::value("Has each row a fifth group, of check digits? (y or n)")
            .on(self.table, screen, |_, typed| match typed {
                "y" | "Y" => Ok(true),
                "n" | "N" => Ok(false),
                _ => Err("y or n".to_owned()),
            })?;
        let component = self.entered(step, algorithm, has_check_groups, &shown)?;
        let (view, committed) = timely(seat.client.enter_component(
            &self.view,
            (custodian, &seat.key),
            component,
            self.setting.rng,
        ))
        .await?;
        self.committed.push((custodian, committed));
        Ok(view)
    }

    /// A component whose check value is the one that the slip shows: three tries.
    fn entered(
        &mut self,
        step: Step,
        algorithm: Algorithm,
        has_check_groups: bool,
        shown: &[u8],
    ) -> Result<Component, Fault> {
        let mut wrong = 0;
        let mut notice = String::new();
        while wrong < TRIES_MAX {
            let mut screen = self.screen_of(step);
            screen.notice = std::mem::take(&mut notice);
            let assurance = if has_check_groups {
                Assurance::CheckGroups
            } else {
                Assurance::CheckValue(shown.to_vec())
            };
            match self.typed(screen, algorithm, assurance)? {
                Typed::Whole(component) if component.check_value().matches_prefix(shown) => {
                    return Ok(component);
                }
                Typed::Silence => continue,
                Typed::Whole(_) | Typed::Wrong => wrong += 1,
            }
            "its check value is not the one of the slip; what was typed is wiped"
                .clone_into(&mut notice);
            self.table.bell();
        }
        Err(Stopped::Tries.into())
    }

    fn typed(
        &mut self,
        mut screen: Screen,
        algorithm: Algorithm,
        assurance: Assurance,
    ) -> Result<Typed, Fault> {
        let mut entry = Entry::of_component(algorithm, assurance);
        match type_hidden(self.table, screen.clone(), &mut entry, self.setting.silence) {
            Ok(()) => Ok(Component::typed(entry).map_or(Typed::Wrong, Typed::Whole)),
            Err(Stopped::Silence) => {
                screen.notice = Stopped::Silence.to_string();
                self.table.bell();
                go_on(self.table, screen)?;
                Ok(Typed::Silence)
            }
            Err(stopped) => Err(stopped.into()),
        }
    }

    pub(super) async fn reveal(
        &mut self,
        step: Step,
        seat: &Seat,
        custodian: u8,
    ) -> Result<CeremonyView, Fault> {
        let Some(place) = self.committed.iter().position(|(number, _)| *number == custodian) else {
            let mut screen = self.screen_of(step);
            screen.expected = vec![
                "What was typed was lost when the tool ended before it was handed over. All \
                 custodians type theirs again."
                    .to_owned(),
            ];
            go_on(self.table, screen)?;
            self.committed.clear();
            return timely(seat.client.restart_entry(&self.view)).await;
        };
        let (_, committed) = self.committed.swap_remove(place);
        let screen = self.screen_of(step);
        self.table.show(&screen)?;
        timely(seat.client.reveal_component(&self.view, &committed)).await
    }
}
