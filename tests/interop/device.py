"""What a vendor builds into a device: its key, and the certificate of its serial."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from service import Authority

ECDSA = ec.ECDSA(SHA256())


class Device:
    """A device key (P-256) with its certificate chain, fresh from the vendor."""

    def __init__(self, serial: str, vendor: Authority) -> None:
        self.serial = serial
        self._key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([
                x509.NameAttribute(NameOID.COMMON_NAME, "interop device"),
                x509.NameAttribute(NameOID.SERIAL_NUMBER, serial),
            ]))
            .issuer_name(vendor.certificate.subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=365))
            .sign(vendor.key, SHA256())
        )
        self.chain = [certificate.public_bytes(Encoding.DER)]

    def sign(self, covered: bytes) -> bytes:
        """ECDSA with SHA-256, 64 bytes, r then s."""
        r, s = decode_dss_signature(self._key.sign(covered, ECDSA))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def verify(key: ec.EllipticCurvePublicKey, signature: bytes, covered: bytes) -> None:
    """Verifies such a signature. Raises InvalidSignature, or ValueError for a wrong length."""
    if len(signature) != 64:
        raise ValueError("a signature has 64 bytes")
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    key.verify(encode_dss_signature(r, s), covered, ECDSA)
