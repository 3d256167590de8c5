//! AES-GCM, authenticated encryption with associated data: NIST SP 800-38D (2007).

use ghash::{GHash, universal_hash::UniversalHash};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::aes::Aes;
use super::constant_time_eq;

/// Octets that sealing adds.
pub const TAG_LEN_BYTES: usize = 16;

/// What was sealed does not open: another key, nonce or associated data, or changed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed data is not authentic")]
pub struct Unauthentic;

/// Seals with AES-256-GCM: the cryptogram, then the tag.
///
/// A nonce must never come twice under one key; the caller draws it or counts.
#[must_use]
pub fn seal(key: &[u8; 32], nonce: [u8; 12], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(plain.len() + TAG_LEN_BYTES);
    sealed.extend_from_slice(plain);
    record_key(key)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed)
        .expect("only a message of 64 GiB or more is too long");
    sealed
}

/// Opens what [`seal`] gave.
pub fn open(
    key: &[u8; 32],
    nonce: [u8; 12],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, Unauthentic> {
    let mut buffer = sealed.to_vec();
    let plain_len = record_key(key)
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut buffer)
        .map_err(|_| Unauthentic)?
        .len();
    buffer.truncate(plain_len);
    Ok(buffer)
}

fn record_key(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has 256 bits"))
}

/// Opens AES-GCM of any key and IV length, for test vectors: ring has 12-byte IVs and no AES-192.
///
/// See NIST SP 800-38D (2007), 7.2.
pub fn gcm_open_any(
    key: &[u8],
    iv: &[u8],
    aad: &[u8],
    cryptogram: &[u8],
    tag: &[u8],
) -> Result<Vec<u8>, Unauthentic> {
    let gcm = AnyGcm::new(key, iv)?;
    if !constant_time_eq(&gcm.tag(aad, cryptogram)?, tag) {
        return Err(Unauthentic);
    }
    Ok(gcm.count_through(cryptogram))
}

/// Seals with AES-GCM of any key and IV length, for test vectors; tells cryptogram and tag.
///
/// See NIST SP 800-38D (2007), 7.1.
pub fn gcm_seal_any(
    key: &[u8],
    iv: &[u8],
    aad: &[u8],
    plain: &[u8],
) -> Result<(Vec<u8>, [u8; TAG_LEN_BYTES]), Unauthentic> {
    let gcm = AnyGcm::new(key, iv)?;
    let cryptogram = gcm.count_through(plain);
    let tag = gcm.tag(aad, &cryptogram)?;
    Ok((cryptogram, tag))
}

/// AES-GCM with one key and IV.
struct AnyGcm {
    aes: Aes,
    subkey: [u8; 16],
    first: [u8; 16],
}

impl AnyGcm {
    fn new(key: &[u8], iv: &[u8]) -> Result<Self, Unauthentic> {
        let aes = Aes::new(key).map_err(|_| Unauthentic)?;
        if iv.is_empty() {
            return Err(Unauthentic);
        }
        let mut subkey = [0; 16];
        aes.encrypt_block(&mut subkey);
        let first = first_counter_block(&subkey, iv)?;
        Ok(Self { aes, subkey, first })
    }

    fn tag(&self, aad: &[u8], cryptogram: &[u8]) -> Result<[u8; TAG_LEN_BYTES], Unauthentic> {
        let mut tag = ghash(&self.subkey, aad, cryptogram)?;
        let mut mask = self.first;
        self.aes.encrypt_block(&mut mask);
        tag.iter_mut().zip(mask).for_each(|(octet, mask)| *octet ^= mask);
        Ok(tag)
    }

    fn count_through(&self, data: &[u8]) -> Vec<u8> {
        let mut data = data.to_vec();
        let mut counter = self.first;
        for chunk in data.chunks_mut(16) {
            increment_right_32(&mut counter);
            let mut stream = counter;
            self.aes.encrypt_block(&mut stream);
            chunk.iter_mut().zip(stream).for_each(|(octet, stream)| *octet ^= stream);
        }
        data
    }
}

/// J0 of the standard: the IV with a counter of one, or its GHASH when it has another length.
fn first_counter_block(subkey: &[u8; 16], iv: &[u8]) -> Result<[u8; 16], Unauthentic> {
    if iv.len() == 12 {
        let mut block = [0; 16];
        block[..12].copy_from_slice(iv);
        block[15] = 1;
        return Ok(block);
    }
    ghash(subkey, &[], iv)
}

/// GHASH over both strings, each padded with zeros, and their lengths in bits.
fn ghash(subkey: &[u8; 16], aad: &[u8], data: &[u8]) -> Result<[u8; 16], Unauthentic> {
    let mut lengths = [0; 16];
    lengths[..8].copy_from_slice(&len_bits(aad)?.to_be_bytes());
    lengths[8..].copy_from_slice(&len_bits(data)?.to_be_bytes());
    let mut hash = GHash::new(subkey.into());
    hash.update_padded(aad);
    hash.update_padded(data);
    hash.update(&[lengths.into()]);
    Ok(hash.finalize().into())
}

fn len_bits(data: &[u8]) -> Result<u64, Unauthentic> {
    u64::try_from(data.len()).ok().and_then(|len_bytes| len_bytes.checked_mul(8)).ok_or(Unauthentic)
}

fn increment_right_32(block: &mut [u8; 16]) {
    let [.., a, b, c, d] = block;
    let next = u32::from_be_bytes([*a, *b, *c, *d]).wrapping_add(1);
    [*a, *b, *c, *d] = next.to_be_bytes();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        let sealed = seal(&[1; 32], [2; 12], b"identity", b"record");
        assert_eq!(sealed.len(), 6 + TAG_LEN_BYTES);
        assert_eq!(open(&[1; 32], [2; 12], b"identity", &sealed).unwrap(), b"record");
        assert_eq!(open(&[3; 32], [2; 12], b"identity", &sealed), Err(Unauthentic));
        assert_eq!(open(&[1; 32], [3; 12], b"identity", &sealed), Err(Unauthentic));
        assert_eq!(open(&[1; 32], [2; 12], b"another", &sealed), Err(Unauthentic));
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 0x80;
            assert_eq!(open(&[1; 32], [2; 12], b"identity", &changed), Err(Unauthentic));
        }
        assert_eq!(open(&[1; 32], [2; 12], b"identity", b"short"), Err(Unauthentic));
    }

    #[test]
    fn both_forms_agree() {
        let plain: Vec<u8> = (0..50).collect();
        let sealed = seal(&[1; 32], [2; 12], b"identity", &plain);
        let (cryptogram, tag) = sealed.split_at(50);
        assert_eq!(gcm_open_any(&[1; 32], &[2; 12], b"identity", cryptogram, tag).unwrap(), plain);
        assert!(gcm_open_any(&[1; 32], &[2; 12], b"identity", cryptogram, &tag[..15]).is_err());
        assert!(gcm_open_any(&[1; 32], &[2; 13], b"identity", cryptogram, tag).is_err());
        assert!(gcm_open_any(&[1; 32], b"", b"identity", cryptogram, tag).is_err());
    }
}
