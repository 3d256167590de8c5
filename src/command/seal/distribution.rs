//! A new master key on its way to its custodians: each takes a share once and reads it back. The
//! key itself is not kept meanwhile: it comes out of the shares when all of them were read back.

use zeroize::Zeroizing;

use super::giver::{Giver, Sent, not_taken};
use super::{ID_LEN_BYTES, KEM};
use super::{PATIENCE_MS, ShareSet};
use crate::command::Error;
use crate::command::envelope::{Context, Purpose};
use crate::component::Share;
use crate::crypto::hpke::{RecipientKey, SealError};
use crate::crypto::rng::Rng;
use crate::memory::with_wiped_stack;
use crate::vault::{self, MasterKey, Reason, Seal, UnixMillis};

/// A distribution under way. Its key and its shares are wiped with it.
pub(super) struct Distribution {
    pub(super) id: [u8; ID_LEN_BYTES],
    pub(super) key: RecipientKey,
    pub(super) expires: UnixMillis,
    pub(super) set: ShareSet,
    /// The officer who began it.
    pub(super) by: String,
    pub(super) keepers: Vec<Keeping>,
}

/// One custodian, and the share.
pub(super) struct Keeping {
    pub(super) name: String,
    pub(super) taken: bool,
    pub(super) confirmed: bool,
    share: Share,
}

impl Distribution {
    /// Draws a master key and splits it among the named: 2 to 16, of whom `threshold` are enough.
    pub(super) fn begin(
        by: &str,
        names: Vec<String>,
        threshold: u8,
        rng: &dyn Rng,
        now: UnixMillis,
    ) -> Result<Self, Error> {
        let drawn = || {
            let mut id = [0; ID_LEN_BYTES];
            rng.fill(&mut id).ok()?;
            let key = RecipientKey::generate(KEM, rng).ok()?;
            let mut master = Zeroizing::new([0; MasterKey::LEN_BYTES]);
            rng.fill(&mut *master).ok()?;
            let shares = u8::try_from(names.len()).ok()?;
            let shares = Share::split(&master, threshold, shares, rng).ok()?;
            let set = ShareSet::of(shares.first()?);
            Some((id, set, key, shares))
        };
        let Some((id, set, key, shares)) = with_wiped_stack(drawn) else {
            return Err(vault::Error::incident("no master key was drawn", "seal").into());
        };
        let keep = |(name, share)| Keeping { name, taken: false, confirmed: false, share };
        let keepers = names.into_iter().zip(shares).map(keep).collect();
        let expires = now.plus_ms(PATIENCE_MS);
        Ok(Self { id, key, expires, set, by: by.to_owned(), keepers })
    }

    /// Whether somebody began it or is one of its custodians.
    pub(super) fn concerns(&self, name: &str) -> bool {
        self.by == name || self.keepers.iter().any(|keeping| keeping.name == name)
    }

    /// Gives a custodian the share, sealed to a key of the custodian's: once.
    pub(super) fn take(
        &mut self,
        giver: &Giver,
        key: &[u8],
        signature: &[u8; 64],
        (rng, now): (&dyn Rng, UnixMillis),
    ) -> Result<Vec<u8>, Error> {
        let Self { id, keepers, expires, .. } = self;
        let keeping = keeping(keepers, giver)?;
        let context = Context { kem: KEM, id, purpose: Purpose::Take, holder: &giver.key };
        let is_theirs = context.verify(key, signature);
        is_theirs.map_err(|_| not_taken("the key is not signed by the certificate's"))?;
        if keeping.taken {
            return Err(not_taken("it was taken before"));
        }
        // For the one custodian whose share it is.
        let share = keeping.share.to_material();
        let sealed = context.seal(key, share.expose_bytes(), rng).map_err(|error| match error {
            SealError::PublicKeyInvalid => Error::field("public_key", "is no key of P-521"),
            SealError::Length(_) | SealError::Rng(_) => {
                vault::Error::incident("no share was sealed", "seal").into()
            }
        })?;
        keeping.taken = true;
        *expires = now.plus_ms(PATIENCE_MS);
        Ok(sealed)
    }

    /// Compares what a custodian wrote down; tells whether all have done so.
    pub(super) fn confirm(
        &mut self,
        giver: &Giver,
        sent: &Sent,
        now: UnixMillis,
    ) -> Result<bool, Error> {
        let Self { id, key, keepers, expires, .. } = self;
        let keeping = keeping(keepers, giver)?;
        let context = Context { kem: KEM, id, purpose: Purpose::Confirm, holder: &giver.key };
        let read_back = sent.open(&context, key)?;
        if !keeping.taken {
            return Err(not_taken("it was not taken yet"));
        }
        if !keeping.share.is_same(&read_back) {
            return Err(not_taken("it is not what was taken"));
        }
        keeping.confirmed = true;
        *expires = now.plus_ms(PATIENCE_MS);
        Ok(keepers.iter().all(|keeping| keeping.confirmed))
    }

    /// How the master key is kept.
    pub(super) const fn seal(&self) -> Seal {
        let ShareSet { id: set_id, threshold, shares } = self.set;
        Seal::Shamir { set_id, threshold, shares }
    }

    /// The master key, out of as many of the shares as are enough; each of them was read back.
    pub(super) fn combine(&self) -> Result<MasterKey, Error> {
        let enough = usize::from(self.set.threshold);
        let shares = self.keepers.iter().map(|keeping| &keeping.share);
        let master = Share::combine(&shares.take(enough).collect::<Vec<_>>());
        let failed = |_| vault::Error::incident("shares did not combine", "seal").into();
        master.map(MasterKey::new).map_err(failed)
    }
}

fn keeping<'a>(keepers: &'a mut [Keeping], giver: &Giver) -> Result<&'a mut Keeping, Error> {
    let found = keepers.iter_mut().find(|keeping| keeping.name == giver.name);
    found.ok_or_else(|| Error::refused(Reason::PolicyDenied))
}
