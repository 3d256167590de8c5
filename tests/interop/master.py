"""Terminals with a master key: every key of a session is derived from it (NIST SP 800-108r1)."""

import hmac

import psec
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from google.protobuf.message import Message

from answers import Refused, require_same
from credential import Agreed
from dukpt import cmac, triple_length
from protocol import Transcript, counter_kdf
from stubs import payload


class MasterKey:
    """The key that a terminal holds in common with the service; AES or TDES, as its suite says."""

    def __init__(self, serial: str, key: bytes, suite: str) -> None:
        self.serial = serial
        self.certificate_chain: list[bytes] = []
        self._is_tdes = suite.startswith("MASTER_TDES")
        self.block_version = "B" if self._is_tdes else "D"
        self._key, self._suite = key, suite

    def prove(self, covered: bytes) -> bytes:
        """HMAC under the master device key."""
        return hmac.digest(self.device_key(), covered, "sha256")

    def session(self, answered: Message, begun: Transcript) -> "MasterSession":
        """Derives the session's keys from the transcript through BeginAnswer."""
        if answered.service_certificate_chain:
            raise Refused(payload.FAULT_PAYLOAD)
        return MasterSession(self.session_keys(begun.digest()))

    def device_key(self) -> bytes:
        """The master device key, of 32 bytes."""
        return self._derive("device", self.serial.encode(), 32)

    def session_keys(self, digest: bytes) -> Agreed:
        """The keys of a session, from the transcript's digest."""
        protection = self._derive("kbpk", digest, len(self._key))
        if self._is_tdes:
            protection = psec.des.adjust_key_parity(protection)
        return Agreed(protection, self._derive("terminal", digest, 32),
                      self._derive("service", digest, 32))

    def _derive(self, use: str, about: bytes, length: int) -> bytes:
        cipher = TripleDES(triple_length(self._key)) if self._is_tdes else AES(self._key)
        return counter_kdf(lambda data: cmac(cipher, data), f"firstkey/v1/master-{use}",
                           self._suite.encode() + b"\0" + about, length)


class MasterSession:
    """A session whose keys were there with the answer to Begin."""

    def __init__(self, keys: Agreed) -> None:
        self._keys = keys

    def prove(self, covered: bytes) -> bytes:
        """HMAC under the session's terminal key."""
        return hmac.digest(self._keys.terminal, covered, "sha256")

    def verify(self, covered: bytes, proof: bytes) -> None:
        """Verifies the HMAC under the session's service key."""
        require_same(hmac.digest(self._keys.service, covered, "sha256"), proof)

    def offer(self) -> bytes:
        """Nothing: there is no agreement."""
        return b""

    def agree(self, answered: Message, delivered: Transcript) -> Agreed:
        """The keys that are there; an ephemeral key has no place."""
        if answered.service_ephemeral:
            raise Refused(payload.FAULT_PAYLOAD)
        return self._keys
