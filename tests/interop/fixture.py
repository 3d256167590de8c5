"""The kinds of terminals that are tried, and one of each in the states that tests begin with."""

import contextlib
import datetime
import unittest
import uuid
from collections.abc import Callable, Iterator
from typing import NamedTuple

import grpc
import psec

import service
from backend import Backend, refusal
from certified import Certified
from dukpt import AesKeys, TdesKeys, tdes_open
from service import Authority
from stubs import activation_grpc, types
from terminal import Card, Terminal

ACQUIRER_ID = "DEV-ACQUIRER"


def a_card(pan: str = "4111111111111111", pin: str = "1234") -> Card:
    """A card that does not expire this year."""
    return Card(pan, f"{datetime.date.today().year + 1 - 2000}12", pin)


class Kind(NamedTuple):
    """What differs between the kinds, in the names of the development service."""

    suite: str
    dukpt: type[AesKeys] | type[TdesKeys]
    profile: str
    base_key: str
    open_base_key: str
    facility_key: str
    mac_algorithm: int
    zone_key: str
    pin_formats: dict[str, int]
    zone_pin: Callable[[bytes, bytes, str], str]


def _zone_pin_tdes(key: bytes, block: bytes, pan: str) -> str:
    return psec.pinblock.decode_pinblock_iso_3(tdes_open(key, block), pan)


AES = Kind(
    suite="P256_AES128", dukpt=AesKeys, profile="profiles/dev-aes",
    base_key="dev-bdk-aes", open_base_key="dev-bdk-x924-aes", facility_key="dev-kek",
    mac_algorithm=types.MAC_ALGORITHM_AES_CMAC, zone_key="dev-zone-pin-aes",
    pin_formats={"source_format": types.PIN_BLOCK_FORMAT_ISO_4,
                 "destination_format": types.PIN_BLOCK_FORMAT_ISO_4},
    zone_pin=psec.pinblock.decipher_pinblock_iso_4)

TDES = Kind(
    suite="P256_TDES2", dukpt=TdesKeys, profile="profiles/dev-tdes",
    base_key="dev-bdk-tdes", open_base_key="dev-bdk-x924-tdes",
    facility_key="dev-kek-tdes",
    mac_algorithm=types.MAC_ALGORITHM_TDES_CMAC, zone_key="dev-zone-pin-tdes",
    pin_formats={"source_format": types.PIN_BLOCK_FORMAT_ISO_0,
                 "destination_format": types.PIN_BLOCK_FORMAT_ISO_3},
    zone_pin=_zone_pin_tdes)


class TerminalCase(unittest.TestCase):
    """A test with terminals of one kind, each fresh from its vendor."""

    kind: Kind

    def setUp(self) -> None:
        self.service = service.running()
        self.backend = Backend(self.service)
        self.link = activation_grpc.ActivationServiceStub(self.service.channel)
        self.card = a_card()

    def registered(self, root: Authority | None = None, acquirer_id: str = ACQUIRER_ID,
                   profile: str = "", no_code: bool = False) -> Terminal:
        """A terminal that is registered and has its code; it holds the given acquirer's root."""
        serial = f"IT-{uuid.uuid4().hex[:12]}"
        self.name = self.backend.register(serial.lower(), serial, profile or self.kind.profile)
        self.code = None if no_code else self.backend.issue_code(self.name)
        root = root or self.service.authority("acquirer")
        device = Certified(serial, self.service.authority("vendor"), root.certificate,
                           acquirer_id, self.kind.suite)
        return Terminal(device, acquirer_id, self.kind.dukpt)

    def active(self, profile: str = "") -> Terminal:
        """A terminal in service."""
        terminal = self.registered(profile=profile)
        terminal.activate(self.link, self.code, self.card)
        self.backend.enable(self.name)
        return terminal

    @contextlib.contextmanager
    def refused(self, reason: str) -> Iterator[dict[str, str]]:
        """The service refuses for this reason; yields what else it says, once it has."""
        said: dict[str, str] = {}
        with self.assertRaises(grpc.RpcError) as caught:
            yield said
        info = refusal(caught.exception)
        self.assertEqual(info.reason, reason)
        said.update(info.metadata)
