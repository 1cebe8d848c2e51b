"""Train U-Net, PoseNet and Face Encoder on encoded clips; one function on any machine.

Command: animaray train animator --data DATASET --out RUN
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from animaray.datasets.encoded_clips import EncodedClips, open_encoded_clips, table_prefix
from animaray.datasets.reader import CurationDataset
from animaray.datasets.shard_cache import ShardCache, shard_cache_dir
from animaray.datasets.splits import held_out_sources, write_trained_sources
from animaray.models.alignment.aligner import PoseAligner
from animaray.models.diffusion.loss import LossConfig, LossDraws, denoising_loss
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.perception.profiles import load_codec
from animaray.models.perception.protocols import LatentCodec
from animaray.platform.disk import check_folder
from animaray.platform.errors import DatasetError
from animaray.platform.progress import StageProgress
from animaray.platform.storage import write_json_atomic
from animaray.platform.stores import is_remote
from animaray.training.animator_batches import AnimatorBatch, AnimatorBatches
from animaray.training.configs import AnimatorTrainingConfig, initial_folder, refuse_initial
from animaray.training.launch import TrainResult, launch
from animaray.training.train_loop import Measured


class AnimatorObjective(nn.Module):
    """The denoising loss of a batch as one module call, for DDP and DeepSpeed."""

    def __init__(
        self, animator: Animator, config: LossConfig, precision: Literal["float32", "bf16"]
    ) -> None:
        super().__init__()
        self.animator = animator
        self._config = config
        self._precision = precision

    def forward(self, batch: AnimatorBatch, noise_seed: int) -> Measured:
        """Return the loss; noise, noise levels and dropout come from the seed alone."""
        generator = torch.Generator().manual_seed(noise_seed)
        device_type = batch.latents.device.type
        uses_bf16 = self._precision == "bf16"
        with torch.autocast(device_type, torch.bfloat16, enabled=uses_bf16):
            output = denoising_loss(
                self.animator,
                batch.latents,
                batch.conditioning,
                batch.face_mask,
                self._config,
                LossDraws.of(batch.latents, self._config, generator),
            )
        return Measured(loss=output.loss, sums=_by_sigma(output.sigma, output.per_clip))


class AnimatorTask:
    """What the shared loop needs to train an animator."""

    def __init__(self, config: AnimatorTrainingConfig, table: EncodedClips) -> None:
        torch.manual_seed(config.loop.seed)
        animator = load_initial_animator(config)
        select_trainable(animator, config.trainable)
        animator.unet.recompute(config.activation_checkpointing)
        self._config = config
        self._sources = set(table.source_ids().values())
        self.objective = AnimatorObjective(animator, config.loss, config.scale.precision)
        self._batches = AnimatorBatches(
            table,
            config.window,
            config.animator,
            seed=config.loop.seed,
            reference_noise=config.reference_noise,
            warp_codec=load_warp_codec(config.animator),
        )

    def make_batch(self, positions: range) -> AnimatorBatch:
        """Return the batch of these items, on the CPU.

        The warped reference is made in float32, as in animations, whatever the precision of the
        networks.
        """
        return self._batches.make(positions)

    def to_device(self, batch: AnimatorBatch, device: torch.device) -> AnimatorBatch:
        """Move a batch."""
        return batch.to(device)

    def evaluate(self) -> dict[str, float]:
        """Return nothing: animators are judged by animaray.evaluation on held-out clips."""
        return {}

    def export(self, folder: Path) -> None:
        """Write the animator's weights folder, with the aligner beside it."""
        self.objective.animator.save_pretrained(folder)
        write_json_atomic(folder / "perception.json", {"profile": self._config.animator.profile})
        write_trained_sources(folder, self._sources)
        if self._config.aligner_weights is not None:
            aligner = PoseAligner.from_pretrained(Path(self._config.aligner_weights))
            aligner.save_pretrained(folder / "aligner")


def make_animator_task(config: AnimatorTrainingConfig) -> AnimatorTask:
    """Open the encoded clips and build what a configuration trains."""
    return AnimatorTask(config, open_table(config))


def train_animator(
    config: AnimatorTrainingConfig, progress: StageProgress | None = None
) -> TrainResult:
    """Train the animator on Ray Train workers; the same configuration again resumes.

    Args:
        config: What to train; recipes are in animaray.training.recipes.
        progress: Row to advance; None shows an own row.

    Raises:
        DatasetError: The dataset was not encoded for this animator.
        RunError: The run folder belongs to another configuration, or training failed.
        MachineError: The Ray session is too small.
    """
    open_table(config)  # refuse before any worker starts
    if config.aligner_weights is not None:
        PoseAligner.from_pretrained(Path(config.aligner_weights))
    return launch(make_animator_task, config, progress)


def open_table(config: AnimatorTrainingConfig) -> EncodedClips:
    """Open the encoded clips that fit the animator.

    Raises:
        DatasetError: There is none, or it was encoded for other sizes.
    """
    animator = config.animator
    size_px = animator.width_px, animator.height_px
    noise = animator.noise_aug_strength
    prefix = table_prefix(animator.profile, *size_px, animator.fps, noise)
    table = open_encoded_clips(
        config.data_dir, config.encoder_id, prefix=prefix, cache=shard_cache(config)
    )
    sources = table.source_ids()
    if config.policy is not None:
        # All kept clips, encoded or not: evaluation holds out sources of the same set.
        dataset = CurationDataset.open(config.data_dir)
        rows = dataset.table("clips", ["clip_id", "source_id"])
        known = dict(zip(rows["clip_id"].to_pylist(), rows["source_id"].to_pylist(), strict=True))
        sources = {clip_id: known[clip_id] for clip_id in dataset.clip_ids(config.policy)}
        table.keep_only(set(sources))
    if not table.clip_ids:
        raise DatasetError(
            f"Policy {config.policy} keeps none of the encoded clips of {config.data_dir}.",
            fix="Encode the dataset again under this policy, or name another policy.",
        )
    if config.held_out_share is not None:
        held_out = held_out_sources(sources.values(), config.held_out_share, config.split_seed)
        table.keep_only({name for name, source in sources.items() if source not in held_out})
        if not table.clip_ids:
            raise DatasetError(
                f"Every encoded clip of {config.data_dir} is of a held-out source video.",
                fix="Encode more clips, or hold none out: --set held_out_share=null.",
            )
    _check_sizes(config, table)
    bodies_only = table.num_without_further_points()
    if config.animator.pose_layout == "whole_body_134" and bodies_only:
        raise DatasetError(
            f"The animator is shown hands and faces, which {bodies_only} of {len(table)} encoded "
            f"clips of {config.data_dir} lack: they were curated without.",
            fix="Curate the videos again (--profile paper, or --set pose_layout=whole_body_134) "
            "and encode them; or train on bodies: --set animator.pose_layout=openpose_18.",
            reason="no_further_points",
        )
    return table


def shard_cache(config: AnimatorTrainingConfig) -> ShardCache | None:
    """Return where this machine keeps copies of shards; None where each clip is read as it lies."""
    is_wanted = config.shard_cache_dir is not None or is_remote(config.data_dir)
    if not is_wanted or config.shard_cache_gb == 0:
        return None
    folder = Path(config.shard_cache_dir) if config.shard_cache_dir else shard_cache_dir()
    check_folder(folder, "The shard cache")
    return ShardCache(folder, round(config.shard_cache_gb * 1e9))


def _check_sizes(config: AnimatorTrainingConfig, table: EncodedClips) -> None:
    """Refuse clips that were encoded for other sizes, or with other noise, than the animator's.

    Raises:
        DatasetError: They were.
    """
    animator = config.animator
    size_px = animator.width_px, animator.height_px
    clip = table.load(table.clip_ids[0])
    found = {
        "width_px": clip.width_px,
        "height_px": clip.height_px,
        "fps": clip.fps,
        "noise_aug_strength": clip.reference_noise,
        "latent_channels": clip.latents.shape[1],
        "identity_dim": len(clip.identity_embedding),
        "image_embedding_dim": clip.image_embeddings.shape[1],
    }
    wrong = [
        f"{name} {value:g} (the animator needs {getattr(animator, name):g})"
        for name, value in found.items()
        if value != getattr(animator, name)
    ]
    if animator.identity_input != "unit" and clip.raw_identity is None:
        wrong.append("unit identities only (the animator needs the recogniser's raw output)")
    if wrong:
        raise DatasetError(
            f"The encoded clips of {config.data_dir} do not fit the animator: {', '.join(wrong)}.",
            fix=f"Run: animaray dataset encode {config.data_dir} --profile {animator.profile} "
            f"--size {size_px[0]}x{size_px[1]} --fps {animator.fps:g} "
            f"--set reference_noise={animator.noise_aug_strength:g}; or train with the recipe "
            "for these clips (animaray train recipes).",
        )


def load_warp_codec(animator: AnimatorConfig) -> LatentCodec | None:
    """Load the codec that the warped reference is made with, or None for models that take none."""
    return None if animator.warped_reference is None else load_codec(animator.profile)


def load_initial_animator(config: AnimatorTrainingConfig) -> Animator:
    """Return the animator to start from, in training mode.

    Weights that were trained without the warped reference are taken, too. They then start with
    the warped reference as their estimate.
    """
    if config.init_from is None:
        return Animator(config.animator).train()
    animator = Animator.from_pretrained(initial_folder(config.init_from))
    if animator.config != config.animator and animator.config == replace(
        config.animator, warped_reference=None
    ):
        grown = Animator(config.animator)
        kept = {
            name: weight
            for name, weight in animator.state_dict().items()
            if not name.startswith("unet.conv_out.")  # what it estimates is something else now
        }
        grown.load_state_dict({**grown.state_dict(), **kept})
        return grown.train()
    if animator.config != config.animator:
        refuse_initial(config.init_from, "animator")
    return animator.train()


def select_trainable(animator: Animator, trainable: Literal["all", "published"]) -> None:
    """Freeze what the published training freezes: the U-Net but for its attentions.

    What the model itself froze, because it cannot learn, stays frozen.
    """
    if trainable == "published":
        for name, weight in animator.unet.named_parameters():
            if "attentions" not in name:
                weight.requires_grad = False


def _by_sigma(sigma: Tensor, per_clip: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the loss summed within decades of the noise level, and how many items each got."""
    bins = {"low": (0.0, 0.3), "middle": (0.3, 3.0), "high": (3.0, float("inf"))}
    sums = {}
    for name, (least, most) in bins.items():
        inside = ((sigma >= least) & (sigma < most)).float()
        sums[f"loss_sigma_{name}"] = ((per_clip.detach() * inside).sum(), inside.sum())
    return sums
