"""`animaray cache`: the folders that animaray fills outside your project."""

from pathlib import Path
from typing import Annotated

import humanize
import typer

from animaray.cli.output import JsonOption, print_hint, print_json, print_table
from animaray.platform.errors import UsageError
from animaray.platform.weights.store import prune_weights_cache, weights_cache_dir

app = typer.Typer(help="List and prune caches.", no_args_is_help=True)


def cache_folders() -> dict[str, tuple[Path, str]]:
    """Return each cache's folder and the command that fills it again."""
    from animaray.datasets.shard_cache import shard_cache_dir  # it loads Arrow

    return {
        "weights": (weights_cache_dir(), "animaray weights pull ID"),
        "shards": (shard_cache_dir(), "animaray train animator --data s3://..."),
    }


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List caches, their size and what fills them again."""
    rows = [
        (name, str(folder), _size(folder), command)
        for name, (folder, command) in cache_folders().items()
    ]
    if as_json:
        keys = ("name", "folder", "size_bytes", "filled_by")
        print_json({"caches": [dict(zip(keys, row, strict=True)) for row in rows]})
        return
    shown = [(name, folder, humanize.naturalsize(size), cmd) for name, folder, size, cmd in rows]
    print_table("Caches", ("name", "folder", "size", "filled again by"), shown)


@app.command()
def prune(
    name: Annotated[str, typer.Argument(help="A name of `animaray cache list`")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove what we put into one cache. Other files, datasets and runs are never touched.

    Raises:
        UsageError: The cache is unknown.
    """
    folders = cache_folders()
    if name not in folders:
        raise UsageError(f"Unknown cache `{name}`.", fix=f"Known: {', '.join(folders)}.")
    folder, command = folders[name]
    before = _size(folder)
    if not yes:
        size = humanize.naturalsize(before)
        question = f"Remove what animaray put into {folder} ({size} in all)?"
        typer.confirm(question, abort=True, err=True)
    if name == "weights":
        prune_weights_cache()
    else:
        from animaray.datasets.shard_cache import prune_shard_cache

        prune_shard_cache()
    left = sorted(path for path in folder.rglob("*") if not path.is_dir())
    size = humanize.naturalsize(before - _size(folder))
    print_hint(f"Removed {size} from {folder}. `{command}` fills it again.")
    if left:
        print_hint(f"Left {len(left)} files that animaray did not put there, as {left[0]}.")


def _size(folder: Path) -> int:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files)
