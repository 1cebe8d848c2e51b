"""Odd sources through the stages: cut where time or picture breaks, known by what they show."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from animaray.pipelines.acquire.config import AcquireConfig
from animaray.pipelines.acquire.inputs import expand_sources
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.rows import new_row
from animaray.pipelines.policy.policies import LAX, STANDARD, STRICT
from animaray.pipelines.policy.rules import judge
from animaray.pipelines.stages.clips import split_clips
from animaray.pipelines.stages.cut_clip import cut_clip
from animaray.pipelines.stages.duplicates import Footage, find_duplicates
from animaray.pipelines.stages.identify import identify, look_through
from animaray.pipelines.stages.probe import probe
from animaray.pipelines.stages.shots import find_gaps, find_shots
from animaray.platform.media.file_kind import is_video
from animaray.platform.media.video import decode_video

FIELD = Path(__file__).resolve().parents[1] / "data/field"
CONFIG = CurationConfig(sources=("x",), output_dir=Path())


def scanned(name: str) -> dict[str, Any]:
    row = identify(new_row(str(FIELD / name), str(FIELD)))
    row = probe(row, CONFIG.limits)
    return find_shots(row, CONFIG.shots, CONFIG.limits)


def stored(name: str, folder: Path) -> list[dict[str, Any]]:
    row = {**scanned(name), "staging_dir": str(folder)}
    clips = split_clips(row, CONFIG.clips)
    return [cut_clip(clip, CONFIG.cut, CONFIG.limits) for clip in clips]


@pytest.mark.parametrize(
    ("name", "cut_s"),
    [("v09_pause.mp4", 4.0333), ("v42_size_change.ts", 3.48), ("v47_clock_restart.ts", 3.48)],
)
def test_breaks_are_cuts_and_clips_hold_their_own_time(
    name: str, cut_s: float, tmp_path: Path
) -> None:
    row = scanned(name)
    assert any(abs(found - cut_s) < 0.05 for found in row["cut_times_s"])
    clips = stored(name, tmp_path)
    assert len(clips) == 2
    for clip in clips:
        video = decode_video(clip["media_path"])
        length_s = float(video.pts_s[-1] - video.pts_s[0]) + 1 / row["fps"]
        assert length_s == pytest.approx(clip["clip_duration_s"], abs=1e-3)
        assert length_s == pytest.approx(clip["clip_end_s"] - clip["clip_start_s"], abs=0.05)
        np.testing.assert_allclose(np.diff(video.pts_s), 1 / row["fps"], atol=1e-4)
        assert not (video.frames_uint8[0].max(axis=2) < 8).all(axis=1).any()  # no black bars


def test_short_gap_stays_open_in_the_stored_clip(tmp_path: Path) -> None:
    from animaray.platform.media.video import encode_mp4

    times = np.concatenate([np.arange(30) / 25, 30 / 25 + 0.4 + np.arange(30) / 25])
    frames = np.random.default_rng(0).integers(90, 110, (60, 64, 64, 3), dtype=np.uint8)
    path = tmp_path / "gap.mp4"
    path.write_bytes(encode_mp4(frames, 25.0, pts_s=times))
    row = find_shots(
        probe(identify(new_row(str(path), str(tmp_path))), CONFIG.limits), CONFIG.shots,
        CONFIG.limits,
    )  # fmt: skip
    assert (row["cut_times_s"], row["fps"]) == ([], pytest.approx(25.0))
    (clip,) = split_clips({**row, "staging_dir": str(tmp_path)}, CONFIG.clips)
    done = cut_clip(clip, CONFIG.cut, CONFIG.limits)
    np.testing.assert_allclose(decode_video(done["media_path"]).pts_s, times, atol=1e-4)
    assert done["clip_duration_s"] == pytest.approx(2.8)


def test_gaps_are_long_beside_the_steps() -> None:
    assert find_gaps(np.array([0.0, 0.04, 0.7, 0.74]), 0.04) == [2]
    assert find_gaps(np.array([0.0, 1.0, 2.0, 3.0]), 1.0) == []


def test_twins_are_known_though_one_declares_no_length() -> None:
    rows = [scanned(name) for name in ("v59_twin_a.mp4", "v59_twin_b.webm", "v50_square.mp4")]
    assert [row["duration_s"] for row in rows] == pytest.approx([3.0] * 3, abs=1e-3)
    found = find_duplicates(rows, Footage(CONFIG.duplicates))
    assert list(found) == [rows[1]["input_id"]]
    assert found[rows[1]["input_id"]] == (rows[0]["source_id"], "near")


def test_policies_drop_combs_and_stills_with_the_value_as_reason() -> None:
    good = {"picture_combed_share": 0.01, "picture_frame_rate_fps": 25.0}
    for score, value, code in (
        ("picture_frame_rate_fps", 1.0, "low_frame_rate"),
        ("picture_combed_share", 0.3, "interlaced"),
    ):
        clip = {**good, score: value, "picture_state": "ok"}
        for policy in (LAX, STANDARD, STRICT):
            verdict = judge(clip, policy)
            assert (verdict.state, verdict.codes) == ("drop", (code,))
            assert f"{value:g}" in verdict.reasons[0]
    # What was not measured, as in a dataset of an older version, is not judged.
    assert judge({"picture_state": "ok"}, STANDARD).state != "drop"


def test_camcorder_names_and_unnamed_videos_are_found_and_the_rest_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("00001.MTS", "b.m2ts", "VTS_01_1.VOB", "c.Mp4"):
        shutil.copyfile(FIELD / "v24_camcorder.MTS", folder / name)
    shutil.copyfile(FIELD / "v50_square.mp4", folder / "download")
    shutil.copyfile(FIELD / "v59_twin_b.webm", folder / "clip.bin")
    (folder / "notes.txt").write_text("no video")
    (folder / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (folder / "song.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(40))
    content = look_through(folder)
    assert [path.name for path in content.videos] == [
        "00001.MTS", "VTS_01_1.VOB", "b.m2ts", "c.Mp4", "clip.bin", "download",
    ]  # fmt: skip
    named = expand_sources([str(folder)], tmp_path / "members", AcquireConfig())
    assert [Path(name).name for name in named.left_out] == ["notes.txt", "photo.heic", "song.m4a"]


@pytest.mark.parametrize("name", sorted(path.name for path in FIELD.glob("v*")))
def test_a_video_is_known_by_its_first_bytes(name: str, tmp_path: Path) -> None:
    shutil.copyfile(FIELD / name, tmp_path / "nameless")
    assert is_video(tmp_path / "nameless")
