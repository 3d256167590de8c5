//! Block ciphers in the modes of the vectors: ECB and CBC, without padding.

use super::{Stop, Vector};
use crate::crypto::LengthInvalid;
use crate::crypto::aes::Aes;
use crate::crypto::tdes::{Des, Tdes};

/// A cipher with its key.
pub(super) enum Cipher {
    Aes(Aes),
    Des(Des),
    Tdes(Tdes),
}

/// Which way data goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Decrypt,
    Encrypt,
}

impl Cipher {
    pub(super) fn aes(key: &[u8]) -> Result<Self, Stop> {
        Ok(Self::Aes(Aes::new(key)?))
    }

    /// TDES; of eight octets, single DES.
    pub(super) fn tdes(key: &[u8]) -> Result<Self, Stop> {
        match key.try_into() {
            Ok(single) => Ok(Self::Des(Des::new(single))),
            Err(_) => Ok(Self::Tdes(Tdes::new(key)?)),
        }
    }

    /// Runs the data of a vector through the cipher in its `mode`, with its `iv` or zeros.
    pub(super) fn run(&self, vector: &Vector, way: Way) -> Result<Vec<u8>, Stop> {
        let mut data = match way {
            Way::Decrypt => vector.bytes("ciphertext"),
            Way::Encrypt => vector.bytes("message"),
        }?;
        let iv = vector.optional_bytes("iv")?;
        match vector.text("mode")? {
            "CBC" => match self {
                Self::Aes(_) => self.chain::<16>(way, &iv_or_zeros(iv)?, &mut data)?,
                Self::Des(_) | Self::Tdes(_) => {
                    self.chain::<8>(way, &iv_or_zeros(iv)?, &mut data)?;
                }
            },
            "ECB" => match self {
                Self::Aes(_) => self.each_block::<16>(way, &mut data)?,
                Self::Des(_) | Self::Tdes(_) => self.each_block::<8>(way, &mut data)?,
            },
            mode => return Err(Stop::Unknown(format!("{} in mode {mode}", vector.operation()?))),
        }
        Ok(data)
    }

    fn each_block<const LEN: usize>(&self, way: Way, data: &mut [u8]) -> Result<(), LengthInvalid> {
        let (blocks, rest) = data.as_chunks_mut::<LEN>();
        if blocks.is_empty() || !rest.is_empty() {
            return Err(LengthInvalid);
        }
        blocks.iter_mut().try_for_each(|block| self.block(way, block))
    }

    fn chain<const LEN: usize>(
        &self,
        way: Way,
        iv: &[u8; LEN],
        data: &mut [u8],
    ) -> Result<(), LengthInvalid> {
        let (blocks, rest) = data.as_chunks_mut::<LEN>();
        if blocks.is_empty() || !rest.is_empty() {
            return Err(LengthInvalid);
        }
        let mut previous = *iv;
        for block in blocks {
            let received = *block;
            if way == Way::Encrypt {
                xor(block, &previous);
                self.block(way, block)?;
                previous = *block;
            } else {
                self.block(way, block)?;
                xor(block, &previous);
                previous = received;
            }
        }
        Ok(())
    }

    fn block(&self, way: Way, block: &mut [u8]) -> Result<(), LengthInvalid> {
        match (self, way) {
            (Self::Aes(aes), Way::Decrypt) => aes.decrypt_block(exactly(block)?),
            (Self::Aes(aes), Way::Encrypt) => aes.encrypt_block(exactly(block)?),
            (Self::Des(des), Way::Decrypt) => des.decrypt_block(exactly(block)?),
            (Self::Des(des), Way::Encrypt) => des.encrypt_block(exactly(block)?),
            (Self::Tdes(tdes), Way::Decrypt) => tdes.decrypt_block(exactly(block)?),
            (Self::Tdes(tdes), Way::Encrypt) => tdes.encrypt_block(exactly(block)?),
        }
        Ok(())
    }
}

fn iv_or_zeros<const LEN: usize>(iv: Option<Vec<u8>>) -> Result<[u8; LEN], LengthInvalid> {
    iv.map_or(Ok([0; LEN]), |iv| iv.try_into().map_err(|_| LengthInvalid))
}

fn exactly<const LEN: usize>(block: &mut [u8]) -> Result<&mut [u8; LEN], LengthInvalid> {
    block.try_into().map_err(|_| LengthInvalid)
}

fn xor(block: &mut [u8], other: &[u8]) {
    for (octet, other) in block.iter_mut().zip(other) {
        *octet ^= other;
    }
}
