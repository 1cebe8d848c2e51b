"""The comparison that every fault rig ends with must see each kind of difference."""

import json
import time
from pathlib import Path

import pytest

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.shards import write_shard
from benchmarks.scale.score_tables import ScoreTables, draw_clip, draw_source, write_score_dataset
from tests.faults.commit_witness import CommitWitness
from tests.faults.dataset_difference import describe_differences, find_differences, find_left_overs

_TABLES = ScoreTables(num_sources=2, sources_per_commit=1)


@pytest.fixture
def datasets(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("one", "other"):
        write_score_dataset(tmp_path / name, _TABLES)
    return tmp_path / "one", tmp_path / "other"


def _other_row(root: Path, **changes: object) -> str:
    """Commit the first clip once more, changed."""
    clip = {**draw_clip(0, 0, draw_source(0, _TABLES), _TABLES), **changes}
    CommitLog(root).commit([write_shard(root, "clips", [clip])], inputs=["again"])
    return str(clip["clip_id"])


def test_equal_datasets_do_not_differ(datasets: tuple[Path, Path]) -> None:
    assert describe_differences(*datasets) == []


def test_a_changed_score_is_found_with_its_size_unless_it_may_change(
    datasets: tuple[Path, Path],
) -> None:
    row_id = _other_row(datasets[1], camera_drift=0.5)

    found = find_differences(*datasets)["clips"]

    assert found.columns == {"camera_drift": [row_id]}
    assert 0 < found.largest["camera_drift"] <= 1
    assert describe_differences(*datasets)
    assert describe_differences(*datasets, ignore=["clips.camera_*"]) == []


def test_rows_that_are_missing_or_new_are_found(datasets: tuple[Path, Path]) -> None:
    row_id = _other_row(datasets[1], clip_id="0" * 20)

    assert find_differences(*datasets)["clips"].new == [row_id]
    assert find_differences(*datasets[::-1])["clips"].missing == [row_id]


def test_rows_and_inputs_that_are_there_twice_are_left_overs(datasets: tuple[Path, Path]) -> None:
    row_id = _other_row(datasets[1], camera_drift=0.5)

    lines = find_left_overs(datasets[1])

    assert f"clips: {row_id} is there 2 times" in lines


def test_a_lost_commit_and_a_lost_file_are_told(datasets: tuple[Path, Path]) -> None:
    root = datasets[0]
    with CommitWitness(str(root)) as witness:
        for _ in range(600):
            if witness.num_seen == 2:
                break
            time.sleep(0.05)
    assert witness.describe_losses() == []

    shard = root / json.loads((root / "_commits/00000001.json").read_text())["files"][0]["path"]
    shard.unlink()
    assert any("missing" in line for line in witness.describe_losses())

    (root / "_commits/00000002.json").unlink()
    assert "lost: _commits/00000002.json was there and is gone" in witness.describe_losses()
