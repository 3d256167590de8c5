//! Key confirmation: each side proves that it derived the same keys over the same transcript.

use super::transcript::{Role, Step, Transcript};
use crate::agreement::ConfirmationKey;
use crate::crypto::{constant_time_eq, hmac};

/// The length of a confirmation MAC in bytes.
pub const MAC_LEN_BYTES: usize = 32;

/// Makes the MAC of the terminal's Confirm; `transcript` ends with its payload.
///
/// ```text
/// HMAC-SHA-256( confirm-terminal key, input("terminal", "confirm", T) )
/// ```
///
/// See NIST SP 800-56A rev. 3, 5.9 (key confirmation).
#[must_use]
pub fn terminal_mac(key: &ConfirmationKey, transcript: &Transcript) -> [u8; MAC_LEN_BYTES] {
    mac(key, Role::Terminal, transcript)
}

/// Makes the MAC of the service's answer; `transcript` ends with the answer's payload.
///
/// ```text
/// HMAC-SHA-256( confirm-service key, input("service", "confirm", T) )
/// ```
#[must_use]
pub fn service_mac(key: &ConfirmationKey, transcript: &Transcript) -> [u8; MAC_LEN_BYTES] {
    mac(key, Role::Service, transcript)
}

/// Verifies the terminal's MAC, in constant time.
pub fn verify_terminal_mac(
    key: &ConfirmationKey,
    transcript: &Transcript,
    received: &[u8],
) -> Result<(), ConfirmationMismatch> {
    verify(&terminal_mac(key, transcript), received)
}

/// Verifies the service's MAC, in constant time.
pub fn verify_service_mac(
    key: &ConfirmationKey,
    transcript: &Transcript,
    received: &[u8],
) -> Result<(), ConfirmationMismatch> {
    verify(&service_mac(key, transcript), received)
}

/// The sides do not hold the same keys over the same transcript. No cause is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the key confirmation does not verify")]
pub struct ConfirmationMismatch;

fn mac(key: &ConfirmationKey, role: Role, transcript: &Transcript) -> [u8; MAC_LEN_BYTES] {
    // The HMAC needs the bytes of the key; they stay within this call.
    hmac::hmac_sha256(key.expose_bytes(), &transcript.authenticated_input(role, Step::Confirm))
}

fn verify(expected: &[u8; MAC_LEN_BYTES], received: &[u8]) -> Result<(), ConfirmationMismatch> {
    if constant_time_eq(expected, received) { Ok(()) } else { Err(ConfirmationMismatch) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_of_one_side_is_not_one_of_the_other() {
        let key = ConfirmationKey::from_bytes([5; 32]);
        let transcript = Transcript::new().with(b"confirm");
        let terminal = terminal_mac(&key, &transcript);
        assert_eq!(verify_terminal_mac(&key, &transcript, &terminal), Ok(()));
        assert_eq!(verify_service_mac(&key, &transcript, &terminal), Err(ConfirmationMismatch));
    }

    #[test]
    fn another_message_key_or_length_fails() {
        let key = ConfirmationKey::from_bytes([5; 32]);
        let transcript = Transcript::new().with(b"confirm");
        let mac = service_mac(&key, &transcript);
        let refused = Err(ConfirmationMismatch);
        assert_eq!(verify_service_mac(&key, &transcript.with(b""), &mac), refused);
        assert_eq!(verify_service_mac(&key, &transcript, &mac[..31]), refused);
        assert_eq!(verify_service_mac(&key, &transcript, b""), refused);
        let other = ConfirmationKey::from_bytes([6; 32]);
        assert_eq!(verify_service_mac(&other, &transcript, &mac), refused);
    }
}
