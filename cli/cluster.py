"""`animaray cluster lint`: check a cluster file before it costs money."""

from pathlib import Path
from typing import Annotated

import typer

from animaray.cli.output import print_hint, refuse_usage

app = typer.Typer(help="Check cluster files.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Check cluster files."""


@app.command()
def lint(
    file: Annotated[Path, typer.Argument(help="A Ray cluster file")] = Path("cluster.yaml"),
) -> None:
    """Check a cluster file against Ray's schema and animaray's own rules."""
    if not file.is_file():
        refuse_usage(f"There is no file {file}.", fix="Name a Ray cluster file, as cluster.yaml.")
    from animaray.training.cluster_file import lint_cluster_file

    warnings = lint_cluster_file(file)
    for warning in warnings:
        print_hint(f"warning: {warning}")
    print_hint(f"{file}: valid for Ray, {len(warnings)} warnings.")
