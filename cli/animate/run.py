"""Carry out an `animaray animate`: plan, look, refuse or go on, denoise, write."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from animaray.cli.animate.plan import AnimatePlan, make_plan, plan_facts
from animaray.cli.animate.report import (
    plan_lines,
    write_alignment_overlay,
    write_contact_sheet,
    write_preview,
    write_report,
)
from animaray.cli.animate.request import AnimateRequest
from animaray.cli.animate.result import SoundSource, origin_facts, write_result
from animaray.cli.output import print_hint, print_json, print_lines
from animaray.models.animation.pipeline import Animation, AnimationPreview, AnimationProgress
from animaray.models.subjects.pose_files import write_pose_file
from animaray.platform.media.video import write_mp4
from animaray.platform.progress import stage_progress
from animaray.platform.weights.store import BUNDLED_ANIMATOR


def run_animation(request: AnimateRequest, *, dry_run: bool, as_json: bool) -> None:
    """Make the plan, show it, refuse or go on.

    Args:
        request: What the user asks for.
        dry_run: Only show the plan; nothing is written.
        as_json: Print one JSON document on stdout.
    """
    plan = make_plan(replace(request, report_dir=None) if dry_run else request)
    facts = plan_facts(plan)
    lines = plan_lines(facts, plan.qualities)
    plan.check_room()
    if dry_run:
        if as_json:
            print_json({"plan": facts, "is_dry_run": True})
        else:
            print_lines(*lines)
        if not request.force:
            plan.check()
        print_hint("Dry run: everything fits, nothing was written.")
        return
    print_hint("\n".join(lines))
    _write_before(plan)
    if not request.force:
        plan.check()
    animation, previews = denoise(plan)
    _write_mp4(plan, facts, animation)
    if request.report_dir is not None:
        write_contact_sheet(request.report_dir / "contact_sheet.png", animation, previews)
        write_report(request.report_dir / "report.json", facts, animation)
    if as_json:
        print_json({"video": str(request.out), **animation.summary(), "plan": facts})
    print_hint(f"Wrote {request.out}: {animation.describe()}")


def _write_before(plan: AnimatePlan) -> None:
    """Write what can be looked at before any denoising: poses, overlay, plan."""
    request = plan.request
    if request.save_poses is not None:
        motions = [motion for _, motion in plan.subjects]
        write_pose_file(request.save_poses, motions, plan.driving.fps)
        print_hint(f"Wrote {request.save_poses}")
    if request.report_dir is not None:
        people = [
            (reference.pose, pose)
            for (reference, _), pose in zip(plan.subjects, plan.poses, strict=True)
        ]
        path = write_alignment_overlay(
            request.report_dir / "alignment.png",
            plan.subjects[0][0].picture_uint8,
            people,
            plan.qualities,
        )
        write_report(request.report_dir / "report.json", plan_facts(plan), None)
        print_hint(f"Wrote {path}: look at it while the work goes on")


def denoise(plan: AnimatePlan) -> tuple[Animation, list[AnimationPreview]]:
    """Make the frames; return them with the previews seen on the way."""
    request = plan.request
    previews: list[AnimationPreview] = []
    (reference, motion), *companions = plan.subjects
    is_done = False
    try:
        with stage_progress("denoise", plan.sampler.num_inference_steps + 2) as row:
            animation = plan.pipeline.animate(
                reference,
                motion,
                request.options,
                on_progress=_reporter(row.update),
                companions=companions,
                on_preview=_previewer(request, previews) if request.options.preview_every else None,
            )
        is_done = True
    finally:
        if not is_done:
            print_hint(f"{request.out} was not written.")
    return animation, previews


def _write_mp4(plan: AnimatePlan, facts: Mapping[str, Any], animation: Animation) -> None:
    request, fps, info = plan.request, plan.driving.fps, plan.driving.info
    sound = None
    if info is not None and request.options.audio:
        duration_s = len(animation.frames_uint8) / fps
        sound = SoundSource(video=request.driving, info=info, duration_s=duration_s)
    told = {name: facts[name] for name in ("sampling", "face_optimization", "no_face")}
    told["weights"] = request.weights.name if request.weights else BUNDLED_ANIMATOR
    write_result(
        request.out,
        lambda path: write_mp4(path, animation.frames_uint8, fps=fps),
        origin_facts("diffusion", request.image, request.driving, told),
        sound,
    )


def _reporter(update: Callable[..., None]) -> Callable[[AnimationProgress], None]:
    """Return what shows step and identity similarity in a progress row."""

    def show(progress: AnimationProgress) -> None:
        similarity = progress.identity_similarity
        note = progress.phase
        if similarity is not None and progress.phase == "denoise":
            note += f", identity similarity {similarity:.3f}"
        update(done=progress.step, total=progress.num_steps, note=note)

    return show


def _previewer(
    request: AnimateRequest, previews: list[AnimationPreview]
) -> Callable[[AnimationPreview], None]:
    """Return what keeps and writes each preview."""
    beside = request.out.with_name(f"{request.out.stem}-previews")
    folder = beside if request.report_dir is None else request.report_dir / "previews"

    def keep(preview: AnimationPreview) -> None:
        previews.append(preview)
        write_preview(folder, preview)

    return keep
