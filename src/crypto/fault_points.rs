//! A build for tests alone, which makes one named self-test come out wrong.

#[cfg(not(debug_assertions))]
compile_error!("a build that can be made to fail is for tests and never for release");

use std::sync::{Mutex, PoisonError};

static FAULT: Mutex<Option<String>> = Mutex::new(None);

/// From now on the self-test of this name fails.
pub fn set(algorithm: String) {
    *FAULT.lock().unwrap_or_else(PoisonError::into_inner) = Some(algorithm);
}

/// Turns one bit, if this is the one that is to fail.
pub(super) fn falsify(algorithm: &str, answer: &mut [u8]) {
    let fault = FAULT.lock().unwrap_or_else(PoisonError::into_inner);
    if let (Some(octet), Some(wanted)) = (answer.first_mut(), fault.as_deref())
        && wanted == algorithm
    {
        *octet ^= 1;
    }
}
