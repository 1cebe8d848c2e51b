"""Open local video files and say what they declare, or why they cannot be used.

Only common containers and codecs of local files are opened; declared sizes are checked here, and
animaray.platform.media.video_decode checks what is really decoded.
"""

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import av
from av.error import FFmpegError

from animaray.platform.errors import MediaError
from animaray.platform.media.displayed_picture import Presentation
from animaray.platform.media.file_kind import HEAD_BYTES, VIDEO_FORMATS, recognise

_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,flv,mpeg,asf,ogg"
_CODECS = frozenset({
    "h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg4", "mpeg2video", "mpeg1video",
    "mjpeg", "gif", "prores",
})  # fmt: skip
_OLD_CODECS = frozenset({
    "h263", "h263p", "flv", "vp6", "vp6f", "theora", "wmv1", "wmv2", "wmv3", "vc1",
    "msmpeg4v1", "msmpeg4v2", "msmpeg4", "dvvideo",
})  # fmt: skip
"""Decoders that few people test any more: only the bounded child runs them."""
_ACCEPTED = "mp4, mov, mkv, webm, avi, gif, ts, mts, mpg, vob, wmv, ogv, flv, 3gp"
_OPEN_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
_CONTAINER_BOXES = frozenset({
    b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"sidx", b"styp", b"uuid",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """What a video file declares, after the first picture was really decoded."""

    width: int
    """Width of the upright picture, pixels."""
    height: int
    """Height of the upright picture, pixels."""
    fps: float
    """Frame rate that the container declares, frames per second; 0 where it tells none."""
    num_frames_declared: int | None
    """Frame count of the container's index; None where it has none."""
    duration_s: float
    """Length of the picture stream (not of the sound), seconds."""
    codec: str
    """Codec name, as in "h264"."""
    rotation_deg: int
    """Clockwise turn that makes the stored picture upright: 0, 90, 180 or 270; already applied."""
    is_mirrored: bool
    """Whether left and right of the stored picture are swapped before the turn; applied, too."""
    start_s: float
    """Time stamp of the first picture, seconds."""
    pixel_aspect: float
    """Width of one stored pixel divided by its height; 1.0 is square. Already applied."""
    tick_s: float
    """What time stamps are rounded to, seconds."""
    has_audio: bool
    """True when there is a sound stream."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeLimits:
    """What one file may cost; the defaults fit people's videos and stop decompression bombs."""

    max_file_bytes: int = 4 * 1024**3
    """Largest file that is opened at all, bytes."""
    max_frame_pixels: int = 4096 * 2304
    """Largest picture, pixels, as declared and as decoded."""
    max_aspect: float = 10.0
    """Largest ratio of a picture's long side to its short one: what is shrunk to a short side must
    not stay large."""
    max_frames: int = 200_000
    """Most frames that are decoded, counting frames that are not returned."""
    max_decoded_pixels: int = 250_000_000_000
    """Most pixels over all decoded frames."""
    max_returned_bytes: int = 6 * 1024**3
    """Most bytes of RGB frames handed back, over the whole call."""
    timeout_s: float = 600.0
    """Longest time that the parent waits for one child, over the whole file, seconds; the time that
    it spends on the frames does not count."""
    cpu_s: float = 300.0
    """Processor time of the child process, seconds."""
    memory_bytes: int = 3 * 1024**3
    """Address space of the child process, bytes."""


def open_video(path: Path, limits: DecodeLimits, *, in_child: bool = False) -> tuple[Any, Any]:
    """Open a file and pick its picture stream.

    Args:
        limits: What it may cost.
        in_child: Whether this is the bounded child, which may run old decoders, too.

    Raises:
        MediaError: The file cannot be used; the message and `reason` say why.
    """
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise MediaError(
            f"Expected a video at {path}, got nothing there ({error.strerror}).", reason="missing"
        ) from error
    if not path.is_file():
        raise MediaError(f"Expected a video file at {path}, got a folder.", reason="missing")
    if size_bytes == 0:
        raise MediaError(f"{path.name} is an empty file.", fix="Fetch it again.", reason="empty")
    if size_bytes > limits.max_file_bytes:
        refuse_too_large(path, f"{size_bytes} bytes", "a smaller file")
    _refuse_other_kinds(path)
    try:
        container = av.open(
            f"file:{path.resolve()}", mode="r", options=_OPEN_OPTIONS, metadata_errors="replace"
        )
    except (FFmpegError, ValueError) as error:
        refuse_no_memory(path, error)
        _refuse_unopened(path)
    try:
        stream = _pick_stream(
            path, container, limits, _CODECS | (_OLD_CODECS if in_child else set())
        )
    except MediaError:
        container.close()
        raise
    # Workers share the cores; a second thread costs a tenth to a half more processor time.
    stream.codec_context.thread_count = 1
    stream.codec_context.copy_opaque = True  # frames know their packets
    return container, stream


def _pick_stream(
    path: Path,
    container: Any,  # noqa: ANN401 - av.container.InputContainer
    limits: DecodeLimits,
    codecs: Set[str],
) -> Any:  # noqa: ANN401 - av.VideoStream
    # Cover art is a picture stream too; of several videos the container's default is taken.
    streams = [s for s in container.streams.video if "attached_pic" not in str(s.disposition)]
    streams.sort(key=lambda stream: "default" not in str(stream.disposition))
    if not streams or streams[0].codec_context is None:
        raise MediaError(f"{path.name} has no picture stream.", reason="no_picture")
    stream = streams[0]
    if stream.codec_context.name not in codecs:
        raise MediaError(
            f"{path.name} uses the codec {stream.codec_context.name}, which is not accepted here.",
            fix=f"Convert it to H.264: ffmpeg -i {path.name} -c:v libx264 {path.stem}.h264.mp4",
            reason="not_a_video",
        )
    check_picture_size(path, stream.width or 0, stream.height or 0, limits)
    return stream


def check_picture_size(path: Path, width: int, height: int, limits: DecodeLimits) -> None:
    """Refuse a declared or decoded picture that is too large, or a line."""
    if width * height > limits.max_frame_pixels:
        refuse_too_large(path, f"{width}x{height} pixels a frame", "a smaller picture")
    if max(width, height) > limits.max_aspect * min(width, height) > 0:
        refuse_too_large(
            path, f"a picture of {width}x{height} pixels", "a picture of a common shape"
        )


def _refuse_other_kinds(path: Path) -> None:
    """Refuse what is no video; FFmpeg would open some pictures as one of a single frame.

    Raises:
        MediaError: It is something else.
    """
    with path.open("rb") as file:
        kind = recognise(file.read(HEAD_BYTES))
    if kind is None or kind.name in VIDEO_FORMATS:
        return
    is_swapped = kind.family == "picture"
    raise MediaError(
        f"{path.name} is {kind.described}, not a video of an accepted format ({_ACCEPTED}).",
        fix="Give a video file." + (" Were picture and video swapped?" if is_swapped else ""),
        reason="not_a_video",
    )


def _refuse_unopened(path: Path) -> NoReturn:
    with path.open("rb") as file:
        head = file.read(16)
    if head[4:8] in _CONTAINER_BOXES and not _has_index(path):
        raise MediaError(
            f"{path.name} is cut off: an MP4 file whose index (moov) is missing.",
            fix="Fetch or export it again.",
            reason="truncated",
        )
    if head[4:8] in _CONTAINER_BOXES or head[:4] in {b"\x1aE\xdf\xa3", b"RIFF", b"GIF8"}:
        raise MediaError(f"{path.name} is a damaged video file.", reason="broken")
    raise MediaError(
        f"{path.name} is not a video of an accepted format ({_ACCEPTED}).",
        fix="Give a video file.",
        reason="not_a_video",
    )


def _has_index(path: Path) -> bool:
    """Walk the boxes of an MP4 file in search of its index."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        offset = 0
        while offset + 8 <= size_bytes:
            file.seek(offset)
            header = file.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if kind in {b"moov", b"moof"}:
                return offset + length <= size_bytes
            if length == 1 and len(header) == 16:
                length = int.from_bytes(header[8:16], "big")
            if length < 8:
                return False
            offset += length
    return False


def make_info(container: Any, stream: Any, shown: Presentation, start_s: float) -> VideoInfo:  # noqa: ANN401
    """Describe an open video.

    Args:
        shown: How the first decoded picture is shown.
        start_s: When, seconds.
    """
    width, height = shown.size
    if stream.duration:
        duration_s = float(stream.duration * stream.time_base)
    elif container.duration:
        duration_s = max(0.0, container.duration / av.time_base - start_s)
    else:
        duration_s = 0.0
    return VideoInfo(
        width=width,
        height=height,
        fps=declared_rate(stream),
        num_frames_declared=int(stream.frames) or None,
        duration_s=duration_s,
        codec={"libdav1d": "av1"}.get(stream.codec_context.name, stream.codec_context.name),
        rotation_deg=shown.orientation.rotation_deg,
        is_mirrored=shown.orientation.mirrored,
        start_s=start_s,
        pixel_aspect=float(shown.pixel_aspect),
        tick_s=float(stream.time_base),
        has_audio=bool(container.streams.audio),
    )


def declared_rate(stream: Any) -> float:  # noqa: ANN401 - av.VideoStream
    """Return the frame rate that a container declares, frames per second; 0 for none."""
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return float(rate) if rate else 0.0


def refuse_no_memory(path: Path, error: Exception) -> None:
    """Refuse a file whose decoding asked for more memory than there is; other errors pass by."""
    if isinstance(error, MemoryError):
        refuse_too_large(path, "it needs more memory than allowed", "a smaller video")


def refuse_too_large(path: Path, got: str, remedy: str) -> NoReturn:
    """Refuse a file that passes a limit.

    Raises:
        MediaError: Always; `reason` is too_large.
    """
    raise MediaError(
        f"{path.name} is over the limit: {got}.", fix=f"Give {remedy}.", reason="too_large"
    )
