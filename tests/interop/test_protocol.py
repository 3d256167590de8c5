"""What both sides compute, and what a terminal refuses, against the project's own vectors."""

import dataclasses
import unittest

from cryptography.hazmat.primitives.asymmetric import ec

from answers import Refused
from dukpt import AesKeys
from master import MasterKey
from parameters import read_parameters
from protocol import AGREED, Transcript, agreed_key, normal_code
from update import update_keys
from vectors import is_refused, results, vectors

FILE = "activation.json"


def transcript(vector: dict[str, list[str]]) -> Transcript:
    """The transcript of a vector's payloads."""
    return Transcript(tuple(map(bytes.fromhex, vector["payloads"])))


class Protocol(unittest.TestCase):
    """Transcript, signed input, agreed keys, code and parameter file."""

    def test_transcripts(self) -> None:
        for vector in vectors(FILE, op="activation_transcript"):
            with self.subTest(vector["id"]):
                self.assertEqual(transcript(vector).digest().hex().upper(), vector["expect"])

    def test_what_proofs_cover(self) -> None:
        for vector in results(FILE, op="activation_input"):
            with self.subTest(vector["id"]):
                covered = transcript(vector).covered(vector["role"], vector["step"])
                self.assertEqual(covered.hex().upper(), vector["expect"])

    def test_agreed_keys(self) -> None:
        for vector in results(FILE, op="activation_keys"):
            with self.subTest(vector["id"]):
                secret = ec.derive_private_key(int(vector["service_private_key"], 16),
                                               ec.SECP256R1())
                device, service, digest = (bytes.fromhex(vector[name]) for name in (
                    "device_ephemeral", "service_ephemeral", "transcript_hash"))
                public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), device)
                shared = secret.exchange(ec.ECDH(), public)
                for label in AGREED:
                    key = agreed_key(label, vector["suite"], digest, shared, device, service)
                    name = label.rpartition("/")[2].replace("-", "_")
                    self.assertEqual(key.hex().upper(), vector["expect"][name])

    def test_master_device_keys(self) -> None:
        for vector in results(FILE, op="activation_master_device_key"):
            with self.subTest(vector["id"]):
                key = bytes.fromhex(vector["master_key"])
                device_key = MasterKey(vector["serial"], key, vector["suite"]).device_key()
                self.assertEqual(device_key.hex().upper(), vector["expect"])

    def test_session_keys_of_master_keys(self) -> None:
        for vector in results(FILE, op="activation_master_keys"):
            with self.subTest(vector["id"]):
                terminal = MasterKey("", bytes.fromhex(vector["master_key"]), vector["suite"])
                keys = terminal.session_keys(bytes.fromhex(vector["transcript_hash"]))
                self.assertEqual(keys.protection.hex().upper(), vector["expect"]["kbpk"])
                self.assertEqual(keys.terminal.hex().upper(), vector["expect"]["confirm_terminal"])
                self.assertEqual(keys.service.hex().upper(), vector["expect"]["confirm_service"])

    def test_update_keys(self) -> None:
        for vector in results(FILE, op="activation_update_keys"):
            with self.subTest(vector["id"]):
                initial_key, ksn, nonce, new_key_id = (bytes.fromhex(vector[name]) for name in (
                    "initial_key", "ksn", "nonce", "new_initial_key_id"))
                keys = update_keys(AesKeys(initial_key, ksn[:8]), int.from_bytes(ksn[8:], "big"),
                                   vector["activation"], nonce, new_key_id)
                self.assertEqual(keys.protection.hex().upper(), vector["expect"]["update_key"])
                self.assertEqual(keys.terminal.hex().upper(), vector["expect"]["confirm_terminal"])
                self.assertEqual(keys.service.hex().upper(), vector["expect"]["confirm_service"])

    def test_codes_as_people_type_them(self) -> None:
        for vector in vectors(FILE, op="activation_code_parse"):
            with self.subTest(vector["id"]):
                if is_refused(vector):
                    self.assertRaises(ValueError, normal_code, vector["code"])
                else:
                    self.assertEqual(normal_code(vector["code"]), vector["expect"])

    def test_parameter_files(self) -> None:
        for vector in vectors(FILE, op="activation_parameters"):
            with self.subTest(vector["id"]):
                file = vector["file"].encode()
                if is_refused(vector):
                    self.assertRaises(Refused, read_parameters, file)
                else:
                    read = dataclasses.asdict(read_parameters(file))
                    self.assertLessEqual(read.items(), vector["expect"].items())
