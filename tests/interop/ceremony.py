"""Ceremonies of people whose tool is in this folder, and the keys that come of them."""

import functools
import hashlib
import json
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hpke
import psec
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from google.protobuf.message import Message

from custodian import Custodian
from dukpt import cmac, xor
from people import Guarded, Person
from stubs import BUILD, audit, audit_grpc, ceremonies, ceremonies_grpc

LENGTHS = {"TDES2": 16, "TDES3": 24, "AES128": 16, "AES192": 24, "AES256": 32}


class Ceremony:
    """A ceremony that an officer created and another approved, and who sits at its table."""

    def __init__(self, service: Guarded, custodians: int, **task: dict[str, Any]) -> None:
        people = [service.person(f"custodian-{number}") for number in range(1, custodians + 1)]
        self.people = [*people, service.person("auditor-1")]
        plan = {"title": "an interoperable ceremony",
                "custodians": [person.name for person in people],
                "witness": self.people[-1].name, "idle_minutes": 15, **task}
        self.plan = json.dumps(plan, separators=(",", ":")).encode()
        self.digest = digest_of(self.plan)
        officer = stub(service.officer())
        request = ceremonies.CreateCeremonyRequest(request_id=str(uuid.uuid4()), plan=self.plan)
        self.view: Message = service.approved(officer.CreateCeremony, request).ceremony

    def custodian(self, number: int, algorithm: str) -> Custodian:
        """The custodian of a component, at work with it."""
        return Custodian(self.people[number - 1], self.view.name, self.digest, number, algorithm)

    def step(self, person: Person, act: str, **fields: Any) -> Message:
        """Does a step as somebody, and looks at what became of the ceremony."""
        request = getattr(ceremonies, f"{act}Request")(name=self.view.name, **fields)
        answer = getattr(stub(person), act)(request)
        self.view = answer.ceremony
        return answer

    def join(self) -> None:
        """Everybody comes, with the digest of the plan that they know."""
        for person in self.people:
            self.step(person, "JoinCeremony", plan_digest=self.digest)

    def take(self, custodian: Custodian) -> bytes:
        """A custodian gets a component."""
        key = custodian.kem.generate()
        asked = custodian.signed("take", hpke.point(key))
        answer = self.step(custodian.person, "TakeComponent", recipient_key=asked.sent,
                           signature=asked.signature)
        return custodian.open(key, answer.envelope)

    def read_back(self, custodian: Custodian, component: bytes) -> None:
        """A custodian types what the slip says."""
        sent = custodian.sealed("confirm", self.view.envelope_key, component)
        self.step(custodian.person, "ReadBackComponent", envelope=sent.sent,
                  signature=sent.signature)

    def bring(self, algorithm: str, components: Sequence[bytes]) -> None:
        """All commit to their components, then all hand them over."""
        waiting = []
        for number, component in enumerate(components, 1):
            custodian = self.custodian(number, algorithm)
            commitment, envelope = custodian.commit(self.view.envelope_key, component)
            self.step(custodian.person, "EnterComponent", commitment=commitment.sent,
                      signature=commitment.signature)
            waiting.append((custodian, envelope))
        for custodian, envelope in waiting:
            self.step(custodian.person, "RevealComponent", envelope=envelope.sent,
                      signature=envelope.signature)

    def confirm(self, value: bytes) -> None:
        """Everybody has this check value."""
        for person in self.people:
            self.step(person, "ConfirmCeremony", check_value=value)

    def sign(self) -> None:
        """Everybody signs what has happened so far."""
        self.view = signed(self.view, self.people)


def signed(view: Message, people: Sequence[Person]) -> Message:
    """People sign what has happened so far; returns what became of the ceremony."""
    link = hashlib.sha256(view.transcript[-1].encode()).digest()
    for person in people:
        signature = person.sign(b"firstkey/v1/ceremony/transcript" + link)
        view = stub(person).SignCeremony(
            ceremonies.SignCeremonyRequest(name=view.name, signature=signature)).ceremony
    return view


def digest_of(plan: bytes) -> bytes:
    """The digest of a plan, in its canonical form."""
    return hashlib.sha256(b"firstkey/v1/ceremony/plan" + plan).digest()


@functools.cache
def log_key_by(auditor: Person) -> str:
    """The key of the audit log, as an auditor gets it with an export."""
    stub_of_log = audit_grpc.AuditServiceStub(auditor.channel)
    *_, last = stub_of_log.ExportEvents(audit.ExportEventsRequest())
    return last.verifier_key


def by_tool(text: str, log_key: str, authority: Path) -> dict[str, Any]:
    """What `firstkey ceremony verify` says of a transcript."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        done = subprocess.run(
            [BUILD / "debug" / "firstkey", "--output", "json", "ceremony", "verify", file.name,
             "--log-key", log_key, "--ca", authority],
            capture_output=True, text=True, timeout=60, check=False)
    said = json.loads(done.stdout)
    assert done.returncode == (0 if said["verified"] else 6), done.stderr
    return said


def stub(person: Person) -> ceremonies_grpc.CeremonyServiceStub:
    """The calls of somebody."""
    return ceremonies_grpc.CeremonyServiceStub(person.channel)


def generated(service: Guarded, custodians: int,
              key: dict[str, Any]) -> tuple[Ceremony, list[bytes]]:
    """A key that the service made, held to its end; with the components, as custodians saw them."""
    held, algorithm = Ceremony(service, custodians, generate=key), key["algorithm"]
    held.join()
    components = []
    for number in range(1, custodians + 1):
        custodian = held.custodian(number, algorithm)
        components.append(held.take(custodian))
        held.read_back(custodian, components[-1])
    held.confirm(check_value(algorithm, combined(algorithm, components)))
    held.sign()
    return held, components


def combined(algorithm: str, components: Sequence[bytes]) -> bytes:
    """The exclusive or of components; of TDES in odd parity."""
    key = bytes(len(components[0]))
    for component in components:
        key = xor(key, component)
    return psec.des.adjust_key_parity(key) if algorithm.startswith("TDES") else key


def check_value(algorithm: str, key: bytes) -> bytes:
    """TDES: 3 bytes of the encryption of zeros, by psec. AES: 5 bytes of the CMAC of zeros."""
    if algorithm.startswith("TDES"):
        return psec.des.generate_kcv(key, 3)
    return cmac(AES(key), bytes(16))[:5]
