//! The steps with a share of the master key: on a slip, and typed back from it.

use data_encoding::HEXUPPER;

use super::ask::{Stopped, go_on};
use super::flow::{Fault, Sitting, timely};
use super::hidden::type_hidden;
use super::screen::Screen;
use super::seat::Seat;
use super::table::Table;
use crate::command::ceremony::plan::Task;
use crate::command::ceremony::step::Step;
use crate::component::{Entry, Share};
use crate::grpc::client::{CeremonyView, ClientError, ceremony_in};

impl Sitting<'_> {
    pub(super) fn is_of_shares(&self) -> bool {
        matches!(self.view.planned.task(), Task::Initialise(_) | Task::ReShare(_))
    }

    pub(super) async fn take_share(
        &mut self,
        step: Step,
        seat: &Seat,
        custodian: u8,
    ) -> Result<CeremonyView, Fault> {
        self.type_digest(step)?;
        if !self.has_printed {
            self.print_cover(step)?;
        }
        let screen = self.screen_of(step);
        go_on(self.table, screen)?;
        let digest = self.view.planned.digest();
        let taken = seat.client.take_share((&seat.key, self.setting.rng), &digest);
        let (status, share) = timely(taken).await?;
        let told = ceremony_in(&status)?.ok_or(ClientError::Incomplete("ceremony"))?;
        let view = told.after(&self.view)?;
        let set_id = HEXUPPER.encode(&share.heading().set_id());
        let printed = self.print_slip(&view, custodian, share.write(), &set_id);
        drop(share);
        // The slip is given out, whatever became of it on its way.
        self.view = view.clone();
        let told = printed.map_err(Fault::SlipLost)?;
        self.tell(format!("slip {custodian} of set {set_id}, {told}"));
        Ok(view)
    }

    pub(super) async fn read_back_share(
        &mut self,
        step: Step,
        seat: &Seat,
    ) -> Result<CeremonyView, Fault> {
        let mut notice = String::new();
        loop {
            let mut screen = self.screen_of(step);
            screen.notice = std::mem::take(&mut notice);
            let share = type_share(self.table, &screen, self.setting.silence)?;
            let by = (&seat.key, self.setting.rng);
            match timely(seat.client.read_back_share(by, &share)).await {
                Ok(_) => {}
                // The service counts, and ends the ceremony with the third.
                Err(Fault::Call(error)) if error.reason() == Some("SHARE_REFUSED") => {
                    "this is not the share that was given out: look at the slip"
                        .clone_into(&mut notice);
                    self.table.bell();
                    continue;
                }
                Err(fault) => return Err(fault),
            }
            let found = timely(seat.client.master_key_ceremony(&self.view.name)).await?;
            let told = found.ok_or(ClientError::Incomplete("ceremony"))?;
            return Ok(told.after(&self.view)?);
        }
    }
}

/// Lets somebody type a share until it is one. What was typed is wiped when nobody goes on.
pub(super) fn type_share(
    table: &mut dyn Table,
    screen: &Screen,
    silence: u16,
) -> Result<Share, Stopped> {
    let mut screen = screen.clone();
    loop {
        let mut entry = Entry::of_share();
        match type_hidden(table, screen.clone(), &mut entry, silence) {
            Ok(()) => {
                if let Ok(share) = Share::typed(entry) {
                    return Ok(share);
                }
                "this is no share: look at the slip".clone_into(&mut screen.notice);
                table.bell();
            }
            Err(Stopped::Silence) => {
                let mut silent = screen.clone();
                silent.notice = Stopped::Silence.to_string();
                table.bell();
                go_on(table, silent)?;
                screen.notice.clear();
            }
            Err(stopped) => return Err(stopped),
        }
    }
}
