"""Defects laid over rendered frames: blur, darkness, noise, fades and things in the way."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import UInt8

from animaray.datasets.world.truth import PersonTruth

EFFECTS = ("blur", "dark", "occlusion", "cut", "fade", "low_light", "noise")

_Frames = UInt8[np.ndarray, "frames height width 3"]


def apply_effects(frames: _Frames, effects: tuple[str, ...], *, seed: int) -> _Frames:
    """Apply the effects that change pixels; "cut" and "occlusion" were drawn already.

    Args:
        frames: RGB.
        effects: Names out of EFFECTS.

    Returns:
        The changed frames.
    """
    rng = np.random.default_rng([61, seed])
    if "blur" in effects:
        sigma = 0.016 * frames.shape[2]
        frames = np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])
    if "dark" in effects:
        frames = (frames * 0.09).astype(np.uint8)
    if "low_light" in effects:
        frames = (frames * np.array([0.24, 0.25, 0.31])).astype(np.uint8)
    if "fade" in effects:
        half = max(len(frames) // 3, 1)
        gain = np.clip(
            np.minimum(np.arange(len(frames)), np.arange(len(frames))[::-1]) / half, 0, 1
        )
        frames = (frames * gain[:, None, None, None]).astype(np.uint8)
    if "noise" in effects or "low_light" in effects:
        strength = 9.0 if "noise" in effects else 4.0
        noise = rng.normal(0.0, strength, frames.shape).astype(np.float32)
        frames = np.clip(frames + noise, 0, 255).astype(np.uint8)
    return frames


class Occluder:
    """A thing close to the camera that hides the middle of the picture for most of the time."""

    def __init__(self, seed: int, size: tuple[int, int]) -> None:
        rng = np.random.default_rng([62, seed])
        self._size = size
        self._half_width = float(rng.uniform(0.15, 0.2)) * size[0]
        self._top = float(rng.uniform(0.02, 0.12)) * size[1]
        self._sign = 1.0 if rng.random() < 0.5 else -1.0
        self._colour = [int(c) for c in rng.integers(40, 150, 3)]

    def draw(
        self, frame: UInt8[np.ndarray, "height width 3"], progress: float
    ) -> tuple[float, float, float, float]:
        """Draw it at a progress in [0, 1], in place, and return the hidden box, px xyxy."""
        width, height = self._size
        centre = width * (0.5 + self._sign * 0.25 * (progress - 0.5))
        left, right = round(centre - self._half_width), round(centre + self._half_width)
        top = round(self._top)
        shade = [int(c * 0.7) for c in self._colour]
        cv2.rectangle(frame, (left, top), (right, height), self._colour, -1)
        cv2.rectangle(frame, (left + 3 * (right - left) // 4, top), (right, height), shade, -1)
        for y in range(top, height, max(8, height // 9)):
            cv2.line(frame, (left, y), (right, y), shade, max(1, height // 160), cv2.LINE_AA)
        return float(left), float(top), float(right), float(height)


_EVENLY = (0.7548776662466927, 0.5698402909980532)
"""Inverse powers of the plastic number: no row, column or corner gets more than its share."""


class StirredBackground:
    """Parts of the background that move to and fro, each in its own time, as leaves or water do."""

    def __init__(self, seed: int, size: tuple[int, int], share: float) -> None:
        """Choose the parts.

        Args:
            seed: Of their places and phases.
            size: Width and height of the frame, px.
            share: Of the frame that moves, in [0, 1].
        """
        rng = np.random.default_rng([63, seed])
        self._share = share
        side = max(8, min(size) // 8)
        columns, rows = (-(-length // side) for length in size)
        count = columns * rows
        # Spread evenly (the additive recurrence of two irrationals), so that of what people leave
        # to be seen about the same share moves.
        order = _EVENLY[0] * np.arange(columns)[None] + _EVENLY[1] * np.arange(rows)[:, None]
        ranks = ((order + rng.uniform()) % 1.0).ravel().argsort().argsort()
        chosen = ranks < round(share * count)
        phases = np.where(chosen, rng.uniform(0, 2 * np.pi, (2, count)), np.nan)
        tile = (np.arange(size[1]) // side)[:, None] * columns + (np.arange(size[0]) // side)
        self._phases = phases[:, tile]
        self._reach_px = 0.06 * min(size)

    def move(
        self, frame: UInt8[np.ndarray, "height width 3"], time_s: float
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Return the frame with its moving parts as they are at a time, seconds."""
        if self._share == 0:
            return frame
        height, width = frame.shape[:2]
        offset = np.nan_to_num(self._reach_px * np.sin(0.8 * np.pi * time_s + self._phases))
        y, x = np.mgrid[:height, :width]
        across = (x + offset[0]).astype(np.float32)
        down = (y + offset[1]).astype(np.float32)
        return cv2.remap(frame, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def hide_behind(truth: PersonTruth, box: tuple[float, float, float, float]) -> PersonTruth:
    """Return the truth of a person behind an opaque box, px xyxy."""
    x, y = truth.keypoints[:, 0], truth.keypoints[:, 1]
    covered = (x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])
    face = truth.face_box
    overlap = max(0.0, min(face[2], box[2]) - max(face[0], box[0])) * max(
        0.0, min(face[3], box[3]) - max(face[1], box[1])
    )
    area = max(float((face[2] - face[0]) * (face[3] - face[1])), 1e-6)
    return replace(
        truth,
        keypoint_visible=truth.keypoint_visible & ~covered,
        face_visible=bool(truth.face_visible and overlap / area < 0.3),
    )
