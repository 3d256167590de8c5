//! SHA-256: FIPS 180-4 (2015).

use digest::Digest as _;
use digest::common::hazmat::{SerializableState as _, SerializedState};
use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

/// Hashes the concatenation of the parts.
///
/// The borders between the parts do not enter: where they matter, the caller adds lengths.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// Puts each part behind its length, four octets, big endian: no two lists of parts read the same.
#[must_use]
pub fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let len_bytes = parts.iter().map(|part| part.len() + 4).sum();
    // Of the whole length from the beginning: nothing is moved, and so nothing left behind.
    let mut out = Vec::with_capacity(len_bytes);
    for part in parts {
        let len = u32::try_from(part.len()).expect("no part comes near 4 GiB");
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// A SHA-256 that can be interrupted: what is kept of it is its state, not what went in.
///
/// `ring` gives no state away, so this one alone is of another library; a test holds both together.
#[derive(Clone, Default)]
pub struct RunningSha256(sha2::Sha256);

/// Octets are not the state of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these octets are not the state of a hash")]
pub struct StateInvalid;

impl RunningSha256 {
    /// Adds octets.
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// The hash of all that was added so far.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.0.clone().finalize().into()
    }

    /// The state: eight chaining words, the length, and the at most 63 octets after the last whole
    /// block. Of what stands in whole blocks it holds no more than a hash does.
    #[must_use]
    pub fn state(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.serialize().to_vec())
    }

    /// Goes on from a state.
    pub fn from_state(state: &[u8]) -> Result<Self, StateInvalid> {
        let state = SerializedState::<sha2::Sha256>::try_from(state).map_err(|_| StateInvalid)?;
        sha2::Sha256::deserialize(&state).map(Self).map_err(|_| StateInvalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_hash_is_the_same_hash() {
        let long: Vec<u8> = (0..=255).cycle().take(1_000).collect();
        for cut in [0, 1, 55, 56, 63, 64, 65, 128, 999, 1_000] {
            let mut running = RunningSha256::default();
            running.update(&long[..cut]);
            let state = running.state();
            let mut again = RunningSha256::from_state(&state).unwrap();
            again.update(&long[cut..]);
            assert_eq!(again.digest(), sha256(&[&long]), "cut at {cut}");
            assert!(RunningSha256::from_state(&state[1..]).is_err());
        }
    }

    #[test]
    fn the_state_does_not_hold_what_stands_in_whole_blocks() {
        let mut running = RunningSha256::default();
        running.update(b"7Q2KZ1DJYDTN");
        running.update(&[0; 64]);
        let state = running.state();
        assert!(!state.windows(12).any(|window| window == b"7Q2KZ1DJYDTN"));
    }

    #[test]
    fn no_two_lists_of_parts_read_the_same() {
        assert_eq!(framed(&[b"ab", b""]), b"\0\0\0\x02ab\0\0\0\0");
        let lists: [&[&[u8]]; 5] = [&[], &[b""], &[b"ab"], &[b"a", b"b"], &[b"a\0\0\0\x01b"]];
        for (place, list) in lists.iter().enumerate() {
            assert!(lists[..place].iter().all(|other| framed(other) != framed(list)), "{place}");
        }
    }

    #[test]
    fn agrees_with_the_standard_however_it_is_cut() {
        // FIPS 180-2, appendix B.1.
        let expected = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        assert_eq!(data_encoding::HEXUPPER.encode(&sha256(&[b"abc"])), expected);
        assert_eq!(data_encoding::HEXUPPER.encode(&sha256(&[b"a", b"", b"bc"])), expected);
    }
}
