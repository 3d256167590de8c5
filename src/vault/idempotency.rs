//! Idempotency: a request id with the same body is answered once more with the same answer.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::budget::hour_bucket;
use super::caller::Action;
use super::clock::UnixMillis;
use super::core::Core;
use super::error::Error;
use super::reason::Reason;
use super::record::{Kind, Record, Versioned};
use super::seal::HashPurpose;

/// How long an answer is kept: 24 hours.
pub(super) const KEPT_MS: u64 = 24 * 60 * 60 * 1_000;

/// A caller's request id and the body that came with it.
#[derive(Debug, Clone, Copy)]
pub struct RequestId<'a> {
    /// The id, as the caller chose it.
    pub id: &'a str,
    /// The keyed hash of the body: [`HashPurpose::RequestBody`] over everything but the id.
    pub body_hash: &'a [u8; 32],
}

/// An answer that was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answered {
    id: String,
    body_hash: String,
    /// The answer as JSON.
    answer: String,
    until: UnixMillis,
}

impl Record for Answered {
    const KIND: Kind = Kind::new("request");

    fn id(&self) -> String {
        self.id.clone()
    }

    /// The hour after which it may go.
    fn index(&self) -> Option<String> {
        Some(hour_bucket(self.until))
    }
}

/// Who asked for what: the same id of another caller or call is another request.
type Scope<'a> = (&'a str, Action);

/// Finds the answer to a request that came before.
pub(super) async fn recall<T: DeserializeOwned>(
    core: &Core,
    scope: Scope<'_>,
    request: RequestId<'_>,
    now: UnixMillis,
) -> Result<Option<T>, Error> {
    let id = record_id(core, scope, request);
    let Some(answered) = core.read::<Answered>(&id).await? else { return Ok(None) };
    let answered = answered.record;
    if answered.until <= now {
        return Ok(None);
    }
    if answered.body_hash != data_encoding::HEXLOWER.encode(request.body_hash) {
        return Err(Error::Refused(Reason::RequestIdReused));
    }
    serde_json::from_str(&answered.answer)
        .map(Some)
        .map_err(|_| Error::incident("a kept answer is not of its kind", &id))
}

/// The record that keeps an answer, in place of one that has expired.
pub(super) async fn remembered<T: Serialize>(
    core: &Core,
    scope: Scope<'_>,
    request: RequestId<'_>,
    answer: &T,
    now: UnixMillis,
) -> Result<Versioned<Answered>, Error> {
    let id = record_id(core, scope, request);
    let before = core.read::<Answered>(&id).await?;
    let version = match before {
        // Somebody else has just answered this request: the caller asks again and is told.
        Some(before) if before.record.until > now => return Err(Error::Conflict),
        Some(before) => before.version,
        None => None,
    };
    let answer = serde_json::to_string(answer)
        .map_err(|_| Error::incident("an answer has no JSON form", &id))?;
    let body_hash = data_encoding::HEXLOWER.encode(request.body_hash);
    let record = Answered { id, body_hash, answer, until: now.plus_ms(KEPT_MS) };
    Ok(Versioned { version, record })
}

fn record_id(core: &Core, (caller, action): Scope<'_>, request: RequestId<'_>) -> String {
    let hash = core.sealer.keyed_hash(
        HashPurpose::RequestId,
        &[caller.as_bytes(), action.as_str().as_bytes(), request.id.as_bytes()],
    );
    data_encoding::HEXLOWER.encode(&hash)
}
