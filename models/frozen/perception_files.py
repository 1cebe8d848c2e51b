"""Which registered files a profile's perception reads, told without loading a network."""

from collections.abc import Mapping

from animaray.platform.errors import ConfigError
from animaray.platform.weights import resolve_weights

PERCEPTION_FILES: Mapping[str, tuple[str, ...]] = {
    "generated": ("generated/face_detector", "generated/identity", "generated/pose"),
    "permissive": (
        "permissive/face_detector", "development/identity", "permissive/pose_detector",
        "permissive/pose_landmarks",
    ),
    "paper": (
        "paper/antelopev2", "paper/person_detector", "paper/pose",
    ),
}  # fmt: skip
"""Ids of the weights registry, by profile."""


def check_perception_files(profile: str) -> None:
    """Refuse a profile whose perception cannot load, in milliseconds.

    A file that is missing or damaged raises WeightsError, which names it and the way to it.

    Args:
        profile: Who is to look at the pixels.

    Raises:
        ConfigError: There is no such profile.
    """
    if profile not in PERCEPTION_FILES:
        raise ConfigError(
            f"Unknown perception profile `{profile}`; known are {', '.join(PERCEPTION_FILES)}."
        )
    for weights_id in PERCEPTION_FILES[profile]:
        resolve_weights(weights_id)
