"""Static keys that a profile gives its terminals beside the initial key."""

import os
import uuid

import psec
from cryptography.hazmat.primitives.ciphers.algorithms import AES as AesCipher

import service
from dukpt import cmac
from fixture import AES, TDES, TerminalCase
from protocol import counter_kdf
from stubs import terminals, types

# Slot, usage and algorithm in the API's words; usage, letter and length in a key block's.
KEYS = {
    1: (types.KEY_USAGE_PIN_ENCRYPTION, types.KEY_ALGORITHM_AES128, "P0", "A", 16),
    2: (types.KEY_USAGE_MAC_ALGORITHM_3, types.KEY_ALGORITHM_TDES2, "M3", "T", 16),
    15: (types.KEY_USAGE_DATA_ENCRYPTION, types.KEY_ALGORITHM_TDES3, "D0", "T", 24),
}


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


class AesStaticKeys(StaticKeys):
    """AES-128 DUKPT."""

    kind = AES


class TdesStaticKeys(StaticKeys):
    """Double-length TDES DUKPT."""

    kind = TDES


# What holds for every kind is no test by itself.
del StaticKeys, TerminalCase
