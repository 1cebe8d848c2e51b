"""Files of your own in the place of registered ones, as `own_weights.json` beside them says.

A registered file of another size is refused, since it is usually damaged. Whoever uses another
conversion or a network of their own says so in the folder that `ANIMARAY_WEIGHTS` names:

    {"paper/pose": {"note": "my half precision conversion", "size_bytes": 67199558}}

Size and SHA-256 are checked where they are stated; the note appears in `animaray weights list`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from animaray.platform.errors import DatasetError, WeightsError
from animaray.platform.storage import read_json, write_json_atomic

OWN_WEIGHTS_FILE = "own_weights.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnFile:
    """What the owner of a file says about it."""

    note: str
    """What it is, for people."""
    size_bytes: int | None = None
    """Its size; None takes any."""
    sha256: str | None = None
    """Its SHA-256 in hexadecimal; None takes any."""


def own_file(folder: Path, weights_id: str) -> OwnFile | None:
    """Return what a folder's owner says about one of its files, or None.

    Args:
        folder: The one of ANIMARAY_WEIGHTS.
        weights_id: A key of the registry.

    Raises:
        WeightsError: own_weights.json is no JSON of the right form.
    """
    place = folder / OWN_WEIGHTS_FILE
    if not place.is_file():
        return None
    try:
        facts: Any = read_json(place)
        found = facts.get(weights_id)
        return None if found is None else OwnFile(**found)
    except (DatasetError, AttributeError, TypeError) as error:
        raise WeightsError(
            f"{place} cannot be used: {error}.",
            fix='Expected {"ID": {"note": "what it is", "size_bytes": 1, "sha256": "..."}}, the '
            "last two as you like.",
            reason="damaged",
        ) from error


def write_own_weights(folder: Path, files: Mapping[str, OwnFile]) -> None:
    """Write a folder's own_weights.json.

    Args:
        files: By id of the registry.
    """
    facts = {
        name: {
            "note": file.note,
            **({} if file.size_bytes is None else {"size_bytes": file.size_bytes}),
            **({} if file.sha256 is None else {"sha256": file.sha256}),
        }
        for name, file in files.items()
    }
    write_json_atomic(folder / OWN_WEIGHTS_FILE, facts)
