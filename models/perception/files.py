"""Which registered files a profile's perception reads, told without loading a network."""

from collections.abc import Mapping

from animaray.models.pose.layouts import PoseLayout
from animaray.platform.errors import ConfigError, WeightsError
from animaray.platform.weights.store import resolve_weights

PERCEPTION_FILES: Mapping[str, tuple[str, ...]] = {
    "generated": ("generated/face_detector", "generated/identity", "generated/pose"),
    "permissive": (
        "permissive/pose_detection", "permissive/pose_landmark_full", "permissive/face_detection",
        "permissive/face_landmark", "permissive/identity",
    ),
    "paper": (
        "paper/antelopev2", "paper/person_detector", "paper/pose",
    ),
}  # fmt: skip
"""Ids of the weights registry, by profile."""
HAND_FILES = ("permissive/palm_detection", "permissive/hand_landmark")
"""What profile permissive reads besides where hands and faces are asked for."""
EARLIER_FILES = (
    "permissive/face_detector", "development/identity", "permissive/pose_detector",
    "permissive/pose_landmarks",
)  # fmt: skip
"""What profile permissive read in earlier versions, and still reads where only these are here:
YuNet, MobileFaceNet, and conversions of MediaPipe's networks to ONNX (the landmarks lite)."""


def reads_earlier_files() -> bool:
    """Return whether profile permissive takes the files of earlier versions on this machine.

    Raises:
        WeightsError: A file is here, but damaged.
    """
    return not are_here(PERCEPTION_FILES["permissive"]) and are_here(EARLIER_FILES)


def are_here(weights_ids: tuple[str, ...]) -> bool:
    """Return whether all files are on this machine.

    Args:
        weights_ids: Of the weights registry.

    Raises:
        WeightsError: A file is here, but damaged.
    """
    for weights_id in weights_ids:
        try:
            resolve_weights(weights_id)
        except WeightsError as error:
            if error.reason != "missing":
                raise
            return False
    return True


def check_perception_files(profile: str, pose_layout: PoseLayout = "openpose_18") -> None:
    """Refuse a profile whose perception cannot load, in milliseconds.

    A file that is missing or damaged raises WeightsError, which names it and the way to it.

    Args:
        profile: Who is to look at the pixels.
        pose_layout: Least points of a pose.

    Raises:
        ConfigError: There is no such profile.
    """
    if profile not in PERCEPTION_FILES:
        raise ConfigError(
            f"Unknown perception profile `{profile}`; known are {', '.join(PERCEPTION_FILES)}."
        )
    wants_hands = profile == "permissive" and pose_layout == "whole_body_134"
    if profile == "permissive" and not wants_hands and reads_earlier_files():
        return
    for weights_id in (*PERCEPTION_FILES[profile], *(HAND_FILES if wants_hands else ())):
        resolve_weights(weights_id)
