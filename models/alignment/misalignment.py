"""Random misalignment of driving poses, as the aligner is trained on, and its loss (eq. 12)."""

import math
from dataclasses import Field, dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from animaray.models.alignment.procrustes import SimilarityTransform
from animaray.models.pose.further_points import HasPose, map_further
from animaray.platform.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class MisalignmentConfig:
    """Ranges of the random similarity transforms (those of the MisAlign benchmark)."""

    max_rotation_rad: float = math.radians(30)
    """Rotations are uniform within plus and minus this."""
    min_scale: float = 0.4
    """Smallest scale; scales are log-uniform."""
    max_scale: float = 2.0
    """Largest scale."""
    max_translation: float = 0.4
    """Shifts are uniform within plus and minus this share of the picture's width and height."""

    def __post_init__(self) -> None:
        """Refuse empty ranges.

        Raises:
            ConfigError: A limit is negative, or the scales are not 0 < min <= max.
        """
        if not 0 < self.min_scale <= self.max_scale:
            raise ConfigError(
                "Expected 0 < `min_scale` <= `max_scale`, got "
                f"{self.min_scale} and {self.max_scale}."
            )
        if self.max_rotation_rad < 0 or self.max_translation < 0:
            raise ConfigError("`max_rotation_rad` and `max_translation` must not be negative.")


def random_similarity(
    aspect: Float[Tensor, " batch"],
    config: MisalignmentConfig,
    generator: torch.Generator | None = None,
) -> SimilarityTransform:
    """Draw one similarity transform per item: rotate and scale about the centre, then shift.

    Args:
        aspect: Width / height of each picture; points are in units of the height.
        generator: Source of randomness (on the CPU).
    """
    uniform = torch.rand(4, len(aspect), generator=generator).to(aspect)
    low, high = math.log(config.min_scale), math.log(config.max_scale)
    scale = (low + uniform[0] * (high - low)).exp()
    rotation = (2 * uniform[1] - 1) * config.max_rotation_rad
    size = torch.stack([aspect, torch.ones_like(aspect)], -1)
    shift = (2 * uniform[2:].T - 1) * config.max_translation * size
    about_origin = SimilarityTransform(scale, rotation, torch.zeros_like(shift))
    centre = size / 2
    moved = about_origin.apply(centre[:, None])[:, 0]
    return SimilarityTransform(scale, rotation, centre - moved + shift)


@runtime_checkable
class PosedClip(HasPose, Protocol):
    """Poses with the size of their picture: a `PosedPicture` or a `Motion`."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def height_px(self) -> int:
        """Height of the picture."""
        ...


Clip = TypeVar("Clip", bound=PosedClip)


@dataclass(frozen=True, slots=True)
class Misalignment:
    """How one whole clip is moved: turned and scaled about the picture's centre, then shifted."""

    transform: SimilarityTransform
    """A batch of one; points in picture heights."""

    @classmethod
    def of_seed(
        cls, seed: str, aspect: float, ranges: MisalignmentConfig | None = None
    ) -> "Misalignment":
        """Draw one, as in the MisAlign benchmarks.

        Args:
            seed: Hexadecimal digits; equal seeds give equal transforms.
            aspect: Width / height of the picture.
            ranges: None for those of the benchmarks.
        """
        generator = torch.Generator().manual_seed(int(seed[:15], 16))
        drawn = random_similarity(torch.tensor([aspect]), ranges or MisalignmentConfig(), generator)
        return cls(drawn)

    def apply(self, clip: Clip) -> Clip:
        """Return a clip moved so, hands and faces with their bodies; pixels in, pixels out."""

        def move(points: Float[np.ndarray, "*items 2"]) -> Float[np.ndarray, "*items 2"]:
            flat = torch.from_numpy(points / clip.height_px).reshape(1, -1, 2)
            return self.transform.apply(flat)[0].numpy().reshape(points.shape) * clip.height_px

        return replace(
            clip,
            keypoints=move(clip.keypoints).astype(np.float32),
            further_points=map_further(clip.further_points, move),
        )


def alignment_loss(
    aligned: Float[Tensor, "batch keypoints 2"],
    target: Float[Tensor, "batch keypoints 2"],
    visible: Float[Tensor, "batch keypoints"],
) -> Float[Tensor, ""]:
    """Return the mean Euclidean distance over visible keypoints (eq. 12).

    Args:
        target: The untouched driving pose, same unit.
        visible: 1 where the target is seen, 0 elsewhere (or any weight).
    """
    distance = ((aligned - target).square().sum(-1) + 1e-12).sqrt()
    return (distance * visible).sum() / visible.sum().clamp_min(1e-8)
