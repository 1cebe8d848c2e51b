"""`animaray dataset`: look into a curated dataset, check, encode or hand it on; render a world."""

from pathlib import Path
from typing import Annotated

import typer

from animaray.cli.dataset import encode as dataset_encode
from animaray.cli.dataset import sets as dataset_sets
from animaray.cli.dataset import show as dataset_show
from animaray.cli.early_checks import DEFAULT_DATASET, check_dataset
from animaray.cli.output import (
    DatasetArgument,
    JsonOption,
    leave,
    print_hint,
    print_json,
    print_lines,
    print_table,
    refuse_usage,
)

app = typer.Typer(help="List, check, export and generate data.", no_args_is_help=True)

PolicyOption = Annotated[str, typer.Option(help="A policy that was applied to the dataset")]


@app.command("list")
def list_(
    dataset: DatasetArgument = DEFAULT_DATASET,
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
    facts = opened.table("clips", ["clip_id", "file_name", "start_s", "end_s"])
    clips = {clip["clip_id"]: clip for clip in facts.to_pylist()}
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
        list[str], typer.Argument(help="Source ids (`animaray dataset show DATASET --sources`)")
    ],
    reason: Annotated[str, typer.Option(help="Why, for the record")],
    hide_only: Annotated[
        bool, typer.Option("--hide-only", help="Leave their bytes to a later `compact`")
    ] = False,
) -> None:
    """Hide every row of some sources at once (a takedown), then take out their bytes."""
    from animaray.datasets.commit_log import CommitLog
    from animaray.datasets.publication import publish
    from animaray.datasets.reader import CurationDataset

    opened = CurationDataset.open(dataset)
    known = set(opened.table("sources", ["source_id"])["source_id"].to_pylist())
    if unknown := sorted(set(source_ids) - known):
        refuse_usage(
            f"There is no source {unknown[0]} in {dataset}.",
            fix=f"See the ids: animaray dataset show {dataset} --sources --json",
        )
    commit = CommitLog(opened.store).withdraw(sorted(set(source_ids)), reason)
    print_lines(f"commit {commit.version}: {len(set(source_ids))} sources hidden")
    publish(opened.store)
    if hide_only:
        print_hint(
            f"Their bytes are still stored: animaray dataset compact {dataset}; until then other "
            "programs are shown no file that holds some of them."
        )
    else:
        _compact(dataset)


@app.command()
def compact(dataset: DatasetArgument) -> None:
    """Take out the bytes of withdrawn sources, and merge many small files."""
    check_dataset(dataset)
    _compact(dataset)


def _compact(dataset: str) -> None:
    from animaray.datasets.compaction import compact as compact_dataset
    from animaray.datasets.compaction import merge_small_files
    from animaray.datasets.publication import publish

    commits = [compact_dataset(dataset), merge_small_files(dataset, min_files=2)]
    for commit in commits:
        if commit is not None:
            print_lines(
                f"commit {commit.version} ({commit.kind}): {len(commit.removed)} files replaced "
                f"by {len(commit.files)}"
            )
    if commits == [None, None]:
        print_lines("nothing to do")
    publish(dataset)


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


app.command("show")(dataset_show.show)
app.command("encode")(dataset_encode.encode)
dataset_sets.add_to(app)
