"""`animaray animate`: one picture and one driving video in, one mp4 out, without a server."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from animaray.cli.animate_options import (
    PEOPLE,
    SAMPLING,
    AlignmentOption,
    FaceOptimizationOption,
    GuidanceMaxOption,
    GuidanceMinOption,
    GuidanceOption,
    PersonOption,
    ReferencePersonOption,
    SamplerOption,
    SeedOption,
    StepsOption,
    WindowFramesOption,
    WindowOverlapOption,
    WindowRuleOption,
)
from animaray.cli.output import JsonOption
from animaray.platform.errors import UsageError


class DeviceChoice(StrEnum):
    """Where the networks work."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


INPUTS, OUTPUTS = "Inputs", "Outputs"


def animate(
    image: Annotated[Path | None, typer.Argument(help="As --image", show_default=False)] = None,
    driving: Annotated[Path | None, typer.Argument(help="As --driving", show_default=False)] = None,
    image_option: Annotated[
        Path | None,
        typer.Option("--image", help="Picture of the person", rich_help_panel=INPUTS),
    ] = None,
    driving_option: Annotated[
        Path | None,
        typer.Option(
            "--driving",
            help="Driving video, a pose file (.json, .npz) or a folder of OpenPose's JSON",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            help="Weights folder; default: the small bundled animator (drawn people only)",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    fps: Annotated[
        str,
        typer.Option(
            help="Frames per second that are animated: `source`, `model` (what the weights were"
            " trained at; faster) or a number",
            rich_help_panel=INPUTS,
        ),
    ] = "source",
    max_frames: Annotated[
        int | None, typer.Option(min=2, help="Only the first N frames", rich_help_panel=INPUTS)
    ] = None,
    driving_size: Annotated[
        str | None,
        typer.Option(
            help="Picture size WxH of pose files that do not tell it", rich_help_panel=INPUTS
        ),
    ] = None,
    person: PersonOption = None,
    reference_person: ReferencePersonOption = None,
    identity: Annotated[
        list[Path] | None,
        typer.Option(
            help="Portrait whose identity the k-th person gets, instead of the picture's face",
            rich_help_panel=PEOPLE,
        ),
    ] = None,
    alignment: AlignmentOption = None,
    seed: SeedOption = 0,
    steps: StepsOption = None,
    sampler: SamplerOption = None,
    guidance: GuidanceOption = None,
    guidance_min: GuidanceMinOption = None,
    guidance_max: GuidanceMaxOption = None,
    window_frames: WindowFramesOption = None,
    window_overlap: WindowOverlapOption = None,
    window_rule: WindowRuleOption = None,
    face_optimization: FaceOptimizationOption = None,
    device: Annotated[
        DeviceChoice, typer.Option(help="Where the networks work", rich_help_panel=SAMPLING)
    ] = DeviceChoice.AUTO,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The mp4 to write", rich_help_panel=OUTPUTS)
    ] = Path("animation.mp4"),
    report: Annotated[
        Path | None,
        typer.Option(
            help="Folder for alignment.png, contact_sheet.png, report.json and previews",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    preview: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Write decoded estimates as PNG every N steps, into the report's folder or beside"
            " the result",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    save_poses: Annotated[
        Path | None,
        typer.Option(help="Write the driving poses (.json, .npz)", rich_help_panel=OUTPUTS),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", "-n", help="Check everything, write nothing", rich_help_panel=OUTPUTS
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Go on where memory is short or the pose does not fit",
            rich_help_panel=OUTPUTS,
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Animate a picture with the motion of a video on this machine.

    Example: animaray animate me.jpg dance.mp4 --weights demo/weights --out me-dancing.mp4

    Raises:
        UsageError: An input file does not exist.
    """
    image_path = _one_of(image, image_option, "--image")
    driving_path = _one_of(driving, driving_option, "--driving")
    for path in (image_path, driving_path):
        if not path.exists():
            raise UsageError(f"There is no file {path}.")
    # torch is loaded only when there is something to do
    from animaray.cli.animate_inputs import AnimateRequest
    from animaray.cli.animate_run import run_animation
    from animaray.models.animation_records import AnimationOptions
    from animaray.models.person_choice import Casting

    options: dict[str, Any] = {
        "seed": seed,
        "num_inference_steps": steps,
        "sampler": sampler and sampler.value,
        "guidance_scale": guidance,
        "guidance_min": guidance_min,
        "guidance_max": guidance_max,
        "window_frames": window_frames,
        "window_overlap": window_overlap,
        "window_rule": window_rule and window_rule.value,
        "alignment": alignment and alignment.value,
        "face_optimization": face_optimization and face_optimization.value,
        "preview_every": preview or 0,
    }
    request = AnimateRequest(
        image=image_path,
        driving=driving_path,
        out=out,
        weights=weights,
        options=AnimationOptions(**options),
        casting=Casting.parse(person or (), reference_person or ()),
        identities=tuple(identity or ()),
        fps=fps,
        max_frames=max_frames,
        driving_size_px=_size(driving_size),
        device=device.value,
        save_poses=save_poses,
        report_dir=report,
        force=force,
    )
    run_animation(request, dry_run=dry_run, as_json=as_json)


def _one_of(argument: Path | None, option: Path | None, name: str) -> Path:
    """Return the path that was given by place or by name.

    Raises:
        UsageError: It was given twice, or not at all.
    """
    if argument is not None and option is not None:
        raise UsageError(f"{name} is given twice: {argument} and {option}.")
    path = argument or option
    if path is None:
        raise UsageError(
            f"{name} is missing.", fix="animaray animate PICTURE VIDEO --out result.mp4"
        )
    return path


def _size(text: str | None) -> tuple[int, int] | None:
    """Read WIDTHxHEIGHT.

    Raises:
        UsageError: It is something else.
    """
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) > 0):
        raise UsageError(f"--driving-size takes WIDTHxHEIGHT in pixels, got `{text[:32]}`.")
    return int(width), int(height)
