r"""Compare what two checkouts spend on curating the same videos, and what they keep of them.

    python -m benchmarks.scale.less_work --old ../old/.venv/bin/python --new .venv/bin/python \
        --videos ../shared/real/videos --out /tmp/less

CPU seconds a minute of footage, decoders included, on sets of the shared real videos of which about
a fifth, a half and all of the footage is kept. Both curate in turn in one process, with bounded
decoders and without Ray (`curation_throughput --way isolated`); runs alternate, and what starting
costs (a run on an empty file) is taken off. Exits 1 when a clip is judged otherwise.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

from animaray.datasets.reader import CurationDataset
from animaray.platform.json_text import json_text
from benchmarks.scale.process_tree import run_measured

SETS: Mapping[str, tuple[str, ...]] = {
    "a fifth": ("v02.mp4", "v06.mp4", "v13.mp4", "v14.mp4", "v16.mp4", "v24.mp4"),
    "a half": ("v02.mp4", "v06.mp4", "v09.mp4", "v23.mp4", "v24.mp4", "x04.mkv"),
    "all": ("v02.mp4", "v09.mp4", "v27.mp4", "x04.mkv", "x19.mp4"),
}
"""What is kept of the footage, and of which videos."""
NOTHING = ("x16.mp4",)
"""An empty file: only starting costs."""


def main() -> int:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", type=Path, required=True, help="interpreter of a checkout's .venv")
    parser.add_argument("--new", type=Path, required=True, help="the same of the other one")
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument(
        "--options", default="--preset veryfast --crf 17", help="of the new one: as the old stores"
    )
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    pythons = {"old": arguments.old, "new": arguments.new}
    starting = {side: _cpu_s(python, arguments, NOTHING, f"start-{side}")
                for side, python in pythons.items()}  # fmt: skip
    result: dict[str, object] = {"starting, CPU s": starting}
    is_same = True
    for kept in arguments.sets:
        spent: dict[str, list[float]] = {side: [] for side in pythons}
        for repeat in range(arguments.repeats):
            for side in ("old", "new") if repeat % 2 == 0 else ("new", "old"):
                name = f"{kept.replace(' ', '-')}-{side}-{repeat}"
                used = _cpu_s(pythons[side], arguments, SETS[kept], name)
                spent[side].append(used - starting[side])
        folders = [arguments.out / f"{kept.replace(' ', '-')}-{side}-0" for side in pythons]
        verdicts, footage_s, kept_s = _verdicts(folders[0])
        is_same &= verdicts == _verdicts(folders[1])[0]
        means = {side: statistics.median(each) for side, each in spent.items()}
        result[kept] = {
            "footage_s": round(footage_s, 1),
            "kept_share": round(kept_s / footage_s, 2),
            **{f"{side}, CPU s a minute": round(each * 60 / footage_s, 1)
               for side, each in means.items()},
            "ratio": round(means["new"] / means["old"], 3),
        }  # fmt: skip
    result["same verdicts"] = is_same
    print(json_text(result, indent=1))
    return int(not is_same)


def _cpu_s(python: Path, arguments: argparse.Namespace, names: tuple[str, ...], run: str) -> float:
    """Curate some videos by one checkout; return the CPU seconds of all its processes.

    Raises:
        RuntimeError: It failed.
    """
    checkout = python.absolute().parents[2]
    command = [
        str(python.absolute()), "-m", "benchmarks.scale.curation_throughput", "--way", "isolated",
        "--videos", str(arguments.videos.absolute()), "--names", ",".join(names),
        "--out", str((arguments.out / run).absolute()),
        *(arguments.options.split() if python == arguments.new else []),
    ]  # fmt: skip
    before = Path.cwd()
    os.chdir(checkout)
    try:
        use = run_measured(command, {"OMP_NUM_THREADS": "1"})
    finally:
        os.chdir(before)
    if use.exit_code != 0:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {use.exit_code}.")
    return use.cpu_s


def _verdicts(folder: Path) -> tuple[dict[tuple[str, str], str], float, float]:
    """Return each clip's state under each policy, and seconds of all clips and of kept ones."""
    dataset = CurationDataset.open(folder)
    states = {
        (row["clip_id"], policy): row["state"]
        for policy in dataset.policies()
        for row in dataset.verdicts(policy)
    }
    clips = list(dataset.clips())
    kept = [clip for clip in clips if states[clip["clip_id"], "standard"] == "keep"]
    return states, sum(c["duration_s"] for c in clips), sum(c["duration_s"] for c in kept)


if __name__ == "__main__":
    sys.exit(main())
