"""`animaray dataset`: look into a curated dataset, or render the generated world."""

from pathlib import Path
from typing import Annotated

import typer

from animaray.cli.output import JsonOption, print_hint, print_json, print_table

app = typer.Typer(help="List, show and generate data.", no_args_is_help=True)

DatasetArgument = Annotated[Path, typer.Argument(help="Dataset folder")]


@app.command("list")
def list_(
    dataset: DatasetArgument = Path("dataset"),
    policy: Annotated[str, typer.Option(help="strict, standard or lax")] = "standard",
    as_json: JsonOption = False,
) -> None:
    """List the clips of a dataset with their verdicts."""
    from animaray.datasets.reader import CurationDataset

    rows = CurationDataset.open(dataset).verdicts(policy)
    if as_json:
        print_json({"dataset": str(dataset), "policy": policy, "clips": rows})
        return
    print_table(
        f"{dataset} under policy {policy}",
        ("clip", "keep", "reasons"),
        [(row["clip_id"], row["keep"], "; ".join(row["reasons"])) for row in rows],
    )


@app.command()
def show(
    dataset: DatasetArgument,
    clip_id: Annotated[str, typer.Argument(help="An id of `animaray dataset list`")],
    as_json: JsonOption = False,
) -> None:
    """Show every score of one clip."""
    from animaray.datasets.reader import CurationDataset

    clip = CurationDataset.open(dataset).clip(clip_id)
    if as_json:
        print_json({"clip": clip})
        return
    print_table(clip_id, ("score", "value"), list(clip.items()))


@app.command()
def world(
    out: Annotated[Path, typer.Argument(help="Folder for mp4 files with truth beside them")],
    videos: Annotated[int, typer.Option(help="How many videos")] = 24,
    seed: Annotated[int, typer.Option(help="Same seed, same videos")] = 0,
) -> None:
    """Render videos of generated people, with ground truth beside them."""
    from animaray.datasets.world.library import write_world

    records = write_world(out, num_videos=videos, seed=seed)
    print_hint(f"Wrote {len(records)} videos to {out}. Next: animaray curate {out} --out dataset")
