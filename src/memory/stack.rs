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
    let _wiped = WipedOnDrop;
    in_own_frame(compute)
}

/// Wipes when it is let go, so that a computation that panics leaves nothing either.
struct WipedOnDrop;

impl Drop for WipedOnDrop {
    #[inline]
    fn drop(&mut self) {
        wipe_stack();
    }
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
    use std::panic::{catch_unwind, resume_unwind};

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

    /// Leaves a marker deeper than unwinding goes.
    #[inline(never)]
    fn plant_deep() -> usize {
        let marker = black_box([0x5e_u8; 16 * 1024]);
        black_box(&marker).as_ptr().addr()
    }

    #[test]
    fn a_computation_that_panics_leaves_nothing_either() {
        let found = |address| memory_at(address, 512).unwrap().windows(64).any(|w| w == [0x5e; 64]);
        let failing = || -> usize { resume_unwind(Box::new(plant_deep())) };
        let caught = catch_unwind(|| with_wiped_stack(failing)).unwrap_err();
        assert!(!found(*caught.downcast::<usize>().unwrap()));
        let caught = catch_unwind(|| in_own_frame(failing)).unwrap_err();
        assert!(found(*caught.downcast::<usize>().unwrap()), "the control");
    }
}
