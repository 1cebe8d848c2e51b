"""`animaray runs`: what was trained, how far it is and how it went."""

from pathlib import Path
from typing import Annotated, Any

import typer

from animaray.cli.output import (
    JsonOption,
    print_hint,
    print_json,
    print_lines,
    print_table,
    refuse_usage,
)
from animaray.platform.errors import UsageError
from animaray.platform.storage import read_json

app = typer.Typer(help="List and show training runs.", no_args_is_help=True)
RootOption = Annotated[Path, typer.Option("--root", help="Folder that holds run folders")]


def find_runs(root: Path) -> dict[str, dict[str, Any]]:
    """Return each run's status by folder, oldest first.

    Raises:
        UsageError: The folder does not exist.
    """
    if not root.is_dir():
        raise UsageError(f"There is no folder {root}.", fix="Name it with --root.")
    statuses = sorted(root.rglob("status.json"), key=lambda path: path.stat().st_mtime)
    return {str(path.parent): read_json(path) for path in statuses}


@app.command("list")
def list_(root: RootOption = Path(), as_json: JsonOption = False) -> None:
    """List the training runs below a folder."""
    runs = find_runs(root)
    if as_json:
        print_json({"runs": [{"run_dir": folder, **status} for folder, status in runs.items()]})
        return
    rows = [
        (folder, status.get("kind"), status.get("state"), status.get("step"), status.get("loss"))
        for folder, status in runs.items()
    ]
    print_table("Runs", ("folder", "kind", "state", "step", "loss"), rows)


@app.command()
def show(
    run_dir: Annotated[Path, typer.Argument(help="A run folder")],
    curves: Annotated[
        Path | None, typer.Option("--curves", help="Draw all curves into a .png, .svg or .pdf file")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show one run: state, configuration, and what it measured as curves.

    Example: animaray runs show runs/animator --curves curves.png
    """
    from animaray.cli.run_curves import curve_lines, write_curves
    from animaray.training.run_folder import RunFolder

    if not (run_dir / "status.json").is_file():
        refuse_usage(
            f"{run_dir} holds no status.json, so it is not a run folder.",
            fix="See them: animaray runs list",
        )
    status = read_json(run_dir / "status.json")
    config = read_json(run_dir / "config.json")
    metrics = RunFolder(run_dir).read_metrics()
    if curves is not None and write_curves(curves, metrics) is None:
        refuse_usage(f"{run_dir} has measured nothing yet, so there is no curve to draw.")
    if as_json:
        found = {"run_dir": str(run_dir), "status": status, "config": config, "metrics": metrics}
        print_json(found)
        return
    print_table(str(run_dir), ("what", "value"), list(status.items()))
    print_lines(*curve_lines(metrics))
    if curves is not None:
        print_hint(f"Open {curves}")
