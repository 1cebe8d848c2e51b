"""Train the image encoder: pictures of one person, outfit and place agree, others do not.

    python -m benchmarks.bundled_weights.image_encoder --cache CACHE --out generated

Beside the contrast, linear heads read colours of skin, hair and clothes, kinds of hair and clothes,
and an 8x8 thumbnail from the vector, so that it holds appearance in an easily read form.

References:
    van den Oord et al. 2018, arXiv:1807.03748 (the contrastive loss).
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

from animaray.models.perception.generated.image_encoder import INPUT_PX, GeneratedImageEncoder
from animaray.models.perception.generated.networks import IMAGE_DIM
from benchmarks.bundled_weights.degradation import degrade
from benchmarks.bundled_weights.optimisation import (
    OptimisationConfig,
    optimise,
    seed_everything,
)
from benchmarks.bundled_weights.samples import Scenes, load_scenes
from benchmarks.bundled_weights.weights_files import record_accuracy, save_network

TEMPERATURE = 0.1
THUMBNAIL_PX = 8
NUM_KINDS = (12, 5, 5, 3, 3, 2)
_COLOURS = 18


class AppearanceHeads(nn.Module):
    """Linear readers of an embedding, used in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.colours = nn.Linear(IMAGE_DIM, _COLOURS)
        self.thumbnail = nn.Linear(IMAGE_DIM, 3 * THUMBNAIL_PX**2)
        self.kinds = nn.ModuleList(nn.Linear(IMAGE_DIM, count) for count in NUM_KINDS)

    def forward(
        self,
        embeddings: Float[Tensor, "b d"],
        colours: Float[Tensor, "b 18"],
        kinds: Int64[Tensor, "b 6"],
        thumbnails: Float[Tensor, "b numbers"],
    ) -> Tensor:
        """Return the summed reading error; pictures without a person count by thumbnail only."""
        shown = kinds[:, 0] >= 0
        loss = 2.0 * (self.thumbnail(embeddings) - thumbnails).abs().mean()
        if bool(shown.any()):
            loss = loss + 3.0 * (self.colours(embeddings[shown]) - colours[shown]).abs().mean()
            for index, reader in enumerate(self.kinds):
                logits = reader(embeddings[shown])
                loss = loss + 0.15 * functional.cross_entropy(logits, kinds[shown, index])
        return loss


def contrast(
    first: Float[Tensor, "b d"], second: Float[Tensor, "b d"]
) -> tuple[Tensor, Float[Tensor, "b b"]]:
    """Return the symmetric contrastive loss of matching rows and all cosines."""
    cosines = functional.normalize(first, dim=1) @ functional.normalize(second, dim=1).T
    right = torch.arange(len(first))
    logits = cosines / TEMPERATURE
    both = functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)
    return 0.5 * both, cosines


def view_of(
    frame: UInt8[np.ndarray, "height width 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "96 96 3"]:
    """Return a slightly moved, degraded picture of the encoder's input size."""
    size = frame.shape[0]
    scale = INPUT_PX / size * float(np.exp(rng.uniform(-0.05, 0.25)))
    matrix = np.array([[scale, 0, 0], [0, scale, 0]])
    spare = scale * size - INPUT_PX
    matrix[:, 2] = -spare * rng.uniform(0.2, 0.8, 2)
    moved = cv2.warpAffine(
        frame, matrix, (INPUT_PX, INPUT_PX), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101
    )
    return degrade(moved, rng, smallest=0.5, strength=0.5)


def _tensor(pictures: list[UInt8[np.ndarray, "96 96 3"]]) -> Float[Tensor, "b 3 96 96"]:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def rows_by_scene(scenes: Scenes) -> list[Int64[np.ndarray, " _"]]:
    """Return the rows of each scene that has at least two pictures."""
    order = np.argsort(scenes.scene_ids, kind="stable")
    _, starts = np.unique(scenes.scene_ids[order], return_index=True)
    return [rows for rows in np.split(order, starts[1:]) if len(rows) > 1]


def train_image_encoder(
    cache_dir: Path, config: OptimisationConfig, *, batch_size: int
) -> GeneratedImageEncoder:
    """Train the encoder on the training scenes of a cache; batch_size counts pairs."""
    rng = seed_everything(config.seed)
    scenes = load_scenes(cache_dir, "train")
    groups = rows_by_scene(scenes)
    encoder = GeneratedImageEncoder()
    heads = AppearanceHeads()

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        del step
        chosen = [groups[i] for i in rng.choice(len(groups), batch_size, replace=False)]
        rows = np.stack([rng.choice(group, 2, replace=False) for group in chosen], axis=1)
        frames = [cv2.resize(scenes.frames_uint8[r], (192, 192)) for r in rows.reshape(-1)]
        # The thumbnail of one view is asked of the same view; half of the pairs are mirrored.
        flips = np.tile(rng.random(batch_size) < 0.5, 2)
        frames = [f[:, ::-1].copy() if flip else f for f, flip in zip(frames, flips, strict=True)]
        views = _tensor([view_of(frame, rng) for frame in frames])
        embeddings = encoder.encode(views)
        flat = rows.reshape(-1)
        with torch.autocast("cpu", enabled=False):
            embeddings = embeddings.float()
            loss, cosines = contrast(embeddings[:batch_size], embeddings[batch_size:])
            thumbnails = functional.avg_pool2d(views, INPUT_PX // THUMBNAIL_PX).flatten(1)
            reading = heads(
                embeddings,
                torch.from_numpy(scenes.colours[flat]),
                torch.from_numpy(scenes.kinds[flat]),
                thumbnails,
            )
        right = (cosines.argmax(1) == torch.arange(batch_size)).float().mean()
        figures = {"contrast": float(loss), "reading": float(reading), "right": float(right)}
        return loss + reading, figures

    return optimise(
        encoder,
        loss_of_step,
        config,
        name="image_encoder",
        extra_parameters=list(heads.parameters()),
    )


@torch.no_grad()
def embed_scenes(
    encoder: GeneratedImageEncoder, scenes: Scenes, rows: Int64[np.ndarray, " rows"]
) -> Float[np.ndarray, "rows d"]:
    """Return the embeddings of some pictures, without degradation."""
    parts = []
    for start in range(0, len(rows), 64):
        frames = scenes.frames_uint8[np.sort(rows[start : start + 64])]
        order = np.argsort(np.argsort(rows[start : start + 64], kind="stable"), kind="stable")
        pictures = torch.from_numpy(frames[order].copy()).permute(0, 3, 1, 2)
        parts.append(encoder.encode(pictures.float() / 127.5 - 1).numpy())
    return np.concatenate(parts)


def measure_image_encoder(encoder: GeneratedImageEncoder, cache_dir: Path) -> dict[str, float]:
    """Measure retrieval among held-out scenes and how well a linear reading finds colours.

    Returns:
        Share of pictures whose nearest neighbour among one other picture of every scene is of the
        same scene; number of scenes; error of colours (0..255) read by least squares fitted on
        training pictures; mean cosine of the same and of different scenes.
    """
    scenes = load_scenes(cache_dir, "held_out")
    groups = rows_by_scene(scenes)
    queries = embed_scenes(encoder, scenes, np.array([rows[0] for rows in groups]))
    answers = embed_scenes(encoder, scenes, np.array([rows[1] for rows in groups]))
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (queries, answers)]
    cosines = unit[0] @ unit[1].T
    fitted = load_scenes(cache_dir, "train")
    shown = np.flatnonzero(fitted.kinds[:, 0] >= 0)[:1500]
    inputs = embed_scenes(encoder, fitted, shown)
    solution, *_ = np.linalg.lstsq(
        np.concatenate([inputs, np.ones((len(inputs), 1))], 1), fitted.colours[shown], rcond=None
    )
    tested = np.flatnonzero(scenes.kinds[:, 0] >= 0)
    vectors = embed_scenes(encoder, scenes, tested)
    read = np.concatenate([vectors, np.ones((len(vectors), 1))], 1) @ solution
    error = np.abs(read - scenes.colours[tested]).reshape(-1, 6, 3).mean((0, 2)) * 127.5
    names = ("skin", "hair", "top", "accent", "leg", "shoe")
    return {
        "retrieval_accuracy": float((cosines.argmax(1) == np.arange(len(groups))).mean()),
        "retrieval_scenes": float(len(groups)),
        "same_cosine": float(np.diag(cosines).mean()),
        "different_cosine": float(cosines[~np.eye(len(groups), dtype=bool)].mean()),
    } | {f"{name}_colour_error": float(value) for name, value in zip(names, error, strict=True)}


def main() -> None:
    """Read the command line, train, save and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder of render_cache")
    parser.add_argument("--out", type=Path, required=True, help="folder of the weights file")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = OptimisationConfig(num_steps=options.steps, seed=options.seed)
    encoder = train_image_encoder(options.cache, config, batch_size=options.batch)
    save_network(encoder, options.out / "image_encoder.safetensors")
    figures = measure_image_encoder(encoder, options.cache)
    record_accuracy(options.out / "accuracy.json", "image_encoder", figures)
    for key, value in figures.items():
        sys.stdout.write(f"{key} {value:.4f}\n")


if __name__ == "__main__":
    main()
