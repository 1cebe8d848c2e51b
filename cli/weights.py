"""`animaray weights`: which weights exist, where they are, under which licence."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from animaray.cli.output import JsonOption, print_hint, print_json, print_table
from animaray.platform.errors import UsageError
from animaray.platform.weights import (
    WEIGHTS,
    pull_weights,
    verify_weights,
    weights_cache_dir,
    weights_state,
)

app = typer.Typer(help="List, pull, verify, import and export model weights.", no_args_is_help=True)


@app.command("list")
def list_(
    profile: Annotated[
        str | None, typer.Option(help="Only what this profile needs (generated, permissive, paper)")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List every weights file: purpose, licence, whether it is here, how to get it.

    "confirmed" says whether source, size, hash and licence were looked up or measured (`--json`
    and docs/weights.md say where).

    Raises:
        UsageError: The profile is unknown.
    """
    entries = [entry for entry in WEIGHTS.values() if profile is None or profile in entry.needed_by]
    if profile is not None and not entries:
        known = sorted({name for entry in WEIGHTS.values() for name in entry.needed_by})
        raise UsageError(f"Unknown profile `{profile}`.", fix=f"Known: {', '.join(known)}.")
    states = {entry.id: weights_state(entry.id) for entry in entries}
    if as_json:
        rows = [
            {
                "id": entry.id,
                "purpose": entry.purpose,
                "file": entry.file,
                "source": entry.source,
                "licence": entry.licence,
                "commercial_use": entry.commercial_use,
                "confirmed": entry.is_confirmed,
                "confirmed_by": entry.confirmed_by,
                "size_bytes": entry.download_bytes,
                "needed_by": entry.needed_by,
                "state": states[entry.id].state,
                "path": states[entry.id].path,
            }
            for entry in entries
        ]
        print_json({"weights": rows})
        return
    print_table(
        "Weights",
        ("id", "for", "licence", "commercial", "confirmed", "state", "where"),
        [
            (
                entry.id,
                entry.purpose,
                entry.licence,
                "yes" if entry.commercial_use else "no",
                "yes" if entry.is_confirmed else "no",
                states[entry.id].state,
                states[entry.id].path or entry.source,
            )
            for entry in entries
        ],
    )


@app.command()
def pull(
    weights_id: Annotated[str, typer.Argument(help="An id of `animaray weights list`")],
) -> None:
    """Fetch one weights file from its source into the cache and check it."""
    path = pull_weights(_known(weights_id))
    print_hint(f"{weights_id} is at {path}")


@app.command()
def verify(
    weights_id: Annotated[str | None, typer.Argument(help="An id, or every file here")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check size and hash of weights that are here."""
    if weights_id is not None:
        ids = [_known(weights_id)]
    else:
        ids = [name for name in WEIGHTS if weights_state(name).state != "missing"]
    paths = {name: str(verify_weights(name)) for name in ids}
    if as_json:
        print_json({"verified": paths})
    else:
        print_table("Verified", ("id", "file"), list(paths.items()))


@app.command("import")
def import_(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of the published files (Animation/*.pth and the diffusers folder)",
            show_default="ANIMARAY_WEIGHTS, else the cache of `weights pull`",
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="New weights folder")],
    backbone: Annotated[
        Path | None, typer.Option(help="Diffusers folder of Stable Video Diffusion, if elsewhere")
    ] = None,
    size: Annotated[
        str, typer.Option(help="Width x height of frames: 576x1024 or 512x512 were trained")
    ] = "576x1024",
    channel_order: Annotated[
        Literal["rgb", "bgr"],
        typer.Option(
            help="Colours shown to the recogniser: rgb is right; bgr repeats the published scripts"
        ),
    ] = "rgb",
    as_json: JsonOption = False,
) -> None:
    """Import a published model (.pth files and a diffusers folder) into a weights folder.

    Files are read as plain tensors only: one with code in it is refused. Every key must fit.
    """
    from animaray.models.published.importing import ImportOptions, import_published

    width_px, height_px = _size(size)
    options = ImportOptions(width_px=width_px, height_px=height_px, channel_order=channel_order)
    own = os.environ.get("ANIMARAY_WEIGHTS")
    source = source or (Path(own).expanduser() if own else weights_cache_dir())
    config = import_published(source, out, options, backbone=backbone, on_file=print_hint)
    if as_json:
        print_json({"weights": str(out), "profile": config.profile, "size": size})
    else:
        print_hint(f"The weights are in {out}; use them with `animate --weights {out}`.")


@app.command()
def export(
    weights: Annotated[Path, typer.Argument(help="Weights folder")],
    *,
    out: Annotated[Path, typer.Option(help="New folder for the published layout")],
    as_json: JsonOption = False,
) -> None:
    """Export a weights folder as the published .pth files and a folder that diffusers loads."""
    from animaray.models.published.exporting import export_published

    absent = export_published(weights, out, on_file=print_hint)
    if as_json:
        print_json({"folder": str(out), "absent": absent})
        return
    if absent:
        print_hint(f"Not in these weights, so not in the diffusers folder: {', '.join(absent)}.")
    print_hint(f"The published layout is in {out}.")


def _size(text: str) -> tuple[int, int]:
    """Return width and height of a text like 576x1024.

    Raises:
        UsageError: It has another form.
    """
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise UsageError(f"Expected --size WIDTHxHEIGHT such as 576x1024, got {text!r}.")
    return int(width), int(height)


def _known(weights_id: str) -> str:
    if weights_id not in WEIGHTS:
        raise UsageError(f"Unknown weights `{weights_id}`.", fix="See `animaray weights list`.")
    return weights_id
