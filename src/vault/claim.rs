//! Claims on transaction counters: taken in memory first, settled in the commit.

use std::sync::Arc;

use super::cache::UnderWay;
use super::core::Core;
use super::error::Error;
use super::ledger::{Ask, InputHash, Ledger, Purpose, Standing};
use super::reason::Reason;
use super::record::Versioned;
use super::seal::HashPurpose;

/// A transaction counter that a call wants to use.
#[derive(Debug, Clone, Copy)]
pub struct ClaimRequest<'a> {
    /// The name of the base derivation key.
    pub key_name: &'a str,
    /// Its version.
    pub key_version: u32,
    /// The initial key id, as the KSN has it without its counter.
    pub initial_key_id: &'a [u8],
    /// What the counter is to be used for.
    pub purpose: Purpose,
    /// The rank of the counter among the valid ones.
    pub rank: u64,
    /// Everything that the result depends on: two calls with the same are the same call.
    pub input: &'a [u8],
    /// For a terminal that is not registered here: the counter may be any until one proves where it
    /// is.
    pub first_anywhere: bool,
}

/// How a claimed counter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is ours until the unit of work ends.
    Fresh,
    /// The identical input spent it less than five minutes ago: compute again.
    Repeat,
    /// Spent by another input; only for [`Purpose::MacRequest`]. Verify all the same: if it does,
    /// the commit refuses with `KSN_REPLAYED` and raises the clone alarm.
    Spent,
}

/// Claims under way on one ledger.
#[derive(Default)]
pub(super) struct Claims(Vec<Holding>);

struct Holding {
    purpose: Purpose,
    rank: u64,
    input: InputHash,
    holders: usize,
}

impl UnderWay for Claims {
    fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }
}

impl Claims {
    /// Takes a counter, unless another input holds it. Identical inputs share it: they compute
    /// the same, and the second to commit finds itself to be the repetition of the first.
    fn hold(&mut self, purpose: Purpose, rank: u64, input: InputHash) -> bool {
        let held = self.0.iter_mut().filter(|held| held.purpose == purpose && held.rank == rank);
        for held in held {
            if held.input == input {
                held.holders += 1;
                return true;
            }
            // Which of several messages under one counter is genuine shows when it verifies.
            if purpose.always_spends() {
                return false;
            }
        }
        self.0.push(Holding { purpose, rank, input, holders: 1 });
        true
    }

    fn let_go(&mut self, ticket: &Ticket) {
        self.0.retain_mut(|held| {
            let ours = held.purpose == ticket.purpose
                && held.rank == ticket.rank
                && held.input == ticket.input;
            if ours {
                held.holders -= 1;
            }
            held.holders > 0
        });
    }
}

/// A claim held by a unit of work; it is let go when the ticket is dropped.
pub(super) struct Ticket {
    core: Arc<Core>,
    pub(super) ledger: String,
    pub(super) purpose: Purpose,
    pub(super) rank: u64,
    pub(super) claim: Claim,
    pub(super) verdict: Option<Verdict>,
    input: InputHash,
    first_anywhere: bool,
}

/// What became of the input that a counter was claimed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was right: the counter is spent and the window moves.
    Accepted,
    /// It was wrong. The counter is spent if its purpose always spends, and the window stays.
    Rejected,
}

/// What settling a claim does to its ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settlement {
    /// Another input was first.
    Lost {
        /// Two different messages verified under one counter.
        clone_alarm: bool,
    },
    /// The ledger stays as it is: a repetition.
    Repeated,
    /// The ledger has changed.
    Spent,
    /// The ledger stays as it is: a wrong message that spends nothing.
    Unspent,
}

impl Ticket {
    /// Settles the claim against the ledger as it is now.
    pub(super) fn settle(&self, ledger: &mut Ledger, verdict: Verdict) -> Settlement {
        let accepted = verdict == Verdict::Accepted;
        if !accepted && !self.purpose.always_spends() {
            return Settlement::Unspent;
        }
        let ask = Ask {
            purpose: self.purpose,
            rank: self.rank,
            input: &self.input,
            now: self.core.now(),
            first_anywhere: self.first_anywhere,
        };
        match ledger.look(ask) {
            Standing::Fresh => {
                ledger.spend(ask, accepted);
                Settlement::Spent
            }
            Standing::Repeat => Settlement::Repeated,
            Standing::Spent { other_input } => {
                Settlement::Lost { clone_alarm: other_input && self.purpose == Purpose::MacRequest }
            }
            Standing::TooFar | Standing::TooOld => Settlement::Lost { clone_alarm: false },
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.core.ledgers.release(&self.ledger, |claims| claims.let_go(self));
    }
}

/// Claims a counter in memory.
pub(super) async fn claim(core: &Arc<Core>, request: ClaimRequest<'_>) -> Result<Ticket, Error> {
    let id = ledger_id(&request);
    let input = input_hash(core, &id, &request);
    load(core, &id).await?;
    let ask = Ask {
        purpose: request.purpose,
        rank: request.rank,
        input: &input,
        now: core.now(),
        first_anywhere: request.first_anywhere,
    };
    let claim = core
        .ledgers
        .with_seen(&id, |ledger, claims| admit(&ledger.record, claims, ask))
        // Between loading and looking a commit failed: the caller may come again.
        .ok_or(Error::Conflict)??;
    Ok(Ticket {
        core: Arc::clone(core),
        ledger: id,
        purpose: request.purpose,
        rank: request.rank,
        claim,
        verdict: None,
        input,
        first_anywhere: request.first_anywhere,
    })
}

/// Brings a ledger to hand.
pub(super) async fn load(core: &Core, id: &str) -> Result<(), Error> {
    if core.ledgers.with_seen(id, |_, _| ()).is_none() {
        let read = core.read::<Ledger>(id).await?;
        let ledger = read.unwrap_or_else(|| Versioned::absent(Ledger::new(id.to_owned())));
        core.ledgers.keep_read(ledger);
    }
    Ok(())
}

fn admit(ledger: &Ledger, claims: &mut Claims, ask: Ask<'_>) -> Result<Claim, Error> {
    let claim = match ledger.look(ask) {
        Standing::Fresh => Claim::Fresh,
        Standing::Repeat => Claim::Repeat,
        Standing::Spent { .. } if !ask.purpose.always_spends() => Claim::Spent,
        Standing::Spent { .. } | Standing::TooFar | Standing::TooOld => {
            return Err(Error::Refused(Reason::KsnReplayed));
        }
    };
    if claims.hold(ask.purpose, ask.rank, *ask.input) {
        Ok(claim)
    } else {
        Err(Error::Refused(Reason::KsnReplayed))
    }
}

fn ledger_id(request: &ClaimRequest<'_>) -> String {
    let initial_key_id = data_encoding::HEXUPPER.encode(request.initial_key_id);
    format!("{}/{}/{initial_key_id}", request.key_name, request.key_version)
}

fn input_hash(core: &Core, ledger: &str, request: &ClaimRequest<'_>) -> InputHash {
    let hash = core.sealer.keyed_hash(
        HashPurpose::LedgerInput,
        &[
            ledger.as_bytes(),
            request.purpose.as_str().as_bytes(),
            &request.rank.to_be_bytes(),
            request.input,
        ],
    );
    *hash.first_chunk().expect("16 of 32 bytes")
}
