//! Plays one fault at one step, then lets the honest terminal go on.

use super::line::{BadLine, How, flip_bit};
use super::scene::{PlayError, Scene, Till};
use super::{At, Fault, Outcome, expected, memory};
use crate::activation::Step;
use crate::activation::parameters::Currency;
use crate::activation::payload::{self, CardData};
use crate::agreement::{Dukpt, Suite};
use crate::grpc::client::{ClientError, Line as _, Message, request_id};
use crate::grpc::proto;
use crate::pin::Pin;
use crate::terminal::Test;

/// A fault that was played at a step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Played {
    /// What went wrong.
    pub fault: Fault,
    /// Where.
    pub at: At,
    /// What the table says of it.
    pub expected: Outcome,
    /// What came of it.
    pub seen: Outcome,
}

impl Played {
    /// Whether it came as the table says.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        self.seen == self.expected
    }
}

/// Plays a fault at a step with a terminal of its own, and takes that terminal to a purchase
/// afterwards; none where the table knows no such cell, or the suite no such step.
pub async fn play(
    scene: &Scene<'_>,
    suite: Suite,
    fault: Fault,
    at: At,
) -> Result<Option<Played>, PlayError> {
    let Some(expected) = expected(fault, at) else { return Ok(None) };
    if at == At::Update && suite.dukpt() != Dukpt::Aes128 {
        return Ok(None);
    }
    let mut till = scene.enter(suite).await?;
    let cell = Cell { scene, suite, at };
    let seen = match fault {
        Fault::Replay => cell.over(&mut till, How::Twice).await?,
        Fault::DropReply => cell.over(&mut till, How::LoseOnce).await?,
        Fault::Alter => cell.over(&mut till, How::AlterMessage).await?,
        Fault::AlterReply => cell.over(&mut till, How::AlterReply).await?,
        Fault::Reorder => cell.reorder(&mut till).await?,
        Fault::OldTranscript => cell.old_transcript(&mut till).await?,
        Fault::LoseState => cell.lose_state(&mut till).await?,
        Fault::OldMemory => cell.old_memory(&mut till).await?,
        Fault::StolenCode => cell.stolen_code(&mut till).await?,
        Fault::DeniedDevice => cell.denied_device(&mut till).await?,
        Fault::OtherCertificate => cell.other_device(&mut till).await?,
        Fault::RolledBackParameters => cell.rolled_back(&mut till).await?,
    };
    let renew = fault == Fault::LoseState && cell.new_way(&mut till).await?;
    scene.finish(&mut till, renew).await?;
    Ok(Some(Played { fault, at, expected, seen }))
}

/// Where a fault is played.
struct Cell<'a, 'b> {
    scene: &'a Scene<'b>,
    suite: Suite,
    at: At,
}

impl Cell<'_, '_> {
    /// The step over a bad line.
    async fn over(&self, till: &mut Till, how: How) -> Result<Outcome, PlayError> {
        self.scene.bring(till, self.at).await?;
        if self.at == At::Purchase {
            return self.purchase_over(till, how).await;
        }
        let mut line = BadLine::new(self.scene.client, how);
        let mut came = self.scene.step(till, &mut line, self.at).await;
        if how == How::LoseOnce {
            came = self.scene.step(till, &mut line, self.at).await;
        }
        match how {
            How::Twice | How::LoseOnce if came.is_ok() && line.replies_are_one() => {
                Ok(Outcome::SameAnswer)
            }
            _ => seen(came),
        }
    }

    /// A purchase whose message comes twice, or altered.
    async fn purchase_over(&self, till: &mut Till, how: How) -> Result<Outcome, PlayError> {
        let mut payment = self.scene.pay(till)?;
        if how == How::AlterMessage {
            flip_bit(&mut payment.mac);
            return seen(self.scene.settle(&payment).await);
        }
        self.scene.settle(&payment).await?;
        self.scene.settle(&payment).await?;
        Ok(Outcome::SameAnswer)
    }

    /// The step out of its turn.
    async fn reorder(&self, till: &mut Till) -> Result<Outcome, PlayError> {
        let (scene, client) = (self.scene, &mut self.scene.client.clone());
        match self.at {
            At::Begin => {
                scene.bring(till, At::Parameters).await?;
                let mut early = till.copy()?;
                seen(scene.step(&mut early, client, At::Begin).await)
            }
            At::Deliver => {
                scene.bring(till, At::Deliver).await?;
                let mut late = till.copy()?;
                scene.step(till, client, At::Deliver).await?;
                scene.step(till, client, At::Confirm).await?;
                seen(scene.step(&mut late, client, At::Deliver).await)
            }
            At::Parameters => {
                scene.bring(till, At::Confirm).await?;
                let terminal = memory::unconfirmed(&till.terminal)?;
                let mut early = Till { terminal, ..till.copy()? };
                seen(scene.step(&mut early, client, At::Parameters).await)
            }
            At::Report => {
                scene.bring(till, At::Parameters).await?;
                let outcome = payload::Outcome::Applied([0; 32]);
                let report = till.terminal.report(Step::Parameters, outcome)?;
                let sent = client.send(Message::report(till.activation(), report)).await;
                till.terminal.abandon_exchange();
                seen(sent.map(|_| ()).map_err(ClientError::from))
            }
            At::Test => {
                scene.bring(till, At::Parameters).await?;
                let sent = client.send(self.early_test(till)?).await;
                till.terminal.abandon_exchange();
                seen(sent.map(|_| ()).map_err(ClientError::from))
            }
            At::Purchase => {
                scene.bring(till, At::Test).await?;
                scene.step(till, client, At::Test).await?;
                seen(scene.purchase(till).await)
            }
            At::Update => {
                scene.bring(till, At::Purchase).await?;
                seen(scene.step(till, client, At::Update).await)
            }
            At::Confirm => Err(PlayError::Otherwise("a Confirm comes after its keys")),
        }
    }

    /// A test transaction of a terminal that knows no limits yet.
    fn early_test(&self, till: &mut Till) -> Result<Message, PlayError> {
        let wrong = PlayError::Otherwise("the test card is none");
        let test = Test {
            card: CardData::new("4111111111111111", "4912").ok_or(wrong)?,
            pin: &Pin::parse("1234").map_err(|_| PlayError::Otherwise("the PIN is none"))?,
            amount_minor: 100,
            currency: Currency::new("EUR").ok_or(PlayError::Otherwise("EUR is no currency"))?,
        };
        let request = till.terminal.test_transaction(test, self.scene.rng)?;
        Ok(Message::exchange(Step::Test, request))
    }

    /// What was made for a session or a counter before.
    async fn old_transcript(&self, till: &mut Till) -> Result<Outcome, PlayError> {
        let (scene, client) = (self.scene, &mut self.scene.client.clone());
        if self.at == At::Purchase {
            scene.bring(till, At::Purchase).await?;
            let old = scene.pay(till)?;
            let mut new = scene.pay(till)?;
            new.mac = old.mac;
            return seen(scene.settle(&new).await);
        }
        scene.bring(till, self.at).await?;
        let mut line = BadLine::new(scene.client, How::Hold);
        let old = match self.at {
            At::Begin | At::Deliver | At::Confirm => {
                // It is made and never arrives; the terminal begins anew and comes as far again.
                let held = scene.step(till, &mut line, self.at).await;
                let code = Some(till.code()?);
                till.terminal.begin(code, scene.rng, (scene.now)())?;
                for step in At::ALL.iter().copied().take_while(|step| *step != self.at) {
                    scene.step(till, client, step).await?;
                }
                if self.at == At::Begin {
                    scene.step(till, client, At::Begin).await?;
                }
                held_back(&held, line)?
            }
            At::Parameters | At::Report | At::Test | At::Update => {
                // It arrives and is answered, and comes once more after the next exchange.
                let mut line = BadLine::new(scene.client, How::Twice);
                scene.step(till, &mut line, self.at).await?;
                let next = if self.at == At::Parameters { At::Report } else { At::Parameters };
                scene.step(till, client, next).await?;
                line.messages.swap_remove(0)
            }
            At::Purchase => return Err(PlayError::Otherwise("a purchase has no line")),
        };
        seen(client.send(old).await.map(|_| ()).map_err(ClientError::from))
    }

    /// The device as from the factory: it begins again.
    async fn lose_state(&self, till: &mut Till) -> Result<Outcome, PlayError> {
        self.scene.bring(till, self.at).await?;
        till.terminal = memory::lost(&till.terminal)?;
        seen(self.scene.step(till, &mut self.scene.client.clone(), At::Begin).await)
    }

    /// What the backend does for a device that lost confirmed keys; whether it had to.
    async fn new_way(&self, till: &mut Till) -> Result<bool, PlayError> {
        match self.at {
            At::Begin | At::Deliver | At::Confirm | At::Update => return Ok(false),
            At::Parameters | At::Report | At::Test => {
                let (request_id, name) = (request_id(), till.name.clone());
                let cause = "the device lost its memory".to_owned();
                let request = proto::CancelActivationRequest { request_id, name, cause };
                self.scene.client.terminals().cancel_activation(request).await?;
                self.scene.issue_code(till).await?;
            }
            At::Purchase => self.scene.start_rekey(till, false).await?,
        }
        till.terminal = memory::lost(&till.terminal)?;
        Ok(true)
    }

    /// The memory of before the step, after the step.
    async fn old_memory(&self, till: &mut Till) -> Result<Outcome, PlayError> {
        let (scene, client) = (self.scene, &mut self.scene.client.clone());
        scene.bring(till, self.at).await?;
        let mut old = till.copy()?;
        scene.step(till, client, self.at).await?;
        let came = scene.step(&mut old, client, self.at).await;
        // A report has nothing new in it: the very message that was answered before.
        if self.at == At::Report && came.is_ok() { Ok(Outcome::SameAnswer) } else { seen(came) }
    }

    /// Another genuine device, registered too, that shows this terminal's code.
    async fn stolen_code(&self, till: &mut Till) -> Result<Outcome, PlayError> {
        self.scene.bring(till, self.at).await?;
        let before = self.scene.get(till).await?;
        let mut thief = self.scene.enter(self.suite).await?;
        thief.code.clone_from(&till.code);
        let came = self.scene.step(&mut thief, &mut self.scene.client.clone(), At::Begin).await;
        if self.scene.get(till).await? != before {
            return Err(PlayError::Otherwise("a thief changed the terminal of another"));
        }
        seen(came)
    }

    /// The device is denied for the time of the step.
    async fn denied_device(&self, till: &mut Till) -> Result<Outcome, PlayError> {
        let scene = self.scene;
        scene.bring(till, self.at).await?;
        let (serial, cause) = (till.serial.clone(), "reported stolen".to_owned());
        let request = proto::DenyDeviceRequest { request_id: request_id(), serial, cause };
        scene.client.trust().deny_device(request).await?;
        let came = seen(scene.step(till, &mut scene.client.clone(), self.at).await);
        let request =
            proto::AllowDeviceRequest { request_id: request_id(), serial: till.serial.clone() };
        scene.client.trust().allow_device(request).await?;
        came
    }

    /// The step as another device proves it.
    async fn other_device(&self, till: &mut Till) -> Result<Outcome, PlayError> {
        let scene = self.scene;
        scene.bring(till, self.at).await?;
        let mut other = scene.enter(self.suite).await?;
        if self.at == At::Begin {
            other.terminal = memory::renamed(&other.terminal, &till.serial)?;
            other.code.clone_from(&till.code);
            return seen(scene.step(&mut other, &mut scene.client.clone(), At::Begin).await);
        }
        scene.bring(&mut other, self.at).await?;
        if self.at == At::Purchase {
            let (mut ours, theirs) = (scene.pay(till)?, scene.pay(&mut other)?);
            (ours.message, ours.mac) = (theirs.message, theirs.mac);
            return seen(scene.settle(&ours).await);
        }
        let mut line = BadLine::new(scene.client, How::Hold);
        let held = scene.step(&mut other, &mut line, self.at).await;
        let theirs = held_back(&held, line)?;
        let ksn = match till.terminal.next_ksn() {
            Ok(ksn) if !theirs.ksn.is_empty() => ksn.bytes().to_vec(),
            _ => Vec::new(),
        };
        let activation = match theirs.activation.as_str() {
            "" => String::new(),
            _ => till.activation().to_owned(),
        };
        let forged = Message { activation, ksn, ..theirs };
        let sent = scene.client.clone().send(forged).await;
        seen(sent.map(|_| ()).map_err(ClientError::from))
    }

    /// A terminal that has applied a later file than the service sends.
    async fn rolled_back(&self, till: &mut Till) -> Result<Outcome, PlayError> {
        let scene = self.scene;
        scene.bring(till, self.at).await?;
        let mut other = scene.enter(self.suite).await?;
        scene.bring(&mut other, At::Report).await?;
        till.terminal = memory::ahead(&till.terminal, &other.terminal)?;
        let came = seen(scene.step(till, &mut scene.client.clone(), self.at).await);
        till.terminal = memory::without_parameters(&till.terminal)?;
        came
    }
}

/// The message that a line held back: the step ended without a reply.
fn held_back(held: &Result<(), ClientError>, line: BadLine<'_>) -> Result<Message, PlayError> {
    let message = line.messages.into_iter().next_back().filter(|_| held.is_err());
    message.ok_or(PlayError::Otherwise("nothing was held back"))
}

/// What came of a step that something happened to.
fn seen(came: Result<(), ClientError>) -> Result<Outcome, PlayError> {
    match came {
        Ok(()) => Ok(Outcome::Served),
        Err(ClientError::Refused(refusal)) if !refusal.reason.is_empty() => {
            Ok(Outcome::Refused(refusal.reason))
        }
        Err(ClientError::Terminal(error)) => match error.fault() {
            Some(fault) => Ok(Outcome::Distrusted(fault.as_str().to_owned())),
            None => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}
