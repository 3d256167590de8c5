//! What vouches for a device, judged anew at each step: its certificate and signature, or an HMAC
//! under its master key. And what vouches for the service in return.

use super::Signed;
use super::begin::broken;
use super::record::{Activation, Credential, Terminal};
use super::step::{fail, profile_of, refuse_spent};
use crate::activation::payload::CertificateChain;
use crate::activation::{Role, Step, Transcript, confirmation};
use crate::agreement::{MasterKey, SessionKeys, Suite};
use crate::command::manage_trust::Signer;
use crate::command::{Error, give_up, manage_trust};
use crate::crypto::certificate::{self, CertificateInvalid, Chain, Leaf};
use crate::crypto::ec;
use crate::key::usage::KeyDerivation;
use crate::vault::{self, Operation, Reason, StoredKey, UnixMillis, Vault, Versioned, Work};

/// Why a device is not believed.
#[derive(Debug)]
pub(super) enum Disbelief {
    /// Its master key is out of use, so it proves nothing; the audit log alone tells why.
    MasterKey(Reason),
    /// It did not prove itself; nothing is told and nothing is counted.
    Unproven,
    /// It proved its key, but its certificate is denied or outside its time.
    Untrusted {
        /// What to do about it.
        remedy: &'static str,
    },
    /// The proof could not be judged.
    Failed(Error),
}

impl From<Error> for Disbelief {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Disbelief> for Error {
    fn from(disbelief: Disbelief) -> Self {
        match disbelief {
            Disbelief::MasterKey(_) | Disbelief::Unproven => {
                Self::refused(Reason::ActivationRefused)
            }
            Disbelief::Untrusted { remedy } => Self::Refused {
                reason: Reason::DeviceNotTrusted,
                metadata: vec![("remedy", remedy.to_owned())],
            },
            Disbelief::Failed(error) => error,
        }
    }
}

/// Refuses a device that is not believed; of one that proved its key the timeline tells why.
pub(super) async fn disbelieve(
    mut work: Work,
    terminal: Versioned<Terminal>,
    disbelief: Disbelief,
) -> Error {
    match disbelief {
        Disbelief::MasterKey(reason) => {
            work.detail("master_key", reason.as_str());
            refuse_spent(work, disbelief).await
        }
        Disbelief::Unproven => refuse_spent(work, disbelief).await,
        Disbelief::Untrusted { .. } => fail(work, terminal, disbelief.into()).await,
        Disbelief::Failed(error) => give_up(work, error).await,
    }
}

/// A message that a device has to prove.
pub(super) struct Message<'a> {
    /// The certificates of the device; none where it has a master key.
    pub(super) chain: &'a [Vec<u8>],
    /// The transcript before the message.
    pub(super) before: &'a Transcript,
    /// Its step: begin, deliver or report.
    pub(super) step: Step,
    /// Its payload and proof.
    pub(super) signed: &'a Signed,
}

/// What a device proved itself by.
pub(super) enum Proven {
    /// The key of its certificate.
    Certificate,
    /// Its master key.
    MasterKey(Box<HeldKey>),
}

/// The master key of a terminal, and the suite that it is of.
pub(super) struct HeldKey {
    stored: StoredKey<KeyDerivation>,
    suite: Suite,
}

/// Judges what is to prove a message: a certificate chain and a signature over the transcript, or
/// an HMAC over it.
///
/// Another authority's certificate, another serial in it, a wrong signature, another master key and
/// a proof of another kind all look the same from outside: whoever proves nothing learns nothing.
pub(super) async fn prove(
    vault: &Vault,
    terminal: &Terminal,
    message: &Message<'_>,
    now: UnixMillis,
) -> Result<Proven, Disbelief> {
    let proven = judge_proof(vault, terminal, message, now).await?;
    // What others send in its name takes nothing from a terminal, so only now does a message count.
    let taken = vault.rates().take_terminal(&terminal.id);
    taken.map_err(|error| Disbelief::Failed(error.into()))?;
    Ok(proven)
}

async fn judge_proof(
    vault: &Vault,
    terminal: &Terminal,
    message: &Message<'_>,
    now: UnixMillis,
) -> Result<Proven, Disbelief> {
    let transcript = message.before.with(&message.signed.payload);
    let (step, proof) = (message.step, message.signed.proof.as_slice());
    match &terminal.credential {
        Credential::DeviceCertificate { authority } => {
            let (chain, leaf) = parse(message.chain)?;
            let input = transcript.authenticated_input(Role::Terminal, step);
            let signature = proof.try_into().map_err(|_| Disbelief::Unproven)?;
            ec::verify(&leaf.public, &input, signature).map_err(|_| Disbelief::Unproven)?;
            judge(vault, (terminal, authority), &chain, &leaf, now).await?;
            Ok(Proven::Certificate)
        }
        Credential::MasterKey { key } => {
            if !message.chain.is_empty() {
                return Err(Disbelief::Unproven);
            }
            let held = HeldKey::open(vault, terminal, key).await?;
            let key = match step {
                Step::Deliver => held.session_keys(&message.before.hash())?.confirm_terminal,
                _ => held.master_key()?.device_key(&terminal.serial),
            };
            confirmation::verify(&key, (Role::Terminal, step), &transcript, proof)
                .map_err(|_| Disbelief::Unproven)?;
            refuse_denied(vault, terminal).await?;
            Ok(Proven::MasterKey(Box::new(held)))
        }
    }
}

/// Judges a device that was proven before: its certificate may have run out since, its master key
/// be out of use, or the device denied.
pub(super) async fn judge_again(
    vault: &Vault,
    terminal: &Terminal,
    activation: &Activation,
    now: UnixMillis,
) -> Result<Proven, Disbelief> {
    match &terminal.credential {
        Credential::DeviceCertificate { authority } => {
            let (chain, leaf) = parse(&activation.certificate_chain)?;
            judge(vault, (terminal, authority), &chain, &leaf, now).await?;
            Ok(Proven::Certificate)
        }
        Credential::MasterKey { key } => {
            let held = HeldKey::open(vault, terminal, key).await?;
            refuse_denied(vault, terminal).await?;
            Ok(Proven::MasterKey(Box::new(held)))
        }
    }
}

impl Proven {
    /// Makes a commit depend on what the device was believed for: that it is not denied, and that
    /// its master key is as it was read.
    pub(super) fn expected_by(&self, work: &mut Work, terminal: &Terminal) {
        manage_trust::expect_allowed(work, &terminal.serial);
        if let Self::MasterKey(held) = self {
            work.uses(&held.stored);
        }
    }

    /// What the service proves its answers by, in the kind of the device.
    pub(super) async fn voice(&self, vault: &Vault) -> Result<Voice<'_>, Error> {
        match self {
            Self::Certificate => Ok(Voice::Identity(manage_trust::signer(vault).await?)),
            Self::MasterKey(held) => Ok(Voice::MasterKey(held)),
        }
    }
}

impl HeldKey {
    async fn open(vault: &Vault, terminal: &Terminal, key: &str) -> Result<Self, Disbelief> {
        let stored = match vault.key::<KeyDerivation>(key, Operation::DeriveInitial).await {
            Ok(stored) => stored,
            Err(vault::Error::Refused(reason)) => return Err(Disbelief::MasterKey(reason)),
            Err(error) => return Err(Disbelief::Failed(error.into())),
        };
        let suite = profile_of(vault, terminal).await?.suite;
        Ok(Self { stored, suite })
    }

    fn master_key(&self) -> Result<MasterKey<'_>, Error> {
        MasterKey::new(self.stored.key(), self.suite)
            .map_err(|_| broken("a master key is not one of its suite"))
    }

    /// The keys of the session that a transcript through `BeginAnswer` begins.
    pub(super) fn session_keys(&self, begun: &[u8; 32]) -> Result<SessionKeys, Error> {
        Ok(self.master_key()?.session_keys(begun))
    }
}

/// What the service proves an answer by.
pub(super) enum Voice<'a> {
    /// Its identity key, certified.
    Identity(Signer),
    /// The master key of the terminal.
    MasterKey(&'a HeldKey),
}

impl Voice<'_> {
    /// The certificates by which a terminal knows the identity key; none for a master key.
    pub(super) fn chain(&self) -> Result<Option<CertificateChain>, Error> {
        let Self::Identity(signer) = self else { return Ok(None) };
        let chain = CertificateChain::new(signer.chain.clone());
        chain.map(Some).ok_or_else(|| broken("the service's chain does not fit an answer"))
    }

    /// Proves the answer that ends a transcript; `begun` is the hash of it through `BeginAnswer`.
    pub(super) fn prove(
        &self,
        begun: &[u8; 32],
        transcript: &Transcript,
        step: Step,
    ) -> Result<Vec<u8>, Error> {
        match self {
            Self::Identity(signer) => {
                let input = transcript.authenticated_input(Role::Service, step);
                let signature = signer.key.sign(&input);
                Ok(signature.map_err(|_| broken("no randomness to sign"))?.to_vec())
            }
            Self::MasterKey(held) => {
                let key = held.session_keys(begun)?.confirm_service;
                Ok(confirmation::mac(&key, (Role::Service, step), transcript).to_vec())
            }
        }
    }
}

fn parse(chain: &[Vec<u8>]) -> Result<(Chain, Leaf), Disbelief> {
    let chain = Chain::parse(chain.to_vec()).map_err(|_| Disbelief::Unproven)?;
    let leaf = certificate::leaf(&chain).map_err(|_| Disbelief::Unproven)?;
    Ok((chain, leaf))
}

async fn judge(
    vault: &Vault,
    (terminal, authority): (&Terminal, &str),
    chain: &Chain,
    leaf: &Leaf,
    now: UnixMillis,
) -> Result<(), Disbelief> {
    let authority = manage_trust::read_device_authority(vault, authority).await?;
    let anchors = [authority.certificate];
    let in_time = match certificate::verify_device(chain, &anchors, now.seconds()) {
        Ok(_) => true,
        // Its authority did sign it: only then is it told that its time is over.
        Err(CertificateInvalid::Time) => {
            certificate::verify_device(chain, &anchors, leaf.not_after)
                .map_err(|_| Disbelief::Unproven)?;
            false
        }
        Err(
            CertificateInvalid::Form
            | CertificateInvalid::Key
            | CertificateInvalid::Name
            | CertificateInvalid::Path
            | CertificateInvalid::Usage,
        ) => return Err(Disbelief::Unproven),
    };
    if leaf.serial_number.as_deref() != Some(terminal.serial.as_str()) {
        return Err(Disbelief::Unproven);
    }
    if !in_time {
        let remedy = "the device's certificate is outside its time of validity: renew it";
        return Err(Disbelief::Untrusted { remedy });
    }
    refuse_denied(vault, terminal).await
}

async fn refuse_denied(vault: &Vault, terminal: &Terminal) -> Result<(), Disbelief> {
    if manage_trust::is_denied(vault, &terminal.serial).await? {
        return Err(Disbelief::Untrusted { remedy: "the device is denied: ask the acquirer" });
    }
    Ok(())
}
