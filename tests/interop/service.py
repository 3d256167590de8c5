"""A development service of this test run, and what is published or left on disk for it."""

import atexit
import functools
import json
import os
import shutil
import subprocess
import tempfile
import threading
import tomllib
from pathlib import Path
from typing import NamedTuple, TextIO

import grpc
import psec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key

from stubs import BUILD, ROOT


class Authority(NamedTuple):
    """A certificate and its private key, as `dev-pki/` holds them in DER."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey


class Program:
    """`firstkeyd serve`, until the end of this run."""

    def __init__(self, *flags: str | Path, environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [BUILD / "debug" / "firstkeyd", "serve", *flags], cwd=ROOT, stderr=subprocess.PIPE,
            text=True, env={**os.environ, **(environment or {})})
        atexit.register(self.stop)
        log = self._process.stderr
        self.address = self._address(log)
        threading.Thread(target=self._drain, args=[log], daemon=True).start()

    @staticmethod
    def _address(log: TextIO) -> str:
        said = []
        for line in log:
            said.append(line)
            # It logs lines of JSON; what keeps it from starting is plain text.
            if line.startswith("{") and "address" in (entry := json.loads(line)):
                return entry["address"]
        raise RuntimeError("the service does not serve: " + "".join(said))

    @staticmethod
    def _drain(log: TextIO) -> None:
        """Drops what it logs from here on, so that it never waits for a full pipe."""
        for _ in log:
            pass

    def stop(self) -> None:
        """Ends it as systemd does."""
        self._process.terminate()
        self._process.wait(timeout=30)


class Service(Program):
    """A development service on a free port of loopback, with a fresh store."""

    def __init__(self) -> None:
        self._data = fresh_folder()
        super().__init__("--dev", "--listen", "127.0.0.1:0", "--data", self._data)
        self.channel = grpc.insecure_channel(self.address)

    def authority(self, name: str) -> Authority:
        """The authority of `dev-pki/` with this name: `vendor` or `acquirer`."""
        folder = self._data / "dev-pki"
        certificate = x509.load_der_x509_certificate((folder / f"{name}.crt").read_bytes())
        key = load_der_private_key((folder / f"{name}.key").read_bytes(), password=None)
        return Authority(certificate, key)


def fresh_folder() -> Path:
    """A folder that is gone at the end of this run."""
    folder = Path(tempfile.mkdtemp(prefix="firstkey-interop-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def running() -> Service:
    """The one service of this run, started when it is first asked for."""
    return Service()


@functools.cache
def development_keys() -> dict[str, bytes]:
    """The published keys in clear, by their ids: psec opens what `keys-dev/` holds."""
    published = tomllib.loads((ROOT / "keys-dev" / "keys.toml").read_text())
    master_key = bytes.fromhex(published["master_key"])
    return {key["id"]: psec.tr31.unwrap(master_key, key["block"])[1] for key in published["key"]}
