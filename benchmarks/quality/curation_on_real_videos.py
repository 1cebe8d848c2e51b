"""Curate the shared real videos and compare every verdict with what a person said.

    python -m benchmarks.quality.curation_on_real_videos --real ../shared/real --out /tmp/curated

Prints one row per file, the confusion table of keep, split and drop, and how many frames every cut
was found away from where a person sees it. A dataset that `animaray curate` has finished in the
folder is not curated again. Exits 1 when an input was lost, a bad file was kept, agreement is under
85 % or a cut that is not called forgivable is more than 2 frames off.
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

import numpy as np

from animaray.datasets.reader import CurationDataset
from animaray.pipelines.curate import CurationConfig, CurationSummary, curate
from animaray.platform.media.video import FrameSelection, FrameStream

KEEP, SPLIT, DROP, EITHER = "keep", "split", "drop", "either"
NEEDED, CUT_FRAMES = 0.85, 2


def result_of(state: str, num_cuts: int) -> str:
    """Return what curation did with a file, in the person's words."""
    if state != "kept":
        return DROP
    return SPLIT if num_cuts else KEEP


def expected_of(expect: str) -> str | None:
    """Return what the person wants: keep, split or drop; None where either will do."""
    if expect == EITHER:
        return None
    return expect if expect in {KEEP, SPLIT} else DROP


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
        cuts = source["cut_times_s"] or []
        state = source["state"]
        if clips:
            # What the policy says now: the dataset may have been judged anew since it was made.
            state = "kept" if "keep" in states else "dropped"
        rows.append(
            {
                "file": name,
                "expect": fact["expect"],
                "result": state,
                "as": result_of(state, len(cuts)),
                "agrees": judge_file(fact["expect"], state, states),
                "clips and reasons": "; ".join(reasons),
            }
        )
    return rows


def confusion(rows: Sequence[Mapping[str, str]]) -> tuple[list[str], float]:
    """Return the confusion table of keep, split and drop, and the share that agrees."""
    kinds = (KEEP, SPLIT, DROP)
    counts = Counter((expected_of(row["expect"]), row.get("as", "lost")) for row in rows)
    lines = ["| the person says | " + " | ".join(f"result {kind}" for kind in kinds) + " |"]
    lines.append("|---" * 4 + "|")
    for wanted in kinds:
        found = " | ".join(str(counts[wanted, kind]) for kind in kinds)
        lines.append(f"| {wanted} | {found} |")
    judged = sum(count for (wanted, _), count in counts.items() if wanted is not None)
    right = sum(counts[kind, kind] for kind in kinds)
    lines.append(f"\naccuracy {right} of {judged} = {right / judged:.3f}")
    wrong = [
        f"{row['file']} ({row['expect']}, {row.get('as')})"
        for row in rows
        if expected_of(row["expect"]) not in {None, row.get("as")}
    ]
    lines.append(f"otherwise: {', '.join(wrong) or 'none'}")
    return lines, right / judged


def cut_offsets(dataset: CurationDataset, truth: Mapping[str, Any], videos: Path) -> list[str]:
    """Return a line for each cut and dissolve of the truth; misses begin with MISSED."""
    sources = {row["uri"]: row for row in dataset.sources()}
    lines = []
    for name, fact in truth.items():
        known = fact.get("cut_frames", [])
        if not known and not fact.get("dissolves"):
            continue
        source = sources[name]
        found_s = np.array(source["cut_times_s"] or [np.inf])
        with FrameStream(videos / name, FrameSelection(short_side_px=32)) as frames:
            times = np.array([pts_s for pts_s, _ in frames])
        found = np.array([np.abs(times - time_s).argmin() for time_s in found_s])
        for frame in known:
            nearest = int(found[np.abs(found - frame).argmin()])
            late = nearest - frame
            word = "found" if abs(late) <= CUT_FRAMES else "MISSED"
            note = " (forgivable)" if "forgivable" in fact["why"] and word == "MISSED" else ""
            lines.append(f"{word}{note} {name}: cut before frame {frame}, {late:+d} frames")
        clips = [c for c in dataset.clips() if c["input_id"] == source["input_id"]]
        for start_s, end_s in fact.get("dissolves", []):
            over = any(c["start_s"] < end_s and c["end_s"] > start_s for c in clips)
            word = "MISSED" if over else "found"
            lines.append(f"{word} {name}: dissolve {start_s} to {end_s} s, in no clip: {not over}")
    return lines


def as_markdown(rows: Sequence[Mapping[str, str]], summary: CurationSummary) -> str:
    """Return the lab log entry."""
    names = ("file", "expect", "result", "as", "agrees", "clips and reasons")
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
    videos = arguments.real / "videos"
    config = CurationConfig(
        sources=(str(videos),),
        output_dir=arguments.out,
        num_workers=arguments.workers,
    )
    summary = curate(config)
    truth = json.loads((arguments.real / "truth.json").read_text(encoding="utf-8"))
    dataset = CurationDataset.open(arguments.out)
    rows = compare(dataset, truth)
    table, accuracy = confusion(rows)
    cuts = cut_offsets(dataset, truth, videos)
    listed = [f"- {line}" for line in cuts]
    entry = as_markdown(rows, summary) + "\n" + "\n".join([*table, "", "Cuts:", "", *listed]) + "\n"
    print(entry)
    if arguments.log is not None:
        with arguments.log.open("a", encoding="utf-8") as file:
            file.write("\n" + entry)
    is_bad = any(row["agrees"] in {"LOST", "false keep"} for row in rows)
    is_late = any(line.startswith("MISSED ") and "(forgivable)" not in line for line in cuts)
    return int(is_bad or is_late or accuracy < NEEDED)


if __name__ == "__main__":
    sys.exit(main())
