"""`animaray animate`: one picture and one driving video in, one mp4 out, without a server."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from animaray.cli.animate.arguments import (
    DeviceChoice,
    DeviceOption,
    DrivingArgument,
    DrivingOption,
    DrivingSizeOption,
    DryRunOption,
    EngineChoice,
    EngineOption,
    ForceOption,
    FpsOption,
    IdentityOption,
    ImageArgument,
    ImageOption,
    LongSideOption,
    MaxFramesOption,
    ModeOption,
    OutOption,
    PreviewOption,
    ProfileChoice,
    ProfileOption,
    ReportOption,
    SavePosesOption,
    WeightsOption,
)
from animaray.cli.animate.options import (
    AlignmentOption,
    AudioOption,
    FaceOptimizationOption,
    GuidanceMaxOption,
    GuidanceMinOption,
    GuidanceOption,
    NoFaceOption,
    PersonOption,
    ReferencePersonOption,
    SamplerOption,
    SeedOption,
    StepsOption,
    WindowFramesOption,
    WindowOverlapOption,
    WindowRuleOption,
)
from animaray.cli.animate.request import refuse_diffusion_options
from animaray.cli.early_checks import check_picture, check_video, check_weights
from animaray.cli.output import JsonOption, print_hint
from animaray.cli.sizes import read_size
from animaray.models.animation.options import choose_engine
from animaray.models.parts.options import PartsOptions
from animaray.models.subjects.choice import Casting
from animaray.platform.errors import UsageError
from animaray.platform.media.file_kind import is_pose_file


def animate(
    image: ImageArgument = None,
    driving: DrivingArgument = None,
    image_option: ImageOption = None,
    driving_option: DrivingOption = None,
    weights: WeightsOption = None,
    engine: EngineOption = EngineChoice.AUTO,
    profile: ProfileOption = ProfileChoice.PERMISSIVE,
    long_side: LongSideOption = None,
    mode: ModeOption = None,
    fps: FpsOption = "source",
    max_frames: MaxFramesOption = None,
    driving_size: DrivingSizeOption = None,
    person: PersonOption = None,
    reference_person: ReferencePersonOption = None,
    identity: IdentityOption = None,
    no_face: NoFaceOption = False,
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
    audio: AudioOption = True,
    device: DeviceOption = DeviceChoice.AUTO,
    out: OutOption = Path("animation.mp4"),
    report: ReportOption = None,
    preview: PreviewOption = None,
    save_poses: SavePosesOption = None,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Animate a picture with the motion of a video on this machine.

    A photo is moved by parts, without a generative network; --weights animates by diffusion.

    Example: animaray animate me.jpg dance.mp4 --out me.mp4
    """
    asked = {name: _value(value) for name, value in locals().items()}
    image_path = _one_of(image, image_option, "--image")
    driving_path = _one_of(driving, driving_option, "--driving")
    _check_files([image_path, *(identity or ())], driving_path, weights)
    by_itself = engine is EngineChoice.AUTO and is_pose_file(driving_path)
    chosen = choose_engine(
        "diffusion" if by_itself else engine.value,
        has_weights=weights is not None,
        profile=profile.value,
    )
    carry_out = _by_parts if chosen == "parts" else _by_diffusion
    carry_out(asked, image_path, driving_path)


def _by_parts(asked: Mapping[str, Any], image: Path, driving: Path) -> None:
    """Move the photo by parts; torch is not loaded."""
    refuse_diffusion_options(asked, driving)
    casting = _casting(asked)
    print_hint("The inputs can be read; loading the networks that see people ...")
    from animaray.cli.animate.parts import PartsRequest, run_parts

    request = PartsRequest(
        image=image,
        driving=driving,
        out=asked["out"],
        options=PartsOptions(long_side_px=asked["long_side"] or 768, mode=asked["mode"]),
        casting=casting,
        fps=asked["fps"],
        max_frames=asked["max_frames"],
        report_dir=asked["report"],
        keep_sound=asked["audio"],
    )
    run_parts(request, dry_run=asked["dry_run"], as_json=asked["as_json"])


def _by_diffusion(asked: Mapping[str, Any], image: Path, driving: Path) -> None:
    """Animate by an animator's weights.

    Raises:
        UsageError: An option of the other engine is given, or one that another one leaves no
            sense.
    """
    if (asked["long_side"], asked["mode"]) != (None, None):
        raise UsageError(
            "--long-side and --mode belong to the engine `parts`; weights decide the size.",
            fix="Leave them out, or use --engine parts without --weights.",
        )
    if asked["no_face"] and asked["identity"]:
        raise UsageError("--identity and --no-face exclude each other.")
    size = asked["driving_size"]
    size_px = read_size(size, "--driving-size") if size is not None else None
    # torch is loaded only when there is something to do
    print_hint("The inputs can be read; loading PyTorch and the networks ...")
    from animaray.cli.animate.inputs import AnimateRequest
    from animaray.cli.animate.run import run_animation
    from animaray.models.animation.options import AnimationOptions

    request = AnimateRequest(
        image=image, driving=driving, out=asked["out"], weights=asked["weights"],
        options=AnimationOptions(
            seed=asked["seed"], num_inference_steps=asked["steps"], sampler=asked["sampler"],
            guidance_scale=asked["guidance"], guidance_min=asked["guidance_min"],
            guidance_max=asked["guidance_max"], window_frames=asked["window_frames"],
            window_overlap=asked["window_overlap"], window_rule=asked["window_rule"],
            alignment=asked["alignment"], face_optimization=asked["face_optimization"],
            no_face=asked["no_face"], preview_every=asked["preview"] or 0,
        ),
        casting=_casting(asked),
        identities=tuple(asked["identity"] or ()), fps=asked["fps"],
        max_frames=asked["max_frames"], driving_size_px=size_px, device=asked["device"],
        keep_sound=asked["audio"], save_poses=asked["save_poses"], report_dir=asked["report"],
        force=asked["force"],
    )  # fmt: skip
    run_animation(request, dry_run=asked["dry_run"], as_json=asked["as_json"])


def _casting(asked: Mapping[str, Any]) -> Casting:
    return Casting.parse(asked["person"] or (), asked["reference_person"] or ())


def _check_files(pictures: list[Path], driving: Path, weights: Path | None) -> None:
    """Refuse what cannot be read, before torch is loaded."""
    for picture in pictures:
        check_picture(picture)
    if not is_pose_file(driving):
        check_video(driving)
    check_weights(weights)


def _value(given: Any) -> Any:  # noqa: ANN401 - an option of any type
    """Return the word of a choice, and other options as they are."""
    return given.value if isinstance(given, StrEnum) else given


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
