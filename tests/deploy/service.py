"""`firstkeyd`, started as a test wants it, and what it logs."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from unit import ROOT

BUILD = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
PATIENCE_SECONDS = 60


class Service:
    """A process with a folder of its own; the folder is gone at the end."""

    def __init__(self, confine: Callable[[Path], None] | None = None, *,
                 owner: int | None = None, environment: dict[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="firstkey-deploy-", dir="/var/tmp"))
        # The program and its keys, where whoever it runs as can read them.
        self.program = self.folder / "firstkeyd"
        shutil.copy(BUILD / "firstkeyd", self.program)
        keys = self.folder / "keys-dev"
        keys.mkdir()
        shutil.copy(ROOT / "keys-dev" / "keys.toml", keys)
        self.state = self.folder / "state"
        self.state.mkdir(mode=0o700)
        if owner is not None:
            self.folder.chmod(0o755)
            os.chown(self.state, owner, owner)
        command = [self.program, "serve", "--dev", "--listen", "127.0.0.1:0", "--data", self.state / "data",
                   "--dev-keys", keys]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, cwd="/", umask=0o077,
            env={"PATH": "/usr/bin:/bin", **(environment or {})},
            preexec_fn=(lambda: confine(self.state)) if confine else None)
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        self.log.extend(iter(self.process.stderr.readline, ""))

    def logged(self, message: str) -> dict | None:
        """The first log entry with this message."""
        entries = [json.loads(line) for line in self.log if line.startswith("{")]
        return next((entry for entry in entries if entry.get("message") == message), None)

    def url(self) -> str:
        """Where it serves, once it does."""
        begun = time.monotonic()
        while time.monotonic() < begun + PATIENCE_SECONDS:
            if entry := self.logged("serving"):
                return f"http://{entry['address']}"
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError("it does not serve:\n" + "".join(self.log))

    def tool(self, *arguments: str, status: int = 0) -> str:
        """What the tool prints, which ends with the status that is expected."""
        environment = {**os.environ, "FIRSTKEY_SERVER": self.url()}
        done = subprocess.run([BUILD / "firstkey", *arguments], env=environment, text=True,
                              capture_output=True, timeout=PATIENCE_SECONDS, check=False)
        if done.returncode != status:
            raise AssertionError(f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def transaction(self) -> None:
        """Takes a terminal from its registration to a purchase."""
        state = str(self.folder / "till.json")
        self.tool("terminal", "register", "till-1", "--serial", "SN-1", "--profile",
                  "dev-master-aes", "--master-key", "dev-master-aes")
        code = self.tool("terminal", "code", "till-1").strip()
        keys = str(ROOT / "keys-dev")
        self.tool("terminal", "simulate", "--state", state, "--keys", keys, "--serial", "SN-1",
                  "--code", code)
        self.tool("terminal", "enable", "till-1")
        self.tool("terminal", "simulate", "--state", state, "--purchase", "1250")

    def protections(self) -> dict[str, bool]:
        """What protects it, as its status tells."""
        status = json.loads(self.tool("--output", "json", "status"))
        return {one["name"]: one["in_force"] for one in status["protections"]}

    def stop(self) -> int:
        """Ends it as systemd does; tells its exit status."""
        self.process.terminate()
        return self.process.wait(timeout=PATIENCE_SECONDS)

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
