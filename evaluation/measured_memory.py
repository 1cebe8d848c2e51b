"""Peaks of memory that were measured, to be believed before any estimate.

The shipped table is `measured_memory.json`; benchmarks/costs/full_size_gpu.py writes more rows
of the same form on a machine with a GPU.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from animaray.platform.errors import DatasetError, UsageError
from animaray.platform.storage import read_json, write_json_atomic

SHIPPED = Path(__file__).with_name("measured_memory.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredPeak:
    """One run of the published model at full size."""

    work: Literal["animation", "training"]
    """What ran."""
    width_px: int
    """Of the frames."""
    height_px: int
    """Of the frames."""
    num_frames: int
    """Of the clip, or of a training window."""
    mode: str
    """Of face optimization; of a training what is recomputed: none, spatial, all."""
    precision: str
    """float32 or bf16, of the arithmetic."""
    num_workers: int = 1
    """GPUs of the training."""
    peak_bytes: int
    """Of one of them."""
    on: str
    """Machine and date, for people."""

    def is_of(self, **facts: object) -> bool:
        """Return whether all these facts hold of the run."""
        return all(getattr(self, name) == value for name, value in facts.items())


def read_measured(files: Sequence[Path] = ()) -> list[MeasuredPeak]:
    """Return the shipped rows, and those of files, which come first.

    Raises:
        UsageError: A file is not of this form.
    """
    rows: list[MeasuredPeak] = []
    for file in (*files, SHIPPED):
        try:
            document: Any = read_json(file)
            rows += [MeasuredPeak(**row) for row in document["rows"]]
        except (DatasetError, KeyError, TypeError) as error:
            raise UsageError(
                f"{file} is no table of measured peaks: {error}.",
                fix="Pass a file that benchmarks/costs/full_size_gpu.py wrote.",
            ) from error
    return rows


def write_measured(file: Path, rows: Sequence[MeasuredPeak]) -> None:
    """Write a table of measured peaks."""
    write_json_atomic(file, {"schema_version": 1, "rows": [asdict(row) for row in rows]})
