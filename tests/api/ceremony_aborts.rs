//! What is wrong with a ceremony is told by its name, and whoever ends one, at whatever step, leaves
//! nothing behind but a signed end.

use data_encoding::HEXUPPER;
use firstkey::command::ceremony::plan::Plan;
use firstkey::command::ceremony::record::{Ceremony, CeremonyState};
use firstkey::command::ceremony::step::{Act, Actor};
use firstkey::command::ceremony::verify::{Authorities, verify};
use firstkey::component::Component;
use firstkey::grpc::Plane;
use firstkey::grpc::client::{Committed, request_id};
use firstkey::grpc::proto::{
    ApproveRequest, JoinCeremonyRequest, ListApprovalsRequest, ListCeremoniesRequest,
};
use firstkey::key::Algorithm;

use crate::approvals::{approve, live, officer};
use crate::ceremony::{
    GENERATE, Person, Table, WITNESS, component, import, key, plan, refused, shown,
};
use crate::ceremony_ends::{deactivated, verifier_key};
use crate::harness::answer;
use crate::known::{expect_field, reason_of, status_of};

/// What custodians have in their hands.
#[derive(Default)]
struct Hands {
    slip: Option<Component>,
    committed: Vec<Committed>,
}

impl Table {
    /// Does the next step.
    async fn step(&mut self, hands: &mut Hands) {
        let next = self.view.planned.steps()[self.view.steps_done];
        let who = match next.actor {
            Actor::Custodian(number) => usize::from(number) - 1,
            Actor::Witness => WITNESS,
        };
        let person = &self.people[who];
        match next.act {
            Act::Confirm => {
                let value = self.view.check_value.clone();
                self.view = person.client.confirm_ceremony(&self.view, &value).await.unwrap();
            }
            Act::Enter => {
                let octet = u8::try_from(who + 1).unwrap();
                hands.committed.push(self.enter(who, component(octet)).await);
            }
            Act::Join => self.view = person.client.join_ceremony(&self.view).await.unwrap(),
            Act::ReadBack => {
                let slip = hands.slip.take().expect("a slip was taken");
                self.read_back(who, &slip).await.unwrap();
            }
            Act::Reveal => self.reveal(who, &hands.committed[who]).await.unwrap(),
            Act::Sign => {
                self.view = person.client.sign_ceremony(&self.view, &person.signer).await.unwrap();
            }
            Act::Take => hands.slip = Some(self.take(who).await),
        }
    }

    /// What is kept of the ceremony that nobody may see.
    async fn kept(&self) -> Vec<&'static str> {
        let id = self.view.name.strip_prefix("ceremonies/").unwrap();
        let found = self.service.plain.vault.get::<Ceremony>(id).await.unwrap().unwrap();
        let record = serde_json::to_value(&found.record).unwrap();
        let is_there = |name: &&str| match &record[name] {
            serde_json::Value::Null => false,
            serde_json::Value::Array(list) => !list.is_empty(),
            _ => true,
        };
        ["private", "commitments", "components", "given"].into_iter().filter(is_there).collect()
    }

    /// Ends the ceremony as one of those at the table, and looks at what is left of it.
    async fn ended(&mut self, who: usize) {
        let client = &self.people[who].client;
        self.view = client.abort_ceremony(&self.view.name, "it is late").await.unwrap();
        assert_eq!(self.view.state, CeremonyState::Aborted);
        assert!(self.view.envelope_key.is_empty() && self.view.product.is_empty());
        assert_eq!(self.kept().await, [""; 0]);
        let authority = self.service.access.planes[&Plane::Admin].root_der().to_vec();
        let log_key = verifier_key(&self.service).await;
        let text = self.view.transcript.lines().join("\n");
        let verified = verify(&text, &log_key, Authorities::of(&[authority])).unwrap();
        assert!(verified.aborted && verified.planned == self.view.planned);
        let again = refused(client.abort_ceremony(&self.view.name, "once more").await);
        let told = (again.reason.as_str(), again.told("state"));
        assert_eq!(told, ("CEREMONY_STATE", Some("ABORTED")));
    }
}

/// Holds a ceremony as often as it has steps before its effect, and ends it before each; then holds
/// it to its end. Tells what was ever kept.
async fn end_at_each_step(table: &mut Table, task: &str) -> Vec<&'static str> {
    let mut kept = Vec::new();
    let steps = plan(task).steps();
    let before_signing = steps.iter().filter(|step| step.act != Act::Sign).count();
    for stop in 0..=before_signing {
        table.service.plain.clock.advance(1);
        table.view = Table::create(&table.service, task).await;
        let mut hands = Hands::default();
        for _ in 0..stop {
            table.step(&mut hands).await;
        }
        kept.extend(table.kept().await);
        if stop < before_signing {
            table.ended(stop % 3).await;
            continue;
        }
        // What has happened is not undone: it waits for its signatures.
        let late = table.people[0].client.abort_ceremony(&table.view.name, "too late").await;
        let late = refused(late);
        assert_eq!((late.reason.as_str(), late.told("state")), ("CEREMONY_STATE", Some("DONE")));
        while table.view.state != CeremonyState::Closed {
            table.step(&mut hands).await;
        }
    }
    kept.sort_unstable();
    kept.dedup();
    kept
}

#[tokio::test]
async fn whoever_ends_a_ceremony_at_whatever_step_leaves_nothing_but_a_signed_end() {
    let mut table = Table::set(GENERATE).await;
    // The key set id is as free as it was, each time.
    let other = GENERATE.replace("bdk", "bdl").replace("12345678", "22345678");
    let other = format!("{other}exportability = \"E\"\n");
    let kept = end_at_each_step(&mut table, &other).await;
    assert_eq!(kept, ["components", "given", "private"], "the control: it was there");
    let made = key(&table.service, "bdl").await.expect("the one that came to its end");
    let wrapping = shown(&component(3));
    let kept = end_at_each_step(&mut table, &import(&wrapping)).await;
    assert_eq!(kept, ["commitments", "components", "private"], "the control: it was there");
    let export = format!(
        "[export]\nkey = \"keys/bdl\"\ncheck_value = \"{}\"\nwrapping_key = \"keys/kek\"\n\
         wrapping_key_check_value = \"{wrapping}\"\n",
        HEXUPPER.encode(&made.check_value)
    );
    assert_eq!(end_at_each_step(&mut table, &export).await, [""; 0]);
    assert!(!table.view.product.is_empty(), "the key block of the one that came to its end");
    table.view = Table::create(&table.service, GENERATE).await;
    let value = deactivated(&mut table).await;
    let destroy = format!("[destroy]\nkey = \"keys/bdk/versions/1\"\ncheck_value = \"{value}\"\n");
    assert_eq!(end_at_each_step(&mut table, &destroy).await, [""; 0]);
    assert!(!table.view.product.is_empty(), "the certificate of the one that came to its end");
}

#[tokio::test]
async fn a_custodian_who_is_also_approver_is_refused() {
    let service = live(1, Vec::new()).await;
    let one = officer(&service, 1).await;
    // A person has one role: no policy has a custodian who is an officer too.
    let mut policy = one.get_policy().await.unwrap();
    let approver = policy.principals.iter().find(|known| known.name.ends_with("/officer-2"));
    let person = approver.unwrap().person.clone();
    let custodian = policy.principals.iter_mut().find(|known| known.name.ends_with("/custodian-1"));
    custodian.unwrap().person = person;
    let refusal = refused(one.set_policy(request_id(), &policy).await);
    assert_eq!(refusal.reason, "FIELD_INVALID");
    assert!(refusal.fields[0].1.contains("than the same person has elsewhere"), "{refusal}");
    // No plan has an officer among its custodians, and nobody is asked to approve one.
    let text = String::from_utf8(plan(GENERATE).canonical()).unwrap();
    let text = text.replace("custodian/custodian-2", "officer/officer-2");
    let planned: Plan = serde_json::from_str(&text).unwrap();
    let refusal = one.create_ceremony(request_id(), &planned.check().unwrap()).await;
    let refusal = refused(refusal);
    assert_eq!((refusal.reason.as_str(), refusal.fields[0].0.as_str()), ("FIELD_INVALID", "plan"));
    let waiting = one.approvals().list_approvals(ListApprovalsRequest::default()).await;
    assert!(answer(waiting).approvals.is_empty());
    // And no custodian approves.
    let asked = refused(one.create_ceremony(request_id(), &plan(GENERATE)).await);
    let custodian = Person::come(&service, "custodian-1").await.client;
    let name = asked.told("approval").unwrap().to_owned();
    let digest = asked.told("request_digest").unwrap();
    let vote = ApproveRequest {
        request_id: request_id(),
        name: name.clone(),
        request_digest: data_encoding::HEXLOWER.decode(digest.as_bytes()).unwrap(),
    };
    let refusal = status_of(custodian.approvals().approve(vote).await);
    assert_eq!(reason_of(&refusal), "POLICY_DENIED");
    let none = one.ceremonies().list_ceremonies(ListCeremoniesRequest::default()).await;
    assert!(answer(none).ceremonies.is_empty());
    // The control: an officer does.
    approve(&officer(&service, 2).await, &name).await.unwrap();
}

#[tokio::test]
async fn another_plan_another_custodian_or_another_length_comes_no_further() {
    let mut table = Table::set(&import(&shown(&component(3)))).await;
    let name = table.view.name.clone();
    let plan_digest = plan(GENERATE).digest().to_vec();
    let other = JoinCeremonyRequest { name, plan_digest };
    let refusal = status_of(table.people[0].client.ceremonies().join_ceremony(other).await);
    expect_field(&refusal, "plan_digest");
    let stranger = Person::come(&table.service, "custodian-3").await;
    let refusal = refused(stranger.client.join_ceremony(&table.view).await);
    assert_eq!((refusal.reason.as_str(), refusal.told("step")), ("CEREMONY_STATE", Some("join")));
    table.join().await;
    // Of the length of another algorithm: it is nobody's component of this key.
    let short = Component::from_bytes(Algorithm::Aes128, &[1; 16]).unwrap();
    let short = table.enter(0, short).await;
    table.enter(1, component(2)).await;
    let ended = refused(table.reveal(0, &short).await);
    assert_eq!(ended.reason, "CEREMONY_ABORTED");
    assert_eq!(ended.told("cause"), Some("component differs from its commitment"));
    assert_eq!(table.kept().await, [""; 0]);
    assert!(key(&table.service, "kek").await.is_none());
}
