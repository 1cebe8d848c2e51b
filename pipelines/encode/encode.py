"""Encode the kept clips of a dataset for training: latents, embeddings, keypoints, face boxes.

    media + tracks -> fit to the training frame -> frozen encoders -> conditions/<encoder id>/

Each clip is encoded once per encoder id. Shards become visible through the commit log, so that a
killed run continues with the clips that are missing.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import nn

from animaray.datasets.commit_log import CommittedFile
from animaray.datasets.encoded_clips import (
    EncodedClip,
    commit_encoded_clips,
    encoded_inputs,
    mean_identity,
    mean_raw_identity,
    table_prefix,
    write_encoded_clips,
)
from animaray.datasets.reader import ClipTracks, CurationDataset, place_on_frames
from animaray.datasets.vacuum import vacuum
from animaray.datasets.writers import writing
from animaray.models.perception.profiles import load_codec, load_image_encoder, load_perception
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
    ReferenceNoise,
    embed_faces,
    embed_frames,
    encode_latents,
    mirror_landmarks,
)
from animaray.models.subjects.framing import FrameFit, largest_part_without
from animaray.pipelines.encode.config import EncodeConfig
from animaray.platform.disk import check_room
from animaray.platform.errors import DatasetError, RefusedError
from animaray.platform.json_text import json_text
from animaray.platform.progress import StageProgress, stage_progress
from animaray.platform.ray_session import ray_session, require_resources
from animaray.platform.storage import content_id


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeSummary:
    """What one call did."""

    encoder_id: str
    """Name of the table."""
    num_encoded: int
    """Clips encoded by this call."""
    num_found: int
    """Clips that were encoded before."""
    skipped: dict[str, str]
    """Why a clip gave no row, by clip id."""
    seconds: float
    """Time of this call."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON output."""
        return {name: getattr(self, name) for name in self.__slots__}

    def one_line(self) -> str:
        """Return the counts as a sentence."""
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"{self.num_encoded} clips encoded, {self.num_found} found{skipped}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipEncoders:
    """The frozen networks that encode a clip."""

    codec: LatentCodec
    image_encoder: ImageEncoder
    identity_embedder: IdentityEmbedder


def curation_profile(root: Path | str) -> str:
    """Return the one perception profile that a dataset was curated with.

    Raises:
        DatasetError: There are several, or none is known.
    """
    found = sorted(set(CurationDataset.open(root).profiles().values()))
    if len(found) != 1:
        raise DatasetError(
            f"{root} was curated with {len(found)} profiles ({', '.join(found) or 'none known'}).",
            fix="Choose the encoders: --profile generated, permissive or paper.",
        )
    return found[0]


def encode_dataset(config: EncodeConfig, progress: StageProgress | None = None) -> EncodeSummary:
    """Encode the kept clips that are not encoded yet, on a pool of Ray Data actors.

    Args:
        config: What to encode, and how.
        progress: Row to advance by clip; None shows an own row.

    Raises:
        DatasetError: None of the kept clips could be encoded.
        WeightsError: An encoder's file is missing or damaged.
        MachineError: The Ray session is too small.
    """
    started = time.monotonic()
    root = Path(config.data_dir).absolute()
    kept = CurationDataset.open(root).kept_clips(config.policy)
    if config.profile is None:
        config = replace(config, profile=curation_profile(root))
    encoder_id = make_encoder_id(config)
    known = encoded_inputs(root, encoder_id)
    missing = [clip_id for clip_id in kept if clip_id not in known]
    row = progress if progress is not None else stage_progress("encode", len(kept))
    skipped: dict[str, str] = {}
    with row:
        row.update(done=len(kept) - len(missing), total=len(kept))
        if missing:
            check_room(root, _room_bytes(root, missing, config), f"Encoding {len(missing)} clips")
            vacuum(root)
            with ray_session(), writing(root):
                for result in _encode_on_ray(config, root, encoder_id, missing):
                    file = result["file"]
                    files = [CommittedFile(**file)] if file else []
                    commit_encoded_clips(
                        root, encoder_id, files, result["clip_ids"], result["skipped"]
                    )
                    skipped |= result["skipped"]
                    row.advance(len(result["clip_ids"]))
    if missing and len(skipped) == len(kept):
        raise DatasetError(
            f"None of {len(kept)} kept clips could be encoded; the first: "
            f"{next(iter(skipped.values()))}",
            fix="See facts.skipped in the newest entries of _commits.",
        )
    return EncodeSummary(
        encoder_id=encoder_id,
        num_encoded=len(missing) - len(skipped),
        num_found=len(kept) - len(missing),
        skipped=skipped,
        seconds=time.monotonic() - started,
    )


def _room_bytes(root: Path, clip_ids: list[str], config: EncodeConfig) -> int:
    """Return about how large the tables of some clips will be."""
    clips = {clip["clip_id"]: clip for clip in CurationDataset.open(root).clips()}
    frames = config.fps * sum(clips[clip_id]["duration_s"] or 0.0 for clip_id in clip_ids)
    # At most a byte of latents for each pixel, in all, and a few embeddings and points.
    per_frame = config.width_px * config.height_px + 16384
    return round(frames * per_frame * (2 if config.mirrored_copies else 1))


def make_encoder_id(config: EncodeConfig) -> str:
    """Return the name of the table: profile, size, rate, and a hash of the weights."""
    profile = _profile_of(config)
    codec, image_encoder = load_codec(profile), load_image_encoder(profile)
    weights = [_weights_hash(network) for network in (codec, image_encoder)]
    # Names of tables from before there was the setting stay.
    settings = [config.mirrored_copies, config.max_face_gap_s, *["no text"] * config.crop_text]
    digest = content_id(*weights, *settings)[:8]
    size_px = config.width_px, config.height_px
    return table_prefix(profile, *size_px, config.fps, config.reference_noise) + digest


def encode_clip(
    dataset: CurationDataset, clip_id: str, encoders: ClipEncoders, config: EncodeConfig
) -> list[EncodedClip]:
    """Encode one clip; with `mirrored_copies` also its mirror image.

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
    curated_with = dataset.profiles().get(str(clip["source_id"]), config.profile)
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
    if curated_with != config.profile:
        fitted = replace(fitted, identity_embeddings=None)
    copies = [fitted, fitted.mirrored()] if config.mirrored_copies else [fitted]
    return [encode_fitted(copy, encoders, config) for copy in copies]


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


def encode_fitted(clip: FittedClip, encoders: ClipEncoders, config: EncodeConfig) -> EncodedClip:
    """Run the frozen encoders over a clip in the training frame.

    Raw outputs of the recogniser are measured here, because curation keeps unit vectors.
    """
    num_frames = len(clip.frames_uint8)

    # Identities: what curation measured, or measured anew where the network wants raw ones.
    nearest = np.abs(clip.times_s[None] - clip.face_times_s[:, None]).argmin(axis=1)
    embedder = encoders.identity_embedder
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

    # Latents of the frames, and of the same with noise, where frames are references in training.
    frames, codec = clip.frames_uint8, encoders.codec
    latents, noisy = encode_latents(frames, codec), None
    if config.reference_noise > 0:
        noise = ReferenceNoise(strength=config.reference_noise, seed=clip.noise_seed)
        noisy = encode_latents(frames, codec, noise)
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
        image_embeddings=embed_frames(frames, encoders.image_encoder),
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


class EncodeActor:
    """Holds the encoders; encodes the clips of a shard and writes its file."""

    def __init__(self, config: EncodeConfig, root: str, encoder_id: str) -> None:
        torch.set_num_threads(1)
        device = torch.device("cuda" if config.num_gpus_per_worker > 0 else "cpu")
        profile = _profile_of(config)
        self._config, self._root, self._encoder_id = config, Path(root), encoder_id
        self._dataset = CurationDataset.open(root)
        self._encoders = ClipEncoders(
            codec=_on_device(load_codec(profile), device),
            image_encoder=_on_device(load_image_encoder(profile), device),
            identity_embedder=load_perception(profile, device=device.type).identity_embedder,
        )

    def __call__(self, shard: dict[str, Any]) -> dict[str, Any]:
        """Encode and write; report the file, the clips tried, and why some gave no row."""
        rows: list[EncodedClip] = []
        skipped: dict[str, str] = {}
        clip_ids = [str(clip_id) for clip_id in shard["clip_ids"]]
        for clip_id in clip_ids:
            try:
                rows += encode_clip(self._dataset, clip_id, self._encoders, self._config)
            except RefusedError as error:  # what the machine lacks is no fault of the clip
                skipped[clip_id] = error.message
        file = write_encoded_clips(self._root, self._encoder_id, rows) if rows else None
        report = {
            "file": asdict(file) if file is not None else None,
            "clip_ids": clip_ids,
            "skipped": skipped,
        }
        return {"report": json_text(report)}


def _encode_on_ray(
    config: EncodeConfig, root: Path, encoder_id: str, clip_ids: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield the report of each shard as it is finished."""
    import ray.data

    size = config.clips_per_shard
    needs = {"CPU": 1.0, "GPU": config.num_gpus_per_worker}
    shards = [
        {"clip_ids": clip_ids[start : start + size]} for start in range(0, len(clip_ids), size)
    ]
    num_workers = min(config.num_workers, len(shards))
    if not os.environ.get("RAY_ADDRESS"):  # a cluster may start machines for what is asked
        require_resources(
            {kind: amount * num_workers for kind, amount in needs.items()},
            f"{num_workers} workers",
            "Lower --workers or --gpus, or name a larger cluster in RAY_ADDRESS.",
        )
    rows = ray.data.from_items(shards, override_num_blocks=len(shards)).map(
        EncodeActor,  # type: ignore[arg-type] # Ray makes instances of it
        fn_constructor_args=(config, str(root), encoder_id),
        compute=ray.data.ActorPoolStrategy(size=num_workers),
        num_cpus=needs["CPU"],
        num_gpus=needs["GPU"],
    )
    for row in rows.iter_rows():
        yield json.loads(row["report"])


def _profile_of(config: EncodeConfig) -> str:
    return config.profile if config.profile is not None else curation_profile(config.data_dir)


def _fitted_faces(tracks: ClipTracks, fit: FrameFit, fps: float) -> dict[str, Any]:
    valid = np.flatnonzero(tracks.face_valid)
    corners = tracks.face_boxes[valid].reshape(-1, 2, 2)
    return {
        "face_times_s": tracks.face_frames[valid] / fps,
        "face_boxes": fit.apply_points(corners).reshape(-1, 4).astype(np.float32),
        "face_landmarks": fit.apply_points(tracks.face_landmarks[valid]).astype(np.float32),
        "identity_embeddings": tracks.identity_embeddings[valid],
    }


def _on_device(network: Any, device: torch.device) -> Any:  # noqa: ANN401 - codec or encoder
    return network.to(device) if isinstance(network, nn.Module) else network


def _weights_hash(network: LatentCodec | ImageEncoder) -> str:
    """Return a hash of a network's weights; of its name when it has none of torch's."""
    digest = hashlib.sha256(network.name.encode())
    if isinstance(network, nn.Module):
        for name, tensor in sorted(network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
