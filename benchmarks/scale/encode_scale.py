"""Measure `dataset encode` at any number of clips, with stand-ins for the decoder and networks.

    python -m benchmarks.scale.encode_scale --clips 100000 --encoded 5000 --out /tmp/encode_scale

Everything else is the product's: which clips are missing, their rows, tracks and videos from the
dataset, fitted poses, shards, commits with their index, opening the table and loading clips from
it. `plain` is how each clip's rows were looked up before 2026-12-01, written out in `PlainLookups`
and measured on a sample in the same process: its seconds for all clips are the sample's times the
number of clips. All seconds are the process' own of the CPU, so that a busy machine does not move
them; waiting for the disk to sync is in none of them.
"""

import argparse
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.encoded_clips import open_encoded_clips
from animaray.datasets.encoded_index import EncodedCommits, Shelved, join_shelved
from animaray.datasets.reader import ClipTracks, CurationDataset, tracks_of_row
from animaray.pipelines.encode.config import EncodeConfig
from animaray.pipelines.encode.encode import missing_clips
from animaray.pipelines.encode.encode_clip import ClipEncoders
from animaray.pipelines.encode.encode_worker import EncodeTask, EncodeWorker
from animaray.platform.json_text import json_text
from benchmarks.scale.many_clips import ManyClips, write_many_clips

ENCODER_ID = "generated-64x64-8fps-v3-standin"
_SIZE_PX = 64
_SAMPLE = 200
_SHARDS_PER_COMMIT = 250
"""What comes within two seconds where networks take no time."""


class StandIns:
    """Codec, image encoder and recogniser that take no time and give numbers of their shapes."""

    name = "stand_in"
    embedding_dim = 16

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Return latents."""
        return torch.zeros(len(frames), 4, _SIZE_PX // 8, _SIZE_PX // 8)


class StandInImages(StandIns):
    """The image encoder."""

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Return image embeddings."""
        return torch.zeros(len(frames), 256)


class StandInDataset(CurationDataset):
    """Reads the video of a clip and decodes grey frames from it."""

    def decode_clip(self, clip_id: str, *, fps: float | None = None, **_: object) -> Any:  # noqa: ANN401
        """Return as many frames as the clip's time holds."""
        self.media_bytes(clip_id)
        count = max(2, round(float(self.clip(clip_id)["duration_s"] or 1.0) * (fps or 8.0)))
        return argparse.Namespace(frames_uint8=np.full((count, 72, 72, 3), 127, np.uint8))


class StandInWorker(EncodeWorker):
    """The product's worker but for what it loads."""

    def __init__(self, task: EncodeTask) -> None:
        self._task = task
        opened = CurationDataset.open(task.config.data_dir)
        self._dataset = StandInDataset(opened.store, opened.snapshot)
        self._encoders = ClipEncoders(
            codec=StandIns(),  # type: ignore[arg-type]
            image_encoder=StandInImages(),
            identity_embedder=StandIns(),  # type: ignore[arg-type]
        )


class PlainLookups:
    """What encoding a clip looked up, as readers did it: all ids first, a file for each row."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._dataset = CurationDataset.open(root)
        self._places: dict[tuple[str, str], tuple[str, int]] = {}
        self._sources = self._dataset.table("sources", ["source_id", "profile"]).to_pylist()
        self.row_seconds = self._time_rows()

    def index(self, share: int) -> float:
        """Read the ids of each row group of one file in so many; return seconds for all."""
        started = time.process_time()
        for table in ("tracks", "media"):
            for file in self._dataset.snapshot.of_table(table)[::share]:
                parquet = pq.ParquetFile(self._root / file.path, page_checksum_verification=True)
                for group in range(parquet.num_row_groups):
                    ids = parquet.read_row_group(group, columns=["clip_id"])["clip_id"]
                    for found in ids.to_pylist():
                        self._places[table, found] = (file.path, group)
        return (time.process_time() - started) * share

    def indexed(self) -> list[str]:
        """Return clips whose rows of both tables are known."""
        names = {name for table, name in self._places if table == "tracks"}
        return sorted(name for name in names if ("media", name) in self._places)

    def look_up(self, clip_id: str) -> ClipTracks:
        """Return a clip's tracks, and read its video and the profile of its source."""
        row = self._row("tracks", clip_id)
        self._row("media", clip_id)
        {each["source_id"]: each["profile"] for each in self._sources if each["profile"]}
        return tracks_of_row(row)

    def _row(self, table: str, clip_id: str) -> dict[str, Any]:
        path, group = self._places[table, clip_id]
        with pq.ParquetFile(self._root / path) as parquet:
            rows = parquet.read_row_group(group).to_pylist()
        return next(row for row in rows if row["clip_id"] == clip_id)

    def _time_rows(self) -> float:
        """Return seconds of all clips as Python rows, which were held so."""
        clips = self._dataset.table("clips")
        started = time.process_time()
        part = clips.slice(0, 5000)
        part.to_pylist()
        return (time.process_time() - started) * len(clips) / max(1, len(part))


def measure_plain(root: Path, num_clips: int) -> dict[str, float]:
    """Return seconds of the look-ups of all clips as they were made before."""
    plain = PlainLookups(root)
    index_s = plain.index(20)
    sample = random.Random(0).sample(plain.indexed(), _SAMPLE)  # noqa: S311
    started = time.process_time()
    for clip_id in sample:
        plain.look_up(clip_id)
    each_s = (time.process_time() - started) / len(sample)
    seconds = plain.row_seconds + index_s + each_s * num_clips
    return {
        "rows_s": plain.row_seconds, "index_s": index_s, "each_ms": 1e3 * each_s,
        "lookups_s": seconds,
    }  # fmt: skip


def measure_lookups(root: Path, clips: pa.Table, count: int) -> dict[str, float]:
    """Return seconds of the look-ups of clips, in the order in which they are encoded."""
    started = time.process_time()
    dataset = CurationDataset.open(root)
    clip_ids = clips["clip_id"].to_pylist()
    dataset.tracks(clip_ids[0])
    dataset.media_bytes(clip_ids[0])
    dataset.clip(clip_ids[0])
    first_s = time.process_time() - started
    started = time.process_time()
    for clip_id in clip_ids[:count]:
        dataset.clip(clip_id)
        dataset.tracks(clip_id)
        dataset.media_bytes(clip_id)
    each_s = (time.process_time() - started) / count
    seconds = first_s + each_s * len(clip_ids)
    return {"first_s": first_s, "each_ms": 1e3 * each_s, "lookups_s": seconds}


def encode(root: Path, config: EncodeConfig, clips: pa.Table) -> dict[str, float]:
    """Encode clips as one worker and the driver do; return what it took."""
    task = EncodeTask(config=config, encoder_id=ENCODER_ID, token="")
    worker, commits = StandInWorker(task), EncodedCommits(CommitLog(root), ENCODER_ID)
    started = time.process_time()
    commit_s = 0.0
    waiting: list[Shelved] = []
    size = config.clips_per_shard
    for start in range(0, len(clips), size):
        waiting.append(Shelved.from_table(worker(clips.slice(start, size)), ENCODER_ID))
        if len(waiting) == _SHARDS_PER_COMMIT or start + size >= len(clips):
            began = time.process_time()
            commits.commit(join_shelved(waiting))
            commit_s += time.process_time() - began
            waiting = []
    seconds = time.process_time() - started
    return {
        "clips": len(clips), "seconds": seconds, "each_ms": 1e3 * seconds / len(clips),
        "driver_ms_per_clip": 1e3 * commit_s / len(clips),
    }  # fmt: skip


def measure_opening(root: Path) -> dict[str, float]:
    """Open the table of encoded clips, and load some at random."""
    started = time.process_time()
    table = open_encoded_clips(root)
    opened_s = time.process_time() - started
    chosen = random.Random(1).choices(table.clip_ids, k=_SAMPLE)  # noqa: S311
    started = time.process_time()
    for clip_id in chosen:
        table.load(clip_id)
    each_s = (time.process_time() - started) / len(chosen)
    return {"clips": len(table), "open_s": opened_s, "load_ms": 1e3 * each_s}


def main() -> None:
    """Write a dataset, measure, print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--encoded", type=int, default=2_000, help="Of them, encoded in fact")
    parser.add_argument("--out", type=Path, default=Path("encode_scale"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    root = arguments.out / "dataset"
    shutil.rmtree(root, ignore_errors=True)
    write_many_clips(root, ManyClips(num_clips=arguments.clips))
    config = EncodeConfig(
        data_dir=str(root), profile="generated", width_px=_SIZE_PX, height_px=_SIZE_PX
    )
    started = time.process_time()
    dataset = CurationDataset.open(root)
    everything = dataset.table("clips", ["clip_id"])["clip_id"].to_pylist()
    clips = missing_clips(dataset, ENCODER_ID, everything)
    result: dict[str, Any] = {"clips": len(clips), "missing_s": time.process_time() - started}
    count = min(arguments.encoded, len(clips))
    result["plain"] = measure_plain(root, len(clips))
    result["ours"] = measure_lookups(root, clips, count)
    result["times_faster"] = result["plain"]["lookups_s"] / result["ours"]["lookups_s"]
    result["encode"] = encode(root, config, clips.slice(0, count))
    started = time.process_time()
    left = missing_clips(CurationDataset.open(root), ENCODER_ID, everything)
    result["found_again"] = len(clips) - len(left)
    result["missing_again_s"] = time.process_time() - started
    result["table"] = measure_opening(root)
    print(json_text(result, indent=1))


if __name__ == "__main__":
    main()
