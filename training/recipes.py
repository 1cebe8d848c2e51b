"""Full configurations by name: what each is for, on which machine, and what to expect.

A recipe is a function, so that every setting can be read, overridden (`--set optimizer.lr=2e-5`)
and found in the run folder afterwards.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from animaray.models.alignment.aligner import AlignerConfig
from animaray.models.diffusion.loss import LossConfig
from animaray.models.diffusion.schedule import NoiseLevelConfig
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.networks.warped_reference import WarpedReferenceConfig
from animaray.models.perception.generated import networks as generated_networks
from animaray.models.perception.permissive import mobile_face_net, tiny_autoencoder
from animaray.platform.weights.store import BUNDLED_ANIMATOR
from animaray.training.aligner import BUNDLED_ALIGNER, AlignerTrainingConfig
from animaray.training.batch_order import WindowConfig
from animaray.training.configs import (
    AnimatorTrainingConfig,
    LoopConfig,
    OptimizerConfig,
    ScaleConfig,
)

_SMALL_LOSS = LossConfig(
    noise_levels=NoiseLevelConfig(
        distribution="log_normal", log_mean=-0.5, log_std=1.0, sigma_min=0.02, sigma_max=3.0
    ),
    sigma_data=WarpedReferenceConfig().residual_std,
)
"""For models that correct a warped reference: sampling starts at their `start_sigma`."""


def aligner_demo_cpu() -> AlignerTrainingConfig:
    """Train the pose aligner on the demo's clips: two CPU workers, about a minute.

    It starts from the bundled aligner; with `--set init_from=null` it starts as the closed form.
    """
    return AlignerTrainingConfig(
        data_dir="dataset",
        run_dir="runs/aligner",
        aligner=AlignerConfig(width=64, feed_forward_factor=2),
        init_from=BUNDLED_ALIGNER,
        optimizer=OptimizerConfig(
            lr=1e-3, warmup_steps=20, schedule="cosine", weight_decay=0.01, ema_decay=0.99
        ),
        loop=LoopConfig(
            num_steps=600, max_minutes=1.5, log_every_steps=20, checkpoint_every_steps=300
        ),
        scale=ScaleConfig(
            num_workers=2,
            strategy="ddp",
            precision="float32",
            global_batch_size=256,
            micro_batch_size=128,
        ),
    )


def aligner_8xa100() -> AlignerTrainingConfig:
    """Train the aligner as published, 50 epochs over 5K videos: one machine with 8 A100.

    Nine million frames are 1.3 GB of keypoints and stay in memory; 50 epochs are 450 million
    pairs. Kernel launches limit the speed, so the batch is large.
    """
    return AlignerTrainingConfig(
        data_dir="dataset",
        run_dir="runs/aligner",
        aligner=AlignerConfig(),
        optimizer=OptimizerConfig(
            lr=3e-4, warmup_steps=1000, schedule="cosine", weight_decay=0.01, ema_decay=0.9995
        ),
        loop=LoopConfig(num_steps=55_000, log_every_steps=100, checkpoint_every_steps=5000),
        scale=ScaleConfig(
            num_workers=8,
            use_gpu=True,
            strategy="ddp",
            precision="float32",
            global_batch_size=8192,
            micro_batch_size=1024,
            threads_per_worker=4,
        ),
    )


def animator_demo_cpu() -> AnimatorTrainingConfig:
    """Fine-tune the shipped small animator on the demo's clips: two CPU workers, six minutes.

    DeepSpeed ZeRO-2 over gloo, 192 x 192, windows of 8 frames. It starts from the bundled
    weights; with `--set init_from=null` it starts fresh and six minutes are far too few.
    """
    return AnimatorTrainingConfig(
        data_dir="dataset",
        run_dir="runs/animator",
        animator=AnimatorConfig.generated(),
        init_from=BUNDLED_ANIMATOR,
        reference_noise=0.02,
        window=WindowConfig(num_frames=8, max_stride=2, mirror_probability=0.0),
        loss=_SMALL_LOSS,
        optimizer=OptimizerConfig(lr=1e-4, warmup_steps=10, ema_decay=0.98),
        loop=LoopConfig(
            num_steps=160, max_minutes=6.0, log_every_steps=5, checkpoint_every_steps=40
        ),
        scale=ScaleConfig(
            num_workers=2,
            strategy="deepspeed",
            zero_stage=2,
            precision="bf16",
            global_batch_size=4,
            micro_batch_size=2,
        ),
    )


def animator_permissive_cpu() -> AnimatorTrainingConfig:
    """Train the small animator on real people under profile permissive: two CPU workers.

    There are no weights to start from, so the six minutes only show that the chain works:
    raise loop.max_minutes and loop.num_steps for more.
    """
    return replace(
        animator_demo_cpu(),
        animator=AnimatorConfig.generated(
            profile="permissive",
            latent_channels=tiny_autoencoder.LATENT_CHANNELS,
            identity_dim=mobile_face_net.EMBEDDING_DIM,
            image_embedding_dim=generated_networks.IMAGE_DIM,
        ),
        init_from=None,
    )


def animator_tiny_cpu() -> AnimatorTrainingConfig:
    """Train a model of under a million parameters on 32 x 32 pixels: for tests."""
    return replace(
        animator_demo_cpu(),
        animator=AnimatorConfig.tiny(),
        init_from=None,
        window=WindowConfig(num_frames=4),
        optimizer=OptimizerConfig(lr=1e-3, ema_decay=0.9),
        loop=LoopConfig(num_steps=6, log_every_steps=1, checkpoint_every_steps=2),
        scale=ScaleConfig(
            num_workers=2,
            strategy="deepspeed",
            precision="float32",
            global_batch_size=4,
            micro_batch_size=1,
        ),
    )


def animator_1gpu() -> AnimatorTrainingConfig:
    """Train the full model on one GPU of 80 GB: to try settings, not to finish a training.

    Only attentions, PoseNet and Face Encoder train, as in the authors' release.
    """
    return replace(
        animator_8xa100(),
        scale=ScaleConfig(
            num_workers=1,
            use_gpu=True,
            strategy="ddp",
            precision="bf16",
            global_batch_size=8,
            micro_batch_size=1,
            cpus_per_worker=4.0,
            threads_per_worker=4,
        ),
    )


def animator_8xa100() -> AnimatorTrainingConfig:
    """Train the full model with the published settings: one machine with 8 A100 of 80 GB.

    Batch 1 per GPU, learning rate 1e-5 constant, the release's noise levels, loss and dropout;
    latents are drawn from the VAE's posterior, and the reference has noise of 0.02 on its pixels,
    as `dataset encode --profile paper` prepares both. 12,500 steps are 20 epochs of 5,000 clips.
    Start from Stable Video Diffusion by setting init_from to a weights folder made with
    `animaray weights import --backbone`. What differs from the release, and why, stands in
    docs/published_differences.md.
    """
    return AnimatorTrainingConfig(
        data_dir="dataset",
        run_dir="runs/animator",
        animator=AnimatorConfig.published(),
        held_out_share=0.01,
        trainable="published",
        activation_checkpointing="all",
        window=WindowConfig(num_frames=16, max_stride=4),
        loss=LossConfig(),
        optimizer=OptimizerConfig(lr=1e-5, weight_decay=0.01, ema_decay=0.9995),
        loop=LoopConfig(
            num_steps=12_500, log_every_steps=20, checkpoint_every_steps=500, keep_checkpoints=3
        ),
        scale=ScaleConfig(
            num_workers=8,
            use_gpu=True,
            strategy="deepspeed",
            zero_stage=2,
            precision="bf16",
            global_batch_size=8,
            micro_batch_size=1,
            cpus_per_worker=4.0,
            threads_per_worker=4,
            max_failures=10,
        ),
    )


def animator_2x8xa100() -> AnimatorTrainingConfig:
    """Train the full model on two machines with 8 A100 each, as cluster.yaml starts them.

    The global batch doubles to 16, so half as many steps see the same data; run_dir must lie on
    the storage that the machines share.
    """
    single = animator_8xa100()
    return replace(
        single,
        run_dir="/mnt/animaray/runs/animator",
        data_dir="/mnt/animaray/dataset",
        loop=replace(single.loop, num_steps=6_250),
        scale=replace(single.scale, num_workers=16, global_batch_size=16),
    )


RECIPES: Mapping[str, Callable[[], AlignerTrainingConfig | AnimatorTrainingConfig]] = (
    MappingProxyType(
        {
            recipe.__name__: recipe
            for recipe in (
                aligner_demo_cpu,
                aligner_8xa100,
                animator_demo_cpu,
                animator_permissive_cpu,
                animator_tiny_cpu,
                animator_1gpu,
                animator_8xa100,
                animator_2x8xa100,
            )
        }
    )
)
"""All recipes by name."""
