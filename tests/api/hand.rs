//! A terminal whose messages a test writes by hand: valid proofs of what no terminal would say.

use firstkey::activation::confirmation;
use firstkey::activation::parameters::Currency;
use firstkey::activation::payload::{
    ActivationName, BeginAnswer, CardData, Confirm, ConfirmedKey, Deliver, DeliverAnswer, Payload,
    PinBlockFormat as SentFormat, TestTransaction, TestTransactionAnswer,
};
use firstkey::activation::{Role, Step, Transcript};
use firstkey::agreement::{Agreement, Dukpt, SessionKeys, Suite};
use firstkey::crypto::ec::EphemeralKey;
use firstkey::dukpt::{AesInitialKeyId, TdesInitialKeyId};
use firstkey::grpc::client::Refusal;
use firstkey::keyblock;
use firstkey::mac::MacAlgorithm;
use firstkey::pin::{self, Fill, Pan, Pin, PinBlockFormat};
use firstkey::terminal::{ConfirmRequest, Engine, TransactionKeys, TransactionRequest};

use crate::harness::{CARD_PAN, CARD_PIN, Service, Till};

/// A terminal after its keys were delivered, with everything that it knows laid open.
pub(crate) struct Hand {
    pub(crate) till: Till,
    pub(crate) activation: ActivationName,
    pub(crate) check_value: Vec<u8>,
    pub(crate) initial_key_id: Vec<u8>,
    suite: Suite,
    transcript: Transcript,
    agreed: SessionKeys,
    engine: Engine,
}

impl Hand {
    /// Registers a terminal and takes it through steps 3 and 4.
    pub(crate) async fn take_keys(service: &Service, id: &str, suite: Suite) -> Self {
        let mut till = service.register(id, suite).await;
        let code = service.issue_code(id).await;
        let begin =
            till.terminal.begin(Some(code), &service.rng, service.device_time()).expect("a begin");
        let answer = service.send_begin(&begin).await.expect("it begins");
        let activation = BeginAnswer::parse(&answer.payload).expect("an answer").activation;
        let transcript = Transcript::new().with(&begin.payload).with(&answer.payload);

        let ephemeral = EphemeralKey::generate().expect("randomness");
        let device_ephemeral = ephemeral.public();
        let deliver =
            Deliver { activation: activation.clone(), device_ephemeral: Some(device_ephemeral) }
                .encode();
        let deliver = till.signed(&transcript, deliver, Step::Deliver);
        let transcript = transcript.with(&deliver.payload);
        let sent = service.send_deliver(activation.as_str(), &deliver).await.expect("keys");
        let answer = DeliverAnswer::parse(&sent.payload).expect("an answer");
        let service_ephemeral = answer.service_ephemeral.expect("an ephemeral key");
        let agreed = Agreement {
            suite,
            transcript_hash: &transcript.hash(),
            device_ephemeral: &device_ephemeral,
            service_ephemeral: &service_ephemeral,
        }
        .derive(ephemeral.agree(&service_ephemeral));
        let [key] = answer.keys.as_slice() else { panic!("one key is delivered") };
        let opened = keyblock::unwrap(&agreed.key_block_protection, &key.key_block);
        let material = opened.expect("the block opens").material;
        let id = &key.initial_key_id;
        let engine = match suite.dukpt() {
            Dukpt::Aes128 => {
                Engine::load_aes(&material, AesInitialKeyId::parse(id).expect("an id"))
            }
            Dukpt::Tdes2 => {
                Engine::load_tdes(&material, TdesInitialKeyId::parse(id).expect("an id"))
            }
        };
        Self {
            till,
            activation,
            check_value: key.check_value.clone(),
            initial_key_id: id.clone(),
            suite,
            transcript: transcript.with(&sent.payload),
            agreed,
            engine: engine.expect("the key loads"),
        }
    }

    /// A confirmation with a valid MAC, of whatever keys.
    pub(crate) fn confirmation(&self, keys: Vec<ConfirmedKey>) -> ConfirmRequest {
        let payload = Confirm { activation: self.activation.clone(), keys }.encode();
        let transcript = self.transcript.with(&payload);
        let key = &self.agreed.confirm_terminal;
        let mac = confirmation::mac(key, (Role::Terminal, Step::Confirm), &transcript);
        ConfirmRequest { payload, mac }
    }

    /// What a terminal confirms that loaded what it was sent.
    pub(crate) fn loaded(&self) -> Vec<ConfirmedKey> {
        vec![ConfirmedKey { slot: 0, check_value: self.check_value.clone() }]
    }

    /// Registers a terminal and takes it through steps 3 to 6.
    pub(crate) async fn with_parameters(service: &Service, id: &str, suite: Suite) -> Self {
        let mut hand = Self::take_keys(service, id, suite).await;
        let name = hand.activation.as_str().to_owned();
        let confirm = hand.confirmation(hand.loaded());
        service.send_confirm(&name, &confirm).await.expect("keys are confirmed");

        let wanted =
            firstkey::activation::payload::ParametersRequest { known_version: 0, nonce: [7; 32] };
        let keys = hand.next_keys();
        let request = hand.exchange(&keys, Step::Parameters, wanted.encode());
        let sent = service.send_parameters(&request).await.expect("parameters");
        let answer = firstkey::activation::payload::ParametersAnswer::parse(&sent.payload);
        let digest = answer.expect("an answer").parameters.digest();
        let report = firstkey::activation::payload::Report {
            activation: hand.activation.clone(),
            step: Step::Parameters,
            outcome: firstkey::activation::payload::Outcome::Applied(digest),
        };
        let keys = hand.next_keys();
        let request = hand.exchange(&keys, Step::Report, report.encode());
        let report = firstkey::terminal::ReportRequest::Transaction(request);
        service.send_report(&name, &report).await.expect("the report is taken");
        hand
    }

    /// The keys of the next transaction.
    pub(crate) fn next_keys(&mut self) -> TransactionKeys {
        self.engine.next_transaction().expect("counters are left")
    }

    /// A payload under the MAC of a transaction.
    pub(crate) fn exchange(
        &self,
        keys: &TransactionKeys,
        step: Step,
        payload: Vec<u8>,
    ) -> TransactionRequest {
        let input = Transcript::new().with(&payload).authenticated_input(Role::Terminal, step);
        let algorithm = match self.suite.dukpt() {
            Dukpt::Aes128 => MacAlgorithm::AesCmac,
            Dukpt::Tdes2 => MacAlgorithm::TdesCmac,
        };
        let mac = keys.mac_request.generate_mac(algorithm, &input, algorithm.len_bytes());
        let mac = mac.expect("a MAC").bytes().to_vec();
        TransactionRequest { ksn: keys.ksn.bytes().to_vec(), payload, mac }
    }

    /// A test transaction with nothing wrong in it, under the keys of a transaction.
    pub(crate) fn good_test(&self, service: &Service, keys: &TransactionKeys) -> TestTransaction {
        self.test_of(service, keys, CARD_PAN)
    }

    /// The same with any card.
    pub(crate) fn test_of(
        &self,
        service: &Service,
        keys: &TransactionKeys,
        card: &str,
    ) -> TestTransaction {
        let pan = Pan::parse(card).expect("a PAN");
        let pin = Pin::parse(CARD_PIN).expect("a PIN");
        let (format, sent) = match self.suite.dukpt() {
            Dukpt::Aes128 => (PinBlockFormat::Iso4, SentFormat::Iso4),
            Dukpt::Tdes2 => (PinBlockFormat::Iso3, SentFormat::Iso3),
        };
        let fill = Fill::draw(&service.rng).expect("randomness");
        let block = pin::encipher(&keys.pin, format, &pin, &pan, &fill).expect("a PIN block");
        TestTransaction {
            number: 1,
            amount_minor: 100,
            currency: Currency::new("EUR").expect("a currency"),
            card: CardData::new(card, "4912").expect("a card"),
            pin_block: block.bytes().to_vec(),
            pin_block_format: sent,
        }
    }

    /// Sends a test transaction that differs from a good one; the checks that failed.
    pub(crate) async fn test(
        &mut self,
        service: &Service,
        change: impl FnOnce(&mut TestTransaction),
    ) -> Result<Vec<&'static str>, Refusal> {
        let keys = self.next_keys();
        let mut test = self.good_test(service, &keys);
        change(&mut test);
        let request = self.exchange(&keys, Step::Test, test.encode());
        let answer = service.send_test(&request).await?;
        let answer = TestTransactionAnswer::parse(&answer.payload).expect("an answer");
        let failed = answer.verdicts.iter().filter(|verdict| !verdict.passed);
        Ok(failed.map(|verdict| verdict.check.as_str()).collect())
    }
}
