"""Videos in an object store become a dataset in an object store; nothing of it needs a folder."""

from pathlib import Path

import numpy as np
import pytest

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.reader import CurationDataset
from animaray.pipelines.curate import CurationConfig, curate
from animaray.pipelines.curation.workplace import staging_of
from animaray.platform.media.video import write_mp4
from animaray.platform.progress import StageProgress
from animaray.platform.stores import open_store

pytestmark = [pytest.mark.slow]


def quiet(name: str, total: int | None) -> StageProgress:
    return StageProgress(name, total, quiet=True)


def test_objects_become_a_dataset_in_the_store(s3_folder: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    room = np.kron(rng.integers(30, 226, (8, 10, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    frames = np.repeat(room[None], 24, axis=0)
    for index in range(24):
        frames[index, 40:80, 4 * index : 4 * index + 30] = 255
    write_mp4(tmp_path / "a.mp4", frames, 12.0)
    store = open_store(s3_folder)
    store.write("videos/a.mp4", (tmp_path / "a.mp4").read_bytes())
    store.write("videos/b.mp4", b"")
    config = CurationConfig(
        sources=(f"{s3_folder}/videos",),
        output_dir=f"{s3_folder}/dataset",
        profile="generated",
        num_workers=1,
        in_process_s=1e9,
        store_media="all",
    )
    summary = curate(config, quiet)
    assert summary.num_clips == 1
    dataset = CurationDataset.open(config.output_dir)
    found = {row["uri"]: (row["state"], row["reason"]) for row in dataset.sources()}
    assert found == {"a.mp4": ("dropped", "low_resolution"), "b.mp4": ("unreadable", "empty")}
    (clip,) = dataset.clips()
    assert len(dataset.media_bytes(clip["clip_id"])) == clip["media_bytes"]
    assert CommitLog(config.output_dir).verify() == []
    assert not staging_of(config).exists()
    # What is finished is known by the store's own sizes and times.
    assert curate(config, quiet).num_new_sources == 0
