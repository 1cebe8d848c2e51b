"""The result of an evaluation: one row per clip and method, means, JSON and Markdown."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from animaray.platform.storage import write_bytes_atomic, write_json_atomic

METRICS = ("l1", "psnr_db", "ssim", "csim", "dis")
_HEADS = {"l1": "L1", "psnr_db": "PSNR dB", "ssim": "SSIM", "csim": "CSIM", "dis": "Dis"}
_NOTE = """\
The first frame is the reference and is not measured.
L1 is in [0, 1] (papers print it in units of 1e-4). PSNR is without uint8 overflow (papers' PSNR*).
CSIM is the cosine to the reference face over frames that show a face; the others are counted under
"no face". Dis is the mean distance of aligned to true keypoints, in picture heights. "still
picture" repeats the reference: a method has to beat it. LPIPS and FVD need weights whose licences
do not allow shipping them and are not measured.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRow:
    """What one method made of one clip."""

    clip_id: str
    source: str
    """File name of the clip's source video."""
    method: str
    num_frames: int
    l1: float
    psnr_db: float
    ssim: float
    csim: float
    """nan when no frame shows a face."""
    num_without_face: int
    """Frames without a face; they are not in csim."""
    dis: float | None
    """None for methods without a pose."""
    seconds: float
    """Time to make it."""
    identity_by_source: dict[str, float]
    """Cosine to the mean identity of every source video of the set; nan without a face."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedClip:
    """A clip that could not be evaluated."""

    clip_id: str
    source: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationTable:
    """All rows, and what they were made with."""

    rows: tuple[EvaluationRow, ...]
    failed: tuple[FailedClip, ...]
    settings: dict[str, Any]
    """The resolved configuration."""

    def methods(self) -> list[str]:
        """Return the methods in the order of their first row."""
        return list(dict.fromkeys(row.method for row in self.rows))

    def mean(self, method: str, metric: str) -> float:
        """Return the mean of a metric over a method's clips that have it; nan when none has."""
        values = [getattr(row, metric) for row in self.rows if row.method == method]
        return _mean(value for value in values if value is not None)

    def rank_of_own_identity(self, method: str) -> list[int]:
        """Return, per clip with a face, how many identities are nearer than the right one, plus 1.

        1 means that the result looks most like the person it should show.
        """
        ranks = []
        for row in self.rows:
            own = row.identity_by_source.get(row.source, math.nan)
            if row.method == method and math.isfinite(own):
                ranks.append(1 + sum(value > own for value in row.identity_by_source.values()))
        return ranks

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; what is not a number becomes null."""
        means = {
            method: {metric: self.mean(method, metric) for metric in METRICS}
            for method in self.methods()
        }
        document = {
            "settings": self.settings,
            "means": means,
            "own_identity_ranks": {m: self.rank_of_own_identity(m) for m in self.methods()},
            "rows": [asdict(row) for row in self.rows],
            "failed": [asdict(clip) for clip in self.failed],
        }
        cleaned: dict[str, Any] = _without_nan(document)
        return cleaned

    def to_markdown(self) -> str:
        """Return the tables for people."""
        head = ["source", "clip", "method", *(_HEADS[m] for m in METRICS), "no face", "s"]
        lines = [_line(head), _line(["---"] * len(head))]
        for row in self.rows:
            values = [_text(getattr(row, metric), metric) for metric in METRICS]
            share = f"{row.num_without_face}/{row.num_frames}"
            lines.append(
                _line(
                    [row.source, row.clip_id[:8], row.method, *values, share, f"{row.seconds:.1f}"]
                )
            )
        for method in self.methods():
            values = [_text(self.mean(method, metric), metric) for metric in METRICS]
            lines.append(_line(["**mean**", "", method, *values, "", ""]))
        parts = ["# Evaluation", "", *lines, "", _NOTE]
        if self.failed:
            parts += ["Not evaluated:", ""]
            parts += [f"- {clip.source} ({clip.clip_id}): {clip.reason}" for clip in self.failed]
            parts.append("")
        return "\n".join([*parts, *self._identity_lines()])

    def one_line(self) -> str:
        """Return the means of the first method in one line."""
        if not self.rows:
            return f"no clip could be evaluated, {len(self.failed)} failed"
        method = self.methods()[0]
        num_clips = sum(row.method == method for row in self.rows)
        figures = ", ".join(
            f"{_HEADS[metric]} {_text(self.mean(method, metric), metric)}" for metric in METRICS
        )
        others = [
            f"CSIM {_text(self.mean(other, 'csim'), 'csim')} {other}"
            for other in self.methods()[1:]
        ]
        return "; ".join([f"{num_clips} clips {method}: {figures}", *others])

    def write(self, folder: Path) -> None:
        """Write evaluation.json and evaluation.md."""
        write_json_atomic(folder / "evaluation.json", self.to_dict())
        write_bytes_atomic(folder / "evaluation.md", (self.to_markdown() + "\n").encode())

    def _identity_lines(self) -> list[str]:
        sources = list(dict.fromkeys(s for row in self.rows for s in row.identity_by_source))
        if not sources:
            return []
        head = ["result", "method", *sources]
        lines = ["## Whom do the results look like?", ""]
        lines += ["Cosine to the mean identity of every source; the right one is bold.", ""]
        lines += [_line(head), _line(["---"] * len(head))]
        for row in self.rows:
            cells = []
            for source in sources:
                text = _text(row.identity_by_source.get(source), "csim")
                cells.append(f"**{text}**" if source == row.source else text)
            lines.append(_line([row.source, row.method, *cells]))
        return lines


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _text(value: float | None, metric: str) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.2f}" if metric == "psnr_db" else f"{value:.4f}"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
