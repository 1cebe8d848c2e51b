"""`animaray curate`: videos of people in, kept and rejected clips with reasons out."""

from pathlib import Path
from typing import Annotated

import typer

from animaray.cli.output import (
    DefaultCommandGroup,
    JsonOption,
    SetOption,
    print_hint,
    print_json,
    print_table,
)
from animaray.platform.config import config_to_dict, resolve_config
from animaray.platform.ray_session import ray_session

app = typer.Typer(help="Turn videos into a curated dataset.", cls=DefaultCommandGroup)

OutOption = Annotated[Path, typer.Option("--out", "-o", help="Dataset folder to write or resume")]


@app.command("run")
def run(
    videos: Annotated[Path, typer.Argument(help="Folder of videos")],
    out: OutOption = Path("dataset"),
    profile: Annotated[
        str, typer.Option(help="Who looks at the pixels: permissive or generated")
    ] = "permissive",
    policy: Annotated[str, typer.Option(help="strict, standard or lax")] = "standard",
    limit: Annotated[int | None, typer.Option(help="Only the first N videos")] = None,
    changes: SetOption = None,
    config_file: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file")] = None,
    print_config: Annotated[bool, typer.Option("--print-config")] = False,
    as_json: JsonOption = False,
) -> None:
    """Curate a folder of videos; the same command again goes on where it stopped.

    Example: animaray curate videos/ --out dataset --profile permissive
    """
    from animaray.pipelines.curation import CurationConfig, curate
    from animaray.pipelines.stages.acquire import list_inputs

    base = CurationConfig(
        input_dir=videos, output_dir=out, profile=profile, policy=policy, limit=limit
    )
    config = resolve_config(base, file=config_file, overrides=changes or ())
    if print_config:
        print_json(config_to_dict(config))
        return
    list_inputs(config.input_dir, limit=config.limit)  # refuse a wrong folder before Ray starts
    with ray_session():
        summary = curate(config)
    if as_json:
        print_json(summary.to_dict())
    else:
        for line in summary.lines():
            typer.echo(line)
    print_hint(f"Look at it: animaray curate report {out}; why: animaray explain CLIP --data {out}")


@app.command("verdicts")
def verdicts(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder")],
    policy: Annotated[str, typer.Option(help="strict, standard or lax")] = "standard",
    as_json: JsonOption = False,
) -> None:
    """Apply a policy to the stored scores; no model runs."""
    from animaray.datasets.reader import CurationDataset
    from animaray.pipelines.curation import reapply_policy

    reapply_policy(dataset, policy)
    rows = CurationDataset.open(dataset).verdicts(policy)
    if as_json:
        print_json({"policy": policy, "verdicts": rows})
        return
    print_table(
        f"Policy {policy}",
        ("clip", "keep", "reasons"),
        [(row["clip_id"], row["keep"], "; ".join(row["reasons"])) for row in rows],
    )


@app.command("report")
def report(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder")],
    policy: Annotated[str, typer.Option(help="strict, standard or lax")] = "standard",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the page")] = None,
) -> None:
    """Write a page that shows every clip, its verdict and its reasons."""
    from animaray.cli.dataset_page import write_dataset_page

    page = write_dataset_page(dataset, out or dataset / "report", policy=policy)
    print_hint(f"Open {page}")
