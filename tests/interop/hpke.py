"""Envelopes to somebody's key: HPKE in base mode with AES-256-GCM, one message to a key.

Written from RFC 9180; `test_ceremony.py` holds it against another implementation.
"""

import hmac
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

AES_256_GCM = 2


class Kem(NamedTuple):
    """A mechanism, with the key derivation of the same hash (RFC 9180, 7.1 and 7.2)."""

    id: int
    kdf_id: int
    curve: type[ec.EllipticCurve]
    hash: type[SHA256] | type[SHA512]
    point_bytes: int

    def generate(self) -> ec.EllipticCurvePrivateKey:
        """A key for one use."""
        return ec.generate_private_key(self.curve())


P256 = Kem(0x0010, 1, ec.SECP256R1, SHA256, 65)
P521 = Kem(0x0012, 3, ec.SECP521R1, SHA512, 133)


def seal(kem: Kem, to: bytes, info: bytes, plain: bytes) -> bytes:
    """Seals to a public key: the encapsulated key, then the ciphertext."""
    ephemeral = kem.generate()
    public = ec.EllipticCurvePublicKey.from_encoded_point(kem.curve(), to)
    sent = point(ephemeral)
    key, nonce = _schedule(kem, ephemeral.exchange(ec.ECDH(), public), sent + to, info)
    return sent + AESGCM(key).encrypt(nonce, plain, b"")


def open_sealed(kem: Kem, key: ec.EllipticCurvePrivateKey, info: bytes, sealed: bytes) -> bytes:
    """Opens what was sealed to this key. Raises InvalidTag where it was not."""
    sent, cryptogram = sealed[:kem.point_bytes], sealed[kem.point_bytes:]
    public = ec.EllipticCurvePublicKey.from_encoded_point(kem.curve(), sent)
    secret, nonce = _schedule(kem, key.exchange(ec.ECDH(), public), sent + point(key), info)
    return AESGCM(secret).decrypt(nonce, cryptogram, b"")


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Its public point, uncompressed."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _schedule(kem: Kem, shared: bytes, points: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Key and nonce of the first message (RFC 9180, 4.1 and 5.1)."""
    labels = _Labels(kem, b"KEM" + kem.id.to_bytes(2, "big"))
    secret = labels.expand(labels.extract(b"", "eae_prk", shared), "shared_secret", points,
                           kem.hash.digest_size)
    suite = b"".join(number.to_bytes(2, "big") for number in (kem.id, kem.kdf_id, AES_256_GCM))
    labels = _Labels(kem, b"HPKE" + suite)
    base_mode, no_psk = b"\0", labels.extract(b"", "psk_id_hash", b"")
    context = base_mode + no_psk + labels.extract(b"", "info_hash", info)
    secret = labels.extract(secret, "secret", b"")
    nonce = labels.expand(secret, "base_nonce", context, 12)
    return labels.expand(secret, "key", context, 32), nonce


class _Labels(NamedTuple):
    """HKDF whose inputs say what they are for (RFC 9180, 4)."""

    kem: Kem
    suite: bytes

    def extract(self, salt: bytes, label: str, ikm: bytes) -> bytes:
        labelled = b"HPKE-v1" + self.suite + label.encode() + ikm
        salt = salt or bytes(self.kem.hash.digest_size)
        return hmac.digest(salt, labelled, self.kem.hash.name)

    def expand(self, secret: bytes, label: str, info: bytes, length: int) -> bytes:
        labelled = length.to_bytes(2, "big") + b"HPKE-v1" + self.suite + label.encode() + info
        return HKDFExpand(self.kem.hash(), length, labelled).derive(secret)
