"""Arguments and options that only `animaray animate` has."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from animaray.cli.animate.options import OUTPUTS, PEOPLE, SAMPLING

INPUTS, ENGINE = "Inputs", "Engine"


class EngineChoice(StrEnum):
    """Ways of animating."""

    AUTO = "auto"
    PARTS = "parts"
    DIFFUSION = "diffusion"


class ProfileChoice(StrEnum):
    """What the picture shows."""

    PERMISSIVE = "permissive"
    GENERATED = "generated"


class ModeChoice(StrEnum):
    """What the engine `parts` moves."""

    BODY = "body"
    HEAD = "head"


class DeviceChoice(StrEnum):
    """Where the networks work."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


ImageArgument = Annotated[Path | None, typer.Argument(help="As --image", show_default=False)]
DrivingArgument = Annotated[Path | None, typer.Argument(help="As --driving", show_default=False)]
ImageOption = Annotated[
    Path | None,
    typer.Option("--image", help="Picture of the person", rich_help_panel=INPUTS),
]
DrivingOption = Annotated[
    Path | None,
    typer.Option(
        "--driving",
        help="Driving video, a pose file (.json, .npz) or a folder of OpenPose's JSON",
        rich_help_panel=INPUTS,
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="Weights folder of an animator, for the engine `diffusion`",
        show_default="with diffusion, the small bundled one (drawn people only)",
        rich_help_panel=INPUTS,
    ),
]
EngineOption = Annotated[
    EngineChoice,
    typer.Option(
        help="`parts` moves the photo's own pixels; `diffusion` needs weights; `auto` takes"
        " diffusion where --weights are given",
        rich_help_panel=ENGINE,
    ),
]
JobEngineOption = Annotated[
    EngineChoice | None,
    typer.Option(help="`parts` or `diffusion`; default: the server's weights, by diffusion"),
]
ProfileOption = Annotated[
    ProfileChoice,
    typer.Option(
        help="What the picture is without --weights: a photo, or a person of the generated world"
        " (then diffusion)",
        rich_help_panel=ENGINE,
    ),
]
LongSideOption = Annotated[
    int | None,
    typer.Option(
        min=512,
        max=1080,
        help="Long side of the result of `parts`, pixels",
        show_default="768",
        rich_help_panel=ENGINE,
    ),
]
ModeOption = Annotated[
    ModeChoice | None,
    typer.Option(
        help="What `parts` moves: the whole body, or head and shoulders; default: what the picture"
        " allows",
        rich_help_panel=ENGINE,
    ),
]
FpsOption = Annotated[
    str,
    typer.Option(
        help="Frames per second that are animated: `source`, `model` (what the weights were"
        " trained at; faster) or a number",
        rich_help_panel=INPUTS,
    ),
]
MaxFramesOption = Annotated[
    int | None, typer.Option(min=2, help="Only the first N frames", rich_help_panel=INPUTS)
]
DrivingSizeOption = Annotated[
    str | None,
    typer.Option(help="Picture size WxH of pose files that do not tell it", rich_help_panel=INPUTS),
]
IdentityOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="Portrait whose identity the k-th person gets, instead of the picture's face",
        rich_help_panel=PEOPLE,
    ),
]
DeviceOption = Annotated[
    DeviceChoice, typer.Option(help="Where the networks work", rich_help_panel=SAMPLING)
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="The mp4 to write", rich_help_panel=OUTPUTS)
]
ReportOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder for alignment.png, contact_sheet.png, report.json and previews",
        rich_help_panel=OUTPUTS,
    ),
]
PreviewOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Write decoded estimates as PNG every N steps, into the report's folder or beside"
        " the result",
        rich_help_panel=OUTPUTS,
    ),
]
SavePosesOption = Annotated[
    Path | None,
    typer.Option(help="Write the driving poses (.json, .npz)", rich_help_panel=OUTPUTS),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", "-n", help="Check everything, write nothing", rich_help_panel=OUTPUTS
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Go on where memory is short or the pose does not fit",
        rich_help_panel=OUTPUTS,
    ),
]
