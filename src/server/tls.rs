//! TLS 1.3 of a listener: the service's certificate, and whose certificates it believes.
//!
//! Each plane has authorities of its own, named in the configuration; the system's are not asked.
//! There is no resumption: each connection proves its certificate anew.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use zeroize::Zeroizing;

use crate::crypto::certificate::{
    self, AuthorityCertificate, CertificateInvalid, Chain, certificates_from_pem,
    inspect_authority, key_from_pem,
};
use crate::grpc::{AuthorityKeys, Believed, Identity, Plane};
use crate::vault::Clock;

/// What TLS is made of, as the files hold it: PEM.
pub struct Material {
    /// The service's certificate and those that lead from it to its authority.
    pub certificate: Vec<u8>,
    /// The private key of the service's certificate, in PKCS #8.
    pub key: Zeroizing<Vec<u8>>,
    /// For each plane the certificates of the authorities that certify its callers.
    pub authorities: BTreeMap<Plane, Vec<u8>>,
}

/// Why there is no TLS with what was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// What stands for an authority's certificate is none.
    #[error("plane {}: not the certificates of authorities in PEM form", .0.as_str())]
    Authority(Plane),
    /// Nobody certifies the callers of a plane that the listener carries.
    #[error("plane {}: no authority certifies its callers", .0.as_str())]
    AuthorityMissing(Plane),
    /// Two planes have the same authority, so whoever may enter one could enter the other.
    #[error("planes {} and {} share an authority; each needs its own", .0.as_str(), .1.as_str())]
    AuthorityShared(Plane, Plane),
    /// The service's certificate or its key is not one, or they do not belong together.
    #[error("the service's certificate: {0}")]
    Certificate(String),
    /// The service's certificate is over, so that no caller would believe it.
    #[error("the service's certificate has expired; the one in force stays")]
    Expired,
    /// The listener carries no plane.
    #[error("a listener carries at least one plane")]
    NoPlane,
}

/// The TLS of one listener. What it is made of can change while connections are open: they stay
/// enciphered as they are, the next ones get the new. Whom an authority certified that is not in
/// force any more is shut out of open connections, too.
pub struct Tls {
    planes: Vec<Plane>,
    clock: Arc<dyn Clock>,
    current: RwLock<Arc<Current>>,
    believed: Believed,
}

/// Other certificates for some listeners, which are not in force yet.
pub struct Renewal(Vec<(Arc<Tls>, Current)>);

impl Renewal {
    /// Shuts out whom an authority certified that is not among these any more.
    pub(super) fn shut_out(&self) {
        for (tls, next) in &self.0 {
            tls.believed.keep(&next.authorities.keys());
        }
    }

    /// The authorities, as [`Tls::authorities`] has them.
    pub(super) fn authorities(&self) -> AuthorityKeys {
        self.0.iter().flat_map(|(_, next)| next.authorities.fingerprints()).collect()
    }

    /// Puts them in force.
    pub fn put_in_force(self) {
        for (tls, next) in self.0 {
            // First, so that nobody comes in by an authority of which no call would hold.
            tls.believed.replace(next.authorities.keys());
            *tls.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        }
    }
}

/// What new connections get.
struct Current {
    config: Arc<ServerConfig>,
    authorities: Arc<Authorities>,
    /// The last second of its certificate's validity.
    expiry: u64,
}

impl Tls {
    /// TLS for a listener that carries some planes.
    pub fn new(
        planes: Vec<Plane>,
        material: &Material,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let believed = Believed::default();
        let current = Current::make(&planes, material, &clock, &believed)?;
        believed.replace(current.authorities.keys());
        Ok(Self { planes, clock, current: RwLock::new(Arc::new(current)), believed })
    }

    /// Makes TLS of other certificates for several listeners: for all of them, or for none. One
    /// that has expired takes the place of none that serves.
    pub fn renew(listeners: &[Arc<Self>], material: &Material) -> Result<Renewal, TlsError> {
        let make = |tls: &Arc<Self>| {
            let next = Current::make(&tls.planes, material, &tls.clock, &tls.believed)?;
            if next.expiry < tls.clock.now().seconds() {
                return Err(TlsError::Expired);
            }
            Ok((Arc::clone(tls), next))
        };
        listeners.iter().map(make).collect::<Result<_, _>>().map(Renewal)
    }

    /// The planes that the listener carries.
    pub(super) fn planes(&self) -> &[Plane] {
        &self.planes
    }

    /// The last second in which the service's certificate is valid, in Unix time.
    pub(super) fn expiry(&self) -> u64 {
        self.current.read().unwrap_or_else(PoisonError::into_inner).expiry
    }

    /// The authorities in force: for each its plane and the SHA-256 of its certificate.
    pub(super) fn authorities(&self) -> AuthorityKeys {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.authorities.fingerprints()
    }

    /// What a new connection begins with; the same must judge its certificates.
    pub(super) fn begin(&self) -> Handshake {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Handshake {
            config: Arc::clone(&current.config),
            authorities: Arc::clone(&current.authorities),
            clock: Arc::clone(&self.clock),
        }
    }
}

/// One connection's way in.
pub(super) struct Handshake {
    pub(super) config: Arc<ServerConfig>,
    authorities: Arc<Authorities>,
    clock: Arc<dyn Clock>,
}

impl Handshake {
    /// Who showed these certificates in the handshake.
    pub(super) fn identify(
        &self,
        certificates: &[CertificateDer<'_>],
    ) -> Result<Identity, CertificateInvalid> {
        self.authorities.identify(&chain_of(certificates)?, self.clock.now().seconds())
    }
}

impl Current {
    fn make(
        planes: &[Plane],
        material: &Material,
        clock: &Arc<dyn Clock>,
        believed: &Believed,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let authorities = Arc::new(Authorities::read(planes, &material.authorities, believed)?);
        let key = certified_key(material, &provider)?;
        let builder = ServerConfig::builder_with_details(
            Arc::clone(&provider),
            Arc::new(HandedIn(Arc::clone(clock))),
        );
        let builder = builder
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::Certificate(error.to_string()))?;
        let builder = match ClientVerifier::new(planes, &authorities, provider) {
            Some(verifier) => builder.with_client_cert_verifier(Arc::new(verifier)),
            None => builder.with_no_client_auth(),
        };
        let resolver = rustls::sign::SingleCertAndKey::from(key);
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let chain = certificates_from_pem(&material.certificate).unwrap_or_default();
        let expiry = chain.iter().filter_map(|der| certificate::expiry(der).ok()).min();
        Ok(Self { config: Arc::new(config), authorities, expiry: expiry.unwrap_or(0) })
    }
}

fn certified_key(material: &Material, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let invalid = |error: &dyn fmt::Display| TlsError::Certificate(error.to_string());
    let chain = certificates_from_pem(&material.certificate).map_err(|error| invalid(&error))?;
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let key = key_from_pem(&material.key)
        .map_err(|_| TlsError::Certificate("no PKCS #8 key in PEM form".to_owned()))?;
    let key = PrivatePkcs8KeyDer::from(key.to_vec());
    CertifiedKey::from_der(chain, key.into(), provider).map_err(|error| invalid(&error))
}

/// The authorities of each plane.
struct Authorities {
    planes: BTreeMap<Plane, Vec<Authority>>,
    /// Those in force, at any time: what came in by these may be older.
    believed: Believed,
}

/// The certificate of an authority.
struct Authority {
    der: Vec<u8>,
    seen: AuthorityCertificate,
}

impl Authorities {
    /// Reads the authorities of the planes that a listener carries, and looks at those of all.
    fn read(
        planes: &[Plane],
        texts: &BTreeMap<Plane, Vec<u8>>,
        believed: &Believed,
    ) -> Result<Self, TlsError> {
        if planes.is_empty() {
            return Err(TlsError::NoPlane);
        }
        let mut authorities = BTreeMap::new();
        let mut keys = BTreeMap::new();
        for (&plane, text) in texts {
            let certificates =
                certificates_from_pem(text).map_err(|_| TlsError::Authority(plane))?;
            let mut all = Vec::new();
            for der in certificates {
                let seen = inspect_authority(&der).map_err(|_| TlsError::Authority(plane))?;
                match keys.insert(seen.key_fingerprint, plane) {
                    Some(other) if other != plane => {
                        return Err(TlsError::AuthorityShared(other, plane));
                    }
                    Some(_) | None => {}
                }
                all.push(Authority { der, seen });
            }
            authorities.insert(plane, all);
        }
        let unguarded =
            |plane: &&Plane| **plane != Plane::Activation && !authorities.contains_key(*plane);
        if let Some(&plane) = planes.iter().find(unguarded) {
            return Err(TlsError::AuthorityMissing(plane));
        }
        authorities.retain(|plane, _| planes.contains(plane));
        Ok(Self { planes: authorities, believed: believed.clone() })
    }

    fn each(&self) -> impl Iterator<Item = (Plane, &Authority)> {
        self.planes.iter().flat_map(|(plane, all)| all.iter().map(move |one| (*plane, one)))
    }

    /// For each its plane and the SHA-256 of its certificate.
    fn fingerprints(&self) -> AuthorityKeys {
        self.each().map(|(plane, one)| (plane, one.seen.fingerprint)).collect()
    }

    /// For each its plane and the SHA-256 of its key.
    fn keys(&self) -> AuthorityKeys {
        self.each().map(|(plane, one)| (plane, one.seen.key_fingerprint)).collect()
    }

    /// Finds the planes whose authorities certify the leaf; there is one at least.
    fn identify(&self, chain: &Chain, at: u64) -> Result<Identity, CertificateInvalid> {
        let in_hexadecimals = |digest: &[u8; 32]| data_encoding::HEXLOWER.encode(digest);
        let mut found: Option<Identity> = None;
        let mut refused = CertificateInvalid::Path;
        for (&plane, authorities) in &self.planes {
            let anchors: Vec<_> = authorities.iter().map(|one| one.der.clone()).collect();
            match certificate::verify_client(chain, &anchors, at) {
                Ok(client) => {
                    let identity = found.get_or_insert_with(|| Identity {
                        name: client.name,
                        fingerprint: in_hexadecimals(&client.fingerprint),
                        twins: client.twins.iter().map(in_hexadecimals).collect(),
                        not_after: client.not_after,
                        certificate: client.certificate,
                        key: client.key,
                        planes: BTreeMap::new(),
                        believed: self.believed.clone(),
                    });
                    identity.planes.insert(plane, client.authority);
                }
                // That one authority does not know it says less than what another found wrong.
                Err(CertificateInvalid::Path) => {}
                Err(error) => refused = error,
            }
        }
        found.ok_or(refused)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let all = self.each().map(|(_, one)| CertificateDer::from(one.der.as_slice()));
        roots.add_parsable_certificates(all);
        roots
    }
}

/// What a client shows: bounded before anything else is done with it.
fn chain_of(certificates: &[CertificateDer<'_>]) -> Result<Chain, CertificateInvalid> {
    Chain::parse(certificates.iter().map(|der| der.to_vec()).collect())
}

/// A refusal in the handshake.
fn refused(error: CertificateInvalid) -> rustls::Error {
    CertificateError::Other(rustls::OtherError(Arc::new(error))).into()
}

/// Judges the certificate that a client shows, in the handshake.
#[derive(Debug)]
struct ClientVerifier {
    authorities: Arc<Authorities>,
    /// Verifies what the certificate's key signed, and names the authorities to the client.
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientVerifier {
    /// None where nobody is asked for a certificate: terminals alone call there.
    fn new(
        planes: &[Plane],
        authorities: &Arc<Authorities>,
        provider: Arc<CryptoProvider>,
    ) -> Option<Self> {
        let roots = Arc::new(authorities.roots());
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
        if planes.contains(&Plane::Activation) {
            builder = builder.allow_unauthenticated();
        }
        // It is refused only where there is no authority at all.
        let inner = builder.build().ok()?;
        Some(Self { authorities: Arc::clone(authorities), inner })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let certificates: Vec<_> =
            std::iter::once(end_entity).chain(intermediates).cloned().collect();
        // Searching a path costs the more, the more certificates there are.
        let chain = chain_of(&certificates).map_err(refused)?;
        self.inner.verify_client_cert(end_entity, intermediates, now)?;
        self.authorities.identify(&chain, now.as_secs()).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.planes.keys()).finish()
    }
}

/// The service's clock, as the library of TLS asks for it.
struct HandedIn(Arc<dyn Clock>);

impl rustls::time_provider::TimeProvider for HandedIn {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.now().seconds())))
    }
}

impl fmt::Debug for HandedIn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HandedIn")
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::Access;
    use super::*;
    use crate::crypto::certificate::authority::Validity;

    const NOON: u64 = 1_800_000_000;

    #[test]
    fn what_a_client_shows_is_bounded_before_it_is_looked_at() {
        let validity = Validity { not_before: NOON - 100, not_after: NOON + 100 };
        let access = Access::generate("TEST", validity).unwrap();
        let root = access.planes[&Plane::Admin].root_der().to_vec();
        let text = certificate::certificate_to_pem(&root).into_bytes();
        let texts = BTreeMap::from([(Plane::Admin, text)]);
        let read = Authorities::read(&[Plane::Admin], &texts, &Believed::default());
        let provider = Arc::new(ring::default_provider());
        let verifier = ClientVerifier::new(&[Plane::Admin], &Arc::new(read.unwrap()), provider);
        let verifier = verifier.unwrap();
        let issued = access.issue_client(Plane::Admin, "urn:a", validity).unwrap();
        let leaf = certificates_from_pem(issued.certificate.as_bytes()).unwrap().remove(0);
        let told = |leaf: &[u8], others: Vec<Vec<u8>>| {
            let others: Vec<_> = others.into_iter().map(CertificateDer::from).collect();
            let now = UnixTime::since_unix_epoch(Duration::from_secs(NOON));
            let judged = verifier.verify_client_cert(&CertificateDer::from(leaf), &others, now);
            judged.map(|_| ()).map_err(|error| format!("{error:?}"))
        };
        assert_eq!(told(&leaf, vec![root.clone(); 3]), Ok(()));
        // These are no certificates: looked at first, they would be refused as such.
        let bounds = Err(format!("{:?}", refused(CertificateInvalid::Form)));
        assert_eq!(told(&[0], vec![vec![0]; 4]), bounds);
        assert_eq!(told(&[0; 4097], Vec::new()), bounds);
        assert_eq!(told(&leaf, vec![vec![0; 4097]]), bounds);
        assert_ne!(told(&[0], Vec::new()), bounds);
    }
}
