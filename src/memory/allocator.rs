//! An allocator that wipes what is freed.
#![allow(unsafe_code, reason = "an allocator is unsafe by its interface")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::{ptr, slice};

/// The system's allocator, with every block overwritten by zeros before it goes back.
///
/// Growing and shrinking in place is given up: `realloc` is allocate, copy, wipe and free, which
/// the provided method of the trait does by the three methods below. So no moved `Vec` leaves a
/// copy of its content behind.
#[derive(Clone, Copy, Debug, Default)]
pub struct WipingAllocator;

// SAFETY: every block comes from `System` and goes back to it with the layout it came with; the
// wipe stays within that layout.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up a block of this layout, so all its bytes may be written and,
        // once written, read.
        unsafe {
            ptr::write_bytes(block, 0, layout.size());
            // Else the compiler may drop a write that nobody reads.
            zeroize::optimization_barrier(slice::from_raw_parts(block, layout.size()));
        }
        // SAFETY: the caller's promise that `block` came from here with `layout` is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stack::tests::memory_at;

    const LEN_BYTES: usize = 256 * 1024;

    /// A block of the size of a page or more that the heap keeps mapped after it is freed.
    fn residue(free: impl FnOnce(Vec<u8>)) -> bool {
        // A neighbour above keeps the top of the heap where it is.
        let block = vec![0xa7_u8; LEN_BYTES / 4];
        let _neighbour = vec![0_u8; LEN_BYTES / 4];
        let address = block.as_ptr().addr();
        free(block);
        // The first octets of a free block are the heap's own.
        memory_at(address + 64, 1024).is_some_and(|bytes| bytes.windows(8).any(|w| w == [0xa7; 8]))
    }

    #[test]
    fn a_freed_block_is_wiped() {
        assert!(!residue(drop));
        assert!(!residue(|mut block| block.reserve(LEN_BYTES)));
        assert!(!residue(|mut block| {
            block.truncate(16);
            block.shrink_to_fit();
        }));
        // The control: a block that is not freed is found.
        assert!(residue(std::mem::forget));
    }
}
