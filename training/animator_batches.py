"""Turn encoded clips into tensors for the animator."""

from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor

from animaray.datasets.encoded_clips import EncodedClip, EncodedClips
from animaray.models.alignment.alignment import PosedPicture
from animaray.models.animation.conditioning import (
    PosedPerson,
    ReferenceInputs,
    assemble_conditioning,
)
from animaray.models.diffusion.loss import face_mask_from_boxes
from animaray.models.face.identity import FaceIdentity
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.networks.conditioning import Conditioning
from animaray.models.perception.protocols import LatentCodec
from animaray.platform.errors import ConfigError, DatasetError
from animaray.training.batch_order import Window, WindowConfig, plan_window

_CACHE_BYTES = 512 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimatorBatch:
    """Windows of clips, ready for the loss."""

    latents: Float[Tensor, "batch frames channels h w"]
    face_mask: Float[Tensor, "batch frames 1 h w"]
    """1 inside a known face box, else 0."""
    conditioning: Conditioning

    def to(self, device: torch.device) -> "AnimatorBatch":
        """Return a copy on another device."""
        return AnimatorBatch(
            latents=self.latents.to(device),
            face_mask=self.face_mask.to(device),
            conditioning=self.conditioning.to(device),
        )

    def take(self, index: int) -> "AnimatorBatch":
        """Return one window as a batch of one."""
        part, one = self.conditioning, slice(index, index + 1)
        pose, warped = part.reference_pose_image, part.warped_reference
        return AnimatorBatch(
            latents=self.latents[one],
            face_mask=self.face_mask[one],
            conditioning=Conditioning(
                reference_latents=part.reference_latents[one],
                image_embedding=part.image_embedding[one],
                identity_embedding=part.identity_embedding[one],
                pose_images=part.pose_images[one],
                reference_pose_image=None if pose is None else pose[one],
                warped_reference=None if warped is None else warped[one],
            ),
        )


class AnimatorBatches:
    """Batches by item number; the same number always gives the same batch."""

    def __init__(
        self,
        table: EncodedClips,
        window: WindowConfig,
        animator: AnimatorConfig,
        *,
        seed: int,
        reference_noise: float,
        warp_codec: LatentCodec | None = None,
    ) -> None:
        """Select the clips that are long enough.

        Args:
            animator: Whom the batches are for.
            warp_codec: Makes the warped reference, for models that take it.

        Raises:
            DatasetError: No clip is as long as a window.
        """
        self._table = table
        self._window = window
        self._animator = animator
        self._seed = seed
        self._reference_noise = reference_noise
        self._warp_codec = warp_codec
        lengths = table.lengths()
        needed = window.min_clip_frames
        kept = np.flatnonzero(lengths >= needed)
        self.clip_ids = [table.clip_ids[place] for place in kept]
        if not self.clip_ids:
            raise DatasetError(
                f"None of {len(lengths)} encoded clips has the {needed} frames of a "
                f"training window; the longest has {lengths.max(initial=0)}.",
                fix="Encode at a higher frame rate, or lower window.num_frames.",
            )
        self._lengths = lengths[kept]
        self._cache: OrderedDict[tuple[str, bool], EncodedClip] = OrderedDict()
        self._cached_bytes = 0

    def make(self, positions: range) -> AnimatorBatch:
        """Return the batch of these items."""
        return collate([self._item(position) for position in positions])

    def _item(self, position: int) -> AnimatorBatch:
        window = plan_window(position, self._lengths, self._window, self._seed)
        clip = self._clip(window)
        rng = np.random.default_rng([self._seed, position, 7])
        item = make_item(clip, window, self._animator, self._warp_codec, rng)
        if self._reference_noise == 0.0:
            return item
        clean = item.conditioning.reference_latents
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        noisy = replace(item.conditioning, reference_latents=clean + self._reference_noise * noise)
        return replace(item, conditioning=noisy)

    def _clip(self, window: Window) -> EncodedClip:
        clip_id = self.clip_ids[window.clip_index]
        is_mirrored = window.is_mirrored and self._table.has_mirrored(clip_id)
        key = (clip_id, is_mirrored)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        clip = self._table.load(clip_id, is_mirrored=is_mirrored)
        self._cache[key] = clip
        self._cached_bytes += _num_bytes(clip)
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= _num_bytes(oldest)
        return clip


def _num_bytes(clip: EncodedClip) -> int:
    arrays = (clip.latents, clip.latent_std, clip.reference_latents, clip.reference_latent_std)
    return sum(array.nbytes for array in arrays if array is not None)


def make_item(
    clip: EncodedClip,
    window: Window,
    animator: AnimatorConfig,
    warp_codec: LatentCodec | None = None,
    rng: np.random.Generator | None = None,
) -> AnimatorBatch:
    """Return one window of a clip as a batch of one.

    Args:
        warp_codec: Makes the warped reference, for models that take it.
        rng: Draws latents from the codec's posterior, where the table has one; None takes the
            most likely ones, as inference does.
    """
    frames = list(window.frame_indices)
    reference = window.reference_index
    latents = (
        _drawn(clip.latents[frames], _rows(clip.latent_std, frames), rng),
        _reference_latents(clip, reference, rng),
    )
    inputs = ReferenceInputs(
        latents=latents[1][None],
        image_embedding=torch.from_numpy(clip.image_embeddings[reference].copy())[None],
        identity=identity_of_frame(clip, reference),
    )
    person = PosedPerson(reference=_posed(clip, reference), driven=_posed(clip, frames))
    return AnimatorBatch(
        latents=latents[0][None],
        face_mask=face_mask(clip, frames)[None],
        conditioning=assemble_conditioning(animator, inputs, [person], warp_codec),
    )


def _reference_latents(
    clip: EncodedClip, frame: int, rng: np.random.Generator | None
) -> Float[Tensor, "channels h w"]:
    """Return the latents of a frame as reference picture, noisy where the table has it so."""
    if clip.reference_latents is None:
        return _drawn(clip.latents[frame], _rows(clip.latent_std, frame), rng)
    std = _rows(clip.reference_latent_std, frame)
    return _drawn(clip.reference_latents[frame], std, rng)


def _drawn(
    mean: Float16[np.ndarray, "*shape"],
    std: Float16[np.ndarray, "*shape"] | None,
    rng: np.random.Generator | None,
) -> Float[Tensor, "*shape"]:
    """Draw from a codec's posterior, or return its mean where there is none to draw from."""
    latents = mean.astype(np.float32)
    if std is not None and rng is not None:
        latents += std * rng.standard_normal(mean.shape, dtype=np.float32)
    return torch.from_numpy(latents)


def _rows(
    array: Float16[np.ndarray, "frames channels h w"] | None, frames: int | list[int]
) -> Float16[np.ndarray, "*rows"] | None:
    return None if array is None else array[frames]


def identity_of_frame(clip: EncodedClip, frame: int) -> FaceIdentity:
    """Return the identity measured on a frame, or the clip's where it was not measured there."""
    if clip.identity_valid[frame]:
        raw = None if clip.raw_identities is None else clip.raw_identities[frame]
        return FaceIdentity(unit=clip.identity_embeddings[frame], raw=raw)
    return FaceIdentity(unit=clip.identity_embedding, raw=clip.raw_identity)


def _posed(clip: EncodedClip, frames: int | list[int]) -> PosedPicture:
    further = clip.further_points
    return PosedPicture(
        keypoints=clip.keypoints[frames],
        keypoint_confidence=clip.keypoint_confidence[frames],
        further_points=None if further is None else further[frames],
        width_px=clip.width_px,
        height_px=clip.height_px,
    )


def face_mask(clip: EncodedClip, frames: list[int]) -> Float[Tensor, "frames 1 h w"]:
    """Return 1 inside the frame's face box in the latents' resolution.

    Frames whose face is not known get 0 everywhere, which leaves their loss unweighted.
    """
    return face_mask_from_boxes(
        torch.from_numpy(clip.face_boxes[frames]),
        torch.from_numpy(clip.face_box_valid[frames]),
        (clip.width_px, clip.height_px),
        (clip.latents.shape[2], clip.latents.shape[3]),
    )


def collate(items: list[AnimatorBatch]) -> AnimatorBatch:
    """Concatenate batches.

    Raises:
        ConfigError: Items have different sizes.
    """
    shapes = {tuple(item.latents.shape[1:]) for item in items}
    if len(shapes) > 1:
        raise ConfigError(f"All windows of a batch must have one shape, got {sorted(shapes)}.")
    parts = [item.conditioning for item in items]
    poses = [part.reference_pose_image for part in parts]
    warped = [part.warped_reference for part in parts if part.warped_reference is not None]
    return AnimatorBatch(
        latents=torch.cat([item.latents for item in items]),
        face_mask=torch.cat([item.face_mask for item in items]),
        conditioning=Conditioning(
            reference_latents=torch.cat([part.reference_latents for part in parts]),
            image_embedding=torch.cat([part.image_embedding for part in parts]),
            identity_embedding=torch.cat([part.identity_embedding for part in parts]),
            pose_images=torch.cat([part.pose_images for part in parts]),
            reference_pose_image=torch.cat([pose for pose in poses if pose is not None]),
            warped_reference=torch.cat(warped) if warped else None,
        ),
    )
