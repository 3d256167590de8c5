//! The service, as far as a terminal sees it.

use super::super::*;
use crate::activation::confirmation;
use crate::activation::parameters::AcquirerId;
use crate::activation::payload::{
    Begin, BeginAnswer, CertificateChain, Confirm, ConfirmAnswer, Deliver, DeliverAnswer,
    DeliveredKey, Network, Payload, Readiness, Serial, Shown,
};
use crate::activation::{Role, Step, Transcript};
use crate::agreement::{Agreement, Dukpt, MasterKey, SessionKeys};
use crate::crypto::certificate::authority::{Authority, Validity};
use crate::crypto::certificate::signing_request;
use crate::crypto::ec::{self, EphemeralKey, Point, SigningKey};
use crate::crypto::rng::SystemRng;
use crate::dukpt::{
    AesInitialKey, AesInitialKeyId, AesKsn, KeyKind, TdesInitialKey, TdesInitialKeyId, TdesKsn,
};
use crate::key::usage::{InitialDukpt, MacGeneration, MacVerification, PinEncryption};
use crate::key::{Algorithm, Key, Material};
use crate::keyblock::{self, Header, OptionalBlock, Version};
use exchange::mac_algorithm;

pub(super) const NOW: u64 = 1_795_392_000;
pub(super) const KEY: [u8; 16] = *b"fedcba9876543210";
pub(super) const PAN: &str = "4111111111111111";

/// The service, as far as a terminal sees it.
pub(super) struct Host {
    pub(super) suite: Suite,
    pub(super) key: SigningKey,
    pub(super) chain: CertificateChain,
    pub(super) acquirer: AcquirerId,
    pub(super) transcript: Transcript,
    begun: [u8; 32],
    pub(super) agreed: Option<SessionKeys>,
    pub(super) delivered: Vec<DeliveredKey>,
}

pub(super) struct Reply {
    pub(super) payload: Vec<u8>,
    pub(super) proof: Vec<u8>,
}

impl Reply {
    pub(super) fn answer(&self) -> Answer<'_> {
        Answer { payload: &self.payload, proof: &self.proof }
    }
}

pub(super) fn authority() -> Authority {
    Authority::new("root", Validity { not_before: NOW - 1_000, not_after: NOW + 1_000 }).unwrap()
}

pub(super) fn validity() -> Validity {
    Validity { not_before: NOW - 1_000, not_after: NOW + 1_000 }
}

impl Host {
    pub(super) fn new(suite: Suite, root: &Authority, organization: &str) -> Self {
        let key = SigningKey::generate().unwrap();
        let request = signing_request(&key, organization, "firstkey").unwrap();
        let leaf = root.issue_service_from_request(&request, organization, validity()).unwrap();
        Self {
            suite,
            key,
            chain: CertificateChain::new(vec![leaf]).unwrap(),
            acquirer: AcquirerId::new(organization).unwrap(),
            transcript: Transcript::new(),
            begun: [0; 32],
            agreed: None,
            delivered: Vec::new(),
        }
    }

    /// Proves an answer that ends the transcript: by its key, or under the master key.
    pub(super) fn prove(&mut self, payload: Vec<u8>, step: Step, device: &Device) -> Reply {
        self.transcript.absorb(&payload);
        if step == Step::Begin {
            self.begun = self.transcript.hash();
        }
        let proof = match &device.credential {
            Credential::Certificate(_) => {
                let input = self.transcript.authenticated_input(Role::Service, step);
                self.key.sign(&input).unwrap().to_vec()
            }
            Credential::MasterKey(key) => {
                let master = MasterKey::new(key, self.suite).unwrap();
                let key = master.session_keys(&self.begun).confirm_service;
                confirmation::mac(&key, (Role::Service, step), &self.transcript).to_vec()
            }
        };
        Reply { payload, proof }
    }

    fn verify(&self, request: &SignedRequest, step: Step, device: &Device) {
        match &device.credential {
            Credential::Certificate(certified) => {
                let input = self.transcript.authenticated_input(Role::Terminal, step);
                let proof = request.proof.as_slice().try_into().unwrap();
                ec::verify(&certified.key.public(), &input, proof).unwrap();
            }
            Credential::MasterKey(key) => {
                let master = MasterKey::new(key, self.suite).unwrap();
                let key = match step {
                    Step::Deliver => master.session_keys(&self.begun).confirm_terminal,
                    _ => master.device_key(device.serial.as_str()),
                };
                let message = (Role::Terminal, step);
                confirmation::verify(&key, message, &self.transcript, &request.proof).unwrap();
            }
        }
    }

    pub(super) fn begin(&mut self, request: &SignedRequest, device: &Device) -> Reply {
        self.transcript = Transcript::new().with(&request.payload);
        self.verify(request, Step::Begin, device);
        self.prove_begin(request, device, |_| ())
    }

    /// Answers Begin as whoever has the credential of a device, and differently.
    pub(super) fn prove_begin(
        &mut self,
        request: &SignedRequest,
        device: &Device,
        change: impl FnOnce(&mut BeginAnswer),
    ) -> Reply {
        self.transcript = Transcript::new().with(&request.payload);
        let begin = Begin::parse(&request.payload).unwrap();
        let is_certified = matches!(device.credential, Credential::Certificate(_));
        assert_eq!(begin.certificate_chain.is_some(), is_certified);
        let mut answer = BeginAnswer {
            activation: ActivationName::new("terminals/t-1/activations/1").unwrap(),
            service_nonce: [3; 32],
            service_certificate_chain: is_certified.then(|| self.chain.clone()),
            acquirer_id: self.acquirer.clone(),
            expires_at_seconds: NOW + 3_600,
        };
        change(&mut answer);
        self.prove(answer.encode(), Step::Begin, device)
    }

    pub(super) fn deliver(&mut self, request: &SignedRequest, device: &Device) -> Reply {
        self.deliver_changed(request, device, |_, _| ())
    }

    pub(super) fn deliver_changed(
        &mut self,
        request: &SignedRequest,
        device: &Device,
        change: impl Fn(&mut Header, &mut DeliveredKey),
    ) -> Reply {
        self.transcript.absorb(&request.payload);
        self.verify(request, Step::Deliver, device);
        let deliver = Deliver::parse(&request.payload).unwrap();
        let (service_ephemeral, agreed) = self.establish(deliver.device_ephemeral, device);

        let (id, id_block, letter) = match self.suite.dukpt() {
            Dukpt::Aes128 => (aes_id().bytes().to_vec(), *b"IK", b'A'),
            Dukpt::Tdes2 => (tdes_id().bytes().to_vec(), *b"KS", b'T'),
        };
        let mut key = DeliveredKey {
            slot: 0,
            usage: *b"B1",
            key_block: String::new(),
            check_value: initial_key(self.suite).check_value().bytes().to_vec(),
            initial_key_id: id,
        };
        let mut header = Header::new(
            Version::under(agreed.key_block_protection.algorithm()).unwrap(),
            *b"B1",
            letter,
            b'X',
        );
        header.exportability = b'N';
        change(&mut header, &mut key);
        let id = data_encoding::HEXUPPER.encode(&key.initial_key_id);
        if header.find(id_block).is_none() {
            header.push(OptionalBlock::new(id_block, id).unwrap()).unwrap();
        }
        let material = Material::copied_from(&KEY);
        let block =
            keyblock::wrap(&agreed.key_block_protection, &header, &material, &SystemRng::new());
        key.key_block = block.unwrap().to_string();
        self.agreed = Some(agreed);
        self.delivered = vec![key.clone()];
        let answer =
            DeliverAnswer { activation: deliver.activation, service_ephemeral, keys: vec![key] };
        self.prove(answer.encode(), Step::Deliver, device)
    }

    fn establish(
        &self,
        device_ephemeral: Option<Point>,
        device: &Device,
    ) -> (Option<Point>, SessionKeys) {
        match (&device.credential, device_ephemeral) {
            (Credential::Certificate(_), Some(device_ephemeral)) => {
                let ephemeral = EphemeralKey::generate().unwrap();
                let service_ephemeral = ephemeral.public();
                let agreement = Agreement {
                    suite: self.suite,
                    transcript_hash: &self.transcript.hash(),
                    device_ephemeral: &device_ephemeral,
                    service_ephemeral: &service_ephemeral,
                };
                (Some(service_ephemeral), agreement.derive(ephemeral.agree(&device_ephemeral)))
            }
            (Credential::MasterKey(key), None) => {
                let master = MasterKey::new(key, self.suite).unwrap();
                (None, master.session_keys(&self.begun))
            }
            _ => panic!("an ephemeral key goes with a certificate"),
        }
    }

    pub(super) fn confirm(&mut self, request: &ConfirmRequest) -> Reply {
        let agreed = self.agreed.as_ref().unwrap();
        let transcript = self.transcript.with(&request.payload);
        let (key, message) = (&agreed.confirm_terminal, (Role::Terminal, Step::Confirm));
        confirmation::verify(key, message, &transcript, &request.mac).unwrap();
        let confirm = Confirm::parse(&request.payload).unwrap();
        assert_eq!(confirm.keys.len(), self.delivered.len());
        assert_eq!(confirm.keys[0].check_value, self.delivered[0].check_value);
        let payload = ConfirmAnswer { activation: confirm.activation }.encode();
        let transcript = transcript.with(&payload);
        let message = (Role::Service, Step::Confirm);
        let proof = confirmation::mac(&agreed.confirm_service, message, &transcript).to_vec();
        Reply { payload, proof }
    }

    pub(super) fn keys(&self, ksn: &[u8]) -> TransactionKeys {
        match self.suite.dukpt() {
            Dukpt::Aes128 => {
                let ksn = AesKsn::parse(ksn).unwrap();
                let host = AesInitialKey::new(initial_key(self.suite), aes_id()).unwrap();
                let aes = KeyKind::Aes128;
                TransactionKeys {
                    ksn: Ksn::Aes(ksn),
                    pin: host.working_key::<PinEncryption>(&ksn, aes).unwrap(),
                    mac_request: host.working_key::<MacGeneration>(&ksn, aes).unwrap(),
                    mac_response: host.working_key::<MacVerification>(&ksn, aes).unwrap(),
                }
            }
            Dukpt::Tdes2 => {
                let ksn = TdesKsn::parse(ksn).unwrap();
                let host = TdesInitialKey::new(initial_key(self.suite), tdes_id()).unwrap();
                TransactionKeys {
                    ksn: Ksn::Tdes(ksn),
                    pin: host.working_key::<PinEncryption>(&ksn).unwrap(),
                    mac_request: host.working_key::<MacGeneration>(&ksn).unwrap(),
                    mac_response: host.working_key::<MacVerification>(&ksn).unwrap(),
                }
            }
        }
    }

    pub(super) fn exchange(
        &self,
        step: Step,
        request: &TransactionRequest,
        payload: Vec<u8>,
    ) -> Reply {
        let keys = self.keys(&request.ksn);
        let algorithm = mac_algorithm(self.suite);
        let transcript = Transcript::new().with(&request.payload);
        let input = transcript.authenticated_input(Role::Terminal, step);
        keys.mac_request.verify_mac(algorithm, &input, &request.mac).unwrap();
        let input = transcript.with(&payload).authenticated_input(Role::Service, step);
        let mac = keys.mac_response.generate_mac(algorithm, &input, algorithm.len_bytes());
        Reply { payload, proof: mac.unwrap().bytes().to_vec() }
    }
}

pub(super) fn aes_id() -> AesInitialKeyId {
    AesInitialKeyId::new([1; 4], [2; 4])
}

pub(super) fn tdes_id() -> TdesInitialKeyId {
    TdesInitialKeyId::new([0xFF; 5], 77).unwrap()
}

pub(super) fn initial_key(suite: Suite) -> Key<InitialDukpt> {
    Key::from_material(suite.initial_key_algorithm(), Material::copied_from(&KEY)).unwrap()
}

pub(super) fn terminal(suite: Suite, root: &Authority) -> Terminal {
    let device = Device {
        credential: credential(suite, root),
        serial: Serial::new("SN-0001").unwrap(),
        readiness: Readiness {
            hardware: Shown::new("rev A").unwrap(),
            firmware: Shown::new("1.0").unwrap(),
            network: Network::Ethernet,
            tampered: false,
        },
        acquirer_id: AcquirerId::new("acquirer-1").unwrap(),
    };
    Terminal::new(device, suite)
}

fn credential(suite: Suite, root: &Authority) -> Credential {
    if suite.has_master_key() {
        let mut taken = Algorithm::ALL.into_iter().filter(|one| suite.takes_master_key(*one));
        let algorithm = taken.next_back().unwrap();
        return Credential::MasterKey(Key::generate(algorithm, &SystemRng::new()).unwrap());
    }
    let key = SigningKey::generate().unwrap();
    let leaf = root.issue_device(&key.public(), "SN-0001", validity()).unwrap();
    Credential::Certificate(Certified {
        key,
        chain: CertificateChain::new(vec![leaf]).unwrap(),
        acquirer_root: root.root_der().to_vec(),
    })
}
