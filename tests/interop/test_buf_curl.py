"""The API as `buf curl` drives it: JSON in and out, by the schema in `proto/` or by reflection.

`INTEROP_BUF` names the program; where it is not set these tests are skipped.
"""

import base64
import json
import os
import subprocess
import unittest
import uuid
from typing import Any

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from google.rpc import error_details_pb2

import service
from dukpt import cmac
from stubs import ROOT

BUF = os.environ.get("INTEROP_BUF")
# gRPC's numbers of the codes that are met here.
INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION = 3, 5, 9


class Refused(Exception):
    """An error of the service: its gRPC code and the reason in its details."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


def curl(call: str, body: dict[str, Any], by_reflection: bool = False) -> dict[str, Any]:
    """Makes one call. Raises Refused."""
    schema = [] if by_reflection else ["--schema", "proto"]
    url = f"http://{service.running().address}/{call}"
    done = subprocess.run(
        [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *schema,
         "--data", json.dumps(body), url],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout)
    # It leaves with the code of gRPC, shifted by three bits, and prints the error as JSON.
    if done.returncode < 8:
        raise AssertionError(done.stderr)
    return refuse(done.returncode >> 3, json.loads(done.stderr))


def refuse(code: int, error: dict[str, Any]) -> dict[str, Any]:
    """Raises Refused with the reason that an error of the service carries."""
    infos = [detail["value"] for detail in error["details"]
             if detail["type"] == "google.rpc.ErrorInfo"]
    if len(infos) != 1:
        raise AssertionError(f"one reason is due: {error}")
    # Its Base64 comes without padding.
    info = error_details_pb2.ErrorInfo.FromString(base64.b64decode(infos[0] + "=="))
    raise Refused(code, info.reason)


def fresh() -> str:
    """A request id."""
    return str(uuid.uuid4())


@unittest.skipUnless(BUF, "buf is not here")
class BufCurl(unittest.TestCase):
    """Calls of a backend, from a shell."""

    def refused(self, call: str, body: dict[str, Any], code: int, reason: str) -> None:
        with self.assertRaises(Refused) as caught:
            curl(call, body)
        self.assertEqual((caught.exception.code, caught.exception.reason), (code, reason))

    def terminal_call(self, call: str, **body: Any) -> dict[str, Any]:
        return curl(f"firstkey.v1.TerminalService/{call}", body)

    def created(self) -> dict[str, Any]:
        serial = f"BUF-{uuid.uuid4().hex[:12]}"
        self.registration = {
            "requestId": fresh(), "terminalId": serial.lower(), "serial": serial,
            "model": "simulator", "profile": "profiles/dev-tdes",
            "merchant": {"merchantId": "BUF1", "terminalId": "TERM0002", "displayName": "Buf"},
            "merchantStanding": "MERCHANT_STANDING_APPROVED",
            "kind": "TERMINAL_KIND_DEVICE_CERTIFICATE",
            "deviceAuthority": "deviceAuthorities/dev-vendor",
        }
        return self.terminal_call("CreateTerminal", **self.registration)["terminal"]

    def test_a_terminal_is_created_read_and_listed(self) -> None:
        created = self.created()
        self.assertEqual(created["state"], "TERMINAL_STATE_REGISTERED")
        again = self.terminal_call("CreateTerminal", **self.registration)["terminal"]
        self.assertEqual(again, created)
        read = self.terminal_call("GetTerminal", name=created["name"])["terminal"]
        self.assertEqual([entry["step"] for entry in read.pop("timeline")], ["CreateTerminal"])
        self.assertEqual(read, created)
        names, token = [], ""
        while not names or token:
            page = self.terminal_call("ListTerminals", pageSize=100, pageToken=token)
            names += [terminal["name"] for terminal in page["terminals"]]
            token = page.get("nextPageToken", "")
        self.assertIn(created["name"], names)

    def test_a_code_is_issued_and_the_activation_cancelled(self) -> None:
        name = self.created()["name"]
        issued = self.terminal_call("IssueActivationCode", requestId=fresh(), name=name)
        self.assertRegex(issued["activationCode"], "^([0-9A-HJKMNP-TV-Z]{4}-?){3}$")
        self.assertEqual(issued["terminal"]["state"], "TERMINAL_STATE_CODE_ISSUED")
        cancelled = self.terminal_call("CancelActivation", requestId=fresh(), name=name,
                                       cause="the merchant moved")
        self.assertEqual(cancelled["terminal"]["state"], "TERMINAL_STATE_REGISTERED")

    def test_refusals_show_their_reason(self) -> None:
        terminals = "firstkey.v1.TerminalService"
        self.refused(f"{terminals}/GetTerminal", {"name": "terminals/nobody"},
                     NOT_FOUND, "TERMINAL_NOT_FOUND")
        self.refused(f"{terminals}/GetTerminal", {"name": "nobody"},
                     INVALID_ARGUMENT, "FIELD_INVALID")
        enable = {"requestId": fresh(), "name": self.created()["name"]}
        self.refused(f"{terminals}/EnableTerminal", enable,
                     FAILED_PRECONDITION, "ACTIVATION_STATE")

    def test_a_mac_is_made_and_verified_and_a_wrong_one_is_refused(self) -> None:
        message = b"a message in a shell"
        asked = {"key": {"staticKey": "keys/dev-mac"}, "algorithm": "MAC_ALGORITHM_AES_CMAC",
                 "message": base64.b64encode(message).decode()}
        made = curl("firstkey.v1.MacService/GenerateMac", {**asked, "macLengthBytes": 16})
        mac = base64.b64decode(made["mac"])
        self.assertEqual(mac, cmac(AES(service.development_keys()["dev-mac"]), message))
        self.assertEqual(curl("firstkey.v1.MacService/VerifyMac", {**asked, **made}), {})
        wrong = base64.b64encode(bytes([mac[0] ^ 1]) + mac[1:]).decode()
        self.refused("firstkey.v1.MacService/VerifyMac", {**asked, "mac": wrong},
                     FAILED_PRECONDITION, "MAC_MISMATCH")

    def test_reflection_and_health_answer(self) -> None:
        asked = {"service": "firstkey.v1.MacService"}
        health = curl("grpc.health.v1.Health/Check", asked, by_reflection=True)
        self.assertEqual(health, {"status": "SERVING"})
        profile = {"name": "profiles/dev-aes"}
        call = "firstkey.v1.TerminalService/GetProfile"
        self.assertEqual(curl(call, profile, by_reflection=True), curl(call, profile))
