"""Videos as people have them: each shows its right picture at its right times, or says why not.

The files of tests/data/field stand behind public bug reports (README there); the generated ones
cover the rest of each kind.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from animaray.platform.errors import MediaError
from animaray.platform.media.displayed_picture import orientation_of_matrix
from animaray.platform.media.frame_times import FrameRate, measure_rate
from animaray.platform.media.high_dynamic_range import TONE_MAPS, map_tones, pq_code
from animaray.platform.media.video import (
    ChildFrameStream,
    DecodedVideo,
    FrameSelection,
    StreamEnd,
    decode_in_child,
    decode_video,
    probe_in_child,
)

FIELD = Path(__file__).resolve().parents[1] / "data/field"


def seen(path: Path) -> tuple[DecodedVideo, StreamEnd, FrameRate]:
    with ChildFrameStream(path) as stream:
        frames = list(stream)
    video = DecodedVideo(
        frames_uint8=np.stack([frame.frame_uint8 for frame in frames]),
        pts_s=np.array([frame.pts_s for frame in frames]),
        info=stream.info,
        warning=stream.warning,
    )
    return video, stream.end, measure_rate(video.pts_s, stream.info.fps, stream.info.tick_s)


def length_s(video: DecodedVideo, rate: FrameRate) -> float:
    return float(video.pts_s[-1] - video.pts_s[0]) + 1 / rate.fps


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


def saturation(frames: np.ndarray) -> float:
    return float((frames.max(axis=-1).astype(int) - frames.min(axis=-1)).mean())


@pytest.fixture(scope="module")
def square() -> np.ndarray:
    return decode_video(FIELD / "v50_square.mp4").frames_uint8


@pytest.mark.parametrize(
    ("name", "count", "fps", "seconds", "size"),
    [
        ("v01_sar16x9.mp4", 48, 16, 3.0, (384, 384)),
        ("v02_24fps.mkv", 72, 24, 3.0, (384, 384)),
        ("v04_60fps.mkv", 180, 60, 3.0, (384, 384)),
        ("v09_pause.mp4", 119, 30, 6.0, (384, 384)),
        ("v10_h264_bframes.avi", 75, 25, 3.0, (384, 384)),
        ("v11_1fps.mp4", 12, 1, 12.0, (384, 384)),
        ("v13_interlaced.mp4", 75, 25, 3.0, (384, 384)),
        ("v14_hdr_pq.mp4", 48, 16, 3.0, (384, 384)),
        ("v24_camcorder.MTS", 50, 25, 2.0, (384, 384)),
        ("v27_edit_list.mp4", 87, 25, 3.48, (384, 384)),
        ("v29_h263.3gp", 45, 15, 3.0, (384, 288)),
        ("v30_dvd.mpg", 75, 25, 3.0, (384, 384)),
        ("v37_hflip.mp4", 48, 16, 3.0, (384, 300)),
        ("v38_vflip.mp4", 48, 16, 3.0, (384, 300)),
        ("v42_size_change.ts", 100, 25, 4.0, (384, 384)),
        ("v47_clock_restart.ts", 100, 25, 4.0, (384, 384)),
        ("v48_same_pts.mkv", 48, 16, 3.0, (384, 384)),
        ("v50_square.mp4", 48, 16, 3.0, (384, 384)),
        ("v59_twin_a.mp4", 48, 16, 3.0, (384, 384)),
        ("v59_twin_b.webm", 48, 16, 3.0, (384, 384)),
    ],
)
def test_every_field_file_has_its_frames_length_rate_and_size(
    name: str, count: int, fps: float, seconds: float, size: tuple[int, int]
) -> None:
    video, _, rate = seen(FIELD / name)
    assert len(video.frames_uint8) == count
    assert (rate.fps, rate.is_variable) == (pytest.approx(fps, rel=1e-3), False)
    assert length_s(video, rate) == pytest.approx(seconds, abs=1 / fps)
    assert (video.info.width, video.info.height) == size == video.frames_uint8.shape[2:0:-1]
    assert video.warning is None


def test_pixel_aspect_shows_people_as_wide_as_they_are(square: np.ndarray) -> None:
    assert difference(decode_in_child(FIELD / "v01_sar16x9.mp4").frames_uint8, square) < 4


def test_mirrors_are_mirrors_not_turns() -> None:
    one = decode_in_child(FIELD / "v37_hflip.mp4").frames_uint8
    other = decode_in_child(FIELD / "v38_vflip.mp4").frames_uint8
    with av.open(str(FIELD / "v37_hflip.mp4")) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert difference(one[0], stored[:, ::-1]) < 1
    assert difference(other[0], stored[::-1]) < 1


def test_frames_of_b_pictures_in_avi_come_evenly() -> None:
    times = decode_in_child(FIELD / "v10_h264_bframes.avi").pts_s
    np.testing.assert_allclose(np.diff(times), 0.04, atol=1e-9)


def test_clock_that_restarts_goes_on_and_later_parts_can_be_read() -> None:
    path = FIELD / "v47_clock_restart.ts"
    video, end, _ = seen(path)
    np.testing.assert_allclose(np.diff(video.pts_s), 0.04, atol=1e-6)
    assert end.breaks_s == pytest.approx((3.48,))
    assert not end.has_plain_clock
    selection = FrameSelection(start_s=4.0, end_s=5.0, seeks=False)
    with ChildFrameStream(path, None, selection) as stream:
        part = list(stream)
    first = int(np.argmin(np.abs(video.pts_s - 4.0)))
    assert [frame.pts_s for frame in part] == pytest.approx(video.pts_s[first : first + 25])
    assert difference(part[0].frame_uint8, video.frames_uint8[first]) == 0


def test_size_change_is_a_break_and_stretches_nobody() -> None:
    with av.open(str(FIELD / "v42_size_change.ts")) as container:
        sizes = [(frame.width, frame.height) for frame in container.decode(video=0)]
    change = next(place for place, size in enumerate(sizes) if size != sizes[0])
    video, end, _ = seen(FIELD / "v42_size_change.ts")
    assert end.breaks_s == pytest.approx((video.pts_s[change],))
    width, height = sizes[change]
    room = video.frames_uint8[change].max(axis=2) > 24
    rows, columns = np.flatnonzero(room.any(axis=1)), np.flatnonzero(room.any(axis=0))
    shown = (np.ptp(columns) + 1) / (np.ptp(rows) + 1)
    assert shown == pytest.approx(width / height, rel=0.02)


def test_equal_time_stamps_fall_back_on_the_declared_rate() -> None:
    video, end, _ = seen(FIELD / "v48_same_pts.mkv")
    np.testing.assert_allclose(video.pts_s, np.arange(48) / 16)
    assert not end.has_plain_clock


def test_fields_are_woven_into_whole_pictures() -> None:
    _, end, _ = seen(FIELD / "v13_interlaced.mp4")
    assert end.combed_share is not None
    assert end.combed_share < 0.02


def test_high_dynamic_range_keeps_its_colours(square: np.ndarray) -> None:
    shown = decode_in_child(FIELD / "v14_hdr_pq.mp4").frames_uint8
    assert saturation(shown) == pytest.approx(saturation(square), rel=0.15)
    assert difference(shown.mean(axis=(0, 1, 2)), square.mean(axis=(0, 1, 2))) < 15


def test_old_decoders_run_only_in_the_bounded_child() -> None:
    with pytest.raises(MediaError, match="codec h263, which is not accepted here"):
        decode_video(FIELD / "v29_h263.3gp")


def write(
    path: Path,
    frames: np.ndarray,
    rate: Fraction | int = 25,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    aspect: Fraction | None = None,
    matrix: list[int] | None = None,
    times_s: np.ndarray | None = None,
    options: dict[str, str] | None = None,
    format_name: str | None = None,
    tags: dict[str, int] | None = None,
) -> Path:
    with av.open(str(path), "w", format=format_name) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pix_fmt
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        stream.options = options or ({"preset": "ultrafast"} if codec == "libx264" else {})
        if times_s is not None:
            stream.codec_context.time_base = Fraction(1, 90_000)
        for place, picture in enumerate(frames):
            form = "rgb48le" if picture.dtype == np.uint16 else "rgb24"
            frame = av.VideoFrame.from_ndarray(picture, format=form)
            if tags is not None:
                frame = frame.reformat(format=pix_fmt, dst_colorspace=tags["colorspace"])
            if times_s is not None:
                frame.pts = round(times_s[place] * 90_000)
                frame.time_base = Fraction(1, 90_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def corners(width: int = 96, height: int = 64, count: int = 4) -> np.ndarray:
    """Return a picture whose four quarters are told apart by their colour."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[: height // 2, : width // 2] = (200, 40, 40)
    picture[: height // 2, width // 2 :] = (40, 200, 40)
    picture[height // 2 :, : width // 2] = (40, 40, 200)
    picture[height // 2 :, width // 2 :] = (200, 200, 200)
    return np.stack([picture] * count)


def moving(count: int, size: int = 64) -> np.ndarray:
    frames = np.full((count, size, size, 3), 60, dtype=np.uint8)
    for place in range(count):
        left = place * 3 % (size - 16)
        frames[place, 16:48, left : left + 16] = 220
    return frames


_UNIT = 65536
TURNS = {
    (1, 0, 0, 1): lambda p: p,
    (-1, 0, 0, 1): lambda p: p[:, ::-1],
    (1, 0, 0, -1): lambda p: p[::-1],
    (-1, 0, 0, -1): lambda p: p[::-1, ::-1],
    (0, 1, -1, 0): lambda p: np.rot90(p, -1),
    (0, -1, 1, 0): lambda p: np.rot90(p, 1),
    (0, 1, 1, 0): lambda p: np.transpose(p, (1, 0, 2)),
    (0, -1, -1, 0): lambda p: np.rot90(p, 2).transpose((1, 0, 2)),
}


@pytest.mark.parametrize("unit", TURNS)
def test_all_eight_display_matrices(tmp_path: Path, unit: tuple[int, int, int, int]) -> None:
    a, b, c, d = (value * _UNIT for value in unit)
    matrix = [a, b, 0, c, d, 0, 0, 0, 1 << 30]
    path = write(tmp_path / "turned.mp4", corners(), matrix=matrix)
    video = decode_in_child(path)
    expected = TURNS[unit](corners()[0])
    assert (video.info.height, video.info.width) == expected.shape[:2]
    assert video.frames_uint8.shape[1:] == expected.shape
    assert difference(video.frames_uint8[0], expected) < 12


def test_odd_angles_take_the_nearest_turn() -> None:
    turn = orientation_of_matrix(9, 65535, -65535, 9)
    assert (turn.rotation_deg, turn.mirrored) == (90, False)


@pytest.mark.parametrize("aspect", ["16/9", "8/9", "64/45", "1/2", "2/1"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_any_pixel_aspect_is_applied_once(tmp_path: Path, aspect: str, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", corners(), aspect=Fraction(aspect))
    video = decode_in_child(path, short_side_px=48)
    assert video.info.width == pytest.approx(96 * Fraction(aspect), abs=1)
    shown = video.frames_uint8.shape[2] / video.frames_uint8.shape[1]
    assert shown == pytest.approx(1.5 * Fraction(aspect), rel=0.03)


def test_pixel_aspect_of_a_turned_picture_widens_its_height(tmp_path: Path) -> None:
    matrix = [0, _UNIT, 0, -_UNIT, 0, 0, 0, 0, 1 << 30]
    path = write(tmp_path / "a.mp4", corners(), aspect=Fraction(2), matrix=matrix)
    assert decode_in_child(path).frames_uint8.shape[1:3] == (192, 64)


def test_pixel_aspect_that_changes_in_mid_stream_is_a_break(tmp_path: Path) -> None:
    parts = [
        write(tmp_path / f"{place}.ts", moving(12), aspect=Fraction(aspect),
              options={"preset": "medium"}).read_bytes()
        for place, aspect in enumerate(("4/3", "16/9"))
    ]  # fmt: skip
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(parts))
    video, end, _ = seen(path)
    assert len(video.frames_uint8) == 24
    assert end.breaks_s == pytest.approx((video.pts_s[12],))
    selection = FrameSelection(start_s=video.pts_s[12] + 0.04, seeks=False)
    with ChildFrameStream(path, None, selection) as stream:
        later = next(iter(stream)).frame_uint8
    assert later.shape[:2] == (64, 114)


def test_forged_aspect_makes_no_line_or_bomb(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", corners(), aspect=Fraction(4000))
    assert probe_in_child(path).width == 96
    thin = write(tmp_path / "b.mkv", corners(), aspect=Fraction(15))
    with pytest.raises(MediaError) as caught:
        probe_in_child(thin)
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize(
    "rate",
    ["24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60", "120"],
)
@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".flv", ".mp4", ".ts"])
def test_rounded_time_stamps_tell_the_true_rate(tmp_path: Path, suffix: str, rate: str) -> None:
    codec = "libvpx" if suffix == ".webm" else "libx264"
    options = {"deadline": "realtime", "cpu-used": "16"} if suffix == ".webm" else None
    frames = moving(int(2.2 * Fraction(rate)), 32)
    path = write(tmp_path / f"a{suffix}", frames, Fraction(rate), codec=codec, options=options)
    times = decode_in_child(path).pts_s
    for declared in (probe_in_child(path).fps, 0.0):  # a file may declare nothing
        measured = measure_rate(times, declared, 1e-3 if suffix != ".ts" else 1 / 90_000)
        assert measured.fps == pytest.approx(float(Fraction(rate)), rel=2e-4)
        assert not measured.is_variable


def test_times_that_differ_are_no_constant_rate() -> None:
    times = np.cumsum(np.where(np.arange(60) % 2, 0.02, 0.08))
    assert measure_rate(times, 20.0, 1e-5).is_variable
    assert measure_rate(np.array([0.0]), 0.0, 1e-3).fps == 25.0


@pytest.mark.parametrize("gap_s", [0.2, 1.0, 90.0])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_gaps_stay_in_time(tmp_path: Path, gap_s: float, suffix: str) -> None:
    times = np.concatenate([np.arange(20) / 25, 20 / 25 + gap_s + np.arange(20) / 25])
    video, _, rate = seen(write(tmp_path / f"a{suffix}", moving(40), times_s=times))
    np.testing.assert_allclose(video.pts_s, times, atol=1.1e-3)
    assert (rate.fps, rate.is_variable) == (pytest.approx(25.0), False)


@pytest.mark.parametrize("second_start_s", [0.0, 50.0, 2000.0])
@pytest.mark.parametrize("suffix", [".ts", ".flv"])
def test_clocks_that_restart_backward_or_forward(
    tmp_path: Path, second_start_s: float, suffix: str
) -> None:
    times = np.arange(30) / 25
    if suffix == ".ts":
        parts = [
            write(tmp_path / f"{start}.ts", moving(30), times_s=times + start).read_bytes()
            for start in (20.0, second_start_s)
        ]
        path = tmp_path / "both.ts"
        path.write_bytes(b"".join(parts))
    else:
        path = write(tmp_path / "jump.flv", moving(60), codec="flv",
                     times_s=np.concatenate([times, times + 100 + second_start_s]))  # fmt: skip
    video, end, rate = seen(path)
    np.testing.assert_allclose(np.diff(video.pts_s), 0.04, atol=2e-3)
    assert len(video.pts_s) == 60
    assert len(end.breaks_s) == 1
    assert length_s(video, rate) == pytest.approx(2.4, abs=0.01)


def test_equal_stamps_without_a_rate_say_so(tmp_path: Path) -> None:
    from animaray.platform.media.frame_times import FrameClock, PacketNote

    clock = FrameClock("a.mkv", "matroska,webm", Fraction(1, 1000), fps=1000.0)
    note = PacketNote(0.0, 0, 0, 0.0)
    frame = av.VideoFrame(16, 16, "yuv420p")
    frame.pts = 0
    clock.time_of(frame, note)
    with pytest.raises(MediaError, match="all carry the same time stamp"):
        clock.time_of(frame, note)


def fields(count: int, *, top_first: bool) -> np.ndarray:
    """Return interlaced pictures of a bar that moves from field to field."""
    both = moving(2 * count)
    frames = np.empty((count, *both.shape[1:]), dtype=np.uint8)
    first, second = (0, 1) if top_first else (1, 0)
    frames[:, first::2] = both[0::2, first::2]
    frames[:, second::2] = both[1::2, second::2]
    return frames


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_marked_fields_of_either_order_are_woven(tmp_path: Path, order: str) -> None:
    frames = fields(30, top_first=order == "tff")
    options = {"x264-params": f"{order}=1", "crf": "10"}
    video, end, rate = seen(write(tmp_path / "a.mp4", frames, options=options))
    assert len(video.frames_uint8) == 30
    assert rate.fps == pytest.approx(25.0)
    assert end.combed_share is not None
    assert end.combed_share < 0.03


def test_combs_that_nothing_marks_are_measured(tmp_path: Path) -> None:
    combed = write(tmp_path / "a.mp4", fields(30, top_first=True), options={"crf": "10"})
    plain = write(tmp_path / "b.mp4", moving(30), options={"crf": "10"})
    found = seen(combed)[1].combed_share
    assert found is not None
    assert found > 0.15
    assert (seen(plain)[1].combed_share or 0.0) < 0.03


@pytest.mark.parametrize(
    ("name", "codec", "form", "pix_fmt"),
    [
        ("a.m2ts", "libx264", "mpegts", "yuv420p"),
        ("a.VOB", "mpeg2video", "vob", "yuv420p"),
        ("a.mpg", "mpeg1video", "mpeg", "yuv420p"),
        ("a.wmv", "wmv2", "asf", "yuv420p"),
        ("b.wmv", "msmpeg4", "asf", "yuv420p"),
        ("a.flv", "flv", "flv", "yuv420p"),
        ("a.3gp", "mpeg4", "3gp", "yuv420p"),
        ("a.ogv", "libtheora", "ogg", "yuv420p"),
        ("a.mov", "mjpeg", "mov", "yuvj420p"),
    ],
)
def test_old_containers_are_read_in_the_child(
    tmp_path: Path, name: str, codec: str, form: str, pix_fmt: str
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no encoder {codec}")
    path = write(tmp_path / name, moving(30), codec=codec, format_name=form, pix_fmt=pix_fmt)
    video, _, rate = seen(path)
    assert len(video.frames_uint8) == 30
    assert rate.fps == pytest.approx(25.0, rel=1e-3)
    assert difference(video.frames_uint8[10], moving(30)[10]) < 12


def test_tone_maps_keep_white_and_grey() -> None:
    nits = np.array([0.0, 20.0, 203.0, 1000.0, 10_000.0])
    pq = np.round(pq_code(nits) * 65535).astype(np.uint16)
    greys = map_tones(np.repeat(pq[None, :, None], 3, axis=2), TONE_MAPS[16])[0, :, 0]
    # 20 cd/m2 lie below the knee: a tenth of white, which sRGB codes as 89.
    assert greys.tolist()[:2] == [0, pytest.approx(89, abs=2)]
    assert 200 < greys[2] < greys[3] == greys[4] == 255
    # HLG: three quarters of the signal are diffuse white, half of it a grey.
    hlg = np.round(np.array([0.0, 0.5, 0.75, 1.0]) * 65535).astype(np.uint16)
    greys = map_tones(np.repeat(hlg[None, :, None], 3, axis=2), TONE_MAPS[18])[0, :, 0]
    assert greys[0] == 0
    assert 110 < greys[1] < 150
    assert 200 < greys[2] < greys[3] == 255


@pytest.mark.parametrize("transfer", [16, 18])
def test_pq_and_hlg_files_come_out_colourful(tmp_path: Path, transfer: int) -> None:
    code = np.array([[0.52, 0.30, 0.30], [0.45, 0.45, 0.30], [0.30, 0.45, 0.55]])
    if transfer == 18:
        code = code**1.1 + 0.15
    picture = np.repeat(np.repeat(code[None], 64, axis=0), 32, axis=1)
    frames = np.stack([np.round(picture * 65535).astype(np.uint16)] * 3)
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": transfer, "color_range": 1}
    path = write(
        tmp_path / "a.mp4", frames, codec="libx265", pix_fmt="yuv420p10le", tags=tags,
        options={"x265-params": "log-level=none"},
    )  # fmt: skip
    shown = decode_in_child(path).frames_uint8[0, 32, [16, 48, 80]].astype(int)
    assert shown[0].argmax() == 0
    assert shown[2].argmax() == 2
    assert np.ptp(shown, axis=1).min() > 40  # read as they stand: 25
