//! The bytes of a secret, wiped when they are dropped.

use zeroize::Zeroizing;

/// Secret bytes of a fixed length: never copied, compared or printed; wiped on drop.
///
/// Outside the library it can neither be made nor looked into.
pub struct Material(Zeroizing<Box<[u8]>>);

impl Material {
    /// Room for a secret of this length, to be filled.
    pub(crate) fn zeroed(len_bytes: usize) -> Self {
        Self(Zeroizing::new(vec![0; len_bytes].into_boxed_slice()))
    }

    /// Copies a secret; what it is copied from stays the caller's to wipe.
    pub(crate) fn copied_from(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(Box::from(bytes)))
    }

    /// Octets of the secret.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.0.len()
    }

    /// The secret itself. Each caller says why.
    pub(crate) fn expose_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The secret itself, to be filled or adjusted. Each caller says why.
    pub(crate) fn expose_bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
