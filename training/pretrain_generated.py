"""Pretrain the shipped small animator on many generated clips, in one process.

    python -m animaray.training.pretrain_generated --out build/animator --clips 1500 --minutes 45

Clips are rendered and encoded once (resumable); then the loop of `animaray train animator` runs in
this process, without Ray and DeepSpeed, and writes a sheet of samples with every checkpoint:
build/animator/samples/step-00000500.png. The same command again resumes; the weights folder is
build/animator/run/weights.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from animaray.datasets.conditions import ConditionsTable, open_conditions
from animaray.models.diffusion.sampler import SamplerConfig
from animaray.models.frozen.generated_codec import GeneratedCodec
from animaray.models.frozen.generated_faces import GeneratedFaceDetector
from animaray.models.frozen.generated_identity import GeneratedIdentityEmbedder
from animaray.models.frozen.generated_image_encoder import GeneratedImageEncoder
from animaray.models.frozen.generated_pose import GeneratedPoseEstimator
from animaray.models.frozen.protocols import LatentCodec
from animaray.platform.errors import WeightsError
from animaray.platform.progress import stage_progress
from animaray.training.animator import AnimatorTask, AnimatorTrainingConfig, open_table
from animaray.training.animator_batches import AnimatorBatch, AnimatorBatches
from animaray.training.generated_conditions import (
    GeneratedClips,
    GeneratedEncoders,
    write_generated_conditions,
)
from animaray.training.recipes import animator_pretrain_cpu
from animaray.training.run_folder import RunFolder
from animaray.training.sample_sheet import write_sample_sheet
from animaray.training.train_loop import LoopSettings, Topology, run_training

HELD_OUT_CLIPS = 8
HELD_OUT_SEED = 900_000
"""Held-out people: their seeds are below those of the training clips."""


class PretrainTask(AnimatorTask):
    """The animator's task, whose evaluation draws samples of held-out people."""

    def __init__(
        self,
        config: AnimatorTrainingConfig,
        table: ConditionsTable,
        held_out: ConditionsTable,
        codec: LatentCodec,
        samples_dir: Path,
    ) -> None:
        super().__init__(config, table)
        batches = AnimatorBatches(held_out, config.window, seed=1, reference_noise=0.0)
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
            self._held_out.take_first(4),
            SamplerConfig(
                num_inference_steps=12, sigma_min=0.02, sigma_max=80.0, guidance_scale=1.0
            ),
        )
        objective.train()
        loss = sum(float(part.loss) for part in measured) / len(measured)
        return {"held_out_loss": loss, "held_out_psnr_db": psnr}


def load_encoders(*, uses_truth: bool) -> GeneratedEncoders:
    """Load the shipped networks; the truth of the world stands in for detectors only if asked."""
    return GeneratedEncoders(
        codec=GeneratedCodec.load(),
        image_encoder=GeneratedImageEncoder.load(),
        identity_embedder=GeneratedIdentityEmbedder.load(),
        pose_estimator=None if uses_truth else GeneratedPoseEstimator(),
        face_detector=None if uses_truth else GeneratedFaceDetector(),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Render, encode, train."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    out: Path = options.out
    try:
        encoders = load_encoders(uses_truth=options.truth)
    except WeightsError as error:
        raise WeightsError(error.message, fix="Pass --truth to use the world's truth.") from error
    clips = GeneratedClips(num_clips=options.clips)
    held_out = dataclasses.replace(clips, num_clips=HELD_OUT_CLIPS, first_seed=HELD_OUT_SEED)
    with stage_progress("held-out clips", HELD_OUT_CLIPS) as progress:
        write_generated_conditions(out / "held_out", held_out, encoders, progress)
    with stage_progress("training clips", options.clips) as progress:
        write_generated_conditions(out / "dataset", clips, encoders, progress)

    recipe = animator_pretrain_cpu()
    config = dataclasses.replace(
        recipe,
        data_dir=str(out / "dataset"),
        run_dir=str(out / "run"),
        loop=dataclasses.replace(recipe.loop, max_minutes=options.minutes),
        scale=dataclasses.replace(recipe.scale, threads_per_worker=options.threads),
    )
    folder = RunFolder.claim(out / "run", config)
    task = PretrainTask(
        config,
        open_table(config),
        open_conditions(out / "held_out"),
        encoders.codec,
        out / "samples",
    )
    settings = LoopSettings(optimizer=config.optimizer, loop=config.loop, scale=config.scale)
    run_training(task, settings, folder, Topology())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of everything written")
    parser.add_argument("--clips", type=int, default=1500, help="generated clips to train on")
    parser.add_argument("--minutes", type=float, default=45.0, help="time of training")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--truth", action="store_true", help="keypoints and faces from the truth")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
