//! Pages for secrets that live long: out of reach of dumps, swap, children and `/proc`.
#![allow(unsafe_code, reason = "mappings are made by system calls and used through pointers")]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::{ffi::c_void, fmt};

use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use zeroize::Zeroize;

/// A 32-byte secret alone in a page of its own, between two pages that cannot be touched.
///
/// The page is of `memfd_secret`, which the kernel removes from its own map: not root, not a
/// debugger and no core dump reads it. Where the kernel has none it is an ordinary page, locked
/// and kept out of dumps and children; [`SecretPage::kind`] tells. Wiped on drop.
///
/// See `memfd_secret(2)`, mlock(2), madvise(2).
pub struct SecretPage {
    guarded: Guarded,
    kind: PageKind,
}

/// What kind of page holds a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// An ordinary page, locked in memory and kept out of dumps and children.
    Locked,
    /// A page of `memfd_secret`.
    Secret,
}

/// The system gives no page that is fit for a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives neither a secret nor a locked page: raise RLIMIT_MEMLOCK")]
pub struct SecretPageUnavailable;

impl SecretPage {
    /// Octets of the secret.
    pub const LEN_BYTES: usize = 32;

    /// Moves a secret into a page of its own and wipes where it came from, also when it fails.
    pub fn taken_from(secret: &mut [u8; Self::LEN_BYTES]) -> Result<Self, SecretPageUnavailable> {
        let page = Self::empty();
        if let Ok(page) = &page {
            let target = page.guarded.middle().cast();
            // SAFETY: the page is mapped for reading and writing, longer than the secret, and
            // nobody else knows of it yet.
            unsafe { ptr::copy_nonoverlapping(secret.as_ptr(), target.as_ptr(), Self::LEN_BYTES) };
        }
        secret.zeroize();
        page
    }

    /// Lends the secret. It must not be copied to where it is not wiped.
    pub fn with_bytes<T>(&self, borrow: impl FnOnce(&[u8; Self::LEN_BYTES]) -> T) -> T {
        // SAFETY: the page was written when it was made, stays mapped as long as `self` lives, and
        // is not written again before the drop.
        borrow(unsafe { self.guarded.middle().cast().as_ref() })
    }

    /// What kind of page it is, for the status.
    #[must_use]
    pub fn kind(&self) -> PageKind {
        self.kind
    }

    fn empty() -> Result<Self, SecretPageUnavailable> {
        let guarded = Guarded::reserve().map_err(|_| SecretPageUnavailable)?;
        let kind = if guarded.map_secret().is_ok() {
            PageKind::Secret
        } else {
            guarded.map_locked().map_err(|_| SecretPageUnavailable)?;
            PageKind::Locked
        };
        Ok(Self { guarded, kind })
    }
}

// SAFETY: the page belongs to the value alone and is not bound to a thread.
unsafe impl Send for SecretPage {}
// SAFETY: behind a shared reference the page is only read.
unsafe impl Sync for SecretPage {}

impl fmt::Debug for SecretPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretPage").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Drop for SecretPage {
    fn drop(&mut self) {
        // SAFETY: the page is mapped for writing and, in a drop, borrowed by nobody.
        unsafe { self.guarded.middle().cast::<[u8; Self::LEN_BYTES]>().as_mut() }.zeroize();
    }
}

/// Three pages of address space, of which only the middle one is ever backed.
struct Guarded {
    start: NonNull<c_void>,
    page_len_bytes: usize,
}

impl Guarded {
    fn reserve() -> rustix::io::Result<Self> {
        let page_len_bytes = rustix::param::page_size();
        // SAFETY: a new mapping at an address that the kernel chooses touches no other memory.
        let start = unsafe {
            mm::mmap_anonymous(
                ptr::null_mut(),
                3 * page_len_bytes,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let start = NonNull::new(start).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Self { start, page_len_bytes })
    }

    fn middle(&self) -> NonNull<c_void> {
        // SAFETY: the reservation is three pages long.
        unsafe { self.start.byte_add(self.page_len_bytes) }
    }

    /// Backs the middle page by `memfd_secret`.
    fn map_secret(&self) -> rustix::io::Result<()> {
        let file = memfd_secret().ok_or(rustix::io::Errno::NOSYS)?;
        let len = u64::try_from(self.page_len_bytes).map_err(|_| rustix::io::Errno::INVAL)?;
        rustix::fs::ftruncate(&file, len)?;
        // SAFETY: the middle page lies inside the reservation of this value, which nobody uses
        // yet. The mapping outlives the file handle.
        unsafe {
            mm::mmap(
                self.middle().as_ptr(),
                self.page_len_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                &file,
                0,
            )
        }?;
        self.advise()
    }

    /// Backs the middle page by ordinary memory, locked.
    fn map_locked(&self) -> rustix::io::Result<()> {
        // SAFETY: as above.
        unsafe {
            mm::mmap_anonymous(
                self.middle().as_ptr(),
                self.page_len_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED,
            )
        }?;
        // SAFETY: the page was mapped just now.
        unsafe { mm::mlock(self.middle().as_ptr(), self.page_len_bytes) }?;
        self.advise()
    }

    /// Keeps the middle page out of dumps and of children.
    fn advise(&self) -> rustix::io::Result<()> {
        for advice in [Advice::LinuxDontDump, Advice::LinuxDontFork] {
            // SAFETY: the page is mapped, and neither advice changes its content.
            unsafe { mm::madvise(self.middle().as_ptr(), self.page_len_bytes, advice) }?;
        }
        Ok(())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the three pages belong to this value, and what borrowed them is gone. A failure
        // leaves them mapped, which harms nothing.
        let _ = unsafe { mm::munmap(self.start.as_ptr(), 3 * self.page_len_bytes) };
    }
}

/// Opens a file of secret memory; none where the kernel has no such call or does not grant it.
fn memfd_secret() -> Option<OwnedFd> {
    // The system library has no wrapper and rustix no function for it.
    // SAFETY: the call takes one flag and touches no memory of the process.
    let answer = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let file = RawFd::try_from(answer).ok().filter(|file| *file >= 0)?;
    // SAFETY: the kernel opened this handle just now for us alone.
    Some(unsafe { OwnedFd::from_raw_fd(file) })
}

#[cfg(test)]
mod tests {
    use super::super::stack::tests::memory_at;
    use super::*;

    #[test]
    fn keeps_the_secret_and_wipes_the_source() {
        let mut secret = [0x6b; 32];
        let page = SecretPage::taken_from(&mut secret).unwrap();
        assert_eq!(secret, [0; 32]);
        page.with_bytes(|bytes| assert_eq!(bytes, &[0x6b; 32]));
        assert!(!format!("{page:?}").contains("107"));
    }

    #[test]
    fn a_page_of_memfd_secret_cannot_be_read_from_outside() {
        let page = SecretPage::taken_from(&mut [0x6b; 32]).unwrap();
        let address = page.guarded.middle().as_ptr().addr();
        match page.kind() {
            PageKind::Locked => assert_eq!(memory_at(address, 32), Some(vec![0x6b; 32])),
            PageKind::Secret => assert_eq!(memory_at(address, 32), None),
        }
        let before = address - page.guarded.page_len_bytes;
        assert_eq!(memory_at(before, 1).filter(|octets| octets != &[0]), None);
    }

    #[test]
    fn the_fallback_is_locked_and_kept_out_of_dumps() {
        let guarded = Guarded::reserve().unwrap();
        guarded.map_locked().unwrap();
        let page = SecretPage { guarded, kind: PageKind::Locked };
        let start = format!("{:x}-", page.guarded.middle().as_ptr().addr());
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mapping = maps.split_once(&start).unwrap().1;
        let flags = mapping.lines().find(|line| line.starts_with("VmFlags:")).unwrap();
        for flag in ["lo", "dd", "dc"] {
            assert!(flags.split_whitespace().any(|found| found == flag), "{flag} in {flags}");
        }
    }

    #[test]
    fn the_page_is_gone_after_the_drop() {
        let page = SecretPage::taken_from(&mut [0x6b; 32]).unwrap();
        let address = page.guarded.middle().as_ptr().addr();
        drop(page);
        assert_ne!(memory_at(address, 32), Some(vec![0x6b; 32]));
    }
}
