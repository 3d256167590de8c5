//! Approvals: what one officer asked for and others have to agree to, each a sealed record.
//!
//! An approval belongs to one request of one caller: to the canonical bytes of it, so that what is
//! changed in any octet is another request. It is open until it is executed, rejected, or over in
//! time; none of these has a way back. Whether its votes are enough is never kept. It is judged
//! whenever it is asked, by the policy that is in force then: see [`Quorum`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::asked_by::room_for;
use super::budget::hour_bucket;
use super::caller::{Caller, Role};
use super::clock::UnixMillis;
use super::error::Error;
use super::idempotency;
use super::install::stored_policy;
use super::policy::{Passage, Policy, Principal};
use super::reason::Reason;
use super::record::{Kind, Record, Versioned};
use super::seal::{HashPurpose, Realm};
use super::vault::Vault;
use super::work::Work;

/// The longest that an approval may wait, whatever the policy says: 24 hours.
pub(super) const WAIT_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// How long an approval is kept after its time: 90 days.
const KEPT_MS: u64 = 90 * 24 * 60 * 60 * 1_000;

/// What was asked, and who agreed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The id in `approvals/{id}`: the later it was asked, the earlier in the order of ids.
    pub id: String,
    /// The rpc.
    pub method: String,
    /// The resource that the call is about.
    pub resource: String,
    /// What is approved: see [`Asked::digest`].
    pub digest: [u8; 32],
    /// Who asked, by name.
    pub requester: String,
    /// The person who asked.
    pub requester_person: String,
    /// How many persons the policy wanted when it was asked.
    pub votes_wanted: u32,
    /// Those who approved, in their order; which of them count is judged when it is asked.
    pub votes: Vec<Vote>,
    /// When it was asked.
    pub created: UnixMillis,
    /// When it ends unless it is executed.
    pub expires: UnixMillis,
    /// How it ended, if it did.
    pub ending: Option<Ending>,
}

/// One officer's approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    /// The person.
    pub person: String,
    /// The caller's name.
    pub caller: String,
    /// When.
    pub time: UnixMillis,
}

/// How an approval ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ending {
    /// The call was done.
    Executed {
        /// When.
        time: UnixMillis,
        /// The persons whose votes counted.
        approvers: BTreeSet<String>,
    },
    /// Somebody rejected it.
    Rejected {
        /// Who, by name.
        by: String,
        /// The stated cause.
        cause: String,
    },
}

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalState {
    /// There are votes enough, and the requester is an officer still: it may repeat the call.
    Approved,
    /// The call was done.
    Executed,
    /// Its time is over.
    Expired,
    /// Votes are missing, or the requester is no officer any more.
    Pending,
    /// Somebody rejected it.
    Rejected,
}

impl ApprovalState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Approved, Self::Executed, Self::Expired, Self::Pending, Self::Rejected];

    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "APPROVED",
            Self::Executed => "EXECUTED",
            Self::Expired => "EXPIRED",
            Self::Pending => "PENDING",
            Self::Rejected => "REJECTED",
        }
    }

    /// Whether nothing happens to it any more.
    #[must_use]
    pub const fn is_closed(self) -> bool {
        match self {
            Self::Approved | Self::Pending => false,
            Self::Executed | Self::Expired | Self::Rejected => true,
        }
    }
}

/// A request that is to be approved.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The serialized request.
    pub request: &'a [u8],
    /// SHA-256 of the rpc's name, a zero octet and the serialized request.
    pub digest: &'a [u8; 32],
}

/// Why a vote or a rejection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The approval is closed.
    #[error("the approval is closed")]
    Closed,
    /// The officer looked at something else.
    #[error("the digest is not that of this request")]
    DigestDiffers,
    /// The policy in force does not know the caller as an officer.
    #[error("the caller is no officer")]
    NotAnOfficer,
    /// The requester does not approve.
    #[error("the person asked for it")]
    OwnRequest,
    /// The person has approved already, under whichever certificate.
    #[error("the person has approved already")]
    VotedAlready,
}

/// What approvals are judged by: the policy in force, at one moment.
#[derive(Debug, Clone)]
pub struct Quorum {
    policy: Versioned<Policy>,
    realm: Realm,
    pub(super) now: UnixMillis,
}

impl Quorum {
    /// How many distinct persons have to approve. Outside development it is one at least, whatever
    /// the policy's record says.
    #[must_use]
    pub fn votes_required(&self) -> u32 {
        let wanted = self.policy.record.votes_required;
        match self.realm {
            Realm::Dev => wanted,
            Realm::Live => wanted.max(1),
        }
    }

    /// Whether nobody has to approve: only in development, for its one caller, or by its policy.
    #[must_use]
    pub fn is_waived_for(&self, caller: &Caller) -> bool {
        match self.realm {
            Realm::Dev => caller.is_for_dev_only() || self.votes_required() == 0,
            Realm::Live => false,
        }
    }

    /// The rate of the grant that approves an officer's export of an initial key beforehand: see
    /// [`Policy::approved_before`].
    #[must_use]
    pub fn approved_before(&self, caller: &Caller, passage: Passage<'_>) -> Option<u32> {
        self.policy.record.approved_before(caller.name(), passage, self.now)
    }

    /// The person behind an officer's name; none for whoever is no officer now.
    fn officer(&self, name: &str) -> Option<&str> {
        let principal = self.policy.record.principal(name);
        principal.filter(|known| known.role == Role::Officer).map(person_of)
    }
}

/// A machine is a person of its own.
fn person_of(principal: &Principal) -> &str {
    if principal.person.is_empty() { &principal.name } else { &principal.person }
}

impl Approval {
    /// Where it stands, judged now.
    #[must_use]
    pub fn state(&self, quorum: &Quorum) -> ApprovalState {
        match &self.ending {
            Some(Ending::Executed { .. }) => ApprovalState::Executed,
            Some(Ending::Rejected { .. }) => ApprovalState::Rejected,
            None if quorum.now >= self.expires => ApprovalState::Expired,
            None => {
                let votes = u32::try_from(self.approvers(quorum).len()).unwrap_or(u32::MAX);
                let enough = votes >= self.votes_required(quorum);
                // Votes are for what this person asked, who has to be the one that does it.
                let asks = quorum.officer(&self.requester) == Some(&self.requester_person);
                if enough && asks { ApprovalState::Approved } else { ApprovalState::Pending }
            }
        }
    }

    /// How many persons have to approve: as many as the policy wants, and as it wanted when the
    /// call was asked for. A policy that wants fewer approves nothing that waits.
    #[must_use]
    pub fn votes_required(&self, quorum: &Quorum) -> u32 {
        quorum.votes_required().max(self.votes_wanted)
    }

    /// Whether the answer of the call that was done is still kept. Who asks for the same and finds
    /// it done came at the same time, and has only to look for the answer again.
    #[must_use]
    pub fn is_answered(&self, quorum: &Quorum) -> bool {
        match &self.ending {
            Some(Ending::Executed { time, .. }) => quorum.now < time.plus_ms(idempotency::KEPT_MS),
            Some(Ending::Rejected { .. }) | None => false,
        }
    }

    /// The persons whose votes count now: each by a caller that is still an officer and still
    /// theirs, none of them the requester's person, neither then nor now. Of what was executed,
    /// those whose votes counted then.
    #[must_use]
    pub fn approvers<'a>(&'a self, quorum: &Quorum) -> BTreeSet<&'a str> {
        let counting = self.votes.iter().filter(|vote| self.counts(vote, quorum));
        counting.map(|vote| vote.person.as_str()).collect()
    }

    /// Which of the votes are those of [`Self::approvers`]: of a person's several the first.
    #[must_use]
    pub fn counting(&self, quorum: &Quorum) -> Vec<bool> {
        let mut persons = BTreeSet::new();
        let votes = self.votes.iter();
        votes.map(|vote| self.counts(vote, quorum) && persons.insert(&vote.person)).collect()
    }

    fn counts(&self, vote: &Vote, quorum: &Quorum) -> bool {
        if let Some(Ending::Executed { approvers, .. }) = &self.ending {
            return approvers.contains(&vote.person);
        }
        let is_theirs = quorum.officer(&vote.caller) == Some(&vote.person);
        is_theirs && !self.is_requester(&vote.person, quorum)
    }

    fn is_requester(&self, person: &str, quorum: &Quorum) -> bool {
        let now = quorum.policy.record.principal(&self.requester).map(person_of);
        person == self.requester_person || now == Some(person)
    }

    /// Takes an officer's approval of the bytes that have this digest.
    pub fn vote(
        &mut self,
        caller: &Caller,
        digest: &[u8; 32],
        quorum: &Quorum,
    ) -> Result<(), NotTaken> {
        if self.state(quorum).is_closed() {
            return Err(NotTaken::Closed);
        }
        if *digest != self.digest {
            return Err(NotTaken::DigestDiffers);
        }
        if caller.name() == self.requester || self.is_requester(caller.person(), quorum) {
            return Err(NotTaken::OwnRequest);
        }
        if quorum.officer(caller.name()) != Some(caller.person()) {
            return Err(NotTaken::NotAnOfficer);
        }
        if self.approvers(quorum).contains(caller.person()) {
            return Err(NotTaken::VotedAlready);
        }
        let (person, caller) = (caller.person().to_owned(), caller.name().to_owned());
        self.votes.push(Vote { person, caller, time: quorum.now });
        Ok(())
    }

    /// Ends it without effect.
    pub fn reject(
        &mut self,
        caller: &Caller,
        cause: String,
        quorum: &Quorum,
    ) -> Result<(), NotTaken> {
        if self.state(quorum).is_closed() {
            return Err(NotTaken::Closed);
        }
        self.ending = Some(Ending::Rejected { by: caller.name().to_owned(), cause });
        Ok(())
    }

    fn purge_bucket(&self) -> String {
        hour_bucket(self.expires.plus_ms(KEPT_MS))
    }
}

impl Record for Approval {
    const KIND: Kind = Kind::new("approval");

    fn id(&self) -> String {
        self.id.clone()
    }

    /// The hour after which it may go.
    fn index(&self) -> Option<String> {
        Some(self.purge_bucket())
    }
}

/// A request and the approval that it has: one, however often it is asked at once. The request may
/// be long, so it is not in the approval, of which many are listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApprovalOf {
    id: String,
    approval: String,
    #[serde(with = "base64")]
    request: Vec<u8>,
    purged: String,
}

impl Record for ApprovalOf {
    const KIND: Kind = Kind::new("approval_of");

    fn id(&self) -> String {
        self.id.clone()
    }

    /// The hour after which it may go, with its approval.
    fn index(&self) -> Option<String> {
        Some(self.purged.clone())
    }
}

impl Vault {
    /// What approvals are judged by now: the policy as the store has it, not as it was last seen,
    /// and never one that is older than that.
    pub async fn quorum(&self) -> Result<Quorum, Error> {
        let stored = stored_policy(&self.shared.core).await?;
        let policy = stored.unwrap_or_else(|| Versioned::absent(Policy::none()));
        Ok(Quorum { policy, realm: self.realm(), now: self.now() })
    }

    /// Finds the approval that a request of a caller has.
    pub async fn approval_of(
        &self,
        caller: &Caller,
        asked: Asked<'_>,
    ) -> Result<Option<Versioned<Approval>>, Error> {
        let id = self.request_id_of(caller.name(), asked.digest);
        let Some(bound) = self.get::<ApprovalOf>(&id).await? else { return Ok(None) };
        let found = self.get::<Approval>(&bound.record.approval).await?;
        let Some(found) = found else {
            return Err(Error::incident("a request has an approval that is not there", &id));
        };
        let bound = &found.record;
        if bound.requester != caller.name() || bound.digest != *asked.digest {
            return Err(Error::incident("a request has the approval of another", &id));
        }
        Ok(Some(found))
    }

    /// Reads what an approval is about: the serialized request, as it was understood.
    pub async fn request_of(&self, approval: &Approval) -> Result<Vec<u8>, Error> {
        let id = self.request_id_of(&approval.requester, &approval.digest);
        match self.get::<ApprovalOf>(&id).await? {
            Some(found) if found.record.approval == approval.id => Ok(found.record.request),
            Some(_) | None => Err(Error::incident("an approval has no request", &approval.id)),
        }
    }

    /// The id of a request: who asks, and for what.
    fn request_id_of(&self, requester: &str, digest: &[u8; 32]) -> String {
        let parts = [requester.as_bytes(), digest.as_slice()];
        data_encoding::HEXLOWER.encode(&self.keyed_hash(HashPurpose::Approval, &parts))
    }
}

impl Work {
    /// Makes the commit depend on the policy that judged: one that is put in force meanwhile judges
    /// anew.
    pub fn judged_by(&mut self, quorum: &Quorum) {
        self.expects(&quorum.policy);
    }

    /// Puts an open approval for this call, as its first one; `RATE_LIMITED` if its caller has too
    /// many others. Nothing else is left of the call but what it has for the audit event.
    pub async fn open_approval(
        &mut self,
        vault: &Vault,
        asked: Asked<'_>,
        quorum: &Quorum,
    ) -> Result<Approval, Error> {
        let mut asked_by = room_for(vault, self.caller(), quorum).await?;
        let mut random = [0; 8];
        vault
            .rng()
            .fill(&mut random)
            .map_err(|_| Error::incident("the random number generator failed", "approvals"))?;
        self.let_go();
        let wait_ms = u64::from(quorum.policy.record.approval_seconds).saturating_mul(1_000);
        let caller = self.caller();
        let approval = Approval {
            id: id_of(quorum.now, random),
            method: self.action().as_str().to_owned(),
            resource: self.resource().to_owned(),
            digest: *asked.digest,
            requester: caller.name().to_owned(),
            requester_person: caller.person().to_owned(),
            votes_wanted: quorum.votes_required(),
            votes: Vec::new(),
            created: quorum.now,
            expires: quorum.now.plus_ms(wait_ms.min(WAIT_MS_MAX)),
            ending: None,
        };
        let bound = ApprovalOf {
            id: vault.request_id_of(caller.name(), asked.digest),
            approval: approval.id.clone(),
            request: asked.request.to_vec(),
            purged: approval.purge_bucket(),
        };
        asked_by.record.add(&approval);
        self.put(&asked_by)?;
        self.put(&Versioned::absent(bound))?;
        self.put(&Versioned::absent(approval.clone()))?;
        self.judged_by(quorum);
        Ok(approval)
    }

    /// Consumes an approval in the commit of this call, and notes in the audit event who gave it;
    /// `APPROVAL_REQUIRED` if its votes are not enough now.
    pub fn execute_approved(
        &mut self,
        mut approval: Versioned<Approval>,
        quorum: &Quorum,
    ) -> Result<(), Error> {
        if approval.record.state(quorum) != ApprovalState::Approved {
            return Err(Error::Refused(Reason::ApprovalRequired));
        }
        let approvers = approval.record.approvers(quorum).into_iter();
        let approvers: BTreeSet<String> = approvers.map(str::to_owned).collect();
        self.approved_by(approvers.iter().cloned().collect());
        approval.record.ending = Some(Ending::Executed { time: quorum.now, approvers });
        self.put(&approval)?;
        self.judged_by(quorum);
        Ok(())
    }
}

/// An id before those of earlier moments: 48 bits of the time, turned round, and randomness.
fn id_of(now: UnixMillis, random: [u8; 8]) -> String {
    let left = LAST_MS.saturating_sub(now.0);
    format!("a{left:012x}-{}", data_encoding::HEXLOWER.encode(&random))
}

/// The last millisecond that 48 bits can name, in the year 10889.
const LAST_MS: u64 = 0xFFFF_FFFF_FFFF;

/// Bytes as base64 (RFC 4648, 4): a request may be long.
mod base64 {
    use data_encoding::BASE64;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        BASE64.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::caller::Action;
    use super::super::policy::Grant;
    use super::*;
    use crate::vault::housekeeping::{Purged, purge_expired};
    use crate::vault::idempotency::RequestId;
    use crate::vault::testing::{Bench, Fault, caller};

    /// Names of officers, each with the person behind it: two have two certificates.
    const OFFICERS: [(&str, &str); 5] =
        [("req", "rita"), ("req-2", "rita"), ("a", "ann"), ("a-2", "ann"), ("b", "bob")];

    fn principal(place: usize, role: Role) -> Principal {
        let (name, person) = OFFICERS[place];
        Principal {
            name: name.to_owned(),
            person: person.to_owned(),
            role,
            profiles: Vec::new(),
            calls_per_minute_max: 0,
        }
    }

    fn approval() -> Approval {
        Approval {
            id: "a0".into(),
            method: "ExportKey".into(),
            resource: "keys/x".into(),
            digest: [1; 32],
            requester: "req".into(),
            requester_person: "rita".into(),
            votes_wanted: 0,
            votes: Vec::new(),
            created: UnixMillis(0),
            expires: UnixMillis(10),
            ending: None,
        }
    }

    fn quorum(realm: Realm, votes_required: u32, principals: Vec<Principal>) -> Quorum {
        with_policy(realm, Policy { votes_required, principals, ..Policy::none() })
    }

    fn with_policy(realm: Realm, policy: Policy) -> Quorum {
        Quorum { policy: Versioned::absent(policy), realm, now: UnixMillis(1) }
    }

    fn officers() -> Vec<Principal> {
        (0..OFFICERS.len()).map(|place| principal(place, Role::Officer)).collect()
    }

    fn officer(place: usize) -> Caller {
        let (name, person) = OFFICERS[place];
        Caller::new(name, person, Role::Officer, "")
    }

    /// The world around one approval: what an adversary may do with it, in any order.
    #[derive(Clone, PartialEq, Eq, Hash, Debug)]
    struct World {
        /// Who is an officer now.
        officers: [bool; 5],
        /// Who has pressed the button while an officer, whatever came of it.
        pressed: [bool; 5],
        required: u32,
        late: bool,
        rejected: bool,
        executed: bool,
    }

    impl World {
        fn quorum(&self) -> Quorum {
            let role = |is_officer| if is_officer { Role::Officer } else { Role::Auditor };
            let principals =
                (0..5).map(|place| principal(place, role(self.officers[place]))).collect();
            let mut quorum = quorum(Realm::Live, self.required, principals);
            quorum.now = UnixMillis(if self.late { 10 } else { 1 });
            quorum
        }

        /// The rule in its shortest form: places 2 and 3 are one person, 4 another, and the rest
        /// asked.
        fn may_execute(&self) -> bool {
            let stands = |place: usize| self.pressed[place] && self.officers[place];
            let persons = u32::from(stands(2) || stands(3)) + u32::from(stands(4));
            let asks = self.officers[0];
            asks && persons >= self.required.max(1)
                && !self.late
                && !self.rejected
                && !self.executed
        }

        fn is_open(&self) -> bool {
            !self.late && !self.rejected && !self.executed
        }
    }

    /// Does step `number` in the world and to the approval; none when there is no such step.
    fn step(number: usize, world: &mut World, approval: &mut Approval) -> Option<()> {
        match number {
            0..5 => {
                let voted = approval.vote(&officer(number), &[1; 32], &world.quorum());
                if voted.is_ok() {
                    assert!(number > 1, "the requester's person has no vote");
                    assert!(world.is_open() && world.officers[number], "{world:?}");
                }
                // Where one person's other vote stands, this one adds nothing and is not taken.
                world.pressed[number] |= voted.is_ok();
            }
            5..10 => world.officers[number - 5] = !world.officers[number - 5],
            10..13 => world.required = u32::try_from(number - 10).unwrap(),
            13 => world.late = true,
            14 => {
                let ended = approval.reject(&officer(4), "no".into(), &world.quorum());
                assert_eq!(ended.is_ok(), world.is_open());
                world.rejected |= ended.is_ok();
            }
            15 => {
                let may = approval.state(&world.quorum()) == ApprovalState::Approved;
                assert_eq!(may, world.may_execute(), "{world:?}\n{approval:?}");
                if may {
                    let approvers = BTreeSet::new();
                    approval.ending = Some(Ending::Executed { time: UnixMillis(1), approvers });
                    world.executed = true;
                }
            }
            _ => return None,
        }
        Some(())
    }

    #[test]
    fn every_order_of_votes_changes_of_the_policy_and_time_agrees_with_the_rule() {
        let begin = World {
            officers: [true; 5],
            pressed: [false; 5],
            required: 2,
            late: false,
            rejected: false,
            executed: false,
        };
        let mut seen = HashSet::from([begin.clone()]);
        let mut edge = vec![(begin, approval())];
        let mut executed = 0;
        while let Some((world, approval)) = edge.pop() {
            for number in 0.. {
                let (mut world, mut approval) = (world.clone(), approval.clone());
                if step(number, &mut world, &mut approval).is_none() {
                    break;
                }
                if seen.insert(world.clone()) {
                    executed += usize::from(world.executed);
                    // Judged in every world that can be reached, not only where it is asked.
                    let approved = approval.state(&world.quorum()) == ApprovalState::Approved;
                    assert_eq!(approved, world.may_execute(), "{world:?}\n{approval:?}");
                    edge.push((world, approval));
                }
            }
        }
        assert!(seen.len() > 2_000 && executed > 100, "{} {executed}", seen.len());
    }

    #[test]
    fn a_vote_says_why_it_is_not_taken() {
        let mut approval = approval();
        let quorum = quorum(Realm::Live, 2, officers());
        let mut vote = |place, digest| approval.vote(&officer(place), &[digest; 32], &quorum);
        assert_eq!(vote(2, 2), Err(NotTaken::DigestDiffers));
        assert_eq!(vote(0, 1), Err(NotTaken::OwnRequest));
        assert_eq!(vote(1, 1), Err(NotTaken::OwnRequest));
        assert_eq!(vote(2, 1), Ok(()));
        assert_eq!(vote(2, 1), Err(NotTaken::VotedAlready));
        assert_eq!(vote(3, 1), Err(NotTaken::VotedAlready));
        let stranger = Caller::new("c", "cid", Role::Officer, "");
        assert_eq!(approval.vote(&stranger, &[1; 32], &quorum), Err(NotTaken::NotAnOfficer));
        assert_eq!(approval.reject(&officer(0), "mine".into(), &quorum), Ok(()));
        let late = approval.vote(&officer(4), &[1; 32], &quorum);
        assert_eq!(late, Err(NotTaken::Closed));
    }

    #[test]
    fn a_certificate_that_goes_to_another_person_takes_no_vote_along() {
        let mut approval = approval();
        let before = quorum(Realm::Live, 1, officers());
        approval.vote(&officer(4), &[1; 32], &before).unwrap();
        assert_eq!(approval.state(&before), ApprovalState::Approved);
        for (place, person) in [(4, "eve"), (0, "bob"), (0, "eve")] {
            // Bob's name is Eve's now, or the name that asked is Bob's or Eve's.
            let mut principals = officers();
            principals[place].person = person.to_owned();
            let after = quorum(Realm::Live, 1, principals);
            assert_eq!(approval.state(&after), ApprovalState::Pending, "{person}");
        }
    }

    #[test]
    fn who_asked_and_is_no_officer_any_more_executes_nothing() {
        let mut approval = approval();
        let before = quorum(Realm::Live, 1, officers());
        approval.vote(&officer(4), &[1; 32], &before).unwrap();
        assert_eq!(approval.state(&before), ApprovalState::Approved);
        let mut without = officers();
        without.remove(0);
        let mut as_auditor = officers();
        as_auditor[0].role = Role::Auditor;
        for principals in [without, as_auditor] {
            let after = quorum(Realm::Live, 1, principals);
            assert_eq!(approval.state(&after), ApprovalState::Pending);
        }
    }

    #[test]
    fn a_grant_has_its_rate_and_of_several_the_most_generous() {
        let grant = |rate| Grant {
            key: "keys/bdk".to_owned(),
            principals: vec!["req".to_owned()],
            calls: vec!["ExportInitialKey".to_owned()],
            pin_formats_in: Vec::new(),
            pin_formats_out: Vec::new(),
            partner_keys: vec!["keys/kek".to_owned()],
            calls_per_minute_max: rate,
            not_before: None,
            not_after: None,
        };
        for (rates, expected) in
            [(vec![], None), (vec![2], Some(2)), (vec![2, 3], Some(3)), (vec![2, 0, 3], Some(0))]
        {
            let grants: Vec<Grant> = rates.into_iter().map(grant).collect();
            let quorum = with_policy(Realm::Live, Policy { grants, ..Policy::none() });
            let granted = |partner| {
                quorum.approved_before(&officer(0), Passage { key: "bdk", under: partner })
            };
            assert_eq!((granted("kek"), granted("other")), (expected, None));
        }
        // What a grant does not name in full it does not approve, even if it came to be in force.
        let all = |one: &str| vec![one.to_owned()];
        for vague in [
            Grant { key: "keys/*".to_owned(), ..grant(0) },
            Grant { principals: all("*"), ..grant(0) },
            Grant { partner_keys: all("keys/*"), ..grant(0) },
            Grant { partner_keys: Vec::new(), ..grant(0) },
            Grant { calls: all("TranslatePin"), ..grant(0) },
            Grant { not_before: Some(UnixMillis(2)), ..grant(0) },
            Grant { not_after: Some(UnixMillis(0)), ..grant(0) },
        ] {
            let policy = Policy { grants: vec![vague.clone()], ..Policy::none() };
            let passage = Passage { key: "bdk", under: "kek" };
            let granted = with_policy(Realm::Live, policy).approved_before(&officer(0), passage);
            assert_eq!(granted, None, "{vague:?}");
        }
    }

    #[test]
    fn a_policy_that_wants_fewer_approves_nothing_that_waits() {
        let [two, one, three] = [2, 1, 3].map(|votes| quorum(Realm::Live, votes, officers()));
        let mut waits = Approval { votes_wanted: 2, ..approval() };
        waits.vote(&officer(2), &[1; 32], &two).unwrap();
        for (judge, required) in [(&one, 2), (&two, 2), (&three, 3)] {
            assert_eq!(waits.votes_required(judge), required);
            assert_eq!(waits.state(judge), ApprovalState::Pending);
        }
        waits.vote(&officer(4), &[1; 32], &one).unwrap();
        assert_eq!(waits.state(&one), ApprovalState::Approved);
        assert_eq!(waits.state(&three), ApprovalState::Pending, "one that wants more is heard");
    }

    #[test]
    fn only_development_waives() {
        let officer = officer(0);
        for (realm, required, of_officer, of_everybody, votes) in [
            (Realm::Dev, 0, true, true, 0),
            (Realm::Dev, 1, false, true, 1),
            (Realm::Live, 0, false, false, 1),
            (Realm::Live, 2, false, false, 2),
        ] {
            let quorum = quorum(realm, required, officers());
            assert_eq!(quorum.is_waived_for(&officer), of_officer, "{realm:?} {required}");
            assert_eq!(quorum.is_waived_for(&caller()), of_everybody, "{realm:?} {required}");
            assert_eq!(quorum.votes_required(), votes);
        }
    }

    #[test]
    fn the_latest_comes_first() {
        let id = |ms| id_of(UnixMillis(ms), [0xFF; 8]);
        assert!(id(1_900_000_000_001) < id(1_900_000_000_000));
        assert_eq!(id(0).len(), id(LAST_MS).len());
    }

    #[tokio::test]
    async fn an_approval_is_kept_for_90_days_after_its_time() {
        let bench = Bench::new().await;
        let asked = Asked { request: &[0xFF, 0], digest: &[1; 32] };
        let mut work = bench.begin(Action::ExportKey).await;
        let quorum = bench.vault.quorum().await.unwrap();
        let open = work.open_approval(&bench.vault, asked, &quorum).await.unwrap();
        let refused = work.commit_refused(Reason::ApprovalRequired).await;
        assert_eq!(refused, Error::Refused(Reason::ApprovalRequired));
        let found = async || bench.vault.approval_of(&caller(), asked).await.unwrap();
        assert_eq!(found().await.unwrap().record, open);
        assert_eq!(bench.vault.request_of(&open).await.unwrap(), asked.request);
        let other = Asked { digest: &[2; 32], ..asked };
        assert!(bench.vault.approval_of(&caller(), other).await.unwrap().is_none());
        for (hours, is_there) in [(91 * 24, true), (2, false)] {
            bench.clock.forward(hours * 60 * 60 * 1_000);
            assert_eq!(purge_expired(&bench.vault.shared).await, Purged::All);
            assert_eq!(found().await.is_some(), is_there, "after {hours} hours more");
            let left = bench.vault.get::<Approval>(&open.id).await.unwrap();
            assert_eq!(left.is_some(), is_there);
        }
    }

    #[tokio::test]
    async fn an_approval_is_consumed_with_the_effect_or_not_at_all() {
        let bench = Bench::new().await;
        let (vault, store) = (&bench.vault, &bench.store);
        let mut principals = officers();
        let (name, person) = (caller().name().to_owned(), caller().person().to_owned());
        principals.push(Principal { name, person, ..principal(0, Role::Officer) });
        let policy = Policy { principals, ..Policy::none() };
        let mut work = bench.begin(Action::SetPolicy).await;
        work.put(&Versioned::absent(policy)).unwrap();
        work.commit().await.unwrap();
        let asked = Asked { request: &[1], digest: &[1; 32] };
        let quorum = vault.quorum().await.unwrap();
        let mut work = bench.begin(Action::ExportKey).await;
        let open = work.open_approval(vault, asked, &quorum).await.unwrap();
        work.commit_refused(Reason::ApprovalRequired).await;
        let execute = async || {
            let found = vault.approval_of(&caller(), asked).await.unwrap().unwrap();
            let mut work = bench.begin(Action::ExportKey).await;
            work.execute_approved(found, &vault.quorum().await.unwrap())?;
            work.remember(RequestId { id: "one", body_hash: &[1; 32] }, &"done").await?;
            work.commit().await
        };
        let required = Err(Error::Refused(Reason::ApprovalRequired));
        assert_eq!(execute().await, required, "nobody has approved");
        let mut found = vault.get::<Approval>(&open.id).await.unwrap().unwrap();
        found.record.vote(&officer(4), &[1; 32], &quorum).unwrap();
        let mut work = bench.begin(Action::Approve).await;
        work.put(&found).unwrap();
        work.commit().await.unwrap();
        // Whenever the power goes, both are there or none.
        for (fault, executed) in [(Fault::Before, false), (Fault::After, true)] {
            store.fail(fault);
            assert_eq!(execute().await, Err(Error::Unavailable));
            store.fail(Fault::None);
            let after = vault.get::<Approval>(&open.id).await.unwrap().unwrap().record;
            assert_eq!(after.state(&quorum) == ApprovalState::Executed, executed);
            let id = RequestId { id: "one", body_hash: &[1; 32] };
            let answer = vault.recall::<String>(&caller(), Action::ExportKey, id).await.unwrap();
            assert_eq!(answer.is_some(), executed);
        }
        assert_eq!(execute().await, required, "it serves once");
    }
}
