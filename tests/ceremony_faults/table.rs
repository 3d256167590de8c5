//! Two custodians and a witness who do one step after the other, whatever becomes of the service,
//! with nothing at hand but what their tools would have.

use std::thread::JoinHandle;
use std::time::Duration;

use firstkey::command::ceremony::custodian::{Custodian, Signed};
use firstkey::command::ceremony::plan::{Plan, Planned};
use firstkey::command::ceremony::step::{Act, Actor, Step};
use firstkey::command::ceremony::verify::{Authorities, Verified, verify};
use firstkey::component::Component;
use firstkey::crypto::certificate::certificates_from_pem;
use firstkey::crypto::ec::SigningKey;
use firstkey::crypto::hpke::RecipientKey;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::{CeremonyView, Client, ClientError, Committed, request_id};
use firstkey::grpc::proto::{
    ApproveRequest, GetCheckpointRequest, GetKeyRequest, Key, TakeComponentRequest,
};
use firstkey::key::Algorithm;
use firstkey::vault::VerifierKey;

use crate::service::Service;

pub(crate) const CUSTODIANS: usize = 2;

/// The table, and the service across it.
pub(crate) struct Table {
    pub(crate) service: Service,
    pub(crate) view: CeremonyView,
    /// What custodians bring.
    pub(crate) brought: Vec<Vec<u8>>,
    /// What custodians were given, on their slips.
    pub(crate) slips: Vec<Option<Component>>,
    /// The keys that slips were asked for with.
    asked: Vec<Option<(RecipientKey, Signed)>>,
    committed: Vec<Option<Committed>>,
    /// After how long the service is killed in the next step.
    pub(crate) kill_after: Option<Duration>,
    killer: Option<JoinHandle<()>>,
}

pub(crate) fn plan(table: &str) -> Planned {
    let people = "custodians = [\"spiffe://dev.firstkey.internal/custodian/custodian-1\", \
         \"spiffe://dev.firstkey.internal/custodian/custodian-2\"]\n\
         witness = \"spiffe://dev.firstkey.internal/auditor/auditor-1\"\n";
    let plan: Plan = toml::from_str(&format!("title = \"Test\"\n{people}{table}")).unwrap();
    plan.check().unwrap()
}

impl Table {
    pub(crate) async fn set(service: Service, table: &str) -> Self {
        let view = create(&service, table).await;
        let none = || (0..CUSTODIANS).map(|_| None).collect();
        let (slips, committed) = (none(), (0..CUSTODIANS).map(|_| None).collect());
        let asked = (0..CUSTODIANS).map(|_| None).collect();
        Self {
            service,
            view,
            brought: Vec::new(),
            slips,
            asked,
            committed,
            kill_after: None,
            killer: None,
        }
    }

    /// The next ceremony at the same table.
    pub(crate) async fn next(self, table: &str) -> Self {
        Self::set(self.service, table).await
    }

    /// How it stands, as the service says.
    pub(crate) async fn look(&mut self) {
        self.try_to_look().await.unwrap();
    }

    /// The same at a service that may not answer.
    pub(crate) async fn try_to_look(&mut self) -> Result<(), ClientError> {
        let (witness, _) = self.service.person("auditor-1").await;
        self.view = witness.ceremony(&self.view.name).await?;
        Ok(())
    }

    /// The step that is awaited; none at its end.
    pub(crate) fn awaited(&self) -> Option<Step> {
        self.view.planned.steps().get(self.view.steps_done).copied()
    }

    /// Does the step that is awaited, as whoever has it.
    pub(crate) async fn step(&mut self) -> Result<(), ClientError> {
        let Step { act, actor } = self.awaited().expect("a step is awaited");
        let (who, number) = match actor {
            Actor::Custodian(number) => (format!("custodian-{number}"), number),
            Actor::Witness => ("auditor-1".to_owned(), 0),
        };
        let (client, signer) = self.service.person(&who).await;
        self.killer = self.kill_after.take().map(|delay| self.service.kill_after(delay));
        let place = usize::from(number).saturating_sub(1);
        let (by, rng) = ((number, &signer), SystemRng::new());
        self.view = match act {
            Act::Confirm => {
                client.confirm_ceremony(&self.view, &self.view.check_value.clone()).await?
            }
            Act::Enter => {
                let algorithm = self.view.algorithm().unwrap();
                let component = Component::from_bytes(algorithm, &self.brought[place]).unwrap();
                let entered = client.enter_component(&self.view, by, component, &rng).await;
                let (view, committed) = entered?;
                self.committed[place] = Some(committed);
                view
            }
            Act::Join => client.join_ceremony(&self.view).await?,
            Act::ReadBack => {
                if self.slips[place].is_none() {
                    // The answer was lost: the same key gets the same slip.
                    self.take(&client, place, &signer).await?;
                }
                let slip = self.slips[place].as_ref().unwrap();
                client.read_back_component(&self.view, by, slip, &rng).await?
            }
            Act::Reveal => match &self.committed[place] {
                Some(committed) => client.reveal_component(&self.view, committed).await?,
                // What was typed is lost with the answer: all type again.
                None => client.restart_entry(&self.view).await?,
            },
            Act::Sign => client.sign_ceremony(&self.view, &signer).await?,
            Act::Take => {
                self.take(&client, place, &signer).await?;
                client.ceremony(&self.view.name).await?
            }
        };
        Ok(())
    }

    /// Waits until the service that is to be killed is gone, and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.killer.take().into_iter().for_each(|killer| killer.join().unwrap());
        self.service.restart();
        self.look().await;
    }

    /// Whether what was typed is lost, so that all type again.
    pub(crate) fn types_again(&self) -> bool {
        let Some(Step { act: Act::Reveal, actor: Actor::Custodian(number) }) = self.awaited()
        else {
            return false;
        };
        self.committed[usize::from(number) - 1].is_none()
    }

    async fn take(
        &mut self,
        client: &Client,
        place: usize,
        signer: &SigningKey,
    ) -> Result<(), ClientError> {
        let digest = self.view.planned.digest();
        let custodian = Custodian {
            ceremony: &self.view.name,
            digest: &digest,
            number: u8::try_from(place + 1).unwrap(),
            algorithm: self.view.algorithm().unwrap(),
            signer,
        };
        let (key, asked) = self.asked[place]
            .get_or_insert_with(|| custodian.ask_for_slip(&SystemRng::new()).unwrap());
        let request = TakeComponentRequest {
            name: self.view.name.clone(),
            recipient_key: asked.sent.clone(),
            signature: asked.signature.to_vec(),
        };
        let envelope = client.ceremonies().take_component(request).await?.into_inner().envelope;
        self.slips[place] = Some(custodian.open_slip(key, &envelope).unwrap());
        Ok(())
    }

    /// The key of the audit log, in words.
    pub(crate) async fn log_key(&self) -> String {
        let (auditor, _) = self.service.person("auditor-1").await;
        let told = auditor.audit().get_checkpoint(GetCheckpointRequest::default()).await.unwrap();
        told.into_inner().verifier_key
    }

    /// What the transcript proves, by itself.
    pub(crate) async fn verified(&self) -> Verified {
        let admin = self.service.read("data/dev-tls/authorities/admin.crt");
        let text = self.view.transcript.lines().join("\n");
        let authorities = certificates_from_pem(&admin).unwrap();
        let log_key = VerifierKey::parse(&self.log_key().await).unwrap();
        verify(&text, &log_key, Authorities::of(&authorities)).unwrap()
    }

    /// A key, if there is one.
    pub(crate) async fn key(&self, name: &str) -> Option<Key> {
        let (officer, _) = self.service.person("officer-1").await;
        let found = officer.keys().get_key(GetKeyRequest { name: name.to_owned() }).await;
        found.ok().and_then(|found| found.into_inner().key)
    }
}

async fn create(service: &Service, table: &str) -> CeremonyView {
    let (planned, id) = (plan(table), request_id());
    let (one, two) = (service.person("officer-1").await.0, service.person("officer-2").await.0);
    let Err(ClientError::Refused(asked)) = one.create_ceremony(id.clone(), &planned).await else {
        panic!("it waits for approval");
    };
    approve(&two, &asked).await;
    one.create_ceremony(id, &planned).await.unwrap()
}

/// Approves what was asked for.
pub(crate) async fn approve(officer: &Client, asked: &firstkey::grpc::client::Refusal) {
    let digest = asked.told("request_digest").unwrap();
    let request = ApproveRequest {
        request_id: request_id(),
        name: asked.told("approval").unwrap().to_owned(),
        request_digest: data_encoding::HEXLOWER.decode(digest.as_bytes()).unwrap(),
    };
    officer.approvals().approve(request).await.unwrap();
}

/// Components of a key that is brought, and the plan to bring it.
pub(crate) fn import(id: &str) -> (Vec<Vec<u8>>, String) {
    let rng = SystemRng::new();
    let drawn: Vec<Component> =
        (0..CUSTODIANS).map(|_| Component::generate(Algorithm::Aes256, &rng).unwrap()).collect();
    let octets = |component: &Component| octets_of(component);
    let brought: Vec<Vec<u8>> = drawn.iter().map(octets).collect();
    let values: Vec<String> = drawn.iter().map(|one| one.check_value().to_string()).collect();
    let made = sum(&brought).check_value().to_string();
    let plan = format!(
        "[import]\ncheck_value = \"{made}\"\ncomponent_check_values = {values:?}\n\
         [import.key]\nid = \"{id}\"\nusage = \"K0\"\nalgorithm = \"AES256\"\n"
    );
    (brought, plan)
}

/// What stands on a slip.
pub(crate) fn octets_of(component: &Component) -> Vec<u8> {
    let rows = component.write();
    let digits: String = rows.lines().map(|row| row.text[..19].replace(' ', "")).collect();
    data_encoding::HEXUPPER.decode(digits.as_bytes()).unwrap()
}

/// What components make.
pub(crate) fn sum(components: &[Vec<u8>]) -> Component {
    let mut sum = vec![0; Algorithm::Aes256.len_bytes()];
    for component in components {
        sum.iter_mut().zip(component).for_each(|(sum, octet)| *sum ^= octet);
    }
    Component::from_bytes(Algorithm::Aes256, &sum).unwrap()
}
