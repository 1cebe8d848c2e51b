"""Measure how long a training waits for its data: from a folder, from copies, from an S3 server.

    python -m benchmarks.scale.training_reads --clips 64 --step-ms 50 --out /tmp/training_reads

A step is a stand-in that sleeps; windows are drawn, loaded and put together as training does. The
S3 server is a real one (SeaweedFS) on this machine's loopback, so its answers take no distance.
"""

import argparse
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.encoded_clips import (
    EncodedClip,
    EncodedClips,
    open_encoded_clips,
    write_encoded_clips,
)
from animaray.datasets.encoded_index import EncodedCommits
from animaray.datasets.shard_cache import ShardCache
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.platform.json_text import json_text
from animaray.platform.stores import open_store
from animaray.training.animator_batches import AnimatorBatches
from animaray.training.batch_order import WindowConfig
from animaray.training.prefetch import Prefetcher
from tests.faults.s3_server import S3Server

_FRAMES, _SIZE_PX, _CLIPS_PER_SHARD = 80, 192, 4


def drawn_clip(number: int) -> EncodedClip:
    """Return a clip of ten seconds at the small animator's size, of random numbers."""
    rng = np.random.default_rng(number)
    latents = rng.standard_normal((_FRAMES, 4, _SIZE_PX // 8, _SIZE_PX // 8)).astype(np.float16)
    identities = rng.standard_normal((_FRAMES, 128)).astype(np.float32)
    return EncodedClip(
        clip_id=f"clip-{number:06d}",
        source_id=f"source-{number}",
        is_mirrored=False,
        fps=8.0,
        width_px=_SIZE_PX,
        height_px=_SIZE_PX,
        latents=latents,
        latent_std=latents,
        image_embeddings=rng.standard_normal((_FRAMES, 256)).astype(np.float32),
        identity_embedding=identities[0],
        identity_embeddings=identities,
        identity_valid=np.ones(_FRAMES, np.bool_),
        keypoints=rng.uniform(0, _SIZE_PX, (_FRAMES, 18, 2)).astype(np.float32),
        keypoint_confidence=np.ones((_FRAMES, 18), np.float32),
        face_boxes=np.tile(np.array([8, 8, 60, 60], np.float32), (_FRAMES, 1)),
        face_box_valid=np.ones(_FRAMES, np.bool_),
    )


def write_clips(address: str, num_clips: int) -> None:
    """Write a table of encoded clips at an address."""
    store, log = open_store(address), CommitLog(address)
    commits = EncodedCommits(log, "drawn")
    for start in range(0, num_clips, _CLIPS_PER_SHARD):
        numbers = range(start, min(start + _CLIPS_PER_SHARD, num_clips))
        commits.commit(write_encoded_clips(store, "drawn", [drawn_clip(n) for n in numbers]))


def waited(table: EncodedClips, num_steps: int, step_s: float) -> dict[str, float]:
    """Go through batches with a step that takes a while; return what was waited."""
    window = WindowConfig(num_frames=8, max_stride=2)
    animator = replace(AnimatorConfig.generated(), warped_reference=None)
    batches = AnimatorBatches(table, window, animator, seed=0, reference_noise=0.0)
    started = time.monotonic()
    with Prefetcher(lambda n: batches.make(range(n, n + 1)), range(num_steps)) as prefetcher:
        for _ in range(num_steps):
            prefetcher.next()
            time.sleep(step_s)
    seconds = time.monotonic() - started
    return {"data_wait_share": prefetcher.take_wait_s() / seconds, "seconds": seconds}


def main() -> None:
    """Write two tables, read them four ways, print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--step-ms", type=float, default=50.0)
    parser.add_argument("--out", type=Path, default=Path("training_reads"))
    arguments = parser.parse_args()
    out, steps, step_s = arguments.out, arguments.clips, arguments.step_ms / 1e3
    shutil.rmtree(out, ignore_errors=True)
    server = S3Server(out / "s3")
    server.start()
    os.environ.update(server.environment)  # afterwards: the server would ask for those keys
    try:
        near, far = str(out / "dataset"), f"{server.make_bucket('reads')}/dataset"
        for address in (near, far):
            write_clips(address, arguments.clips)
        cache = ShardCache(out / "cache", 10**10)
        ways = {
            "folder": (near, None), "s3": (far, None),
            "s3_first_copied": (far, cache), "s3_copied_before": (far, cache),
        }  # fmt: skip
        result = {
            name: waited(open_encoded_clips(address, cache=copies), steps, step_s)
            for name, (address, copies) in ways.items()
        }
    finally:
        server.kill()
    print(json_text({"clips": arguments.clips, "step_ms": arguments.step_ms, **result}, indent=1))


if __name__ == "__main__":
    main()
