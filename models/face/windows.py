"""Where faces are in latents: boxes, the cells that may change, the windows to decode."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from animaray.models.perception.decoding.windowed_decoding import DecodeWindow
from animaray.models.perception.face_alignment import similarity_from_landmarks
from animaray.models.perception.protocols import IdentityEmbedder


def face_boxes_px(
    landmarks: Float[np.ndarray, "faces 5 2"], embedder: IdentityEmbedder
) -> Float[np.ndarray, "faces 2 2"]:
    """Return the box of each aligned crop's footprint: left top, right bottom, pixel centres.

    Args:
        landmarks: Finite, pixels.
        embedder: Its crop's size and template.
    """
    height, width = embedder.crop_height_px, embedder.crop_width_px
    crop = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]])
    template = embedder.template()
    boxes = []
    for points in landmarks:
        matrix = similarity_from_landmarks(points, template)
        corners = (crop - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
        boxes.append(np.stack([corners.min(axis=0), corners.max(axis=0)]))
    return np.stack(boxes)


def cell_boxes(
    boxes_px: Float[np.ndarray, "faces 2 2"], downscale: int, frame_size: tuple[int, int]
) -> Int64[np.ndarray, "faces 2 2"]:
    """Return boxes in whole latent cells, first and one past the last, inside the frame.

    Args:
        boxes_px: Left top, right bottom, pixel centres.
        downscale: Pixels per cell.
        frame_size: Height and width of the latents.
    """
    # Bilinear sampling reads the pixels on both sides of a place; rounding errors do not count.
    start = np.floor(np.floor(boxes_px[:, 0] + 1e-3) / downscale).astype(np.int64)
    end = np.floor(np.ceil(boxes_px[:, 1] - 1e-3) / downscale).astype(np.int64) + 1
    limit = np.array([frame_size[1], frame_size[0]])
    start = np.clip(start, 0, limit - 1)
    return np.stack([start, np.maximum(np.clip(end, 1, limit), start + 1)], axis=1)


def cell_mask(
    boxes: Int64[np.ndarray, "faces 2 2"], margin: int, frame_size: tuple[int, int]
) -> Bool[Tensor, "faces 1 h w"]:
    """Return which latent cells lie in a box, or within a margin of it."""
    start, end = boxes[:, 0] - margin, boxes[:, 1] + margin
    rows, columns = np.arange(frame_size[0]), np.arange(frame_size[1])
    inside_x = (columns >= start[:, :1]) & (columns < end[:, :1])
    inside_y = (rows >= start[:, 1:]) & (rows < end[:, 1:])
    return torch.from_numpy(inside_y[:, None, :, None] & inside_x[:, None, None, :])


def plan_window(
    boxes: Int64[np.ndarray, "faces 2 2"],
    frame_size: tuple[int, int],
    *,
    margin: int,
    multiple: int = 8,
    num_shared_frames: int | None = None,
) -> DecodeWindow:
    """Return windows of one size around the boxes; those at the frame's edge move inwards.

    Args:
        boxes: Faces, latent cells.
        frame_size: Height and width of the latents.
        margin: Least room around a box, cells.
        multiple: Sides are multiples of this, where the frame is large enough.
        num_shared_frames: One window around all boxes, for so many frames; None: one per box.
    """
    if num_shared_frames is not None:
        union = np.stack([boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)])
        boxes = np.repeat(union[None], num_shared_frames, axis=0)
    limit = np.array([frame_size[1], frame_size[0]])
    core = (boxes[:, 1] - boxes[:, 0]).max(axis=0)
    size = np.minimum(-(-(core + 2 * margin) // multiple) * multiple, limit)
    core_corners = np.clip((boxes[:, 0] + boxes[:, 1] - core) // 2, 0, limit - core)
    corners = np.clip(core_corners - (size - core) // 2, 0, limit - size)
    return DecodeWindow(
        frame_size=frame_size,
        size=(int(size[1]), int(size[0])),
        corners=corners,
        core_size=(int(core[1]), int(core[0])),
        core_corners=core_corners,
    )
