//! The line of one terminal and of the backend behind it: measures each call, and loses replies.

use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::{Code, Response, Status};

use super::{Fleet, Order};
use crate::activation::Step;
use crate::crypto::digest;
use crate::grpc::client::{Client, ClientError, Line, Message, Reply, Replying, lost};

/// How often the same request goes out at most: beyond this it is no luck.
const TRIES: u32 = 100;

/// What was measured of the calls of one name.
#[derive(Default)]
pub(super) struct Measured {
    /// How long each took, in microseconds, whether its reply was lost or not.
    pub(super) took_us: Vec<u64>,
    /// How many repeat one before, whose reply was lost or which could not be served.
    pub(super) retries: u64,
}

/// A line that loses replies.
pub(super) struct Wire {
    client: Client,
    stopwatch: Arc<dyn Fn() -> u64 + Send + Sync>,
    luck: Luck,
    /// What the terminal waits for in vain; it must send that very message again.
    unanswered: Option<Message>,
    /// What was measured, by the name of the call.
    pub(super) calls: BTreeMap<&'static str, Measured>,
    /// The replies that were lost on purpose.
    pub(super) lost: u64,
    /// The call that was made last; before the first, that of the registration.
    pub(super) last: &'static str,
    /// Whether a message was repeated with other bytes.
    pub(super) is_altered: bool,
}

impl Wire {
    pub(super) fn new(fleet: &Fleet, number: u32) -> Self {
        Self {
            client: fleet.client.clone(),
            stopwatch: Arc::clone(&fleet.stopwatch),
            luck: Luck { order: fleet.order, number, draws: 0 },
            unanswered: None,
            calls: BTreeMap::new(),
            lost: 0,
            last: "BatchCreateTerminals",
            is_altered: false,
        }
    }

    /// Makes a call of the backend until its reply arrives.
    pub(super) async fn call<Q, A, F>(
        &mut self,
        call: &'static str,
        request: Q,
        make: impl Fn(Client, Q) -> F,
    ) -> Result<A, ClientError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut answer = Err(lost());
        for try_number in 0..TRIES {
            let sent = make(self.client.clone(), request.clone());
            answer = self.carry(call, try_number > 0, sent).await.map(Response::into_inner);
            match &answer {
                Err(status) if is_worth_repeating(status.code()) => {}
                Ok(_) | Err(_) => break,
            }
        }
        Ok(answer?)
    }

    /// Lets a call happen, and loses its reply where luck will have it.
    async fn carry<T>(
        &mut self,
        call: &'static str,
        is_retry: bool,
        sent: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        self.last = call;
        let began = (self.stopwatch)();
        let answer = sent.await;
        let took_us = (self.stopwatch)().saturating_sub(began);
        let measured = self.calls.entry(call).or_default();
        measured.took_us.push(took_us);
        measured.retries += u64::from(is_retry);
        if self.luck.loses() {
            self.lost += 1;
            return Err(lost());
        }
        answer
    }

    async fn send_message(&mut self, message: Message) -> Result<Reply, Status> {
        let before = self.unanswered.take();
        let before = before.filter(|before| before.step == message.step);
        self.is_altered |= before.as_ref().is_some_and(|before| *before != message);
        let mut client = self.client.clone();
        let sent = client.send(message.clone());
        let reply = self.carry(call_of(message.step), before.is_some(), sent).await;
        if reply.as_ref().is_err_and(|status| is_worth_repeating(status.code())) {
            self.unanswered = Some(message);
        }
        reply
    }
}

impl Line for Wire {
    fn send(&mut self, message: Message) -> Replying<'_> {
        Box::pin(self.send_message(message))
    }
}

/// Whether the same bytes may fare better: the reply was lost, or the service could not serve.
pub(super) const fn is_worth_repeating(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Aborted)
}

/// The call that carries a message.
const fn call_of(step: Step) -> &'static str {
    match step {
        Step::Begin => "BeginActivation",
        Step::Deliver => "DeliverKeys",
        Step::Confirm => "ConfirmKeys",
        Step::Parameters => "GetParameters",
        Step::Report => "ReportStep",
        Step::Test => "RunTestTransaction",
        Step::Update => "UpdateKeys",
    }
}

/// Decides which replies are lost: of the same seed, for the same terminal, always the same.
struct Luck {
    order: Order,
    number: u32,
    draws: u32,
}

impl Luck {
    fn loses(&mut self) -> bool {
        let parts = [self.order.seed, self.number, self.draws].map(u32::to_be_bytes);
        self.draws = self.draws.wrapping_add(1);
        let [high, low, ..] = digest::sha256(&[parts.as_flattened()]);
        u16::from_be_bytes([high, low]) % 100 < u16::from(self.order.lose_percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(seed: u32, lose_percent: u8) -> Vec<bool> {
        let order = Order { terminals: 1, concurrency: 1, lose_percent, transactions: 0, seed };
        let mut luck = Luck { order, number: 1, draws: 0 };
        (0..2_000).map(|_| luck.loses()).collect()
    }

    #[test]
    fn luck_follows_the_seed_and_loses_about_as_many_as_it_shall() {
        let count = |losses: Vec<bool>| losses.into_iter().filter(|lost| *lost).count();
        assert_eq!(losses(7, 5), losses(7, 5));
        assert_ne!(losses(7, 5), losses(8, 5));
        assert_eq!(count(losses(7, 0)), 0);
        assert!((60..=140).contains(&count(losses(7, 5))));
    }
}
