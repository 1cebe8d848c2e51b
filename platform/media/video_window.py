"""Read single frames of our own MP4 bytes by index, decoding no more than the span they cover.

Only for media that we encoded ourselves: decoding happens in this process, without limits.
"""

import io
from collections.abc import Sequence

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from jaxtyping import Float64, UInt8

from animaray.platform.errors import MediaError
from animaray.platform.media.video_colour import OWN_UNTAGGED, to_rgb


def read_frames(
    video: bytes, indices: Sequence[int]
) -> tuple[UInt8[np.ndarray, "frames height width 3"], Float64[np.ndarray, " frames"]]:
    """Return RGB frames of an MP4 file and their times, seconds from its first frame.

    The packet index gives every frame's time without decoding, so only the span from the key frame
    before the first wanted frame to the last wanted one is decoded.

    Args:
        video: Bytes of an MP4 file with closed groups of pictures.
        indices: Frames wanted, in any order; repeats are allowed.

    Raises:
        MediaError: The bytes are no video (`reason` broken), or a frame is not in it (missing).
    """
    try:
        with av.open(io.BytesIO(video), mode="r", format="mp4") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            packets = container.demux(stream)
            pts = sorted(packet.pts for packet in packets if packet.pts is not None)
            _check_range(indices, len(pts))
            wanted = {pts[index] for index in indices}
            container.seek(min(wanted), stream=stream, backward=True)
            found = {}
            reformatter = VideoReformatter()
            for frame in container.decode(stream):
                if frame.pts in wanted:
                    found[frame.pts] = to_rgb(reformatter, frame, untagged=OWN_UNTAGGED)
                if len(found) == len(wanted):
                    break
            base = float(stream.time_base)
    except (FFmpegError, IndexError, ValueError) as error:
        raise MediaError(f"The stored video cannot be read: {error}.", reason="broken") from error
    if len(found) < len(wanted):
        raise MediaError(
            f"{len(wanted) - len(found)} of {len(wanted)} frames could not be decoded.",
            reason="broken",
        )
    frames = np.stack([found[pts[index]] for index in indices])
    return frames, np.array([(pts[index] - pts[0]) * base for index in indices])


def _check_range(indices: Sequence[int], count: int) -> None:
    if not indices:
        raise MediaError("Expected at least one frame index, got none.", reason="missing")
    wrong = [index for index in indices if not 0 <= index < count]
    if wrong:
        raise MediaError(f"Expected frames 0 to {count - 1}, got {wrong[0]}.", reason="missing")
