"""Untrusted media: the parent gets frames or a reason, and the child stays inside."""

import functools
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from animaray.platform.errors import MediaError
from animaray.platform.media import bounded_decoding
from animaray.platform.media.video import DecodeLimits, decode_in_child, probe_in_child, write_mp4
from animaray.platform.sandbox.fork_server import ForkedChild

ROOT = Path(__file__).resolve().parents[2]


def reason_of(path: Path, limits: DecodeLimits | None = None) -> str | None:
    with pytest.raises(MediaError) as caught:
        decode_in_child(path, limits)
    return caught.value.reason


def video(path: Path, width: int, height: int, *, frames: int = 6, codec: str = "libx264") -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast"} if codec == "libx264" else {}
        for number in range(frames):
            picture = np.full((height, width, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    return path


def test_picture_larger_than_declared_is_refused_when_it_is_decoded(tmp_path: Path) -> None:
    path = video(tmp_path / "lies.mp4", 128, 96)
    data = bytearray(path.read_bytes())
    entry = data.index(b"avc1", data.index(b"stsd"))
    assert struct.unpack_from(">HH", data, entry + 28) == (128, 96)
    struct.pack_into(">HH", data, entry + 28, 16, 16)
    path.write_bytes(data)
    assert reason_of(path, DecodeLimits(max_frame_pixels=64 * 48)) == "too_large"


def test_picture_that_grows_in_mid_stream_is_refused(tmp_path: Path) -> None:
    small = video(tmp_path / "a.ts", 64, 48, codec="mpeg2video").read_bytes()
    large = video(tmp_path / "b.ts", 128, 96, codec="mpeg2video").read_bytes()
    path = tmp_path / "grows.ts"
    path.write_bytes(small + large)
    assert reason_of(path, DecodeLimits(max_frame_pixels=64 * 48)) == "too_large"
    whole = decode_in_child(path)
    assert whole.frames_uint8.shape[1:] == (48, 64, 3)


def test_small_file_of_huge_pictures_costs_no_memory(tmp_path: Path) -> None:
    before = bounded_decoding.decoder_peak_memory_bytes()
    path = video(tmp_path / "bomb.mp4", 4608, 4608, frames=1)
    assert path.stat().st_size < 200_000
    assert reason_of(path) == "too_large"
    gif = tmp_path / "bomb.gif"
    gif.write_bytes(b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x80\0\0" + b"\0" * 6 + b",")
    assert reason_of(gif) in {"too_large", "broken", "truncated"}
    grown = bounded_decoding.decoder_peak_memory_bytes() - before
    assert grown < 400 * 1024**2


def test_disguised_playlists_read_nothing_and_call_nobody(tmp_path: Path) -> None:
    calls = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        url = f"http://127.0.0.1:{port}/v.ts"
        canary = video(tmp_path / "canary.ts", 64, 48, codec="mpeg2video")
        texts = {
            "list.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n",
            "local.mkv": f"#EXTM3U\n#EXTINF:1,\nfile:{canary}\n#EXT-X-ENDLIST\n",
            "concat.avi": f"ffconcat version 1.0\nfile '{canary}'\n",
            "session.mov": f"v=0\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
            "drawing.mp4": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}"/></svg>',
            "dash.mp4": f'<?xml version="1.0"?><MPD><BaseURL>{url}</BaseURL></MPD>',
            "meta.mkv": ";FFMETADATA1\ntitle=x\n",
        }
        for name, text in texts.items():
            path = tmp_path / name
            path.write_text(text)
            assert reason_of(path) == "not_a_video", name
        try:
            server.accept()
            calls.append("called")
        except TimeoutError:
            pass
    assert calls == []


_ATTEMPTS = """
import json, os, socket, subprocess, sys
from pathlib import Path
from animaray.platform.sandbox import confinement as c
allowed = sys.argv[1]
has = {"network": c.leave_network()}
c.limit_resources(memory_bytes=1 << 30, cpu_s=20)
has["landlock"] = c.allow_only(reading=[Path(allowed)])
has["seccomp"] = c.forbid_system_calls()
def attempt(call):
    try:
        call()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "done"
import threading
thread = threading.Thread(target=lambda: None)
def threads():
    thread.start(); thread.join()
found = {
    "read_allowed": attempt(lambda: open(allowed).read()),
    "threads": attempt(threads),
    "read_other": attempt(lambda: open("/etc/hostname").read()),
    "list": attempt(lambda: os.listdir("/")),
    "write": attempt(lambda: open(allowed + ".new", "w")),
    "socket": attempt(lambda: socket.socket()),
    "fork": attempt(lambda: os.fork() or os._exit(0)),
    "exec": attempt(lambda: os.execv("/bin/true", ["true"])),
    "memory": attempt(lambda: bytearray(1 << 31)),
}
print(json.dumps([has, found]))
"""


def test_confined_process_can_read_one_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a")
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _ATTEMPTS, str(path)], capture_output=True, check=True, text=True
    )
    has, found = json.loads(done.stdout)
    assert found["read_allowed"] == found["threads"] == "done"
    assert found["memory"] == "MemoryError"
    if not (has["landlock"] and has["seccomp"]):
        pytest.skip(f"this kernel has no {[name for name, is_here in has.items() if not is_here]}")
    for name in ("read_other", "list", "write", "socket", "fork", "exec"):
        assert found[name] == "PermissionError", name


def decoder_pids() -> list[int]:
    server = bounded_decoding._DECODERS._process
    assert server is not None
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


@pytest.fixture
def long_video(tmp_path: Path) -> Path:
    frames = np.random.default_rng(0).integers(0, 256, (60, 240, 320, 3), dtype=np.uint8)
    write_mp4(tmp_path / "long.mp4", frames, 10.0)
    return tmp_path / "long.mp4"


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGSTOP, "too_large"), (signal.SIGKILL, "broken")]
)
def test_stopped_or_killed_decoder_ends_with_a_reason(
    long_video: Path, number: signal.Signals, reason: str
) -> None:
    with bounded_decoding.ChildFrameStream(long_video, DecodeLimits(timeout_s=1.0)) as frames:
        (pid,) = decoder_pids()
        os.kill(pid, number)
        with pytest.raises(MediaError) as caught:
            list(frames)
    assert caught.value.reason == reason
    assert decoder_pids() == []


def test_dead_server_is_replaced(long_video: Path) -> None:
    probe_in_child(long_video)
    server = bounded_decoding._DECODERS._process
    assert server is not None
    with bounded_decoding.ChildFrameStream(long_video) as frames:
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(MediaError):
            list(frames)  # its children end with it
    assert probe_in_child(long_video).width == 320


def test_many_threads_decode_at_once_and_leave_nothing_open(long_video: Path) -> None:
    probe_in_child(long_video)
    opened = len(list(Path("/proc/self/fd").iterdir()))
    counts: list[int] = []
    work = functools.partial(decode_in_child, long_video, fps=2.0, short_side_px=32)
    threads = [
        threading.Thread(target=lambda: counts.append(len(work().frames_uint8))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [12] * 6
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


def test_decoder_that_was_taken_over_cannot_confuse_the_parent(
    long_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = json.dumps({"width": 1}).encode()
    header = struct.Struct(">cI")
    good_info = json.dumps(vars_of(probe_in_child(long_video))).encode()
    start = header.pack(b"I", len(good_info)) + good_info
    rng = np.random.default_rng(0)
    answers = [
        b"", b"I", header.pack(b"I", len(info)) + info, header.pack(b"I", 3) + b"abc",
        header.pack(b"E", 2) + b"[]", header.pack(b"I", 0xFFFFFFFF), header.pack(b"Z", 0),
        start + header.pack(b"F", 16 + 3) + struct.pack(">dII", 0.0, 70000, 70000),
        start + header.pack(b"F", 4), start + header.pack(b"D", 1) + b"1", start,
        *(rng.bytes(200) for _ in range(20)), *(start + rng.bytes(200) for _ in range(20)),
    ]  # fmt: skip
    for answer in answers:
        monkeypatch.setattr(
            bounded_decoding._DECODERS, "start", functools.partial(_forged_child, answer)
        )
        with pytest.raises(MediaError):
            decode_in_child(long_video)


def vars_of(info: object) -> dict[str, object]:
    import dataclasses

    return dataclasses.asdict(info)  # type: ignore[call-overload]


def _forged_child(answer: bytes, _request: object) -> ForkedChild:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    pidfd = os.pidfd_open(pid)
    os.waitpid(pid, 0)
    output, their_output = os.pipe()
    status, their_status = os.pipe()
    os.write(their_output, answer)
    os.close(their_output)
    os.close(their_status)
    return ForkedChild(output, status, pidfd, lambda _: None)


def test_two_hundred_damaged_files_all_end_with_frames_or_a_reason(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "tests.faults.hostile_media", "--cases", "200", "--seed", "7",
         "--out", str(out)],
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert sum(report["outcomes"].values()) == 200
    assert report["parent_crashes"] == 0
    assert report["failures"] == []
    assert 0 < report["max_child_memory_bytes"] < report["child_limit_bytes"]
    assert {"frames", "refused: broken"} <= set(report["outcomes"])
    assert len(report["by_mutation"]) == 7


def test_foreign_files_have_one_door() -> None:
    """Only the owner files open media, each with its whitelists; decord is nowhere."""
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for folder in ("platform", "pipelines", "serving", "models", "cli", "datasets")
        for path in (ROOT / folder).rglob("*.py")
    }
    openers = {name for name, text in sources.items() if re.search(r"\bav\.open\(", text)}
    # The last three read files that we wrote.
    assert openers <= {
        "platform/media/video_file.py", "platform/media/video_encode.py",
        "platform/media/video_window.py", "pipelines/reports/validation_media.py",
        "platform/media/sound.py",
    }  # fmt: skip
    assert "format_whitelist" in sources["platform/media/video_file.py"]
    assert "protocol_whitelist" in sources["platform/media/video_file.py"]
    decord = re.compile(r"^\s*(import|from) decord", re.MULTILINE)
    # ... and only for training windows of clips that we encoded ourselves.
    namers = [name for name, text in sources.items() if decord.search(text)]
    assert namers == ["platform/media/video_window_decord.py"]
    users = [name for name, text in sources.items() if "read_frames_by_decord" in text]
    assert sorted(users) == ["datasets/windows.py", "platform/media/video_window_decord.py"]
    assert not [name for name, text in sources.items() if "VideoCapture(" in text]
