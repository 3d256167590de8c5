//! A hostile relay between terminals and the service: it reads, drops, repeats, delays, alters and
//! makes up whatever it carries. It learns no key, and it can at most delay.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use firstkey::activation::ActivationCode;
use firstkey::activation::payload::{
    BeginAnswer, CertificateChain, Deliver, DeliverAnswer, Payload as _,
};
use firstkey::activation::{Role, Step, Transcript};
use firstkey::agreement::{Dukpt, Suite};
use firstkey::crypto::certificate::signing_request;
use firstkey::crypto::ec::{EphemeralKey, SigningKey};
use firstkey::grpc::client::{Client, ClientError, Driver, Line as _, Message, Reply, lost};
use firstkey::grpc::proto::activation_service_server::{
    ActivationService, ActivationServiceServer,
};
use firstkey::grpc::proto::{self, report_step_request::Proof};
use firstkey::key::Algorithm;
use firstkey::server::dev::{self, Pki};
use firstkey::terminal::Terminal;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

use crate::harness::{Service, Till, refused, retyped};

/// Changes what it is given.
type Change<T> = Box<dyn FnOnce(&mut T) + Send>;

/// What the relay does with one message.
enum Deed {
    Carry,
    DropMessage,
    DropReply,
    /// Answers in the service's place; the message goes nowhere.
    MakeUp(Result<Reply, Status>),
    /// Keeps the message back and lets it go with the next one.
    Hold,
    /// Sends another message in its place.
    Replace(Message),
    Repeat,
    RewriteMessage(Change<Message>),
    RewriteReply(Change<Reply>),
}

/// What passed through the relay, all of which it read.
#[derive(Default)]
struct Read {
    messages: Vec<Message>,
    replies: Vec<Reply>,
    held: Vec<Message>,
}

/// Chooses what to do with a message, knowing everything that was read before it.
type Plot = Box<dyn FnMut(&Message, &Read) -> Deed + Send>;

#[derive(Clone)]
struct Relay {
    service: Client,
    read: Arc<Mutex<Read>>,
    plot: Arc<Mutex<Plot>>,
}

impl Relay {
    /// Stands between: gives itself, and a client that believes it talks to the service.
    async fn before(service: &Service, plot: Plot) -> (Self, Client) {
        let relay = Self {
            service: service.client.clone(),
            read: Arc::default(),
            plot: Arc::new(Mutex::new(plot)),
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(ActivationServiceServer::new(relay.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        let client = Client::connect(&url).await.unwrap();
        (relay, client)
    }

    fn read<T>(&self, look: impl FnOnce(&mut Read) -> T) -> T {
        look(&mut self.read.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything that passed, one message or reply after the other.
    fn everything(&self) -> Vec<Vec<u8>> {
        self.read(|read| {
            let messages = read.messages.iter().flat_map(|message| {
                let activation = message.activation.as_bytes();
                [activation, &message.ksn, &message.payload, &message.proof].map(<[u8]>::to_vec)
            });
            let replies = read.replies.iter();
            let replies = replies.flat_map(|reply| [reply.payload.clone(), reply.proof.clone()]);
            messages.chain(replies).collect()
        })
    }

    async fn carry(&self, mut message: Message) -> Result<Reply, Status> {
        let (deed, held) = self.read(|read| {
            let mut plot = self.plot.lock().unwrap_or_else(PoisonError::into_inner);
            let deed = plot(&message, read);
            read.messages.push(message.clone());
            (deed, std::mem::take(&mut read.held))
        });
        for late in held {
            let _ = self.send(late).await;
        }
        let mut change = None;
        match deed {
            Deed::Carry => {}
            Deed::DropMessage => return Err(lost()),
            Deed::DropReply => {
                self.send(message).await?;
                return Err(lost());
            }
            Deed::Hold => {
                self.read(|read| read.held.push(message));
                return Err(lost());
            }
            Deed::MakeUp(reply) => return reply,
            Deed::Repeat => {
                let _ = self.send(message.clone()).await;
            }
            Deed::Replace(other) => message = other,
            Deed::RewriteMessage(rewrite) => rewrite(&mut message),
            Deed::RewriteReply(rewrite) => change = Some(rewrite),
        }
        let mut reply = self.send(message).await?;
        if let Some(rewrite) = change {
            rewrite(&mut reply);
        }
        Ok(reply)
    }

    async fn send(&self, message: Message) -> Result<Reply, Status> {
        let reply = self.service.clone().send(message).await?;
        self.read(|read| read.replies.push(reply.clone()));
        Ok(reply)
    }
}

fn message_of(step: Step) -> Message {
    let (ksn, payload, proof) = (Vec::new(), Vec::new(), Vec::new());
    Message { step, activation: String::new(), ksn, payload, proof }
}

#[tonic::async_trait]
impl ActivationService for Relay {
    async fn begin_activation(
        &self,
        request: Request<proto::BeginActivationRequest>,
    ) -> Result<Response<proto::BeginActivationResponse>, Status> {
        let proto::BeginActivationRequest { payload, proof } = request.into_inner();
        let message = Message { payload, proof, ..message_of(Step::Begin) };
        let Reply { payload, proof } = self.carry(message).await?;
        Ok(Response::new(proto::BeginActivationResponse { payload, proof }))
    }

    async fn deliver_keys(
        &self,
        request: Request<proto::DeliverKeysRequest>,
    ) -> Result<Response<proto::DeliverKeysResponse>, Status> {
        let proto::DeliverKeysRequest { activation, payload, proof } = request.into_inner();
        let message = Message { activation, payload, proof, ..message_of(Step::Deliver) };
        let Reply { payload, proof } = self.carry(message).await?;
        Ok(Response::new(proto::DeliverKeysResponse { payload, proof }))
    }

    async fn confirm_keys(
        &self,
        request: Request<proto::ConfirmKeysRequest>,
    ) -> Result<Response<proto::ConfirmKeysResponse>, Status> {
        let proto::ConfirmKeysRequest { activation, payload, mac: proof } = request.into_inner();
        let message = Message { activation, payload, proof, ..message_of(Step::Confirm) };
        let Reply { payload, proof: mac } = self.carry(message).await?;
        Ok(Response::new(proto::ConfirmKeysResponse { payload, mac }))
    }

    async fn get_parameters(
        &self,
        request: Request<proto::GetParametersRequest>,
    ) -> Result<Response<proto::GetParametersResponse>, Status> {
        let proto::GetParametersRequest { ksn, payload, mac: proof } = request.into_inner();
        let message = Message { ksn, payload, proof, ..message_of(Step::Parameters) };
        let Reply { payload, proof: mac } = self.carry(message).await?;
        Ok(Response::new(proto::GetParametersResponse { payload, mac }))
    }

    async fn run_test_transaction(
        &self,
        request: Request<proto::RunTestTransactionRequest>,
    ) -> Result<Response<proto::RunTestTransactionResponse>, Status> {
        let proto::RunTestTransactionRequest { ksn, payload, mac: proof } = request.into_inner();
        let message = Message { ksn, payload, proof, ..message_of(Step::Test) };
        let Reply { payload, proof: mac } = self.carry(message).await?;
        Ok(Response::new(proto::RunTestTransactionResponse { payload, mac }))
    }

    async fn update_keys(
        &self,
        request: Request<proto::UpdateKeysRequest>,
    ) -> Result<Response<proto::UpdateKeysResponse>, Status> {
        let proto::UpdateKeysRequest { ksn, payload, mac: proof } = request.into_inner();
        let message = Message { ksn, payload, proof, ..message_of(Step::Update) };
        let Reply { payload, proof: mac } = self.carry(message).await?;
        Ok(Response::new(proto::UpdateKeysResponse { payload, mac }))
    }

    async fn report_step(
        &self,
        request: Request<proto::ReportStepRequest>,
    ) -> Result<Response<proto::ReportStepResponse>, Status> {
        let proto::ReportStepRequest { activation, payload, proof } = request.into_inner();
        let (ksn, proof) = match proof {
            Some(Proof::DeviceProof(proof)) => (Vec::new(), proof),
            Some(Proof::TransactionMac(proto::TransactionMac { ksn, mac })) => (ksn, mac),
            None => (Vec::new(), Vec::new()),
        };
        self.carry(Message { step: Step::Report, activation, ksn, payload, proof }).await?;
        Ok(Response::new(proto::ReportStepResponse {}))
    }
}

/// Dice that fall the same in each run (the splitmix64 sequence).
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) >> 33).expect("31 bits") % sides
    }

    fn flip_in(&mut self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            bytes[self.throw(bytes.len())] ^= 1 << self.throw(8);
        }
    }
}

/// Three messages of four meet something bad.
fn at_random(seed: u64) -> Plot {
    let mut dice = Dice(seed);
    Box::new(move |message, read| {
        let mut other = Dice(seed ^ u64::try_from(dice.throw(1 << 30)).expect("30 bits"));
        match dice.throw(16) {
            0 => Deed::DropMessage,
            1 | 2 => Deed::DropReply,
            3 => Deed::Hold,
            4 => Deed::Repeat,
            5 | 6 => Deed::RewriteMessage(Box::new(move |message| match other.throw(4) {
                0 => other.flip_in(&mut message.payload),
                1 => other.flip_in(&mut message.proof),
                2 => other.flip_in(&mut message.ksn),
                _ => message.payload.truncate(other.throw(message.payload.len().max(1))),
            })),
            7 | 8 => Deed::RewriteReply(Box::new(move |reply| match other.throw(3) {
                0 => other.flip_in(&mut reply.payload),
                1 => other.flip_in(&mut reply.proof),
                _ => reply.payload.truncate(other.throw(reply.payload.len().max(1))),
            })),
            9 => match read.messages.len() {
                0 => Deed::Carry,
                count => {
                    let old = &read.messages[dice.throw(count)];
                    Deed::Replace(old.clone())
                }
            },
            10 => match read.replies.len() {
                0 => Deed::Carry,
                count => Deed::MakeUp(Ok(read.replies[dice.throw(count)].clone())),
            },
            11 if message.step == Step::Report => Deed::MakeUp(Ok(Reply::default())),
            11 => Deed::MakeUp(Err(Status::new(Code::FailedPrecondition, "made up"))),
            _ => Deed::Carry,
        }
    })
}

/// What a device keeps to itself, found by the first 16 octets of each secret.
#[derive(Default)]
struct Secrets(HashSet<[u8; 16]>);

impl Secrets {
    /// Every key that stands in a device's memory, whatever it stands in.
    fn learn(&mut self, terminal: &Terminal) {
        let memory: Value = serde_json::from_str(&terminal.save()).unwrap();
        let credential = &memory["credential"];
        assert!(credential["device_key"].is_string() || credential["key"].is_string());
        self.learn_in(&memory);
    }

    fn learn_in(&mut self, memory: &Value) {
        for (name, value) in memory.as_object().into_iter().flatten() {
            match name.as_str() {
                // In PKCS#8 the private scalar comes after 36 octets that all P-256 keys share.
                "device_key" => self.add(value, 36),
                "confirm_service" | "derivation_key" | "key" | "response_key" => self.add(value, 0),
                "registers" => value.as_array().unwrap().iter().for_each(|key| self.add(key, 0)),
                _ => {
                    let parts =
                        value.as_array().map_or_else(Vec::new, |parts| parts.iter().collect());
                    parts.into_iter().chain([value]).for_each(|part| self.learn_in(part));
                }
            }
        }
    }

    fn add(&mut self, key: &Value, skip: usize) {
        let Some(hex) = key.as_str() else { return assert!(key.is_null()) };
        let bytes = data_encoding::HEXUPPER.decode(hex.as_bytes()).unwrap();
        self.0.insert(bytes[skip..skip + 16].try_into().unwrap());
    }

    /// How many places of the traffic hold one of them, as it is or in hexadecimals.
    fn found_in(&self, traffic: &[Vec<u8>]) -> usize {
        let plain = |bytes: &[u8]| {
            let here = |window: &&[u8]| self.0.contains::<[u8]>(*window);
            bytes.windows(16).filter(here).count()
        };
        let texts = traffic.iter().map(|bytes| {
            let pairs = [0, 1].map(|offset| {
                let text = bytes.get(offset..).unwrap_or_default();
                let pairs = text.chunks_exact(2).map(|pair| {
                    let decoded = data_encoding::HEXUPPER_PERMISSIVE.decode(pair);
                    decoded.map_or(0, |octet| octet[0])
                });
                plain(&pairs.collect::<Vec<u8>>())
            });
            pairs.iter().sum::<usize>()
        });
        traffic.iter().map(|bytes| plain(bytes)).sum::<usize>() + texts.sum::<usize>()
    }
}

/// Drives a terminal over the relay, as often as it takes: the terminal tries again, as a merchant
/// would, until the service says that it stands where it is wanted.
async fn insist(
    service: &Service,
    line: &Client,
    till: &mut Till,
    (code, wanted): (Option<&ActivationCode>, &str),
    secrets: &mut Secrets,
) -> u32 {
    let now = || service.device_time();
    for attempt in 1..=400 {
        let mut save = |terminal: &Terminal| {
            secrets.learn(terminal);
            Ok(())
        };
        let mut driver = Driver {
            line: &mut line.clone(),
            terminal: &mut till.terminal,
            rng: &service.rng,
            now: &now,
            save: &mut save,
            tell: &mut |_| (),
        };
        // Whatever the relay made of it.
        let _ = match code {
            Some(code) => driver.activate(Some(retyped(code)), false).await,
            None => driver.update_keys().await,
        };
        if service.state(&till.id).await == wanted {
            return attempt;
        }
    }
    panic!("{} never came through", till.id)
}

/// How often the terminal of a service confirmed keys.
async fn confirmations(service: &Service, id: &str) -> usize {
    let timeline = service.get(id).await.timeline;
    let confirmed = timeline.iter().filter(|entry| entry.step == "ConfirmKeys");
    confirmed.filter(|entry| entry.reason.is_empty()).count()
}

/// A profile whose terminals have a static key beside the initial key.
async fn profile_with_a_static_key(service: &Service) -> &'static str {
    service.master_key("derive", Algorithm::Aes128).await;
    service
        .profile("static-key", |profile| {
            profile.keys = vec![proto::ProfileKey {
                slot: 1,
                usage: proto::KeyUsage::PinEncryption.into(),
                algorithm: proto::KeyAlgorithm::Aes128.into(),
                derivation_key: "keys/derive".to_owned(),
            }];
        })
        .await;
    "static-key"
}

#[tokio::test]
async fn a_relay_that_does_its_worst_learns_no_key_and_can_only_delay() {
    let service = Service::start().await;
    let (relay, line) = Relay::before(&service, at_random(2030)).await;
    let with_static_key = profile_with_a_static_key(&service).await;
    let mut secrets = Secrets::default();
    let (mut attempts, mut ids) = (0, HashSet::new());
    let mut certificate = Vec::new();
    for number in 0..4 {
        for suite in Suite::ALL {
            let id = format!("till-{}-{number}", suite.name().to_lowercase().replace('_', "-"));
            let profile = match suite {
                Suite::P256Aes128 if number % 2 == 0 => with_static_key,
                _ => dev::profile_of(suite),
            };
            let mut till = service.register_under(&id, suite, profile).await;
            let code = service.issue_code(&id).await;
            if suite == Suite::P256Aes128 {
                certificate = crate::harness::certificate_of(till.terminal.device());
            }
            let wanted = (Some(&code), "TESTED");
            attempts += insist(&service, &line, &mut till, wanted, &mut secrets).await;
            // Nobody had to help: no code was reissued, nothing was cancelled or released.
            let terminal = service.enable(&id).await.unwrap();
            assert!(ids.insert(terminal.initial_key_id), "an initial key id came twice");
            crate::transactions::verify(&service, &till.purchase(&service)).await.unwrap();
            assert_eq!(confirmations(&service, &id).await, 1);
            if suite.dukpt() == Dukpt::Aes128 {
                service.start_update(&id).await;
                let wanted = (None, "ACTIVE");
                attempts += insist(&service, &line, &mut till, wanted, &mut secrets).await;
                assert!(ids.insert(service.get(&id).await.initial_key_id));
                crate::transactions::verify(&service, &till.purchase(&service)).await.unwrap();
                assert_eq!(confirmations(&service, &id).await, 2);
            }
        }
    }
    assert!(attempts > 56, "the relay did nothing: {attempts}");

    let traffic = relay.everything();
    assert!(traffic.len() > 1_000 && secrets.0.len() > 500);
    assert_eq!(secrets.found_in(&traffic), 0);
    // The search finds what did pass, and only that.
    let mut passed = Secrets::default();
    passed.0.insert(certificate[100..116].try_into().unwrap());
    assert!(passed.found_in(&traffic) > 0);
    let mut in_hex = Secrets::default();
    in_hex.0.insert(*b"0123456789abcdef");
    let text = data_encoding::HEXUPPER.encode(b"..0123456789abcdef..").into_bytes();
    assert_eq!(in_hex.found_in(&[text]), 1);
}

/// A relay that does one thing to the first message of a step, and carries everything else.
fn once(at: Step, deed: impl FnOnce(&Message, &Read) -> Deed + Send + 'static) -> Plot {
    let mut deed = Some(deed);
    Box::new(move |message, read| match deed.take_if(|_| message.step == at) {
        Some(deed) => deed(message, read),
        None => Deed::Carry,
    })
}

/// Activates a terminal over the relay once, then in peace; what came of the first.
async fn meet(service: &Service, id: &str, plot: Plot) -> ClientError {
    let (_, line) = Relay::before(service, plot).await;
    let mut till = service.register(id, Suite::P256Aes128).await;
    let code = service.issue_code(id).await;
    let now = || service.device_time();
    let mut driver = Driver {
        line: &mut line.clone(),
        terminal: &mut till.terminal,
        rng: &service.rng,
        now: &now,
        save: &mut |_| Ok(()),
        tell: &mut |_| (),
    };
    let came = driver.activate(Some(retyped(&code)), false).await;
    till.activate(service, Some(code)).await.unwrap();
    assert_eq!(service.state(id).await, "TESTED");
    came.expect_err("the relay was noticed")
}

/// What a terminal reports of an answer that it refuses.
#[track_caller]
fn fault(error: ClientError) -> &'static str {
    match error {
        ClientError::Terminal(error) => error.fault().expect("a fault of the service's").as_str(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_relay_in_the_middle_of_the_agreement_is_noticed_on_either_side() {
    let service = Service::start().await;
    let mine = || Some(EphemeralKey::generate().unwrap().public());

    let to_service = once(Step::Deliver, move |_, _| {
        Deed::RewriteMessage(Box::new(move |message| {
            let sent = Deliver::parse(&message.payload).unwrap();
            message.payload = Deliver { device_ephemeral: mine(), ..sent }.encode();
        }))
    });
    let refusal = refused::<()>(Err(meet(&service, "to-service", to_service).await));
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED");

    let to_terminal = once(Step::Deliver, move |_, _| {
        Deed::RewriteReply(Box::new(move |reply| {
            let sent = DeliverAnswer::parse(&reply.payload).unwrap();
            reply.payload = DeliverAnswer { service_ephemeral: mine(), ..sent }.encode();
        }))
    });
    assert_eq!(fault(meet(&service, "to-terminal", to_terminal).await), "AUTHENTICATION");
}

#[tokio::test]
async fn a_relay_that_poses_as_the_service_is_not_believed() {
    let service = Service::start().await;
    // Everything is right but the root: name, acquirer, certificate, signature.
    let pose = |chain: Vec<Vec<u8>>, key: SigningKey| {
        once(Step::Begin, move |message, _| {
            let begin = message.payload.clone();
            Deed::RewriteReply(Box::new(move |reply| {
                let sent = BeginAnswer::parse(&reply.payload).unwrap();
                let service_certificate_chain = CertificateChain::new(chain);
                reply.payload = BeginAnswer { service_certificate_chain, ..sent }.encode();
                let transcript = Transcript::new().with(&begin).with(&reply.payload);
                let input = transcript.authenticated_input(Role::Service, Step::Begin);
                reply.proof = key.sign(&input).unwrap().to_vec();
            }))
        })
    };
    let validity = dev::validity(service.now());
    let other = Pki::generate(service.now()).unwrap();
    let key = SigningKey::generate().unwrap();
    let request = signing_request(&key, dev::ACQUIRER_ID, "firstkey").unwrap();
    let certified =
        other.acquirer.issue_service_from_request(&request, dev::ACQUIRER_ID, validity).unwrap();
    let error = meet(&service, "other-root", pose(vec![certified], key)).await;
    assert_eq!(fault(error), "SERVICE_NOT_TRUSTED");

    // The right root, for another acquirer.
    let key = SigningKey::generate().unwrap();
    let request = signing_request(&key, "OTHER", "firstkey").unwrap();
    let certified =
        service.pki.acquirer.issue_service_from_request(&request, "OTHER", validity).unwrap();
    let error = meet(&service, "other-acquirer", pose(vec![certified], key)).await;
    assert_eq!(fault(error), "SERVICE_NOT_TRUSTED");
}

#[tokio::test]
async fn a_relay_that_owns_a_device_gets_nothing_for_the_code_it_read() {
    let service = Service::start().await;
    let mut thief = service.register("thief", Suite::P256Aes128).await;
    let (relay, line) = Relay::before(&service, Box::new(|_, _| Deed::DropMessage)).await;
    let mut till = service.register("till", Suite::P256Aes128).await;
    let code = service.issue_code("till").await;
    let begin =
        till.terminal.begin(Some(retyped(&code)), &service.rng, service.device_time()).unwrap();
    let sent = line.clone().send(Message::signed(Step::Begin, "", begin)).await;
    assert_eq!(sent.unwrap_err().code(), Code::Unavailable);
    // The code stands in what it read; as itself and as the other it is refused with it.
    let read = relay.everything().concat();
    let text = code.expose_text();
    assert!(read.windows(text.len()).any(|window| window == text.as_bytes()));
    let mut memory: Value = serde_json::from_str(&thief.terminal.save()).unwrap();
    let refusal = refused(thief.begin(&service, Some(retyped(&code))).await);
    assert_eq!(refusal.reason, "ACTIVATION_STATE", "no code of its own was issued");
    memory["serial"] = till.terminal.device().serial.as_str().into();
    let terminal = Terminal::restore(&memory.to_string()).unwrap();
    let mut posing = Till { id: "till".to_owned(), terminal };
    let refusal = refused(posing.begin(&service, Some(retyped(&code))).await);
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED");
    till.activate(&service, Some(code)).await.unwrap();
}
