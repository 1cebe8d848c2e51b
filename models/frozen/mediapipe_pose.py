"""Body keypoints by MediaPipe's two pose networks (Apache-2.0), several people a picture.

A detector on a 224 px letterbox finds people (two points set each one's size and turn); the
landmark network sees each person upright in a 256 px crop, twice: the second crop is placed by
the landmarks of the first. Every frame is judged on its own, nothing is remembered.

References:
    Bazarevsky et al. 2020, "BlazePose", arXiv 2006.10204.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from animaray.models.frozen.face_alignment import warp_crop
from animaray.models.frozen.onnx_session import open_onnx_session
from animaray.models.frozen.pose_detections import (
    DETECTOR_SIDE_PX,
    PersonDetection,
    decode_detections,
    tiles_of,
)
from animaray.models.frozen.protocols import PersonPose
from animaray.platform.errors import ConfigError
from animaray.platform.weights import resolve_weights

_CROP_SIDE_PX = 256
_CROP_PER_RADIUS = 2.5
_NUM_LANDMARKS = 33
# Landmarks 33 and 34 are auxiliary: hip centre and the point that sets size and turn.
_AUXILIARY = slice(33, 35)
_OUT_OF_FRAME_CONFIDENCE = 0.05
_LEFT_SHOULDER, _RIGHT_SHOULDER, _LEFT_HIP, _RIGHT_HIP = 11, 12, 23, 24
# OpenPose order; -1 is the neck, half-way between the shoulders.
_LANDMARK_OF_KEYPOINT = (0, -1, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)
_NECK = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaPipePoseConfig:
    """Settings of the MediaPipe pose estimator."""

    min_detection_score: float = 0.5
    """Least detector score in [0, 1] of a person."""
    min_tile_score: float = 0.8
    """The same for tiles: there is more background to be wrong about (animals reach 0.7)."""
    min_presence: float = 0.3
    """Least presence score in [0, 1] of the landmark network; real close-ups fall to 0.4."""
    max_people: int = 8
    """Detections beyond this many (by score) are not looked at."""
    max_overlap: float = 0.5
    """Two poses whose keypoints agree more than this (0 to 1) are one person."""
    use_second_look: bool = True
    """Run the landmark network again in the crop that its first landmarks ask for (15 ms)."""
    use_tiles: bool = True
    """Look again at overlapping tiles when the whole picture shows nobody (far people)."""

    def __post_init__(self) -> None:
        """Refuse settings out of range.

        Raises:
            ConfigError: A share is outside [0, 1], or max_people is below 1.
        """
        for name in ("min_detection_score", "min_tile_score", "min_presence", "max_overlap"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"Expected {name} in [0, 1], got {value}.")
        if self.max_people < 1:
            raise ConfigError(f"Expected max_people >= 1, got {self.max_people}.")


class MediaPipePoseEstimator:
    """Find people and their 18 OpenPose keypoints in one picture."""

    def __init__(
        self,
        detector_path: Path,
        landmarks_path: Path,
        *,
        config: MediaPipePoseConfig | None = None,
        num_threads: int = 1,
        device: str = "cpu",
    ) -> None:
        """Open the two ONNX files.

        Args:
            detector_path: Person detector.
            landmarks_path: Landmark network.
            config: Settings; None takes the defaults.
            num_threads: CPU threads of each network.
            device: "cpu" or "cuda".
        """
        self.name = "permissive/mediapipe_pose"
        self.config = config or MediaPipePoseConfig()
        self._detector, self._landmarks = (
            open_onnx_session(path, num_threads=num_threads, device=device)
            for path in (detector_path, landmarks_path)
        )

    @classmethod
    def load(
        cls,
        *,
        config: MediaPipePoseConfig | None = None,
        num_threads: int = 1,
        device: str = "cpu",
    ) -> "MediaPipePoseEstimator":
        """Open the registered weights."""
        return cls(
            resolve_weights("permissive/pose_detector"),
            resolve_weights("permissive/pose_landmarks"),
            config=config,
            num_threads=num_threads,
            device=device,
        )

    def estimate(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[PersonPose]:
        """Return the people of one RGB picture, largest first; empty when there is nobody.

        Confidence is visibility times presence; at most 0.05 for points outside the picture.
        """
        detections = self._detect(frame, self.config.min_detection_score)
        if not detections and self.config.use_tiles:
            detections = self._detect_in_tiles(frame)
        people: list[_Body] = []
        for detection in detections[: self.config.max_people]:
            body = self._look_at(frame, detection.centre, detection.rim)
            if body is not None and not self._is_known(body, people):
                people.append(body)
        people.sort(key=lambda body: body.area(), reverse=True)
        return [body.pose() for body in people]

    def _detect(
        self, picture: UInt8[np.ndarray, "height width 3"], min_score: float
    ) -> list[PersonDetection]:
        """Run the detector on a picture, letterboxed; best score first."""
        height, width = picture.shape[:2]
        scale = DETECTOR_SIDE_PX / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        shrunk = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        left, top = (DETECTOR_SIDE_PX - size[0]) // 2, (DETECTOR_SIDE_PX - size[1]) // 2
        canvas = np.zeros((DETECTOR_SIDE_PX, DETECTOR_SIDE_PX, 3), dtype=np.uint8)
        canvas[top : top + size[1], left : left + size[0]] = shrunk
        inputs = canvas[None].astype(np.float32) / 127.5 - 1.0
        rows, logits = self._detector.run(None, {"input_1": inputs})
        found = decode_detections(rows[0], logits[0, :, 0], min_score)
        offset = np.array([left, top], dtype=np.float32)
        return [each.moved(-offset, 1.0 / scale) for each in found]

    def _detect_in_tiles(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[PersonDetection]:
        """Run the detector on overlapping square tiles; people seen twice are kept once later."""
        found: list[PersonDetection] = []
        for x, y, side in tiles_of(frame.shape[1], frame.shape[0]):
            corner = np.array([x, y], dtype=np.float32)
            tile = frame[y : y + side, x : x + side]
            people = self._detect(tile, self.config.min_tile_score)
            found.extend(each.moved(corner, 1.0) for each in people)
        return sorted(found, key=lambda each: each.score, reverse=True)

    def _look_at(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        centre: Float32[np.ndarray, " 2"],
        rim: Float32[np.ndarray, " 2"],
    ) -> "_Body | None":
        """Find one person's landmarks, then again in the crop that those landmarks ask for."""
        first = self._landmarks_in_crop(frame, centre, rim)
        if first is None or not self.config.use_second_look:
            return first
        auxiliary = first.landmarks[_AUXILIARY]
        return self._landmarks_in_crop(frame, auxiliary[0], auxiliary[1]) or first

    def _landmarks_in_crop(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        centre: Float32[np.ndarray, " 2"],
        rim: Float32[np.ndarray, " 2"],
    ) -> "_Body | None":
        """Run the landmark network on the upright crop around a centre, or None for nobody."""
        offset = rim - centre
        radius = float(np.hypot(*offset))
        if radius < 1.0 or not np.isfinite(radius):
            return None
        # The rim point is straight above the centre in an upright crop.
        turn = math.atan2(float(offset[0]), float(-offset[1]))
        matrix = _crop_matrix(centre, radius * _CROP_PER_RADIUS, turn)
        crop = warp_crop(frame, matrix, _CROP_SIDE_PX, _CROP_SIDE_PX)
        inputs = crop[None].astype(np.float32) / 255.0
        rows, presence = self._landmarks.run(["Identity", "Identity_1"], {"input_1": inputs})
        if float(presence[0, 0]) < self.config.min_presence:
            return None
        points = rows.reshape(-1, 5)
        back = cv2.invertAffineTransform(matrix)
        landmarks = points[:, :2] @ back[:, :2].T + back[:, 2]
        confidence = _sigmoid(points[:, 3]) * _sigmoid(points[:, 4])
        return _Body(
            landmarks=landmarks.astype(np.float32),
            confidence=confidence[:_NUM_LANDMARKS].astype(np.float32),
            frame_size=(frame.shape[1], frame.shape[0]),
        )

    def _is_known(self, body: "_Body", people: list["_Body"]) -> bool:
        return any(body.likeness(other) > self.config.max_overlap for other in people)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Body:
    """The landmarks of one person."""

    landmarks: Float32[np.ndarray, "39 2"]
    """Pixels of the frame; 33 body points, then the auxiliary ones."""
    confidence: Float32[np.ndarray, " 33"]
    """Visibility times presence of the body points."""
    frame_size: tuple[int, int]
    """Width and height of the frame, pixels."""

    def area(self) -> float:
        """Return the area of the box around the body points, square pixels."""
        width, height = np.ptp(self.landmarks[:_NUM_LANDMARKS], axis=0)
        return float(width * height)

    def likeness(self, other: "_Body") -> float:
        """Return how much two bodies agree, like COCO's keypoint similarity, from 0 to 1."""
        torso = [_LEFT_SHOULDER, _RIGHT_SHOULDER, _LEFT_HIP, _RIGHT_HIP]
        distance = np.linalg.norm(self.landmarks[torso] - other.landmarks[torso], axis=-1)
        spread = 0.2 * math.sqrt(max(min(self.area(), other.area()), 1.0))
        return float(np.exp(-0.5 * (distance / spread) ** 2).mean())

    def pose(self) -> PersonPose:
        """Return the 18 OpenPose keypoints."""
        order = list(_LANDMARK_OF_KEYPOINT)
        keypoints, confidence = self.landmarks[order], self.confidence[order]
        shoulders = [_LEFT_SHOULDER, _RIGHT_SHOULDER]
        keypoints[_NECK] = self.landmarks[shoulders].mean(axis=0)
        confidence[_NECK] = self.confidence[shoulders].min()
        inside = ((keypoints >= 0) & (keypoints <= np.array(self.frame_size) - 1)).all(axis=-1)
        confidence = np.where(inside, confidence, np.minimum(confidence, _OUT_OF_FRAME_CONFIDENCE))
        return PersonPose(
            keypoints=keypoints.astype(np.float32),
            keypoint_confidence=confidence.astype(np.float32),
        )


def _crop_matrix(
    centre: Float32[np.ndarray, " 2"], side_px: float, turn: float
) -> Float64[np.ndarray, "2 3"]:
    """Return the map from the frame to the crop: centred, scaled to 256 px, turned upright.

    Args:
        centre: Middle of the crop, frame pixels.
        side_px: Side of the crop, frame pixels.
        turn: How far the person leans clockwise, radians.
    """
    scale = _CROP_SIDE_PX / side_px
    cosine, sine = scale * math.cos(turn), scale * math.sin(turn)
    linear = np.array([[cosine, sine], [-sine, cosine]])
    offset = np.full(2, _CROP_SIDE_PX / 2) - linear @ centre.astype(np.float64)
    return np.concatenate([linear, offset[:, None]], axis=1)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(logits, -60.0, 60.0)))
