"""`animaray dataset`: look into a curated dataset, check, encode or hand it on; render a world."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import humanize
import typer

from animaray.cli.dataset import encode as dataset_encode
from animaray.cli.dataset import sets as dataset_sets
from animaray.cli.early_checks import check_dataset
from animaray.cli.output import (
    JsonLinesOption,
    JsonOption,
    leave,
    print_hint,
    print_json,
    print_json_lines,
    print_lines,
    print_table,
    refuse_usage,
)
from animaray.platform.quantities import spell_hours

app = typer.Typer(help="List, check, export and generate data.", no_args_is_help=True)

DatasetArgument = Annotated[Path, typer.Argument(help="Dataset folder")]
PolicyOption = Annotated[str, typer.Option(help="A policy that was applied to the dataset")]


@app.command("list")
def list_(
    dataset: DatasetArgument = Path("dataset"),
    policy: PolicyOption = "standard",
    as_json: JsonOption = False,
) -> None:
    """List the clips of a dataset with their verdicts."""
    from animaray.datasets.reader import CurationDataset
    from animaray.pipelines.policy.rules import spell_reasons

    opened = CurationDataset.open(dataset)
    rows = opened.verdicts(policy)
    if as_json:
        print_json({"dataset": str(dataset), "policy": policy, "clips": rows})
        return
    clips = {clip["clip_id"]: clip for clip in opened.clips()}
    print_table(
        f"{dataset} under policy {policy}",
        ("clip", "file", "span", "verdict", "reasons"),
        [
            (
                row["clip_id"],
                clips[row["clip_id"]]["file_name"],
                "{start_s:.2f} to {end_s:.2f} s".format(**clips[row["clip_id"]]),
                row["state"],
                "; ".join(spell_reasons(row)),
            )
            for row in rows
        ],
    )


@app.command()
def show(
    dataset: DatasetArgument,
    clip_id: Annotated[str, typer.Argument(help="An id of `animaray dataset list`")],
    as_json: JsonOption = False,
) -> None:
    """Show every score of one clip."""
    from animaray.datasets.reader import CurationDataset

    clip = CurationDataset.open(dataset).clip(clip_id)
    if as_json:
        print_json({"clip": clip})
        return
    print_table(clip_id, ("score", "value"), list(clip.items()))


@app.command()
def sources(
    dataset: DatasetArgument,
    policy: PolicyOption = "standard",
    as_json: JsonOption = False,
    as_json_lines: JsonLinesOption = False,
) -> None:
    """List every input: file or URL, state, reason, and its clips with verdicts and scores."""
    from animaray.datasets.reader import CurationDataset
    from animaray.pipelines.reports.source_list import list_sources

    rows = list_sources(dataset, policy)
    if as_json_lines:
        print_json_lines(rows)
    elif as_json:
        version = CurationDataset.open(dataset).snapshot.version
        facts = {"dataset": str(dataset), "version": version, "policy": policy}
        print_json({**facts, "sources": rows})
    else:
        print_table(
            f"{dataset} under policy {policy}",
            ("input", "state", "reason", "kept", "clips"),
            [
                (
                    row.get("file") or row.get("url"),
                    row["state"],
                    row["reason"],
                    sum(clip["keep"] for clip in row["clips"]),
                    len(row["clips"]),
                )
                for row in rows
            ],
        )


@app.command()
def inspect(
    dataset: DatasetArgument,
    clip_id: Annotated[str | None, typer.Argument(help="One clip; none for the dataset")] = None,
    extract: Annotated[
        Path | None, typer.Option(help="Write the clip's video and preview into this folder")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a dataset holds, or all that is stored of one clip."""
    from animaray.pipelines.policy.rules import spell_reasons
    from animaray.pipelines.reports.inspection import extract_clip, inspect_clip, inspect_dataset

    if clip_id is None:
        facts = inspect_dataset(dataset)
        if as_json:
            print_json(facts)
            return
        _print_dataset(facts)
        return
    facts = inspect_clip(dataset, clip_id)
    files = [] if extract is None else extract_clip(dataset, clip_id, extract)
    if as_json:
        print_json({**facts, "files": [str(path) for path in files]})
        return
    print_table(clip_id, ("fact", "value"), list(facts["clip"].items()))
    tracks = {**(facts["tracks"] or {})}
    camera = tracks.pop("camera", None)
    print_lines(*(f"{name}: {value}" for name, value in tracks.items()))
    print_lines(f"camera samples: {len(camera['time_s']) if camera else 0}")
    for name, verdict in facts["verdicts"].items():
        print_lines(f"{name}: {verdict['state']} {'; '.join(spell_reasons(verdict))}".rstrip())
    print_lines(*(f"wrote {path}" for path in files))


def _print_dataset(facts: Mapping[str, Any]) -> None:
    """Print what `inspect_dataset` found."""
    print_table(
        f"{facts['dataset']}, version {facts['version']}",
        ("table", "files", "rows", "size"),
        [
            (name, table["files"], table["rows"], humanize.naturalsize(table["bytes"]))
            for name, table in sorted(facts["tables"].items())
        ],
    )
    print_table(
        "Policies applied",
        ("policy", "clips kept", "length", "fingerprint"),
        [
            (name, found["kept_clips"], spell_hours(found["kept_hours"]), found["fingerprint"])
            for name, found in facts["policies"].items()
        ],
    )
    counts = {
        name: ", ".join(f"{count} {what}" for what, count in facts[name].items())
        for name in ("sources_by_state", "commits")
    }
    made = ", ".join((*facts["code"], *(f"profile {name}" for name in facts["profiles"])))
    print_lines(
        f"inputs: {counts['sources_by_state']}",
        f"clips: {facts['num_clips']}, {spell_hours(facts['hours'])}",
        f"commits: {counts['commits']}",
        f"made by: {made}; configuration {', '.join(facts['configs'])}",
        f"withdrawn sources: {', '.join(facts['withdrawn']) or 'none'}",
    )


@app.command()
def validate(
    dataset: DatasetArgument,
    quick: Annotated[bool, typer.Option("--quick", help="Decode no video")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check every promise of the format; exit with 5 when one is broken."""
    from animaray.pipelines.reports.validation import INVARIANTS
    from animaray.pipelines.reports.validation import validate as validate_dataset

    result = validate_dataset(dataset, decode=not quick)
    broken = {problem.invariant for problem in result.problems}
    if as_json:
        print_json({"dataset": str(dataset), **result.to_dict()})
    else:
        for name, meaning in INVARIANTS.items():
            print_lines(f"{'BROKEN' if name in broken else 'ok':<7} {name:<11} {meaning}")
        print_lines(*(f"  {p.invariant}: {p.subject}: {p.message}" for p in result.problems))
        rows = ", ".join(f"{count} {table}" for table, count in result.rows.items())
        print_lines(
            f"version {result.version}: {rows}; {result.num_decoded} videos decoded, "
            f"{len(result.problems)} problems"
        )
    if result.unnamed_files:
        print_hint(f"{len(result.unnamed_files)} files that no commit names (harmless left-overs)")
    if result.problems:
        leave(5)


@app.command()
def withdraw(
    dataset: DatasetArgument,
    source_ids: Annotated[
        list[str], typer.Argument(help="Source ids (`animaray dataset sources`)")
    ],
    reason: Annotated[str, typer.Option(help="Why, for the record")],
) -> None:
    """Hide every row of some sources at once (a takedown); `compact` takes out their bytes."""
    from animaray.datasets.commit_log import CommitLog
    from animaray.datasets.reader import CurationDataset

    known = {row["source_id"] for row in CurationDataset.open(dataset).sources()}
    if unknown := sorted(set(source_ids) - known):
        refuse_usage(
            f"There is no source {unknown[0]} in {dataset}.",
            fix=f"See the ids: animaray dataset sources {dataset} --json",
        )
    commit = CommitLog(dataset).withdraw(sorted(set(source_ids)), reason)
    print_lines(f"commit {commit.version}: {len(set(source_ids))} sources hidden")
    print_hint(f"Their bytes are still on disk: animaray dataset compact {dataset}")


@app.command()
def compact(dataset: DatasetArgument) -> None:
    """Take the bytes of withdrawn sources off the disk, and merge many small files."""
    check_dataset(dataset)
    from animaray.datasets.compaction import compact as compact_dataset
    from animaray.datasets.compaction import merge_small_files

    commits = [compact_dataset(dataset), merge_small_files(dataset, min_files=2)]
    for commit in commits:
        if commit is not None:
            print_lines(
                f"commit {commit.version} ({commit.kind}): {len(commit.removed)} files replaced "
                f"by {len(commit.files)}"
            )
    if commits == [None, None]:
        print_lines("nothing to do")


@app.command()
def world(
    out: Annotated[Path, typer.Argument(help="Folder for mp4 files with truth beside them")],
    videos: Annotated[int, typer.Option(help="How many videos")] = 24,
    seed: Annotated[int, typer.Option(help="Same seed, same videos")] = 0,
) -> None:
    """Render videos of generated people, with ground truth beside them."""
    from animaray.datasets.world.library import write_world

    records = write_world(out, num_videos=videos, seed=seed)
    print_hint(
        f"Wrote {len(records)} videos to {out}. "
        f"Next: animaray curate {out} --out dataset --profile generated"
    )


app.command("encode")(dataset_encode.encode)
dataset_sets.add_to(app)
