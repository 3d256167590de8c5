//! The ceremony of a master key. Its shares are never stored, so what gives them out and takes them
//! back is elsewhere: here is written down that it was done, in the order of the plan.

use data_encoding::BASE64;

use super::act::{Participant, StepRefused};
use super::plan::Planned;
use super::record::Ceremony;
use super::step::Act;
use crate::vault::UnixMillis;

impl Ceremony {
    /// Begins one for shares that were drawn.
    #[must_use]
    pub fn begin_of_shares(
        id: String,
        planned: &Planned,
        values: &[(&str, String)],
        now: UnixMillis,
    ) -> Self {
        let mut begun = Self::new(id, planned, now);
        begun.created(planned, values, now);
        begun
    }

    /// Whether this custodian gets a share now.
    pub fn expect_take(&self, who: Participant<'_>, digest: &[u8]) -> Result<(), StepRefused> {
        self.turn(who, Act::Take)?;
        if digest != self.planned().digest() {
            return Err(StepRefused::DigestDiffers);
        }
        Ok(())
    }

    /// A custodian came with the plan of this digest, and has the share.
    pub fn share_taken(
        &mut self,
        who: Participant<'_>,
        now: UnixMillis,
    ) -> Result<(), StepRefused> {
        let number = self.turn(who, Act::Take)?;
        let certificate = BASE64.encode(who.certificate);
        let values = [("certificate", certificate), ("share", number.to_string())];
        self.comes(who);
        self.done(now, "given out", who.name, &values);
        Ok(())
    }

    /// Whether this custodian reads a share back now.
    pub fn expect_read_back(&self, who: Participant<'_>) -> Result<(), StepRefused> {
        self.turn(who, Act::ReadBack).map(drop)
    }

    /// A custodian read the share back as it was given out. Tells whether it was the last one: then
    /// the master key is put in force, and [`Ceremony::complete`] follows in the same commit.
    pub fn share_read_back(
        &mut self,
        who: Participant<'_>,
        now: UnixMillis,
    ) -> Result<bool, StepRefused> {
        let number = self.turn(who, Act::ReadBack)?;
        self.done(now, "read back", who.name, &[("share", number.to_string())]);
        Ok(self.next().is_some_and(|next| next.act == Act::Sign))
    }

    /// A custodian read the share back wrongly: with the last try the ceremony is to be aborted.
    pub fn share_misread(
        &mut self,
        who: Participant<'_>,
        now: UnixMillis,
    ) -> Result<(), StepRefused> {
        let number = self.turn(who, Act::ReadBack)?;
        Err(self.misread(who, ("share", number), now))
    }

    /// The same once more: of shares it keeps nothing, so there is nothing secret in it.
    #[must_use]
    pub fn copy_of_shares(&self) -> Self {
        let text = serde_json::to_vec(self).ok();
        let copy = text.and_then(|text| serde_json::from_slice(&text).ok());
        copy.expect("a ceremony is kept as JSON, and read from it")
    }
}
