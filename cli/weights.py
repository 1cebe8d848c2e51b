"""`animaray weights`: which weights exist, where they are, under which licence."""

from typing import Annotated

import typer

from animaray.cli.output import JsonOption, print_hint, print_json, print_table
from animaray.platform.errors import UsageError
from animaray.platform.weights import WEIGHTS, pull_weights, verify_weights, weights_state

app = typer.Typer(help="List, pull and verify model weights.", no_args_is_help=True)


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


def _known(weights_id: str) -> str:
    if weights_id not in WEIGHTS:
        raise UsageError(f"Unknown weights `{weights_id}`.", fix="See `animaray weights list`.")
    return weights_id
