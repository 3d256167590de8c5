"""Terminals with a device certificate: ECDSA both ways, keys by ECDH on P-256."""

import datetime
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import (
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)
from google.protobuf.message import Message

import protocol
from answers import Refused
from credential import Agreed
from protocol import Transcript
from service import Authority
from stubs import payload

ECDSA = ec.ECDSA(SHA256())


class Certified:
    """A device key with its certificate, fresh from the vendor, and what it believes.

    It holds the acquirer's root and id. Nothing else makes it trust a service.
    """

    block_version = "D"

    def __init__(self, serial: str, vendor: Authority, root: x509.Certificate,
                 acquirer_id: str, suite: str) -> None:
        self.serial = serial
        self.suite = suite
        self._root, self._acquirer_id = root, acquirer_id
        self._key = ec.generate_private_key(ec.SECP256R1())
        certificate = _device_certificate(serial, self._key.public_key(), vendor)
        self.certificate_chain = [certificate.public_bytes(Encoding.DER)]

    def prove(self, covered: bytes) -> bytes:
        """ECDSA with SHA-256, 64 bytes, r then s."""
        r, s = decode_dss_signature(self._key.sign(covered, ECDSA))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def session(self, answered: Message, begun: Transcript) -> "CertifiedSession":
        """Trusts the key of the service's certificate if that is the acquirer's."""
        try:
            key = _service_key(answered.service_certificate_chain, self._root, self._acquirer_id)
        except (ValueError, x509.InvalidVersion, VerificationError) as error:
            raise Refused(payload.FAULT_SERVICE_NOT_TRUSTED) from error
        return CertifiedSession(self, key)


class CertifiedSession:
    """A session with a service whose certificate is trusted."""

    def __init__(self, device: Certified, service: ec.EllipticCurvePublicKey) -> None:
        self.prove = device.prove
        self._suite, self._service = device.suite, service

    def verify(self, covered: bytes, proof: bytes) -> None:
        """Verifies a signature of 64 bytes, r then s."""
        if len(proof) != 64:
            raise Refused(payload.FAULT_AUTHENTICATION)
        r, s = (int.from_bytes(half, "big") for half in (proof[:32], proof[32:]))
        try:
            self._service.verify(encode_dss_signature(r, s), covered, ECDSA)
        except InvalidSignature as error:
            raise Refused(payload.FAULT_AUTHENTICATION) from error

    def offer(self) -> bytes:
        """Makes an ephemeral key, which serves one Deliver."""
        self._ephemeral = ec.generate_private_key(ec.SECP256R1())
        return point(self._ephemeral)

    def agree(self, answered: Message, delivered: Transcript) -> Agreed:
        """ECDH, then HKDF over the transcript and both ephemeral keys."""
        theirs = answered.service_ephemeral
        try:
            public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), theirs)
        except ValueError as error:
            raise Refused(payload.FAULT_PAYLOAD) from error
        shared, ours = self._ephemeral.exchange(ec.ECDH(), public), point(self._ephemeral)
        return Agreed(*(
            protocol.agreed_key(label, self._suite, delivered.digest(), shared, ours, theirs)
            for label in protocol.AGREED))


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Its public point: 65 bytes, 04 || X || Y."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _device_certificate(serial: str, key: ec.EllipticCurvePublicKey,
                        vendor: Authority) -> x509.Certificate:
    """What a vendor signs: little more than the serial and the key."""
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([
            x509.NameAttribute(NameOID.COMMON_NAME, "interop device"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, serial),
        ]))
        .issuer_name(vendor.certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=365))
        .sign(vendor.key, SHA256())
    )


def _service_key(chain: Sequence[bytes], root: x509.Certificate,
                 acquirer_id: str) -> ec.EllipticCurvePublicKey:
    """The service's public key, from a chain in DER with the leaf first.

    Raises ValueError, InvalidVersion or VerificationError where it is not the acquirer's.
    """
    leaf, *between = map(x509.load_der_x509_certificate, chain)
    policy = PolicyBuilder().store(Store([root])).extension_policies(
        ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=ExtensionPolicy.permit_all())
    policy.build_client_verifier().verify(leaf, between)
    organizations = leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if [name.value for name in organizations] != [acquirer_id]:
        raise ValueError("another acquirer's")
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("no P-256 key")
    return key
