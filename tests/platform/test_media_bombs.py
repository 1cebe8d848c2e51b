"""Small files that ask for much: each ends with a reason, in little memory and time.

Lies about sizes and counts, compressed
indexes, repeated edits, time stamps years apart, lines for pictures, streams without end.
"""

import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from animaray.pipelines.stages.clips import ClipsConfig, split_clips
from animaray.pipelines.stages.cut_clip import CutClipConfig, preview_selections
from animaray.pipelines.stages.shot_detection import ShotsConfig
from animaray.pipelines.stages.shots import find_shots
from animaray.platform.errors import MediaError
from animaray.platform.media import bounded_decoding
from animaray.platform.media.frame_choice import choose_frames
from animaray.platform.media.video import DecodeLimits, decode_in_child

LIMITS = DecodeLimits(
    cpu_s=5.0, timeout_s=20.0, max_frames=2000, memory_bytes=1536 * 1024**2,
    max_decoded_pixels=200_000_000, max_returned_bytes=64 * 1024**2,
)  # fmt: skip
MAX_RESIDENT = 500 * 1024**2


def mp4(path: Path, *, container: str = "mp4", frames: int = 6, gap: int = 1) -> bytearray:
    """Return a small video without B frames whose index stands at its end."""
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        for number in range(frames):
            picture = np.full((48, 64, 3), 20 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture)
            frame.pts = number * gap
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return bytearray(path.read_bytes())


def box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def replaced(data: bytearray, old_kind: bytes, new: bytes) -> bytearray:
    """Replace a box of a track, and lengthen the boxes around it: the index stands last."""
    start = data.index(old_kind) - 4
    (length,) = struct.unpack_from(">I", data, start)
    grown = len(new) - length
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"):
        place = data.find(kind) - 4
        if place < 0:
            continue
        (size,) = struct.unpack_from(">I", data, place)
        if place < start < place + size:
            struct.pack_into(">I", data, place, size + grown)
    return data[:start] + new + data[start + length :]


def edits_without_end(path: Path) -> bytearray:
    edits = [struct.pack(">IiI", 600, 0, 0x10000)] * 50_000
    new = box(b"elst", struct.pack(">II", 0, len(edits)), *edits)
    return replaced(mp4(path), b"elst", new)


def countless_samples(path: Path) -> bytearray:
    return replaced(mp4(path), b"stsz", box(b"stsz", struct.pack(">III", 0, 1, 0xFFFFFFF0)))


def countless_times(path: Path) -> bytearray:
    entries = struct.pack(">II", 0, 0x0FFFFFFF) + struct.pack(">II", 0xFFFFFFFF, 1) * 4
    return replaced(mp4(path), b"stts", box(b"stts", entries))


def countless_chunks(path: Path) -> bytearray:
    entries = struct.pack(">II", 0, 1) + struct.pack(">III", 1, 0xFFFFFFFF, 1)
    return replaced(mp4(path), b"stsc", box(b"stsc", entries))


def no_time_scale(path: Path) -> bytearray:
    data = mp4(path)
    struct.pack_into(">I", data, data.index(b"mdhd") + 16, 0)
    return data


def deflated_zeros(mebibytes: int) -> bytes:
    """Return a zlib stream of zeros without making them."""
    packer = zlib.compressobj(9)
    head = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush nothing refers to what was before: the block may stand there again.
    checksum = (mebibytes * 2**20 % 65521) << 16 | 1
    return head[:2] + head[2:] * mebibytes + b"\x03\x00" + struct.pack(">I", checksum)


def compressed_index(path: Path) -> bytearray:
    """Make an index of less than a megabyte that becomes 700."""
    data = mp4(path)
    size = struct.pack(">I", 700 * 2**20)
    index = box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", size, deflated_zeros(700)))
    return data[: data.index(b"moov") - 4] + box(b"moov", index)


def a_thousand_streams(path: Path) -> bytearray:
    data = mp4(path)
    start = data.index(b"trak") - 4
    (length,) = struct.unpack_from(">I", data, start)
    track = bytes(data[start : start + length])
    place = data.index(b"moov") - 4
    (size,) = struct.unpack_from(">I", data, place)
    struct.pack_into(">I", data, place, size + 1000 * length)
    return data[: start + length] + track * 1000 + data[start + length :]


def gif(width: int, height: int, frames: int) -> bytearray:
    """Return a GIF whose every picture changes one pixel."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    one = (
        b"!\xf9\x04\0\x01\0\0\0" + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02D\x01\0"
    )
    return bytearray(head + one * frames + b";")


def line(_: Path) -> bytearray:
    return gif(65_535, 100, 300)


def picture_of_nothing(_: Path) -> bytearray:
    return gif(65_535, 65_535, 2)


def one_pixel_at_a_time(_: Path) -> bytearray:
    return gif(3000, 3000, 5000)


def endless_index(path: Path) -> bytearray:
    data = mp4(path, container="avi")
    place = data.index(b"idx1")
    struct.pack_into("<I", data, place + 4, 0xFFFFFFF0)
    return data


BOMBS: dict[str, tuple[Callable[[Path], bytearray], str]] = {
    "edits.mp4": (edits_without_end, ""),
    "samples.mp4": (countless_samples, ""),
    "times.mp4": (countless_times, ""),
    "chunks.mp4": (countless_chunks, ""),
    "scale.mp4": (no_time_scale, ""),
    "packed.mov": (compressed_index, "no_picture broken too_large"),
    "streams.mp4": (a_thousand_streams, ""),
    "line.gif": (line, "too_large"),
    "nothing.gif": (picture_of_nothing, "too_large broken truncated"),
    "pixels.gif": (one_pixel_at_a_time, "too_large"),
    "index.avi": (endless_index, ""),
}
"""Maker and reasons that are right; none where frames are right, too."""


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_ends_with_a_reason_and_costs_little(name: str, tmp_path: Path) -> None:
    make, reasons = BOMBS[name]
    path = tmp_path / name
    path.write_bytes(make(path))
    assert path.stat().st_size < 2_000_000
    bounded_decoding._DECODERS.peak_memory_bytes = 0
    started = time.process_time()
    reason = "frames"
    try:
        found = decode_in_child(path, LIMITS, short_side_px=48)
        assert len(found.frames_uint8) <= LIMITS.max_frames
    except MediaError as error:
        reason = str(error.reason)
    assert reason in (reasons or "frames broken too_large truncated").split()
    limit = LIMITS.memory_bytes if name == "packed.mov" else MAX_RESIDENT
    assert bounded_decoding.decoder_peak_memory_bytes() < limit
    assert time.process_time() - started < 5.0


def test_zeros_are_deflated_right() -> None:
    assert zlib.decompress(deflated_zeros(3)) == bytes(3 * 2**20)


def test_years_between_two_frames_make_no_clips_without_end(tmp_path: Path) -> None:
    path = tmp_path / "years.mkv"
    mp4(path, container="matroska", gap=10 * 86_400 * 365 * 20)
    with pytest.raises(MediaError) as caught:
        decode_in_child(path, LIMITS, fps=30.0)
    assert caught.value.reason == "too_large"
    row = {"path": str(path), "state": None, "fps": 10.0, "sha256": "0"}
    found = find_shots(row, ShotsConfig(), LIMITS)
    assert found["shots"][-1]["end_s"] > 86_400 * 365
    clips = split_clips(found, ClipsConfig())
    assert len(clips) == ClipsConfig().max_clips_per_source


def test_ten_thousand_frames_a_second_make_no_preview_without_end() -> None:
    preview, poster = preview_selections({"clip_start_s": 0.0, "clip_end_s": 20.0}, CutClipConfig())
    frames = iter([(index / 10_000, index) for index in range(200_000)])
    assert len(list(choose_frames(frames, preview))) < 500
    assert poster.max_frames == 1


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:

    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    sparse = tmp_path / "sparse.mp4"
    with sparse.open("wb") as file:
        file.truncate(5 * 2**40)
    for name, reason in (
        ("pipe.mp4", "missing"),
        ("zero.mp4", "missing"),
        ("sparse.mp4", "too_large"),
    ):
        with pytest.raises(MediaError) as caught:
            decode_in_child(tmp_path / name, LIMITS)
        assert caught.value.reason == reason, name
