"""Figures of the report pages: curves, bars, overlays and side-by-side frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from animaray.models.pose.further_points import HasPose
from animaray.models.pose.layouts import (
    FACE,
    HAND_EDGES,
    LEFT_HAND,
    LIMBS,
    RIGHT_HAND,
    VISIBLE_CONFIDENCE,
)

BLUE = "#2f6fde"
ORANGE = "#d9822b"
GREY = "#8a8f98"
_COLORS = (BLUE, ORANGE, GREY, "#3a9d5d", "#9b59b6", "#c0392b")
LABEL_HEIGHT_PX = 26

mpl.rcParams["svg.fonttype"] = "none"


def _figure(width_in: float, height_in: float) -> Figure:
    return Figure(figsize=(width_in, height_in), layout="constrained")


def save_loss_curve(path: Path, points: Sequence[tuple[int, float]], *, unit: str) -> None:
    """Draw loss over steps as SVG: every logged value faint, the running mean strong."""
    figure = _figure(6.4, 2.8)
    axes = figure.add_subplot()
    _draw_curve(axes, points, color=BLUE)
    _label_steps(axes, unit)
    figure.savefig(path, format="svg", transparent=True)


def save_curves(
    path: Path, groups: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]
) -> None:
    """Draw what a run measured: one panel for each group of series; the suffix is the format."""
    figure = _figure(7.2, 2.4 * len(groups))
    for place, (group, series) in enumerate(groups.items(), start=1):
        axes = figure.add_subplot(len(groups), 1, place)
        for number, (name, points) in enumerate(series.items()):
            _draw_curve(axes, points, color=_COLORS[number % len(_COLORS)], name=name)
        _label_steps(axes, next(iter(series)) if len(series) == 1 else group)
        if len(series) > 1:
            axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)


def _draw_curve(
    axes: Axes, points: Sequence[tuple[int, float]], *, color: str, name: str | None = None
) -> None:
    steps, values = np.array(points, float).T
    window = max(1, len(values) // 12)
    axes.plot(steps, values, color=color, alpha=0.25 if window > 1 else 1.0, linewidth=1)
    mean = np.convolve(values, np.ones(window) / window, mode="valid")
    marker = "o" if len(values) == 1 else None
    axes.plot(steps[window - 1 :], mean, color=color, linewidth=2, label=name, marker=marker)


def _label_steps(axes: Axes, unit: str) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, axis="y", alpha=0.3)


def save_funnel(path: Path, stages: Sequence[tuple[str, int]]) -> None:
    """Draw how many items were left after each stage as SVG bars."""
    figure = _figure(6.4, 0.42 * len(stages) + 0.6)
    axes = figure.add_subplot()
    names = [name for name, _ in stages]
    counts = [count for _, count in stages]
    axes.barh(names, counts, color=BLUE)
    for row, count in enumerate(counts):
        axes.text(count, row, f" {count}", va="center")
    axes.invert_yaxis()
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_xticks([])
    figure.savefig(path, format="svg", transparent=True)


def save_identity_bars(
    path: Path, without: Mapping[str, float], with_optimization: Mapping[str, float], right: str
) -> None:
    """Draw CSIM of the result against each identity, with and without face optimization."""
    names = sorted(without, key=lambda name: -with_optimization[name])
    figure = _figure(6.4, 0.34 * len(names) + 0.9)
    axes = figure.add_subplot()
    rows = np.arange(len(names))
    strong = [BLUE if name == right else GREY for name in names]
    axes.barh(rows - 0.2, [with_optimization[n] for n in names], 0.38, color=strong)
    axes.barh(rows + 0.2, [without[n] for n in names], 0.38, color=strong, alpha=0.45, hatch="//")
    axes.set_yticks(rows, [f"{name} (the person)" if name == right else name for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("CSIM: solid with face optimization, hatched without")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="svg", transparent=True)


def draw_skeleton(
    picture: UInt8[np.ndarray, "height width 3"],
    person: HasPose,
    color: tuple[int, int, int],
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the picture with one skeleton drawn over it in one colour, and hands and face thin."""
    canvas = picture.copy()
    keypoints, confidence = np.asarray(person.keypoints), np.asarray(person.keypoint_confidence)
    for start, end in LIMBS:
        if min(confidence[start], confidence[end]) >= VISIBLE_CONFIDENCE:
            first, second = (tuple(int(v) for v in keypoints[i]) for i in (start, end))
            cv2.line(canvas, first, second, color, 3, cv2.LINE_AA)
    for point, score in zip(keypoints, confidence, strict=True):
        if score >= VISIBLE_CONFIDENCE:
            cv2.circle(canvas, (int(point[0]), int(point[1])), 4, color, -1, cv2.LINE_AA)
    if person.further_points is not None:
        _draw_hands_and_face(canvas, np.asarray(person.further_points), color)
    return canvas


def _draw_hands_and_face(
    canvas: UInt8[np.ndarray, "height width 3"],
    further_points: Float[np.ndarray, "116 3"],
    color: tuple[int, int, int],
) -> None:
    for hand in (further_points[LEFT_HAND], further_points[RIGHT_HAND]):
        for start, end in HAND_EDGES:
            if min(hand[start, 2], hand[end, 2]) >= VISIBLE_CONFIDENCE:
                first, second = (tuple(int(v) for v in hand[i, :2]) for i in (start, end))
                cv2.line(canvas, first, second, color, 1, cv2.LINE_AA)
    for x, y, score in further_points[FACE]:
        if score >= VISIBLE_CONFIDENCE:
            cv2.circle(canvas, (int(x), int(y)), 1, color, -1, cv2.LINE_AA)


def label(
    picture: UInt8[np.ndarray, "height width 3"], text: str
) -> UInt8[np.ndarray, "labelled_height width 3"]:
    """Return the picture with a caption strip above it."""
    strip = np.full((LABEL_HEIGHT_PX, picture.shape[1], 3), 24, np.uint8)
    cv2.putText(
        strip, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (235, 235, 235), 1, cv2.LINE_AA
    )
    return np.concatenate([strip, picture])


def fit_height(
    picture: UInt8[np.ndarray, "height width 3"], height_px: int
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Return the picture scaled to a height, aspect kept."""
    width = max(2, round(picture.shape[1] * height_px / picture.shape[0]))
    method = cv2.INTER_AREA if picture.shape[0] > height_px else cv2.INTER_CUBIC
    return cv2.resize(picture, (width, height_px), interpolation=method).astype(np.uint8)


def side_by_side(
    panels: Sequence[tuple[str, UInt8[np.ndarray, "_ _ 3"]]], height_px: int = 384
) -> UInt8[np.ndarray, "row_height row_width 3"]:
    """Return captioned pictures in one row, equal heights."""
    fitted = [label(fit_height(picture, height_px), text) for text, picture in panels]
    row = np.concatenate(fitted, axis=1)
    return np.ascontiguousarray(row[:, : row.shape[1] // 2 * 2])
