"""Camera paths of known size, and the eleven cases on which rules about cameras are compared.

The cases: two steady cameras, which must be kept,
and nine that must not be. Lengths are shares of the frame's short side.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from animaray.datasets.world.cameras import Similarity
from animaray.datasets.world.clips import ClipSpec, sample_clip_spec
from animaray.platform.errors import ConfigError

Times = Float64[np.ndarray, " frames"]

CASES = (
    "tripod", "sway", "background_moves", "slow_pan", "pan_and_back", "zoom", "zoom_and_back",
    "roll", "punch_in", "shake", "hard_cut",
)  # fmt: skip
"""In the order of the reference's table."""
STEADY_CASES = ("tripod", "sway")

# Largest share of the short side, factor or angle of each move when its amount is 1.
_SWAY, _PAN, _PAN_BACK, _ZOOM, _ROLL_DEG, _PUNCH, _SHAKE = 0.010, 0.10, 0.20, 0.15, 3.0, 0.2, 0.03
_STIRRED = 0.30


def camera_case(
    name: str, *, num_frames: int, fps: float, size: tuple[int, int], seed: int = 0
) -> ClipSpec:
    """Return the clip of one case: somebody dances before the middle of the background.

    Args:
        name: One of CASES.
        num_frames: Length, frames.
        fps: Frames per second.
        size: Width and height, px.
        seed: Of person, scene and motion.

    Raises:
        ConfigError: The case is not known.
    """
    if name not in CASES:
        raise ConfigError(f"expected a camera case out of {CASES}, got {name!r}; choose one")
    spec = sample_clip_spec(
        seed, motion_kind="dance", framing="full", camera_kind="static", effects=(),
        num_frames=num_frames, fps=fps, size=size,
    )  # fmt: skip
    if name == "background_moves":
        return replace(spec, stirred_share=_STIRRED)
    if name == "hard_cut":
        return replace(spec, effects=("cut",))
    return replace(spec, camera=known_path(name, num_frames=num_frames, fps=fps, size=size))


def known_path(
    name: str,
    *,
    num_frames: int,
    fps: float,
    size: tuple[int, int],
    amount: float = 1.0,
    direction_rad: float = 0.0,
) -> tuple[Similarity, ...]:
    """Return one similarity for each frame.

    Args:
        name: One of PATHS.
        num_frames: Length, frames.
        fps: Frames per second.
        size: Width and height, px.
        amount: Times the case's own size of move.
        direction_rad: Of shifts, 0 to the right.

    Raises:
        ConfigError: The path is not known.
    """
    if name not in PATHS:
        raise ConfigError(f"expected a path out of {tuple(PATHS)}, got {name!r}; choose one")
    times = np.arange(num_frames) / fps
    values = {"shift": np.zeros(num_frames), "scale": np.ones(num_frames)}
    values |= {"across": np.zeros(num_frames), "roll": np.zeros(num_frames)}
    values |= PATHS[name](times, amount)
    turn = complex(np.cos(direction_rad), np.sin(direction_rad)) * min(size)
    moved = (values["shift"] + 1j * values["across"]) * turn
    return tuple(
        Similarity(
            dx_px=float(moved[index].real),
            dy_px=float(moved[index].imag),
            scale=float(values["scale"][index]),
            roll_rad=float(values["roll"][index]),
        )
        for index in range(num_frames)
    )


def _ramp(times: Times) -> Times:
    return times / max(float(times[-1]), 1e-6)


def _there_and_back(times: Times) -> Times:
    return np.sin(np.pi * _ramp(times))


def _sway(times: Times, amount: float) -> dict[str, Times]:
    wave = 2 * np.pi * times
    size = _SWAY * amount
    return {
        "shift": size * np.sin(0.3 * wave),
        "across": 0.8 * size * (np.sin(0.23 * wave + 1) - np.sin(1)),
    }


def _shake(times: Times, amount: float) -> dict[str, Times]:
    """Shake for two seconds, or a quarter of a short clip, in its middle."""
    half = min(1.0, float(times[-1]) / 8)
    middle = float(times[-1]) / 2
    on = np.abs(times - middle) < half
    return {"shift": np.where(on, _SHAKE * amount * np.sin(2 * np.pi * 2.3 * times), 0.0)}


PATHS: Mapping[str, Callable[[Times, float], dict[str, Times]]] = {
    "tripod": lambda _times, _amount: {},
    "sway": _sway,
    "slow_pan": lambda times, amount: {"shift": _PAN * amount * _ramp(times)},
    "pan_and_back": lambda times, amount: {"shift": _PAN_BACK * amount * _there_and_back(times)},
    "zoom": lambda times, amount: {"scale": 1 + _ZOOM * amount * _ramp(times)},
    "zoom_and_back": lambda times, amount: {"scale": 1 + _ZOOM * amount * _there_and_back(times)},
    "roll": lambda times, amount: {"roll": np.radians(_ROLL_DEG * amount) * _ramp(times)},
    "punch_in": lambda times, amount: {"scale": 1 + _PUNCH * amount * (_ramp(times) > 0.5)},
    "shake": _shake,
}  # fmt: skip
"""What each path does at given times with a given amount."""
