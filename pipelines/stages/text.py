"""Find text that was burned into a clip: captions, watermarks, logos that can be read.

Reads: samples, clip_num_frames, clip_fps, clip_width, clip_height. Adds: text_scores. Drops:
nothing. Scores: share (mean over the sampled frames of the share of the picture that burned-in
text covers), found_share (share of the frames that show some), scene_share (mean share covered by
writing that can be read and does not stay where it is), place (top, bottom, left, right, middle or
all over: where the burned-in text lies; none without any), boxes (left, top, right and bottom of
each place that holds some at any time, as shares of the picture's width and height).

A line counts as burned in when writing of its size stands at the same place in another sampled
frame, or says what such a line says (a watermark that jumps between corners); or when it stands
where captions stand, level and centred near an edge, and is nowhere else (a caption shown for a
third of the clip). Writing that moves is part of the scene: a shirt, a passing bus, any sign
before a moving camera. A sign before a camera that stands still cannot be told from a watermark,
and counts: a network that learns from the clip would draw it, too.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from animaray.models.frozen.protocols import TextDetector, TextLine
from animaray.platform.errors import ConfigError
from animaray.platform.video import FrameSelection

READS = ("samples", "clip_num_frames", "clip_fps", "clip_width", "clip_height")
ADDS = ("text_scores",)
DROPS: tuple[str, ...] = ()

LOOK = ("real", "always", "never")
PLACES = ("top", "bottom", "left", "right", "middle", "all over")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig:
    """Where burned-in text is looked for, and when writing counts."""

    look: str = "real"
    """real: under every profile but `generated`, whose world has no letters; always; never."""
    num_frames: int = 3
    """Frames looked at, spread evenly."""
    long_side_px: int = 480
    """Frames are shrunk to this; writing below about a fortieth of it is not read."""
    min_score: float = 0.85
    """Lines read less surely than this are no writing."""
    min_letters: int = 2
    """Lines of fewer letters and digits are none."""
    max_area: float = 0.5
    """Lines that cover more of the picture are none."""
    min_caption_score: float = 0.9
    """Least score of a caption that only one frame shows."""
    max_shift: float = 0.3
    """A line stands still when it moves by at most this share of its height."""

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: A value is out of range.
        """
        if self.look not in LOOK:
            raise ConfigError(f"Expected text.look to be one of {list(LOOK)}, got {self.look}.")
        if self.num_frames < 1 or self.long_side_px < 32:
            raise ConfigError(
                "Expected text.num_frames >= 1 and text.long_side_px >= 32, got "
                f"{self.num_frames} and {self.long_side_px}."
            )

    def looks_at(self, profile: str) -> bool:
        """Return whether clips are looked at under a perception profile."""
        return self.look == "always" or (self.look == "real" and profile != "generated")


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line that can be read, upright box around it; lengths in pixels."""

    words: str
    left: float
    top: float
    right: float
    bottom: float
    tilt_deg: float
    score: float

    @property
    def height(self) -> float:
        """Of the box."""
        return self.bottom - self.top

    @property
    def area(self) -> float:
        """Of the box."""
        return (self.right - self.left) * self.height

    @property
    def centre(self) -> tuple[float, float]:
        """Of the box."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


class TextStage:
    """Measure the burned-in text of clips; holds the networks that read."""

    def __init__(self, detector: TextDetector, config: TextConfig | None = None) -> None:
        self._detector = detector
        self._config = config or TextConfig()
        self.producer = detector.name

    def selection(self, row: dict[str, Any]) -> FrameSelection:
        """Return which frames of a clip are looked at: the middle of each equal part."""
        count = min(self._config.num_frames, row["clip_num_frames"])
        part = row["clip_num_frames"] / count
        sides = row["clip_width"], row["clip_height"]
        return FrameSelection(
            start_s=int(part / 2) / row["clip_fps"],
            every=max(1, int(part)),
            max_frames=count,
            short_side_px=max(1, round(self._config.long_side_px * min(sides) / max(sides))),
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Score one clip."""
        frames = row["samples"].take(self.selection(row)).frames_uint8
        height, width = frames.shape[1:3]
        lines = [
            [
                line
                for found in self._detector.detect(frame)
                if (line := self._readable(found, width * height)) is not None
            ]
            for frame in frames
        ]
        return {**row, "text_scores": score_lines(lines, (width, height), self._config)}

    def _readable(self, found: TextLine, area: int) -> Line | None:
        """Return a line that is writing beyond doubt, or None."""
        line = line_of(found)
        letters = sum(character.isalnum() for character in line.words)
        is_writing = (
            line.score >= self._config.min_score
            and letters >= self._config.min_letters
            and 0 < line.area <= self._config.max_area * area
        )
        return line if is_writing else None


def line_of(found: TextLine) -> Line:
    """Return a line with the upright box around it, and how far it is from level or upright."""
    left, top = found.corners.min(axis=0).tolist()
    right, bottom = found.corners.max(axis=0).tolist()
    along = found.corners[1] - found.corners[0]
    turn = float(np.degrees(np.arctan2(along[1], along[0]))) % 90.0
    return Line(
        words=found.words, left=left, top=top, right=right, bottom=bottom,
        tilt_deg=min(turn, 90.0 - turn), score=found.score,
    )  # fmt: skip


def score_lines(
    frames: Sequence[Sequence[Line]], size: tuple[int, int], config: TextConfig
) -> dict[str, Any]:
    """Return the scores of a clip.

    Args:
        frames: The readable lines of each sampled frame.
        size: Width and height of the frames, pixels.
        config: When a line stands still.
    """
    burned = burned_in(frames, size, config)
    own = [[line for line in lines if line in burned] for lines in frames]
    scene = [[line for line in lines if line not in burned] for lines in frames]
    boxes = join_overlapping(_boxes(burned, size))
    return {
        "text_share": float(np.mean([_covered(lines, size) for lines in own])),
        "text_found_share": float(np.mean([bool(lines) for lines in own])),
        "text_scene_share": float(np.mean([_covered(lines, size) for lines in scene])),
        "text_place": place_of(boxes) if len(boxes) else None,
        "text_boxes": boxes.ravel().tolist() if len(boxes) else None,
    }


def burned_in(
    frames: Sequence[Sequence[Line]], size: tuple[int, int], config: TextConfig
) -> list[Line]:
    """Return the lines that were burned in."""
    lines = [(place, line) for place, each in enumerate(frames) for line in each]
    held = [
        line
        for place, line in lines
        if any(stands_still(line, other, config.max_shift) for at, other in lines if at != place)
    ]
    jumping = [
        line
        for _, line in lines
        if line not in held and any(says_the_same(line, other) for other in held)
    ]
    shown_once = [
        line
        for place, line in lines
        if line.score >= config.min_caption_score
        and is_caption(line, size)
        and not any(says_the_same(line, other) for at, other in lines if at != place)
        and line not in held
    ]
    return [*held, *jumping, *shown_once]


def stands_still(line: Line, other: Line, max_shift: float) -> bool:
    """Return whether two lines of different frames stand at the same place.

    The same words stay where they are; captions that follow each other share their baseline and
    their middle, left or right end.
    """
    height = min(line.height, other.height)
    if max(line.height, other.height) > 1.6 * height:
        return False
    slack = max(1.5, max_shift * height)
    if abs(line.centre[1] - other.centre[1]) > slack:
        return False
    ends = (
        line.centre[0] - other.centre[0], line.left - other.left, line.right - other.right,
    )  # fmt: skip
    return min(abs(end) for end in ends) <= slack


def says_the_same(line: Line, other: Line) -> bool:
    """Return whether two lines say nearly the same words."""
    matcher = difflib.SequenceMatcher(None, line.words.casefold(), other.words.casefold())
    return matcher.ratio() >= 0.6


def is_caption(line: Line, size: tuple[int, int]) -> bool:
    """Return whether a line stands where captions stand: level and centred, near top or bottom."""
    x, y = line.centre[0] / size[0], line.centre[1] / size[1]
    return line.tilt_deg <= 6.0 and abs(x - 0.5) <= 0.1 and (y <= 0.25 or y >= 0.6)


def place_of(boxes: Float32[np.ndarray, "boxes 4"]) -> str:
    """Return one of `PLACES` for rectangles given in shares of the picture."""
    left, top = boxes[:, :2].min(axis=0).tolist()
    right, bottom = boxes[:, 2:].max(axis=0).tolist()
    if bottom <= 1 / 3:
        return "top"
    if top >= 2 / 3:
        return "bottom"
    if right <= 1 / 3:
        return "left"
    if left >= 2 / 3:
        return "right"
    return "all over" if bottom - top > 0.5 else "middle"


def join_overlapping(
    boxes: Float32[np.ndarray, "boxes 4"],
) -> Float32[np.ndarray, "joined 4"]:
    """Return the rectangles around boxes that overlap each other, from left to right."""
    joined: list[Float32[np.ndarray, " 4"]] = []
    for box in boxes[np.argsort(boxes[:, 0], kind="stable")]:
        met = [other for other in joined if _overlap(box, other)]
        joined = [other for other in joined if not _overlap(box, other)]
        together = np.stack([box, *met])
        joined.append(np.concatenate([together[:, :2].min(axis=0), together[:, 2:].max(axis=0)]))
    whole = np.array(joined, dtype=np.float32).reshape(-1, 4)
    # A grown rectangle may reach another one.
    return whole if len(whole) == len(boxes) else join_overlapping(whole)


def _overlap(box: Float32[np.ndarray, " 4"], other: Float32[np.ndarray, " 4"]) -> bool:
    return bool((box[:2] < other[2:]).all() and (other[:2] < box[2:]).all())


def _boxes(lines: Sequence[Line], size: tuple[int, int]) -> Float32[np.ndarray, "lines 4"]:
    edges = [(line.left, line.top, line.right, line.bottom) for line in lines]
    boxes = np.array(edges, dtype=np.float32).reshape(-1, 4)
    return np.clip(boxes / np.array([*size, *size], dtype=np.float32), 0.0, 1.0)


def _covered(lines: Sequence[Line], size: tuple[int, int]) -> float:
    return min(1.0, sum(line.area for line in lines) / (size[0] * size[1]))
