"""The command line: exit codes, one clear line for each wrong input, JSON for machines."""

import json
import re
import socket
from pathlib import Path

import pytest

from animaray.cli.explain import error_meanings
from animaray.cli.main import run
from animaray.cli.output import JSON_SCHEMA_VERSION
from animaray.platform.weights.store import weights_entry

ROOT = Path(__file__).resolve().parents[2]


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    "door",
    [
        [], ["doctor"], ["demo"], ["curate"], ["curate", "run"], ["train"], ["train", "aligner"],
        ["train", "animator"], ["evaluate"], ["animate"], ["serve"], ["jobs"], ["jobs", "submit"],
        ["dataset"], ["runs"], ["weights"], ["cache"], ["cluster"], ["explain"],
    ],
)  # fmt: skip
def test_every_door_has_help(door: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*door, "--help"]) == 0
    assert "Usage: animaray" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["curate", "no-such-folder", "--out", "x"], 2, "no-such-folder"),
        (["animate", "no.png", "no.mp4", "--weights", "w"], 2, "There is no file no.png"),
        (["demo", "--videos", "no-such-folder"], 2, "There is no folder no-such-folder"),
        (["train", "animator", "--recipe", "animator_moon"], 2, "Unknown animator recipe"),
        (["train", "aligner", "--set", "optimizer.lrr=1"], 2, "`optimizer.lr`"),
        (["runs", "list", "--root", "no-such-folder"], 2, "no folder no-such-folder"),
        (["weights", "list", "--profile", "moon"], 2, "Unknown profile `moon`"),
        (["weights", "verify", "moon/face"], 2, "Unknown weights `moon/face`"),
        (["cache", "prune", "moon", "--yes"], 2, "Unknown cache `moon`"),
        (["explain", "AR-XYZ-99"], 2, "Unknown error id"),
        (["jobs", "list", "--server", "http://127.0.0.1:9"], 6, "127.0.0.1:9"),
        (["dataset", "inspect", "data", "clip"], 2, "animaray dataset show DATASET CLIP"),
        (["curate", "x", "--set", "encode.crf=20"], 2, "It is called `cut` now"),
        (["curate", "x", "--set", "needs.look_memory_bytes=9"], 2, "`needs.measure_memory_bytes`"),
    ],
)
def test_wrong_input_gives_one_line_and_its_exit_code(
    arguments: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == code
    assert message in _error(capsys)


def test_empty_video_folder_says_what_is_accepted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "videos").mkdir()
    assert run(["curate", str(tmp_path / "videos"), "--out", str(tmp_path / "out")]) in {2, 5}
    assert "video" in _error(capsys)


def test_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["currate"]) == 2
    assert "curate" in _error(capsys)


def test_wrong_weights_folder_is_named_before_anything_starts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = run(["serve", "--weights", str(tmp_path), "--port", str(port)])
    assert code == 4
    assert str(tmp_path) in _error(capsys)


def test_json_documents_start_with_their_schema_version(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["weights", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert next(iter(document)) == "schema_version"
    assert document["schema_version"] == JSON_SCHEMA_VERSION
    ids = {row["id"] for row in document["weights"]}
    assert {"generated/codec", "permissive/face_detector"} <= ids


def test_a_cache_is_pruned_and_filled_again_by_a_named_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANIMARAY_CACHE_DIR", str(tmp_path))
    assert run(["cache", "list", "--json"]) == 0
    (row,) = (
        cache
        for cache in json.loads(capsys.readouterr().out)["caches"]
        if cache["name"] == "weights"
    )
    folder = Path(row["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    ours = folder / weights_entry("paper/antelopev2").file / "scrfd_10g_bnkps.onnx"
    ours.parent.mkdir(parents=True)
    ours.write_bytes(b"x" * 10)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / f"{'0a' * 10}.part").write_bytes(b"x")
    # Somebody named a folder of their own as the cache.
    strangers = [folder / "thesis.pdf", tmp_path / "downloads" / "film.part", tmp_path / "notes"]
    for path in strangers:
        path.write_bytes(b"mine")
    (folder / "elsewhere").symlink_to(tmp_path)
    assert run(["cache", "prune", "weights", "--yes"]) == 0
    said = capsys.readouterr().err
    assert "animaray weights pull" in said
    assert "Left 1 files that animaray did not put there" in said
    assert not ours.parent.exists()
    assert {path.name for path in tmp_path.rglob("*") if not path.is_dir()} == {
        "thesis.pdf", "film.part", "notes",
    }  # fmt: skip
    (folder / "elsewhere").unlink()
    (folder / "thesis.pdf").unlink()


def test_error_ids_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "AR-MED-01"]) == 0
    assert "video or picture is missing, unreadable" in capsys.readouterr().out


@pytest.mark.parametrize("error_id", error_meanings())
def test_an_error_id_comes_with_cause_fix_and_example(
    error_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["explain", error_id.lower()]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(error_id)
    assert [line.split()[0] for line in lines[1:]] == ["cause:", "fix:", "example:"]
    assert run(["explain", error_id, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert all(len(facts[name]) > 10 for name in ("meaning", "cause", "fix", "example"))


def test_every_error_id_in_the_code_is_explained() -> None:
    folders = ("platform", "models", "datasets", "pipelines", "training", "serving", "cli")
    used = {
        code
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for code in re.findall(r"\bAR-[A-Z]{3}-\d\d\b", path.read_text(encoding="utf-8"))
    }
    assert {"AR-MED-01", "AR-JOB-06", "AR-SRV-11"} <= used
    assert used <= set(error_meanings())
    assert all(len(meaning.meaning) > 20 for meaning in error_meanings().values())


def test_recipes_are_listed_and_their_settings_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["train", "recipes"]) == 0
    assert "animator_demo_cpu" in capsys.readouterr().out
    assert run(["train", "animator", "--print-config", "--set", "loop.num_steps=7"]) == 0
    assert json.loads(capsys.readouterr().out)["loop"]["num_steps"] == 7


def test_generated_videos_are_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["dataset", "world", str(tmp_path), "--videos", "1", "--seed", "1"]) == 0
    assert (tmp_path / "clip_0001.mp4").stat().st_size > 1000
    assert "Next: animaray curate" in capsys.readouterr().err
