"""Curate the shared real videos and compare every verdict with what a person said.

    python benchmarks/curation_on_real_videos.py --real ../shared/real --out /tmp/curated \
        --log docs/lab_log.md

Prints one row per file and appends the table, with date, command and hardware, to the lab log.
"""

import argparse
import json
import os
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from animaray.datasets.reader import CurationDataset
from animaray.pipelines.curation import CurationConfig, CurationSummary, curate

KEEP, SPLIT, EITHER = "keep", "split", "either"


def judge_file(expect: str, state: str, verdicts: Sequence[str]) -> str:
    """Say whether the result of one file agrees with the person: ok, miss, false keep, free."""
    if expect == EITHER:
        return "free"
    if expect in {KEEP, SPLIT}:
        # Of a file to be split some clips are usable; a person says so of all but x01 and v10.
        return "ok" if state == "kept" else "miss"
    if expect.startswith("duplicate"):
        return "ok" if state == "duplicate" else "miss"
    return "ok" if "keep" not in verdicts else "false keep"


def compare(dataset: CurationDataset, truth: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return one row per file of the truth."""
    sources = {row["uri"]: row for row in dataset.sources()}
    verdicts = {row["clip_id"]: row for row in dataset.verdicts("standard")}
    rows = []
    for name, fact in truth.items():
        source = sources.get(name)
        if source is None:
            rows.append(
                {"file": name, "expect": fact["expect"], "result": "LOST", "agrees": "LOST"}
            )
            continue
        clips = sorted(
            (row for row in dataset.clips() if row["input_id"] == source["input_id"]),
            key=lambda row: row["start_s"],
        )
        states = [verdicts[clip["clip_id"]]["state"] for clip in clips]
        reasons = [
            f"{clip['start_s']:.1f}-{clip['end_s']:.1f} s {verdicts[clip['clip_id']]['state']}"
            + "".join(f", {text}" for text in verdicts[clip["clip_id"]]["reasons"])
            for clip in clips
        ]
        if not clips:
            reasons = [f"{source['reason']}: {source['detail']}"]
        rows.append(
            {
                "file": name,
                "expect": fact["expect"],
                "result": source["state"],
                "agrees": judge_file(fact["expect"], source["state"], states),
                "clips and reasons": "; ".join(reasons),
            }
        )
    return rows


def as_markdown(rows: Sequence[Mapping[str, str]], summary: CurationSummary) -> str:
    """Return the lab log entry."""
    names = ("file", "expect", "result", "agrees", "clips and reasons")
    counts = dict(Counter(row["agrees"] for row in rows))
    seconds = dict(summary.seconds_by_stage)
    cores = len(os.sched_getaffinity(0))
    lines = [
        f"## {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, curation of the real videos",
        "",
        f"- command: `{shlex.join(['python', *sys.argv])}`",
        f"- hardware: {platform.machine()}, {cores} cores, load {os.getloadavg()[0]:.1f} at the "
        f"end, Python {platform.python_version()}, no GPU",
        f"- {summary.one_line()}",
        f"- wall {summary.wall_s:.0f} s; seconds of all workers by stage: {seconds}",
        f"- kept clips by policy: {dict(summary.clips_by_policy)}",
        f"- agreement with the person: {counts}",
        "",
        "| " + " | ".join(names) + " |",
        "|" + " --- |" * len(names),
    ]
    for row in rows:
        cells = [row.get(name, "").replace("|", "/") for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the comparison; exit 1 when an input was lost or a drop was kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, default=Path("../shared/real"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, help="append the table to this file")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    os.environ.setdefault("ANIMARAY_WEIGHTS", str((arguments.real / "weights").resolve()))
    config = CurationConfig(
        input_dir=arguments.real / "videos",
        output_dir=arguments.out,
        num_workers=arguments.workers,
    )
    summary = curate(config)
    truth = json.loads((arguments.real / "truth.json").read_text(encoding="utf-8"))
    rows = compare(CurationDataset.open(arguments.out), truth)
    entry = as_markdown(rows, summary)
    print(entry)
    if arguments.log is not None:
        with arguments.log.open("a", encoding="utf-8") as file:
            file.write("\n" + entry)
    return int(any(row["agrees"] in {"LOST", "false keep"} for row in rows))


if __name__ == "__main__":
    sys.exit(main())
