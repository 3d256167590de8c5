"""The kinds of terminals that are tried, and one of each in the states that tests begin with."""

import contextlib
import datetime
import os
import unittest
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
import psec

import service
from backend import Backend, refusal
from certified import Certified
from credential import Credential
from dukpt import AesKeys, TdesKeys, tdes_open
from master import MasterKey
from service import Authority
from stubs import activation_grpc, terminals, types
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
    master_bytes: int = 0


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

MASTER_AES = AES._replace(suite="MASTER_AES_AES128", profile="profiles/dev-master-aes",
                          master_bytes=32)
MASTER_TDES = TDES._replace(suite="MASTER_TDES_TDES2", profile="profiles/dev-master-tdes",
                            master_bytes=16)
# No profile of the service's own has it.
MASTER_AES_TDES = TDES._replace(suite="MASTER_AES_TDES2", profile="", master_bytes=24)


class TerminalCase(unittest.TestCase):
    """A test with terminals of one kind, each fresh from its vendor."""

    kind: Kind

    def setUp(self) -> None:
        self.service = service.running()
        self.backend = Backend(self.service)
        self.link = activation_grpc.ActivationServiceStub(self.service.channel)
        self.card = a_card()

    def registered(self, profile: str = "", no_code: bool = False, **trust: Any) -> Terminal:
        """A terminal that is registered and has its code."""
        serial = f"IT-{uuid.uuid4().hex[:12]}"
        make = self.with_master_key if self.kind.master_bytes else self.with_certificate
        credential, registration = make(serial, **trust)
        profile = profile or self.kind.profile or self.new_profile(test_transactions=1)
        self.name = self.backend.register(serial.lower(), serial, profile, **registration)
        self.code = None if no_code else self.backend.issue_code(self.name)
        return Terminal(credential, trust.get("acquirer_id", ACQUIRER_ID), self.kind.dukpt)

    def with_certificate(self, serial: str, root: Authority | None = None,
                         acquirer_id: str = ACQUIRER_ID) -> tuple[Credential, dict[str, Any]]:
        """A device that trusts this acquirer, and what its registration says of it."""
        root = root or self.service.authority("acquirer")
        device = Certified(serial, self.service.authority("vendor"), root.certificate,
                           acquirer_id, self.kind.suite)
        return device, {"kind": terminals.TERMINAL_KIND_DEVICE_CERTIFICATE,
                        "device_authority": "deviceAuthorities/dev-vendor"}

    def with_master_key(self, serial: str) -> tuple[Credential, dict[str, Any]]:
        """A device with a new master key, which came to the service in a block that psec made."""
        key, tdes = os.urandom(self.kind.master_bytes), self.kind.suite.startswith("MASTER_TDES")
        if tdes:
            key = psec.des.adjust_key_parity(key)
        wrapping_key = "dev-kek-tdes" if tdes else "dev-kek"
        header = psec.tr31.Header(*(("B", "B3", "T") if tdes else ("D", "B3", "A")), "X", "00", "N")
        block = psec.tr31.wrap(service.development_keys()[wrapping_key], header, key)
        name = self.backend.import_key(f"master-{uuid.uuid4()}", block, f"keys/{wrapping_key}")
        return MasterKey(serial, key, self.kind.suite), {
            "kind": terminals.TERMINAL_KIND_MASTER_KEY, "master_key": name}

    def new_profile(self, **rules: Any) -> str:
        """A profile of one test alone, with a limit of 100.00 for one purchase."""
        return self.backend.create_profile(
            f"it-{uuid.uuid4().hex[:12]}", self.kind.suite, f"keys/{self.kind.base_key}",
            limits=(10_000, 20_000), **rules)

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
