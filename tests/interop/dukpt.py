"""DUKPT, from the standards' text: AES of ANSI X9.24-3:2017 and TDES of ANSI X9.24-1:2009.

Keys are derived from the initial key each time they are needed. A device in the field keeps future
keys instead and forgets what it used; the working keys are the same.
"""

from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.cmac import CMAC


def aes_block(key: bytes, block: bytes) -> bytes:
    """Enciphers one block of 16 bytes with AES."""
    encryptor = Cipher(AES(key), ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()


def tdes_block(key: bytes, block: bytes) -> bytes:
    """Enciphers one block of 8 bytes with TDES; a key of 8 bytes makes it single DES."""
    encryptor = Cipher(TripleDES(triple_length(key)), ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()


def tdes_open(key: bytes, block: bytes) -> bytes:
    """Deciphers one block of 8 bytes with TDES."""
    decryptor = Cipher(TripleDES(triple_length(key)), ECB()).decryptor()
    return decryptor.update(block) + decryptor.finalize()


def triple_length(key: bytes) -> bytes:
    """The same TDES key in 24 bytes: K1 K1 K1 for 8 bytes, K1 K2 K1 for 16."""
    return (key * 3)[:24]


def xor(left: bytes, right: bytes) -> bytes:
    """Adds two strings of one length bit by bit."""
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


class Keys(Protocol):
    """A terminal's initial key and what is derived from it."""

    initial_key: bytes
    key_id: bytes

    def ksn(self, counter: int) -> bytes:
        """The key serial number of a counter."""

    def next_counter(self, counter: int) -> int:
        """The next counter that the standard lets a terminal use."""

    def pin_key(self, counter: int) -> bytes:
        """The PIN encryption key of a counter."""

    def mac_request_key(self, counter: int) -> bytes:
        """The key of MACs that the terminal makes."""

    def mac_response_key(self, counter: int) -> bytes:
        """The key of MACs that the terminal verifies."""

    def cmac(self, key: bytes, message: bytes) -> bytes:
        """CMAC (NIST SP 800-38B) with the suite's cipher, in full."""

    def check_value(self) -> bytes:
        """The check value of the initial key."""


def _next_counter(counter: int, bits: int, weight_max: int) -> int:
    counter += 1
    while counter.bit_count() > weight_max:
        # Adding the lowest one bit carries it upwards: no usable counter lies between.
        counter += counter & -counter
    if counter >> bits:
        raise OverflowError("the initial key has no counter left")
    return counter


@dataclass(frozen=True)
class AesKeys:
    """AES-128 DUKPT. The KSN has 12 bytes: the initial key id, then a counter of 32 bits."""

    initial_key: bytes
    key_id: bytes

    @staticmethod
    def from_base(base: bytes, key_id: bytes) -> "AesKeys":
        """Derives the initial key as the host does."""
        return AesKeys(_aes_derive(base, 0x8001, key_id), key_id)

    def ksn(self, counter: int) -> bytes:
        return self.key_id + counter.to_bytes(4, "big")

    def next_counter(self, counter: int) -> int:
        return _next_counter(counter, bits=32, weight_max=16)

    def pin_key(self, counter: int) -> bytes:
        return self._working(0x1000, counter)

    def mac_request_key(self, counter: int) -> bytes:
        return self._working(0x2000, counter)

    def mac_response_key(self, counter: int) -> bytes:
        return self._working(0x2001, counter)

    def key_derivation_key(self, counter: int) -> bytes:
        """The key that further keys are derived from."""
        return self._working(0x8000, counter)

    def update_key(self) -> bytes:
        """The key that protects new initial keys, of a counter that no transaction has."""
        return self._working(0x0002, 0xFFFFFFFF)

    def cmac(self, key: bytes, message: bytes) -> bytes:
        return cmac(AES(key), message)

    def check_value(self) -> bytes:
        return self.cmac(self.initial_key, bytes(16))[:5]

    def _working(self, usage: int, counter: int) -> bytes:
        derivation_id = self.key_id[4:]
        key, done = self.initial_key, 0
        for bit in (1 << place for place in reversed(range(32))):
            if counter & bit:
                done |= bit
                key = _aes_derive(key, 0x8000, derivation_id + done.to_bytes(4, "big"))
        return _aes_derive(key, usage, derivation_id + counter.to_bytes(4, "big"))


def _aes_derive(key: bytes, usage: int, context: bytes) -> bytes:
    """One block of derivation data: version, block 1, usage, AES-128 (2), 128 bits, context."""
    data = bytes([1, 1]) + usage.to_bytes(2, "big") + bytes([0, 2, 0, 128]) + context
    return aes_block(key, data)


@dataclass(frozen=True)
class TdesKeys:
    """Double-length TDES DUKPT. The KSN has 10 bytes, the last 21 bits are the counter."""

    initial_key: bytes
    key_id: bytes

    MASK = bytes.fromhex("C0C0C0C000000000" * 2)

    @staticmethod
    def from_base(base: bytes, key_id: bytes) -> "TdesKeys":
        """Derives the initial key as the host does. Its id is the KSN with a counter of zero."""
        left = tdes_block(base, key_id[:8])
        right = tdes_block(xor(base, TdesKeys.MASK), key_id[:8])
        return TdesKeys(left + right, key_id)

    def ksn(self, counter: int) -> bytes:
        return (int.from_bytes(self.key_id, "big") | counter).to_bytes(10, "big")

    def next_counter(self, counter: int) -> int:
        return _next_counter(counter, bits=21, weight_max=10)

    def pin_key(self, counter: int) -> bytes:
        return self._working("00000000000000FF", counter)

    def mac_request_key(self, counter: int) -> bytes:
        return self._working("000000000000FF00", counter)

    def mac_response_key(self, counter: int) -> bytes:
        return self._working("00000000FF000000", counter)

    def cmac(self, key: bytes, message: bytes) -> bytes:
        return cmac(TripleDES(triple_length(key)), message)

    def check_value(self) -> bytes:
        return tdes_block(self.initial_key, bytes(8))[:3]

    def _working(self, variant: str, counter: int) -> bytes:
        key, serial = self.initial_key, int.from_bytes(self.key_id[2:], "big")
        for bit in (1 << place for place in reversed(range(21))):
            if counter & bit:
                serial |= bit
                register = serial.to_bytes(8, "big")
                key = _one_way(xor(key, self.MASK), register) + _one_way(key, register)
        return xor(key, bytes.fromhex(variant * 2))


def _one_way(key: bytes, register: bytes) -> bytes:
    left, right = key[:8], key[8:]
    return xor(tdes_block(left, xor(register, right)), right)


def cmac(cipher: AES | TripleDES, message: bytes) -> bytes:
    """CMAC (NIST SP 800-38B) of a message, in full."""
    mac = CMAC(cipher)
    mac.update(message)
    return mac.finalize()
