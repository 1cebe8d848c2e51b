"""`animaray curate`: videos of people in, kept and rejected clips with reasons out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from animaray.cli.early_checks import check_named_videos
from animaray.cli.output import (
    ConfigOption,
    DatasetArgument,
    DefaultCommandGroup,
    JsonOption,
    PrintConfigOption,
    SetOption,
    print_config,
    print_hint,
    print_json,
    print_lines,
    print_table,
    refuse_usage,
)
from animaray.platform.config import resolve_config
from animaray.platform.errors import UsageError
from animaray.platform.quantities import spell_hours
from animaray.platform.stores import is_remote

if TYPE_CHECKING:
    from animaray.pipelines.policy.tuning import BorderClip, TuneCurve

app = typer.Typer(help="Turn videos into a curated dataset.", cls=DefaultCommandGroup)

_POLICIES = "literal-paper, strict, standard, lax, or a policy file"
PolicyOption = Annotated[str, typer.Option(help=_POLICIES)]
SourcesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="Folders, patterns, videos, lists (one input a line), tar or Parquet files, "
        "addresses of files, videos and playlists"
    ),
]
OutOption = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        help="Dataset folder to write or resume, or its address (s3://bucket/dataset)",
        show_default="dataset",
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        help="Who looks at the pixels: permissive, generated or paper", show_default="permissive"
    ),
]
JudgeOption = Annotated[
    str | None, typer.Option("--policy", help=_POLICIES, show_default="standard")
]
PrivateHostsOption = Annotated[
    bool | None,
    typer.Option(
        "--allow-private-hosts/--no-allow-private-hosts",
        help="Fetch from this machine's network, too",
        show_default="no",
    ),
]


@app.command("run")
def run(
    sources: SourcesArgument = None,
    out: OutOption = None,
    profile: ProfileOption = None,
    policy: JudgeOption = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N inputs")] = None,
    cookies: Annotated[str | None, typer.Option(help="Cookie file for video sites")] = None,
    cookies_from_browser: Annotated[str | None, typer.Option(help="As in firefox")] = None,
    allow_private_hosts: PrivateHostsOption = None,
    changes: SetOption = None,
    config_file: ConfigOption = None,
    show_config: PrintConfigOption = False,
    as_json: JsonOption = False,
) -> None:
    """Curate videos from anywhere; the same command again goes on where it stopped.

    Example: animaray curate videos/ urls.txt 'more/*.mp4' --out dataset --profile permissive
    """
    from animaray.pipelines.curate import CurationConfig, curate

    config = resolve_config(
        CurationConfig,
        file=config_file,
        overrides=changes or (),
        typed={
            "sources": sources or None,
            "output_dir": out,
            "profile": profile,
            "policy": policy,
            "limit": limit,
            "acquire.cookies_file": cookies,
            "acquire.cookies_from_browser": cookies_from_browser,
            "acquire.allow_private_hosts": allow_private_hosts,
        },
    )
    if show_config:
        print_config(config)
        return
    check_named_videos(config.sources)
    summary = curate(config)
    if as_json:
        print_json(summary.to_dict())
    else:
        for line in summary.lines():
            typer.echo(line)
    made = config.output_dir
    print_hint(
        f"Look at it: animaray curate report {made}; why: animaray dataset show {made} CLIP --why"
    )


@app.command("verdicts")
def verdicts(
    dataset: DatasetArgument,
    policy: PolicyOption = "standard",
    as_json: JsonOption = False,
) -> None:
    """Apply a policy to the stored scores; no model runs.

    Example: animaray curate verdicts dataset --policy mine.yaml
    """
    from animaray.datasets.reader import CurationDataset
    from animaray.pipelines.policy.policies import find_policy, policy_fingerprint
    from animaray.pipelines.policy.rules import spell_reasons
    from animaray.pipelines.policy.verdicts import reapply_policy

    found = find_policy(policy)
    kept = reapply_policy(dataset, found)
    opened = CurationDataset.open(dataset)
    facts = {
        "policy": found.name,
        "fingerprint": policy_fingerprint(found),
        "version": opened.snapshot.version,
    }
    rows = opened.verdicts(found.name)
    if as_json:
        print_json({**facts, "num_kept": kept, "verdicts": rows})
        return
    print_table(
        f"Policy {found.name}",
        ("clip", "state", "reasons"),
        [(row["clip_id"], row["state"], "; ".join(spell_reasons(row))) for row in rows],
    )
    print_lines(
        f"{kept} of {len(rows)} clips kept under {found.name} ({facts['fingerprint']}), "
        f"commit {facts['version']}"
    )


@app.command("tune")
def tune(
    rule: Annotated[str, typer.Argument(help="A threshold, reason code or score: max_drift")],
    dataset: DatasetArgument,
    policy: PolicyOption = "standard",
    value: Annotated[
        str | None, typer.Option("--set", help="New value of the threshold; `off` for none")
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="Policy file to write the new value to")
    ] = None,
    clips: Annotated[int, typer.Option(help="Clips to show on either side of the line")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Show the hours that each value of a threshold keeps, and the clips beside the line.

    Example: animaray curate tune max_drift dataset --set 0.05 --write mine.yaml
    """
    from animaray.pipelines.policy.policies import find_policy, write_policy
    from animaray.pipelines.policy.tuning import change_policy, find_rule
    from animaray.pipelines.policy.tuning import tune as tune_rule

    base = find_policy(policy)
    if (value is None) != (write is None):
        refuse_usage("--set and --write go together.", fix="Add the one that is missing.")
    if value is not None and write is not None:
        base = change_policy(base, find_rule(rule).threshold, _read_limit(value), write.stem)
    curve = tune_rule(dataset, rule, base, num_clips=clips)
    if write is not None:
        write_policy(write, base)
    if as_json:
        print_json({**curve.to_dict(), "written": str(write) if write else None})
    else:
        _print_tune_curve(curve)
    if write is not None:
        print_hint(f"Apply it, no model runs: animaray curate verdicts {dataset} --policy {write}")
    else:
        print_hint(
            f"Choose: animaray curate tune {rule} {dataset} --set VALUE --write my-policy.yaml"
        )


@app.command("report")
def report(
    dataset: DatasetArgument,
    policy: PolicyOption = "standard",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="An .html file, or a folder for index.html")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the dataset's card: one HTML file with funnel, rules, border clips, balance, lineage.

    Example: animaray curate report dataset --out card.html
    """
    from animaray.cli.dataset.card import write_dataset_card

    page, card = write_dataset_card(dataset, out or _report_folder(dataset), policy=policy)
    if as_json:
        print_json({"page": str(page), **card.to_dict()})
    print_hint(f"Open {page}")


def _report_folder(dataset: str) -> Path:
    """Return where a dataset's card goes: into its folder, or here where it lies elsewhere."""
    return Path("report") if is_remote(dataset) else Path(dataset) / "report"


def _read_limit(text: str) -> float | None:
    """Read the value of a threshold; `off` switches its rule off.

    Raises:
        UsageError: It is neither a number nor `off`.
    """
    if text in {"off", "none", "null"}:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"Expected a number or `off` for --set, got `{text}`.") from error


def _print_tune_curve(curve: "TuneCurve") -> None:
    """Print the length kept per threshold, and the clips on either side of the line."""
    sign = ">=" if curve.is_minimum else "<="
    print_lines(
        f"{curve.rule}: {curve.score} {sign} threshold, else {curve.code}; policy {curve.policy}, "
        f"{curve.num_scored} clips scored, {spell_hours(curve.hours_total)} in all",
        f"length kept, strictest value first: {curve.sparkline()}",
    )
    if curve.only_flags:
        print_lines(f"{curve.policy} only flags for it: this is what dropping would keep")
    top = max([step.hours_kept for step in curve.steps] or [0.0]) or 1.0
    print_table(
        "",
        ("threshold", "kept", "clips", "", "policies"),
        [
            (
                "off" if step.threshold is None else f"{step.threshold:g}",
                spell_hours(step.hours_kept),
                step.num_kept,
                "\u2588" * round(step.hours_kept / top * 24),
                ", ".join(step.marks),
            )
            for step in curve.steps
        ],
    )
    for title, clips in (("Just below the line", curve.below), ("Just above it", curve.above)):
        print_table(
            title, ("clip", "value", "side", "verdict", "where"), [_border_row(c) for c in clips]
        )


def _border_row(clip: "BorderClip") -> tuple[str, str, str, str, str]:
    side = "good" if clip.passes else "bad"
    return clip.clip_id, f"{clip.value:.4g}", side, clip.state, clip.title
