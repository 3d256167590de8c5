"""Ceremonies whose custodians' tool nobody here wrote, and what a partner does with their keys."""

import hashlib
import json
import os
import unittest
import uuid
from pathlib import Path
from typing import Any

import grpc
import psec
from cryptography import x509
from cryptography.hazmat.primitives import hpke as other_hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import ceremony
import hpke
import transcript
from auditlog import Key, open_note
from backend import refusal
from ceremony import (
    LENGTHS,
    Ceremony,
    by_tool,
    check_value,
    combined,
    generated,
    log_key_by,
)
from custodian import parts
from people import guarded
from stubs import ceremonies, keys, keys_grpc, types

DONE, CLOSED, ABORTED = (ceremonies.CEREMONY_STATE_DONE, ceremonies.CEREMONY_STATE_CLOSED,
                         ceremonies.CEREMONY_STATE_ABORTED)


def a_key(algorithm: str, usage: str = "K0", **more: str) -> dict[str, Any]:
    """A key of a plan, of an id that is new."""
    return {"id": f"it-{uuid.uuid4().hex[:12]}", "usage": usage, "algorithm": algorithm, **more}


def a_component(algorithm: str) -> bytes:
    """A component that somebody else made."""
    component = os.urandom(LENGTHS[algorithm])
    return psec.des.adjust_key_parity(component) if algorithm.startswith("TDES") else component


def shown(value: bytes) -> str:
    """As people write it."""
    return value.hex().upper()


def an_import(algorithm: str, components: list[bytes], usage: str = "K0") -> dict[str, Any]:
    """The import of a key in components, as a plan has it."""
    key = combined(algorithm, components)
    return {"key": a_key(algorithm, usage), "check_value": shown(check_value(algorithm, key)),
            "component_check_values": [shown(check_value(algorithm, one)) for one in components],
            "parity": "required"}


def log_key() -> str:
    """The key of the audit log."""
    return log_key_by(guarded().person("auditor-1"))


class Table(unittest.TestCase):
    """What the tests of ceremonies have in common."""

    def setUp(self) -> None:
        self.service = guarded()
        self.officer = self.service.officer()
        self.keys = keys_grpc.KeyServiceStub(self.officer.channel)
        self.authority_file = self.service.access / "authorities" / "admin.crt"
        self.authority = x509.load_pem_x509_certificate(self.authority_file.read_bytes())

    def key(self, name: str) -> Any:
        return self.keys.GetKey(keys.GetKeyRequest(name=f"keys/{name}")).key

    def verified(self, held: Ceremony) -> transcript.Verified:
        """The transcript, which this folder's verifier believes and the tool's too."""
        text = "".join(f"{line}\n" for line in held.view.transcript)
        verified = transcript.verify(text, Key.parse(log_key()).public, self.authority)
        self.assertEqual(verified.plan, json.loads(held.plan))
        said = by_tool(text, log_key(), self.authority_file)
        self.assertEqual((said["verified"], said["aborted"]), (True, not verified.complete))
        self.assertEqual(said["lines"], len(verified.lines))
        self.assertEqual(said["plan_digest"], shown(held.digest))
        return verified

    def refused(self, call: Any, *arguments: Any, **fields: Any) -> Any:
        """The service refuses; returns what it says."""
        with self.assertRaises(grpc.RpcError) as caught:
            call(*arguments, **fields)
        return refusal(caught.exception)

    def aborted(self, held: Ceremony, cause: str) -> None:
        """A ceremony has ended, nothing of it is left, and its end is signed."""
        request = ceremonies.GetCeremonyRequest(name=held.view.name)
        held.view = ceremony.stub(self.officer).GetCeremony(request).ceremony
        self.assertEqual((held.view.state, held.view.envelope_key), (ABORTED, b""))
        verified = self.verified(held)
        self.assertFalse(verified.complete)
        self.assertEqual(verified.lines[-2]["values"], {"cause": cause})


class Ceremonies(Table):
    """Keys that are made and brought in components."""

    def test_envelopes_are_those_of_another_implementation(self) -> None:
        for kem, other in ((hpke.P256, other_hpke.KEM.P256), (hpke.P521, other_hpke.KEM.P521)):
            kdf = {1: other_hpke.KDF.HKDF_SHA256, 3: other_hpke.KDF.HKDF_SHA512}[kem.kdf_id]
            suite = other_hpke.Suite(other, kdf, other_hpke.AEAD.AES_256_GCM)
            key, info, plain = kem.generate(), b"what it is for", os.urandom(32)
            theirs = suite.encrypt(plain, key.public_key(), info)
            self.assertEqual(hpke.open_sealed(kem, key, info, theirs), plain)
            ours = hpke.seal(kem, hpke.point(key), info, plain)
            self.assertEqual(suite.decrypt(ours, key, info), plain)

    def test_a_key_that_is_made_has_the_check_value_of_its_components(self) -> None:
        for algorithm in LENGTHS:
            with self.subTest(algorithm):
                plan = a_key(algorithm)
                held, components = generated(self.service, 2, plan)
                self.assertEqual(held.view.state, CLOSED)
                value = check_value(algorithm, combined(algorithm, components))
                self.assertEqual(self.key(plan["id"]).check_value, value)
                lines = self.verified(held).lines
                slips = [line["values"] for line in lines if line["what"] == "given out"]
                self.assertEqual(slips, [
                    {"component": str(number),
                     "check_value": shown(check_value(algorithm, component))}
                    for number, component in enumerate(components, 1)])
                done = next(line["values"] for line in lines if line["what"] == "done")
                self.assertEqual(done["check_value"], shown(value))
                self.assertEqual(lines[0]["values"]["by"], self.officer.name)

    def test_components_that_others_made_become_their_key(self) -> None:
        for algorithm, custodians in zip(LENGTHS, (3, 2, 2, 3, 2), strict=True):
            with self.subTest(algorithm):
                components = [a_component(algorithm) for _ in range(custodians)]
                plan = an_import(algorithm, components)
                held = Ceremony(self.service, custodians, **{"import": plan})
                held.join()
                held.bring(algorithm, components)
                value = bytes.fromhex(plan["check_value"])
                held.confirm(value)
                held.sign()
                self.assertEqual(held.view.state, CLOSED)
                self.assertEqual(self.key(plan["key"]["id"]).check_value, value)
                lines = self.verified(held).lines
                revealed = [line["values"]["check_value"] for line in lines
                            if line["what"] == "revealed"]
                self.assertEqual(revealed, plan["component_check_values"])

    def test_a_key_is_destroyed_and_everybody_has_it_in_writing(self) -> None:
        plan = a_key("AES128")
        _, components = generated(self.service, 2, plan)
        value = check_value("AES128", combined("AES128", components))
        name = f"keys/{plan['id']}/versions/1"
        self.service.approved(self.keys.SetKeyState, keys.SetKeyStateRequest(
            request_id=str(uuid.uuid4()), name=name, state=types.KEY_STATE_DEACTIVATED))
        held = Ceremony(self.service, 2, destroy={"key": name, "check_value": shown(value)})
        held.join()
        self.assertEqual(held.view.product, "")
        held.confirm(value)
        held.sign()
        self.assertEqual(held.view.state, CLOSED)
        lines = self.verified(held).lines
        done = next(line["values"] for line in lines if line["what"] == "done")
        self.assertEqual(done, {"check_value": shown(value), "key": name})
        self.assertEqual(self.key(plan["id"]).state, types.KEY_STATE_DESTROYED)
        _, *rows = open_note(held.view.product, Key.parse(log_key())).splitlines()
        certificate = dict(row.split(": ", 1) for row in rows)
        self.assertEqual((certificate["key"], certificate["check_value"]), (name, shown(value)))
        self.assertEqual(certificate["ceremony"], held.view.name)

    def test_the_key_for_envelopes_is_vouched_for_by_the_log(self) -> None:
        held = Ceremony(self.service, 2, generate=a_key("AES256"))
        view = held.view
        covered = parts(b"firstkey/v1/ceremony/key", view.name.encode(), held.digest,
                                 view.envelope_key)
        Key.parse(log_key()).public.verify(view.envelope_key_signature, covered)
        self.assertEqual((view.plan, view.plan_digest), (held.plan, held.digest))

    def test_a_component_other_than_what_was_committed_to_ends_it(self) -> None:
        components = [a_component("AES128") for _ in range(2)]
        plan = an_import("AES128", components)
        held = Ceremony(self.service, 2, **{"import": plan})
        held.join()
        first, last = held.custodian(1, "AES128"), held.custodian(2, "AES128")
        to = held.view.envelope_key
        waiting = []
        for custodian, component in ((first, components[0]), (last, components[1])):
            commitment, envelope = custodian.commit(to, component)
            held.step(custodian.person, "EnterComponent", commitment=commitment.sent,
                      signature=commitment.signature)
            waiting.append(envelope)
        held.step(first.person, "RevealComponent", envelope=waiting[0].sent,
                  signature=waiting[0].signature)
        # The last one, who would steer the key.
        _, other = last.commit(to, a_component("AES128"))
        said = self.refused(held.step, last.person, "RevealComponent", envelope=other.sent,
                            signature=other.signature)
        self.assertEqual(said.reason, "CEREMONY_ABORTED")
        self.aborted(held, "component differs from its commitment")
        missing = self.refused(self.key, plan["key"]["id"])
        self.assertEqual(missing.reason, "KEY_NOT_FOUND")

    def test_what_is_somebody_elses_or_from_elsewhere_is_not_taken(self) -> None:
        held = Ceremony(self.service, 2, generate=a_key("AES128"))
        other = Ceremony(self.service, 2, generate=a_key("AES128"))
        held.join()
        first, second = held.custodian(1, "AES128"), held.custodian(2, "AES128")
        component = held.take(first)
        to = held.view.envelope_key

        def send(sent: bytes, signature: bytes) -> Any:
            return self.refused(held.step, first.person, "ReadBackComponent", envelope=sent,
                                signature=signature)

        good = first.sealed("confirm", to, component)
        theirs = second.sealed("confirm", to, component)
        elsewhere = other.custodian(1, "AES128").sealed("confirm", to, component)
        for signature in (theirs.signature, elsewhere.signature,
                          first.signed("reveal", good.sent).signature):
            self.assertEqual(send(good.sent, signature).reason, "FIELD_INVALID")
        # Signed as it should be, but made for another occasion.
        for sent in (elsewhere.sent, first.sealed("reveal", to, component).sent):
            said = send(sent, first.signed("confirm", sent).signature)
            self.assertEqual(said.reason, "COMPONENT_REJECTED")
        held.step(first.person, "ReadBackComponent", envelope=good.sent, signature=good.signature)
        said = self.refused(held.take, first)
        self.assertEqual((said.reason, said.metadata["step"]), ("CEREMONY_STATE", "take"))
        ceremony.stub(second.person).AbortCeremony(
            ceremonies.AbortCeremonyRequest(name=held.view.name, cause="it was a test"))
        self.aborted(held, "it was a test")


class Transcripts(Table):
    """What was written down, and what somebody made of it later."""

    def setUp(self) -> None:
        super().setUp()
        components = [a_component("TDES3") for _ in range(2)]
        plan = an_import("TDES3", components)
        held = Ceremony(self.service, 2, **{"import": plan})
        held.join()
        # The first envelope is lost, so that all begin again.
        first = held.custodian(1, "TDES3")
        commitment, _ = first.commit(held.view.envelope_key, components[0])
        held.step(first.person, "EnterComponent", commitment=commitment.sent,
                  signature=commitment.signature)
        held.step(held.people[1], "RestartEntry")
        held.bring("TDES3", components)
        held.confirm(bytes.fromhex(plan["check_value"]))
        held.sign()
        self.verified(held)
        self.lines = list(held.view.transcript)

    def test_whatever_is_changed_is_found_by_both(self) -> None:
        last = len(self.lines)
        for lines, fault, place in (
                (self.edited(0, "custodian-1", "custodian-3"), "chain", 2),
                (self.edited(2, "custodian-2", "custodian-3"), "chain", 4),
                (self.edited(10, "confirmed", "committed"), "chain", 12),
                (self.edited(last - 1, '"n":', '"n": '), "malformed", last),
                (self.lines[1:], "chain", 1),
                (self.lines[:4] + self.lines[5:], "chain", 5),
                ([*self.lines[:2], self.lines[3], self.lines[2], *self.lines[4:]], "chain", 3),
                (self.lines[:-1], "unfinished", last - 1),
                (self.lines[:6], "unfinished", 6),
                ([*self.lines, self.lines[-1]], "chain", last + 1)):
            with self.subTest(fault=fault, line=place):
                self.assertEqual(self.not_verified(lines), (fault, place))

    def test_signatures_of_somebody_else_are_not_believed(self) -> None:
        text = "".join(f"{line}\n" for line in self.lines)
        last = len(self.lines)
        for key, authority, expected in (
                (Ed25519PrivateKey.generate().public_key(), self.authority, ("signature", last)),
                (Key.parse(log_key()).public, self.other_authority(), ("certificate", 2))):
            with self.assertRaises(transcript.NotVerified) as found:
                transcript.verify(text, key, authority)
            self.assertEqual((found.exception.fault, found.exception.line), expected)
        # The last line is the service's: with another signature there it is not.
        end = json.loads(self.lines[-1])
        end["values"]["signature"] = "00" * 64
        forged = [*self.lines[:-1], json.dumps(end, separators=(",", ":"))]
        self.assertEqual(self.not_verified(forged), ("signature", last))

    def other_authority(self) -> x509.Certificate:
        """One that certifies other callers."""
        return x509.load_pem_x509_certificate(
            (self.service.access / "authorities" / "data.crt").read_bytes())

    def edited(self, place: int, old: str, new: str) -> list[str]:
        """The lines, of which one says something else."""
        self.assertIn(old, self.lines[place])
        changed = self.lines[place].replace(old, new, 1)
        return [*self.lines[:place], changed, *self.lines[place + 1:]]

    def not_verified(self, lines: list[str]) -> tuple[str, int]:
        """What is wrong by this folder's verifier; the tool does not believe it either."""
        text = "".join(f"{line}\n" for line in lines)
        with self.assertRaises(transcript.NotVerified) as found:
            transcript.verify(text, Key.parse(log_key()).public, self.authority)
        self.assertFalse(by_tool(text, log_key(), self.authority_file)["verified"], text)
        return found.exception.fault, found.exception.line


class Partners(Table):
    """What leaves for a partner, and what comes from one, under a key of which both have parts."""

    def test_a_partner_opens_what_an_export_ceremony_gave(self) -> None:
        for wrapping, version, algorithm in (("AES256", "D", "AES128"), ("TDES3", "B", "TDES2"),
                                             ("AES128", "D", "TDES3")):
            with self.subTest(wrapping):
                facility, value, secret = self.facility(wrapping)
                made = self.made(algorithm)
                # A key encryption key of the same name, but not the partner's.
                other = bytes([value[0] ^ 1]) + value[1:]
                said = self.refused(self.exported, made, facility, other)
                self.assertEqual(said.reason, "FIELD_INVALID")
                held = self.exported(made, facility, value)
                header, opened = psec.tr31.unwrap(secret, held.view.product)
                self.assertEqual(
                    (header.version_id, header.key_usage, header.exportability),
                    (version, "D0", "N"))
                self.assertEqual(check_value(algorithm, opened), made.check_value)
                lines = self.verified(held).lines
                done = next(line["values"] for line in lines if line["what"] == "done")
                hashed = hashlib.sha256(held.view.product.encode()).hexdigest()
                self.assertEqual(done, {"key": made.name, "wrapping_key": facility,
                                        "wrapping_key_check_value": shown(value),
                                        "check_value": shown(made.check_value),
                                        "key_block_sha256": hashed})
                self.assertEqual(self.key(facility.removeprefix("keys/")).check_value, value)

    def test_a_partner_wraps_a_key_that_comes_in(self) -> None:
        for wrapping, version, algorithm in (("AES256", "D", "AES192"), ("TDES3", "B", "TDES2")):
            with self.subTest(wrapping):
                facility, _, secret = self.facility(wrapping)
                key = a_component(algorithm)
                header = psec.tr31.Header(version, "D0", "A" if version == "D" else "T", "B", "00",
                                          "N")
                block = psec.tr31.wrap(secret, header, key)
                request = keys.ImportKeyRequest(
                    request_id=str(uuid.uuid4()), key_id=f"it-{uuid.uuid4().hex[:12]}",
                    key_block=block, wrapping_key=facility)
                imported = self.keys.ImportKey(request).key
                self.assertEqual(imported.check_value, check_value(algorithm, key))
                changed = block[:-1] + ("0" if block[-1] != "0" else "1")
                request = keys.ImportKeyRequest(
                    request_id=str(uuid.uuid4()), key_id=f"it-{uuid.uuid4().hex[:12]}",
                    key_block=changed, wrapping_key=facility)
                self.assertEqual(self.refused(self.keys.ImportKey, request).reason,
                                 "KEY_BLOCK_REJECTED")

    def facility(self, algorithm: str) -> tuple[str, bytes, bytes]:
        """A key encryption key in three components; its name, its check value, and itself."""
        plan = a_key(algorithm)
        _, components = generated(self.service, 3, plan)
        key = combined(algorithm, components)
        return f"keys/{plan['id']}", check_value(algorithm, key), key

    def made(self, algorithm: str) -> Any:
        """A key that the service made and may give away."""
        return self.keys.CreateKey(keys.CreateKeyRequest(
            request_id=str(uuid.uuid4()), key_id=f"it-{uuid.uuid4().hex[:12]}",
            usage="KEY_USAGE_DATA_ENCRYPTION", algorithm=f"KEY_ALGORITHM_{algorithm}",
            exportability="EXPORTABILITY_EXPORTABLE")).key

    def exported(self, made: Any, wrapping_key: str, under: bytes) -> Ceremony:
        """An export, held to its end by two custodians."""
        held = Ceremony(self.service, 2, export={
            "key": made.name, "check_value": shown(made.check_value), "wrapping_key": wrapping_key,
            "wrapping_key_check_value": shown(under)})
        held.join()
        held.confirm(made.check_value)
        self.assertEqual(held.view.state, DONE)
        held.sign()
        self.assertEqual(held.view.state, CLOSED)
        return held


# What holds for all of them is no test by itself.
del Table

if __name__ == "__main__":
    unittest.main()
