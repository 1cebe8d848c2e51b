"""What `animaray animate` is going to do: all is read and looked at before anything is written."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, get_args

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from animaray.cli.animate.report import write_people
from animaray.cli.animate.request import MIN_FRAMES, AnimateRequest
from animaray.models.alignment.alignment import AlignedPose
from animaray.models.alignment.methods import AlignmentMethod
from animaray.models.alignment.quality import AlignmentQuality, judge_alignment
from animaray.models.animation.memory import MemoryEstimate
from animaray.models.animation.options import AnimationOptions
from animaray.models.animation.pipeline import AnimationPipeline
from animaray.models.animation.settings import face_settings, sampler_settings
from animaray.models.diffusion.sampler_config import SamplerConfig
from animaray.models.diffusion.windows import window_indices
from animaray.models.perception.find_people import DRIVING_SHORT_SIDE_PX, find_people
from animaray.models.subjects.choice import PersonChoice
from animaray.models.subjects.motion import Motion, PeopleInVideo
from animaray.models.subjects.pairing import Subject, pair_people, with_identities
from animaray.models.subjects.pose_files import read_pose_file
from animaray.models.subjects.reference import Reference, check_face_sizes, embed_identity
from animaray.platform.disk import check_room
from animaray.platform.errors import (
    AnimarayError,
    MediaError,
    PersonChoiceError,
    PoseError,
    UsageError,
)
from animaray.platform.machine import available_memory_bytes, check_memory
from animaray.platform.media.file_kind import is_pose_file
from animaray.platform.media.video import (
    ChildFrameStream,
    FrameSelection,
    VideoInfo,
    probe_in_child,
    read_picture_in_child,
)
from animaray.platform.progress import stage_progress
from animaray.platform.weights.store import BUNDLED_ANIMATOR, resolve_weights

_MP4_BYTES_PER_PIXEL = 0.3
"""More than the busiest of our results has."""
_MP4_BYTES = 64 * 1024
"""Of head and index."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrivingClip:
    """The motion to follow."""

    motions: tuple[Motion, ...]
    """Of the chosen people."""
    fps: float
    """Frame rate of the motions, and of the result."""
    warnings: tuple[str, ...] = ()
    """What is odd about the file."""
    info: VideoInfo | None = None
    """What is known of the video; None of pose files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimatePlan:
    """Everything that is known before the first denoising step."""

    request: AnimateRequest
    """What was asked for."""
    pipeline: AnimationPipeline
    """Ready to work."""
    picture_size_px: tuple[int, int]
    """Width and height of the reference picture."""
    subjects: tuple[Subject, ...]
    """The people, the main one first."""
    driving: DrivingClip
    """Frame rate and warnings of the driving video."""
    poses: tuple[AlignedPose, ...]
    """Each person's aligned poses."""
    qualities: tuple[AlignmentQuality, ...]
    """How well each fits."""
    alternatives: tuple[AlignmentQuality, ...]
    """How well the main person would fit by the other methods."""
    sampler: SamplerConfig
    """Resolved settings."""
    num_windows: int
    """Windows over time."""
    memory: MemoryEstimate
    """What it needs, by use."""
    available_bytes: int
    """Memory that is free where the networks work, or that the loaded networks hold already."""

    @property
    def num_frames(self) -> int:
        """Length of the result."""
        return len(self.subjects[0][1].keypoints)

    @property
    def has_sound(self) -> bool:
        """Whether the result gets the driving video's sound."""
        info = self.driving.info
        return self.request.options.audio and info is not None and info.has_audio

    def check_room(self) -> None:
        """Refuse a result that the disks could not hold, before the work for it; see DiskError."""
        config = self.pipeline.animator.config
        pixels = self.num_frames * config.width_px * config.height_px
        needed = round(pixels * _MP4_BYTES_PER_PIXEL) + _MP4_BYTES
        copies = 2 if self.has_sound else 1  # without and with sound, for a moment
        check_room(self.request.out.absolute().parent, copies * needed, f"{self.request.out}")
        check_room(Path(tempfile.gettempdir()), needed, "The encoder's temporary file")

    def check(self) -> None:
        """Refuse what would waste the user's time.

        Raises:
            PoseError: The driving body does not fit the picture.
        """
        what = f"This animation ({self.num_frames} frames; the peak is {self.memory.peak_stage})"
        check_memory(self.memory.peak_bytes, self.available_bytes, what=what, remedy=self._remedy())
        for quality in self.qualities:
            if quality.verdict == "poor":
                better = [other.method for other in self.alternatives if other.verdict != "poor"]
                hint = f" --alignment {better[0]} fits better, or" if better else ""
                raise PoseError(
                    "The driving body does not fit the picture: "
                    f"{quality.shown_out_of_frame_share:.0%} of the shown keypoints fall outside, "
                    f"mean distance {quality.residual:.2f} picture heights ({quality.method}).",
                    fix=f"Look at it with --report DIR;{hint} take another picture or video, or go"
                    " on with --force.",
                    reason="does_not_fit",
                )

    def _remedy(self) -> str:
        """Return what would fit, with its need."""
        fitting = []
        for mode in () if self.request.options.no_face else ("fast", "off"):
            options = replace(self.request.options, face_optimization=mode)
            need = self.pipeline.estimate_memory(self.num_frames, options).peak_bytes
            if need <= self.available_bytes and need < self.memory.peak_bytes:
                fitting.append(f"--face-optimization {mode} (about {need / 1024**3:.1f} GiB)")
        fits = f"It would fit with {' or '.join(fitting)}. " if fitting else ""
        return f"{fits}Fewer frames (--max-frames) need less; --force goes on all the same."


def make_plan(request: AnimateRequest) -> AnimatePlan:
    """Check and prepare everything; wrong inputs raise the typed errors of their parts.

    Nothing is written, but a picture of the people where a choice among them is missing and there
    is a folder for a report.

    Args:
        request: What the user asks for.
    """
    request.check_paths()
    picture = read_picture_in_child(request.image)
    portraits = [read_picture_in_child(path) for path in request.identities]
    weights = request.weights or resolve_weights(BUNDLED_ANIMATOR)
    pipeline = AnimationPipeline.from_pretrained(weights)
    sampler = sampler_settings(pipeline.animator.config, request.options)
    device = _device(request.device)
    references = prepare_people(request, pipeline, picture)
    if not request.identities:
        check_face_sizes(references)
    identities = embed_identities(request, pipeline, portraits)
    driving = read_driving(request, pipeline)
    subjects = pair_people(references, driving.motions, request.options.pairing)
    subjects = with_identities(subjects, identities)
    poses = pipeline.align(subjects, request.options)
    method = pipeline.alignment_method(request.options)
    num_frames = len(subjects[0][1].keypoints)
    memory = pipeline.estimate_memory(num_frames, request.options)
    pipeline.to(device)
    tiles = window_indices(
        num_frames, sampler.window_frames, sampler.window_overlap, sampler.window_rule
    )
    return AnimatePlan(
        request=request,
        pipeline=pipeline,
        picture_size_px=(picture.shape[1], picture.shape[0]),
        subjects=tuple(subjects),
        driving=driving,
        poses=tuple(poses),
        qualities=tuple(
            judge_alignment(method, reference.pose, pose)
            for (reference, _), pose in zip(subjects, poses, strict=True)
        ),
        alternatives=tuple(_alternatives(pipeline, subjects[0], method)),
        sampler=sampler,
        num_windows=len(tiles),
        memory=memory,
        available_bytes=_available_bytes(device) + memory.weights_bytes,
    )


def _device(wanted: str) -> torch.device:
    """Return where the networks work.

    Raises:
        UsageError: There is no CUDA device.
    """
    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise UsageError("This machine has no CUDA device.", fix="Use --device cpu.")
    return torch.device("cuda" if has_cuda and wanted != "cpu" else "cpu")


def _available_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info()[0] if device.type == "cuda" else available_memory_bytes()


def _alternatives(
    pipeline: AnimationPipeline, member: Subject, used: AlignmentMethod
) -> list[AlignmentQuality]:
    """Return how the other methods would fit the main person."""
    found = []
    for method in get_args(AlignmentMethod):
        if method == used or (method == "learned" and pipeline.aligner is None):
            continue
        try:
            (pose,) = pipeline.align([member], AnimationOptions(alignment=method))
        except PoseError:  # this method finds too little to hold on to
            continue
        found.append(judge_alignment(method, member[0].pose, pose))
    return found


def prepare_people(
    request: AnimateRequest,
    pipeline: AnimationPipeline,
    picture: UInt8[np.ndarray, "height width 3"],
) -> list[Reference]:
    """Return the chosen people of the reference picture.

    Raises:
        PersonChoiceError: Several are seen and none is chosen, or there is no such person.
    """
    try:
        return pipeline.prepare_references(
            picture,
            request.options.pairing.reference,
            option="--reference-person",
            no_face=request.options.no_face,
        )
    except PersonChoiceError as error:
        if request.report_dir is None:
            raise
        people = find_people(picture, pipeline.perception.pose_estimator)
        path = write_people(request.report_dir / "people-picture.png", picture, people)
        _refuse_with_picture(error, path)


def embed_identities(
    request: AnimateRequest,
    pipeline: AnimationPipeline,
    portraits: Sequence[UInt8[np.ndarray, "_ _ 3"]],
) -> list[Float32[np.ndarray, " identity_dim"]]:
    """Return the identity of each portrait; FaceError names the one without a face."""
    embeddings = []
    for path, portrait in zip(request.identities, portraits, strict=True):
        try:
            embeddings.append(embed_identity(portrait, pipeline.perception))
        except AnimarayError as error:  # say which of the pictures it is
            message = f"{path.name}: {error.message}"
            raise type(error)(message, fix=error.fix, reason=error.reason) from error
    return embeddings


def read_driving(request: AnimateRequest, pipeline: AnimationPipeline) -> DrivingClip:
    """Return the chosen people's motions from a pose file or a video.

    Raises:
        MediaError: There are too few frames.
    """
    read = _read_poses if is_pose_file(request.driving) else _follow_video
    driving = read(request, pipeline)
    num_frames = len(driving.motions[0].keypoints)
    if num_frames < MIN_FRAMES:
        raise MediaError(
            f"The driving motion has {num_frames} frames; at least {MIN_FRAMES} are needed.",
            fix="Use a longer video, or a higher --fps.",
            reason="too_short",
        )
    return driving


def _read_poses(request: AnimateRequest, pipeline: AnimationPipeline) -> DrivingClip:
    """Read a pose file.

    Raises:
        UsageError: Its frame rate is not known, or another one is wanted.
    """
    clip = read_pose_file(request.driving, size_px=request.driving_size_px)
    wanted = request.frame_rate(clip.fps, pipeline.fps)
    if clip.fps is not None and abs(wanted - clip.fps) > 1e-3:
        raise UsageError(
            f"{request.driving.name} holds {clip.fps:g} frames per second; poses are not resampled"
            f" to {wanted:g}.",
            fix="Leave out --fps.",
        )
    chosen = clip.choose(request.options.pairing.driving, option="--person")
    motions = tuple(clip.motions[index].first(request.max_frames) for index in chosen)
    return DrivingClip(motions=motions, fps=wanted)


def _follow_video(request: AnimateRequest, pipeline: AnimationPipeline) -> DrivingClip:
    """Follow the people of a video; its frames are read one by one and only the first is kept."""
    info = probe_in_child(request.driving)
    fps = request.frame_rate(info.fps, pipeline.fps)
    selection = FrameSelection(
        fps=fps, short_side_px=DRIVING_SHORT_SIDE_PX, max_frames=request.max_frames
    )
    total = max(1, int(info.duration_s * fps))
    total = total if request.max_frames is None else min(total, request.max_frames)
    first: list[UInt8[np.ndarray, "_ _ 3"]] = []
    with (
        stage_progress("follow people", total) as row,
        closing(ChildFrameStream(request.driving, None, selection)) as stream,
    ):

        def frames() -> Iterator[UInt8[np.ndarray, "_ _ 3"]]:
            for frame in stream:
                first.extend([frame.frame_uint8] if not first else [])
                yield frame.frame_uint8

        people = pipeline.follow_people(frames(), lambda done: row.update(done=done))
        row.update(total=people.num_frames)
    scale = people.width_px / info.width
    choices = [choice.scaled(scale) for choice in request.options.pairing.driving]
    motions = _choose_motions(request, people, choices, first[0])
    return DrivingClip(
        motions=tuple(motions),
        fps=fps,
        warnings=(stream.warning,) if stream.warning else (),
        info=info,
    )


def _choose_motions(
    request: AnimateRequest,
    people: PeopleInVideo,
    choices: Sequence[PersonChoice],
    first: UInt8[np.ndarray, "height width 3"],
) -> list[Motion]:
    try:
        return people.motions(choices, option="--person")
    except PersonChoiceError as error:
        if request.report_dir is None:
            raise
        shown = [track.poses[0] for track in people.tracks]
        path = write_people(request.report_dir / "people-driving.png", first, shown)
        _refuse_with_picture(error, path)


def _refuse_with_picture(error: PersonChoiceError, path: Path) -> NoReturn:
    raise PersonChoiceError(
        error.message, fix=f"{error.fix or ''} See {path}.".strip(), reason=error.reason
    ) from error


def plan_facts(plan: AnimatePlan) -> dict[str, Any]:
    """Return the plan as JSON values."""
    reference, motion = plan.subjects[0]
    config, fit = plan.pipeline.animator.config, reference.fit
    faces = face_settings(plan.request.options)
    sampler = plan.sampler
    return {
        "image": str(plan.request.image),
        "driving": str(plan.request.driving),
        "weights": str(plan.request.weights or BUNDLED_ANIMATOR),
        "out": str(plan.request.out),
        "picture_size_px": list(plan.picture_size_px),
        "window": {
            "left_px": round(fit.left_px, 1),
            "top_px": round(fit.top_px, 1),
            "scale": round(fit.scale, 4),
        },
        "result": {
            "width_px": config.width_px,
            "height_px": config.height_px,
            "num_frames": plan.num_frames,
            "fps": plan.driving.fps,
            "has_sound": plan.has_sound,
        },
        "num_people": len(plan.subjects),
        "num_people_seen": {"picture": reference.num_persons, "driving": motion.num_persons},
        "pose_layout": config.pose_layout,
        "num_filled_frames": [int(motion.is_filled.sum()) for _, motion in plan.subjects],
        "alignment": [quality.to_dict() for quality in plan.qualities],
        "alignment_alternatives": [quality.to_dict() for quality in plan.alternatives],
        "sampling": {
            "seed": plan.request.options.seed,
            "sampler": sampler.sampler,
            "num_inference_steps": sampler.num_inference_steps,
            "guidance_min": sampler.guidance_scale,
            "guidance_max": sampler.guidance_max or sampler.guidance_scale,
            "window_frames": sampler.window_frames,
            "window_overlap": sampler.window_overlap,
            "window_rule": sampler.window_rule,
            "num_windows": plan.num_windows,
        },
        "no_face": plan.request.options.no_face,
        "face_optimization": "off" if faces is None else faces.mode,
        "memory": {
            "needed_bytes": plan.memory.peak_bytes,
            "available_bytes": plan.available_bytes,
            "peak_stage": plan.memory.peak_stage,
        },
        "device": str(next(plan.pipeline.animator.parameters()).device),
        "notes": _notes(plan),
    }


def _notes(plan: AnimatePlan) -> list[str]:
    """Return what the user should know about the plan."""
    notes = list(plan.driving.warnings)
    if not plan.request.identities:
        notes += check_face_sizes([reference for reference, _ in plan.subjects])
    if plan.request.options.no_face:
        notes.append("No face is looked for: the network is told no identity.")
    if plan.request.weights is None:
        notes.append("The bundled animator knows drawn people only; real ones need --weights.")
    if len(plan.subjects) > 1:
        notes.append(
            "The network is told person 1's identity only; face optimization works on each face."
        )
    config = plan.pipeline.animator.config
    if config.pose_layout == "whole_body_134" and any(
        motion.further_points is None for _, motion in plan.subjects
    ):
        notes.append(
            f"The model was trained on poses with hands and face; {plan.request.driving.name} holds"
            " bodies only, so only bodies are drawn."
        )
    trained = config.num_frames
    if plan.sampler.window_frames > trained:
        notes.append(
            f"Windows of {plan.sampler.window_frames} frames are longer than the model was trained"
            f" on ({trained})."
        )
    return notes
