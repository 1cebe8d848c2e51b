"""Write frames as H.264 MP4 files that seek quickly and play everywhere."""

import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float64, UInt8

from animaray.platform.errors import MediaError
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

    The same frames and settings give the same bytes. Odd sides are padded by one pixel.

    Args:
        frames_uint8: RGB frames.
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
    padded = _pad_to_even(frames_uint8)
    height, width = padded.shape[1:3]
    times = np.arange(len(padded)) / fps if pts_s is None else pts_s - pts_s[0]
    with tempfile.TemporaryDirectory(prefix="animaray-encode-") as folder:
        path = Path(folder) / "clip.mp4"
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.time_base = _TIME_BASE
            stream.codec_context.thread_count = 1  # more threads change the bytes
            stream.options = {
                "crf": str(crf), "preset": preset, "g": str(gop), "keyint_min": "1",
                "x264-params": "open-gop=0",
            }  # fmt: skip
            for time_s, rgb in zip(times, padded, strict=True):
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                frame.pts = round(time_s / _TIME_BASE)
                frame.time_base = _TIME_BASE
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path.read_bytes()


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
    frames_uint8: UInt8[np.ndarray, "frames height width 3"],
) -> UInt8[np.ndarray, "frames even_height even_width 3"]:
    height, width = frames_uint8.shape[1:3]
    if height % 2 == 0 and width % 2 == 0:
        return frames_uint8
    return np.pad(frames_uint8, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
