//! Cipher block chaining over any block cipher, without padding: ISO/IEC 10116, ISO 9797-1 pads.

use cipher::{
    Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit,
};

use super::LengthInvalid;

/// Encrypts in place a whole number of blocks.
pub(super) fn encrypt<C: BlockCipherEncrypt>(
    cipher: &C,
    iv: &Block<C>,
    data: &mut [u8],
) -> Result<(), LengthInvalid> {
    let (blocks, rest) = Block::<C>::slice_as_chunks_mut(data);
    if !rest.is_empty() {
        return Err(LengthInvalid);
    }
    ::cbc::Encryptor::inner_iv_init(cipher, iv).encrypt_blocks(blocks);
    Ok(())
}

/// Decrypts in place a whole number of blocks.
pub(super) fn decrypt<C: BlockCipherDecrypt>(
    cipher: &C,
    iv: &Block<C>,
    data: &mut [u8],
) -> Result<(), LengthInvalid> {
    let (blocks, rest) = Block::<C>::slice_as_chunks_mut(data);
    if !rest.is_empty() {
        return Err(LengthInvalid);
    }
    ::cbc::Decryptor::inner_iv_init(cipher, iv).decrypt_blocks(blocks);
    Ok(())
}
