"""Terminals whose keys were loaded elsewhere: no activation, only KSNs of an open base key."""

import os

import psec

import service
from dukpt import Keys
from fixture import AES, TDES, TerminalCase
from terminal import Purchase, sell


class Elsewhere(TerminalCase):
    """What holds for every kind. The base keys are the samples of the standards."""

    counter_max: int

    def setUp(self) -> None:
        super().setUp()
        base = service.development_keys()[self.kind.open_base_key]
        self.keys: Keys = self.kind.dukpt.from_base(base, self.new_key_id())

    def new_key_id(self) -> bytes:
        """An initial key id that nobody has used, of the base key's set."""
        raise NotImplementedError

    def sold(self, counter: int) -> Purchase:
        return sell(self.keys, counter, self.card, b"a purchase elsewhere")

    def verify(self, purchase: Purchase) -> None:
        self.backend.verify_mac(purchase.ksn, purchase.message, purchase.mac,
                                algorithm=self.kind.mac_algorithm)

    def test_a_purchase_is_served(self) -> None:
        sold = self.sold(1)
        self.verify(sold)
        block = self.backend.translate(sold.ksn, sold.pin_block, self.card.pan,
                                       f"keys/{self.kind.zone_key}", **self.kind.pin_formats)
        zone_key = service.development_keys()[self.kind.zone_key]
        self.assertEqual(self.kind.zone_pin(zone_key, block, self.card.pan), self.card.pin)

    def test_a_facility_opens_the_block_and_loads_what_the_host_derives(self) -> None:
        exported = self.backend.export_initial_key(f"keys/{self.kind.open_base_key}",
                                                   f"keys/{self.kind.facility_key}")
        facility = service.development_keys()[self.kind.facility_key]
        header, key = psec.tr31.unwrap(facility, exported.key_block)
        base = service.development_keys()[self.kind.open_base_key]
        derived = self.kind.dukpt.from_base(base, exported.initial_key_id)
        self.assertEqual(key, derived.initial_key)
        self.assertEqual(exported.check_value, derived.check_value())
        self.assertEqual((header.key_usage, header.mode_of_use, header.exportability),
                         ("B1", "X", "N"))
        self.assertIn(exported.initial_key_id.hex().upper(), header.blocks.values())
        self.keys = derived
        self.verify(self.sold(1))

    def test_the_ledger_begins_at_the_first_verified_counter(self) -> None:
        forged = self.sold(self.counter_max)._replace(mac=bytes(8))
        with self.refused("MAC_MISMATCH"):
            self.verify(forged)
        begins = 0x1000
        self.verify(self.sold(begins))
        with self.refused("KSN_REPLAYED"):
            self.verify(self.sold(1))
        self.verify(self.sold(self.keys.next_counter(begins)))

    def test_the_last_counters_are_served_one_after_the_other(self) -> None:
        before_last = self.counter_max - (self.counter_max & -self.counter_max) // 2
        self.assertEqual(self.keys.next_counter(before_last), self.counter_max)
        self.verify(self.sold(before_last))
        self.verify(self.sold(self.counter_max))
        with self.assertRaises(OverflowError):
            self.keys.next_counter(self.counter_max)


class AesElsewhere(Elsewhere):
    """AES-128 DUKPT: counters end with FFFE8000 and FFFF0000."""

    kind, counter_max = AES, 0xFFFF0000

    def new_key_id(self) -> bytes:
        return bytes.fromhex("12345678") + os.urandom(4)


class TdesElsewhere(Elsewhere):
    """Double-length TDES DUKPT: counters end with 1FF400 and 1FF800."""

    kind, counter_max = TDES, 0x1FF800

    def new_key_id(self) -> bytes:
        # 19 bits of the device number, then 21 of the counter.
        device = int.from_bytes(os.urandom(5), "big") >> 21 << 21
        return bytes.fromhex("FFFF987654") + device.to_bytes(5, "big")

    def test_fill_bytes_of_a_ksn_may_be_left_out(self) -> None:
        sold = self.sold(1)
        self.assertEqual(sold.ksn[:2], bytes.fromhex("FFFF"))
        self.verify(sold._replace(ksn=sold.ksn[2:]))
        again = sell(self.keys, 1, self.card, b"another purchase")
        with self.refused("KSN_REPLAYED"):
            self.verify(again)


# What holds for every kind is no test by itself.
del Elsewhere, TerminalCase
