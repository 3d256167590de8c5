//! The master key in a ceremony: custodians take and read back their shares in the order of a plan,
//! everybody signs, and anybody verifies it. Interrupted anywhere, nothing has happened, or all.

use firstkey::command::ceremony::plan::{Plan, Planned};
use firstkey::command::ceremony::record::CeremonyState;
use firstkey::command::ceremony::step::{Act, Actor};
use firstkey::command::ceremony::verify::{Authorities, TranscriptRefused, Verified, verify};
use firstkey::component::Share;
use firstkey::crypto::certificate::key_from_pem;
use firstkey::crypto::ec::SigningKey;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::Plane;
use firstkey::grpc::client::{CeremonyView, Client, ClientError, ceremony_in};
use firstkey::grpc::proto::GetCheckpointRequest;
use firstkey::vault::VerifierKey;

use crate::approvals::approve;
use crate::harness::MINUTE;
use crate::seal::{Sealed, name, refused, spoilt};

fn plan(table: &str, custodians: usize) -> Planned {
    let names: Vec<_> = (1..=custodians).map(|one| name(&format!("custodian-{one}"))).collect();
    let witness = name("auditor-1");
    let people = format!("custodians = {names:?}\nwitness = {witness:?}\n");
    let plan: Plan = toml::from_str(&format!("title = \"Test\"\n{people}{table}")).unwrap();
    plan.check().unwrap()
}

const INITIALISE: &str = "[initialise]\nthreshold = 3\n";
const RE_SHARE: &str = "[re_share]\nthreshold = 2\n";

/// The service, and a ceremony as it was seen last.
struct Table {
    service: Sealed,
    view: CeremonyView,
    shares: Vec<Share>,
}

impl Table {
    async fn begin(service: Sealed, planned: &Planned) -> Self {
        let officer = service.client("officer-1").await;
        let status = officer.plan_master_key(planned, "").await.unwrap();
        let view = ceremony_in(&status).unwrap().unwrap();
        assert_eq!((view.state, view.steps_done), (CeremonyState::Open, 0));
        Self { service, view, shares: Vec::new() }
    }

    async fn person(&self, who: &str) -> (Client, SigningKey) {
        let own = self.service.credentials(who, Plane::Admin);
        let (_, key) = own.identity.as_ref().unwrap();
        let key = SigningKey::from_pkcs8(&key_from_pem(key).unwrap()).unwrap();
        (Client::connect_with(&self.service.url, &own).await.unwrap(), key)
    }

    async fn take(&mut self, custodian: usize) -> Result<(), ClientError> {
        let (client, key) = self.person(&format!("custodian-{custodian}")).await;
        let digest = self.view.planned.digest();
        let (status, share) = client.take_share((&key, &SystemRng::new()), &digest).await?;
        self.view = ceremony_in(&status)?.unwrap();
        self.shares.push(share);
        Ok(())
    }

    async fn read_back(&mut self, custodian: usize, share: &Share) -> Result<(), ClientError> {
        let (client, key) = self.person(&format!("custodian-{custodian}")).await;
        let _ = client.read_back_share((&key, &SystemRng::new()), share).await?;
        let found = client.master_key_ceremony(&self.view.name).await?;
        self.view = found.unwrap();
        Ok(())
    }

    async fn sign(&mut self, who: &str) -> Result<(), ClientError> {
        let (client, key) = self.person(who).await;
        self.view = client.sign_ceremony(&self.view, &key).await?;
        Ok(())
    }

    /// Does the next step; tells whether there was one.
    async fn step(&mut self) -> bool {
        let steps = self.view.planned.steps();
        let Some(next) = steps.get(self.view.steps_done) else { return false };
        match (next.act, next.actor) {
            (Act::Take, Actor::Custodian(number)) => self.take(number.into()).await,
            (Act::ReadBack, Actor::Custodian(number)) => {
                let share = self.shares.pop().unwrap();
                let read = self.read_back(number.into(), &share).await;
                self.shares.push(share);
                read
            }
            (Act::Sign, Actor::Custodian(number)) => {
                self.sign(&format!("custodian-{number}")).await
            }
            (Act::Sign, Actor::Witness) => self.sign("auditor-1").await,
            other => panic!("{other:?}"),
        }
        .unwrap();
        true
    }

    fn text(&self) -> String {
        self.view.transcript.lines().join("\n")
    }

    /// Verifies the transcript as somebody does who has the log's key and the authority.
    async fn verify(&self) -> Result<Verified, TranscriptRefused> {
        let auditor = self.service.client("auditor-1").await;
        let signed = auditor.audit().get_checkpoint(GetCheckpointRequest {}).await.unwrap();
        let key = VerifierKey::parse(&signed.into_inner().verifier_key).unwrap();
        let authority = self.service.access.planes[&Plane::Admin].root_der().to_vec();
        verify(&self.text(), &key, Authorities::of(&[authority]))
    }

    /// Nothing of a share is in the transcript, however it is written.
    fn holds_no_share(&self) {
        let text = self.text().to_uppercase();
        for share in &self.shares {
            for row in share.write().lines().skip(1) {
                let digits = row.text[..19].replace(' ', "");
                assert!(!text.contains(&digits) && !text.contains(&row.text[..19]));
            }
        }
        assert!(text.contains(&data_encoding::HEXUPPER.encode(&self.set_id())), "the control");
    }

    fn set_id(&self) -> [u8; 4] {
        self.shares[0].heading().set_id()
    }
}

fn state_of(status: &firstkey::grpc::proto::SealStatus) -> &'static str {
    status.state().as_str_name()
}

#[tokio::test]
async fn five_custodians_make_the_first_master_key_and_everybody_signs() {
    let service = Sealed::start().await;
    let planned = plan(INITIALISE, 5);
    let officer = service.client("officer-1").await;
    // Another plan is not for an empty store, nor one of people who are not what it says.
    let wrong = officer.plan_master_key(&plan(RE_SHARE, 5), "").await;
    assert_eq!(refused(wrong).0, "FIELD_INVALID");
    let operator = service.client("operator-1").await;
    assert_eq!(refused(operator.plan_master_key(&planned, "").await).0, "POLICY_DENIED");
    let mut table = Table::begin(service, &planned).await;
    // Only the next custodian acts, with the digest of the plan.
    assert_eq!(refused(table.take(2).await).0, "CEREMONY_STATE");
    let (client, key) = table.person("custodian-1").await;
    let other = client.take_share((&key, &SystemRng::new()), &[7; 32]).await;
    assert_eq!(refused(other).0, "FIELD_INVALID");
    let none = client.take_share((&key, &SystemRng::new()), &[]).await;
    assert_eq!(refused(none).0, "FIELD_INVALID");
    table.take(1).await.unwrap();
    assert_eq!(refused(table.take(1).await).0, "CEREMONY_STATE");
    assert_eq!(refused(table.take(2).await).0, "CEREMONY_STATE");
    let wrong = spoilt(&table.shares[0]);
    let misread = refused(table.read_back(1, &wrong).await);
    assert_eq!(misread, ("SHARE_REFUSED".to_owned(), "it is not what was taken".to_owned()));
    while table.view.state == CeremonyState::Open {
        assert_eq!(state_of(&table.service.status().await), "SEAL_STATE_UNINITIALISED");
        assert!(table.step().await);
    }
    // In force, stored, and found by its plan.
    assert_eq!(state_of(&table.service.status().await), "SEAL_STATE_OPEN");
    assert_eq!(table.view.state, CeremonyState::Done);
    let found = officer.ceremony_of(&planned).await.unwrap().unwrap();
    assert_eq!((found.name, found.steps_done), (table.view.name.clone(), 10));
    assert_eq!(table.verify().await, Err(TranscriptRefused::Unfinished));
    while table.step().await {}
    assert_eq!(table.view.state, CeremonyState::Closed);
    let verified = table.verify().await.unwrap();
    // One line of what was read back wrongly, one that it is done, and the service's two.
    assert_eq!((verified.lines, verified.aborted), (16 + 4, false));
    assert_eq!(verified.planned, planned);
    table.holds_no_share();
    // Who acted can not be written anew, nor who came be left out.
    let text = table.text();
    assert!(text.contains("read back wrongly") && text.contains("\"threshold\":\"3\""));
    table.service.seal().await;
    assert_eq!(table.service.open_by(&table.shares, &[5, 1, 3]).await, "SEAL_STATE_OPEN");
}

#[tokio::test]
async fn a_service_that_ends_between_two_steps_has_a_master_key_or_nothing() {
    let planned = plan("[initialise]\nthreshold = 2\n", 2);
    let steps = planned.steps().len();
    let effect = planned.steps().iter().filter(|step| step.act != Act::Sign).count();
    for done in 0..=steps {
        let mut table = Table::begin(Sealed::start().await, &planned).await;
        for _ in 0..done {
            assert!(table.step().await);
        }
        table.service = table.service.restart().await;
        let status = table.service.status().await;
        assert!(status.distribution.is_none());
        let (client, _) = table.person("custodian-1").await;
        let known = client.master_key_ceremony(&table.view.name).await.unwrap();
        assert!(known.is_none(), "step {done}");
        if done < effect {
            assert_eq!(state_of(&status), "SEAL_STATE_UNINITIALISED", "step {done}");
            continue;
        }
        assert_eq!(state_of(&status), "SEAL_STATE_SEALED", "step {done}");
        assert_eq!(table.service.open_by(&table.shares, &[2, 1]).await, "SEAL_STATE_OPEN");
        let known = client.master_key_ceremony(&table.view.name).await.unwrap().unwrap();
        assert_eq!((known.steps_done, known.transcript), (done, table.view.transcript.clone()));
        while table.step().await {}
        assert!(!table.verify().await.unwrap().aborted);
    }
}

/// An officer asks, another approves, and it begins.
async fn approved(service: &Sealed, planned: &Planned, before: &str) -> CeremonyView {
    let officer = service.client("officer-1").await;
    let asked = officer.plan_master_key(planned, before).await;
    let ClientError::Refused(refusal) = asked.err().unwrap() else { panic!("it is no refusal") };
    assert_eq!(refusal.reason, "APPROVAL_REQUIRED");
    let name = refusal.told("approval").unwrap();
    approve(&service.client("officer-2").await, name).await.unwrap();
    let status = officer.plan_master_key(planned, before).await.unwrap();
    ceremony_in(&status).unwrap().unwrap()
}

#[tokio::test]
async fn another_master_key_takes_its_place_in_a_ceremony_whose_every_end_is_signed() {
    let first = plan(INITIALISE, 5);
    let mut table = Table::begin(Sealed::start().await, &first).await;
    while table.step().await {}
    let old = std::mem::take(&mut table.shares);
    let planned = plan(RE_SHARE, 3);
    let officer = table.service.client("officer-1").await;
    let wrong = officer.plan_master_key(&first, "again").await;
    assert_eq!(refused(wrong).0, "FIELD_INVALID");

    // Abandoned, aborted as any ceremony is, ended by a slip that nobody can read, and lost with the
    // service: each time nothing has happened, and that is signed.
    let mut before = String::new();
    for end in ["abandoned", "aborted", "misread", "restarted"] {
        table.view = approved(&table.service, &planned, &before).await;
        before.clone_from(&table.view.name);
        table.take(1).await.unwrap();
        let (client, _) = table.person("custodian-1").await;
        match end {
            "abandoned" => drop(client.abandon_master_key().await.unwrap()),
            "aborted" => drop(client.abort_ceremony(&before, "the printer burns").await.unwrap()),
            "misread" => {
                let wrong = spoilt(&table.shares[0]);
                for _ in 0..2 {
                    let told = refused(table.read_back(1, &wrong).await);
                    assert_eq!(told.0, "SHARE_REFUSED");
                }
                let told = refused(table.read_back(1, &wrong).await);
                assert_eq!(told.0, "CEREMONY_ABORTED");
            }
            _ => {
                table.service = table.service.restart().await;
                assert_eq!(table.service.open_by(&old, &[1, 2, 3]).await, "SEAL_STATE_OPEN");
                let officer = table.service.client("officer-1").await;
                let known = officer.master_key_ceremony(&before).await.unwrap().unwrap();
                assert_eq!((known.state, known.steps_done), (CeremonyState::Open, 1));
                let _ =
                    officer.abort_ceremony(&before, "the service was begun anew").await.unwrap();
            }
        }
        table.shares.clear();
        let officer = table.service.client("officer-1").await;
        let known = officer.master_key_ceremony(&before).await.unwrap().unwrap();
        assert_eq!(known.state, CeremonyState::Aborted, "{end}");
        table.view = known;
        assert!(table.verify().await.unwrap().aborted, "{end}");
        assert!(table.take(1).await.is_err(), "{end}");
        assert_eq!(table.service.status().await.generation, 1, "{end}");
    }

    table.view = approved(&table.service, &planned, &before).await;
    while table.step().await {}
    assert!(!table.verify().await.unwrap().aborted);
    table.holds_no_share();
    assert_eq!(table.service.status().await.generation, 2);
    table.service.seal().await;
    assert_eq!(refused(table.service.give("custodian-1", &old[0]).await).1, "it is of another set");
    assert_eq!(table.service.open_by(&table.shares, &[1, 3]).await, "SEAL_STATE_OPEN");
}

#[tokio::test]
async fn a_ceremony_that_nobody_goes_on_with_is_forgotten_when_its_plan_says() {
    let mut text = "idle_minutes = 30\n".to_owned();
    text.push_str(INITIALISE);
    let mut table = Table::begin(Sealed::start().await, &plan(&text, 3)).await;
    for _ in 0..2 {
        table.service.clock.advance(29 * MINUTE);
        assert!(table.step().await);
    }
    table.service.clock.advance(30 * MINUTE);
    assert!(table.service.status().await.distribution.is_none());
    let again = table.service.client("officer-1").await.plan_master_key(&plan(&text, 3), "").await;
    assert!(again.unwrap().distribution.is_some());
}
