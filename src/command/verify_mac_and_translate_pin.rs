//! Verifies the MAC of a message and translates the PIN block in it: what a switch does with one
//! message of a terminal, in one commit.

use super::mac_policy::MacWorkingKey;
use super::translate_pin::{Names, Outcome, Sides};
use super::verify_mac::{check, mismatch};
use super::{
    Direction, Error, WorkingKey, activation, give_up, retrying, translate_pin, verify_mac,
};
use crate::pin::EncryptedPinBlock;
use crate::vault::{Action, Budget, Caller, Purpose, Reason, Vault, Work};

/// A message of a terminal: its MAC, and the PIN block in it.
pub struct Request {
    mac: verify_mac::Request,
    pin: translate_pin::Request,
}

impl Request {
    /// Both parts. The MAC is that of a request: an answer brings no PIN block.
    pub fn new(mac: verify_mac::Request, pin: translate_pin::Request) -> Result<Self, Error> {
        if let MacWorkingKey::Dukpt(_, Direction::Response) = &mac.key {
            return Err(Error::field("direction", "is that of an answer"));
        }
        Ok(Self { mac, pin })
    }
}

/// Verifies the MAC, then translates the PIN block; the rules are those of the two single calls.
///
/// What keys, formats and attributes forbid is refused before anything is spent, and so is a PIN
/// block of another terminal than the MAC's, with `TERMINAL_NOT_FOUND`. A MAC that does not
/// verify is `MAC_MISMATCH`: no PIN key has worked, no counter is spent. Once it verifies, a PIN
/// block that is rejected spends the counters of both; every other refusal spends none, so that the
/// message may come again. The identical call within five minutes is computed again, and so is one
/// of which a part came as a single call.
pub async fn verify_mac_and_translate_pin(
    vault: &Vault,
    caller: &Caller,
    request: &Request,
) -> Result<EncryptedPinBlock, Error> {
    retrying(|| async {
        let of_mac = request.mac.key.behind(vault, caller).await?;
        let (source, destination) = request.pin.behind(vault, caller).await?;
        let [inbound, outbound] = request.pin.uses((&source, &destination));
        let keys = [of_mac.used(), inbound, outbound];
        let mut work = vault.begin_with_keys(caller, ACTION, of_mac.resource(), &keys).await?;
        let names = Names { source: source.name(), destination: destination.name() };
        match judge(vault, caller, &mut work, (of_mac.name(), names), request).await {
            Ok(Judged::Translated(block)) => {
                // Nothing leaves before this line.
                work.commit().await?;
                Ok(block)
            }
            Ok(Judged::MacMismatch) => Err(mismatch(work, &request.mac).await),
            Ok(Judged::PinRejected) => {
                Err(work.commit_refused(Reason::PinBlockRejected).await.into())
            }
            Ok(Judged::Second) => Err(work.commit_refused(Reason::KsnReplayed).await.into()),
            Err(error) => Err(give_up(work, error).await),
        }
    })
    .await
}

const ACTION: Action = Action::VerifyMacAndTranslatePin;

/// What became of a message.
enum Judged {
    MacMismatch,
    PinRejected,
    /// Another message was verified under the same counter: the commit raises the clone alarm.
    Second,
    Translated(EncryptedPinBlock),
}

async fn judge(
    vault: &Vault,
    caller: &Caller,
    work: &mut Work,
    (of_mac, names): (Option<&str>, Names<'_>),
    request: &Request,
) -> Result<Judged, Error> {
    let sides = Sides::find((vault, caller), work, names, &request.pin).await?;
    match &request.pin.source {
        // The one of the MAC, which may be another, is the event's `ksn`.
        WorkingKey::Dukpt(key) => {
            work.detail("ksn_pin", data_encoding::HEXUPPER.encode(key.ksn.bytes()));
        }
        // And so with the event's `slot`.
        WorkingKey::Slot(key) => work.detail("slot_pin", key.slot.to_string()),
        WorkingKey::Static(_) => {}
    }
    let Some(message) = check(vault, caller, work, of_mac, &request.mac).await? else {
        return Ok(Judged::MacMismatch);
    };
    // A MAC vouches for its own sender's PIN block alone. A key in `keys/` is no terminal's: with
    // one, who sent what is the caller's to know.
    if let (Some(maker), Some(typist)) = (message.sender(), sides.sender())
        && !maker.is(typist)
    {
        return Err(Error::refused(Reason::TerminalNotFound));
    }
    // The message is genuine, whatever its PIN block turns out to be.
    work.accept(Purpose::MacRequest);
    work.give_back(Budget::Mac);
    if message.is_second {
        return Ok(Judged::Second);
    }
    let Outcome::Translated(block) = sides.translate(vault, caller, work, &request.pin).await?
    else {
        return Ok(Judged::PinRejected);
    };
    if let Some(terminal) = message.first_of().or_else(|| sides.first_of()) {
        activation::first_transaction(work, terminal, ACTION.as_str())?;
    }
    Ok(Judged::Translated(block))
}
