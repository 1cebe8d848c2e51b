"""Write a set of generated videos with truth beside them: about two thirds clean, the rest flawed.

The demo curates this set, so the names of the files tell nothing about what is in them.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from animaray.datasets.world.clips import ClipSpec, render_clip, sample_clip_spec
from animaray.datasets.world.scenes import SCENE_KINDS
from animaray.datasets.world.truth import ClipTruth
from animaray.platform.errors import ConfigError
from animaray.platform.media.video import encode_mp4
from animaray.platform.storage import read_json, write_bytes_atomic, write_json_atomic

CLEAN_SHARE = 0.62
SIZE, FPS, DURATION_S = (384, 384), 16.0, 3.0
"""Of each video, unless told otherwise."""
CLIPS_PER_PERSON = 2
CLEAN_MOTIONS = ("dance", "raise_arms", "squat", "dance", "walk", "raise_arms")
FLAWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("camera_pan", {"camera_kind": "pan"}),
    ("two_people", {"num_people": 2, "framing": "full"}),
    ("shot_cut", {"effects": ("cut",)}),
    ("blur", {"effects": ("blur",)}),
    ("empty_scene", {"num_people": 0}),
    ("truncated_file", {}),
    ("camera_zoom", {"camera_kind": "zoom"}),
    ("dark", {"effects": ("dark",)}),
    ("turned_away", {"yaw_offset_rad": float(np.pi)}),
    ("not_a_video", {}),
    ("camera_shake", {"camera_kind": "shake"}),
    ("far_away", {"distance": 3.4, "framing": "full"}),
)
"""Name and changed fields of each flaw, in the order in which they are dealt out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldRecord:
    """One written file."""

    path: Path
    """The video, or the file that pretends to be one."""
    flaw: str | None
    """Name of its flaw out of FLAWS; None when it is clean."""
    spec: ClipSpec
    """What was rendered."""


def plan_world(
    num_videos: int,
    *,
    seed: int,
    size: tuple[int, int] = SIZE,
    fps: float = FPS,
    duration_s: float = DURATION_S,
) -> list[tuple[str | None, ClipSpec]]:
    """Return flaw and spec of each video of a set, shuffled.

    Raises:
        ConfigError: Less than one video was asked for.
    """
    if num_videos < 1:
        raise ConfigError(f"Expected num_videos >= 1, got {num_videos}.")
    rng = np.random.default_rng([71, seed])
    num_clean = max(1, round(CLEAN_SHARE * num_videos))
    planned: list[tuple[str | None, ClipSpec]] = []
    for index in range(num_videos):
        is_clean = index < num_clean
        flaw, fields = (None, {}) if is_clean else FLAWS[(index - num_clean) % len(FLAWS)]
        # Flawed videos show further people, so that a kept person never depends on a flaw.
        group = index // CLIPS_PER_PERSON if is_clean else num_clean + index
        people = int(fields.get("num_people", 1))
        spec = sample_clip_spec(
            1000 * seed + index,
            person_seeds=tuple(20_000 + 1000 * seed + group + 500 * i for i in range(people)),
            outfit_seed=int(rng.integers(1 << 30)),
            motion_kind=CLEAN_MOTIONS[index % len(CLEAN_MOTIONS)],
            framing="full" if index % 4 == 3 else "half",
            camera_kind="static",
            scene_kind=SCENE_KINDS[(5 * index + seed) % len(SCENE_KINDS)],
            distance=1.15,
            num_frames=max(2, round(fps * duration_s)),
            fps=fps,
            size=size,
        )
        changes = {name: value for name, value in fields.items() if name != "num_people"}
        planned.append((flaw, replace(spec, **changes)))
    return [planned[int(index)] for index in rng.permutation(num_videos)]


def write_world(
    folder: Path,
    *,
    num_videos: int,
    seed: int,
    size: tuple[int, int] = SIZE,
    fps: float = FPS,
    duration_s: float = DURATION_S,
) -> list[WorldRecord]:
    """Render a set of videos as `clip_0001.mp4` with `clip_0001.truth.json` beside each.

    Args:
        folder: Created if it is not there; files of the same names are replaced.
        seed: Equal seeds give equal sets.
        size: Width and height, px; even.
        fps: Frames per second.
        duration_s: Length of each video, seconds.

    Returns:
        What was written, in the order of the names.
    """
    records = []
    plan = plan_world(num_videos, seed=seed, size=size, fps=fps, duration_s=duration_s)
    for index, (flaw, spec) in enumerate(plan):
        path = folder / f"clip_{index + 1:04d}.mp4"
        clip = render_clip(spec)
        data = encode_mp4(clip.frames_uint8, fps)
        if flaw == "truncated_file":
            data = data[: len(data) // 60]
        elif flaw == "not_a_video":
            data = b"This file only pretends to be a video.\n" * 40
        write_bytes_atomic(path, data)
        truth = clip.truth
        if flaw in {"truncated_file", "not_a_video"}:
            truth = replace(truth, verdict="drop", reason="unreadable")
        write_json_atomic(path.with_suffix(".truth.json"), {"flaw": flaw, **truth.to_json()})
        records.append(WorldRecord(path=path, flaw=flaw, spec=spec))
    return records


def read_truth(path: Path) -> ClipTruth:
    """Read the truth beside a written video.

    Args:
        path: The `.truth.json` file.
    """
    return ClipTruth.from_json(read_json(path))
