//! Proofs by HMAC: key confirmation, and every step of a terminal with a master key.

use super::transcript::{Role, Step, Transcript};
use crate::agreement::ConfirmationKey;
use crate::crypto::{constant_time_eq, hmac};

/// The length of such a proof in bytes.
pub const MAC_LEN_BYTES: usize = 32;

/// Makes the MAC of a message; `transcript` ends with its payload.
///
/// ```text
/// HMAC-SHA-256( key, input(role, step, T) )
/// ```
///
/// Of step confirm it is a key confirmation: NIST SP 800-56A rev. 3, 5.9.
#[must_use]
pub fn mac(
    key: &ConfirmationKey,
    (role, step): (Role, Step),
    transcript: &Transcript,
) -> [u8; MAC_LEN_BYTES] {
    // The HMAC needs the bytes of the key; they stay within this call.
    hmac::hmac_sha256(key.expose_bytes(), &transcript.authenticated_input(role, step))
}

/// Verifies the MAC of a message, in constant time.
pub fn verify(
    key: &ConfirmationKey,
    message: (Role, Step),
    transcript: &Transcript,
    received: &[u8],
) -> Result<(), ConfirmationMismatch> {
    let expected = mac(key, message, transcript);
    if constant_time_eq(&expected, received) { Ok(()) } else { Err(ConfirmationMismatch) }
}

/// The sides do not hold the same keys over the same transcript. No cause is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the key confirmation does not verify")]
pub struct ConfirmationMismatch;

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIRM: (Role, Step) = (Role::Service, Step::Confirm);

    #[test]
    fn a_mac_is_of_one_side_and_one_step() {
        let key = ConfirmationKey::from_bytes([5; 32]);
        let transcript = Transcript::new().with(b"confirm");
        let made = mac(&key, CONFIRM, &transcript);
        for role in Role::ALL {
            for step in Step::ALL {
                let verified = verify(&key, (role, step), &transcript, &made);
                assert_eq!(verified.is_ok(), (role, step) == CONFIRM, "{role:?} {step:?}");
            }
        }
    }

    #[test]
    fn another_message_key_or_length_fails() {
        let key = ConfirmationKey::from_bytes([5; 32]);
        let transcript = Transcript::new().with(b"confirm");
        let made = mac(&key, CONFIRM, &transcript);
        let refused = Err(ConfirmationMismatch);
        assert_eq!(verify(&key, CONFIRM, &transcript.with(b""), &made), refused);
        assert_eq!(verify(&key, CONFIRM, &transcript, &made[..31]), refused);
        assert_eq!(verify(&key, CONFIRM, &transcript, b""), refused);
        let other = ConfirmationKey::from_bytes([6; 32]);
        assert_eq!(verify(&other, CONFIRM, &transcript, &made), refused);
    }
}
