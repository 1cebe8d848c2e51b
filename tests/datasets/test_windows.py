"""Training windows: the right frames with their own poses, chosen by the seed alone."""

import re
from pathlib import Path

import numpy as np
import pytest

from animaray.datasets.reader import CurationDataset
from animaray.datasets.windows import TrainingWindows, window_frames
from animaray.pipelines.policy.policies import LAX
from animaray.pipelines.policy.verdicts import reapply_policy
from animaray.platform.errors import DatasetError, MediaError
from animaray.platform.media.video import decode_video, encode_mp4
from animaray.platform.media.video_window import read_frames
from benchmarks.scale.score_tables import ScoreTables, write_score_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> CurationDataset:
    root = tmp_path_factory.mktemp("windows") / "dataset"
    write_score_dataset(root, ScoreTables(num_sources=6, num_frames=30, with_media=True))
    reapply_policy(root, LAX)
    return CurationDataset.open(root)


def test_frames_by_index_are_those_of_the_whole_video(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 255, (40, 4, 6, 3), dtype=np.uint8), 8, axis=1)
    frames = np.repeat(frames, 8, axis=2)
    # Times that are not regular: 5 ms more at each step.
    pts_s = np.cumsum(np.arange(40) * 0.005 + 0.04)
    video = encode_mp4(frames, 25.0, gop=8, pts_s=pts_s)
    (tmp_path / "a.mp4").write_bytes(video)
    whole = decode_video(tmp_path / "a.mp4")
    index = [33, 2, 19, 19, 39, 0]
    some, times = read_frames(video, index)
    np.testing.assert_array_equal(some, whole.frames_uint8[index])
    np.testing.assert_allclose(times, pts_s[index] - pts_s[0], atol=1e-4)
    with pytest.raises(MediaError, match="Expected frames 0 to 39, got 40"):
        read_frames(video, [40])
    with pytest.raises(MediaError, match="cannot be read"):
        read_frames(b"no video", [0])
    with pytest.raises(MediaError, match="at least one"):
        read_frames(video, [])


def test_a_window_has_its_own_poses_and_a_reference_outside(dataset: CurationDataset) -> None:
    windows = TrainingWindows(dataset, policy="lax", num_frames=5, stride=4)
    clip_id = windows.clip_ids[0]
    window, reference = windows.window(clip_id, seed=3)
    assert window.frames_uint8.shape == (5, 96, 64, 3)
    np.testing.assert_array_equal(np.diff(window.frame_index), 4)
    assert reference.frame_index[0] not in window.frame_index
    tracks = dataset.tracks(clip_id)
    np.testing.assert_array_equal(window.keypoints, tracks.keypoints[window.frame_index])
    # Faces are seen at frames 0, 6, ..., 24: known up to there, not after.
    np.testing.assert_array_equal(window.face_valid, window.frame_index <= 24)
    again, _ = TrainingWindows(dataset, policy="lax", num_frames=5).window(clip_id, seed=3)
    np.testing.assert_array_equal(again.frames_uint8, window.frames_uint8)
    other, _ = windows.window(clip_id, seed=4)
    assert not np.array_equal(other.frame_index, window.frame_index)


def test_the_example_of_the_guide_reads_windows(
    dataset: CurationDataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs/python.md").read_text(encoding="utf-8")
    [example] = [
        code
        for code in re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
        if "TrainingWindows" in code
    ]
    monkeypatch.chdir(dataset.root.parent)
    exec(compile(example, "docs/python.md", "exec"), {})  # noqa: S102 - our own guide
    assert capsys.readouterr().out == "(5, 96, 64, 3) (5, 18, 2) (1, 96, 64, 3)\n"


def test_short_clips_shrink_the_stride_or_are_left_out(dataset: CurationDataset) -> None:
    index, reference = window_frames(10, 9, 4, "seed")
    assert len(set(index)) == 9
    assert reference in set(range(10)) - set(index)
    with pytest.raises(DatasetError, match="has more than 30 frames"):
        TrainingWindows(dataset, policy="lax", num_frames=30)
    with pytest.raises(DatasetError, match="at least 1"):
        TrainingWindows(dataset, policy="lax", stride=0)
    with pytest.raises(DatasetError, match="no window"):
        TrainingWindows(dataset, policy="lax").window("moon", seed=0)
