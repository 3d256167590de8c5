//! The folders in which certificates lie: of the service, of the authorities, of callers.
//!
//! ```text
//! tls/server.crt  server.key             the service's own
//! authorities/server.crt  server.key     certifies the service; its .crt stands with every client
//!             admin.crt   admin.key ...  certify the callers of each plane
//! clients/admin/officer-1.crt  .key ...  for each holder a certificate for each of its planes
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use firstkey::crypto::certificate::authority::{Authority, Validity};
use firstkey::crypto::certificate::{certificate_to_pem, key_to_pem};
use firstkey::grpc::Plane;
use firstkey::server::Material;
use firstkey::server::access::{Access, HOLDERS, Issued};
use zeroize::Zeroizing;

use super::development::{make_folder, write_new};

/// The folder of the service's own certificate.
const TLS: &str = "tls";
/// The folder of the authorities.
const AUTHORITIES: &str = "authorities";
/// The folder of the callers' certificates.
pub(crate) const CLIENTS: &str = "clients";
/// What the files of the service, and of its authority, are called.
pub(crate) const SERVER: &str = "server";

/// Where TLS is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) authorities: BTreeMap<Plane, PathBuf>,
}

impl Files {
    /// As [`write`] lays them out below a folder.
    pub(crate) fn below(folder: &Path) -> Self {
        let authority = |plane: Plane| {
            let name = format!("{}.crt", plane.as_str());
            (plane, folder.join(AUTHORITIES).join(name))
        };
        Self {
            certificate: folder.join(TLS).join("server.crt"),
            key: folder.join(TLS).join("server.key"),
            authorities: Plane::ALL.map(authority).into_iter().collect(),
        }
    }

    /// Reads them all.
    pub(crate) fn read(&self) -> anyhow::Result<Material> {
        let authorities = self.authorities.iter().map(|(plane, path)| Ok((*plane, read(path)?)));
        Ok(Material {
            certificate: read(&self.certificate)?,
            key: Zeroizing::new(read(&self.key)?),
            authorities: authorities.collect::<anyhow::Result<_>>()?,
        })
    }
}

/// Whom the certificates of a new service are for.
pub(crate) struct Names<'a> {
    /// The host names and addresses of the service.
    pub(crate) hosts: &'a [&'a str],
    /// The domain below which callers are named.
    pub(crate) trust_domain: &'a str,
    /// How long the certificates of the service and of callers hold.
    pub(crate) validity: Validity,
}

/// Writes the authorities and certificates of a new service below a folder.
pub(crate) fn write(folder: &Path, access: &Access, names: &Names<'_>) -> anyhow::Result<()> {
    let authorities = folder.join(AUTHORITIES);
    make_folder(&authorities)?;
    write_authority(&authorities, SERVER, &access.server)?;
    for (plane, authority) in &access.planes {
        write_authority(&authorities, plane.as_str(), authority)?;
    }
    let tls = folder.join(TLS);
    make_folder(&tls)?;
    write_issued(&tls.join(SERVER), &access.issue_server(names.hosts, names.validity)?)?;
    for holder in HOLDERS {
        for plane in holder.planes {
            make_folder(&folder.join(CLIENTS).join(plane.as_str()))?;
            let name = holder.uri_name(names.trust_domain);
            let issued = access.issue_client(*plane, &name, names.validity)?;
            write_issued(&client(folder, *plane, holder.name), &issued)?;
        }
    }
    Ok(())
}

/// Where the certificate of a holder for a plane lies, without its ending.
pub(crate) fn client(folder: &Path, plane: Plane, holder: &str) -> PathBuf {
    folder.join(CLIENTS).join(plane.as_str()).join(holder)
}

/// Where the certificate of the service's authority lies.
pub(crate) fn server_authority(folder: &Path) -> PathBuf {
    folder.join(AUTHORITIES).join("server.crt")
}

/// Writes a certificate and its key beside each other: `{stem}.crt` and `{stem}.key`.
pub(crate) fn write_issued(stem: &Path, issued: &Issued) -> anyhow::Result<()> {
    write_new(&ending(stem, "key"), issued.key.as_bytes())?;
    write_new(&ending(stem, "crt"), issued.certificate.as_bytes())
}

fn write_authority(folder: &Path, name: &str, authority: &Authority) -> anyhow::Result<()> {
    let stem = folder.join(name);
    let key = key_to_pem(&authority.to_pkcs8());
    write_new(&ending(&stem, "key"), key.as_bytes())?;
    write_new(&ending(&stem, "crt"), certificate_to_pem(authority.root_der()).as_bytes())
}

/// A name with an ending; dots in the name stay.
pub(crate) fn ending(stem: &Path, ending: &str) -> PathBuf {
    let mut path = stem.as_os_str().to_owned();
    path.push(".");
    path.push(ending);
    path.into()
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("can not read {}", path.display()))
}
