"""Say who produced a score so that it can be told apart later: name and hash of the weights.

Two datasets whose producers are equal were looked at by the same networks with the same settings.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import cv2

from animaray.models.perception.paper import arc_face, scrfd
from animaray.platform.config import fingerprint
from animaray.platform.weights.store import resolve_weights

_DIGITS = 12
_WEIGHTS: Mapping[str, tuple[tuple[str, str | None], ...]] = {
    "generated/face_detector": (("generated/face_detector", None),),
    "generated/identity": (("generated/identity", None),),
    "generated/pose": (("generated/pose", None),),
    "permissive/yunet": (("permissive/face_detector", None),),
    "permissive/body": (
        ("permissive/pose_detection", None),
        ("permissive/pose_landmark_full", None),
    ),
    "permissive/whole_body": (
        ("permissive/pose_detection", None),
        ("permissive/pose_landmark_full", None),
        ("permissive/face_detection", None),
        ("permissive/face_landmark", None),
        ("permissive/palm_detection", None),
        ("permissive/hand_landmark", None),
    ),
    "permissive/head_faces": (
        ("permissive/pose_detection", None),
        ("permissive/pose_landmark_full", None),
        ("permissive/face_detection", None),
        ("permissive/face_landmark", None),
    ),
    "permissive/mediapipe_pose": (
        ("permissive/pose_detector", None),
        ("permissive/pose_landmarks", None),
    ),
    "permissive/dlib_identity": (("permissive/identity", None),),
    "development/mobile_face_net": (("development/identity", None),),
    "paper/scrfd": (("paper/antelopev2", scrfd.ONNX_FILE),),
    "paper/insightface": (("paper/antelopev2", scrfd.ONNX_FILE),),
    "paper/arcface": (("paper/antelopev2", arc_face.ONNX_FILE),),
    "paper/dwpose": (("paper/person_detector", None), ("paper/pose", None)),
    "paper/cotracker3_online": (("paper/cotracker3", None),),
}
"""Registered files of each network, by the name that it gives itself."""
_OF_OPENCV = ("opencv", "permissive/optical_flow")


def provenance_of(names: str, settings: object) -> str:
    """Return what the dataset keeps about the producers of a family of scores.

    Args:
        names: Of the networks, separated by spaces; one that is not registered keeps its name.
        settings: The stage's configuration, a dataclass; None where it has none.

    Returns:
        Each name with "@" and the beginning of its weights' SHA-256 (of OpenCV its version), then
        `settings@` and theirs.
    """
    parts = [_identified(name) for name in names.split()]
    if settings is not None:
        parts.append(f"settings@{fingerprint(settings)[:_DIGITS]}")
    return " ".join(parts)


def _identified(name: str) -> str:
    if name in _OF_OPENCV:
        return f"{name}@{cv2.__version__}"
    if name not in _WEIGHTS:
        return name
    files = [
        resolve_weights(weights_id) / inner if inner else resolve_weights(weights_id)
        for weights_id, inner in _WEIGHTS[name]
    ]
    digests = "".join(_digest(file) for file in files)
    return f"{name}@{_shortened(digests) if len(files) > 1 else digests[:_DIGITS]}"


def _shortened(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


@lru_cache(maxsize=32)
def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
