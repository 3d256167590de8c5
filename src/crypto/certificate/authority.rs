//! A certificate authority whose key lies in a file: for development, for tests, and for the first
//! day of a service, until those who run it have an authority of their own.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SignatureAlgorithm, date_time_ymd,
};
use x509_parser::oid_registry::OID_X509_COMMON_NAME;
use zeroize::Zeroizing;

use super::super::ec::{Point, SigningKey};
use super::request::{key_pair, requested_key};
use super::{attribute, is_uri_name, parse};

/// An authority with its self-signed certificate and its private key.
pub struct Authority {
    common_name: String,
    key: SigningKey,
    root_der: Vec<u8>,
}

/// From when until when a certificate is valid, both in Unix seconds, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: u64,
    /// The last second.
    pub not_after: u64,
}

/// A certificate could not be issued: a name, time or request that does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate could not be issued")]
pub struct IssueFailed;

impl Authority {
    /// Makes an authority with a new key.
    pub fn new(common_name: &str, validity: Validity) -> Result<Self, IssueFailed> {
        let key = SigningKey::generate().map_err(|_| IssueFailed)?;
        let mut params = authority_params(common_name);
        set_validity(&mut params, validity)?;
        let pair = key_pair(&key).map_err(|_| IssueFailed)?;
        let root = params.self_signed(&pair).map_err(|_| IssueFailed)?;
        Ok(Self { common_name: common_name.to_owned(), key, root_der: root.der().to_vec() })
    }

    /// Opens an authority that was kept: its certificate and its key.
    pub fn from_parts(root_der: &[u8], pkcs8: &[u8]) -> Result<Self, IssueFailed> {
        let key = SigningKey::from_pkcs8(pkcs8).map_err(|_| IssueFailed)?;
        let root = parse(root_der).map_err(|_| IssueFailed)?;
        if root.public_key().raw != key.public().to_spki() {
            return Err(IssueFailed);
        }
        let common_name = attribute(root.subject(), &OID_X509_COMMON_NAME);
        let common_name = common_name.map_err(|_| IssueFailed)?.ok_or(IssueFailed)?;
        Ok(Self { common_name, key, root_der: root_der.to_vec() })
    }

    /// The certificate that others trust, in DER.
    #[must_use]
    pub fn root_der(&self) -> &[u8] {
        &self.root_der
    }

    /// The private key as PKCS #8, to be kept in a file.
    #[must_use]
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        self.key.to_pkcs8()
    }

    /// Certifies the key of a device with its serial number, in DER.
    pub fn issue_device(
        &self,
        public: &Point,
        serial_number: &str,
        validity: Validity,
    ) -> Result<Vec<u8>, IssueFailed> {
        let mut name = DistinguishedName::new();
        name.push(DnType::CustomDnType(SERIAL_NUMBER.to_vec()), serial_number);
        name.push(DnType::CommonName, serial_number);
        self.issue(public, name, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth, validity)
    }

    /// Certifies the key of a caller with its URI name, in DER.
    pub fn issue_client(
        &self,
        public: &Point,
        name: &str,
        validity: Validity,
    ) -> Result<Vec<u8>, IssueFailed> {
        if !is_uri_name(name) {
            return Err(IssueFailed);
        }
        let mut subject = DistinguishedName::new();
        // For whoever looks at the file; the service does not read it.
        subject.push(DnType::CommonName, name.rsplit('/').next().unwrap_or(name));
        let uri = SanType::URI(name.try_into().map_err(|_| IssueFailed)?);
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        self.issue(public, subject, vec![uri], usage, validity)
    }

    /// Certifies the key of a server for its host names and addresses, in DER.
    pub fn issue_server(
        &self,
        public: &Point,
        hosts: &[&str],
        validity: Validity,
    ) -> Result<Vec<u8>, IssueFailed> {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, *hosts.first().ok_or(IssueFailed)?);
        let name_of = |host: &&str| match host.parse::<IpAddr>() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => (*host).try_into().map(SanType::DnsName).map_err(|_| IssueFailed),
        };
        let names = hosts.iter().map(name_of).collect::<Result<_, _>>()?;
        self.issue(public, subject, names, ExtendedKeyUsagePurpose::ServerAuth, validity)
    }

    /// Certifies the key of a request for the service of an organization, in DER.
    ///
    /// The names in the request are not looked at: the authority says whose key it is.
    pub fn issue_service_from_request(
        &self,
        request_der: &[u8],
        organization: &str,
        validity: Validity,
    ) -> Result<Vec<u8>, IssueFailed> {
        let public = requested_key(request_der).ok_or(IssueFailed)?;
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, organization);
        name.push(DnType::CommonName, "firstkey");
        self.issue(&public, name, Vec::new(), ExtendedKeyUsagePurpose::ServerAuth, validity)
    }

    fn issue(
        &self,
        public: &Point,
        name: DistinguishedName,
        alternative_names: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
        validity: Validity,
    ) -> Result<Vec<u8>, IssueFailed> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name;
        params.subject_alt_names = alternative_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, validity)?;
        let certificate = params.signed_by(&CertifiedPoint(public), &self.issuer()?);
        certificate.map(|certificate| certificate.der().to_vec()).map_err(|_| IssueFailed)
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, IssueFailed> {
        let pair = key_pair(&self.key).map_err(|_| IssueFailed)?;
        Ok(Issuer::new(authority_params(&self.common_name), pair))
    }
}

/// Object identifier of the subject's serial number (X.520, 6.2.9).
const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];

fn authority_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn set_validity(params: &mut CertificateParams, validity: Validity) -> Result<(), IssueFailed> {
    // The library shows its time type by a calendar date alone, so the count starts at its origin.
    let at = |seconds| {
        // The year 9999 is the last that a certificate can hold (RFC 5280, 4.1.2.5).
        (seconds < 253_402_300_800)
            .then(|| date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds))
            .ok_or(IssueFailed)
    };
    params.not_before = at(validity.not_before)?;
    params.not_after = at(validity.not_after)?;
    Ok(())
}

/// A public key in the shape that the library certifies.
struct CertifiedPoint<'a>(&'a Point);

impl PublicKeyData for CertifiedPoint<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}
