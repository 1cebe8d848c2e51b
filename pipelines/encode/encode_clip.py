"""Encode clips: fit each to the training frame, then run the frozen encoders over its frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8

from animaray.datasets.encoded_clips import EncodedClip, mean_identity, mean_raw_identity
from animaray.datasets.reader import ClipTracks, CurationDataset, place_on_frames
from animaray.models.perception.protocols import (
    IdentityEmbedder,
    ImageEncoder,
    LatentCodec,
    RawIdentityEmbedder,
)
from animaray.models.pose.further_points import map_further, mirror_further
from animaray.models.pose.layouts import MIRROR
from animaray.models.subjects.encoding import (
    EncodedFaces,
    EncodedLatents,
    ReferenceNoise,
    embed_faces,
    embed_frames,
    encode_latents,
    mirror_landmarks,
)
from animaray.models.subjects.framing import FrameFit, largest_part_without
from animaray.pipelines.encode.config import EncodeConfig
from animaray.platform.errors import DatasetError


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipEncoders:
    """The frozen networks that encode a clip."""

    codec: LatentCodec
    image_encoder: ImageEncoder
    identity_embedder: IdentityEmbedder


def fit_clip(
    dataset: CurationDataset, clip_id: str, config: EncodeConfig, *, curated_with: str | None
) -> list["FittedClip"]:
    """Decode one clip and fit it to the training frame; with `mirrored_copies` also its mirror.

    Args:
        curated_with: Perception profile that measured its identities; where the encoders are of
            another one they are measured anew.

    Raises:
        DatasetError: The clip has no valid face, or its video is shorter than two frames.
        MediaError: Its video cannot be decoded.
    """
    clip, tracks = dataset.clip(clip_id), dataset.tracks(clip_id)
    if not tracks.face_valid.any():
        raise DatasetError(f"Clip {clip_id} has no valid face, so no identity to train on.")
    frames_uint8 = dataset.decode_clip(clip_id, fps=config.fps).frames_uint8
    if len(frames_uint8) < 2:
        raise DatasetError(f"Clip {clip_id} has fewer than two frames at {config.fps:g} fps.")
    height, width = frames_uint8.shape[1:3]
    fit = _fit_of(clip, tracks, (width, height), config)
    times_s = np.arange(len(frames_uint8)) / config.fps
    poses = tracks.nearest_pose(times_s)
    fitted = FittedClip(
        clip_id=clip_id,
        source_id=str(clip["source_id"]),
        is_mirrored=False,
        times_s=times_s,
        frames_uint8=fit.apply_frames(frames_uint8),
        keypoints=fit.apply_points(tracks.keypoints[poses]).astype(np.float32),
        keypoint_confidence=tracks.keypoint_confidence[poses],
        further_points=None
        if tracks.further_points is None
        else map_further(tracks.further_points[poses], fit.apply_points),
        **_fitted_faces(tracks, fit, float(clip["fps"])),
    )
    if curated_with not in {None, config.profile}:
        fitted = replace(fitted, identity_embeddings=None)
    return [fitted, fitted.mirrored()] if config.mirrored_copies else [fitted]


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedClip:
    """A clip in the training frame, before the encoders."""

    clip_id: str
    source_id: str
    is_mirrored: bool
    times_s: Float64[np.ndarray, " frames"]
    """Time of each frame from the clip's start."""
    frames_uint8: UInt8[np.ndarray, "frames height width 3"]
    keypoints: Float32[np.ndarray, "frames 18 2"]
    """Training pixels, as all coordinates here."""
    keypoint_confidence: Float32[np.ndarray, "frames 18"]
    face_times_s: Float64[np.ndarray, " faces"]
    """Times of the valid faces below."""
    face_boxes: Float32[np.ndarray, "faces 4"]
    face_landmarks: Float32[np.ndarray, "faces 5 2"]
    identity_embeddings: Float32[np.ndarray, "faces identity_dim"] | None
    """As measured at curation; None: measure them on these frames, with this profile."""
    further_points: Float32[np.ndarray, "frames 116 3"] | None = None
    """None: curation did not look for feet, face and hands."""

    @property
    def noise_seed(self) -> str:
        """What decides the noise on its reference pictures."""
        return f"{self.clip_id}{'/mirrored' * self.is_mirrored}"

    def mirrored(self) -> "FittedClip":
        """Return the clip mirrored left to right; identities are to be measured anew."""
        width = self.frames_uint8.shape[2]
        keypoints = self.keypoints[:, list(MIRROR)].copy()
        keypoints[..., 0] = width - 1 - keypoints[..., 0]
        left, top, right, bottom = self.face_boxes.T
        boxes = np.stack([width - 1 - right, top, width - 1 - left, bottom], axis=1)
        return replace(
            self,
            is_mirrored=True,
            frames_uint8=np.ascontiguousarray(self.frames_uint8[:, :, ::-1]),
            keypoints=keypoints,
            keypoint_confidence=self.keypoint_confidence[:, list(MIRROR)],
            further_points=mirror_further(self.further_points, width),
            face_boxes=boxes.astype(np.float32),
            face_landmarks=mirror_landmarks(self.face_landmarks, width),
            identity_embeddings=None,
        )


def _fit_of(
    clip: Mapping[str, Any], tracks: ClipTracks, size: tuple[int, int], config: EncodeConfig
) -> FrameFit:
    """Return the training frame of a clip.

    Raises:
        DatasetError: Its text is to be left out, and that cannot be done.
    """
    part: tuple[int, int, int, int] | None = (0, 0, *size)
    if config.crop_text:
        if clip["text_state"] != "ok":
            raise DatasetError("Its text cannot be left out: it was not looked for.")
        boxes = np.array(clip["text_boxes"] or [], dtype=np.float64).reshape(-1, 4)
        part = largest_part_without(
            boxes * [*size, *size], size, tracks.keypoints, tracks.keypoint_confidence
        )
    if part is None:
        raise DatasetError("Its text cannot be left out: the person would be cut, too.")
    fit = FrameFit.for_person(
        (part[2] - part[0], part[3] - part[1]),
        tracks.keypoints - np.array(part[:2], dtype=np.float32),
        config.width_px,
        config.height_px,
        keypoint_confidence=tracks.keypoint_confidence,
    )
    return fit.within(part)


def _fitted_faces(tracks: ClipTracks, fit: FrameFit, fps: float) -> dict[str, Any]:
    valid = np.flatnonzero(tracks.face_valid)
    corners = tracks.face_boxes[valid].reshape(-1, 2, 2)
    return {
        "face_times_s": tracks.face_frames[valid] / fps,
        "face_boxes": fit.apply_points(corners).reshape(-1, 4).astype(np.float32),
        "face_landmarks": fit.apply_points(tracks.face_landmarks[valid]).astype(np.float32),
        "identity_embeddings": tracks.identity_embeddings[valid],
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class _JoinedNoise:
    """Noise on the frames of several clips, one clip after the other: to each frame its own."""

    strength: float
    clips: Sequence["FittedClip"]

    def of_frame(self, index: int) -> torch.Generator:
        """Return the source of one frame's noise."""
        clips = iter(self.clips)
        clip = next(clips)
        while index >= len(clip.frames_uint8):
            index -= len(clip.frames_uint8)
            clip = next(clips)
        return ReferenceNoise(strength=self.strength, seed=clip.noise_seed).of_frame(index)


def encode_together(
    clips: Sequence[FittedClip], encoders: ClipEncoders, config: EncodeConfig
) -> list[EncodedClip]:
    """Run the frozen encoders over clips in the training frame, their frames one after the other.

    Of one clip alone the result is the same bit for bit wherever it is encoded; of several it may
    differ by rounding, because a network's arithmetic depends on how many frames it gets at once.

    Args:
        clips: At least one.
    """
    frames = np.concatenate([clip.frames_uint8 for clip in clips])
    size, codec = config.frames_per_call, encoders.codec
    latents, noisy = encode_latents(frames, codec, batch_size=size), None
    # The same with noise, where frames are references in training.
    if config.reference_noise > 0:
        noise = _JoinedNoise(strength=config.reference_noise, clips=clips)
        noisy = encode_latents(frames, codec, noise, batch_size=size)
    images = embed_frames(frames, encoders.image_encoder, batch_size=size)
    encoded = []
    start = 0
    for clip in clips:
        own = slice(start, start + len(clip.frames_uint8))
        start = own.stop
        encoded.append(
            _encoded(
                clip,
                encoders.identity_embedder,
                config,
                latents=_part(latents, own),
                noisy=None if noisy is None else _part(noisy, own),
                image_embeddings=images[own],
            )
        )
    return encoded


def _encoded(
    clip: FittedClip,
    embedder: IdentityEmbedder,
    config: EncodeConfig,
    *,
    latents: EncodedLatents,
    noisy: EncodedLatents | None,
    image_embeddings: Float32[np.ndarray, "frames image_dim"],
) -> EncodedClip:
    """Measure a clip's identities and put together its row.

    Raw outputs of the recogniser are measured here, because curation keeps unit vectors.
    """
    num_frames = len(clip.frames_uint8)

    # Identities: what curation measured, or measured anew where the network wants raw ones.
    nearest = np.abs(clip.times_s[None] - clip.face_times_s[:, None]).argmin(axis=1)
    if clip.identity_embeddings is None or isinstance(embedder, RawIdentityEmbedder):
        faces = embed_faces(clip.frames_uint8[nearest], clip.face_landmarks, embedder)
    else:
        faces = EncodedFaces(identities=clip.identity_embeddings, raw_identities=None)
    # A frame's own embedding is one measured within half a frame of it.
    is_own = np.abs(clip.times_s[nearest] - clip.face_times_s) <= 0.5 / config.fps + 1e-6
    identity_valid = np.zeros(num_frames, dtype=np.bool_)
    identity_valid[nearest[is_own]] = True
    mean = mean_identity(faces.identities)

    def per_frame(
        embeddings: Float32[np.ndarray, "faces identity_dim"],
    ) -> Float32[np.ndarray, "frames identity_dim"]:
        placed = np.zeros((num_frames, embeddings.shape[1]), dtype=np.float32)
        placed[nearest[is_own]] = embeddings[is_own]
        return placed

    # Face boxes on every frame, for the loss's weight.
    raw = faces.raw_identities
    boxes, box_valid = place_on_frames(
        clip.face_boxes, clip.face_times_s, clip.times_s, max_gap_s=config.max_face_gap_s
    )

    return EncodedClip(
        clip_id=clip.clip_id,
        source_id=clip.source_id,
        is_mirrored=clip.is_mirrored,
        fps=config.fps,
        width_px=config.width_px,
        height_px=config.height_px,
        reference_noise=config.reference_noise,
        latents=latents.mean,
        latent_std=latents.std,
        reference_latents=None if noisy is None else noisy.mean,
        reference_latent_std=None if noisy is None else noisy.std,
        image_embeddings=image_embeddings,
        identity_embedding=mean,
        identity_embeddings=per_frame(faces.identities),
        raw_identity=mean_raw_identity(raw, mean),
        raw_identities=None if raw is None else per_frame(raw),
        identity_valid=identity_valid,
        keypoints=clip.keypoints,
        keypoint_confidence=clip.keypoint_confidence,
        further_points=clip.further_points,
        face_boxes=boxes,
        face_box_valid=box_valid,
    )


def _part(latents: EncodedLatents, own: slice) -> EncodedLatents:
    return EncodedLatents(
        mean=latents.mean[own], std=None if latents.std is None else latents.std[own]
    )
