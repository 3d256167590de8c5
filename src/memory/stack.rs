//! Wiping the stack that a computation has used.

/// Octets below the caller's frame that are wiped: deeper than any cipher or curve goes.
const WIPED_LEN_BYTES: usize = 64 * 1024;

/// Overwrites the 64 KiB of stack below the caller's frame.
pub fn wipe_stack() {
    zeroize::zeroize_stack::<WIPED_LEN_BYTES>();
}

/// Runs `compute`, then wipes the stack that it used.
///
/// Around a whole operation of a room (a MAC, a PIN block, a derivation), not around each block
/// cipher call: it costs about a microsecond.
pub fn with_wiped_stack<T>(compute: impl FnOnce() -> T) -> T {
    let result = in_own_frame(compute);
    wipe_stack();
    result
}

/// Keeps the locals of `compute` out of the caller's frame, which the wipe does not reach.
#[inline(never)]
fn in_own_frame<T>(compute: impl FnOnce() -> T) -> T {
    compute()
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs::File;
    use std::hint::black_box;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// What stands at an address of this process, as the kernel sees it; none if unmapped.
    pub(in super::super) fn memory_at(address: usize, len_bytes: usize) -> Option<Vec<u8>> {
        let memory = File::open("/proc/self/mem").unwrap();
        let mut bytes = vec![0; len_bytes];
        memory.read_exact_at(&mut bytes, u64::try_from(address).unwrap()).ok()?;
        Some(bytes)
    }

    /// Leaves a marker on the stack and tells where it stood.
    #[inline(never)]
    fn plant() -> usize {
        let marker = black_box([0x5e_u8; 512]);
        black_box(&marker).as_ptr().addr()
    }

    #[test]
    fn a_computation_leaves_nothing_on_the_stack() {
        // A page of buffer and a file handle go to the heap, so the look itself does not wipe.
        let found = |address| memory_at(address, 512).unwrap().windows(64).any(|w| w == [0x5e; 64]);
        let address = with_wiped_stack(plant);
        assert!(!found(address));
        // The control: without the wipe the marker is found.
        let address = in_own_frame(plant);
        assert!(found(address));
    }
}
