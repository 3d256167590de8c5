"""People with certificates: each comes in by TLS, and signs with the key of that certificate."""

import functools
import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from google.protobuf.message import Message

from backend import refusal
from certified import ECDSA, point
from service import Program, fresh_folder
from stubs import approvals, approvals_grpc


class Person:
    """Somebody of the admin plane, on a connection of their own."""

    def __init__(self, address: str, access: Path, holder: str) -> None:
        stem = access / "clients" / "admin" / holder
        certificate, key = (stem.with_suffix(end).read_bytes() for end in (".crt", ".key"))
        root = (access / "authorities" / "server.crt").read_bytes()
        self.channel = grpc.secure_channel(
            address, grpc.ssl_channel_credentials(root, key, certificate))
        self.certificate = x509.load_pem_x509_certificate(certificate)
        loaded = load_pem_private_key(key, password=None)
        assert isinstance(loaded, EllipticCurvePrivateKey)
        self._key = loaded
        names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        [self.name] = names.value.get_values_for_type(x509.UniformResourceIdentifier)
        self.public = point(self._key)

    def sign(self, message: bytes) -> bytes:
        """ECDSA with SHA-256, 64 bytes, r then s."""
        r, s = decode_dss_signature(self._key.sign(message, ECDSA))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class Guarded(Program):
    """A development service that tells people apart by their certificates."""

    def __init__(self) -> None:
        data = fresh_folder()
        super().__init__("--dev", "--tls", "--listen", "127.0.0.1:0", "--data", data)
        self.access = data / "dev-tls"

    @functools.cache
    def person(self, holder: str) -> Person:
        """Whom the development policy knows by this name."""
        return Person(self.address, self.access, holder)

    def officer(self) -> Person:
        """The officer who asks for things."""
        return self.person("officer-1")

    def approved(self, call: Callable[[Message], Any], request: Message) -> Any:
        """Asks as one officer, has it approved by another, and asks again."""
        return approved(self.person("officer-2"), call, request)


def approved(other: Person, call: Callable[[Message], Any], request: Message) -> Any:
    """Asks, has it approved by another officer, and asks again.

    What is approved is the digest that the requester computes, not one that the service tells.
    """
    try:
        call(request)
        raise AssertionError("nobody had to approve")
    except grpc.RpcError as error:
        info = refusal(error)
        if info.reason != "APPROVAL_REQUIRED":
            raise
    method = type(request).__name__.removesuffix("Request")
    sent = request.SerializeToString(deterministic=True)
    digest = hashlib.sha256(method.encode() + b"\0" + sent).digest()
    stub = approvals_grpc.ApprovalServiceStub(other.channel)
    stub.Approve(approvals.ApproveRequest(
        request_id=str(uuid.uuid4()), name=info.metadata["approval"], request_digest=digest))
    return call(request)


@functools.cache
def guarded() -> Guarded:
    """The one such service of this run, started when it is first asked for."""
    return Guarded()
