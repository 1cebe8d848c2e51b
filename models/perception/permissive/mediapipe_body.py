"""The 33 body landmarks of one person by MediaPipe's pose network, with depth and person mask.

References:
    Bazarevsky et al. 2020, "BlazePose", arXiv 2006.10204.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8

from animaray.models.perception.permissive.picture_network import PictureNetwork, probability
from animaray.models.perception.permissive.upright_crop import UprightCrop, crop_between
from animaray.models.perception.protocols import PersonPose

NUM_LANDMARKS = 33
NUM_HEAD_POINTS = 11
"""The first ones."""
LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP = 11, 12, 23, 24
_CROP_SIDE_PX = 256
_CROP_PER_RADIUS = 2.5
# Landmarks 33 and 34 are auxiliary: hip centre and the point that sets size and turn.
_AUXILIARY = slice(33, 35)
_OUT_OF_FRAME_CONFIDENCE = 0.05
# OpenPose order; -1 is the neck, half-way between the shoulders.
_LANDMARK_OF_KEYPOINT = (0, -1, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)
_NECK = 1
# Big toe, small toe and heel of the left foot, then of the right; -1: it shows no small toes.
_LANDMARK_OF_FOOT = (31, -1, 29, 32, -1, 30)

_ROWS, _PRESENCE, _MASK, _HEAT, _WORLD = (
    "Identity", "Identity_1", "Identity_2", "Identity_3", "Identity_4",
)  # fmt: skip
_HEAT_SIDE = 64
_HEAT_REACH = 3
_LEAST_HEAT = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """One person as the landmark network sees it; left and right are the person's own."""

    points: Float32[np.ndarray, "33 3"]
    """x, y in pixels of the frame; z in the same unit, smaller is nearer, 0 at the hips."""
    visibility: Float32[np.ndarray, " 33"]
    """Probability that a point is in the frame and not hidden."""
    presence: Float32[np.ndarray, " 33"]
    """Probability that a point is in the frame."""
    auxiliary: Float32[np.ndarray, "2 2"]
    """Hip centre, and the point that sets size and turn; pixels of the frame."""
    world: Float32[np.ndarray, "33 3"]
    """Metres from the middle of the hips; x right and y down as in the frame."""
    score: float
    """Probability that the crop showed a person."""
    frame_size: tuple[int, int]
    """Width and height of the frame, pixels."""
    mask: Float32[np.ndarray, "height width"] | None = None
    """Probability of the person in each pixel of the frame, where it was asked for."""

    def area(self) -> float:
        """Return the area of the box around the landmarks, square pixels."""
        width, height = np.ptp(self.points[:, :2], axis=0)
        return float(width * height)

    def head_box(self) -> Float32[np.ndarray, " 4"]:
        """Return the square around nose, eyes, ears and mouth: left, top, right, bottom."""
        head = self.points[:NUM_HEAD_POINTS, :2]
        width, height = np.ptp(head, axis=0)
        half = 1.15 * max(float(width), 1.6 * float(height), 6.0) / 2
        middle = head.mean(axis=0)
        return np.concatenate([middle - half, middle + half]).astype(np.float32)

    def likeness(self, other: "Body") -> float:
        """Return how much two bodies agree, like COCO's keypoint similarity, from 0 to 1."""
        torso = [LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP]
        offset = self.points[torso, :2] - other.points[torso, :2]
        spread = 0.2 * math.sqrt(max(min(self.area(), other.area()), 1.0))
        return float(np.exp(-0.5 * (np.linalg.norm(offset, axis=-1) / spread) ** 2).mean())

    def pose(self) -> PersonPose:
        """Return the 18 OpenPose keypoints.

        Confidence is visibility times presence; at most 0.05 for points outside the picture.
        """
        order = list(_LANDMARK_OF_KEYPOINT)
        seen = self.visibility * self.presence
        keypoints, confidence = self.points[order, :2], seen[order]
        shoulders = [LEFT_SHOULDER, RIGHT_SHOULDER]
        keypoints[_NECK] = self.points[shoulders, :2].mean(axis=0)
        confidence[_NECK] = seen[shoulders].min()
        return PersonPose(
            keypoints=keypoints.astype(np.float32),
            keypoint_confidence=self._inside(keypoints, confidence),
        )

    def feet(self) -> Float32[np.ndarray, "6 3"]:
        """Return big toe, small toe and heel, left then right, with confidence as in `pose`."""
        order = np.array(_LANDMARK_OF_FOOT)
        seen = np.where(order < 0, 0.0, (self.visibility * self.presence)[order])
        places = np.where(order[:, None] < 0, 0.0, self.points[order, :2]).astype(np.float32)
        return np.concatenate([places, self._inside(places, seen)[:, None]], axis=1)

    def _inside(
        self, points: Float[np.ndarray, "points 2"], confidence: Float[np.ndarray, " points"]
    ) -> Float32[np.ndarray, " points"]:
        """Return confidences, lowered where points lie outside the picture."""
        inside = ((points >= 0) & (points <= np.array(self.frame_size) - 1)).all(axis=-1)
        lowered = np.where(inside, confidence, np.minimum(confidence, _OUT_OF_FRAME_CONFIDENCE))
        return lowered.astype(np.float32)


class BodyNetwork:
    """Find the landmarks of a person whose place is roughly known; nothing is remembered."""

    def __init__(self, path: Path, *, num_threads: int = 1, device: str = "cpu") -> None:
        """Open the landmark network.

        Args:
            path: MediaPipe's pose landmark network, full or lite, .tflite or converted to .onnx.
            device: "cpu" or "cuda".
        """
        self._network = PictureNetwork(
            path,
            side_px=_CROP_SIDE_PX,
            outputs=(_ROWS, _PRESENCE, _MASK, _HEAT, _WORLD),
            num_threads=num_threads,
            device=device,
        )

    def look(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        auxiliary: Float[np.ndarray, "2 2"],
        *,
        min_score: float,
        wants_mask: bool = False,
    ) -> Body | None:
        """Return the person around two points, or None where the network sees nobody.

        Args:
            auxiliary: Hip centre and the point that sets size and turn, pixels: of a detection,
                or those of the body of the last frame.
            min_score: Least probability of a person.
            wants_mask: Also bring the person's mask into the frame (milliseconds at 1080p).
        """
        crop = crop_between(
            auxiliary[0], auxiliary[1], side_per_radius=_CROP_PER_RADIUS, input_px=_CROP_SIDE_PX
        )
        if crop is None:
            return None
        answer = self._network.look(crop.cut(frame))
        score = float(answer[_PRESENCE].reshape(-1)[0])
        if score < min_score:
            return None
        rows = answer[_ROWS].reshape(-1, 5)
        places = _refine(rows[:, :2], answer[_HEAT][0])
        points = crop.to_picture_3d(np.concatenate([places, rows[:, 2:3]], axis=1))
        height, width = frame.shape[:2]
        mask = probability(answer[_MASK][0, :, :, 0]) if wants_mask else None
        return Body(
            points=points[:NUM_LANDMARKS],
            visibility=probability(rows[:NUM_LANDMARKS, 3]),
            presence=probability(rows[:NUM_LANDMARKS, 4]),
            auxiliary=points[_AUXILIARY, :2],
            world=_turned_back(answer[_WORLD].reshape(-1, 3)[:NUM_LANDMARKS], crop),
            score=score,
            frame_size=(width, height),
            mask=None if mask is None else crop.paste(mask, height, width),
        )


def _refine(
    places: Float32[np.ndarray, "points 2"], heat_logits: Float32[np.ndarray, "64 64 points"]
) -> Float32[np.ndarray, "points 2"]:
    """Return places in the crop moved to the centre of their heat, where that is clear.

    Args:
        places: As the network regresses them.
        heat_logits: One map for each point, of a quarter of the crop's resolution.
    """
    refined = places.copy()
    shrink = _CROP_SIDE_PX / _HEAT_SIDE
    for index, (column, row) in enumerate((places / shrink).astype(np.int64)):
        if not (0 <= column < _HEAT_SIDE and 0 <= row < _HEAT_SIDE):
            continue
        left, top = max(column - _HEAT_REACH, 0), max(row - _HEAT_REACH, 0)
        window = heat_logits[top : row + _HEAT_REACH + 1, left : column + _HEAT_REACH + 1, index]
        heat = probability(window)
        if heat.max() < _LEAST_HEAT:
            continue
        total = float(heat.sum())
        x = float((heat.sum(axis=0) * np.arange(left, left + heat.shape[1])).sum()) / total
        y = float((heat.sum(axis=1) * np.arange(top, top + heat.shape[0])).sum()) / total
        refined[index] = x * shrink, y * shrink
    return refined


def _turned_back(
    world: Float32[np.ndarray, "33 3"], crop: UprightCrop
) -> Float32[np.ndarray, "33 3"]:
    """Return landmarks in metres turned from the upright crop into the frame's orientation."""
    cosine, sine = math.cos(crop.turn), math.sin(crop.turn)
    x, y = world[:, 0], world[:, 1]
    turned = [cosine * x - sine * y, sine * x + cosine * y, world[:, 2]]
    return np.stack(turned, axis=1).astype(np.float32)
