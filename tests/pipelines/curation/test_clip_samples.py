"""Frames of a clip for several measurements come from one pass, and are those of a pass alone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from animaray.pipelines.curation.clip_samples import ClipSamples
from animaray.platform.errors import MediaError
from animaray.platform.media.video import FrameSelection, FrameStream, write_mp4

SMALL, SPARSE, OTHER = (
    FrameSelection(fps=2.0, short_side_px=32),
    FrameSelection(every=4),
    FrameSelection(fps=1.0),
)


@pytest.fixture
def clip(tmp_path: Path) -> str:
    frames = np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3), dtype=np.uint8)
    write_mp4(tmp_path / "clip.mp4", frames, 10.0)
    return str(tmp_path / "clip.mp4")


def test_one_pass_serves_all(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    together = FrameStream.together

    def counted(stream: FrameStream, selections: list[FrameSelection]) -> Iterator[object]:
        passes.append(list(selections))
        return together(stream, selections)

    monkeypatch.setattr(FrameStream, "together", counted)
    samples = ClipSamples(clip, [SMALL, SPARSE])
    assert passes == []
    assert samples.take(SPARSE, keeps=True).frames_uint8.shape == (5, 48, 64, 3)
    assert samples.take(SPARSE).frames_uint8.shape == (5, 48, 64, 3)
    assert samples.take(SMALL).frames_uint8.shape == (4, 32, 43, 3)
    assert passes == [[SMALL, SPARSE]]
    # What nobody announced, and what was handed out already, takes a pass of its own.
    assert len(samples.take(OTHER).frames_uint8) == 2
    assert len(samples.take(SMALL).frames_uint8) == 4
    assert passes[1:] == [[OTHER], [SMALL]]


def test_what_waits_comes_out_of_the_pass_of_who_streams(
    clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [ClipSamples(clip).take(each).frames_uint8 for each in (OTHER, SMALL, SPARSE)]
    samples = ClipSamples(clip, [SMALL, SPARSE])
    streamed = [frame for _, frame in samples.stream(OTHER)]
    np.testing.assert_array_equal(streamed, expected[0])
    monkeypatch.delattr(FrameStream, "together")
    for selection, frames in zip((SMALL, SPARSE), expected[1:], strict=True):
        np.testing.assert_array_equal(samples.take(selection).frames_uint8, frames)


def test_who_breaks_a_stream_off_takes_nothing_from_the_others(clip: str) -> None:
    samples = ClipSamples(clip, [SMALL])
    next(samples.stream(OTHER))
    assert len(samples.take(SMALL).frames_uint8) == 4


def test_a_clip_that_does_not_decode_tells_everybody(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_text("no video")
    samples = ClipSamples(str(path), [SMALL, SPARSE])
    for selection in (SMALL, SPARSE):
        with pytest.raises(MediaError, match=r"clip\.mp4 is a text file, not a video"):
            samples.take(selection)
