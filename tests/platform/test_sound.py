"""The sound of a driving video in a result: kept unchanged, trimmed, or left out with a word."""

from pathlib import Path

import av
import numpy as np
import pytest

from animaray.platform.errors import MediaError
from animaray.platform.media import bounded_decoding
from animaray.platform.media.video import add_sound_in_child, encode_mp4, probe_in_child

RATE = 8000


def talking_video(path: Path, *, codec: str = "aac", sound_s: float = 1.0) -> Path:
    """Write one second of pictures with a tone of so many seconds."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        tone = container.add_stream(codec, rate=RATE, layout="mono")
        for number in range(10):
            shade = np.full((64, 64, 3), 20 * number, np.uint8)
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(shade)))
        wave = np.sin(np.arange(int(sound_s * RATE)) * 0.3)
        frame = av.AudioFrame.from_ndarray((wave * 2**14).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = RATE
        resampled = av.AudioResampler(tone.format, "mono", RATE).resample(frame)
        for part in resampled:
            container.mux(tone.encode(part))
        container.mux(pictures.encode(None))
        container.mux(tone.encode(None))
    return path


def sound_packets(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        (sound,) = container.streams.audio
        return [
            (float(packet.pts * sound.time_base), bytes(packet))
            for packet in container.demux(sound)
            if packet.pts is not None
        ]


def add(tmp_path: Path, source: Path, num_frames: int):  # type: ignore[no-untyped-def]
    silent, out = tmp_path / "silent.mp4", tmp_path / "out.mp4"
    silent.write_bytes(encode_mp4(np.zeros((num_frames, 32, 32, 3), np.uint8), 10.0))
    info = probe_in_child(source)
    report = add_sound_in_child(silent, source, out, info=info, duration_s=num_frames / 10)
    return report, out


def test_packets_are_copied_and_end_with_the_pictures(tmp_path: Path) -> None:
    source = talking_video(tmp_path / "source.mp4")
    report, out = add(tmp_path, source, num_frames=4)
    assert report.is_kept
    kept, whole = sound_packets(out), dict(sound_packets(source))
    assert 0.25 <= kept[-1][0] < 0.4
    assert {data for _, data in kept} <= set(whole.values())


def test_shorter_sound_is_kept_as_it_is(tmp_path: Path) -> None:
    source = talking_video(tmp_path / "source.mp4", sound_s=0.3)
    report, out = add(tmp_path, source, num_frames=10)
    assert report.is_kept
    assert sound_packets(out)[-1][0] < 0.4
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 10


def test_a_silent_video_gives_no_sound_and_no_warning(tmp_path: Path) -> None:
    source = tmp_path / "source.mp4"
    source.write_bytes(encode_mp4(np.zeros((5, 32, 32, 3), np.uint8), 10.0))
    report, out = add(tmp_path, source, num_frames=5)
    assert (report.is_kept, report.warning, out.exists()) == (False, None, False)


def test_sound_that_an_mp4_cannot_hold_is_left_out_with_a_word(tmp_path: Path) -> None:
    source = talking_video(tmp_path / "source.mkv", codec="pcm_s16le")
    report, _ = add(tmp_path, source, num_frames=5)
    assert not report.is_kept
    assert report.warning is not None
    assert "an mp4 cannot hold" in report.warning


def test_unreadable_sound_does_not_cost_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> bytes:
        raise MediaError("its sound hangs the decoder.")

    source = talking_video(tmp_path / "source.mp4")
    monkeypatch.setattr(bounded_decoding, "copy_sound_in_child", refuse)
    report, _ = add(tmp_path, source, num_frames=5)
    assert report.warning == "The driving video's sound was left out: its sound hangs the decoder."
