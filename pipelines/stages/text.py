"""Find text that was burned into a clip: captions, watermarks, logos that can be read.

Reads: samples, clip_num_frames, clip_fps, clip_width, clip_height. Adds: text_scores. Drops:
nothing. What each score says: datasets/schemas.py.

A line counts as burned in when the same words stand in another sampled frame, not moved by a pixel;
when other words of its size have taken its place there (captions that follow each other); when it
says what such a line says (a watermark that jumps between corners); or when it is nowhere else and
stands where captions stand, level and centred near top or bottom (one that was shown for a third of
the clip). Other writing is part of the scene: a shirt, a passing bus, a sign before a camera that
moves, a sign that goes on beyond the picture's edge. A whole sign before a camera that stands still
cannot be told from a watermark, and counts: a network that learns from the clip would draw it, too.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from animaray.models.perception.protocols import TextDetector, TextLine
from animaray.platform.errors import ConfigError
from animaray.platform.media.video import FrameSelection

READS = ("samples", "clip_num_frames", "clip_fps", "clip_width", "clip_height")
ADDS = ("text_scores",)
DROPS: tuple[str, ...] = ()

LOOK = ("real", "always", "never")
_LIKE = 0.75
"""Correlation from which two places show the same writing; other words reach about half."""
_CLEARLY_LIKER = 0.05
"""Correlation by which another place has to be more like a line than its own."""
PLACES = ("top", "bottom", "left", "right", "middle", "all over")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig:
    """Where burned-in text is looked for, and when writing counts."""

    look: str = "real"
    """real: under every profile but `generated`, whose world has no letters; always; never."""
    num_frames: int = 3
    """Frames looked at, spread evenly."""
    long_side_px: int = 480
    """Frames are shrunk to this, squarer ones until they have two thirds of its square in pixels,
    so that each costs about the same. Writing lower than about a fortieth of it is not read."""
    min_score: float = 0.85
    """Lines read less surely than this are no writing."""
    min_letters: int = 2
    """Lines of fewer letters and digits are none."""
    max_area: float = 0.5
    """Lines that cover more of the picture are none."""
    min_caption_score: float = 0.9
    """Least score of a caption that only one frame shows."""
    max_shift: float = 0.3
    """Lines stand at one place when their middles or ends differ by at most this share of their
    height: detectors draw boxes now wider, now tighter."""

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

    frame: int
    """Which of the sampled frames shows it."""
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
        self.networks = detector.name

    def selection(self, row: dict[str, Any]) -> FrameSelection:
        """Return which frames of a clip are looked at: the middle of each equal part."""
        count = min(self._config.num_frames, row["clip_num_frames"])
        part = row["clip_num_frames"] / count
        short, long = sorted((row["clip_width"], row["clip_height"]))
        most = self._config.long_side_px
        scale = min(most / long, (2 / 3 * most**2 / (short * long)) ** 0.5)
        return FrameSelection(
            start_s=int(part / 2) / row["clip_fps"],
            every=max(1, int(part)),
            max_frames=count,
            short_side_px=max(1, round(short * scale)),
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Score one clip."""
        frames = row["samples"].take(self.selection(row)).frames_uint8
        height, width = frames.shape[1:3]
        lines = [
            line
            for index, frame in enumerate(frames)
            for line in (line_of(found, index) for found in self._detector.detect(frame))
            if self._is_readable(line, width * height)
        ]
        pictures = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        burned = burned_in(lines, pictures, self._config)
        scores = score_lines(lines, burned, len(frames), (width, height))
        return {**row, "text_scores": scores}

    def _is_readable(self, line: Line, area: int) -> bool:
        """Return whether a line is writing beyond doubt."""
        letters = sum(character.isalnum() for character in line.words)
        return (
            line.score >= self._config.min_score
            and letters >= self._config.min_letters
            and 0 < line.area <= self._config.max_area * area
        )


def line_of(found: TextLine, frame: int) -> Line:
    """Return a line with the upright box around it, and how far it is from level or upright."""
    left, top = found.corners.min(axis=0).tolist()
    right, bottom = found.corners.max(axis=0).tolist()
    along = found.corners[1] - found.corners[0]
    turn = float(np.degrees(np.arctan2(along[1], along[0]))) % 90.0
    return Line(
        frame=frame, words=found.words, left=left, top=top, right=right, bottom=bottom,
        tilt_deg=min(turn, 90.0 - turn), score=found.score,
    )  # fmt: skip


def score_lines(
    lines: Sequence[Line], burned: Sequence[Line], num_frames: int, size: tuple[int, int]
) -> dict[str, Any]:
    """Return the scores of a clip.

    Args:
        lines: The readable lines of all sampled frames.
        burned: Those of them that were burned in.
        size: Width and height of the frames, pixels.
    """
    scene = [line for line in lines if line not in burned]
    boxes = join_overlapping(_boxes(burned, size))
    return {
        "text_share": _mean_share(burned, num_frames, size),
        "text_found_share": len({line.frame for line in burned}) / num_frames,
        "text_scene_share": _mean_share(scene, num_frames, size),
        "text_place": place_of(boxes) if len(boxes) else None,
        "text_boxes": boxes.ravel().tolist() if len(boxes) else None,
    }


def burned_in(
    lines: Sequence[Line],
    pictures: Sequence[UInt8[np.ndarray, "height width"]],
    config: TextConfig,
) -> list[Line]:
    """Return the lines that were burned in.

    Args:
        lines: The readable lines of all sampled frames.
        pictures: Luminance of the frames.
        config: When a line stands still, and when it is a caption.
    """
    height, width = pictures[0].shape
    found = []
    for line in lines:
        elsewhere = [other for other in lines if other.frame != line.frame]
        same = [other for other in elsewhere if says_the_same(line, other)]
        beside = [other for other in lines if other.frame == line.frame]
        # What took a line's place says nothing where that line is still there, beside it.
        place_takers = [o for o in elsewhere if not any(says_the_same(o, near) for near in beside)]
        stays = any(
            stands_still(line, other, config.max_shift)
            and not has_moved(line, pictures[line.frame], pictures[other.frame])
            for other in same or place_takers
        )
        if same:
            counts = stays and not goes_on_outside(line, pictures[line.frame])
        else:
            counts = stays or (
                line.score >= config.min_caption_score and is_caption(line, (width, height))
            )
        if counts:
            found.append(line)
    jumping = [
        line
        for line in lines
        if line not in found and any(says_the_same(line, other) for other in found)
    ]
    return [*found, *jumping]


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


def has_moved(
    line: Line,
    own: UInt8[np.ndarray, "height width"],
    other: UInt8[np.ndarray, "height width"],
) -> bool:
    """Return whether what a line's box holds is found somewhere else in another frame.

    Args:
        own: The frame that shows it.
        other: The frame to look in, up to half the line's height away.
    """
    left, top, right, bottom = _inside(line, own.shape)
    patch = own[top:bottom, left:right]
    if patch.size == 0 or patch.std() < 1.0:
        return False
    reach = int(line.height / 2) + 2
    x, y = max(0, left - reach), max(0, top - reach)
    near = other[y : bottom + reach, x : right + reach]
    likeness = cv2.matchTemplate(near, patch, cv2.TM_CCOEFF_NORMED)
    _, best, _, place = cv2.minMaxLoc(likeness)
    is_elsewhere = max(abs(place[0] - (left - x)), abs(place[1] - (top - y))) > 0
    own_place = float(likeness[top - y, left - x])
    return is_elsewhere and best >= _LIKE and best > own_place + _CLEARLY_LIKER


def goes_on_outside(line: Line, picture: UInt8[np.ndarray, "height width"]) -> bool:
    """Return whether a line is cut off by the left or the right edge of the picture.

    A line over the whole width is not: captions are as wide as that.
    """
    left, top, right, bottom = _inside(line, picture.shape)
    patch = picture[top:bottom, left:right].astype(np.float32)
    if min(patch.shape) < 2:
        return False
    # Strokes have an upper and a lower end in each column, the margin beside them has not.
    strokes = np.abs(np.diff(patch, axis=0)).max(axis=0)
    columns = left + np.flatnonzero(strokes > 0.6 * np.percentile(strokes, 75))
    if len(columns) == 0:
        return False
    margin = 0.15 * line.height
    at_edge = (columns[0] < margin, picture.shape[1] - 1 - columns[-1] < margin)
    return bool(at_edge[0] != at_edge[1])


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


def _inside(line: Line, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a line's box in whole pixels of a picture."""
    left, top = max(0, int(line.left)), max(0, int(line.top))
    right, bottom = int(np.ceil(line.right)), int(np.ceil(line.bottom))
    return left, top, min(shape[1], right), min(shape[0], bottom)


def _mean_share(lines: Sequence[Line], num_frames: int, size: tuple[int, int]) -> float:
    shares = np.zeros(num_frames)
    for line in lines:
        shares[line.frame] += line.area / (size[0] * size[1])
    return float(np.minimum(shares, 1.0).mean())
