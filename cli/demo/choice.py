"""Choose whom to animate and whose motion to take: from curated clips, or a photo beside them.

Between clips the choice looks only at what curation measured: identity embeddings, face size, keypoints, motion.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64

from animaray.datasets.reader import ClipTracks, CurationDataset
from animaray.models.perception.profiles import load_perception
from animaray.models.pose.layouts import VISIBLE_CONFIDENCE
from animaray.pipelines.stages.foreground import ARMS
from animaray.pipelines.stages.pose import MIN_CONFIDENCE
from animaray.platform.errors import DatasetError, MediaError
from animaray.platform.media.video import read_picture_in_child

SAME_PERSON_COSINE = 0.45
"""Embeddings at least this close are one person (both profiles separate pairs around it)."""

_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
_MIN_VISIBLE_KEYPOINTS = 8
_MIN_FACE_PX = 80
_LIKELY_LENGTH = (0.25, 1.0)
"""Of an upper arm or forearm that is where it was found, in widths of the shoulders."""
_HAND_SHARE = 0.05
"""A hand reaches about so much of the picture's short side beyond the wrist."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFacts:
    """What the choice looks at."""

    clip_id: str
    identity: Float32[np.ndarray, " embedding"]
    """Unit mean of the embeddings of valid faces."""
    face_share: float
    """Median face height over frame height."""
    coverage: float
    """Mean number of visible keypoints."""
    motion: float
    """Mean keypoint speed, frame heights per second."""
    best_frame: int
    """Frame with the best face, as an index into the clip."""
    frontality: float
    """How frontal that face is, 1 = the nose is midway between the eyes."""
    arms_shown: float
    """Share of the upper arms and forearms that are found well inside that frame: what a reference
    does not show cannot be moved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Whom to animate and whose motion to take."""

    reference: ClipFacts
    driving: ClipFacts


def clip_facts(dataset: CurationDataset, clip_id: str) -> ClipFacts | None:
    """Return what the choice needs to know of a clip; None when it shows no valid face."""
    tracks = dataset.tracks(clip_id)
    valid = np.flatnonzero(tracks.face_valid)
    if valid.size == 0:
        return None
    clip = dataset.clip(clip_id)
    width, height = float(clip["width"]), float(clip["height"])
    mean = tracks.identity_embeddings[valid].mean(axis=0)
    boxes = tracks.face_boxes[valid]
    frontality = np.array([_frontality(tracks.face_landmarks[i]) for i in valid])
    arms_shown = _arms_shown(tracks, tracks.face_frames[valid], (width, height))
    best = int(np.argmax(frontality * tracks.face_scores[valid] * (0.4 + 0.6 * arms_shown)))
    return ClipFacts(
        clip_id=clip_id,
        identity=(mean / np.linalg.norm(mean)).astype(np.float32),
        face_share=float(np.median(boxes[:, 3] - boxes[:, 1])) / height,
        coverage=float((tracks.keypoint_confidence >= MIN_CONFIDENCE).sum(axis=1).mean()),
        motion=_motion(tracks) / height,
        best_frame=int(tracks.face_frames[valid[best]]),
        frontality=float(frontality[best]),
        arms_shown=float(arms_shown[best]),
    )


def choose_pair(facts: Sequence[ClipFacts]) -> Pair:
    """Return a frontal reference and a lively driving clip of another person, framed alike.

    Raises:
        DatasetError: There are not two clips of different people.
    """
    best: tuple[float, Pair] | None = None
    for reference in facts:
        for driving in facts:
            if float(reference.identity @ driving.identity) >= SAME_PERSON_COSINE:
                continue
            framing = abs(np.log(reference.face_share / driving.face_share))
            score = (
                2.0 * reference.frontality
                + reference.arms_shown
                + min(driving.motion, 0.6) * 2.0
                + 0.05 * (reference.coverage + driving.coverage)
                + min(reference.face_share, 0.3) * 4.0
                - 2.5 * float(framing)
            )
            if best is None or score > best[0]:
                best = (score, Pair(reference=reference, driving=driving))
    if best is None:
        raise DatasetError(
            f"The demo needs kept clips of two different people, got {len(facts)} clips.",
            fix="Add videos, or look at the verdicts: animaray curate report demo/dataset",
        )
    return best[1]


def group_identities(facts: Sequence[ClipFacts]) -> dict[str, list[ClipFacts]]:
    """Group clips by person, greedily by embedding; names are person 1, person 2, ..."""
    groups: dict[str, list[ClipFacts]] = {}
    for fact in facts:
        for members in groups.values():
            if float(members[0].identity @ fact.identity) >= SAME_PERSON_COSINE:
                members.append(fact)
                break
        else:
            groups[f"person {len(groups) + 1}"] = [fact]
    return groups


def find_photo(videos: Path, profile: str) -> Path | None:
    """Return the photo with one clear face and the most visible body, or None.

    Looks at pictures in the video folder and in a folder `images` beside it.
    """
    folders = [videos, videos.parent / "images"]
    paths = sorted(
        path
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if path.suffix.lower() in _PHOTO_SUFFIXES
    )
    perception = load_perception(profile)
    best: tuple[int, Path] | None = None
    for path in paths:
        try:
            picture = read_picture_in_child(path)
        except MediaError:
            continue
        faces = perception.face_detector.detect(picture)
        people = perception.pose_estimator.estimate(picture)
        if len(faces) != 1 or len(people) != 1:
            continue
        if faces[0].box[3] - faces[0].box[1] < _MIN_FACE_PX:
            continue
        visible = int(np.sum(people[0].keypoint_confidence >= VISIBLE_CONFIDENCE))
        if visible >= _MIN_VISIBLE_KEYPOINTS and (best is None or visible > best[0]):
            best = (visible, path)
    return best[1] if best else None


def _frontality(landmarks: Float32[np.ndarray, "5 2"]) -> float:
    eyes = np.linalg.norm(landmarks[1] - landmarks[0])
    offset = abs(float(landmarks[2, 0] - (landmarks[0, 0] + landmarks[1, 0]) / 2))
    return float(max(0.0, 1.0 - 2.0 * offset / max(float(eyes), 1e-6)))


def _arms_shown(
    tracks: ClipTracks, frames: Int64[np.ndarray, " frames"], size: tuple[float, float]
) -> Float64[np.ndarray, " frames"]:
    nearest = np.abs(tracks.frame_index[None] - frames[:, None]).argmin(axis=1)
    points = tracks.keypoints[nearest].astype(np.float64)
    margin = _HAND_SHARE * min(size)
    is_inside = ((points >= margin) & (points <= np.array(size) - margin)).all(axis=2)
    is_shown = is_inside & (tracks.keypoint_confidence[nearest] >= MIN_CONFIDENCE)
    shoulders = np.linalg.norm(tracks.keypoints[:, 5] - tracks.keypoints[:, 2], axis=1)
    first, last = np.array(ARMS).T
    lengths = np.linalg.norm(points[:, last] - points[:, first], axis=2)
    lengths /= max(float(np.percentile(shoulders, 90)), 1e-6)
    is_likely = (lengths > _LIKELY_LENGTH[0]) & (lengths < _LIKELY_LENGTH[1])
    share: Float64[np.ndarray, " frames"] = (
        is_shown[:, first] & is_shown[:, last] & is_likely
    ).mean(axis=1)
    return share


def _motion(tracks: ClipTracks) -> float:
    is_seen = tracks.keypoint_confidence >= MIN_CONFIDENCE
    seen = is_seen[1:] & is_seen[:-1]
    if not seen.any():
        return 0.0
    steps = np.linalg.norm(np.diff(tracks.keypoints, axis=0), axis=2)
    seconds = np.diff(tracks.pts_s)[:, None].clip(min=1e-3)
    return float((steps / seconds)[seen].mean())
