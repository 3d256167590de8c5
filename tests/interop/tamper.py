"""Messages as somebody on the line would alter them."""

from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import Message

from stubs import payload
from certified import point


def bits_flipped(message: Message) -> Iterator[Message]:
    """Copies of an answer, each with one bit of one byte of its payload or proof flipped."""
    for field, value in message.ListFields():
        for place in range(len(value)):
            data = bytearray(value)
            data[place] ^= 1 << place % 8
            yield copy_of(message, **{field.name: bytes(data)})


_POINT = point(ec.generate_private_key(ec.SECP256R1()))

# What a thief on the line would change in each request: well formed, and worth something.
_OTHER_PAYLOAD = {
    "BeginActivationRequest": (payload.Begin, {"device_nonce": bytes(32)}),
    "DeliverKeysRequest": (payload.Deliver, {"device_ephemeral": _POINT}),
    "ConfirmKeysRequest": (payload.Confirm, {"activation": "terminals/other/activations/1"}),
    "GetParametersRequest": (payload.Parameters, {"nonce": bytes(32)}),
    "ReportStepRequest": (payload.Report, {"applied_digest": bytes(32)}),
    "UpdateKeysRequest": (payload.Update, {"nonce": bytes(32)}),
    "RunTestTransactionRequest": (payload.TestTransaction, {"amount_minor": 1}),
}


def with_other_payload(request: Message) -> Message:
    """A copy of a request that says something else under the same proof."""
    kind, fields = _OTHER_PAYLOAD[type(request).__name__]
    said = kind.FromString(request.payload)
    for name, value in fields.items():
        setattr(said, name, value)
    return copy_of(request, payload=said.SerializeToString())


def with_other_proof(request: Message) -> Message:
    """A copy of a request with the last bit of its proof flipped."""
    if request.DESCRIPTOR.name == "ReportStepRequest":
        proof = with_other_proof(request.transaction_mac)
        wrong = copy_of(request)
        wrong.transaction_mac.CopyFrom(proof)
        return wrong
    field = "mac" if "mac" in request.DESCRIPTOR.fields_by_name else "proof"
    proof = getattr(request, field)
    return copy_of(request, **{field: proof[:-1] + bytes([proof[-1] ^ 1])})


def copy_of(message: Message, **fields: Any) -> Message:
    """A copy with other values in some fields."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy
