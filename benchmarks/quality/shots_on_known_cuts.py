"""Measure how many known cuts, dissolves and fades the shot stage finds, and what it makes up.

    python -m benchmarks.quality.shots_on_known_cuts --work /tmp/shots --videos 24

Shots of the generated world (still and moving cameras) are joined at known frames, written as mp4
and read by the product's shot stage. A transition is found when no shot reaches over it; it is
clean when no clip, trimmed as the product trims, shows a frame of it. Exits 1 under 95 % of the
cuts or 90 % of the fades.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from animaray.datasets.world.cameras import CAMERA_KINDS
from animaray.datasets.world.clips import render_clip, sample_clip_spec
from animaray.pipelines.stages.clips import ClipsConfig, clip_spans
from animaray.pipelines.stages.shot_detection import ShotsConfig
from animaray.pipelines.stages.shots import find_shots
from animaray.platform.media.video import DecodeLimits, write_mp4
from benchmarks.quality.calibration import wilson
from benchmarks.quality.transitions import TRANSITIONS, Transition, join_shots

FPS, SIDE, SHOT_FRAMES = 12.0, 256, 40
NEEDED = {"cut": 0.95, "fade": 0.90}


def pool_of_shots(count: int, seed: int) -> list[UInt8[np.ndarray, "frames height width 3"]]:
    """Render single shots of all camera kinds, the still ones twice as often."""
    kinds = (*CAMERA_KINDS, "static", "drift")
    return [
        render_clip(
            sample_clip_spec(
                seed * 1000 + index, camera_kind=kinds[index % len(kinds)],
                num_frames=SHOT_FRAMES, fps=FPS, size=(SIDE, SIDE),
            )
        ).frames_uint8
        for index in range(count)
    ]  # fmt: skip


def judge_video(path: Path, transitions: Sequence[Transition]) -> Counter[str]:
    """Count found and clean transitions of one video, and borders where there is none."""
    row = find_shots({"path": str(path), "fps": FPS}, ShotsConfig(), DecodeLimits())
    shots = [(round(s["start_s"] * FPS), round(s["end_s"] * FPS)) for s in row["shots"]]
    clips = [span for shot in row["shots"] for span in clip_spans(shot, ClipsConfig())]
    counts: Counter[str] = Counter()
    for transition in transitions:
        kind, first, last = transition.kind, transition.first, transition.last
        counts[f"{kind} all"] += 1
        after = last if kind == "cut" else last + 1
        is_found = not any(start < first and end > after for start, end in shots)
        counts[f"{kind} found"] += is_found
        near = [abs(start - after) for start, _ in shots if start > 0]
        counts[f"{kind} within 2"] += min(near, default=99) <= 2
        shown = any(start * FPS < after and end * FPS > first for start, end in clips)
        counts[f"{kind} clean"] += not shown
    known = [range(t.first - 3, t.last + 4) for t in transitions]
    counts["made up"] += sum(
        start > 0 and not any(start in span for span in known) for start, _ in shots
    )
    return counts


def main() -> int:
    """Print the counts; exit 1 when too few transitions are found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--videos", type=int, default=24)
    parser.add_argument("--shots", type=int, default=32, help="different shots to join")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([72, arguments.seed])
    pool = pool_of_shots(arguments.shots, arguments.seed)
    counts: Counter[str] = Counter()
    for number in range(arguments.videos):
        chosen = rng.permutation(len(pool))[:7]
        kinds = [TRANSITIONS[i] for i in rng.permutation(np.arange(6) % 3)]
        lengths = [int(n) for n in rng.integers(5, 18, 6)]
        frames, transitions = join_shots([pool[i] for i in chosen], kinds, lengths)
        path = arguments.work / f"joined_{number:03d}.mp4"
        write_mp4(path, frames, FPS, crf=23)
        counts += judge_video(path, transitions)
        path.unlink()
    for index, frames in enumerate(pool):
        path = arguments.work / f"single_{index:03d}.mp4"
        write_mp4(path, frames, FPS, crf=23)
        counts["made up in single shots"] += judge_video(path, ())["made up"]
        path.unlink()
    weak = report(counts, len(pool))
    print(f"\ntoo few found: {', '.join(weak) or 'none'}")
    return int(bool(weak))


def report(counts: Counter[str], num_single: int) -> list[str]:
    """Print a table; return the kinds of which too few were found."""
    print("| kind | known | found | recall [95 %] | border within 2 frames | no clip shows it |")
    print("|---|---|---|---|---|---|")
    weak = []
    for kind in TRANSITIONS:
        known, found = counts[f"{kind} all"], counts[f"{kind} found"]
        low, high = wilson(found, known)
        print(
            f"| {kind} | {known} | {found} | {found / known:.3f} [{low:.2f}, {high:.2f}] | "
            f"{counts[f'{kind} within 2']} | {counts[f'{kind} clean']} |"
        )
        if found < NEEDED.get(kind, 0.0) * known:
            weak.append(kind)
    print(
        f"\nborders made up: {counts['made up']} in the joined videos, "
        f"{counts['made up in single shots']} in {num_single} single shots"
    )
    return weak


if __name__ == "__main__":
    sys.exit(main())
