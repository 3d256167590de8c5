"""Whether a service certificate is the acquirer's: it leads to the root that a terminal holds."""

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import (
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)


class NotTrusted(Exception):
    """The chain does not lead to the acquirer's root, or names another acquirer."""


def service_key(chain: Sequence[bytes], root: x509.Certificate,
                acquirer_id: str) -> EllipticCurvePublicKey:
    """The service's public key (P-256), from a chain in DER with the leaf first.

    Raises NotTrusted.
    """
    try:
        leaf, *between = map(x509.load_der_x509_certificate, chain)
        authorities = ExtensionPolicy.webpki_defaults_ca()
        policy = PolicyBuilder().store(Store([root])).extension_policies(
            ca_policy=authorities, ee_policy=ExtensionPolicy.permit_all())
        policy.build_client_verifier().verify(leaf, between)
        key = leaf.public_key()
        organizations = leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    except (ValueError, x509.InvalidVersion, VerificationError) as error:
        raise NotTrusted from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise NotTrusted
    if [name.value for name in organizations] != [acquirer_id]:
        raise NotTrusted
    return key
