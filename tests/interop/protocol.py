"""What both sides of an activation compute: transcript, signed input, agreed keys, code.

Written from the comments of `proto/firstkey/payload/v1/payload.proto`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PROTOCOL = b"firstkey/v1/activation"
AGREED = ("firstkey/v1/kbpk", "firstkey/v1/confirm-terminal", "firstkey/v1/confirm-service")
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True)
class Transcript:
    """The payloads of one conversation so far, in their order."""

    messages: tuple[bytes, ...] = ()

    def then(self, payload: bytes) -> "Transcript":
        """The transcript with one message more."""
        return Transcript((*self.messages, payload))

    def digest(self) -> bytes:
        """T(n), 32 bytes."""
        joined = b"".join(len(m).to_bytes(4, "big") + m for m in self.messages)
        return hashlib.sha256(PROTOCOL + joined).digest()

    def covered(self, role: str, step: str) -> bytes:
        """What the signature or MAC of the last message covers."""
        return b"\0".join([PROTOCOL, role.encode(), step.encode(), self.digest()])


def agreed_key(label: str, suite: str, transcript: bytes, shared: bytes,
               device_ephemeral: bytes, service_ephemeral: bytes) -> bytes:
    """One of the three keys of 32 bytes that an agreement gives, with the transcript's digest."""
    named = b"".join(bytes([len(text)]) + text.encode() for text in (label, suite))
    info = named + device_ephemeral + service_ephemeral
    return HKDF(SHA256(), 32, salt=transcript, info=info).derive(shared)


def counter_kdf(cmac: Callable[[bytes], bytes], label: str, about: bytes, length: int) -> bytes:
    """The counter mode of NIST SP 800-108r1, 4.1, with a CMAC under the source key."""
    fixed = label.encode() + b"\0" + about + (8 * length).to_bytes(4, "big")
    derived, block = b"", 0
    while len(derived) < length:
        block += 1
        derived += cmac(block.to_bytes(4, "big") + fixed)
    return derived[:length]


def normal_code(typed: str) -> str:
    """The activation code in its normal form.

    Raises ValueError for a text that can not be a code, so that no try is spent on it.
    """
    if not typed.isascii():
        raise ValueError("not a code")
    code = typed.upper().translate(str.maketrans("ILO", "110", "- "))
    if len(code) != 12 or not set(code) <= set(CROCKFORD):
        raise ValueError("not a code")
    plain, weighted = 0, 0
    for character in code:
        value = CROCKFORD.index(character)
        plain ^= value
        weighted = _times_two(weighted) ^ value
    if plain or weighted:
        raise ValueError("mistyped")
    return code


def _times_two(value: int) -> int:
    """Multiplies by x in GF(2^5) modulo x^5 + x^2 + 1."""
    value <<= 1
    return value ^ 0b100101 if value & 0b100000 else value
