"""The systemd unit, read as systemd reads it, and what its lines mean where systemd does not run."""

import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "firstkeyd.service"

# What `systemd-analyze syscall-filter` says of systemd 252, for machines without it.
KEPT = Path(__file__).parent / "system_calls.txt"


def settings() -> dict[str, list[str]]:
    """The lines of [Service]: each name with its values in their order."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


def groups() -> dict[str, list[str]]:
    """The groups of system calls: each `@name` with what it holds, other groups included."""
    analyze = shutil.which("systemd-analyze")
    text = KEPT.read_text()
    if analyze:
        text = subprocess.run([analyze, "syscall-filter"], check=True, text=True,
                              capture_output=True).stdout
    found: dict[str, list[str]] = {}
    group = ""
    for line in text.splitlines():
        line = re.sub(r"\x1b\[[0-9;]*m", "", line)
        if line.startswith("@"):
            group = line.strip()
            found[group] = []
        elif group and line.startswith("    ") and not line.strip().startswith("#"):
            found[group].append(line.strip())
        elif not line.strip():
            group = ""
    return found


def expand(word: str, known: dict[str, list[str]]) -> set[str]:
    """The system calls of a word of a filter: one call, or a group with all it holds."""
    if not word.startswith("@"):
        return {word}
    return {call for inner in known.get(word, []) for call in expand(inner, known)}


def allowed_calls() -> set[str]:
    """What SystemCallFilter= allows: the first line begins the list, later ones add or take."""
    known, allowed = groups(), set()
    for line in settings()["SystemCallFilter"]:
        calls = {call for word in line.lstrip("~").split() for call in expand(word, known)}
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    # What systemd always allows, so that it can start the program at all.
    return allowed | expand("@default", known) | {"execve", "exit", "exit_group", "rt_sigreturn"}
