//! An attempt to open the vault: shares come in until there are as many as are needed.
//!
//! Before that, what is told of a share is what anybody can see of it: its heading, and whether its
//! envelope opens. Then one word is told of all of them.

use super::giver::{Giver, Sent, not_taken};
use super::{ID_LEN_BYTES, KEM};
use super::{PATIENCE_MS, ShareSet};
use crate::command::Error;
use crate::command::envelope::{Context, Purpose};
use crate::component::Share;
use crate::crypto::hpke::RecipientKey;
use crate::crypto::rng::{Rng, RngFailed};
use crate::vault::UnixMillis;

/// An attempt under way. Its key, and what was given, are wiped with it.
pub(super) struct Attempt {
    pub(super) id: [u8; ID_LEN_BYTES],
    pub(super) key: RecipientKey,
    pub(super) expires: UnixMillis,
    set: ShareSet,
    given: Vec<(String, Share)>,
}

impl Attempt {
    pub(super) fn begin(set: ShareSet, rng: &dyn Rng, now: UnixMillis) -> Result<Self, RngFailed> {
        let mut id = [0; ID_LEN_BYTES];
        rng.fill(&mut id)?;
        let key = RecipientKey::generate(KEM, rng)?;
        Ok(Self { id, key, expires: now.plus_ms(PATIENCE_MS), set, given: Vec::new() })
    }

    /// Whether it is for these shares, and not over.
    pub(super) fn is_current(&self, set: ShareSet, now: UnixMillis) -> bool {
        self.set == set && now < self.expires
    }

    /// Who has given a share.
    pub(super) fn givers(&self) -> Vec<String> {
        self.given.iter().map(|(by, _)| by.clone()).collect()
    }

    /// Takes a share, and tells whether there are enough now.
    pub(super) fn give(
        &mut self,
        giver: &Giver,
        sent: &Sent,
        now: UnixMillis,
    ) -> Result<bool, Error> {
        let context =
            Context { kem: KEM, id: &self.id, purpose: Purpose::Unseal, holder: &giver.key };
        let share = sent.open(&context, &self.key)?;
        if ShareSet::of(&share) != self.set {
            return Err(not_taken("it is of another set"));
        }
        if self.given.iter().any(|(by, _)| *by == giver.name) {
            return Err(not_taken("this caller gave one before"));
        }
        if self.given.iter().any(|(_, given)| given.heading().index() == share.heading().index()) {
            return Err(not_taken("it was given before"));
        }
        self.given.push((giver.name.clone(), share));
        self.expires = now.plus_ms(PATIENCE_MS);
        Ok(self.given.len() >= usize::from(self.set.threshold))
    }

    /// Who gave shares, and the shares.
    pub(super) fn into_shares(self) -> (Vec<String>, Vec<Share>) {
        self.given.into_iter().unzip()
    }
}
