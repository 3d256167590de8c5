"""What a terminal proves itself with, and what a session gives it: the same for every kind."""

from typing import NamedTuple, Protocol

from google.protobuf.message import Message

from protocol import Transcript


class Agreed(NamedTuple):
    """The keys of a session: key block protection, and those of each side's MACs."""

    protection: bytes
    terminal: bytes
    service: bytes


class Session(Protocol):
    """One session, from the answer to Begin on."""

    def prove(self, covered: bytes) -> bytes:
        """The proof that Deliver carries."""

    def verify(self, covered: bytes, proof: bytes) -> None:
        """Verifies the proof of BeginAnswer or DeliverAnswer. Raises Refused."""

    def offer(self) -> bytes:
        """The ephemeral public key for the next Deliver; empty where there is none."""

    def agree(self, answered: Message, delivered: Transcript) -> Agreed:
        """The keys of DeliverAnswer and of the transcript through Deliver. Raises Refused."""


class Credential(Protocol):
    """A device certificate with its key, or a master key."""

    serial: str
    certificate_chain: list[bytes]
    block_version: str

    def prove(self, covered: bytes) -> bytes:
        """The proof that Begin carries, and a report before the keys are confirmed."""

    def session(self, answered: Message, begun: Transcript) -> Session:
        """The session that BeginAnswer opens, with the transcript through it. Raises Refused."""
