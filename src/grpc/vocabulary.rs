//! The words of keys, PIN blocks and MACs on the wire, and the types they stand for.
//!
//! Each word is translated in one direction by a match without a default, in the other by looking
//! for the type whose word it is: no value can be forgotten on one side alone.

use super::convert::{self, host_ksn, key_name, known, optional, optional_key, required, resource};
use super::proto::{self, working_key::Key as Which};
use crate::activation::terminal_key::SLOTS;
use crate::command::{Direction, DukptKey, Error, Ksn, SlotKey, WorkingKey};
use crate::dukpt::KeyKind;
use crate::key::Algorithm;
use crate::mac::{MacAlgorithm, Padding};
use crate::pin::{PanForm, PinBlockFormat};
use crate::vault::{Exportability, KeyState, KeyUsage, ModeOfUse, Origin};

/// The longest message of a MAC, so that its request stays below 64 KiB.
pub(super) const MESSAGE_LEN_BYTES_MAX: usize = 61_440;

pub(super) const fn from_usage(usage: KeyUsage) -> proto::KeyUsage {
    match usage {
        KeyUsage::BaseDerivation => proto::KeyUsage::BaseDerivation,
        KeyUsage::InitialDukpt => proto::KeyUsage::InitialDukpt,
        KeyUsage::KeyDerivation => proto::KeyUsage::KeyDerivation,
        KeyUsage::DataEncryption => proto::KeyUsage::DataEncryption,
        KeyUsage::KeyEncryption => proto::KeyUsage::KeyEncryption,
        KeyUsage::KeyBlockProtection => proto::KeyUsage::KeyBlockProtection,
        KeyUsage::MacAlgorithm1 => proto::KeyUsage::MacAlgorithm1,
        KeyUsage::MacAlgorithm3 => proto::KeyUsage::MacAlgorithm3,
        KeyUsage::MacCmac => proto::KeyUsage::MacCmac,
        KeyUsage::MacHmac => proto::KeyUsage::MacHmac,
        KeyUsage::PinEncryption => proto::KeyUsage::PinEncryption,
    }
}

pub(super) fn to_usage(path: &str, value: i32) -> Result<KeyUsage, Error> {
    let word = known(path, value)?;
    found(path, KeyUsage::ALL.iter().copied().find(|usage| from_usage(*usage) == word))
}

pub(super) const fn from_algorithm(algorithm: Algorithm) -> proto::KeyAlgorithm {
    match algorithm {
        Algorithm::Aes128 => proto::KeyAlgorithm::Aes128,
        Algorithm::Aes192 => proto::KeyAlgorithm::Aes192,
        Algorithm::Aes256 => proto::KeyAlgorithm::Aes256,
        Algorithm::Hmac128 => proto::KeyAlgorithm::Hmac128,
        Algorithm::Hmac192 => proto::KeyAlgorithm::Hmac192,
        Algorithm::Hmac256 => proto::KeyAlgorithm::Hmac256,
        Algorithm::Hmac384 => proto::KeyAlgorithm::Hmac384,
        Algorithm::Hmac512 => proto::KeyAlgorithm::Hmac512,
        Algorithm::Tdes2 => proto::KeyAlgorithm::Tdes2,
        Algorithm::Tdes3 => proto::KeyAlgorithm::Tdes3,
    }
}

pub(super) fn to_algorithm(path: &str, value: i32) -> Result<Algorithm, Error> {
    let word = known(path, value)?;
    found(path, Algorithm::ALL.into_iter().find(|one| from_algorithm(*one) == word))
}

pub(super) const fn from_mode(mode: ModeOfUse) -> proto::ModeOfUse {
    match mode {
        ModeOfUse::Decrypt => proto::ModeOfUse::Decrypt,
        ModeOfUse::Derive => proto::ModeOfUse::Derive,
        ModeOfUse::Encrypt => proto::ModeOfUse::Encrypt,
        ModeOfUse::EncryptAndDecrypt => proto::ModeOfUse::EncryptAndDecrypt,
        ModeOfUse::Generate => proto::ModeOfUse::Generate,
        ModeOfUse::GenerateAndVerify => proto::ModeOfUse::GenerateAndVerify,
        ModeOfUse::NoRestriction => proto::ModeOfUse::NoRestriction,
        ModeOfUse::Verify => proto::ModeOfUse::Verify,
    }
}

pub(super) fn to_mode(path: &str, value: i32) -> Result<Option<ModeOfUse>, Error> {
    let Some(word) = optional(path, value)? else { return Ok(None) };
    found(path, ModeOfUse::ALL.iter().copied().find(|mode| from_mode(*mode) == word)).map(Some)
}

pub(super) const fn from_exportability(exportability: Exportability) -> proto::Exportability {
    match exportability {
        Exportability::Exportable => proto::Exportability::Exportable,
        Exportability::NonExportable => proto::Exportability::NonExportable,
        Exportability::Sensitive => proto::Exportability::Sensitive,
    }
}

pub(super) fn to_exportability(path: &str, value: i32) -> Result<Option<Exportability>, Error> {
    let Some(word) = optional(path, value)? else { return Ok(None) };
    let all = Exportability::ALL.iter().copied();
    found(path, all.into_iter().find(|one| from_exportability(*one) == word)).map(Some)
}

pub(super) const fn from_state(state: KeyState) -> proto::KeyState {
    match state {
        KeyState::Active => proto::KeyState::Active,
        KeyState::Compromised => proto::KeyState::Compromised,
        KeyState::Deactivated => proto::KeyState::Deactivated,
        KeyState::Destroyed => proto::KeyState::Destroyed,
        KeyState::PreActive => proto::KeyState::PreActive,
        KeyState::Suspended => proto::KeyState::Suspended,
    }
}

pub(super) fn to_state(path: &str, value: i32) -> Result<KeyState, Error> {
    let word = known(path, value)?;
    found(path, KeyState::ALL.into_iter().find(|state| from_state(*state) == word))
}

pub(super) const fn from_origin(origin: Origin) -> proto::KeyOrigin {
    match origin {
        Origin::Ceremony => proto::KeyOrigin::Ceremony,
        Origin::Generated => proto::KeyOrigin::Generated,
        Origin::Imported => proto::KeyOrigin::Imported,
    }
}

/// Where a key came from; none where that is unspecified.
pub(super) fn to_origin(path: &str, value: i32) -> Result<Option<Origin>, Error> {
    Ok(match optional(path, value)? {
        None | Some(proto::KeyOrigin::Unspecified) => None,
        Some(proto::KeyOrigin::Ceremony) => Some(Origin::Ceremony),
        Some(proto::KeyOrigin::Generated) => Some(Origin::Generated),
        Some(proto::KeyOrigin::Imported) => Some(Origin::Imported),
    })
}

pub(super) fn to_format(path: &str, value: i32) -> Result<PinBlockFormat, Error> {
    match known(path, value)? {
        proto::PinBlockFormat::Iso0 => Ok(PinBlockFormat::Iso0),
        proto::PinBlockFormat::Iso1 => Ok(PinBlockFormat::Iso1),
        proto::PinBlockFormat::Iso3 => Ok(PinBlockFormat::Iso3),
        proto::PinBlockFormat::Iso4 => Ok(PinBlockFormat::Iso4),
        proto::PinBlockFormat::Unspecified => found(path, None),
    }
}

pub(super) fn to_pan_form(path: &str, value: i32) -> Result<PanForm, Error> {
    Ok(match optional(path, value)? {
        Some(proto::PanForm::Legacy12) => PanForm::Legacy12,
        Some(proto::PanForm::Full | proto::PanForm::Unspecified) | None => PanForm::Full,
    })
}

pub(super) fn to_direction(path: &str, value: i32) -> Result<Option<Direction>, Error> {
    Ok(match optional(path, value)? {
        Some(proto::Direction::Both) => Some(Direction::Both),
        Some(proto::Direction::Request) => Some(Direction::Request),
        Some(proto::Direction::Response) => Some(Direction::Response),
        Some(proto::Direction::Unspecified) | None => None,
    })
}

/// An algorithm with its padding: required by those that do not pad themselves, refused by others.
pub(super) fn to_mac_algorithm(algorithm: i32, padding: i32) -> Result<MacAlgorithm, Error> {
    let padding = match optional("padding", padding)? {
        Some(proto::PaddingMethod::PaddingMethod1) => Some(Padding::Method1),
        Some(proto::PaddingMethod::PaddingMethod2) => Some(Padding::Method2),
        Some(proto::PaddingMethod::PaddingMethod3) => Some(Padding::Method3),
        Some(proto::PaddingMethod::Unspecified) | None => None,
    };
    let padded = || padding.ok_or_else(|| Error::field("padding", "must be specified"));
    let algorithm = match known("algorithm", algorithm)? {
        proto::MacAlgorithm::Iso97971Algorithm1 => {
            return padded().map(MacAlgorithm::Iso9797Alg1);
        }
        proto::MacAlgorithm::Iso97971Algorithm3 => {
            return padded().map(MacAlgorithm::Iso9797Alg3);
        }
        proto::MacAlgorithm::AesCmac => MacAlgorithm::AesCmac,
        proto::MacAlgorithm::TdesCmac => MacAlgorithm::TdesCmac,
        proto::MacAlgorithm::HmacSha256 => MacAlgorithm::HmacSha256,
        proto::MacAlgorithm::HmacSha384 => MacAlgorithm::HmacSha384,
        proto::MacAlgorithm::HmacSha512 => MacAlgorithm::HmacSha512,
        proto::MacAlgorithm::Unspecified => return found("algorithm", None),
    };
    match padding {
        None => Ok(algorithm),
        Some(_) => Err(Error::field("padding", "is not for this algorithm")),
    }
}

/// The message of a MAC.
pub(super) fn to_message(message: Vec<u8>) -> Result<Vec<u8>, Error> {
    convert::bytes("message", message, 1..=MESSAGE_LEN_BYTES_MAX)
}

/// The key of one side of a call.
pub(super) fn to_working_key(
    path: &str,
    key: Option<proto::WorkingKey>,
) -> Result<WorkingKey, Error> {
    match required(path, required(path, key)?.key)? {
        Which::StaticKey(name) => {
            key_name(&format!("{path}.static_key"), &name).map(WorkingKey::Static)
        }
        Which::Dukpt(key) => to_dukpt_key(&format!("{path}.dukpt"), &key).map(WorkingKey::Dukpt),
        Which::TerminalKey(key) => {
            to_slot_key(&format!("{path}.terminal_key"), &key).map(WorkingKey::Slot)
        }
    }
}

fn to_slot_key(path: &str, key: &proto::TerminalSlot) -> Result<SlotKey, Error> {
    let terminal = resource(&format!("{path}.terminal"), "terminals", &key.terminal)?;
    let slot = u8::try_from(key.slot).ok().filter(|slot| SLOTS.contains(slot));
    let slot = slot.ok_or_else(|| Error::field(format!("{path}.slot"), "is not 1 to 15"))?;
    Ok(SlotKey { terminal, slot })
}

fn to_dukpt_key(path: &str, key: &proto::DukptKey) -> Result<DukptKey, Error> {
    let field = format!("{path}.base_derivation_key");
    let base_derivation_key = optional_key(&field, &key.base_derivation_key)?;
    let ksn = host_ksn(&format!("{path}.ksn"), &key.ksn)?;
    let field = format!("{path}.algorithm");
    let kind = optional(&field, key.algorithm)?.map(|word| to_kind(&field, word)).transpose()?;
    match (&ksn, kind) {
        (Ksn::Tdes(_), Some(_)) => Err(Error::field(field, "is for AES alone")),
        (Ksn::Tdes(_), None) | (Ksn::Aes(_), _) => Ok(DukptKey { base_derivation_key, ksn, kind }),
    }
}

/// The kind of a working key (ANSI X9.24-3:2017, 6.2): there are none of longer HMAC keys.
fn to_kind(path: &str, word: proto::KeyAlgorithm) -> Result<KeyKind, Error> {
    match word {
        proto::KeyAlgorithm::Tdes2 => Ok(KeyKind::Tdes2),
        proto::KeyAlgorithm::Tdes3 => Ok(KeyKind::Tdes3),
        proto::KeyAlgorithm::Aes128 => Ok(KeyKind::Aes128),
        proto::KeyAlgorithm::Aes192 => Ok(KeyKind::Aes192),
        proto::KeyAlgorithm::Aes256 => Ok(KeyKind::Aes256),
        proto::KeyAlgorithm::Hmac128 => Ok(KeyKind::Hmac128),
        proto::KeyAlgorithm::Hmac192 => Ok(KeyKind::Hmac192),
        proto::KeyAlgorithm::Hmac256 => Ok(KeyKind::Hmac256),
        proto::KeyAlgorithm::Hmac384
        | proto::KeyAlgorithm::Hmac512
        | proto::KeyAlgorithm::Unspecified => {
            Err(Error::field(path, "is no kind of a DUKPT working key"))
        }
    }
}

fn found<T>(path: &str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| Error::field(path, "is an unknown value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value of a proto enum but the unspecified one.
    fn specified<E: TryFrom<i32>>() -> impl Iterator<Item = i32> {
        (1..).take_while(|number| E::try_from(*number).is_ok())
    }

    #[test]
    fn every_word_is_understood() {
        assert!(specified::<proto::KeyUsage>().all(|word| to_usage("u", word).is_ok()));
        assert!(specified::<proto::KeyAlgorithm>().all(|word| to_algorithm("a", word).is_ok()));
        assert!(specified::<proto::ModeOfUse>().all(|word| to_mode("m", word).is_ok()));
        assert!(specified::<proto::KeyState>().all(|word| to_state("s", word).is_ok()));
        assert!(specified::<proto::PinBlockFormat>().all(|word| to_format("f", word).is_ok()));
        for word in specified::<proto::Exportability>() {
            assert!(to_exportability("e", word).unwrap().is_some());
        }
        for word in specified::<proto::Direction>() {
            assert!(to_direction("d", word).unwrap().is_some());
        }
    }

    #[test]
    fn what_is_not_a_word_is_refused() {
        for word in [0, 99, -1] {
            assert!(to_usage("u", word).is_err());
            assert!(to_algorithm("a", word).is_err());
            assert!(to_state("s", word).is_err());
            assert!(to_format("f", word).is_err());
            assert!(to_mac_algorithm(word, 0).is_err());
        }
        assert!(to_mode("m", 99).is_err());
        assert!(to_direction("d", 99).is_err());
        assert!(to_pan_form("p", 99).is_err());
    }

    #[test]
    fn padding_goes_with_the_algorithms_that_ask_for_it() {
        for word in specified::<proto::MacAlgorithm>() {
            let asks = to_mac_algorithm(word, 0).is_err();
            for padding in specified::<proto::PaddingMethod>() {
                assert_eq!(to_mac_algorithm(word, padding).is_ok(), asks, "{word} {padding}");
            }
        }
    }

    #[test]
    fn faults_name_their_path() {
        let dukpt = |ksn: Vec<u8>, algorithm: proto::KeyAlgorithm| {
            let base_derivation_key = String::new();
            let key = proto::DukptKey { base_derivation_key, ksn, algorithm: algorithm.into() };
            proto::WorkingKey { key: Some(Which::Dukpt(key)) }
        };
        let path = |key| match to_working_key("source", key) {
            Err(Error::Field { path, .. } | Error::Ksn { path }) => path,
            Err(Error::Hidden { .. } | Error::Refused { .. } | Error::Vault(_)) | Ok(_) => {
                String::new()
            }
        };
        let unspecified = proto::KeyAlgorithm::Unspecified;
        assert_eq!(path(None), "source");
        assert_eq!(path(Some(proto::WorkingKey { key: None })), "source");
        let named = Which::StaticKey("bdk".into());
        assert_eq!(path(Some(proto::WorkingKey { key: Some(named) })), "source.static_key");
        assert_eq!(path(Some(dukpt(vec![0; 7], unspecified))), "source.dukpt.ksn");
        assert_eq!(path(Some(dukpt(vec![0; 12], unspecified))), "source.dukpt.ksn");
        let aes = [vec![1; 8], vec![0, 0, 0, 1]].concat();
        assert_eq!(path(Some(dukpt(aes.clone(), unspecified))), "");
        let slot = |terminal: &str, slot| {
            let key = proto::TerminalSlot { terminal: terminal.to_owned(), slot };
            path(Some(proto::WorkingKey { key: Some(Which::TerminalKey(key)) }))
        };
        assert_eq!(slot("terminals/till", 15), "");
        assert_eq!(slot("till", 1), "source.terminal_key.terminal");
        for none in [0, 16, 257] {
            assert_eq!(slot("terminals/till", none), "source.terminal_key.slot");
        }
        let hmac = proto::KeyAlgorithm::Hmac512;
        assert_eq!(path(Some(dukpt(aes, hmac))), "source.dukpt.algorithm");
        let tdes = [vec![0xFF; 7], vec![0x20, 0, 1]].concat();
        assert_eq!(path(Some(dukpt(tdes.clone(), unspecified))), "");
        assert_eq!(path(Some(dukpt(tdes[2..].to_vec(), unspecified))), "");
        let tdes2 = proto::KeyAlgorithm::Tdes2;
        assert_eq!(path(Some(dukpt(tdes, tdes2))), "source.dukpt.algorithm");
    }
}
