"""Group clips by who is in them, from their identity embeddings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from animaray.models.perception.same_person import (
    USUAL_SAME_PERSON,
    embedder_of,
    same_person_cosine,
)

_ROWS_AT_ONCE = 2048


def embeddings_of(
    clips: Sequence[Mapping[str, Any]],
) -> tuple[Float32[np.ndarray, "known dim"], Int64[np.ndarray, " known"]]:
    """Return the unit identity embeddings of clips, and which clips have one."""
    places = [
        place
        for place, clip in enumerate(clips)
        if clip["identity_embedding"] is not None and len(clip["identity_embedding"])
    ]
    if not places:
        return np.zeros((0, 1), dtype=np.float32), np.zeros(0, dtype=np.int64)
    vectors = np.array([clips[place]["identity_embedding"] for place in places], dtype=np.float32)
    norms = np.linalg.norm(vectors, axis=1)
    seen = norms > 1e-6  # a zero vector is no identity
    unit = vectors[seen] / norms[seen, None]
    return unit.astype(np.float32), np.array(places, dtype=np.int64)[seen]


def embedders_of(clips: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return who embedded the faces of clips, by recorded name."""
    return {embedder_of(clip["face_producer"]) for clip in clips if clip.get("face_producer")}


def same_person_limit(clips: Sequence[Mapping[str, Any]]) -> float:
    """Return the cosine from which two clips show the same person.

    Args:
        clips: Rows of the clips table; of several recognisers the strictest limit counts.
    """
    limits = (same_person_cosine(embedder) for embedder in embedders_of(clips))
    return max(limits, default=USUAL_SAME_PERSON)


def group_clips(
    clips: Sequence[Mapping[str, Any]], *, min_cosine: float | None = None
) -> Int64[np.ndarray, " clips"]:
    """Return a group number per clip: same source or same person, directly or through others.

    Groups are numbered by their first clip. A clip without an embedding joins its source only.

    Args:
        clips: Rows of the clips table.
        min_cosine: Similarity from which two clips show the same person; None takes the limit of
            whoever embedded them.
    """
    limit = same_person_limit(clips) if min_cosine is None else min_cosine
    parent = list(range(len(clips)))

    def find(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    def join(one: int, other: int) -> None:
        low, high = sorted((find(one), find(other)))
        parent[high] = low

    first_of_source: dict[str, int] = {}
    for place, clip in enumerate(clips):
        join(first_of_source.setdefault(clip["source_id"], place), place)
    vectors, places = embeddings_of(clips)
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        rows, columns = np.nonzero(vectors[start : start + _ROWS_AT_ONCE] @ vectors.T >= limit)
        for row, column in zip(rows + start, columns, strict=True):
            if row < column:
                join(int(places[row]), int(places[column]))
    roots = [find(place) for place in range(len(clips))]
    numbers = {root: number for number, root in enumerate(dict.fromkeys(roots))}
    return np.array([numbers[root] for root in roots], dtype=np.int64)
