"""Ground truth of the generated world: what is where in every frame, and what a filter should say.

Pixels: x right, y down, whole numbers are pixel centres (the convention of cv2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from animaray.datasets.world.cameras import Similarity


@dataclass(frozen=True, slots=True)
class PersonTruth:
    """One person in one frame."""

    person_id: int
    """Seed of the identity."""
    keypoints: Float[np.ndarray, "18 2"]
    """OpenPose-18 keypoints, px."""
    keypoint_visible: Bool[np.ndarray, " 18"]
    """Inside the frame, not behind the turned head, not behind an occluder."""
    face_box: Float[np.ndarray, " 4"]
    """Chin to forehead, xyxy, px."""
    landmarks: Float[np.ndarray, "5 2"]
    """Left-in-image eye, right-in-image eye, nose, mouth corners in the same order, px."""
    face_visible: bool
    """The face looks towards the camera and most of it is inside the frame and not covered."""
    head_yaw_rad: float
    """Yaw against the camera, positive to the picture's right."""
    head_pitch_rad: float
    """Pitch, positive up."""
    head_roll_rad: float
    """Roll on the picture, clockwise, the camera's roll included."""

    def to_json(self) -> dict[str, Any]:
        """Return the truth as JSON values, px rounded to 0.01."""
        return {
            "person_id": self.person_id,
            "keypoints": np.round(self.keypoints.astype(float), 2).tolist(),
            "keypoint_visible": self.keypoint_visible.tolist(),
            "face_box": np.round(self.face_box.astype(float), 2).tolist(),
            "landmarks": np.round(self.landmarks.astype(float), 2).tolist(),
            "face_visible": self.face_visible,
            "head_yaw_rad": round(self.head_yaw_rad, 4),
            "head_pitch_rad": round(self.head_pitch_rad, 4),
            "head_roll_rad": round(self.head_roll_rad, 4),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PersonTruth:
        """Return the truth that to_json wrote."""
        arrays = {
            name: np.array(values[name], np.float64)
            for name in ("keypoints", "face_box", "landmarks")
        }
        seen = np.array(values["keypoint_visible"], bool)
        return cls(**{**values, **arrays, "keypoint_visible": seen})


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """One frame: the persons, far to near, and the camera."""

    persons: tuple[PersonTruth, ...]
    """Empty where nobody is shown."""
    camera: Similarity
    """Move of the image plane against the scene at rest."""

    def to_json(self) -> dict[str, Any]:
        """Return the truth as JSON values."""
        camera = self.camera
        moved = (camera.dx_px, camera.dy_px, camera.scale, camera.roll_rad)
        return {
            "persons": [person.to_json() for person in self.persons],
            "camera": [round(value, 5) for value in moved],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FrameTruth:
        """Return the truth that to_json wrote."""
        dx, dy, scale, roll = values["camera"]
        return cls(
            persons=tuple(PersonTruth.from_json(person) for person in values["persons"]),
            camera=Similarity(dx_px=dx, dy_px=dy, scale=scale, roll_rad=roll),
        )


@dataclass(frozen=True, slots=True)
class ClipTruth:
    """A whole clip."""

    frames: tuple[FrameTruth, ...]
    """One for each frame."""
    fps: float
    """Frames per second."""
    size: tuple[int, int]
    """Width and height, px."""
    camera_kind: str
    """One of CAMERA_KINDS."""
    verdict: str
    """keep or drop: what a perfect curation would say."""
    reason: str
    """Why it should be dropped; empty for keep."""
    cuts: tuple[int, ...] = ()
    """Index of the first frame of every new shot."""
    effects: tuple[str, ...] = ()
    """Names of the effects."""
    person_ids: tuple[int, ...] = field(default=())
    """All identities that appear."""

    def to_json(self) -> dict[str, Any]:
        """Return the truth as JSON values."""
        return {
            "fps": self.fps,
            "size": list(self.size),
            "camera_kind": self.camera_kind,
            "verdict": self.verdict,
            "reason": self.reason,
            "cuts": list(self.cuts),
            "effects": list(self.effects),
            "person_ids": list(self.person_ids),
            "frames": [frame.to_json() for frame in self.frames],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ClipTruth:
        """Return the truth that to_json wrote."""
        width, height = values["size"]
        return cls(
            frames=tuple(FrameTruth.from_json(frame) for frame in values["frames"]),
            fps=float(values["fps"]),
            size=(int(width), int(height)),
            camera_kind=values["camera_kind"],
            verdict=values["verdict"],
            reason=values["reason"],
            cuts=tuple(values["cuts"]),
            effects=tuple(values["effects"]),
            person_ids=tuple(values["person_ids"]),
        )
