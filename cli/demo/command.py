"""`animaray demo`: the whole chain on one machine, and a page that shows each step."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from animaray.cli.demo.run import DemoRun, DemoSettings
from animaray.cli.early_checks import check_picture
from animaray.cli.output import JsonOption, print_hint, print_json
from animaray.platform.disk import check_room
from animaray.platform.errors import UsageError
from animaray.platform.ray_session import ray_session

DEMO_BYTES = 1024**3
"""Of the demo's folder in the end; checkpoints are the most of it."""


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder that gets everything")] = Path(
        "demo"
    ),
    videos: Annotated[
        Path | None, typer.Option(help="Your videos; without it, generated people")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Folder of perception weights (ANIMARAY_WEIGHTS)")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="Picture to animate; else chosen")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same demo")] = 7,
    train_minutes: Annotated[
        float, typer.Option(min=0.1, help="Time limit of the animator's training")
    ] = 4.0,
    as_json: JsonOption = False,
) -> None:
    """Run videos -> dataset -> training -> service -> animated person; ends with a page.

    On your own videos without --weights: pull, curate, and move a photo by parts, in minutes.

    Example: animaray demo --videos my-videos --image me.jpg
    """
    settings = DemoSettings(
        out=out,
        videos=videos,
        image=image,
        profile="generated" if videos is None else "permissive",
        seed=seed,
        train_minutes=train_minutes,
    )
    by_parts = videos is not None and weights is None
    _check(settings, weights)
    check_room(out, DEMO_BYTES, "The demo")
    if by_parts:
        from animaray.cli.demo.parts import NUM_STEPS
        from animaray.cli.demo.parts import run_photo_demo as make_page

        run = DemoRun(settings, num_steps=NUM_STEPS)
    else:
        from animaray.cli.demo.page import run_whole_demo as make_page

        run = DemoRun(settings)
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with ray_session():
        page = make_page(run)
    if as_json:
        print_json({"page": str(page), "facts": run.facts, "timings": run.timings})
    seconds = time.monotonic() - started
    print_hint(f"Done in {seconds:.0f} s. Open {page.absolute()}")


def _check(settings: DemoSettings, weights: Path | None) -> None:
    for name, folder in (("--videos", settings.videos), ("--weights", weights)):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"There is no folder {folder} ({name}).")
    if settings.image is not None and not settings.image.is_file():
        raise UsageError(f"There is no picture {settings.image} (--image).")
    if settings.image is not None:
        check_picture(settings.image)
    if weights is not None:
        os.environ["ANIMARAY_WEIGHTS"] = str(weights.absolute())
    if settings.videos is not None:
        from animaray.pipelines.stages.identify import list_inputs

        list_inputs(settings.videos)
    if settings.videos is not None and weights is not None:  # without them they are pulled
        from animaray.models.perception.files import check_perception_files

        check_perception_files(settings.profile)
        from animaray.models.perception.profiles import load_codec, load_perception

        load_perception(settings.profile)
        load_codec(settings.profile)
