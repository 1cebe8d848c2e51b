"""The one door to video and picture files.

Decoding in this process (own files) and in a bounded child (untrusted files), encoding, pictures.
"""

from animaray.platform.media.bounded_decoding import (
    ChildFrameStream,
    add_sound_in_child,
    decode_in_child,
    probe_in_child,
    read_picture_in_child,
    try_decoding,
)
from animaray.platform.media.displayed_picture import fitted_size
from animaray.platform.media.frame_choice import FrameSelection
from animaray.platform.media.frame_times import measure_rate
from animaray.platform.media.picture import encode_jpeg, read_picture, write_picture
from animaray.platform.media.video_decode import (
    DecodedVideo,
    FrameSource,
    FrameStream,
    StreamEnd,
    TimedFrame,
    TimedPlanes,
    decode_video,
    probe_video,
    put_together,
)
from animaray.platform.media.video_encode import Mp4Writer, encode_mp4, write_mp4
from animaray.platform.media.video_file import DecodeLimits, VideoInfo

__all__ = [
    "ChildFrameStream",
    "DecodeLimits",
    "DecodedVideo",
    "FrameSelection",
    "FrameSource",
    "FrameStream",
    "Mp4Writer",
    "StreamEnd",
    "TimedFrame",
    "TimedPlanes",
    "VideoInfo",
    "add_sound_in_child",
    "decode_in_child",
    "decode_video",
    "encode_jpeg",
    "encode_mp4",
    "fitted_size",
    "measure_rate",
    "probe_in_child",
    "probe_video",
    "put_together",
    "read_picture",
    "read_picture_in_child",
    "try_decoding",
    "write_mp4",
    "write_picture",
]
