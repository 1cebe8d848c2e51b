"""Videos to dataset through Ray Data: every input accounted for, runs resume, policies reapply."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.compaction import compact
from animaray.datasets.reader import CurationDataset
from animaray.pipelines.curate import CurationConfig, curate, reapply_policy
from animaray.pipelines.policy.policies import LAX, STANDARD
from animaray.pipelines.reports.card import dataset_card
from animaray.pipelines.reports.show import show_sources, show_why, spell_why
from animaray.pipelines.reports.validation import validate
from animaray.platform.disk import disk_error, free_bytes
from animaray.platform.errors import DatasetError, DiskError
from animaray.platform.media.video import decode_video, write_mp4
from animaray.platform.progress import StageProgress

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def quiet(name: str, total: int | None) -> StageProgress:
    return StageProgress(name, total, quiet=True)


def scene(seed: int, num_frames: int) -> np.ndarray:
    """Return a blocky room in which a bright square walks; nobody is in it."""
    rng = np.random.default_rng(seed)
    room = np.kron(rng.integers(30, 226, (9, 12, 3)), np.ones((30, 30, 1))).astype(np.uint8)
    frames = np.repeat(room[None], num_frames, axis=0)
    for index in range(num_frames):
        left = 10 + (7 + seed) * index % 280
        frames[index, 100:160, left : left + 60] = 255
    return frames


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with every kind of input: two scenes, copies, damage, no video."""
    folder = tmp_path_factory.mktemp("videos")
    write_mp4(folder / "a.mp4", scene(1, 24), 12.0)
    write_mp4(folder / "b cut.mp4", np.concatenate([scene(2, 30), scene(3, 30)]), 12.0)
    shutil.copy(folder / "a.mp4", folder / "c exact copy.mp4")
    write_mp4(folder / "d near copy.mp4", scene(1, 24)[:, ::2, ::2], 12.0, crf=30)
    write_mp4(folder / "e short.mp4", scene(4, 3), 12.0)
    (folder / "f empty.mp4").touch()
    (folder / "g text.mp4").write_text("this is a text, whatever its name says")
    (folder / "notes.txt").write_text("not an input")
    return folder


@pytest.fixture(scope="module")
def curated(
    videos: Path, tmp_path_factory: pytest.TempPathFactory, local_ray: None
) -> tuple[CurationConfig, dict]:
    config = CurationConfig(
        sources=(str(videos),),
        output_dir=tmp_path_factory.mktemp("out") / "dataset",
        profile="generated",
        num_workers=1,
        sources_per_commit=1,
        store_media="all",
    )
    return config, curate(config, quiet).to_dict()


def states(root: Path) -> dict[str, tuple[str, str | None]]:
    rows = CurationDataset.open(root).sources()
    return {row["uri"]: (row["state"], row["reason"]) for row in rows}


def test_a_full_disk_stops_a_run_that_goes_on_once_there_is_room(
    videos: Path, tmp_path: Path, tiny_disk: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.mp4", "b cut.mp4"):
        shutil.copy(videos / name, tmp_path / "in" / name)
    config = CurationConfig(
        sources=(str(tmp_path / "in"),),
        output_dir=tiny_disk / "dataset",
        profile="generated",
        num_workers=1,
    )
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(free_bytes(tiny_disk) - 2**20))
    with pytest.raises(DiskError, match=r"next 2 sources needs about .* bytes in .*dataset"):
        curate(config, quiet)
    # What no estimate sees: the disk fills up while a worker writes.
    ballast.write_bytes(bytes(free_bytes(tiny_disk) + ballast.stat().st_size - 2**14))
    monkeypatch.setattr("animaray.platform.stores.LocalStore.check_room", lambda *_: None)
    with pytest.raises(Exception, match="no room left") as caught:
        curate(config, quiet)
    assert disk_error(caught.value) is not None
    # It was no fault of the sources, so none of them has ended.
    assert CommitLog(config.output_dir).head() == 0
    assert not (config.output_dir / "_staging").exists()
    ballast.unlink()
    curate(config, quiet)
    assert states(config.output_dir) == {
        "a.mp4": ("dropped", "no_face"),
        "b cut.mp4": ("dropped", "no_face"),
    }
    assert CommitLog(config.output_dir).verify() == []


def test_every_input_ends_in_exactly_one_state(curated: tuple[CurationConfig, dict]) -> None:
    config, summary = curated
    assert summary["num_inputs"] == 7
    assert sum(summary["sources_by_state"].values()) == 7
    found = states(config.output_dir)
    assert found["f empty.mp4"] == ("unreadable", "empty")
    assert found["g text.mp4"] == ("unreadable", "not_a_video")
    assert found["e short.mp4"] == ("dropped", "too_short")
    assert found["c exact copy.mp4"] == ("duplicate", "exact_duplicate")
    assert found["d near copy.mp4"] == ("duplicate", "near_duplicate")
    assert found["a.mp4"] == ("dropped", "no_face")
    assert found["b cut.mp4"] == ("dropped", "no_face")
    assert len(summary["problems"]) == 2


def test_clips_are_cut_trimmed_and_stored_whole(curated: tuple[CurationConfig, dict]) -> None:
    config, _ = curated
    dataset = CurationDataset.open(config.output_dir)
    spans = [
        (row["start_s"], row["end_s"]) for row in dataset.clips() if row["file_name"] == "b cut.mp4"
    ]
    # The cut is at 30 / 12 = 2.5 s; half a second beside it is left out.
    assert sorted(spans) == [pytest.approx((0.0, 2.0)), pytest.approx((3.0, 5.0))]
    for row in dataset.clips():
        path = config.output_dir.parent / "clip.mp4"
        path.write_bytes(dataset.media_bytes(row["clip_id"]))
        frames = decode_video(path).frames_uint8
        assert len(frames) == row["num_frames"] == 24
        assert frames.shape[1:3] == (row["height"], row["width"])
        assert dataset.preview(row["clip_id"])["poster"][:2] == b"\xff\xd8"
        assert not dataset.tracks(row["clip_id"]).face_valid.any()
    assert CommitLog(config.output_dir).verify() == []


def test_a_curated_dataset_keeps_every_promise(curated: tuple[CurationConfig, dict]) -> None:
    result = validate(curated[0].output_dir)
    assert result.problems == ()
    assert result.num_decoded == 3


def test_second_run_reads_nothing_and_changes_nothing(curated: tuple[CurationConfig, dict]) -> None:
    config, first = curated
    version = CommitLog(config.output_dir).head()
    again = curate(config, quiet)
    assert again.num_new_sources == 0
    assert again.sources_by_state == first["sources_by_state"]
    assert CommitLog(config.output_dir).head() == version


def test_new_thresholds_give_new_verdicts_without_models(
    curated: tuple[CurationConfig, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = curated
    root = config.output_dir
    monkeypatch.setattr("animaray.models.perception.profiles.load_perception", None)
    none = dataclasses.replace(LAX, name="none", min_face_found=0.0)
    reapply_policy(root, none)
    rows = CurationDataset.open(root).verdicts("none")
    # Without the rule on faces nothing speaks against them but what was never measured.
    assert {row["state"] for row in rows} == {"undetermined"}
    assert set(rows[0]["reason_codes"]) == {"pose_not_run", "camera_not_run", "motion_not_run"}
    version = CommitLog(root).head()
    reapply_policy(root, none)
    assert CommitLog(root).head() == version
    assert reapply_policy(root, STANDARD) == 0


def test_report_and_explanation_tell_the_same(curated: tuple[CurationConfig, dict]) -> None:
    config, _ = curated
    dataset = CurationDataset.open(config.output_dir)
    report = dataset_card(config.output_dir, "standard")
    assert sum(report.sources_by_state.values()) == 7
    assert report.funnel[0] == ("inputs", 7)
    assert dict(report.funnel)["clips"] == 3
    clips = [clip for row in show_sources(dataset) for clip in row["clips"]]
    assert len(clips) == 3
    story = show_why(dataset, clips[0]["clip_id"])
    verdict = story["verdicts"]["standard"]
    assert (verdict["reasons"], verdict["flags"]) == (clips[0]["reasons"], clips[0]["flags"])
    assert any("no_face" in line for line in spell_why(story))
    source = spell_why(show_why(dataset, "f empty.mp4"))
    assert "  source    unreadable (empty): f empty.mp4 is an empty file." in source
    with pytest.raises(DatasetError, match=r"Nothing in .* has the id or name zebra"):
        show_why(dataset, "zebra")


def test_withdrawn_source_leaves_every_view(
    curated: tuple[CurationConfig, dict], tmp_path: Path
) -> None:
    config, _ = curated
    root = tmp_path / "copy"
    shutil.copytree(config.output_dir, root)
    source_id = show_why(CurationDataset.open(root), "b cut.mp4")["source"]["source_id"]
    CommitLog(root).withdraw([source_id], "asked to")
    assert len(CurationDataset.open(root).clips()) == 1
    assert "b cut.mp4" not in states(root)
    compact(root)
    again = curate(dataclasses.replace(config, output_dir=root), quiet)
    # The file is still among the inputs: it is accounted for, and nothing of it comes back.
    assert (again.num_inputs, again.num_new_sources) == (7, 1)
    assert states(root)["b cut.mp4"] == ("unavailable", "withdrawn")
    dataset = CurationDataset.open(root)
    assert [row["file_name"] for row in dataset.clips()] == ["a.mp4"]
    assert len(dataset.large_table_ids("media")) == len(dataset.large_table_ids("preview")) == 1
    assert curate(dataclasses.replace(config, output_dir=root), quiet).num_new_sources == 0


_CHILD = """
import sys
from pathlib import Path
from animaray.pipelines.curate import CurationConfig, curate
curate(CurationConfig(sources=(sys.argv[1],), output_dir=Path(sys.argv[2]),
    profile="generated", num_workers=1, sources_per_commit=1, store_media="all"))
"""


def test_killed_run_goes_on_without_loss_or_double(
    videos: Path, curated: tuple[CurationConfig, dict], tmp_path: Path
) -> None:
    root = tmp_path / "killed"
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _CHILD, str(videos), str(root)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    # Kill everything between the first commit (inputs without clips) and the last.
    while CommitLog(root).head() < 1 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = states(root)
    assert 0 < len(before) < 7
    config = dataclasses.replace(curated[0], output_dir=root)
    summary = curate(config, quiet)
    assert summary.num_new_sources == 7 - len(before)
    assert states(root) == states(curated[0].output_dir)
    inputs = [name for entry in CommitLog(root).commits() for name in entry.inputs]
    assert len(inputs) == len(set(inputs)) == 7
    ours, theirs = (CurationDataset.open(path) for path in (root, curated[0].output_dir))
    assert [clip["clip_id"] for clip in ours.clips()] == [
        clip["clip_id"] for clip in theirs.clips()
    ]


def test_two_writers_are_refused(curated: tuple[CurationConfig, dict]) -> None:
    import fcntl

    config, _ = curated
    with (config.output_dir / "_lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DatasetError, match="Another process is curating"):
            curate(config, quiet)
