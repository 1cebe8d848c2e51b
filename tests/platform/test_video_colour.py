"""Videos carry the colours that were sent: written with true tags, read by tag or by height."""

import io
from pathlib import Path

import av
import numpy as np
import pytest

from animaray.platform.errors import MediaError
from animaray.platform.media.video import (
    ChildFrameStream,
    FrameSelection,
    Mp4Writer,
    TimedFrame,
    TimedPlanes,
    decode_video,
    encode_mp4,
)
from animaray.platform.media.video_window import read_frames

COLOURS = (
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 90), (90, 140, 60), (255, 200, 180),
    (40, 40, 40), (128, 128, 128),
)  # fmt: skip
BT709, UNSPECIFIED, SMPTE170M = 1, 2, 6
LUMA = {BT709: (0.2126, 0.0722), SMPTE170M: (0.299, 0.114)}


def stripes(height: int, width: int) -> np.ndarray:
    picture = np.zeros((height, width, 3), np.uint8)
    for place, colour in enumerate(COLOURS):
        picture[:, place * width // 8 : (place + 1) * width // 8] = colour
    return picture


def middles(picture: np.ndarray) -> np.ndarray:
    """Return the colour in the middle of each stripe."""
    height, width = picture.shape[:2]
    return picture[height // 2, [(2 * place + 1) * width // 16 for place in range(8)]].astype(int)


def luma_matrix(matrix: int) -> np.ndarray:
    """Return R'G'B' to Y'PbPr, from the definition."""
    kr, kb = LUMA[matrix]
    y = np.array([kr, 1 - kr - kb, kb])
    return np.stack([y, (np.eye(3)[2] - y) / (2 * (1 - kb)), (np.eye(3)[0] - y) / (2 * (1 - kr))])


def write_stripes(
    path: Path, height: int, *, matrix: int, tag: int, full: bool = False
) -> np.ndarray:
    """Encode stripes by a matrix computed here, under any tag; return the picture."""
    picture = stripes(height, 192)
    ypp = picture / 255.0 @ luma_matrix(matrix).T
    span, foot, chroma = (255, 0, 255) if full else (219, 16, 224)
    planes = [ypp[..., 0] * span + foot, *(ypp[::2, ::2, k] * chroma + 128 for k in (1, 2))]
    flat = [plane.round().clip(0, 255).astype(np.uint8).reshape(-1, 192) for plane in planes]
    frame = av.VideoFrame.from_ndarray(np.concatenate(flat), format="yuv420p")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 192, height, "yuv420p"
        stream.codec_context.colorspace = tag
        stream.codec_context.color_range = 2 if full else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return picture


def elementary_stream(mp4: bytes) -> bytes:
    """Return the H.264 stream without its container."""
    with av.open(io.BytesIO(mp4)) as container:
        stream = container.streams.video[0]
        plain = av.BitStreamFilterContext("h264_mp4toannexb", stream)
        packets = [out for packet in container.demux(stream) for out in plain.filter(packet)]
        return b"".join(bytes(packet) for packet in packets)


def test_results_are_tagged_in_container_and_bitstream() -> None:
    mp4 = encode_mp4(np.stack([stripes(96, 160)] * 3), 10.0)
    # H.273: primaries BT.709, transfer IEC 61966-2-1, matrix BT.709, limited range.
    assert b"colrnclx\x00\x01\x00\x0d\x00\x01\x00" in mp4
    with av.open(io.BytesIO(elementary_stream(mp4)), format="h264") as container:
        frame = next(container.decode(video=0))
    tags = (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range)
    assert [int(tag) for tag in tags] == [1, 13, 1, 1]


@pytest.mark.parametrize("height", [192, 720])
def test_stored_planes_are_the_picture_by_the_tagged_matrix(height: int) -> None:
    mp4 = encode_mp4(stripes(height, 192)[None], 10.0)
    with av.open(io.BytesIO(mp4)) as container:
        planes = next(container.decode(video=0)).to_ndarray()
    expected = 16 + 219 * (np.array(COLOURS) / 255.0 @ luma_matrix(BT709)[0])
    assert np.abs(middles(planes[:height, :, None])[:, 0] - expected).max() <= 2
    frames, _ = read_frames(mp4, [0])
    assert np.abs(middles(frames[0]) - COLOURS).max() <= 3


@pytest.mark.parametrize(
    ("height", "matrix", "tag", "full"),
    [
        (192, BT709, BT709, False),
        (192, SMPTE170M, SMPTE170M, False),
        (720, SMPTE170M, SMPTE170M, False),
        (192, SMPTE170M, UNSPECIFIED, False),
        (720, BT709, UNSPECIFIED, False),
        (192, BT709, BT709, True),
    ],
)
def test_videos_are_read_by_their_tag_or_their_height(
    tmp_path: Path, height: int, matrix: int, tag: int, full: bool
) -> None:
    path = tmp_path / "stripes.mp4"
    picture = write_stripes(path, height, matrix=matrix, tag=tag, full=full)
    read = decode_video(path).frames_uint8[0]
    assert np.abs(middles(read) - middles(picture)).max() <= 4


@pytest.mark.parametrize(
    ("height", "matrix", "tag", "full", "short_side_px", "kind"),
    [
        (192, BT709, BT709, False, None, TimedPlanes),
        (720, BT709, UNSPECIFIED, False, None, TimedPlanes),
        (240, BT709, BT709, False, 96, TimedPlanes),
        (240, BT709, BT709, False, 95, TimedFrame),  # an odd side is padded
        (192, BT709, BT709, True, None, TimedFrame),
        (192, SMPTE170M, SMPTE170M, False, None, TimedFrame),
        (192, SMPTE170M, UNSPECIFIED, False, None, TimedFrame),
    ],
)
def test_planes_go_from_file_to_file_only_where_the_colours_stay(
    height: int, matrix: int, tag: int, full: bool, short_side_px: int | None, kind: type,
    tmp_path: Path,
) -> None:  # fmt: skip
    path, again = tmp_path / "stripes.mp4", tmp_path / "again.mp4"
    write_stripes(path, height, matrix=matrix, tag=tag, full=full)
    wanted = FrameSelection(planes=True, short_side_px=short_side_px)
    with ChildFrameStream(path, None, wanted, FrameSelection()) as frames:
        (place, first), (other, rgb) = sorted(frames.pictures(), key=lambda item: item[0])
    assert (place, type(first), other, type(rgb)) == (0, kind, 1, TimedFrame)
    with Mp4Writer(again, 10.0, crf=0) as writer:
        if isinstance(first, TimedPlanes):
            writer.add_planes(first.planes_uint8, 0.0)
        else:
            writer.add(first.frame_uint8, 0.0)
    stored = decode_video(again).frames_uint8[0]
    assert np.abs(middles(stored) - COLOURS).max() <= 5
    with av.open(str(again)) as container:
        frame = next(container.decode(video=0))
    assert [int(frame.colorspace), int(frame.color_range), int(frame.color_trc)] == [1, 1, 13]
    if kind is TimedPlanes and short_side_px is None:
        np.testing.assert_array_equal(stored, rgb.frame_uint8)  # crf 0 loses nothing


def test_clips_stored_before_the_tags_keep_their_colours(tmp_path: Path) -> None:
    path = tmp_path / "old.mp4"
    picture = write_stripes(path, 720, matrix=SMPTE170M, tag=UNSPECIFIED)
    frames, _ = read_frames(path.read_bytes(), [0])
    assert np.abs(middles(frames[0]) - middles(picture)).max() <= 4


def test_matrix_that_cannot_be_converted_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ycgco.mp4"
    write_stripes(path, 192, matrix=BT709, tag=8)
    with pytest.raises(MediaError, match="YCgCo"):
        decode_video(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("i22_phone.heic", "is a HEIC picture, not a video.*swapped"),
        ("i40_p3.jpg", "is a JPEG picture, not a video.*swapped"),
        ("categorical_path.parquet", "is a Parquet file, not a video"),
    ],
)
def test_other_files_are_no_videos(name: str, message: str) -> None:
    with pytest.raises(MediaError, match=message) as caught:
        decode_video(Path(__file__).parents[1] / "data/field" / name)
    assert caught.value.reason == "not_a_video"
