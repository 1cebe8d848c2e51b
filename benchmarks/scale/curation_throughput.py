"""Compare curation with a plain sequential loop over the same models, both in one run.

    ANIMARAY_WEIGHTS=../shared/real/weights python -m benchmarks.scale.curation_throughput \
        --videos ../shared/real/videos --out /tmp/throughput --repeats 2

Once over the videos as they are (five minutes of footage in ../shared/real), once with a mirrored
copy of each (ten); `--footage once` or `twice` for one of them alone. Three ways are run in turn,
each in a fresh process: `plain` (one process without Ray, which decodes itself, anew for each
measurement: what one writes first), `isolated` (a loop over curation's own stages: every foreign
file is decoded in its bounded child, a clip once for all measurements but the pose) and `ray`
(`animaray curate`); then `ray` again on the finished dataset, which is the cost of resuming. CPU
seconds are those of the whole tree of processes: on a machine with other work they tell more than
wall seconds. On a quiet machine with C cores a run cannot be faster than its CPU seconds / C. The
plain loop also says where its time goes: decode, encode, models, the rest.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from animaray.datasets.reader import CurationDataset
from animaray.models.perception.protocols import (
    FollowingPoseEstimator,
    PoseEstimator,
    PoseFollower,
)
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.stages.cut_clip import CutClipConfig
from animaray.platform.errors import MediaError
from animaray.platform.json_text import json_text
from animaray.platform.media.video import ChildFrameStream, DecodeLimits, Mp4Writer, VideoInfo
from benchmarks.scale.process_tree import TreeUse, run_measured

WAYS = ("plain", "isolated", "ray")


def main() -> int:
    """Print one JSON object; exit 1 when two ways disagree about a clip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--names", help="comma-separated file names; all without it")
    parser.add_argument(
        "--footage", nargs="*", choices=("once", "twice"), default=["once", "twice"],
        help="the videos as they are; with a mirrored copy of each",
    )  # fmt: skip
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--profile", default="permissive")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--way", choices=WAYS, help="run only this one, in this process")
    parser.add_argument("--preset", default=CutClipConfig().preset, help="with --way: of x264")
    parser.add_argument("--crf", type=int, default=CutClipConfig().crf, help="with --way")
    arguments = parser.parse_args()
    names = arguments.names.split(",") if arguments.names else _all_names(arguments.videos)
    if arguments.way is not None:
        config = CurationConfig(
            sources=tuple(str(arguments.videos / name) for name in names),
            output_dir=arguments.out,
            profile=arguments.profile,
            num_workers=arguments.workers,
            cut=CutClipConfig(preset=arguments.preset, crf=arguments.crf),
        )
        print(json_text(_run_here(arguments.way, config)))
        return 0
    results = {}
    for footage in arguments.footage:
        videos, out = arguments.videos, arguments.out / footage
        if footage == "twice":
            videos = _with_mirrored(arguments.videos, names, out / "videos")
        results[footage] = _compare(arguments, videos, _all_names(videos, names), out)
    print(json_text(results, indent=1))
    return int(not all(result["same clips and scores"] for result in results.values()))


def _all_names(videos: Path, wanted: list[str] | None = None) -> list[str]:
    """Return the files of a folder; of those that are not mirrored copies only the wanted ones."""
    names = sorted(path.name for path in videos.iterdir() if path.is_file())
    return [n for n in names if wanted is None or n in wanted or n.startswith("mirrored_")]


def _with_mirrored(videos: Path, names: list[str], folder: Path) -> Path:
    """Fill a folder with videos and mirrored copies of those that decode."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).symlink_to((videos / name).resolve())
        mirrored = folder / f"mirrored_{Path(name).stem}.mp4"
        try:
            with ChildFrameStream(videos / name) as frames:
                rate = frames.info.fps or 25.0
                with Mp4Writer(mirrored, rate, crf=20) as writer:
                    for pts_s, frame in frames:
                        writer.add(np.ascontiguousarray(frame[:, ::-1]), pts_s)
        except MediaError:
            mirrored.unlink(missing_ok=True)
    return folder


def _compare(
    arguments: argparse.Namespace, videos: Path, names: list[str], out: Path
) -> dict[str, Any]:
    uses: dict[str, list[tuple[TreeUse, dict[str, Any]]]] = {}
    for repeat in range(arguments.repeats):
        order = arguments.ways if repeat % 2 == 0 else arguments.ways[::-1]
        for way in order:
            command = _command(arguments, videos, names)
            folder = out / f"{way}-{repeat}"
            uses.setdefault(way, []).append(_run_apart(way, folder, command))
            if way == "ray":
                uses.setdefault("resume", []).append(_run_apart(way, folder, command))
    result: dict[str, Any] = {
        "files": len(names),
        "cores": len(os.sched_getaffinity(0)),
        **{way: [_summary(use, facts) for use, facts in runs] for way, runs in uses.items()},
        **_ratios(uses),
    }
    scores = [_scores(out / f"{way}-0") for way in arguments.ways]
    result["same clips and scores"] = all(each == scores[0] for each in scores)
    return result


def _command(arguments: argparse.Namespace, videos: Path, names: list[str]) -> list[str]:
    return [
        sys.executable, "-m", "benchmarks.scale.curation_throughput",
        "--videos", str(videos), "--names", ",".join(names),
        "--profile", arguments.profile, "--workers", str(arguments.workers),
    ]  # fmt: skip


def _run_apart(way: str, folder: Path, command: list[str]) -> tuple[TreeUse, dict[str, Any]]:
    command = [*command, "--way", way, "--out", str(folder)]
    use = run_measured(command, {"OMP_NUM_THREADS": "1"})
    if use.exit_code != 0:
        raise SystemExit(f"{way} ended with exit code {use.exit_code}: {use.output[-500:]}")
    print(f"{way}: {use.wall_s:.1f} s, {use.cpu_s:.1f} CPU s", file=sys.stderr, flush=True)
    return use, json.loads(use.output.splitlines()[-1])


def _summary(use: TreeUse, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "wall_s": round(use.wall_s, 1),
        "cpu_s": round(use.cpu_s, 1),
        "cores_used": round(use.cpu_s / use.wall_s, 2),
        "others_share": round(use.others_cpu_share, 2),
        "peak_mib": round(use.peak_mib),
        **facts,
    }


def _ratios(uses: dict[str, list[tuple[TreeUse, dict[str, Any]]]]) -> dict[str, Any]:
    """Return speed-ups by wall clock, and those that CPU seconds allow on a quiet machine."""
    cores = len(os.sched_getaffinity(0))
    work = {
        way: [facts["work_s"] for _, facts in runs] for way, runs in uses.items() if way != "resume"
    }
    cpu = {way: [use.cpu_s for use, _ in runs] for way, runs in uses.items()}
    wall = {way: [use.wall_s for use, _ in runs] for way, runs in uses.items()}
    if "ray" not in uses:
        return {}
    found: dict[str, Any] = {}
    for way in (way for way in ("plain", "isolated") if way in uses):
        found[f"ray against {way}, whole process, wall"] = _range(wall[way], wall["ray"])
        found[f"ray against {way}, without start-up, wall"] = _range(work[way], work["ray"])
        found[f"ray against {way}, bound by CPU seconds"] = _range(
            [seconds * cores for seconds in cpu[way]], cpu["ray"]
        )
    found["resume / run, wall"] = _range(wall["resume"], wall["ray"], digits=4)
    found["resume / run, CPU"] = _range(cpu["resume"], cpu["ray"], digits=4)
    return found


def _range(over: list[float], under: list[float], digits: int = 2) -> list[float]:
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return [round(min(ratios), digits), round(max(ratios), digits)]


def _scores(root: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if not name.startswith("media_")}
        for row in CurationDataset.open(root).clips()
    ]


def _run_here(way: str, config: CurationConfig) -> dict[str, Any]:
    if way == "ray":
        from animaray.pipelines.curate import curate

        summary = curate(config)
        return {
            "work_s": summary.wall_s,
            "clips": summary.num_clips,
            "input_s": summary.hours["inputs"] * 3600,
            "stages_s": _rounded(summary.seconds_by_stage),
        }
    return _run_loop(config, is_plain=way == "plain")


def _run_loop(config: CurationConfig, *, is_plain: bool) -> dict[str, Any]:
    """Curate one file after the other in this process; the same stages, networks and tables."""
    from animaray.models.perception.profiles import (
        load_perception,
        load_point_tracker,
        load_text_detector,
    )
    from animaray.pipelines.curation.perception_worker import PerceptionWorker

    spent = _Clock()
    if is_plain:
        _decode_in_this_process(spent)
    perception = load_perception(config.profile, num_threads=1)
    tracker = load_point_tracker(config.profile)
    spent.watch(perception.face_detector, "detect", "models")
    spent.watch(perception.identity_embedder, "embed", "models")
    spent.watch_poses(perception.pose_estimator, "models")
    spent.watch(tracker, "track", "models")
    text = load_text_detector() if config.text.looks_at(config.profile) else None
    if text is not None:
        spent.watch(text, "detect", "models")
    stages = PerceptionWorker(perception, tracker, config, text)
    started = time.perf_counter()
    seconds, num_clips = _curate_in_turn(config, stages)
    work_s = time.perf_counter() - started
    parts = {**spent.seconds, "other": work_s - sum(spent.seconds.values())}
    return {
        "work_s": work_s,
        "clips": num_clips,
        "stages_s": _rounded(seconds),
        "parts_s": _rounded(parts) if is_plain else None,
    }


def _curate_in_turn(
    config: CurationConfig, stages: Callable[[dict[str, Any]], dict[str, Any]]
) -> tuple[Counter[str], int]:
    from animaray.datasets.writers import writing
    from animaray.pipelines.acquire.config import AcquireConfig
    from animaray.pipelines.acquire.inputs import expand_sources
    from animaray.pipelines.curate import read_source
    from animaray.pipelines.curation.commit import Committer
    from animaray.pipelines.curation.rows import SHELVED, new_row, table_of
    from animaray.pipelines.curation.shelf import shelve
    from animaray.pipelines.curation.workplace import workplace_of
    from animaray.pipelines.stages.clips import split_clips
    from animaray.pipelines.stages.duplicates import Footage, find_duplicates

    root = Path(config.output_dir)
    root.mkdir(parents=True, exist_ok=True)
    place = workplace_of(config)
    seconds: Counter[str] = Counter()
    rows = []
    named = expand_sources(config.sources, root / "members", AcquireConfig())
    for item in named.inputs:
        row = {**new_row(str(item.path), str(item.path.parent)), "uri": item.uri}  # type: ignore[union-attr]
        rows.append(read_source(row, place))
        seconds.update(rows[-1]["seconds"])
    new = [row for row in rows if row["state"] is None]
    twins = find_duplicates(new, Footage(config.duplicates))
    num_clips = 0
    with writing(root) as writer:
        committer = Committer(place, writer)
        for row in new:
            if row["input_id"] in twins:
                continue
            split = split_clips(
                {**row, "seconds": {}, "staging_dir": place.staging_dir}, config.clips
            )
            if split[0]["state"] is not None:
                committer.commit([{**row, "state": "dropped", "reason": "too_short"}])
                continue
            measured = [stages(clip) for clip in split]
            for clip in measured:
                seconds.update(clip["seconds"])
            num_clips += len(measured)
            committer.commit([row], [table_of(shelve(measured, place), SHELVED)])
    return seconds, num_clips


def _rounded(seconds: Any) -> dict[str, float]:  # noqa: ANN401 - a mapping or a Counter
    return {name: round(value, 2) for name, value in seconds.items()}


class _Clock:
    """Seconds spent in some calls, by what they are for."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def watch(self, owner: object, name: str, part: str) -> None:
        """Count the time of one method of an object."""
        method = getattr(owner, name)

        def timed(*values: Any, **named: Any) -> Any:  # noqa: ANN401
            started = time.perf_counter()
            try:
                return method(*values, **named)
            finally:
                self.seconds[part] += time.perf_counter() - started

        object.__setattr__(owner, name, timed)

    def watch_poses(self, estimator: PoseEstimator, part: str) -> None:
        """Count the time of an estimator, and of what follows people for it."""
        self.watch(estimator, "estimate", part)
        if not isinstance(estimator, FollowingPoseEstimator):
            return
        start_clip = estimator.start_clip

        def started(**named: float) -> PoseFollower:
            clip = start_clip(**named)
            self.watch(clip, "estimate", part)
            return clip

        object.__setattr__(estimator, "start_clip", started)

    def watch_items(self, items: Iterator[Any], part: str) -> Iterator[Any]:
        """Count the time that an iterator takes for its items."""
        while True:
            started = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self.seconds[part] += time.perf_counter() - started
            yield item


def _timed_encoding(add: Callable[..., None], spent: _Clock) -> Callable[..., None]:
    def timed_add(writer: Mp4Writer, *values: Any) -> None:  # noqa: ANN401
        started = time.perf_counter()
        add(writer, *values)
        spent.seconds["encode"] += time.perf_counter() - started

    return timed_add


def _decode_in_this_process(spent: _Clock) -> None:
    """Let the stages open files here, each on its own; count decoding and encoding."""
    from animaray.pipelines.curation import clip_samples
    from animaray.pipelines.stages import cut_clip, probe, shots
    from animaray.platform.media import video_decode
    from animaray.platform.media.video import FrameSelection, FrameStream, Mp4Writer, probe_video

    class OwnStream(FrameStream):
        """A stream with the arguments of the child's."""

        def __init__(self, path: str, limits: Any, *selections: FrameSelection) -> None:  # noqa: ANN401
            super().__init__(path, selections[0], limits)
            self._wanted = selections

        def pictures(self, selections: Any = None) -> Iterator[Any]:  # noqa: ANN401
            """Yield what was asked for at the start, as the child's stream does."""
            return super().pictures(selections or self._wanted)

        def together(self, selections: Any = None) -> Iterator[Any]:  # noqa: ANN401
            """Do the same without planes."""
            return super().together(selections or self._wanted)

    decode = video_decode.FrameStream.pictures

    def timed_decode(stream: FrameStream, selections: Any) -> Iterator[Any]:  # noqa: ANN401
        return spent.watch_items(decode(stream, selections), "decode")

    video_decode.FrameStream.pictures = timed_decode  # type: ignore[method-assign, assignment]
    for name in ("add", "add_planes"):
        setattr(Mp4Writer, name, _timed_encoding(getattr(Mp4Writer, name), spent))
    for stage in (clip_samples, cut_clip, shots):
        stage.ChildFrameStream = OwnStream  # type: ignore[attr-defined]

    def probe_here(path: Path | str, limits: DecodeLimits | None = None) -> VideoInfo:
        return probe_video(path, limits=limits)

    probe.probe_in_child = probe_here  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
