"""What a custodian's own tool does with a component or a share: from the comments of
`ceremony_service.proto` and `seal_service.proto`."""

import hashlib
import os
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

import hpke
from hpke import Kem
from people import Person

# The strength of a key decides over the curve of the envelopes around its components.
KEMS = {"TDES2": hpke.P256, "TDES3": hpke.P256, "AES128": hpke.P256, "AES192": hpke.P521,
        "AES256": hpke.P521}


class Signed(NamedTuple):
    """What is sent, and the signature over it."""

    sent: bytes
    signature: bytes


class Keeper:
    """Somebody who keeps something secret, on one occasion."""

    def __init__(self, person: Person, occasion: bytes, kem: Kem) -> None:
        self.person, self.kem = person, kem
        self._occasion = occasion

    def signed(self, purpose: str, sent: bytes) -> Signed:
        """Signs what is sent, with the key of the certificate."""
        covered = parts(b"firstkey/v1/envelope/signature", self._occasion, purpose.encode(), sent)
        return Signed(sent, self.person.sign(covered))

    def open(self, key: EllipticCurvePrivateKey, envelope: bytes) -> bytes:
        """Opens what was given out."""
        return hpke.open_sealed(self.kem, key, self._info("take"), envelope)

    def sealed(self, purpose: str, to: bytes, plain: bytes) -> Signed:
        """Seals to a key of the service."""
        return self.signed(purpose, hpke.seal(self.kem, to, self._info(purpose), plain))

    def _info(self, purpose: str) -> bytes:
        return parts(b"firstkey/v1/envelope/info", self._occasion, purpose.encode(),
                     self.person.public)


class Custodian(Keeper):
    """A custodian of one component, in one ceremony."""

    def __init__(self, person: Person, ceremony: str, digest: bytes, number: int,
                 algorithm: str) -> None:
        self._ceremony, self._number, self._algorithm = ceremony, number, algorithm
        occasion = hashlib.sha256(parts(ceremony.encode(), digest, bytes([number]))).digest()
        super().__init__(person, occasion, KEMS[algorithm])

    def commit(self, to: bytes, component: bytes) -> tuple[Signed, Signed]:
        """The commitment to a component, and the envelope that is sent after all have committed."""
        salt = os.urandom(32)
        covered = b"firstkey/v1/ceremony/commitment" + parts(
            self._ceremony.encode(), bytes([self._number]), salt, self._algorithm.encode(),
            component)
        commitment = hashlib.sha256(covered).digest()
        return self.signed("commit", commitment), self.sealed("reveal", to, salt + component)


def parts(*each: bytes) -> bytes:
    """Each part behind its length, four bytes, big endian."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in each)
