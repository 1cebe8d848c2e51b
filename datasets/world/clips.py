"""Render clips and single frames of the generated world, with ground truth.

`sample_clip_spec` draws what a clip shows, `render_clip` draws its frames, `render_still` draws one
random training frame of a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from animaray.datasets.world.cameras import (
    CAMERA_KINDS,
    STILL_CAMERA_KINDS,
    Similarity,
    camera_path,
)
from animaray.datasets.world.effects import (
    EFFECTS,
    Occluder,
    StirredBackground,
    apply_effects,
    hide_behind,
)
from animaray.datasets.world.motions import (
    MOTION_KINDS,
    Motion,
    sample_motion,
    sample_posture,
)
from animaray.datasets.world.people import Person, sample_person
from animaray.datasets.world.postures import Pose, posture_to_pose
from animaray.datasets.world.rendering import TILT, Stage, draw_person, person_matte
from animaray.datasets.world.scenes import SCENE_KINDS, Scene, make_scene
from animaray.datasets.world.truth import ClipTruth, FrameTruth
from animaray.platform.errors import ConfigError

FRAMINGS = ("full", "half", "close")
_WALL_DEPTH_M = 1.3
# Lower and upper end of the picture in body heights, and how far a walk may carry sideways.
_FRAMED = {"half": (0.40, 1.09), "close": (0.69, 1.07)}
_WANDER = {"full": 1.0, "half": 0.3, "close": 0.08}


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSpec:
    """Everything a clip shows; equal specs give equal bytes."""

    seed: int
    """Seed of motion parameters, scene, camera and noise."""
    person_seeds: tuple[int, ...]
    """Identities, at most 3; empty for an empty scene."""
    outfit_seed: int | None = None
    """Seed of the clothes; None gives every person their own."""
    motion_kind: str = "idle"
    """One of MOTION_KINDS."""
    yaw_offset_rad: float = 0.0
    """Added to the body's yaw; pi shows the back."""
    framing: str = "full"
    """full, half or close."""
    distance: float = 1.0
    """How much smaller everybody is drawn; 3 is far away."""
    framed_height_m: float | None = None
    """Body height that the picture is framed for, metres; None for the first person's."""
    camera_kind: str = "static"
    """One of CAMERA_KINDS."""
    camera: tuple[Similarity, ...] = ()
    """A path of one move for each frame in place of a drawn one of `camera_kind`."""
    stirred_share: float = 0.0
    """Share of the background that moves by itself, as leaves or water do."""
    scene_kind: str = "room"
    """One of SCENE_KINDS."""
    num_frames: int = 48
    """Length, frames."""
    fps: float = 16.0
    """Frames per second."""
    size: tuple[int, int] = (384, 384)
    """Width and height, px; even."""
    effects: tuple[str, ...] = ()
    """Names out of EFFECTS."""

    def __post_init__(self) -> None:
        """Check every field against its limits.

        Raises:
            ConfigError: A field is out of range.
        """
        choices = {
            "motion_kind": (self.motion_kind, MOTION_KINDS),
            "framing": (self.framing, FRAMINGS),
            "camera_kind": (self.camera_kind, CAMERA_KINDS),
            "scene_kind": (self.scene_kind, SCENE_KINDS),
            **{f"effects[{i}]": (name, EFFECTS) for i, name in enumerate(self.effects)},
        }
        for name, (value, allowed) in choices.items():
            if value not in allowed:
                raise ConfigError(
                    f"expected {name} out of {allowed}, got {value!r}; use one of them"
                )
        if self.camera and len(self.camera) != self.num_frames:
            raise ConfigError(
                f"expected a camera path of {self.num_frames} moves, got {len(self.camera)}; give "
                "one for each frame"
            )
        if len(self.person_seeds) > 3:
            raise ConfigError(
                f"expected at most 3 person_seeds, got {len(self.person_seeds)}; leave some out"
            )
        if self.num_frames < 1 or min(self.size) < 32 or self.fps <= 0:
            raise ConfigError(
                "expected num_frames >= 1, size >= 32 px and fps > 0, got "
                f"{self.num_frames}, {self.size}, {self.fps}; enlarge them"
            )


@dataclass(frozen=True, slots=True)
class RenderedClip:
    """Frames and what they show."""

    frames_uint8: UInt8[np.ndarray, "frames height width 3"]
    """RGB."""
    truth: ClipTruth
    """Ground truth, one entry for each frame."""


def sample_clip_spec(seed: int, **overrides: object) -> ClipSpec:
    """Draw a clean clip: one person, still camera, no effect; any field can be given instead.

    Args:
        seed: Seed of the choices and of the clip.

    Returns:
        The spec, the same for the same arguments.
    """
    rng = np.random.default_rng([51, seed])
    drawn = ClipSpec(
        seed=seed,
        person_seeds=(int(rng.integers(1 << 30)),),
        motion_kind=MOTION_KINDS[int(rng.integers(len(MOTION_KINDS)))],
        framing=FRAMINGS[int(rng.choice(3, p=[0.45, 0.4, 0.15]))],
        camera_kind=STILL_CAMERA_KINDS[int(rng.integers(2))],
        scene_kind=SCENE_KINDS[int(rng.integers(len(SCENE_KINDS)))],
    )
    return replace(drawn, **overrides)  # type: ignore[arg-type]


def render_clip(spec: ClipSpec) -> RenderedClip:
    """Render a clip.

    A "cut" effect continues at half time with another person in another scene.

    Returns:
        Frames and truth.
    """
    shots = _split_at_cut(spec)
    frames: list[UInt8[np.ndarray, "height width 3"]] = []
    truths: list[FrameTruth] = []
    cuts: list[int] = []
    for shot in shots:
        if frames:
            cuts.append(len(frames))
        for frame, seen in _render_shot(shot):
            frames.append(frame)
            truths.append(seen)
    stacked = apply_effects(np.stack(frames), spec.effects, seed=spec.seed)
    verdict, reason = _expected_verdict(spec, truths)
    people = {person.person_id: None for frame_truth in truths for person in frame_truth.persons}
    truth = ClipTruth(
        frames=tuple(truths),
        fps=spec.fps,
        size=spec.size,
        camera_kind=spec.camera_kind,
        verdict=verdict,
        reason=reason,
        cuts=tuple(cuts),
        effects=spec.effects,
        person_ids=tuple(people),
    )
    return RenderedClip(stacked, truth)


def render_still(
    person: Person, *, seed: int, framing: str = "half", size: tuple[int, int] = (256, 256)
) -> tuple[UInt8[np.ndarray, "height width 3"], FrameTruth]:
    """Render one random picture of a person: posture, turn, scene, place and light are drawn.

    Args:
        framing: full, half or close.
        size: Width and height, px.

    Returns:
        The RGB frame and its truth.

    Raises:
        ConfigError: The framing is not known.
    """
    if framing not in FRAMINGS:
        raise ConfigError(f"expected framing out of {FRAMINGS}, got {framing!r}; use one of them")
    rng = np.random.default_rng([52, seed])
    scene = _shared_scene(int(rng.integers(64)), size)
    posture = sample_posture(rng)
    shift = float(rng.normal(0.0, 0.05)) * (1.0 if framing == "full" else 0.5)
    pose = posture_to_pose(replace(posture, shift_x=shift), person.body)
    zoom = float(rng.uniform(1.0, 1.5) if framing == "full" else rng.uniform(1.3, 2.2))
    camera = Similarity(
        dx_px=float(rng.uniform(-0.1, 0.1)) * size[0],
        dy_px=float(rng.uniform(-0.1, 0.1)) * size[1],
        scale=zoom,
    )
    frame = scene.seen_by(camera)
    stage = _stage(framing, size, person.body.height_m, distance=float(rng.uniform(0.92, 1.12)))
    jitter = Similarity(
        dx_px=float(rng.normal(0.0, 0.02)) * size[0], dy_px=float(rng.normal(0.0, 0.02)) * size[1],
        roll_rad=float(rng.normal(0.0, 0.03)),
    )  # fmt: skip
    truth = draw_person(frame, person, pose, stage, jitter)
    light = rng.uniform(0.82, 1.12) * (1.0 + rng.uniform(-0.05, 0.05, 3))
    table = np.clip(np.arange(256)[:, None] * light[None, :], 0, 255).astype(np.uint8)
    lit = np.stack([table[frame[..., channel], channel] for channel in range(3)], axis=-1)
    return lit, FrameTruth(persons=(truth,), camera=jitter)


def _shared_scene(index: int, size: tuple[int, int]) -> Scene:
    kind = SCENE_KINDS[index % len(SCENE_KINDS)]
    stage = _stage("full", size, 1.75)
    return _scene(kind, 7000 + index, stage)


def _stage(framing: str, size: tuple[int, int], height_m: float, *, distance: float = 1.0) -> Stage:
    width, height = size
    if framing == "full":
        metre_px = 0.72 * height / 1.75 / distance
        ground = 0.93 * height if distance < 1.5 else 0.80 * height
    else:
        low, high = _FRAMED[framing]
        metre_px = height / ((high - low) * height_m) / distance
        ground = high * height_m * metre_px * (1 + 0.5 * (distance - 1)) + 0.02 * height
    return Stage(size=size, metre_px=metre_px, ground=complex((width - 1) / 2, ground))


def _scene(kind: str, seed: int, stage: Stage) -> Scene:
    base_y = stage.ground.imag - stage.metre_px * TILT * _WALL_DEPTH_M
    return make_scene(
        kind, seed=seed, size=stage.size, metre_px=0.9 * stage.metre_px, base_y=base_y
    )


def _split_at_cut(spec: ClipSpec) -> list[ClipSpec]:
    if "cut" not in spec.effects or spec.num_frames < 2:
        return [spec]
    first = spec.num_frames // 2
    rng = np.random.default_rng([53, spec.seed])
    kinds = [kind for kind in SCENE_KINDS if kind != spec.scene_kind]
    second = replace(
        spec,
        seed=int(rng.integers(1 << 30)),
        person_seeds=(int(rng.integers(1 << 30)),),
        scene_kind=kinds[int(rng.integers(len(kinds)))],
        motion_kind=MOTION_KINDS[int(rng.integers(len(MOTION_KINDS)))],
        num_frames=spec.num_frames - first,
        camera=spec.camera[first:],
    )
    return [replace(spec, num_frames=first, camera=spec.camera[:first]), second]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cast:
    """Who is in a shot, how they move, and how they are seen."""

    people: list[Person]
    motions: list[Motion]
    stage: Stage
    cameras: Sequence[Similarity]

    @classmethod
    def of(cls, spec: ClipSpec) -> _Cast:
        people = [sample_person(seed, spec.outfit_seed) for seed in spec.person_seeds]
        height_m = spec.framed_height_m or (people[0].body.height_m if people else 1.7)
        return cls(
            people=people,
            motions=[
                replace(
                    sample_motion(spec.motion_kind, spec.seed + 101 * index),
                    yaw_offset_rad=spec.yaw_offset_rad,
                )
                for index in range(len(people))
            ],
            stage=_stage(spec.framing, spec.size, height_m, distance=spec.distance),
            cameras=spec.camera
            or camera_path(
                spec.camera_kind,
                seed=spec.seed,
                num_frames=spec.num_frames,
                size=spec.size,
                fps=spec.fps,
            ),
        )

    def pose(self, index: int, spec: ClipSpec, time_s: float) -> Pose:
        """Return the joints of one person at one time."""
        count = len(self.people)
        place = (index - 0.5 * (count - 1)) * (0.42 if spec.framing == "full" else 0.3)
        posture = self.motions[index].posture(time_s)
        wander = _WANDER[spec.framing] if count == 1 else 0.1
        posture = replace(posture, shift_x=posture.shift_x * wander + place)
        return posture_to_pose(posture, self.people[index].body)


def render_matte(spec: ClipSpec, frame: int) -> UInt8[np.ndarray, "height width"]:
    """Return the first person's opacity in one frame of a clip without a cut; 255 is opaque.

    Args:
        spec: What the clip shows; at least one person.
    """
    cast = _Cast.of(spec)
    pose = cast.pose(0, spec, frame / spec.fps)
    return person_matte(cast.people[0], pose, cast.stage, cast.cameras[frame])


def _render_shot(
    spec: ClipSpec,
) -> list[tuple[UInt8[np.ndarray, "height width 3"], FrameTruth]]:
    cast = _Cast.of(spec)
    scene = _scene(spec.scene_kind, spec.seed % 997, cast.stage)
    occluder = Occluder(spec.seed, spec.size) if "occlusion" in spec.effects else None
    stirred = StirredBackground(spec.seed, spec.size, spec.stirred_share)
    shot = []
    for index, camera in enumerate(cast.cameras):
        frame = stirred.move(scene.seen_by(camera), index / spec.fps)
        truths = [
            draw_person(
                frame, person, cast.pose(number, spec, index / spec.fps), cast.stage, camera
            )
            for number, person in enumerate(cast.people)
        ]
        if occluder is not None:
            box = occluder.draw(frame, index / max(spec.num_frames - 1, 1))
            truths = [hide_behind(truth, box) for truth in truths]
        shot.append((frame, FrameTruth(persons=tuple(truths), camera=camera)))
    return shot


def _expected_verdict(spec: ClipSpec, truths: list[FrameTruth]) -> tuple[str, str]:
    """Return what a perfect filter says, and the first reason that applies."""
    counts = [len(truth.persons) for truth in truths]
    faces = [truth.persons[0] for truth in truths if truth.persons]
    shown = float(np.mean([face.face_visible for face in faces])) if faces else 0.0
    widths = [float(face.face_box[2] - face.face_box[0]) for face in faces]
    checks = (
        ("shot_cut", "cut" in spec.effects),
        ("fade", "fade" in spec.effects),
        ("dark", "dark" in spec.effects or "low_light" in spec.effects),
        ("blur", "blur" in spec.effects),
        ("camera_motion", spec.camera_kind not in STILL_CAMERA_KINDS),
        ("no_person", max(counts) == 0),
        ("several_persons", max(counts) > 1),
        ("occlusion", "occlusion" in spec.effects),
        ("face_small", bool(faces) and float(np.median(widths)) < 0.06 * min(spec.size)),
        ("no_face", bool(faces) and shown < 0.5),
    )
    for reason, applies in checks:
        if applies:
            return "drop", reason
    return "keep", ""
