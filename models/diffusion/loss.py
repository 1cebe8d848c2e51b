"""The training loss: weighted denoising error, doubled on faces (eq. 25), with dropout."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from animaray.models.diffusion.schedule import NoiseLevelConfig, sample_sigmas
from animaray.models.networks.conditioning import Conditioning
from animaray.models.networks.preconditioning import loss_weight
from animaray.platform.errors import ConfigError

Denoiser = Callable[..., Tensor]
"""An `Animator` or a wrapper of one (DDP, DeepSpeed): called as its `forward`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """Noise levels, dropout and face weight of training; the defaults are the published ones."""

    noise_levels: NoiseLevelConfig = field(default_factory=NoiseLevelConfig)
    """Distribution of sigma."""
    conditioning_dropout: float = 0.1
    """Chance to drop the image token alone; the same again for the reference latents alone, and
    again for both. Face tokens and pose are never dropped."""
    use_face_mask: bool = True
    """Weigh faces double; False is the ablation."""
    face_weight_power: int = 1
    """1 weighs with (1 + M) as the released code; 2 with (1 + M)^2 as the paper's equation."""
    sigma_data: float = 1.0
    """Standard deviation of what is denoised; the animator's own `residual_std`."""

    def __post_init__(self) -> None:
        """Refuse impossible chances and powers.

        Raises:
            ConfigError: A value is out of range.
        """
        if not 0 <= self.conditioning_dropout <= 1 / 3:
            raise ConfigError(
                "`conditioning_dropout` must be within [0, 1/3] (it is used three times), got "
                f"{self.conditioning_dropout}."
            )
        if self.face_weight_power not in {1, 2}:
            raise ConfigError(f"`face_weight_power` must be 1 or 2, got {self.face_weight_power}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class LossOutput:
    """The loss and what curves need."""

    loss: Float[Tensor, ""]
    """Mean over the batch; carries gradients."""
    per_clip: Float[Tensor, " batch"]
    """Weighted loss of each clip, detached."""
    unweighted: Float[Tensor, " batch"]
    """Mean squared error of each clip's denoised latents, detached."""
    sigma: Float[Tensor, " batch"]
    """Noise level of each clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossDraws:
    """The random numbers of one training step."""

    sigma: Float[Tensor, " batch"]
    """Noise level of each clip."""
    noise: Float[Tensor, "batch frames channels h w"]
    """Unit noise."""
    chance: Float[Tensor, " batch"]
    """Uniform in [0, 1]; decides what is dropped, see `dropout_masks`."""

    @classmethod
    def of(
        cls,
        latents: Float[Tensor, "batch frames channels h w"],
        config: LossConfig,
        generator: torch.Generator | None = None,
    ) -> "LossDraws":
        """Draw on the CPU, so that a step can be repeated anywhere."""
        batch_size, device = latents.shape[0], latents.device
        return cls(
            sigma=sample_sigmas(batch_size, config.noise_levels, generator).to(device),
            noise=torch.randn(latents.shape, generator=generator).to(latents),
            chance=torch.rand(batch_size, generator=generator).to(device),
        )


def denoising_loss(
    denoiser: Denoiser,
    latents: Float[Tensor, "batch frames channels h w"],
    conditioning: Conditioning,
    face_mask: Float[Tensor, "batch frames 1 h w"],
    config: LossConfig,
    draws: LossDraws,
) -> LossOutput:
    """Noise the latents, denoise them and compare: weight(sigma) (D(z + n) - z)^2 (1 + M)^power.

    Args:
        denoiser: Called once, as `Animator.forward`.
        latents: Clean latents of unit variance.
        conditioning: Not encoded yet.
        face_mask: M: 1 inside the face, 0 outside, in the latents' resolution.
        config: Dropout and weights.
        draws: Noise level, noise and dropout of each clip.
    """
    sigma = draws.sigma
    noise = sigma[:, None, None, None, None].to(latents.dtype) * draws.noise
    drop_image, drop_reference = dropout_masks(draws.chance, config.conditioning_dropout)
    denoised = denoiser(
        latents + noise, sigma, conditioning, drop_image=drop_image, drop_reference=drop_reference
    )
    error = (denoised.float() - latents.float()).square()
    unweighted = error.detach().mean(dim=(1, 2, 3, 4))
    if config.use_face_mask:
        error = error * (1 + face_mask.float()) ** config.face_weight_power
    per_clip = error.mean(dim=(1, 2, 3, 4)) * loss_weight(sigma.float(), config.sigma_data)
    return LossOutput(
        loss=per_clip.mean(), per_clip=per_clip.detach(), unweighted=unweighted, sigma=sigma
    )


def dropout_masks(
    chance: Float[Tensor, " batch"], dropout: float
) -> tuple[Bool[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """Return which clips lose the image token, and which the reference latents.

    Args:
        chance: One uniform draw per clip: below p image only, below 2p both, below 3p
            reference only.
        dropout: p.
    """
    return chance < 2 * dropout, (chance >= dropout) & (chance < 3 * dropout)


def face_mask_from_boxes(
    boxes: Float[Tensor, "*items 4"],
    valid: Bool[Tensor, "*items"],
    frame_size_px: tuple[int, int],
    latent_size: tuple[int, int],
    *,
    absent_value: float = 0.0,
) -> Float[Tensor, "*items 1 h w"]:
    """Draw face boxes as masks in the latents' resolution (nearest, as published).

    Args:
        boxes: Left, top, right, bottom in pixels.
        valid: False where no face was found.
        frame_size_px: Width and height of the frames.
        latent_size: Height and width of the latents.
        absent_value: Mask of frames without a face; the published code weighs them all with 1.
    """
    (width_px, height_px), (height, width) = frame_size_px, latent_size
    x = torch.floor(torch.arange(width, device=boxes.device) * (width_px / width))
    y = torch.floor(torch.arange(height, device=boxes.device) * (height_px / height))
    left, top, right, bottom = (edge[..., None] for edge in boxes.unbind(-1))
    inside_x = (x >= left.floor()) & (x <= right.floor())
    inside_y = (y >= top.floor()) & (y <= bottom.floor())
    mask = (inside_y[..., :, None] & inside_x[..., None, :]).float()
    mask = torch.where(valid[..., None, None], mask, torch.full_like(mask, absent_value))
    return mask.unsqueeze(-3)
