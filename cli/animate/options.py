"""Options that `animaray animate` and `animaray jobs submit` share."""

from enum import StrEnum
from typing import Annotated

import typer

PEOPLE, SAMPLING, OUTPUTS = "People", "Sampling", "Outputs"


class AlignmentChoice(StrEnum):
    """Ways of moving the driving pose onto the person."""

    NONE = "none"
    FIT = "fit"
    PROCRUSTES = "procrustes"
    LEARNED = "learned"


class SamplerChoice(StrEnum):
    """Ways of stepping from noise to frames."""

    EULER = "euler"
    HEUN = "heun"


class WindowChoice(StrEnum):
    """How windows lie over a long video."""

    PUBLISHED = "published"
    SLIDING = "sliding"


class FaceChoice(StrEnum):
    """Modes of face optimization."""

    OFF = "off"
    FAST = "fast"
    PUBLISHED = "published"
    LITERAL = "literal"


PersonOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Who of several drives: left, right, largest, all, N from the left, or a point"
        " x,y; repeat for several",
        rich_help_panel=PEOPLE,
    ),
]
ReferencePersonOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Who of the picture is animated; the k-th follows the k-th --person",
        rich_help_panel=PEOPLE,
    ),
]
NoFaceOption = Annotated[
    bool,
    typer.Option(
        "--no-face",
        help="The picture shows no human face: go on without an identity (engine `diffusion`)",
        rich_help_panel=PEOPLE,
    ),
]
AudioOption = Annotated[
    bool,
    typer.Option(
        "--audio/--no-audio",
        help="Keep the driving video's sound",
        rich_help_panel=OUTPUTS,
    ),
]
AlignmentOption = Annotated[
    AlignmentChoice | None,
    typer.Option(
        help="How the pose moves onto the person; default: learned",
        rich_help_panel=PEOPLE,
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        min=1, max=1000, help="Denoising steps; default: the model's", rich_help_panel=SAMPLING
    ),
]
SamplerOption = Annotated[
    SamplerChoice | None,
    typer.Option(help="euler, or heun: twice the work a step", rich_help_panel=SAMPLING),
]
GuidanceOption = Annotated[
    float | None,
    typer.Option(
        min=1.0,
        max=20.0,
        help="Guidance scale; 1 is off; default: the model's",
        rich_help_panel=SAMPLING,
    ),
]
GuidanceMinOption = Annotated[
    float | None,
    typer.Option(
        min=1.0, max=20.0, help="Guidance scale of the first frame", rich_help_panel=SAMPLING
    ),
]
GuidanceMaxOption = Annotated[
    float | None,
    typer.Option(
        min=1.0, max=20.0, help="... rising to the last frame's", rich_help_panel=SAMPLING
    ),
]
WindowFramesOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Frames denoised together; default: as trained", rich_help_panel=SAMPLING
    ),
]
WindowOverlapOption = Annotated[
    int | None,
    typer.Option(min=0, help="Frames that windows share", rich_help_panel=SAMPLING),
]
WindowRuleOption = Annotated[
    WindowChoice | None,
    typer.Option(help="How windows lie over a long video", rich_help_panel=SAMPLING),
]
FaceOptimizationOption = Annotated[
    FaceChoice | None,
    typer.Option(
        help="Steer steps towards the person's identity; default: fast",
        rich_help_panel=SAMPLING,
    ),
]
SeedOption = Annotated[
    int, typer.Option(min=0, help="Same seed, same video", rich_help_panel=SAMPLING)
]
