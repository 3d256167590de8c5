//! Shares at a terminal outside a ceremony: the vault is opened by custodians one after the other,
//! and a share is read back from the slip.

use data_encoding::HEXUPPER;

use super::ask::{Ask, go_on};
use super::flow::{Fault, Setting, timely};
use super::screen::{Frame, Happened, Screen, digest_groups, in_groups};
use super::seat::named_papers;
use super::shares::type_share;
use super::table::Table;
use crate::component::Share;
use crate::crypto::ec::SigningKey;
use crate::grpc::client::{Client, ClientError, Credentials, SealView, ShareHolder};

/// Custodians with their shares at one terminal.
pub struct Custodians<'a> {
    table: &'a mut dyn Table,
    setting: Setting<'a>,
    happened: Vec<Happened>,
    notice: String,
    given: usize,
}

/// A custodian who has logged in.
struct Giver {
    name: String,
    client: Client,
    key: SigningKey,
}

impl<'a> Custodians<'a> {
    /// Sits down.
    pub fn new(table: &'a mut dyn Table, setting: Setting<'a>) -> Self {
        Self { table, setting, happened: Vec::new(), notice: String::new(), given: 0 }
    }

    /// How many shares the service took from here.
    #[must_use]
    pub const fn given(&self) -> usize {
        self.given
    }

    /// Takes shares until the vault is open. `first` gives the first one, if it is known who does;
    /// `names` are those who may come, if that is known. The service is asked over `client`.
    pub async fn unseal(
        &mut self,
        client: &Client,
        mut first: Option<Credentials>,
        names: &[String],
    ) -> Result<(), Fault> {
        self.notice = self.setting.warnings.join(" ");
        loop {
            let seal = timely(client.seal_view()).await?;
            if seal.is_open {
                let mut screen = self.screen(&seal);
                screen.expected = vec!["Enough shares were given: the vault is open.".to_owned()];
                go_on(self.table, screen)?;
                return Ok(());
            }
            let giver = match first.take() {
                Some(own) => {
                    let own = named_credentials(&own).map_err(ClientError::Envelope)?;
                    Some(Giver { name: own.0, client: client.clone(), key: own.1 })
                }
                None => self.next(&seal, names).await?,
            };
            let Some(giver) = giver else { continue };
            let share = self.share(&seal, &giver.name)?;
            let by = (&giver.key, self.setting.rng);
            match timely(giver.client.give_share(by, &share)).await {
                Ok(_) => {
                    self.given += 1;
                    let what = format!("{} gave a share", giver.name);
                    self.happened.push(Happened::now(self.table.now(), what));
                }
                Err(Fault::Call(ClientError::Refused(refusal))) => {
                    if refusal.reason == "UNSEAL_FAILED" {
                        let what = "the shares did not open the vault".to_owned();
                        self.happened.push(Happened::now(self.table.now(), what));
                    }
                    self.notice = match &*refusal.reason {
                        "SHARE_REFUSED" => {
                            let cause = refusal.told("cause").unwrap_or("it is refused");
                            format!("The share was not taken: {cause}.")
                        }
                        "UNSEAL_FAILED" => "The shares do not open the vault. Which of them is \
                                            wrong can not be told: all are given anew."
                            .to_owned(),
                        _ => return Err(ClientError::Refused(refusal).into()),
                    };
                    self.table.bell();
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Lets somebody read a share back that was just printed, until it is the one.
    pub async fn read_back(
        &mut self,
        client: &Client,
        holder: &ShareHolder<'_>,
    ) -> Result<(), Fault> {
        loop {
            let seal = timely(client.seal_view()).await?;
            let mut screen = self.screen(&seal);
            screen.expected = vec![
                "The share is printed. Type it back from the paper, so that nobody relies on a \
                 misprint."
                    .to_owned(),
            ];
            let share = type_share(self.table, &screen, self.setting.silence)?;
            match timely(holder.confirm(&share)).await {
                Err(Fault::Call(error)) if error.reason() == Some("SHARE_REFUSED") => {
                    "This is not the share that was given out.".clone_into(&mut self.notice);
                    self.table.bell();
                }
                answer => return answer.map(drop),
            }
        }
    }

    /// The next custodian logs in; none where that did not come about.
    async fn next(&mut self, seal: &SealView, names: &[String]) -> Result<Option<Giver>, Fault> {
        let given: &[String] = seal.attempt.as_ref().map_or(&[], |one| &one.given_by);
        let usual = names.iter().find(|name| !given.contains(name));
        let usual = usual.map(|name| (self.setting.papers_of)(name)).unwrap_or_default();
        let mut screen = self.screen(seal);
        screen.expected = vec![
            // Two lines: with a long path and a notice the smallest screen holds no more.
            "The next custodian logs in; all compare the envelope key above. Ctrl-C leaves: what \
             was given stays for those who give theirs elsewhere."
                .to_owned(),
        ];
        let question = "Path of your certificate, FILE.crt; its key lies beside it, FILE.key";
        let ask = Ask { question, usual: &usual, tries: None };
        let (name, (identity, key)) = ask.on(self.table, screen, named_papers)?;
        let authority = self.setting.authority.to_vec();
        let credentials = Credentials { authority, identity: Some(identity) };
        match timely(Client::connect_with(self.setting.url, &credentials)).await {
            Ok(client) => Ok(Some(Giver { name, client, key })),
            Err(fault) => {
                self.notice = fault.to_string();
                Ok(None)
            }
        }
    }

    fn share(&mut self, seal: &SealView, name: &str) -> Result<Share, Fault> {
        let mut screen = self.screen(seal);
        name.clone_into(&mut screen.name);
        let attempt = seal.attempt.as_ref().map(|one| HEXUPPER.encode(&one.fingerprint));
        let fingerprint = attempt.unwrap_or_default();
        screen.expected = vec![
            "Type your share from the slip, group by group. It goes to the service sealed for the \
             key for envelopes, which every custodian compares:"
                .to_owned(),
        ];
        let half = fingerprint.split_at_checked(32).unwrap_or((&fingerprint, ""));
        screen.expected.extend([in_groups(half.0), in_groups(half.1)]);
        type_share(self.table, &screen, self.setting.silence).map_err(Fault::from)
    }

    fn screen(&mut self, seal: &SealView) -> Screen {
        let (id, threshold) = seal.share_set.clone().unwrap_or_default();
        let given = seal.attempt.as_ref().map(|one| (one.given_by.len(), &one.fingerprint));
        Screen {
            frame: Frame {
                test: self.setting.test,
                service: self.setting.url.to_owned(),
                title: format!("shares of the set {}", HEXUPPER.encode(&id)),
                digest: String::new(),
                envelope_key: given.map(|(_, key)| digest_groups(key)).unwrap_or_default(),
            },
            who: given
                .map(|(given, _)| format!("{given} of {threshold} shares given"))
                .unwrap_or_default(),
            notice: std::mem::take(&mut self.notice),
            happened: self.happened.clone(),
            ..Screen::default()
        }
    }
}

/// Whose credentials they are, and the key to sign with.
fn named_credentials(own: &Credentials) -> Result<(String, SigningKey), &'static str> {
    let (certificate, key) = own.identity.as_ref().ok_or("name a certificate and its key")?;
    super::seat::named_identity(certificate, key)
}
