"""A job's stored options as the worker uses them, and what to warn the client of."""

from collections.abc import Mapping, Sequence
from typing import Any

from animaray.models.animation.options import AnimationRequest
from animaray.models.animation.result import Animation
from animaray.models.subjects.choice import Pairing
from animaray.models.subjects.pairing import Subject
from animaray.models.subjects.reference import check_face_sizes

MAX_OUT_OF_FRAME_SHARE = 0.1
"""Above this share of keypoints outside the picture a result carries a warning."""


def read_job_options(options: Mapping[str, Any]) -> AnimationRequest:
    """Return a job's options with a server's defaults; they were checked when it was accepted.

    Args:
        options: What `parse_options` returned, and the seed.
    """
    # A server has weights: without a wish they are what it serves, at their own rate.
    engine = "parts" if options.get("engine") == "parts" else "diffusion"
    fps = options.get("fps", "model")
    if engine == "parts" and fps == "model":  # there is no model
        fps = "source"
    return AnimationRequest(**{**options, "engine": engine, "fps": fps})


def find_warnings(
    subjects: Sequence[Subject], animation: Animation, pairing: Pairing | None = None
) -> list[str]:
    """Return what the client should know about a job that succeeded all the same.

    Args:
        subjects: Who was animated, and how they moved.
        pairing: How they were chosen; None: not at all.
    """
    warnings = check_face_sizes([reference for reference, _ in subjects])
    (reference, motion), choices = subjects[0], pairing or Pairing()
    if reference.num_persons > len(subjects) and not choices.reference:
        warnings.append(
            f"The picture shows {reference.num_persons} people; the largest one is animated"
            " (option `reference_person` chooses)."
        )
    if motion.num_persons > len(subjects) and not choices.driving:
        warnings.append(
            f"The driving video shows {motion.num_persons} people; the largest one is followed"
            " (option `person` chooses)."
        )
    if len(subjects) > 1:
        warnings.append(
            f"{len(subjects)} people are animated: the network is told the first one's identity,"
            " the others keep theirs by face optimization only."
        )
    num_filled = int(motion.is_filled.sum())
    if num_filled:
        warnings.append(
            f"{num_filled} of {len(motion.is_filled)} frames of the driving video show nobody;"
            " their pose is interpolated."
        )
    outside = animation.alignment_report.out_of_frame_share
    if outside > MAX_OUT_OF_FRAME_SHARE:
        warnings.append(
            f"{outside:.0%} of the driving keypoints fall outside the picture: the two do not show"
            " the same part of the body."
        )
    return warnings
