//! The way to a service: where it is, whom to believe, and what to show.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use firstkey::grpc::client::{Client, Credentials};
use zeroize::Zeroizing;

use crate::cli::Server;

/// Connects as whoever the certificate names.
pub(crate) async fn connect(server: &Server) -> anyhow::Result<Client> {
    connect_with(server, identity(server)?).await
}

/// What a custodian signs envelopes with.
pub(crate) fn credentials(server: &Server) -> anyhow::Result<Credentials> {
    let ca = server.ca.as_deref().context("shares go to a service at https://: name --ca FILE")?;
    Ok(Credentials { authority: read(ca)?, identity: identity(server)? })
}

/// A certificate and its private key, both in PEM form.
type Identity = (Vec<u8>, Zeroizing<Vec<u8>>);

fn identity(server: &Server) -> anyhow::Result<Option<Identity>> {
    Ok(match (&server.cert, &server.key) {
        (Some(certificate), Some(key)) => Some((read(certificate)?, Zeroizing::new(read(key)?))),
        _ => None,
    })
}

/// Connects as a terminal does: without a certificate, as its proof stands in its messages.
pub(crate) async fn connect_as_terminal(server: &Server) -> anyhow::Result<Client> {
    connect_with(server, None).await
}

async fn connect_with(server: &Server, identity: Option<Identity>) -> anyhow::Result<Client> {
    let url = &server.server;
    match (&server.ca, url.starts_with("https://")) {
        (Some(ca), true) => {
            let credentials = Credentials { authority: read(ca)?, identity };
            Ok(Client::connect_with(url, &credentials).await?)
        }
        (None, false) => Ok(Client::connect(url).await?),
        (Some(_), false) => bail!("--ca is for a service at https://, and this is {url}"),
        (None, true) => {
            bail!("name the authority of the service at {url}: --ca FILE or FIRSTKEY_CA")
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("can not read {}", path.display()))
}
