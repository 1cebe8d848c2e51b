"""Keypoints of clips that no dataset holds, as the aligner's training takes them."""

import numpy as np
import torch
from jaxtyping import Float

from animaray.training.aligner_pairs import PoseClips


def make_pose_clips(
    points: list[Float[np.ndarray, "_ 18 2"]],
    confidences: list[Float[np.ndarray, "_ 18"]],
    aspects: list[float],
    groups: list[str],
) -> PoseClips:
    """Put clips one after the other."""
    lengths = np.array([len(clip) for clip in points], dtype=np.int64)
    return PoseClips(
        keypoints=torch.from_numpy(np.concatenate(points).astype(np.float32)),
        confidence=torch.from_numpy(np.concatenate(confidences).astype(np.float32)),
        first=torch.from_numpy(np.cumsum(lengths) - lengths),
        length=torch.from_numpy(lengths),
        aspect=torch.tensor(aspects, dtype=torch.float32),
        groups=tuple(groups),
    )
