"""Purchases of a terminal in service: MACs verified, PINs translated, both ways checked."""

import psec

import service
from answers import Refused
from fixture import AES, TDES, TerminalCase, a_card
from stubs import types
from terminal import Purchase, Terminal


class Purchases(TerminalCase):
    """What holds for every kind of terminal."""

    def setUp(self) -> None:
        super().setUp()
        self.terminal = self.active()

    def verify(self, purchase: Purchase) -> None:
        self.backend.verify_mac(purchase.ksn, purchase.message, purchase.mac,
                                algorithm=self.kind.mac_algorithm)

    def translate(self, purchase: Purchase, pan: str) -> bytes:
        return self.backend.translate(purchase.ksn, purchase.pin_block, pan,
                                      f"keys/{self.kind.zone_key}", **self.kind.pin_formats)

    def test_the_mac_verifies_and_the_pin_arrives_under_the_zone_key(self) -> None:
        zone_key = service.development_keys()[self.kind.zone_key]
        for pin in ("1234", "98765", "000000000000"):
            card = a_card(pin=pin)
            purchase = self.terminal.purchase(card, 1250)
            self.verify(purchase)
            block = self.translate(purchase, card.pan)
            self.assertNotEqual(block, purchase.pin_block)
            self.assertEqual(self.kind.zone_pin(zone_key, block, card.pan), pin)

    def test_one_call_verifies_the_mac_and_translates_the_pin(self) -> None:
        purchase = self.terminal.purchase(self.card, 1250)

        def both(sent: Purchase) -> bytes:
            return self.backend.verify_and_translate(
                *sent, self.card.pan, f"keys/{self.kind.zone_key}",
                algorithm=self.kind.mac_algorithm, **self.kind.pin_formats)

        with self.refused("MAC_MISMATCH"):
            both(purchase._replace(message=b"another message"))
        block = both(purchase)
        zone_key = service.development_keys()[self.kind.zone_key]
        self.assertEqual(self.kind.zone_pin(zone_key, block, self.card.pan), self.card.pin)

    def test_the_first_purchase_is_recorded(self) -> None:
        self.verify(self.terminal.purchase(self.card, 100))
        known = self.backend.terminal(self.name)
        self.assertTrue(known.HasField("first_transaction_time"))
        self.assertEqual(known.timeline[-1].step, "FirstTransaction")

    def test_the_answer_of_the_host_verifies_at_the_terminal(self) -> None:
        purchase = self.terminal.purchase(self.card, 100)
        self.verify(purchase)
        mac = self.backend.respond(purchase.ksn, b"approved", algorithm=self.kind.mac_algorithm,
                                   mac_length_bytes=len(purchase.mac))
        self.terminal.verify_response(purchase, b"approved", mac)
        with self.assertRaises(Refused):
            self.terminal.verify_response(purchase, b"declined", mac)

    def test_a_tampered_message_is_refused_and_spends_nothing(self) -> None:
        purchase = self.terminal.purchase(self.card, 100)
        with self.refused("MAC_MISMATCH"):
            self.verify(purchase._replace(message=purchase.message.replace(b"100", b"900")))
        self.verify(purchase)

    def test_a_replayed_counter_is_refused(self) -> None:
        purchase = self.terminal.purchase(self.card, 100)
        self.verify(purchase)
        other = b"another message"
        key = self.terminal.keys.mac_request_key(self.terminal.counter_of(purchase.ksn))
        mac = self.terminal.keys.cmac(key, other)
        with self.refused("KSN_REPLAYED"):
            self.verify(purchase._replace(message=other, mac=mac))

    def test_a_pin_block_gets_one_look_per_counter(self) -> None:
        purchase = self.terminal.purchase(self.card, 100)
        with self.refused("PIN_BLOCK_REJECTED"):
            self.translate(purchase, "4222222222222220")
        with self.refused("KSN_REPLAYED"):
            self.translate(purchase, self.card.pan)

    def test_a_lost_answer_is_computed_again(self) -> None:
        purchase = self.terminal.purchase(self.card, 100)
        zone_key = service.development_keys()[self.kind.zone_key]
        for _ in range(2):
            self.verify(purchase)
            block = self.translate(purchase, self.card.pan)
            opened = self.kind.zone_pin(zone_key, block, self.card.pan)
            self.assertEqual(opened, self.card.pin)

    def test_nothing_is_bought_over_the_limit(self) -> None:
        with self.assertRaises(ValueError):
            self.terminal.purchase(self.card, self.terminal.parameters.single_limit_minor + 1)


class BeforeEnabling(TerminalCase):
    """A tested terminal that the backend has not enabled."""

    kind = AES

    def test_nothing_is_served(self) -> None:
        terminal: Terminal = self.registered()
        terminal.activate(self.link, self.code, self.card)
        purchase = terminal.purchase(self.card, 100)
        with self.refused("TERMINAL_NOT_ACTIVE") as said:
            self.backend.verify_mac(purchase.ksn, purchase.message, purchase.mac,
                                    algorithm=self.kind.mac_algorithm)
        self.assertEqual(said["state"], "TESTED")


class AesPurchases(Purchases):
    """AES CMAC, PIN block format 4."""

    kind = AES


class TdesPurchases(Purchases):
    """TDES CMAC, PIN block format 0 to the zone's format 3."""

    kind = TDES

    def test_a_retail_mac_verifies(self) -> None:
        purchase = self.terminal.purchase(self.card, 100)
        counter = self.terminal.counter_of(purchase.ksn)
        key = self.terminal.keys.mac_request_key(counter)
        mac = psec.mac.generate_retail_mac(key[:8], key[8:], purchase.message, padding=3)
        self.backend.verify_mac(purchase.ksn, purchase.message, mac,
                                algorithm=types.MAC_ALGORITHM_ISO_9797_1_ALGORITHM_3,
                                padding=types.PADDING_METHOD_3)


# What holds for every kind is no test by itself.
del Purchases, TerminalCase
