"""Measure how long new verdicts on a large dataset take, and how long a tuning curve.

    python -m benchmarks.scale.rethreshold --sources 10000 --out /tmp/rethreshold

The dataset is made at the metadata level: ids, commits and tables as curation writes them
(4 sources per commit), scores drawn. The time is that of the whole command: opening the log with
its hash chain, reading, judging, writing and committing; before and after the small files are
merged, as a curation run does at its end.
"""

import argparse
import resource
import shutil
import time
from dataclasses import replace
from pathlib import Path

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.compaction import merge_small_files
from animaray.pipelines.policy.policies import POLICIES
from animaray.pipelines.policy.tuning import tune
from animaray.pipelines.policy.verdicts import reapply_policy
from animaray.platform.json_text import json_text
from benchmarks.scale.score_tables import ScoreTables, write_score_dataset


def main() -> None:
    """Print one JSON object of seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=int, default=10_000)
    parser.add_argument("--sources-per-commit", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("rethreshold"))
    arguments = parser.parse_args()
    shutil.rmtree(arguments.out, ignore_errors=True)
    tables = ScoreTables(
        num_sources=arguments.sources, sources_per_commit=arguments.sources_per_commit
    )
    result: dict[str, object] = {"sources": arguments.sources}
    started = time.perf_counter()
    write_score_dataset(arguments.out, tables)
    result["write_s"] = round(time.perf_counter() - started, 2)
    result["commits"] = CommitLog(arguments.out).head()
    for name, policy in POLICIES.items():
        started = time.perf_counter()
        kept = reapply_policy(arguments.out, policy)
        result[name] = {"seconds": round(time.perf_counter() - started, 2), "kept": kept}
    started = time.perf_counter()
    merge_small_files(arguments.out)
    result["merge_s"] = round(time.perf_counter() - started, 2)
    for name, policy in POLICIES.items():
        started = time.perf_counter()
        stricter = replace(policy, name=f"{name}-merged")
        reapply_policy(arguments.out, stricter)
        result[f"{name}, merged"] = round(time.perf_counter() - started, 2)
    started = time.perf_counter()
    curve = tune(arguments.out, "max_drift", POLICIES["standard"])
    result["tune"] = {"seconds": round(time.perf_counter() - started, 2), "steps": len(curve.steps)}
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result["peak_mib"] = round(peak_kib / 1024)
    print(json_text(result, indent=1))


if __name__ == "__main__":
    main()
