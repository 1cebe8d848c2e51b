"""Find and measure the main face of a clip at a few frames a second.

Reads: samples, clip_num_frames, clip_fps. Adds: face_scores, face_tracks, identity_embedding.
Drops: nothing. What each score says: datasets/schemas.py. identity_p25 looks at the distance to the
most typical frame: two people who share a clip half and half are both near its mean, but one of
them is far from any frame.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from animaray.models.perception.face_alignment import (
    USUAL_CROP_HEIGHT_PX,
    USUAL_CROP_WIDTH_PX,
    USUAL_TEMPLATE,
    align_face,
    similarity_from_landmarks,
)
from animaray.models.perception.protocols import (
    FaceDetection,
    FaceDetector,
    IdentityEmbedder,
    RawIdentityEmbedder,
)
from animaray.models.perception.same_person import comparable_cosines
from animaray.pipelines.stages.picture import laplacian_variance
from animaray.platform.errors import FaceError
from animaray.platform.media.video import DecodedVideo, FrameSelection

READS = ("samples", "clip_num_frames", "clip_fps")
ADDS = ("face_scores", "face_tracks", "identity_embedding")
DROPS: tuple[str, ...] = ()

# A head's nose tip stands out by about this share of the distance between the eyes, and eyes and
# mouth are this much of it apart when the face looks straight ahead.
_NOSE_DEPTH = 0.6
_EYES_TO_MOUTH = 1.1
_NOSE_BELOW_EYES = 0.58
_MOST_EYES_PX = 40.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FacesConfig:
    """How faces are sampled and when one counts."""

    sample_fps: float = 3.0
    """Frames looked at per second."""
    max_samples: int = 60
    """Most frames looked at in one clip."""
    min_confidence: float = 0.6
    """Detections below this are not faces."""
    second_face_area: float = 0.25
    """A second face of this share of the first one's area makes a frame ambiguous."""
    max_yaw_deg: float = 60.0
    """Turned further to a side, a face is not frontal, degrees."""
    max_pitch_deg: float = 40.0
    """Turned further up or down, a face is not frontal, degrees."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceTracks:
    """What was measured on each sampled frame; rows of frames without a face are zero."""

    frame_index: Int64[np.ndarray, " samples"]
    boxes: Float32[np.ndarray, "samples 4"]
    landmarks: Float32[np.ndarray, "samples 5 2"]
    scores: Float32[np.ndarray, " samples"]
    valid: Bool[np.ndarray, " samples"]
    count: Int64[np.ndarray, " samples"]
    second_area: Float32[np.ndarray, " samples"]
    yaw_deg: Float32[np.ndarray, " samples"]
    pitch_deg: Float32[np.ndarray, " samples"]
    sharpness: Float32[np.ndarray, " samples"]
    embeddings: Float32[np.ndarray, "samples embedding"]
    embedding_norm: Float32[np.ndarray, " samples"] | None = None
    """Length of the recogniser's own output; None where it gives unit vectors."""


class FaceStage:
    """Measure the main face of clips; holds the two networks."""

    def __init__(
        self, detector: FaceDetector, embedder: IdentityEmbedder, config: FacesConfig | None = None
    ) -> None:
        self._detector = detector
        self._embedder = embedder
        self._config = config or FacesConfig()
        self.networks = f"{detector.name} {embedder.name}"

    def selection(self, row: dict[str, Any]) -> FrameSelection:
        """Return which frames of a clip are looked at."""
        step = max(1, round(row["clip_fps"] / self._config.sample_fps))
        step = max(step, -(-row["clip_num_frames"] // self._config.max_samples))
        return FrameSelection(every=step)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Score one clip."""
        selection = self.selection(row)
        clip = row["samples"].take(selection)
        tracks, size = self._track(clip, selection.every)
        frontal = self._is_frontal(tracks)
        mean = mean_embedding(tracks, frontal)
        return {
            **row,
            "face_scores": self._scores(tracks, frontal, size),
            "face_tracks": tracks,
            "identity_embedding": None if mean is None else mean.tolist(),
        }

    def _track(self, clip: DecodedVideo, step: int) -> tuple[FaceTracks, tuple[int, int]]:
        rows: list[dict[str, Any]] = []
        previous: FaceDetection | None = None
        for sample, frame in enumerate(clip.frames_uint8):
            found = [
                face
                for face in self._detector.detect(frame)
                if face.score >= self._config.min_confidence
            ]
            previous = main_face(found, previous)
            rows.append({"frame_index": sample * step, **self._measure(frame, found, previous)})
        height, width = clip.frames_uint8.shape[1:3]
        return _stack(rows, self._embedder.embedding_dim), (width, height)

    def _measure(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        found: list[FaceDetection],
        main: FaceDetection | None,
    ) -> dict[str, Any]:
        if main is None:
            return {"count": len(found), "valid": False}
        others = [face_area(face) for face in found if face is not main]
        try:
            sharpness = face_sharpness(frame, main.landmarks, self._embedder)
            embedding, norm = _embed(self._embedder, frame, main.landmarks)
        except FaceError:
            return {"count": len(found), "valid": False}
        yaw_deg, pitch_deg = face_angles(main.landmarks)
        return {
            "count": len(found),
            "valid": True,
            "boxes": main.box,
            "landmarks": main.landmarks,
            "scores": main.score,
            "second_area": max(others, default=0.0) / max(face_area(main), 1e-6),
            "yaw_deg": yaw_deg,
            "pitch_deg": pitch_deg,
            "sharpness": sharpness,
            "embeddings": embedding,
            "embedding_norm": norm,
        }

    def _is_frontal(self, tracks: FaceTracks) -> Bool[np.ndarray, " samples"]:
        return (
            tracks.valid
            & (np.abs(tracks.yaw_deg) <= self._config.max_yaw_deg)
            & (np.abs(tracks.pitch_deg) <= self._config.max_pitch_deg)
        )

    def _scores(
        self,
        tracks: FaceTracks,
        frontal: Bool[np.ndarray, " samples"],
        size: tuple[int, int],
    ) -> dict[str, Any]:
        valid = tracks.valid
        scores: dict[str, Any] = {
            "face_found_share": float(valid.mean()) if len(valid) else 0.0,
            "face_num_sampled": len(valid),
        }
        if not valid.any():
            return scores
        boxes = tracks.boxes[valid]
        short = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        landmarks = tracks.landmarks[valid]
        inside = (landmarks >= 0) & (landmarks <= np.array(size) - 1)
        is_single = (tracks.second_area < self._config.second_face_area)[valid]
        scores |= {
            "face_confidence": float(np.median(tracks.scores[valid])),
            "face_size_px": float(np.median(short)),
            "face_size_share": float(np.median(short)) / size[1],
            "face_sharpness": float(np.percentile(tracks.sharpness[valid], 25)),
            "face_frontal_share": float(frontal[valid].mean()),
            "face_single_share": float(is_single.mean()),
            "face_complete_share": float(inside.reshape(-1, 10).all(axis=1).mean()),
        }
        if tracks.embedding_norm is not None:
            norms = tracks.embedding_norm[valid]
            scores["face_embedding_norm"] = float(np.percentile(norms, 25))
        if frontal.any():
            scores["face_identity_p25"] = identity_agreement(
                tracks.embeddings[frontal], self._embedder.name
            )
        return scores


def main_face(found: list[FaceDetection], previous: FaceDetection | None) -> FaceDetection | None:
    """Return the face to follow: the largest, or a nearly as large one where the last one was."""
    if not found:
        return None
    largest = found[0]
    if previous is None:
        return largest
    big = [face for face in found if face_area(face) >= 0.5 * face_area(largest)]
    return min(big, key=lambda face: float(np.linalg.norm(face.box - previous.box)))


def face_area(face: FaceDetection) -> float:
    """Return the area of the box, square pixels."""
    left, top, right, bottom = (float(side) for side in face.box)
    return max(0.0, right - left) * max(0.0, bottom - top)


def face_sharpness(
    frame: UInt8[np.ndarray, "height width 3"],
    landmarks: Float32[np.ndarray, "5 2"],
    embedder: IdentityEmbedder,
) -> float:
    """Return the Laplacian variance of the aligned face, in its own pixels if it is small.

    Enlarging a small face to the crop's size would make every small face look out of focus, and so
    would a recogniser of larger crops: its faces are measured in the usual ones.
    """
    template = embedder.template()
    size = embedder.crop_height_px, embedder.crop_width_px
    if float(np.linalg.norm(template[1] - template[0])) > _MOST_EYES_PX:
        template = np.array(USUAL_TEMPLATE, dtype=np.float32)
        size = USUAL_CROP_HEIGHT_PX, USUAL_CROP_WIDTH_PX
    linear = similarity_from_landmarks(landmarks, template)[:, :2]
    shrink = min(1.0, 1.0 / float(np.sqrt(abs(np.linalg.det(linear)))))
    height, width = (max(8, round(side * shrink)) for side in size)
    crop = align_face(frame, landmarks, template * shrink, height, width)
    return laplacian_variance(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY))


def face_angles(landmarks: Float32[np.ndarray, "5 2"]) -> tuple[float, float]:
    """Estimate yaw and pitch in degrees from five landmarks; 0 is straight ahead.

    The nose tip moves sideways by depth * sin(yaw) while the eyes come closer by cos(yaw), and up
    or down between eyes and mouth likewise; a mean head's proportions stand for everyone's.
    Positive yaw looks to the picture's right, positive pitch down.
    """
    points = landmarks.astype(np.float64)
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    across = points[1] - points[0]
    width = float(np.linalg.norm(across))
    length = float(np.linalg.norm(mouth - eyes))
    if width < 1e-3 or length < 1e-3:
        return 90.0, 90.0
    # The head's own upright: away from the eyes' line, on the side of the mouth.
    along = np.array([-across[1], across[0]]) / width
    along = along if float((mouth - eyes) @ along) > 0 else -along
    nose = points[2] - eyes
    middle = (mouth - eyes) * _NOSE_BELOW_EYES
    yaw = np.arctan2(float((nose - middle) @ (across / width)), _NOSE_DEPTH * width)
    # Of the two lengths of a turned head the less shortened one gives its true size.
    true_width = max(width, length / _EYES_TO_MOUTH)
    pitch = np.arctan2(
        float(nose @ along) - _NOSE_BELOW_EYES * length, _NOSE_DEPTH * true_width * 0.5
    )
    return float(np.degrees(yaw)), float(np.degrees(pitch))


def mean_embedding(
    tracks: FaceTracks, frontal: Bool[np.ndarray, " samples"]
) -> Float32[np.ndarray, " embedding"] | None:
    """Return the unit mean of the frontal faces' embeddings; None when there is none."""
    if not frontal.any():
        return None
    mean: Float64[np.ndarray, " embedding"] = tracks.embeddings[frontal].mean(axis=0)
    norm = float(np.linalg.norm(mean))
    return (mean / norm).astype(np.float32) if norm > 1e-6 else None


def identity_agreement(
    embeddings: Float32[np.ndarray, "samples embedding"], embedder: str
) -> float:
    """Return the 25th percentile of the unit embeddings' cosines to the most typical of them.

    The most typical one has the largest mean cosine to all.

    Args:
        embedder: Whose they are; cosines of different recognisers are made comparable.
    """
    unit = embeddings.astype(np.float64)
    cosines = comparable_cosines(unit @ unit.T, embedder)
    return float(np.percentile(cosines[cosines.mean(axis=1).argmax()], 25))


def _embed(
    embedder: IdentityEmbedder,
    frame: UInt8[np.ndarray, "height width 3"],
    landmarks: Float32[np.ndarray, "5 2"],
) -> tuple[Float32[np.ndarray, " embedding"], float | None]:
    """Return a face's unit embedding and the length it had before, if the network has one."""
    if not isinstance(embedder, RawIdentityEmbedder):
        return embedder.embed(frame, landmarks), None
    raw = embedder.embed_raw(frame, landmarks)
    norm = float(np.linalg.norm(raw))
    return (raw / max(norm, 1e-12)).astype(np.float32), norm


def _stack(rows: list[dict[str, Any]], embedding_dim: int) -> FaceTracks:
    """Turn rows into arrays; a missing face has valid = False and zeros beside it."""

    def column(name: str, *shape: int) -> Float32[np.ndarray, "..."]:
        empty = np.zeros(shape, dtype=np.float32)
        values = [np.asarray(row.get(name, empty), dtype=np.float32) for row in rows]
        return np.stack(values) if values else np.zeros((0, *shape), dtype=np.float32)

    has_norm = any(row.get("embedding_norm") is not None for row in rows)
    return FaceTracks(
        frame_index=np.array([row["frame_index"] for row in rows], dtype=np.int64),
        boxes=column("boxes", 4),
        landmarks=column("landmarks", 5, 2),
        scores=column("scores"),
        valid=np.array([row["valid"] for row in rows], dtype=np.bool_),
        count=np.array([row["count"] for row in rows], dtype=np.int64),
        second_area=column("second_area"),
        yaw_deg=column("yaw_deg"),
        pitch_deg=column("pitch_deg"),
        sharpness=column("sharpness"),
        embeddings=column("embeddings", embedding_dim),
        embedding_norm=column("embedding_norm") if has_norm else None,
    )
