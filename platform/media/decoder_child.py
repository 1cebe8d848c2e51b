"""Decode one untrusted file in a confined process: the program that `bounded_decoding` starts.

Answers are messages: a kind, a length, and so many bytes. I tells what a video is, F is a frame, Y
one as planes of luma and chroma, P a picture, B a piece of sound, D the end and E a failure.
"""

import importlib
import io
import pkgutil
import struct
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms

from animaray.platform.errors import AnimarayError
from animaray.platform.json_text import json_text
from animaray.platform.media.frame_choice import FrameSelection
from animaray.platform.media.picture import picture_formats, read_picture
from animaray.platform.media.sound import copy_sound
from animaray.platform.media.video_decode import FrameStream
from animaray.platform.media.video_file import DecodeLimits
from animaray.platform.sandbox.confinement import (
    allow_only,
    forbid_system_calls,
    limit_resources,
)
from animaray.platform.sandbox.fork_server import serve_forever

HEADER = struct.Struct(">cI")
FRAME = struct.Struct(">BdII")
"""Before a frame's pixels: which selection wants it, its time stamp, rows and width."""
SIZE = struct.Struct(">II")
"""Before a picture's pixels: its height and width."""
MAX_MESSAGE_BYTES = 1 << 20
"""Of all messages but pixels."""
_TINY_GIF = bytes.fromhex(
    "47494638376102000200810000ff00000000000000000000002c0000000002000200000806000108041010003b"
)


def smaller(kind: str) -> str:
    """Return the advice for a picture or video that costs too much."""
    return "Give a smaller picture." if kind == "picture" else "Give a shorter or smaller video."


def _send(output: IO[bytes], kind: bytes, data: bytes) -> None:
    output.write(HEADER.pack(kind, len(data)))
    output.write(data)


def _serve(request: dict[str, Any], output: IO[bytes]) -> None:
    """Decode one file; pixels, sound or one failure go to the output."""
    limits, path = DecodeLimits(**request["limits"]), Path(request["path"])
    name, kind = request.get("picture") or path.name, "picture" if "picture" in request else "video"
    limit_resources(memory_bytes=limits.memory_bytes, cpu_s=limits.cpu_s)
    allow_only(reading=[path])
    forbid_system_calls()
    try:
        if kind == "picture":
            _send_picture(read_picture(path, max_pixels=limits.max_frame_pixels, name=name), output)
        elif "sound" in request:
            _send_sound(request, limits, output)
        else:
            wanted = [FrameSelection(**each) for each in request["selections"]]
            _send_frames(path, wanted, limits, output)
    except AnimarayError as error:
        failure = {"message": error.message, "fix": error.fix, "reason": error.reason}
        _send(output, b"E", json_text(failure).encode())
    except MemoryError:
        message = f"{name} needs more memory than allowed."
        failure = {"message": message, "fix": smaller(kind), "reason": "too_large"}
        _send(output, b"E", json_text(failure).encode())
    except Exception as error:  # noqa: BLE001 - fields of a damaged file may be any nonsense
        message = f"{name} is damaged: {type(error).__name__}: {error}"[:300]
        failure = {"message": message, "fix": "Fetch it again.", "reason": "broken"}
        _send(output, b"E", json_text(failure).encode())
    output.flush()


def _send_frames(
    path: Path, selections: list[FrameSelection], limits: DecodeLimits, output: IO[bytes]
) -> None:
    """Send what a video is, its frames one by one, and how it ended."""
    with FrameStream(path, selections[0], limits, in_child=True) as frames:
        _send(output, b"I", json_text(asdict(frames.info)).encode())
        for place, (pts_s, pixels) in frames.pictures(selections):
            height, width = pixels.shape[:2]
            kind = b"F" if pixels.ndim == 3 else b"Y"
            output.write(HEADER.pack(kind, FRAME.size + pixels.nbytes))
            output.write(FRAME.pack(place, pts_s, height, width))
            output.write(pixels.data)
        _send(output, b"D", json_text(asdict(frames.end)).encode())


def _send_picture(picture: UInt8[np.ndarray, "height width 3"], output: IO[bytes]) -> None:
    output.write(HEADER.pack(b"P", SIZE.size + picture.nbytes))
    output.write(SIZE.pack(*picture.shape[:2]))
    output.write(np.ascontiguousarray(picture).data)


def _send_sound(request: dict[str, Any], limits: DecodeLimits, output: IO[bytes]) -> None:
    """Send the sound of a file in pieces, then an empty message."""
    sound = copy_sound(Path(request["path"]), limits, **request["sound"]) or b""
    for start in range(0, len(sound), MAX_MESSAGE_BYTES):
        _send(output, b"B", sound[start : start + MAX_MESSAGE_BYTES])
    _send(output, b"D", b"")
    output.flush()


def _warm_up() -> None:
    """Decode once and fail once, so that a confined child need not import anything."""
    # PyAV imports what a file's streams need (subtitles, data) when it meets them.
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    # So does Pillow with its readers of formats.
    Image.init()
    for kind in set(picture_formats()) & {"PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF"}:
        buffer = io.BytesIO()
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        Image.new("RGB", (2, 2)).save(buffer, kind, icc_profile=profile)
        read_picture(buffer.getvalue())
    for nothing in (b"", b"RIFF", b"\xff\xd8\xff\xe0damaged", b"\0\0\0\x18ftypheic\0\0\0\0"):
        with suppress(AnimarayError):
            read_picture(nothing)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.gif"
        path.write_bytes(_TINY_GIF)
        with FrameStream(path, FrameSelection(fps=1.0, short_side_px=1)) as frames:
            list(frames)
        for damaged in (_TINY_GIF[:20], b"\0\1\2\3nothing"):
            path.write_bytes(damaged)
            with suppress(AnimarayError), FrameStream(path) as frames:
                list(frames)
        json_text(asdict(DecodeLimits()))


if __name__ == "__main__":
    _warm_up()
    serve_forever(int(sys.argv[1]), _serve)
