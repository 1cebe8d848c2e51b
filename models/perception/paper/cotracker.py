"""Follow points with CoTracker3's online network, window by window (CC-BY-NC-4.0, not bundled).

The network looks at 16 frames at a time and moves on by 8; it keeps what it has seen in between.
Package and weights are the user's to install; both are asked for here alone, when a tracker is
loaded. Unlike optical flow it finds a point again that was hidden for a while.

References:
    Karaev et al. 2024, "CoTracker3: Simpler and Better Point Tracking by Pseudo-Labelling Real
    Videos", arXiv 2410.11831. Calling convention: facebookresearch/co-tracker at 82e02e8.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from animaray.models.perception.checkpoint_files import load_state
from animaray.platform.errors import ConfigError, MachineError, WeightsError
from animaray.platform.weights.store import resolve_weights

WEIGHTS_ID = "paper/cotracker3"
WINDOW_LEN = 16
"""Frames that the published online network looks at; it moves on by half of them."""
INSTALL = (
    "pip install 'git+https://github.com/facebookresearch/co-tracker"
    "@82e02e8029753ad4ef13cf06be7f4fc5facdda4d' (CC-BY-NC-4.0); or curate with "
    "`--profile permissive`, whose tracker needs nothing."
)


@runtime_checkable
class OnlinePredictor(Protocol):
    """What is used of the package's CoTrackerOnlinePredictor."""

    step: int
    """Frames between the starts of two chunks; a chunk has up to twice as many."""

    def __call__(
        self,
        video_chunk: Float[Tensor, "1 frames 3 height width"],
        is_first_step: bool = False,  # noqa: FBT001, FBT002 - theirs
        queries: Float[Tensor, "1 points 3"] | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Take the queries (frame, x, y) first; then return places and visibility so far."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CoTrackerConfig:
    """Settings of the tracker."""

    points_at_once: int = 512
    """More points are followed in several passes: memory grows with their number."""
    device: str | None = None
    """"cpu" or "cuda"; None takes the GPU where there is one."""

    def __post_init__(self) -> None:
        """Refuse settings out of range.

        Raises:
            ConfigError: points_at_once is below 1.
        """
        if self.points_at_once < 1:
            raise ConfigError(f"Expected points_at_once >= 1, got {self.points_at_once}.")


class CoTrackerTracker:
    """Track points through the frames of one clip at a time; the predictor holds state."""

    def __init__(self, predictor: OnlinePredictor, config: CoTrackerConfig | None = None) -> None:
        """Wrap a predictor that is on its device already.

        Args:
            predictor: The package's, or one of the same calling convention.
        """
        self.name = "paper/cotracker3_online"
        self.config = config or CoTrackerConfig()
        self._predictor = predictor
        self._device = torch.device(self.config.device or "cpu")

    @classmethod
    def load(
        cls, path: Path | None = None, config: CoTrackerConfig | None = None
    ) -> "CoTrackerTracker":
        """Load the registered weights (`paper/cotracker3`), or those of a file.

        Args:
            path: State dict of the online network, as published (scaled_online.pth).

        Raises:
            MachineError: The package is not installed.
            WeightsError: The file is missing, damaged or of another network.
        """
        config = config or CoTrackerConfig()
        device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
        predictor = _new_predictor()
        path = path or resolve_weights(WEIGHTS_ID)
        state = load_state(path)
        try:
            predictor.model.load_state_dict(state.get("model", state))
        except (RuntimeError, AttributeError) as error:
            raise WeightsError(
                f"{path} does not hold CoTracker3's online network: {str(error).splitlines()[0]}",
                fix=f"Get it again: `animaray weights pull {WEIGHTS_ID}`.",
                reason="architecture",
            ) from error
        predictor.eval().requires_grad_(requires_grad=False).to(device)
        return cls(predictor, CoTrackerConfig(points_at_once=config.points_at_once, device=device))

    def track(
        self,
        frames_uint8: UInt8[np.ndarray, "frames height width 3"],
        points: Float32[np.ndarray, "points 2"],
    ) -> tuple[Float32[np.ndarray, "frames points 2"], Bool[np.ndarray, "frames points"]]:
        """Follow points given in the first frame.

        Args:
            frames_uint8: RGB frames in order.
            points: Places in the first frame, pixels.

        Returns:
            Places in every frame (pixels) and visibility; a hidden point may be seen again.
        """
        num_frames, num_points = len(frames_uint8), len(points)
        tracks = np.repeat(points[None], num_frames, axis=0)
        visibility = np.ones((num_frames, num_points), dtype=bool)
        if num_frames < 2 or num_points == 0:
            return tracks, visibility
        for first in range(0, num_points, self.config.points_at_once):
            some = slice(first, first + self.config.points_at_once)
            tracks[:, some], visibility[:, some] = self._pass(frames_uint8, points[some])
        # The network estimates the points it was given anew; where they were is known.
        tracks[0], visibility[0] = points, True
        height, width = frames_uint8.shape[1:3]
        x, y = tracks[..., 0], tracks[..., 1]
        visibility &= (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
        return tracks, visibility

    @torch.no_grad()
    def _pass(
        self,
        frames_uint8: UInt8[np.ndarray, "frames height width 3"],
        points: Float32[np.ndarray, "points 2"],
    ) -> tuple[Float32[np.ndarray, "frames points 2"], Bool[np.ndarray, "frames points"]]:
        """Feed overlapping chunks; the answer to the last one covers the whole clip.

        Raises:
            MachineError: The package answers otherwise.
        """
        step, num_frames = self._predictor.step, len(frames_uint8)
        on_frame = torch.zeros((len(points), 1))
        queries = torch.cat([on_frame, torch.from_numpy(points)], dim=1)[None].to(self._device)
        self._predictor(self._chunk(frames_uint8, 0), is_first_step=True, queries=queries)
        tracks, visibility = self._predictor(self._chunk(frames_uint8, 0))
        # A chunk must bring frames beyond those that it shares with the one before.
        for start in range(step, num_frames - step, step):
            tracks, visibility = self._predictor(self._chunk(frames_uint8, start))
        if tracks is None or visibility is None or tracks.shape[1] != num_frames:
            got = "nothing" if tracks is None else f"{tracks.shape[1]} frames"
            raise MachineError(
                f"CoTracker answered with {got} for a clip of {num_frames} frames.",
                fix=INSTALL,
                reason="other_package",
            )
        return (
            tracks[0].float().cpu().numpy().astype(np.float32),
            visibility[0].reshape(num_frames, -1).cpu().numpy().astype(bool),
        )

    def _chunk(
        self, frames_uint8: UInt8[np.ndarray, "frames height width 3"], start: int
    ) -> Float[Tensor, "1 chunk 3 height width"]:
        """Return the frames from one place on as the predictor takes them: RGB, 0 to 255."""
        frames = np.ascontiguousarray(frames_uint8[start : start + 2 * self._predictor.step])
        return torch.from_numpy(frames).permute(0, 3, 1, 2)[None].to(self._device).float()


def _new_predictor() -> Any:  # noqa: ANN401 - the package is untyped
    """Return the package's predictor without weights.

    Raises:
        MachineError: The package is not installed, or is another one.
    """
    try:
        from cotracker.predictor import CoTrackerOnlinePredictor

        # The package would read a checkpoint with pickle; ours is read as plain tensors.
        return CoTrackerOnlinePredictor(checkpoint=None, window_len=WINDOW_LEN)
    except ImportError as error:
        raise MachineError(
            "The paper profile follows points with CoTracker3, whose package is not installed.",
            fix=INSTALL,
            reason="missing_package",
        ) from error
    except TypeError as error:
        raise MachineError(
            f"The installed cotracker package is not the one this was made for: {error}.",
            fix=INSTALL,
            reason="other_package",
        ) from error
