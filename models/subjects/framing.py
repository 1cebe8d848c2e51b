"""Fit pictures of any size into the model's size, once for a whole clip.

Rule: the window is the largest one of the model's aspect that lies inside the picture, moved along
the cropped axis so that the person is in its middle. Where the person does not fit, the window
grows up to the whole person and the picture's edge is repeated outside. `max_zoom` above 1 lets the
window shrink to the person. The window stands still for the whole clip. Only `stretched` gives up
the aspect, as the released code does.

Pixel coordinates are OpenCV's: integers are pixel centres.
"""

import itertools
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8
from PIL import Image

from animaray.models.pose.layouts import VISIBLE_CONFIDENCE
from animaray.platform.errors import ConfigError

PERSON_MARGIN = 0.08
"""Room around the person's keypoints, in sizes of their box (a head reaches above the eyes)."""
ZOOM_MARGIN = 0.35
"""The same where the window shrinks to the person."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameFit:
    """A window of the source picture and the size it is brought to; invertible for points."""

    left_px: float
    """Left edge of the window; negative where the picture is padded."""
    top_px: float
    """Top edge of the window."""
    scale: float
    """Target pixels per source pixel; the same on both axes unless `scale_y` says otherwise."""
    width_px: int
    """Target width."""
    height_px: int
    """Target height."""
    scale_y: float | None = None
    """Target rows per source row where the picture is stretched; None keeps the aspect."""
    part: tuple[int, int, int, int] | None = None
    """Left, top, right and bottom of what may be shown of the source; beyond it its edges are
    repeated. None for all of it."""

    @classmethod
    def stretched(cls, size: tuple[int, int], width_px: int, height_px: int) -> "FrameFit":
        """Bring the whole picture to the model's size whatever its aspect, as the released code.

        Args:
            size: Width and height of the source, pixels.
            width_px: Target width.
            height_px: Target height.
        """
        width, height = size
        return cls(
            left_px=0.0,
            top_px=0.0,
            scale=width_px / width,
            width_px=width_px,
            height_px=height_px,
            scale_y=height_px / height,
        )

    @property
    def _scales(self) -> Float64[np.ndarray, " 2"]:
        """Target pixels per source pixel on both axes."""
        return np.array([self.scale, self.scale if self.scale_y is None else self.scale_y])

    @classmethod
    def for_person(
        cls,
        size: tuple[int, int],
        keypoints: Float[np.ndarray, "frames 18 2"] | None,
        width_px: int,
        height_px: int,
        *,
        keypoint_confidence: Float[np.ndarray, "frames 18"] | None = None,
        max_zoom: float = 1.0,
    ) -> "FrameFit":
        """Choose the window for a picture or clip.

        Args:
            size: Width and height of the source, pixels.
            keypoints: The person in every frame, source pixels; None centres the window.
            width_px: Target width.
            height_px: Target height.
            keypoint_confidence: Keypoints below 0.3 are ignored; None uses all.
            max_zoom: How much smaller than the largest window it may become around the person.

        Raises:
            ConfigError: A size is not positive, or `max_zoom` is below 1.
        """
        if min(*size, width_px, height_px) < 1:
            raise ConfigError(
                f"Sizes must be positive, got {size} for a target of {width_px} x {height_px}."
            )
        if max_zoom < 1:
            raise ConfigError(f"`max_zoom` must be at least 1, got {max_zoom}.")
        target = np.array([width_px, height_px], dtype=np.float64)
        source = np.array(size, dtype=np.float64)
        window = target * (source / target).min()
        box = _person_box(keypoints, keypoint_confidence)
        if box is None:
            return cls._around(source / 2, window, source, target)
        centre, extent = (box[0] + box[1]) / 2, box[1] - box[0]
        # The part of the person that the picture shows is what has to fit.
        shown = np.minimum(extent * (1 + 2 * PERSON_MARGIN), source)
        needed = target * (shown / target).max()
        if max_zoom > 1:
            close = target * (extent * (1 + 2 * ZOOM_MARGIN) / target).max()
            window = np.clip(close, window / max_zoom, window)
        return cls._around(centre, np.maximum(window, needed), source, target)

    @classmethod
    def _around(
        cls,
        centre: Float[np.ndarray, " 2"],
        window: Float[np.ndarray, " 2"],
        source: Float[np.ndarray, " 2"],
        target: Float[np.ndarray, " 2"],
    ) -> "FrameFit":
        """Place a window around a point, inside the picture where it fits, else centred on it."""
        room = source - window
        corner = np.where(room >= 0, np.clip(centre - window / 2, 0, np.maximum(room, 0)), room / 2)
        return cls(
            left_px=float(corner[0]),
            top_px=float(corner[1]),
            scale=float(target[0] / window[0]),
            width_px=int(target[0]),
            height_px=int(target[1]),
        )

    def within(self, part: tuple[int, int, int, int]) -> "FrameFit":
        """Return this window of a part of a picture as a window of the whole picture.

        Args:
            part: Left, top, right and bottom of the part, pixels; nothing beside it is shown.
        """
        left, top = self.left_px + part[0], self.top_px + part[1]
        return replace(self, left_px=left, top_px=top, part=part)

    def apply_frames(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> UInt8[np.ndarray, "frames target_height target_width 3"]:
        """Return the window of every frame at the target size; edges are repeated outside."""
        return np.stack([self.apply_picture(frame) for frame in frames])

    def apply_picture(
        self, picture: UInt8[np.ndarray, "height width 3"]
    ) -> UInt8[np.ndarray, "target_height target_width 3"]:
        """Return the window of one picture at the target size; edges are repeated outside."""
        if self.scale_y is not None:
            return stretch_picture(picture, self.width_px, self.height_px)
        scale, left, top = self.scale, self.left_px, self.top_px
        if self.part is not None:
            picture = picture[self.part[1] : self.part[3], self.part[0] : self.part[2]]
            left, top = left - self.part[0], top - self.part[1]
        if scale <= 0.5:  # average whole blocks first, or fine texture aliases
            factor = int(1 / scale)
            height, width = picture.shape[:2]
            # Repeat the last row and column up to whole blocks.
            below, right = -height % factor, -width % factor
            picture = cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REPLICATE)
            small = picture.shape[1] // factor, picture.shape[0] // factor
            picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
            scale, left, top = scale * factor, left / factor, top / factor
        # Target pixel centre x lies at (x + 0.5) / scale + left - 0.5 in the source.
        step, shift = 1 / scale, 0.5 / scale - 0.5
        to_source = np.array([[step, 0, left + shift], [0, step, top + shift]])
        return cv2.warpAffine(
            picture,
            to_source,
            (self.width_px, self.height_px),
            flags=(cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def apply_points(
        self, points: Float[np.ndarray, "*items 2"]
    ) -> Float32[np.ndarray, "*items 2"]:
        """Map source pixels to target pixels."""
        corner = np.array([self.left_px, self.top_px]) - 0.5  # doubles: where nothing is to move,
        return ((points - corner) * self._scales - 0.5).astype(np.float32)  # nothing moves


def largest_part_without(
    boxes: Float[np.ndarray, "boxes 4"],
    size: tuple[int, int],
    keypoints: Float[np.ndarray, "frames 18 2"],
    keypoint_confidence: Float[np.ndarray, "frames 18"] | None = None,
) -> tuple[int, int, int, int] | None:
    """Return the largest part of a picture that holds the whole person and none of some boxes.

    Args:
        boxes: Left, top, right and bottom of each, pixels.
        size: Width and height of the picture, pixels.
        keypoints: The person in every frame, pixels.
        keypoint_confidence: Keypoints below 0.3 are ignored; None uses all.

    Returns:
        Its left, top, right and bottom; None where there is no such part.
    """
    whole = (0, 0, *size)
    person = _person_box(keypoints, keypoint_confidence)
    if len(boxes) == 0 or person is None:
        return whole if len(boxes) == 0 else None
    room = PERSON_MARGIN * (person[1] - person[0])
    shown = np.clip(np.stack([person[0] - room, person[1] + room]), 0, size)
    (left, top), (right, bottom) = shown
    starts, ends = np.floor(boxes[:, :2]).astype(int), np.ceil(boxes[:, 2:]).astype(int)
    edges = (
        [0, *ends[ends[:, 0] <= left, 0]],
        [0, *ends[ends[:, 1] <= top, 1]],
        [size[0], *starts[starts[:, 0] >= right, 0]],
        [size[1], *starts[starts[:, 1] >= bottom, 1]],
    )
    parts = [
        (int(x0), int(y0), int(x1), int(y1))
        for x0, y0, x1, y1 in itertools.product(*edges)
        if not ((starts < (x1, y1)) & (ends > (x0, y0))).all(axis=1).any()
    ]
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in parts]
    return parts[int(np.argmax(areas))] if parts else None


def _person_box(
    keypoints: Float[np.ndarray, "frames 18 2"] | None,
    confidence: Float[np.ndarray, "frames 18"] | None,
) -> Float[np.ndarray, "2 2"] | None:
    """Return the corners of the box around all seen keypoints of a clip, or None."""
    if keypoints is None:
        return None
    points = keypoints.reshape(-1, 2).astype(np.float64)
    if confidence is not None:
        points = points[confidence.reshape(-1) >= VISIBLE_CONFIDENCE]
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) < 2:
        return None
    return np.stack([points.min(axis=0), points.max(axis=0)])


def stretch_picture(
    picture_uint8: UInt8[np.ndarray, "height width 3"], width_px: int, height_px: int
) -> UInt8[np.ndarray, "target_height target_width 3"]:
    """Resize by Lanczos without keeping the aspect, as the released code; else use FrameFit.

    Args:
        picture_uint8: RGB.
        width_px: Target width.
        height_px: Target height.
    """
    resized = Image.fromarray(picture_uint8).resize((width_px, height_px), Image.Resampling.LANCZOS)
    return np.array(resized)
