"""Pretrain the shipped small animator on many generated clips, in one process.

    python -m benchmarks.bundled_weights.animator --out build/animator --clips 1500 --minutes 45

Clips are rendered and encoded once; then the loop of `animaray train animator` runs in this
process, without Ray and DeepSpeed: first on windows of 4 frames, which show more people per
second, then on windows of 8. Every checkpoint writes a sheet of samples to build/animator/samples.
The same command again resumes; the weights folder is build/animator/run-8/weights.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from animaray.datasets.encoded_clips import EncodedClips, open_encoded_clips
from animaray.models.animation.settings import default_sampler
from animaray.models.perception.generated.codec import GeneratedCodec
from animaray.models.perception.protocols import LatentCodec
from animaray.platform.progress import stage_progress
from animaray.training.animator import AnimatorTask, open_table
from animaray.training.animator_batches import AnimatorBatch, AnimatorBatches, collate
from animaray.training.batch_order import WindowConfig
from animaray.training.configs import (
    AnimatorTrainingConfig,
    LoopConfig,
    OptimizerConfig,
    ScaleConfig,
)
from animaray.training.recipes import animator_demo_cpu
from animaray.training.run_folder import RunFolder
from animaray.training.train_loop import Topology, run_training
from benchmarks.bundled_weights.generated_clips import (
    GeneratedClips,
    write_generated_clips,
)
from benchmarks.bundled_weights.sample_sheet import write_sample_sheet

FIRST_STAGE_SHARE = 0.6
HELD_OUT_CLIPS = 8
HELD_OUT_SEED = 900_000
"""Held-out people: their seeds are below those of the training clips."""


class PretrainTask(AnimatorTask):
    """The animator's task, whose evaluation draws samples of held-out people."""

    def __init__(
        self,
        config: AnimatorTrainingConfig,
        table: EncodedClips,
        held_out: EncodedClips,
        codec: LatentCodec,
        samples_dir: Path,
    ) -> None:
        super().__init__(config, table)
        batches = AnimatorBatches(
            held_out,
            config.window,
            config.animator,
            seed=1,
            reference_noise=0.0,
            warp_codec=codec,
        )
        self._held_out: AnimatorBatch = batches.make(range(len(held_out)))
        self._codec = codec
        self._samples_dir = samples_dir
        self._evaluations = len(list(samples_dir.glob("*.png")))

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Write a sample sheet; return its PSNR and the loss on held-out people."""
        objective = self.objective.eval()
        measured = [objective(self._held_out, seed) for seed in range(4)]
        path = self._samples_dir / f"sheet-{self._evaluations:03d}.png"
        self._evaluations += 1
        psnr = write_sample_sheet(
            path,
            objective.animator,
            self._codec,
            collate([self._held_out.take(place) for place in range(4)]),
            dataclasses.replace(default_sampler(self._config.animator), guidance_scale=1.0),
        )
        objective.train()
        loss = sum(float(part.loss) for part in measured) / len(measured)
        return {"held_out_loss": loss, "held_out_psnr_db": psnr}


def main(arguments: Sequence[str] | None = None) -> None:
    """Render, encode, train on short windows, train on long ones."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    out: Path = options.out
    clips = GeneratedClips(num_clips=options.clips)
    held_out = dataclasses.replace(clips, num_clips=HELD_OUT_CLIPS, first_seed=HELD_OUT_SEED)
    for name, part in (("held_out", held_out), ("dataset", clips)):
        with stage_progress(f"encode {name}", part.num_clips) as progress:
            write_generated_clips(
                out / name,
                part,
                uses_truth=options.truth,
                num_processes=options.threads,
                progress=progress,
            )
    if options.minutes > 0:
        start = options.init_from
        first = _train(out, 4, options.minutes * FIRST_STAGE_SHARE, options.threads, start)
        _train(out, 8, options.minutes * (1 - FIRST_STAGE_SHARE), options.threads, first)


def _train(
    out: Path, num_frames: int, minutes: float, threads: int, init_from: Path | None
) -> Path:
    """Train one stage and return its weights folder; more minutes prolong the second one."""
    is_first_stage = num_frames == 4
    recipe = animator_pretrain_cpu()
    config = dataclasses.replace(
        recipe,
        data_dir=str(out / "dataset"),
        run_dir=str(out / f"run-{num_frames}"),
        policy=None,
        init_from=None if init_from is None else str(init_from),
        window=WindowConfig(num_frames=num_frames, max_stride=12 // num_frames),
        loop=dataclasses.replace(recipe.loop, max_minutes=minutes),
        scale=dataclasses.replace(
            recipe.scale,
            threads_per_worker=threads,
            global_batch_size=32 // num_frames,
            micro_batch_size=32 // num_frames,
        ),
    )
    folder = RunFolder.claim(Path(config.run_dir), config)
    if is_first_stage and folder.read_status().get("state") == "finished":
        return folder.weights_dir
    task = PretrainTask(
        config,
        open_table(config),
        open_encoded_clips(out / "held_out"),
        GeneratedCodec.load(),
        out / "samples",
    )
    run_training(task, config, folder, Topology())
    folder.write_status("finished")
    return folder.weights_dir


def animator_pretrain_cpu() -> AnimatorTrainingConfig:
    """Train the small animator from nothing on generated clips: two cores, an hour or more."""
    demo = animator_demo_cpu()
    return dataclasses.replace(
        demo,
        init_from=None,
        loss=dataclasses.replace(demo.loss, conditioning_dropout=0.05),
        optimizer=OptimizerConfig(lr=5e-4, warmup_steps=100, ema_decay=0.998, betas=(0.9, 0.99)),
        loop=LoopConfig(
            num_steps=1_000_000, log_every_steps=10, checkpoint_every_steps=200, seed=1
        ),
        scale=ScaleConfig(
            num_workers=1,
            strategy="ddp",
            precision="bf16",
            global_batch_size=4,
            micro_batch_size=4,
            threads_per_worker=2,
        ),
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of everything written")
    parser.add_argument("--clips", type=int, default=1500, help="generated clips to train on")
    parser.add_argument("--minutes", type=float, default=45.0, help="time of training")
    parser.add_argument("--init-from", type=Path, help="weights folder to start from")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--truth", action="store_true", help="keypoints and faces from the truth")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
