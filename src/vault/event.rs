//! Audit events in their one encoding, chained by their hashes.
//!
//! **The encoding.** An event is one JSON object (RFC 8259) in UTF-8 without white space outside
//! strings and without a line end. Its members always stand in the order of [`Event`]'s fields and
//! are never left out: what does not apply is `null`, `[]` or `{}`. Members of `detail` are sorted
//! by name. Strings escape `"`, `\`, and control characters only, the latter as `\b`, `\t`, `\n`,
//! `\f`, `\r`, else `\u00xx` in lower case. Numbers are whole and without sign. These bytes are
//! what is hashed: `prev` is SHA-256 of the event before, in lower case hexadecimals, and of the
//! first event 64 zeros. The same bytes are the leaves of the Merkle log (RFC 6962).
//!
//! An event never holds a key, a PIN, a PIN block, a full PAN or an activation code.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::caller::{Action, Caller, Role};
use super::clock::UnixMillis;
use super::reason::Reason;
use crate::crypto::digest;

/// One audit event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Its place in the chain of its node, from 1, without gaps.
    pub seq: u64,
    /// When it was committed, in milliseconds since 1970 UTC; never less than that before it.
    pub time: UnixMillis,
    /// The replica whose chain this is.
    pub node: String,
    /// SHA-256 of the event before, in hexadecimals; 64 zeros in the first.
    pub prev: String,
    /// Who called.
    pub caller: String,
    /// The caller's role; `dev` for the caller of a development service.
    pub role: String,
    /// SHA-256 of the caller's certificate, in hexadecimals; empty where there was none.
    pub certificate: String,
    /// The version of the policy that decided; 0 where there was none.
    pub policy: u64,
    /// The persons who approved it.
    pub approvers: Vec<String>,
    /// The stable name of what was called.
    pub action: String,
    /// The resource name of what it was about; empty where there is none.
    pub resource: String,
    /// The keys that were used, with check values.
    pub keys: Vec<EventKey>,
    /// What became of it.
    pub decision: EventDecision,
    /// The stable reason of a refusal.
    pub reason: Option<String>,
    /// Further values, none of them secret.
    pub detail: BTreeMap<String, String>,
    /// A keyed hash of the request's body, in hexadecimals.
    pub request: Option<String>,
}

/// A key in an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventKey {
    /// `keys/{key}/versions/{n}`.
    pub name: String,
    /// Its check value in hexadecimals.
    pub check_value: String,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventDecision {
    /// It was done.
    Done,
    /// It was refused.
    Refused,
}

impl Event {
    /// The encoding: what is stored, chained and exported.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always have a JSON form")
    }

    /// Reads an event; none if the bytes are not in the one encoding.
    #[must_use]
    pub fn parse(encoded: &[u8]) -> Option<Self> {
        let event: Self = serde_json::from_slice(encoded).ok()?;
        (event.encode() == encoded).then_some(event)
    }

    /// SHA-256 of the encoding, in lower case hexadecimals: the `prev` of the next.
    #[must_use]
    pub fn hash(&self) -> String {
        hash_of(&self.encode())
    }

    /// Tells whether it was done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.decision == EventDecision::Done
    }
}

/// The member of `detail` that tells which legacy algorithm was used.
pub(super) const LEGACY: &str = "legacy";

/// The `prev` of the first event.
pub(super) const NO_PREVIOUS: &str =
    "0000000000000000000000000000000000000000000000000000000000000000";

/// The `prev` that follows an encoded event.
pub(super) fn hash_of(encoded: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&digest::sha256(&[encoded]))
}

/// An event that waits for its place in the chain.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) caller: String,
    pub(super) role: &'static str,
    pub(super) certificate: String,
    pub(super) policy: u64,
    pub(super) approvers: Vec<String>,
    pub(super) action: Action,
    pub(super) resource: String,
    pub(super) keys: Vec<EventKey>,
    pub(super) refused: Option<Reason>,
    pub(super) detail: BTreeMap<String, String>,
    pub(super) request: Option<[u8; 32]>,
}

impl Draft {
    pub(super) fn new(caller: &Caller, action: Action, resource: String, policy: u64) -> Self {
        Self {
            caller: caller.name().to_owned(),
            role: caller.role().map_or("dev", Role::as_str),
            certificate: caller.certificate().to_owned(),
            policy,
            approvers: Vec::new(),
            action,
            resource,
            keys: Vec::new(),
            refused: None,
            detail: BTreeMap::new(),
            request: None,
        }
    }

    pub(super) fn at(self, place: Place<'_>) -> Event {
        Event {
            seq: place.seq,
            time: place.time,
            node: place.node.to_owned(),
            prev: place.prev.to_owned(),
            caller: self.caller,
            role: self.role.to_owned(),
            certificate: self.certificate,
            policy: self.policy,
            approvers: self.approvers,
            action: self.action.as_str().to_owned(),
            resource: self.resource,
            keys: self.keys,
            decision: match self.refused {
                Some(_) => EventDecision::Refused,
                None => EventDecision::Done,
            },
            reason: self.refused.map(|reason| reason.as_str().to_owned()),
            detail: self.detail,
            request: self.request.map(|hash| data_encoding::HEXLOWER.encode(&hash)),
        }
    }
}

/// A place in the chain of a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) seq: u64,
    pub(super) time: UnixMillis,
    pub(super) node: &'a str,
    pub(super) prev: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let mut draft = Draft::new(
            &Caller::for_dev_only("dev"),
            Action::SetKeyState,
            "keys/\u{e9}\"\\\n\u{1}".into(),
            3,
        );
        draft
            .keys
            .push(EventKey { name: "keys/x/versions/1".into(), check_value: "08D7B4".into() });
        draft.detail.insert("to".into(), "SUSPENDED".into());
        draft.detail.insert("from".into(), "ACTIVE".into());
        draft.at(Place {
            seq: 1,
            time: UnixMillis(1_700_000_000_000),
            node: "n",
            prev: NO_PREVIOUS,
        })
    }

    #[test]
    fn the_encoding_is_fixed() {
        let zeros = NO_PREVIOUS;
        let expected = format!(
            "{{\"seq\":1,\"time\":1700000000000,\"node\":\"n\",\"prev\":\"{zeros}\",\
             \"caller\":\"dev\",\"role\":\"dev\",\"certificate\":\"\",\"policy\":3,\
             \"approvers\":[],\"action\":\"SetKeyState\",\
             \"resource\":\"keys/\u{e9}\\\"\\\\\\n\\u0001\",\
             \"keys\":[{{\"name\":\"keys/x/versions/1\",\"check_value\":\"08D7B4\"}}],\
             \"decision\":\"done\",\"reason\":null,\
             \"detail\":{{\"from\":\"ACTIVE\",\"to\":\"SUSPENDED\"}},\"request\":null}}"
        );
        assert_eq!(String::from_utf8(event().encode()).unwrap(), expected);
    }

    #[test]
    fn what_is_read_is_encoded_the_same() {
        let encoded = event().encode();
        let read: Event = serde_json::from_slice(&encoded).unwrap();
        assert_eq!(read.encode(), encoded);
        assert_eq!(Event::parse(&encoded), Some(event()));
        assert_eq!(Event::parse(&[b" ", encoded.as_slice()].concat()), None);
        assert_eq!(Event::parse(&[encoded.as_slice(), b"\n"].concat()), None);
    }
}
