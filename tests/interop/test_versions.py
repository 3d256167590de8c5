"""A partner rotates the key of its zone: PIN blocks from before are opened by the former version."""

import os
import unittest
import uuid

import psec

import service
from backend import Backend
from stubs import types

PAN, PIN = "4111111111111111", "73951"


class Versions(unittest.TestCase):
    """What psec enciphers and opens, by the version of the key that it is under."""

    def setUp(self) -> None:
        self.backend = Backend(service.running())
        self.kek = service.development_keys()["dev-kek"]

    def test_a_rotated_zone_key_opens_the_old_blocks_by_its_former_version(self) -> None:
        zone, own = f"zone-{uuid.uuid4()}", f"own-{uuid.uuid4()}"
        old, new, out = os.urandom(16), os.urandom(16), os.urandom(16)
        name = self.backend.import_key(zone, self.block(old), "keys/dev-kek")
        destination = self.backend.import_key(own, self.block(out), "keys/dev-kek")
        self.assertEqual(self.opened(name, old, destination, out), PIN)
        self.backend.import_key(zone, self.block(new), "keys/dev-kek", next_version=True)
        self.assertEqual(self.opened(name, new, destination, out), PIN)
        self.assertEqual(self.opened(f"{name}/versions/2", new, destination, out), PIN)
        self.assertEqual(self.opened(f"{name}/versions/1", old, destination, out), PIN)

        made = self.backend.rotate_key(name)
        self.assertEqual((made.version, made.primary_version), (3, 3))
        self.assertEqual(self.opened(f"{name}/versions/1", old, destination, out), PIN)

    def block(self, key: bytes) -> str:
        """A PIN key in a block that psec made."""
        return psec.tr31.wrap(self.kek, psec.tr31.Header("D", "P0", "A", "B", "00", "N"), key)

    def opened(self, source: str, key: bytes, destination: str, out: bytes) -> str:
        """The PIN that comes out of a translation of what psec enciphered."""
        sent = psec.pinblock.encipher_pinblock_iso_4(key, PIN, PAN)
        iso_4 = types.PIN_BLOCK_FORMAT_ISO_4
        got = self.backend.translate_static(source, sent, PAN, destination,
                                            source_format=iso_4, destination_format=iso_4)
        return psec.pinblock.decipher_pinblock_iso_4(out, got, PAN)
