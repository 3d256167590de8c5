//! A new master key on its way to its custodians: each takes a share once and reads it back. The
//! key itself is not kept meanwhile: it comes out of the shares when all of them were read back.

use data_encoding::{HEXLOWER, HEXUPPER};
use zeroize::Zeroizing;

use super::giver::{Asked, Giver, Sent, not_taken};
use super::{ID_LEN_BYTES, KEM, PATIENCE_MS, ShareSet};
use crate::command::Error;
use crate::command::ceremony::conduct::id_of;
use crate::command::ceremony::plan::Planned;
use crate::command::ceremony::record::Ceremony;
use crate::command::envelope::{Context, Purpose};
use crate::component::Share;
use crate::crypto::hpke::{RecipientKey, SealError};
use crate::crypto::rng::Rng;
use crate::memory::with_wiped_stack;
use crate::vault::{self, MasterKey, Reason, Seal, UnixMillis, Versioned};

/// A distribution under way. Its key and its shares are wiped with it.
pub(super) struct Distribution {
    pub(super) id: [u8; ID_LEN_BYTES],
    pub(super) key: RecipientKey,
    pub(super) expires: UnixMillis,
    pub(super) set: ShareSet,
    /// The officer who began it.
    pub(super) by: String,
    pub(super) keepers: Vec<Keeping>,
    /// The ceremony that it belongs to. While the vault is open it stands in the store, and this is
    /// how it was read there last.
    pub(super) ceremony: Option<Versioned<Ceremony>>,
    patience_ms: u64,
}

/// What a custodian has read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadBack {
    /// The share; it was the last one.
    All,
    /// The share.
    Right,
    /// Not what was taken.
    Wrong,
}

/// One custodian, and the share.
pub(super) struct Keeping {
    pub(super) name: String,
    /// What the share left in, and to which key.
    given: Option<Given>,
    pub(super) confirmed: bool,
    share: Share,
}

/// A share that was given out: only whoever has the key's private part opens it.
struct Given {
    key: Vec<u8>,
    sealed: Vec<u8>,
}

impl Keeping {
    /// Whether the share was given out.
    pub(super) const fn is_taken(&self) -> bool {
        self.given.is_some()
    }
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
        let keep = |(name, share)| Keeping { name, given: None, confirmed: false, share };
        let keepers = names.into_iter().zip(shares).map(keep).collect();
        let (expires, patience_ms) = (now.plus_ms(PATIENCE_MS), PATIENCE_MS);
        let by = by.to_owned();
        Ok(Self { id, key, expires, set, by, keepers, ceremony: None, patience_ms })
    }

    /// Draws a master key as a ceremony plans it, of which nothing is stored yet.
    pub(super) fn begin_planned(
        by: &str,
        (planned, threshold): (&Planned, u8),
        rng: &dyn Rng,
        now: UnixMillis,
    ) -> Result<Self, Error> {
        let plan = planned.plan();
        let mut begun = Self::begin(by, plan.custodians.clone(), threshold, rng, now)?;
        begun.patience_ms = u64::from(plan.idle_minutes) * 60_000;
        begun.expires = now.plus_ms(begun.patience_ms);
        let values = [
            ("by", by.to_owned()),
            ("distribution", HEXLOWER.encode(&begun.id)),
            ("envelope_key", HEXLOWER.encode(begun.key.public())),
            ("set_id", HEXUPPER.encode(&begun.set.id)),
        ];
        let id = id_of(rng, now)?;
        let ceremony = Ceremony::begin_of_shares(id, planned, &values, now);
        begun.ceremony = Some(Versioned::absent(ceremony));
        Ok(begun)
    }

    /// The URI names of its custodians.
    pub(super) fn names(&self) -> Vec<String> {
        self.keepers.iter().map(|keeping| keeping.name.clone()).collect()
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
        let Self { id, keepers, expires, patience_ms, .. } = self;
        let keeping = keeping(keepers, giver)?;
        let context = Context { kem: KEM, id, purpose: Purpose::Take, holder: &giver.key };
        let is_theirs = context.verify(key, signature);
        is_theirs.map_err(|_| not_taken("the key is not signed by the certificate's"))?;
        if keeping.is_taken() {
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
        keeping.given = Some(Given { key: key.to_vec(), sealed: sealed.clone() });
        *expires = now.plus_ms(*patience_ms);
        Ok(sealed)
    }

    /// What a custodian was given already, who asks again with the same key because the answer was
    /// lost, and has not read the share back; else none.
    pub(super) fn given(&mut self, giver: &Giver, asked: &Asked) -> Option<Vec<u8>> {
        let Self { id, keepers, .. } = self;
        let keeping = keeping(keepers, giver).ok().filter(|keeping| !keeping.confirmed)?;
        let context = Context { kem: KEM, id, purpose: Purpose::Take, holder: &giver.key };
        context.verify(&asked.key, &asked.signature).ok()?;
        let before = keeping.given.as_ref().filter(|before| before.key == asked.key)?;
        Some(before.sealed.clone())
    }

    /// A share did not leave after all.
    pub(super) fn take_back(&mut self, giver: &Giver) {
        if let Ok(keeping) = keeping(&mut self.keepers, giver) {
            keeping.given = None;
        }
    }

    /// Compares what a custodian wrote down.
    pub(super) fn confirm(
        &mut self,
        giver: &Giver,
        sent: &Sent,
        now: UnixMillis,
    ) -> Result<ReadBack, Error> {
        let Self { id, key, keepers, expires, patience_ms, .. } = self;
        let keeping = keeping(keepers, giver)?;
        let context = Context { kem: KEM, id, purpose: Purpose::Confirm, holder: &giver.key };
        let read_back = sent.open(&context, key)?;
        if !keeping.is_taken() {
            return Err(not_taken("it was not taken yet"));
        }
        if !keeping.share.is_same(&read_back) {
            return Ok(ReadBack::Wrong);
        }
        keeping.confirmed = true;
        *expires = now.plus_ms(*patience_ms);
        let all = keepers.iter().all(|keeping| keeping.confirmed);
        Ok(if all { ReadBack::All } else { ReadBack::Right })
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
