"""`animaray animate`: one picture and one driving video in, one mp4 out, without a server."""

from enum import StrEnum
from pathlib import Path
from typing import Any

from animaray.cli.animate_arguments import (
    DeviceChoice,
    DeviceOption,
    DrivingArgument,
    DrivingOption,
    DrivingSizeOption,
    DryRunOption,
    ForceOption,
    FpsOption,
    IdentityOption,
    ImageArgument,
    ImageOption,
    MaxFramesOption,
    OutOption,
    PreviewOption,
    ReportOption,
    SavePosesOption,
    WeightsOption,
)
from animaray.cli.animate_options import (
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
from animaray.cli.early_checks import check_picture, check_video, check_weights
from animaray.cli.output import JsonOption, print_hint
from animaray.cli.sizes import read_size
from animaray.platform.errors import UsageError
from animaray.platform.file_kind import is_pose_file


def animate(
    image: ImageArgument = None,
    driving: DrivingArgument = None,
    image_option: ImageOption = None,
    driving_option: DrivingOption = None,
    weights: WeightsOption = None,
    fps: FpsOption = "source",
    max_frames: MaxFramesOption = None,
    driving_size: DrivingSizeOption = None,
    person: PersonOption = None,
    reference_person: ReferencePersonOption = None,
    identity: IdentityOption = None,
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

    Example: animaray animate me.jpg dance.mp4 --weights demo/runs/animator/weights --out me.mp4
    """
    image_path = _one_of(image, image_option, "--image")
    driving_path = _one_of(driving, driving_option, "--driving")
    size_px = read_size(driving_size, "--driving-size") if driving_size is not None else None
    _check_files([image_path, *(identity or ())], driving_path, weights)
    # torch is loaded only when there is something to do
    print_hint("The inputs can be read; loading PyTorch and the networks ...")
    from animaray.cli.animate_inputs import AnimateRequest
    from animaray.cli.animate_run import run_animation
    from animaray.models.animation_records import AnimationOptions
    from animaray.models.person_choice import Casting

    request = AnimateRequest(
        image=image_path, driving=driving_path, out=out, weights=weights,
        options=AnimationOptions(
            seed=seed, num_inference_steps=steps, sampler=_value(sampler),
            guidance_scale=guidance, guidance_min=guidance_min, guidance_max=guidance_max,
            window_frames=window_frames, window_overlap=window_overlap,
            window_rule=_value(window_rule),
            alignment=_value(alignment),
            face_optimization=_value(face_optimization),
            preview_every=preview or 0,
        ),
        casting=Casting.parse(person or (), reference_person or ()),
        identities=tuple(identity or ()), fps=fps, max_frames=max_frames,
        driving_size_px=size_px, device=device.value, save_poses=save_poses,
        report_dir=report, force=force,
    )  # fmt: skip
    run_animation(request, dry_run=dry_run, as_json=as_json)


def _check_files(pictures: list[Path], driving: Path, weights: Path | None) -> None:
    """Refuse what cannot be read, before torch is loaded."""
    for picture in pictures:
        check_picture(picture)
    if not is_pose_file(driving):
        check_video(driving)
    check_weights(weights)


def _value(choice: StrEnum | None) -> Any:  # noqa: ANN401 - checked by AnimationOptions
    """Return the word of a choice, or None where none was made."""
    return None if choice is None else choice.value


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
