//! The service, as far as a terminal sees it.

use super::super::*;
use crate::activation::confirmation;
use crate::activation::parameters::AcquirerId;
use crate::activation::payload::{
    Begin, BeginAnswer, CertificateChain, Confirm, ConfirmAnswer, Deliver, DeliverAnswer,
    DeliveredKey, Network, Payload, Readiness, Serial, Shown,
};
use crate::activation::{Role, Step, Transcript};
use crate::agreement::{AgreedKeys, Agreement};
use crate::crypto::certificate::for_dev_only::{Authority, Validity};
use crate::crypto::certificate::signing_request;
use crate::crypto::ec::{self, EphemeralKey, SigningKey};
use crate::crypto::rng::SystemRng;
use crate::dukpt::{
    AesInitialKey, AesInitialKeyId, AesKsn, KeyKind, TdesInitialKey, TdesInitialKeyId, TdesKsn,
};
use crate::key::usage::{InitialDukpt, MacGeneration, MacVerification, PinEncryption};
use crate::key::{Key, Material};
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
    pub(super) agreed: Option<AgreedKeys>,
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
            agreed: None,
            delivered: Vec::new(),
        }
    }

    pub(super) fn sign(&mut self, payload: Vec<u8>, step: Step) -> Reply {
        self.transcript.absorb(&payload);
        let input = self.transcript.authenticated_input(Role::Service, step);
        let proof = self.key.sign(&input).unwrap().to_vec();
        Reply { payload, proof }
    }

    pub(super) fn begin(&mut self, request: &SignedRequest, device: &SigningKey) -> Reply {
        self.transcript = Transcript::new().with(&request.payload);
        let input = self.transcript.authenticated_input(Role::Terminal, Step::Begin);
        ec::verify(&device.public(), &input, &request.signature).unwrap();
        Begin::parse(&request.payload).unwrap();
        let answer = BeginAnswer {
            activation: ActivationName::new("terminals/t-1/activations/1").unwrap(),
            service_nonce: [3; 32],
            service_certificate_chain: self.chain.clone(),
            acquirer_id: self.acquirer.clone(),
            expires_at_seconds: NOW + 3_600,
        };
        self.sign(answer.encode(), Step::Begin)
    }

    pub(super) fn deliver(&mut self, request: &SignedRequest, device: &SigningKey) -> Reply {
        self.deliver_changed(request, device, |_, _| ())
    }

    pub(super) fn deliver_changed(
        &mut self,
        request: &SignedRequest,
        device: &SigningKey,
        change: impl Fn(&mut Header, &mut DeliveredKey),
    ) -> Reply {
        self.transcript.absorb(&request.payload);
        let input = self.transcript.authenticated_input(Role::Terminal, Step::Deliver);
        ec::verify(&device.public(), &input, &request.signature).unwrap();
        let deliver = Deliver::parse(&request.payload).unwrap();
        let ephemeral = EphemeralKey::generate().unwrap();
        let service_ephemeral = ephemeral.public();
        let agreed = Agreement {
            suite: self.suite,
            transcript_hash: &self.transcript.hash(),
            device_ephemeral: &deliver.device_ephemeral,
            service_ephemeral: &service_ephemeral,
        }
        .derive(ephemeral.agree(&deliver.device_ephemeral));

        let (id, id_block, letter) = match self.suite {
            Suite::P256Aes128 => (aes_id().bytes().to_vec(), *b"IK", b'A'),
            Suite::P256Tdes2 => (tdes_id().bytes().to_vec(), *b"KS", b'T'),
        };
        let mut key = DeliveredKey {
            slot: 0,
            usage: *b"B1",
            key_block: String::new(),
            check_value: initial_key(self.suite).check_value().bytes().to_vec(),
            initial_key_id: id,
        };
        let mut header = Header::new(Version::D, *b"B1", letter, b'X');
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
        self.sign(answer.encode(), Step::Deliver)
    }

    pub(super) fn confirm(&mut self, request: &ConfirmRequest) -> Reply {
        let agreed = self.agreed.as_ref().unwrap();
        let transcript = self.transcript.with(&request.payload);
        confirmation::verify_terminal_mac(&agreed.confirm_terminal, &transcript, &request.mac)
            .unwrap();
        let confirm = Confirm::parse(&request.payload).unwrap();
        assert_eq!(confirm.keys.len(), self.delivered.len());
        assert_eq!(confirm.keys[0].check_value, self.delivered[0].check_value);
        let payload = ConfirmAnswer { activation: confirm.activation }.encode();
        let transcript = transcript.with(&payload);
        let proof = confirmation::service_mac(&agreed.confirm_service, &transcript).to_vec();
        Reply { payload, proof }
    }

    pub(super) fn keys(&self, ksn: &[u8]) -> TransactionKeys {
        match self.suite {
            Suite::P256Aes128 => {
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
            Suite::P256Tdes2 => {
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
    let key = SigningKey::generate().unwrap();
    let leaf = root.issue_device(&key.public(), "SN-0001", validity()).unwrap();
    let device = Device {
        certificate_chain: CertificateChain::new(vec![leaf]).unwrap(),
        serial: Serial::new("SN-0001").unwrap(),
        readiness: Readiness {
            hardware: Shown::new("rev A").unwrap(),
            firmware: Shown::new("1.0").unwrap(),
            network: Network::Ethernet,
            tampered: false,
        },
        trust: Trust {
            acquirer_root: root.root_der().to_vec(),
            acquirer_id: AcquirerId::new("acquirer-1").unwrap(),
        },
        key,
    };
    Terminal::new(device, suite)
}
