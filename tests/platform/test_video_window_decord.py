"""decord gives the frames and times that PyAV gives, for clips that we encoded ourselves."""

import builtins

import numpy as np
import pytest

from animaray.platform.errors import MachineError, MediaError
from animaray.platform.media.video_encode import encode_mp4
from animaray.platform.media.video_window import read_frames
from animaray.platform.media.video_window_decord import read_frames_by_decord


def clip(times: np.ndarray) -> bytes:
    rng = np.random.default_rng(3)
    tiles = rng.integers(0, 256, (len(times), 6, 8, 3), dtype=np.uint8)
    frames = tiles.repeat(16, axis=1).repeat(16, axis=2)
    return encode_mp4(frames, 25.0, gop=7, pts_s=times)


@pytest.mark.parametrize(
    "times",
    [np.arange(24) / 25.0, np.cumsum(np.tile([0.04, 0.08, 0.02], 8))],
    ids=["constant rate", "variable rate"],
)
def test_frames_and_times_equal_those_of_pyav(times):
    pytest.importorskip("decord", reason="the optional package decord2 is absent")
    video = clip(times)
    wanted = [9, 3, 3, 23, 0]
    frames, pts_s = read_frames(video, wanted)
    others, other_pts_s = read_frames_by_decord(video, wanted)
    assert np.abs(frames.astype(int) - others).max() <= 2
    np.testing.assert_allclose(other_pts_s, pts_s, atol=1e-4)


def test_what_cannot_be_read_is_refused():
    pytest.importorskip("decord", reason="the optional package decord2 is absent")
    with pytest.raises(MediaError, match="cannot be read"):
        read_frames_by_decord(b"no video", [0])
    video = clip(np.arange(5) / 25.0)
    for indices in ([5], [-1], []):
        with pytest.raises(MediaError, match="Expected frames 0 to 4"):
            read_frames_by_decord(video, indices)


def test_without_the_package_it_says_so(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "decord":
            raise ImportError("No module named 'decord'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MachineError, match="decord cannot be imported"):
        read_frames_by_decord(b"", [0])
