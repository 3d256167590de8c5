"""A terminal: what its firmware does from the first start to a purchase.

It knows its credential, the acquirer's id, and which DUKPT it has. Everything else comes from the
service, and nothing of it is taken before its proof verifies over the very bytes that came. A
refused answer changes nothing: the terminal can ask again.
"""

import hashlib
import hmac
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import psec
from google.protobuf.message import Message

import protocol
from answers import Refused, parse, require_same
from credential import Credential
from dukpt import AesKeys, Keys, TdesKeys, aes_block, tdes_block, xor
from held import Held, open_keys
from parameters import Parameters, read_parameters
from protocol import Transcript
from stubs import activation, payload
from update import update_keys


class Step(NamedTuple):
    """One exchange: the call, who makes its request, and who judges its answer."""

    call: str
    ask: Callable[[], Message]
    accept: Callable[[Any], None]


class Card(NamedTuple):
    """A card and what its holder types."""

    pan: str
    expiry: str
    pin: str


class Purchase(NamedTuple):
    """What a terminal sends with a transaction: a message, its MAC and a PIN block, one KSN."""

    ksn: bytes
    message: bytes
    mac: bytes
    pin_block: bytes


class Terminal:
    """A device with the software of an acquirer's terminal in it."""

    def __init__(self, credential: Credential, acquirer_id: str,
                 dukpt: type[AesKeys] | type[TdesKeys]) -> None:
        self.credential = credential
        self.parameters: Parameters | None = None
        self.activation = ""
        # The static keys by their slots.
        self.held: dict[int, Held] = {}
        self.tests_passed, self.tests_required = 0, 1
        self._acquirer_id, self._dukpt = acquirer_id, dukpt
        self._keys: Keys | None = None
        self._sequence = 0
        self._counter = 0
        self._tests = 0

    @property
    def keys(self) -> Keys:
        """The transaction keys that serve. Raises ValueError before the first are confirmed."""
        if self._keys is None:
            raise ValueError("no keys serve yet")
        return self._keys

    # The whole of an activation.

    def steps(self, code: str | None, card: Card) -> Iterator[Step]:
        """The exchanges from the code to the last test, each to be made when it comes."""
        yield from self.key_steps(code)
        yield Step("GetParameters", self.ask_parameters, self.apply_parameters)
        yield Step("ReportStep", self.report_applied, lambda _: None)
        while self.tests_passed < self.tests_required:
            yield Step("RunTestTransaction", lambda: self.test(card), self.tested)

    def key_steps(self, code: str | None) -> Iterator[Step]:
        """Those that bring keys; all of them in a re-key."""
        yield Step("BeginActivation", lambda: self.begin(code), self.begun)
        yield Step("DeliverKeys", self.deliver, self.delivered)
        yield Step("ConfirmKeys", self.confirm, self.confirmed)

    def activate(self, link: Any, code: str | None, card: Card) -> None:
        """Plays every step over a link, which is a stub of ActivationService."""
        play(link, self.steps(code, card))

    def rekey(self, link: Any) -> None:
        """Takes new keys in place of the ones that serve."""
        play(link, self.key_steps(None))

    def update_steps(self) -> Iterator[Step]:
        """Those of a re-key under the update key of the keys that serve."""
        yield Step("UpdateKeys", self.update, self.updated)
        yield Step("ConfirmKeys", self.confirm, self.confirmed)

    # Step 3.

    def begin(self, code: str | None) -> Message:
        """Shows the code as the merchant typed it, if there is one, and proves the credential."""
        self._sequence = max(int(time.time()), self._sequence + 1)
        self._asked = Transcript().then(payload.Begin(
            activation_code=protocol.normal_code(code) if code else None,
            serial=self.credential.serial,
            certificate_chain=self.credential.certificate_chain,
            device_nonce=os.urandom(32),
            readiness=payload.Readiness(hardware="interop rev. 1", firmware="1.0.0",
                                        network=payload.NETWORK_ETHERNET),
            sequence=self._sequence,
        ).SerializeToString())
        return activation.BeginActivationRequest(
            payload=self._asked.messages[-1],
            proof=self.credential.prove(self._asked.covered("terminal", "begin")))

    def begun(self, answer: Message) -> None:
        """Judges who answers, then whether it answers this."""
        said = parse(payload.BeginAnswer, answer.payload)
        transcript = self._asked.then(answer.payload)
        session = self.credential.session(said, transcript)
        session.verify(transcript.covered("service", "begin"), answer.proof)
        if said.acquirer_id != self._acquirer_id:
            raise Refused(payload.FAULT_SERVICE_NOT_TRUSTED)
        if len(said.service_nonce) != 32 or said.expires_at_seconds <= time.time():
            raise Refused(payload.FAULT_PAYLOAD)
        self._session, self._transcript = session, transcript
        self.activation = said.activation

    # Step 4.

    def deliver(self) -> Message:
        """Asks for the keys, with an ephemeral key that serves this once."""
        self._asked = self._transcript.then(payload.Deliver(
            activation=self.activation, device_ephemeral=self._session.offer(),
        ).SerializeToString())
        return activation.DeliverKeysRequest(
            activation=self.activation,
            payload=self._asked.messages[-1],
            proof=self._session.prove(self._asked.covered("terminal", "deliver")))

    def delivered(self, answer: Message) -> None:
        """Agrees on keys with the service and opens the key block with them."""
        transcript = self._asked.then(answer.payload)
        self._session.verify(transcript.covered("service", "deliver"), answer.proof)
        said = parse(payload.DeliverAnswer, answer.payload)
        if said.activation != self.activation:
            raise Refused(payload.FAULT_PAYLOAD)
        agreed = self._session.agree(said, self._asked)
        self._load(said.keys, agreed.protection, self.credential.block_version)
        self._agreed, self._transcript = agreed, transcript

    def _load(self, delivered: Sequence[Message], protection: bytes, version: str) -> None:
        """Opens the key blocks of an answer; the keys wait until both sides confirmed them."""
        held = open_keys(delivered, protection, version)
        algorithm = "A" if self._dukpt is AesKeys else "T"
        if held[0].algorithm != algorithm or len(held[0].key) != 16:
            raise Refused(payload.FAULT_KEY_BLOCK)
        self._loaded = self._dukpt(held[0].key, held[0].initial_key_id)
        self._held = held

    # Step 5.

    def confirm(self) -> Message:
        """Proves by the check values of what it loaded that every key arrived."""
        self._asked = self._transcript.then(payload.Confirm(
            activation=self.activation,
            keys=[payload.ConfirmedKey(slot=key.slot, check_value=key.check_value())
                  for key in self._held],
        ).SerializeToString())
        covered = self._asked.covered("terminal", "confirm")
        return activation.ConfirmKeysRequest(
            activation=self.activation,
            payload=self._asked.messages[-1],
            mac=hmac.digest(self._agreed.terminal, covered, "sha256"))

    def confirmed(self, answer: Message) -> None:
        """From here on the keys serve."""
        covered = self._asked.then(answer.payload).covered("service", "confirm")
        require_same(hmac.digest(self._agreed.service, covered, "sha256"), answer.mac)
        said = parse(payload.ConfirmAnswer, answer.payload)
        if said.activation != self.activation or said.status != payload.KEY_STATUS_SERVING:
            raise Refused(payload.FAULT_PAYLOAD)
        self._keys, self._counter = self._loaded, 0
        self.held = {key.slot: key for key in self._held[1:]}

    # A re-key without a session of its own: in place of steps 3 and 4.

    def update(self) -> Message:
        """Asks for new keys, under a transaction key of those that serve."""
        self._nonce = os.urandom(32)
        asked = payload.Update(nonce=self._nonce).SerializeToString()
        return activation.UpdateKeysRequest(**self.maced(asked, "update"))

    def updated(self, answer: Message) -> None:
        """Opens the key block with the update key."""
        self._verify_answer(answer, "update")
        said = parse(payload.UpdateAnswer, answer.payload)
        self._load(said.keys, self.keys.update_key(), "D")
        self._agreed = update_keys(self.keys, self._asked_counter, said.activation, self._nonce,
                                   self._loaded.key_id)
        self._transcript = self._asked.then(answer.payload)
        self.activation = said.activation

    # Step 6.

    def ask_parameters(self) -> Message:
        """Asks for merchant data and limits, under a transaction key."""
        known = self.parameters.version if self.parameters else 0
        asked = payload.Parameters(known_version=known, nonce=os.urandom(32)).SerializeToString()
        return activation.GetParametersRequest(**self.maced(asked, "parameters"))

    def apply_parameters(self, answer: Message) -> None:
        """Applies the file whole or not at all, and never an older one."""
        self._verify_answer(answer, "parameters")
        said = parse(payload.ParametersAnswer, answer.payload)
        if hashlib.sha256(said.parameter_file).digest() != said.digest:
            raise Refused(payload.FAULT_PARAMETERS)
        applied = read_parameters(said.parameter_file)
        if applied.acquirer_id != self._acquirer_id:
            raise Refused(payload.FAULT_PARAMETERS)
        before = self.parameters
        if before and (applied.version < before.version
                       or applied.version == before.version and applied != before):
            raise Refused(payload.FAULT_PARAMETERS_ROLLED_BACK)
        self.parameters, self._digest = applied, said.digest

    def report_applied(self) -> Message:
        """Says which parameter file it applied."""
        report = payload.Report(activation=self.activation, step=payload.STEP_PARAMETERS,
                                applied_digest=self._digest).SerializeToString()
        maced = self.maced(report, "report")
        return activation.ReportStepRequest(
            activation=self.activation, payload=maced.pop("payload"),
            transaction_mac=activation.TransactionMac(**maced))

    def report_fault(self, step: int, fault: int) -> Message:
        """Says what it found wrong before its keys serve, so under its credential."""
        report = Transcript().then(payload.Report(
            activation=self.activation, step=step, fault=fault).SerializeToString())
        return activation.ReportStepRequest(
            activation=self.activation, payload=report.messages[-1],
            device_proof=self.credential.prove(report.covered("terminal", "report")))

    # Step 7.

    def test(self, card: Card, amount_minor: int = 100) -> Message:
        """Makes a transaction with a test card."""
        self._tests += 1
        counter = self._next_counter()
        formats = {AesKeys: payload.PIN_BLOCK_FORMAT_ISO_4,
                   TdesKeys: payload.PIN_BLOCK_FORMAT_ISO_0}
        transaction = payload.TestTransaction(
            number=self._tests, amount_minor=amount_minor, currency=self.parameters.currency,
            pan=card.pan, expiry=card.expiry, pin_block=pin_block(self.keys, counter, card),
            pin_block_format=formats[self._dukpt])
        maced = self.maced(transaction.SerializeToString(), "test", counter)
        return activation.RunTestTransactionRequest(**maced)

    def tested(self, answer: Message) -> None:
        """Reads the verdicts."""
        self._verify_answer(answer, "test")
        said = parse(payload.TestTransactionAnswer, answer.payload)
        if said.number != self._tests or not said.verdicts:
            raise Refused(payload.FAULT_PAYLOAD)
        self.verdicts = {payload.Check.Name(v.check): v.passed for v in said.verdicts}
        self.tests_passed, self.tests_required = said.tests_passed, said.tests_required

    # In service.

    def purchase(self, card: Card, amount_minor: int) -> Purchase:
        """A purchase within its limits: PIN block and MAC under the keys of one KSN."""
        if not 0 < amount_minor <= self.parameters.single_limit_minor:
            raise ValueError("over the limit")
        counter = self._next_counter()
        message = f"purchase {amount_minor} {self.parameters.currency} {card.pan[-4:]}".encode()
        return sell(self.keys, counter, card, message)

    def verify_response(self, purchase: Purchase, message: bytes, mac: bytes) -> None:
        """Verifies what the host says to a purchase, under the response key of its KSN."""
        key = self.keys.mac_response_key(self.counter_of(purchase.ksn))
        require_same(self.keys.cmac(key, message), mac)

    def counter_of(self, ksn: bytes) -> int:
        """The counter of one of its KSNs."""
        return int.from_bytes(ksn, "big") - int.from_bytes(self.keys.ksn(0), "big")

    def _next_counter(self) -> int:
        self._counter = self.keys.next_counter(self._counter)
        return self._counter

    # Exchanges under a transaction key.

    def maced(self, message: bytes, step: str, counter: int | None = None) -> dict[str, bytes]:
        """A payload with its KSN and its MAC; it begins a transcript of its own.

        The counter is the next one unless a hostile terminal says another.
        """
        counter = counter or self._next_counter()
        self._asked, self._asked_counter = Transcript().then(message), counter
        key = self.keys.mac_request_key(counter)
        mac = self.keys.cmac(key, self._asked.covered("terminal", step))
        return {"ksn": self.keys.ksn(counter), "payload": message, "mac": mac}

    def _verify_answer(self, answer: Message, step: str) -> None:
        key = self.keys.mac_response_key(self._asked_counter)
        covered = self._asked.then(answer.payload).covered("service", step)
        require_same(self.keys.cmac(key, covered), answer.mac)


def sell(keys: Keys, counter: int, card: Card, message: bytes) -> Purchase:
    """The message, its MAC and the PIN block that a terminal sends under one counter."""
    mac = keys.cmac(keys.mac_request_key(counter), message)
    return Purchase(keys.ksn(counter), message, mac, pin_block(keys, counter, card))


def pin_block(keys: Keys, counter: int, card: Card) -> bytes:
    """ISO 9564-1 under the PIN key of a counter: format 4 with AES, format 0 with TDES."""
    key = keys.pin_key(counter)
    if isinstance(keys, TdesKeys):
        return tdes_block(key, psec.pinblock.encode_pinblock_iso_0(card.pin, card.pan))
    pin = psec.pinblock.encode_pin_field_iso_4(card.pin)
    pan = psec.pinblock.encode_pan_field_iso_4(card.pan)
    return aes_block(key, xor(aes_block(key, pin), pan))


def play(link: Any, steps: Iterator[Step]) -> None:
    """Makes exchanges one after the other, until one is refused by either side."""
    for step in steps:
        step.accept(getattr(link, step.call)(step.ask()))
