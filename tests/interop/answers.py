"""How a terminal takes an answer: whole and proven, or not at all."""

import hmac

from google.protobuf.message import DecodeError, Message

from stubs import payload


class Refused(Exception):
    """The terminal does not take an answer: `fault` says why, as it would report it."""

    def __init__(self, fault: int) -> None:
        super().__init__(payload.Fault.Name(fault))
        self.fault = fault


def parse(kind: type[Message], data: bytes) -> Message:
    """The message in a payload. Raises Refused."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise Refused(payload.FAULT_PAYLOAD) from error


def require_same(expected: bytes, mac: bytes) -> None:
    """Compares a MAC with the one that is due, in constant time. Raises Refused."""
    if not hmac.compare_digest(expected, mac):
        raise Refused(payload.FAULT_AUTHENTICATION)
