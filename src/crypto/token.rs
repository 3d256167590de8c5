//! A key inside a token that never leaves it, and wraps another (PKCS #11 version 2.40, OASIS).
//!
//! ```text
//! wrap    the token's AES-256 key finds itself by its label, or is made; it wraps 32 octets
//! unwrap  the same key by its id; what was wrapped comes back, or one error
//! ```
//!
//! `CKM_AES_KEY_WRAP_PAD` alone (RFC 5649): a mechanism that finds every change, so that nobody who
//! edits what is stored learns anything from how it is refused (CVE-2023-2197). Each use begins and
//! ends the library of the token: nobody stays logged in, and a token that was pulled out and put
//! back is seen as it is.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as LibraryError, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::RawAuthPin;
use zeroize::Zeroizing;

use super::rng::Rng;
use crate::memory::SecretPage;

/// Which token, and which key inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPlace {
    /// The absolute path of the library that speaks for the token.
    pub module: PathBuf,
    /// The token's label or its serial number.
    pub token: String,
    /// The label of the wrapping key.
    pub key_label: String,
}

/// What a token wrapped, and what is needed to find the key again; none of it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// The token's serial number.
    pub serial: String,
    /// `CKA_ID` of the wrapping key.
    pub key_id: Vec<u8>,
    /// The wrapped key: 40 octets.
    pub blob: Vec<u8>,
}

/// Why a token did not do as it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is no such token.
    #[error("the token is not there")]
    Absent,
    /// Several tokens bear the name.
    #[error("several tokens bear the name: say which by its serial number")]
    Ambiguous,
    /// Several keys inside the token bear the name.
    #[error("several keys inside the token bear the wrapping key's name: there must be one")]
    KeyAmbiguous,
    /// There is no such key inside the token.
    #[error("the token does not hold the wrapping key")]
    KeyMissing,
    /// The wrapping key may do more, or is less safe, than it must be.
    #[error("the wrapping key is not fit: it must be one, made inside the token, never leave it")]
    KeyUnfit,
    /// The library does not load, or the token fails.
    #[error("the token or its library failed")]
    ModuleFailed,
    /// The token of the name is not the one that is meant.
    #[error(
        "another token than the one that wrapped the master key bears its name: no PIN is sent"
    )]
    OtherToken,
    /// One more wrong PIN would lock the token: none is tried.
    #[error("one more wrong PIN would lock the token, so none is tried: log in by other means")]
    PinFinalTry,
    /// The PIN is locked.
    #[error("the token's PIN is locked")]
    PinLocked,
    /// The PIN is not right.
    #[error("the token refused the PIN")]
    PinWrong,
    /// What was wrapped is not what this key wrapped.
    #[error("the wrapped key does not open under the token's key")]
    WrappedInvalid,
}

/// A token, through its library.
#[derive(Debug)]
pub struct Token {
    place: TokenPlace,
    /// Loaded at the first use and then kept: a library is not made to be taken away again.
    library: OnceLock<Pkcs11>,
}

/// One use at a time in a process: a library begins and ends for all of it.
static IN_USE: Mutex<()> = Mutex::new(());

impl Token {
    /// Names a token; nothing is loaded yet.
    #[must_use]
    pub const fn new(place: TokenPlace) -> Self {
        Self { place, library: OnceLock::new() }
    }

    /// Looks whether the token of a serial number is there, without a PIN.
    pub fn look(&self, serial: &str) -> Result<(), TokenError> {
        self.with_slot(|library, slot| {
            expect_serial(&library.get_token_info(slot).map_err(failed)?, serial)
        })
    }

    /// Wraps 32 octets under the token's key, which is made if there is none of its label yet.
    pub fn wrap(
        &self,
        pin: &[u8],
        rng: &dyn Rng,
        secret: &[u8; SecretPage::LEN_BYTES],
    ) -> Result<Wrapped, TokenError> {
        self.with_session(pin, None, |session, serial| {
            let label = self.place.key_label.as_bytes();
            let key = match keys_of(session, Attribute::Label(label.to_vec()))?.as_slice() {
                [] => generate(session, label, rng)?,
                [key] => *key,
                _ => return Err(TokenError::KeyAmbiguous),
            };
            let key_id = expect_fit(session, key)?;
            // Its copy inside the library ends with the session.
            let object = session.create_object(&template(Some(secret.to_vec()))).map_err(failed)?;
            let blob = session.wrap_key(&Mechanism::AesKeyWrapPad, key, object);
            session.destroy_object(object).map_err(failed)?;
            Ok(Wrapped { serial: serial.to_owned(), key_id, blob: blob.map_err(failed)? })
        })
    }

    /// Opens what this token's key wrapped.
    pub fn unwrap(&self, pin: &[u8], wrapped: &Wrapped) -> Result<SecretPage, TokenError> {
        self.with_session(pin, Some(&wrapped.serial), |session, _| {
            let key = match keys_of(session, Attribute::Id(wrapped.key_id.clone()))?.as_slice() {
                [] => return Err(TokenError::KeyMissing),
                [key] => *key,
                _ => return Err(TokenError::KeyAmbiguous),
            };
            expect_fit(session, key)?;
            let mechanism = Mechanism::AesKeyWrapPad;
            let object = session
                .unwrap_key(&mechanism, key, &wrapped.blob, &template(None))
                .map_err(|_| TokenError::WrappedInvalid)?;
            let value = value_of(session, object);
            session.destroy_object(object).map_err(failed)?;
            value
        })
    }

    /// Logs in once and does something; the session and the login end with it. Where a serial
    /// number is known no other token is told the PIN.
    fn with_session<T>(
        &self,
        pin: &[u8],
        serial: Option<&str>,
        act: impl FnOnce(&Session, &str) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        self.with_slot(|library, slot| {
            // Before the token is looked at: it ends when another is put in its place.
            let session = library.open_rw_session(slot).map_err(failed)?;
            let info = library.get_token_info(slot).map_err(failed)?;
            serial.map_or(Ok(()), |serial| expect_serial(&info, serial))?;
            if info.user_pin_locked() {
                return Err(TokenError::PinLocked);
            }
            if info.user_pin_final_try() {
                return Err(TokenError::PinFinalTry);
            }
            // It wipes itself.
            let pin = RawAuthPin::new(Box::new(pin.to_vec()));
            session.login_with_raw(UserType::User, &pin).map_err(failed)?;
            drop(pin);
            let done = act(&session, info.serial_number());
            // The library ends in a moment, and every login with it.
            let _ = session.logout();
            done
        })
    }

    /// Begins the library, finds the token, and ends the library.
    fn with_slot<T>(
        &self,
        act: impl FnOnce(&Pkcs11, Slot) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        let _alone = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        let library = self.library()?;
        let locking = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        library.initialize(locking).map_err(failed)?;
        let done = self.find(library).and_then(|slot| act(library, slot));
        let ended = library.clone().finalize().map_err(failed);
        done.and_then(|found| ended.map(|()| found))
    }

    fn library(&self) -> Result<&Pkcs11, TokenError> {
        if let Some(library) = self.library.get() {
            return Ok(library);
        }
        let library = Pkcs11::new(&self.place.module).map_err(failed)?;
        Ok(self.library.get_or_init(|| library))
    }

    /// The slot whose token bears the name; among several none is chosen.
    fn find(&self, library: &Pkcs11) -> Result<Slot, TokenError> {
        let named = |slot: &Slot| {
            library.get_token_info(*slot).is_ok_and(|info| {
                let names = [info.label(), info.serial_number()];
                info.token_initialized() && names.contains(&self.place.token.as_str())
            })
        };
        let slots = library.get_slots_with_token().map_err(failed)?;
        match slots.into_iter().filter(named).collect::<Vec<_>>().as_slice() {
            [] => Err(TokenError::Absent),
            [slot] => Ok(*slot),
            _ => Err(TokenError::Ambiguous),
        }
    }
}

fn expect_serial(info: &TokenInfo, serial: &str) -> Result<(), TokenError> {
    if info.serial_number() == serial { Ok(()) } else { Err(TokenError::OtherToken) }
}

/// The secret keys inside the token that have an attribute.
fn keys_of(session: &Session, named: Attribute) -> Result<Vec<ObjectHandle>, TokenError> {
    let wanted = [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Token(true), named];
    session.find_objects(&wanted).map_err(failed)
}

/// What the wrapping key is made with: it wraps, unwraps, and does nothing else.
fn wrapping_key() -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Wrap(true),
        Attribute::Unwrap(true),
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
        Attribute::Sign(false),
        Attribute::Verify(false),
        Attribute::Derive(false),
    ]
}

/// What only the token can say of a key: it was made inside, and never was less safe.
fn made_inside() -> [Attribute; 5] {
    [
        Attribute::KeyType(KeyType::AES),
        Attribute::ValueLen(WRAPPING_KEY_LEN_BYTES.into()),
        Attribute::Local(true),
        Attribute::AlwaysSensitive(true),
        Attribute::NeverExtractable(true),
    ]
}

fn generate(session: &Session, label: &[u8], rng: &dyn Rng) -> Result<ObjectHandle, TokenError> {
    let mut id = vec![0; KEY_ID_LEN_BYTES];
    rng.fill(&mut id).map_err(|_| TokenError::ModuleFailed)?;
    let named = [
        Attribute::ValueLen(WRAPPING_KEY_LEN_BYTES.into()),
        Attribute::Label(label.to_vec()),
        Attribute::Id(id),
    ];
    let template = [&wrapping_key()[..], &named].concat();
    session.generate_key(&Mechanism::AesKeyGen, &template).map_err(failed)
}

/// Proves that a key is what a wrapping key must be, each time, and gives its id.
fn expect_fit(session: &Session, key: ObjectHandle) -> Result<Vec<u8>, TokenError> {
    for wanted in wrapping_key().into_iter().chain(made_inside()) {
        let found = session.get_attributes(key, &[wanted.attribute_type()]).map_err(failed)?;
        if found != [wanted] {
            return Err(TokenError::KeyUnfit);
        }
    }
    let id = session.get_attributes(key, &[AttributeType::Id]).map_err(failed)?;
    match id.as_slice() {
        [Attribute::Id(id)] if !id.is_empty() => Ok(id.clone()),
        _ => Err(TokenError::KeyUnfit),
    }
}

/// An object that lives as long as the session: the secret on its way in, or out.
fn template(value: Option<Vec<u8>>) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ];
    template.extend(value.map(Attribute::Value));
    template
}

/// Takes the octets of an object into a page of their own.
fn value_of(session: &Session, object: ObjectHandle) -> Result<SecretPage, TokenError> {
    let found = session.get_attributes(object, &[AttributeType::Value]).map_err(failed)?;
    let Some(Attribute::Value(value)) = found.into_iter().next() else {
        return Err(TokenError::WrappedInvalid);
    };
    let value = Zeroizing::new(value);
    let secret = <[u8; SecretPage::LEN_BYTES]>::try_from(value.as_slice());
    let mut secret = secret.map(Zeroizing::new).map_err(|_| TokenError::WrappedInvalid)?;
    SecretPage::taken_from(&mut secret).map_err(|_| TokenError::ModuleFailed)
}

/// What the library says, in our words.
fn failed(error: LibraryError) -> TokenError {
    match error {
        LibraryError::Pkcs11(RvError::PinIncorrect | RvError::PinLenRange, _) => {
            TokenError::PinWrong
        }
        LibraryError::Pkcs11(RvError::PinLocked, _) => TokenError::PinLocked,
        LibraryError::Pkcs11(
            RvError::DeviceRemoved | RvError::TokenNotPresent | RvError::TokenNotRecognized,
            _,
        ) => TokenError::Absent,
        other => {
            // Of functions and return values alone: no content.
            tracing::error!(error = %other, "the token failed");
            TokenError::ModuleFailed
        }
    }
}

/// AES-256.
const WRAPPING_KEY_LEN_BYTES: u64 = 32;
const KEY_ID_LEN_BYTES: usize = 16;
