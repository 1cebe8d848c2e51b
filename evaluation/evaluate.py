"""Reconstruct held-out clips and measure how well: the picture is the clip's own first frame.

    first frame -> reference;  the clip's poses (optionally misaligned) -> motion;  result vs clip

Command: animaray evaluate --data DATASET --weights WEIGHTS --out FOLDER
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from animaray.datasets.reader import CurationDataset
from animaray.datasets.splits import held_out_sources, read_trained_sources
from animaray.evaluation.metrics import (
    embed_largest_faces,
    identity_similarity,
    keypoint_distance,
    l1,
    psnr,
    ssim,
)
from animaray.evaluation.table import EvaluationRow, EvaluationTable, FailedClip
from animaray.models.alignment.methods import AlignmentMethod
from animaray.models.alignment.misalignment import Misalignment
from animaray.models.animation.pipeline import AnimationOptions, AnimationPipeline
from animaray.models.perception.find_people import MAX_PERCEPTION_PX
from animaray.models.perception.protocols import Perception
from animaray.models.pose.further_points import map_further
from animaray.models.pose.layouts import VISIBLE_CONFIDENCE
from animaray.models.subjects.motion import Motion
from animaray.models.subjects.reference import Reference
from animaray.platform.config import config_to_dict
from animaray.platform.disk import check_folder, check_room
from animaray.platform.errors import ConfigError, DatasetError, RefusedError
from animaray.platform.media.video import write_mp4
from animaray.platform.progress import StageProgress, stage_progress
from animaray.platform.storage import content_id

STILL_PICTURE = "still picture"
_PANELS = 5
"""Pictures side by side in a comparison video, each at most a quarter of a byte per pixel."""
_TABLES_BYTES = 1024**2

__all__ = ["EvaluateConfig", "EvaluationTable", "evaluate", "evaluate_pipeline"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Which clips to reconstruct, and how."""

    data_dir: str
    """Curated dataset: a folder, or an address in an object store."""
    weights_dir: Path
    """Weights folder to judge."""
    out_dir: Path = Path("evaluation")
    """Folder that gets evaluation.json, evaluation.md and one comparison video per clip."""
    policy: str = "standard"
    """Whose kept clips are used."""
    held_out_share: float | None = 0.2
    """Share of source videos that training left out, by the rule of animaray.datasets.splits;
    None takes all kept clips, trained on or not."""
    split_seed: int = 0
    """Seed of that rule; the training's."""
    limit: int | None = None
    """At most so many clips, from as many sources as possible; None takes all."""
    max_frames: int = 16
    """At most so many frames per clip, at the model's frame rate."""
    seed: int = 0
    """Seed of the sampler, equal for all clips."""
    num_inference_steps: int | None = None
    """Denoising steps; None takes the model's default."""
    guidance_scale: float | None = None
    """Guidance; None takes the model's default."""
    alignment: AlignmentMethod | None = None
    """How poses are aligned; None takes the model's default."""
    misalignment_seed: int | None = None
    """Misalign each clip's poses by a random similarity of this seed; None leaves them."""
    face_optimization: tuple[bool, ...] = (True, False)
    """Evaluate with it, without it, or both."""

    def __post_init__(self) -> None:
        """Refuse settings that evaluate nothing.

        Raises:
            ConfigError: A number is out of range.
        """
        share = self.held_out_share
        if share is not None and not 0 < share < 1:
            raise ConfigError(f"Setting `held_out_share` must be in (0, 1), got {share}.")
        if self.max_frames < 2 or (self.limit is not None and self.limit < 1):
            raise ConfigError(
                "Settings `max_frames` (at least 2) and `limit` (at least 1) leave nothing to do:"
                f" {self.max_frames}, {self.limit}."
            )
        if not self.face_optimization:
            raise ConfigError("Setting `face_optimization` must name at least one of true, false.")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Clip:
    """A clip as it is reconstructed."""

    clip_id: str
    source: str
    frames_uint8: UInt8[np.ndarray, "frames height width 3"]
    motion: Motion


def evaluate(config: EvaluateConfig, progress: StageProgress | None = None) -> EvaluationTable:
    """Evaluate a weights folder on held-out clips and write the tables.

    A damaged dataset raises DatasetError, damaged weights WeightsError. A clip without a usable
    face or pose is listed as failed and does not stop the others.

    Args:
        progress: Row to advance; None shows an own row.
    """
    check_folder(config.out_dir, "The evaluation")
    pipeline = AnimationPipeline.from_pretrained(config.weights_dir)
    return evaluate_pipeline(config, pipeline, progress)


def evaluate_pipeline(
    config: EvaluateConfig, pipeline: AnimationPipeline, progress: StageProgress | None = None
) -> EvaluationTable:
    """Evaluate a pipeline that is already loaded; see `evaluate`."""
    dataset = CurationDataset.open(config.data_dir)
    clip_ids = choose_clips(dataset, config)
    size = pipeline.animator.config
    pixels = len(clip_ids) * config.max_frames * size.width_px * size.height_px
    check_room(config.out_dir, pixels * _PANELS // 4 + _TABLES_BYTES, "The evaluation")
    identities = _identities(dataset, config.policy, pipeline.perception)
    rows: list[EvaluationRow] = []
    failed: list[FailedClip] = []
    with progress or stage_progress("evaluate", len(clip_ids)) as row:
        for clip_id in clip_ids:
            source = str(dataset.clip(clip_id)["file_name"])
            try:
                clip = _read_clip(dataset, clip_id, pipeline.fps, config.max_frames)
                rows += _evaluate_clip(clip, pipeline, config, identities)
            except RefusedError as error:
                failed.append(FailedClip(clip_id=clip_id, source=source, reason=error.message))
            row.advance(1, source)
    table = EvaluationTable(rows=tuple(rows), failed=tuple(failed), settings=config_to_dict(config))
    table.write(config.out_dir)
    return table


def choose_clips(dataset: CurationDataset, config: EvaluateConfig) -> list[str]:
    """Return the clips to evaluate: kept, held out, from as many sources as the limit allows.

    Raises:
        DatasetError: The weights were trained on held-out sources.
    """
    by_source: dict[str, list[str]] = {}
    for clip_id in dataset.kept_clips(config.policy):
        by_source.setdefault(str(dataset.clip(clip_id)["source_id"]), []).append(clip_id)
    sources = set(by_source)
    if config.held_out_share is not None:
        sources = held_out_sources(sources, config.held_out_share, config.split_seed)
        seen = sources & read_trained_sources(config.weights_dir)
        if seen:
            raise DatasetError(
                f"{len(seen)} of {len(sources)} held-out source videos were trained on by "
                f"{config.weights_dir}.",
                fix="Use the training's held_out_share, split_seed and policy (--set), or measure "
                "on seen people with --set held_out_share=null.",
                reason="trained_on",
            )
    # Round by round one clip of each source, so that a limit still sees many people.
    rounds = sorted(
        (place, source) for source in sources for place in range(len(by_source[source]))
    )
    chosen = [by_source[source][place] for place, source in rounds]
    return chosen[: config.limit]


def _read_clip(dataset: CurationDataset, clip_id: str, fps: float, max_frames: int) -> _Clip:
    facts, tracks = dataset.clip(clip_id), dataset.tracks(clip_id)
    width, height = int(facts["width"]), int(facts["height"])
    reduction = min(1.0, MAX_PERCEPTION_PX / max(width, height))
    frames = dataset.decode_clip(
        clip_id,
        fps=fps,
        max_frames=max_frames,
        short_side_px=int(min(width, height) * reduction) if reduction < 1 else None,
    ).frames_uint8
    nearest = tracks.nearest_pose(np.arange(len(frames)) / fps)
    scale = np.array([frames.shape[2] / width, frames.shape[1] / height])
    confidence = tracks.keypoint_confidence[nearest]
    further = None if tracks.further_points is None else tracks.further_points[nearest]
    return _Clip(
        clip_id=clip_id,
        source=str(facts["file_name"]),
        frames_uint8=frames,
        motion=Motion(
            keypoints=(tracks.keypoints[nearest] * scale).astype(np.float32),
            keypoint_confidence=confidence,
            width_px=frames.shape[2],
            height_px=frames.shape[1],
            is_filled=(confidence < VISIBLE_CONFIDENCE).all(axis=1),
            further_points=map_further(further, lambda points: points * scale),
            is_alone=tracks.num_persons[nearest] == 1,
        ),
    )


def _identities(
    dataset: CurationDataset, policy: str, perception: Perception
) -> dict[str, Float32[np.ndarray, " embedding"]]:
    """Return the mean identity of every source that has kept clips with faces.

    Raises:
        DatasetError: The dataset was curated with another embedder.
    """
    faces: dict[str, list[Float32[np.ndarray, "_ embedding"]]] = {}
    for clip_id in dataset.clip_ids(policy):
        tracks = dataset.tracks(clip_id)
        valid = tracks.identity_embeddings[tracks.face_valid]
        if len(valid):
            faces.setdefault(str(dataset.clip(clip_id)["file_name"]), []).append(valid)
    means = {source: np.concatenate(parts).mean(axis=0) for source, parts in sorted(faces.items())}
    dim = perception.identity_embedder.embedding_dim
    for source, mean in means.items():
        if len(mean) != dim:
            raise DatasetError(
                f"The identities of {source} have {len(mean)} numbers, those of profile"
                f" {perception.profile} have {dim}: the dataset was curated with another profile.",
                fix=f"Curate it with --profile {perception.profile}.",
                reason="other_profile",
            )
    return {source: mean.astype(np.float32) for source, mean in means.items()}


def _evaluate_clip(
    clip: _Clip,
    pipeline: AnimationPipeline,
    config: EvaluateConfig,
    identities: dict[str, Float32[np.ndarray, " embedding"]],
) -> list[EvaluationRow]:
    """Animate one clip by itself and judge it.

    Raises:
        DatasetError: The model draws hands and faces, which the dataset does not hold.
    """
    if (
        pipeline.animator.config.pose_layout == "whole_body_134"
        and clip.motion.further_points is None
    ):
        raise DatasetError(
            "The model was trained on poses with hands and faces; this clip was curated without.",
            fix="Curate it with --profile paper, or --set pose_layout=whole_body_134.",
            reason="no_further_points",
        )
    # The first frame is the reference; the clip itself, cut the same way, is the truth.
    reference = pipeline.prepare_reference(clip.frames_uint8[0])
    truth = reference.fit.apply_frames(clip.frames_uint8)
    motion = clip.motion
    if config.misalignment_seed is not None:
        seed = content_id(config.misalignment_seed, clip.clip_id)
        aspect = motion.width_px / motion.height_px
        motion = Misalignment.of_seed(seed, aspect).apply(motion)
    judge = _Judge(
        clip=clip,
        reference=reference,
        truth=truth,
        perception=pipeline.perception,
        identities=identities,
    )
    # Each method is judged beside the still picture, the least that an animation must beat.
    shown = [truth]
    for optimize in config.face_optimization:
        options = AnimationOptions(
            seed=config.seed,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            alignment=config.alignment,
            face_optimization=optimize,
        )
        started = time.monotonic()
        animation = pipeline.animate(reference, motion, options)
        seconds = time.monotonic() - started
        method = f"{'with' if optimize else 'without'} face optimization"
        judge.add(method, animation.frames_uint8, seconds, animation.keypoints)
        shown.append(animation.frames_uint8)
    still = np.repeat(reference.picture_uint8[None], len(truth), axis=0)
    judge.add(STILL_PICTURE, still, 0.0, None)
    comparison = np.concatenate([still, *shown], axis=2)
    write_mp4(config.out_dir / f"{clip.clip_id}.mp4", comparison, pipeline.fps)
    return judge.rows


@dataclass(frozen=True, kw_only=True, slots=True)
class _Judge:
    """Measures what several methods made of one clip."""

    clip: _Clip
    reference: Reference
    truth: UInt8[np.ndarray, "frames height width 3"]
    perception: Perception
    identities: dict[str, Float32[np.ndarray, " embedding"]]
    rows: list[EvaluationRow] = field(default_factory=list)

    def add(
        self,
        method: str,
        frames_uint8: UInt8[np.ndarray, "frames height width 3"],
        seconds: float,
        keypoints: Float32[np.ndarray, "frames 18 2"] | None,
    ) -> None:
        """Measure one result from its second frame on: the first one is the reference.

        Args:
            keypoints: Those it followed, in its own pixels; None for methods without a pose.
        """
        frames_uint8, truth = frames_uint8[1:], self.truth[1:]
        faces = embed_largest_faces(frames_uint8, self.perception)
        own = identity_similarity(faces, self.reference.identity_embedding)
        self.rows.append(
            EvaluationRow(
                clip_id=self.clip.clip_id,
                source=self.clip.source,
                method=method,
                num_frames=len(frames_uint8),
                l1=l1(frames_uint8, truth),
                psnr_db=psnr(frames_uint8, truth),
                ssim=ssim(frames_uint8, truth),
                csim=own.mean,
                num_without_face=own.num_without_face,
                dis=None if keypoints is None else self._distance(keypoints),
                seconds=seconds,
                identity_by_source={
                    source: identity_similarity(faces, identity).mean
                    for source, identity in self.identities.items()
                },
            )
        )

    def _distance(self, keypoints: Float32[np.ndarray, "frames 18 2"]) -> float:
        motion = self.clip.motion
        return keypoint_distance(
            keypoints[1:],
            self.reference.fit.apply_points(motion.keypoints[1:]),
            motion.keypoint_confidence[1:] >= VISIBLE_CONFIDENCE,
            float(self.truth.shape[1]),
        )
