//! Memory that forgets: the allocator, the stack, pages for long-lived secrets, the process.
//!
//! The only room with `unsafe`, and only in the files that say so at their head.

mod allocator;
mod hardening;
mod protection;
mod secret_page;
mod stack;

pub use allocator::WipingAllocator;
pub use hardening::{effective_user, harden_process};
pub use protection::{Protection, protections};
pub use secret_page::{PageKind, SecretPage, SecretPageUnavailable};
pub use stack::{wipe_stack, with_wiped_stack};

/// For the whole program: buffers of libraries hold secrets too, and nobody else wipes those.
#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;
