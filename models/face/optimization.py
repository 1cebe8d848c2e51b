"""Face optimization: gradient steps on the denoised estimate towards the reference identity.

Inside a denoising step the estimate is decoded, faces are aligned and embedded, and Adam lowers
mean |1 - cos(embedding, reference)| (Algorithm 1). FaceOptimizationConfig has the modes; windows
and what they store are in animaray.models.perception.decoding.windowed_decoding.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.optim.adam import adam

from animaray.models.diffusion.sampler_config import StepInfo
from animaray.models.face.landmarks import detect_landmarks, move_alike
from animaray.models.face.loss import (
    FaceLoss,
    FullFrameLoss,
    VisibleFaces,
    WindowDecoding,
    WindowLoss,
)
from animaray.models.face.optimization_config import FaceOptimizationConfig
from animaray.models.face.windows import cell_boxes, cell_mask, face_boxes_px
from animaray.models.frames import to_uint8
from animaray.models.perception.decoding.windowed_decoding import DecoderRecord, windowed_decoder_of
from animaray.models.perception.protocols import FaceDetector, IdentityEmbedder, LatentCodec
from animaray.platform.errors import FaceError

logger = logging.getLogger(__name__)

FEW_FRAMES = 4
"""Clips this short are recorded whole: both their ends are near to every frame."""
PREVIEW_FRAMES = 8
"""Frames decoded at once when all of them are searched for faces."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceTarget:
    """One person whose face is to be kept."""

    reference_embedding: Float32[np.ndarray, " embedding"]
    """Unit identity embedding of the reference."""
    landmarks: Float32[np.ndarray, "frames 5 2"]
    """Where the pose says the face is, pixels; NaN in frames that do not show it. One row per
    frame, also where the codec holds several frames in one latent."""
    boxes_px: Float32[np.ndarray, "frames 4"] | None = None
    """Left, top, right, bottom pixel of the face, for `published`; None takes the aligned crop's
    footprint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceOptimizationStep:
    """What one denoising step's optimization did."""

    step_index: int
    """Denoising step."""
    num_frames: int
    """Frames with a usable face; 0 means that the step was left alone."""
    num_detected: int
    """Of them, frames whose landmarks were detected rather than taken from the pose."""
    losses: tuple[float, ...]
    """Mean |1 - cos| before each Adam step; as many gradients were computed."""
    note: str | None = None
    """What was done otherwise than the mode says, and why."""


class FaceOptimizer:
    """Correct denoised estimates; the sampler's `correct_denoised`.

    Frames without a visible face are left out of the loss. `history` tells what was done.
    """

    def __init__(
        self,
        codec: LatentCodec,
        embedder: IdentityEmbedder,
        targets: Sequence[FaceTarget],
        config: FaceOptimizationConfig,
        *,
        detector: FaceDetector | None = None,
        on_iteration: Callable[[], None] | None = None,
    ) -> None:
        """Prepare the optimization of one clip.

        Args:
            codec: Decodes latents; gradients flow through it.
            embedder: Recognises faces; gradients flow through it.
            targets: Whose faces, and where; clips of equal length.
            config: When and how hard.
            detector: Refines the landmarks in decoded estimates; None never does.
            on_iteration: Called before each Adam step; raising ends everything.

        Raises:
            FaceError: There is no face, or a reference embedding is not a unit vector.
        """
        if not targets:
            raise FaceError(
                "Face optimization needs at least one reference face, got none.",
                fix="Give a picture that shows the face, or switch face optimization off.",
                reason="no_face",
            )
        for target in targets:
            length = float(np.linalg.norm(target.reference_embedding))
            if not 0.99 < length < 1.01:
                raise FaceError(
                    f"Face optimization needs a unit reference embedding, got length {length:.3f}.",
                    reason="no_face",
                )
        self._codec = codec
        self._decoder = windowed_decoder_of(codec) if config.mode == "fast" else None
        self._embedder = embedder
        self._targets = list(targets)
        self._landmarks = [target.landmarks.astype(np.float32) for target in targets]
        self._is_detected = [np.zeros(len(target.landmarks), bool) for target in targets]
        self._detector = detector if config.mode != "published" else None
        self._config = config
        self._on_iteration = on_iteration
        self._num_active_steps = 0
        self._note: str | None = None
        if config.mode == "fast" and self._decoder is None:
            self._note = (
                f"codec {codec.name} cannot decode windows: whole frames are decoded, which is "
                "right but slower"
            )
            logger.warning("Face optimization: %s.", self._note)
        self.history: list[FaceOptimizationStep] = []

    def __call__(
        self, denoised: Float[Tensor, "1 frames channels h w"], step: StepInfo
    ) -> Float[Tensor, "1 frames channels h w"]:
        """Return the estimate with faces nearer to the references'."""
        if not self._config.is_active(step):
            return denoised
        latents = denoised[0]
        recorded, record = self._record(latents)
        if self._should_detect(step.sigma):
            self._detect(latents, recorded, record)
        self._num_active_steps += 1
        faces = [
            face for index in range(len(self._targets)) if (face := self._visible(index, latents))
        ]
        losses: list[float] = []
        if faces:
            latents, losses = optimize_latents(
                latents,
                self._loss(faces, record, is_whole=self._is_compressed(latents)),
                learning_rate=self._config.rate(step),
                num_iterations=self._config.iterations,
                stop_below_gain=self._config.stop_below_gain if self._is_fast else 0.0,
                update_mask=self._mask(faces, latents) if self._is_fast else None,
                on_iteration=self._on_iteration,
            )
        seen = np.array([np.isfinite(each[:, 0, 0]) for each in self._landmarks])
        self.history.append(
            FaceOptimizationStep(
                step_index=step.step_index,
                num_frames=int(seen.any(axis=0).sum()),
                num_detected=int((seen & np.array(self._is_detected)).any(axis=0).sum()),
                losses=tuple(losses),
                note=self._note,
            )
        )
        return latents[None] if faces else denoised

    @property
    def _is_fast(self) -> bool:
        return self._config.mode == "fast"

    def _is_compressed(self, latents: Float[Tensor, "latent_frames channels h w"]) -> bool:
        """Return whether the codec holds several frames in one latent (CogVideoX's does)."""
        return len(latents) != len(self._landmarks[0])

    def _record(
        self, latents: Float[Tensor, "frames channels h w"]
    ) -> tuple[Int64[np.ndarray, " recorded"], DecoderRecord]:
        """Decode once what windows refer to: all frames, or the middle one of those with a face."""
        rows = np.arange(len(latents))
        if self._decoder is None or not self._decoder.needs_record or self._is_compressed(latents):
            return rows, DecoderRecord()
        records_all = self._config.record_all_frames
        if records_all is None:
            records_all = len(latents) <= FEW_FRAMES
        if not records_all:
            shown = np.isfinite(np.array(self._landmarks)[:, :, 0, 0]).any(axis=0)
            candidates = np.flatnonzero(shown) if shown.any() else rows
            rows = candidates[len(candidates) // 2][None]
        return rows, self._decoder.record(latents[rows], len(latents))

    def _should_detect(self, sigma: float) -> bool:
        config = self._config
        if self._detector is None or config.detect_every == 0 or sigma > config.detect_below_sigma:
            return False
        is_due = self._num_active_steps % config.detect_every == 0
        return is_due or not any(each.any() for each in self._is_detected)

    @torch.no_grad()
    def _detect(
        self,
        latents: Float[Tensor, "frames channels h w"],
        rows: Int64[np.ndarray, " recorded"],
        record: DecoderRecord,
    ) -> None:
        """Take the landmarks of faces found in the estimate: in all frames, or in those recorded.

        The landmarks of frames that were not decoded move as those of the recorded frame.
        """
        if self._detector is None:
            return
        frames = record.frames
        if frames is None:
            rows = np.arange(len(self._landmarks[0]))
            size = self._config.frames_at_once or PREVIEW_FRAMES
            chunks = torch.split(latents, len(latents) if self._is_compressed(latents) else size)
            frames = torch.cat([self._codec.decode(chunk) for chunk in chunks])[: len(rows)]
        pictures = to_uint8(frames)
        is_alone = len(self._targets) == 1
        for landmarks, is_detected in zip(self._landmarks, self._is_detected, strict=True):
            expected = landmarks[rows]
            found, is_found = detect_landmarks(
                pictures, self._detector, expected, largest_if_unknown=is_alone
            )
            if len(rows) < len(landmarks) and is_found[0] and np.isfinite(expected[0]).all():
                landmarks[:] = move_alike(landmarks, expected[0], found[0])
            landmarks[rows[is_found]] = found[is_found]
            is_detected[rows[is_found]] = True

    def _visible(
        self, index: int, latents: Float[Tensor, "frames channels h w"]
    ) -> VisibleFaces | None:
        """Return where one person's face is; None where no frame shows it."""
        target, landmarks = self._targets[index], self._landmarks[index]
        rows = np.flatnonzero(np.isfinite(landmarks).all(axis=(1, 2)))
        if self._config.mode == "published" and target.boxes_px is not None:
            rows = np.flatnonzero(np.isfinite(target.boxes_px).all(axis=1))
            boxes_px = target.boxes_px[rows].reshape(-1, 2, 2)
        elif len(rows):
            boxes_px = face_boxes_px(landmarks[rows], self._embedder)
        if not len(rows):
            return None
        frame_size = int(latents.shape[-2]), int(latents.shape[-1])
        return VisibleFaces(
            reference=torch.from_numpy(target.reference_embedding).to(latents.device),
            rows=rows,
            landmarks=landmarks[rows],
            boxes_px=boxes_px,
            boxes=cell_boxes(boxes_px, self._codec.downscale, frame_size),
        )

    def _loss(
        self, faces: list[VisibleFaces], record: DecoderRecord, *, is_whole: bool = False
    ) -> FaceLoss:
        """Return the mode's loss; `is_whole` decodes all frames together, without windows."""
        config = self._config
        if self._decoder is None or is_whole:
            return FullFrameLoss(
                self._codec,
                self._embedder,
                faces,
                crop="box" if config.mode == "published" else "aligned",
                frames_at_once=None if is_whole else config.frames_at_once,
            )
        decoding = WindowDecoding(
            decoder=self._decoder,
            downscale=self._codec.downscale,
            record=record,
            margin=config.window_margin_latents,
            multiple=config.window_multiple_latents,
        )
        return WindowLoss(decoding, self._embedder, faces, frames_at_once=config.frames_at_once)

    def _mask(
        self, faces: list[VisibleFaces], latents: Float[Tensor, "frames channels h w"]
    ) -> Float[Tensor, "frames 1 h w"]:
        """Return 1 at the cells of faces and their margin, 0 elsewhere."""
        mask = torch.zeros_like(latents[:, :1])
        size = int(latents.shape[-2]), int(latents.shape[-1])
        for face in faces:
            near = cell_mask(face.boxes, self._config.update_margin_latents, size).to(mask)
            if self._is_compressed(latents):
                mask = torch.maximum(mask, near.amax(dim=0, keepdim=True))
            else:
                mask[face.rows] = torch.maximum(mask[face.rows], near)
        return mask


def optimize_latents(  # noqa: PLR0913 - a numeric routine, all by keyword
    latents: Float[Tensor, "faces channels h w"],
    loss_and_gradient: Callable[[Tensor], tuple[float, Tensor]],
    *,
    learning_rate: float,
    num_iterations: int,
    stop_below_gain: float = 0.0,
    update_mask: Float[Tensor, "faces 1 h w"] | None = None,
    on_iteration: Callable[[], None] | None = None,
) -> tuple[Float[Tensor, "faces channels h w"], list[float]]:
    """Lower a loss by Adam steps with fresh moments.

    Args:
        latents: Where to start; not changed.
        loss_and_gradient: The loss of some latents, and its gradient.
        learning_rate: Adam's.
        num_iterations: Number of Adam steps.
        stop_below_gain: Stop when a step lowers the loss by less than this share; 0 never stops.
        update_mask: 1 where latents may change; None changes all.
        on_iteration: Called before each step.

    Returns:
        The changed latents, and the loss before each step.
    """
    current = latents.detach().clone()
    # Adam's function: building its class loads torch._dynamo, a CPU second for every animation.
    mean, square = torch.zeros_like(current), torch.zeros_like(current)
    count = torch.tensor(0.0)
    losses: list[float] = []
    for iteration in range(num_iterations):
        if on_iteration is not None:
            on_iteration()
        loss, gradient = loss_and_gradient(current)
        losses.append(loss)
        if iteration and losses[-2] - loss < stop_below_gain * losses[-2] and stop_below_gain:
            return current, losses
        gradient = gradient if update_mask is None else gradient * update_mask
        with torch.no_grad():
            adam(
                [current], [gradient], [mean], [square], [], [count],
                amsgrad=False, beta1=0.9, beta2=0.999, lr=learning_rate, weight_decay=0.0,
                eps=1e-8, maximize=False,
            )  # fmt: skip
    return current, losses
