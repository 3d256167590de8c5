"""How a store's master key is kept, and what stands under it: a second implementation.

Written from the comments of `seal_service.proto`, `src/vault/custody.rs`, `src/vault/master.rs` and
`src/crypto/sharing.rs`.
"""

import hmac
import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from custodian import parts


class Row(NamedTuple):
    """A row of the store."""

    kind: str
    id: str
    version: int
    sealed: bytes


class Store:
    """What lies on the disk, read beside the service."""

    def __init__(self, data: Path) -> None:
        [self._path] = data.rglob("firstkey.sqlite3")

    def rows(self, kind: str) -> list[Row]:
        """All rows of a kind."""
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as connection:
            found = connection.execute(
                "SELECT kind, id, version, sealed FROM record WHERE kind = ?", [kind])
            return [Row(*row) for row in found]

    def custody(self) -> dict[str, Any]:
        """The one row in clear: by whom or what the master key is kept."""
        [row] = self.rows("seal")
        return json.loads(row.sealed)


def accepts(custody: Mapping[str, Any], master: bytes) -> bool:
    """Whether this is the master key that is spoken of, and nobody edited what is said of it."""
    key = _subkey(master, "custody", custody["realm"])
    said = [custody["generation"], custody["realm"], custody["seal"]]
    covered = json.dumps(said, separators=(",", ":")).encode()
    return hmac.compare_digest(hmac.digest(key, covered, "sha256").hex(), custody["check"])


def opened(row: Row, master: bytes, custody: Mapping[str, Any]) -> Any:
    """The record that was sealed. Raises InvalidTag where it does not open."""
    layout, generation = row.sealed[0], row.sealed[1:5]
    assert (layout, int.from_bytes(generation, "big")) == (2, custody["generation"])
    nonce, cryptogram = row.sealed[5:17], row.sealed[17:]
    place = [row.kind.encode(), row.id.encode(), row.version.to_bytes(8, "big")]
    key = _subkey(master, "record", custody["realm"], *place)
    associated = parts(custody["realm"].encode(), generation, *place)
    return json.loads(AESGCM(key).decrypt(nonce, cryptogram, associated))


def _subkey(master: bytes, use: str, realm: str, *more: bytes) -> bytes:
    label = f"firstkey/v1/at-rest/{use}".encode()
    return HKDF(SHA256(), 32, salt=label, info=parts(realm.encode(), *more)).derive(master)


class Heading(NamedTuple):
    """What stands in clear on a share."""

    threshold: int
    index: int
    shares: int
    set_id: bytes


def heading(share: bytes) -> Heading:
    """Reads the first 8 bytes of a share's 40."""
    assert len(share) == 40 and share[0] == 1
    return Heading(share[1], share[2], share[3], share[4:8])


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret of values by their indices: each byte is where a polynomial meets zero."""
    return bytes(_at_zero([(index, value[place]) for index, value in shares.items()])
                 for place in range(32))


def _at_zero(points: list[tuple[int, int]]) -> int:
    """Lagrange's interpolation at zero, in GF(2^8)."""
    total = 0
    for x, y in points:
        for other, _ in points:
            if other != x:
                y = _times(y, _times(other, _inverse(other ^ x)))
        total ^= y
    return total


def _times(left: int, right: int) -> int:
    """Multiplies modulo x^8 + x^4 + x^3 + x + 1."""
    product = 0
    for bit in range(8):
        if right >> bit & 1:
            product ^= left << bit
    for bit in reversed(range(8, 16)):
        if product >> bit & 1:
            product ^= 0x11B << bit - 8
    return product


def _inverse(value: int) -> int:
    """The inverse is the power of 254, as that of 255 is one."""
    power = 1
    for _ in range(254):
        power = _times(power, value)
    return power
