"""One golden vector: a folder of settings, tensors and weights, and how far ours are from it.

A folder holds `config.json` (settings, tolerances, the list of tensors), `io.safetensors` (inputs
and expected outputs) and, where weights are needed, `state_dict.safetensors` (stored as float16,
used as float32). Every tensor must be read as an input or compared; one that is neither fails.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from animaray.platform.errors import DatasetError

CONFIG_FILE = "config.json"
TENSORS_FILE = "io.safetensors"
WEIGHTS_FILE = "state_dict.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One comparison."""

    vector: str
    """Folder."""
    name: str
    """Tensor, or what was compared."""
    deviation: float | None
    """Largest absolute deviation; None where no number says it."""
    tolerance: str
    """What is allowed, in words."""
    used_share: float | None
    """Largest deviation as a share of what is allowed there; above 1 fails."""
    passed: bool
    """Within the tolerance."""
    note: str = ""
    """What to know about it."""


class GoldenVector:
    """A folder that was read, and the checks made on it."""

    def __init__(self, folder: Path) -> None:
        """Read settings and tensors.

        Raises:
            DatasetError: A file is missing or broken, or tensors differ from the list of them.
        """
        self.folder = folder
        self.name = folder.name
        self.config = read_json(folder / CONFIG_FILE)
        self.checks: list[Check] = []
        self._tensors = read_tensors(folder / TENSORS_FILE) if self._has(TENSORS_FILE) else {}
        self._open = set(self._tensors)
        self._compare_with_list()

    def _has(self, file: str) -> bool:
        return (self.folder / file).is_file()

    def _compare_with_list(self) -> None:
        listed = self.config.get("tensors", {})
        if not isinstance(listed, dict):
            raise self.broken("`tensors` in config.json must map each name to [dtype, shape]")
        for name, entry in listed.items():
            tensor = self._tensors.get(name)
            if tensor is None:
                raise self.broken(f"tensor `{name}` is listed in config.json but not stored")
            got = [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
            if got != entry:
                raise self.broken(f"tensor `{name}` should be {entry}, but is {got}")

    def broken(self, what: str) -> DatasetError:
        """Return the error that says what is wrong with this folder."""
        return DatasetError(
            f"Golden vector {self.folder}: {what}.",
            fix="Restore the folder, or remove it from the folder to verify.",
            reason="golden_vector",
        )

    def setting(self, *path: str) -> Any:  # noqa: ANN401 - JSON
        """Return a value of config.json by its keys.

        Raises:
            DatasetError: It is absent.
        """
        value: Any = self.config
        for key in path:
            if not isinstance(value, dict) or key not in value:
                raise self.broken(f"setting `{'.'.join(path)}` is missing in config.json")
            value = value[key]
        return value

    def tolerance(self, key: str) -> float:
        """Return a tolerance; one that is absent or no number raises DatasetError."""
        value = self.setting("tol", key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.broken(f"tolerance `{key}` must be a number, got {value!r}")
        return float(value)

    def names(self, pattern: str) -> Iterator[re.Match[str]]:
        """Yield the matches of tensors whose whole name fits a pattern, in stored order."""
        matches = (re.fullmatch(pattern, name) for name in self._tensors)
        return (match for match in matches if match is not None)

    def has(self, name: str) -> bool:
        """Return whether a tensor is stored."""
        return name in self._tensors

    def tensor(self, name: str) -> Tensor:
        """Return a stored tensor and count it as used.

        Raises:
            DatasetError: It is absent.
        """
        if name not in self._tensors:
            raise self.broken(f"tensor `{name}` is missing")
        self._open.discard(name)
        return self._tensors[name]

    def weights(self, prefix: str = "", *, file: Path | None = None) -> dict[str, Tensor]:
        """Return weights in float32, those below a prefix without it.

        Args:
            prefix: Beginning of the wanted keys.
            file: Another folder's weights; None takes this folder's.

        Raises:
            DatasetError: The file is missing or has no such key.
        """
        stored = read_tensors(file or self.folder / WEIGHTS_FILE)
        chosen = {
            key.removeprefix(prefix): value.float() if value.is_floating_point() else value
            for key, value in stored.items()
            if key.startswith(prefix)
        }
        if not chosen:
            raise self.broken(f"no weights begin with `{prefix}`")
        return chosen

    def has_weights(self, prefix: str) -> bool:
        """Return whether weights below a prefix are stored in this folder."""
        if not self._has(WEIGHTS_FILE):
            return False
        return any(key.startswith(prefix) for key in read_tensors(self.folder / WEIGHTS_FILE))

    def weights_of(self, part: str) -> dict[str, Tensor]:
        """Return the weights of a network, wherever the settings say they lie.

        The setting `<part>_state_dict` is "path" or "path, prefix <prefix>" relative to this
        folder; without it they are this folder's own below `<part>.`.
        """
        settings = self.config.get("config", {})
        place = settings.get(f"{part}_state_dict")
        if place is None:
            return self.weights(f"{part}.")
        path, _, prefix = str(place).partition(", prefix ")
        return self.weights(prefix, file=self.folder / path)

    def load(self, network: nn.Module, weights: dict[str, Tensor]) -> None:
        """Load weights strictly.

        Raises:
            DatasetError: Keys or shapes differ from the network's.
        """
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            lines = str(error).splitlines()
            raise self.broken(f"weights do not fit {lines[0]} {' '.join(lines[1:3])}") from error

    def close(
        self,
        name: str,
        ours: Tensor | np.ndarray | float,
        *,
        atol: float | None = None,
        rtol: float | None = None,
        note: str = "",
    ) -> None:
        """Compare with a stored tensor: |ours - theirs| <= atol + rtol |theirs|, everywhere.

        Args:
            atol: Absolute tolerance; with `rtol` also None both come from the settings.
            note: What to know about it.
        """
        if atol is None and rtol is None:
            atol, rtol = self.tolerance("atol"), self.tolerance("rtol")
        self.compare(name, ours, self.tensor(name), atol=atol or 0.0, rtol=rtol or 0.0, note=note)

    def compare(
        self,
        name: str,
        ours: Tensor | np.ndarray | float,
        expected: Tensor | np.ndarray,
        *,
        atol: float,
        rtol: float = 0.0,
        note: str = "",
    ) -> None:
        """Compare with something that is not one stored tensor; arguments as for `close`."""
        got = torch.as_tensor(ours).detach().double()
        wanted = torch.as_tensor(expected).double()
        words = _words(atol, rtol)
        if got.shape != wanted.shape:
            shapes = f"shape {tuple(got.shape)} instead of {tuple(wanted.shape)}"
            self.add(name, passed=False, tolerance=words, note=shapes)
            return
        spacing = _spacing(expected)
        deviation, share = _deviation(got, wanted, atol, rtol, spacing)
        passed = share <= 1
        self.add(
            name, passed=passed, tolerance=words, deviation=deviation, used_share=share, note=note
        )

    def add(
        self,
        name: str,
        *,
        passed: bool,
        tolerance: str,
        deviation: float | None = None,
        used_share: float | None = None,
        note: str = "",
    ) -> None:
        """Record a comparison."""
        self.checks.append(
            Check(
                vector=self.name,
                name=name,
                deviation=deviation,
                tolerance=tolerance,
                used_share=used_share,
                passed=passed,
                note=note,
            )
        )

    def unused(self) -> list[str]:
        """Return the stored tensors that were neither used nor compared yet."""
        return sorted(self._open)

    def close_books(self) -> None:
        """Record a failure for each tensor that was neither used nor compared."""
        for name in self.unused():
            self.add(
                name,
                passed=False,
                tolerance="must be compared",
                note="nothing of ours is compared with it: unknown tensor of this kind",
            )


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        DatasetError: The file is missing, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"Expected a JSON object in {path}: {error}.", reason="golden_vector"
        ) from error
    if not isinstance(value, dict):
        raise DatasetError(
            f"Expected a JSON object in {path}, got a {type(value).__name__}.",
            reason="golden_vector",
        )
    return value


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        DatasetError: The file is missing or broken.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DatasetError(
            f"Expected tensors in {path}: {error}.", reason="golden_vector"
        ) from error


def _words(atol: float, rtol: float) -> str:
    if atol == 0 and rtol == 0:
        return "exact"
    parts = [f"{atol:g}"] if atol else []
    return " + ".join([*parts, f"{rtol:g} |x|"] if rtol else parts)


def _spacing(expected: Tensor | np.ndarray) -> Tensor | float:
    """Return the gap between neighbouring numbers where a tensor is stored as float16, else 0."""
    stored = torch.as_tensor(expected)
    if stored.dtype != torch.float16:
        return 0.0
    infinity = torch.full_like(stored, math.inf)
    return (torch.nextafter(stored.abs(), infinity) - stored.abs()).double()


def _deviation(
    got: Tensor, wanted: Tensor, atol: float, rtol: float, spacing: Tensor | float = 0.0
) -> tuple[float, float]:
    """Return the largest deviation, and the largest one as a share of what is allowed there.

    What was rounded to float16 for storage may have been anything within half the spacing.
    """
    if got.numel() == 0:
        return 0.0, 0.0
    deviation = ((got - wanted).abs() - spacing / 2).clamp_min(0.0)
    # Equal infinities differ by nothing; anything else that is not finite fails.
    deviation = torch.where(got == wanted, torch.zeros_like(deviation), deviation)
    deviation = deviation.nan_to_num(nan=math.inf)
    allowed = atol + rtol * wanted.abs()
    share = torch.where(deviation > 0, deviation / allowed, torch.zeros_like(deviation))
    return float(deviation.max()), float(share.nan_to_num(nan=math.inf).max())
