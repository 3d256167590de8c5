//! The padding methods of ISO 9797-1:2011, 7.3.

/// How a message is filled up to whole blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Padding {
    /// Zeros, as few as possible, none if it fits (7.3.2). Messages that differ in trailing zeros
    /// have one MAC.
    Method1,
    /// One bit 1, then zeros, always at least the bit (7.3.3).
    Method2,
    /// Zeros as in method 1, and a first block that holds the length in bits, big endian (7.3.4).
    Method3,
}

impl Padding {
    /// Pads to a positive number of blocks.
    pub(super) fn pad<const BLOCK_LEN_BYTES: usize>(self, message: &[u8]) -> Vec<u8> {
        // Room for the longest form, so that no copy is left behind by growing.
        let mut padded = Vec::with_capacity(message.len() + 2 * BLOCK_LEN_BYTES);
        match self {
            Self::Method1 => padded.extend_from_slice(message),
            Self::Method2 => {
                padded.extend_from_slice(message);
                padded.push(0x80);
            }
            Self::Method3 => {
                padded.extend_from_slice(&length_block::<BLOCK_LEN_BYTES>(message.len()));
                padded.extend_from_slice(message);
            }
        }
        let whole = padded.len().next_multiple_of(BLOCK_LEN_BYTES);
        // The standard wants a positive number of blocks of the message itself.
        let whole = match (self, message.is_empty()) {
            (Self::Method1 | Self::Method3, true) => whole + BLOCK_LEN_BYTES,
            (_, _) => whole,
        };
        padded.resize(whole, 0);
        padded
    }
}

/// The length in bits, in the right part of a block.
fn length_block<const BLOCK_LEN_BYTES: usize>(len_bytes: usize) -> [u8; BLOCK_LEN_BYTES] {
    let mut block = [0; BLOCK_LEN_BYTES];
    let len_bits = u64::try_from(len_bytes).ok().and_then(|len| len.checked_mul(8));
    let len_bits = len_bits.expect("memory holds no message of 2^61 bytes");
    block[BLOCK_LEN_BYTES - 8..].copy_from_slice(&len_bits.to_be_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pads_as_the_standard_says() {
        let eight = *b"8 bytes.";
        assert_eq!(Padding::Method1.pad::<8>(b"five5"), b"five5\0\0\0");
        assert_eq!(Padding::Method1.pad::<8>(&eight), eight);
        assert_eq!(Padding::Method1.pad::<8>(b""), [0; 8]);
        assert_eq!(Padding::Method2.pad::<8>(b"five5"), b"five5\x80\0\0");
        assert_eq!(Padding::Method2.pad::<8>(&eight), b"8 bytes.\x80\0\0\0\0\0\0\0");
        assert_eq!(Padding::Method2.pad::<8>(b""), b"\x80\0\0\0\0\0\0\0");
        assert_eq!(Padding::Method3.pad::<8>(b"five5"), b"\0\0\0\0\0\0\0\x28five5\0\0\0");
        assert_eq!(Padding::Method3.pad::<8>(&eight), b"\0\0\0\0\0\0\0\x408 bytes.");
        assert_eq!(Padding::Method3.pad::<8>(b""), [0; 16]);
        assert_eq!(Padding::Method3.pad::<16>(&eight)[15], 64);
        assert_eq!(Padding::Method3.pad::<16>(&eight).len(), 32);
    }
}
