"""From which cosine on two faces are one person's: a limit of each recogniser, and one scale."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64

USUAL_SAME_PERSON = 0.4
"""Cosine from which two faces are one person's, by most recognisers: frames of two people reach
0.25 with MobileFaceNet (docs/decisions/0003-standard-policy.md)."""
_SAME_PERSON: Mapping[str, float] = {"permissive/dlib_identity": 0.61}
"""The same where a recogniser differs: dlib's gives photos of one person 0.63 at least, of two 0.40
at most, and 0.53 to clips of two (docs/lab_log.md, 2026-11-30)."""


def embedder_of(producer: str) -> str:
    """Return who made the identity embeddings, of a recorded producer of faces."""
    parts = producer.split()
    return parts[1] if len(parts) > 1 else producer


def same_person_cosine(embedder: str) -> float:
    """Return the cosine from which two faces are one person's.

    Args:
        embedder: Name of the recogniser, with or without the hash of its weights.
    """
    return _SAME_PERSON.get(embedder.split("@")[0], USUAL_SAME_PERSON)


def comparable_cosines(
    cosines: Float64[np.ndarray, "*shape"], embedder: str
) -> Float64[np.ndarray, "*shape"]:
    """Return cosines stretched so that those of one person begin at 0.4 for every recogniser.

    Distances keep their order: they are all multiplied by one number.

    Args:
        embedder: Name of the recogniser, with or without the hash of its weights.
    """
    stretch = (1.0 - USUAL_SAME_PERSON) / (1.0 - same_person_cosine(embedder))
    return 1.0 - stretch * (1.0 - cosines)
