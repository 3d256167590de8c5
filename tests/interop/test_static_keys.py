"""Static keys that a profile gives its terminals beside the initial key."""

import os
import unittest
import uuid

import psec
from cryptography.hazmat.primitives.ciphers.algorithms import AES as AesCipher

import service
from answers import Refused
from dukpt import cmac
from fixture import AES, TDES, TerminalCase
from held import Held, open_keys
from protocol import counter_kdf
from stubs import payload, terminals, types

# Slot, usage and algorithm in the API's words; usage, letter and length in a key block's.
KEYS = {
    1: (types.KEY_USAGE_PIN_ENCRYPTION, types.KEY_ALGORITHM_AES128, "P0", "A", 16),
    2: (types.KEY_USAGE_MAC_ALGORITHM_3, types.KEY_ALGORITHM_TDES2, "M3", "T", 16),
    3: (types.KEY_USAGE_MAC_ALGORITHM_1, types.KEY_ALGORITHM_TDES2, "M1", "T", 16),
    7: (types.KEY_USAGE_MAC_CMAC, types.KEY_ALGORITHM_AES128, "M6", "A", 16),
    8: (types.KEY_USAGE_KEY_ENCRYPTION, types.KEY_ALGORITHM_AES128, "K0", "A", 16),
    15: (types.KEY_USAGE_DATA_ENCRYPTION, types.KEY_ALGORITHM_TDES3, "D0", "T", 24),
}

# A key block protection key of these tests.
PROTECTION = bytes(range(32))


class StaticKeys(TerminalCase):
    """What holds for every kind of terminal."""

    def test_each_arrives_as_it_is_derived(self) -> None:
        source = os.urandom(16)
        block = psec.tr31.wrap(service.development_keys()["dev-kek"],
                               psec.tr31.Header("D", "B3", "A", "X", "00", "N"), source)
        name = self.backend.import_key(f"static-{uuid.uuid4()}", block, "keys/dev-kek")
        profile = self.new_profile(test_transactions=1, keys=[
            terminals.ProfileKey(slot=slot, usage=key[0], algorithm=key[1], derivation_key=name)
            for slot, key in KEYS.items()])
        terminal = self.active(profile)
        self.assertEqual(list(terminal.held), list(KEYS))
        for slot, (_, _, usage, letter, length) in KEYS.items():
            about = (terminal.keys.key_id + bytes([slot]) + usage.encode() + letter.encode()
                     + (8 * length).to_bytes(2, "big"))
            derived = counter_kdf(lambda data: cmac(AesCipher(source), data),
                                  "firstkey/v1/terminal-key", about, length)
            held = terminal.held[slot]
            due = psec.des.adjust_key_parity(derived) if letter == "T" else derived
            self.assertEqual((held.usage, held.algorithm, held.key), (usage, letter, due))
        known = self.backend.terminal(self.name).terminal_keys
        self.assertEqual([(key.key.slot, key.check_value) for key in known],
                         [(slot, held.check_value()) for slot, held in terminal.held.items()])


class ModesOfUse(unittest.TestCase):
    """A terminal takes a key for what its usage is for, and for nothing else."""

    def test_a_usage_has_one_mode(self) -> None:
        modes = {usage: self.modes_taken(usage) for usage in ("P0", "M1", "M3", "M6", "D0", "K0")}
        self.assertEqual(modes, {"P0": "E", "M1": "C", "M3": "C", "M6": "C", "D0": "B", "K0": "D"})
        self.assertEqual(self.modes_taken("V0"), "")

    def modes_taken(self, usage: str) -> str:
        """The modes of use that the terminal takes a key of this usage with."""
        taken = ""
        for mode in "BCDEGNSTVXY":
            try:
                self.assertEqual(open_keys(delivered(usage, mode), PROTECTION, "D")[1].usage, usage)
            except Refused as refused:
                self.assertEqual(refused.fault, payload.FAULT_KEY_BLOCK)
            else:
                taken += mode
        return taken


def delivered(usage: str, mode: str) -> list[payload.DeliveredKey]:
    """An initial key, and beside it a static key of this usage and mode."""
    return [_delivered(0, "B1", "X", bytes(range(8))), _delivered(1, usage, mode, b"")]


def _delivered(slot: int, usage: str, mode: str, key_id: bytes) -> payload.DeliveredKey:
    key = bytes(range(slot, slot + 16))
    header = psec.tr31.Header("D", usage, "A", mode, "00", "N")
    if key_id:
        header.blocks["IK"] = key_id.hex().upper()
    held = Held(slot, usage, "A", key, key_id)
    return payload.DeliveredKey(slot=slot, usage=usage, initial_key_id=key_id,
                                key_block=psec.tr31.wrap(PROTECTION, header, key),
                                check_value=held.check_value())


class AesStaticKeys(StaticKeys):
    """AES-128 DUKPT."""

    kind = AES


class TdesStaticKeys(StaticKeys):
    """Double-length TDES DUKPT."""

    kind = TDES


# What holds for every kind is no test by itself.
del StaticKeys, TerminalCase
