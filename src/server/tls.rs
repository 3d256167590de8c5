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
    self, CertificateInvalid, Chain, certificates_from_pem, inspect_authority, key_from_pem,
};
use crate::grpc::{Identity, Plane};
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
    /// The listener carries no plane.
    #[error("a listener carries at least one plane")]
    NoPlane,
}

/// The TLS of one listener. What it is made of can change while connections are open: those that
/// are stay as they are, the next ones get the new.
pub struct Tls {
    planes: Vec<Plane>,
    clock: Arc<dyn Clock>,
    current: RwLock<Arc<Current>>,
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
        let current = Current::make(&planes, material, &clock)?;
        Ok(Self { planes, clock, current: RwLock::new(Arc::new(current)) })
    }

    /// Puts other certificates in force on several listeners: on all of them, or on none.
    pub fn replace(listeners: &[Arc<Self>], material: &Material) -> Result<(), TlsError> {
        let make = |tls: &Arc<Self>| Current::make(&tls.planes, material, &tls.clock);
        let all: Vec<Current> = listeners.iter().map(make).collect::<Result<_, _>>()?;
        for (tls, current) in listeners.iter().zip(all) {
            *tls.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(current);
        }
        Ok(())
    }

    /// The planes that the listener carries.
    pub(super) fn planes(&self) -> &[Plane] {
        &self.planes
    }

    /// The last second in which the service's certificate is valid, in Unix time.
    pub(super) fn expiry(&self) -> u64 {
        self.current.read().unwrap_or_else(PoisonError::into_inner).expiry
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
        self.authorities.identify(certificates, self.clock.now().seconds())
    }
}

impl Current {
    fn make(
        planes: &[Plane],
        material: &Material,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let authorities = Arc::new(Authorities::read(planes, &material.authorities)?);
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

/// The authorities of each plane, in DER.
struct Authorities(BTreeMap<Plane, Vec<Vec<u8>>>);

impl Authorities {
    /// Reads the authorities of the planes that a listener carries, and looks at those of all.
    fn read(planes: &[Plane], texts: &BTreeMap<Plane, Vec<u8>>) -> Result<Self, TlsError> {
        if planes.is_empty() {
            return Err(TlsError::NoPlane);
        }
        let mut authorities = BTreeMap::new();
        let mut keys = BTreeMap::new();
        for (&plane, text) in texts {
            let certificates =
                certificates_from_pem(text).map_err(|_| TlsError::Authority(plane))?;
            for der in &certificates {
                let seen = inspect_authority(der).map_err(|_| TlsError::Authority(plane))?;
                match keys.insert(seen.key_fingerprint, plane) {
                    Some(other) if other != plane => {
                        return Err(TlsError::AuthorityShared(other, plane));
                    }
                    Some(_) | None => {}
                }
            }
            authorities.insert(plane, certificates);
        }
        let unguarded =
            |plane: &&Plane| **plane != Plane::Activation && !authorities.contains_key(*plane);
        if let Some(&plane) = planes.iter().find(unguarded) {
            return Err(TlsError::AuthorityMissing(plane));
        }
        authorities.retain(|plane, _| planes.contains(plane));
        Ok(Self(authorities))
    }

    /// Finds the planes whose authorities certify the leaf; there is one at least.
    fn identify(
        &self,
        certificates: &[CertificateDer<'_>],
        at: u64,
    ) -> Result<Identity, CertificateInvalid> {
        let chain = Chain::parse(certificates.iter().map(|der| der.to_vec()).collect())?;
        let mut found: Option<Identity> = None;
        let mut refused = CertificateInvalid::Path;
        for (&plane, anchors) in &self.0 {
            match certificate::verify_client(&chain, anchors, at) {
                Ok(client) => {
                    let identity = found.get_or_insert_with(|| Identity {
                        name: client.name,
                        fingerprint: data_encoding::HEXLOWER.encode(&client.fingerprint),
                        not_after: client.not_after,
                        planes: Vec::new(),
                    });
                    identity.planes.push(plane);
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
        let all = self.0.values().flatten();
        roots.add_parsable_certificates(all.map(|der| CertificateDer::from(der.as_slice())));
        roots
    }
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
        self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let certificates: Vec<_> =
            std::iter::once(end_entity).chain(intermediates).cloned().collect();
        match self.authorities.identify(&certificates, now.as_secs()) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(error) => {
                let error = Arc::new(error);
                Err(CertificateError::Other(rustls::OtherError(error)).into())
            }
        }
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
        formatter.debug_set().entries(self.0.keys()).finish()
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
