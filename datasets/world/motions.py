"""Procedural human motion: postures as smooth functions of time, seeded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from animaray.datasets.world.people import Body
from animaray.datasets.world.postures import (
    ArmAngles,
    LegAngles,
    Pose,
    Posture,
    posture_to_pose,
)
from animaray.platform.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """A seeded motion: call `posture` for angles, `pose` for joints of a given body."""

    kind: str
    """One of MOTION_KINDS."""
    seed: int
    """Seed of all parameters."""
    yaw_offset_rad: float = 0.0
    """Added to the body's yaw: pi shows the back."""
    tempo_hz: float = 1.0
    """Main rate of the motion."""
    phases: tuple[float, ...] = field(default=())
    """Eight phases, radians."""
    sizes: tuple[float, ...] = field(default=())
    """Eight sizes in [0, 1]."""

    def posture(self, time_s: float) -> Posture:
        """Return the joint angles at one time, seconds."""
        posture = _MOTIONS[self.kind](self, time_s)
        blink = 1.0 - float(np.exp(-((((time_s * 0.3 + self.phases[7]) % 1.0 - 0.5) / 0.02) ** 2)))
        return replace(posture, yaw_rad=posture.yaw_rad + self.yaw_offset_rad, eye_open=blink)

    def pose(self, body: Body, time_s: float) -> Pose:
        """Return the joints of a body at one time, seconds."""
        return posture_to_pose(self.posture(time_s), body)

    def wave(self, time_s: float, index: int, *, rate: float = 1.0) -> float:
        """Return a sine of the motion's tempo with the phase of the given index."""
        return float(np.sin(2 * np.pi * self.tempo_hz * rate * time_s + self.phases[index]))


def sample_motion(kind: str, seed: int) -> Motion:
    """Draw a motion.

    Args:
        kind: One of MOTION_KINDS.
        seed: Seed of tempo, sizes and phases.

    Returns:
        The motion, the same for the same seed.

    Raises:
        ConfigError: The kind is not known.
    """
    if kind not in _MOTIONS:
        raise ConfigError(
            f"expected a motion kind out of {MOTION_KINDS}, got {kind!r}; choose one of them"
        )
    rng = np.random.default_rng([21, seed])
    return Motion(
        kind=kind,
        seed=seed,
        tempo_hz=float(rng.uniform(0.75, 1.15)),
        phases=tuple(float(p) for p in rng.uniform(0, 2 * np.pi, 8)),
        sizes=tuple(float(s) for s in rng.uniform(0, 1, 8)),
    )


def sample_posture(rng: np.random.Generator, *, max_yaw_rad: float = 1.2) -> Posture:
    """Draw one random posture: an instant of a random motion, turned at random.

    Args:
        max_yaw_rad: Largest turn of the body to either side.

    Returns:
        The posture.
    """
    kind = MOTION_KINDS[int(rng.integers(len(MOTION_KINDS)))]
    posture = sample_motion(kind, int(rng.integers(1 << 31))).posture(float(rng.uniform(0, 8)))
    yaw = float(np.clip(rng.normal(0.0, 0.45), -max_yaw_rad, max_yaw_rad))
    return replace(
        posture,
        yaw_rad=yaw,
        head_yaw_rad=float(np.clip(rng.normal(0.0, 0.3), -0.9, 0.9)),
        head_pitch_rad=float(np.clip(rng.normal(0.0, 0.15), -0.4, 0.4)),
        head_roll_rad=float(np.clip(rng.normal(0.0, 0.1), -0.3, 0.3)),
        eye_open=1.0 if rng.random() < 0.95 else 0.1,
    )


def _life(motion: Motion, time_s: float) -> Posture:
    """Breathing, small sway and looking around: under every motion."""
    return Posture(
        sway_rad=0.025 * motion.wave(time_s, 0, rate=0.35),
        lean_rad=0.02 + 0.012 * motion.wave(time_s, 1, rate=0.3),
        head_yaw_rad=0.22 * motion.wave(time_s, 2, rate=0.22),
        head_pitch_rad=0.07 * motion.wave(time_s, 3, rate=0.27),
        head_roll_rad=0.05 * motion.wave(time_s, 4, rate=0.31),
        yaw_rad=0.25 * (motion.sizes[6] - 0.5),
        mouth_open=max(0.0, 0.5 * motion.wave(time_s, 5, rate=0.5) - 0.2),
    )


def _idle(motion: Motion, time_s: float) -> Posture:
    swing = 0.10 * motion.wave(time_s, 5, rate=0.5)
    on_hip = motion.sizes[0] > 0.6
    right = (
        ArmAngles(lift=0.75, heading=0.1, fore_lift=0.75, fore_heading=2.7)
        if on_hip
        else ArmAngles(lift=0.16 + 0.3 * swing, heading=0.4, fore_lift=0.35 + swing)
    )
    left = ArmAngles(lift=0.16 - 0.3 * swing, heading=0.4, fore_lift=0.4 - swing)
    shift = 0.05 * motion.wave(time_s, 6, rate=0.4)
    legs = (LegAngles(spread=0.09 + shift), LegAngles(spread=0.09 - shift))
    return replace(_life(motion, time_s), shift_x=0.3 * shift, arms=(right, left), legs=legs)


def _stride(motion: Motion, time_s: float) -> Posture:
    step = motion.wave(time_s, 0)
    lag = float(np.cos(2 * np.pi * motion.tempo_hz * time_s + motion.phases[0]))
    size = 0.34 + 0.16 * motion.sizes[1]
    legs = (
        LegAngles(flex=size * step, knee=0.12 + 0.75 * max(0.0, lag), spread=0.02),
        LegAngles(flex=-size * step, knee=0.12 + 0.75 * max(0.0, -lag), spread=0.02),
    )
    bend = 0.35 + 0.5 * motion.sizes[2]
    arms = tuple(
        ArmAngles(
            lift=abs(0.55 * swing) + 0.08,
            heading=float(np.arctan2(swing, 0.22)),
            fore_lift=max(0.08, 0.6 * swing + bend),
            fore_heading=1.5,
        )
        for swing in (-0.8 * step, 0.8 * step)
    )
    return replace(
        _life(motion, time_s),
        legs=legs,
        arms=(arms[0], arms[1]),
        twist_rad=0.10 * step,
        lift_y=0.0,
    )


def _walk(motion: Motion, time_s: float) -> Posture:
    yaw = (motion.sizes[3] - 0.5) * 1.2
    return replace(_stride(motion, time_s), yaw_rad=yaw)


def _walk_across(motion: Motion, time_s: float) -> Posture:
    # There and back on a rounded triangle wave, about 0.35 body heights a second.
    side = 1.0 if motion.sizes[3] > 0.5 else -1.0
    turn = 2 * np.pi * time_s / 6.5 + motion.phases[5]
    place, speed = np.arcsin(0.96 * np.sin(turn)) / 1.3, np.tanh(4 * np.cos(turn))
    yaw = side * 0.95 * float(speed)
    return replace(
        _stride(motion, time_s), yaw_rad=yaw, shift_x=side * 0.30 * float(place),
        head_yaw_rad=-0.35 * yaw,
    )  # fmt: skip


def _wave(motion: Motion, time_s: float) -> Posture:
    swing = motion.wave(time_s, 0, rate=1.7)
    waving = ArmAngles(
        lift=1.75 + 0.4 * motion.sizes[0],
        heading=0.25,
        fore_lift=2.72 + 0.08 * swing,
        fore_heading=0.3 + 1.1 + 1.3 * swing,
    )
    posture = _idle(motion, time_s)
    other = replace(posture.arms[1], lift=0.16)
    arms = (waving, other) if motion.sizes[3] > 0.5 else (other, waving)
    return replace(
        posture, arms=arms, mouth_open=0.35, yaw_rad=0.5 * (motion.sizes[4] - 0.5),
        head_roll_rad=0.08 * motion.wave(time_s, 2, rate=0.4),
    )  # fmt: skip


def _turn(motion: Motion, time_s: float) -> Posture:
    swing = motion.wave(time_s, 0, rate=0.3)
    head = motion.wave(time_s, 1, rate=0.45)
    return replace(
        _idle(motion, time_s),
        yaw_rad=(0.75 + 0.45 * motion.sizes[0]) * swing,
        head_yaw_rad=0.45 * head,
        head_pitch_rad=0.22 * motion.wave(time_s, 2, rate=0.5),
    )


def _dance(motion: Motion, time_s: float) -> Posture:
    beat = motion.wave(time_s, 0)
    arms = tuple(
        ArmAngles(
            lift=1.15 + 0.75 * motion.wave(time_s, 1 + i),
            heading=0.35 + 0.4 * motion.wave(time_s, 3 + i, rate=0.5),
            fore_lift=1.75 + 0.95 * motion.wave(time_s, 5 + i),
            fore_heading=0.9 + 0.6 * motion.wave(time_s, 2 + i, rate=0.5),
        )
        for i in range(2)
    )
    bounce = 0.16 + 0.14 * motion.wave(time_s, 6, rate=2.0)
    step = 0.22 * beat
    legs = tuple(
        LegAngles(flex=bounce + max(0.0, s) * 0.8, knee=2 * bounce + max(0.0, s) * 1.4, spread=0.14)
        for s in (step, -step)
    )
    return replace(
        _life(motion, time_s),
        arms=(arms[0], arms[1]),
        legs=(legs[0], legs[1]),
        sway_rad=0.16 * beat,
        twist_rad=0.25 * motion.wave(time_s, 4, rate=0.5),
        yaw_rad=0.35 * motion.wave(time_s, 5, rate=0.25),
        shift_x=0.05 * beat,
        head_roll_rad=-0.12 * beat,
        mouth_open=0.25,
    )


def _squat(motion: Motion, time_s: float) -> Posture:
    depth = (0.5 - 0.5 * motion.wave(time_s, 0, rate=0.45)) * (0.75 + 0.25 * motion.sizes[0])
    flex = 1.15 * depth
    legs = (
        LegAngles(flex=flex, knee=2.0 * flex + 0.04, spread=0.22),
        LegAngles(flex=flex, knee=2.0 * flex + 0.04, spread=0.22),
    )
    arm = ArmAngles(
        lift=0.15 + 1.3 * depth, heading=1.1, fore_lift=0.25 + 1.3 * depth, fore_heading=1.5
    )
    return replace(
        _life(motion, time_s), legs=legs, arms=(arm, arm), lean_rad=0.04 + 0.4 * depth,
        yaw_rad=0.9 * (motion.sizes[3] - 0.5),
    )  # fmt: skip


def _raise_arms(motion: Motion, time_s: float) -> Posture:
    arms = []
    together = motion.sizes[0] > 0.4
    for index in range(2):
        rise = 0.5 - 0.5 * motion.wave(time_s, 0 if together else index, rate=0.45)
        heading = 0.15 + 1.0 * motion.sizes[1]
        lift = 0.15 + 2.5 * rise
        arms.append(
            ArmAngles(lift=lift, heading=heading, fore_lift=lift + 0.2, fore_heading=heading + 0.2)
        )
    return replace(_idle(motion, time_s), arms=(arms[0], arms[1]))


def _clap(motion: Motion, time_s: float) -> Posture:
    gap = 0.5 - 0.5 * motion.wave(time_s, 0, rate=1.4)
    arm = ArmAngles(
        lift=0.75 + 0.1 * gap,
        heading=0.75 - 0.25 * gap,
        fore_lift=1.75,
        fore_heading=2.25 - 0.95 * gap,
    )
    return replace(
        _life(motion, time_s), arms=(arm, arm), mouth_open=0.3,
        legs=(LegAngles(spread=0.09), LegAngles(spread=0.09)),
    )  # fmt: skip


_MOTIONS: dict[str, Callable[[Motion, float], Posture]] = {
    "idle": _idle,
    "walk": _walk,
    "walk_across": _walk_across,
    "wave": _wave,
    "turn": _turn,
    "dance": _dance,
    "squat": _squat,
    "raise_arms": _raise_arms,
    "clap": _clap,
}
MOTION_KINDS = tuple(_MOTIONS)
