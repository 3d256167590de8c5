//! Brings the keys of a vector to the service and destroys them after it.

use super::super::Stop;
use super::Service;
use crate::grpc::client::{ClientError, ImportCall, request_id};
use crate::key::usage::DataBoth;
use crate::key::{Algorithm, Key, Material};
use crate::keyblock::for_vectors::wrap_any;
use crate::vault::{KeyAttributes, KeyUsage};

/// The keys that one vector brought to the service.
pub(super) struct Keys<'a> {
    pub(super) service: &'a Service<'a>,
    imported: Vec<String>,
}

/// A key to be brought.
pub(super) struct New<'a> {
    pub(super) usage: KeyUsage,
    /// The letter of its algorithm in a key block.
    pub(super) letter: u8,
    pub(super) key: &'a [u8],
    pub(super) attributes: KeyAttributes,
}

/// A key that the service has.
pub(super) struct Imported {
    /// The id in `keys/{id}`.
    pub(super) id: String,
    pub(super) check_value: Vec<u8>,
}

impl<'a> Keys<'a> {
    pub(super) const fn new(service: &'a Service<'a>) -> Self {
        Self { service, imported: Vec::new() }
    }

    /// Imports a key under the development key encryption key. Single DES, weak keys and keys of a
    /// length that their algorithm does not have are refused by policy.
    pub(super) async fn import(&mut self, new: New<'_>) -> Result<Imported, Stop> {
        let key_block = self.wrap(&new)?;
        let forbidden = forbidden(&new);
        let wrapping_key = self.service.key_encryption_key_id;
        let imported = self.import_block(&key_block, wrapping_key, &new.attributes).await;
        expect(forbidden, imported).map_err(|stop| match stop {
            // Else a vector that is to be refused would pass for a fault of its driver.
            Stop::Refused(reason) => Stop::Broken(format!("a key that is not imported: {reason}")),
            other => other,
        })
    }

    /// Imports a key block under a key that the service has.
    pub(super) async fn import_block(
        &mut self,
        key_block: &str,
        wrapping_key: &str,
        attributes: &KeyAttributes,
    ) -> Result<Imported, ClientError> {
        let id = format!("vector-{}", request_id());
        let call = ImportCall { id: &id, key_block, wrapping_key, attributes };
        let check_value = self.service.client.import_key(call).await?;
        self.imported.push(id.clone());
        Ok(Imported { id, check_value })
    }

    /// Destroys every key that was brought.
    pub(super) async fn destroy(self) -> Result<(), Stop> {
        for id in &self.imported {
            let destroyed = self.service.client.destroy_key(id).await;
            destroyed.map_err(|error| Stop::Broken(format!("keys/{id} stays: {error}")))?;
        }
        Ok(())
    }

    /// A key block of version D, whose padding hides how long the key is.
    fn wrap(&self, new: &New<'_>) -> Result<String, Stop> {
        let code = new.usage.as_str();
        let mode = new.usage.modes()[0].as_str();
        let header = format!("D0000{code}{}{mode}00E0000", char::from(new.letter));
        let longest = Algorithm::ALL
            .into_iter()
            .filter(|algorithm| algorithm.header_letter() == new.letter)
            .map(Algorithm::len_bytes)
            .fold(new.key.len(), usize::max);
        let filled = (LENGTH_LEN + longest).next_multiple_of(CIPHER_BLOCK_LEN);
        let mut padding = vec![0; filled - LENGTH_LEN - new.key.len()];
        self.service.rng.fill(&mut padding).map_err(|error| Stop::Broken(error.to_string()))?;
        // Exposed to wrap the published keys of vectors.
        let kek = self.service.key_encryption_key.expose_bytes();
        wrap_any(kek, &header, new.key, &padding)
            .map_err(|_| Stop::Unexpressed("with a key that no key block can hold".to_owned()))
    }
}

/// Octets of the key's length in a key block's clear data, and of a block of AES.
const LENGTH_LEN: usize = 2;
const CIPHER_BLOCK_LEN: usize = 16;

/// Why the service does not take such a key.
fn forbidden(new: &New<'_>) -> Option<&'static str> {
    let algorithm = Algorithm::from_header(new.letter, new.key.len()).filter(|algorithm| {
        new.usage.permits(*algorithm) && is_strong(*algorithm, Material::copied_from(new.key))
    });
    let Some(algorithm) = algorithm else { return Some("KEY_BLOCK_REJECTED") };
    // Format 4 goes with AES, every other one with TDES; AES DUKPT derives keys for both.
    let derives_both = new.usage == KeyUsage::BaseDerivation && algorithm.is_aes();
    let carried = |format: &u8| derives_both || (*format == 4) == algorithm.is_aes();
    let KeyAttributes { pin_formats_in, pin_formats_out, .. } = &new.attributes;
    let fits = pin_formats_in.iter().chain(pin_formats_out).all(carried);
    if fits { None } else { Some("FIELD_INVALID") }
}

/// Whether a key is none of those that are weak.
pub(super) fn is_strong(algorithm: Algorithm, material: Material) -> bool {
    // The type parameter is of no consequence: the key is dropped at once.
    Key::<DataBoth>::from_material(algorithm, material).is_ok_and(|key| key.refuse_weak().is_ok())
}

/// Holds an answer against the policy: `forbidden` is the one reason that the service must give,
/// where the policy forbids what is asked for.
pub(super) fn expect<T>(
    forbidden: Option<&'static str>,
    answer: Result<T, ClientError>,
) -> Result<T, Stop> {
    let error = match (answer, forbidden) {
        (Ok(answer), None) => return Ok(answer),
        (Ok(_), Some(reason)) => {
            return Err(Stop::Broken(format!("an answer where {reason} is promised")));
        }
        (Err(error), _) => error,
    };
    let told = error.to_string();
    Err(match error.reason() {
        Some(reason) if Some(reason) == forbidden => Stop::Policy(told),
        Some("BUDGET_SPENT") => {
            Stop::Unexpressed("after the failure budget of its PAN was spent".to_owned())
        }
        Some(reason) if INPUT_REFUSED.contains(&reason) => Stop::Refused(told),
        Some(_) | None => Stop::Broken(told),
    })
}

/// The reasons for which an input is refused. Any other one is no answer to a vector.
const INPUT_REFUSED: [&str; 8] = [
    "FIELD_INVALID",
    "KEY_BLOCK_REJECTED",
    "KEY_USAGE_MISMATCH",
    "KSN_INVALID",
    "MAC_MISMATCH",
    "PIN_BLOCK_REJECTED",
    "TRANSLATION_FORBIDDEN",
    "WRAPPING_KEY_TOO_WEAK",
];
