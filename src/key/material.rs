//! The bytes of a secret, wiped when they are dropped.

use zeroize::{Zeroize, Zeroizing};

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

    /// Takes a secret from an array and wipes the array.
    pub(crate) fn taken_from(bytes: &mut [u8]) -> Self {
        let material = Self::copied_from(bytes);
        bytes.zeroize();
        material
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_wipes_the_source() {
        let mut source = [7; 16];
        let material = Material::taken_from(&mut source);
        assert_eq!(source, [0; 16]);
        assert_eq!(material.expose_bytes(), [7; 16]);
        assert_eq!(material.len_bytes(), 16);
    }
}
