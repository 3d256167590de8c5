"""What the unit's lines do, each tried on the real service, and beside it that it bites."""

import ctypes
import os
import platform
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import confine
from service import Service
from unit import allowed_calls, settings

AS_ROOT = os.geteuid() == 0
NATIVE = platform.machine() == "x86_64"


def in_child(confining, attempt) -> int:
    """The exit status of an attempt that is made under the same confinement."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            confining()
            status = attempt()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def errno_of(call) -> int:
    """The error of a call of the C library; 0 if it succeeds."""
    ctypes.set_errno(0)
    return ctypes.get_errno() if call() == -1 else 0


@unittest.skipUnless(AS_ROOT, "NOT RUN: confining a service takes root")
class Effects(unittest.TestCase):
    def test_it_runs_with_every_mount_read_only_but_its_own(self) -> None:
        with Service(confine.read_only_but) as service:
            service.transaction()
            mounts = Path(f"/proc/{service.process.pid}/mountinfo").read_text().splitlines()
            options = {line.split()[4]: line.split()[5].split(",") for line in mounts}
            self.assertIn("ro", options["/"])
            self.assertIn("rw", options[str(service.state)])
            self.assertEqual(service.stop(), 0)

        def writes() -> int:
            try:
                Path("/var/tmp/firstkey-must-not-be").touch()
            except OSError as error:
                return error.errno
            return 0
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            status = in_child(lambda: confine.read_only_but(Path(folder)), writes)
        self.assertEqual(status, 30, "a write elsewhere must fail: EROFS")

    def test_it_writes_nowhere_but_below_its_folder(self) -> None:
        trace = tempfile.NamedTemporaryFile(suffix=".strace", dir="/var/tmp")
        try:
            subprocess.run(["strace", "-V"], capture_output=True, check=True)
        except FileNotFoundError:
            self.skipTest("NOT RUN: strace is not here")
        with Service() as service:
            service.url()
            tracer = subprocess.Popen(["strace", "-f", "-qq", "-e", "trace=openat,open,creat,mkdir,"
                                       "mkdirat,rename,renameat,renameat2,unlink,unlinkat,symlink,"
                                       "link,linkat,symlinkat", "-o", trace.name, "-p",
                                       str(service.process.pid)], stderr=subprocess.DEVNULL)
            time.sleep(1)
            service.transaction()
            state = str(service.state)
            service.stop()
            tracer.wait(timeout=30)
            calls = Path(trace.name).read_text().splitlines()
        self.assertTrue(any(state in call for call in calls), "the tracer saw the store")
        changing = [call for call in calls if "O_RDONLY" not in call and "openat" in call
                    or not any(name in call for name in ("openat", "+++", "---"))]
        self.assertEqual([call for call in changing if state not in call], [])

    def test_it_runs_as_nobody_without_privileges_and_within_its_limits(self) -> None:
        def confined(_: Path) -> None:
            confine.limits(0, 1024 * 1024, 16384)
            confine.unprivileged()
        with Service(confined, owner=confine.USER) as service:
            service.transaction()
            limits = Path(f"/proc/{service.process.pid}/limits").read_text()
            self.assertRegex(limits, r"Max core file size +0 +0 ")
            self.assertRegex(limits, r"Max locked memory +1048576 +1048576 ")
            self.assertRegex(limits, r"Max open files +16384 +16384 ")
            status = Path(f"/proc/{service.process.pid}/status").read_text()
            self.assertRegex(status, r"NoNewPrivs:\t1\n")
            self.assertRegex(status, r"CapEff:\t0+\n")
            self.assertRegex(status, r"CapBnd:\t0+\n")
            self.assertRegex(status, r"Uid:\t65534\t65534\t65534\t65534\n")
            files = [path for path in service.state.rglob("*") if path.is_file()]
            self.assertTrue(files)
            for path in files:
                self.assertEqual(path.stat().st_mode & 0o777, 0o600, path)
            self.assertEqual(service.stop(), 0)

    def test_without_locked_memory_and_secret_pages_it_does_not_start(self) -> None:
        def confined(_: Path) -> None:
            confine.limits(0, 0, 16384)
            confine.unprivileged()
            calls = set(confine.numbers()) - {"memfd_secret"}
            confine.system_calls(calls)
        with Service(confined, owner=confine.USER) as service:
            self.assertNotEqual(service.process.wait(timeout=60), 0)
            service._reader.join(10)
            self.assertIsNone(service.logged("serving"))
            self.assertIn("RLIMIT_MEMLOCK", "".join(service.log))

    def test_it_serves_within_its_memory_and_tasks_and_more_of_either_is_not_given(self) -> None:
        def hoards() -> int:
            bytearray(os.urandom(1) * (64 << 20))
            return 0

        def forks() -> int:
            return errno_of(lambda: ctypes.CDLL(None, use_errno=True).fork())

        def confined(memory: int, tasks: int, attempt) -> int:
            group = self.control_group(memory, tasks)
            try:
                return attempt(group)
            finally:
                group.remove()

        def serves(group: confine.ControlGroup) -> int:
            with Service(lambda _: group.enter()) as service:
                service.transaction()
                return service.stop()

        memory, tasks = settings()["MemoryMax"], settings()["TasksMax"]
        self.assertEqual((memory, tasks), (["2G"], ["1024"]))
        self.assertEqual(confined(2 << 30, 1024, serves), 0)
        small = confined(32 << 20, 1024, lambda group: in_child(group.enter, hoards))
        self.assertEqual(small, -signal.SIGKILL, "more memory than it may have ends it")
        alone = confined(2 << 30, 1, lambda group: in_child(group.enter, forks))
        self.assertEqual(alone, 11, "no task more than it may have: EAGAIN")

    def control_group(self, memory: int, tasks: int) -> confine.ControlGroup:
        try:
            return confine.ControlGroup(memory, tasks)
        except (OSError, StopIteration):
            self.skipTest("NOT RUN: no control groups for memory and tasks to write here")

    def test_few_descriptors_do_not_end_it(self) -> None:
        with Service(lambda _: confine.limits(0, 1024 * 1024, 64)) as service:
            address = service.url().removeprefix("http://").rsplit(":", 1)
            many = []
            for _ in range(100):
                try:
                    many.append(socket.create_connection((address[0], int(address[1])), timeout=1))
                except OSError:
                    break
            for one in many:
                one.close()
            time.sleep(1)
            service.transaction()
            self.assertEqual(service.stop(), 0)

    @unittest.skipUnless(NATIVE, "NOT RUN: the filter is made for x86-64")
    def test_it_runs_under_the_filter_and_what_the_filter_denies_fails(self) -> None:
        def confined(_: Path | None = None) -> None:
            confine.limits(0, 1024 * 1024, 16384)
            confine.unprivileged()
            confine.system_calls(allowed_calls())
        with Service(confined, owner=confine.USER) as service:
            service.transaction()
            protections = service.protections()
            needed = {"capabilities_dropped", "core_files_off", "dumpable_off", "locked_memory",
                      "no_new_privileges", "system_calls_filtered", "umask_private"}
            self.assertEqual({name for name in needed if not protections[name]}, set())
            self.assertEqual(service.stop(), 0)

        calls, libc = confine.numbers(), confine.LIBC
        for name in ("ptrace", "process_vm_readv", "bpf", "mount", "unshare", "io_uring_setup",
                     "userfaultfd", "keyctl", "perf_event_open", "kexec_load", "setuid"):
            status = in_child(confined, lambda name=name: errno_of(
                lambda: libc.syscall(calls[name], 0, 0, 0, 0, 0)))
            self.assertEqual(status, confine.EPERM, name)
        for arguments in ((calls["mmap"], 0, 4096, 7, 0x22, -1, 0),
                          (calls["mprotect"], 0x1000, 4096, 5)):
            status = in_child(confined, lambda arguments=arguments: errno_of(
                lambda: libc.syscall(*arguments)))
            self.assertEqual(status, confine.EPERM, "memory must not become executable")

    @unittest.skipUnless(NATIVE, "NOT RUN: the filter is made for x86-64")
    def test_without_random_numbers_it_does_not_start(self) -> None:
        def confined(_: Path) -> None:
            confine.unprivileged()
            confine.system_calls(set(confine.numbers()), {"getrandom": confine.EIO})
        with Service(confined, owner=confine.USER) as service:
            self.assertNotEqual(service.process.wait(timeout=60), 0)
            service._reader.join(10)
            self.assertIsNone(service.logged("serving"))


class Supervision(unittest.TestCase):
    def test_systemd_is_told_when_it_is_ready_alive_and_stopping(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            place = f"{folder}/notify"
            told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            told.bind(place)
            told.settimeout(60)
            environment = {"NOTIFY_SOCKET": place, "WATCHDOG_USEC": "600000"}
            with Service(environment=environment) as service:
                first, alive = b"", 0
                while b"READY=1\n" not in first or b"STATUS=serving\n" not in first or alive < 3:
                    said = told.recv(4096)
                    alive += said == b"WATCHDOG=1\n"
                    first += said
                service.process.terminate()
                said = b""
                while b"STOPPING=1\n" not in said:
                    said = told.recv(4096)
                self.assertIn(b"STATUS=draining", said)
                self.assertEqual(service.process.wait(timeout=60), 0)

    def test_the_first_signal_waits_for_what_is_in_flight_and_the_second_does_not(self) -> None:
        with Service() as service:
            host, port = service.url().removeprefix("http://").rsplit(":", 1)
            with socket.create_connection((host, int(port))) as line:
                line.sendall(unfinished_call())
                time.sleep(0.5)
                service.process.send_signal(signal.SIGTERM)
                time.sleep(1.5)
                self.assertIsNone(service.process.poll(), "it waits for the call")
                service.process.send_signal(signal.SIGTERM)
                self.assertEqual(service.process.wait(timeout=5), 1)
            self.assertIsNotNone(service.logged("draining: no new calls, those in flight may end"))


def unfinished_call() -> bytes:
    """The beginning of HTTP/2 and of a call whose message does not come (RFC 9113, RFC 7541)."""
    fields = [(":method", "POST"), (":scheme", "http"), (":authority", "localhost"),
              (":path", "/firstkey.v1.KeyService/GetKey"), ("content-type", "application/grpc"),
              ("te", "trailers")]
    block = b"".join(
        b"\x00" + b"".join(bytes([len(text)]) + text.encode() for text in field)
        for field in fields)

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags])
        return head + struct.pack(">I", stream) + payload
    begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    return begin + frame(4, 0, 0, b"") + frame(1, 4, 1, block)
