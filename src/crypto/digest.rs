//! SHA-256: FIPS 180-4 (2015).

use ring::digest::{Context, SHA256};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_standard_however_it_is_cut() {
        // FIPS 180-2, appendix B.1.
        let expected = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        assert_eq!(data_encoding::HEXUPPER.encode(&sha256(&[b"abc"])), expected);
        assert_eq!(data_encoding::HEXUPPER.encode(&sha256(&[b"a", b"", b"bc"])), expected);
    }
}
