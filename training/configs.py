"""Settings of the trainers: what both share, and the animator's (no network is loaded)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn

from animaray.models.diffusion.loss import LossConfig
from animaray.models.networks.animator_config import ActivationCheckpointing, AnimatorConfig
from animaray.platform.errors import ConfigError
from animaray.platform.weights.store import resolve_weights
from animaray.training.batch_order import WindowConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW, its schedule, clipping and the moving average of the weights."""

    lr: float = 1e-5
    """Learning rate after the warm-up."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the first and second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    warmup_steps: int = 0
    """Steps of linear rise from 0 to `lr`."""
    schedule: Literal["constant", "cosine"] = "constant"
    """What follows the warm-up; cosine falls to a tenth of `lr` at the last step."""
    max_grad_norm: float | None = 1.0
    """Gradients are scaled down to this norm; None leaves them."""
    ema_decay: float | None = 0.999
    """Decay per step of the weights' moving average, which is what gets exported; None: off."""

    def __post_init__(self) -> None:
        """Refuse settings out of range.

        Raises:
            ConfigError: A setting is out of range.
        """
        if not self.lr > 0:
            raise ConfigError(f"optimizer.lr must be above 0, got {self.lr}.")
        if self.ema_decay is not None and not 0.0 < self.ema_decay < 1.0:
            raise ConfigError(f"optimizer.ema_decay must be in (0, 1), got {self.ema_decay}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """Length of a run and what it writes on the way."""

    num_steps: int
    """Optimizer steps of the whole run."""
    max_minutes: float | None = None
    """Stop after this time of training, over all starts, even before `num_steps`; None: never."""
    log_every_steps: int = 10
    """Steps averaged in one line of metrics.jsonl."""
    checkpoint_every_steps: int = 500
    """Steps between checkpoints; the last step always writes one."""
    keep_checkpoints: int = 2
    """How many complete checkpoints stay on disk."""
    seed: int = 0
    """Seed of the data order, the noise and fresh weights."""

    def __post_init__(self) -> None:
        """Refuse settings out of range.

        Raises:
            ConfigError: A setting is out of range.
        """
        for name in ("num_steps", "log_every_steps", "checkpoint_every_steps", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ConfigError(f"loop.{name} must be at least 1, got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleConfig:
    """How many workers, on what, and how their gradients meet."""

    num_workers: int = 2
    """Ray Train workers, one per GPU or per CPU process."""
    use_gpu: bool = False
    """Whether each worker holds a GPU (NCCL); else CPU processes (gloo)."""
    cpus_per_worker: float = 1.0
    """Logical CPUs that Ray reserves for a worker."""
    threads_per_worker: int = 1
    """Threads of torch's CPU kernels in a worker."""
    strategy: Literal["deepspeed", "ddp"] = "deepspeed"
    """DeepSpeed ZeRO, or torch's DistributedDataParallel."""
    zero_stage: Literal[1, 2] = 2
    """DeepSpeed: 1 splits optimizer states over the workers, 2 also gradients."""
    precision: Literal["float32", "bf16"] = "bf16"
    """Arithmetic of the networks; weights and optimizer states stay in float32."""
    global_batch_size: int = 8
    """Items per optimizer step over all workers; kept when the number of workers changes."""
    micro_batch_size: int = 1
    """Items per worker and pass."""
    max_failures: int = 3
    """How often Ray restarts the workers after one died, before the run fails."""

    def __post_init__(self) -> None:
        """Refuse settings out of range.

        Raises:
            ConfigError: A setting is out of range.
        """
        for name in ("num_workers", "threads_per_worker", "global_batch_size", "micro_batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"scale.{name} must be at least 1, got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimatorTrainingConfig:
    """Everything that decides what an animator training does."""

    data_dir: str
    """Curated dataset whose clips were encoded (`animaray dataset encode`)."""
    run_dir: str
    """Run folder to write or resume."""
    shard_cache_dir: str | None = None
    """Folder on each machine's own disk for copies of the encoded clips that it reads; None: of a
    dataset in an object store, the user's cache folder, and none of a local dataset."""
    shard_cache_gb: float = 64.0
    """Most that those copies take together; 0 keeps none and reads each clip where it lies."""
    animator: AnimatorConfig
    """Architecture and frame size; must equal that of `init_from` when that is given."""
    policy: str | None = "standard"
    """Encoded clips that this policy does not keep (any more) are left out; None takes all."""
    encoder_id: str | None = None
    """Which encoding of the dataset's clips; None: the only one that fits the animator."""
    held_out_share: float | None = 0.2
    """Share of source videos that training leaves out, by the rule of animaray.datasets.splits,
    so that `animaray evaluate` finds people it has not seen; None trains on all."""
    split_seed: int = 0
    """Seed of that rule; the evaluation's."""
    init_from: str | None = None
    """Weights folder or registry id to start from; None: fresh weights. It stands where the
    published method starts from Stable Video Diffusion."""
    aligner_weights: str | None = None
    """Weights folder of a trained aligner to put beside the exported weights, or None."""
    trainable: Literal["all", "published"] = "all"
    """`published` trains PoseNet, the Face Encoder and the U-Net's attentions only."""
    activation_checkpointing: ActivationCheckpointing = "none"
    """What the backward pass computes again instead of storing it: for the published U-Net at
    576x1024 `none` needs 77 GiB of activations, `spatial` 45, `all` 12 (counted)."""
    reference_noise: float = 0.0
    """Standard deviation of noise on the reference's latents, drawn anew for every item, so that
    a model does not take the reference for exact. For models without noise on the reference's
    pixels (`animator.noise_aug_strength`, which `dataset encode` adds)."""
    window: WindowConfig = field(default_factory=WindowConfig)
    """How windows are cut from clips."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Noise levels, weights, face mask and conditioning dropout."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer."""
    loop: LoopConfig
    """Length and checkpoints."""
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    """Workers and precision."""

    def __post_init__(self) -> None:
        """Refuse a share outside (0, 1), and noise on noise.

        Raises:
            ConfigError: `held_out_share` is out of range, or the reference would get noise twice.
        """
        if self.reference_noise > 0 and self.animator.noise_aug_strength > 0:
            raise ConfigError(
                "The reference would get noise twice: on its pixels "
                f"(animator.noise_aug_strength {self.animator.noise_aug_strength:g}) and on its "
                f"latents (reference_noise {self.reference_noise:g}).",
                fix="Set one of the two to 0.",
            )
        share = self.held_out_share
        if share is not None and not 0.0 < share < 1.0:
            raise ConfigError(f"held_out_share must be in (0, 1) or null, got {share}.")


def initial_folder(init_from: str) -> Path:
    """Return the weights folder to start from: a folder as it is, else that of a registry id."""
    return Path(init_from) if Path(init_from).is_dir() else resolve_weights(init_from)


def refuse_initial(init_from: str, kind: str) -> NoReturn:
    """Refuse to start from weights of another architecture.

    Raises:
        ConfigError: Always.
    """
    raise ConfigError(
        f"The weights of init_from ({init_from}) have another architecture than the `{kind}` "
        "settings.",
        fix=f"Use the {kind} settings of those weights, or start fresh with init_from=null.",
    )
