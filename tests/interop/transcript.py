"""Verifies the transcript of a ceremony: from the comments of `ceremony_service.proto` alone."""

import base64
import binascii
import datetime
import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from certified import ECDSA

SIGNED = b"firstkey/v1/ceremony/transcript"
MEMBERS = ("n", "time", "what", "who", "values", "prev")
WORDS = {"join": "joined", "take": "given out", "read-back": "read back", "enter": "committed",
         "reveal": "revealed", "confirm": "confirmed", "sign": "signed"}


class NotVerified(Exception):
    """What is wrong, and in which line."""

    def __init__(self, fault: str, line: int) -> None:
        super().__init__(f"{fault}: line {line}")
        self.fault, self.line = fault, line


class Step(NamedTuple):
    """A step of a plan."""

    act: str
    who: str


class Verified(NamedTuple):
    """What a transcript says, once it is believed."""

    plan: dict[str, Any]
    complete: bool
    lines: list[dict[str, Any]]


def steps_of(plan: dict[str, Any]) -> list[Step]:
    """All steps in their order."""
    custodians = plan["custodians"]

    def of_each(*acts: str) -> list[Step]:
        return [Step(act, who) for who in custodians for act in acts]

    def of_all(act: str) -> list[Step]:
        return [*of_each(act), Step(act, plan["witness"])]

    if "initialise" in plan or "re_share" in plan:
        return of_each("take", "read-back") + of_all("sign")
    if "import" in plan:
        middle = of_each("enter") + of_each("reveal")
    elif "export" in plan or "destroy" in plan:
        middle = []
    else:
        middle = of_each("take", "read-back")
    return of_all("join") + middle + of_all("confirm") + of_all("sign")


def verify(text: str, log_key: Ed25519PublicKey, authority: x509.Certificate) -> Verified:
    """Verifies all of it. Raises NotVerified."""
    written = text.splitlines()
    lines = _chain(written)
    plan = _plan(lines[0])
    if len(lines) < 3 or (lines[-1]["what"], lines[-1]["who"]) != ("closed", "service"):
        raise NotVerified("unfinished", len(lines))
    try:
        log_key.verify(_hex(lines[-1], "signature"), SIGNED + _hash(written[-2]))
    except InvalidSignature as error:
        raise NotVerified("signature", len(lines)) from error
    outcome = _walk(plan, lines[1:-1])
    # Where nobody joins, people come with their shares.
    comes = "joined" if steps_of(plan)[0].act == "join" else "given out"
    keys: dict[str, Any] = {}
    for line in lines[1:-1]:
        if line["what"] in (comes, "signed"):
            key = _certified(line, authority)
            # Everybody has one key, and each another.
            numbers = key.public_numbers()
            others = [other for who, other in keys.items() if who != line["who"]]
            if keys.setdefault(line["who"], numbers) != numbers or numbers in others:
                raise NotVerified("key", line["n"])
            if line["what"] == "signed":
                _signed(line, key, _hash(written[outcome["n"] - 1]))
    return Verified(plan, outcome["what"] == "done", lines)


def _chain(written: Sequence[str]) -> list[dict[str, Any]]:
    """Every line, in the one form that it may have, bound to the one before."""
    lines: list[dict[str, Any]] = []
    prev = "0" * 64
    for number, text in enumerate(written, 1):
        try:
            line = json.loads(text)
            same = json.dumps(line, separators=(",", ":"), ensure_ascii=False) == text
            members = tuple(name for name in MEMBERS if name in line)
            values = line.get("values", {})
            formed = same and tuple(line) == members and list(values) == sorted(values)
        except (ValueError, TypeError, AttributeError) as error:
            raise NotVerified("malformed", number) from error
        if not formed or set(MEMBERS) - set(line) - {"values"}:
            raise NotVerified("malformed", number)
        if (line["n"], line["prev"]) != (number, prev):
            raise NotVerified("chain", number)
        # RFC 3339 in UTC to the millisecond: as text they have the order of time.
        if lines and line["time"] < lines[-1]["time"]:
            raise NotVerified("time", number)
        prev = _hash(text).hex()
        lines.append(line)
    if not lines:
        raise NotVerified("unfinished", 0)
    return lines


def _plan(first: dict[str, Any]) -> dict[str, Any]:
    values = first.get("values", {})
    canonical = values.get("plan", "").encode()
    digest = hashlib.sha256(b"firstkey/v1/ceremony/plan" + canonical).hexdigest()
    if (first["what"], first["who"], values.get("plan_digest")) != ("created", "service", digest):
        raise NotVerified("plan", 1)
    return json.loads(canonical)


def _walk(plan: dict[str, Any], lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Follows the steps of the plan; returns the line that tells the outcome."""
    steps, done, outcome = steps_of(plan), 0, None
    for line in lines:
        step = steps[done] if done < len(steps) else Step("", "")
        what, who = line["what"], line["who"]
        aborted = outcome is not None and outcome["what"] == "aborted"
        if not aborted and (what, who) == (WORDS.get(step.act), step.who):
            if (step.act == "sign") != (outcome is not None):
                raise NotVerified("step", line["n"])
            done += 1
        elif outcome is not None:
            raise NotVerified("step", line["n"])
        elif (what, who) == ("done", "service") and step.act == "sign":
            outcome = line
        elif what == "aborted":
            outcome = line
        elif what == "read back wrongly" and step == Step("read-back", who):
            continue
        elif (what == "entry begins again" and who in plan["custodians"]
              and _may_begin_again(steps, done)):
            done = [one.act for one in steps].index("enter")
        else:
            raise NotVerified("step", line["n"])
    if outcome is None or (outcome["what"] == "done" and done < len(steps)):
        raise NotVerified("unfinished", len(lines) + 2)
    return outcome


def _may_begin_again(steps: Sequence[Step], done: int) -> bool:
    """Whether all have joined, and not all have revealed yet."""
    return done < len(steps) and steps[done].act in ("enter", "reveal")


def _certified(line: dict[str, Any], authority: x509.Certificate) -> EllipticCurvePublicKey:
    """The key of a line's certificate, which was the authority's and this person's at its time."""
    try:
        der = base64.b64decode(line.get("values", {}).get("certificate", ""), validate=True)
        certificate = x509.load_der_x509_certificate(der)
        at = datetime.datetime.fromisoformat(line["time"])
        policy = PolicyBuilder().store(Store([authority])).time(at.replace(tzinfo=None))
        verified = policy.build_client_verifier().verify(certificate, [])
    except (ValueError, VerificationError, x509.InvalidVersion, binascii.Error) as error:
        raise NotVerified("certificate", line["n"]) from error
    names = [name.value for name in verified.subjects or []]
    key = certificate.public_key()
    if names != [line["who"]] or not isinstance(key, EllipticCurvePublicKey):
        raise NotVerified("certificate", line["n"])
    return key


def _signed(line: dict[str, Any], key: EllipticCurvePublicKey, link: bytes) -> None:
    value = _hex(line, "signature")
    r, s = (int.from_bytes(half, "big") for half in (value[:32], value[32:]))
    try:
        key.verify(encode_dss_signature(r, s), SIGNED + link, ECDSA)
    except InvalidSignature as error:
        raise NotVerified("signature", line["n"]) from error


def _hex(line: dict[str, Any], name: str) -> bytes:
    try:
        value = bytes.fromhex(line.get("values", {})[name])
    except (KeyError, ValueError) as error:
        raise NotVerified("signature", line["n"]) from error
    if len(value) != 64:
        raise NotVerified("signature", line["n"])
    return value


def _hash(line: str) -> bytes:
    return hashlib.sha256(line.encode()).digest()
