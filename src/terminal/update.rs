//! New keys under the update key of those that serve: a re-key without a session.

use super::session::{ConfirmRequest, LoadedKey, Session};
use super::slots::Delivered;
use super::{Answer, Terminal, TerminalError, TransactionRequest};
use crate::activation::payload::{Confirm, Payload, Update, UpdateAnswer};
use crate::activation::update::{Renewal, RenewalKeys};
use crate::activation::{Role, Step, Transcript, confirmation};
use crate::crypto::rng::Rng;

impl Terminal {
    /// Asks for new keys under the update key of those that serve, which have to be AES keys. Asked
    /// again before the answer came, the same bytes.
    pub fn request_update(&mut self, rng: &dyn Rng) -> Result<TransactionRequest, TerminalError> {
        if let Some(request) = self.unanswered(Step::Update)? {
            return Ok(request);
        }
        let mut nonce = [0; 32];
        rng.fill(&mut nonce)?;
        let next = self.serving_engine()?.next_update()?;
        let next = next.ok_or(TerminalError::NoUpdateKey)?;
        let payload = Update { nonce }.encode();
        let request = self.open_exchange(Step::Update, payload, next.keys);
        if let Some(exchange) = &mut self.exchange {
            exchange.derivation_key = Some(next.derivation);
        }
        Ok(request)
    }

    /// Takes the new keys: verifies the answer, opens each block under the update key, checks each
    /// check value and loads the registers. A session that was under way is dead. The keys do not
    /// serve before they are confirmed, as those of a delivery.
    ///
    /// An answer that verifies ends the exchange, whatever its blocks are worth: the service
    /// answers the same request with the same blocks.
    pub fn accept_update(&mut self, answer: Answer<'_>) -> Result<Vec<LoadedKey>, TerminalError> {
        self.verify_answer(Step::Update, answer)?;
        let exchange = self.exchange.take().ok_or(TerminalError::OutOfStep)?;
        let derivation_key = exchange.derivation_key.ok_or(TerminalError::OutOfStep)?;
        let message = UpdateAnswer::parse(answer.payload)?;
        let activation = message.activation;
        self.activation = Some(activation.clone());
        let update_key = self.serving_engine()?.update_key()?;
        let update_key = update_key.ok_or(TerminalError::NoUpdateKey)?;
        let delivered = Delivered::open(self.suite, &update_key, &message.keys)?;
        let Update { nonce } = Update::parse(&exchange.request.payload)?;
        let renewal = Renewal {
            activation: &activation,
            nonce: &nonce,
            initial_key_id: message.keys.first().map_or(&[][..], |key| &key.initial_key_id),
        };
        let keys = renewal.confirmation_keys(&derivation_key);
        let RenewalKeys { service, terminal } = keys.map_err(|_| TerminalError::NoUpdateKey)?;

        let keys = delivered.confirmed();
        let payload = Confirm { activation: activation.clone(), keys }.encode();
        let transcript =
            Transcript::new().with(&exchange.request.payload).with(answer.payload).with(&payload);
        let mac = confirmation::mac(&terminal, (Role::Terminal, Step::Confirm), &transcript);
        let Delivered { engine, slots, loaded } = delivered;
        self.session = Session::Loaded {
            transcript,
            activation,
            engine,
            slots,
            confirm_service: service,
            request: ConfirmRequest { payload, mac },
        };
        Ok(loaded)
    }
}
