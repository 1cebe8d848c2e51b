"""A decoder that dies is tried again, and a file that kills every decoder is given up."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from animaray.platform.errors import DecoderDiedError, MediaError
from animaray.platform.media import bounded_decoding
from animaray.platform.media.video import (
    ChildFrameStream,
    DecodeLimits,
    probe_in_child,
    try_decoding,
    write_mp4,
)
from animaray.platform.sandbox import fork_server


class Decoding:
    """Decode a video whose decoder is killed at the first few tries."""

    def __init__(self, path: Path, num_kills: int) -> None:
        self.path, self.num_kills, self.num_tries = path, num_kills, 0

    def __call__(self) -> int:
        self.num_tries += 1
        with ChildFrameStream(self.path) as frames:
            if self.num_tries <= self.num_kills:
                os.kill(decoder_pid(), signal.SIGKILL)
            return sum(1 for _ in frames)


def decoder_pid() -> int:
    server = bounded_decoding._DECODERS._process
    assert server is not None
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    (pid,) = (int(word) for word in children.split())
    return pid


@pytest.fixture
def long_video(tmp_path: Path) -> Path:
    frames = np.random.default_rng(0).integers(0, 256, (60, 240, 320, 3), dtype=np.uint8)
    write_mp4(tmp_path / "long.mp4", frames, 10.0)
    return tmp_path / "long.mp4"


def test_decoder_that_was_killed_is_tried_again(long_video: Path) -> None:
    decode = Decoding(long_video, bounded_decoding.MAX_DECODER_TRIES - 1)
    assert try_decoding(decode) == 60
    assert decode.num_tries == bounded_decoding.MAX_DECODER_TRIES


def test_file_that_kills_every_decoder_is_given_up(long_video: Path) -> None:
    decode = Decoding(long_video, 100)
    with pytest.raises(DecoderDiedError) as caught:
        try_decoding(decode)
    assert decode.num_tries == bounded_decoding.MAX_DECODER_TRIES
    assert caught.value.reason == "broken"


def test_server_that_stands_still_holds_nobody_up(
    long_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_server, "_END_S", 0.3)
    with ChildFrameStream(long_video):
        server = bounded_decoding._DECODERS._process
        assert server is not None
        os.kill(server.pid, signal.SIGSTOP)
    server.kill()
    assert probe_in_child(long_video).width == 320


def test_file_that_is_refused_is_not_tried_again(long_video: Path) -> None:
    tries = []

    def decode() -> int:
        tries.append(1)
        with ChildFrameStream(long_video, DecodeLimits(max_frame_pixels=100)) as frames:
            return sum(1 for _ in frames)

    with pytest.raises(MediaError) as caught:
        try_decoding(decode)
    assert (caught.value.reason, len(tries)) == ("too_large", 1)
