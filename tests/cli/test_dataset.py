"""The doors to a dataset: each prints what it promises, and its exit code says how it went."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from animaray.cli.main import run
from animaray.datasets.commit_log import CommitLog
from animaray.datasets.reader import CurationDataset
from animaray.pipelines.policy.policies import STANDARD, read_policy
from animaray.pipelines.policy.verdicts import reapply_policy
from benchmarks.scale.score_tables import ScoreTables, write_score_dataset


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("doors") / "dataset"
    sizes = {"num_sources": 6, "clips_per_source": 2, "identity_dim": 256, "num_frames": 4}
    write_score_dataset(root, ScoreTables(**sizes, with_media=True))
    for policy in ("standard", "lax"):
        reapply_policy(root, policy)
    return root


def document(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> Any:
    assert run([str(argument) for argument in arguments]) == code
    found = json.loads(capsys.readouterr().out)
    assert next(iter(found)) == "schema_version"
    return found


def test_sources_are_listed_with_their_clips(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view = ("dataset", "show", root, "--sources", "--policy", "lax")
    found = document(capsys, *view, "--json")["sources"]
    assert [row["file"] for row in found] == [f"video_{number:05d}.mp4" for number in range(6)]
    dataset = CurationDataset.open(root)
    for row in found:
        assert [clip["start"] for clip in row["clips"]] == pytest.approx([0.0, 1 / 3])
        assert row["state"] == ("kept" if any(c["keep"] for c in row["clips"]) else "dropped")
        assert (row["reason"] is None) == (row["state"] == "kept")
        for clip in row["clips"]:
            assert clip["end"] == pytest.approx(clip["start"] + 1 / 3)
            assert clip["keep"] == (clip["clip_id"] in dataset.clip_ids("lax"))
            assert bool(clip["reasons"]) != clip["keep"]
            stored = dataset.clip(clip["clip_id"])
            assert clip["scores"]["camera_drift"] == stored["camera_drift"]
    assert run(["dataset", "show", str(root), "--sources", "--policy", "lax", "--json-lines"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == found


def test_an_address_is_listed_as_url(root: Path, tmp_path: Path) -> None:
    from animaray.datasets.shards import write_shard
    from animaray.pipelines.reports.show import show_sources

    copy = tmp_path / "dataset"
    shutil.copytree(root, copy)
    row = {
        "input_id": "in", "source_id": "src", "uri": "https://site.invalid/watch?v=1",
        "state": "failed", "reason": "timeout", "num_clips": 0,
    }  # fmt: skip
    CommitLog(copy).commit([write_shard(copy, "sources", [row])])
    (found,) = [row for row in show_sources(CurationDataset.open(copy), "lax") if "url" in row]
    assert (found["url"], found["state"], found["reason"], found["clips"]) == (
        "https://site.invalid/watch?v=1", "failed", "timeout", [],
    )  # fmt: skip


def test_own_policy_from_curve_to_verdicts(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    arguments = ["curate", "tune", "camera_drifts", root, "--set", "0.5", "--write", file]
    found = document(capsys, *arguments, "--json")
    assert (found["rule"], found["current"], found["policy"]) == ("max_drift", 0.5, "mine")
    mine = read_policy(file)
    assert (mine.max_drift, mine.max_jump) == (0.5, STANDARD.max_jump)
    found = document(capsys, "curate", "verdicts", root, "--policy", file, "--json")
    assert (found["policy"], len(found["verdicts"])) == ("mine", 12)
    assert run(["curate", "tune", "max_drift", str(root)]) == 0
    assert "length kept, strictest value first" in capsys.readouterr().out
    assert run(["curate", "tune", "max_drift", str(root), "--set", "1"]) == 2
    assert run(["curate", "tune", "max_drift", str(root), "--set", "x", "--write", "f.yaml"]) == 2
    assert run(["curate", "verdicts", str(root), "--policy", "moon"]) == 2


def test_show_validate_withdraw_and_compact(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "dataset"
    shutil.copytree(root, copy)
    facts = document(capsys, "dataset", "show", copy, "--json")
    assert facts["tables"]["clips"]["rows"] == 12
    clip_id = CurationDataset.open(copy).clips()[0]["clip_id"]
    extract = tmp_path / "clip"
    facts = document(capsys, "dataset", "show", copy, clip_id, "--extract", extract, "--json")
    assert (extract / f"{clip_id}.mp4").stat().st_size == facts["video_bytes"]
    assert facts["tracks"]["poses"] == 4
    assert run(["dataset", "show", str(copy)]) == 0
    assert run(["dataset", "show", str(copy), clip_id]) == 0
    for mixed in (["--why"], [clip_id, "--sources"], ["--json-lines"], [clip_id[:-1]]):
        assert run(["dataset", "show", str(copy), *mixed]) in {2, 5}
    capsys.readouterr()
    why = document(capsys, "dataset", "show", copy, clip_id, "--why", "--json")
    assert why["scores"]["camera"]["camera_drift"] == facts["clip"]["camera_drift"]
    assert run(["dataset", "show", str(copy), clip_id, "--why"]) == 0
    capsys.readouterr()
    assert document(capsys, "dataset", "validate", copy, "--json")["sound"]
    source = CurationDataset.open(copy).sources()[0]["source_id"]
    assert run(["dataset", "withdraw", str(copy), source, "--reason", "asked to"]) == 0
    assert run(["dataset", "withdraw", str(copy), source, "--reason", "again"]) == 2
    assert run(["dataset", "compact", str(copy)]) == 0
    assert run(["dataset", "compact", str(copy)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert document(capsys, "dataset", "validate", copy, "--json")["rows"]["media"] == 10
    next((copy / "media").iterdir()).unlink()
    assert run(["dataset", "validate", str(copy)]) == 5
    assert "BROKEN  files" in capsys.readouterr().out


def test_sets_made_from_sets(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lax = ("--policy", "lax")
    shards = tmp_path / "shards"
    arguments = ["dataset", "export", root, "--format", "webdataset", "--out", shards]
    assert document(capsys, *arguments, *lax, "--json")["num_clips"] > 0
    wrong = ["dataset", "export", str(root), "--format", "zip", "--out", str(tmp_path / "zip")]
    assert run(wrong) == 2
    capsys.readouterr()
    recipe = tmp_path / "misalign.json"
    found = document(
        capsys, "dataset", "misalign", root, "--out", recipe, "--count", 2, *lax, "--json"
    )
    assert len(found["items"]) == 2
    assert json.loads(recipe.read_text())["items"] == found["items"]
    held = tmp_path / "holdout.json"
    found = document(capsys, "dataset", "holdout", root, "--out", held, *lax, "--json")
    assert 1 <= len(found["items"]) <= 2
    assert document(capsys, "dataset", "leakage", root, root, *lax, "--json", code=5)["leaks"]
    assert run(["dataset", "import-frames", str(tmp_path / "none"), "--out", "x"]) == 2


def test_the_card_is_one_file_that_fetches_nothing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "card.html"
    card = document(capsys, "curate", "report", root, "--out", page, "--policy", "lax", "--json")
    html = page.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["card.html"]
    # Everything that a browser would load is inside.
    assert not re.search(r"""(?:src|href)=["'](?!data:|\#)""", html)
    assert not re.search(r"url\((?!#)", html)
    for title in ("Where the videos went", "Every rule", "Balance", "Licences", "Lineage"):
        assert title in html
    for rule in card["rules"]:
        assert f'id="{rule["threshold"]}"' in html
        assert sum(rule["passing"]) + sum(rule["failing"]) == rule["num_scored"]
        assert sum(rule["failing"]) == rule["num_broken"]
        assert rule["edges"][0] <= rule["limit"] <= rule["edges"][-1]
    assert len(card["rules"]) == html.count('class="rule"')
    assert html.count("data:image/jpeg;base64,") > len(card["kept_clips"])
    assert card["totals"]["clips"] == 12
    assert sum(card["sources_by_state"].values()) == card["totals"]["inputs"] == 6
    assert sum(card["balance"]["person"].values()) == len(card["kept_clips"])
    assert card["readings"]["strict"] <= card["readings"]["literal"]
    assert card["policy"]["fingerprint"] in html


def test_the_card_of_a_policy_that_keeps_nothing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "none.yaml"
    empty.write_text("name: none\nbase: strict\nmin_face_px: 1000000\n")
    assert run(["curate", "verdicts", str(root), "--policy", str(empty)]) == 0
    assert run(["curate", "report", str(root), "--policy", "none", "--out", str(tmp_path)]) == 0
    assert "This policy keeps no clip" in (tmp_path / "index.html").read_text()
