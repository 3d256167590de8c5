"""The derivations of this folder against the values that the standards print."""

import unittest

import psec

from dukpt import AesKeys, TdesKeys, xor
from vectors import results


class AesDukpt(unittest.TestCase):
    """ANSI X9.24-3:2017, supplement."""

    def test_the_initial_key(self) -> None:
        file = "dukpt_x9_24_3.json"
        for vector in results(file, op="derive_initial_key", bdk_type="AES128"):
            key_id = bytes.fromhex(vector["initial_key_id"])
            keys = AesKeys.from_base(bytes.fromhex(vector["bdk"]), key_id)
            self.assertEqual(keys.initial_key.hex().upper(), vector["expect"])

    def test_working_keys(self) -> None:
        uses = {"pin_encryption": AesKeys.pin_key, "mac_generation": AesKeys.mac_request_key,
                "mac_verification": AesKeys.mac_response_key}
        for use, derive in uses.items():
            for vector in results("dukpt_x9_24_3.json", op="derive_working_key",
                                    bdk_type="AES128", key_type="AES128", derivation_type=use):
                with self.subTest(vector["id"]):
                    ksn = bytes.fromhex(vector["ksn"])
                    keys = AesKeys.from_base(bytes.fromhex(vector["bdk"]), ksn[:8])
                    key = derive(keys, int.from_bytes(ksn[8:], "big"))
                    self.assertEqual(key.hex().upper(), vector["expect"])

    def test_counters_with_too_many_one_bits_are_skipped(self) -> None:
        keys = AesKeys(bytes(16), bytes(8))
        self.assertEqual(keys.next_counter(0), 1)
        self.assertEqual(keys.next_counter(0xFFFE8000), 0xFFFF0000)
        with self.assertRaises(OverflowError):
            keys.next_counter(0xFFFF0000)


class TdesDukpt(unittest.TestCase):
    """ANSI X9.24-1:2009, annex A.4."""

    def keys(self, vector: dict[str, str]) -> tuple[TdesKeys, int]:
        ksn = int(vector["ksn"], 16)
        counter = ksn & 0x1FFFFF
        key_id = (ksn - counter).to_bytes(10, "big")
        return TdesKeys.from_base(bytes.fromhex(vector["bdk"]), key_id), counter

    def test_the_initial_key(self) -> None:
        for vector in results("dukpt_x9_24_1.json", op="derive_initial_key"):
            keys, _ = self.keys(vector)
            self.assertEqual(keys.initial_key.hex().upper(), vector["expect"])

    def test_transaction_keys(self) -> None:
        variant = bytes.fromhex("00000000000000FF" * 2)
        for vector in results("dukpt_x9_24_1.json", op="derive_working_key",
                                derivation_type="transaction_key"):
            with self.subTest(vector["id"]):
                keys, counter = self.keys(vector)
                transaction_key = xor(keys.pin_key(counter), variant)
                self.assertEqual(transaction_key.hex().upper(), vector["expect"])

    def test_macs_of_both_directions(self) -> None:
        uses = {"mac_request": TdesKeys.mac_request_key, "mac_response": TdesKeys.mac_response_key}
        for use, derive in uses.items():
            for vector in results("dukpt_x9_24_1.json", op="mac_generate", derivation_type=use):
                with self.subTest(vector["id"]):
                    key = derive(*self.keys(vector))
                    message = bytes.fromhex(vector["message"])
                    mac = psec.mac.generate_retail_mac(key[:8], key[8:], message, 1, length=4)
                    self.assertEqual(mac.hex().upper(), vector["expect"])

    def test_counters_with_too_many_one_bits_are_skipped(self) -> None:
        keys = TdesKeys(bytes(16), bytes(10))
        self.assertEqual(keys.next_counter(0x7FE), 0x800)
        self.assertEqual(keys.next_counter(0x1FF400), 0x1FF800)
        with self.assertRaises(OverflowError):
            keys.next_counter(0x1FF800)
