"""Read single frames of our own MP4 bytes with decord, the other way beside `video_window`.

The package is `decord2`, the maintained decord; it is optional and slower than PyAV here, see
benchmarks/costs/window_decoders.py. It opens only what we encoded ourselves: nothing confines it.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from animaray.platform.errors import MachineError, MediaError


def read_frames_by_decord(
    video: bytes, indices: Sequence[int]
) -> tuple[UInt8[np.ndarray, "frames height width 3"], Float64[np.ndarray, " frames"]]:
    """Return RGB frames and their times, as `video_window.read_frames` does.

    Args:
        video: Bytes of an MP4 file with closed groups of pictures.
        indices: Frames wanted, in any order; repeats are allowed.

    Raises:
        MachineError: The package is not installed.
        MediaError: The bytes are no video (`reason` broken), or a frame is not in it (missing).
    """
    decord = _decord()
    try:
        reader = decord.VideoReader(io.BytesIO(video), ctx=decord.cpu(0), num_threads=1)
        count = len(reader)
    except (RuntimeError, OSError, decord.DECORDError) as error:
        line = str(error).strip().splitlines()[0]
        raise MediaError(f"The stored video cannot be read: {line}.", reason="broken") from error
    if not indices or not all(0 <= index < count for index in indices):
        raise MediaError(
            f"Expected frames 0 to {count - 1}, got {list(indices)}.", reason="missing"
        )
    # Each frame once, in order: decord seeks anew for every step back.
    unique = sorted(set(indices))
    frames = reader.get_batch(unique).asnumpy()
    times = reader.get_frame_timestamp([0, *unique])[:, 0].astype(np.float64)
    places = [unique.index(index) for index in indices]
    return frames[places], times[1:][places] - times[0]


def _decord() -> Any:  # noqa: ANN401 - an untyped package
    """Return the module.

    Raises:
        MachineError: It is not installed.
    """
    try:
        import decord
    except ImportError as error:
        raise MachineError(
            f"The decoder decord cannot be imported: {error}.",
            fix="pip install decord2, or take the decoder pyav.",
        ) from error
    return decord
