"""What `animaray animate` reads: the request, the people of the picture, the driving motion."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Float32, UInt8

from animaray.cli.animate.report import write_people
from animaray.cli.animate.request import MIN_FRAMES, AnimateRequest
from animaray.models.animation.pipeline import AnimationPipeline
from animaray.models.perception.find_people import DRIVING_SHORT_SIDE_PX, find_people
from animaray.models.subjects.choice import PersonChoice
from animaray.models.subjects.motion import Motion, PeopleInVideo
from animaray.models.subjects.pose_files import read_pose_file
from animaray.models.subjects.reference import Reference, embed_identity
from animaray.platform.errors import AnimarayError, MediaError, PersonChoiceError, UsageError
from animaray.platform.media.file_kind import is_pose_file
from animaray.platform.media.video import (
    ChildFrameStream,
    FrameSelection,
    VideoInfo,
    probe_in_child,
)
from animaray.platform.progress import stage_progress


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
