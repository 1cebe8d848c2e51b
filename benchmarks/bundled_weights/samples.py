"""The cache of rendered training pictures: written once by render_cache, read by every training.

A folder with `<split>_scenes.npy` (pictures, 256x256), `<split>_scenes_truth.npz`,
`<split>_faces.npy` (aligned 112x112 face crops) and `<split>_faces_truth.npz`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from animaray.platform.errors import DatasetError

SCENE_SIZE_PX = 256
CROP_SIZE_PX = 112
MAX_PEOPLE = 3
SPLITS = ("train", "held_out")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenes:
    """Pictures of the generated world with truth; unused places of `people` hold zeros."""

    frames_uint8: UInt8[np.ndarray, "pictures height width 3"]
    """RGB pictures."""
    num_people: Int64[np.ndarray, " pictures"]
    """People in sight, 0 to MAX_PEOPLE; the largest comes first."""
    keypoints: Float32[np.ndarray, "pictures people 18 2"]
    """Pixels; outside the picture where the body goes on there."""
    keypoint_visible: Bool[np.ndarray, "pictures people 18"]
    """Inside the picture and not hidden."""
    face_valid: Bool[np.ndarray, "pictures people"]
    """Whether the face can be seen."""
    face_boxes: Float32[np.ndarray, "pictures people 4"]
    """Left, top, right, bottom, pixels."""
    face_landmarks: Float32[np.ndarray, "pictures people 5 2"]
    """Eyes, nose, mouth corners, pixels."""
    scene_ids: Int64[np.ndarray, " pictures"]
    """Equal for pictures of the same person, outfit and background."""
    colours: Float32[np.ndarray, "pictures attributes"]
    """Skin, hair, top, accent, leg and shoe colour of the largest person, each in [-1, 1]."""
    kinds: Int64[np.ndarray, "pictures kinds"]
    """Hair, beard, top pattern, leg wear, glasses, sleeves of the largest person; -1: none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceCrops:
    """Aligned faces and whose they are."""

    crops_uint8: UInt8[np.ndarray, "crops height width 3"]
    """RGB crops on the 112x112 template."""
    person_ids: Int64[np.ndarray, " crops"]
    """0 to number of people - 1."""


def load_scenes(cache_dir: Path, split: str) -> Scenes:
    """Open the pictures of one split; they stay on disk and are mapped into memory.

    Raises:
        DatasetError: The cache has no such pictures.
    """
    frames, truth = _open(cache_dir, f"{split}_scenes")
    return Scenes(frames_uint8=frames, **truth)


def load_face_crops(cache_dir: Path, split: str) -> FaceCrops:
    """Open the face crops of one split.

    Raises:
        DatasetError: The cache has no such crops.
    """
    crops, truth = _open(cache_dir, f"{split}_faces")
    return FaceCrops(crops_uint8=crops, **truth)


def _open(cache_dir: Path, name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    pictures, truth = cache_dir / f"{name}.npy", cache_dir / f"{name}_truth.npz"
    if not pictures.is_file() or not truth.is_file():
        raise DatasetError(
            f"Expected {pictures.name} and {truth.name} in {cache_dir}; they are not there.",
            fix="Run: python -m benchmarks.bundled_weights.render_cache --out FOLDER",
        )
    with np.load(truth) as arrays:
        return np.load(pictures, mmap_mode="r"), dict(arrays)
