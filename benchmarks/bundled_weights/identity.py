"""Train the identity embedder with an additive angular margin over generated people.

    python -m benchmarks.bundled_weights.identity --cache CACHE --out generated

References:
    Deng et al. 2019, ArcFace, arXiv:1801.07698 (the loss); Boutros et al. 2022, ElasticFace,
    arXiv:2109.09416 (drawing the margin at random).
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional

from animaray.models.perception.generated.identity import CROP_PX, GeneratedIdentityEmbedder
from animaray.models.perception.generated.networks import IDENTITY_DIM
from benchmarks.bundled_weights.degradation import degrade
from benchmarks.bundled_weights.optimisation import (
    OptimisationConfig,
    optimise,
    seed_everything,
)
from benchmarks.bundled_weights.samples import load_face_crops
from benchmarks.bundled_weights.weights_files import record_accuracy, save_network

MARGIN_RAD = 0.35
LOGIT_SCALE = 24.0


class AngularMarginHead(nn.Module):
    """One direction per person; the right one must win by an angle."""

    def __init__(self, num_people: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.randn(num_people, IDENTITY_DIM) * 0.05)

    def forward(
        self, embeddings: Float[Tensor, "b d"], people: Int64[Tensor, " b"], *, margin: float
    ) -> Tensor:
        """Return the mean cross-entropy with the margin added to the right angles (radians)."""
        cosines = embeddings @ functional.normalize(self.directions, dim=1).T
        right = cosines.gather(1, people[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
        widened = torch.cos((right.acos() + margin).clamp(max=torch.pi))
        logits = LOGIT_SCALE * cosines.scatter(1, people[:, None], widened)
        return functional.cross_entropy(logits, people)


def augment_crop(
    crop: UInt8[np.ndarray, "112 112 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "112 112 3"]:
    """Return the crop as a weaker detector and a smaller picture would have given it."""
    if rng.random() < 0.8:
        turn, scale = rng.normal(0, 4.0), np.exp(rng.normal(0, 0.05))
        matrix = cv2.getRotationMatrix2D((CROP_PX / 2, CROP_PX / 2), turn, scale)
        matrix[:, 2] += rng.normal(0, 2.0, 2)
        crop = cv2.warpAffine(
            crop,
            matrix,
            (CROP_PX, CROP_PX),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return degrade(crop, rng, smallest=0.15)


def train_identity(
    cache_dir: Path, config: OptimisationConfig, *, batch_size: int
) -> GeneratedIdentityEmbedder:
    """Train the embedder on the training people of a cache."""
    rng = seed_everything(config.seed)
    faces = load_face_crops(cache_dir, "train")
    embedder = GeneratedIdentityEmbedder()
    head = AngularMarginHead(int(faces.person_ids.max()) + 1)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        rows = rng.integers(len(faces.person_ids), size=batch_size)
        crops = np.stack([augment_crop(faces.crops_uint8[row], rng) for row in rows])
        embeddings = embedder.embed_crops(
            torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
        )
        people = torch.from_numpy(faces.person_ids[rows])
        margin = MARGIN_RAD * min(1.0, step / (0.4 * config.num_steps))
        with torch.autocast("cpu", enabled=False):
            loss = head(embeddings, people, margin=margin)
        guess = (
            embeddings.detach() @ functional.normalize(head.directions.detach(), dim=1).T
        ).argmax(1)
        return loss, {"loss": float(loss), "right": float((guess == people).float().mean())}

    return optimise(
        embedder, loss_of_step, config, name="identity", extra_parameters=[head.directions]
    )


@torch.no_grad()
def measure_identity(
    embedder: GeneratedIdentityEmbedder, cache_dir: Path, *, seed: int = 1
) -> dict[str, float]:
    """Measure verification on people that were never trained on, clean and degraded.

    Returns:
        Mean cosine of same and of different people, ROC area, true positive rate at 1 % false
        positives; `degraded_` for crops reduced to a quarter of their size, blurred and compressed.
    """
    rng = np.random.default_rng(seed)
    faces = load_face_crops(cache_dir, "held_out")
    figures: dict[str, float] = {}
    for prefix in ("", "degraded_"):
        crops = np.asarray(faces.crops_uint8)
        if prefix:
            crops = np.stack([degrade(crop, rng, smallest=0.25) for crop in crops])
        tensor = torch.from_numpy(crops.copy()).permute(0, 3, 1, 2)
        embeddings = torch.cat(
            [embedder.embed_crops(part.float() / 127.5 - 1) for part in torch.split(tensor, 64)]
        ).numpy()
        figures |= {f"{prefix}{k}": v for k, v in verify(embeddings, faces.person_ids).items()}
    return figures


def verify(
    embeddings: Float[np.ndarray, "faces d"], people: Int64[np.ndarray, " faces"]
) -> dict[str, float]:
    """Return mean cosines, the area under the ROC curve and the hit rate at 1 % false alarms."""
    cosines = embeddings @ embeddings.T
    above = np.triu(np.ones_like(cosines, dtype=bool), 1)
    same = people[:, None] == people[None, :]
    positive, negative = np.sort(cosines[above & same]), np.sort(cosines[above & ~same])
    ranks = np.searchsorted(negative, positive) / len(negative)
    threshold = float(np.quantile(negative, 0.99))
    return {
        "same_cosine": float(positive.mean()),
        "different_cosine": float(negative.mean()),
        "roc_area": float(ranks.mean()),
        "hit_rate_at_1pct": float((positive > threshold).mean()),
        "threshold_at_1pct": threshold,
    }


def main() -> None:
    """Read the command line, train, save and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder of render_cache")
    parser.add_argument("--out", type=Path, required=True, help="folder of the weights file")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = OptimisationConfig(num_steps=options.steps, seed=options.seed, learning_rate=2e-3)
    embedder = train_identity(options.cache, config, batch_size=options.batch)
    save_network(embedder, options.out / "identity.safetensors")
    figures = measure_identity(embedder, options.cache)
    record_accuracy(options.out / "accuracy.json", "identity", figures)
    for key, value in figures.items():
        sys.stdout.write(f"{key} {value:.4f}\n")


if __name__ == "__main__":
    main()
