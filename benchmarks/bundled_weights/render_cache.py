"""Render the pictures that all perception networks train on, once, with their truth.

    python -m benchmarks.bundled_weights.render_cache --out CACHE --scenes 9000 --people 600

Training and held-out pictures show different people. Deterministic by seed.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from animaray.datasets.world.clips import render_clip, render_still, sample_clip_spec
from animaray.datasets.world.motions import MOTION_KINDS
from animaray.datasets.world.people import (
    BEARD_STYLES,
    HAIR_STYLES,
    LEG_WEAR,
    TOP_PATTERNS,
    Person,
    sample_person,
)
from animaray.datasets.world.scenes import SCENE_KINDS
from animaray.datasets.world.truth import FrameTruth, PersonTruth
from animaray.models.perception.face_alignment import align_face
from animaray.models.perception.generated.identity import CROP_PX, FACE_TEMPLATE
from animaray.platform.terminal import leave_terminal
from benchmarks.bundled_weights.samples import MAX_PEOPLE, SCENE_SIZE_PX, SPLITS

FIRST_PERSON = {"train": 10_000, "held_out": 500_000}
"""Where the person seeds of a split begin."""
FRAMES_PER_SCENE = 3
GLASSES = ("none", "round", "square")
_FRAMINGS = ("full", "half", "close")


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One rendered picture and its truth, in the arrays' form."""

    frame: UInt8[np.ndarray, "size size 3"]
    num_people: int
    keypoints: Float32[np.ndarray, "people 18 2"]
    keypoint_visible: Bool[np.ndarray, "people 18"]
    face_valid: Bool[np.ndarray, " people"]
    face_boxes: Float32[np.ndarray, "people 4"]
    face_landmarks: Float32[np.ndarray, "people 5 2"]
    scene_ids: int
    colours: Float32[np.ndarray, " attributes"]
    kinds: Int64[np.ndarray, " kinds"]


def appearance(
    person: Person | None,
) -> tuple[Float32[np.ndarray, " attributes"], Int64[np.ndarray, " kinds"]]:
    """Return colours in [-1, 1] and kinds of a person; zeros and -1 when there is nobody."""
    if person is None:
        return np.zeros(18, np.float32), np.full(6, -1, np.int64)
    face, outfit = person.face, person.outfit
    colours = (
        face.skin, face.hair_colour, outfit.top_colour, outfit.accent_colour, outfit.leg_colour,
        outfit.shoe_colour,
    )  # fmt: skip
    kinds = (
        HAIR_STYLES.index(face.hair_style),
        BEARD_STYLES.index(face.beard),
        TOP_PATTERNS.index(outfit.top_pattern),
        LEG_WEAR.index(outfit.leg_wear),
        GLASSES.index(face.glasses),
        int(outfit.long_sleeves),
    )
    return (np.array(colours, np.float32) / 127.5 - 1).reshape(-1), np.array(kinds, np.int64)


def make_picture(
    frame: UInt8[np.ndarray, "size size 3"],
    truth: FrameTruth,
    scene_id: int,
    people: dict[int, Person],
) -> Picture:
    """Bring a frame's truth into fixed-size arrays, the largest person first."""
    seen = [person for person in truth.persons if person.keypoint_visible.any()]
    seen = sorted(seen, key=_extent, reverse=True)[:MAX_PEOPLE]
    keypoints = np.zeros((MAX_PEOPLE, 18, 2), np.float32)
    visible = np.zeros((MAX_PEOPLE, 18), bool)
    valid = np.zeros(MAX_PEOPLE, bool)
    boxes = np.zeros((MAX_PEOPLE, 4), np.float32)
    landmarks = np.zeros((MAX_PEOPLE, 5, 2), np.float32)
    for row, person in enumerate(seen):
        keypoints[row], visible[row] = person.keypoints, person.keypoint_visible
        valid[row], boxes[row] = person.face_visible, person.face_box
        landmarks[row] = person.landmarks
    colours, kinds = appearance(people[seen[0].person_id] if seen else None)
    return Picture(
        frame=frame,
        num_people=len(seen),
        keypoints=keypoints,
        keypoint_visible=visible,
        face_valid=valid,
        face_boxes=boxes,
        face_landmarks=landmarks,
        scene_ids=scene_id,
        colours=colours,
        kinds=kinds,
    )


def _extent(person: PersonTruth) -> float:
    spread = np.ptp(person.keypoints[:8], axis=0)
    return float(spread.max())


def render_scene(split: str, scene: int) -> list[Picture]:
    """Render FRAMES_PER_SCENE pictures of one scene: same people, clothes and place."""
    rng = np.random.default_rng([21, FIRST_PERSON[split], scene])
    count = int(rng.choice([0, 1, 2, 3], p=[0.08, 0.72, 0.14, 0.06]))
    seeds = tuple(int(FIRST_PERSON[split] + s) for s in rng.choice(4000, count, replace=False))
    if count == 1 and rng.random() < 0.4:
        return _render_stills(seeds[0], scene, rng)
    outfit = int(rng.integers(1 << 30))
    spec = sample_clip_spec(
        int(rng.integers(1 << 30)),
        person_seeds=seeds,
        outfit_seed=outfit,
        motion_kind=MOTION_KINDS[int(rng.integers(len(MOTION_KINDS)))],
        framing=_FRAMINGS[int(rng.integers(3))] if count < 2 else _FRAMINGS[int(rng.integers(2))],
        camera_kind="static",
        scene_kind=SCENE_KINDS[int(rng.integers(len(SCENE_KINDS)))],
        num_frames=FRAMES_PER_SCENE,
        fps=1.3,
        size=(SCENE_SIZE_PX, SCENE_SIZE_PX),
        effects=(),
    )
    people = {seed: sample_person(seed, outfit_seed=outfit) for seed in seeds}
    clip = render_clip(spec)
    return [
        make_picture(frame, truth, scene, people)
        for frame, truth in zip(clip.frames_uint8, clip.truth.frames, strict=True)
    ]


def _render_stills(seed: int, scene: int, rng: np.random.Generator) -> list[Picture]:
    person = sample_person(seed, outfit_seed=int(rng.integers(1 << 30)))
    framing = _FRAMINGS[int(rng.integers(3))]
    pictures = []
    for part in range(FRAMES_PER_SCENE):
        frame, truth = render_still(
            person,
            seed=scene * FRAMES_PER_SCENE + part + FIRST_PERSON["held_out"] * 7,
            framing=framing,
            size=(SCENE_SIZE_PX, SCENE_SIZE_PX),
        )
        # Stills of one person differ in place and light: each is a scene of its own.
        scene_id = -(scene * FRAMES_PER_SCENE + part) - 1
        pictures.append(make_picture(frame, truth, scene_id, {seed: person}))
    return pictures


def render_face(
    split: str, person: int, crop: int
) -> tuple[int, UInt8[np.ndarray, "crop crop 3"]] | None:
    """Render one aligned face crop of a person; None when no try showed the face."""
    seed = FIRST_PERSON[split] + person
    drawn = sample_person(seed, outfit_seed=seed * 100 + crop)
    for attempt in range(4):
        frame, truth = render_still(
            drawn,
            seed=seed * 97 + crop * 11 + attempt,
            framing=_FRAMINGS[1 + (crop + attempt) % 2],
            size=(SCENE_SIZE_PX, SCENE_SIZE_PX),
        )
        face = truth.persons[0]
        if face.face_visible:
            marks = face.landmarks.astype(np.float32)
            return person, align_face(frame, marks, FACE_TEMPLATE, CROP_PX, CROP_PX)
    return None


def write_scenes(out: Path, split: str, num_scenes: int, workers: int) -> int:
    """Render and write the pictures of one split; returns how many."""
    with ProcessPoolExecutor(workers, initializer=leave_terminal) as pool:
        scenes = pool.map(render_scene, itertools.repeat(split), range(num_scenes), chunksize=16)
        pictures = [picture for scene in scenes for picture in scene]
    np.save(out / f"{split}_scenes.npy", np.stack([picture.frame for picture in pictures]))
    names = [name for name in Picture.__dataclass_fields__ if name != "frame"]
    truth = {name: np.array([getattr(picture, name) for picture in pictures]) for name in names}
    np.savez(out / f"{split}_scenes_truth.npz", allow_pickle=False, **truth)
    return len(pictures)


def write_faces(out: Path, split: str, people: int, crops: int, workers: int) -> int:
    """Render and write the face crops of one split; returns how many."""
    tasks = list(itertools.product(range(people), range(crops)))
    with ProcessPoolExecutor(workers, initializer=leave_terminal) as pool:
        drawn: Iterable[tuple[int, UInt8[np.ndarray, "crop crop 3"]] | None] = pool.map(
            render_face,
            itertools.repeat(split),
            (person for person, _ in tasks),
            (crop for _, crop in tasks),
            chunksize=32,
        )
        faces = [face for face in drawn if face is not None]
    np.save(out / f"{split}_faces.npy", np.stack([crop for _, crop in faces]))
    ids = np.array([person for person, _ in faces], np.int64)
    np.savez(out / f"{split}_faces_truth.npz", person_ids=ids)
    return len(faces)


def main() -> None:
    """Read the command line and render both splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--scenes", type=int, default=3000, help="training scenes, 3 pictures each")
    parser.add_argument("--people", type=int, default=600, help="people of the face crops")
    parser.add_argument("--crops", type=int, default=12, help="face crops per person")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    for split in SPLITS:
        share = 1.0 if split == "train" else 0.1
        faces = write_faces(
            options.out, split, int(options.people * share), options.crops, options.workers
        )
        count = write_scenes(options.out, split, int(options.scenes * share), options.workers)
        sys.stdout.write(f"{split}: {count} pictures, {faces} face crops in {options.out}\n")


if __name__ == "__main__":
    main()
