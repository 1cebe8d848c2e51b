"""Camera paths of the generated world: one similarity of the image plane for each frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float

from animaray.platform.errors import ConfigError

CAMERA_KINDS = ("static", "drift", "pan", "zoom", "roll", "shake")
STILL_CAMERA_KINDS = ("static", "drift")


@dataclass(frozen=True, kw_only=True, slots=True)
class Similarity:
    """A move of the image plane: turn and scale about the frame's middle, then shift."""

    dx_px: float = 0.0
    """Shift to the right, px."""
    dy_px: float = 0.0
    """Shift down, px."""
    scale: float = 1.0
    """Magnification."""
    roll_rad: float = 0.0
    """Turn, clockwise on the image, radians."""

    def apply(
        self, points: Complex[np.ndarray, " points"], *, middle: complex
    ) -> Complex[np.ndarray, " points"]:
        """Return the moved points, px.

        Args:
            points: Points of the frame, px.
            middle: Fixed point of turn and scale, px.

        Returns:
            Where they are seen after the move.
        """
        turn = self.scale * complex(np.cos(self.roll_rad), np.sin(self.roll_rad))
        return (points - middle) * turn + (middle + complex(self.dx_px, self.dy_px))

    def matrix(self, *, middle: complex) -> Float[np.ndarray, "2 3"]:
        """Return the same move as a 2x3 matrix in px."""
        turn = self.scale * complex(np.cos(self.roll_rad), np.sin(self.roll_rad))
        shift = middle + complex(self.dx_px, self.dy_px) - turn * middle
        return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def camera_path(
    kind: str, *, seed: int, num_frames: int, size: tuple[int, int], fps: float
) -> tuple[Similarity, ...]:
    """Draw a camera path.

    Args:
        kind: One of CAMERA_KINDS.
        seed: Seed of direction, speed and phase.
        num_frames: Length of the path, frames.
        size: Width and height of the frame, px.
        fps: Frames per second.

    Returns:
        One similarity for each frame.

    Raises:
        ConfigError: The kind is not known.
    """
    if kind not in CAMERA_KINDS:
        raise ConfigError(
            f"expected a camera kind out of {CAMERA_KINDS}, got {kind!r}; choose one of them"
        )
    rng = np.random.default_rng([31, seed])
    time_s = np.arange(num_frames) / fps
    progress = np.arange(num_frames) / max(num_frames - 1, 1) - 0.5
    sign = 1.0 if rng.random() < 0.5 else -1.0
    shift = np.zeros((num_frames, 2))
    scale, roll = np.ones(num_frames), np.zeros(num_frames)
    if kind == "drift":
        phase = rng.uniform(0, 2 * np.pi, 2)
        shift = 0.003 * np.sin(2 * np.pi * 0.12 * time_s[:, None] + phase)
    elif kind == "pan":
        span = rng.uniform(0.28, 0.42)
        shift = progress[:, None] * np.array([sign * span, rng.uniform(-0.05, 0.05)])
    elif kind == "zoom":
        scale = np.exp(sign * progress * rng.uniform(0.35, 0.5))
    elif kind == "roll":
        roll = sign * progress * rng.uniform(0.3, 0.5)
    elif kind == "shake":
        shift, roll = _shake(rng, time_s)
    width, height = size
    return tuple(
        Similarity(
            dx_px=float(shift[i, 0] * width),
            dy_px=float(shift[i, 1] * height),
            scale=float(scale[i]),
            roll_rad=float(roll[i]),
        )
        for i in range(num_frames)
    )


def _shake(
    rng: np.random.Generator, time_s: Float[np.ndarray, " frames"]
) -> tuple[Float[np.ndarray, "frames 2"], Float[np.ndarray, " frames"]]:
    rates = rng.uniform(1.5, 4.5, (3, 3))
    phases = rng.uniform(0, 2 * np.pi, (3, 3))
    waves = np.sin(2 * np.pi * rates * time_s[:, None, None] + phases).mean(axis=2)
    return 0.045 * waves[:, :2], 0.02 * waves[:, 2]
