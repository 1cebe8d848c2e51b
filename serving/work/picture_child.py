"""Decode an untrusted picture in a bounded child process.

Run as a program it reads one picture and writes its pixels; the parent starts it with limits on
memory, processor time, files and written bytes, and gets pixels or a MediaError, whatever happens.
"""

import json
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from animaray.platform.errors import AnimarayError, MediaError
from animaray.platform.json_text import json_text
from animaray.platform.media.picture import read_picture
from animaray.serving.jobs.limits import ServingLimits

_SIZE = struct.Struct(">II")


def read_picture_in_child(path: Path, limits: ServingLimits) -> UInt8[np.ndarray, "height width 3"]:
    """Read an untrusted picture as upright RGB.

    Args:
        path: The stored upload.
        limits: Caps on pixels, memory and seconds.

    Raises:
        MediaError: The picture cannot be used; reason as in `read_picture`, "too_large" when it
            passes a limit, or "broken" when it breaks the decoder.
    """
    environment = {
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    request = {
        "path": str(path),
        "max_pixels": limits.max_picture_pixels,
        "memory_bytes": limits.decode_memory_bytes,
        "decode_s": limits.decode_s,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "animaray.serving.work.picture_child"],
            input=json_text(request).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            timeout=limits.decode_s,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise MediaError(
            f"The reference picture took longer than {limits.decode_s:g} s to decode.",
            fix="Send a smaller picture.",
            reason="too_large",
        ) from error
    kind, body = done.stdout[:1], done.stdout[1:]
    if kind == b"E":
        failure = json.loads(body)
        raise MediaError(failure["message"], fix=failure["fix"], reason=failure["reason"])
    if kind == b"P" and len(body) >= _SIZE.size:
        height, width = _SIZE.unpack_from(body)
        if len(body) == _SIZE.size + height * width * 3:
            pixels = np.frombuffer(body, dtype=np.uint8, offset=_SIZE.size)
            return pixels.reshape(height, width, 3)
    raise MediaError(
        f"The decoder of the reference picture died (exit code {done.returncode}): the file is"
        " damaged or needs more memory than allowed.",
        fix="Save the picture anew, or send another one.",
        reason="broken",
    )


def _confine(memory_bytes: int, decode_s: float) -> None:
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, int(decode_s) + 1),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def _fail(message: str, fix: str | None, reason: str | None) -> None:
    failure = {"message": message, "fix": fix, "reason": reason}
    sys.stdout.buffer.write(b"E" + json_text(failure).encode())


def _main() -> int:
    """Serve one request from standard input."""
    request = json.loads(sys.stdin.buffer.read())
    _confine(request["memory_bytes"], request["decode_s"])
    try:
        picture = read_picture(Path(request["path"]), max_pixels=request["max_pixels"])
    except AnimarayError as error:
        _fail(
            error.message.replace(Path(request["path"]).name, "The picture"),
            error.fix,
            error.reason,
        )
        return 0
    except MemoryError:
        _fail("The picture needs more memory than allowed.", "Send a smaller one.", "too_large")
        return 0
    height, width = picture.shape[:2]
    sys.stdout.buffer.write(b"P" + _SIZE.pack(height, width))
    sys.stdout.buffer.write(np.ascontiguousarray(picture).data)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(_main())
