"""Face optimization: gradient steps on the denoised estimate towards the reference identity.

Inside a denoising step the estimate is decoded, faces are aligned and embedded, and Adam lowers
mean |1 - cos(embedding, reference)| (Algorithm 1). With `crop` only a window around each face is
decoded: the gradient misses what reaches the face from beyond the window, which is nothing when the
margin covers the decoder's receptive field and the decoder has no layer that sees the whole frame
(attention, group norm); otherwise it is an approximation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from animaray.models.diffusion.face_landmarks import detect_landmarks
from animaray.models.diffusion.sampler import StepInfo
from animaray.models.frozen.face_alignment import align_frames, similarity_from_landmarks
from animaray.models.frozen.protocols import FaceDetector, IdentityEmbedder, LatentCodec
from animaray.platform.errors import ConfigError, FaceError


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceOptimizationConfig:
    """When and how hard to optimize; the defaults are the paper's where it gives any."""

    enabled: bool = True
    """False samples without face optimization."""
    start_step: int = 0
    """First denoising step that is optimized."""
    first_steps: int = 10
    """How many denoising steps are optimized."""
    num_iterations: int = 10
    """Adam steps per denoising step; more over-sharpens."""
    learning_rate: float = 0.1
    """Adam's, in latent standard deviations."""
    use_decay: bool = True
    """Lower the learning rate evenly to 0 at the last denoising step, as the released code."""
    stop_below_gain: float = 0.0
    """Stop a denoising step's iterations when one lowers the loss by less than this share; 0 runs
    all of them."""
    crop: bool = True
    """Decode only windows around the faces; False decodes whole frames."""
    crop_margin_latents: int = 4
    """Room around the face in a window, latent cells."""
    update_margin_latents: int | None = 1
    """Change only latents of the face and this many cells around it, so that the background stays
    as it is; None changes all that the loss depends on, as published."""
    detect_every: int = 3
    """Look for the faces in the decoded estimate every so many denoising steps; 0 never."""
    detect_below_sigma: float = 20.0
    """Only look where the estimate is sharp enough, that is below this noise level."""
    chunk_frames: int = 16
    """Frames decoded at once; limits memory."""

    def __post_init__(self) -> None:
        """Refuse impossible settings.

        Raises:
            ConfigError: A count is negative or a rate is not positive.
        """
        for name in ("start_step", "first_steps", "crop_margin_latents", "detect_every"):
            if getattr(self, name) < 0:
                raise ConfigError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        if self.num_iterations < 1 or self.chunk_frames < 1:
            raise ConfigError("`num_iterations` and `chunk_frames` must be at least 1.")
        if self.learning_rate <= 0:
            raise ConfigError(f"`learning_rate` must be above 0, got {self.learning_rate}.")


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
    """Mean |1 - cos| before each Adam step."""


class FaceOptimizer:
    """Correct denoised estimates; the sampler's `correct_denoised`.

    Frames without a visible face are left alone. `history` tells what was done.
    """

    def __init__(  # noqa: PLR0913 - four networks and what they work on
        self,
        codec: LatentCodec,
        embedder: IdentityEmbedder,
        reference_embedding: Float32[np.ndarray, " embedding"],
        landmarks: Float32[np.ndarray, "frames 5 2"],
        config: FaceOptimizationConfig,
        *,
        detector: FaceDetector | None = None,
        on_iteration: Callable[[], None] | None = None,
    ) -> None:
        """Prepare the optimization of one clip.

        Args:
            codec: Decodes latents; gradients flow through it.
            embedder: Recognises faces; gradients flow through it.
            reference_embedding: Unit identity embedding of the reference.
            landmarks: Where the pose says the faces are, pixels; NaN where it shows none.
            config: When and how hard.
            detector: Refines the landmarks in decoded estimates; None never does.
            on_iteration: Called before each Adam step; raising ends everything.

        Raises:
            FaceError: The reference embedding is not a unit vector.
        """
        length = float(np.linalg.norm(reference_embedding))
        if not 0.99 < length < 1.01:
            raise FaceError(
                f"Face optimization needs a unit reference embedding, got length {length:.3f}.",
                reason="no_face",
            )
        self._codec = codec
        self._embedder = embedder
        self._reference = torch.from_numpy(reference_embedding)
        self._template = embedder.template()
        self._landmarks = landmarks.astype(np.float32)
        self._detected = np.zeros(len(landmarks), bool)
        self._detector = detector
        self._config = config
        self._on_iteration = on_iteration
        self.history: list[FaceOptimizationStep] = []

    def __call__(
        self, denoised: Float[Tensor, "1 frames channels h w"], step: StepInfo
    ) -> Float[Tensor, "1 frames channels h w"]:
        """Return the estimate with faces nearer to the reference's."""
        config = self._config
        position = step.step_index - config.start_step
        if not config.enabled or not 0 <= position < config.first_steps:
            return denoised
        if self._should_detect(position, step.sigma):
            self._detect(denoised[0])
        rows = np.flatnonzero(np.isfinite(self._landmarks).all(axis=(1, 2)))
        losses: list[float] = []
        if len(rows):
            denoised = denoised.clone()
            denoised[0, rows], losses = self._optimize(denoised[0, rows], rows, step)
        self.history.append(
            FaceOptimizationStep(
                step_index=step.step_index,
                num_frames=len(rows),
                num_detected=int(self._detected[rows].sum()),
                losses=tuple(losses),
            )
        )
        return denoised

    def _should_detect(self, position: int, sigma: float) -> bool:
        config = self._config
        if self._detector is None or config.detect_every == 0 or sigma > config.detect_below_sigma:
            return False
        return position % config.detect_every == 0 or not self._detected.any()

    @torch.no_grad()
    def _detect(self, latents: Float[Tensor, "frames channels h w"]) -> None:
        """Take the landmarks of faces found in the decoded estimate."""
        if self._detector is None:
            return
        chunks = torch.split(latents, self._config.chunk_frames)
        frames = torch.cat([self._codec.decode(chunk) for chunk in chunks])
        found, is_found = detect_landmarks(to_uint8(frames), self._detector, self._landmarks)
        self._landmarks[is_found] = found[is_found]
        self._detected |= is_found

    def _optimize(
        self,
        latents: Float[Tensor, "faces channels h w"],
        rows: Int64[np.ndarray, " faces"],
        step: StepInfo,
    ) -> tuple[Float[Tensor, "faces channels h w"], list[float]]:
        config = self._config
        landmarks = torch.from_numpy(self._landmarks[rows])
        boxes = self._face_boxes(rows)
        mask = None
        if config.update_margin_latents is not None:
            mask = _cell_mask(boxes, config.update_margin_latents, latents.shape[-2:])
            mask = mask.to(latents)
        corners, size = self._windows(boxes, latents.shape[-2:])
        rate = config.learning_rate
        if config.use_decay:
            rate *= 1 - step.step_index / step.num_inference_steps

        def loss_and_gradient(current: Tensor) -> tuple[float, Tensor]:
            return self._loss_and_gradient(current, landmarks, corners, size)

        return optimize_latents(
            latents,
            loss_and_gradient,
            learning_rate=rate,
            num_iterations=config.num_iterations,
            stop_below_gain=config.stop_below_gain,
            update_mask=mask,
            on_iteration=self._on_iteration,
        )

    def _loss_and_gradient(
        self,
        latents: Float[Tensor, "faces channels h w"],
        landmarks: Float[Tensor, "faces 5 2"],
        corners: Int64[np.ndarray, "faces 2"],
        size: tuple[int, int],
    ) -> tuple[float, Float[Tensor, "faces channels h w"]]:
        """Return the mean identity distance and its gradient, chunk by chunk."""
        total, gradient = 0.0, torch.zeros_like(latents)
        for start in range(0, len(latents), self._config.chunk_frames):
            part = slice(start, start + self._config.chunk_frames)
            chunk = latents[part].detach().requires_grad_()
            crops = self._face_crops(chunk, landmarks[part], corners[part], size)
            cosine = self._embedder.embed_crops(crops) @ self._reference.to(crops)
            loss = (1 - cosine).abs().sum() / len(latents)
            (gradient[part],) = torch.autograd.grad(loss, chunk)
            total += loss.item()
        return total, gradient

    def _face_crops(
        self,
        latents: Float[Tensor, "faces channels h w"],
        landmarks: Float[Tensor, "faces 5 2"],
        corners: Int64[np.ndarray, "faces 2"],
        size: tuple[int, int],
    ) -> Float[Tensor, "faces 3 crop_height crop_width"]:
        """Decode the windows and align the faces in them."""
        windows = torch.stack(
            [
                latent[:, top : top + size[0], left : left + size[1]]
                for latent, (left, top) in zip(latents, corners.tolist(), strict=True)
            ]
        )
        frames = self._codec.decode(windows).clamp(-1, 1)
        offset = torch.from_numpy(corners).to(landmarks) * self._codec.downscale
        crop_size = self._embedder.crop_height_px, self._embedder.crop_width_px
        return align_frames(frames, landmarks - offset[:, None], self._template, crop_size)

    def _face_boxes(self, rows: Int64[np.ndarray, " faces"]) -> Float[np.ndarray, "faces 2 2"]:
        """Return the box of each aligned crop's footprint in its frame, in latent cells."""
        height, width = self._embedder.crop_height_px, self._embedder.crop_width_px
        crop = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]])
        boxes = []
        for row in rows:
            matrix = similarity_from_landmarks(self._landmarks[row], self._template)
            corners = (crop - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
            boxes.append(np.stack([corners.min(axis=0), corners.max(axis=0)]))
        return (np.stack(boxes) + 0.5) / self._codec.downscale

    def _windows(
        self, boxes: Float[np.ndarray, "faces 2 2"], latent_size: torch.Size
    ) -> tuple[Int64[np.ndarray, "faces 2"], tuple[int, int]]:
        """Return each window's left top cell, and the windows' common height and width."""
        limit = np.array([latent_size[1], latent_size[0]])
        if not self._config.crop:
            return np.zeros((len(boxes), 2), np.int64), (latent_size[0], latent_size[1])
        margin = self._config.crop_margin_latents
        start = np.floor(boxes[:, 0]).astype(np.int64) - margin
        end = np.ceil(boxes[:, 1]).astype(np.int64) + margin
        size = np.minimum((end - start).max(axis=0), limit)
        # Windows at the edge move inwards: all have one size.
        centre = (start + end) // 2
        corners = np.clip(centre - size // 2, 0, limit - size)
        return corners, (int(size[1]), int(size[0]))


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
    optimizer = torch.optim.Adam([current], lr=learning_rate)
    losses: list[float] = []
    for iteration in range(num_iterations):
        if on_iteration is not None:
            on_iteration()
        with torch.enable_grad():
            loss, gradient = loss_and_gradient(current)
        losses.append(loss)
        if iteration and losses[-2] - loss < stop_below_gain * losses[-2] and stop_below_gain:
            return current, losses
        current.grad = gradient if update_mask is None else gradient * update_mask
        optimizer.step()
    return current, losses


def to_uint8(frames: Float[Tensor, "frames 3 height width"]) -> np.ndarray:
    """Return RGB frames of about [-1, 1] as uint8 pictures, channels last."""
    scaled = ((frames.detach().float() + 1) * 127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _cell_mask(
    boxes: Float[np.ndarray, "faces 2 2"], margin: int, latent_size: torch.Size
) -> Bool[Tensor, "faces 1 h w"]:
    """Return which latent cells lie in a box, or within a margin of it."""
    start, end = np.floor(boxes[:, 0]) - margin, np.ceil(boxes[:, 1]) + margin
    rows, columns = np.arange(latent_size[0]), np.arange(latent_size[1])
    inside_x = (columns >= start[:, :1]) & (columns < end[:, :1])
    inside_y = (rows >= start[:, 1:]) & (rows < end[:, 1:])
    return torch.from_numpy(inside_y[:, None, :, None] & inside_x[:, None, None, :])
