//! Shares at this terminal: `firstkey seal unseal` and the second half of `firstkey seal share`.

use anyhow::Context as _;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::{Client, ShareHolder};
use firstkey::guide::{Custodians, Fault, Setting, Stopped};

use super::hold::{stop_token, warnings};
use super::printer::Printer;
use super::terminal::{Terminal, ensure_there_is_one};
use crate::cli::Server;
use crate::connect::credentials;
use crate::print;
use crate::shared::access::read;

/// After so many seconds in which nobody types, what was typed of a share is wiped.
const SILENCE: u16 = 60;

/// What becomes of shares when those who gave them leave.
const KEPT: &str = "What was given here stays until 15 minutes pass without another share.";

/// Takes shares until the vault is open, or those who are here have given theirs; the first from
/// whoever the tool was started as.
pub(crate) async fn unseal(client: &Client, server: &Server) -> anyhow::Result<()> {
    ensure_there_is_one()?;
    let own = credentials(server)?;
    let (authority, rng) = (authority(server)?, SystemRng::new());
    let mut terminal = Terminal::take(stop_token()?, Printer::none())?;
    let mut custodians = Custodians::new(&mut terminal, setting(server, &authority, &rng));
    let done = custodians.unseal(client, Some(own), &[]).await;
    let given = custodians.given();
    drop(terminal);
    match done {
        Err(Fault::Stopped(Stopped::Interrupted)) if given > 0 => {
            print::line(KEPT);
            Ok(())
        }
        Err(fault) if given > 0 => Err(fault).context(KEPT),
        done => done.context("nothing happened: no share was given here"),
    }
}

/// Has the share that was just printed read back.
pub(crate) async fn read_back(
    client: &Client,
    server: &Server,
    holder: &ShareHolder<'_>,
) -> anyhow::Result<()> {
    let (authority, rng) = (authority(server)?, SystemRng::new());
    let mut terminal = Terminal::take(stop_token()?, Printer::none())?;
    let mut custodians = Custodians::new(&mut terminal, setting(server, &authority, &rng));
    Ok(custodians.read_back(client, holder).await?)
}

fn authority(server: &Server) -> anyhow::Result<Vec<u8>> {
    read(server.ca.as_deref().context("shares go to a service at https://: name --ca FILE")?)
}

fn setting<'a>(server: &'a Server, authority: &'a [u8], rng: &'a SystemRng) -> Setting<'a> {
    Setting {
        url: &server.server,
        authority,
        log_key: None,
        test: false,
        silence: SILENCE,
        rng,
        warnings: warnings(&Printer::none()),
        papers_of: &|_| String::new(),
    }
}
