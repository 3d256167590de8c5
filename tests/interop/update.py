"""New keys under the update key of AES DUKPT keys: what protects them, and who confirms them."""

from cryptography.hazmat.primitives.ciphers.algorithms import AES

from credential import Agreed
from dukpt import AesKeys, cmac
from protocol import counter_kdf


def update_keys(serving: AesKeys, counter: int, activation: str, nonce: bytes,
                new_key_id: bytes) -> Agreed:
    """The keys of an update, under the keys that serve and a counter of theirs."""
    source = AES(serving.key_derivation_key(counter))
    about = activation.encode() + b"\0" + nonce + new_key_id
    terminal, service = (
        counter_kdf(lambda data: cmac(source, data), f"firstkey/v1/update-{side}", about, 32)
        for side in ("terminal", "service"))
    return Agreed(serving.update_key(), terminal, service)
