"""Train the people network: keypoints, people and faces of the generated world, in one go.

    python -m benchmarks.bundled_weights.people --cache CACHE --out generated

Writes pose.onnx and face_detector.onnx: one training, two files, each with the layers it needs.

References:
    Zhou et al. 2019, Objects as Points, arXiv:1904.07850 (centres, offsets, the focal loss).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from benchmarks.bundled_weights.export_onnx import export_people
from benchmarks.bundled_weights.optimisation import (
    OptimisationConfig,
    optimise,
    seed_everything,
)
from benchmarks.bundled_weights.people_network import PeopleNetwork
from benchmarks.bundled_weights.people_targets import face_targets, pose_targets, sample_view
from benchmarks.bundled_weights.samples import Scenes, load_scenes

LIMB_ENDS = (3, 4, 6, 7, 9, 10, 12, 13)
"""Elbows, wrists, knees, ankles: they move most and are found last."""
LIMB_WEIGHT = 3.0


def focal_loss(logits: Float[Tensor, "*shape"], heat: Float[Tensor, "*shape"]) -> Tensor:
    """Return the centre loss per picture element, penalty-reduced near the peaks."""
    chance = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    peak = heat > 0.95
    hit = -((1 - chance) ** 2) * chance.log()
    miss = -((1 - heat) ** 4) * chance**2 * (1 - chance).log()
    return torch.where(peak, hit, miss)


def heat_loss(logits: Float[Tensor, "b k h w"], heat: Float[Tensor, "b k h w"]) -> Tensor:
    """Return cross-entropy against soft heat, with more weight on blobs and on limb ends."""
    loss = functional.binary_cross_entropy_with_logits(logits, heat, reduction="none")
    weights = torch.ones(logits.shape[1])
    weights[list(LIMB_ENDS)] = LIMB_WEIGHT
    return (loss * (1 + 40 * heat) * weights[None, :, None, None]).mean()


def people_loss(
    outputs: tuple[Tensor, Tensor, Tensor, Tensor], targets: tuple[Tensor, ...]
) -> tuple[Tensor, dict[str, float]]:
    """Return the sum of all losses and its parts."""
    pose_heat, person, face_heat, face_shape = (part.float() for part in outputs)
    heat, offsets, extra, faces, counts, shape, shape_weight = targets
    reach = extra[:, :18].repeat_interleave(2, dim=1)
    spots = extra[:, 36:37]
    parts = {
        "heat": 6.0 * heat_loss(pose_heat[:, 1:], heat[:, 1:]),
        "centre": focal_loss(pose_heat[:, 0], heat[:, 0]).sum()
        / (heat[:, 0] > 0.95).sum().clamp(1),
        "offset": 4.0
        * (reach * (person[:, :36] - offsets).abs()).sum()
        / (36 * spots.sum()).clamp(1),
        "visible": (
            spots
            * functional.binary_cross_entropy_with_logits(
                person[:, 36:], extra[:, 18:36], reduction="none"
            )
        ).sum()
        / (18 * spots.sum()).clamp(1),
        "face": (counts * focal_loss(face_heat[:, 0], faces)).sum() / (faces > 0.95).sum().clamp(1),
        "shape": 6.0
        * (shape_weight[:, None] * (face_shape - shape).abs()).sum()
        / (14 * (shape_weight > 0).sum()).clamp(1),
    }
    total = torch.stack(list(parts.values())).sum()
    return total, {"loss": float(total)} | {key: float(value) for key, value in parts.items()}


def make_batch(
    scenes: Scenes, rng: np.random.Generator, batch_size: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Draw views and their target maps."""
    frames, rows = [], []
    for index in rng.integers(len(scenes.frames_uint8), size=batch_size):
        view = sample_view(scenes, int(index), rng)
        frames.append(view.frame)
        rows.append((*pose_targets(view), *face_targets(view)))
    pictures = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
    targets = tuple(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
    return pictures, targets


def train_people(cache_dir: Path, config: OptimisationConfig, *, batch_size: int) -> PeopleNetwork:
    """Train the people network on the training split of a cache."""
    rng = seed_everything(config.seed)
    scenes = load_scenes(cache_dir, "train")
    network = PeopleNetwork()

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        del step
        pictures, targets = make_batch(scenes, rng, batch_size)
        outputs = network(pictures)
        with torch.autocast("cpu", enabled=False):
            return people_loss(outputs, targets)

    return optimise(network, loss_of_step, config, name="people")


def main() -> None:
    """Read the command line, train and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder of render_cache")
    parser.add_argument("--out", type=Path, required=True, help="folder of the weights files")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = OptimisationConfig(num_steps=options.steps, seed=options.seed, learning_rate=2e-3)
    network = train_people(options.cache, config, batch_size=options.batch)
    export_people(network, options.out)
    sys.stdout.write(f"wrote pose.onnx and face_detector.onnx to {options.out}\n")


if __name__ == "__main__":
    main()
