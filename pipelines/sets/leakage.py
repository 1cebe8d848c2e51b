"""Look for people and footage of an evaluation set that also occur in the training set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from animaray.datasets.reader import CurationDataset
from animaray.pipelines.sets.identities import embedders_of, embeddings_of, same_person_limit
from animaray.platform.errors import DatasetError

MAX_HASH_BITS = 8
"""Perceptual hashes of one second that differ by at most so many of 64 bits show the same."""
MIN_SAME_SHARE = 0.5
"""Share of the evaluation footage's seconds that must be found again."""
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Leak:
    """Something of the evaluation set that training has seen."""

    kind: str
    """identity (same person), footage (same pictures) or file (same bytes)."""
    evaluation: str
    """Clip id, or source id for footage and files."""
    evaluation_file: str
    """Its file."""
    training: str
    """Clip id or source id of the nearest in training."""
    training_file: str
    """Its file."""
    value: float
    """Cosine, share of equal seconds, or 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeakageReport:
    """What was compared and found."""

    num_training_clips: int
    num_evaluation_clips: int
    num_without_identity: int
    """Clips of either side without an embedding: only their footage was compared."""
    leaks: tuple[Leak, ...]
    """Worst first within each kind."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for --json."""
        return asdict(self)


def find_leakage(
    training: str | Path,
    evaluation: str | Path,
    *,
    policy: str = "standard",
    min_cosine: float | None = None,
) -> LeakageReport:
    """Compare the kept clips of two datasets.

    Args:
        policy: Whose kept clips, in both.
        min_cosine: Similarity from which two clips show the same person; None takes the limit of
            whoever embedded them.

    Raises:
        DatasetError: A side has no kept clip, or the sides were embedded by different networks.
    """
    sides = [_kept(folder, policy) for folder in (training, evaluation)]
    (train_clips, train_sources), (eval_clips, eval_sources) = sides
    leaks = [
        *_same_people(train_clips, eval_clips, min_cosine),
        *_same_footage(train_sources, eval_sources),
    ]
    known = len(embeddings_of(train_clips)[1]) + len(embeddings_of(eval_clips)[1])
    return LeakageReport(
        num_training_clips=len(train_clips),
        num_evaluation_clips=len(eval_clips),
        num_without_identity=len(train_clips) + len(eval_clips) - known,
        leaks=tuple(sorted(leaks, key=lambda leak: (leak.kind, -leak.value, leak.evaluation))),
    )


Rows = Sequence[Mapping[str, Any]]


def _kept(address: str | Path, policy: str) -> tuple[Rows, Rows]:
    dataset = CurationDataset.open(address)
    kept = {row["clip_id"] for row in dataset.verdicts(policy) if row["keep"]}
    clips = [clip for clip in dataset.clips() if clip["clip_id"] in kept]
    if not clips:
        raise DatasetError(f"Policy {policy} keeps no clip of {address}.", reason="empty")
    inputs = {clip["input_id"] for clip in clips}
    return clips, [row for row in dataset.sources() if row["input_id"] in inputs]


def _same_people(train: Rows, evaluation: Rows, min_cosine: float | None) -> Iterator[Leak]:
    train_vectors, train_places = embeddings_of(train)
    eval_vectors, eval_places = embeddings_of(evaluation)
    if not len(train_vectors) or not len(eval_vectors):
        return
    makers = embedders_of((*train, *evaluation))
    if len(makers) > 1 or train_vectors.shape[1] != eval_vectors.shape[1]:
        raise DatasetError(
            f"The two sets were embedded by different networks: {', '.join(sorted(makers))}.",
            fix="Curate both with the same profile.",
            reason="other_encoder",
        )
    limit = same_person_limit((*train, *evaluation)) if min_cosine is None else min_cosine
    for start in range(0, len(eval_vectors), _ROWS_AT_ONCE):
        cosines = eval_vectors[start : start + _ROWS_AT_ONCE] @ train_vectors.T
        nearest = cosines.argmax(axis=1)
        for row, column in enumerate(nearest):
            value = float(cosines[row, column])
            if value >= limit:
                own = evaluation[eval_places[start + row]]
                other = train[train_places[column]]
                yield Leak(
                    kind="identity",
                    evaluation=own["clip_id"],
                    evaluation_file=own["file_name"],
                    training=other["clip_id"],
                    training_file=other["file_name"],
                    value=value,
                )


def _same_footage(train: Rows, evaluation: Rows) -> Iterator[Leak]:
    digests = {row["sha256"]: row for row in train}
    hashes = np.array([h for row in train for h in row["hashes"] or ()], dtype=np.int64)
    owners = np.repeat(np.arange(len(train)), [len(row["hashes"] or ()) for row in train])
    for row in evaluation:
        twin, value = digests.get(row["sha256"]), 1.0
        kind = "file"
        own = np.array(row["hashes"] or (), dtype=np.int64)
        if twin is None and len(own) and len(hashes):
            kind = "footage"
            near = np.bitwise_count((own[:, None] ^ hashes[None]).view(np.uint64)) <= MAX_HASH_BITS
            # Seconds of the evaluation footage that each training source shows somewhere.
            found = np.zeros(len(train))
            for second in near:
                found[np.unique(owners[second])] += 1
            best = int(found.argmax())
            value = float(found[best] / len(own))
            twin = train[best] if value >= MIN_SAME_SHARE else None
        if twin is not None:
            yield Leak(
                kind=kind,
                evaluation=row["source_id"],
                evaluation_file=row["uri"],
                training=twin["source_id"],
                training_file=twin["uri"],
                value=value,
            )
