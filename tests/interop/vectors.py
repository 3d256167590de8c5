"""The project's test vectors, which other programs made: `tests/vectors/`."""

import json
from typing import Any

from stubs import ROOT


def vectors(file: str, **fields: str) -> list[dict[str, Any]]:
    """The vectors of a file that have these fields; there are some."""
    every = json.loads((ROOT / "tests" / "vectors" / file).read_text())["vectors"]
    chosen = [vector for vector in every if fields.items() <= vector.items()]
    if not chosen:
        raise LookupError(f"{file} has no vectors of {fields}")
    return chosen


def results(file: str, **fields: str) -> list[dict[str, Any]]:
    """Those that have a result."""
    return [vector for vector in vectors(file, **fields) if not is_refused(vector)]


def is_refused(vector: dict[str, Any]) -> bool:
    """Whether the input of a vector must be refused."""
    return isinstance(vector["expect"], str) and vector["expect"].startswith("error:")
