"""Which inputs of a run are finished, ended or to be looked at; addresses are equal citizens."""

from pathlib import Path
from typing import Any

import pytest

from animaray.pipelines.acquire.config import AcquireConfig
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.inputs import Batch, RunInputs
from animaray.pipelines.stages.identify import identify
from animaray.platform.storage import content_id


@pytest.fixture
def config(tmp_path: Path) -> CurationConfig:
    (tmp_path / "a.mp4").write_bytes(b"video a")
    (tmp_path / "list.txt").write_text("http://127.0.0.1:9/v.mp4\nfile.example\nmissing.mp4\n")
    return CurationConfig(
        sources=(str(tmp_path / "a.mp4"), str(tmp_path / "list.txt")),
        output_dir=tmp_path / "out",
        acquire=AcquireConfig(max_attempts=1, connect_timeout_s=1.0),
    )


def run(config: CurationConfig, known: list[dict[str, Any]]) -> tuple[RunInputs, list[Batch]]:
    inputs = RunInputs(config, known)
    return inputs, [*inputs.local(), *inputs.remote()]


def test_each_input_is_in_exactly_one_place(config: CurationConfig) -> None:
    inputs, batches = run(config, [])
    pending = [row for batch in batches for row in batch.pending]
    ended = [row for batch in batches for row in batch.ended]
    assert [row["uri"] for row in pending] == ["a.mp4", "file.example", "missing.mp4"]
    assert [(row["uri"], row["state"], row["reason"]) for row in ended] == [
        ("http://127.0.0.1:9/v.mp4", "failed", "refused_address")
    ]
    assert ended[0]["platform"] == "127.0.0.1:9"
    assert ended[0]["origin"].endswith("list.txt")
    assert inputs.finished == []
    missing = identify(pending[2])
    assert (missing["state"], missing["reason"]) == ("unreadable", "missing")


def test_news_only_are_committed_and_finished_files_stay_unread(config: CurationConfig) -> None:
    _, batches = run(config, [])
    rows = [identify(row) for batch in batches for row in batch.pending]
    looked_at = {**rows[0], "state": "kept", "reason": None}
    refused = batches[1].ended[0] | {"sha256": None, "file_bytes": None}
    inputs, again = run(config, [looked_at, refused])
    assert inputs.finished == [looked_at["input_id"], refused["input_id"]]
    assert [row["uri"] for batch in again for row in batch.pending] == [
        "file.example", "missing.mp4",
    ]  # fmt: skip
    assert [row for batch in again for row in batch.ended] == []


def test_a_finished_file_moves_no_other_to_another_batch(tmp_path: Path) -> None:
    """Near-duplicates are looked for in a batch: a run that goes on must see the same ones."""
    for name in "abcdef":
        (tmp_path / f"{name}.mp4").write_bytes(name.encode())
    config = CurationConfig(
        sources=(str(tmp_path),), output_dir=tmp_path / "out", sources_per_batch=2
    )
    _, batches = run(config, [])
    first = identify(batches[0].pending[0]) | {"state": "kept", "reason": None}
    _, again = run(config, [first])
    names = [[row["uri"][0] for row in batch.pending] for batch in again]
    assert names == [["b"], ["c", "d"], ["e", "f"]]


def test_address_keeps_its_id_whatever_is_found_there(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"some video")
    row = {"path": str(tmp_path / "x.mp4"), "root": "", "uri": "https://a.example/v"}
    remote = identify({**row, "is_remote": True})
    assert remote["input_id"] == content_id("input", "https://a.example/v")
    assert identify(row)["input_id"] != remote["input_id"]
    assert remote["source_id"] == content_id("source", remote["sha256"])
