"""A stand-in for CoTracker3's online predictor that really looks: one shift for all points.

It is called as the published one is: the queries come first, then chunks of up to 2 * step frames
that start step frames after one another; every answer covers all frames so far. A call that the
published predictor would not understand is refused.
"""

import cv2
import numpy as np
import torch
from torch import Tensor, nn


class OnlineShifts:
    """Find the shift of each frame against the first by phase correlation."""

    step = 8

    def __init__(self) -> None:
        self.chunks: list[int] = []
        """Lengths of the chunks of the present clip."""

    def __call__(
        self,
        video_chunk: Tensor,
        is_first_step: bool = False,  # noqa: FBT001, FBT002 - the package's signature
        queries: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Take the queries (frame, x, y) first; then return places and visibility so far."""
        batch, count, channels = video_chunk.shape[:3]
        _require((batch, channels, video_chunk.dtype) == (1, 3, torch.float32), "one RGB clip")
        _require(1 < count <= 2 * self.step, f"2 to {2 * self.step} frames")
        _require(bool(video_chunk.max() > 1.0), "pictures of 0 to 255")
        if is_first_step:
            _require(queries is not None, "queries in the first call")
            assert queries is not None  # noqa: S101 - told to mypy
            _require(queries.shape[::2] == (1, 3), "queries (1, points, 3)")
            _require(bool((queries[..., 0] == 0).all()), "points given in the first frame")
            self.queries: Tensor = queries
            self.first = _grey(video_chunk[0, 0])
            self.shifts: list[tuple[float, float]] = []
            self.chunks = []
            return None, None
        _require(queries is None, "queries in the first call only")
        if self.shifts:
            _require(count > self.step, "a chunk that brings new frames")
        self.chunks.append(count)
        window = cv2.createHanningWindow(self.first.shape[::-1], cv2.CV_32F)
        for frame in video_chunk[0, self.step if self.shifts else 0 :]:
            shift, _ = cv2.phaseCorrelate(self.first, _grey(frame), window)
            self.shifts.append(shift)
        moves = torch.tensor(self.shifts, dtype=torch.float32)[:, None].to(self.queries.device)
        tracks = (self.queries[0, None, :, 1:] + moves)[None]
        return tracks, torch.ones(tracks.shape[:3], dtype=torch.bool)


class CoTrackerOnlinePredictor(nn.Module, OnlineShifts):
    """The published class's name and constructor, around a network that only has weights."""

    def __init__(
        self, checkpoint: str | None = "./checkpoints/scaled_online.pth", window_len: int = 16
    ) -> None:
        nn.Module.__init__(self)
        OnlineShifts.__init__(self)
        _require(checkpoint is None, "no checkpoint: the package would read it with pickle")
        self.model = nn.Linear(3, 2)
        self.step = window_len // 2

    def forward(
        self,
        video_chunk: Tensor,
        is_first_step: bool = False,  # noqa: FBT001, FBT002 - the package's signature
        queries: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Answer as `OnlineShifts`."""
        return OnlineShifts.__call__(self, video_chunk, is_first_step, queries)

    __call__ = nn.Module.__call__


def _require(is_so: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Refuse a call that the published predictor would not understand.

    Raises:
        ValueError: It is one.
    """
    if not is_so:
        raise ValueError(f"The stand-in for CoTracker expected {what}.")


def _grey(frame: Tensor) -> np.ndarray:
    return frame.mean(dim=0).cpu().numpy().astype(np.float32)
