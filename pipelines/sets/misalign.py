"""Misaligned driving poses as a recipe (MisAlign100 style): which clips, and how each is moved.

    {"kind": "misalign", "seed", "ranges", "items": [{"item_id", "clip_id", "rotation_deg",
     "scale", "shift_x", "shift_y", ...}]}

A point of a driving video is turned and scaled about the picture's centre, then shifted:
p' = centre + scale * rotate(p - centre) + shift. The parameters of a clip depend on the seed and
the clip alone, so that the same recipe comes from any order or number of clips.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float, UInt8

from animaray.datasets.reader import CurationDataset
from animaray.models.alignment.misalignment import MisalignmentConfig, random_similarity
from animaray.pipelines.stages.identify import list_inputs
from animaray.platform.config import config_to_dict
from animaray.platform.errors import AnimarayError, DatasetError
from animaray.platform.media.video import (
    ChildFrameStream,
    DecodeLimits,
    FrameSelection,
    Mp4Writer,
    probe_in_child,
)
from animaray.platform.storage import content_id, make_folder
from animaray.platform.stores import is_remote

Item = Mapping[str, Any]


def misalign(
    source: str | Path,
    *,
    count: int = 100,
    seed: int = 0,
    policy: str = "standard",
    ranges: MisalignmentConfig | None = None,
) -> dict[str, Any]:
    """Choose clips and draw a similarity transform for each.

    Args:
        source: Curated dataset, whose kept clips are used, or any folder of videos.
        count: Clips wanted; fewer where there are fewer.
        seed: Same seed, same recipe.
        policy: Whose kept clips, for a dataset.
        ranges: Of rotation, scale and shift; None for those of the MisAlign benchmark.

    Raises:
        DatasetError: There is no clip to use.
    """
    ranges = ranges or MisalignmentConfig()
    is_dataset = is_remote(source) or Path(source, "_commits").is_dir()
    candidates = _clips(source, policy) if is_dataset else _videos(Path(source))
    if not candidates:
        raise DatasetError(f"There is no usable clip in {source}.", reason="empty")
    order = sorted(candidates, key=lambda item: content_id("misalign", seed, item["clip_id"]))
    items = [{**item, **_draw(item, seed, ranges)} for item in order[: max(0, count)]]
    return {
        "kind": "misalign",
        "recipe_version": 1,
        "source": str(source),
        "source_kind": "dataset" if is_dataset else "folder",
        "dataset_version": CurationDataset.open(source).snapshot.version if is_dataset else None,
        "policy": policy if is_dataset else None,
        "seed": seed,
        "ranges": config_to_dict(ranges),
        "items": items,
    }


def transform_matrix(item: Item, width: int, height: int) -> Float[np.ndarray, "2 3"]:
    """Return the matrix that maps pixels of the source to pixels of the misaligned picture."""
    angle, scale = math.radians(item["rotation_deg"]), item["scale"]
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = np.array([item["shift_x"] * width, item["shift_y"] * height])
    return np.concatenate([linear, (centre + shift - linear @ centre)[:, None]], axis=1)


def render_items(
    recipe: Mapping[str, Any], out: Path, *, advance: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Write the misaligned video of every item; return the files.

    Args:
        recipe: As `misalign` returns it.
        out: Folder to write; files that exist are kept.
        advance: Told each item that is complete.
    """
    make_folder(out)
    source = str(recipe["source"])
    dataset = CurationDataset.open(source) if recipe["source_kind"] == "dataset" else None
    files = []
    for item in recipe["items"]:
        target = out / f"{item['item_id']}.mp4"
        if not target.is_file():
            partial = target.with_suffix(".part.mp4")
            if dataset is not None:
                with dataset.media_file(item["clip_id"]) as stored:
                    _render(stored, partial, item)
            else:
                _render(Path(source, item["file"]), partial, item)
            partial.replace(target)
        files.append(target)
        advance(item["item_id"])
    return files


def _clips(source: str | Path, policy: str) -> list[dict[str, Any]]:
    dataset = CurationDataset.open(source)
    facts = ["clip_id", "file_name", "start_s", "end_s", "width", "height"]
    rows = dataset.table("clips", facts)
    names = ["file" if name == "file_name" else name for name in facts]
    kept = pa.array(dataset.clip_ids(policy), type=pa.string())
    chosen = rows.filter(pc.is_in(rows["clip_id"], value_set=kept))
    return list(chosen.rename_columns(names).to_pylist())


def _videos(source: Path) -> list[dict[str, Any]]:
    found = []
    for path in list_inputs(source, limit=None):
        name = path.relative_to(source).as_posix()
        try:
            info = probe_in_child(path)
        except AnimarayError:
            continue  # not a video that could be used; misalign counts what is left
        item = {"clip_id": content_id("file", name), "file": name, "start_s": 0.0, "end_s": None}
        found.append({**item, "width": info.width, "height": info.height})
    return found


def _draw(item: Item, seed: int, ranges: MisalignmentConfig) -> dict[str, Any]:
    """Draw one transform; the clip's own generator makes it independent of all others."""
    name = content_id("misalign", seed, item["clip_id"], "draw")
    generator = torch.Generator().manual_seed(int(name[:15], 16))
    aspect = torch.tensor([item["width"] / item["height"]], dtype=torch.float64)
    drawn = random_similarity(aspect, ranges, generator)
    centre = torch.stack([aspect, torch.ones_like(aspect)], -1) / 2
    shift = (drawn.apply(centre[:, None])[:, 0] - centre)[0]
    return {
        "item_id": name,
        "rotation_deg": math.degrees(float(drawn.rotation[0])),
        "scale": float(drawn.scale[0]),
        "shift_x": float(shift[0] / aspect[0]),
        "shift_y": float(shift[1]),
    }


def _render(source: Path, target: Path, item: Item) -> None:
    with (
        ChildFrameStream(source, DecodeLimits(), FrameSelection()) as frames,
        Mp4Writer(target, frames.info.fps or 25.0) as writer,
    ):
        for pts_s, frame in frames:
            writer.add(_move(frame, item), pts_s)


def _move(
    frame: UInt8[np.ndarray, "height width 3"], item: Item
) -> UInt8[np.ndarray, "height width 3"]:
    height, width = frame.shape[:2]
    matrix = transform_matrix(item, width, height)
    return cv2.warpAffine(
        frame, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
