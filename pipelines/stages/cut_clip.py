"""Write a clip's video, preview and poster into the staging folder.

Reads: path, file_name, clip_id, clip_start_s, clip_end_s, frame_rate_fps, is_variable_fps,
has_plain_clock, staging_dir. Adds: media_path, preview_path, poster_path, clip_width, clip_height,
clip_fps, clip_num_frames, clip_duration_s, clip_damaged_share, clip_combed_share. Drops: nothing.
This is the only full-size decoding of the untrusted source. Every later stage looks at the file
written here, so what is measured is what is stored, frame by frame.
"""

import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from animaray.platform.errors import MediaError
from animaray.platform.media.video import (
    ChildFrameStream,
    DecodeLimits,
    FrameSelection,
    Mp4Writer,
    StreamEnd,
    TimedFrame,
    TimedPlanes,
    encode_jpeg,
    encode_mp4,
    fitted_size,
    try_decoding,
)
from animaray.platform.storage import write_bytes_atomic

READS = (
    "path", "file_name", "clip_id", "clip_start_s", "clip_end_s", "frame_rate_fps",
    "is_variable_fps", "has_plain_clock", "staging_dir",
)  # fmt: skip
ADDS = (
    "media_path", "preview_path", "poster_path", "clip_width", "clip_height", "clip_fps",
    "clip_num_frames", "clip_duration_s", "clip_damaged_share", "clip_combed_share",
)  # fmt: skip
DROPS: tuple[str, ...] = ()

_MAX_PREVIEW_FRAMES = 480


@dataclass(frozen=True, kw_only=True, slots=True)
class CutClipConfig:
    """How clips are stored."""

    max_short_side_px: int = 720
    """Larger pictures are shrunk to this short side."""
    crf: int = 20
    """Quality of the stored clip; with `fast` as near to the source as 17 with `veryfast`, for a
    tenth to a quarter fewer bytes and twice the time (docs/lab_log.md)."""
    gop: int = 30
    """Most frames between key frames: what a random window has to decode."""
    preset: str = "fast"
    """Speed setting of x264; only clips that a policy may keep are encoded."""
    preview_s: float = 4.0
    """Length of the preview, seconds from the clip's middle."""
    preview_short_side_px: int = 192
    """Size of the preview."""
    poster_short_side_px: int = 320
    """Size of the poster."""


def cut_clip(row: dict[str, Any], config: CutClipConfig, limits: DecodeLimits) -> dict[str, Any]:
    """Decode one clip of the source in a child process and write its three files.

    Raises:
        MediaError: The span holds fewer than two frames.
    """
    staging = Path(row["staging_dir"])
    staging.mkdir(parents=True, exist_ok=True)
    media = (staging / row["clip_id"]).with_suffix(".mp4")
    # A name of its own for each try: another one may still be running on a lost worker.
    partial = media.with_suffix(f".{secrets.token_hex(4)}.part.mp4")
    try:
        written = try_decoding(lambda: _write_clip(row, partial, config, limits))
        partial.replace(media)
    finally:
        partial.unlink(missing_ok=True)
    fps, times = row["frame_rate_fps"], written.times_s
    width, height = written.size
    return {
        **row,
        "media_path": str(media),
        **write_preview(row, np.stack(written.preview), written.poster),
        # Odd sides were padded by one pixel.
        "clip_width": width + width % 2,
        "clip_height": height + height % 2,
        "clip_fps": fps,
        "clip_num_frames": len(times),
        "clip_duration_s": times[-1] + 1.0 / fps,
        "clip_damaged_share": written.end.num_corrupt / len(times),
        "clip_combed_share": written.end.combed_share,
    }


def stored_size(width: int, height: int, config: CutClipConfig) -> tuple[int, int]:
    """Return the size of the stored clip of a source; odd sides are padded by one pixel."""
    width, height = fitted_size(width, height, config.max_short_side_px)
    return width + width % 2, height + height % 2


def preview_selections(row: dict[str, Any], config: CutClipConfig) -> tuple[FrameSelection, ...]:
    """Return which frames of a clip show it to people: of the preview, then the poster.

    Args:
        row: With clip_start_s and clip_end_s.
    """
    middle_s = (row["clip_end_s"] - row["clip_start_s"]) / 2
    half_s = config.preview_s / 2
    preview = FrameSelection(
        start_s=max(0.0, middle_s - half_s),
        end_s=middle_s + half_s,
        short_side_px=config.preview_short_side_px,
        max_frames=_MAX_PREVIEW_FRAMES,
    )
    poster = FrameSelection(
        start_s=middle_s, max_frames=1, short_side_px=config.poster_short_side_px
    )
    return preview, poster


def of_source(row: dict[str, Any], selection: FrameSelection) -> FrameSelection:
    """Return a selection of a clip, its times from the clip's start, as one of the source.

    Args:
        row: With clip_start_s, clip_end_s and has_plain_clock.
    """
    start_s, end_s = row["clip_start_s"], row["clip_end_s"]
    return replace(
        selection,
        start_s=start_s + selection.start_s,
        end_s=end_s if selection.end_s is None else min(end_s, start_s + selection.end_s),
        seeks=row["has_plain_clock"],
    )


def write_preview(
    row: dict[str, Any],
    frames: UInt8[np.ndarray, "frames height width 3"],
    poster: UInt8[np.ndarray, "poster_height poster_width 3"],
) -> dict[str, str]:
    """Write the small video and the picture of a clip; return their columns.

    Args:
        row: With staging_dir, clip_id and frame_rate_fps.
        frames: Small RGB frames around the clip's middle.
        poster: Its middle one.
    """
    stem = Path(row["staging_dir"]) / row["clip_id"]
    stem.parent.mkdir(parents=True, exist_ok=True)
    small, picture = stem.with_suffix(".small.mp4"), stem.with_suffix(".jpg")
    write_bytes_atomic(picture, encode_jpeg(poster))
    write_bytes_atomic(small, encode_mp4(frames, row["frame_rate_fps"], crf=28, gop=250))
    return {"preview_path": str(small), "poster_path": str(picture)}


@dataclass(frozen=True, slots=True)
class _Written:
    """What was seen while a clip was written."""

    times_s: list[float]
    """As written, from 0."""
    size: tuple[int, int]
    end: StreamEnd
    preview: list[UInt8[np.ndarray, "height width 3"]]
    poster: UInt8[np.ndarray, "poster_height poster_width 3"]


def _write_clip(
    row: dict[str, Any], path: Path, config: CutClipConfig, limits: DecodeLimits
) -> _Written:
    """Decode a clip and write its video.

    Raises:
        MediaError: The span holds fewer than two frames.
    """
    fps = row["frame_rate_fps"]
    small = preview_selections(row, config)
    # Where nothing is seen in the clip's middle it begins with something.
    first = FrameSelection(max_frames=1, short_side_px=config.poster_short_side_px)
    whole = FrameSelection(short_side_px=config.max_short_side_px, planes=True)
    selections = [of_source(row, each) for each in (whole, *small, first)]
    shown: list[list[UInt8[np.ndarray, "height width 3"]]] = [[], [], []]
    times: list[float] = []
    origin_s, size = 0.0, (0, 0)
    with (
        ChildFrameStream(row["path"], limits, *selections) as frames,
        Mp4Writer(path, fps, crf=config.crf, gop=config.gop, preset=config.preset) as writer,
    ):
        for place, picture in frames.pictures():
            if place > 0 and isinstance(picture, TimedFrame):
                shown[place - 1].append(picture.frame_uint8)
                continue
            origin_s = origin_s if times else picture.pts_s
            time_s = picture.pts_s - origin_s
            if not row["is_variable_fps"] and times:
                # Exact steps, and a gap stays one: closing it would make people jump.
                time_s = max(round(times[-1] * fps) + 1, round(time_s * fps)) / fps
            size = _add(writer, picture, time_s)
            times.append(time_s)
    if len(times) < 2:
        raise MediaError(
            f"{row['file_name']} gives {len(times)} frames between {row['clip_start_s']:.2f} s and "
            f"{row['clip_end_s']:.2f} s, expected at least 2.",
            reason="broken",
        )
    preview, poster, begin = shown
    return _Written(times, size, frames.end, preview or begin, (poster or begin)[0])


def _add(writer: Mp4Writer, picture: TimedFrame | TimedPlanes, time_s: float) -> tuple[int, int]:
    """Encode one frame; return its width and height."""
    if isinstance(picture, TimedPlanes):
        writer.add_planes(picture.planes_uint8, time_s)
        rows, width = picture.planes_uint8.shape
        return width, rows * 2 // 3
    writer.add(picture.frame_uint8, time_s)
    height, width = picture.frame_uint8.shape[:2]
    return width, height


def shrink(
    frame: UInt8[np.ndarray, "height width 3"], short_side_px: int
) -> UInt8[np.ndarray, "small_height small_width 3"]:
    """Return a frame averaged down to a short side in pixels; never enlarged."""
    height, width = frame.shape[:2]
    scale = short_side_px / min(height, width)
    if scale >= 1.0:
        return frame
    size = (max(2, round(width * scale)), max(2, round(height * scale)))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
