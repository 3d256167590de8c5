//! Profiles and terminals between proto and domain: every field checked on the way in.

use super::convert::{self, known, required, resource, text, timestamp};
use super::proto;
use super::vocabulary::{from_algorithm, from_usage, to_algorithm, to_usage};
use crate::activation::State;
use crate::activation::parameters::{
    Currency, Limits, MerchantId, MerchantName, ParametersInvalid, TerminalId,
};
use crate::activation::payload::Serial;
use crate::activation::terminal_key::TerminalKeyUsage;
use crate::agreement::Suite;
use crate::command::activation::profile::{NewProfile, Profile, ProfileKey};
use crate::command::activation::read::Reading;
use crate::command::activation::record::{
    Credential, KeyStanding, Merchant, MerchantStanding, Terminal, TimelineEntry,
};
use crate::command::activation::register::NewTerminal;
use crate::command::lookup_ksn::Found;
use crate::command::{Error, Ksn};
use crate::vault::KeyUsage;

pub(super) fn standing(path: &str, value: i32) -> Result<MerchantStanding, Error> {
    Ok(match known(path, value)? {
        proto::MerchantStanding::Approved => MerchantStanding::Approved,
        proto::MerchantStanding::Rejected => MerchantStanding::Rejected,
        proto::MerchantStanding::Pending | proto::MerchantStanding::Unspecified => {
            MerchantStanding::Pending
        }
    })
}

pub(super) fn new_profile(id: String, profile: proto::Profile) -> Result<NewProfile, Error> {
    let (currency, limits) = limits(profile.limits)?;
    Ok(NewProfile {
        id,
        suite: suite("profile.suite", profile.suite)?,
        base_derivation_key: resource(
            "profile.base_derivation_key",
            "keys",
            &profile.base_derivation_key,
        )?,
        code_required: !profile.no_code,
        code_lifetime_ms: duration_ms("profile.code_lifetime", profile.code_lifetime)?,
        test_transactions: profile.test_transactions,
        automatic_enabling: profile.automatic_enabling,
        settlement_digest_required: profile.settlement_digest_required,
        currency,
        limits,
        rekey_grace_ms: duration_ms("profile.rekey_grace", profile.rekey_grace)?,
        keys: profile_keys(&profile.keys)?,
    })
}

/// The static keys of a profile.
fn profile_keys(keys: &[proto::ProfileKey]) -> Result<Vec<ProfileKey>, Error> {
    let key = |(index, key): (usize, &proto::ProfileKey)| {
        let path = |field| format!("profile.keys[{index}].{field}");
        let usage = to_usage(&path("usage"), key.usage)?;
        let usage = TerminalKeyUsage::from_code(usage.code());
        let slot = u8::try_from(key.slot);
        Ok(ProfileKey {
            slot: slot.map_err(|_| Error::field(path("slot"), "is 1 to 15"))?,
            usage: usage.ok_or_else(|| Error::field(path("usage"), "is none of a terminal"))?,
            algorithm: to_algorithm(&path("algorithm"), key.algorithm)?,
            derivation_key: resource(&path("derivation_key"), "keys", &key.derivation_key)?,
        })
    };
    keys.iter().enumerate().map(key).collect()
}

fn from_profile_key(key: &ProfileKey) -> proto::ProfileKey {
    let usage = KeyUsage::from_code(key.usage.code());
    proto::ProfileKey {
        slot: key.slot.into(),
        usage: usage.map(from_usage).unwrap_or_default().into(),
        algorithm: from_algorithm(key.algorithm).into(),
        derivation_key: format!("keys/{}", key.derivation_key),
    }
}

/// Currency and limits, which must be there.
pub(super) fn limits(limits: Option<proto::Limits>) -> Result<(Currency, Limits), Error> {
    let limits = required("profile.limits", limits)?;
    let currency = Currency::new(&limits.currency).ok_or_else(|| {
        Error::field("profile.limits.currency", "must be three upper-case letters")
    })?;
    let limits = Limits::new(limits.single_amount_minor, limits.daily_amount_minor);
    Ok((currency, limits.map_err(limits_field)?))
}

fn suite(path: &str, value: i32) -> Result<Suite, Error> {
    let word: proto::Suite = known(path, value)?;
    let suite = Suite::ALL.into_iter().find(|suite| from_suite(*suite) == word);
    suite.ok_or_else(|| Error::field(path, "is an unknown value"))
}

const fn from_suite(suite: Suite) -> proto::Suite {
    match suite {
        Suite::MasterAesAes128 => proto::Suite::MasterAesAes128,
        Suite::MasterAesTdes2 => proto::Suite::MasterAesTdes2,
        Suite::MasterTdesTdes2 => proto::Suite::MasterTdesTdes2,
        Suite::P256Aes128 => proto::Suite::P256Aes128,
        Suite::P256Tdes2 => proto::Suite::P256Tdes2,
    }
}

/// The field of the API behind the one that the parameter file names.
fn limits_field(invalid: ParametersInvalid) -> Error {
    if invalid.field == "single_limit_minor" {
        return Error::field("profile.limits.single_amount_minor", "is not 1 to 999,999,999,999");
    }
    let cause = "is not at least the single limit and at most 999,999,999,999";
    Error::field("profile.limits.daily_amount_minor", cause)
}

pub(super) fn duration_ms(
    path: &str,
    duration: Option<prost_types::Duration>,
) -> Result<Option<u64>, Error> {
    let Some(duration) = duration else { return Ok(None) };
    let refused = || Error::field(path, "is no duration from now on");
    let seconds = u64::try_from(duration.seconds).map_err(|_| refused())?;
    let nanos = u64::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let nanos = nanos.ok_or_else(refused)?;
    let ms = seconds.checked_mul(1000).and_then(|ms| ms.checked_add(nanos / 1_000_000));
    ms.map(Some).ok_or_else(refused)
}

fn from_duration(ms: u64) -> prost_types::Duration {
    let time = timestamp(ms);
    prost_types::Duration { seconds: time.seconds, nanos: time.nanos }
}

pub(super) fn new_terminal(body: proto::CreateTerminalRequest) -> Result<NewTerminal, Error> {
    let merchant = required("merchant", body.merchant)?;
    let invalid = |path| move || Error::field(path, "is of a wrong form or length");
    Ok(NewTerminal {
        id: convert::id("terminal_id", &body.terminal_id)?,
        serial: Serial::new(&body.serial).ok_or_else(invalid("serial"))?.as_str().to_owned(),
        model: text("model", &body.model, 1..=64)?,
        merchant: Merchant {
            merchant_id: MerchantId::new(&merchant.merchant_id)
                .ok_or_else(invalid("merchant.merchant_id"))?
                .as_str()
                .to_owned(),
            terminal_id: TerminalId::new(&merchant.terminal_id)
                .ok_or_else(invalid("merchant.terminal_id"))?
                .as_str()
                .to_owned(),
            display_name: MerchantName::new(&merchant.display_name)
                .ok_or_else(invalid("merchant.display_name"))?
                .as_str()
                .to_owned(),
        },
        standing: standing("merchant_standing", body.merchant_standing)?,
        profile: resource("profile", "profiles", &body.profile)?,
        credential: credential(body.kind, &body.device_authority, &body.master_key)?,
    })
}

/// What a terminal of a kind proves itself by; what is of the other kind must be empty.
fn credential(kind: i32, authority: &str, key: &str) -> Result<Credential, Error> {
    let none = |path, name: &str| {
        let cause = "is not for terminals of this kind";
        if name.is_empty() { Ok(()) } else { Err(Error::field(path, cause)) }
    };
    match known("kind", kind)? {
        proto::TerminalKind::DeviceCertificate => {
            none("master_key", key)?;
            let authority = resource("device_authority", "deviceAuthorities", authority)?;
            Ok(Credential::DeviceCertificate { authority })
        }
        proto::TerminalKind::MasterKey => {
            none("device_authority", authority)?;
            Ok(Credential::MasterKey { key: convert::key_name("master_key", key)? })
        }
        proto::TerminalKind::Unspecified => Err(Error::field("kind", "must be specified")),
    }
}

pub(super) fn from_profile(profile: &Profile) -> proto::Profile {
    proto::Profile {
        name: format!("profiles/{}", profile.id),
        suite: from_suite(profile.suite).into(),
        base_derivation_key: format!("keys/{}", profile.base_derivation_key),
        no_code: !profile.code_required,
        code_lifetime: Some(from_duration(profile.code_lifetime_ms)),
        test_transactions: profile.test_transactions,
        automatic_enabling: profile.automatic_enabling,
        settlement_digest_required: profile.settlement_digest_required,
        limits: Some(proto::Limits {
            currency: profile.currency.clone(),
            single_amount_minor: profile.single_amount_minor,
            daily_amount_minor: profile.daily_amount_minor,
        }),
        parameters_version: profile.parameters_version,
        rekey_grace: Some(from_duration(profile.rekey_grace_ms)),
        create_time: Some(timestamp(profile.created.0)),
        update_time: Some(timestamp(profile.updated.0)),
        keys: profile.keys.iter().map(from_profile_key).collect(),
    }
}

pub(super) fn from_terminal(terminal: &Terminal, with_timeline: bool) -> proto::Terminal {
    let keys = terminal.keys.as_ref();
    let timeline = if with_timeline { terminal.timeline.as_slice() } else { &[] };
    let (kind, device_authority, master_key) = match &terminal.credential {
        Credential::DeviceCertificate { authority } => {
            let authority = format!("deviceAuthorities/{authority}");
            (proto::TerminalKind::DeviceCertificate, authority, String::new())
        }
        Credential::MasterKey { key } => {
            (proto::TerminalKind::MasterKey, String::new(), format!("keys/{key}"))
        }
    };
    proto::Terminal {
        name: terminal.name(),
        serial: terminal.serial.clone(),
        model: terminal.model.clone(),
        merchant: Some(proto::Merchant {
            merchant_id: terminal.merchant.merchant_id.clone(),
            terminal_id: terminal.merchant.terminal_id.clone(),
            display_name: terminal.merchant.display_name.clone(),
        }),
        profile: format!("profiles/{}", terminal.profile),
        kind: kind.into(),
        device_authority,
        master_key,
        forward_secrecy: terminal.forward_secrecy(),
        state: from_state(terminal.state).into(),
        merchant_standing: match terminal.standing {
            MerchantStanding::Approved => proto::MerchantStanding::Approved,
            MerchantStanding::Pending => proto::MerchantStanding::Pending,
            MerchantStanding::Rejected => proto::MerchantStanding::Rejected,
        }
        .into(),
        hold_cause: terminal.hold_cause.clone().unwrap_or_default(),
        generation: terminal.generation,
        initial_key_id: keys.map(|keys| keys.initial_key_id.clone()).unwrap_or_default(),
        check_value: keys.map(|keys| keys.check_value.clone()).unwrap_or_default(),
        activation: match terminal.activation {
            0 => String::new(),
            _ => terminal.activation_name(),
        },
        parameters_version: terminal.parameters_applied,
        tests_passed: terminal.tests_passed,
        first_transaction_time: terminal.first_transaction.map(|time| timestamp(time.0)),
        create_time: Some(timestamp(terminal.created.0)),
        update_time: Some(timestamp(terminal.updated.0)),
        timeline: timeline.iter().map(from_entry).collect(),
        rekey_due: false,
        terminal_keys: keys
            .map_or(&[][..], |keys| &keys.terminal_keys)
            .iter()
            .map(|key| proto::TerminalKey {
                key: Some(from_profile_key(&key.key)),
                check_value: key.check_value.clone(),
            })
            .collect(),
    }
}

/// A terminal that was read for itself: what is derived when it is read stands in no other answer.
pub(super) fn from_reading(found: &Reading, with_timeline: bool) -> proto::Terminal {
    let terminal = from_terminal(&found.terminal, with_timeline);
    proto::Terminal { rekey_due: found.rekey_due, ..terminal }
}

pub(super) fn from_found(ksn: &Ksn, found: &Found) -> proto::LookupKsnResponse {
    let owner = found.owner.as_ref();
    let (standing, until) = match owner.map(|owner| owner.standing) {
        None => (proto::KeySetStanding::Unspecified, None),
        Some(KeyStanding::Grace(until)) => (proto::KeySetStanding::Grace, Some(until)),
        Some(KeyStanding::Replaced) => (proto::KeySetStanding::Replaced, None),
        Some(KeyStanding::Serving) => (proto::KeySetStanding::Serving, None),
    };
    let refusal = found.verdict.as_ref().err();
    let metadata = refusal.map(Error::metadata).unwrap_or_default();
    let remedy = metadata.into_iter().find(|(name, _)| *name == "remedy");
    proto::LookupKsnResponse {
        base_derivation_key: format!("keys/{}", found.base_derivation_key),
        initial_key_id: ksn.initial_key_id(),
        counter: ksn.counter(),
        terminal: owner.map(|owner| format!("terminals/{}", owner.terminal)).unwrap_or_default(),
        terminal_state: owner.map(|owner| from_state(owner.state).into()).unwrap_or_default(),
        key_set: standing.into(),
        grace_end_time: until.map(|until| timestamp(until.0)),
        served: refusal.is_none(),
        reason: refusal.map(|error| error.reason().as_str().to_owned()).unwrap_or_default(),
        remedy: remedy.map(|(_, text)| text).unwrap_or_default(),
    }
}

fn from_entry(entry: &TimelineEntry) -> proto::TimelineEntry {
    proto::TimelineEntry {
        time: Some(timestamp(entry.time.0)),
        step: entry.step.clone(),
        from: from_state(entry.from).into(),
        to: from_state(entry.to).into(),
        reason: entry.reason.clone(),
        remedy: entry.remedy.clone(),
        note: entry.note.clone(),
    }
}

/// Pairs of domain and proto states.
const STATES: [(State, proto::TerminalState); State::ALL.len()] = [
    (State::Registered, proto::TerminalState::Registered),
    (State::CodeIssued, proto::TerminalState::CodeIssued),
    (State::CodeVerified, proto::TerminalState::CodeVerified),
    (State::KeysDelivered, proto::TerminalState::KeysDelivered),
    (State::KeysConfirmed, proto::TerminalState::KeysConfirmed),
    (State::ParametersDelivered, proto::TerminalState::ParametersDelivered),
    (State::Tested, proto::TerminalState::Tested),
    (State::Active, proto::TerminalState::Active),
    (State::Held, proto::TerminalState::Held),
    (State::CodeExpired, proto::TerminalState::CodeExpired),
    (State::Locked, proto::TerminalState::Locked),
    (State::Rekeying, proto::TerminalState::Rekeying),
    (State::Suspended, proto::TerminalState::Suspended),
    (State::Retired, proto::TerminalState::Retired),
    (State::Compromised, proto::TerminalState::Compromised),
];

pub(super) fn from_state(state: State) -> proto::TerminalState {
    let pair = STATES.iter().find(|(ours, _)| *ours == state);
    pair.map_or(proto::TerminalState::Unspecified, |(_, theirs)| *theirs)
}

pub(super) fn to_state(state: proto::TerminalState) -> Option<State> {
    STATES.iter().find(|(_, theirs)| *theirs == state).map(|(ours, _)| *ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_bounded() {
        let ms = |seconds, nanos| {
            duration_ms("d", Some(prost_types::Duration { seconds, nanos })).ok().flatten()
        };
        assert_eq!(duration_ms("d", None).ok().flatten(), None);
        assert_eq!(ms(60, 999_999_999), Some(60_999));
        for (seconds, nanos) in [(-1, 0), (1, -1), (1, 1_000_000_000), (i64::MAX, 0)] {
            assert_eq!(ms(seconds, nanos), None, "{seconds} {nanos}");
        }
    }

    #[test]
    fn limits_name_the_field_that_is_out_of_bounds() {
        let path = |single_amount_minor, daily_amount_minor| {
            let profile = proto::Profile {
                suite: proto::Suite::P256Aes128.into(),
                base_derivation_key: "keys/bdk".into(),
                limits: Some(proto::Limits {
                    currency: "EUR".into(),
                    single_amount_minor,
                    daily_amount_minor,
                }),
                ..proto::Profile::default()
            };
            match new_profile("retail".into(), profile) {
                Err(Error::Field { path, .. }) => path,
                Err(
                    Error::Hidden { .. }
                    | Error::Ksn { .. }
                    | Error::Refused { .. }
                    | Error::Vault(_),
                )
                | Ok(_) => String::new(),
            }
        };
        let most = Limits::AMOUNT_MINOR_MAX;
        assert_eq!(path(1, 1), "");
        assert_eq!(path(most, most), "");
        assert_eq!(path(0, 1), "profile.limits.single_amount_minor");
        assert_eq!(path(most + 1, most + 1), "profile.limits.single_amount_minor");
        assert_eq!(path(2, 1), "profile.limits.daily_amount_minor");
        assert_eq!(path(1, most + 1), "profile.limits.daily_amount_minor");
    }
}
