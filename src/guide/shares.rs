//! The steps with a share of the master key: on a slip, and typed back from it.

use data_encoding::HEXUPPER;

use super::ask::{Stopped, go_on};
use super::flow::{Fault, Sitting, timely};
use super::hidden::type_hidden;
use super::screen::time;
use super::seat::Seat;
use super::slip::Slip;
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
        let view = ceremony_in(&status)?.ok_or(ClientError::Incomplete("ceremony"))?;
        let set_id = HEXUPPER.encode(&share.heading().set_id());
        let date = time(self.table.now());
        let rows = share.write();
        let slip = Slip {
            test: self.setting.test,
            ceremony: &view.name,
            planned: &view.planned,
            number: custodian,
            rows: &rows,
            check: &set_id,
            date: &date,
        };
        let printed = self.table.print(&format!("slip-{custodian}"), &slip.page());
        drop((rows, share));
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
            let mut entry = Entry::of_share();
            let typed = type_hidden(self.table, screen.clone(), &mut entry, self.setting.silence);
            match typed {
                Ok(()) => {}
                Err(Stopped::Silence) => {
                    screen.notice = Stopped::Silence.to_string();
                    self.table.bell();
                    go_on(self.table, screen)?;
                    continue;
                }
                Err(stopped) => return Err(stopped.into()),
            }
            let by = (&seat.key, self.setting.rng);
            let refused = match Share::typed(entry) {
                Ok(share) => match timely(seat.client.read_back_share(by, &share)).await {
                    Ok(_) => None,
                    // The service counts, and ends the ceremony with the third.
                    Err(Fault::Call(error)) if error.reason() == Some("SHARE_REFUSED") => {
                        Some("this is not the share that was given out: look at the slip")
                    }
                    Err(fault) => return Err(fault),
                },
                Err(_) => Some("this is no share: look at the slip"),
            };
            if let Some(cause) = refused {
                cause.clone_into(&mut notice);
                self.table.bell();
                continue;
            }
            let found = timely(seat.client.master_key_ceremony(&self.view.name)).await?;
            return found.ok_or_else(|| ClientError::Incomplete("ceremony").into());
        }
    }
}
