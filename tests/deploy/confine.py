"""What systemd does to a service, done by hand: one effect of the unit after the other.

Each function is called in the child, between fork and exec.
"""

import ctypes
import os
import re
import resource
import struct
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)

# User=: some user that owns nothing.
USER = 65534

PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PR_SET_SECCOMP = 38, 24, 22
SECCOMP_MODE_FILTER = 2
CLONE_NEWNS = 0x20000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
EPERM, EIO = 1, 5
PROT_WRITE, PROT_EXEC = 2, 4

# From <linux/bpf_common.h>, <linux/seccomp.h> and <linux/audit.h>.
LOAD, JUMP_EQUAL, JUMP_ANY_BIT, AND, RETURN = 0x20, 0x15, 0x45, 0x54, 0x06
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
ARCH_X86_64 = 0xC000003E
AT_NUMBER, AT_ARCH, AT_PROTECTION = 0, 4, 32


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def numbers() -> dict[str, int]:
    """The numbers of the system calls, as the C library's headers have them."""
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h").read_text()
    found = re.findall(r"#define __NR_(\w+) (\d+)", header)
    return {name: int(number) for name, number in found}


def limits(core: int, locked: int, files: int) -> None:
    """LimitCORE=, LimitMEMLOCK= and LimitNOFILE=."""
    resource.setrlimit(resource.RLIMIT_CORE, (core, core))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (locked, locked))
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


class ControlGroup:
    """MemoryMax= and TasksMax=: a control group of its own, of either version."""

    def __init__(self, memory: int, tasks: int) -> None:
        root = Path("/sys/fs/cgroup")
        name = f"firstkey-test-{os.getpid()}"
        if (root / "cgroup.controllers").exists():
            self._groups = [root / name]
            limits = [("memory.max", memory), ("pids.max", tasks)]
        else:
            self._groups = [root / "memory" / name, root / "pids" / name]
            limits = [("memory.limit_in_bytes", memory), ("pids.max", tasks)]
        for group in self._groups:
            group.mkdir()
        for file, limit in limits:
            place = next(group / file for group in self._groups if (group / file).exists())
            place.write_text(str(limit))

    def enter(self) -> None:
        for group in self._groups:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        for group in self._groups:
            group.rmdir()


def read_only_but(folder: Path) -> None:
    """ProtectSystem=strict with StateDirectory=: every mount is read-only save the folder."""
    _check(LIBC.unshare(CLONE_NEWNS))
    _check(LIBC.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
    place = str(folder).encode()
    _check(LIBC.mount(place, place, None, MS_BIND, None))
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in mounts:
        if mount != str(folder):
            # Some of the kernel's own are read-only already, or hidden below another.
            LIBC.mount(None, mount.encode(), None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)


def unprivileged() -> None:
    """User=, CapabilityBoundingSet= and NoNewPrivileges=yes."""
    for capability in range(64):
        if LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    _check(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def system_calls(allowed: set[str], failing: dict[str, int] | None = None) -> None:
    """SystemCallFilter= with SystemCallErrorNumber=EPERM, and MemoryDenyWriteExecute=yes."""
    known = numbers()
    steps = [_step(LOAD, AT_ARCH), _step(JUMP_EQUAL, ARCH_X86_64, 1), _step(RETURN, KILL)]
    steps.append(_step(LOAD, AT_NUMBER))
    for name, error in (failing or {}).items():
        steps += [_step(JUMP_EQUAL, known[name], 0, 1), _step(RETURN, ERRNO | error)]
    # mprotect to executable, and mappings that are writable and executable at once.
    refused = _step(RETURN, ERRNO | EPERM)
    steps += [_step(JUMP_EQUAL, known["mprotect"], 0, 4), _step(LOAD, AT_PROTECTION),
              _step(JUMP_ANY_BIT, PROT_EXEC, 0, 1), refused, _step(RETURN, ALLOW)]
    both = PROT_WRITE | PROT_EXEC
    steps += [_step(JUMP_EQUAL, known["mmap"], 0, 5), _step(LOAD, AT_PROTECTION),
              _step(AND, both), _step(JUMP_EQUAL, both, 0, 1), refused, _step(RETURN, ALLOW)]
    for name in sorted(allowed):
        if name in known:
            steps += [_step(JUMP_EQUAL, known[name], 0, 1), _step(RETURN, ALLOW)]
    steps.append(_step(RETURN, ERRNO | EPERM))
    program = ctypes.create_string_buffer(b"".join(steps))

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]

    filtered = Filter(len(steps), ctypes.addressof(program))
    _check(LIBC.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filtered), 0, 0))
