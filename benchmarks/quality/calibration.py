"""Measure precision and recall of every filter of curation on a generated set of known flaws.

    python -m benchmarks.quality.calibration --work /tmp/calibration --seed 0

Renders the set (calibration_cases.py), measures each clip with the product's stages, and
compares what each shipped policy says with what is truly there. Raw scores are kept in the work
folder: the same command again goes on where it stopped, and judges anew without measuring.
Exits 1 when a filter of the policy `standard` stays under 0.9.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from animaray.datasets.world.truth import ClipTruth
from animaray.pipelines.policy.policies import POLICIES, Policy
from animaray.pipelines.policy.rules import Verdict, judge
from animaray.platform.json_text import json_text
from benchmarks.quality.calibration_cases import CalibrationCase, calibration_cases, render_case
from benchmarks.quality.calibration_truth import FILTERS, Label, labels_of, verdict_of
from benchmarks.quality.whole_clips import WholeClips

NEEDED = 0.9
_WRONG = {"fn": "missed", "fp": "wrongly dropped", "asked": "undetermined"}


def wilson(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of a share."""
    if count == 0:
        return 0.0, 1.0
    share, weight = hits / count, z * z / count
    middle = (share + weight / 2) / (1 + weight)
    half = z * np.sqrt(share * (1 - share) / count + weight / (4 * count)) / (1 + weight)
    return float(middle - half), float(middle + half)


def measured(
    cases: Sequence[CalibrationCase], arguments: argparse.Namespace
) -> dict[str, tuple[Mapping[str, Any], ClipTruth]]:
    """Return scores and truth of every case; what an earlier run measured is read."""
    folder: Path = arguments.work / f"{arguments.profile}_{arguments.faces}_{arguments.seed}"
    clips = None
    found = {}
    left = arguments.limit if arguments.limit is not None else len(cases)
    for number, case in enumerate(cases):
        record = folder / f"{case.name}.json"
        if not record.exists():
            if left == 0:
                continue
            left -= 1
            clips = clips or WholeClips(arguments.profile, folder, arguments.faces)
            clip = render_case(case)
            path = clips.write(case.name, clip.frames_uint8, case.spec.fps)
            scores = clips.scores(path, len(clip.frames_uint8), case.spec.fps, case.spec.size)
            record.write_text(json_text({"scores": scores, "truth": clip.truth.to_json()}))
            path.unlink()
            print(f"{number + 1}/{len(cases)} {case.name}", file=sys.stderr, flush=True)
        data = json.loads(record.read_text())
        found[case.name] = data["scores"], ClipTruth.from_json(data["truth"])
    return found


def says(verdict: Verdict, name: str) -> bool:
    """Return whether a filter speaks against a clip; `undetermined` is never a keep."""
    codes = FILTERS[name]
    if name == "face size":
        # A face too small to be found has no size.
        codes = (*codes, "no_face")
    return any(code.startswith(codes) for code in verdict.codes)


def kind_of(label: Label, said: bool, state: str) -> str:  # noqa: FBT001 - what was said
    """Return near, tp, fn, tn, fp, or asked: a fine clip that only waits for a person to look."""
    if label is None:
        return "near"
    if label:
        return "tp" if said else "fn"
    if not said:
        return "tn"
    return "asked" if state == "undetermined" else "fp"


def count_answers(
    cases: Sequence[CalibrationCase],
    found: Mapping[str, tuple[Mapping[str, Any], ClipTruth]],
    policy: Policy,
) -> tuple[dict[str, Counter[str]], list[str]]:
    """Return how often each filter was right, and a line for each wrong answer."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in (*FILTERS, "whole policy")}
    wrong = []
    for case in cases:
        scores, truth = found[case.name]
        verdict = judge(scores, policy)
        labels = labels_of(case, truth.frames, policy)
        answers: dict[str, tuple[Label, bool]] = {
            name: (labels.get(name), says(verdict, name)) for name in FILTERS
        }
        answers["whole policy"] = verdict_of(labels), not verdict.keep
        for name, (label, said) in answers.items():
            kind = kind_of(label, said, verdict.state)
            counts[name][kind] += 1
            if kind in _WRONG:
                sign = _WRONG[kind]
                wrong.append(
                    f"- {name}: {case.name} {sign} ({'; '.join(verdict.reasons) or 'kept'})"
                )
    return counts, wrong


def as_rows(counts: Mapping[str, Counter[str]]) -> list[str]:
    """Return table rows: flaws, right, wrong, precision and recall with 95 % intervals."""
    rows = []
    for name, count in counts.items():
        tp, fp, fn = count["tp"], count["fp"], count["fn"]
        shares = []
        for hits, total in ((tp, tp + fp), (tp, tp + fn)):
            low, high = wilson(hits, total)
            shares.append(f"{hits / total:.3f} [{low:.2f}, {high:.2f}]" if total else "-")
        rows.append(
            f"| {name} | {tp + fn} | {count['tn'] + fp + count['asked']} | {count['near']} | "
            f"{fn} | {fp} | {count['asked']} | "
            f"{shares[0]} | {shares[1]} |"
        )
    return rows


def main() -> int:
    """Print a table for each policy; exit 1 when a filter of `standard` is too weak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", default="generated")
    parser.add_argument("--faces", default="generated", help="profile of the face detector")
    parser.add_argument("--only", nargs="*", help="groups of cases; all by default")
    parser.add_argument("--limit", type=int, help="measure so many more clips at most")
    parser.add_argument("--policies", nargs="*", default=list(POLICIES), choices=list(POLICIES))
    arguments = parser.parse_args()
    cases = [
        case
        for case in calibration_cases(arguments.seed)
        if not arguments.only or case.group in arguments.only
    ]
    found = measured(cases, arguments)
    cases = [case for case in cases if case.name in found]
    weak = []
    for name in arguments.policies:
        counts, wrong = count_answers(cases, found, POLICIES[name])
        print(f"\n### {name}, {len(cases)} clips\n")
        print("| filter | flawed | fine | near | missed | wrong | asked | precision | recall |")
        print("|---|---|---|---|---|---|---|---|---|")
        print("\n".join(as_rows(counts)))
        print("\n" + "\n".join(wrong))
        if name == "standard":
            weak = [f for f, c in counts.items() if _is_weak(c) and f != "whole policy"]
    print(f"\nunder {NEEDED} with standard: {', '.join(weak) or 'none'}")
    return int(bool(weak))


def _is_weak(count: Counter[str]) -> bool:
    tp, fp, fn = count["tp"], count["fp"], count["fn"]
    return tp < NEEDED * max(tp + fp, tp + fn)


if __name__ == "__main__":
    sys.exit(main())
