//! Verifies a transcript without a service: that its lines follow from each other, that the steps
//! are those of its plan, each by whom the plan names, and that everybody signed.

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER};

use super::act::OTHER_KEY;
use super::plan::{Plan, Planned};
use super::record::{SERVICE, transcript_signed};
use super::step::{Act, Step};
use super::transcript::{Line, Transcript, TranscriptBroken};
use crate::crypto::certificate::{Chain, verify_client};
use crate::crypto::digest::sha256;
use crate::crypto::ec::{self, Point};
use crate::vault::{UnixMillis, VerifierKey};

/// What a transcript proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// `ceremonies/{ceremony}`.
    pub name: String,
    /// The plan.
    pub planned: Planned,
    /// How many lines there are.
    pub lines: usize,
    /// Whether it was aborted: then nothing happened. Else everybody has signed.
    pub aborted: bool,
}

/// Why a transcript proves nothing; lines are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TranscriptRefused {
    /// Its lines do not follow from each other.
    #[error(transparent)]
    Broken(#[from] TranscriptBroken),
    /// A certificate does not lead to the authority, or is not of whom the line names.
    #[error("line {0}: the certificate is not of whom the line names, or of another authority")]
    CertificateInvalid(u32),
    /// The key is not the one that this person came with, or it is another's.
    #[error("line {0}: {OTHER_KEY}")]
    KeyOther(u32),
    /// The first line is no plan, or not the one of its digest.
    #[error("line 1: the plan is none, or not the one of its digest")]
    PlanInvalid,
    /// A signature does not verify.
    #[error("line {0}: the signature does not verify")]
    SignatureInvalid(u32),
    /// A line is not the next step of the plan by whom the plan names.
    #[error("line {0}: this is not the next step of the plan")]
    StepUnexpected(u32),
    /// A line is of a time before that of the line before, or of none.
    #[error("line {0}: its time is before that of the line before, or is none")]
    TimeInvalid(u32),
    /// The service has not signed its end.
    #[error("the transcript has no end that the service signed")]
    Unfinished,
}

/// Who certifies those who come to the admin plane: certificates in DER.
#[derive(Debug, Clone, Copy)]
pub struct Authorities<'a> {
    /// Of the authorities that are believed.
    pub roots: &'a [Vec<u8>],
    /// Between theirs and people's. They are believed as far as they lead to a root.
    pub intermediates: &'a [Vec<u8>],
}

impl<'a> Authorities<'a> {
    /// Roots that certify people themselves.
    #[must_use]
    pub const fn of(roots: &'a [Vec<u8>]) -> Self {
        Self { roots, intermediates: &[] }
    }
}

/// Verifies a transcript.
pub fn verify(
    text: &str,
    log_key: &VerifierKey,
    authorities: Authorities<'_>,
) -> Result<Verified, TranscriptRefused> {
    let (_, lines) = Transcript::parse(text)?;
    let (Some((first, rest)), Some(last)) = (lines.split_first(), lines.last()) else {
        return Err(TranscriptRefused::Unfinished);
    };
    let planned = plan_of(first)?;
    times(&lines)?;
    let Some((_, middle)) = rest.split_last().filter(|_| last.what == "closed") else {
        return Err(TranscriptRefused::Unfinished);
    };
    if last.who != SERVICE {
        return Err(TranscriptRefused::StepUnexpected(last.n));
    }
    let signed = transcript_signed(&link(last)?);
    log_key
        .verify(&signed, &signature(last)?)
        .map_err(|_| TranscriptRefused::SignatureInvalid(last.n))?;
    let mut walk = Walk { planned: &planned, steps: planned.steps(), done: 0, outcome: None };
    let mut keys = BTreeMap::new();
    for line in middle {
        walk.line(line)?;
        certificates(line, &walk, authorities, &mut keys)?;
    }
    let aborted = walk.outcome == Some(Outcome::Aborted);
    if !aborted && walk.done < walk.steps.len() {
        return Err(TranscriptRefused::Unfinished);
    }
    let name = first.values.get("ceremony").cloned().unwrap_or_default();
    Ok(Verified { name, lines: lines.len(), aborted, planned })
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nothing.
    Aborted,
    /// It was done; signatures are over this hash.
    Done([u8; 32]),
}

/// The way along the steps of a plan.
struct Walk<'a> {
    planned: &'a Planned,
    steps: Vec<Step>,
    done: usize,
    outcome: Option<Outcome>,
}

impl Walk<'_> {
    fn line(&mut self, line: &Line) -> Result<(), TranscriptRefused> {
        let unexpected = Err(TranscriptRefused::StepUnexpected(line.n));
        let next = self.steps.get(self.done).copied();
        let is_next = |act| {
            next.is_some_and(|next| {
                next.act == act && self.planned.name_of(next.actor) == Some(&line.who)
            })
        };
        if self.outcome == Some(Outcome::Aborted) {
            return unexpected;
        }
        if let Some(act) = act_of(&line.what) {
            if !is_next(act) || (act == Act::Sign && self.outcome.is_none()) {
                return unexpected;
            }
            self.done += 1;
            return Ok(());
        }
        let is_open = self.outcome.is_none();
        match line.what.as_str() {
            "read back wrongly" if is_next(Act::ReadBack) => {}
            "entry begins again" if self.may_begin_again(&line.who) => {
                let first = self.steps.iter().position(|step| step.act == Act::Enter);
                self.done = first.unwrap_or(self.done);
            }
            "done"
                if is_open
                    && line.who == SERVICE
                    && next.map(|next| next.act) == Some(Act::Sign) =>
            {
                self.outcome = Some(Outcome::Done(hash(line)));
            }
            "aborted" if is_open => self.outcome = Some(Outcome::Aborted),
            _ => return unexpected,
        }
        Ok(())
    }

    /// With which line somebody comes to the table: where nobody joins, with the share.
    fn comes(&self) -> &'static str {
        let joins = self.steps.iter().any(|step| step.act == Act::Join);
        if joins { "joined" } else { "given out" }
    }

    /// Custodians begin again until the last has revealed.
    fn may_begin_again(&self, who: &str) -> bool {
        let next = self.steps.get(self.done).map(|next| next.act);
        matches!(next, Some(Act::Enter | Act::Reveal))
            && self.planned.plan().custodians.iter().any(|name| name == who)
    }
}

/// The act that a line tells of.
fn act_of(what: &str) -> Option<Act> {
    Some(match what {
        "committed" => Act::Enter,
        "confirmed" => Act::Confirm,
        "given out" => Act::Take,
        "joined" => Act::Join,
        "read back" => Act::ReadBack,
        "revealed" => Act::Reveal,
        "signed" => Act::Sign,
        _ => return None,
    })
}

/// Finds whether each line is of a time that is not before the line before.
fn times(lines: &[Line]) -> Result<(), TranscriptRefused> {
    let mut before = UnixMillis(0);
    for line in lines {
        let at = UnixMillis::parse(&line.time).filter(|at| before <= *at);
        before = at.ok_or(TranscriptRefused::TimeInvalid(line.n))?;
    }
    Ok(())
}

fn plan_of(first: &Line) -> Result<Planned, TranscriptRefused> {
    let value = |name| first.values.get(name).map(String::as_str).unwrap_or_default();
    let plan = serde_json::from_str::<Plan>(value("plan")).ok();
    let planned = plan.and_then(|plan| plan.check().ok());
    planned
        .filter(|planned| {
            first.what == "created"
                && first.who == SERVICE
                && value("ceremony").starts_with("ceremonies/")
                && planned.canonical() == value("plan").as_bytes()
                && HEXLOWER.encode(&planned.digest()) == value("plan_digest")
        })
        .ok_or(TranscriptRefused::PlanInvalid)
}

/// Verifies the certificate of a line, at its time, and the signature that was made with it.
/// Everybody has one key, and each another.
fn certificates(
    line: &Line,
    walk: &Walk<'_>,
    authorities: Authorities<'_>,
    keys: &mut BTreeMap<String, Point>,
) -> Result<(), TranscriptRefused> {
    if ![walk.comes(), "signed"].contains(&line.what.as_str()) {
        return Ok(());
    }
    let refused = TranscriptRefused::CertificateInvalid(line.n);
    let der = line.values.get("certificate").and_then(|text| BASE64.decode(text.as_bytes()).ok());
    let chain = der.map(|der| [&[der], authorities.intermediates].concat());
    let chain = chain.and_then(|chain| Chain::parse(chain).ok()).ok_or(refused)?;
    let at = UnixMillis::parse(&line.time).ok_or(refused)?.seconds();
    let client = verify_client(&chain, authorities.roots, at).map_err(|_| refused)?;
    if client.name != line.who {
        return Err(refused);
    }
    let key = client.key.ok_or(refused)?;
    let is_theirs = match keys.get(&line.who) {
        Some(own) => *own == key,
        None => keys.values().all(|other| *other != key),
    };
    if !is_theirs {
        return Err(TranscriptRefused::KeyOther(line.n));
    }
    keys.insert(line.who.clone(), key);
    if line.what == "signed" {
        let wrong = TranscriptRefused::SignatureInvalid(line.n);
        let Some(Outcome::Done(end)) = walk.outcome else { return Err(wrong) };
        ec::verify(&key, &transcript_signed(&end), &signature(line)?).map_err(|_| wrong)?;
    }
    Ok(())
}

fn signature(line: &Line) -> Result<[u8; 64], TranscriptRefused> {
    let text = line.values.get("signature").map(String::as_str).unwrap_or_default();
    let octets = HEXLOWER.decode(text.as_bytes()).ok();
    let octets = octets.and_then(|octets| octets.try_into().ok());
    octets.ok_or(TranscriptRefused::SignatureInvalid(line.n))
}

/// The hash of the line before, which the line itself has.
fn link(line: &Line) -> Result<[u8; 32], TranscriptRefused> {
    let octets = HEXLOWER.decode(line.prev.as_bytes()).ok();
    let octets = octets.and_then(|octets| octets.try_into().ok());
    octets.ok_or(TranscriptRefused::SignatureInvalid(line.n))
}

/// The hash of a line that was read: written anew it is the same.
fn hash(line: &Line) -> [u8; 32] {
    let text = serde_json::to_string(line);
    sha256(&[text.expect("a line is words and numbers, which all have a JSON form").as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::ceremony::act::{Participant, StepRefused};
    use crate::command::ceremony::custodian::sign_transcript;
    use crate::command::ceremony::record::Ceremony;
    use crate::command::ceremony::step::Actor;
    use crate::crypto::certificate::authority::{Authority, Validity};
    use crate::crypto::ec::{Point, SigningKey};
    use crate::crypto::ed25519::Ed25519Key;
    use crate::crypto::rng::SystemRng;

    const BEGIN: u64 = 1_795_458_600;
    const DAY: Validity = Validity { not_before: BEGIN - 100, not_after: BEGIN + 86_400 };
    const NAMES: [&str; 3] = ["test:/custodian/ann", "test:/custodian/bob", "test:/auditor/cid"];

    struct Person {
        name: &'static str,
        certificate: Vec<u8>,
        key: SigningKey,
        public: Point,
    }

    struct Table {
        authority: Authority,
        people: Vec<Person>,
        log: Ed25519Key,
    }

    impl Table {
        fn new() -> Self {
            let authority = Authority::new("Root for tests", DAY).unwrap();
            let people = NAMES.into_iter().map(|name| {
                let key = SigningKey::generate().unwrap();
                let certificate = authority.issue_client(&key.public(), name, DAY).unwrap();
                Person { name, certificate, public: key.public(), key }
            });
            let people = people.collect();
            Self { authority, people, log: Ed25519Key::from_seed(&[7; 32]) }
        }

        fn verify(&self, text: &str) -> Result<Verified, TranscriptRefused> {
            let key = VerifierKey::new("log".to_owned(), &self.log);
            verify(text, &key, Authorities::of(&[self.authority.root_der().to_vec()]))
        }

        /// A ceremony that destroys a key, so far that so many steps are done.
        fn ceremony(&self, steps: usize) -> Ceremony {
            let planned = planned();
            let sign = |message: &[u8]| self.log.sign(message);
            let now = |step: usize| UnixMillis((BEGIN + u64::try_from(step).unwrap()) * 1_000);
            let rng = SystemRng::new();
            let mut ceremony =
                Ceremony::begin("c-1".to_owned(), &planned, &[], now(0), (&rng, &sign)).unwrap();
            for (done, step) in planned.steps().into_iter().enumerate().take(steps) {
                let person = match step.actor {
                    Actor::Custodian(number) => &self.people[usize::from(number) - 1],
                    Actor::Witness => &self.people[2],
                };
                let Person { name, certificate, key, public } = person;
                let who = Participant { name, certificate, key: public };
                match step.act {
                    Act::Join => ceremony.join(who, &planned.digest(), now(done)).unwrap(),
                    Act::Confirm => {
                        if ceremony.confirm(who, "0011AA", now(done)).unwrap() {
                            ceremony.complete(now(done), &[], None);
                        }
                    }
                    Act::Sign => {
                        let signed = done - 6;
                        let link = ceremony.transcript.link_before(signed);
                        let signature = sign_transcript(key, &link).unwrap();
                        ceremony.sign(who, &signature, now(done), &sign).unwrap();
                    }
                    Act::Enter | Act::ReadBack | Act::Reveal | Act::Take => {
                        unreachable!("nothing is made or brought")
                    }
                }
            }
            ceremony
        }
    }

    fn planned() -> Planned {
        let [ann, bob, cid] = NAMES;
        let text = format!(
            "title = \"T\"\ncustodians = [\"{ann}\", \"{bob}\"]\nwitness = \"{cid}\"
            [destroy]\nkey = \"keys/k/versions/1\"\ncheck_value = \"0011AA\"\n"
        );
        toml::from_str::<Plan>(&text).unwrap().check().unwrap()
    }

    fn text(ceremony: &Ceremony) -> String {
        ceremony.transcript.lines().join("\n")
    }

    #[test]
    fn a_ceremony_that_all_have_signed_verifies_and_one_before_its_end_does_not() {
        let table = Table::new();
        for steps in 0..=9 {
            let verified = table.verify(&text(&table.ceremony(steps)));
            if steps < 9 {
                assert_eq!(verified, Err(TranscriptRefused::Unfinished), "{steps}");
            } else {
                let expected = Verified {
                    name: "ceremonies/c-1".to_owned(),
                    planned: planned(),
                    lines: 12,
                    aborted: false,
                };
                assert_eq!(verified, Ok(expected));
            }
        }
    }

    #[test]
    fn an_aborted_ceremony_verifies_as_one_in_which_nothing_happened() {
        let table = Table::new();
        for steps in 0..6 {
            let mut ceremony = table.ceremony(steps);
            let sign = |message: &[u8]| table.log.sign(message);
            let now = UnixMillis((BEGIN + 60) * 1_000);
            ceremony.abort("service", "no step was done in time", now, &sign).unwrap();
            assert!(table.verify(&text(&ceremony)).unwrap().aborted);
        }
    }

    #[test]
    fn another_log_key_or_authority_is_not_believed() {
        let (table, mut other) = (Table::new(), Table::new());
        other.log = Ed25519Key::from_seed(&[8; 32]);
        let text = text(&table.ceremony(9));
        let key = VerifierKey::new("log".to_owned(), &other.log);
        let roots = [table.authority.root_der().to_vec()];
        let refused = Err(TranscriptRefused::SignatureInvalid(12));
        assert_eq!(verify(&text, &key, Authorities::of(&roots)), refused);
        let key = VerifierKey::new("log".to_owned(), &table.log);
        let roots = [other.authority.root_der().to_vec()];
        let refused = Err(TranscriptRefused::CertificateInvalid(2));
        assert_eq!(verify(&text, &key, Authorities::of(&roots)), refused);
    }

    /// A keeper who has the log's key, but nobody else's, writes the transcript anew.
    fn written_anew(table: &Table, change: impl FnOnce(&mut Vec<Line>)) -> String {
        let (_, mut lines) = Transcript::parse(&text(&table.ceremony(9))).unwrap();
        let _ = lines.pop();
        change(&mut lines);
        let mut prev = [0; 32];
        let written = (1..).zip(lines).map(|(n, mut line)| {
            (line.n, line.prev) = (n, HEXLOWER.encode(&prev));
            prev = hash(&line);
            serde_json::to_string(&line).unwrap()
        });
        let written: Vec<String> = written.collect();
        let (mut anew, _) = Transcript::parse(&written.join("\n")).unwrap();
        let signature = HEXLOWER.encode(&table.log.sign(&transcript_signed(&anew.link())));
        let now = UnixMillis((BEGIN + 60) * 1_000);
        anew.push(now, "closed", SERVICE, &[("signature", signature)]);
        anew.lines().join("\n")
    }

    #[test]
    fn everybody_has_one_key_and_each_another() {
        let certified = |table: &Table, name, key: &SigningKey| {
            BASE64.encode(&table.authority.issue_client(&key.public(), name, DAY).unwrap())
        };
        let table = Table::new();
        // Who joins with a key of another's, and who signs with another than they joined with.
        for (place, key) in [(2, &table.people[0].key), (9, &SigningKey::generate().unwrap())] {
            let certificate = certified(&table, NAMES[1], key);
            let text = written_anew(&table, |lines| {
                assert_eq!(lines[place].who, NAMES[1]);
                lines[place].values.insert("certificate".to_owned(), certificate);
            });
            let line = u32::try_from(place + 1).unwrap();
            assert_eq!(table.verify(&text).unwrap_err(), TranscriptRefused::KeyOther(line));
        }
        // The service does not let it come to that.
        let planned = planned();
        let sign = |message: &[u8]| table.log.sign(message);
        let (now, rng) = (UnixMillis(BEGIN * 1_000), SystemRng::new());
        let begun = Ceremony::begin("c-2".to_owned(), &planned, &[], now, (&rng, &sign));
        let mut ceremony = begun.unwrap();
        let join = |ceremony: &mut Ceremony, name, key: &Point| {
            let who = Participant { name, certificate: b"", key };
            ceremony.join(who, &planned.digest(), now)
        };
        let keys: Vec<&Point> = table.people.iter().map(|person| &person.public).collect();
        join(&mut ceremony, NAMES[0], keys[0]).unwrap();
        let shared = join(&mut ceremony, NAMES[1], keys[0]);
        assert_eq!(shared, Err(StepRefused::OtherKey));
        join(&mut ceremony, NAMES[1], keys[1]).unwrap();
        join(&mut ceremony, NAMES[2], keys[2]).unwrap();
        let who = Participant { name: NAMES[0], certificate: b"", key: keys[2] };
        assert_eq!(ceremony.confirm(who, "0011AA", now), Err(StepRefused::OtherKey));
        let who = Participant { key: keys[0], ..who };
        assert_eq!(ceremony.confirm(who, "0011AA", now), Ok(false));
    }

    #[test]
    fn what_the_people_did_can_not_be_written_anew() {
        let table = Table::new();
        assert!(table.verify(&written_anew(&table, |_| ())).is_ok(), "the control");
        for (text, refused) in [
            (written_anew(&table, |lines| lines.swap(1, 2)), TranscriptRefused::TimeInvalid(3)),
            (
                written_anew(&table, |lines| drop(lines.remove(5))),
                TranscriptRefused::StepUnexpected(6),
            ),
            (written_anew(&table, |lines| drop(lines.pop())), TranscriptRefused::Unfinished),
            (
                written_anew(&table, |lines| lines[4].time = lines[0].time.clone()),
                TranscriptRefused::TimeInvalid(5),
            ),
            (
                written_anew(&table, |lines| "soon".clone_into(&mut lines[5].time)),
                TranscriptRefused::TimeInvalid(6),
            ),
            (
                written_anew(&table, |lines| drop(lines[0].values.remove("ceremony"))),
                TranscriptRefused::PlanInvalid,
            ),
            (
                written_anew(&table, |lines| NAMES[1].clone_into(&mut lines[1].who)),
                TranscriptRefused::StepUnexpected(2),
            ),
            (
                written_anew(&table, |lines| {
                    lines[2].values = lines[1].values.clone();
                }),
                TranscriptRefused::CertificateInvalid(3),
            ),
            (
                written_anew(&table, |lines| {
                    let _ = lines[4].values.insert("check_value".to_owned(), "FFFFFF".to_owned());
                }),
                TranscriptRefused::SignatureInvalid(9),
            ),
            (
                written_anew(&table, |lines| {
                    let plan = lines[0].values["plan"].replace("versions/1", "versions/2");
                    let _ = lines[0].values.insert("plan".to_owned(), plan);
                }),
                TranscriptRefused::PlanInvalid,
            ),
        ] {
            assert_eq!(table.verify(&text), Err(refused));
        }
    }
}
