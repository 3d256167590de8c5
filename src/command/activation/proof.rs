//! What vouches for a device: its certificate, judged anew at each step, and its signature.

use super::record::Terminal;
use super::step::fail;
use crate::activation::{Role, Step, Transcript};
use crate::command::{Error, give_up, manage_trust, refuse};
use crate::crypto::certificate::{self, CertificateInvalid, Chain, Leaf};
use crate::crypto::ec;
use crate::vault::{Reason, UnixMillis, Vault, Versioned, Work};

/// Why a device is not believed.
#[derive(Debug)]
pub(super) enum Disbelief {
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
            Disbelief::Unproven => Self::refused(Reason::ActivationRefused),
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
    work: Work,
    terminal: Versioned<Terminal>,
    disbelief: Disbelief,
) -> Error {
    match disbelief {
        Disbelief::Unproven => refuse(work, disbelief).await,
        Disbelief::Untrusted { .. } => fail(work, terminal, disbelief.into()).await,
        Disbelief::Failed(error) => give_up(work, error).await,
    }
}

/// Judges a device's certificate chain and its signature over a transcript.
///
/// Another authority's certificate, another serial in it and a wrong signature all look the same
/// from outside: whoever can not sign learns nothing.
pub(super) async fn prove(
    vault: &Vault,
    terminal: &Terminal,
    chain: &[Vec<u8>],
    transcript: &Transcript,
    step: Step,
    signature: &[u8],
    now: UnixMillis,
) -> Result<(), Disbelief> {
    let chain = Chain::parse(chain.to_vec()).map_err(|_| Disbelief::Unproven)?;
    let leaf = certificate::leaf(&chain).map_err(|_| Disbelief::Unproven)?;
    let input = transcript.authenticated_input(Role::Terminal, step);
    let signature = signature.try_into().map_err(|_| Disbelief::Unproven)?;
    ec::verify(&leaf.public, &input, signature).map_err(|_| Disbelief::Unproven)?;
    judge(vault, terminal, &chain, &leaf, now).await
}

/// Judges a certificate chain that was proven before: it may have been denied or run out since.
pub(super) async fn judge_again(
    vault: &Vault,
    terminal: &Terminal,
    chain: &[Vec<u8>],
    now: UnixMillis,
) -> Result<(), Disbelief> {
    let chain = Chain::parse(chain.to_vec()).map_err(|_| Disbelief::Unproven)?;
    let leaf = certificate::leaf(&chain).map_err(|_| Disbelief::Unproven)?;
    judge(vault, terminal, &chain, &leaf, now).await
}

async fn judge(
    vault: &Vault,
    terminal: &Terminal,
    chain: &Chain,
    leaf: &Leaf,
    now: UnixMillis,
) -> Result<(), Disbelief> {
    let authority = manage_trust::read_device_authority(vault, &terminal.device_authority).await?;
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
    if manage_trust::is_denied(vault, &terminal.serial).await? {
        return Err(Disbelief::Untrusted { remedy: "the device is denied: ask the acquirer" });
    }
    Ok(())
}
