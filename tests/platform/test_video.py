"""Video files: true times, upright pictures, damaged and hostile files, encoding."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from animaray.platform.errors import MediaError
from animaray.platform.media.video import (
    ChildFrameStream,
    DecodeLimits,
    FrameSelection,
    FrameStream,
    decode_in_child,
    decode_video,
    encode_jpeg,
    encode_mp4,
    probe_in_child,
    probe_video,
    read_picture,
    write_mp4,
    write_picture,
)


def moving_frames(num_frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Return frames whose brightness is 20 + 4 * index: a frame tells its number."""
    levels = 20 + 4 * np.arange(num_frames, dtype=np.uint8)
    frames = np.repeat(levels, height * width * 3)
    return frames.reshape(num_frames, height, width, 3)


def numbers(frames_uint8: np.ndarray) -> list[int]:
    return np.round((frames_uint8.mean(axis=(1, 2, 3)) - 20) / 4).astype(int).tolist()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    write_mp4(path, moving_frames(50), 25.0)
    return path


def _encode_as(path: Path, codec: str, frames: np.ndarray, fps: int, pix_fmt: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pix_fmt
        for rgb in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_probe_tells_size_rate_and_length(clip: Path) -> None:
    info = probe_video(clip)
    assert (info.width, info.height, info.codec, info.rotation_deg) == (64, 48, "h264", 0)
    assert info.fps == pytest.approx(25.0)
    assert info.duration_s == pytest.approx(2.0)  # 50 frames of 1/25 s
    assert info.num_frames_declared == 50
    assert not info.has_audio
    assert probe_in_child(clip) == info


def test_every_frame_comes_back_with_its_time(clip: Path) -> None:
    video = decode_video(clip)
    assert numbers(video.frames_uint8) == list(range(50))
    np.testing.assert_allclose(video.pts_s, np.arange(50) / 25, atol=1e-9)
    assert video.warning is None


def test_span_is_half_open_and_seeks(clip: Path) -> None:
    # [1.2, 1.4) s at 25 fps are frames 30 to 34.
    assert numbers(decode_video(clip, start_s=1.2, end_s=1.4).frames_uint8) == [30, 31, 32, 33, 34]
    assert numbers(decode_video(clip, end_s=0.1).frames_uint8) == [0, 1, 2]


def test_regular_grid_takes_nearest_frames(clip: Path) -> None:
    video = decode_video(clip, fps=10.0)
    # Times 0, 0.1, 0.2 ... lie at frames 0, 2.5, 5 ...; half-way the earlier is taken.
    assert numbers(video.frames_uint8)[:5] == [0, 2, 5, 7, 10]
    assert len(video.frames_uint8) == 20
    doubled = decode_video(clip, fps=50.0, max_frames=6)
    assert numbers(doubled.frames_uint8) == [0, 0, 1, 1, 2, 2]


def test_short_side_shrinks_but_never_enlarges(clip: Path) -> None:
    assert decode_video(clip, short_side_px=24, max_frames=1).frames_uint8.shape == (1, 24, 32, 3)
    assert decode_video(clip, short_side_px=480, max_frames=1).frames_uint8.shape[1:3] == (48, 64)


def test_decoding_together_equals_decoding_alone(clip: Path) -> None:
    selections = [
        FrameSelection(),
        FrameSelection(fps=4.0, short_side_px=32),
        FrameSelection(every=3),
        FrameSelection(fps=1.0, max_frames=1),
    ]
    with FrameStream(clip) as here, ChildFrameStream(clip, None, *selections) as child:
        passes = [list(here.together(selections)), list(child.together())]
    assert here.end.num_in_span == child.end.num_in_span == 50
    assert child.end.span_s == pytest.approx(1.96)
    for place, selection in enumerate(selections):
        with FrameStream(clip, selection) as stream:
            alone = list(stream)
        for together in passes:
            found = [frame for wanted_by, frame in together if wanted_by == place]
            np.testing.assert_array_equal([f.frame_uint8 for f in found],
                                          [f.frame_uint8 for f in alone])  # fmt: skip
            assert [f.pts_s for f in found] == [f.pts_s for f in alone]


def test_streaming_and_child_equal_decoding_at_once(clip: Path) -> None:
    whole = decode_video(clip, fps=5.0)
    child = decode_in_child(clip, fps=5.0)
    np.testing.assert_array_equal(child.frames_uint8, whole.frames_uint8)
    np.testing.assert_array_equal(child.pts_s, whole.pts_s)
    assert child.info == whole.info
    with FrameStream(clip, FrameSelection(fps=5.0)) as frames:
        streamed = list(frames)
    np.testing.assert_array_equal([frame.pts_s for frame in streamed], whole.pts_s)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("clip.avi", "mpeg4", "yuv420p"),
        ("clip.webm", "libvpx-vp9", "yuv420p"),
        ("clip.mkv", "libx264", "yuv444p"),
        ("clip.gif", "gif", "rgb8"),
    ],
)
def test_common_formats_decode(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    path = _encode_as(tmp_path / name, codec, moving_frames(10), 10, pix_fmt)
    video = decode_in_child(path)
    assert len(video.frames_uint8) == 10
    assert np.diff(video.pts_s) == pytest.approx(0.1, abs=2e-3)


def test_variable_rate_keeps_true_times(tmp_path: Path) -> None:
    times = np.array([0.0, 0.04, 0.08, 0.5, 1.0, 1.04])
    path = tmp_path / "variable.mp4"
    path.write_bytes(encode_mp4(moving_frames(6), 25.0, pts_s=times))
    np.testing.assert_allclose(decode_video(path).pts_s, times, atol=1e-4)
    # At 2 fps the frames nearest to 0, 0.5 and 1 s.
    assert numbers(decode_video(path, fps=2.0).frames_uint8) == [0, 3, 4]


def test_encoding_is_close_and_plays_while_loading(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.integers(-2, 3, (8, 40, 60, 3)), axis=2) + 120
    frames = smooth.clip(0, 255).astype(np.uint8)
    data = encode_mp4(frames, 8.0)
    assert data.index(b"moov") < data.index(b"mdat")  # the index comes first
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    error = decode_video(path).frames_uint8.astype(int) - frames
    assert np.abs(error).mean() < 6  # 4:2:0 loses colour detail, CRF 17 little else


def test_odd_sides_are_padded(tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    write_mp4(path, moving_frames(3, height=33, width=35), 10.0)
    assert decode_video(path).frames_uint8.shape == (3, 34, 36, 3)


def test_encoding_nothing_is_refused() -> None:
    with pytest.raises(MediaError, match="Expected frames and a positive rate"):
        encode_mp4(np.zeros((0, 8, 8, 3), dtype=np.uint8), 25.0)


def test_truncated_file_gives_good_frames_and_a_warning(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (60, 64, 64, 3), dtype=np.uint8)
    data = encode_mp4(frames, 30.0)
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) * 6 // 10])
    video = decode_in_child(path)
    assert 20 <= len(video.frames_uint8) <= 45
    assert video.warning is not None
    assert "of 60 frames decode" in video.warning


def _without_index(data: bytes) -> bytes:
    return data[: data.index(b"moov") - 4]


@pytest.mark.parametrize("reason", ["missing", "empty", "not_a_video", "truncated", "no_picture"])
def test_unusable_files_say_why(tmp_path: Path, reason: str) -> None:
    path = tmp_path / "bad.mp4"
    if reason == "empty":
        path.touch()
    elif reason == "not_a_video":
        path.write_text("a text under a video's name, longer than a header")
    elif reason == "truncated":
        path.write_bytes(_without_index(encode_mp4(moving_frames(4), 10.0)) + b"\0\0\1\0mdat")
    elif reason == "no_picture":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=8000)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            sound.sample_rate = 8000
            container.mux(stream.encode(sound))
            container.mux(stream.encode(None))
    for call in (probe_video, probe_in_child):
        with pytest.raises(MediaError) as caught:
            call(path)
        assert caught.value.reason == reason


def test_disguised_playlist_is_refused_unread(tmp_path: Path) -> None:
    canary = tmp_path / "canary.ts"
    canary.write_text("secret")
    path = tmp_path / "list.mp4"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{canary}\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError) as caught:
        decode_in_child(path)
    assert caught.value.reason == "not_a_video"


@pytest.mark.parametrize(
    "limits",
    [
        DecodeLimits(max_frame_pixels=64 * 47),
        DecodeLimits(max_frames=20),
        DecodeLimits(max_decoded_pixels=64 * 48 * 20),
        DecodeLimits(max_returned_bytes=64 * 48 * 3 * 20),
        DecodeLimits(max_file_bytes=100),
    ],
)
def test_limits_hold_in_and_out_of_the_child(clip: Path, limits: DecodeLimits) -> None:
    for call in (decode_video, decode_in_child):
        with pytest.raises(MediaError, match="over the limit") as caught:
            call(clip, limits=limits)
        assert caught.value.reason == "too_large"


def test_relative_paths_work_in_the_child(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clip.parent)
    frames = decode_in_child(clip.name, max_frames=1).frames_uint8
    frames[:] = 0  # frames belong to the caller
    assert frames.shape == (1, 48, 64, 3)


def test_slow_child_is_ended(clip: Path) -> None:
    with pytest.raises(MediaError, match="took longer than") as caught:
        decode_in_child(clip, DecodeLimits(timeout_s=0.0))
    assert caught.value.reason == "too_large"


def test_child_without_memory_is_an_error_not_a_crash(clip: Path) -> None:
    with pytest.raises(MediaError) as caught:
        decode_in_child(clip, DecodeLimits(memory_bytes=100 * 1024**2))
    assert caught.value.reason in {"broken", "too_large"}


def test_picture_is_upright_and_alpha_is_over_white(tmp_path: Path) -> None:
    pixels = np.zeros((2, 4, 3), dtype=np.uint8)
    pixels[:, :2] = 255  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # stored so that it must be turned a quarter clockwise
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    upright = read_picture(buffer.getvalue())
    assert upright.shape == (4, 2, 3)
    assert upright[0].min() == 255  # the left half is now on top
    assert upright[-1].max() == 0
    see_through = tmp_path / "alpha.png"
    Image.new("RGBA", (3, 3), (10, 20, 30, 0)).save(see_through)
    assert read_picture(see_through).min() == 255


def test_pictures_round_trip(tmp_path: Path) -> None:
    frame = moving_frames(1)[0]
    write_picture(tmp_path / "a.png", frame)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), frame)
    assert np.abs(read_picture(encode_jpeg(frame)).astype(int) - frame).max() <= 3
    with pytest.raises(MediaError, match=r"Expected a \.png or \.jpg"):
        write_picture(tmp_path / "a.tiff", frame)


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty"), (b"no picture at all", "not_a_picture")]
)
def test_unusable_pictures_say_why(data: bytes, reason: str) -> None:
    with pytest.raises(MediaError) as caught:
        read_picture(data)
    assert caught.value.reason == reason


def test_missing_picture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="got nothing there"):
        read_picture(tmp_path / "none.png")


@pytest.mark.real
def test_real_phone_video_comes_out_upright(real_data) -> None:
    turned = decode_video(real_data / "videos/x02.mov", max_frames=1, short_side_px=120)
    straight = decode_video(real_data / "videos/v09.mp4", max_frames=1, short_side_px=120)
    assert (turned.info.width, turned.info.height, turned.info.rotation_deg) == (720, 1280, 90)
    difference = turned.frames_uint8.astype(int) - straight.frames_uint8
    assert np.abs(difference).mean() < 5


@pytest.mark.real
def test_real_late_start(real_data) -> None:
    late = decode_in_child(real_data / "videos/v21.mp4", short_side_px=32)
    assert len(late.pts_s) == 351
    assert late.info.duration_s == pytest.approx(11.73, abs=0.01)  # not the sound's 20 s
    assert late.pts_s[0] == pytest.approx(8.333, abs=1e-3)


@pytest.mark.real
def test_real_damage(real_data) -> None:
    cut = decode_in_child(real_data / "videos/x06.mp4", short_side_px=32)
    assert len(cut.pts_s) == 83
    assert cut.warning is not None
    assert "83 of 144 frames decode" in cut.warning


@pytest.mark.real
def test_first_of_two_real_streams_is_read(real_data) -> None:
    first = probe_video(real_data / "videos/v17.mp4")
    assert (first.width, first.height) == (320, 180)  # of two streams the first, the default


@pytest.mark.real
def test_real_frame_rates_are_kept(real_data) -> None:
    even = decode_in_child(real_data / "videos/v04.mp4", short_side_px=32)
    assert (even.info.width, even.info.height, len(even.pts_s)) == (720, 1280, 65)
    assert np.diff(even.pts_s) == pytest.approx(0.2, abs=1e-3)
    varied = decode_in_child(real_data / "videos/v18.mp4", short_side_px=32)
    assert len(varied.pts_s) == 50
    gaps = np.diff(varied.pts_s)
    assert gaps.min() == pytest.approx(1 / 15, abs=2e-3)
    assert gaps.max() == pytest.approx(1 / 10, abs=2e-3)


@pytest.mark.real
def test_streams_of_rare_kinds_need_no_import_in_the_confined_child(real_data) -> None:
    # v17 has two video, two audio and a subtitle stream, for which PyAV has modules of their own.
    decoded = decode_in_child(real_data / "videos/v17.mp4", max_frames=3)
    assert decoded.frames_uint8.shape[0] == 3
