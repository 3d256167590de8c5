"""The audit log, verified twice: by this folder's own verifier and by `firstkey audit verify`."""

import json
import subprocess
import tempfile
import unittest
import uuid
from pathlib import Path
from typing import Any

import auditlog
import service
from auditlog import NotVerified
from stubs import BUILD, audit, audit_grpc, keys, keys_grpc

# How many events are written between two checkpoints.
EVENTS = 25


class AuditLog(unittest.TestCase):
    """An export of a running service with an older and a newer checkpoint, and copies of it that
    were tampered with."""

    @classmethod
    def setUpClass(cls) -> None:
        channel = service.running().channel
        cls.stub = audit_grpc.AuditServiceStub(channel)
        cls.keys = keys_grpc.KeyServiceStub(channel)
        cls.write()
        older = cls.stub.GetCheckpoint(audit.GetCheckpointRequest())
        cls.write()
        cls.lines: list[bytes] = []
        for message in cls.stub.ExportEvents(audit.ExportEventsRequest()):
            cls.lines += [event.encode() for event in message.events]
        # The last message holds no event but the checkpoint.
        cls.note, cls.key_text = message.checkpoint, message.verifier_key
        cls.older_note = older.checkpoint
        cls.key = auditlog.Key.parse(cls.key_text)
        cls.checkpoint = auditlog.open_checkpoint(cls.note, cls.key)
        cls.older = auditlog.open_checkpoint(cls.older_note, cls.key)
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))

    @classmethod
    def write(cls) -> None:
        """Lets some events be written: refusals and successes, of text that JSON escapes too."""
        for number in range(EVENTS):
            cls.keys.ListKeys(keys.ListKeysRequest(page_size=1 + number % 3))

    def by_tool(self, lines: list[bytes], *more: Path, key: str | None = None) -> dict[str, Any]:
        """What `firstkey audit verify` says; with checkpoints: the newer, the older."""
        export = self.file("export.jsonl", b"".join(line + b"\n" for line in lines))
        flags = [part for flag, path in zip(("--checkpoint", "--against"), more, strict=False)
                 for part in (flag, path)]
        done = subprocess.run(
            [BUILD / "debug" / "firstkey", "--output", "json", "audit", "verify", export, *flags,
             "--key", key or self.key_text],
            capture_output=True, text=True, timeout=60, check=False)
        said = json.loads(done.stdout)
        self.assertEqual(done.returncode, 0 if said["verified"] else 6, done.stderr)
        return said

    def file(self, name: str, content: bytes) -> Path:
        path = self.folder / f"{uuid.uuid4()}-{name}"
        path.write_bytes(content)
        return path

    def note_file(self, note: str) -> Path:
        return self.file("note", note.encode())

    def expect(self, fault: str, event: int, lines: list[bytes], *,
               note: str | None = None, against: str | None = None) -> None:
        """Both verifiers find this fault at this event."""
        notes = [note or self.note] + ([against] if against else [])
        opened = [auditlog.open_checkpoint(one, self.key) for one in notes]
        with self.assertRaises(NotVerified) as found:
            auditlog.verify(lines, *opened)
        self.assertEqual((found.exception.fault, found.exception.event), (fault, event))
        said = self.by_tool(lines, *[self.note_file(one) for one in notes])
        self.assertEqual((said["fault"], said["event"]), (fault, event), said["message"])

    def test_the_log_of_a_service_verifies(self) -> None:
        self.assertEqual(self.checkpoint.size, len(self.lines))
        self.assertGreater(self.checkpoint.size, self.older.size)
        auditlog.verify(self.lines, self.checkpoint, self.older)
        said = self.by_tool(self.lines, self.note_file(self.note), self.note_file(self.older_note))
        self.assertEqual(said["events"], len(self.lines))
        self.assertEqual(said["covered"], len(self.lines))
        self.assertEqual(said["root"], auditlog.tree_hash(self.lines).hex())

    def test_a_deleted_event_is_found(self) -> None:
        for place in (1, 2, 17, len(self.lines) - 1):
            self.expect("deleted", place, self.lines[:place - 1] + self.lines[place:])

    def test_an_edited_event_is_found(self) -> None:
        for place in (1, 2, 17, len(self.lines) - 1):
            for member, value in (("caller", "nobody"), ("time", 1), ("prev", "f" * 64)):
                event = json.loads(self.lines[place - 1]) | {member: value}
                edited = self.lines.copy()
                edited[place - 1] = auditlog.encode(event)
                self.expect("edited", place, edited)
            for wrong in (b" " + self.lines[place - 1], b"{}", b"[]", b""):
                edited = self.lines.copy()
                edited[place - 1] = wrong
                self.expect("edited", place, edited)

    def test_swapped_events_are_found(self) -> None:
        for place, other in ((1, 2), (17, 18), (3, len(self.lines))):
            swapped = self.lines.copy()
            swapped[place - 1], swapped[other - 1] = swapped[other - 1], swapped[place - 1]
            self.expect("swapped", place, swapped)
        self.expect("swapped", 18, self.lines[:17] + self.lines[16:])

    def test_a_log_that_was_cut_is_found_by_its_checkpoint_alone(self) -> None:
        for length in (0, 1, 17, len(self.lines) - 1):
            self.expect("cut", length + 1, self.lines[:length])
            auditlog.verify(self.lines[:length])
            self.assertTrue(self.by_tool(self.lines[:length])["verified"])

    def test_a_fork_is_found_and_how_far_the_log_is_vouched_for(self) -> None:
        begin = self.older.size + 3
        forked = self.lines[:begin - 1]
        for line in self.lines[begin - 1:]:
            prev = auditlog.hashlib.sha256(forked[-1]).hexdigest()
            event = json.loads(line) | {"prev": prev, "caller": "somebody else"}
            forked.append(auditlog.encode(event))
        auditlog.verify(forked)
        self.assertTrue(self.by_tool(forked)["verified"], "a chain by itself")
        self.expect("forked", 1, forked)
        self.expect("forked", self.older.size + 1, forked, against=self.older_note)

    def test_a_log_that_was_set_back_is_found(self) -> None:
        self.expect("rolled_back", self.older.size + 1, self.lines[:self.older.size],
                    note=self.older_note, against=self.note)

    def test_a_checkpoint_of_nobody_is_not_believed(self) -> None:
        size = str(self.checkpoint.size)
        forged = self.note.replace(f"\n{size}\n", f"\n{int(size) - 1}\n")
        with self.assertRaises(NotVerified):
            auditlog.open_checkpoint(forged, self.key)
        said = self.by_tool(self.lines, self.note_file(forged))
        self.assertEqual((said["verified"], said["event"]), (False, None))
        other = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
        with self.assertRaises(NotVerified):
            auditlog.open_checkpoint(self.note, auditlog.Key.parse(other))
        self.assertFalse(self.by_tool(self.lines, self.note_file(self.note), key=other)["verified"])

    def test_every_event_is_proven_to_be_in_the_log(self) -> None:
        size, root = self.checkpoint.size, self.checkpoint.root
        for sequence in (1, 2, 17, self.older.size, size - 1, size):
            proof = self.stub.ProveInclusion(
                audit.ProveInclusionRequest(sequence=sequence, size=size))
            leaf, hashes = self.lines[sequence - 1], list(proof.hashes)
            self.assertEqual((proof.leaf_hash, proof.root), (auditlog.leaf_hash(leaf), root))
            self.assertTrue(auditlog.inclusion_holds(leaf, sequence - 1, size, hashes, root))
            self.assertFalse(auditlog.inclusion_holds(b"{}", sequence - 1, size, hashes, root))
            self.assertFalse(auditlog.inclusion_holds(leaf, sequence, size, hashes, root))

    def test_every_tree_is_proven_to_begin_with_the_smaller_ones(self) -> None:
        size, root = self.checkpoint.size, self.checkpoint.root
        for first in (1, 2, 16, 17, self.older.size, size - 1, size):
            proof = self.stub.ProveConsistency(
                audit.ProveConsistencyRequest(first=first, second=size))
            smaller = (first, auditlog.tree_hash(self.lines[:first]))
            self.assertEqual((proof.first_root, proof.second_root), (smaller[1], root))
            hashes = list(proof.hashes)
            self.assertTrue(auditlog.consistency_holds(smaller, (size, root), hashes))
            forked = (first, bytes(32))
            self.assertFalse(auditlog.consistency_holds(forked, (size, root), hashes))

    def test_the_published_example_of_a_signed_note_is_read(self) -> None:
        # C2SP signed-note: its example, which is no checkpoint.
        key = auditlog.Key.parse(
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
        signature = ("Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYj"
                     "OBH3mFXmRKuwHjG1Yu72IneyaQM=")
        value = auditlog.base64.b64decode(signature)
        self.assertEqual(value[:4], key.id)
        key.public.verify(value[4:], b"This is an example message.\n")


if __name__ == "__main__":
    unittest.main()
