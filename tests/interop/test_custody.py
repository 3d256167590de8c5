"""Master keys of live services, as their custodians and their token have them: found again in
another way, and held against what the store says."""

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import unittest
import uuid
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidTag

import hpke
import transcript
from auditlog import Key
from backend import refusal
from ceremony import by_tool, digest_of, log_key_by, signed
from ceremony import stub as of_ceremonies
from custodian import Keeper
from custody import Store, accepts, combine, heading, opened
from people import Person, approved
from service import Program, fresh_folder
from stubs import BUILD, ceremonies, seal, seal_grpc

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "493817"
# CKM_AES_KEY_WRAP_PAD (PKCS #11 version 2.40, current mechanisms), which is RFC 5649.
KEY_WRAP_PAD = "0x210A"


class Live:
    """A live service that `firstkeyd init` set up, with an empty store."""

    def __init__(self, folder: Path, seal_table: str = 'kind = "shamir"', **more: Any) -> None:
        self.folder = folder / "service"
        subprocess.run([BUILD / "debug" / "firstkeyd", "init", self.folder, "--listen",
                        "127.0.0.1:0"], check=True, capture_output=True, timeout=60)
        settings = self.folder / "firstkeyd.toml"
        text = settings.read_text()
        assert '\nkind = "shamir"\n' in text
        settings.write_text(text.replace('\nkind = "shamir"\n', f"\n{seal_table}\n", 1))
        self.program = Program("--config", settings, **more)

    def person(self, holder: str) -> Person:
        """Whom the first policy knows by this name."""
        return Person(self.program.address, self.folder, holder)

    def store(self) -> Store:
        """What it has on its disk."""
        return Store(self.folder / "data")


def stub(person: Person) -> seal_grpc.SealServiceStub:
    """The calls of somebody, once the connection stands."""
    grpc.channel_ready_future(person.channel).result(timeout=30)
    return seal_grpc.SealServiceStub(person.channel)


class Found(unittest.TestCase):
    """What holds of a master key, however it is kept."""

    def is_the_master_key(self, store: Store, master: bytes) -> None:
        """The store's own check says so, and so do its records."""
        custody = store.custody()
        self.assertTrue(accepts(custody, master))
        self.assertFalse(accepts(custody, bytes(32)))
        self.assertFalse(accepts({**custody, "generation": 2}, master))
        [row] = store.rows("policy")
        names = [principal["name"] for principal in opened(row, master, custody)["principal"]]
        self.assertIn("spiffe://firstkey.internal/officer/officer-1", names)
        for wrong in (row._replace(version=row.version + 1), row._replace(id="another")):
            with self.assertRaises(InvalidTag):
                opened(wrong, master, custody)


class Custodians(Found):
    """Any two of three have the master key; all that they do is done here."""

    def test_any_two_shares_are_the_master_key_and_open_the_vault(self) -> None:
        live = Live(fresh_folder())
        self.addCleanup(live.program.stop)
        people = [live.person(f"custodian-{number}") for number in (1, 2, 3)]
        officer = stub(live.person("officer-1"))
        keepers = seal.ShareKeepers(threshold=2, names=[person.name for person in people])
        begun = officer.CreateMasterKey(seal.CreateMasterKeyRequest(
            request_id=str(uuid.uuid4()), custodians=keepers)).status.distribution
        self.assertEqual(hashlib.sha256(begun.public_key).digest(), begun.fingerprint)
        shares = [self.taken(begun, person) for person in people]
        for number, share in enumerate(shares, 1):
            self.assertEqual(heading(share), (2, number, 3, begun.share_set.id))
        store = live.store()
        secrets = {combine({number: shares[number - 1][8:] for number in pair})
                   for pair in ((1, 2), (2, 3), (1, 3), (1, 2, 3))}
        self.assertEqual(len(secrets), 1)
        [master] = secrets
        self.is_the_master_key(store, master)
        self.assertEqual(store.custody()["seal"], {"shamir": {
            "set_id": begun.share_set.id.hex(), "threshold": 2, "shares": 3}})
        # One share alone says nothing: of another value for the second, another secret follows.
        others = {combine({1: shares[0][8:], 2: bytes([octet]) * 32}) for octet in range(256)}
        self.assertEqual(len(others), 256)

        self.assertEqual(officer.Seal(seal.SealRequest()).status.state, seal.SEAL_STATE_SEALED)
        wrong = shares[2][:-1] + bytes([shares[2][-1] ^ 1])
        self.given(people[0], shares[0])
        with self.assertRaises(grpc.RpcError) as caught:
            self.given(people[2], wrong)
        self.assertEqual(refusal(caught.exception).reason, "UNSEAL_FAILED")
        self.given(people[2], shares[2])
        self.assertEqual(self.given(people[1], shares[1]).state, seal.SEAL_STATE_OPEN)
        self.is_the_master_key(store, master)

    def test_it_is_made_and_shared_again_in_ceremonies_that_anybody_verifies(self) -> None:
        live = Live(fresh_folder())
        self.addCleanup(live.program.stop)
        people = [live.person(f"custodian-{number}") for number in (1, 2, 3)]
        other = live.person("officer-2")

        def approve(call: Any, request: Any) -> Any:
            return approved(other, call, request)

        def at_once(call: Any, request: Any) -> Any:
            return call(request)

        masters = []
        for generation, (task, custodians, threshold, ask) in enumerate(
                (("initialise", 3, 2, at_once), ("re_share", 2, 2, approve)), 1):
            table = [*people[:custodians], live.person("auditor-1")]
            plan = json.dumps({
                "title": "a master key", "custodians": [person.name for person in table[:-1]],
                "witness": table[-1].name, "idle_minutes": 15, task: {"threshold": threshold},
            }, separators=(",", ":")).encode()
            begun = ask(stub(live.person("officer-1")).CreateMasterKey, seal.CreateMasterKeyRequest(
                request_id=str(uuid.uuid4()), plan=plan)).status.distribution
            shares = [self.taken(begun, person, digest_of(plan)) for person in table[:-1]]
            masters.append(combine({number: share[8:] for number, share in enumerate(shares, 1)}))
            held = of_ceremonies(table[0]).GetCeremony(
                ceremonies.GetCeremonyRequest(name=begun.ceremony.name)).ceremony
            held = signed(held, table)
            self.assertEqual(held.state, ceremonies.CEREMONY_STATE_CLOSED)
            lines = self.verified(live, held, plan)
            done = next(line["values"] for line in lines if line["what"] == "done")
            self.assertEqual(done, {
                "generation": str(generation), "set_id": begun.share_set.id.hex().upper(),
                "shares": str(custodians), "threshold": str(threshold)})
            said = json.dumps(lines).upper()
            for share in shares:
                self.assertNotIn(share[8:16].hex().upper(), said)
        self.assertNotEqual(*masters)

    def verified(self, live: Live, held: Any, plan: bytes) -> list[dict[str, Any]]:
        """The lines of a transcript that this folder's verifier believes and the tool's too."""
        log_key = log_key_by(live.person("auditor-1"))
        authority = live.folder / "authorities" / "admin.crt"

        def verify(lines: list[str], name: str = "admin") -> transcript.Verified:
            root = (live.folder / "authorities" / f"{name}.crt").read_bytes()
            text = "".join(f"{line}\n" for line in lines)
            return transcript.verify(text, Key.parse(log_key).public,
                                     x509.load_pem_x509_certificate(root))

        whole = list(held.transcript)
        verified = verify(whole)
        self.assertEqual((verified.plan, verified.complete), (json.loads(plan), True))
        text = "".join(f"{line}\n" for line in whole)
        self.assertTrue(by_tool(text, log_key, authority)["verified"])
        # Nobody joins: who came is proved where the share was taken.
        with self.assertRaises(transcript.NotVerified) as found:
            verify(whole, "data")
        self.assertEqual((found.exception.fault, found.exception.line), ("certificate", 2))
        return verified.lines

    def taken(self, begun: Any, person: Person, plan_digest: bytes = b"") -> bytes:
        """A custodian takes a share, and confirms what was written down."""
        calls, keeper = stub(person), Keeper(person, begun.id, hpke.P521)
        key = keeper.kem.generate()
        asked = keeper.signed("take", hpke.point(key))
        answer = calls.TakeShare(seal.TakeShareRequest(
            distribution=begun.id, public_key=asked.sent, signature=asked.signature,
            plan_digest=plan_digest))
        share = keeper.open(key, answer.sealed)
        typed = keeper.sealed("confirm", begun.public_key, share)
        calls.ConfirmShare(seal.ConfirmShareRequest(distribution=begun.id, share=seal.ShareEnvelope(
            sealed=typed.sent, signature=typed.signature)))
        return share

    def given(self, person: Person, share: bytes) -> Any:
        """A custodian gives a share to the attempt under way; tells how the seal stands then."""
        calls = stub(person)
        attempt = calls.GetSealStatus(seal.GetSealStatusRequest()).status.attempt
        self.assertEqual(hashlib.sha256(attempt.public_key).digest(), attempt.fingerprint)
        sent = Keeper(person, attempt.id, hpke.P521).sealed("unseal", attempt.public_key, share)
        return calls.Unseal(seal.UnsealRequest(attempt=attempt.id, share=seal.ShareEnvelope(
            sealed=sent.sent, signature=sent.signature))).status


@unittest.skipUnless(MODULE.exists() and shutil.which("pkcs11-tool"), "no token in software here")
class Token(Found):
    """A token has the key that the master key is wrapped under; OpenSC's tool asks it."""

    def setUp(self) -> None:
        self.folder = fresh_folder()
        (self.folder / "tokens").mkdir()
        settings = self.folder / "softhsm2.conf"
        settings.write_text(f"directories.tokendir = {self.folder / 'tokens'}\n")
        self.environment = {"SOFTHSM2_CONF": str(settings)}
        self.run_tool("softhsm2-util", "--init-token", "--free", "--label", "firstkey", "--so-pin",
                      "87654321", "--pin", PIN)
        pin = self.folder / "pin"
        pin.touch(mode=0o600)
        pin.write_text(PIN)
        self.live = Live(self.folder, f'kind = "pkcs11"\nmodule = "{MODULE}"\ntoken = "firstkey"\n'
                         f'pin_file = "{pin}"', environment=self.environment)
        self.addCleanup(self.live.program.stop)

    def run_tool(self, *command: str | Path) -> str:
        done = subprocess.run(command, env={**os.environ, **self.environment}, timeout=60,
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def ask_token(self, *what: str | Path) -> str:
        """What the token says to somebody who logged in."""
        return self.run_tool("pkcs11-tool", "--module", MODULE, "--login", "--pin", PIN, *what)

    def test_what_the_token_unwraps_is_the_master_key(self) -> None:
        officer = stub(self.live.person("officer-1"))
        made = officer.CreateMasterKey(seal.CreateMasterKeyRequest(
            request_id=str(uuid.uuid4()), token=True))
        self.assertEqual(made.status.state, seal.SEAL_STATE_OPEN)
        store = self.live.store()
        kept = store.custody()["seal"]["pkcs11"]
        wrapping = self.ask_token("--list-objects", "--type", "secrkey", "--id", kept["key_id"])
        for attribute in ("sensitive", "always sensitive", "never extractable", "local"):
            self.assertIn(attribute, wrapping)
        self.is_the_master_key(store, self.unwrapped(kept))
        # Whatever bit is changed: the token refuses, and tells nothing.
        wrapped = bytes.fromhex(kept["wrapped"])
        for place, bit in itertools.product((0, 7, 8, 39), (0x01, 0x80)):
            changed = bytearray(wrapped)
            changed[place] ^= bit
            with self.assertRaises(AssertionError):
                self.unwrapped({**kept, "wrapped": changed.hex()})

    def unwrapped(self, kept: dict[str, str]) -> bytes:
        """What comes out of the token: taken in as an object that may be read, and read."""
        wrapped, value = self.folder / "wrapped", self.folder / "value"
        wrapped.write_bytes(bytes.fromhex(kept["wrapped"]))
        name = os.urandom(4).hex()
        self.ask_token("--unwrap", "--mechanism", KEY_WRAP_PAD, "--id", kept["key_id"],
                       "--input-file", wrapped, "--key-type", "GENERIC:", "--extractable",
                       "--application-id", name)
        self.ask_token("--read-object", "--type", "secrkey", "--id", name, "--output-file", value)
        return value.read_bytes()


# What holds for both is no test by itself.
del Found

if __name__ == "__main__":
    unittest.main()
