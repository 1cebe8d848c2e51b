"""Clips that every policy surely drops end in their source; all others are cut and measured."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from animaray.datasets.world.clips import render_clip, sample_clip_spec
from animaray.models.perception.profiles import load_perception, load_point_tracker
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.perception_worker import PerceptionWorker
from animaray.pipelines.curation.rows import Row, new_row
from animaray.pipelines.policy.policies import POLICIES
from animaray.pipelines.policy.verdicts import add_verdicts
from animaray.pipelines.stages.clips import split_clips
from animaray.pipelines.stages.identify import identify
from animaray.pipelines.stages.probe import probe
from animaray.pipelines.stages.shots import find_shots
from animaray.platform.media.video import decode_video, write_mp4

FAMILIES = ("picture", "face", "pose", "camera", "motion")


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Any:
    perception = load_perception("generated")
    config = CurationConfig(
        sources=("x",), output_dir=tmp_path_factory.mktemp("out"), profile="generated"
    )

    def worker(**settings: Any) -> PerceptionWorker:
        return PerceptionWorker(
            perception, load_point_tracker("generated"), replace(config, **settings)
        )

    return worker


def person(num_frames: int = 30) -> np.ndarray:
    spec = sample_clip_spec(
        3, framing="full", num_frames=num_frames, size=(320, 320), motion_kind="dance"
    )
    return render_clip(spec).frames_uint8


def panned(frames: np.ndarray, step_px: int) -> np.ndarray:
    return np.stack(
        [np.roll(frame, -step_px * index, axis=1) for index, frame in enumerate(frames)]
    )


def clip_of(tmp_path: Path, frames: np.ndarray) -> Row:
    path = tmp_path / "source.mp4"
    write_mp4(path, frames, 12.0)
    config = CurationConfig(sources=("x",))
    row = identify({**new_row(str(path), str(tmp_path)), "staging_dir": str(tmp_path / "staging")})
    row = find_shots(probe(row, config.limits), config.shots, config.limits)
    (clip,) = split_clips(row, config.clips)
    return clip


def states(row: Row) -> dict[str, str]:
    verdicts = add_verdicts(row, list(POLICIES.values()), "shipped")["verdicts"]
    return {name: verdict.state for name, verdict in verdicts.items()}


def test_a_clip_that_may_be_kept_is_stored_and_measured(make: Any, tmp_path: Path) -> None:
    clip = clip_of(tmp_path, person())
    row = make()(clip)
    assert len(decode_video(row["media_path"]).frames_uint8) == 30
    assert [row[f"{family}_state"] for family in FAMILIES] == ["ok"] * 5
    assert {"look", "cut", "pose"} <= set(row["seconds"])
    assert "samples" not in row
    # The same scores as without a first look: what is stored is what is measured.
    without = make(skip_lost=False)({**clip, "staging_dir": str(tmp_path / "again")})
    for family in FAMILIES:
        assert row[f"{family}_scores"] == without[f"{family}_scores"]


def test_a_clip_without_faces_ends_in_its_source(make: Any, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 128, 160, 3))
    clip = clip_of(tmp_path, np.repeat(noise, 20, axis=0).astype(np.uint8))
    row = make()(clip)
    assert row["media_path"] is None
    assert not list((tmp_path / "staging").glob("*[0-9a-f].mp4"))
    assert len(decode_video(row["preview_path"]).frames_uint8) == 20
    assert Path(row["poster_path"]).stat().st_size > 0
    assert row["face_scores"] == {"face_found_share": 0.0, "face_num_sampled": 5}
    assert (row["pose_state"], row["pose_note"]) == ("not_run", "lost by its faces")
    assert (row["clip_num_frames"], row["clip_width"]) == (20, 160)
    assert row["clip_duration_s"] == pytest.approx(20 / 12)
    assert set(states(row).values()) == {"drop"}
    # Stored all the same where all are.
    kept = make(store_media="all")({**clip, "staging_dir": str(tmp_path / "all")})
    assert Path(kept["media_path"]).is_file()
    assert kept["pose_state"] == "not_run"
    assert states(kept) == states(row)


def test_a_moving_camera_ends_a_clip_once_it_is_measured(make: Any, tmp_path: Path) -> None:
    row = make()(clip_of(tmp_path, panned(person(), 6)))
    assert row["media_path"] is None
    assert [row[f"{family}_state"] for family in FAMILIES] == ["ok"] * 5
    assert row["camera_scores"]["camera_drift"] > 0.2
    assert set(states(row).values()) == {"drop"}


def test_a_policy_of_the_users_that_would_keep_a_clip_saves_it(make: Any, tmp_path: Path) -> None:
    policy = tmp_path / "own.yaml"
    off = ("max_drift", "max_jump", "max_jitter", "max_log_zoom", "max_roll_deg", "min_rigid",
           "max_look")  # fmt: skip
    policy.write_text("name: own\nbase: lax\n" + "".join(f"{name}: null\n" for name in off))
    row = make(policy=str(policy))(clip_of(tmp_path, panned(person(), 6)))
    assert row["media_path"] is not None


def test_a_source_that_is_gone_fails_when_it_is_cut(make: Any, tmp_path: Path) -> None:
    clip = clip_of(tmp_path, person(13))
    Path(clip["path"]).write_bytes(b"")
    row = make()(clip)
    assert (row["state"], row["reason"]) == ("failed", "cut")
