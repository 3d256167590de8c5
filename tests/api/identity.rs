//! Who gets in: over real TLS, by certificates, good ones and bad ones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use data_encoding::{HEXLOWER, HEXUPPER};
use firstkey::agreement::Suite;
use firstkey::crypto::certificate::authority::Authority;
use firstkey::crypto::certificate::{certificate_to_pem, certificates_from_pem};
use firstkey::crypto::digest::sha256;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::{Client, Driver, Refusal};
use firstkey::grpc::proto::{
    ExportEventsRequest, ExportEventsResponse, GenerateMacRequest, GetKeyRequest,
    ListTerminalsRequest, TranslatePinRequest, WatchTerminalsRequest,
};
use firstkey::grpc::{DESCRIPTORS, Denied, Plane};
use firstkey::server::access::{Access, Issued};
use firstkey::server::{Material, Reload, Tls, TlsError, dev, reload};
use firstkey::terminal::Terminal;
use firstkey::vault::store::{
    Batch, BoxFuture, MemoryStore, Outcome, Query, Row, Store, StoreError, Surveyed, Tail,
};
use firstkey::vault::{
    Action, AuditSettings, Caller, Clock as _, Event, Gate, Kind, Opening, Policy, Reason, Vault,
};
use prost::Message as _;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;
use zeroize::Zeroizing;

use crate::harness::{
    DAY, DECADES, Service, Till, TlsService, answer, development_keys, material, refusal,
};

/// An officer of the development policy.
const OFFICER: &str = "spiffe://dev.firstkey.internal/officer/officer-1";

/// A backend of it.
const BACKEND: &str = "spiffe://dev.firstkey.internal/backend/backend-1";

/// An auditor of it.
const AUDITOR: &str = "spiffe://dev.firstkey.internal/auditor/auditor-1";

fn key() -> GetKeyRequest {
    GetKeyRequest { name: "keys/dev-mac".to_owned() }
}

fn terminals() -> ListTerminalsRequest {
    ListTerminalsRequest::default()
}

/// How a first call to the admin plane ends: `OK`, the reason of its refusal, or `NO CONNECTION`
/// where the handshake does not let it be made.
async fn called(service: &TlsService, issued: Option<&Issued>) -> String {
    const NO_CONNECTION: &str = "NO CONNECTION";
    let Ok(client) = service.connect(issued).await else { return NO_CONNECTION.to_owned() };
    match client.keys().get_key(key()).await {
        Ok(_) => "OK".to_owned(),
        Err(status) => match Refusal::from(status).reason.as_str() {
            "" => NO_CONNECTION.to_owned(),
            reason => reason.to_owned(),
        },
    }
}

/// A certificate as an authority would make it that does not look at what it signs.
fn crafted(authority: &Authority, name: &str, edit: impl FnOnce(&mut CertificateParams)) -> Issued {
    let mut root = CertificateParams::default();
    root.distinguished_name = rcgen::DistinguishedName::new();
    root.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::try_from(authority.to_pkcs8().as_slice()).unwrap();
    let issuer = Issuer::new(root, key);
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(OFFICER)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    edit(&mut params);
    let own = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&own, &issuer).unwrap().pem();
    Issued { certificate, key: own.serialize_pem().into() }
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

/// What the authority of a plane of the tests is called.
fn authority_name(plane: Plane) -> String {
    format!("TEST, callers of plane {}", plane.as_str())
}

fn for_admin(service: &TlsService, edit: impl FnOnce(&mut CertificateParams)) -> Issued {
    crafted(&service.access.planes[&Plane::Admin], &authority_name(Plane::Admin), edit)
}

async fn last_event(service: &TlsService) -> Event {
    service.plain.vault.flush().await.unwrap();
    service.plain.vault.events_after(0, 1_000).await.unwrap().pop().unwrap()
}

#[tokio::test]
async fn each_plane_opens_to_its_own_certificates_alone() {
    let service = TlsService::start().await;
    let officer = service.client("officer-1", Plane::Admin).await;
    answer(officer.keys().get_key(key()).await);
    // The same person has another certificate for another plane.
    let wrong = refusal(officer.terminals().list_terminals(terminals()).await);
    assert_eq!(wrong.reason, "POLICY_DENIED");
    let event = last_event(&service).await;
    assert_eq!((event.caller.as_str(), event.action.as_str()), (OFFICER, "ListTerminals"));
    assert_eq!(event.detail["rule"], "plane");
    assert_eq!(event.certificate.len(), 64);
    let backend = service.client("backend-1", Plane::Terminals).await;
    answer(backend.terminals().list_terminals(terminals()).await);
    for wrong in [
        refusal(backend.keys().get_key(key()).await),
        refusal(backend.pins().translate_pin(TranslatePinRequest::default()).await),
        refusal(backend.macs().generate_mac(GenerateMacRequest::default()).await),
    ] {
        assert_eq!(wrong.reason, "POLICY_DENIED");
    }
    drop((officer, backend));
    service.stop().await;
}

#[tokio::test]
async fn a_listener_believes_the_authorities_of_its_own_planes_alone() {
    let plain = Service::start().await;
    let carried: &[&[Plane]] = &[&[Plane::Admin], &[Plane::Data, Plane::Terminals]];
    let service = TlsService::start_over(plain, carried, dev::policy()).await;
    assert_eq!(called(&service, Some(&service.issue(OFFICER, Plane::Admin))).await, "OK");
    for plane in [Plane::Activation, Plane::Data, Plane::Terminals] {
        let other = service.issue(OFFICER, plane);
        assert_eq!(called(&service, Some(&other)).await, "NO CONNECTION", "{plane:?}");
    }
    assert_eq!(called(&service, None).await, "NO CONNECTION", "terminals do not call here");
    // At the other listener the officer's certificate is a stranger's, and the services of planes
    // that it does not carry are closed to everybody.
    let (admin, data) = (service.issue(OFFICER, Plane::Admin), service.issue(OFFICER, Plane::Data));
    let strange = Client::connect_with(&service.urls[1], &service.credentials(Some(&admin))).await;
    if let Ok(client) = strange {
        assert_eq!(refusal(client.keys().get_key(key()).await).reason, "");
    }
    let client = Client::connect_with(&service.urls[1], &service.credentials(Some(&data))).await;
    let closed = refusal(client.unwrap().keys().get_key(key()).await);
    assert_eq!(closed.reason, "POLICY_DENIED");
}

#[tokio::test]
async fn certificates_that_do_not_verify_do_not_connect() {
    let service = TlsService::start().await;
    assert_eq!(called(&service, Some(&for_admin(&service, |_| ()))).await, "OK", "the control");
    let namesake = Access::generate("TEST", DECADES).unwrap();
    let namesake = namesake.issue_client(Plane::Admin, OFFICER, DECADES).unwrap();
    let own = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(OFFICER)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.self_signed(&own).unwrap().pem();
    let self_signed = Issued { certificate, key: own.serialize_pem().into() };
    let root = &service.access.planes[&Plane::Admin];
    let authority_itself = Issued {
        certificate: certificate_to_pem(root.root_der()),
        key: firstkey::crypto::certificate::key_to_pem(&root.to_pkcs8()),
    };
    let server = service.access.issue_server(&["localhost"], DECADES).unwrap();
    let device = {
        let key = firstkey::crypto::ec::SigningKey::generate().unwrap();
        let der = service.plain.pki.vendor.issue_device(&key.public(), "SN-1", DAY).unwrap();
        Issued {
            certificate: certificate_to_pem(&der),
            key: firstkey::crypto::certificate::key_to_pem(&key.to_pkcs8()),
        }
    };
    let usage = |usages: Vec<ExtendedKeyUsagePurpose>| {
        for_admin(&service, |params| params.extended_key_usages = usages)
    };
    // The clock of the tests stands in the spring of 2030.
    for (what, issued) in [
        ("an authority of the same name", namesake),
        ("self-signed", self_signed),
        ("the authority's own", authority_itself),
        ("a server's", server),
        ("a device's", device),
        ("expired", for_admin(&service, |params| params.not_after = date_time_ymd(2030, 1, 1))),
        (
            "not yet valid",
            for_admin(&service, |params| params.not_before = date_time_ymd(2031, 1, 1)),
        ),
        ("for servers", usage(vec![ExtendedKeyUsagePurpose::ServerAuth])),
        ("for signing code", usage(vec![ExtendedKeyUsagePurpose::CodeSigning])),
        ("for nothing stated", usage(Vec::new())),
        ("for anything", usage(vec![ExtendedKeyUsagePurpose::Any])),
        (
            "that may not sign",
            for_admin(&service, |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]),
        ),
        (
            "of an authority below",
            for_admin(&service, |params| {
                params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            }),
        ),
    ] {
        assert_eq!(called(&service, Some(&issued)).await, "NO CONNECTION", "{what}");
    }
}

#[tokio::test]
async fn a_caller_has_one_plain_uri_name_and_no_other_name_counts() {
    let service = TlsService::start().await;
    let long = format!("spiffe://dev.firstkey.internal/{}", "a".repeat(230));
    let named = |names: Vec<SanType>| {
        for_admin(&service, |params| {
            params.subject_alt_names = names;
            // What is called like an officer is none by that.
            params.distinguished_name.push(DnType::CommonName, OFFICER);
        })
    };
    let dns = || SanType::DnsName("officer-1".try_into().unwrap());
    let mail = SanType::Rfc822Name("officer-1@dev.firstkey.internal".try_into().unwrap());
    // Not ASCII, so the library that makes certificates would not put it in by itself.
    let other_letters = for_admin(&service, |params| {
        let name = OFFICER.replace("officer-1", "оfficer-1");
        let (length, octets) = (u8::try_from(name.len()).unwrap(), name.as_bytes());
        let mut content = vec![0x30, length + 2, 0x86, length];
        content.extend_from_slice(octets);
        params.subject_alt_names = Vec::new();
        let extension = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 17], content);
        params.custom_extensions = vec![extension];
    });
    for (what, issued) in [
        ("no name", named(Vec::new())),
        ("a host name", named(vec![dns()])),
        ("a mail address", named(vec![mail])),
        ("two URIs", named(vec![uri(OFFICER), uri("spiffe://dev.firstkey.internal/x/y")])),
        ("the same URI twice", named(vec![uri(OFFICER), uri(OFFICER)])),
        ("a NUL at the end", named(vec![uri(&format!("{OFFICER}\0"))])),
        ("a NUL before more", named(vec![uri(&format!("{OFFICER}\0.evil.example"))])),
        ("a wildcard", named(vec![uri("spiffe://dev.firstkey.internal/officer/*")])),
        ("a space", named(vec![uri(&format!("{OFFICER} "))])),
        ("a line's end", named(vec![uri(&format!("{OFFICER}\n"))])),
        ("an escape", named(vec![uri(&OFFICER.replace("officer-1", "%6Fffice-1"))])),
        ("a query", named(vec![uri(&format!("{OFFICER}?"))])),
        ("no scheme", named(vec![uri("officer-1")])),
        ("nothing", named(vec![uri("")])),
        ("too long", named(vec![uri(&long)])),
        ("letters that look alike", other_letters),
    ] {
        assert_eq!(called(&service, Some(&issued)).await, "NO CONNECTION", "{what}");
    }
    // Names that are well-formed and nobody's: compared octet by octet.
    for name in [
        "spiffe://dev.firstkey.internal/officer/officer-9",
        "spiffe://dev.firstkey.internal/officer/officer-1/",
        "spiffe://DEV.firstkey.internal/officer/officer-1",
        "spiffe://xn--dv-jia.firstkey.internal/officer/officer-1",
        "spiffe://dev.firstkey.internal/officer/../officer/officer-1",
    ] {
        let issued = named(vec![uri(name)]);
        assert_eq!(called(&service, Some(&issued)).await, "CALLER_UNKNOWN", "{name}");
        let event = last_event(&service).await;
        assert_eq!((event.caller.as_str(), event.role.as_str()), (name, "stranger"));
        assert_eq!(event.detail["rule"], "principal");
    }
    // Other names beside it say nothing.
    assert_eq!(called(&service, Some(&named(vec![dns(), uri(OFFICER)]))).await, "OK");
}

/// A way to the service that can do what the client does not.
fn config(
    service: &TlsService,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    let root = service.access.server.root_der().to_vec();
    roots.add(CertificateDer::from(root)).unwrap();
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn handshake(
    service: &TlsService,
    config: &Arc<ClientConfig>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let address = service.url().trim_start_matches("https://localhost:");
    let stream = TcpStream::connect(format!("127.0.0.1:{address}")).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

#[tokio::test]
async fn nothing_but_tls_1_3_is_spoken_and_nothing_is_resumed() {
    let service = TlsService::start().await;
    let older = Arc::new(config(&service, &[&rustls::version::TLS12]));
    assert!(handshake(&service, &older).await.is_err(), "TLS 1.2");
    let config = Arc::new(config(&service, &[&rustls::version::TLS13]));
    for _ in 0..2 {
        let mut stream = handshake(&service, &config).await.unwrap();
        let connection: &ClientConnection = stream.get_ref().1;
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
        // Whatever the service sends first has been read: a ticket would be among it.
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        assert!(stream.read(&mut [0; 64]).await.unwrap() > 0);
    }
    // Plain text to the same port is not answered.
    let plain = service.url().replace("https://", "http://");
    let call = async {
        let client = Client::connect(&plain).await?;
        client.keys().get_key(key()).await.map_err(firstkey::grpc::client::ClientError::from)
    };
    assert!(tokio::time::timeout(Duration::from_secs(15), call).await.unwrap().is_err());
}

/// The SHA-256 of a certificate, as people see it.
fn fingerprint(issued: &Issued) -> String {
    let der = certificates_from_pem(issued.certificate.as_bytes()).unwrap();
    HEXUPPER.encode(&sha256(&[&der[0]]))
}

#[tokio::test]
async fn who_is_denied_is_shut_out_of_open_connections() {
    let service = TlsService::start().await;
    let (lost, new) = (service.issue(OFFICER, Plane::Admin), service.issue(OFFICER, Plane::Admin));
    let with_lost = service.connect(Some(&lost)).await.unwrap();
    let with_new = service.connect(Some(&new)).await.unwrap();
    let ask = async |client: &Client| match client.keys().get_key(key()).await {
        Ok(_) => "OK".to_owned(),
        Err(status) => Refusal::from(status).reason,
    };
    assert_eq!(ask(&with_lost).await, "OK");
    service.denied.replace(Denied::parse(&format!("{} # lost", fingerprint(&lost))).unwrap());
    assert_eq!(ask(&with_lost).await, "CALLER_UNKNOWN");
    let event = last_event(&service).await;
    assert_eq!((event.caller.as_str(), event.detail["rule"].as_str()), (OFFICER, "denied"));
    assert_eq!(event.certificate, fingerprint(&lost).to_lowercase());
    assert_eq!(ask(&with_new).await, "OK", "the same person, another certificate");
    service.denied.replace(Denied::parse(OFFICER).unwrap());
    assert_eq!(ask(&with_new).await, "CALLER_UNKNOWN", "denied by name");
    assert_eq!(called(&service, Some(&new)).await, "CALLER_UNKNOWN", "on a new connection too");
    let other = service.client("officer-2", Plane::Admin).await;
    assert_eq!(ask(&other).await, "OK");
    service.denied.replace(Denied::default());
    assert_eq!(ask(&with_lost).await, "OK");
}

/// The certificate that its holder makes of it without the authority: of an ECDSA signature (r, s)
/// also (r, n - s) verifies (FIPS 186-5, 6.4.2).
fn twisted(issued: &Issued) -> Issued {
    const ORDER: &str = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";
    let der = certificates_from_pem(issued.certificate.as_bytes()).unwrap().remove(0);
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    let signature = parsed.signature_value.data.as_ref();
    // SEQUENCE { INTEGER r, INTEGER s }, both of some 32 octets.
    let s_at = 4 + usize::from(signature[3]) + 2;
    let mut rest = HEXUPPER.decode(ORDER.as_bytes()).unwrap();
    let mut borrow = 0;
    for (index, octet) in signature[s_at..].iter().rev().enumerate().take(32) {
        let place = 31 - index;
        let difference = i16::from(rest[place]) - i16::from(*octet) - borrow;
        borrow = i16::from(difference < 0);
        rest[place] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    // A shorter s than 32 octets comes once in some hundred times, and once in some hundred times
    // n - s does: then another certificate is twisted.
    let sign: &[u8] = if rest[0] < 0x80 { &[] } else { &[0] };
    let s = [sign, &rest].concat();
    let len = |octets: &[u8]| u8::try_from(octets.len()).unwrap();
    let pair = [&signature[2..s_at - 1], &[len(&s)], &s].concat();
    let pair = [&[0, 0x30, len(&pair)], pair.as_slice()].concat();
    let signed = &der[4..der.len() - signature.len() - 3];
    let content = [signed, &[0x03, len(&pair)], &pair].concat();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let der = [&[0x30, 0x82], length.as_slice(), &content].concat();
    Issued { certificate: certificate_to_pem(&der), key: issued.key.clone() }
}

#[tokio::test]
async fn a_certificate_that_is_denied_is_denied_however_its_signature_is_written() {
    let service = TlsService::start().await;
    // One whose twin is in DER too: both forms of s without a zero in front.
    let (lost, twin) = loop {
        let lost = service.issue(OFFICER, Plane::Admin);
        let twin = twisted(&lost);
        if called(&service, Some(&twin)).await == "OK" {
            break (lost, twin);
        }
    };
    assert_ne!(fingerprint(&lost), fingerprint(&twin), "to all who look, another certificate");
    for (denied, shown) in [(&lost, &lost), (&lost, &twin), (&twin, &lost), (&twin, &twin)] {
        service.denied.replace(Denied::parse(&fingerprint(denied)).unwrap());
        assert_eq!(called(&service, Some(shown)).await, "CALLER_UNKNOWN");
        let event = last_event(&service).await;
        assert_eq!(event.detail["rule"], "denied");
        assert_eq!(event.certificate, fingerprint(shown).to_lowercase());
    }
    let new = service.issue(OFFICER, Plane::Admin);
    assert_eq!(called(&service, Some(&new)).await, "OK");
}

#[tokio::test]
async fn whom_an_authority_certified_goes_with_it_from_open_connections_and_streams() {
    let service = TlsService::start().await;
    let backend = service.client("backend-1", Plane::Terminals).await;
    let officer = service.client("officer-1", Plane::Admin).await;
    let watch = WatchTerminalsRequest::default();
    let mut stream = answer(backend.terminals().watch_terminals(watch).await);
    service.plain.register("till-1", Suite::P256Aes128).await;
    assert_eq!(stream.message().await.unwrap().unwrap().terminal, "terminals/till-1");
    let other = Access::generate("OTHER", DECADES).unwrap();
    let kept = material(&service.access);
    let new = material(&other).authorities.remove(&Plane::Terminals).unwrap();
    let old = &kept.authorities[&Plane::Terminals];
    // Another beside the old changes nothing for who is there.
    let mut wider = material(&service.access);
    wider.authorities.insert(Plane::Terminals, [old.as_slice(), &new].concat());
    Tls::renew(&service.tls, &wider).unwrap().put_in_force();
    answer(backend.terminals().list_terminals(terminals()).await);
    // Nor does what is not taken.
    let mut broken = material(&other);
    broken.key.clear();
    assert!(Tls::renew(&service.tls, &broken).is_err());
    answer(backend.terminals().list_terminals(terminals()).await);
    // The old one is believed no more.
    let mut narrower = material(&service.access);
    narrower.authorities.insert(Plane::Terminals, new);
    Tls::renew(&service.tls, &narrower).unwrap().put_in_force();
    let over = refusal(backend.terminals().list_terminals(terminals()).await);
    assert_eq!((over.code, over.reason.as_str()), (Code::Unauthenticated, "CALLER_UNKNOWN"));
    let event = last_event(&service).await;
    assert_eq!((event.role.as_str(), event.detail["rule"].as_str()), ("stranger", "authority"));
    assert_eq!(event.detail["source"], "127.0.0.1");
    service.plain.register("till-2", Suite::P256Aes128).await;
    let ended = stream.message().await.err().expect("it ends");
    assert_eq!(Refusal::from(ended).reason, "CALLER_UNKNOWN");
    answer(officer.keys().get_key(key()).await);
    // Believed again, its callers come in again.
    Tls::renew(&service.tls, &kept).unwrap().put_in_force();
    answer(backend.terminals().list_terminals(terminals()).await);
}

/// A store that takes no more, once it is told.
#[derive(Default)]
struct Unwritable {
    inner: MemoryStore,
    is_full: AtomicBool,
}

impl Store for Unwritable {
    fn get(&self, kind: Kind, id: &str) -> BoxFuture<'_, Result<Option<Row>, StoreError>> {
        self.inner.get(kind, id)
    }

    fn list(&self, query: Query) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.inner.list(query)
    }

    fn survey(
        &self,
        except: &'static [Kind],
        after: Option<(String, String)>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Surveyed>, StoreError>> {
        self.inner.survey(except, after, limit)
    }

    fn commit(
        &self,
        batches: Vec<Batch>,
        tail: Tail,
    ) -> BoxFuture<'_, Result<Vec<Outcome>, StoreError>> {
        if self.is_full.load(Ordering::Relaxed) {
            return Box::pin(async { Err(StoreError::Unavailable) });
        }
        self.inner.commit(batches, tail)
    }
}

/// A vault whose log can not be written.
async fn unwritable(service: &TlsService) -> Arc<Vault> {
    let store = Arc::new(Unwritable::default());
    let opening = Opening {
        store: Arc::<Unwritable>::clone(&store),
        master_key: development_keys().seal().unwrap(),
        realm: dev::REALM,
        clock: service.plain.clock.clone(),
        rng: Arc::new(SystemRng::new()),
        node: "test".to_owned(),
        audit: AuditSettings::default(),
    };
    let vault = Vault::open(opening).await.unwrap();
    store.is_full.store(true, Ordering::Relaxed);
    Arc::new(vault)
}

#[tokio::test]
async fn a_reload_that_can_not_be_audited_shuts_out_and_lets_nobody_in() {
    let service = TlsService::start().await;
    let officer = service.issue(OFFICER, Plane::Admin);
    let auditor = service.client("auditor-1", Plane::Admin).await;
    let backend = service.client("backend-1", Plane::Terminals).await;
    let exports = async || {
        let export = auditor.audit().export_events(ExportEventsRequest { after: 0 }).await;
        export.map_or_else(|status| Refusal::from(status).reason, |_| "OK".to_owned())
    };
    service.denied.replace(Denied::parse(OFFICER).unwrap());
    assert_eq!(called(&service, Some(&officer)).await, "CALLER_UNKNOWN");
    assert_eq!(exports().await, "OK");
    // From the officer to the auditor, and other authorities of one plane.
    let other = Access::generate("OTHER", DECADES).unwrap();
    let mut changed = material(&service.access);
    let new = material(&other).authorities.remove(&Plane::Terminals).unwrap();
    changed.authorities.insert(Plane::Terminals, new);
    let read = || Reload {
        denied: Some(Denied::parse(AUDITOR).unwrap()),
        certificates: Some(Tls::renew(&service.tls, &changed).unwrap()),
    };
    let newcomer = other.issue_client(Plane::Terminals, BACKEND, DAY).unwrap();
    let gate = Gate::open(unwritable(&service).await);
    let failed = reload(&gate, &service.denied, &service.tls, read()).await;
    assert_eq!(failed.unwrap_err().reason(), Reason::StoreUnavailable);
    assert_eq!(exports().await, "CALLER_UNKNOWN", "who is to be shut out is");
    let gone = refusal(backend.terminals().list_terminals(terminals()).await);
    assert_eq!(gone.reason, "CALLER_UNKNOWN", "whose authority is to go is");
    assert_eq!(called(&service, Some(&officer)).await, "CALLER_UNKNOWN", "and nobody is let in");
    if let Ok(client) = service.connect(Some(&newcomer)).await {
        let call = client.terminals().list_terminals(terminals()).await;
        assert!(call.is_err(), "its authority is not in force");
    }

    reload(&service.gate, &service.denied, &service.tls, read()).await.unwrap();
    let events = service.plain.vault.events_after(0, 1_000).await.unwrap();
    let reloads: Vec<_> = events.iter().filter(|event| event.action == "ReloadSettings").collect();
    let [event] = reloads[..] else { panic!("{} reloads", reloads.len()) };
    assert_eq!(event.caller, "service");
    assert_eq!(event.detail["denied"], HEXLOWER.encode(&sha256(&[AUDITOR.as_bytes()])));
    assert!(!event.detail.contains_key("failed"));
    assert_eq!(called(&service, Some(&officer)).await, "OK");
    assert_eq!(exports().await, "CALLER_UNKNOWN");
    let client = service.connect(Some(&newcomer)).await.unwrap();
    answer(client.terminals().list_terminals(terminals()).await);
    let gone = refusal(backend.terminals().list_terminals(terminals()).await);
    assert_eq!(gone.reason, "CALLER_UNKNOWN");
}

#[tokio::test]
async fn the_log_is_told_at_the_start_who_is_believed() {
    let service = TlsService::start().await;
    let events = service.plain.vault.events_after(0, 1_000).await.unwrap();
    let started = events.iter().rev().find(|event| event.action == "StartService").unwrap();
    assert_eq!(started.detail["denied"], HEXLOWER.encode(&sha256(&[])));
    for (plane, authority) in &service.access.planes {
        let told = &started.detail[&format!("authorities.{}", plane.as_str())];
        assert_eq!(*told, HEXLOWER.encode(&sha256(&[authority.root_der()])));
    }
}

#[tokio::test]
async fn who_is_denied_is_told_nothing_more_by_an_open_stream() {
    let service = TlsService::start().await;
    let backend = service.client("backend-1", Plane::Terminals).await;
    let watch = WatchTerminalsRequest::default();
    let mut stream = answer(backend.terminals().watch_terminals(watch).await);
    service.plain.register("till-1", Suite::P256Aes128).await;
    assert_eq!(stream.message().await.unwrap().unwrap().terminal, "terminals/till-1");
    service
        .denied
        .replace(Denied::parse("spiffe://dev.firstkey.internal/backend/backend-1").unwrap());
    service.plain.register("till-2", Suite::P256Aes128).await;
    let ended = stream.message().await.err().expect("it ends");
    assert_eq!(Refusal::from(ended).reason, "CALLER_UNKNOWN");
}

/// An export that has begun, of a log much longer than what is under way to a reader.
async fn exporting(service: &TlsService) -> tonic::Streaming<ExportEventsResponse> {
    let vault = &service.plain.vault;
    let caller = Caller::for_dev_only("test");
    let mut written = tokio::task::JoinSet::new();
    for _ in 0..3_000 {
        let (vault, caller) = (Arc::clone(vault), caller.clone());
        written.spawn(async move {
            let mut work = vault.begin(&caller, Action::GetKey, "keys/x").await?;
            work.detail("note", "n".repeat(2_000));
            work.commit().await
        });
    }
    assert!(written.join_all().await.iter().all(Result::is_ok));
    let auditor = service.connect(Some(&service.issue(AUDITOR, Plane::Admin))).await.unwrap();
    let mut stream = answer(auditor.audit().export_events(ExportEventsRequest { after: 0 }).await);
    assert!(!stream.message().await.unwrap().unwrap().events.is_empty());
    stream
}

/// Reads an export until it is cut off: it tells neither all events nor a checkpoint.
async fn cut_off(mut stream: tonic::Streaming<ExportEventsResponse>, what: &str) {
    let mut events = 100;
    let ended = loop {
        match stream.message().await {
            Ok(Some(message)) => {
                assert!(message.checkpoint.is_empty(), "{what}: no checkpoint is told");
                events += message.events.len();
            }
            Ok(None) => panic!("{what}: it ends as if that were all"),
            Err(status) => break Refusal::from(status),
        }
    };
    assert_eq!(ended.reason, "CALLER_UNKNOWN", "{what}");
    assert!(events < 3_000, "{what}: {events} events were told");
}

#[tokio::test]
async fn who_is_shut_out_gets_no_more_of_an_export_and_no_checkpoint() {
    let service = TlsService::start().await;
    let stream = exporting(&service).await;
    service.denied.replace(Denied::parse(AUDITOR).unwrap());
    cut_off(stream, "denied").await;
    service.denied.replace(Denied::default());

    let stream = exporting(&service).await;
    let policy = service.plain.vault.policy();
    let without = policy.principals.iter().filter(|principal| principal.name != AUDITOR);
    let without = Policy { principals: without.cloned().collect(), ..(*policy).clone() };
    let next = service.plain.vault.next_policy(without).await.unwrap();
    let officer = Caller::for_dev_only("test");
    let work = service.plain.vault.begin(&officer, Action::SetPolicy, Policy::RESOURCE).await;
    work.unwrap().commit_policy(next).await.unwrap();
    cut_off(stream, "not in the policy").await;
}

#[tokio::test]
async fn an_authority_takes_the_exports_of_those_it_certified_with_it() {
    let service = TlsService::start().await;
    let stream = exporting(&service).await;
    let other = Access::generate("OTHER", DECADES).unwrap();
    let mut narrower = material(&service.access);
    let new = material(&other).authorities.remove(&Plane::Admin).unwrap();
    narrower.authorities.insert(Plane::Admin, new);
    Tls::renew(&service.tls, &narrower).unwrap().put_in_force();
    cut_off(stream, "certified by nobody").await;
}

#[tokio::test]
async fn a_certificate_that_expires_while_it_is_connected_is_over() {
    let service = TlsService::start().await;
    let issued = service.access.issue_client(Plane::Admin, OFFICER, DAY).unwrap();
    let client = service.connect(Some(&issued)).await.unwrap();
    answer(client.keys().get_key(key()).await);
    service.plain.clock.advance(DAY.not_after - service.plain.clock.now().seconds());
    answer(client.keys().get_key(key()).await);
    service.plain.clock.advance(1);
    let over = refusal(client.keys().get_key(key()).await);
    assert_eq!((over.code, over.reason.as_str()), (Code::Unauthenticated, "CALLER_UNKNOWN"));
    assert_eq!(last_event(&service).await.detail["rule"], "expired");
}

/// Takes a terminal through the whole of its activation by a line of the test's.
async fn activate(service: &TlsService, line: &Client, till: &mut Till) {
    let code = service.plain.issue_code(&till.id).await;
    let now = || service.plain.device_time();
    let mut driver = Driver {
        line: &mut line.clone(),
        terminal: &mut till.terminal,
        rng: &service.plain.rng,
        now: &now,
        save: &mut |_: &Terminal| Ok(()),
        tell: &mut |_| (),
    };
    driver.activate(Some(code), false).await.expect("the activation succeeds");
    service.plain.enable(&till.id).await.expect("the terminal is enabled");
    assert_eq!(service.plain.state(&till.id).await, "ACTIVE");
}

#[tokio::test]
async fn a_terminal_without_a_certificate_activates_and_can_call_nothing_else() {
    let service = TlsService::start().await;
    let terminal = service.terminal().await;
    let mut till = service.plain.register("till-1", Suite::P256Aes128).await;
    activate(&service, &terminal, &mut till).await;
    for refused in [
        refusal(terminal.terminals().list_terminals(terminals()).await),
        refusal(terminal.keys().get_key(key()).await),
        refusal(terminal.pins().translate_pin(TranslatePinRequest::default()).await),
        refusal(terminal.macs().generate_mac(GenerateMacRequest::default()).await),
    ] {
        assert_eq!(refused.reason, "CALLER_UNKNOWN");
    }
}

#[tokio::test]
async fn a_relay_passes_terminals_on_by_its_certificate_and_does_nothing_else() {
    let service = TlsService::start().await;
    let relay = service.client("relay-1", Plane::Activation).await;
    let mut till = service.plain.register("till-1", Suite::P256Aes128).await;
    activate(&service, &relay, &mut till).await;
    let events = service.plain.vault.events_about("terminals/till-1", 0, 100).await.unwrap();
    let begun = events.iter().find(|event| event.action == "BeginActivation").unwrap();
    assert_eq!(begun.role, "terminal-relay");
    let refused = refusal(relay.terminals().list_terminals(terminals()).await);
    assert_eq!(refused.reason, "POLICY_DENIED");
    // Who has a certificate for elsewhere is no terminal, although terminals need none.
    let officer = service.client("officer-1", Plane::Admin).await;
    let request = firstkey::grpc::proto::BeginActivationRequest::default();
    let refused = refusal(officer.activation().begin_activation(request).await);
    assert_eq!(refused.reason, "POLICY_DENIED");
}

/// Every method of the services of this project, as paths.
fn paths() -> Vec<(String, PathAndQuery)> {
    let files = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let mut paths = Vec::new();
    for file in files.iter().filter(|file| file.package() == "firstkey.v1") {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/firstkey.v1.{}/{}", service.name(), method.name());
                paths.push((service.name().to_owned(), path.parse().unwrap()));
            }
        }
    }
    paths
}

#[tokio::test]
async fn a_new_service_lets_nobody_in_whom_its_policy_does_not_know() {
    let nobody = Policy { principals: Vec::new(), grants: Vec::new(), ..dev::policy() };
    let plain = Service::start().await;
    let service = TlsService::start_over(plain, &[&Plane::ALL], nobody).await;
    let root = service.access.server.root_der();
    let tls = tonic::transport::ClientTlsConfig::new()
        .ca_certificate(tonic::transport::Certificate::from_pem(certificate_to_pem(root)));
    let stranger = service.issue(OFFICER, Plane::Admin);
    let identity =
        tonic::transport::Identity::from_pem(&stranger.certificate, stranger.key.as_bytes());
    for (who, tls) in [("nobody", tls.clone()), ("a stranger", tls.identity(identity))] {
        let endpoint = tonic::transport::Endpoint::from_shared(service.url().to_owned()).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
        for (name, path) in paths() {
            let mut client = tonic::client::Grpc::new(channel.clone());
            client.ready().await.unwrap();
            let codec = ProstCodec::<(), ()>::default();
            let told = client.unary(tonic::Request::new(()), path.clone(), codec).await;
            let refused = Refusal::from(told.unwrap_err());
            let is_terminals = name == "ActivationService" && who == "nobody";
            assert_eq!(refused.reason == "CALLER_UNKNOWN", !is_terminals, "{who}: {path}");
            assert!(!refused.reason.is_empty(), "{who}: {path}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_is_over_takes_the_place_of_none_that_serves() {
    let service = TlsService::start().await;
    let config = Arc::new(config(&service, &[&rustls::version::TLS13]));
    let shown = async || {
        let stream = handshake(&service, &config).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let before = shown().await;
    let short = service.access.issue_server(&["localhost", "127.0.0.1"], DAY).unwrap();
    let short = Material {
        certificate: short.certificate.into_bytes(),
        key: Zeroizing::new(short.key.as_bytes().to_vec()),
        ..material(&service.access)
    };
    service.plain.clock.advance(2 * 86_400);
    assert_eq!(Tls::renew(&service.tls, &short).err(), Some(TlsError::Expired));
    assert_eq!(shown().await, before);
    Tls::renew(&service.tls, &material(&service.access)).unwrap().put_in_force();
    assert_ne!(shown().await, before);
    service.stop().await;
}

#[tokio::test]
async fn certificates_change_under_load_and_no_call_or_stream_is_dropped() {
    let service = TlsService::start().await;
    let backend = service.client("backend-1", Plane::Terminals).await;
    let mut stream =
        answer(backend.terminals().watch_terminals(WatchTerminalsRequest::default()).await);
    let (stop, calls) = (tokio_util::sync::CancellationToken::new(), backend.clone());
    let calling = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut count = 0;
            while !stop.is_cancelled() {
                answer(calls.terminals().list_terminals(terminals()).await);
                count += 1;
            }
            count
        }
    });
    let config = Arc::new(config(&service, &[&rustls::version::TLS13]));
    let shown = async || {
        let stream = handshake(&service, &config).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let mut seen = vec![shown().await];
    for number in 0..10 {
        Tls::renew(&service.tls, &material(&service.access)).unwrap().put_in_force();
        seen.push(shown().await);
        let id = format!("till-{number}");
        service.plain.register(&id, Suite::P256Aes128).await;
        let told = stream.message().await.unwrap().unwrap();
        assert_eq!(told.terminal, format!("terminals/{id}"));
    }
    seen.dedup();
    assert_eq!(seen.len(), 11, "each new connection sees the certificate of its time");
    stop.cancel();
    assert!(calling.await.expect("no call failed") > 10);
    // Another authority in place of the old: neither who is connected gets in nor who comes anew.
    let other = Access::generate("OTHER", DECADES).unwrap();
    let mut changed = material(&service.access);
    changed.authorities = material(&other).authorities;
    Tls::renew(&service.tls, &changed).unwrap().put_in_force();
    let over = refusal(backend.terminals().list_terminals(terminals()).await);
    assert_eq!(over.reason, "CALLER_UNKNOWN");
    let old = service.issue(OFFICER, Plane::Admin);
    assert_eq!(called(&service, Some(&old)).await, "NO CONNECTION");
    let new = other.issue_client(Plane::Admin, OFFICER, DECADES).unwrap();
    assert_eq!(called(&service, Some(&new)).await, "OK");
}

#[tokio::test]
async fn there_is_no_tls_with_what_does_not_hold() {
    let clock = crate::harness::TestClock::begin();
    let access = Access::generate("TEST", DECADES).unwrap();
    let refused = |planes: &[Plane], edit: &dyn Fn(&mut firstkey::server::Material)| {
        let mut material = material(&access);
        edit(&mut material);
        Tls::new(planes.to_vec(), &material, clock.clone()).err().expect("it is refused")
    };
    let admin = [Plane::Admin];
    assert_eq!(refused(&[], &|_| ()), TlsError::NoPlane);
    let missing = refused(&admin, &|material| drop(material.authorities.remove(&Plane::Admin)));
    assert_eq!(missing, TlsError::AuthorityMissing(Plane::Admin));
    // Also where another listener carries the second plane.
    let shared = refused(&admin, &|material| {
        let text = material.authorities[&Plane::Admin].clone();
        material.authorities.insert(Plane::Data, text);
    });
    assert_eq!(shared, TlsError::AuthorityShared(Plane::Admin, Plane::Data));
    for text in [&b""[..], b"none", certificate_of_a_client(&access).as_bytes()] {
        let no_authority = refused(&admin, &|material| {
            material.authorities = BTreeMap::from([(Plane::Admin, text.to_vec())]);
        });
        assert_eq!(no_authority, TlsError::Authority(Plane::Admin));
    }
    let not_its_key = refused(&admin, &|material| {
        material.key = crate::harness::material(&access).key;
    });
    assert!(matches!(not_its_key, TlsError::Certificate(_)));
    assert!(matches!(
        refused(&admin, &|material| material.certificate.clear()),
        TlsError::Certificate(_)
    ));
    assert!(matches!(refused(&admin, &|material| material.key.clear()), TlsError::Certificate(_)));
    // Where terminals alone call, nobody need be certified.
    let mut material = material(&access);
    material.authorities.clear();
    assert!(Tls::new(vec![Plane::Activation], &material, clock).is_ok());
}

fn certificate_of_a_client(access: &Access) -> String {
    access.issue_client(Plane::Admin, OFFICER, DECADES).unwrap().certificate
}
