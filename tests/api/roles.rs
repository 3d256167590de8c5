//! The role table: every rpc for every kind of caller, over real TLS.
//!
//! Each call is made with a body that is no message and with an empty one. Who may not make it is
//! told so for both alike: a body is not looked at before its caller may make the call.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::poll_fn;

use firstkey::grpc::client::Credentials;
use firstkey::grpc::{DESCRIPTORS, Denied, Plane};
use firstkey::server::dev;
use firstkey::vault::{Action, Role, callers_of};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::client::GrpcService as _;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use crate::harness::TlsService;

/// The published table: which callers may make a call. `O` officer, `C` custodian, `P` operator,
/// `A` auditor, `B` backend, `R` terminal relay, `T` terminal.
const TABLE: &str = "
    BeginActivation RT            ConfirmKeys RT                DeliverKeys RT
    GetParameters RT              ReportStep RT                 RunTestTransaction RT
    UpdateKeys RT

    Approve O                     Reject O                      GetApproval OPA
    ListApprovals OPA

    ExportEvents A                GetCheckpoint A               ListEvents A
    ProveConsistency A            ProveInclusion A

    AbortCeremony OCA             ConfirmCeremony CA            CreateCeremony O
    EnterComponent C              GetCeremony OCA               JoinCeremony CA
    ListCeremonies OCA            ReadBackComponent C           RestartEntry C
    RevealComponent C             SignCeremony CA               TakeComponent C

    CreateKey O                   ExportInitialKey O            ExportKey O
    GetDestructionCertificate OA  GetKey OP                     ImportKey O
    InspectKeyBlock O
    ListKeys OP                   ListKeyVersions OP            RotateKey O
    SetKeyState O                 SetPrimaryVersion O           UpdateKey O

    GenerateMac B                 VerifyMac B
    TranslatePin B                VerifyMacAndTranslatePin B

    CheckPolicy OA                GetPolicy OA                  SetPolicy O
    GetStatus OCPA

    AbandonMasterKey OC           ConfirmShare C                CreateMasterKey O
    GetSealStatus OCPA            Seal OP                       TakeShare C
    Unseal CP

    BatchCreateTerminals B        CancelActivation B            CreateProfile O
    CreateTerminal B              EnableTerminal B              GetProfile OPB
    GetTerminal PB                HoldTerminal PB               IssueActivationCode B
    ListProfiles OPB              ListTerminals PB              LookupKsn PB
    MarkTerminalCompromised B     ReissueActivationCode B       ReleaseTerminal B
    ResumeTerminal B              RetireTerminal B              SetMerchantStanding B
    SetSettlementDigest B         StartRekey B                  SuspendTerminal PB
    UpdateProfile O               WatchTerminals PB

    AllowDevice O                 CreateCertificateRequest O    CreateDeviceAuthority O
    CreateIdentityKey O           DenyDevice OP                 GetDeviceAuthority OP
    GetIdentity OP                ImportCertificate O           ListDeniedDevices OP
    ListDeviceAuthorities OP
";

/// A column of the table: a kind of caller.
#[derive(Clone, Copy)]
struct Column {
    title: &'static str,
    /// Its letter in [`TABLE`]; none for who may do nothing.
    letter: Option<char>,
    /// Its name below the trust domain; none without a certificate.
    name: Option<&'static str>,
    /// The one plane that its certificate is for; none for that of each plane that it calls.
    plane: Option<Plane>,
}

const fn column(title: &'static str, letter: char, name: &'static str) -> Column {
    Column { title, letter: Some(letter), name: Some(name), plane: None }
}

const BACKEND: Column = column("backend", 'B', "backend/backend-1");

const COLUMNS: [Column; 10] = [
    column("officer", 'O', "officer/officer-1"),
    column("custodian", 'C', "custodian/custodian-1"),
    column("operator", 'P', "operator/operator-1"),
    column("auditor", 'A', "auditor/auditor-1"),
    Column { title: "backend data", plane: Some(Plane::Data), ..BACKEND },
    Column { title: "backend terminals", plane: Some(Plane::Terminals), ..BACKEND },
    column("relay", 'R', "terminal-relay/relay-1"),
    Column { title: "terminal", letter: Some('T'), name: None, plane: None },
    Column { title: "stranger", letter: None, name: Some("officer/nobody"), plane: None },
    // An officer whom the deny list names.
    Column { title: "denied", letter: None, name: Some("officer/officer-3"), plane: None },
];

impl Column {
    /// Whether the published table lets it make a call, and else what it is told.
    fn expected(self, plane: Plane, letters: &str) -> Result<(), &'static str> {
        let is_unknown = match self.letter {
            None => true,
            // Without a certificate one is a terminal, and elsewhere nobody.
            Some('T') => plane != Plane::Activation,
            Some(_) => false,
        };
        let is_elsewhere = self.plane.is_some_and(|own| own != plane);
        match self.letter {
            _ if is_unknown => Err("CALLER_UNKNOWN"),
            Some(letter) if letters.contains(letter) && !is_elsewhere => Ok(()),
            _ => Err("POLICY_DENIED"),
        }
    }
}

/// Every rpc of the project, by its service.
fn rpcs() -> Vec<(String, String)> {
    let files = FileDescriptorSet::decode(DESCRIPTORS).expect("the descriptors");
    let ours = files.file.iter().filter(|file| file.package() == "firstkey.v1");
    let services = ours.flat_map(|file| &file.service);
    let of = |service: &prost_types::ServiceDescriptorProto| {
        let name = service.name().to_owned();
        let methods = service.method.clone();
        methods.into_iter().map(move |method| (name.clone(), method.name().to_owned()))
    };
    services.flat_map(of).collect()
}

async fn channel(service: &TlsService, name: Option<&str>, plane: Plane) -> Channel {
    let issued =
        name.map(|name| service.issue(&format!("spiffe://{}/{name}", dev::TRUST_DOMAIN), plane));
    let Credentials { authority, identity } = service.credentials(issued.as_ref());
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
    if let Some((certificate, key)) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key.as_slice()));
    }
    let endpoint = Endpoint::from_shared(service.url().to_owned()).expect("an address");
    endpoint.tls_config(tls).expect("TLS").connect().await.expect("it serves")
}

/// Sends octets, and reads the status that stands in the headers: a refusal, or an answer that is
/// no refusal of the door's.
async fn send(channel: &Channel, path: &str, body: Vec<u8>) -> Option<Status> {
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(axum::body::Body::from(body)))
        .expect("a request");
    let mut channel = channel.clone();
    poll_fn(|context| channel.poll_ready(context)).await.expect("the connection serves");
    let response = channel.call(request).await.expect("an answer");
    Status::from_header_map(response.headers())
}

/// A status, whole: code, message, details.
fn whole(status: &Status) -> (Code, String, Vec<u8>) {
    (status.code(), status.message().to_owned(), status.details().to_vec())
}

/// The reason of a refusal; empty for whatever is none.
fn reason(status: Option<&Status>) -> String {
    let info = status.and_then(tonic_types::StatusExt::get_details_error_info);
    info.map(|info| info.reason).unwrap_or_default()
}

#[tokio::test]
#[allow(clippy::print_stdout, reason = "the table is there to be seen")]
async fn every_rpc_opens_to_the_roles_of_the_published_table_alone() {
    let words: Vec<&str> = TABLE.split_whitespace().collect();
    let table: BTreeMap<&str, &str> = words.chunks(2).map(|pair| (pair[0], pair[1])).collect();
    let rpcs = rpcs();
    assert_eq!(rpcs.len(), table.len(), "the table has each rpc once");
    let service = TlsService::start().await;
    let domain = dev::TRUST_DOMAIN;
    let denied = Denied::parse(&format!("spiffe://{domain}/officer/officer-3"));
    service.denied.replace(denied.expect("a list"));
    let bodies = [[&[0, 0, 0, 0, 32][..], &[0xFF; 32]].concat(), vec![0; 5]];

    let mut printed = format!("{:<26}", "");
    let mut channels = BTreeMap::new();
    for (index, column) in COLUMNS.into_iter().enumerate() {
        let _ = write!(printed, "{:<18}", column.title);
        for plane in Plane::ALL {
            let own = column.plane.unwrap_or(plane);
            channels.insert((index, plane), channel(&service, column.name, own).await);
        }
    }
    let mut wrong = Vec::new();
    for (name, rpc) in &rpcs {
        let plane = Plane::of_service(name).expect("every service has a plane");
        let letters = table[rpc.as_str()];
        let path = format!("/firstkey.v1.{name}/{rpc}");
        let _ = write!(printed, "\n{rpc:<26}");
        for (index, column) in COLUMNS.into_iter().enumerate() {
            let channel = &channels[&(index, plane)];
            let [spoilt, empty] = [
                send(channel, &path, bodies[0].clone()).await,
                send(channel, &path, bodies[1].clone()).await,
            ];
            let reasons = [reason(spoilt.as_ref()), reason(empty.as_ref())];
            let shut = ["CALLER_UNKNOWN", "POLICY_DENIED"];
            let fits = match column.expected(plane, letters) {
                Ok(()) => reasons.iter().all(|reason| !shut.contains(&reason.as_str())),
                Err(told) => {
                    let same = spoilt.as_ref().map(whole) == empty.as_ref().map(whole);
                    same && reasons[0] == told
                }
            };
            if !fits {
                wrong.push(format!("{rpc} of {}: {reasons:?}", column.title));
            }
            let shown = if shut.contains(&reasons[0].as_str()) { "-" } else { "yes" };
            let _ = write!(printed, "{shown:<18}");
        }
    }
    println!("{printed}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    drop(channels);
    service.stop().await;
}

#[test]
fn the_published_table_is_the_one_that_decides() {
    let words: Vec<&str> = TABLE.split_whitespace().collect();
    for pair in words.chunks(2) {
        let action = Action::of_rpc(pair[0]).expect("an rpc has an action");
        let letter = |role: &Role| match role {
            Role::Auditor => 'A',
            Role::Backend => 'B',
            Role::Custodian => 'C',
            Role::Officer => 'O',
            Role::Operator => 'P',
            Role::Service | Role::Stranger => '?',
            Role::Terminal => 'T',
            Role::TerminalRelay => 'R',
        };
        let mut decided: Vec<char> = callers_of(action).iter().map(letter).collect();
        let mut published: Vec<char> = pair[1].chars().collect();
        decided.sort_unstable();
        published.sort_unstable();
        assert_eq!(decided, published, "{}", pair[0]);
    }
}
