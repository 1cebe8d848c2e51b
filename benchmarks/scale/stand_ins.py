"""Rows that stand for decoders and networks, in every worker of a curation.

`install` is what each Ray worker runs when it starts (`worker_process_setup_hook`), before it
imports the chain: probing, shots, cutting and the networks are replaced by what they would have
said, the same for the same file. Everything else of a run is the real thing.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]

CLIPS_OF_SOURCE = "ANIMARAY_STAND_IN_CLIPS"
BYTES_OF_CLIP = "ANIMARAY_STAND_IN_BYTES"
_SHOT_S = 4.0
_FPS = 12.0
_NUM_FRAMES = 12
_PREVIEW_BYTES = 2000
_SIZE_PX = (64, 96)


@contextmanager
def stand_in_session() -> Iterator[None]:
    """Run a private Ray session whose workers, and this process, have the stand-ins."""
    from animaray.platform.ray_session import quiet_ray, worker_environment

    install()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    quiet_ray()
    import ray

    ray.init(
        address="local",
        num_cpus=max(4, os.cpu_count() or 1),
        include_dashboard=False,
        object_store_memory=256 * 1024**2,
        log_to_driver=False,
        runtime_env={
            "env_vars": worker_environment(),
            "worker_process_setup_hook": f"{install.__module__}.{install.__name__}",
        },
    )
    try:
        yield
    finally:
        ray.shutdown()


def install() -> None:
    """Replace what looks at pixels, in this process."""
    from animaray.pipelines.curation import perception_worker
    from animaray.pipelines.stages import probe as probe_module
    from animaray.pipelines.stages import shots as shots_module

    probe_module.probe = probe  # type: ignore[assignment]
    shots_module.find_shots = find_shots  # type: ignore[assignment]
    perception_worker.PerceptionWorker = StandInWorker  # type: ignore[assignment, misc]


@cache
def _tables() -> Any:  # noqa: ANN401 - imported when a worker has started
    from benchmarks.scale.score_tables import ScoreTables

    return ScoreTables(num_sources=1)


def probe(row: Row, *_: object) -> Row:
    """Say what a container would have declared."""
    from animaray.pipelines.stages.probe import ADDS

    facts = _drawn(row)
    return {**row, **{name: facts[name] for name in ADDS}}


def find_shots(row: Row, *_: object) -> Row:
    """Say where the cuts would have been."""
    from animaray.pipelines.stages.shots import ADDS

    count = int(os.environ[CLIPS_OF_SOURCE])
    shots = [
        {
            "start_s": index * _SHOT_S, "end_s": (index + 1) * _SHOT_S,
            "cut_before": index > 0, "cut_after": index < count - 1,
        }
        for index in range(count)
    ]  # fmt: skip
    facts = {
        **dict.fromkeys(ADDS), **{n: v for n, v in _drawn(row).items() if n in ADDS},
        "shots": shots, "cut_times_s": [shot["start_s"] for shot in shots[1:]],
        "duration_s": count * _SHOT_S, "num_frames": round(count * _SHOT_S * _FPS),
        "frame_rate_fps": _FPS, "is_variable_fps": False, "has_plain_clock": True,
        "num_damaged_frames": 0,
    }  # fmt: skip
    return {**row, **facts}


def _drawn(row: Row) -> Row:
    from benchmarks.scale.score_tables import draw_source

    return draw_source(int(Path(row["path"]).stem), _tables())


def cut_clip(row: Row, *_: object) -> Row:
    """Write files that stand for a clip's video, preview and poster."""
    paths = {}
    sizes = {"media_path": int(os.environ[BYTES_OF_CLIP]), "preview_path": _PREVIEW_BYTES,
             "poster_path": _PREVIEW_BYTES}  # fmt: skip
    for name, size in sizes.items():
        path = Path(row["staging_dir"]) / f"{row['clip_id']}.{secrets.token_hex(4)}.{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row["clip_id"].encode() * (size // len(row["clip_id"]) + 1))
        paths[name] = str(path)
    return {
        **row, **paths, "clip_width": _SIZE_PX[0], "clip_height": _SIZE_PX[1], "clip_fps": _FPS,
        "clip_num_frames": _NUM_FRAMES, "clip_duration_s": _NUM_FRAMES / _FPS,
        "clip_damaged_share": 0.0, "clip_combed_share": 0.0,
    }  # fmt: skip


class StandInWorker:
    """Draws scores where the networks would have measured them."""

    @classmethod
    def load(cls, *_: object) -> "StandInWorker":
        """Load nothing."""
        return cls()

    def __call__(self, row: Row, *_: object) -> Row:
        """Score one clip."""
        from animaray.datasets.schemas import FAMILIES
        from benchmarks.scale.score_tables import draw_clip

        if row["state"] is not None:
            return row
        row = cut_clip(row)
        number = int(Path(row["path"]).stem)
        drawn = draw_clip(number, row["clip_index"], row, _tables())
        scores = {
            f"{family}_scores": {n: v for n, v in drawn.items() if n.startswith(f"{family}_")}
            for family in FAMILIES
        }
        states = {f"{family}_state": "ok" for family in FAMILIES}
        producers = {f"{family}_producer": "drawn" for family in FAMILIES}
        tracks = {"face_tracks": _face_tracks(), "pose_tracks": _pose_tracks()}
        embedding = drawn["identity_embedding"]
        return {
            **row, **scores, **states, **producers, **tracks, "identity_embedding": embedding,
        }  # fmt: skip


@cache
def _face_tracks() -> Any:  # noqa: ANN401
    from animaray.pipelines.stages.faces import FaceTracks

    count = 2
    return FaceTracks(
        frame_index=np.arange(count, dtype=np.int64),
        boxes=np.tile(np.array([20, 10, 40, 30], np.float32), (count, 1)),
        landmarks=np.full((count, 5, 2), 20, np.float32),
        scores=np.full(count, 0.9, np.float32),
        valid=np.ones(count, bool),
        count=np.ones(count, np.int64),
        second_area=np.zeros(count, np.float32),
        yaw_deg=np.zeros(count, np.float32),
        pitch_deg=np.zeros(count, np.float32),
        sharpness=np.full(count, 300, np.float32),
        embeddings=np.full((count, 16), 0.25, np.float32),
    )


@cache
def _pose_tracks() -> Any:  # noqa: ANN401
    from animaray.pipelines.stages.pose import PoseTracks

    return PoseTracks(
        pts_s=np.arange(_NUM_FRAMES) / _FPS,
        frame_index=np.arange(_NUM_FRAMES, dtype=np.int64),
        keypoints=np.full((_NUM_FRAMES, 18, 2), 30, np.float32),
        keypoint_confidence=np.full((_NUM_FRAMES, 18), 0.9, np.float32),
        num_persons=np.ones(_NUM_FRAMES, np.int64),
        people=(),
    )
