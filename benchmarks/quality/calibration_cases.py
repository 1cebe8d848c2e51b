"""A seeded set of clips with known flaws of known size, to measure the filters of curation on.

Each case has one flaw, or none, of a size that is drawn on both sides of what a policy may allow;
what is truly to be seen comes with it. Nothing here knows a threshold.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import UInt8

from animaray.datasets.world.clips import ClipSpec, RenderedClip, render_clip, sample_clip_spec
from animaray.datasets.world.people import sample_person
from animaray.datasets.world.truth import FrameTruth, PersonTruth
from benchmarks.quality.known_cameras import known_path

Frames = UInt8[np.ndarray, "frames height width 3"]

GROUPS = (
    "clean", "camera", "background", "cut", "face size", "blur", "light", "people", "nobody",
    "identity", "framing", "frozen",
)  # fmt: skip

_MOVES = {
    "tripod": (1.0,),
    "sway": (0.3, 0.6, 1.0, 4.0, 6.0),
    "slow_pan": (0.1, 0.2, 0.6, 1.0, 2.0),
    "pan_and_back": (0.05, 0.1, 0.4, 0.7, 1.0),
    "zoom": (0.08, 0.15, 0.5, 1.0, 1.5),
    "zoom_and_back": (0.08, 0.15, 0.5, 1.0, 1.5),
    "roll": (0.15, 0.3, 0.8, 1.3, 2.0),
    "punch_in": (0.03, 0.06, 0.3, 0.6, 1.0),
    "shake": (0.05, 0.1, 0.6, 1.0, 1.6),
}
"""Amounts of each known path (known_cameras.py)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationCase:
    """One clip: what is drawn, and what is done to the picture afterwards."""

    name: str
    """Unique."""
    group: str
    """Which property is varied; one of GROUPS."""
    spec: ClipSpec
    """What is drawn."""
    blur_share: float = 0.0
    """Sigma of a blur of the whole picture, as a share of the median width of the face."""
    gain: float = 1.0
    """Factor on all colours."""
    wash: float = 0.0
    """How far all colours are moved to white, 1 for all the way."""
    is_frozen: bool = False
    """Whether the first frame stays."""
    other_seed: int | None = None
    """Somebody else, who continues from half time in the same place."""
    head_only: bool = False
    """Whether the picture is cut to a window of one and a half faces."""


def calibration_cases(
    seed: int, *, size: int = 384, num_frames: int = 24, fps: float = 8.0
) -> tuple[CalibrationCase, ...]:
    """Return the whole set, the same for the same arguments."""
    draw = _Draw(seed, size, num_frames, fps)
    cases = [draw.case("clean", index, draw.spec()) for index in range(24)]
    index = 0
    for path, amounts in _MOVES.items():
        for amount in amounts * (4 if path == "tripod" else 1):
            angle = float(draw.rng.uniform(0, 2 * np.pi))
            moves = known_path(
                path, num_frames=num_frames, fps=fps, size=(size, size), amount=amount,
                direction_rad=angle,
            )  # fmt: skip
            cases.append(draw.case("camera", index, draw.spec(camera=moves)))
            index += 1
    for index, share in enumerate((0.3, 0.4, 0.5, 0.3, 0.4, 0.5)):
        cases.append(draw.case("background", index, draw.spec(stirred_share=share)))
    cases += [draw.case("cut", i, draw.spec(effects=("cut",))) for i in range(6)]
    distances = (0.75, 0.8, 0.85, 0.87, 1.0, 1.2, 1.6, 2.0, 2.4, *np.linspace(2.8, 5.0, 9))
    cases += [
        draw.case("face size", i, draw.calm(framing="full", distance=float(d)))
        for i, d in enumerate(distances)
    ]
    levels = (0.003, 0.006, 0.01, 0.012, 0.05, 0.07, 0.09, 0.12)
    cases += [
        draw.case("blur", i, draw.calm(framing=framing), blur_share=level)
        for i, (framing, level) in enumerate((f, v) for f in ("full", "half") for v in levels)
    ]
    for index, gain in enumerate((0.7, 0.5, 0.4, 0.14, 0.11, 0.09, 0.06)):
        cases.append(draw.case("light", index, draw.calm(), gain=gain))
    for index, wash in enumerate((0.2, 0.35, 0.96, 0.97, 0.98)):
        cases.append(draw.case("light", 7 + index, draw.calm(), wash=wash))
    for index, count in enumerate((2, 2, 2, 2, 2, 3, 3, 3)):
        people = tuple(draw.seed() for _ in range(count))
        cases.append(draw.case("people", index, draw.calm(framing="full", person_seeds=people)))
    cases += draw.nobody()
    for index in range(8):
        case = draw.case("identity", index, draw.calm(framing=("half", "close")[index % 2]))
        cases.append(replace(case, other_seed=draw.seed()))
    for index in range(10):
        cases.append(
            draw.case("framing", index, draw.calm(framing="close"), head_only=index % 2 == 1)
        )
    cases += [
        draw.case("frozen", i, draw.spec(camera_kind="static"), is_frozen=True) for i in range(6)
    ]
    return tuple(cases)


def render_case(case: CalibrationCase) -> RenderedClip:
    """Render a case, with the truth of what its picture shows in the end."""
    clip = render_clip(case.spec)
    frames, truths = clip.frames_uint8, list(clip.truth.frames)
    if case.other_seed is not None:
        framed = sample_person(case.spec.person_seeds[0], case.spec.outfit_seed).body.height_m
        # The picture stays as it is framed for the first one.
        other = render_clip(
            replace(case.spec, person_seeds=(case.other_seed,), framed_height_m=framed)
        )
        half = len(frames) // 2
        frames = np.concatenate([frames[:half], other.frames_uint8[half:]])
        truths[half:] = other.truth.frames[half:]
    if case.is_frozen:
        frames, truths = np.repeat(frames[:1], len(frames), axis=0), truths[:1] * len(truths)
    if case.head_only:
        frames, truths = _cut_to_head(frames, truths)
    if case.blur_share:
        sigma = case.blur_share * face_width_px(truths)
        frames = np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])
    if case.gain != 1.0 or case.wash:
        lit = frames * case.gain
        frames = (lit + case.wash * (255.0 - lit)).clip(0, 255).astype(np.uint8)
    return RenderedClip(frames, replace(clip.truth, frames=tuple(truths)))


def face_width_px(truths: list[FrameTruth] | tuple[FrameTruth, ...]) -> float:
    """Return the median short side of the first person's face; 1 where there is nobody."""
    boxes = [truth.persons[0].face_box for truth in truths if truth.persons]
    if not boxes:
        return 1.0
    return float(np.median([min(box[2] - box[0], box[3] - box[1]) for box in boxes]))


class _Draw:
    """Draw specs one after the other from one seed."""

    def __init__(self, seed: int, size: int, num_frames: int, fps: float) -> None:
        self.rng = np.random.default_rng([71, seed])
        self._fields = {"size": (size, size), "num_frames": num_frames, "fps": fps}

    def seed(self) -> int:
        return int(self.rng.integers(1 << 30))

    def spec(self, **fields: object) -> ClipSpec:
        """Return a clean clip of anything, from full body to close."""
        spec = sample_clip_spec(self.seed(), **{**self._fields, **fields})
        # Whole bodies fill the picture, so that the size of the face is varied where it is asked.
        is_plain = spec.framing == "full" and "distance" not in fields
        return replace(spec, distance=0.87) if is_plain else spec

    def calm(self, **fields: object) -> ClipSpec:
        """Return a clean clip of somebody who faces the camera the whole time."""
        kinds = ("idle", "wave", "clap", "raise_arms")
        motion = kinds[int(self.rng.integers(len(kinds)))]
        return self.spec(**{"motion_kind": motion, "framing": "half", **fields})

    def case(self, group: str, index: int, spec: ClipSpec, **fields: object) -> CalibrationCase:
        name = f"{group.replace(' ', '_')}_{index:02d}"
        return CalibrationCase(name=name, group=group, spec=spec, **fields)  # type: ignore[arg-type]

    def nobody(self) -> list[CalibrationCase]:
        """Return clips without anybody, with backs, and with something before the person."""
        specs = [self.calm(person_seeds=()) for _ in range(4)]
        specs += [self.calm(yaw_offset_rad=float(np.pi)) for _ in range(4)]
        specs += [self.calm(effects=("occlusion",)) for _ in range(4)]
        return [self.case("nobody", index, spec) for index, spec in enumerate(specs)]


def _cut_to_head(frames: Frames, truths: list[FrameTruth]) -> tuple[Frames, list[FrameTruth]]:
    """Cut the picture to a still window around the head, and enlarge it to the size it had."""
    height, width = frames.shape[1:3]
    boxes = np.stack([truth.persons[0].face_box for truth in truths])
    left, top, right, bottom = np.median(boxes, axis=0)
    side = 1.5 * float(bottom - top)
    corner = np.array([(left + right - side) / 2, (top + bottom - side) / 2 - 0.1 * side])
    scale = min(height, width) / side
    matrix = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
    cut = np.stack([cv2.warpAffine(frame, matrix, (width, height)) for frame in frames])
    moved = [
        replace(truth, persons=(_cut_person(truth.persons[0], corner, scale, (width, height)),))
        for truth in truths
    ]
    return cut, moved


def _cut_person(
    person: PersonTruth, corner: np.ndarray, scale: float, size: tuple[int, int]
) -> PersonTruth:
    points = (person.keypoints - corner) * scale
    inside = ((points >= 0) & (points <= np.array(size) - 1)).all(axis=1)
    box = (person.face_box.reshape(2, 2) - corner) * scale
    return replace(
        person,
        keypoints=points,
        keypoint_visible=person.keypoint_visible & inside,
        face_box=box.ravel(),
        landmarks=(person.landmarks - corner) * scale,
    )
