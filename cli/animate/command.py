"""`animaray animate`: one picture and one driving video in, one mp4 out, without a server."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from animaray.cli.animate.request import AnimateRequest
from animaray.cli.early_checks import check_picture, check_video, check_weights
from animaray.cli.options import with_options
from animaray.cli.output import JsonOption, print_hint
from animaray.models.animation.options import (
    PYTHON_ONLY,
    AnimationOptions,
    AnimationRequest,
    choose_engine,
)
from animaray.models.parts.options import PartsOptions
from animaray.platform.errors import UsageError
from animaray.platform.media.file_kind import is_pose_file
from animaray.platform.options import fields_of

FLAGS = {
    "driving_size_px": "--driving-size",
    "guidance_scale": "--guidance",
    "identities": "--identity",
    "long_side_px": "--long-side",
    "num_inference_steps": "--steps",
    "out": "--out -o",
    "preview_every": "--preview",
    "report_dir": "--report",
}
"""Options whose name is not their field's."""
_PANELS = {
    "Inputs": ("weights", "fps", "max_frames", "driving_size_px"),
    "Engine": ("engine", "mode", "long_side_px"),
    "People": ("person", "reference_person", "identities", "no_face", "alignment"),
    "Sampling": ("seed",),
    "Outputs": ("out", "audio", "report_dir", "preview_every", "save_poses", "force"),
}
PANELS = {name: panel for panel, names in _PANELS.items() for name in names}
PANELS |= {name: "Sampling" for name in fields_of(AnimationOptions) if name not in PANELS}
PANELS["device"] = "Sampling"


@with_options(
    AnimateRequest,
    AnimationRequest,
    without={"image", "driving", "options", *PYTHON_ONLY},
    flags=FLAGS,
    panels=PANELS,
)
def animate(
    image: Annotated[Path | None, typer.Argument(help="As --image", show_default=False)] = None,
    driving: Annotated[Path | None, typer.Argument(help="As --driving", show_default=False)] = None,
    image_option: Annotated[
        Path | None,
        typer.Option("--image", help="Picture of the person", rich_help_panel="Inputs"),
    ] = None,
    driving_option: Annotated[
        Path | None,
        typer.Option(
            "--driving",
            help="Driving video, a pose file (.json, .npz) or a folder of OpenPose's JSON",
            rich_help_panel="Inputs",
        ),
    ] = None,
    profile: Annotated[
        Literal["permissive", "generated"],
        typer.Option(
            help="What the picture is without --weights: a photo, or a person of the generated"
            " world (then diffusion)",
            rich_help_panel="Inputs",
        ),
    ] = "permissive",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", "-n", help="Check everything, say the plan, write nothing"),
    ] = False,
    as_json: JsonOption = False,
    *,
    options: Mapping[str, Any],
) -> None:
    """Animate a picture with the motion of a video on this machine.

    A photo is moved by parts, without a generative network; --weights animates by diffusion.

    Example: animaray animate me.jpg dance.mp4 --out me.mp4
    """
    own = {name: value for name, value in options.items() if name in fields_of(AnimateRequest)}
    asked = {name: value for name, value in options.items() if name not in own}
    request = AnimateRequest(
        image=_one_of(image, image_option, "--image"),
        driving=_one_of(driving, driving_option, "--driving"),
        options=AnimationRequest(**asked),
        **own,
    )
    for picture in (request.image, *request.identities):
        check_picture(picture)
    if not is_pose_file(request.driving):
        check_video(request.driving)
    check_weights(request.weights)
    wanted = request.options.engine
    engine = choose_engine(
        "diffusion" if wanted == "auto" and is_pose_file(request.driving) else wanted,
        has_weights=request.weights is not None,
        profile=profile,
    )
    if engine == "parts":
        _refuse_diffusion_options(request, asked)
        print_hint("The inputs can be read; loading the networks that see people ...")
        from animaray.cli.animate.parts import run_parts as carry_out  # torch is not loaded
    else:
        _refuse_parts_options(request, asked)
        print_hint("The inputs can be read; loading PyTorch and the networks ...")
        from animaray.cli.animate.run import run_animation as carry_out

    carry_out(request, dry_run=dry_run, as_json=as_json)


def _refuse_diffusion_options(request: AnimateRequest, typed: Collection[str]) -> None:
    """Refuse what only the engine `diffusion` takes where a picture is moved by parts.

    Raises:
        UsageError: Such an option is given, or the motion comes without pictures.
    """
    if is_pose_file(request.driving):
        raise UsageError(
            "The engine `parts` needs a driving video: pose files hold no depth and no face.",
            fix="Give a video, or use --engine diffusion.",
        )
    names = [name for name in fields_of(AnimationOptions) if name in typed and name != "seed"]
    given = [FLAGS.get(name, f"--{name.replace('_', '-')}") for name in names]
    given += ["--identity"] if request.identities else []
    given += ["--save-poses"] if request.save_poses is not None else []
    given += ["--driving-size"] if request.driving_size_px is not None else []
    given += ["--device cuda"] if request.device == "cuda" else []
    if given:
        raise UsageError(
            f"{', '.join(given)}: of the engine `diffusion`, and this picture would be moved by"
            " parts.",
            fix="Leave it out, or add --engine diffusion.",
        )


def _refuse_parts_options(request: AnimateRequest, typed: Collection[str]) -> None:
    """Refuse what the engine `diffusion` does not take.

    Raises:
        UsageError: An option of the other engine is given, or one that another leaves no sense.
    """
    if any(name in typed for name in fields_of(PartsOptions)):
        raise UsageError(
            "--long-side and --mode belong to the engine `parts`; weights decide the size.",
            fix="Leave them out, or use --engine parts without --weights.",
        )
    if request.options.no_face and request.identities:
        raise UsageError("--identity and --no-face exclude each other.")


def _one_of(argument: Path | None, option: Path | None, name: str) -> Path:
    """Return the path that was given by place or by name.

    Raises:
        UsageError: It was given twice, not at all, or names nothing that exists.
    """
    if argument is not None and option is not None:
        raise UsageError(f"{name} is given twice: {argument} and {option}.")
    path = argument or option
    if path is None:
        raise UsageError(
            f"{name} is missing.", fix="animaray animate PICTURE VIDEO --out result.mp4"
        )
    if not path.exists():
        raise UsageError(f"There is no file {path}.")
    return path
