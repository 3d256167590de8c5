"""Verifies an audit log: from the comments of `audit_service.proto`, RFC 6962 and 9162, and C2SP's
signed-note and tlog-checkpoint alone. The log is a list of lines, each an event in its bytes."""

import base64
import hashlib
import json
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FIRST_PREV = "0" * 64


class NotVerified(Exception):
    """What is wrong, and with which event first; no event where a checkpoint is not believed."""

    def __init__(self, fault: str, event: int | None = None) -> None:
        super().__init__(f"{fault}: {event}")
        self.fault, self.event = fault, event


class Checkpoint(NamedTuple):
    """How many events were signed, and the root over them."""

    origin: str
    size: int
    root: bytes


class Key(NamedTuple):
    """A key of a signed note: `name+id+key`."""

    name: str
    id: bytes
    public: Ed25519PublicKey

    @staticmethod
    def parse(text: str) -> "Key":
        """Reads a verifier key of signed-note; its id must be that of its name and bytes."""
        name, key_id, encoded = text.split("+", 2)
        key = base64.b64decode(encoded, validate=True)
        expected = hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]
        if key[:1] != b"\x01" or len(key) != 33 or bytes.fromhex(key_id) != expected:
            raise NotVerified("not_verified")
        return Key(name, expected, Ed25519PublicKey.from_public_bytes(key[1:]))


def open_note(note: str, key: Key) -> str:
    """Reads a note that the key signed."""
    text, _, signatures = note.rpartition("\n\n")
    text += "\n"
    signed = False
    for line in signatures.removesuffix("\n").split("\n"):
        dash, name, encoded = line.split(" ")
        value = base64.b64decode(encoded, validate=True)
        if dash != "\u2014":
            raise NotVerified("not_verified")
        if (name, value[:4]) != (key.name, key.id):
            continue
        try:
            key.public.verify(value[4:], text.encode())
        except InvalidSignature as error:
            raise NotVerified("not_verified") from error
        signed = True
    if not signed:
        raise NotVerified("not_verified")
    return text


def open_checkpoint(note: str, key: Key) -> Checkpoint:
    """Reads a checkpoint that the key signed."""
    origin, size, root = open_note(note, key).split("\n")[:3]
    if origin != key.name or str(int(size)) != size:
        raise NotVerified("not_verified")
    return Checkpoint(origin, int(size), base64.b64decode(root, validate=True))


def leaf_hash(leaf: bytes) -> bytes:
    """RFC 6962, 2.1: the hash of a list with one entry."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962, 2.1: the hash over two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree_hash(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, as it is defined: MTH."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(tree_hash(leaves[:split]), tree_hash(leaves[split:]))


def inclusion_holds(leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> bool:
    """RFC 9162, 2.1.3.2."""
    if index >= size:
        return False
    node, last, found = index, size - 1, leaf_hash(leaf)
    for part in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            found = node_hash(part, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, part)
        node, last = node >> 1, last >> 1
    return last == 0 and found == root


def consistency_holds(first: tuple[int, bytes], second: tuple[int, bytes],
                      proof: list[bytes]) -> bool:
    """RFC 9162, 2.1.4.2, for sizes and roots."""
    (size, root), (new_size, new_root) = first, second
    if size == new_size:
        return not proof and root == new_root
    if not 0 < size < new_size or not proof:
        return False
    if size & (size - 1) == 0:
        proof = [root, *proof]
    node, last = size - 1, new_size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = proof[0]
    for part in proof[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(part, old), node_hash(part, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, part)
        node, last = node >> 1, last >> 1
    return last == 0 and (old, new) == (root, new_root)


def encode(event: dict[str, Any]) -> bytes:
    """The one encoding of an event: compact JSON, its members in their order."""
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    is_event = isinstance(event, dict) and {"seq", "prev"} <= event.keys()
    return event if is_event and encode(event) == line else None


def verify(lines: list[bytes], checkpoint: Checkpoint | None = None,
           against: Checkpoint | None = None) -> None:
    """Verifies a log from its first event on. Raises NotVerified for the first event that is
    wrong."""
    signed = checkpoint.size if checkpoint else 0
    if checkpoint and against and against.size > signed:
        raise NotVerified("rolled_back", signed + 1)
    events = [_read(line) for line in lines]
    prev = FIRST_PREV
    covers = sorted([one for one in (checkpoint, against) if one], key=lambda one: one.size)
    vouched = 0
    for place, (event, line) in enumerate(zip(events, lines, strict=True), 1):
        if event is None:
            raise NotVerified("edited", place)
        if event["seq"] != place:
            later = [other for other in events[place:] if other and other["seq"] == place]
            is_gone = event["seq"] > place and not later
            raise NotVerified("deleted" if is_gone else "swapped", place)
        digest = hashlib.sha256(line).hexdigest()
        if event["prev"] != prev:
            # Who follows says which of the two was changed.
            follower = events[place] if place < len(events) else None
            is_itself = follower is not None and follower["prev"] != digest
            raise NotVerified("edited", place if is_itself or place == 1 else place - 1)
        prev = digest
        for one in covers:
            if one.size == place:
                if tree_hash(lines[:place]) != one.root:
                    raise NotVerified("forked", vouched + 1)
                vouched = place
    if len(lines) < max([signed, *[one.size for one in covers]]):
        raise NotVerified("cut", len(lines) + 1)
