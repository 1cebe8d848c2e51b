"""Bring the people of a picture and the motions of a driving video together."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from animaray.models.pose.layouts import VISIBLE_CONFIDENCE
from animaray.models.subjects.choice import Pairing
from animaray.models.subjects.motion import Motion
from animaray.models.subjects.reference import Reference
from animaray.platform.errors import PersonChoiceError

Subject = tuple[Reference, Motion]
"""Whom, and how they move."""


def pair_people(
    references: Sequence[Reference], motions: Sequence[Motion], pairing: Pairing
) -> list[Subject]:
    """Return who moves how, the main person first.

    The main person is the first one chosen, or the largest of the picture where all are animated.

    Args:
        references: Chosen people of the picture.
        motions: Chosen people's motions, in the same order.
        pairing: How they were chosen.

    Raises:
        PersonChoiceError: There are not as many of the one as of the other.
    """
    if len(references) != len(motions):
        raise PersonChoiceError(
            f"The picture shows {len(references)} people and the driving video {len(motions)}; "
            "`all` needs as many in the one as in the other.",
            fix="Name the people one by one instead.",
            reason="other_number",
        )
    subjects = list(zip(references, motions, strict=True))
    if pairing.is_all:
        main = max(range(len(subjects)), key=lambda index: _size(subjects[index][0]))
        subjects = [subjects[main], *subjects[:main], *subjects[main + 1 :]]
    return subjects


def with_identities(
    subjects: Sequence[Subject], identities: Sequence[Float32[np.ndarray, " identity_dim"]]
) -> list[Subject]:
    """Return the subjects with identities from other pictures, for the first so many people.

    Args:
        subjects: The people.
        identities: Unit embeddings.

    Raises:
        PersonChoiceError: There are more identities than people.
    """
    if len(identities) > len(subjects):
        raise PersonChoiceError(
            f"{len(identities)} identity pictures are given for {len(subjects)} people.",
            fix="Choose the people with --person and --reference-person, or leave some out.",
        )
    changed = [
        (reference.with_identity(identity), motion)
        for (reference, motion), identity in zip(subjects, identities, strict=False)
    ]
    return [*changed, *subjects[len(identities) :]]


def _size(reference: Reference) -> float:
    """Return the longer side of the box around the seen keypoints."""
    points = np.asarray(reference.pose.keypoints)
    seen = points[np.asarray(reference.pose.keypoint_confidence) >= VISIBLE_CONFIDENCE]
    return float(np.ptp(seen, axis=0).max()) if len(seen) else 0.0
