//! Makes the MAC of a message, under a static key or a transaction key.

use super::mac_policy::{Asked, MacWorkingKey};
use super::transaction_key::{Side, Wanted, check_named_terminal, underivable};
use super::{Direction, Error, Ksn, give_up, retrying};
use crate::key::usage::Mac;
use crate::mac::{MacAlgorithm, MacTag};
use crate::vault::{Action, Caller, Claim, Operation, Purpose, Reason, Vault, Work};

/// A MAC to be made.
pub struct Request {
    /// The key.
    pub key: MacWorkingKey,
    /// The algorithm, with its padding.
    pub algorithm: MacAlgorithm,
    /// The message.
    pub message: Vec<u8>,
    /// How many octets of the MAC are wanted.
    pub len_bytes: usize,
    /// The id in `terminals/{id}`; none to find it by the KSN.
    pub terminal: Option<String>,
}

/// Makes a MAC.
///
/// A transaction key makes one message per counter and direction; the identical call within five
/// minutes makes the same MAC again. The MAC of a request is the terminal's to make: for a terminal
/// that is registered here it is refused with `KEY_USAGE_MISMATCH`.
pub async fn generate_mac(
    vault: &Vault,
    caller: &Caller,
    request: &Request,
) -> Result<MacTag, Error> {
    retrying(|| async {
        let behind = request.key.behind(vault, caller).await?;
        let (action, resource, keys) = (Action::GenerateMac, behind.resource(), [behind.used()]);
        let mut work = vault.begin_with_keys(caller, action, resource, &keys).await?;
        match compute((vault, caller), &mut work, behind.name(), request).await {
            Ok(mac) => {
                work.commit().await?;
                Ok(mac)
            }
            Err(error) => Err(give_up(work, error).await),
        }
    })
    .await
}

async fn compute(
    (vault, caller): (&Vault, &Caller),
    work: &mut Work,
    name: Option<&str>,
    request: &Request,
) -> Result<MacTag, Error> {
    let Request { algorithm, message, len_bytes, .. } = request;
    let asked = Asked {
        algorithm: *algorithm,
        message,
        len_bytes: *len_bytes,
        len_path: "mac_length_bytes",
    };
    let terminal = request.terminal.as_deref();
    let made = match &request.key {
        MacWorkingKey::Dukpt(key, direction) => {
            let (side, purpose) = made_by(&key.ksn, *direction);
            let key = Wanted { key, name, side, terminal }.find((vault, caller), work).await?;
            asked.check(key.attributes(), key.algorithm())?;
            let input = asked.input(vault, key.algorithm(), *direction);
            if key.claim(work, purpose, &input).await? == Claim::Spent {
                return Err(Error::refused(Reason::KsnReplayed));
            }
            let (initial, kind) = key.derive()?;
            let key = initial.mac_key(*direction, kind).map_err(underivable)?;
            key.generate_mac(*algorithm, message, *len_bytes)
        }
        MacWorkingKey::Slot(key) => {
            let key = key.find::<Mac>((name, terminal), (vault, caller), work).await?;
            asked.check_static(key.usage(), key.attributes(), key.algorithm())?;
            key.key().generate_mac(*algorithm, message, *len_bytes)
        }
        MacWorkingKey::Static(name) => {
            check_named_terminal((vault, caller), work, terminal).await?;
            let key = vault.key::<Mac>(name, Operation::GenerateMac).await?;
            work.uses(&key);
            let record = key.record();
            asked.check_static(record.usage, &record.attributes, record.algorithm)?;
            key.key().generate_mac(*algorithm, message, *len_bytes)
        }
    };
    made.map_err(|error| asked.refused(error))
}

/// Whose part it is to make a message in a direction, and what that spends.
///
/// With one key for both ways the host makes answers: they spend what a response does, so that the
/// answer to a request can stand under the request's counter. In TDES DUKPT that key is the one of
/// requests, and whoever makes a MAC with it makes requests.
const fn made_by(ksn: &Ksn, direction: Direction) -> (Side, Purpose) {
    match (direction, ksn) {
        (Direction::Response, _) | (Direction::Both, Ksn::Aes(_)) => {
            (Side::Host, Purpose::MacResponse)
        }
        (Direction::Request, _) | (Direction::Both, Ksn::Tdes(_)) => {
            (Side::Terminal, Purpose::MacRequest)
        }
    }
}
