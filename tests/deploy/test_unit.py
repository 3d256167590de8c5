"""The unit as a text: what it must say, and what systemd's own tool says of it."""

import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from unit import UNIT, allowed_calls, settings

ONCE = {
    "Type": "notify", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "User": "firstkey",
    "StateDirectory": "firstkey", "UMask": "0077", "ProtectSystem": "strict", "ProtectHome": "yes",
    "PrivateTmp": "yes", "PrivateDevices": "yes", "ProtectClock": "yes",
    "ProtectControlGroups": "yes", "ProtectHostname": "yes", "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes", "ProtectKernelTunables": "yes", "ProtectProc": "invisible",
    "LockPersonality": "yes", "RestrictNamespaces": "yes", "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes", "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
    "SystemCallArchitectures": "native", "SystemCallErrorNumber": "EPERM",
    "AmbientCapabilities": "", "PrivateMounts": "yes", "RemoveIPC": "yes", "ProcSubset": "all",
    "MemoryDenyWriteExecute": "yes", "MemoryMax": "2G", "MemorySwapMax": "0", "TasksMax": "1024",
    "LimitCORE": "0", "LimitMEMLOCK": "1M", "LimitNOFILE": "16384",
    "RestartPreventExitStatus": "3", "Restart": "on-failure",
}


class Unit(unittest.TestCase):
    def test_each_protection_stands_there_once(self) -> None:
        found = settings()
        for name, value in ONCE.items():
            self.assertEqual(found.get(name), [value], name)

    def test_the_drain_fits_into_the_time_to_stop(self) -> None:
        config = (UNIT.parents[1] / "src/bin/firstkeyd/cli.rs").read_text()
        drain = re.search(r"after SIGTERM, in seconds\. \[default: (\d+)\]", config)
        self.assertLess(int(drain.group(1)), int(settings()["TimeoutStopSec"][0]))

    def test_the_filter_lets_through_what_is_needed_and_nothing_that_reads_others(self) -> None:
        allowed = allowed_calls()
        needed = {"accept4", "memfd_secret", "mlock", "fdatasync", "getrandom", "capset", "prctl"}
        self.assertEqual(needed - allowed, set())
        denied = {"ptrace", "process_vm_readv", "process_vm_writev", "bpf", "userfaultfd",
                  "io_uring_setup", "keyctl", "perf_event_open", "kexec_load", "mount", "unshare",
                  "init_module", "swapon", "reboot", "chroot", "setuid", "settimeofday"}
        self.assertEqual(denied & allowed, set())

    def test_systemd_takes_it_and_finds_it_hardened(self) -> None:
        analyze = shutil.which("systemd-analyze")
        if not analyze:
            self.skipTest("NOT RUN: systemd-analyze is not here")
        with tempfile.TemporaryDirectory() as folder:
            # The program and its user are not here; everything else stays as it is.
            copy = Path(folder) / UNIT.name
            copy.write_text(UNIT.read_text().replace("/usr/local/bin/firstkeyd", "/bin/true")
                            .replace("User=firstkey", "User=daemon"))
            verified = subprocess.run([analyze, "verify", copy], text=True, capture_output=True,
                                      check=False)
            self.assertEqual((verified.returncode, verified.stderr), (0, ""))
            judged = subprocess.run([analyze, "security", "--offline=yes", copy], text=True,
                                    capture_output=True, check=False)
            exposure = re.search(r"exposure level for \S+: ([\d.]+)", judged.stdout)
            self.assertLessEqual(float(exposure.group(1)), 1.6, judged.stdout)
