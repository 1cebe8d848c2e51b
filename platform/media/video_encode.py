"""Write frames as H.264 MP4 files that seek quickly and play everywhere."""

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import Float64, UInt8

from animaray.platform.disk import disk_errors
from animaray.platform.errors import MediaError
from animaray.platform.media.video_colour import tag_frame, tag_stream, to_yuv
from animaray.platform.storage import write_bytes_atomic

_TIME_BASE = Fraction(1, 90_000)


def encode_mp4(
    frames_uint8: UInt8[np.ndarray, "frames height width 3"],
    fps: float,
    *,
    crf: int = 17,
    gop: int = 30,
    preset: str = "veryfast",
    pts_s: Float64[np.ndarray, " frames"] | None = None,
) -> bytes:
    """Encode RGB frames as H.264 4:2:0 with closed groups of pictures and the index first.

    One thread encodes, so that bytes do not depend on the machine's load. Odd sides are padded by
    one pixel. Colours are BT.709 and tagged so; see animaray.platform.media.video_colour.

    Args:
        frames_uint8: RGB frames, sRGB.
        fps: Frame rate, frames per second.
        crf: Constant quality of x264; smaller is better, 17 is visually lossless.
        gop: Most frames from one key frame to the next.
        preset: Speed setting of x264.
        pts_s: True time stamps for a variable frame rate, seconds; None spaces frames by fps.

    Raises:
        MediaError: There is no frame, or fps is not positive.
    """
    if len(frames_uint8) == 0 or fps <= 0:
        raise MediaError(
            f"Expected frames and a positive rate, got {len(frames_uint8)} frames at {fps} fps.",
            reason="empty",
        )
    times = np.arange(len(frames_uint8)) / fps if pts_s is None else pts_s
    with (
        tempfile.TemporaryDirectory(prefix="animaray-encode-") as folder,
        disk_errors(Path(folder)),
    ):
        path = Path(folder) / "clip.mp4"
        with Mp4Writer(path, fps, crf=crf, gop=gop, preset=preset) as writer:
            for time_s, rgb in zip(times, frames_uint8, strict=True):
                writer.add(rgb, float(time_s))
        return path.read_bytes()


class Mp4Writer:
    """Encode frames one by one into an MP4 file; settings as in `encode_mp4`.

    The file is complete once the `with` block has ended without an error.
    """

    def __init__(
        self,
        path: Path,
        fps: float,
        *,
        crf: int = 17,
        gop: int = 30,
        preset: str = "veryfast",
    ) -> None:
        self._container = av.open(str(path), "w", options={"movflags": "+faststart"})
        self._rate = Fraction(fps).limit_denominator(1001)
        self._options = {
            "crf": str(crf), "preset": preset, "g": str(gop), "keyint_min": "1",
            # Without cpu-independent, AVX-512 code makes equal frames unequal bytes: 6 of 40 runs.
            "x264-params": "open-gop=0:cpu-independent=1",
        }  # fmt: skip
        self._stream: Any = None
        self._reformatter = VideoReformatter()
        self._origin_s = 0.0
        self.num_frames = 0

    def __enter__(self) -> "Mp4Writer":
        """Return the writer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Flush the encoder and close the file."""
        if kind is None and self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def add(self, frame_uint8: UInt8[np.ndarray, "height width 3"], pts_s: float) -> None:
        """Encode one RGB frame; time stamps must grow, the first becomes 0."""
        rgb = av.VideoFrame.from_ndarray(_pad_to_even(frame_uint8), format="rgb24")
        self._encode(to_yuv(self._reformatter, rgb), pts_s)

    def add_planes(self, planes_uint8: UInt8[np.ndarray, "rows width"], pts_s: float) -> None:
        """Encode one frame that is as we store it already; see `TimedPlanes`."""
        self._encode(tag_frame(av.VideoFrame.from_ndarray(planes_uint8, format="yuv420p")), pts_s)

    def _encode(self, frame: Any, pts_s: float) -> None:  # noqa: ANN401 - av.VideoFrame
        if self._stream is None:
            self._origin_s = pts_s
            self._stream = self._open_stream(frame.width, frame.height)
        _fill_line_ends(frame)
        frame.pts = round((pts_s - self._origin_s) / _TIME_BASE)
        frame.time_base = _TIME_BASE
        self._container.mux(self._stream.encode(frame))
        self.num_frames += 1

    def _open_stream(self, width: int, height: int) -> Any:  # noqa: ANN401 - av.VideoStream
        stream = self._container.add_stream("libx264", rate=self._rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        stream.codec_context.thread_count = 1  # more threads change the bytes
        tag_stream(stream.codec_context)
        stream.options = self._options
        return stream


def write_mp4(
    path: Path | str,
    frames_uint8: UInt8[np.ndarray, "frames height width 3"],
    fps: float,
    *,
    crf: int = 17,
    gop: int = 30,
) -> None:
    """Write an MP4 file atomically; arguments and errors as in `encode_mp4`."""
    write_bytes_atomic(Path(path), encode_mp4(frames_uint8, fps, crf=crf, gop=gop))


def _pad_to_even(
    frame_uint8: UInt8[np.ndarray, "height width 3"],
) -> UInt8[np.ndarray, "even_height even_width 3"]:
    height, width = frame_uint8.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return frame_uint8
    return np.pad(frame_uint8, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _fill_line_ends(frame: Any) -> None:  # noqa: ANN401 - av.VideoFrame
    """Repeat the last pixel of each line in the memory behind it.

    The encoder looks there when the width is no multiple of its blocks, and what the memory held
    before would change the file's bytes from run to run.
    """
    for plane in frame.planes:
        lines = np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)
        lines[:, plane.width :] = lines[:, plane.width - 1 : plane.width]
