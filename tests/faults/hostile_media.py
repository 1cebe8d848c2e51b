"""Throw damaged and crafted videos at the product's decoder and count what comes.

    python -m tests.faults.hostile_media --cases 100000 --seed 1 --out report.json

Each case is a small real or generated file with seeded mutations, decoded by ChildFrameStream, the
product's own path: one bounded child process a case. It must end in frames or in a MediaError with
a reason. Cases run in batches, each in a process of its own, so that a crash of the parent shows as
a dead batch with the number of its case. `--case N` decodes one case again.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy as np

from animaray.platform.errors import MediaError
from animaray.platform.json_text import json_text
from animaray.platform.media.bounded_decoding import ChildFrameStream, decoder_peak_memory_bytes
from animaray.platform.media.frame_choice import FrameSelection
from animaray.platform.media.video_file import DecodeLimits
from animaray.platform.storage import write_json_atomic

LIMITS = DecodeLimits(cpu_s=5.0, timeout_s=20.0, max_frames=400, memory_bytes=2 * 1024**3)
_NUM_FRAMES = 8
_MAX_REAL_BYTES = 60_000
_REAL_SHARE = 0.05
_BATCH = 5000
_GENERATED = (
    ("h264.mp4", "mp4", "libx264", "yuv420p"),
    ("h264.mov", "mov", "libx264", "yuv420p"),
    ("h264.mkv", "matroska", "libx264", "yuv444p"),
    ("hevc.mp4", "mp4", "libx265", "yuv420p"),
    ("mpeg4.avi", "avi", "mpeg4", "yuv420p"),
    ("mjpeg.avi", "avi", "mjpeg", "yuvj420p"),
    ("vp8.webm", "webm", "libvpx", "yuv420p"),
    ("vp9.webm", "webm", "libvpx-vp9", "yuv420p"),
    ("mpeg2.ts", "mpegts", "mpeg2video", "yuv420p"),
    ("prores.mov", "mov", "prores", "yuv422p10le"),
    ("picture.gif", "gif", "gif", "rgb8"),
)
_SIZE_MARKS = (
    b"moov", b"trak", b"tkhd", b"stsd", b"avc1", b"hvc1", b"stsz", b"stco", b"stts", b"elst",
    b"ctts", b"stsc", b"mdhd", b"avcC", b"hvcC", b"avih", b"strf", b"strh", b"idx1", b"movi",
    b"\xb0", b"\xba", b"\x1aE\xdf\xa3", b"GIF8", b"\x00\x00\x01\xb3",
)  # fmt: skip
"""Beside these stand lengths, counts or picture sizes."""
_EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

Mutation = Callable[[np.random.Generator, bytearray, list[bytes]], bytearray]


def generated_files() -> dict[str, bytes]:
    """Return one tiny video of each accepted container and codec that this build can write."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (6, 6, 8, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    files = {}
    for name, container_format, codec, pixel_format in _GENERATED:
        buffer = io.BytesIO()
        try:
            with av.open(buffer, "w", format=container_format) as container:
                stream = container.add_stream(codec, rate=25)
                stream.options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
                stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
                for picture in frames:
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
                container.mux(stream.encode(None))
        except (av.error.FFmpegError, ValueError) as error:
            sys.stderr.write(f"no {name}: {error}\n")
            continue
        files[name] = buffer.getvalue()
    return files


def real_files(folder: Path) -> dict[str, bytes]:
    """Return the small files of a folder of real videos; none where there is no folder."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return {
        path.name: path.read_bytes()
        for path in found
        if path.is_file() and 1000 < path.stat().st_size <= _MAX_REAL_BYTES
    }


def flip_bits(rng: np.random.Generator, data: bytearray, _: list[bytes]) -> bytearray:
    """Turn 1 to 64 bits anywhere."""
    for place in rng.integers(0, len(data) * 8, int(2 ** rng.uniform(0, 6))):
        data[place // 8] ^= 1 << int(place % 8)
    return data


def cut_short(rng: np.random.Generator, data: bytearray, _: list[bytes]) -> bytearray:
    """Keep only the first part."""
    return data[: int(rng.integers(1, len(data) + 1))]


def swap_chunks(rng: np.random.Generator, data: bytearray, _: list[bytes]) -> bytearray:
    """Exchange two pieces of equal length."""
    length = int(rng.integers(1, max(2, min(512, len(data) // 3))))
    one, other = (int(place) for place in rng.integers(0, max(1, len(data) - length), 2))
    data[one : one + length], data[other : other + length] = (
        data[other : other + length],
        data[one : one + length],
    )
    return data


def edit_header(rng: np.random.Generator, data: bytearray, _: list[bytes]) -> bytearray:
    """Write random bytes into the first kilobyte."""
    for place in rng.integers(0, min(1024, len(data)), int(rng.integers(1, 9))):
        data[place] = int(rng.integers(0, 256))
    return data


def splice(rng: np.random.Generator, data: bytearray, others: list[bytes]) -> bytearray:
    """Go on with the tail of another file."""
    other = others[int(rng.integers(len(others)))]
    return data[: int(rng.integers(1, len(data) + 1))] + other[int(rng.integers(len(other))) :]


def edit_sizes(rng: np.random.Generator, data: bytearray, _: list[bytes]) -> bytearray:
    """Write extreme numbers beside marks that announce a length, a count or a picture size."""
    marks = [mark for mark in _SIZE_MARKS if mark in data]
    for _edit in range(int(rng.integers(1, 4))):
        mark = marks[int(rng.integers(len(marks)))] if marks else bytes(data[:1])
        starts = [i for i in range(len(data)) if data[i : i + len(mark)] == mark][:64]
        if not starts:
            continue
        start = starts[int(rng.integers(len(starts)))]
        place = max(0, start + int(rng.choice([-4, len(mark), len(mark) + 4, len(mark) + 24, 28])))
        width = int(rng.choice([1, 2, 4]))
        number = _EXTREMES[int(rng.integers(len(_EXTREMES)))] & (256**width - 1)
        order = "big" if rng.random() < 0.7 else "little"
        data[place : place + width] = number.to_bytes(width, order)
    return data


def repeat_chunk(rng: np.random.Generator, data: bytearray, _: list[bytes]) -> bytearray:
    """Insert a piece again, up to 100 times."""
    start = int(rng.integers(len(data)))
    piece = data[start : start + int(rng.integers(1, 256))] * int(rng.integers(1, 101))
    place = int(rng.integers(len(data)))
    return data[:place] + piece + data[place:]


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, cut_short, swap_chunks, edit_header, splice, edit_sizes, repeat_chunk,
)  # fmt: skip


def make_case(
    number: int, seed: int, generated: dict[str, bytes], real: dict[str, bytes]
) -> tuple[str, str, bytes]:
    """Return file name, mutations and bytes of one case; a pure function of seed and number."""
    rng = np.random.default_rng((seed, number))
    pool = real if real and rng.random() < _REAL_SHARE else generated
    name = sorted(pool)[int(rng.integers(len(pool)))]
    data = bytearray(pool[name])
    names = []
    for _ in range(int(rng.integers(1, 4))):
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        data = mutation(rng, data, list(generated.values())) or bytearray(b"\0")
        names.append(mutation.__name__)
    return name, "+".join(names), bytes(data)


def decode_case(path: Path) -> str:
    """Decode one file as the product does; return the outcome."""
    try:
        with ChildFrameStream(path, LIMITS, FrameSelection(max_frames=_NUM_FRAMES)) as stream:
            count = sum(1 for _ in stream)
        outcome = "frames, with a warning" if stream.warning else "frames"
        outcome = outcome if count else "no frames"
    except MediaError as error:
        code = error.message.partition("(exit code ")[2].partition(")")[0]
        is_late = "took longer" in error.message
        cause = f", child died: {code}" if code else ", time-out" if is_late else ""
        outcome = f"refused: {error.reason}{cause}"
    return outcome


def run_batch(first: int, count: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run some cases in this process and return the counts."""
    generated, real = generated_files(), real_files(arguments.real)
    outcomes: Counter[str] = Counter()
    by_mutation: dict[str, Counter[str]] = {}
    failures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:
        for number in range(first, first + count):
            name, mutations, data = make_case(number, arguments.seed, generated, real)
            path = Path(folder) / f"case{Path(name).suffix}"
            path.write_bytes(data)
            arguments.mark.write_text(str(number))
            try:
                outcome = decode_case(path)
            except Exception as error:  # noqa: BLE001 - what the rig looks for
                outcome = "exception in the parent"
                failures.append({"case": number, "error": f"{type(error).__name__}: {error}"})
            if outcome.startswith("refused: None"):
                failures.append({"case": number, "error": "refused without a reason"})
            outcomes[outcome] += 1
            for mutation in set(mutations.split("+")):
                by_mutation.setdefault(mutation, Counter())[outcome.partition(":")[0]] += 1
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cases": count, "outcomes": outcomes, "by_mutation": by_mutation, "failures": failures,
        "max_child_memory_bytes": decoder_peak_memory_bytes(),
        "parent_memory_bytes": usage.ru_maxrss * 1024,
        "files": sorted([*generated, *real]),
    }  # fmt: skip


def _scratch() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - made by mkdtemp


def run_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all batches, each in a process of its own, and add up; a report after every batch."""
    started = time.monotonic()
    report: dict[str, Any] = {
        "command": " ".join(sys.argv), "seed": arguments.seed, "cases": 0, "outcomes": {},
        "by_mutation": {}, "parent_crashes": 0, "crashed_at": [], "failures": [],
        "max_child_memory_bytes": 0, "child_limit_bytes": LIMITS.memory_bytes,
        "parent_memory_bytes": 0, "limits": asdict(LIMITS),
    }  # fmt: skip
    for first in range(0, arguments.cases, _BATCH):
        count = min(_BATCH, arguments.cases - first)
        with tempfile.TemporaryDirectory() as folder:
            mark = Path(folder) / "mark"
            command = [
                sys.executable,
                "-m",
                "tests.faults.hostile_media",
                "--seed",
                str(arguments.seed),
            ]
            command += ["--real", str(arguments.real), "--batch", str(first), str(count)]
            done = subprocess.run(  # noqa: S603 - this very file
                [*command, "--mark", str(mark)], stdout=subprocess.PIPE, check=False
            )
            if done.returncode == 0:
                _add(report, json.loads(done.stdout))
            else:
                report["parent_crashes"] += 1
                report["crashed_at"].append(mark.read_text() if mark.exists() else first)
        report["seconds"] = round(time.monotonic() - started, 1)
        report["cases_per_s"] = round(report["cases"] / report["seconds"], 1)
        write_json_atomic(arguments.out, report)
    return report


def _add(report: dict[str, Any], part: dict[str, Any]) -> None:
    report["cases"] += part["cases"]
    report["files"] = part["files"]
    report["failures"] += part["failures"]
    report["outcomes"] = dict(
        (Counter(report["outcomes"]) + Counter(part["outcomes"])).most_common()
    )
    for mutation, counts in part["by_mutation"].items():
        total = Counter(report["by_mutation"].get(mutation, {})) + Counter(counts)
        report["by_mutation"][mutation] = dict(total)
    for name in ("max_child_memory_bytes", "parent_memory_bytes"):
        report[name] = max(report[name], part[name])


def main() -> int:
    """Run the cases; 0 when none crashed the parent, escaped as an exception or passed a limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("hostile_media.json"))
    parser.add_argument("--real", type=Path, default=Path("../shared/real/videos"))
    parser.add_argument("--case", type=int, help="Decode only this case and say what came")
    parser.add_argument("--batch", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--mark", type=Path, default=Path(os.devnull), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.batch:
        print(json_text(run_batch(arguments.batch[0], arguments.batch[1], arguments)))
        return 0
    if arguments.case is not None:
        print(json_text(run_batch(arguments.case, 1, arguments), indent=2))
        return 0
    report = run_all(arguments)
    print(json_text(report, indent=2))
    is_within = report["max_child_memory_bytes"] <= report["child_limit_bytes"]
    is_clean = not report["parent_crashes"] and not report["failures"]
    return 0 if is_within and is_clean and report["cases"] == arguments.cases else 1


if __name__ == "__main__":
    sys.exit(main())
