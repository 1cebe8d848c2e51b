"""Pairs of poses for the aligner: two frames of one clip, one of them misaligned at random.

All keypoints of a dataset stay in memory (18 points a frame); pairs are drawn and changed in
batches of tensors. The changes imitate what detectors and photographers do: mirrored people, other
proportions, close framings that hide limbs, missed and hallucinated keypoints, jitter.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor

from animaray.datasets.reader import NUM_KEYPOINTS, CurationDataset
from animaray.datasets.splits import held_out_sources
from animaray.datasets.table_rows import one_array
from animaray.models.alignment.misalignment import MisalignmentConfig, random_similarity
from animaray.models.pose.layouts import MIRROR, VISIBLE_CONFIDENCE
from animaray.platform.errors import ConfigError, DatasetError

_SIZE: Final = ("width", "height")
_TRACKS: Final = ("keypoints", "keypoint_confidence")
_BONES: Final = (
    (1, 0), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (0, 14), (0, 15), (14, 16), (15, 17),
)  # fmt: skip
"""Parent and child of each bone, parents first, from the neck outwards."""
_LEFT_RIGHT_BONES: Final = (0, 4, 5, 6, 1, 2, 3, 10, 11, 12, 7, 8, 9, 14, 13, 16, 15)
"""Index of each bone's mirror image."""
_FRAMED: Final = ((1, 8, 11), (1, 8), (1,), (0, 1), (0,))
"""Groups of keypoints that a random framing may look at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairConfig:
    """How pairs are changed before the aligner sees them."""

    misalignment: MisalignmentConfig = field(default_factory=MisalignmentConfig)
    """Random similarity of the driving pose: what has to be undone."""
    mirror_probability: float = 0.5
    """Share of pairs that are mirrored left to right."""
    reframe_probability: float = 0.7
    """Share of pairs that are framed anew, closer or wider, which hides keypoints."""
    max_zoom: float = 3.0
    """Closest framing."""
    bone_jitter: float = 0.12
    """Deviation of the log length of each bone; both poses of a pair change alike."""
    stretch: float = 0.12
    """Deviation of the log width of the whole body."""
    sway: float = 0.02
    """Deviation of the driving pose's place, picture heights."""
    noise: float = 0.004
    """Deviation of every keypoint, picture heights."""
    miss_probability: float = 0.06
    """Share of keypoints that the detector misses."""
    min_visible: int = 4
    """A new framing that leaves fewer keypoints in both poses is not used."""

    def __post_init__(self) -> None:
        """Refuse shares outside [0, 1].

        Raises:
            ConfigError: A setting is out of range.
        """
        for name in ("mirror_probability", "reframe_probability", "miss_probability"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"pairs.{name} must be in [0, 1], got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class PosePairs:
    """A batch of pairs; points in picture heights."""

    reference: Float[Tensor, "batch 18 2"]
    reference_confidence: Float[Tensor, "batch 18"]
    driving: Float[Tensor, "batch 18 2"]
    """Misaligned, with noise and hallucinated points."""
    driving_confidence: Float[Tensor, "batch 18"]
    target: Float[Tensor, "batch 18 2"]
    """The driving pose where it was."""
    visible: Float[Tensor, "batch 18"]
    """1 where the target is seen."""

    def to(self, device: torch.device) -> "PosePairs":
        """Return a copy on another device."""
        return PosePairs(**{name: getattr(self, name).to(device) for name in self.__slots__})


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseClips:
    """Keypoints of many clips, one after the other."""

    keypoints: Float32[Tensor, "frames 18 2"]
    """Picture heights."""
    confidence: Float32[Tensor, "frames 18"]
    """In [0, 1]."""
    first: Int64[Tensor, " clips"]
    """Index of each clip's first frame."""
    length: Int64[Tensor, " clips"]
    """Frames of each clip, at least two."""
    aspect: Float32[Tensor, " clips"]
    """Width / height of each clip's picture."""
    groups: tuple[str, ...]
    """Source video of each clip: held-out clips share none with training clips."""

    def select(self, clips: list[int]) -> "PoseClips":
        """Return some clips; frames are shared with the original."""
        index = torch.tensor(clips, dtype=torch.int64)
        return PoseClips(
            keypoints=self.keypoints,
            confidence=self.confidence,
            first=self.first[index],
            length=self.length[index],
            aspect=self.aspect[index],
            groups=tuple(self.groups[clip] for clip in clips),
        )


def read_pose_clips(dataset: CurationDataset, policy: str) -> PoseClips:
    """Read the keypoints of all kept clips, in one pass over the files of tracks.

    Raises:
        DatasetError: No kept clip has two frames with enough keypoints.
    """
    facts = dataset.table("clips", ["clip_id", "width", "height", "source_id"])
    kept = pa.array(dataset.clip_ids(policy), type=pa.string())
    facts = facts.filter(pc.is_in(facts["clip_id"], value_set=kept))
    ids = np.array(facts["clip_id"].to_pylist(), dtype=np.str_)
    width_px, height_px = (facts[name].to_numpy().astype(np.float32) for name in _SIZE)
    parts = [
        part
        for batch in dataset.large_table_batches("tracks", ("clip_id", *_TRACKS))
        if (part := _usable_poses(batch, ids)) is not None
    ]
    if not parts:
        raise DatasetError(
            f"No clip of {dataset.store} that policy {policy} keeps has two frames with a pose.",
            fix="Curate more videos, or use another policy.",
        )
    clips, lengths, points, confidences = (
        np.concatenate(arrays) for arrays in zip(*parts, strict=True)
    )
    first = np.cumsum(lengths) - lengths
    points /= np.repeat(height_px[clips], lengths)[:, None, None]
    # Clips in the order of their ids, frames as they lay; of two rows of a clip the newest counts.
    _, newest = np.unique(clips[::-1], return_index=True)
    order = len(clips) - 1 - newest
    clips = clips[order]
    return PoseClips(
        keypoints=torch.from_numpy(points),
        confidence=torch.from_numpy(confidences),
        first=torch.from_numpy(first[order]),
        length=torch.from_numpy(lengths[order]),
        aspect=torch.from_numpy(width_px[clips] / height_px[clips]),
        groups=tuple(facts["source_id"].take(pa.array(clips)).to_pylist()),
    )


def _usable_poses(
    batch: pa.Table, ids: Shaped[np.ndarray, " kept"]
) -> (
    tuple[
        Int64[np.ndarray, " clips"],
        Int64[np.ndarray, " clips"],
        Float32[np.ndarray, "frames 18 2"],
        Float32[np.ndarray, "frames 18"],
    ]
    | None
):
    """Return place among the ids and number of frames of each clip, and its frames' keypoints.

    Only clips with two frames with enough keypoints, and only such frames; None without any.
    """
    names = np.array(batch["clip_id"].to_pylist(), dtype=np.str_)
    clips = np.searchsorted(ids, names)
    clips[clips == len(ids)] = 0
    is_kept = np.zeros(len(names), dtype=np.bool_) if len(ids) == 0 else ids[clips] == names
    if not is_kept.any():
        return None
    rows = batch.filter(pa.array(is_kept)).combine_chunks()
    clips = clips[is_kept].astype(np.int64)
    confidence, points = (
        one_array(rows[name]).flatten().to_numpy().reshape(-1, NUM_KEYPOINTS, *axes)
        for name, axes in (("keypoint_confidence", ()), ("keypoints", (2,)))
    )
    lengths = pc.list_value_length(rows["keypoint_confidence"]).to_numpy() // NUM_KEYPOINTS
    is_usable = (confidence >= VISIBLE_CONFIDENCE).sum(axis=1) >= 4
    owners = np.repeat(np.arange(len(clips)), lengths)
    counts = np.bincount(owners[is_usable], minlength=len(clips))
    is_usable &= (counts >= 2)[owners]
    if not is_usable.any():
        return None
    has_two = counts >= 2
    return clips[has_two], counts[has_two], points[is_usable], confidence[is_usable]


def split_clips(clips: PoseClips, held_out_share: float, seed: int) -> tuple[PoseClips, PoseClips]:
    """Return clips to train on and clips held out; no source video is in both.

    Raises:
        DatasetError: All clips come from one source video.
    """
    held_out = held_out_sources(clips.groups, held_out_share, seed)
    sides: tuple[list[int], list[int]] = ([], [])
    for clip, group in enumerate(clips.groups):
        sides[group in held_out].append(clip)
    return clips.select(sides[0]), clips.select(sides[1])


def draw_pairs(
    clips: PoseClips, batch_size: int, config: PairConfig, generator: torch.Generator
) -> PosePairs:
    """Draw random pairs and change them.

    Args:
        clips: Where from; every clip is equally likely.
    """
    chosen = torch.randint(len(clips.length), (batch_size,), generator=generator)
    length, first = clips.length[chosen], clips.first[chosen]
    uniform = torch.rand(2, batch_size, generator=generator)
    frame = (uniform[0] * length).long()
    other = (frame + 1 + (uniform[1] * (length - 1)).long()) % length
    places = torch.stack([first + frame, first + other])
    points, confidence = clips.keypoints[places], clips.confidence[places]
    return change_pairs(points, confidence, clips.aspect[chosen], config, generator)


def change_pairs(
    points: Float[Tensor, "2 batch 18 2"],
    confidence: Float[Tensor, "2 batch 18"],
    aspect: Float[Tensor, " batch"],
    config: PairConfig,
    generator: torch.Generator,
) -> PosePairs:
    """Turn clean pairs (reference, driving) into what the aligner is trained on."""
    points, confidence = _mirror(points, confidence, aspect, config, generator)
    points = _reshape_bodies(points, aspect, config, generator)
    points[1] += config.sway * torch.randn(len(aspect), 1, 2, generator=generator)
    points, aspect = _reframe(points, confidence, aspect, config, generator)
    size = torch.stack([aspect, torch.ones_like(aspect)], -1)[:, None]
    inside = ((points > 0) & (points < size)).all(-1)
    seen = inside & (confidence >= VISIBLE_CONFIDENCE)
    missed = torch.rand(seen.shape, generator=generator) < config.miss_probability
    found = seen & ~missed
    # A detector puts what it does not see near the edge or near its place, and is not sure.
    guess = torch.minimum(points.clamp_min(0.0), size)
    guess = guess + 0.05 * torch.randn(points.shape, generator=generator)
    noisy = points + config.noise * torch.randn(points.shape, generator=generator)
    observed = torch.where(found[..., None], noisy, guess)
    doubt = 0.02 + 0.23 * torch.rand(seen.shape, generator=generator)
    sureness = confidence * (1.0 - 0.4 * torch.rand(seen.shape, generator=generator))
    observed_confidence = torch.where(found, sureness.clamp_min(VISIBLE_CONFIDENCE), doubt)
    moved = random_similarity(aspect, config.misalignment, generator).apply(observed[1])
    return PosePairs(
        reference=observed[0],
        reference_confidence=observed_confidence[0],
        driving=moved,
        driving_confidence=observed_confidence[1],
        target=points[1],
        visible=seen[1].float(),
    )


def _mirror(
    points: Float[Tensor, "2 batch 18 2"],
    confidence: Float[Tensor, "2 batch 18"],
    aspect: Float[Tensor, " batch"],
    config: PairConfig,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "2 batch 18 2"], Float[Tensor, "2 batch 18"]]:
    order = list(MIRROR)
    flipped = points[:, :, order].clone()
    flipped[..., 0] = aspect[:, None] - flipped[..., 0]
    is_flipped = torch.rand(len(aspect), 1, generator=generator) < config.mirror_probability
    return (
        torch.where(is_flipped[..., None], flipped, points),
        torch.where(is_flipped, confidence[:, :, order], confidence),
    )


def _reshape_bodies(
    points: Float[Tensor, "2 batch 18 2"],
    aspect: Float[Tensor, " batch"],
    config: PairConfig,
    generator: torch.Generator,
) -> Float[Tensor, "2 batch 18 2"]:
    """Give each pair other proportions, the same in both poses, left and right alike."""
    batch = len(aspect)
    logs = config.bone_jitter * torch.randn(batch, len(_BONES), generator=generator)
    logs = (logs + logs[:, list(_LEFT_RIGHT_BONES)]) / 2**0.5
    factors = logs.exp()
    reshaped = points.clone()
    for bone, (parent, child) in enumerate(_BONES):
        limb = points[:, :, child] - points[:, :, parent]
        reshaped[:, :, child] = reshaped[:, :, parent] + factors[:, bone, None] * limb
    widths = (config.stretch * torch.randn(batch, generator=generator)).exp()
    middle = aspect[:, None] / 2
    reshaped[..., 0] = middle + widths[:, None] * (reshaped[..., 0] - middle)
    return reshaped


def _reframe(
    points: Float[Tensor, "2 batch 18 2"],
    confidence: Float[Tensor, "2 batch 18"],
    aspect: Float[Tensor, " batch"],
    config: PairConfig,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "2 batch 18 2"], Float[Tensor, " batch"]]:
    """Frame pairs anew: another size and place of the person, another shape of the picture."""
    batch = len(aspect)
    focus_of = torch.zeros(len(_FRAMED), 18)
    for row, members in enumerate(_FRAMED):
        focus_of[row, list(members)] = 1.0 / len(members)
    uniform = torch.rand(4, batch, generator=generator)
    focus = focus_of[(uniform[0] * len(_FRAMED)).long()]
    middle = (points[0] * focus[..., None]).sum(1, keepdim=True)
    zoom = (uniform[1] * float(np.log(config.max_zoom / 0.7))).exp() * 0.7
    shapes = torch.tensor([9 / 16, 3 / 4, 1.0, 16 / 9])
    shape = shapes[torch.randint(len(shapes), (batch,), generator=generator)]
    place = torch.stack([shape * (0.3 + 0.4 * uniform[2]), 0.25 + 0.5 * uniform[3]], -1)
    framed = (points - middle) * zoom[:, None, None] + place[:, None]
    size = torch.stack([shape, torch.ones_like(shape)], -1)[:, None]
    inside = ((framed > 0) & (framed < size)).all(-1) & (confidence >= VISIBLE_CONFIDENCE)
    both = (inside[0] & inside[1]).sum(-1)
    is_framed = torch.rand(batch, generator=generator) < config.reframe_probability
    is_framed &= both >= config.min_visible
    return (
        torch.where(is_framed[:, None, None], framed, points),
        torch.where(is_framed, shape, aspect),
    )
