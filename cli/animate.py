"""`animaray animate`: one picture and one driving video in, one mp4 out, without a server."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from animaray.cli.output import JsonOption, print_hint, print_json
from animaray.platform.errors import UsageError
from animaray.platform.progress import stage_progress


class AlignmentChoice(StrEnum):
    """Ways of moving the driving pose onto the person."""

    NONE = "none"
    PROCRUSTES = "procrustes"
    LEARNED = "learned"


def animate(
    image: Annotated[Path, typer.Argument(help="Picture of the person")],
    video: Annotated[Path, typer.Argument(help="Driving video")],
    weights: Annotated[Path, typer.Option("--weights", help="Weights folder")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The mp4 to write")] = Path(
        "animation.mp4"
    ),
    seed: Annotated[int, typer.Option(help="Same seed, same video")] = 0,
    steps: Annotated[int, typer.Option(min=1, max=200, help="Denoising steps")] = 25,
    guidance: Annotated[float, typer.Option(min=1.0, help="Guidance scale; 1 is off")] = 2.0,
    alignment: Annotated[
        AlignmentChoice | None,
        typer.Option(help="How to move the pose onto the person; default: learned if trained"),
    ] = None,
    face_optimization: Annotated[
        bool, typer.Option(help="Correct the face while sampling (HJB)")
    ] = True,
    max_frames: Annotated[int | None, typer.Option(min=2, help="Only the first N frames")] = None,
    as_json: JsonOption = False,
) -> None:
    """Animate a picture with the motion of a video on this machine.

    Example: animaray animate me.jpg dance.mp4 --weights demo/weights --out me-dancing.mp4

    Raises:
        UsageError: An input file does not exist.
    """
    for path in (image, video):
        if not path.is_file():
            raise UsageError(f"There is no file {path}.")
    from animaray.models.animation import AnimationOptions, AnimationPipeline, AnimationProgress
    from animaray.platform.video import decode_in_child, read_picture, write_mp4

    pipeline = AnimationPipeline.from_pretrained(weights)
    reference = pipeline.prepare_reference(read_picture(image))
    driving = decode_in_child(video, fps=pipeline.fps, max_frames=max_frames)
    if driving.warning:
        print_hint(f"warning: {video}: {driving.warning}")
    motion = pipeline.estimate_motion(driving.frames_uint8)
    options = AnimationOptions(
        seed=seed,
        num_inference_steps=steps,
        guidance_scale=guidance,
        alignment=alignment.value if alignment else None,
        face_optimization=face_optimization,
    )
    with stage_progress("denoise", steps) as row:

        def show(progress: AnimationProgress) -> None:
            row.update(done=progress.step, total=progress.num_steps, note=progress.phase)

        animation = pipeline.animate(reference, motion, options, on_progress=show)
    write_mp4(out, animation.frames_uint8, fps=pipeline.fps)
    if as_json:
        print_json({"video": str(out), **animation.summary()})
    print_hint(f"Wrote {out}: {animation.describe()}")
