//! Who sits at the table: each logs in with a certificate of their own, once, and acts over a
//! connection of their own.

use std::rc::Rc;

use zeroize::Zeroizing;

use super::ask::Ask;
use super::flow::{Fault, Sitting, timely};
use super::table::Table;
use super::words::role_of;
use crate::command::ceremony::step::{Actor, Step};
use crate::crypto::certificate::{certificates_from_pem, client_name, key_from_pem};
use crate::crypto::ec::SigningKey;
use crate::grpc::client::{Client, Credentials};

/// Somebody at the table.
pub(super) struct Seat {
    pub(super) actor: Actor,
    pub(super) client: Client,
    pub(super) key: SigningKey,
}

impl Sitting<'_> {
    /// Who does a step; whoever was not here yet logs in.
    pub(super) async fn seat(&mut self, step: Step) -> Result<Rc<Seat>, Fault> {
        if let Some(seat) = self.seats.iter().find(|seat| seat.actor == step.actor) {
            return Ok(Rc::clone(seat));
        }
        let planned = self.view.planned.clone();
        let name = planned.name_of(step.actor).unwrap_or_default();
        let usual = (self.setting.papers_of)(name);
        let mut notice = String::new();
        loop {
            let mut screen = self.screen_of(step);
            screen.expected = vec![
                "Log in: your certificate says who you are, its key signs what you do. Nobody \
                 logs in for somebody else."
                    .to_owned(),
            ];
            screen.notice = std::mem::take(&mut notice);
            let question = "Path of your certificate, FILE.crt; its key lies beside it, FILE.key";
            let ask = Ask { question, usual: &usual, tries: None };
            let papers = ask.on(self.table, screen, |table, path| papers(table, path, name))?;
            let (identity, key) = papers;
            let authority = self.setting.authority.to_vec();
            let credentials = Credentials { authority, identity: Some(identity) };
            match timely(Client::connect_with(self.setting.url, &credentials)).await {
                Ok(client) => {
                    let seat = Rc::new(Seat { actor: step.actor, client, key });
                    self.seats.push(Rc::clone(&seat));
                    self.tell(format!("{} logged in", role_of(&planned, step.actor)));
                    return Ok(seat);
                }
                Err(fault) => notice = fault.to_string(),
            }
        }
    }
}

/// A certificate and its key in PEM form, which name this somebody, and the key ready to sign.
pub(super) type Papers = ((Vec<u8>, Zeroizing<Vec<u8>>), SigningKey);

fn papers(table: &mut dyn Table, path: &str, name: &str) -> Result<Papers, String> {
    let (own, papers) = named_papers(table, path)?;
    if own != name {
        return Err(format!("this is the certificate of {own}; {name} logs in here"));
    }
    Ok(papers)
}

/// Reads papers, and whose they are.
pub(super) fn named_papers(table: &mut dyn Table, path: &str) -> Result<(String, Papers), String> {
    let stem = path.strip_suffix(".crt").unwrap_or(path);
    let certificate = table.read(&format!("{stem}.crt"))?;
    // Whose it is comes before whether its key is there.
    name_of(&certificate).map_err(|cause| format!("{stem}: {cause}"))?;
    let pem = table.read(&format!("{stem}.key"))?;
    let (own, key) =
        named_identity(&certificate, &pem).map_err(|cause| format!("{stem}: {cause}"))?;
    Ok((own, ((certificate.to_vec(), pem), key)))
}

/// Whose certificate it is, and its key ready to sign.
pub(super) fn named_identity(
    certificate: &[u8],
    pem: &[u8],
) -> Result<(String, SigningKey), &'static str> {
    let own = name_of(certificate)?;
    let key = key_from_pem(pem).map_err(|_| "the key is no private key in PEM form")?;
    let key = SigningKey::from_pkcs8(&key).map_err(|_| "the key is not of P-256 in PKCS #8")?;
    Ok((own, key))
}

fn name_of(certificate: &[u8]) -> Result<String, &'static str> {
    let chain =
        certificates_from_pem(certificate).map_err(|_| "the certificate is none in PEM form")?;
    let own = chain.first().and_then(|der| client_name(der).ok());
    own.ok_or("the certificate does not say who somebody is")
}
