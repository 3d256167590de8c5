//! TDES DUKPT and what is done with its working keys.

use super::cipher::{Cipher, Way};
use super::file::hex;
use super::operation::undefined;
use super::{Answer, Outcome, Stop, Vector, mac, pin_block};
use crate::dukpt::TdesKsn;
use crate::dukpt::for_vectors::{
    TdesDerived, tdes_initial_key, tdes_initial_key_id, tdes_transaction_key, tdes_variant,
};
use crate::key::Algorithm;
use crate::key::usage::{
    DataDecryption, DataEncryption, MacGeneration, MacVerification, PinEncryption,
};
use crate::mac::for_vectors::VectorMacAlgorithm;

/// Whether a derivation type is one of this family.
pub(super) fn knows(derivation_type: &str) -> bool {
    Derivation::named(derivation_type).is_some()
}

/// Runs the operations of TDES DUKPT.
pub(super) fn run(vector: &Vector) -> Outcome {
    let operation = vector.operation()?;
    match operation {
        "derive_initial_key" => {
            let id = tdes_initial_key_id(&vector.bytes("ksn")?)?;
            let key = tdes_initial_key(&vector.bytes("bdk")?, &id)?;
            Ok(Answer::text(&hex(key.as_slice())))
        }
        "derive_working_key" => {
            let name = vector.text("derivation_type")?;
            Ok(Answer::text(&hex(derive(vector, name)?.as_slice())))
        }
        "data_decrypt" | "data_encrypt" => {
            let key = derive(vector, vector.text("derivation_type")?)?;
            let way = if operation == "data_decrypt" { Way::Decrypt } else { Way::Encrypt };
            Ok(Answer::text(&hex(&Cipher::tdes(key.as_slice())?.run(vector, way)?)))
        }
        "mac_generate" | "mac_verify" => {
            let algorithm = mac::algorithm(vector)?;
            let key = derive(vector, vector.text("derivation_type")?)?;
            if !fits(algorithm) {
                return Err(Stop::Refused("the MAC algorithm is not one of TDES".to_owned()));
            }
            mac::with_key(vector, algorithm, key.as_slice())
        }
        "pin_decrypt" | "pin_encrypt" => {
            let subject = pin_block::subject(vector)?;
            let name = vector.optional_text("derivation_type")?.unwrap_or("pin");
            let key = derive(vector, name)?;
            pin_block::check_algorithm(subject.format, Algorithm::Tdes2)?;
            if operation == "pin_decrypt" {
                pin_block::decipher(vector, subject, key.as_slice())
            } else {
                pin_block::encipher(vector, subject, key.as_slice())
            }
        }
        unknown => Err(Stop::Unknown(unknown.to_owned())),
    }
}

#[derive(Clone, Copy)]
enum Derivation {
    DataRequest,
    DataResponse,
    MacRequest,
    MacResponse,
    Pin,
    TransactionKey,
}

impl Derivation {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "data_request" => Self::DataRequest,
            "data_response" => Self::DataResponse,
            "mac_request" => Self::MacRequest,
            "mac_response" => Self::MacResponse,
            "pin" => Self::Pin,
            "transaction_key" => Self::TransactionKey,
            _ => return None,
        })
    }
}

pub(super) fn derive(vector: &Vector, name: &str) -> Result<TdesDerived, Stop> {
    let derivation = Derivation::named(name).ok_or_else(|| undefined("derivation_type", name))?;
    let ksn = TdesKsn::parse(&vector.bytes("ksn")?)?;
    let initial_key = tdes_initial_key(&vector.bytes("bdk")?, &ksn.initial_key_id())?;
    let key = tdes_transaction_key(initial_key.as_slice(), &ksn)?;
    Ok(match derivation {
        Derivation::DataRequest => tdes_variant::<DataEncryption>(key.as_slice())?,
        Derivation::DataResponse => tdes_variant::<DataDecryption>(key.as_slice())?,
        Derivation::MacRequest => tdes_variant::<MacGeneration>(key.as_slice())?,
        Derivation::MacResponse => tdes_variant::<MacVerification>(key.as_slice())?,
        Derivation::Pin => tdes_variant::<PinEncryption>(key.as_slice())?,
        Derivation::TransactionKey => key,
    })
}

fn fits(algorithm: VectorMacAlgorithm) -> bool {
    match algorithm {
        VectorMacAlgorithm::Service(algorithm) => algorithm.fits(Algorithm::Tdes2),
        VectorMacAlgorithm::UnionPayEcb => true,
        VectorMacAlgorithm::Iso9797Alg1Aes(_) => false,
    }
}
