"""Judge eleven camera motions on rendered videos: two steady ones, nine that must not be kept.

    python -m benchmarks.quality.camera_table --seconds 75 --size 384 --work /tmp/camera_table

Eleven cameras of known path look at a dancing person; real mp4 files go through the product's
stages and the standard policy. A is the rule "first frame against last", B "visible share, worst of
three windows", both on the same tracker's points, C the product's. Exits 1 unless every bad case is
dropped and both steady ones are kept.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from animaray.datasets.world.clips import render_clip
from animaray.models.perception.profiles import load_point_tracker
from animaray.models.perception.protocols import PointTracker
from animaray.pipelines.policy.policies import find_policy
from animaray.pipelines.policy.rules import judge
from benchmarks.quality.known_cameras import CASES, STEADY_CASES, camera_case
from benchmarks.quality.whole_clips import WholeClips

WINDOW_S = 6.0
COLUMNS = (
    "camera", "A disp", "A<.25", "A<.005", "B seen", "B>.85", "C drift", "C jump", "C jitter",
    "C zoom", "C roll", "C inliers", "C look", "C points", "C verdict",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Footage:
    """One rendered case."""

    frames_uint8: UInt8[np.ndarray, "frames height width 3"]
    fps: float


def first_against_last(footage: Footage, tracker: PointTracker) -> float:
    """Return rule A: the way of four points at the middle of each border, short sides."""
    height, width = footage.frames_uint8.shape[1:3]
    inset, steps = 0.05 * min(height, width), np.linspace(-0.1, 0.1, 4)
    points = np.array(
        [(inset, height * (0.5 + s)) for s in steps]
        + [(width - inset, height * (0.5 + s)) for s in steps]
        + [(width * (0.5 + s), inset) for s in steps]
        + [(width * (0.5 + s), height - inset) for s in steps],
        dtype=np.float32,
    )
    tracks, _ = tracker.track(footage.frames_uint8, points)
    ways = np.abs(tracks[-1] - tracks[0]).mean(axis=0)
    return float(ways.max()) / min(height, width)


def worst_seen_share(footage: Footage, tracker: PointTracker) -> float:
    """Return rule B: the share of a grid's points still seen, worst of three windows."""
    frames = footage.frames_uint8
    height, width = frames.shape[1:3]
    x, y = np.meshgrid(np.linspace(0.03, 0.97, 20) * width, np.linspace(0.03, 0.97, 20) * height)
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    length = min(len(frames), round(WINDOW_S * footage.fps))
    starts = {0, (len(frames) - length) // 2, len(frames) - length}
    shares = [tracker.track(frames[start : start + length], points)[1].mean() for start in starts]
    return float(min(shares))


def row_of_case(name: str, arguments: argparse.Namespace, clips: WholeClips) -> list[str]:
    """Render, write and measure one case; return its row of the table."""
    side, fps = arguments.size, arguments.fps
    count = round(arguments.seconds * fps)
    spec = camera_case(name, num_frames=count, fps=fps, size=(side, side), seed=arguments.seed)
    frames = render_clip(spec).frames_uint8
    path = clips.write(name, frames, fps)
    scores = clips.scores(path, count, fps, (side, side))
    verdict = judge(scores, find_policy(arguments.policy))
    reasons = [code for code in verdict.codes if code.startswith(("camera", "background"))]
    tracker = load_point_tracker("permissive")
    footage = Footage(frames_uint8=frames, fps=fps)
    way, seen = first_against_last(footage, tracker), worst_seen_share(footage, tracker)
    keep = {True: "keep", False: "drop"}
    inliers = scores["camera_inlier_share"]
    return [
        name, f"{way:.3f}", keep[way < 0.25], keep[way < 0.005], f"{seen:.2f}", keep[seen > 0.85],
        *(
            f"{scores[f'camera_{score}']:.3f}"
            for score in ("drift", "jump", "jitter", "log_zoom", "roll_deg")
        ),
        "-" if inliers is None else f"{inliers:.2f}", f"{scores['camera_look']:.3f}",
        f"{scores['camera_num_points']:.0f}",
        "keep" if not reasons else "drop: " + ", ".join(reasons),
    ]  # fmt: skip


def main() -> int:
    """Print the table; exit 1 when a case is judged wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=75.0)
    parser.add_argument("--fps", type=float, default=6.0)
    parser.add_argument("--size", type=int, default=384, help="side of the square picture, pixels")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--policy", default="standard")
    parser.add_argument("--profile", default="generated", help="who finds the drawn people")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    clips = WholeClips(arguments.profile, arguments.work)
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    wrong, started = [], time.monotonic()
    for name in arguments.cases:
        row = row_of_case(name, arguments, clips)
        print("| " + " | ".join(row) + " |", flush=True)
        if (row[-1] == "keep") != (name in STEADY_CASES):
            wrong.append(name)
    print(f"\n{time.monotonic() - started:.0f} s; judged wrongly: {', '.join(wrong) or 'none'}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
