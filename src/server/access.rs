//! Certificates with which people and machines come in, and the policy that knows their names.
//!
//! For development, and for the first day of a service that is being set up: authorities whose keys
//! lie in files, one for the service's own certificate and one for the callers of each plane.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::crypto::certificate::authority::{Authority, IssueFailed, Validity};
use crate::crypto::certificate::{certificate_to_pem, key_to_pem};
use crate::crypto::ec::SigningKey;
use crate::grpc::Plane;
use crate::vault::{AuditMode, Grant, Policy, Principal, Role};

/// The authorities.
pub struct Access {
    /// Certifies the service; its certificate stands with every client.
    pub server: Authority,
    /// Certify the callers of each plane; their certificates stand with the service.
    pub planes: BTreeMap<Plane, Authority>,
}

/// A certificate and its private key, both in PEM form.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The private key in PKCS #8.
    pub key: Zeroizing<String>,
}

/// Somebody who gets certificates: a person, or a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What the files are called.
    pub name: &'static str,
    /// The role.
    pub role: Role,
    /// Where the role's calls are: a certificate for each.
    pub planes: &'static [Plane],
}

/// Those that a new service knows: as few as there must be.
pub const HOLDERS: [Holder; 10] = [
    person("officer-1", Role::Officer, &[Plane::Admin, Plane::Terminals]),
    person("officer-2", Role::Officer, &[Plane::Admin, Plane::Terminals]),
    person("officer-3", Role::Officer, &[Plane::Admin, Plane::Terminals]),
    person("custodian-1", Role::Custodian, &[Plane::Admin]),
    person("custodian-2", Role::Custodian, &[Plane::Admin]),
    person("custodian-3", Role::Custodian, &[Plane::Admin]),
    person("operator-1", Role::Operator, &[Plane::Admin, Plane::Terminals]),
    person("auditor-1", Role::Auditor, &[Plane::Admin]),
    Holder { name: "backend-1", role: Role::Backend, planes: &[Plane::Data, Plane::Terminals] },
    Holder { name: "relay-1", role: Role::TerminalRelay, planes: &[Plane::Activation] },
];

const fn person(name: &'static str, role: Role, planes: &'static [Plane]) -> Holder {
    Holder { name, role, planes }
}

impl Holder {
    /// Its URI name below a trust domain: `spiffe://{domain}/{role}/{name}`.
    #[must_use]
    pub fn uri_name(&self, trust_domain: &str) -> String {
        format!("spiffe://{trust_domain}/{}/{}", self.role.as_str(), self.name)
    }

    fn is_person(&self) -> bool {
        !matches!(self.role, Role::Backend | Role::TerminalRelay)
    }
}

impl Access {
    /// Makes the authorities anew, named after whose they are.
    pub fn generate(owner: &str, validity: Validity) -> Result<Self, IssueFailed> {
        let planes = Plane::ALL.map(|plane| {
            let name = format!("{owner}, callers of plane {}", plane.as_str());
            Ok((plane, Authority::new(&name, validity)?))
        });
        Ok(Self {
            server: Authority::new(&format!("{owner}, service"), validity)?,
            planes: planes.into_iter().collect::<Result<_, _>>()?,
        })
    }

    /// Certifies a service for its host names and addresses.
    pub fn issue_server(&self, hosts: &[&str], validity: Validity) -> Result<Issued, IssueFailed> {
        issue_server(&self.server, hosts, validity)
    }

    /// Certifies a caller of a plane.
    pub fn issue_client(
        &self,
        plane: Plane,
        uri_name: &str,
        validity: Validity,
    ) -> Result<Issued, IssueFailed> {
        let authority = self.planes.get(&plane).ok_or(IssueFailed)?;
        issue_client(authority, uri_name, validity)
    }
}

/// Certifies a service for its host names and addresses.
pub fn issue_server(
    authority: &Authority,
    hosts: &[&str],
    validity: Validity,
) -> Result<Issued, IssueFailed> {
    issue(|key| authority.issue_server(&key.public(), hosts, validity))
}

/// Certifies a caller by the authority of its plane.
pub fn issue_client(
    authority: &Authority,
    uri_name: &str,
    validity: Validity,
) -> Result<Issued, IssueFailed> {
    issue(|key| authority.issue_client(&key.public(), uri_name, validity))
}

fn issue(
    certify: impl FnOnce(&SigningKey) -> Result<Vec<u8>, IssueFailed>,
) -> Result<Issued, IssueFailed> {
    let key = SigningKey::generate().map_err(|_| IssueFailed)?;
    let certificate = certificate_to_pem(&certify(&key)?);
    Ok(Issued { certificate, key: key_to_pem(&key.to_pkcs8()) })
}

/// A policy that knows the [`HOLDERS`] below a trust domain, with some grants.
#[must_use]
pub fn policy(trust_domain: &str, votes_required: u32, grants: Vec<Grant>) -> Policy {
    let principals = HOLDERS.iter().map(|holder| Principal {
        name: holder.uri_name(trust_domain),
        person: if holder.is_person() { holder.name.to_owned() } else { String::new() },
        role: holder.role,
        profiles: match holder.role {
            Role::Backend => vec!["profiles/*".to_owned()],
            _ => Vec::new(),
        },
        calls_per_minute_max: 0,
    });
    Policy {
        version: 0,
        votes_required,
        approval_seconds: 24 * 60 * 60,
        audit: AuditMode::Each,
        principals: principals.collect(),
        grants,
    }
}
