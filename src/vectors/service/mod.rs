//! Drives the vectors that the API can express through a running development service.
//!
//! Each key is imported under a fresh name below the development key encryption key and destroyed
//! after its vector. What the service draws at random, a translated PIN block, is compared by
//! opening it. Where the policy forbids what a vector shows (format 1 out, short PANs, weak keys,
//! deprecated key blocks) the refusal is what is expected, and counted apart.

mod derivation;
mod key_block;
mod keys;
mod mac;
mod pin_block;

use self::keys::Keys;
use super::operation::is_aes_dukpt;
use super::{Outcome, Report, Stop, Vector, parse};
use crate::crypto::rng::Rng;
use crate::grpc::client::{Client, KeyCall};
use crate::key::usage::KeyEncryption;
use crate::key::{Algorithm, Key};

/// A running development service, and what it takes to bring keys to it.
pub struct Service<'a> {
    /// The connection.
    pub client: &'a Client,
    /// The development key encryption key.
    pub key_encryption_key: &'a Key<KeyEncryption>,
    /// Its id in `keys/{id}`.
    pub key_encryption_key_id: &'a str,
    /// Randomness, for padding and for keys of our own.
    pub rng: &'a dyn Rng,
}

impl Service<'_> {
    /// Runs files, each with its name and text, and reports on each.
    ///
    /// What is expected to be refused comes last, over all files: rejected PIN blocks spend the
    /// failure budget of their PAN, which would then be closed to those that are right.
    pub async fn run(&self, files: &[(String, String)]) -> Vec<Report> {
        let mut reports = vec![Report::default(); files.len()];
        for refusals in [false, true] {
            for ((name, json), report) in files.iter().zip(&mut reports) {
                match parse(json) {
                    Ok(vectors) => {
                        let wanted = |vector: &&Vector| vector.expects_refusal() == refusals;
                        for vector in vectors.iter().filter(wanted) {
                            report.record(name, vector, &self.drive(vector).await);
                        }
                    }
                    Err(invalid) if refusals => report.record_unreadable(name, &invalid),
                    Err(_) => {}
                }
            }
        }
        reports
    }

    async fn drive(&self, vector: &Vector) -> Outcome {
        let mut keys = Keys::new(self);
        let outcome = operate(&mut keys, vector).await;
        keys.destroy().await?;
        outcome
    }
}

async fn operate(keys: &mut Keys<'_>, vector: &Vector) -> Outcome {
    let operation = vector.operation()?;
    let is_dukpt = vector.has("bdk");
    match operation {
        "derive_initial_key" | "derive_transaction_key" => {
            derivation::run_ancestor(keys, vector).await
        }
        "derive_working_key" => derivation::run(keys, vector).await,
        "mac_generate" | "mac_verify" if is_dukpt => mac::run_dukpt(keys, vector).await,
        "mac_generate" | "mac_verify" => mac::run(keys, vector).await,
        "pin_decrypt" | "pin_encrypt" if is_dukpt => pin_block::run_dukpt(keys, vector).await,
        "decrypt" | "encrypt" if !vector.has("pin_block_format") => Err(unexpressed(operation)),
        "decipher" | "decode" | "decrypt" | "encipher" | "encode" | "encrypt" | "translate" => {
            pin_block::run(keys, vector).await
        }
        "parse_header" | "unwrap" | "wrap" => key_block::run(keys, vector).await,
        _ => Err(unexpressed(operation)),
    }
}

fn unexpressed(operation: &str) -> Stop {
    Stop::Unexpressed(format!("of {operation}, which the API does not offer"))
}

/// The base derivation key of a vector and its KSN, as the API can carry them.
struct DukptInputs {
    bdk: Vec<u8>,
    ksn: Vec<u8>,
    is_aes: bool,
}

impl DukptInputs {
    fn of(vector: &Vector) -> Result<Self, Stop> {
        Self::at(vector, vector.bytes("ksn")?)
    }

    /// The same with another KSN than the vector's.
    fn at(vector: &Vector, ksn: Vec<u8>) -> Result<Self, Stop> {
        let is_aes = is_aes_dukpt(vector);
        if !is_aes && matches!(ksn.len(), 8 | 9) {
            let why = "with a KSN that the service fills with FF on the left";
            return Err(Stop::Unexpressed(why.to_owned()));
        }
        Ok(Self { bdk: vector.bytes("bdk")?, ksn, is_aes })
    }

    /// The key of a call under an imported base derivation key.
    fn key<'a>(&'a self, bdk: &'a str, algorithm: Algorithm) -> KeyCall<'a> {
        let algorithm = self.is_aes.then_some(algorithm);
        KeyCall::Dukpt { base_derivation_key: bdk, ksn: &self.ksn, algorithm }
    }

    /// The letter of the key's algorithm in a key block.
    const fn letter(&self) -> u8 {
        if self.is_aes { b'A' } else { b'T' }
    }
}
