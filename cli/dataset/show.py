"""`animaray dataset show`: what a dataset holds, all of one clip, every input, or why."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import humanize
import typer

from animaray.cli.output import (
    DatasetArgument,
    JsonLinesOption,
    JsonOption,
    print_json,
    print_json_lines,
    print_lines,
    print_table,
    refuse_usage,
)
from animaray.platform.quantities import spell_hours


def show(
    dataset: DatasetArgument,
    clip: Annotated[
        str | None,
        typer.Argument(help="A clip; with --why also a source, by id or file name; or neither"),
    ] = None,
    sources: Annotated[
        bool, typer.Option("--sources", help="List every input, what became of it, and its clips")
    ] = False,
    why: Annotated[
        bool, typer.Option("--why", help="Every score beside the limits of every policy")
    ] = False,
    extract: Annotated[
        Path | None, typer.Option(help="Write the clip's video and preview into this folder")
    ] = None,
    policy: Annotated[
        str, typer.Option(help="Of --sources: a policy that was applied to the dataset")
    ] = "standard",
    as_json: JsonOption = False,
    as_json_lines: JsonLinesOption = False,
) -> None:
    """Show what a dataset holds, all that is stored of one clip, every input, or why.

    Example: animaray dataset show dataset CLIP --why
    """
    wrong = {
        "--sources lists every input, not one clip": sources and (clip or why or extract),
        "--why and --extract need a clip": (why or extract) and clip is None,
        "--json-lines goes with --sources": as_json_lines and not sources,
    }
    for problem in (text for text, is_so in wrong.items() if is_so):
        refuse_usage(f"{problem}.", fix=f"See the clips: animaray dataset list {dataset}")
    from animaray.datasets.reader import CurationDataset
    from animaray.pipelines.reports import show as views

    opened = CurationDataset.open(dataset)
    if sources:
        facts: Mapping[str, Any] = {
            "dataset": str(dataset), "version": opened.snapshot.version, "policy": policy,
            "sources": views.show_sources(opened, policy),
        }  # fmt: skip
    elif clip is None:
        facts = views.show_dataset(opened)
    else:
        facts = views.show_why(opened, clip) if why else views.show_clip(opened, clip)
        if extract is not None:
            files = views.extract_clip(opened, clip, extract)
            facts = {**facts, "files": [str(path) for path in files]}
    if as_json_lines:
        print_json_lines(facts["sources"])
    elif as_json:
        print_json(facts)
    else:
        _print(facts)


def _print(facts: Mapping[str, Any]) -> None:
    """Print what any of the views found."""
    if "tables" in facts:
        _print_dataset(facts)
    elif "sources" in facts:
        _print_sources(facts)
    elif "limits" in facts:
        from animaray.pipelines.reports.show import spell_why

        print_lines(*spell_why(facts))
    else:
        _print_clip(facts)
    print_lines(*(f"wrote {path}" for path in facts.get("files", ())))


def _print_dataset(facts: Mapping[str, Any]) -> None:
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


def _print_sources(facts: Mapping[str, Any]) -> None:
    print_table(
        f"{facts['dataset']} under policy {facts['policy']}",
        ("input", "state", "reason", "kept", "clips"),
        [
            (
                row.get("file") or row.get("url"),
                row["state"],
                row["reason"],
                sum(clip["keep"] for clip in row["clips"]),
                len(row["clips"]),
            )
            for row in facts["sources"]
        ],
    )


def _print_clip(facts: Mapping[str, Any]) -> None:
    from animaray.pipelines.policy.rules import spell_reasons

    clip = {**facts["clip"]}
    clip.pop("identity_embedding")
    print_table(clip["clip_id"], ("fact", "value"), list(clip.items()))
    tracks = {**(facts["tracks"] or {})}
    camera = tracks.pop("camera", None)
    print_lines(*(f"{name}: {value}" for name, value in tracks.items()))
    print_lines(f"camera samples: {len(camera['time_s']) if camera else 0}")
    for name, verdict in facts["verdicts"].items():
        print_lines(f"{name}: {verdict['state']} {'; '.join(spell_reasons(verdict))}".rstrip())
