"""Keys that come to a terminal in key blocks."""

from collections.abc import Sequence
from typing import NamedTuple

import psec
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from google.protobuf.message import Message

from answers import Refused
from dukpt import cmac, tdes_block
from stubs import payload

# The mode of use of each usage: what the terminal may do with such a key. It holds no others.
MODES = {"B1": "X", "P0": "E", "M1": "C", "M3": "C", "M6": "C", "D0": "B", "K0": "D"}


class Held(NamedTuple):
    """A key that was opened: where the terminal keeps it, what it is for, and the key."""

    slot: int
    usage: str
    algorithm: str
    key: bytes
    initial_key_id: bytes

    def check_value(self) -> bytes:
        """TDES: 3 bytes of the encryption of zeros. AES: 5 bytes of the CMAC of zeros."""
        if self.algorithm == "T":
            return tdes_block(self.key, bytes(8))[:3]
        return cmac(AES(self.key), bytes(16))[:5]


def open_keys(delivered: Sequence[Message], protection: bytes, version: str) -> list[Held]:
    """Opens every block of an answer, or none; the initial key comes first. Raises Refused."""
    keys = [_open(key, protection, version) for key in delivered]
    slots = [key.slot for key in keys]
    if not 1 <= len(keys) <= 8 or slots != sorted(set(slots)) or slots[-1] > 15:
        raise Refused(payload.FAULT_PAYLOAD)
    if [key.slot for key in keys if key.usage == "B1"] != [0]:
        raise Refused(payload.FAULT_KEY_BLOCK)
    return keys


def _open(delivered: Message, protection: bytes, version: str) -> Held:
    try:
        header, key = psec.tr31.unwrap(protection, delivered.key_block)
    except (psec.tr31.HeaderError, psec.tr31.KeyBlockError) as error:
        raise Refused(payload.FAULT_KEY_BLOCK) from error
    held = Held(delivered.slot, delivered.usage, header.algorithm, key, delivered.initial_key_id)
    says = header.version_id, header.key_usage, header.exportability
    if says != (version, held.usage, "N") or held.algorithm not in ("A", "T"):
        raise Refused(payload.FAULT_KEY_BLOCK)
    id_block = header.blocks.get({"A": "IK", "T": "KS"}[held.algorithm], "")
    if id_block != held.initial_key_id.hex().upper() or bool(id_block) != (held.usage == "B1"):
        raise Refused(payload.FAULT_KEY_BLOCK)
    if header.mode_of_use != MODES.get(held.usage):
        raise Refused(payload.FAULT_KEY_BLOCK)
    if held.check_value() != delivered.check_value:
        raise Refused(payload.FAULT_CHECK_VALUE)
    return held
