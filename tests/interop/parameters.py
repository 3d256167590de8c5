"""The parameter file that a terminal applies."""

import re
from dataclasses import dataclass

from answers import Refused
from stubs import payload

# Each key's value, in the order of the file, as `ParametersAnswer` says.
NUMBER = "[1-9][0-9]{0,11}"
FORMS = {
    "version": NUMBER,
    "acquirer_id": "[A-Za-z0-9-]{1,32}",
    "merchant_id": "[A-Za-z0-9]{1,15}",
    "merchant_name": r"[^\s].{0,38}[^\s]|[^\s]",
    "terminal_id": "[A-Za-z0-9]{8}",
    "currency": "[A-Z]{3}",
    "single_limit_minor": NUMBER,
    "daily_limit_minor": NUMBER,
}


@dataclass(frozen=True)
class Parameters:
    """A parameter file, read."""

    version: int
    acquirer_id: str
    merchant_id: str
    merchant_name: str
    terminal_id: str
    currency: str
    single_limit_minor: int
    daily_limit_minor: int


def read_parameters(file: bytes) -> Parameters:
    """Reads a file whole: every line once, in its order, in its form. Raises Refused."""
    lines = "".join(f"{name}=({form})\n" for name, form in FORMS.items())
    try:
        found = re.fullmatch(lines, file.decode())
    except UnicodeDecodeError as error:
        raise Refused(payload.FAULT_PARAMETERS) from error
    if found is None or len(file) > 4096 or not found[4].isprintable():
        raise Refused(payload.FAULT_PARAMETERS)
    numbers = {name: int(value) for name, value in zip(FORMS, found.groups(), strict=True)
               if FORMS[name] is NUMBER}
    read = Parameters(**{**dict(zip(FORMS, found.groups(), strict=True)), **numbers})
    if read.version >= 1 << 32 or read.daily_limit_minor < read.single_limit_minor:
        raise Refused(payload.FAULT_PARAMETERS)
    return read
