"""Estimate the memory that a worker of an animator training needs, without running anything.

Weights, gradients, optimizer states and averages are counted exactly; activations are proportional
to latent cells, by values counted on the meta device (benchmarks/costs/tables.py).
"""

from dataclasses import dataclass

import torch

from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import ActivationCheckpointing
from animaray.training.animator import select_trainable
from animaray.training.configs import AnimatorTrainingConfig

ACTIVATION_VALUES: dict[ActivationCheckpointing, float] = {
    "none": 274_500.0,
    "spatial": 162_300.0,
    "all": 42_600.0,
}
"""Values held for the backward pass per latent cell of the published U-Net, by what is computed
again; other U-Nets are scaled by their first width."""
_COUNTED_WIDTH = 320
_MASTER_BYTES = 4
"""Weights, gradients and moments are float32 under every precision."""
_REDUCE_BUCKET = 500_000_000
"""Numbers in DeepSpeed's buffer of gradients; it has two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingMemory:
    """Bytes of one worker by use; all are held at once."""

    weights_bytes: int
    """All networks, trained or frozen, and the copies in the precision of the arithmetic."""
    gradients_bytes: int
    """Of what is trained, with the buffers in which workers exchange them."""
    optimizer_bytes: int
    """AdamW's moments and the moving average; ZeRO shares them out."""
    activations_bytes: int
    """What one pass holds for its backward pass."""

    @property
    def peak_bytes(self) -> int:
        """Their sum."""
        return (
            self.weights_bytes
            + self.gradients_bytes
            + self.optimizer_bytes
            + self.activations_bytes
        )


def estimate_training_memory(config: AnimatorTrainingConfig) -> TrainingMemory:
    """Return what each worker of a training needs."""
    scale, animator = config.scale, config.animator
    with torch.device("meta"):
        network = Animator(animator)
    select_trainable(network, config.trainable)
    total = sum(weight.numel() for weight in network.parameters())
    trained = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    is_half = scale.precision == "bf16"
    shares = scale.num_workers
    averages = 0 if config.optimizer.ema_decay is None else trained / shares
    gradients: float
    moments: float
    if scale.strategy == "deepspeed":
        # Each rank has its share of a second copy of the weights; from stage 2 on of gradients.
        moments = (3 if scale.zero_stage == 1 else 4) * trained / shares
        gradients = trained + 2 * min(_REDUCE_BUCKET, trained)
    else:
        gradients, moments = 2 * trained, 2 * trained  # gradients lie in DDP's buffers, too
    cells = (
        config.window.num_frames
        * (animator.width_px // animator.downscale)
        * (animator.height_px // animator.downscale)
    )
    values = ACTIVATION_VALUES[config.activation_checkpointing]
    values *= animator.unet.block_out_channels[0] / _COUNTED_WIDTH
    return TrainingMemory(
        # Autocast keeps a copy of each trained weight for the length of a pass.
        weights_bytes=_MASTER_BYTES * total + (2 * trained if is_half else 0),
        gradients_bytes=int(_MASTER_BYTES * gradients),
        optimizer_bytes=int(_MASTER_BYTES * (moments + averages)),
        activations_bytes=int((2 if is_half else 4) * cells * values * scale.micro_batch_size),
    )
