"""One stage of the engine: workers that hold the encoders take clips and shelve their shards."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import torch
from torch import nn

from animaray.datasets.encoded_clips import EncodedClip, stored_bytes, write_encoded_clips
from animaray.datasets.encoded_index import Shelved, join_shelved, skipped_clip
from animaray.datasets.reader import CurationDataset
from animaray.models.perception.profiles import load_codec, load_image_encoder, load_perception
from animaray.pipelines.curation.guard import WORKER_DIED, one_try
from animaray.pipelines.curation.workplace import Marks
from animaray.pipelines.encode.config import EncodeConfig
from animaray.pipelines.encode.encode_clip import (
    ClipEncoders,
    FittedClip,
    encode_together,
    fit_clip,
)
from animaray.platform.errors import DatasetError, RefusedError
from animaray.platform.ray_session import require_resources, worker_environment

_MOST_TASKS = 16384
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeTask:
    """What every worker of a run is told."""

    config: EncodeConfig
    """Of an absolute address, with a profile."""
    encoder_id: str
    """Name of the table."""
    token: str
    """Of the writer that is going to commit their files."""
    marks: Marks = field(default_factory=Marks)
    """Tells how often a worker died on a clip; `encode_on_ray` puts those of its run here."""


def encode_on_ray(task: EncodeTask, clips: pa.Table) -> Iterator[Shelved]:
    """Yield what workers shelved, task by task as they are finished.

    Args:
        clips: clip_id, source_id and curated_with of the clips to encode.
    """
    import ray.data

    from animaray.pipelines.curation.workers import DeskMarks, run_desk

    task = replace(task, marks=DeskMarks(run_desk()))
    config = task.config
    size = max(config.clips_per_shard, -(-len(clips) // _MOST_TASKS))
    parts = [clips.slice(start, size) for start in range(0, len(clips), size)]
    needs = {"CPU": 1.0, "GPU": config.num_gpus_per_worker}
    num_workers = min(config.num_workers, len(parts))
    if not os.environ.get("RAY_ADDRESS"):  # a cluster may start machines for what is asked
        require_resources(
            {kind: amount * num_workers for kind, amount in needs.items()},
            f"{num_workers} workers",
            "Lower --workers or --gpus, or name a larger cluster in RAY_ADDRESS.",
        )
    shelved = ray.data.from_arrow(parts).map_batches(
        EncodeWorker,
        fn_constructor_args=(task,),
        batch_size=None,  # a task's clips, whole
        batch_format="pyarrow",
        # An actor pool, because the encoders are loaded once per process. A clip never waits for a
        # worker that is busy while another one is free.
        compute=ray.data.ActorPoolStrategy(size=num_workers, max_tasks_in_flight_per_actor=1),
        num_cpus=needs["CPU"],
        num_gpus=needs["GPU"],
        runtime_env={"env_vars": worker_environment()},
    )
    for batch in shelved.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield Shelved.from_table(batch, task.encoder_id)


class EncodeWorker:
    """Holds the encoders of one process for the whole run; encodes clips and writes shards."""

    def __init__(self, task: EncodeTask) -> None:
        torch.set_num_threads(1)
        profile = str(task.config.profile)
        device = torch.device("cuda" if task.config.num_gpus_per_worker > 0 else "cpu")
        self._task = task
        self._dataset = CurationDataset.open(task.config.data_dir)
        self._encoders = ClipEncoders(
            codec=_on_device(load_codec(profile), device),
            image_encoder=_on_device(load_image_encoder(profile), device),
            identity_embedder=load_perception(profile, device=device.type).identity_embedder,
        )

    def __call__(self, clips: pa.Table) -> pa.Table:
        """Encode clips and write their shards.

        Args:
            clips: clip_id, source_id and curated_with.

        Returns:
            The index rows of the shards, with the facts of the files (SHELVED_SCHEMA).
        """
        config, rows = self._task.config, clips.to_pylist()
        done: list[Shelved] = []
        waiting: list[EncodedClip] = []
        for start in range(0, len(rows), config.clips_per_call):
            encoded, skipped = self._encode(rows[start : start + config.clips_per_call])
            done += skipped
            for clip in encoded:
                if self._is_full(waiting, clip):
                    done.append(self._shelve(waiting))
                    waiting = []
                waiting.append(clip)
        if waiting:
            done.append(self._shelve(waiting))
        return join_shelved(done).to_table()

    def _encode(self, rows: Sequence[dict[str, Any]]) -> tuple[list[EncodedClip], list[Shelved]]:
        """Encode some clips together; return their rows, and why some gave none.

        Raises:
            DatasetError: The dataset cannot be read.
        """
        fitted: list[FittedClip] = []
        skipped: list[Shelved] = []
        sources = {row["clip_id"]: row["source_id"] for row in rows}
        for row in rows:
            clip_id = row["clip_id"]
            try:
                fitted += self._guarded(f"{clip_id}.fit", partial(self._fit, row))
            except RefusedError as error:  # what the machine lacks is no fault of the clip
                skipped.append(skipped_clip(clip_id, sources[clip_id], error.message))
        if not fitted:
            return [], skipped
        try:
            return self._encode_fitted(fitted), skipped
        except DatasetError as error:
            if error.reason != WORKER_DIED:
                raise
        # One of them kills workers; alone each shows whether it does.
        encoded: list[EncodedClip] = []
        for clip_id in dict.fromkeys(clip.clip_id for clip in fitted):
            try:
                encoded += self._encode_fitted([c for c in fitted if c.clip_id == clip_id])
            except DatasetError as error:
                if error.reason != WORKER_DIED:
                    raise
                skipped.append(skipped_clip(clip_id, sources[clip_id], error.message))
        return encoded, skipped

    def _fit(self, row: dict[str, Any]) -> list[FittedClip]:
        config = self._task.config
        return fit_clip(self._dataset, row["clip_id"], config, curated_with=row["curated_with"])

    def _encode_fitted(self, clips: Sequence[FittedClip]) -> list[EncodedClip]:
        key = "+".join(dict.fromkeys(clip.clip_id for clip in clips))[:200]
        config = self._task.config

        def work() -> list[EncodedClip]:
            if config.clips_per_call > 1:
                return encode_together(clips, self._encoders, config)
            return [encode_together([clip], self._encoders, config)[0] for clip in clips]

        return self._guarded(f"{key}.encode", work)

    def _guarded(self, key: str, work: Callable[[], _Result]) -> _Result:
        """Return what some work returns, unless workers died of it before.

        Raises:
            DatasetError: They did, three times.
        """
        with one_try(self._task.marks, key, "clip") as died:
            if died is not None:
                raise DatasetError(f"It was given up: {died}.", reason=WORKER_DIED)
            return work()

    def _is_full(self, waiting: Sequence[EncodedClip], following: EncodedClip) -> bool:
        """Return whether a shard ends before another clip; copies of one clip stay together."""
        if not waiting or waiting[-1].clip_id == following.clip_id:
            return False
        config = self._task.config
        size = sum(stored_bytes(clip) for clip in [*waiting, following])
        num_clips = len({clip.clip_id for clip in waiting})
        return num_clips >= config.clips_per_shard or size > config.max_shard_mb * 1_000_000

    def _shelve(self, clips: Sequence[EncodedClip]) -> Shelved:
        task = self._task
        return write_encoded_clips(self._dataset.store, task.encoder_id, clips, token=task.token)


def _on_device(network: Any, device: torch.device) -> Any:  # noqa: ANN401 - codec or encoder
    return network.to(device) if isinstance(network, nn.Module) else network
