r"""Measure every way of aligning on a MisAlign file: mean distance (Dis) over visible keypoints.

    python -m benchmarks.quality.aligner_on_misalign ../shared/bench/misalign2_open.npz \
        --aligner models/perception/generated/aligner --out report.json

The file holds `reference` (clips, 18, 3: x, y, confidence), `driven` (clips, frames, 18, 3),
`target` (clips, frames, 18, 3: x, y, visible), points divided by the picture's width and height,
`aspect` (width / height) and `variant`. Distances are in the same shares, as in the papers.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from animaray.models.alignment.aligner import PoseAligner
from animaray.models.alignment.alignment import PosedPicture, align_clip
from animaray.models.alignment.methods import AlignmentMethod, TransformScope
from animaray.platform.storage import write_json_atomic

HEIGHT_PX = 1000
WAYS: dict[str, tuple[AlignmentMethod, TransformScope]] = {
    "none": ("none", "clip"),
    "closed form per frame": ("procrustes", "frame"),
    "closed form over the clip": ("procrustes", "clip"),
    "learned per frame": ("learned", "frame"),
    "learned over the clip": ("learned", "clip"),
}


def measure(pack: Any, aligner: PoseAligner) -> dict[str, np.ndarray]:  # noqa: ANN401 - an open npz
    """Return the distance of each clip, by way of aligning."""
    distances: dict[str, list[float]] = {name: [] for name in WAYS}
    rows = {name: pack[name] for name in ("reference", "driven", "target", "aspect")}
    for clip, aspect in enumerate(rows["aspect"]):
        size = np.array([float(aspect), 1.0]) * HEIGHT_PX
        reference, driven = (
            PosedPicture(
                keypoints=rows[name][clip][..., :2] * size,
                keypoint_confidence=rows[name][clip][..., 2],
                width_px=round(float(size[0])),
                height_px=HEIGHT_PX,
            )
            for name in ("reference", "driven")
        )
        truth, visible = rows["target"][clip][..., :2], rows["target"][clip][..., 2]
        for name, (method, scope) in WAYS.items():
            aligned = align_clip(method, reference, driven, aligner=aligner, scope=scope)
            gap = np.linalg.norm(aligned.keypoints / size - truth, axis=-1)
            distances[name].append(float((gap * visible).sum() / visible.sum()))
    return {name: np.array(values) for name, values in distances.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--aligner", type=Path, required=True, help="an aligner's weights folder")
    parser.add_argument("--out", type=Path, help="report as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pack = np.load(options.file)
    distances = measure(pack, PoseAligner.from_pretrained(options.aligner))
    variants = pack["variant"] if "variant" in pack else np.zeros(len(pack["aspect"]))
    report = {
        name: {
            "all": float(values.mean()),
            **{f"variant {v:.0f}": float(values[variants == v].mean()) for v in set(variants)},
        }
        for name, values in distances.items()
    }
    for name, row in report.items():
        print(f"{name:26s}", "  ".join(f"{key} {value:.4f}" for key, value in row.items()))
    if options.out is not None:
        write_json_atomic(options.out, report)


if __name__ == "__main__":
    main()
